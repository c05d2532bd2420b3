"""Rows of different lengths: how variable-length HDF5 and jagged ROOT branches travel, and clouds made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pofx.data.numbers import Array
from pofx.data.public.base import Made, Reader, RowError

__all__ = ["Ragged", "cloud", "longest", "points_of"]

_BLOCK = 1 << 14


@dataclass(frozen=True, eq=False)
class Ragged:
    """The numbers of all rows one after the other, ``(total, ...)``, and how many each row has, ``(n,)``.

    >>> rows = Ragged(np.arange(5.0), np.array([2, 0, 3]))
    >>> [row.tolist() for row in rows.objects()]
    [[0.0, 1.0], [], [2.0, 3.0, 4.0]]
    """

    flat: Array
    counts: Array

    @classmethod
    def of(cls, rows: Sequence[Array], dtype: np.dtype[Any]) -> Ragged:
        """From one array per row."""
        counts = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        return cls(np.concatenate([np.empty(0, dtype), *rows]), counts)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def owner(self) -> Array:
        """The row that each number belongs to."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def place(self) -> Array:
        """Where in its row each number stands."""
        return np.arange(len(self.flat)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)

    def objects(self) -> Array:
        """An array of arrays, one per row."""
        rows = np.empty(len(self.counts), object)
        rows[:] = np.split(self.flat, np.cumsum(self.counts)[:-1]) if len(rows) > 1 else [self.flat] * len(rows)
        return rows

    def records(self, width: int, what: str) -> Ragged:
        """Rows of ``width`` numbers each, ``flat (total / width, width)``; DataError, with the row, where a length is no multiple of it."""
        odd = np.nonzero(self.counts % width)[0]
        if len(odd):
            raise RowError(
                f"{what}: expected {width} numbers per entry; got {self.counts[odd[0]]} numbers", int(odd[0])
            )
        return Ragged(self.flat.reshape(-1, width), self.counts // width)


def cloud(features: Sequence[Ragged], names: Sequence[str], most: int, dtype: np.dtype[Any]) -> Made:
    """Points ``(n, most, F)`` and their mask; of longer rows the first ``most``. DataError, with the row, for unequal lengths.

    >>> made = cloud([Ragged(np.arange(3.0), np.array([2, 1]))], ["x"], 2, np.dtype("f4"))
    >>> made.values[..., 0].tolist(), made.mask.tolist()
    ([[0.0, 1.0], [2.0, 0.0]], [[True, True], [True, False]])
    """
    first = features[0]
    for other, name in zip(features[1:], names[1:], strict=True):
        odd = np.nonzero(first.counts != other.counts)[0]
        if len(odd):
            row = int(odd[0])
            raise RowError(f"{names[0]!r} has {first.counts[row]} points and {name!r} has {other.counts[row]}", row)
    values = np.zeros((len(first), most, len(features)), dtype)
    keep = first.place < most
    rows, places = first.owner[keep], first.place[keep]
    for i, feature in enumerate(features):
        values[rows, places, i] = feature.flat[keep]
    return Made(values, np.arange(most) < first.counts[:, None])


def points_of(values: Array, mask: Array) -> Ragged:
    """The real points of a cloud, one after the other: the inverse of :func:`cloud`."""
    return Ragged(values[mask], mask.sum(1))


def longest(read: Reader, name: str, rows: int, width: int = 1) -> int:
    """The largest number of entries (of ``width`` numbers) in a row; one pass over one array, block by block. At least 1."""
    most = 1
    for start in range(0, rows, _BLOCK):
        counts = read(start, min(start + _BLOCK, rows), [name])[name].counts
        most = max(most, int(counts.max(initial=0)) // width)
    return most
