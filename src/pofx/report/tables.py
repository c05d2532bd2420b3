"""What figures are drawn from: plain columns with weights, whatever they came as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pofx.data.events import Events
from pofx.data.spec import Column, vector_spec
from pofx.errors import CapabilityError, ColumnError, DataError, NonFiniteError, ShapeError

__all__ = ["Floats", "Table", "as_table", "pair"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """n events of d columns.

    Attributes
    ----------
    values : ``(n, d)``, finite.
    columns : names, units and ranges, d of them.
    weight : ``(n,)``; ones where events have no weight.
    """

    values: Floats
    columns: tuple[Column, ...]
    weight: Floats

    def __len__(self) -> int:
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """The column names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def effective(self) -> float:
        """(sum w)^2 / sum w^2, the number of events of weight one that know as much."""
        return float(self.weight.sum() ** 2 / (self.weight**2).sum())

    def take(self, columns: Sequence[str | int] | None) -> Table:
        """The chosen columns, by name or number, in the order given; None is all of them."""
        if columns is None:
            return self
        numbers = [self._number(column) for column in columns]
        return Table(self.values[:, numbers], tuple(self.columns[i] for i in numbers), self.weight)

    def rows(self, chosen: Any) -> Table:
        """The chosen rows: a slice, numbers or a boolean array."""
        return Table(self.values[chosen], self.columns, self.weight[chosen])

    def _number(self, column: str | int) -> int:
        if isinstance(column, str):
            if column not in self.names:
                raise ColumnError(f"no column is called {column!r}; there are {', '.join(self.names[:20])}")
            return self.names.index(column)
        if not -len(self.columns) <= column < len(self.columns):
            raise ColumnError(f"expected a column number below {len(self.columns)}; got {column}")
        return column % len(self.columns)


def as_table(data: Any, columns: Sequence[Column | str] | None = None, weight: Any = None) -> Table:
    """Columns out of an array ``(n, d)`` or ``(n,)``, a data set, a batch of events, or a table (as it is).

    Raises
    ------
    CapabilityError for grids and clouds, ShapeError, NonFiniteError, DataError for no events.

    >>> as_table([[1.0, 2.0]], ["a", "b"]).names
    ('a', 'b')
    """
    if isinstance(data, Table):
        return data
    spec = getattr(data, "spec", None)
    events = data.arrays() if hasattr(data, "arrays") else data
    if isinstance(events, Events):
        weight = events.weight if weight is None else weight
        values, own = _vector(events, spec)
        columns = own if columns is None else columns
    else:
        values = np.asarray(events.detach().cpu() if hasattr(events, "detach") else events, float)
    values = values[:, None] if values.ndim == 1 else values
    return _checked(values, columns, weight)


def _vector(events: Events, spec: Any) -> tuple[Floats, Sequence[Column | str] | None]:
    """All vector fields side by side."""
    names = [name for name, array in events.fields.items() if np.ndim(array) == 2]
    if not names:
        raise CapabilityError(f"expected a field of kind vector; the events have {', '.join(events.fields)}")
    values = np.concatenate([np.asarray(events.fields[name], float) for name in names], axis=1)
    return values, None if spec is None else [column for name in names for column in spec[name].columns]


def _checked(values: Floats, columns: Sequence[Column | str] | None, weight: Any) -> Table:
    if values.ndim != 2 or not values.shape[1]:
        raise ShapeError(f"expected events of shape (n, d); got {values.shape}")
    if not len(values):
        raise DataError("expected at least one event; got none")
    full = vector_spec(values.shape[1] if columns is None else columns)["x"].columns
    if len(full) != values.shape[1]:
        raise ShapeError(
            f"expected events of {len(full)} columns ({', '.join(c.name for c in full[:8])}); got {values.shape[1]}"
        )
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise NonFiniteError(
            f"{int(bad.sum())} values are NaN or infinite, the first in row {row}, column {full[column].name!r}"
        )
    return Table(values, full, _weight(weight, len(values)))


def _weight(weight: Any, n: int) -> Floats:
    if weight is None:
        return np.ones(n)
    array = np.asarray(weight, float)
    if array.shape != (n,):
        raise ShapeError(f"expected weights of shape ({n},); got {array.shape}")
    if not np.isfinite(array).all():
        raise NonFiniteError(f"weight is NaN or infinite in row {int(np.argmin(np.isfinite(array)))}")
    if not array.sum() > 0:
        raise DataError(f"expected weights with a positive sum; got {array.sum():g}")
    return array


def pair(truth: Any, samples: Any, columns: Sequence[str | int] | None = None, *, seed: int = 1) -> tuple[Table, Table]:
    """Truth and samples with the same columns; for ``samples`` a model may stand, which then draws as many events as the truth has."""
    first = as_table(truth)
    if hasattr(samples, "sample") and hasattr(samples, "layout"):
        samples = samples.sample(len(first), seed=seed)
    second = as_table(samples, None if isinstance(samples, Table) or hasattr(samples, "arrays") else first.columns)
    if len(second.columns) != len(first.columns):
        raise ShapeError(
            f"expected samples of {len(first.columns)} columns, as the truth has; got {len(second.columns)}"
        )
    return first.take(columns), second.take(columns)
