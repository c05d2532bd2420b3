"""``pofx.read``: a data set out of a file of any supported format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pofx.data.dataset import Dataset
from pofx.data.files import existing, guard, sniff
from pofx.data.formats import module_for
from pofx.data.layout import Request
from pofx.data.patterns import Declarations, Patterns, is_pattern
from pofx.data.recipe import make_recipe
from pofx.data.store import Store

__all__ = ["ReadOptions", "open_store", "read"]


@dataclass(frozen=True)
class ReadOptions:
    """Rarely needed settings of :func:`read`.

    Attributes
    ----------
    stream : True reads rows from the file as they are needed, False loads everything; None decides by ``memory``.
    memory : bytes up to which a table is loaded (256 MiB).
    clouds : ROOT only: name of a cloud field -> jagged branches (names or patterns) that become its features.
    points : the largest number of points kept per cloud (default: the largest in the file); the first ones are kept.
    header : CSV only: whether the first line holds names; None finds out.
    delimiter : CSV only: ``","``, ``";"``, a tab, or ``" "`` for any white space; None finds out.
    """

    stream: bool | None = None
    memory: int = 256 << 20
    clouds: Mapping[str, Patterns] = field(default_factory=dict)
    points: int | None = None
    header: bool | None = None
    delimiter: str | None = None


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
    """Read a table (or grids, or clouds) from ``.npz .npy .csv .tsv .txt .parquet .h5 .hdf5 .root``.

    Parameters
    ----------
    columns : the columns of x, names or patterns (``"bin*"``, ``"!bin3"``); all by default.
    context : columns that x is conditioned on; they leave x.
    weight : the column of weights; it leaves x.
    key : which array(s), data set(s), group or tree of the file, where there are several.
    declare : units, types and ranges: ``Column(...)`` or ``"phi:rad:periodic:-pi:pi"``; the name may be a pattern. Values outside a
        bounded range are refused. Values of a periodic column up to one period outside are wrapped into it, others refused.
    nan : ``"error"``, or ``"drop"`` to leave out rows with NaN or infinity; ``Dataset.dropped`` counts them.
    options : see :class:`ReadOptions`.

    Files above ``options.memory`` are streamed: only blocks of them are ever in memory.

    Raises
    ------
    FormatError, ColumnError, ShapeError, NonFiniteError, DataError : all say what was expected, what came, and where.

    >>> data = read("toys.h5", context="energy", weight="w", declare="phi:rad:periodic:-pi:pi")  # doctest: +SKIP
    """
    chosen = options or ReadOptions()
    mentioned = [name for item in (columns, context, weight) for name in ([item] if isinstance(item, str) else item or [])]
    named = frozenset(name for name in mentioned if isinstance(name, str) and not is_pattern(name))
    store = open_store(path, key, chosen, named)
    with guard(existing(path), "data"):
        return Dataset.from_store(store, make_recipe(store, columns, context, weight, declare), nan)


def open_store(
    path: str | os.PathLike[str], key: str | Sequence[str] | None, options: ReadOptions, named: frozenset[str] = frozenset()
) -> Store:
    """The store behind a file: its parts, without checks on values."""
    full = existing(path)
    name = sniff(full)
    request = Request(
        (key,) if isinstance(key, str) else tuple(key or ()), named, options.stream, options.memory,
        options.clouds, options.points, options.header, options.delimiter,
    )  # fmt: skip
    with guard(full, name):
        store: Store = module_for(name).open_store(full, request)
        return store
