r"""Is it Gaussian? A sample against the normal law that is fitted to it.

Every statistic is compared with what it gives on normal data that are fitted and whitened in the same way
(:mod:`~pofx.metrics.nulls`): a normal law that is fitted to a sample and then judged against that sample, or against another one of the
same size, does not look exact, and the bootstrap knows by how much. p-values are (1 + more extreme) / (1 + replicas), valid for any number
of replicas. The global one is the smallest of them, calibrated on the same replicas; where several data sets share a smallest p-value, as
those at the end of a null do, the larger pull counts as more extreme. Which bins and pairs carry a deviation is asked separately
(:mod:`~pofx.metrics.gaussianity_culprits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.classifiers import Classifier, classifier
from pofx.classifiers.polynomial import PolynomialClassifier
from pofx.errors import ConfigError, ShapeError
from pofx.metrics.gaussian_statistics import rows_of
from pofx.metrics.gaussianity_culprits import Culprit, culprits
from pofx.metrics.nulls import LEVELS, STATISTICS, Null, gaussian_null, statistics
from pofx.metrics.pvalues import clopper_pearson

__all__ = ["Culprit", "GaussianCheck", "Quantiles", "Statistic", "check_gaussian", "culprits"]

Floats = NDArray[np.float64]
TWO_SIDED = ("mardia-kurtosis",)
GLOBAL = 5
"""So many of :data:`STATISTICS` enter the global p-value; the accuracy is quoted only."""


@dataclass(frozen=True)
class Statistic:
    """One statistic.

    Attributes
    ----------
    name, value : what was found.
    p_value, p_low, p_high : with the 68 % interval that the number of replicas leaves.
    null_mean, null_std : of the same on normal data: the floor.
    """

    name: str
    value: float
    p_value: float
    p_low: float
    p_high: float
    null_mean: float
    null_std: float

    @property
    def pull(self) -> float:
        """(value - null mean) / null standard deviation."""
        return (self.value - self.null_mean) / self.null_std if self.null_std > 0 else 0.0


@dataclass(frozen=True)
class Quantiles:
    """Squared Mahalanobis distances: observed quantiles, and those of normal data, ``(levels,)`` each."""

    level: Floats
    observed: Floats
    median: Floats
    low68: Floats
    high68: Floats
    low95: Floats
    high95: Floats


@dataclass(frozen=True)
class GaussianCheck:
    """What :func:`check_gaussian` found.

    Attributes
    ----------
    events, dim : of the sample.
    statistics : see :class:`Statistic`; the accuracy of the classifier does not enter the global p-value.
    global_p, global_low, global_high : of the smallest p-value, with the interval that the replicas leave.
    qq : for the figure.
    bins, pairs : the largest deviations first.
    replicas : of the null.
    """

    events: int
    dim: int
    statistics: tuple[Statistic, ...]
    global_p: float
    global_low: float
    global_high: float
    qq: Quantiles
    bins: tuple[Culprit, ...]
    pairs: tuple[Culprit, ...]
    replicas: int

    def is_gaussian(self, level: float = 0.01) -> bool:
        """Whether the global p-value is at least ``level``."""
        return self.global_p >= level

    def __getitem__(self, name: str) -> Statistic:
        for statistic in self.statistics:
            if statistic.name == name:
                return statistic
        raise ConfigError(f"no statistic is called {name!r}; there are {', '.join(s.name for s in self.statistics)}")

    @property
    def smallest(self) -> float:
        """The smallest p-value that so many replicas can give."""
        return 1 / (1 + self.replicas)

    def __str__(self) -> str:
        at_most = "<=" if self.global_p <= self.smallest else "="
        lines = [f"{self.events} events, {self.dim} columns: p {at_most} {self.global_p:.3g}"]
        lines += [
            f"  {s.name}: {s.value:.5g}, normal data {s.null_mean:.5g} +- {s.null_std:.2g}, p = {s.p_value:.3g}"
            for s in self.statistics
        ]
        return "\n".join([*lines, *(f"  {culprit}" for culprit in (*self.bins[:3], *self.pairs[:3]))])


def check_gaussian(
    x: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    judge: str | Classifier | None = None,
    replicas: int = 300,
    seed: int = 0,
    cache: bool | Path = True,
    locate: bool = True,
) -> GaussianCheck:
    """Compare a sample with the normal law fitted to it.

    Parameters
    ----------
    x : ``(n, d)``, n > d + 1.
    names : of the columns.
    judge : of the two-sample test: ``"network"``, ``"trees"``, or a config; by default a quick one for smooth deviations,
        :class:`~pofx.classifiers.polynomial.PolynomialClassifier`. The null trains it once per replica.
    replicas : of the null; the smallest p-value is 1 / (1 + replicas).
    seed : of the split, the normal sample and the bootstrap of bins and pairs.
    cache : where nulls are kept, see :func:`~pofx.metrics.nulls.gaussian_null`.
    locate : also look for the bins and pairs that carry a deviation.

    Raises
    ------
    ShapeError, NonFiniteError, DataError (too few rows, constant or dependent columns), ConfigError.

    >>> rng = np.random.default_rng(1)
    >>> check_gaussian(np.exp(rng.normal(size=(200, 3))), replicas=50, cache=False).is_gaussian(0.05)
    False
    """
    rows = rows_of(x)
    if replicas < 19:
        raise ConfigError(f"replicas: expected at least 19; got {replicas}")
    known = tuple(names) if names is not None else tuple(f"x{i}" for i in range(rows.shape[1]))
    if len(known) != rows.shape[1]:
        raise ShapeError(f"names: expected {rows.shape[1]}; got {len(known)}")
    chosen = PolynomialClassifier() if judge is None else classifier(judge)
    values, quantiles = statistics(rows, chosen, seed)
    n, d = rows.shape
    null = gaussian_null(n, d, chosen, replicas, cache)
    found, best = _compared(values, null)
    low, high = clopper_pearson(round(best * (replicas + 1)) - 1, replicas)
    bins, pairs = culprits(rows, known, seed) if locate else ((), ())
    return GaussianCheck(n, d, found, best, low, high, _quantiles(quantiles, null), bins, pairs, replicas)


def _compared(values: Floats, null: Null) -> tuple[tuple[Statistic, ...], float]:
    """Every statistic with its p-value, and the global one.

    Observed and bootstrap values are one pool of replicas + 1 data sets, exchangeable on normal data: each has p-values within the pool,
    and a global one from the rank of the smallest of them.
    """
    pool = np.concatenate([values[None], null.values])
    pull = (pool - pool.mean(0)) / np.maximum(pool.std(0), 1e-300)
    p = np.stack([_shares(pull[:, k], name in TWO_SIDED) for k, name in enumerate(STATISTICS)], axis=1)
    pull = np.where([name in TWO_SIDED for name in STATISTICS], np.abs(pull), pull)
    best = float(_lexical(p[:, :GLOBAL].min(1), -pull[:, :GLOBAL].max(1))[0])
    rows = zip(STATISTICS, values, p[0], null.values.T, strict=True)
    return tuple(_statistic(name, float(value), float(share), column) for name, value, share, column in rows), best


def _statistic(name: str, value: float, p: float, null: Floats) -> Statistic:
    low, high = clopper_pearson(round(p * (len(null) + 1)) - 1, len(null))
    return Statistic(name, value, p, low, high, float(null.mean()), float(null.std(ddof=1)))


def _shares(pull: Floats, two_sided: bool) -> Floats:
    """Share of the pool at least as extreme as each member, ``(replicas + 1,)``: as large, or as far towards its own side."""
    order, size = np.sort(pull), len(pull)
    above = size - np.searchsorted(order, pull, side="left")
    if not two_sided:
        return np.asarray(above / size)
    below = np.searchsorted(order, pull, side="right")
    return _lexical(np.minimum(above, below), -np.abs(pull))


def _lexical(first: ArrayLike, second: ArrayLike) -> Floats:
    """Share of the pool at most as large as each member by ``first``, ties by ``second``, ``(replicas + 1,)``."""
    _, rank, count = np.unique(np.stack([first, second], axis=1), axis=0, return_inverse=True, return_counts=True)
    return np.asarray(np.cumsum(count)[rank.ravel()] / count.sum())


def _quantiles(observed: Floats, null: Null) -> Quantiles:
    low95, low68, median, high68, high95 = np.quantile(null.quantiles, [0.025, 0.16, 0.5, 0.84, 0.975], axis=0)
    return Quantiles(LEVELS, observed, median, low68, high68, low95, high95)
