r"""Are numbers uniform on [0, 1]? Simultaneous bands of the empirical distribution function, and the p-value that belongs to them.

Of n uniform numbers, the count below :math:`z_i` is binomial. How far out an observed one is says
:math:`T_i = 2 \min(P(X_i \le x_i), P(X_i \ge x_i))`, and the band is where :math:`T_i > \gamma` at all points of the grid, with the largest
gamma for which that has the wanted probability (arXiv:2103.10522). Counts at rising z are a Markov chain,

.. math:: X_{i+1} - X_i \,|\, X_i \sim \mathrm{Binomial}\left( n - X_i, \frac{z_{i+1} - z_i}{1 - z_i} \right),

so that probability is **exact**, and so is the p-value: the probability that :math:`\min_i T_i` is at most the observed one. Above
:data:`EXACT` numbers, and for weighted ones, both are **simulated** with :data:`REPLICAS` uniform samples (of the same weights), by the
largest :math:`|F(z_i) - z_i|` in units of its standard deviation. ``method`` says which.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from pofx.classifiers.base import as_weight
from pofx.data.numbers import as_floats, as_numpy
from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError

__all__ = ["EXACT", "LEVEL", "POINTS", "REPLICAS", "Band", "Floats", "Integers", "as_uniform", "crossing", "uniformity"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EXACT = 5000
"""Most numbers for which bands and p-values are exact."""
POINTS = 50
"""Of the grid."""
REPLICAS = 999
"""Uniform samples behind a simulated band."""
LEVEL = 0.95
"""Probability with which a uniform sample stays inside the band everywhere."""
TINY = 1e-12
"""Below this, one minus a probability has lost its digits, and a bound stands for the p-value."""
CELLS = 4_000_000
"""Random numbers that are drawn at once."""


class Band(NamedTuple):
    """The empirical distribution function on a grid, and what uniform numbers give.

    ``z`` and ``ecdf`` are the points and the weighted share of numbers below them, ``low`` and ``high`` the simultaneous band, ``(k,)``
    each; ``level`` is the band's probability, ``p_value`` that of uniformity, and ``method`` is ``"exact"`` or ``"simulated"``.
    """

    z: Floats
    ecdf: Floats
    low: Floats
    high: Floats
    level: float
    p_value: float
    method: Literal["exact", "simulated"]


def uniformity(
    u: ArrayLike, weight: ArrayLike | None = None, *, grid: ArrayLike | None = None, level: float = LEVEL, seed: int = 0
) -> Band:
    """Test numbers ``(n,)`` in [0, 1].

    Parameters
    ----------
    weight : ``(n,)``, positive or not, of positive sum.
    grid : ascending points in (0, 1), ``(k,)``; 49 equal steps by default. Numbers that can only be j/m (ranks) ask for points there.
    seed : of the simulation, where there is one.

    >>> found = uniformity((np.arange(100) + 0.5) / 100)
    >>> found.method, found.p_value, bool(((found.low <= found.ecdf) & (found.ecdf <= found.high)).all())
    ('exact', 1.0, True)
    """
    numbers = as_uniform(u)
    z = np.arange(1, POINTS) / POINTS if grid is None else as_grid(grid)
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level: expected a probability between 0 and 1; got {level}")
    cell = np.searchsorted(z, numbers, side="right")
    if weight is None and len(numbers) <= EXACT:
        return _exact(cell, z, level)
    return _simulated(cell, as_weight(weight, len(numbers), "weight"), z, level, seed)


def as_uniform(u: ArrayLike, where: str = "u") -> Floats:
    """``(n,)`` numbers in [0, 1]; a typed error otherwise."""
    found = as_floats(as_numpy(u), where, np.float64)
    if found.ndim != 1 or not len(found):
        raise ShapeError(f"{where}: expected shape (n,) with n of at least 1; got {found.shape}")
    if not np.isfinite(found).all():
        raise NonFiniteError(f"{where}: number {np.flatnonzero(~np.isfinite(found))[0]} is not finite")
    if found.min() < 0 or found.max() > 1:
        raise DataError(f"{where}: expected numbers in [0, 1]; got {found.min():.4g} to {found.max():.4g}")
    return found


def as_grid(grid: ArrayLike) -> Floats:
    """``(k,)`` ascending numbers in (0, 1); ConfigError otherwise."""
    z = np.asarray(grid, dtype=np.float64)
    if z.ndim != 1 or not len(z) or not (np.diff(z) > 0).all() or not 0 < z[0] <= z[-1] < 1:
        raise ConfigError(f"grid: expected ascending numbers between 0 and 1; got {z.tolist()}")
    return z


# The exact law


def _exact(cell: Integers, z: Floats, level: float) -> Band:
    n = len(cell)
    count = np.cumsum(np.bincount(cell, minlength=len(z) + 1))[:-1]
    tails = 2 * np.minimum(stats.binom.cdf(count, n, z), stats.binom.sf(count - 1, n, z))
    least = float(tails.min())
    p = crossing(n, tuple(z), least)
    low, high = _region(n, z, _gamma(n, tuple(z), level))
    share = np.asarray(count / n, dtype=np.float64)
    return Band(z, share, low / n, high / n, level, p, "exact")


def crossing(n: int, z: tuple[float, ...], gamma: float) -> float:
    r"""P(min T <= gamma) of n uniform numbers: the exact p-value; where it is too small to be computed, Boole's bound.

    >>> round(crossing(10, (0.5,), 2 * 11 / 1024), 6) == round(2 * 11 / 1024, 6)
    True
    """
    points = np.asarray(z)
    if gamma >= 1.0:
        return 1.0
    if len(points) * gamma <= TINY:
        return len(points) * gamma
    p = 1.0 - _stays(n, points, *_region(n, points, gamma))
    return p if p > TINY else min(TINY, len(points) * gamma)


@lru_cache(maxsize=256)
def _gamma(n: int, z: tuple[float, ...], level: float) -> float:
    """The largest gamma whose band a uniform sample keeps with at least this probability."""
    low, high = np.log((1 - level) / len(z)) - 1e-9, np.log(1 - level) + 1e-9
    for _ in range(10):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if crossing(n, z, float(np.exp(middle))) <= 1 - level else (low, middle)
    return float(np.exp(low))


def _region(n: int, z: Floats, gamma: float) -> tuple[Integers, Integers]:
    """The least and the largest count with T > gamma, ``(k,)`` each."""
    tail = 0.5 * gamma * (1 + 1e-9)  # "at most", whatever the rounding
    low, high = stats.binom.ppf(tail, n, z), stats.binom.isf(tail, n, z)
    return np.asarray(low, dtype=np.int64), np.asarray(high, dtype=np.int64)


def _stays(n: int, z: Floats, low: Integers, high: Integers) -> float:
    """The probability that all counts are between low and high."""
    if (low > high).any():
        return 0.0
    log_factorial = special.gammaln(np.arange(n + 2) + 1.0)
    step = np.diff(np.r_[0.0, z]) / (1 - np.r_[0.0, z[:-1]])
    counts, probability = np.zeros(1, dtype=np.int64), np.ones(1)
    for share, least, most in zip(step, low, high, strict=True):
        following = np.arange(least, most + 1)
        more, rest = following[:, None] - counts, (n - following)[:, None]
        choose = log_factorial[n - counts] - log_factorial[np.maximum(more, 0)] - log_factorial[rest]
        chance = np.exp(choose + more * np.log(share) + rest * np.log1p(-share))
        counts, probability = following, np.where(more >= 0, chance, 0.0) @ probability
    return float(min(probability.sum(), 1.0))


# The simulated law


def _simulated(cell: Integers, weight: Floats, z: Floats, level: float, seed: int) -> Band:
    total = float(weight.sum())
    if total <= 0:
        raise DataError(f"weight: expected a positive sum; got {total:.4g}")
    share = weight / total
    sigma = np.sqrt(z * (1 - z) * (share @ share))
    ecdf: Floats = np.asarray(np.cumsum(np.bincount(cell, share, minlength=len(z) + 1)), dtype=np.float64)[:-1]
    null = np.sort(_null(share, z, sigma, seed))
    beyond = REPLICAS - int(np.searchsorted(null, np.abs((ecdf - z) / sigma).max() * (1 - 1e-12)))
    reach = null[min(int(np.ceil(level * (REPLICAS + 1))), REPLICAS) - 1] * sigma
    low, high = np.maximum(z - reach, 0.0), np.minimum(z + reach, 1.0)
    return Band(z, ecdf, low, high, level, (1 + beyond) / (1 + REPLICAS), "simulated")


def _null(share: Floats, z: Floats, sigma: Floats, seed: int) -> Floats:
    """The largest deviation of each of the uniform samples, ``(REPLICAS,)``."""
    rng, cells, width = np.random.default_rng((seed, len(share))), len(z) + 1, np.diff(np.r_[0.0, z, 1.0])
    if np.ptp(share) == 0:
        sums = rng.multinomial(len(share), width, REPLICAS) / len(share)
        return np.abs((sums.cumsum(1)[:, :-1] - z) / sigma).max(1)
    found: list[Floats] = []
    at_once = max(1, CELLS // len(share))
    for first in range(0, REPLICAS, at_once):
        rows = min(at_once, REPLICAS - first)
        place = np.searchsorted(z, rng.random((rows, len(share))), side="right") + cells * np.arange(rows)[:, None]
        weights = np.bincount(place.ravel(), np.tile(share, rows), minlength=cells * rows).reshape(rows, cells)
        found.append(np.abs((weights.cumsum(1)[:, :-1] - z) / sigma).max(1))
    return np.concatenate(found)
