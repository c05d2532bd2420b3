r"""Which parts of the truth does a sample lack? Mode collapse, by counting events in cells.

Half of the true events make the cells (k-means in whitened coordinates), the other half and the generated events are counted in them, so
the cells know nothing of what is counted. With shares p_k of the truth and q_k of the generated events, of effective counts n_k and m_k
and exposures N_k = n_k / p_k and M_k,

- a cell is *thin* if m_k is too small for q_k = p_k: the binomial probability of at most m_k out of n_k + m_k, each with
  M_k / (N_k + M_k), is below ``level`` divided by the number of cells;
- the value is the true share of thin cells, :math:`\sum_{thin} p_k`; what they lack is :math:`\sum_{thin} (p_k - q_k)`;
- the p-value is that of :math:`\chi^2 = (p - q)^T C^{+} (p - q)` with the covariance C of p - q under p = q, which without weights is
  Pearson's statistic of two samples.

The floor is the mean of the value over pairs of samples of the truth of the same effective sizes: multinomial counts with pooled shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pofx.classifiers.base import Floats, as_rows, as_weight, centre_scale
from pofx.errors import ConfigError, DataError, ShapeError
from pofx.metrics.pvalues import Estimate

__all__ = ["Modes", "modes"]

PER_CELL = 50
"""True events per cell, at least, on average."""


@dataclass(frozen=True, eq=False)
class Modes:
    """The result of :func:`modes`.

    Attributes
    ----------
    value, error : true share of the cells that are thin, and its standard error (that of the true events in them).
    floor, floor_error : mean and standard deviation of the value between two samples of the truth.
    lacking : how much probability these cells lack.
    p_value, chi_squared, dof : of equal shares in all cells.
    thin : ``(k,)``, which cells they are.
    truth, generated : ``(k,)``, shares.
    centres : ``(k, d)`` in the units of the columns.
    """

    value: float
    error: float
    floor: float
    floor_error: float
    lacking: Estimate
    p_value: float
    chi_squared: float
    dof: int
    thin: NDArray[np.bool_]
    truth: Floats
    generated: Floats
    centres: Floats

    def __str__(self) -> str:
        return (
            f"{self.thin.sum()} of {len(self.thin)} cells are thin, with a true share of {self.value:.4f} ± {self.error:.4f} (floor "
            f"{self.floor:.4f} ± {self.floor_error:.4f}), and lack {self.lacking}; chi^2/dof {self.chi_squared:.1f}/{self.dof}, "
            f"p = {self.p_value:.3g}"
        )


class _Counts(NamedTuple):
    """Of one side, per cell: share, and the variance of the sum of weights in units of the sum (1 / N for unweighted events)."""

    share: Floats
    noise: Floats
    squares: float

    @property
    def exposure(self) -> Floats:
        return 1.0 / self.noise


def modes(
    truth: Any,
    generated: Any,
    *,
    cells: int | None = None,
    level: float = 0.01,
    weight_truth: Any = None,
    weight_generated: Any = None,
    replicas: int = 200,
    seed: int = 0,
) -> Modes:
    """Find cells of the truth that a sample leaves empty, or nearly so.

    Parameters
    ----------
    truth, generated : arrays ``(n, d)`` and ``(m, d)``.
    cells : how many; None for one per 50 counted true events, at most 64. More cells find smaller modes with less certainty.
    level : probability that any cell at all is called thin if both samples have one law.
    weight_truth, weight_generated : ``(n,)`` and ``(m,)``, none negative.
    replicas : pairs of samples behind the floor.
    seed : of the cells and of the floor.

    Raises
    ------
    ShapeError, NonFiniteError, DataError : different columns, NaN, negative weights, too few events.
    ConfigError : ``cells`` below 2 or more than the events allow, a ``level`` outside (0, 1).

    >>> rng = np.random.default_rng(1)
    >>> centres = np.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    >>> truth = centres[rng.integers(0, 3, 4000)] + rng.normal(size=(4000, 2))
    >>> found = modes(truth, truth[truth[:, 1] < 2.0])
    >>> 0.25 < found.lacking.value < 0.4, found.p_value < 1e-6
    (True, True)
    """
    sides = as_rows(truth, "truth"), as_rows(generated, "generated")
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ShapeError(f"expected two samples of equal columns; got shapes {sides[0].shape} and {sides[1].shape}")
    weights = _positive(weight_truth, len(sides[0]), "truth"), _positive(weight_generated, len(sides[1]), "generated")
    if not 0 < level < 1:
        raise ConfigError(f"level: expected a number between 0 and 1; got {level}")
    number = _cells(cells, len(sides[0]) // 2)
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(sides[0]))
    make, count = order[: len(order) // 2], order[len(order) // 2 :]
    cell = _Cells(sides[0][make], weights[0][make], number, seed)
    a = _counted(cell(sides[0][count]), weights[0][count], number)
    b = _counted(cell(sides[1]), weights[1], number)
    return _result(a, b, cell.centres, level, replicas, rng)


def _positive(weight: Any, n: int, name: str) -> Floats:
    found = as_weight(weight, n, f"weight_{name}")
    if (found < 0).any():
        raise DataError(
            f"weight_{name}: cells are counted, which needs weights of at least 0; the lowest is {found.min():.4g}"
        )
    return found


def _cells(wanted: int | None, n: int) -> int:
    most = n // PER_CELL
    if most < 2:
        raise DataError(f"truth: expected at least {4 * PER_CELL} events, half of them to be counted; got {2 * n}")
    if wanted is None:
        return min(64, most)
    if not 2 <= wanted <= most:
        raise ConfigError(f"cells: expected between 2 and {most} for so many true events; got {wanted}")
    return wanted


class _Cells:
    """Nearest of the centres that k-means finds, in coordinates in which the truth has unit covariance."""

    def __init__(self, x: Floats, weight: Floats, number: int, seed: int) -> None:
        from sklearn.cluster import KMeans

        centre, scale = centre_scale(x, weight / weight.sum())
        unit = (x - centre) / scale
        values, vectors = np.linalg.eigh((unit * (weight / weight.sum())[:, None]).T @ unit)
        kept = values > 1e-12 * max(values[-1], 1e-300)
        if not kept.any():
            raise DataError("truth: expected columns that vary; all events are the same")
        self._root, back = vectors[:, kept] / np.sqrt(values[kept]), vectors[:, kept] * np.sqrt(values[kept])
        self._centre, self._scale = centre, scale
        self._means = KMeans(number, n_init=1, random_state=seed).fit(unit @ self._root, sample_weight=weight)
        self.centres: Floats = centre + scale * (self._means.cluster_centers_ @ back.T)

    def __call__(self, x: Floats) -> NDArray[np.intp]:
        """Cell numbers ``(n,)``."""
        return np.asarray(self._means.predict((x - self._centre) / self._scale @ self._root), dtype=np.intp)


def _counted(cell: NDArray[np.intp], weight: Floats, number: int) -> _Counts:
    total, squares = weight.sum(), (weight**2).sum()
    sums, inner = (np.bincount(cell, w, number) for w in (weight, weight**2))
    typical = np.where(sums > 0, inner / np.where(sums > 0, sums, 1.0), squares / total)
    return _Counts(sums / total, typical / total, float(squares / total**2))


# What the counts say


def _result(a: _Counts, b: _Counts, centres: Floats, level: float, replicas: int, rng: np.random.Generator) -> Modes:
    thin = _thin(a, b, level)
    pooled = _pooled(a, b)
    chi_squared = _chi_squared(a, b, pooled)
    null = _null(a, b, pooled, level, replicas, rng)
    lost = float((a.share - b.share)[thin].sum())
    errors = [_error(side, thin) for side in (a, b)]
    return Modes(
        value=float(a.share[thin].sum()),
        error=errors[0],
        floor=float(null.mean()),
        floor_error=float(null.std(ddof=1)),
        lacking=Estimate(lost, math.hypot(*errors)),
        p_value=float(stats.chi2.sf(chi_squared, len(thin) - 1)),
        chi_squared=chi_squared,
        dof=len(thin) - 1,
        thin=thin,
        truth=a.share,
        generated=b.share,
        centres=centres,
    )


def _error(side: _Counts, chosen: NDArray[np.bool_]) -> float:
    """Standard error of the share of the chosen cells: sqrt(s (1 - s) / N) for unweighted events."""
    inside = float((side.share * side.noise)[chosen].sum())
    share = float(side.share[chosen].sum())
    return float(np.sqrt(max(inside * (1 - 2 * share) + share**2 * side.squares, 0.0)))


def _thin(a: _Counts, b: _Counts, level: float) -> NDArray[np.bool_]:
    """Cells whose count in b is too low, by the binomial distribution function (an incomplete beta function)."""
    n, m = a.share * a.exposure, b.share * b.exposure
    chance = b.exposure / (a.exposure + b.exposure)
    below = np.where(n > 0, special.betainc(np.maximum(n, 1e-12), m + 1.0, 1.0 - chance), 1.0)
    return np.asarray(below < level / len(n))


def _pooled(a: _Counts, b: _Counts) -> Floats:
    share: Floats = (a.share * a.exposure + b.share * b.exposure) / (a.exposure + b.exposure)
    return share / share.sum()


def _chi_squared(a: _Counts, b: _Counts, pooled: Floats) -> float:
    """(p - q)^T C^+ (p - q): one cell is left out, because shares add up to one."""
    some = pooled > 0
    covariance = sum((_covariance(side, pooled) for side in (a, b)), np.zeros((len(pooled), len(pooled))))
    rows = np.flatnonzero(some)[:-1]
    apart = (a.share - b.share)[rows]
    return float(apart @ np.linalg.solve(covariance[np.ix_(rows, rows)], apart))


def _covariance(side: _Counts, pooled: Floats) -> Floats:
    """Of the shares, if the true ones are the pooled ones: diag(v) - p v^T - v p^T + p p^T sum(v), with v_k = p_k noise_k."""
    v = pooled * side.noise
    cross = np.outer(pooled, v)
    covariance: Floats = np.diag(v) - cross - cross.T + np.outer(pooled, pooled) * v.sum()
    return covariance


def _null(a: _Counts, b: _Counts, pooled: Floats, level: float, replicas: int, rng: np.random.Generator) -> Floats:
    """The value for pairs of samples with the pooled shares."""
    found = []
    for _ in range(replicas):
        first, second = (_drawn(side, pooled, rng) for side in (a, b))
        found.append(first.share[_thin(first, second, level)].sum())
    return np.array(found)


def _drawn(side: _Counts, pooled: Floats, rng: np.random.Generator) -> _Counts:
    """Unweighted counts of as many events as these are worth."""
    n = max(1, round(1.0 / side.squares))
    return _Counts(rng.multinomial(n, pooled) / n, np.full(len(pooled), 1.0 / n), 1.0 / n)
