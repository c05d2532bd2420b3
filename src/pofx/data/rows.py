"""Which rows of a store a data set uses, and splits that depend on the row number alone.

The hash of a row is h(r) = splitmix64(r, seed); the split gives every row its place by the rank of its hash, so the three parts have
exact sizes and depend on the seed, the row numbers and their number only: not on the order of reading, chunk size or machine.
Copies of one row (a bootstrap) always share a place. No array as long as the file is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pofx.errors import ConfigError

__all__ = ["Cut", "Rows", "row_hash", "split_rows"]

Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
_LAST = 2**64 - 1
_BLOCK = 1 << 20


def row_hash(rows: Numbers, seed: int) -> Hashes:
    """64 well-mixed bits per row number (splitmix64, Steele et al. 2014); a bijection for every seed."""
    with np.errstate(over="ignore"):
        z = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(
            (seed * 0xD1342543DE82EF95 + 0x2545F4914F6CDD1D) & _LAST
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Cut:
    """The rows whose hash lies in [first, last]."""

    seed: int
    first: int
    last: int

    def holds(self, rows: Numbers) -> npt.NDArray[np.bool_]:
        """Which of the row numbers pass."""
        if self.first > self.last:
            return np.zeros(len(rows), bool)
        hashes = row_hash(rows, self.seed)
        return (hashes >= np.uint64(self.first)) & (hashes <= np.uint64(self.last))


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows 0..total without the ``excluded`` (sorted) that pass every cut; or explicit row numbers, ``chosen``, in that order."""

    total: int
    excluded: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    cuts: tuple[Cut, ...] = ()
    chosen: Numbers | None = None

    @property
    def everything(self) -> bool:
        """Whether every row of the store is used, in order."""
        return self.chosen is None and not self.cuts and not len(self.excluded)

    @cached_property
    def count(self) -> int:
        """How many rows."""
        if self.everything:
            return self.total
        return sum(len(block) for block in self.blocks())

    def within(self, start: int, stop: int) -> Numbers:
        """The row numbers among start..stop, in order (not for explicit rows)."""
        numbers = np.arange(start, min(stop, self.total), dtype=np.int64)
        if len(self.excluded):
            numbers = np.delete(numbers, self.excluded[slice(*np.searchsorted(self.excluded, (start, stop)))] - start)
        for cut in self.cuts:
            numbers = numbers[cut.holds(numbers)]
        return numbers

    def blocks(self) -> Iterator[Numbers]:
        """All row numbers, in pieces of bounded size."""
        if self.chosen is not None:
            yield self.chosen
            return
        for start in range(0, self.total, _BLOCK):
            yield self.within(start, start + _BLOCK)

    @cached_property
    def numbers(self) -> Numbers:
        """All row numbers at once (8 bytes a row)."""
        return np.concatenate([np.empty(0, np.int64), *self.blocks()])

    def take(self, positions: Numbers) -> Rows:
        """The rows at these positions, in this order."""
        return Rows(self.total, chosen=self.numbers[positions])

    def cut(self, cut: Cut) -> Rows:
        """Those that also pass the cut."""
        if self.chosen is not None:
            return Rows(self.total, chosen=self.chosen[cut.holds(self.chosen)])
        return replace(self, cuts=(*self.cuts, cut))


def split_rows(rows: Rows, fractions: tuple[float, ...], seed: int) -> tuple[Rows, ...]:
    """Disjoint parts of the rows, of sizes ``fractions * count`` (rounded; at least one row where a fraction is positive)."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(
            f"a split needs three fractions (train, val, test) that are not negative and sum to 1; got {fractions}"
        )
    sizes = [max(round(rows.count * f), 1) if f > 0 else 0 for f in fractions[1:]]
    ends = [max(rows.count - sum(sizes), 0), max(rows.count - sizes[1], 0), rows.count]
    marks = [0, *(_order_statistic(rows, seed, k) for k in ends)]
    return tuple(rows.cut(Cut(seed, marks[i], marks[i + 1] - 1)) for i in range(3))


def _order_statistic(rows: Rows, seed: int, k: int) -> int:
    """The k-th smallest hash (counted from 0), looked for in a window about where a uniform sample has it."""
    n = rows.count
    if k <= 0 or k >= n:
        return 0 if k <= 0 else _LAST + 1
    for width in (8 / np.sqrt(n), 1.0):
        low, high = (int(np.clip(k / n + side * width, 0, 1) * float(_LAST)) for side in (-1, 1))
        below, inside = _window(rows, seed, low, min(high, _LAST))
        if below <= k < below + len(inside):
            return int(np.partition(inside, k - below)[k - below])
    raise AssertionError("unreachable: the second window holds every hash")


def _window(rows: Rows, seed: int, low: int, high: int) -> tuple[int, Hashes]:
    below, inside = 0, [np.empty(0, np.uint64)]
    for block in rows.blocks():
        hashes = row_hash(block, seed)
        below += int((hashes < np.uint64(low)).sum())
        inside.append(hashes[(hashes >= np.uint64(low)) & (hashes <= np.uint64(high))])
    return below, np.concatenate(inside)
