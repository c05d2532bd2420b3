"""Arrays of any origin made into named fields with columns: what ``Dataset.from_arrays`` accepts.

Numpy arrays (structured ones too), tensors, pandas and polars frames, awkward records, dictionaries of columns, dictionaries of
fields with an event spec, and :class:`~pofx.data.events.Events`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pofx.data.events import Events
from pofx.data.numbers import Array, as_mask, as_numpy, problem_with
from pofx.data.patterns import listing
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.data.store import MemoryStore, Part, Role, mask_name, part_name
from pofx.errors import ColumnError, DataError, ShapeError

__all__ = ["Columns", "field_store", "weight_store"]

Columns = int | Iterable[Column | str] | EventSpec | None


def field_store(data: Any, columns: Columns, role: Role, masks: Mapping[str, Any] | None = None) -> MemoryStore:
    """A store in memory whose parts are the fields of ``data``, in the role of x or of the context."""
    if isinstance(data, Events):
        data, masks = data.fields, {**data.masks, **(masks or {})}
    if isinstance(columns, Mapping):
        arrays, spec = _named(data, columns, role), dict(columns)
    else:
        arrays, spec = _guessed(data, columns, role)
    parts, stored = [], {}
    for name, form in spec.items():
        array = _checked(arrays[name], form, f"{role}, field {name!r}" if name != role else role)
        key = part_name(name, role)
        parts.append(Part(key, form, array.dtype, name, role, problem_with(array.dtype)))
        stored[key] = array
        if form.kind == "cloud" and masks and name in masks:
            stored[mask_name(key)] = as_mask(masks[name], (len(array), form.shape[0]), f"mask of {name!r}")
    _check_masks(masks, spec)
    return MemoryStore("the given array" if role == "x" else f"the given {role}", tuple(parts), stored)


def weight_store(weight: Any) -> MemoryStore:
    """One weight per event, shape ``(n,)`` or ``(n, 1)``."""
    array = as_numpy(weight)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ShapeError(f"weight: expected one number per event, shape (n,); got {array.shape}")
    field = Field("vector", (1,), (Column("weight"),))
    return MemoryStore("the given weight", (Part("weight", field, array.dtype, "weight", "weight"),), {"weight": array})


def _check_masks(masks: Mapping[str, Any] | None, spec: EventSpec) -> None:
    for name in masks or {}:
        if name not in spec or spec[name].kind != "cloud":
            raise ColumnError(
                f"mask {name!r}: only cloud fields have a mask; there are {listing(n for n in spec if spec[n].kind == 'cloud') or 'none'}"
            )


def _named(data: Any, spec: EventSpec, role: str) -> dict[str, Array]:
    if not isinstance(data, Mapping):
        if len(spec) != 1:
            raise ColumnError(
                f"{role}: expected a dictionary with the fields {listing(spec)}; got {type(data).__name__}"
            )
        data = {next(iter(spec)): data}
    if set(data) != set(spec):
        raise ColumnError(f"{role}: expected the fields {listing(spec)}; got {listing(data) or 'none'}")
    return {name: as_numpy(data[name]) for name in spec}


def _guessed(
    data: Any, columns: int | Iterable[Column | str] | None, role: Role
) -> tuple[dict[str, Array], dict[str, Field]]:
    """Fields and spec of data that come without a spec."""
    table = _table(data)
    if table is None:
        array = as_numpy(data)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise ShapeError(
                f"{role}: expected rows and columns, shape (n, d); got shape {array.shape}; "
                "for grids and clouds say what the axes are, columns={'name': pofx.data.Field(...)}"
            )
        return {role: array}, vector_spec(_fitting(columns, array.shape[1], role), role)
    if all(array.ndim == 1 for array in table.values()) and table:
        names = list(table) if columns is None else _fitting(columns, len(table), role)
        return {role: _stacked(table, role)}, vector_spec(names, role)
    if columns is not None or any(array.ndim not in (1, 2) for array in table.values()) or not table:
        shapes = {name: array.shape for name, array in table.items()}
        raise ShapeError(
            f"{role}: several arrays need a spec, columns={{'name': pofx.data.Field(...), ...}}; got {shapes}"
        )
    arrays = {name: array[:, None] if array.ndim == 1 else array for name, array in table.items()}
    return arrays, {name: vector_spec(array.shape[1], name)[name] for name, array in arrays.items()}


def _fitting(columns: int | Iterable[Column | str] | None, width: int, role: Role) -> list[Column | str] | int:
    if columns is None:
        return width
    names: list[Column | str] = (
        list(vector_spec(columns, role)[role].columns) if isinstance(columns, int) else list(columns)
    )
    if len(names) != width:
        raise ColumnError(f"{role}: expected {width} column names for an array with {width} columns; got {len(names)}")
    return names


def _table(data: Any) -> dict[str, Array] | None:
    """The columns by name, for data that have names; None for a plain array."""
    if isinstance(data, np.ndarray):
        return {name: data[name] for name in data.dtype.names} if data.dtype.names else None
    if isinstance(data, Mapping):
        return {_text(name): as_numpy(value) for name, value in data.items()}
    names = getattr(data, "fields", None) or getattr(data, "columns", None)
    if names is None or callable(names) or not hasattr(data, "__getitem__"):
        return None
    return {_text(name): as_numpy(data[name]) for name in list(names)}


def _text(name: Any) -> str:
    return name if isinstance(name, str) else str(name)


def _stacked(table: Mapping[str, Array], role: str) -> Array:
    lengths = {name: len(array) for name, array in table.items()}
    if len(set(lengths.values())) > 1:
        raise ShapeError(f"{role}: expected columns of equal length; got {lengths}")
    for name, array in table.items():
        if problem_with(array.dtype):
            raise DataError(f"{role}: column {name!r} {problem_with(array.dtype)}")
    return np.stack(list(table.values()), axis=1)


def _checked(array: Array, form: Field, where: str) -> Array:
    if array.ndim == 1 and form.shape == (1,):
        array = array[:, None]
    if array.shape[1:] != form.shape or array.ndim < 2:
        raise ShapeError(f"{where}: expected shape (n, {', '.join(map(str, form.shape))}); got {array.shape}")
    return array
