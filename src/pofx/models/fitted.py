"""A body with the preprocessing around it: one ``nn.Module`` whose state dict is everything a model knows.

Preprocessing runs in float64 whatever the body's precision, so that cross sections of 1e-39 cm^2 neither underflow nor lose digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pofx.bijections.fields import FieldColumns, FieldStandardise
from pofx.bijections.preprocessed import (
    Preprocessing,
    periodic_columns,
    preprocessing_config,
    preprocessing_from_config,
)
from pofx.bijections.preprocessing import build_preprocessing
from pofx.data.events import Events
from pofx.data.spec import EventSpec
from pofx.data.store import mask_name
from pofx.training.noise import Noise

__all__ = ["Fitted", "to_tensors"]


def to_tensors(events: Events, device: torch.device | str = "cpu") -> Events:
    """The same events as tensors: fields, context and weights in float64, masks and event numbers as they are."""

    def convert(array: Any) -> Tensor:
        tensor = torch.as_tensor(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array
        return tensor.to(device, torch.float64 if tensor.dtype.is_floating_point else tensor.dtype)

    return events.map(convert)


class Preprocess(nn.ModuleDict):
    """One bijection per field of an event or of a context."""

    @classmethod
    def from_data(
        cls, spec: EventSpec, events: Events, methods: Mapping[str, Any], weight: Tensor | None
    ) -> Preprocess:
        """Fitted on (a sample of) the training split; ``methods``: field -> method."""
        return cls(
            {
                name: build_preprocessing(
                    field, events.fields[name], weight, methods[name], mask=events.masks.get(name)
                )
                for name, field in spec.items()
            }
        )

    @classmethod
    def identity(cls, spec: EventSpec) -> Preprocess:
        """For events that are made in latent coordinates (integrands)."""
        return cls(
            {
                name: Preprocessing(len(field.columns))
                if field.kind == "vector"
                else FieldStandardise(field.kind, len(field.columns))
                for name, field in spec.items()
            }
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocess:
        """Of the right structure, to be filled by ``load_state_dict``."""
        return cls({name: preprocessing_from_config(dict(part)) for name, part in config.items()})

    def config(self) -> dict[str, Any]:
        """The structure, JSON-able."""
        return {name: preprocessing_config(part) for name, part in self.items()}  # type: ignore[arg-type]

    def describe(self) -> dict[str, list[str]]:
        """One line per column, for people."""
        return {name: part.describe() for name, part in self.items()}  # type: ignore[operator]

    def circular(self) -> dict[str, tuple[int, ...]]:
        """Field -> latent columns that are angles in [-pi, pi)."""
        return {name: periodic_columns(part) for name, part in self.items()}  # type: ignore[arg-type]

    def to_latent(self, events: Events, noise: Noise | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Latent fields and the summed log-Jacobian ``(n,)``; ``noise`` spreads discrete columns over their cell."""
        total = torch.zeros((), dtype=torch.float64)
        latent: dict[str, Tensor] = {}
        for name, part in self.items():
            latent[name], log_jacobian = part(events.fields[name], **_extra(part, name, events, noise))
            total = total + log_jacobian
        return latent, total

    def from_latent(self, fields: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Latent fields back to the user's coordinates, in float64."""
        return {name: self.to_user(name, fields[name], masks.get(name)) for name in self}

    def to_user(self, name: str, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """One latent field in the user's coordinates, in float64; differentiable."""
        part: Any = self[name]
        home = next((buffer.device for buffer in part.buffers()), latent.device)  # in training, only the body has moved
        extra = {} if mask is None else {"mask": mask.to(home)}
        value: Tensor = part.inverse(latent.to(home).double(), **extra)[0]
        return value.to(latent.device)


def _extra(part: nn.Module, name: str, events: Events, noise: Noise | None) -> dict[str, Tensor]:
    extra: dict[str, Tensor] = {}
    if isinstance(part, (FieldStandardise, FieldColumns)) and name in events.masks:
        extra["mask"] = events.masks[name]
    if noise is not None and isinstance(part, (Preprocessing, FieldColumns)) and part.discrete_columns:
        extra["noise"] = noise.uniform(f"dequantise/{name}", *events.fields[name].shape[1:])
    return extra


class Fitted(nn.Module):
    """Preprocessing of events, preprocessing of their context, and the body between noise and latent events."""

    def __init__(self, preprocess: Preprocess, context: Preprocess, body: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.context = context
        self.body = body

    @property
    def dtype(self) -> torch.dtype:
        """The body's precision."""
        floating = (b.dtype for b in self.body.buffers() if b.is_floating_point())
        return next(chain((p.dtype for p in self.body.parameters()), floating), torch.float32)

    def prepare(self, events: Events, noise: Noise | None = None) -> tuple[Events, Tensor]:
        """Events in the user's units (numpy or tensors) to latent events in the body's precision, and the log-Jacobian ``(n,)``."""
        events = to_tensors(events, self.device)
        fields, log_jacobian = self.preprocess.to_latent(events, noise)
        context = None if events.context is None else self.prepare_context(events.context)
        weight = None if events.weight is None else events.weight.to(self.dtype)
        latent = {name: field.to(self.dtype) for name, field in fields.items()}
        return events.replace(fields=latent, context=context, weight=weight), log_jacobian

    def prepare_context(self, context: Events) -> Events:
        """Context in the user's units to latent context."""
        context = to_tensors(context, self.device)
        return context.replace(
            fields={name: field.to(self.dtype) for name, field in self.context.to_latent(context)[0].items()}
        )

    def restore(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Latent fields to the user's units, float64; masks of clouds come along under their names."""
        masks = {name: fields[mask_name(name)] for name in self.preprocess if mask_name(name) in fields}
        plain = {name: value for name, value in fields.items() if name in self.preprocess}
        return self.preprocess.from_latent(plain, masks) | {mask_name(name): mask for name, mask in masks.items()}

    @property
    def device(self) -> torch.device:
        """Where the body is."""
        return next((t.device for t in chain(self.body.parameters(), self.body.buffers())), torch.device("cpu"))
