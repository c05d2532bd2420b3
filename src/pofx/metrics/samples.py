"""A sample as two-sample tests see it: rows of numbers with weights, or clouds of points with a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers.base import Floats, as_rows, as_weight
from pofx.data.numbers import as_numpy
from pofx.errors import CapabilityError

if TYPE_CHECKING:
    from pofx.data.events import Events

__all__ = ["Side", "column_names", "feature_side", "side"]


class Side(NamedTuple):
    """One sample: ``(n, d)``, weights ``(n,)``; of clouds ``(n, L, F)`` with a mask ``(n, L)``."""

    x: Floats
    weight: Floats
    mask: NDArray[np.bool_] | None = None


def side(data: Any, weight: Any, name: str) -> Side:
    """An array, tensor, data frame, data set or :class:`~pofx.data.events.Events` as a checked sample; grids of a data set become rows.

    Of a data set all fields, the context and the weights count, unless ``weight`` is given. ``name`` says in errors which sample it is.

    Raises
    ------
    ShapeError, NonFiniteError, and CapabilityError for clouds of points beside other fields.
    """
    events = _events(data)
    if events is None:
        rows = as_rows(data, name)
        return Side(rows, as_weight(weight, len(rows), f"weight_{name}"))
    weights = as_weight(events.weight if weight is None else weight, len(events), f"weight_{name}")
    if not events.masks:
        return Side(as_rows(_flat(events), name), weights)
    if len(events.fields) > 1 or events.context is not None:
        raise CapabilityError(
            f"the two-sample test compares columns, or clouds alone; {', '.join(events.masks)} is a cloud of points beside other fields "
            "or a context: compute features of it first"
        )
    mask = as_numpy(events.mask).astype(bool)
    real = np.where(mask[..., None], as_numpy(events.x), 0.0)
    return Side(as_rows(real.reshape(len(real), -1), name).reshape(real.shape), weights, mask)


def feature_side(data: Any, weight: Any, name: str, features: Callable[[Any], Any]) -> Side:
    """The features ``(n, f)`` that the user's function makes of events (:class:`~pofx.data.events.Events`, or the array as given)."""
    events = _events(data)
    rows = as_rows(features(data if events is None else events), f"features of {name}")
    weight = events.weight if weight is None and events is not None else weight
    return Side(rows, as_weight(weight, len(rows), f"weight_{name}"))


def column_names(data: Any, width: int) -> tuple[str, ...]:
    """Names of the columns of :func:`side`, ``width`` of them: those of a data set or a data frame, else ``x0``, ``x1``, ..."""
    spec, columns = getattr(data, "spec", None), getattr(data, "columns", None)
    found: list[str] = []
    if spec is not None:
        parts = [*spec.items(), *(getattr(data, "context_spec", None) or {}).items()]
        for name, field in parts:
            size = int(np.prod(field.shape or (1,)))
            own = [column.name for column in field.columns]
            found += own if len(own) == size else [f"{name}{i}" for i in range(size)]
    elif columns is not None and not callable(columns):
        found = [str(column) for column in columns]
    return tuple(found) if len(found) == width else tuple(f"x{i}" for i in range(width))


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
