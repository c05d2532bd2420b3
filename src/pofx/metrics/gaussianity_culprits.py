r"""Which bins and pairs of bins carry a deviation from a normal law.

Bins are asked for their skewness and excess kurtosis. Pairs are asked for a dependence beyond correlation, of normal scores u (columns
whose ranks are replaced by quantiles of the normal law), so that a skewed bin does not appear again in all its pairs:

.. math::

    \text{squares:}\ \langle (u_i^2 - 1) (u_j^2 - 1) \rangle - 2 \langle u_i u_j \rangle^2, \qquad
    \text{bent:}\ \langle u_i (u_j^2 - 1) \rangle ,

both zero for a pair that is normal. How far the largest of many correlated numbers goes depends on the correlation, so the null is a
bootstrap of its own: normal data with the correlation of this sample. p-values are those of the largest pull of all (max-T of Westfall and
Young, Resampling-Based Multiple Testing, Wiley 1993). Each data set, the observed one too, has its pulls against all the others: none is
judged by a mean and spread that it helped to make, so on normal data all are exchangeable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Culprit", "culprits"]

Floats = NDArray[np.float64]
MOST = 4000
"""Rows, the first so many, that bins and pairs are looked at with."""
BOOTSTRAPS = 200
SHOWN = 30
"""Bins, and pairs, that are reported."""
BINS, PAIRS = ("skewness", "kurtosis"), ("squares", "bent")


@dataclass(frozen=True)
class Culprit:
    """A bin, or a pair of bins, and how far it is from normal.

    Attributes
    ----------
    names : one or two bins.
    what : ``"skewness"``, ``"kurtosis"`` (excess), ``"squares"`` (dependence of the squares beyond the correlation),
        ``"bent"`` (dependence of the first on the square of the second).
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


def culprits(rows: Floats, names: Sequence[str], seed: int) -> tuple[tuple[Culprit, ...], tuple[Culprit, ...]]:
    """Bins and pairs of ``(n, d)`` by the size of their deviation, the largest 30 of each, with p-values for the largest of their kind.

    A singular covariance does no harm; a constant column does.

    >>> bins, pairs = culprits(np.random.default_rng(1).normal(size=(60, 2)) ** [1, 2], ["a", "b"], seed=1)
    >>> bins[0].names
    ('b',)
    """
    rows = rows[:MOST]
    n, d = rows.shape
    values, vectors = np.linalg.eigh(np.corrcoef(rows.T) if d > 1 else np.ones((1, 1)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # few parameters behind the universes: nearly singular
    rng = np.random.default_rng([seed, 2])
    marginal, joint = [_bins(rows)], [_pairs(rows)]
    for _ in range(BOOTSTRAPS):
        normal = rng.standard_normal((n, d)) @ root.T
        marginal.append(_bins(normal))
        joint.append(_pairs(normal))
    return _largest(np.stack(marginal), BINS, names), _largest(np.stack(joint), PAIRS, names) if d > 1 else ()


def _bins(rows: Floats) -> Floats:
    """Skewness and excess kurtosis, ``(2, d)``."""
    z = rows - rows.mean(0)
    square = z * z
    variance = square.mean(0)
    return np.stack([(square * z).mean(0) / variance**1.5, (square * square).mean(0) / variance**2 - 3])


def _pairs(rows: Floats) -> Floats:
    """Squares (above the diagonal) and bent, ``(2, d, d)``, of normal scores."""
    n = len(rows)
    score = special.ndtri((np.arange(n) + 0.5) / n)
    u = np.empty_like(rows)
    np.put_along_axis(u, np.argsort(rows, axis=0), (score / score.std())[:, None], axis=0)
    square = u * u - 1
    squares = np.triu(square.T @ square / n - 2 * (u.T @ u / n) ** 2, 1)
    bent = u.T @ square / n
    np.fill_diagonal(bent, 0.0)
    return np.stack([squares, bent])


def _largest(found: Floats, what: Sequence[str], names: Sequence[str]) -> tuple[Culprit, ...]:
    """Of ``(1 + bootstraps, kinds, ...)``, the observed one first."""
    shape = found.shape[1:]
    pulls = _pulls(found.reshape(len(found), -1))
    largest = np.abs(pulls[1:]).max(1)
    made = []
    for at in np.argsort(-np.abs(pulls[0]), kind="stable")[:SHOWN]:
        kind, *bins = (int(i) for i in np.unravel_index(at, shape))
        pull, value = float(pulls[0, at]), float(found[0].ravel()[at])
        if pull == 0.0:  # a place below the diagonal, which stands for no pair
            break
        p = float((1 + (largest >= abs(pull)).sum()) / len(found))
        made.append(Culprit(tuple(names[i] for i in bins), what[kind], value, pull, p))
    return tuple(made)


def _pulls(values: Floats) -> Floats:
    """Of each of ``(m, k)`` against the other m - 1; zero where these do not vary."""
    others = len(values) - 1
    offset = values - values.mean(0)
    rest = -offset / others  # mean of the others
    variance = np.maximum((offset**2).sum(0) - offset**2 - others * rest**2, 0.0) / (others - 1)
    spread = np.sqrt(variance)
    return np.asarray(np.where(spread > 1e-12, (offset - rest) / np.where(spread > 1e-12, spread, 1.0), 0.0))
