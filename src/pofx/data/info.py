"""What ``pofx info FILE`` shows: format, tables, arrays and histograms, and for every column its type, range, unit and NaN count."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pofx.data.dataset import Dataset
from pofx.data.files import existing, guard, sniff
from pofx.data.formats import module_for
from pofx.data.layout import Stored
from pofx.data.options import Request
from pofx.data.recipe import make_recipe
from pofx.data.rows import Rows
from pofx.data.scan import ColumnSummary
from pofx.data.store import Store
from pofx.errors import PofxError

__all__ = ["ColumnInfo", "Entry", "Info", "describe"]


@dataclass(frozen=True)
class Entry:
    """One thing in a file: its name, what it is (array, tree, TH1D, TMatrixTSym<double>...), shape and type."""

    name: str
    what: str
    shape: tuple[int, ...] = ()
    type: str = ""


@dataclass(frozen=True)
class ColumnInfo:
    """One column: name, unit, declared and stored type, range of the finite values, how many are NaN or infinite; or its problem."""

    name: str
    unit: str = ""
    type: str = "real"
    dtype: str = ""
    low: float | None = None
    high: float | None = None
    not_finite: int = 0
    role: str = "x"
    problem: str = ""


@dataclass(frozen=True)
class Info:
    """The description of a file. ``rows`` is None, and ``note`` says why, where there is not one table to speak of."""

    path: Path
    format: str
    bytes: int
    entries: tuple[Entry, ...] = ()
    rows: int | None = None
    columns: tuple[ColumnInfo, ...] = field(default_factory=tuple)
    note: str = ""

    def __str__(self) -> str:
        rows = "" if self.rows is None else f", {self.rows} rows"
        lines = [f"{self.path}: {self.format}, {_size(self.bytes)}{rows}"]
        lines += _table(
            ["name", "what", "shape", "type"], [[e.name, e.what, _shape(e.shape), e.type] for e in self.entries]
        )
        lines += _table(
            ["column", "role", "unit", "type", "stored", "low", "high", "NaN"], [_row(c) for c in self.columns]
        )
        return "\n".join([*lines, *([f"note: {self.note}"] if self.note else [])])


def _row(column: ColumnInfo) -> list[str]:
    if column.problem:
        return [column.name, column.role, column.unit, "-", column.dtype, "", "", column.problem.partition(";")[0]]
    ends = ["" if end is None else f"{end:.6g}" for end in (column.low, column.high)]
    return [column.name, column.role, column.unit, column.type, column.dtype, *ends, str(column.not_finite)]


def _table(head: list[str], rows: list[list[str]], most: int = 200) -> list[str]:
    if not rows:
        return []
    shown = [head, *rows[:most]]
    widths = [min(48, max(len(row[i]) for row in shown)) for i in range(len(head))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    ]
    return ["", *lines, *([f"  ... ({len(rows)} in all)"] if len(rows) > most else [])]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def describe(path: str | os.PathLike[str], *, key: str | list[str] | None = None) -> Info:
    """Describe a data file without judging it: NaN are counted, constant or text columns shown as what they are.

    Raises ``FormatError`` where the file is missing, damaged or of no known format.
    """
    full = existing(path)
    name = sniff(full)
    reader = module_for(name)
    with guard(full, name):
        entries = tuple(
            Entry(s.name, "array", s.shape, str(s.dtype)) if isinstance(s, Stored) else s for s in reader.inspect(full)
        )
        try:
            store = reader.open_store(full, Request.of(key))
            rows, columns, note = *_columns(store), _recognised(store)
        except PofxError as error:
            if key is not None or not entries:
                raise
            rows, columns, note = None, (), str(error).removeprefix(f"{full}: ")
    return Info(full, name, full.stat().st_size, entries, rows, columns, note)


def _recognised(store: Store) -> str:
    """What public format a file has, if any."""
    form = getattr(store, "format", None)
    return "" if form is None else f"recognised as {form.title}, format={form.name!r}, {form.reference}"


def _columns(store: Store) -> tuple[int, tuple[ColumnInfo, ...]]:
    good = tuple(part for part in store.parts if not part.problem)
    bad = [ColumnInfo(p.name, dtype=str(p.dtype), role=p.role, problem=p.problem) for p in store.parts if p.problem]
    if not good:
        return len(store), tuple(bad)
    units = [
        name
        for part in good
        for name in ([part.name] if part.field.kind != "vector" else part.field.names)
        if part.role == "x"
    ]
    recipe = make_recipe(store, columns=units) if units else make_recipe(store)
    found = Dataset(store, recipe, Rows(len(store))).summary
    types: dict[tuple[str, str], str] = {
        (unit.part.role, unit.column.name if unit.column else unit.name): str(unit.part.dtype) for unit in recipe.units
    }
    columns = [_info(key, entry, types) for key, entry in found.columns.items()]
    if found.weight is not None:
        columns.append(_info("weight", found.weight, types))
    return len(store), (*columns, *bad)


def _info(key: str, entry: ColumnSummary, types: dict[tuple[str, str], str]) -> ColumnInfo:
    role = "context" if key.startswith("context ") else "weight" if key == "weight" else "x"
    column = entry.column
    low, high = (None, None) if entry.low > entry.high else (entry.low, entry.high)
    dtype = types.get((role, column.name), "")
    return ColumnInfo(column.name, column.unit, column.type, dtype, low, high, entry.not_finite, role)
