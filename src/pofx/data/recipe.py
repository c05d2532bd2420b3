"""How events are made out of the parts of a store: which columns go to x, to the context, to the weight.

A recipe is the resolved form of "columns, context, weight, declare"; applied to raw rows it returns :class:`~pofx.data.events.Events`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pofx.data.events import Events
from pofx.data.numbers import Array, as_floats, float_type, problem_with
from pofx.data.patterns import Declarations, Patterns, declare_columns, listing, match_names, parse_declarations
from pofx.data.spec import Column, EventSpec, Field
from pofx.data.store import Part, Role, Store, mask_name
from pofx.errors import ColumnError, DataError

__all__ = ["Recipe", "Unit", "make_recipe", "with_context", "with_selection", "with_weight"]


@dataclass(frozen=True, eq=False)
class Unit:
    """The smallest thing that can be chosen: column ``number`` of a vector part, or (``column`` None) a whole grid or cloud."""

    name: str
    part: Part
    number: int = 0
    column: Column | None = None

    def group(self, role: Role) -> str:
        """The field it belongs to when it is used as x, or as context."""
        return role if self.part.role != role and self.part.group in ("x", "context", "weight") else self.part.group


@dataclass(frozen=True)
class _Piece:
    """Columns ``take`` (None = all) of one part, as they stand next to each other in a field."""

    part: Part
    take: tuple[int, ...] | None

    def __call__(self, raw: Mapping[str, Array]) -> Array:
        """The values, ``(n, k)`` for vectors, ``(n, *shape)`` otherwise."""
        array = raw[self.part.name]
        array = array[:, None] if array.ndim == 1 else array
        return array if self.take is None else array[:, list(self.take)]


@dataclass(frozen=True, eq=False)
class _Form:
    """One group of fields (of x or of the context): what they are and what they are made of."""

    spec: EventSpec
    pieces: Mapping[str, Sequence[_Piece]]


@dataclass(frozen=True, eq=False)
class Recipe:
    """The units of x, of the context (empty = none), the weight, and the names of periodic columns whose values are wrapped."""

    x: tuple[Unit, ...]
    context: tuple[Unit, ...] = ()
    weight: Unit | None = None
    wrap: frozenset[str] = field(default_factory=frozenset)

    @cached_property
    def _x(self) -> _Form:
        return _form(self.x, "x")

    @cached_property
    def _context(self) -> _Form:
        return _form(self.context, "context")

    @property
    def spec(self) -> EventSpec:
        """The fields of x."""
        return self._x.spec

    @property
    def context_spec(self) -> EventSpec | None:
        """The fields of the context, if there is one."""
        return self._context.spec if self.context else None

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The names of the parts to be read."""
        return tuple(dict.fromkeys(unit.part.name for unit in self.units))

    @cached_property
    def row_bytes(self) -> int:
        """About how many bytes an event takes."""
        sizes = {unit.part.name: unit.part.bytes for unit in self.units}
        return max(1, sum(sizes.values()))

    @property
    def units(self) -> tuple[Unit, ...]:
        """Everything in use."""
        return (*self.x, *self.context, *([self.weight] if self.weight else []))

    def __call__(self, raw: Mapping[str, Array]) -> Events:
        """Events (without index) from raw rows."""
        weight = None
        if self.weight is not None:
            column = _Piece(self.weight.part, (self.weight.number,))(raw)[:, 0]
            weight = as_floats(column, repr(self.weight.name), np.float64)
        context = self._events(self._context, raw) if self.context else None
        return self._events(self._x, raw).replace(context=context, weight=weight)

    def _events(self, form: _Form, raw: Mapping[str, Array]) -> Events:
        arrays, masks = {}, {}
        for name, kind in form.spec.items():
            arrays[name] = _wrapped(_stacked(kind, form.pieces[name], raw), kind, self.wrap)
            if kind.kind == "cloud":
                mask = raw.get(mask_name(form.pieces[name][0].part.name))
                masks[name] = np.ones(arrays[name].shape[:2], bool) if mask is None else mask
        return Events(arrays, masks)


def _form(units: Sequence[Unit], role: Role) -> _Form:
    """Vector columns joined per group, in order; grids and clouds each by themselves."""
    pieces: dict[str, list[_Piece]] = {}
    columns: dict[str, list[Column]] = {}
    spec: dict[str, Field] = {}
    for unit in units:
        group = unit.group(role)
        spec[group] = unit.part.field
        _add(pieces.setdefault(group, []), unit)
        if unit.column is not None:
            columns.setdefault(group, []).append(unit.column)
    spec |= {group: Field("vector", (len(own),), tuple(own)) for group, own in columns.items()}
    return _Form(spec, {name: [_simplified(piece) for piece in own] for name, own in pieces.items()})


def _add(pieces: list[_Piece], unit: Unit) -> None:
    if unit.column is None:
        pieces.append(_Piece(unit.part, None))
    elif pieces and pieces[-1].part is unit.part and pieces[-1].take is not None:
        pieces[-1] = replace(pieces[-1], take=(*pieces[-1].take, unit.number))
    else:
        pieces.append(_Piece(unit.part, (unit.number,)))


def _simplified(piece: _Piece) -> _Piece:
    return _Piece(piece.part, None) if piece.take == tuple(range(piece.part.field.shape[0])) else piece


