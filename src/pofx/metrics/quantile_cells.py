"""Cells of equal probability: what a sample is counted in when it is asked how many true events it is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.data.numbers import as_floats, as_numpy
from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError

__all__ = ["Cells", "KnownTruth", "cube_cells", "events_of", "quantile_cells"]

Floats = NDArray[np.float64]
Cells = Callable[[Floats], NDArray[np.intp]]
"""Events ``(n, d)`` to the number of their cell, ``(n,)``."""
FEWEST = 5
"""True events per cell, on average, below which cells say nothing."""


class KnownTruth(Protocol):
    """A closed-form truth with its map to the unit cube, as those of :data:`pofx.simulators.task_toys.amplification.AMPLIFICATION`."""

    def uniform(self, x: ArrayLike) -> Any:
        """``(n, d)`` numbers that are uniform on the cube for events of the truth."""


def events_of(x: ArrayLike, where: str) -> Floats:
    """``(n, d)`` finite numbers, ``(n,)`` being one column; a typed error otherwise."""
    found = as_floats(as_numpy(x), where, np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.size:
        raise ShapeError(f"{where}: expected shape (n, d); got {found.shape}")
    if not np.isfinite(found).all():
        raise NonFiniteError(f"{where}: event {np.argwhere(~np.isfinite(found))[0][0]} is not finite")
    return found


def cube_cells(truth: KnownTruth, per_axis: int) -> Cells:
    """Equal boxes of the unit cube that a closed-form truth is uniform on: ``per_axis ** d`` quantiles."""

    def cell(x: Floats) -> NDArray[np.intp]:
        u = np.asarray(truth.uniform(x), dtype=np.float64)
        box = np.clip((u * per_axis).astype(np.intp), 0, per_axis - 1)
        return np.asarray(box @ per_axis ** np.arange(u.shape[1]), dtype=np.intp)

    return cell


def quantile_cells(events: ArrayLike, per_axis: int) -> Cells:
    """Cells that hold the same number of these events: quantiles of the first column, within each those of the second, and so on.

    >>> cell = quantile_cells(np.arange(100.0), 4)
    >>> np.bincount(cell(np.arange(100.0)[:, None])).tolist()
    [25, 25, 25, 25]
    """
    x = events_of(events, "events")
    if per_axis < 2:
        raise ConfigError(f"quantiles: expected at least 2 per axis; got {per_axis}")
    count = per_axis ** x.shape[1]
    if len(x) < FEWEST * count:
        raise DataError(
            f"quantiles: {per_axis} per axis in {x.shape[1]} columns are {count} cells, for which {len(x)} true events are too few "
            f"(expected at least {FEWEST} each); take fewer, or fewer columns"
        )
    edges = _edges(x, per_axis)

    def cell(new: Floats) -> NDArray[np.intp]:
        if new.shape[1] != x.shape[1]:
            raise ShapeError(f"expected {x.shape[1]} columns; got {new.shape[1]}")
        place = np.zeros(len(new), dtype=np.intp)
        for column, bounds in zip(new.T, edges, strict=True):
            place = place * per_axis + (column[:, None] >= bounds[place]).sum(1)
        return place

    return cell


def _edges(x: Floats, per_axis: int) -> list[Floats]:
    """For every column, the inner edges in each of the cells that the columns before it make, ``(cells, per_axis - 1)``."""
    levels, groups, found = np.arange(1, per_axis) / per_axis, [x], []
    for i in range(x.shape[1]):
        bounds = np.stack([np.quantile(group[:, i], levels) for group in groups])
        found.append(bounds)
        inside = [(group[:, i, None] >= bound).sum(1) for group, bound in zip(groups, bounds, strict=True)]
        groups = [group[place == k] for group, place in zip(groups, inside, strict=True) for k in range(per_axis)]
        if min(map(len, groups)) == 0:
            raise DataError(f"quantiles: column {i} has too many equal values for {per_axis} quantiles; take fewer")
    return found
