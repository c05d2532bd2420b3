"""One pass over the data: not-finite values, values outside declared ranges, constant columns, the sum of weights.

The pass works on blocks, so a file larger than memory costs one reading of it and memory for a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from pofx.data.events import Events
from pofx.data.numbers import Array
from pofx.data.patterns import listing
from pofx.data.spec import Column, EventSpec, Field
from pofx.errors import DataError, NonFiniteError

__all__ = ["ColumnSummary", "Summary", "scan", "verify"]

Flags = npt.NDArray[np.bool_]


@dataclass
class ColumnSummary:
    """What one column holds: its range (finite values), how many are not finite, how many break the declaration, and where first."""

    column: Column
    low: float = np.inf
    high: float = -np.inf
    not_finite: int = 0
    first_not_finite: tuple[int, float] | None = None
    broken: int = 0
    first_broken: tuple[int, float] | None = None
    wrap: bool = False

    @property
    def constant(self) -> bool:
        """Whether every value is the same."""
        return self.low == self.high

    def update(self, values: Array, rows: Array) -> Flags:
        """Account for a block; returns which rows are not finite."""
        bad = ~np.isfinite(values)
        if bad.any():
            self.first_not_finite = self.first_not_finite or _first(bad, rows, values)
            self.not_finite += int(bad.sum())
            values, rows = values[~bad], rows[~bad]
        if len(values):
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            self._declared(values, rows)
        return bad

    def _declared(self, values: Array, rows: Array) -> None:
        column = self.column
        if column.low is None and column.high is None and column.type != "discrete":
            return
        low, high = -np.inf if column.low is None else column.low, np.inf if column.high is None else column.high
        scale = np.finfo(values.dtype).eps * 4 * max(abs(end) for end in (low, high, 0.0) if np.isfinite(end))
        outside = (values < low - scale) | (values > high + scale)
        if column.type == "periodic":
            self.wrap = self.wrap or bool(outside.any())
            outside = (values < low - column.width) | (values > high + column.width)
        if column.type == "discrete":
            outside |= values != np.round(values)
        if outside.any():
            self.first_broken = self.first_broken or _first(outside, rows, values)
            self.broken += int(outside.sum())


def _first(flags: Flags, rows: Array, values: Array) -> tuple[int, float]:
    where = int(np.argmax(flags))
    return int(rows[where]), float(values[where])


@dataclass
class Summary:
    """What a pass over the data found: per column of x and context, in the weights, and the rows that are not finite anywhere."""

    rows: int = 0
    columns: dict[str, ColumnSummary] = field(default_factory=dict)
    weight: ColumnSummary | None = None
    weight_sum: float = 0.0
    bad_rows: Array = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def wrap(self) -> frozenset[str]:
        """Periodic columns that have values outside their period."""
        return frozenset(s.column.name for s in self.columns.values() if s.wrap)

    @property
    def constant(self) -> list[str]:
        """Vector columns of x and context in which every value is the same."""
        return [s.column.name for key, s in self.columns.items() if s.constant and "/" not in key]


def scan(blocks: Iterable[Events], spec: EventSpec, context_spec: EventSpec | None) -> Summary:
    """Summarise a stream of events (whose ``index`` is the row number)."""
    found = Summary()
    bad_rows = []
    for events in blocks:
        rows = np.arange(found.rows, found.rows + len(events)) if events.index is None else events.index
        bad = _update(found, events, spec, rows, "")
        if context_spec is not None and events.context is not None:
            bad |= _update(found, events.context, context_spec, rows, "context ")
        if events.weight is not None:
            found.weight = found.weight or ColumnSummary(Column("weight"))
            bad |= found.weight.update(events.weight, rows)
            found.weight_sum += float(events.weight[~bad].sum())
        bad_rows.append(rows[bad])
        found.rows += len(events)
    found.bad_rows = np.concatenate([np.empty(0, np.int64), *bad_rows])
    return found


def _update(found: Summary, events: Events, spec: EventSpec, rows: Array, prefix: str) -> Flags:
    bad = np.zeros(len(rows), bool)
    for name, form in spec.items():
        for key, column, values, owner in _columns(events, name, form):
            entry = found.columns.setdefault(prefix + key, ColumnSummary(column))
            wrong = entry.update(values, rows[owner])
            if wrong.any():
                bad[owner[wrong]] = True
    return bad


def _columns(events: Events, name: str, form: Field) -> Iterator[tuple[str, Column, Array, Array]]:
    """key, column, its values, and the position in the block of the event that each value belongs to."""
    array = events.fields[name]
    if form.kind == "vector":
        each = np.arange(len(array))
        for i, column in enumerate(form.columns):
            yield f"{name}.{column.name}", column, array[:, i], each
    elif form.kind == "grid":
        for i, column in enumerate(form.columns):
            values = array[:, i].reshape(len(array), -1)
            yield f"{name}/{column.name}", column, values.ravel(), np.repeat(np.arange(len(array)), values.shape[1])
    else:
        mask = events.masks[name]
        owner = np.nonzero(mask)[0]
        for i, column in enumerate(form.columns):
            yield f"{name}/{column.name}", column, array[..., i][mask], owner


def verify(found: Summary, origin: str, nan: Literal["error", "drop"], weighted: bool) -> None:
    """Raise for whatever makes the data unusable."""
    entries = [*found.columns.values(), *([found.weight] if found.weight else [])]
    worst = [entry for entry in entries if entry.not_finite]
    if worst and nan == "error":
        row, value = worst[0].first_not_finite or (0, np.nan)
        more = f"; also in {listing(e.column.name for e in worst[1:])}" if worst[1:] else ""
        raise NonFiniteError(
            f"{origin}: expected finite numbers; got {value} in row {row}, column {worst[0].column.name!r} "
            f"({worst[0].not_finite} in this column, {len(found.bad_rows)} rows in all{more}); nan='drop' leaves such rows out"
        )
    for entry in entries:
        if entry.broken:
            raise _broken(entry, origin)
    if found.rows == 0 or len(found.bad_rows) == found.rows:
        raise DataError(
            f"{origin}: no rows" + (f" are left of {found.rows} after dropping those with NaN" if found.rows else "")
        )
    if weighted and not found.weight_sum > 0:
        raise DataError(
            f"{origin}: the weights must have a positive sum; theirs is {found.weight_sum:g} over {found.rows} rows"
        )


def _broken(entry: ColumnSummary, origin: str) -> DataError:
    column, (row, value) = entry.column, entry.first_broken or (0, np.nan)
    ends = f"[{'-inf' if column.low is None else column.low}, {'inf' if column.high is None else column.high}]"
    rule = {"discrete": f"integers in {ends}", "periodic": f"values within one period of {ends}"}.get(
        column.type, f"values in {ends}"
    )
    return DataError(
        f"{origin}: column {column.name!r} is declared {column.type}, {rule} {column.unit}".rstrip()
        + f"; got {value:.9g} in row {row} ({entry.broken} such values)"
    )
