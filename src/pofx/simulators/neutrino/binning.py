"""The bins of the measurement: slices in cos theta, each with its own momentum edges, and how events find them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pofx.errors import ConfigError

__all__ = ["BINNING", "Binning"]

Array = NDArray[np.float64]
Integers = NDArray[np.intp]

STEP = 0.05
"""All edges in momentum are multiples of this, in GeV, so that a table finds bins."""


@dataclass(frozen=True)
class Binning:
    """``(cos_low, cos_high, momentum edges in GeV)`` per slice, ascending and without gaps in cos theta; momenta start at 0.

    ConfigError if momenta are not multiples of 0.05 GeV or slices leave gaps.

    >>> two = Binning(((-1.0, 0.5, (0.0, 0.4, 1.0)), (0.5, 1.0, (0.0, 0.6))))
    >>> two.edges.tolist()
    [[0.0, 0.4, -1.0, 0.5], [0.4, 1.0, -1.0, 0.5], [0.0, 0.6, 0.5, 1.0]]
    >>> two.find(np.array([0.5, 0.5, 5.0]), np.arccos([0.0, 0.9, 0.9])).tolist()
    [1, 2, 3]
    """

    slices: tuple[tuple[float, float, tuple[float, ...]], ...]

    def __post_init__(self) -> None:
        for _, _, p in self.slices:
            if (
                not np.allclose(np.asarray(p) / STEP, np.rint(np.asarray(p) / STEP))
                or p[0] != 0
                or list(p) != sorted(p)
            ):
                raise ConfigError(f"expected ascending momenta from 0 in multiples of {STEP} GeV; got {p}")
        ends = [(low, high) for low, high, _ in self.slices]
        if [low for low, _ in ends] != [-1.0] + [high for _, high in ends[:-1]] or ends[-1][1] != 1.0:
            raise ConfigError(f"expected slices that cover cos theta from -1 to 1 in order; got {ends}")

    def __len__(self) -> int:
        return sum(len(momenta) - 1 for _, _, momenta in self.slices)

    @cached_property
    def edges(self) -> Array:
        """p_low, p_high (GeV), cos_low, cos_high, ``(bins, 4)``."""
        rows = [(a, b, low, high) for low, high, p in self.slices for a, b in pairwise(p)]
        return np.array(rows)

    @cached_property
    def areas(self) -> Array:
        """Width in p times width in cos theta, ``(bins,)`` in GeV."""
        p_low, p_high, low, high = self.edges.T
        result: Array = (p_high - p_low) * (high - low)
        return result

    def find(self, momentum: Array, angle: Array) -> Integers:
        """The bin of each muon, from momentum in GeV and angle in radians, ``(n,)``; ``len(self)`` above the last momentum of its slice."""
        angles, table = self._tables
        row = np.zeros(len(angle), np.intp)
        for edge in angles:
            row += angle >= edge
        row *= table.shape[1]
        row += np.minimum(momentum * (1 / STEP), table.shape[1] - 1).astype(np.intp)
        return table.ravel().take(row)

    @cached_property
    def _tables(self) -> tuple[Array, Integers]:
        """Inner edges in angle, ascending, and the bin by slice in that order and by steps in momentum, the last of them outside."""
        steps = [[round(edge / STEP) for edge in p] for _, _, p in self.slices]
        table = np.full((len(steps), max(map(max, steps)) + 1), len(self))
        number = 0
        for row, edges in zip(table[::-1], steps, strict=True):
            for start, stop in pairwise(edges):
                row[start:stop] = number
                number += 1
        return np.arccos([low for low, _, _ in self.slices[:0:-1]]), table


BINNING = Binning(
    (
        (-1.0, 0.0, (0.0, 0.2, 0.3, 0.4, 0.5, 0.8)),
        (0.0, 0.4, (0.0, 0.25, 0.35, 0.45, 0.55, 0.75, 1.2)),
        (0.4, 0.6, (0.0, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)),
        (0.6, 0.7, (0.0, 0.3, 0.4, 0.5, 0.6, 0.8, 1.2, 2.0)),
        (0.7, 0.8, (0.0, 0.3, 0.4, 0.5, 0.6, 0.8, 1.2, 1.6, 3.0)),
        (0.8, 0.9, (0.0, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0)),
        (0.9, 0.95, (0.0, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.5, 6.0)),
        (0.95, 1.0, (0.0, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)),
    )
)
"""Of the measurement; chosen so that most bins hold hundreds of selected events and some hold a handful."""
