r"""p-values from a density, how well they agree with the true ones, and the coverage of highest-density regions.

The p-value of an event x* under the density q is the probability of an event at most as probable,

.. math:: p(x^*) = P\left( \log q(X) \le \log q(x^*) \right), \qquad X \sim q,

estimated by the share of toys of q with a log-density of at most that of x*: **ties count**, so that a flat density gives
1, and p-values of events of q are never too small. For a Gaussian this is the p-value of chi2. The event lies inside the
highest-density region of probability a, {x : log q(x) > c_a}, if p > 1 - a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pofx.data.numbers import as_floats, as_numpy
from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError

__all__ = [
    "LEVELS",
    "Agreement",
    "Coverage",
    "Estimate",
    "PValue",
    "agreement",
    "clopper_pearson",
    "coverage",
    "tail_probabilities",
    "tail_probability",
]

Floats = NDArray[np.float64]
SIGMA = math.erf(math.sqrt(0.5))
"""Probability of one standard deviation, 68.27 %."""
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def clopper_pearson(count: int, trials: int, level: float = SIGMA) -> tuple[float, float]:
    """The exact central interval of a binomial probability.

    >>> tuple(round(end, 4) for end in clopper_pearson(0, 100))
    (0.0, 0.0182)
    """
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(special.betaincinv(count, trials - count + 1, tail))
    high = 1.0 if count == trials else float(special.betaincinv(count + 1, trials - count, 1 - tail))
    return low, high


@dataclass(frozen=True)
class PValue:
    """Share of toys that are at most as probable as an event, with the central 68.27 % interval of Clopper and Pearson.

    Attributes
    ----------
    value, low, high : the share and its interval.
    trials, count : toys, and those that are at most as probable.
    """

    value: float
    low: float
    high: float
    trials: int
    count: int

    @property
    def z(self) -> float:
        """One-sided significance in standard deviations of a normal law: Phi(-z) = value; infinite where no toy was as improbable."""
        return _significance(self.value)

    @property
    def z_low(self) -> float:
        """The significance of ``high``: where no toy was as improbable, the number to quote."""
        return _significance(self.high)

    @property
    def z_high(self) -> float:
        """The significance of ``low``."""
        return _significance(self.low)

    def upper_limit(self, level: float = 0.95) -> float:
        """One-sided upper limit on the p-value; 1 - (1 - level)^(1/trials) where no toy was as improbable."""
        return clopper_pearson(self.count, self.trials, 2 * level - 1)[1]

    def __str__(self) -> str:
        if self.value == 0.0:
            return f"< {self.high:.1g}"
        if self.value == 1.0:
            return f"> {self.low:.4f}"
        error = (self.high - self.low) / 2
        digits = max(4, math.ceil(-math.log10(error)))
        return f"{self.value:.{digits}f} ± {error:.{digits}f}"


def _significance(p: float) -> float:
    return -float(special.ndtri(p))


def tail_probability(log_density: float, toys: ArrayLike) -> PValue:
    """The share of toys with at most this log-density, ``toys`` of shape ``(n,)``.

    >>> tail_probability(0.5, [0.0, 1.0, 2.0, 3.0]).value
    0.25
    """
    many = _log_densities(toys, "toys")
    value = float(_log_densities(np.atleast_1d(log_density), "log_density")[0])
    count = int((many <= value).sum())
    return PValue(count / len(many), *clopper_pearson(count, len(many)), len(many), count)


def tail_probabilities(log_density: ArrayLike, toys: ArrayLike) -> Floats:
    """:func:`tail_probability` of many events, ``(m,)``, from the same toys, ``(n,)``, as plain shares ``(m,)``.

    >>> tail_probabilities([0.5, 1.0, 9.0], [0.0, 1.0, 2.0, 3.0]).tolist()
    [0.25, 0.5, 1.0]
    """
    many = np.sort(_log_densities(toys, "toys"))
    return np.searchsorted(many, _log_densities(log_density, "log_density"), side="right") / len(many)


def _log_densities(values: Any, where: str, n: int | None = None) -> Floats:
    """``(n,)`` without NaN; -inf is a density of zero."""
    found = as_floats(as_numpy(values), where, np.float64)
    if found.ndim != 1 or (n is not None and len(found) != n):
        raise ShapeError(f"{where}: expected shape ({'n' if n is None else n},); got {found.shape}")
    if not len(found):
        raise DataError(f"{where}: expected at least one number; got none")
    if np.isnan(found).any():
        raise NonFiniteError(f"{where}: number {np.flatnonzero(np.isnan(found))[0]} is NaN")
    return found


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        digits = 4 if not self.error > 0 else max(0, 1 - math.floor(math.log10(self.error)))
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


@dataclass(frozen=True)
class Agreement:
    r"""How far p-values agree with true ones, with bootstrap errors over the events.

    Attributes
    ----------
    r : Pearson's correlation.
    mse : mean squared difference.
    r2 : :math:`R^2 = 1 - \sum (p - t)^2 / \sum (t - \bar t)^2`: the share of the variance of the true ones that is explained,
        without any refit; negative where a constant would do better.
    """

    r: Estimate
    mse: Estimate
    r2: Estimate

    def __str__(self) -> str:
        return f"r = {self.r}, MSE = {self.mse}, R2 = {self.r2}"


def agreement(p: ArrayLike, truth: ArrayLike, seed: int = 0, replicas: int = 200) -> Agreement:
    """Compare p-values with the true ones of the same events, ``(n,)`` each.

    The errors are those of the finite number of events, not of the toys behind the p-values: with N toys behind each, a perfect density has
    an expected MSE of 1/(3 N), and an R^2 of 1 - 4/N.

    >>> found = agreement([0.1, 0.5, 0.9, 0.4], [0.2, 0.5, 0.8, 0.3])
    >>> [round(number.value, 4) for number in (found.r, found.mse, found.r2)]
    [0.9724, 0.0075, 0.8571]
    """
    mine = _log_densities(p, "p")
    true = _log_densities(truth, "truth", len(mine))
    if len(mine) < 3 or not (np.isfinite(mine).all() and np.isfinite(true).all()):
        raise DataError(f"expected at least three finite p-values; got {len(mine)}")
    if np.ptp(mine) == 0 or np.ptp(true) == 0:
        raise DataError(f"expected p-values that vary; {'p' if np.ptp(mine) == 0 else 'truth'} are all the same")
    a, b = mine - mine.mean(), true - true.mean()
    terms = np.stack([a, b, a * a, b * b, a * b, (mine - true) ** 2], axis=1)
    weights = np.random.default_rng(seed).multinomial(len(mine), np.full(len(mine), 1 / len(mine)), replicas)
    values, replica = _agree(terms.mean(0)[None])[0], _agree(weights @ terms / len(mine))
    errors = replica[np.isfinite(replica).all(1)].std(0, ddof=1)  # few events: a replica may be one event many times
    return Agreement(*(Estimate(float(value), float(error)) for value, error in zip(values, errors, strict=True)))


def _agree(moments: Floats) -> Floats:
    """r, MSE and R^2, ``(k, 3)``, of the means of a, b, a^2, b^2, a b and (p - t)^2, ``(k, 6)``."""
    a, b, aa, bb, ab, mse = moments.T
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (ab - a * b) / np.sqrt((aa - a**2) * (bb - b**2))
        return np.stack([r, mse, 1 - mse / (bb - b**2)], axis=1)


@dataclass(frozen=True)
class Coverage:
    """How often true events lie inside the highest-density regions of a model, ``(k,)`` each.

    Attributes
    ----------
    level : probability of the region under the model.
    covered : share of the true events inside; above the level where the model is too wide.
    error : binomial error (Clopper and Pearson) and that of the toys which place the region's edge, in quadrature.
    """

    level: Floats
    covered: Floats
    error: Floats

    @property
    def pull(self) -> Floats:
        """(covered - level) / error; neighbouring levels share events, so these are correlated."""
        return (self.covered - self.level) / self.error

    def __str__(self) -> str:
        rows = zip(self.level, self.covered, self.error, strict=True)
        return ", ".join(f"{level:.0%}: {Estimate(float(value), float(error))}" for level, value, error in rows)


def coverage(truth: ArrayLike, toys: ArrayLike, levels: ArrayLike = LEVELS) -> Coverage:
    """Coverage from a model's log-density of true events, ``(m,)``, and of its own toys, ``(n,)``.

    The edge of the region of probability a is the quantile 1 - a of the toys' log-densities. With n toys it has the probability
    a ± sqrt(a (1 - a) / n); the error takes the covered shares at both ends.

    >>> found = coverage(np.linspace(-3, 0, 1000), np.linspace(-3, 0, 5000), [0.5, 0.9])
    >>> found.covered.tolist()
    [0.5, 0.9]
    """
    wanted = np.atleast_1d(as_floats(as_numpy(levels), "levels", np.float64))
    if not ((wanted > 0) & (wanted < 1)).all():
        raise ConfigError(f"levels: expected probabilities between 0 and 1; got {wanted.tolist()}")
    many = _log_densities(toys, "toys")
    p = np.sort(tail_probabilities(truth, many))
    spread = np.sqrt(wanted * (1 - wanted) / len(many))
    inside, less, more = (_inside(p, level) for level in (wanted, wanted - spread, wanted + spread))
    count = np.rint(inside * len(p)).astype(int)
    ends = np.array([clopper_pearson(int(k), len(p)) for k in count])
    return Coverage(wanted, inside, np.hypot((ends[:, 1] - ends[:, 0]) / 2, (more - less) / 2))


def _inside(p: Floats, level: Floats) -> Floats:
    """Share of sorted p-values above 1 - level."""
    return 1 - np.searchsorted(p, 1 - level, side="right") / len(p)
