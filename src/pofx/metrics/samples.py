"""A sample as two-sample tests see it: rows of numbers with weights, or clouds of points with a mask."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers.base import Floats, as_rows, as_weight
from pofx.data.numbers import as_numpy
from pofx.data.patterns import listing
from pofx.data.spec import Column
from pofx.errors import CapabilityError, ColumnError, ShapeError

if TYPE_CHECKING:
    from pofx.data.events import Events

__all__ = ["Features", "Side", "both_sides", "side", "side_of_any"]

Features = Callable[[Any], Any]
"""From events to numbers: ``(n, f)``, a data frame, or a mapping from names to ``(n,)``."""


class Side(NamedTuple):
    """One sample: ``(n, d)``, weights ``(n,)``; of clouds ``(n, L, F)`` with a mask ``(n, L)``.

    ``columns`` are those of x, in order; none where nobody has named them.
    """

    x: Floats
    weight: Floats
    mask: NDArray[np.bool_] | None = None
    columns: tuple[Column, ...] = ()

    @property
    def named(self) -> tuple[Column, ...]:
        """The columns; ``x0``, ``x1``, ... where they have no names.

        >>> [column.name for column in Side(np.zeros((5, 2)), np.ones(5)).named]
        ['x0', 'x1']
        """
        return self.columns or tuple(Column(f"x{i}") for i in range(self.x.shape[-1]))


def side(data: Any, weight: Any, name: str, features: Features | None = None) -> Side:
    """An array, tensor, data frame, data set or :class:`~pofx.data.events.Events` as a checked sample; grids of a data set become rows.

    Of a data set all fields, the context and the weights count, unless ``weight`` is given. A :class:`Side` stays as it is.

    Parameters
    ----------
    name : which sample it is, for errors.
    features : of events (as they came; Events of a data set), in place of the events.

    Raises
    ------
    ShapeError, NonFiniteError, and CapabilityError for clouds of points beside other fields.
    """
    if isinstance(data, Side) and weight is None and features is None:
        return data
    events = _events(data)
    weight = events.weight if weight is None and events is not None else weight
    if features is not None:
        return _row_side(features(data if events is None else events), weight, f"features of {name}", name, "feature")
    if events is None:
        return _row_side(data, weight, name, name, "")
    if events.masks:
        return _cloud_side(data, events, weight, name)
    rows = as_rows(_flat(events), name)
    return Side(rows, as_weight(weight, len(rows), f"weight_{name}"), None, _declared(data, rows.shape[1]))


def side_of_any(data: Any, weight: Any, name: str, features: Features | None = None) -> Side:
    """The same, for plain arrays ``(n, ...)`` of grids too: rows of cells."""
    if features is None and getattr(data, "ndim", 0) > 2:
        data = as_numpy(data).reshape(len(data), -1)
    return side(data, weight, name, features)


def both_sides(a: Side, b: Side, names: tuple[str, str] = ("a", "b")) -> tuple[Side, Side]:
    """Both samples with the same columns in the order of the first: by name where both have names, else by place.

    Columns that are only numbered (``x0, x1, ...`` or ``cells_0, cells_1, ...``) count as having no names.

    Raises
    ------
    ColumnError : a column that only one of them has, or that has another unit in the other.
    ShapeError : another number of columns, or clouds of points beside rows.

    >>> a = side({"pt": [1.0, 2.0], "eta": [0.0, 1.0]}, None, "a")
    >>> both_sides(a, side({"eta": [3.0], "pt": [4.0]}, None, "b"))[1].x
    array([[4., 3.]])
    """
    if a.x.ndim != b.x.ndim:
        words = [
            f"{name} holds {'clouds of points' if s.x.ndim == 3 else 'rows'}"
            for name, s in zip(names, (a, b), strict=True)
        ]
        raise ShapeError(f"expected two samples of equal columns; {' and '.join(words)}")
    if _has_names(a) and _has_names(b):
        b = _reordered(a, b, names)
    if a.x.shape[-1] != b.x.shape[-1]:
        counts = [
            f"{name} has {s.x.shape[-1]} ({listing(c.name for c in s.named)})"
            for name, s in zip(names, (a, b), strict=True)
        ]
        raise ShapeError(f"expected two samples of equal columns; {' and '.join(counts)}")
    return a._replace(columns=a.columns or b.columns), b


def _has_names(one: Side) -> bool:
    """Whether the names say more than a number, and tell all columns apart."""
    found = [column.name for column in one.columns]
    stem = re.sub(r"\d+$", "", found[0]) if found else ""
    return len(set(found)) == len(found) > 0 and found != [f"{stem}{i}" for i in range(len(found))]


def _reordered(a: Side, b: Side, names: tuple[str, str]) -> Side:
    """b with its columns in the order of a."""
    units, others = ({column.name: column.unit for column in one.columns} for one in (a, b))
    only = [[name for name in mine if name not in theirs] for mine, theirs in ((units, others), (others, units))]
    if any(only):
        words = [f"only {name} has {listing(some)}" for name, some in zip(names, only, strict=True) if some]
        raise ColumnError(f"expected two samples of equal columns; {' and '.join(words)}")
    for name, unit in units.items():
        if unit and others[name] and unit != others[name]:
            raise ColumnError(
                f"column {name!r} is in {unit} in {names[0]} and in {others[name]} in {names[1]}; expected one unit"
            )
    place = {column.name: i for i, column in enumerate(b.columns)}
    order = [place[column.name] for column in a.columns]
    return b._replace(x=b.x[..., order], columns=tuple(b.columns[i] for i in order))


def _row_side(data: Any, weight: Any, where: str, name: str, stem: str) -> Side:
    """Anything with rows; a mapping and a data frame have names, other rows numbers (``stem`` and a number, if there is one)."""
    labels = _labels(data)
    if isinstance(data, Mapping):
        parts = {label: as_rows(values, f"{label!r} of {where}", 1) for label, values in data.items()}
        if len({len(part) for part in parts.values()}) != 1:
            raise ShapeError(
                f"{where}: expected columns of one length; got { {label: len(part) for label, part in parts.items()} }"
            )
        data = np.concatenate(list(parts.values()), axis=1)
    rows = as_rows(data, where)
    if len(labels) != rows.shape[1]:
        labels = [f"{stem}{i}" for i in range(rows.shape[1])] if stem else []
    return Side(rows, as_weight(weight, len(rows), f"weight_{name}"), None, tuple(map(Column, labels)))


def _labels(data: Any) -> Sequence[str]:
    """Of a mapping or a data frame."""
    found = data if isinstance(data, Mapping) else getattr(data, "columns", ())
    return [] if callable(found) else [str(label) for label in found]


def _cloud_side(data: Any, events: Events, weight: Any, name: str) -> Side:
    if len(events.fields) > 1 or events.context is not None:
        raise CapabilityError(
            f"the two-sample test compares columns, or clouds alone; {', '.join(events.masks)} is a cloud of points beside other fields "
            "or a context: compute features of it first"
        )
    points = as_numpy(events.x)
    mask = as_numpy(events.masks[events.only]).astype(bool)
    real = np.where(np.expand_dims(mask, -1), points, 0.0)
    x = as_rows(real.reshape(len(real), -1), name).reshape(points.shape)
    return Side(x, as_weight(weight, len(x), f"weight_{name}"), mask, _declared(data, points.shape[-1]))


def _declared(data: Any, width: int) -> tuple[Column, ...]:
    """The columns of a data set; cells of grids are numbered; none where they are not ``width``."""
    found: list[Column] = []
    for name, field in [
        *(getattr(data, "spec", None) or {}).items(),
        *(getattr(data, "context_spec", None) or {}).items(),
    ]:
        size = len(field.columns) if field.kind == "cloud" else int(np.prod(field.shape or (1,)))
        found += field.columns if len(field.columns) == size else [Column(f"{name}{i}") for i in range(size)]
    return tuple(found) if len(found) == width else ()


def _events(data: Any) -> Events | None:
    from pofx.data.dataset import Dataset
    from pofx.data.events import Events

    events = data.arrays() if isinstance(data, Dataset) else data
    return events if isinstance(events, Events) else None


def _flat(events: Events) -> Floats:
    """All fields side by side, and those of the context, ``(n, d)``."""
    if events.masks:
        raise CapabilityError(
            f"the two-sample test compares columns, or clouds alone; {', '.join(events.masks)} is a cloud of points in the context: "
            "compute features of it first"
        )
    parts = [as_numpy(array).astype(np.float64).reshape(len(events), -1) for array in events.fields.values()]
    return np.concatenate(parts if events.context is None else [*parts, _flat(events.context)], axis=1)
