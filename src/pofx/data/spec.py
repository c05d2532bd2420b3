"""What an event is: columns with units and ranges, grouped into fields of three kinds.

A *vector* field is d numbers, a *grid* field is an image or a calorimeter (channels first, then the axes), a *cloud* field is a set
of at most L points with F features each and a mask that says which of them are real. A plain table is an event with the single
vector field ``"x"``. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pofx.errors import ColumnError

__all__ = [
    "Axis",
    "Column",
    "ColumnType",
    "EventSpec",
    "Field",
    "Kind",
    "parse_column",
    "spec_from_dict",
    "spec_to_dict",
    "vector_spec",
]

ColumnType = Literal["real", "bounded", "periodic", "discrete"]
Kind = Literal["vector", "grid", "cloud"]


@dataclass(frozen=True)
class Column:
    """One variable: its name, unit, type and range.

    Parameters
    ----------
    name : how the user calls it; unique within a field.
    unit : free text, kept through reading, saving and plotting.
    type : ``"real"`` (the whole line), ``"bounded"`` (between ``low`` and ``high``, of which one may be absent),
        ``"periodic"`` (``low`` and ``high`` are the same point), ``"discrete"`` (integers, optionally between ``low`` and ``high``).
    low, high : the range, in the column's own unit.

    >>> Column("phi", "rad", "periodic", -3.14159, 3.14159).width
    6.28318
    """

    name: str
    unit: str = ""
    type: ColumnType = "real"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        where = f"column {self.name!r}"
        if not self.name or not isinstance(self.name, str):
            raise ColumnError(f"a column needs a non-empty name; got {self.name!r}")
        if self.type not in get_args(ColumnType):
            raise ColumnError(f"{where}: expected a type out of {', '.join(get_args(ColumnType))}; got {self.type!r}")
        for end in (self.low, self.high):
            if end is not None and not math.isfinite(end):
                raise ColumnError(f"{where}: a range end must be finite (leave it out for an open end); got {end}")
        if self.type == "periodic" and (self.low is None or self.high is None):
            raise ColumnError(
                f"{where}: a periodic column needs both ends of its period; got low={self.low}, high={self.high}"
            )
        if self.type == "bounded" and self.low is None and self.high is None:
            raise ColumnError(f"{where}: a bounded column needs low, high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ColumnError(f"{where}: low must be below high; got low={self.low}, high={self.high}")

    @property
    def width(self) -> float:
        """high - low (infinite where an end is open)."""
        return math.inf if self.low is None or self.high is None else self.high - self.low


@dataclass(frozen=True)
class Axis:
    """One axis of a grid: its name, number of cells, bin edges (``cells + 1`` numbers, optional), unit, and whether it is periodic."""

    name: str
    cells: int
    edges: tuple[float, ...] | None = None
    unit: str = ""
    periodic: bool = False

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise ColumnError(f"axis {self.name!r}: expected at least one cell; got {self.cells}")
        if self.edges is not None and len(self.edges) != self.cells + 1:
            raise ColumnError(
                f"axis {self.name!r}: expected {self.cells + 1} edges for {self.cells} cells; got {len(self.edges)}"
            )


@dataclass(frozen=True)
class Field:
    """One part of an event: its kind, shape without the event axis, columns, and (for grids) axes.

    Shapes: vector ``(d,)`` with d columns; grid ``(channels, *cells)`` with one column per channel; cloud ``(L, F)``, L the largest
    number of points, with F columns.
    """

    kind: Kind
    shape: tuple[int, ...]
    columns: tuple[Column, ...]
    axes: tuple[Axis, ...] = ()

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if doubled:
            raise ColumnError(f"column names must be unique within a field; more than once: {', '.join(doubled)}")
        if self.kind not in get_args(Kind):
            raise ColumnError(f"expected a kind out of {', '.join(get_args(Kind))}; got {self.kind!r}")
        rank = {"vector": 1, "grid": 1 + len(self.axes), "cloud": 2}[self.kind]
        if len(self.shape) != rank or (self.kind == "grid" and not self.axes):
            raise ColumnError(
                f"a {self.kind} field needs a shape of {rank} numbers (and a grid needs axes); got {self.shape}"
            )
        wanted = self.shape[-1] if self.kind == "cloud" else self.shape[0]
        if len(self.columns) != wanted:
            raise ColumnError(
                f"a {self.kind} field of shape {self.shape} needs {wanted} columns; got {len(self.columns)}"
            )
        if self.kind == "grid" and tuple(axis.cells for axis in self.axes) != self.shape[1:]:
            raise ColumnError(
                f"the axes have {tuple(axis.cells for axis in self.axes)} cells; the shape says {self.shape[1:]}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The column names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def size(self) -> int:
        """Numbers per event."""
        return math.prod(self.shape)


EventSpec = Mapping[str, Field]
"""The fields of an event by name; a plain table is ``{"x": Field("vector", (d,), columns)}``."""


def vector_spec(columns: int | Iterable[Column | str], field: str = "x") -> dict[str, Field]:
    """The spec of a plain table: one vector field. ``columns`` is a number (names ``x0, x1, ...``), names, or columns.

    >>> vector_spec(["pt", "eta"])["x"].names
    ('pt', 'eta')
    """
    if isinstance(columns, int):
        columns = [f"{field}{i}" for i in range(columns)]
    full = tuple(column if isinstance(column, Column) else Column(column) for column in columns)
    return {field: Field("vector", (len(full),), full)}


def parse_column(text: str) -> Column:
    """A column from the command line, ``name[:unit[:type[:low:high]]]``; an empty end is open, ``pi`` and ``2pi`` are understood.

    >>> parse_column("phi:rad:periodic:-pi:pi").type
    'periodic'
    """
    parts = text.split(":")
    if len(parts) not in (1, 2, 3, 5):
        raise ColumnError(f"expected name[:unit[:type[:low:high]]], e.g. 'phi:rad:periodic:-pi:pi'; got {text!r}")
    name, unit, kind, low, high = (*parts, *["", "real", "", ""][len(parts) - 1 :])
    return Column(name, unit, kind or "real", _number(low, text), _number(high, text))  # type: ignore[arg-type]


def _number(text: str, whole: str) -> float | None:
    stripped = text.strip().lower()
    if not stripped:
        return None
    try:
        if stripped.endswith("pi"):
            factor = stripped[:-2].rstrip("*")
            return math.pi * float({"": "1", "-": "-1", "+": "1"}.get(factor, factor))
        return float(stripped)
    except ValueError:
        raise ColumnError(
            f"expected a number (or a multiple of pi) for a range end; got {text!r} in {whole!r}"
        ) from None


def spec_to_dict(spec: EventSpec) -> dict[str, Any]:
    """Plain dictionaries, ready for JSON."""
    return {name: asdict(field) for name, field in spec.items()}


def spec_from_dict(plain: Mapping[str, Any]) -> dict[str, Field]:
    """The inverse of :func:`spec_to_dict`."""
    return {name: _field(value) for name, value in plain.items()}


def _field(plain: Mapping[str, Any]) -> Field:
    columns: Sequence[Mapping[str, Any]] = plain["columns"]
    axes = tuple(
        Axis(**{**axis, "edges": None if axis["edges"] is None else tuple(axis["edges"])}) for axis in plain["axes"]
    )
    return Field(plain["kind"], tuple(plain["shape"]), tuple(Column(**column) for column in columns), axes)
