"""What a public format is: the arrays that its files hold, and the fields of an event that they become.

A format states names, shapes and units as its authors published them, and two maps between stored arrays and events. Opening, streaming,
checking and writing are shared. Values keep the units they are stored in; the columns say which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.options import Request
from pofx.data.patterns import listing
from pofx.data.spec import EventSpec, Field
from pofx.data.store import Part, Role, mask_name, same_length
from pofx.errors import DataError, FormatError

__all__ = [
    "Extras",
    "Made",
    "Piece",
    "PublicFormat",
    "PublicStore",
    "RowError",
    "as_it_is",
    "context_of",
    "inner_type",
    "not_negative",
]

Container = Literal["hdf5", "npz", "root"]
Reader = Callable[[int, int, Sequence[str]], Mapping[str, Any]]
"""``(start, stop, names)`` to the rows of the named arrays, as stored; rows of different lengths as ``pofx.data.public.ragged.Ragged``."""


class Made(NamedTuple):
    """Rows of one part, ``(n, *field.shape)``, and the mask ``(n, L)`` of a cloud."""

    values: Array
    mask: Array | None = None


@dataclass(frozen=True)
class Piece:
    """One field of an event and how it is made.

    Attributes
    ----------
    name, field, role : of the event's field; contexts are what the published models are conditioned on.
    sources : stored arrays that it is made of.
    make : rows of these arrays, by name, to the field's.
    """

    name: str
    field: Field
    sources: tuple[str, ...]
    make: Callable[[Mapping[str, Any]], Made]
    role: Role = "x"

    def part(self, dtype: np.dtype[Any]) -> Part:
        """The part of the store."""
        return Part(self.name, self.field, dtype, self.name, self.role)


class Extras(NamedTuple):
    """What a written file holds beside the rows: whole arrays, attributes by object (HDF5), the name of the tree (ROOT)."""

    arrays: Mapping[str, Array] = {}
    attributes: Mapping[str, Mapping[str, Any]] = {}
    tree: str = ""


class PublicFormat(ABC):
    """One published layout of files.

    Attributes
    ----------
    name : by which ``ReadOptions(format=...)`` and ``write(..., format=...)`` know it; title and reference for people.
    container : the kind of file.
    keys : arrays that a file must hold, with their shapes without the rows; None for an axis of any length.
    trees : ROOT only: the tree that is read, then others by which a file of several trees is known.
    becomes, units : what an event consists of, and in which units, for people.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    container: ClassVar[Container] = "hdf5"
    keys: ClassVar[Mapping[str, tuple[int | None, ...]]]
    trees: ClassVar[tuple[str, ...]] = ()
    becomes: ClassVar[str] = ""
    units: ClassVar[str] = ""

    def recognises(self, stored: Mapping[str, Stored]) -> bool:
        """Whether a file that holds these arrays is of this format."""
        return not self.misfits(stored)

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        """What is missing or has another shape, in words."""
        found = []
        for name, shape in self.keys.items():
            words = f"{name} ({', '.join(['n', *('*' if k is None else str(k) for k in shape)])})"
            if name not in stored:
                found.append(f"{words} is missing")
            elif not stored[name].shape or not _fits(stored[name].shape[1:], shape):
                found.append(f"{words}; got shape {stored[name].shape}")
        return found

    def require(self, stored: Mapping[str, Stored], origin: str) -> None:
        """FormatError unless the arrays are there, of the right shape."""
        self._refuse(self.misfits(stored), stored, origin)

    def check(self, stored: Mapping[str, Stored], origin: str) -> None:
        """FormatError unless the arrays that are used hold numbers and are of one length."""
        names = self.bound(stored)
        wrong = [f"{name} holds {stored[name].dtype}" for name in names if not _numeric(stored[name])]
        self._refuse(wrong, stored, origin)
        same_length({name: stored[name].shape[0] for name in names}, origin)

    def _refuse(self, wrong: Sequence[str], stored: Mapping[str, Stored], origin: str) -> None:
        if wrong:
            raise FormatError(
                f"{origin}: expected {self.title} ({self.name}): {'; '.join(wrong)}; the file holds {listing(stored)}"
            )

    def settled(self, stored: Mapping[str, Stored], request: Request, read: Reader) -> Self:
        """The format with what only the request or the content tells: which array, how many points a cloud has."""
        return self

    def bound(self, stored: Mapping[str, Stored]) -> tuple[str, ...]:
        """The arrays of a file that fits which stand for the keys: of the same names, unless names are free."""
        return tuple(self.keys)

    @abstractmethod
    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        """The fields of an event, for arrays that fit."""

    @abstractmethod
    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        """The inverse: rows of the stored arrays out of a batch of events (context included)."""

    def extras(self, rows: int, spec: EventSpec, context_spec: EventSpec | None) -> Extras:
        """What a file of so many events holds beside their rows."""
        return Extras(tree=next(iter(self.trees), ""))


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


