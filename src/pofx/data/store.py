"""Where rows come from: one small protocol behind arrays in memory and files of every format.

A store is a list of *parts* (a column of a table, a matrix, a grid, a cloud) that all have the same number of rows, and hands out
contiguous rows of chosen parts. It knows nothing about splits, contexts or shuffling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from pofx.data.numbers import Array
from pofx.data.spec import Field
from pofx.errors import DataError, ShapeError

__all__ = ["JoinedStore", "MemoryStore", "Part", "Role", "Store", "loaded", "mask_name", "part_name", "same_length"]

Role = Literal["x", "context", "weight"]


@dataclass(frozen=True)
class Part:
    """One stored array.

    Attributes
    ----------
    name : its name in the store.
    field : what one row of it is; a vector part may be stored as ``(n,)`` or ``(n, k)``.
    dtype : as stored.
    group : the field of the event that it belongs to; vector parts of one group are joined in order.
    role : what it is used for unless the user says otherwise.
    problem : why it cannot be used (text, jagged, ...), or empty; only an error if it is asked for.
    """

    name: str
    field: Field
    dtype: np.dtype[Any]
    group: str = "x"
    role: Role = "x"
    problem: str = ""

    @property
    def bytes(self) -> int:
        """Bytes per row once served."""
        return self.field.size * max(4, self.dtype.itemsize)


class Store(Protocol):
    """Rows of parts. ``grain``: rows that are cheapest read together; ``origin``: how errors call it."""

    origin: str
    parts: tuple[Part, ...]
    in_memory: bool
    grain: int

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """The named parts of rows start..stop; the mask of a cloud comes along under :func:`mask_name`."""
        ...


def mask_name(part: str) -> str:
    """The name under which the mask of a cloud travels."""
    return f"{part}.mask"


def part_name(field: str, role: Role) -> str:
    """The name under which a field of x (its own) or of the context (``context.<name>``) is stored."""
    return field if role in ("x", field) else f"{role}.{field}"


def same_length(lengths: Mapping[str, int], origin: str) -> int:
    """The common number of rows, or an error that names those that differ."""
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ShapeError(f"{origin}: expected the same number of rows everywhere; got {listing}")
    return next(iter(lengths.values()), 0)


@dataclass
class MemoryStore:
    """Arrays in memory (or memory maps, with ``in_memory=False``)."""

    origin: str
    parts: tuple[Part, ...]
    arrays: Mapping[str, Array]
    in_memory: bool = True
    grain: int = 1
    owner: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._length = same_length({name: len(array) for name, array in self.arrays.items()}, self.origin)

    def __len__(self) -> int:
        return self._length

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Views of the arrays (copies into memory where they are memory maps)."""
        wanted = [key for name in names for key in (name, mask_name(name)) if key in self.arrays]
        if self.in_memory:
            return {key: self.arrays[key][start:stop] for key in wanted}
        return {key: np.array(self.arrays[key][start:stop]) for key in wanted}


def loaded(store: Store, names: Sequence[str]) -> MemoryStore:
    """The named parts of a store, all rows in memory."""
    parts = tuple(part for part in store.parts if part.name in names)
    return MemoryStore(store.origin, parts, store.rows(0, len(store), names))


class JoinedStore:
    """Stores of equal length side by side, e.g. a file and an array of weights."""

    def __init__(self, stores: Iterable[Store]) -> None:
        self.stores = tuple(stores)
        self.origin = self.stores[0].origin
        self.parts = tuple(part for store in self.stores for part in store.parts)
        self.in_memory = all(store.in_memory for store in self.stores)
        self.grain = max(store.grain for store in self.stores)
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise DataError(f"{self.origin}: two parts have the same name among {', '.join(names)}")
        same_length({part.name: len(store) for store in self.stores for part in store.parts}, self.origin)

    def __len__(self) -> int:
        return len(self.stores[0])

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Every store's share."""
        merged: dict[str, Array] = {}
        for store in self.stores:
            mine = {part.name for part in store.parts}
            merged |= store.rows(start, stop, [name for name in names if name in mine])
        return merged
