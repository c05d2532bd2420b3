r"""Is the measurement Gaussian, in total and source by source?

The universes of a single source often move in a few directions only: three flux parameters span three. Statistics of normality need
directions that vary, so rows are first projected on the eigenvectors of their correlation whose eigenvalue is above a tolerance of the
largest; how many were kept is said. Bins and pairs are looked at as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pofx.errors import DataError
from pofx.metrics.gaussianity import GaussianCheck, check_gaussian, culprits
from pofx.tasks.cross_section.universes import Universes
from pofx.training.noise import derive_seed

__all__ = ["TOTAL", "SourceCheck", "check", "directions"]

Floats = NDArray[np.float64]
TOTAL = "total"
TOLERANCE = 1e-3
"""Of an eigenvalue of the correlation, relative to the largest: directions below hold less than a thousandth of the largest variance."""


@dataclass(frozen=True)
class SourceCheck:
    """The check of one source.

    Attributes
    ----------
    found : in the directions that vary; its bins and pairs are those of the measurement.
    directions, bins : how many directions vary, of how many bins.
    variance : share of the variance (of the standardised bins) that they hold.
    """

    found: GaussianCheck
    directions: int
    bins: int
    variance: float


def directions(rows: Floats, tolerance: float = TOLERANCE) -> tuple[Floats, float]:
    """Rows ``(n, bins)`` in the directions that vary, ``(n, k)``, and the share of the variance that these hold.

    Constant bins are left out. DataError if nothing varies.

    >>> x = np.random.default_rng(1).normal(size=(100, 1)) * [1.0, 2.0, 0.0]
    >>> found, share = directions(x)
    >>> found.shape, round(share, 6)
    ((100, 1), 1.0)
    """
    spread = rows.std(0, ddof=1)
    some = spread > 1e-12 * np.maximum(np.abs(rows.mean(0)), 1e-300)
    if not some.any():
        raise DataError(f"none of {rows.shape[1]} bins varies among {len(rows)} universes")
    unit = (rows[:, some] - rows[:, some].mean(0)) / spread[some]
    values, vectors = np.linalg.eigh(unit.T @ unit / (len(unit) - 1))
    kept = values > tolerance * values[-1]
    return np.asarray(unit @ vectors[:, kept]), float(values[kept].sum() / values.sum())


def check(
    universes: Universes, *, most: int = 1000, replicas: int = 300, seed: int = 0, cache: bool | Path = True
) -> dict[str, SourceCheck]:
    """Check the total, and every source, for which there are universes.

    Parameters
    ----------
    most : universes, the first so many, that are looked at: the null costs as much as ``replicas`` such checks, once for each size.
    replicas, cache : of the null, see :func:`~pofx.metrics.gaussianity.check_gaussian`.
    seed : of splits and bootstraps.

    Raises
    ------
    DataError where universes are too few for their directions, or nothing varies.

    >>> universes = Universes(np.random.default_rng(1).normal(1.0, 0.1, (80, 2)))
    >>> check(universes, replicas=20, cache=False)["total"].found.is_gaussian(0.001)
    True
    """
    parts: Mapping[str, Floats] = {**universes.sources, TOTAL: universes.total}
    return {
        name: _one(rows[:most], universes.names, replicas, derive_seed(seed, name), cache)
        for name, rows in parts.items()
    }


def _one(rows: Floats, names: tuple[str, ...], replicas: int, seed: int, cache: bool | Path) -> SourceCheck:
    projected, variance = directions(rows)
    found = check_gaussian(projected, replicas=replicas, seed=seed, cache=cache, locate=False)
    some = np.flatnonzero(rows.std(0) > 0)
    bins, pairs = culprits(rows[:, some], [names[i] for i in some], seed)
    return SourceCheck(replace(found, bins=bins, pairs=pairs), projected.shape[1], rows.shape[1], variance)
