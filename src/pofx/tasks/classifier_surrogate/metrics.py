r"""Is a surrogate good, is it calibrated, and does its band grow where it should?

Everything here takes jets that were not trained on, and works for a surrogate as for its baselines.

- *Reproduction*: a classifier between (features, true score) of one half of the jets and (features, surrogate's score) of the other,
  and the ROC curve of the tagger, from true and from surrogate's scores of the same jets.
- *Calibration*: the distribution function at the true score is uniform.
- *The band*: pulls of the density where the truth is known, and ratios of bands: with fewer training jets, and for features outside of
  those that were trained with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.classifiers.base import Classifier
from pofx.data.patterns import listing
from pofx.errors import ColumnError, DataError
from pofx.metrics.c2st import C2ST, c2st
from pofx.metrics.calibration import pit, quantile_calibration
from pofx.metrics.calibration_curves import CalibrationCurve
from pofx.metrics.pvalues import Estimate
from pofx.metrics.scores import area, scored
from pofx.tasks.classifier_surrogate.data import Floats, Tagged, feature_rows
from pofx.tasks.classifier_surrogate.surrogate import Surrogate
from pofx.training.noise import derive_seed
from pofx.uncertainty.band import Band

__all__ = [
    "Judged",
    "Known",
    "Predictor",
    "Separation",
    "density_pulls",
    "growth",
    "judge",
    "outside",
    "quantile_test",
    "separation",
    "told_apart",
]

LEVELS = np.arange(1, 51) / 51
"""Of the quantiles, 50 as in the paper."""


class Predictor(Protocol):
    """What a surrogate and its baselines have in common."""

    def sample(self, features: Any, *, seed: int) -> Floats:
        """One score per jet, ``(m,)``."""
        ...

    def cdf(self, features: Any, scores: ArrayLike) -> Floats:
        """P(score' < score | features), ``(m,)``."""
        ...

    def log_prob(self, features: Any, scores: ArrayLike) -> Floats:
        """log p(score | features), ``(m,)``."""
        ...


@dataclass(frozen=True)
class Known:
    """A tagger whose law is known in the place of a surrogate: what the metrics give for the truth is their floor.

    Attributes
    ----------
    toy : with ``scores(features, rng)``, ``cdf(scores, features)`` and ``log_prob(scores, features)``.

    >>> from pofx.simulators.task_toys.tagger import Tagger
    >>> Known(Tagger()).sample([[500.0, 0.3, 170.0, 1.0]], seed=1).shape
    (1,)
    """

    toy: Any

    def sample(self, features: Any, *, seed: int) -> Floats:
        """One score per jet, ``(m,)``."""
        return np.asarray(self.toy.scores(features, np.random.default_rng(seed)))

    def cdf(self, features: Any, scores: ArrayLike) -> Floats:
        """P(score' < score | features), ``(m,)``."""
        return np.asarray(self.toy.cdf(scores, features))

    def log_prob(self, features: Any, scores: ArrayLike) -> Floats:
        """log p(score | features), ``(m,)``."""
        return np.asarray(self.toy.log_prob(scores, features))


@dataclass(frozen=True)
class Separation:
    """Areas under the ROC curve of a tagger: from its own scores, and from a surrogate's for the same jets.

    ``difference`` is surrogate less true, with the error of a finite number of jets, which they share; ``posterior`` is the spread of the
    surrogate's area over the draws of its weights (None without draws).
    """

    true: Estimate
    surrogate: Estimate
    difference: Estimate
    posterior: float | None = None


@dataclass(frozen=True)
class Judged:
    """What :func:`judge` says. ``nll`` is the mean of -log p(score | features) with its error; ``separation`` is None without labels."""

    c2st: C2ST
    calibration: CalibrationCurve
    nll: Estimate
    separation: Separation | None


def judge(predictor: Predictor, jets: Tagged, *, seed: int = 0, classifier: str | Classifier = "network") -> Judged:
    """Reproduction and calibration on jets that were not trained on.

    A surrogate that was trained on N jets is itself off by about :math:`1/\\sqrt{N}`: with as many test jets as that, a calibrated method
    gives small p-values. A tenth as many are a fair test.
    """
    loss = -predictor.log_prob(jets.features, jets.scores)
    return Judged(
        told_apart(predictor, jets, seed=seed, classifier=classifier),
        pit(predictor.cdf(jets.features, jets.scores), weight=jets.weight, name=jets.score, seed=seed),
        _mean(loss, jets.weight),
        None if jets.label is None else separation(predictor, jets, seed=seed),
    )


def told_apart(
    predictor: Predictor, jets: Tagged, *, seed: int = 0, classifier: str | Classifier = "network", splits: int = 3
) -> C2ST:
    """C2ST between jets with their true scores and other jets with the predictor's: no jet is on both sides."""
    true, made = jets.split(0.5, derive_seed(seed, "halves"))
    drawn = predictor.sample(made.features, seed=derive_seed(seed, "scores"))
    sides = [np.c_[half.features, _logit(scores)] for half, scores in ((true, true.scores), (made, drawn))]
    return c2st(*sides, judge=classifier, splits=splits, seed=seed, weight_a=true.weight, weight_b=made.weight)


def separation(predictor: Predictor, jets: Tagged, *, seed: int = 0) -> Separation:
    """Areas under the ROC curve; DataError without labels of both kinds."""
    if jets.label is None:
        raise DataError("a ROC curve needs labels: which jets are signal")
    drawn = predictor.sample(jets.features, seed=derive_seed(seed, "scores"))
    values = [area(scored(scores, jets.label, jets.weight)) for scores in (jets.scores, drawn)]
    first, second = (placements(scores, jets.label, jets.weight) for scores in (jets.scores, drawn))
    error = _placed(second - first, jets.label, jets.weight)
    posterior = _posterior(predictor, jets, jets.label, seed)
    return Separation(
        Estimate(values[0].value, float(np.sqrt(values[0].variance))),
        Estimate(values[1].value, float(np.sqrt(values[1].variance))),
        Estimate(values[1].value - values[0].value, error),
        posterior,
    )


def _posterior(predictor: Predictor, jets: Tagged, label: NDArray[np.bool_], seed: int) -> float | None:
    """Spread of the area over the draws, with the same noise for all."""
    if not isinstance(predictor, Surrogate) or len(predictor.members) < 2:
        return None
    found = [
        area(scored(predictor.sample(jets.features, seed=seed, draw=k), label, jets.weight)).value
        for k in range(len(predictor.members))
    ]
    return float(np.std(found, ddof=1))


def placements(scores: Floats, label: NDArray[np.bool_], weight: Floats | None = None) -> Floats:
    """Share of the other label's jets that a jet is on the right side of, ``(n,)``, ties half; its mean over either label is the area.

    >>> placements(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])).tolist()
    [1.0, 0.5, 0.5, 1.0]
    """
    w = np.ones(len(scores)) if weight is None else weight
    found = np.zeros(len(scores))
    for mine, sign in ((label, 1.0), (~label, -1.0)):
        other = np.argsort(sign * scores[~mine], kind="stable")
        values, total = sign * scores[~mine][other], np.r_[0.0, np.cumsum(w[~mine][other])]
        ends = [total[np.searchsorted(values, sign * scores[mine], side=side)] for side in ("left", "right")]
        found[mine] = 0.5 * (ends[0] + ends[1]) / total[-1]
    return found


def _placed(values: Floats, label: NDArray[np.bool_], weight: Floats | None) -> float:
    """Error of a mean of placements (DeLong et al., Biometrics 44 (1988) 837): both labels contribute."""
    variance = 0.0
    for rows in (label, ~label):
        variance += _mean(values[rows], None if weight is None else weight[rows]).error ** 2
    return float(np.sqrt(variance))


def quantile_test(surrogate: Surrogate, jets: Tagged, levels: ArrayLike = LEVELS, *, seed: int = 0) -> CalibrationCurve:
    """How often is the true score below the predicted quantile? The test of the paper, with 50 levels."""
    predicted = surrogate.quantiles(jets.features, levels)
    return quantile_calibration(jets.scores, predicted, levels, weight=jets.weight, name="quantiles", seed=seed)


def density_pulls(
    surrogate: Surrogate, jets: Tagged, truth: Callable[[Floats, Floats], Floats]
) -> tuple[Floats, Floats]:
    """(mean density - truth) / band ``(n,)`` at these jets and scores, and the band over the mean density.

    Pulls of one training are correlated: their width has to be averaged over independent training sets.

    Parameters
    ----------
    truth : ``truth(scores, features)`` is log p(score | features), ``(n,)``.
    """
    band = surrogate.density_band(jets.features, jets.scores)
    return (band.mean - np.exp(truth(jets.scores, jets.features))) / band.error, band.relative


def growth(more: Band, less: Band) -> Estimate:
    """Mean error of the second band over that of the first, with its error by leaving out one draw of either at a time.

    Bands of P(score < median | features) have no units, so that other jets may be compared too: :meth:`Surrogate.median_band`.

    >>> rng = np.random.default_rng(1)
    >>> found = growth(Band(rng.normal(size=(30, 50))), Band(3 * rng.normal(size=(30, 50))))
    >>> abs(found.value - 3) < 4 * found.error
    True
    """
    value = _size(less.values) / _size(more.values)
    parts = [_jackknife(np.log([_size(np.delete(b.values, k, 0)) for k in range(len(b))])) for b in (more, less)]
    return Estimate(value, float(value * np.sqrt(sum(parts))))


def _size(values: Floats) -> float:
    return float(Band(values).error.mean())


def _jackknife(values: Floats) -> float:
    """Variance of what these leave-one-out values are of."""
    return float((len(values) - 1) * values.var())


def outside(surrogate: Surrogate, features: ArrayLike, feature: str, by: float = 0.5) -> Floats:
    """The same jets ``(m, d)`` with one feature moved beyond those that were trained with, to high + by (high - low)."""
    if feature not in surrogate.names:
        raise ColumnError(f"no feature is called {feature!r}; there are {listing(surrogate.names)}")
    low, high = surrogate.trained_range[feature]
    moved = feature_rows(features, surrogate.names).copy()
    moved[:, surrogate.names.index(feature)] = high + by * (high - low)
    return moved


def _logit(scores: Floats) -> Floats:
    return np.asarray(np.log(scores) - np.log1p(-scores))


def _mean(values: Floats, weight: Floats | None) -> Estimate:
    share = np.full(len(values), 1.0 / len(values)) if weight is None else weight / weight.sum()
    mean = float(share @ values)
    return Estimate(mean, float(np.sqrt((share**2) @ (values - mean) ** 2)))
