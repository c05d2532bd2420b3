"""The note that pofx leaves in the files it writes, and what the arrays or columns of a file become with and without it.

The note is JSON: the specs of x and context (names, units, types, ranges, axes), whether there are weights, and the stored types.
HDF5, npz, Parquet and ROOT have a place for it; CSV carries it in a first line that starts with ``# pofx``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pofx.data.numbers import Array, problem_with
from pofx.data.options import Request
from pofx.data.patterns import close, listing
from pofx.data.spec import Axis, Column, EventSpec, Field, spec_from_dict, spec_to_dict
from pofx.data.store import Part, Role, part_name
from pofx.errors import ColumnError, FormatError

__all__ = [
    "NOTE",
    "Layout",
    "Stored",
    "array_parts",
    "choose_arrays",
    "column_parts",
    "named_column",
    "piece_of",
    "source_of",
    "unique_names",
]

_MEMBER = "::"
NOTE = "pofx"
"""The attribute, member or key that holds the note."""


@dataclass(frozen=True)
class Stored:
    """Name, shape (rows first) and type of an array in a file, and its column names if the file has them."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


@dataclass(frozen=True)
class Layout:
    """What a file written by pofx holds."""

    spec: EventSpec
    context_spec: EventSpec | None
    weighted: bool
    types: Mapping[str, str] = field(default_factory=dict)

    def dumps(self) -> str:
        """The note."""
        context = None if self.context_spec is None else spec_to_dict(self.context_spec)
        plain = {
            "format": 1,
            "spec": spec_to_dict(self.spec),
            "context_spec": context,
            "weighted": self.weighted,
            "types": dict(self.types),
        }
        return json.dumps(plain)

    @staticmethod
    def loads(text: str | bytes, origin: str) -> Layout:
        """The inverse; a damaged note is a ``FormatError``."""
        try:
            plain = json.loads(text)
            context = None if plain["context_spec"] is None else spec_from_dict(plain["context_spec"])
            types = {str(name): str(np.dtype(value)) for name, value in plain["types"].items()}
            return Layout(spec_from_dict(plain["spec"]), context, bool(plain["weighted"]), types)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FormatError(
                f"{origin}: the note that pofx wrote into the file is damaged ({type(error).__name__}: {error})"
            ) from None

    def fields(self) -> list[tuple[str, Field, str, Role]]:
        """Stored name, field, group and role of everything, weight last."""
        roles: list[tuple[Role, EventSpec]] = [("x", self.spec), ("context", self.context_spec or {})]
        found = [(part_name(name, role), form, name, role) for role, spec in roles for name, form in spec.items()]
        weight: list[tuple[str, Field, str, Role]] = [
            ("weight", Field("vector", (1,), (Column("weight"),)), "weight", "weight")
        ]
        return found + (weight if self.weighted else [])

    def flat(self) -> list[tuple[str, str, int, Column]]:
        """For tables: column name in the file, stored name and number of each column (prefixed where two have the same name)."""
        rows = [(stored, i, column) for stored, form, _, _ in self.fields() for i, column in enumerate(form.columns)]
        names = [column.name for _, _, column in rows]
        return [(c.name if names.count(c.name) == 1 else f"{stored}.{c.name}", stored, i, c) for stored, i, c in rows]


def named_column(text: str) -> Column:
    """A column from a header cell: ``pt`` or ``pt [GeV]``."""
    found = re.fullmatch(r"(.*\S)\s*\[([^\[\]]*)\]", text.strip())
    return Column(found[1], found[2]) if found else Column(text.strip())


def choose_arrays(stored: Sequence[Stored], request: Request, origin: str) -> list[Stored]:
    """Which arrays of a file to use: those of ``key``, else the only candidate, else all if they look like the columns of one table."""
    by_name = {array.name: array for array in stored}
    if request.key:
        return [array for key in request.key for array in _keyed(key, by_name, origin)]
    usable = [array for array in stored if (array.dtype.names or not problem_with(array.dtype)) and array.shape]
    extra = [array for array in usable if array.name in request.named]
    main = [array for array in usable if array.name not in request.named]
    table = all(len(a.shape) == 1 or a.shape[1:] == (1,) for a in main) and len({a.shape[0] for a in main}) == 1
    if len(main) == 1 or table:
        return main + extra
    if not stored:
        raise FormatError(f"{origin}: the file holds no arrays")
    if not usable:
        raise FormatError(
            f"{origin}: expected arrays of numbers; there are {listing(f'{a} {a.dtype}' for a in stored)}"
        )
    if not main:
        return extra
    raise FormatError(
        f"{origin}: several arrays to choose from, say which with key=: {listing(str(a) for a in usable)}"
    )


