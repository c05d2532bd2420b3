"""The few statistics that reports quote: per-column differences with bootstrap errors and floors, and expected extremes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from pofx.metrics.pvalues import clopper_pearson
from pofx.report.tables import Floats, Table

__all__ = [
    "QUANTITIES",
    "Differences",
    "Mean",
    "clopper_pearson",
    "column_differences",
    "expected_largest",
    "global_p_value",
    "mean_error",
    "non_gaussianity",
    "smirnov_p_value",
]

LEVELS = (0.05, 0.5, 0.95)
QUANTITIES = ("mean", "standard deviation", "5 % quantile", "median", "95 % quantile")
"""What :func:`column_differences` compares, in this order."""


def expected_largest(tests: int) -> tuple[float, float]:
    """Median of the largest |pull| among so many independent standard normal ones, and half the width of its central 68 %.

    >>> round(expected_largest(1)[0], 2), round(expected_largest(1000)[0], 2)
    (0.67, 3.39)
    """
    low, middle, high = (float(-special.ndtri(0.5 * -math.expm1(math.log(q) / tests))) for q in (0.16, 0.5, 0.84))
    return middle, 0.5 * (high - low)


def global_p_value(pull: float, tests: int) -> float:
    """The probability that the largest of so many independent standard normal pulls is above ``|pull|``.

    >>> round(global_p_value(3.0, 100), 3)
    0.237
    """
    return -math.expm1(tests * math.log1p(-min(float(special.erfc(abs(pull) / math.sqrt(2))), 1 - 1e-16)))


@dataclass(frozen=True)
class Differences:
    """model - truth per column and quantity, in standard deviations of the truth.

    Attributes
    ----------
    value, error : ``(d, 5)``; see :data:`QUANTITIES`; errors are of the bootstrap of both samples.
    floor : ``(d, 5)``, the absolute difference between two halves of the truth, scaled to samples of the sizes compared.
    """

    value: Floats
    error: Floats
    floor: Floats

    @property
    def pulls(self) -> Floats:
        """value / error, 0 where a column is constant."""
        return np.divide(self.value, self.error, out=np.zeros_like(self.value), where=self.error > 0)


def column_differences(truth: Table, model: Table, *, seed: int = 1, replicas: int = 50) -> Differences:
    """How mean, standard deviation and quantiles of every column differ between the model's sample and the truth."""
    rng = np.random.default_rng(seed)
    centre, spread = _moments(truth)
    real, generated = _Sorted(truth, centre, spread), _Sorted(model, centre, spread)
    ones = real.summary(truth.weight), generated.summary(model.weight)
    errors = [
        np.std([s.summary(w * rng.poisson(1.0, len(w))) for _ in range(replicas)], axis=0)
        for s, w in ((real, truth.weight), (generated, model.weight))
    ]
    half = rng.permutation(len(truth)) < len(truth) / 2
    parts = (
        [_Sorted(truth.rows(rows), centre, spread).summary(truth.weight[rows]) for rows in (half, ~half)]
        if len(truth) > 3
        else [ones[0]] * 2
    )
    scale = math.sqrt((1 / truth.effective + 1 / model.effective) * truth.effective) / 2
    return Differences(ones[1] - ones[0], np.hypot(*errors), scale * np.abs(parts[0] - parts[1]))


def _moments(table: Table) -> tuple[Floats, Floats]:
    w = table.weight / table.weight.sum()
    mean = w @ table.values
    unit = np.abs(table.values - mean).max(0)
    unit = np.where(unit > 0, unit, 1.0)
    spread = unit * np.sqrt(np.maximum(w @ ((table.values - mean) / unit) ** 2, 0.0))
    return mean, np.where(spread > 0, spread, 1.0)


class _Sorted:
    """A table sorted once, so that every bootstrap replica is a cumulative sum."""

    def __init__(self, table: Table, centre: Floats, spread: Floats) -> None:
        self.values = (table.values - centre) / spread
        self.order = np.argsort(self.values, axis=0)
        self.sorted = np.take_along_axis(self.values, self.order, axis=0)

    def summary(self, weight: Floats) -> Floats:
        """``(d, 5)`` with these weights."""
        total = weight.sum() or 1.0
        mean = weight @ self.values / total
        deviation = np.sqrt(np.maximum(weight @ self.values**2 / total - mean**2, 0.0))
        below = np.cumsum(weight[self.order], axis=0) / total
        at = [np.minimum((below < level).sum(0), len(below) - 1) for level in LEVELS]
        quantiles = [np.take_along_axis(self.sorted, rows[None], axis=0)[0] for rows in at]
        return np.stack([mean, deviation, *quantiles], axis=1)


def non_gaussianity(table: Table) -> Floats:
    """Per column, how far its quantiles are from those of a normal law, in standard deviations, ``(d,)``."""
    centre, spread = _moments(table)
    levels = np.linspace(0.02, 0.98, 49)
    sorted_values = np.quantile((table.values - centre) / spread, levels, axis=0)
    return np.sqrt(((sorted_values - special.ndtri(levels)[:, None]) ** 2).mean(0))


@dataclass(frozen=True)
class Mean:
    """A weighted mean over finite values, its standard error, and how many values were not finite."""

    value: float
    error: float
    lost: int = 0


def mean_error(values: Floats, weight: Floats | None = None) -> Mean:
    """sum w v / sum w with error sqrt(sum w^2 (v - mean)^2) / sum w.

    >>> mean_error(np.array([1.0, 3.0]))
    Mean(value=2.0, error=0.7071067811865476, lost=0)
    """
    keep = np.isfinite(values)
    w = np.ones(int(keep.sum())) if weight is None else weight[keep]
    v = values[keep]
    if not len(v) or not w.sum() > 0:
        return Mean(math.nan, math.nan, int((~keep).sum()))
    mean = float(w @ v / w.sum())
    return Mean(mean, math.sqrt(float(w**2 @ (v - mean) ** 2)) / float(w.sum()), int((~keep).sum()))


def smirnov_p_value(distance: float) -> float:
    """The asymptotic p-value of a Kolmogorov-Smirnov distance times sqrt(n m / (n + m))."""
    return float(special.kolmogorov(distance))
