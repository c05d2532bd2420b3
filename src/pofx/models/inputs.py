"""What a user may give a model, made into events of tensors: arrays, dictionaries and ``Events``; contexts for one or for many events."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pofx.data.events import Events
from pofx.data.spec import EventSpec, Field
from pofx.data.store import mask_name
from pofx.errors import ColumnError, NonFiniteError, RangeWarning, ShapeError
from pofx.models.base import Layout

__all__ = ["Inputs", "column_names", "listed", "numpy_to_torch", "present", "same_columns"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Inputs:
    """The checks of one model's inputs.

    Attributes
    ----------
    layout : the fields that are expected.
    card : for the trained ranges; values outside give a ``RangeWarning``.
    """

    layout: Layout
    card: Mapping[str, Any]

    def events(self, x: Any, context: Any) -> tuple[Events, Shape, bool]:
        """Events ``(k, ...)`` with their contexts, the leading shape of x (k is its product), and whether tensors were given."""
        if isinstance(x, Events) and context is None:
            context = x.context
        given, shape, torch_out = _fields(x, self.layout.spec, "x")
        flat = given.map(lambda array: array.reshape(-1, *array.shape[len(shape) :]))
        return flat.replace(context=self._beside(context, shape)), shape, torch_out

    def context_rows(self, context: Any, n: Any) -> tuple[Events | None, Shape, bool]:
        """Context rows ``(m, ...)`` or None, the leading shape of a sample of n, and whether it is to be tensors."""
        if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0):
            raise ShapeError(f"expected a number of events n >= 0; got {n!r}")
        rows, lead, torch_out = self._context(context)
        if rows is None:
            if n is None:
                raise ShapeError("expected n, the number of events to draw (it may be left out only beside a context)")
            return None, (int(n),), False
        if len(lead) > 1:
            raise ShapeError(
                f"expected a context of one event or of m events, shape (c,) or (m, c); got the leading shape {lead}"
            )
        if not lead:
            return rows.map(lambda array: array[None]), (1 if n is None else int(n),), torch_out
        return rows, lead if n is None else (*lead, int(n)), torch_out

    def _beside(self, context: Any, shape: Shape) -> Events | None:
        """One context row per event of leading shape ``shape``."""
        rows, lead, _ = self._context(context)
        if rows is None:
            return None
        if lead not in ((), (1,), shape, shape[:1]):
            raise ShapeError(
                f"expected a context of one event, or of the leading shape {shape} beside x; got the leading shape {lead}"
            )
        repeated = len(shape) == 2 and lead == shape[:1] and lead != (1,)

        def spread(array: Tensor) -> Tensor:
            inner = array.shape[len(lead) :]
            if repeated:
                return array[:, None].expand(*shape, *inner).reshape(-1, *inner)
            return array.reshape(-1, *inner).expand(math.prod(shape), *inner)

        return rows.map(spread)

    def _context(self, context: Any) -> tuple[Events | None, Shape, bool]:
        wanted = self.layout.context or {}
        names = listed(column_names(wanted), 12)
        if context is None:
            if wanted:
                raise ShapeError(f"expected a context of {len(column_names(wanted))} columns ({names}); got none")
            return None, (), False
        if not wanted:
            raise ShapeError("this model was fitted without a context; got one")
        if len(wanted) == 1 and not isinstance(context, (Events, Mapping)):
            form, shape = next(iter(wanted.values())), np.shape(context)
            if form.kind == "vector" and (not shape or shape[-1] != form.shape[0]):
                raise ShapeError(f"expected a context of {form.shape[0]} columns ({names}); got shape {tuple(shape)}")
        rows, lead, torch_out = _fields(context, wanted, "context")
        self._warn("context", wanted, rows, 0.1)
        return rows, lead, torch_out

    def warn_outside(self, events: Events) -> None:
        """Warn about events outside the range that the model was trained on."""
        self._warn("x", self.layout.spec, events, 0.5)

    def _warn(self, role: str, spec: EventSpec, events: Events, margin: float) -> None:
        """Warn once per call about columns outside the trained range, widened by ``margin`` of its width."""
        notes = []
        for name, field in spec.items():
            known = self.card.get("ranges", {}).get(f"{role}:{name}")
            values = events.fields[name].detach().double().cpu().reshape(-1, *field.shape)
            if known is None or field.kind != "vector" or not len(values):
                continue
            low, high = (torch.tensor(known[end], dtype=torch.float64) for end in ("low", "high"))
            slack = margin * (high - low)
            outside = ((values < low - slack) | (values > high + slack)).sum(0)
            notes += [
                f"{column.name} ({int(count)} events)"
                for column, count in zip(field.columns, outside, strict=True)
                if count and column.type != "periodic"
            ]
        if notes:
            warnings.warn(
                f"{role} outside the range that the model was trained on: {', '.join(notes[:8])}",
                RangeWarning,
                stacklevel=4,
            )


def same_columns(role: str, wanted: EventSpec, found: EventSpec) -> None:
    """Raise ColumnError unless the columns have the same names in the same order."""
    if column_names(wanted) != column_names(found):
        raise ColumnError(
            f"expected the {role} {listed(column_names(wanted))}; the data set has {listed(column_names(found))}"
        )


def present(fields: Mapping[str, Tensor], spec: EventSpec, lead: Shape, torch_out: bool) -> Any:
    """What a user gets of fields ``(k, ...)`` and masks: one array, or ``Events`` if there are several fields or a mask."""
    out = {
        name: value if torch_out else value.detach().cpu().numpy()
        for name, value in ((name, part.reshape(*lead, *part.shape[1:])) for name, part in fields.items())
    }
    if len(out) == 1:
        return next(iter(out.values()))
    masks = {name: out[mask_name(name)] for name in spec if mask_name(name) in out}
    return Events({name: out[name] for name in spec}, masks)


def numpy_to_torch(events: Events) -> Events:
    """Arrays as tensors of the same type."""
    return events.map(lambda array: torch.as_tensor(np.asarray(array)))


def column_names(spec: EventSpec) -> tuple[str, ...]:
    """The columns of all fields."""
    return tuple(name for field in spec.values() for name in field.names)


def listed(names: tuple[str, ...], most: int = 6) -> str:
    """The first few names, for messages."""
    return (", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")) or "none"


def _fields(value: Any, spec: EventSpec, where: str) -> tuple[Events, Shape, bool]:
    """The fields of ``spec`` and the masks of its clouds as tensors with a common leading shape."""
    named, masks = _named(value, spec, where)
    fields, real, shapes = {}, {}, {}
    for name, form in spec.items():
        tensor = _numbers(named[name], where if len(spec) == 1 else f"{where}[{name!r}]")
        lead = tuple(tensor.shape[: max(tensor.ndim - len(form.shape), 0)])
        if tuple(tensor.shape[len(lead) :]) != form.shape:
            raise ShapeError(
                f"expected {where} of shape (n, {', '.join(map(str, form.shape))}) for field {name!r}; got {tuple(tensor.shape)}"
            )
        fields[name], shapes[name] = tensor, lead
        if form.kind == "cloud":
            real[name] = _mask(masks.get(name), form, lead, f"{where}[{name!r}]")
    if len(set(shapes.values())) > 1:
        raise ShapeError(f"expected fields of {where} with the same leading shape; got {shapes}")
    torch_out = any(isinstance(part, Tensor) for part in named.values())
    return Events(fields, real), next(iter(shapes.values())), torch_out


def _named(value: Any, spec: EventSpec, where: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Fields and masks by name."""
    masks: dict[str, Any] = {}
    if isinstance(value, Events):
        masks, value = dict(value.masks), value.fields
    elif isinstance(value, Mapping):
        masks = {name: value[mask_name(name)] for name in spec if mask_name(name) in value}
        value = {name: part for name, part in value.items() if name not in {mask_name(cloud) for cloud in spec}}
    elif len(spec) == 1:
        value = {next(iter(spec)): value}
    if not isinstance(value, Mapping) or set(value) != set(spec):
        got = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise ShapeError(f"expected the fields {', '.join(spec)} of {where}; got {got}")
    return value, masks


def _mask(mask: Any, form: Field, lead: Shape, where: str) -> Tensor:
    if mask is None:
        return torch.ones((*lead, form.shape[0]), dtype=torch.bool)
    tensor = torch.as_tensor(np.asarray(mask) if not isinstance(mask, Tensor) else mask)
    if tensor.dtype != torch.bool or tuple(tensor.shape) != (*lead, form.shape[0]):
        raise ShapeError(
            f"expected a boolean mask of shape {(*lead, form.shape[0])} for {where}; got {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    return tensor


def _numbers(value: Any, where: str) -> Tensor:
    if isinstance(value, Tensor):
        tensor = value if value.is_floating_point() else value.double()
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise ShapeError(f"expected numbers in {where}; got an array of {array.dtype}")
        tensor = torch.as_tensor(np.array(array, dtype=np.float64))
    bad = ~torch.isfinite(tensor.detach())
    if bool(bad.any()):
        first = tuple(int(i) for i in bad.nonzero()[0])
        raise NonFiniteError(f"{where} has {int(bad.sum())} values that are NaN or infinite, the first at {first}")
    return tensor
