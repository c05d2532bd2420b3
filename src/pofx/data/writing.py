"""``pofx.data.write``: events to a file, with names, units, types and weights, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pofx.data.arrays import Columns, field_store, weight_store
from pofx.data.dataset import Dataset, event_parts
from pofx.data.events import Events
from pofx.data.files import atomic, format_by_name
from pofx.data.formats import module_for
from pofx.data.layout import Layout
from pofx.data.numbers import Array
from pofx.data.patterns import listing
from pofx.data.public import format_named
from pofx.data.public.base import PublicFormat
from pofx.data.recipe import make_recipe
from pofx.data.rows import Rows
from pofx.data.store import JoinedStore, Store
from pofx.errors import CapabilityError, FormatError

__all__ = ["event_arrays", "flat_arrays", "write"]

_ROWS = 1 << 16


def write(
    path: str | os.PathLike[str],
    data: Any,
    *,
    context: Any = None,
    weight: Any = None,
    columns: Columns = None,
    context_columns: Columns = None,
    compress: bool = False,
    format: str | None = None,
) -> Path:
    """Write events; the extension says the format (``.npz .npy .csv .parquet .h5 .root``; events of particles also ``.lhe`` and
    ``.hepmc``, with or without ``.gz``; plain tables also ``.yaml`` of HEPData).

    ``data`` is a data set, an array ``(n, d)``, ``Events``, or whatever :meth:`Dataset.from_arrays` takes; NaN and infinity are written
    as they are. Reading the file back gives the same columns, units, types, ranges, context, weights and values, bit by bit.
    ``format`` is the name of a public format (:mod:`pofx.data.public`) to write instead, as others read it.
    ``.npy`` carries a single field without names; grids and clouds need ``.npz`` or ``.h5``. The file appears whole or not at all.

    >>> import tempfile, numpy as np, pofx.data
    >>> path = write(tempfile.mkdtemp() + "/toys.h5", np.eye(3), columns=["a", "b", "c"])
    >>> pofx.data.read(path).names
    ('a', 'b', 'c')
    """
    target = Path(path).expanduser()
    module = module_for(format_by_name(target))
    full = data if isinstance(data, Dataset) else _unchecked(data, context, weight, columns, context_columns)
    if isinstance(data, Dataset):
        full = full if context is None else full.with_context(context, context_columns)
        full = full if weight is None else full.with_weight(weight)
    if format is not None:
        return _write_public(target, full, format_named(format))
    head = event_parts(full.window(0, 0), full.spec, full.context_spec)[0]
    layout = Layout(full.spec, full.context_spec, full.weighted, {part.name: str(part.dtype) for part in head})
    with atomic(target) as temporary:
        module.write(temporary, full, layout, compress)
    return target


def _write_public(target: Path, data: Dataset, form: PublicFormat) -> Path:
    if format_by_name(target) != form.container:
        raise FormatError(f"{target}: files of the format {form.name!r} are {form.container}")
    blocks = (form.arrays(events, data.spec) for events in data.chunks(_ROWS // 16))
    with atomic(target) as temporary:
        try:
            extras = form.extras(len(data), data.spec, data.context_spec)
            module_for(form.container).write_arrays(temporary, len(data), blocks, extras)
        except KeyError as error:
            fields = listing([*data.spec, *(f"context {name}" for name in data.context_spec or {})])
            raise FormatError(f"{form.title} need a field or column {error}; the data have {fields}") from None
    return target


def _unchecked(data: Any, context: Any, weight: Any, columns: Columns, context_columns: Columns) -> Dataset:
    stores: list[Store] = [field_store(data, columns, "x")]
    if isinstance(data, Events):
        context, weight = data.context if context is None else context, data.weight if weight is None else weight
    if context is not None:
        stores.append(field_store(context, context_columns, "context"))
    if weight is not None:
        stores.append(weight_store(weight))
    store = JoinedStore(stores)
    return Dataset(store, make_recipe(store), Rows(len(store)))


def event_arrays(data: Dataset) -> Iterator[dict[str, Array]]:
    """Blocks of events as arrays under their stored names."""
    for events in data.chunks(_ROWS):
        yield event_parts(events, data.spec, data.context_spec)[1]


def flat_arrays(data: Dataset, layout: Layout, what: str) -> Iterator[dict[str, Array]]:
    """Blocks of events as columns ``(n,)``; grids and clouds are refused."""
    for stored, form, _, _ in layout.fields():
        if form.kind != "vector":
            raise CapabilityError(
                f"{what} holds plain tables; field {stored!r} is a {form.kind}: write .h5 or .npz instead"
            )
    flat = layout.flat()
    for arrays in event_arrays(data):
        yield {
            name: np.ascontiguousarray(arrays[s] if arrays[s].ndim == 1 else arrays[s][:, i]) for name, s, i, _ in flat
        }