def _stacked(form: Field, pieces: Sequence[_Piece], raw: Mapping[str, Array]) -> Array:
    dtype = float_type(*(piece.part.dtype for piece in pieces))
    if len(pieces) == 1:
        array = as_floats(pieces[0](raw), repr(pieces[0].part.name), dtype)
        return array.reshape(len(array), *form.shape)
    out, start = np.empty((len(raw[pieces[0].part.name]), *form.shape), dtype), 0
    for piece in pieces:
        block = piece(raw)
        out[:, start : start + block.shape[1]] = as_floats(block, repr(piece.part.name), dtype)
        start += block.shape[1]
    return out


def _wrapped(array: Array, form: Field, wrap: frozenset[str]) -> Array:
    if form.kind != "vector" or wrap.isdisjoint(form.names):
        return array
    array = array.copy()
    for i, column in enumerate(form.columns):
        if column.name in wrap and column.low is not None and column.high is not None:
            out = (array[:, i] < column.low) | (array[:, i] > column.high)
            array[out, i] = column.low + np.remainder(array[out, i] - column.low, column.width)
    return array


def make_recipe(
    store: Store,
    columns: Patterns | None = None,
    context: Patterns | None = None,
    weight: str | None = None,
    declare: Declarations = (),
) -> Recipe:
    """Resolve names and patterns against the parts of a store.

    ``context`` and ``weight`` replace what the store itself calls so, and are removed from x. A name may be a column or a whole part.
    """
    units = [unit for part in store.parts for unit in _units(part)]
    _check_unique(units, store.origin)
    w = (
        [u for u in units if u.part.role == "weight"]
        if weight is None
        else _expand([weight], units, store.origin, "weight")
    )
    c = (
        [u for u in units if u.part.role == "context"]
        if context is None
        else _expand(context, units, store.origin, "context")
    )
    free = [u for u in units if u.part.role == "x" and u not in c and u not in w]
    return _checked(store, free if columns is None else _expand(columns, free, store.origin, "columns"), c, w, declare)


def _checked(
    store: Store, x: Sequence[Unit], context: Sequence[Unit], weight: Sequence[Unit], declare: Declarations
) -> Recipe:
    if not x:
        raise ColumnError(
            f"{store.origin}: no column is left for x; there are {listing(p.name for p in store.parts) or 'none'}"
        )
    if len(weight) > 1 or (weight and weight[0].column is None):
        raise ColumnError(f"{store.origin}: expected one weight column; got {listing(u.name for u in weight)}")
    if weight and weight[0] in context:
        raise ColumnError(f"{store.origin}: {weight[0].name!r} is given both as context and as weight")
    for unit in (*x, *context, *weight):
        problem = unit.part.problem or problem_with(unit.part.dtype)
        if problem:
            raise DataError(
                f"{store.origin}: column {unit.name!r} {problem}; leave it out with columns='!{unit.name}', or choose others"
            )
    declared = _declared((*x, *context), parse_declarations(declare), store.origin)
    return Recipe(declared[: len(x)], declared[len(x) :], weight[0] if weight else None)


def _declared(units: Sequence[Unit], declare: Sequence[Column], origin: str) -> tuple[Unit, ...]:
    own = {unit.column.name: unit.column for unit in units if unit.column is not None}
    new = dict(zip(own, declare_columns(list(own.values()), declare, origin), strict=True)) if declare else {}
    return tuple(replace(unit, column=new.get(unit.name, unit.column)) for unit in units)


def _units(part: Part) -> list[Unit]:
    if part.field.kind != "vector":
        return [Unit(part.name, part)]
    return [Unit(column.name, part, i, column) for i, column in enumerate(part.field.columns)]


def _check_unique(units: Sequence[Unit], origin: str) -> None:
    seen: set[tuple[str, str, str]] = set()
    for unit in units:
        key = (unit.name, unit.part.role, unit.part.group)
        if key in seen:
            raise ColumnError(f"{origin}: column {unit.name!r} comes more than once; column names must be unique")
        seen.add(key)


def _expand(patterns: Patterns, units: Sequence[Unit], origin: str, what: str) -> list[Unit]:
    """The units that names or patterns choose; the name of a part stands for all of its columns."""
    named = {unit.name: unit for unit in reversed(units)}
    names = list(reversed(named))
    wanted: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        whole = [u.name for u in units if u.part.name == pattern] if pattern not in named else []
        wanted += whole or [pattern]
    return [named[name] for name in match_names(wanted, names, f"{origin}, {what}")]


def with_selection(recipe: Recipe, store: Store, columns: Patterns) -> Recipe:
    """Only these columns in x, in this order."""
    return replace(recipe, x=tuple(_expand(columns, recipe.x, store.origin, "columns")))


def with_context(recipe: Recipe, store: Store, context: Patterns) -> Recipe:
    """These columns of x become the context."""
    chosen = _expand(context, recipe.x, store.origin, "context")
    rest = [u for u in recipe.x if u not in chosen]
    return replace(_checked(store, rest, chosen, [recipe.weight] if recipe.weight else [], ()), wrap=recipe.wrap)


def with_weight(recipe: Recipe, store: Store, weight: str) -> Recipe:
    """This column of x becomes the weight."""
    chosen = _expand([weight], recipe.x, store.origin, "weight")
    return replace(
        _checked(store, [u for u in recipe.x if u not in chosen], recipe.context, chosen, ()), wrap=recipe.wrap
    )
