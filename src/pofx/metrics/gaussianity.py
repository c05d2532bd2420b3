r"""Is it Gaussian? A sample against the normal law that is fitted to it.

Every statistic is compared with what it gives on normal data that are fitted and whitened in the same way
(:mod:`~pofx.metrics.nulls`): a normal law that is fitted to a sample and then judged against that sample, or against another one of the
same size, does not look exact, and the bootstrap knows by how much. p-values are (1 + more extreme) / (1 + replicas), valid for any number
of replicas; the global one is the smallest of them, calibrated on the same replicas. Which bins and pairs carry a deviation is asked of
standardised columns, against normal data with the correlation of this sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pofx.classifiers.base import Classifier
from pofx.classifiers.polynomial import PolynomialClassifier
from pofx.errors import ConfigError, ShapeError
from pofx.metrics.gaussian_statistics import rows_of
from pofx.metrics.nulls import LEVELS, STATISTICS, Null, gaussian_null, statistics
from pofx.metrics.pvalues import clopper_pearson

__all__ = ["Culprit", "GaussianCheck", "Quantiles", "Statistic", "check_gaussian", "culprits"]

Floats = NDArray[np.float64]
TWO_SIDED = ("mardia-kurtosis",)
GLOBAL = 5
"""So many of :data:`STATISTICS` enter the global p-value; the accuracy is quoted only."""
MOST = 4000
"""Rows, the first so many, that single bins and pairs are looked at with."""
BOOTSTRAPS = 200
"""Of bins and pairs."""


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
class Culprit:
    """A bin, or a pair of bins, and how far it is from normal.

    Attributes
    ----------
    names : one or two bins.
    what : ``"skewness"``, ``"kurtosis"`` (excess), ``"squares"`` (dependence of the squares beyond the correlation),
        ``"bent"`` (dependence of one on the square of the other).
    value, pull : and in standard deviations on normal data of the same correlation.
    p_value : of the largest such pull among all bins (or pairs).
    """

    names: tuple[str, ...]
    what: str
    value: float
    pull: float
    p_value: float

    def __str__(self) -> str:
        return (
            f"{' × '.join(self.names)}: {self.what} {self.value:+.3f} ({self.pull:+.1f} sigma, p = {self.p_value:.3g})"
        )


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
    judge: Classifier | None = None,
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
    judge : classifier of the two-sample test; :class:`~pofx.classifiers.polynomial.PolynomialClassifier` by default.
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
    chosen = judge or PolynomialClassifier()
    values, quantiles = statistics(rows, chosen, seed)
    n, d = rows.shape
    null = gaussian_null(n, d, chosen, replicas, cache)
    found, best = _compared(values, null)
    low, high = clopper_pearson(round(best * (replicas + 1)) - 1, replicas)
    bins, pairs = culprits(rows, known, seed) if locate else ((), ())
    return GaussianCheck(n, d, found, best, low, high, _quantiles(quantiles, null), bins, pairs, replicas)


def _compared(values: Floats, null: Null) -> tuple[tuple[Statistic, ...], float]:
    """Every statistic with its p-value, and the global one.

    Observed and bootstrap values are one pool of replicas + 1 exchangeable data sets on normal data; each has its p-values within the
    pool, the smallest of them, and the rank of that.
    """
    pool = np.concatenate([values[None], null.values])
    p = np.stack([_ranks(pool[:, k], name in TWO_SIDED) for k, name in enumerate(STATISTICS)], axis=1)
    smallest = p[:, :GLOBAL].min(1)
    best = float((smallest <= smallest[0]).mean())
    found = []
    for k, name in enumerate(STATISTICS):
        low, high = clopper_pearson(round(p[0, k] * len(pool)) - 1, len(null))
        column = null.values[:, k]
        found.append(
            Statistic(
                name, float(values[k]), float(p[0, k]), low, high, float(column.mean()), float(column.std(ddof=1))
            )
        )
    return tuple(found), best


def _ranks(pool: Floats, two_sided: bool) -> Floats:
    """Share of the pool at least as extreme as each member, ``(replicas + 1,)``; upwards, or twice that of the nearer side."""
    order = np.sort(pool)
    above = 1 - np.searchsorted(order, pool, side="left") / len(pool)
    if not two_sided:
        return np.asarray(above)
    below = np.searchsorted(order, pool, side="right") / len(pool)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(above, below)))


def _quantiles(observed: Floats, null: Null) -> Quantiles:
    low95, low68, median, high68, high95 = np.quantile(null.quantiles, [0.025, 0.16, 0.5, 0.84, 0.975], axis=0)
    return Quantiles(LEVELS, observed, median, low68, high68, low95, high95)


# ---------------------------------------------------------------------------------------------- bins and pairs


def culprits(rows: Floats, names: Sequence[str], seed: int) -> tuple[tuple[Culprit, ...], tuple[Culprit, ...]]:
    """Bins and pairs by the size of their deviation, with p-values for the largest among all of their kind."""
    rows = rows[:MOST]
    n, d = rows.shape
    values, vectors = np.linalg.eigh(np.corrcoef(rows.T) if d > 1 else np.ones((1, 1)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # universes of few parameters have a covariance that is nearly singular
    rng = np.random.default_rng([seed, 2])
    normal = [_moments(rng.standard_normal((n, d)) @ root.T) for _ in range(BOOTSTRAPS)]
    observed = _moments(rows)
    bins = _largest(observed[:2], [m[:2] for m in normal], ("skewness", "kurtosis"), names)
    if d == 1:
        return bins, ()
    return bins, _largest(observed[2:], [m[2:] for m in normal], ("squares", "bent"), names)


def _moments(rows: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Skewness and excess kurtosis ``(d,)``; of normal scores, dependence of the squares and of one on the other's square ``(d, d)``.

    Normal scores leave the marginals out, so that a skewed bin does not appear again in all its pairs.
    """
    z = (rows - rows.mean(0)) / rows.std(0)
    n = len(z)
    rank = np.argsort(np.argsort(rows, axis=0), axis=0)
    u = special.ndtri((rank + 0.5) / n)
    u = u / u.std(0)
    square = u**2 - 1
    linear = u.T @ u / n
    squares = np.triu(square.T @ square / n - 2 * linear**2, 1)
    bent = u.T @ square / n
    np.fill_diagonal(bent, 0.0)
    return (z**3).mean(0), (z**4).mean(0) - 3, squares, bent


def _largest(
    observed: Sequence[Floats],
    normal: Sequence[Sequence[Floats]],
    what: Sequence[str],
    names: Sequence[str],
    most: int = 30,
) -> tuple[Culprit, ...]:
    flat = np.concatenate([values.ravel() for values in observed])
    drawn = np.stack([np.concatenate([values.ravel() for values in one]) for one in normal])
    mean, spread = drawn.mean(0), drawn.std(0)
    spread = np.where(spread > 1e-12, spread, np.inf)
    pull = (flat - mean) / spread
    largest = np.sort(np.abs((drawn - mean) / spread).max(1))
    found = []
    for at in np.argsort(-np.abs(pull), kind="stable")[:most]:
        kind, place = divmod(int(at), observed[0].size)
        index = np.unravel_index(place, observed[0].shape)
        above = len(largest) - int(np.searchsorted(largest, abs(pull[at]), side="left"))
        p = (1 + above) / (1 + len(largest))
        found.append(Culprit(tuple(names[int(i)] for i in index), what[kind], float(flat[at]), float(pull[at]), p))
    return tuple(found)
