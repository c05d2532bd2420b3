"""``pofx.read``: a data set out of a file of any supported format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from pofx.data.dataset import Dataset
from pofx.data.files import existing, guard, sniff
from pofx.data.formats import module_for
from pofx.data.options import ReadOptions, Request
from pofx.data.patterns import Declarations, Patterns, is_pattern
from pofx.data.recipe import make_recipe
from pofx.data.store import Store, loaded

__all__ = ["open_store", "read"]


def read(
    path: str | os.PathLike[str],
    *,
    columns: Patterns | None = None,
    context: Patterns | None = None,
    weight: str | None = None,
    key: str | Sequence[str] | None = None,
    declare: Declarations = (),
    nan: Literal["error", "drop"] = "error",
    options: ReadOptions | None = None,
) -> Dataset:
    """Read a table (or grids, or clouds) from ``.npz .npy .csv .tsv .txt .parquet .h5 .hdf5 .root``, events from ``.lhe``
    and ``.hepmc`` (also with ``.gz``), or tables of HEPData from ``.yaml``.

    Parameters
    ----------
    columns : the columns of x, names or patterns (``"bin*"``, ``"!bin3"``); all by default.
    context : columns that x is conditioned on; they leave x.
    weight : the column of weights; it leaves x.
    key : which array(s), data set(s), group or tree of the file, where there are several.
    declare : units, types and ranges: ``Column(...)`` or ``"phi:rad:periodic:-pi:pi"``; the name may be a pattern. Values outside a
        bounded range are refused. Values of a periodic column up to one period outside are wrapped into it, others refused.
    nan : ``"error"``, or ``"drop"`` to leave out rows with NaN or infinity; ``Dataset.dropped`` counts them.
    options : see :class:`~pofx.data.options.ReadOptions`.

    Files above ``options.memory`` are streamed: only blocks of them are ever in memory.

    Raises
    ------
    FormatError, ColumnError, ShapeError, NonFiniteError, DataError : all say what was expected, what came, and where.

    >>> data = read("toys.h5", context="energy", weight="w", declare="phi:rad:periodic:-pi:pi")  # doctest: +SKIP
    """
    mentioned = [
        name for item in (columns, context, weight) for name in ([item] if isinstance(item, str) else item or [])
    ]
    named = frozenset(name for name in mentioned if not is_pattern(str(name)))
    store = open_store(path, Request.of(key, named, options))
    with guard(existing(path), sniff(existing(path))):
        recipe = make_recipe(store, columns, context, weight, declare)
        if not store.in_memory and (options or ReadOptions()).in_memory(len(store) * recipe.row_bytes):
            store = loaded(store, recipe.needs)
        return Dataset.from_store(store, recipe, nan)


def open_store(path: str | os.PathLike[str], request: Request) -> Store:
    """The store behind a file: its parts, without checks on values."""
    full = existing(path)
    name = sniff(full)
    with guard(full, name):
        store: Store = module_for(name).open_store(full, request)
        return store
