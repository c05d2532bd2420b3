r"""Fréchet distance of the normal laws with the means and covariances of two samples, extrapolated to infinitely many events.

.. math:: F = |\mu_P - \mu_Q|^2 + \mathrm{tr}\left(\Sigma_P + \Sigma_Q - 2 (\Sigma_P \Sigma_Q)^{1/2}\right)

of features divided by their largest absolute value is the Fréchet physics distance (FPD, arXiv:2211.10295). With n events of either side it
is too large by c/n. c comes from random sub-samples of ten sizes, equally spaced in 1/n, by a straight line through the value of all
events. The p-value is that of F of all events. (The paper fits an intercept that must not be negative; this one may be, and has no bias.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from pofx.classifiers.base import Floats
from pofx.config import check_at_least, check_choice
from pofx.metrics.scales import SCALES, Scale, unit_of
from pofx.metrics.scores import effective
from pofx.metrics.two_sample import MeasureStatistic, Plan, Pooled, Prepared

__all__ = ["FrechetDistance", "frechet"]

GROUPS = 100
"""Random groups of events per side that sub-samples are put together of."""


class Moments(NamedTuple):
    """Mean ``(d,)`` and covariance ``(d, d)``."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True)
class FrechetDistance(MeasureStatistic):
    """Fréchet distance (FPD if ``x`` are physics features).

    Parameters
    ----------
    scale : of the columns: ``"largest"`` (absolute value, as FPD has it), ``"deviation"`` or ``"none"``.
    extrapolate : to infinite sample size; otherwise the value of the events at hand, which their number biases.
    sizes, samples : sizes of sub-samples, from a fifth to a half of the events, and how many of each.
    most : events per side.

    >>> from pofx.metrics.samples import side
    >>> rng = np.random.default_rng(1)
    >>> a, b = (side(rng.normal(shift, 1, (500, 2)), None, "") for shift in (0, 0.5))
    >>> found = FrechetDistance(scale="none").measure(a, b, Plan())[0]
    >>> abs(found.value - 0.5) < 3 * found.error
    True
    """

    scale: Scale = "largest"
    extrapolate: bool = True
    sizes: int = 10
    samples: int = 20
    most: int | None = 50_000
    name: ClassVar[str] = "frechet"

    def __post_init__(self) -> None:
        check_choice(self, "scale", SCALES)
        check_at_least(self, 1, "sizes", "samples")

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        centre, scale = unit_of(events, self.scale)
        x = (events.x - centre) / scale
        x = x - x.mean(0)  # for precision; no distance changes
        noise = sum(1.0 / effective(events.weight[rows]) for rows in (events.second, ~events.second)) / 2

        def values(a: Floats, b: Floats) -> Floats:
            return np.array([[frechet(*_moments(x, p), *_moments(x, q))] for p, q in zip(a.T, b.T, strict=True)])

        bias = self._slope(x, events, plan) * noise if self.extrapolate else 0.0
        title = "Fréchet distance" + (", extrapolated" if self.extrapolate else "")
        ready = Prepared(events, values, (title,), quadratic=True)
        return replace(ready, offset=np.array([bias]))

    def _slope(self, x: Floats, events: Pooled, plan: Plan) -> float:
        """dF / d(1/n): of sub-samples without replacement against all events."""
        rng = plan.rng("frechet")
        sums = [_group_sums(x[rows], events.weight[rows], rng) for rows in (~events.second, events.second)]
        whole = frechet(*_of_sums(sums[0].sum(0)), *_of_sums(sums[1].sum(0)))
        more = 1.0 / np.linspace(2.0, 5.0, self.sizes)
        rise, run = [], []
        noise = sum(1.0 / effective(events.weight[rows]) for rows in (events.second, ~events.second)) / 2
        for share in more:
            count = max(2, round(share * GROUPS))
            for _ in range(self.samples):
                p, q = (_of_sums(side[rng.permutation(GROUPS)[:count]].sum(0)) for side in sums)
                rise.append(frechet(*p, *q) - whole)
                run.append(noise * (GROUPS / count - 1.0))
        return float(np.dot(rise, run) / np.dot(run, run))


def frechet(mean_a: Floats, covariance_a: Floats, mean_b: Floats, covariance_b: Floats) -> float:
    """Between two normal laws: means ``(d,)`` and covariances ``(d, d)``.

    >>> frechet(np.zeros(2), np.eye(2), np.array([1.0, 0.0]), 4.0 * np.eye(2))
    3.0
    """
    apart = mean_a - mean_b
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    mixed = np.linalg.eigvalsh(root.T @ covariance_b @ root)
    traces = np.trace(covariance_a) + np.trace(covariance_b)
    return float(apart @ apart + traces - 2.0 * np.sqrt(np.maximum(mixed, 0.0)).sum())


def _moments(x: Floats, measure: Floats) -> Moments:
    mean = measure @ x
    second = (x * measure[:, None]).T @ x - np.outer(mean, mean)
    return Moments(mean, second / (1.0 - float(measure @ measure)))


def _group_sums(x: Floats, weight: Floats, rng: np.random.Generator) -> Floats:
    """Sums of w (1, x) (1, x)^T, and of w^2 in a row of its own, over random groups of events, ``(groups, d + 2, d + 1)``."""
    full = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    made = []
    for rows in np.array_split(rng.permutation(len(x)), GROUPS):
        products = (full[rows] * weight[rows, None]).T @ full[rows]
        squares = np.full((1, full.shape[1]), float(weight[rows] @ weight[rows]))
        made.append(np.concatenate([products, squares]))
    return np.array(made)


def _of_sums(sums: Floats) -> Moments:
    total, mean = sums[0, 0], sums[0, 1:] / sums[0, 0]
    second = sums[1:-1, 1:] / total - np.outer(mean, mean)
    return Moments(mean, second / (1.0 - sums[-1, 0] / total**2))