def _keyed(key: str, stored: Mapping[str, Stored], origin: str) -> list[Stored]:
    if key in stored:
        return [stored[key]]
    inside = [array for name, array in stored.items() if name.startswith(key.rstrip("/") + "/")]
    if not inside:
        raise FormatError(f"{origin}: no array is called {key!r}; {close(key, stored)}")
    return inside


def array_parts(chosen: Sequence[Stored]) -> list[Part]:
    """What arrays without a note become: ``(n,)`` a column, ``(n, k)`` columns ``name_0 ...``, more axes a grid of one channel.

    The members of a compound (structured) type become columns, in parts called ``array::member``.
    """
    parts: list[Part] = []
    for a in chosen:
        if a.dtype.names and len(a.shape) == 1:
            inside = column_parts({name: a.dtype[name] for name in a.dtype.names}, None, {}, a.name)
            parts += [replace(part, name=f"{a.name}{_MEMBER}{part.name}") for part in inside]
        else:
            group = "x" if len(a.shape) < 3 else a.name
            parts.append(Part(a.name, _guess(a), a.dtype, group, "x", problem_with(a.dtype)))
    return parts


def source_of(part: str, there: Container[str]) -> tuple[str, str | None]:
    """The array that a part is in, and the member of its compound type, if it is one."""
    name, _, member = part.rpartition(_MEMBER)
    return (part, None) if part in there or not name else (name, member)


def piece_of(array: Array, part: Part, member: str | None) -> Array:
    """The part's share of rows of its array, in the shape of the field (a grid's only channel gets its axis)."""
    if member is not None:
        array = array[member]
    return array if part.field.kind == "vector" else array.reshape(len(array), *part.field.shape)


def _guess(array: Stored) -> Field:
    base = array.name.rsplit("/", 1)[-1]
    shape = array.shape[1:]
    if len(shape) < 2:
        width = shape[0] if shape else 1
        names = array.columns or ((base,) if width == 1 else tuple(f"{base}_{i}" for i in range(width)))
        return Field("vector", (width,), tuple(named_column(name) for name in names))
    axes = tuple(Axis(f"axis{i}", cells) for i, cells in enumerate(shape))
    return Field("grid", (1, *shape), (Column(base),), axes)


def column_parts(
    names: Mapping[str, np.dtype[Any]], layout: Layout | None, problems: Mapping[str, str], origin: str
) -> tuple[Part, ...]:
    """The parts of a table stored by columns: one each, with the roles that the note gives, if there is one."""
    noted = {} if layout is None else {flat: (stored, column) for flat, stored, _, column in layout.flat()}
    roles = {} if layout is None else {stored: (group, role) for stored, _, group, role in layout.fields()}
    plain: tuple[str, Role] = ("x", "x")
    missing = [name for name in noted if name not in names]
    if missing:
        raise FormatError(f"{origin}: the note in the file speaks of column(s) {listing(missing)}, which are not there")
    parts = []
    for name, dtype in names.items():
        group, role = roles[noted[name][0]] if name in noted else plain
        column = noted[name][1] if name in noted else named_column(name)
        field = Field("vector", (1,), (column,))
        parts.append(Part(name, field, dtype, group, role, problems.get(name, "") or problem_with(dtype)))
    return tuple(parts)


def unique_names(names: Sequence[str], origin: str) -> None:
    """Refuse a header in which a column has no name, or two have the same."""
    for position, name in enumerate(names):
        if not name.strip():
            raise ColumnError(
                f"{origin}: column {position + 1} of the header has no name (an index? leave it out when writing)"
            )
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        raise ColumnError(f"{origin}: column names must be unique; more than once: {listing(doubled)}")
