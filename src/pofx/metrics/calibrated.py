r"""What a calibrated classifier says of two samples: accuracy, AUC, and Jensen-Shannon divergence, as in arXiv:2106.05285.

A classifier learns on a share of the events; an isotonic regression on other events makes a probability D(x) of its scores; on the rest,

.. math:: \mathrm{JSD} = 1 + \frac{1}{2 \ln 2} \left( E_Q \ln D(x) + E_P \ln (1 - D(x)) \right)

in units of ln 2, 0 for equal and 1 for separate samples, and never above the true divergence but for fluctuations. The AUC is that of D.
Probabilities stay within 1/(n + 2) of 0 and 1, n events that calibrate, so that no single event decides. Errors and p-values are those
of the events that neither trained nor calibrated, for this one classifier; :func:`pofx.c2st` measures how much classifiers differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_expit

from pofx.classifiers import Classifier, classifier
from pofx.classifiers.base import Floats, Labelled, balanced_weights, labelled
from pofx.config import check_between
from pofx.errors import ConfigError, DataError
from pofx.metrics.scores import effective
from pofx.metrics.two_sample import FEWEST, MeasureStatistic, Plan, Pooled, Prepared

__all__ = ["CalibratedClassifier", "Calibration", "temperature"]

COLDEST, HOTTEST = 0.2, 20.0
"""Temperatures that are looked at."""


@dataclass(frozen=True)
class CalibratedClassifier(MeasureStatistic):
    """Accuracy, AUC and Jensen-Shannon divergence of a classifier after isotonic calibration.

    Parameters
    ----------
    judge : ``"trees"``, ``"network"``, or a config of :mod:`pofx.classifiers`.
    train, calibrate : shares of the events of either side; the rest are for the values.
    most : events per side.

    >>> from pofx.metrics.samples import side
    >>> rng = np.random.default_rng(1)
    >>> a, b = (side(rng.normal(shift, 1, (500, 2)), None, "") for shift in (0, 2))
    >>> [one.name for one in CalibratedClassifier("trees").measure(a, b, Plan()) if one.p_value < 0.01]
    ['accuracy (trees)', 'AUC (trees)', 'Jensen-Shannon divergence (trees)']
    """

    judge: str | Classifier = "network"
    train: float = 0.6
    calibrate: float = 0.2
    most: int | None = 50_000
    name: ClassVar[str] = "classifier"

    def __post_init__(self) -> None:
        check_between(self, 0.01, 0.98, "train", "calibrate")
        if self.train + self.calibrate > 0.99:
            raise ConfigError(
                f"CalibratedClassifier: expected train + calibrate below 1; got {self.train + self.calibrate}"
            )
        classifier(self.judge)

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        config = classifier(self.judge)
        learn, adjust, rest = self._parts(events, plan.rng("split", self.name))
        train = _part(events, learn)
        fitted = config.fit(train.x, train.label, train.weight, seed=plan.derived("judge"))
        chance = Calibration(fitted.logit(events.x[adjust]), _part(events, adjust), plan.derived("calibration"))
        held_out = Pooled(events.x[rest], events.second[rest], events.weight[rest])
        scores = chance(fitted.logit(held_out.x))
        titles = ("accuracy", "AUC", "Jensen-Shannon divergence")
        note = f"trained on {len(learn)}, calibrated on {len(adjust)} events"
        return Prepared(held_out, _Values(scores), tuple(f"{title} ({config.name})" for title in titles), note=note)

    def _parts(self, events: Pooled, rng: np.random.Generator) -> tuple[NDArray[np.intp], ...]:
        """Events that train, that calibrate, and the rest; both sides in equal shares."""
        found: list[list[NDArray[np.intp]]] = []
        for rows in (np.flatnonzero(~events.second), np.flatnonzero(events.second)):
            cuts = np.cumsum([int(self.train * len(rows)), int(self.calibrate * len(rows))])
            found.append(np.split(rng.permutation(rows), cuts))
            if min(map(len, found[-1])) < FEWEST:
                sizes = [len(part) for part in found[-1]]
                raise DataError(f"expected {FEWEST} events per side to train, to calibrate and to test; got {sizes}")
        return tuple(np.concatenate(pair) for pair in zip(*found, strict=True))


class _Values:
    """Accuracy, AUC and divergence of probabilities ``(n,)`` as functions of two measures."""

    def __init__(self, chance: Floats) -> None:
        self._order = np.argsort(chance, kind="stable")
        ordered = chance[self._order]
        self._starts = np.flatnonzero(np.r_[True, np.diff(ordered) > 0])
        level = ordered[self._starts]
        self._right = 0.5 + 0.5 * np.sign(level - 0.5)
        self._gain = np.log(level) / (2.0 * math.log(2.0)), np.log1p(-level) / (2.0 * math.log(2.0))

    def __call__(self, a: Floats, b: Floats) -> Floats:
        p, q = (np.add.reduceat(one[self._order], self._starts, axis=0) for one in (a, b))
        accuracy = (self._right @ q + (1.0 - self._right) @ p) / 2.0
        area = (q * (np.cumsum(p, axis=0) - p / 2.0)).sum(0)
        divergence = 1.0 + self._gain[0] @ q + self._gain[1] @ p
        return np.stack([accuracy, area, divergence], axis=1)


class Calibration:
    """The probability of label 1 by isotonic regression, from scores ``(n,)`` of labelled events; call it with scores.

    Negative weights are replaced by their conditional mean given the score and the label.

    >>> label = np.array([0, 0, 1, 0, 1, 1])
    >>> events = Labelled(np.zeros((6, 1)), label > 0, np.ones(6))
    >>> Calibration(np.arange(6.0), events, 0)([0.0, 2.5, 9.0]).round(3)
    array([0.125, 0.5  , 0.875])
    """

    def __init__(self, scores: Floats, events: Labelled, seed: int) -> None:
        from sklearn.isotonic import IsotonicRegression

        from pofx.classifiers.signed import positive_weights

        found = positive_weights(labelled(scores, events.label, events.weight), seed)
        edge = 1.0 / (effective(events.weight) + 2.0)
        self._map = IsotonicRegression(y_min=edge, y_max=1.0 - edge, out_of_bounds="clip")
        self._map.fit(found.x[:, 0], found.label.astype(np.float64), sample_weight=found.weight)

    def __call__(self, scores: Floats) -> Floats:
        return np.asarray(self._map.predict(np.asarray(scores, dtype=np.float64)), dtype=np.float64)


def temperature(logit: Floats, events: Labelled) -> float:
    """T with the smallest cross-entropy of :math:`\\sigma(\\mathrm{logit} / T)`, between 0.2 and 20.

    >>> from scipy.special import expit
    >>> x = np.linspace(-3, 3, 4001)
    >>> chance = expit(x / 2.0)  # the truth has T = 2
    >>> both = Labelled(x[:, None].repeat(2, 0), np.tile([True, False], 4001), np.stack([chance, 1 - chance], 1).ravel())
    >>> round(temperature(x.repeat(2), both), 3)
    2.0
    """
    sign = np.where(events.label, 1.0, -1.0)

    def cross_entropy(log_t: float) -> float:
        return -float(events.weight @ log_expit(sign * logit * np.exp(-log_t)))

    found = minimize_scalar(
        cross_entropy, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-5}
    )
    return float(np.exp(found.x))


def _part(events: Pooled, rows: NDArray[np.intp]) -> Labelled:
    """Some events, both sides with half the weight."""
    label = events.second[rows]
    for name, chosen in (("a", rows[~label]), ("b", rows[label])):
        if not events.weight[chosen].sum() > 0:
            raise DataError(
                f"weight_{name}: expected a positive sum in every part of the events; got {events.weight[chosen].sum():g}"
            )
    return Labelled(events.x[rows], label, balanced_weights(label, events.weight[rows]))