def _numeric(array: Stored) -> bool:
    """Numbers, rows of numbers of any length (metadata ``vlen``, as in HDF5), or named members that are numbers."""
    if array.dtype.names:
        return all(array.dtype[name].kind in "fiub" for name in array.dtype.names)
    return inner_type(array).kind in "fiub"


def inner_type(array: Stored) -> np.dtype[Any]:
    """The type of the numbers of an array whose rows may be of any length."""
    about: Mapping[str, Any] = array.dtype.metadata or {}
    inner = about.get("vlen", array.dtype)
    return inner if isinstance(inner, np.dtype) else array.dtype


class PublicStore:
    """Rows of a file of a public format, made into fields when they are asked for."""

    in_memory = False

    def __init__(
        self,
        path: Path,
        form: PublicFormat,
        stored: Mapping[str, Stored],
        read: Reader,
        request: Request,
        grain: int = 1,
    ) -> None:
        form.require(stored, str(path))
        form = form.settled(stored, request, read)
        form.check(stored, str(path))
        self.path, self.origin, self.format, self.grain, self._read = path, str(path), form, grain, read
        self._pieces = {piece.name: piece for piece in form.pieces(stored)}
        self.parts = tuple(piece.part(_common(stored, piece.sources)) for piece in self._pieces.values())
        self._length = stored[form.bound(stored)[0]].shape[0]

    def __len__(self) -> int:
        return self._length

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Rows start..stop of the named fields, and the masks of clouds."""
        sources = sorted({source for name in names for source in self._pieces[name].sources})
        raw = self._read(start, stop, sources)
        found: dict[str, Array] = {}
        for name in names:
            made = self._made(self._pieces[name], raw, start)
            found[name] = made.values
            if made.mask is not None:
                found[mask_name(name)] = made.mask
        return found

    def _made(self, piece: Piece, raw: Mapping[str, Any], start: int) -> Made:
        try:
            return piece.make(raw)
        except RowError as error:
            raise DataError(f"{self.origin}: {piece.name!r}, row {start + error.row}: {error}") from None


class RowError(DataError):
    """What is wrong with one row of a block."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def _common(stored: Mapping[str, Stored], names: Iterable[str]) -> np.dtype[Any]:
    """The type of a field that is made of these arrays: of their numbers together, single precision for flags."""
    kinds = [inner_type(stored[name]) for name in names]
    members = [kind[name] for kind in kinds if kind.names for name in kind.names]
    common = np.result_type(*(members or kinds))
    return np.dtype(np.float32) if common.kind == "b" else common


def as_it_is(name: str) -> Callable[[Mapping[str, Array]], Made]:
    """The field is the stored array (a grid of one channel gets its channel axis elsewhere)."""
    return lambda raw: Made(raw[name])


def context_of(events: Events) -> Mapping[str, Array]:
    """The fields of the context, none where there is no context."""
    return {} if events.context is None else events.context.fields


def not_negative(values: Array, what: str) -> Array:
    """The same values; DataError, with the row, where one is below zero. NaN passes: it is reported, or dropped, with all others."""
    below = values < 0
    if below.any():
        row = int(np.argmax(below.reshape(len(values), -1).any(1)))
        raise RowError(f"{what} must not be negative; got {values[row][below[row]].min():.6g}", row)
    return values
