"""The one fitted class: sample, log_prob, decode, encode, save. Numpy in, numpy out; torch in, torch out; always the user's units.

Everything is evaluated in chunks of a fixed size, the last one padded, with noise keyed by the event's number. So no result depends
on the batch size, on the number of workers, or on its neighbours in a batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from pofx.bijections.fields import FieldColumns
from pofx.bijections.preprocessed import Preprocessing
from pofx.data.dataset import Dataset
from pofx.data.events import Events
from pofx.data.store import mask_name
from pofx.errors import CapabilityError, NoDensityError, ShapeError
from pofx.models.base import CHUNK, Family, Layout, NoiseShape
from pofx.models.fitted import Fitted
from pofx.models.inputs import Inputs, numpy_to_torch, present, same_columns
from pofx.training.noise import Noise, derive_seed

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CHUNK", "Model"]

DRAWS = 16
"""Placements of discrete columns within their cells over which a density is averaged."""


@dataclass
class Model:
    """What ``fit`` and ``load`` return.

    Attributes
    ----------
    family : the config that was fitted.
    fitted : the ``nn.Module``: preprocessing and body.
    layout : fields of events and contexts.
    card : the metadata that is saved with the model.
    """

    family: Family
    fitted: Fitted
    layout: Layout
    card: dict[str, Any]

    def __repr__(self) -> str:
        shapes = {name: field.shape for name, field in self.layout.spec.items()}
        return f"Model({self.family!r}, fields={shapes}, parameters={self.card.get('parameters')})"

    @property
    def inputs(self) -> Inputs:
        """The checks of what a user gives."""
        return Inputs(self.layout, self.card)

    # ------------------------------------------------------------------ sampling

    def sample(self, n: int | None = None, context: Any = None, *, seed: int, weights: bool = False) -> Any:
        """Draw events.

        Parameters
        ----------
        n : events (per context row). None with a context means one event per row.
        context : ``(c,)`` gives ``(n, *event)``; ``(m, c)`` gives ``(m, n, *event)`` for every m, or ``(m, *event)`` if n is None.
            A context of clouds or of several fields is :class:`~pofx.data.events.Events`, or a dictionary of arrays, of m rows or of one.
        seed : any integer; the same seed always gives the same events, whatever is drawn beside them.
        weights : also return the events' weights (ones for every family without a refiner).

        Returns
        -------
        float64 array (a tensor if the context is one); :class:`~pofx.data.events.Events` with masks if the event is a cloud or has
        several fields.
        """
        rows, shape, torch_out = self.inputs.context_rows(context, n)
        result = present(self.sample_rows(0, math.prod(shape), seed, rows, shape), self.layout.spec, shape, torch_out)
        one = torch.ones(shape, dtype=torch.float64)
        return (result, one if torch_out else one.numpy()) if weights else result

    def sample_range(self, start: int, stop: int, *, seed: int, n: int | None = None, context: Any = None) -> Any:
        """Events number ``start`` to ``stop`` of ``sample(n, context, seed=seed)``, row by row; n matters for contexts ``(m, c)`` alone."""
        one = n is None and not _many(context, self.layout)
        rows, shape, torch_out = self.inputs.context_rows(context, stop if one else n)
        drawn = self.sample_rows(start, stop, seed, rows, shape)
        return present(drawn, self.layout.spec, (max(stop - start, 0),), torch_out)

    def sample_rows(
        self, start: int, stop: int, seed: int, context: Events | None, shape: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Events number ``start`` to ``stop`` of ``sample`` (row by row over ``shape``), with masks: what parallel workers draw."""
        repeat = (
            shape[-1]
            if len(shape) == 2
            else (1 if context is not None and len(context) == math.prod(shape) else stop or 1)
        )
        pieces: list[dict[str, Tensor]] = []
        size = self.family.chunk(self.layout)
        with torch.no_grad():
            for first in range(start - start % size, stop, size):
                index = torch.arange(first, first + size, device=self.fitted.device)
                part = None if context is None else context[(index.cpu() // repeat).clamp(max=len(context) - 1)]
                fields = self._decode_rows(Noise(seed, index, dtype=self.fitted.dtype, scope="sample"), part)
                keep = slice(max(start - first, 0), min(stop - first, size))
                pieces.append({name: field[keep] for name, field in fields.items()})
        if not pieces:
            return self._nothing()
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _nothing(self) -> dict[str, Tensor]:
        fields = {name: torch.zeros(0, *field.shape, dtype=torch.float64) for name, field in self.layout.spec.items()}
        clouds = {name: field for name, field in self.layout.spec.items() if field.kind == "cloud"}
        return fields | {
            mask_name(name): torch.zeros(0, form.shape[0], dtype=torch.bool) for name, form in clouds.items()
        }

    def _decode_rows(self, noise: Noise, context: Events | None) -> dict[str, Tensor]:
        members = self.family.count_members(self.fitted.body)
        latent_context = None if context is None else self.fitted.prepare_context(context)
        drawn = self._draw(noise)
        fields = [
            self.family.decode(self.family.member(self.fitted.body, k), drawn, latent_context) for k in range(members)
        ]
        if members == 1:
            return self.fitted.restore(fields[0])
        choice = (noise.uniform("member") * members).long().clamp(max=members - 1)
        rows = torch.arange(len(choice), device=choice.device)
        return self.fitted.restore({name: torch.stack([f[name] for f in fields])[choice, rows] for name in fields[0]})

    def _draw(self, noise: Noise) -> dict[str, Tensor]:
        def one(name: str, wanted: NoiseShape) -> Tensor:
            return (noise.normal if wanted.kind == "normal" else noise.uniform)(name, *wanted.shape)

        return {name: one(name, wanted) for name, wanted in self.family.noise_shapes(self.layout).items()}

    # ------------------------------------------------------------------ densities

    def log_prob(self, x: Any, context: Any = None, *, members: Literal["mix", "all"] = "mix") -> Any:
        """log p(x | c) in nats, as a density in the units of the columns (the Jacobian of all preprocessing is included).

        Parameters
        ----------
        x : ``(n, *event)`` or one event; ``(m, n, *event)`` with m contexts; ``Events`` or a dictionary if the event is a cloud or has
            several fields; or a :class:`pofx.Dataset` of the same columns, which is streamed and brings its own context.
        context : ``(c,)``, ``(n, c)``, or ``(m, c)`` beside ``(m, n, *event)``; ``Events`` may bring their own.
        members : for families of several members: their mixture, or one row per member.

        Returns
        -------
        float64 of the leading shape of ``x``. ``-inf`` outside a declared range.
        """
        self._need_density()
        if isinstance(x, Dataset):
            return self._log_prob_dataset(x, context, members)
        events, shape, torch_out = self.inputs.events(x, context)
        self.inputs.warn_outside(events)
        values = self._in_chunks(events, lambda part: self._log_density(part, members))
        out = values.T.reshape(-1, *shape) if members == "all" else values.reshape(shape)
        return out if torch_out else out.detach().cpu().numpy()

    def log_prob_events(self, events: Events) -> np.ndarray[Any, Any]:
        """:meth:`log_prob` of a batch of numpy :class:`Events` (what a data set yields), as an array ``(n,)``."""
        self._need_density()
        return (
            self._in_chunks(numpy_to_torch(events), lambda part: self._log_density(part, "mix")).detach().cpu().numpy()
        )

    def _log_prob_dataset(self, data: Dataset, context: Any, members: Literal["mix", "all"]) -> np.ndarray[Any, Any]:
        if context is not None:
            raise ShapeError("a data set brings its own context; context was given as well")
        same_columns("columns", self.layout.spec, data.spec)
        same_columns("context", self.layout.context or {}, data.context_spec or {})
        parts = [self.log_prob(part, members=members) for part in data.chunks(16 * CHUNK)]
        return np.concatenate(parts, axis=-1) if parts else np.zeros(0)

    def log_prob_error(self, x: Any, context: Any = None) -> Any:
        """The standard error of :meth:`log_prob`: zero where the density is exact."""
        self._need_density()
        events, shape, torch_out = self.inputs.events(x, context)
        out = self._in_chunks(events, self._log_density_error).reshape(shape)
        return out if torch_out else out.detach().cpu().numpy()

    @property
    def density(self) -> str:
        """``"exact"``, ``"estimate"``, ``"bound"`` or ``"none"``; discrete columns that are spread by noise turn exact into estimate."""
        declared = self.family.density_of(self.layout)
        return "estimate" if declared == "exact" and self._discrete else declared

    @property
    def _discrete(self) -> bool:
        """Whether preprocessing spreads discrete columns over their cells by noise."""
        return any(
            isinstance(part, (Preprocessing, FieldColumns)) and part.discrete_columns
            for part in self.fitted.preprocess.values()
        )

    def _need_density(self) -> None:
        if self.density == "none":
            raise NoDensityError(
                f"{type(self.family).__name__} has no density; for a density use SplineFlow (exact), "
                "for a ratio of two samples train a classifier between them"
            )

    def _log_density(self, events: Events, members: str) -> Tensor:
        body, family = self.fitted.body, self.family
        count = family.count_members(body)
        draws = [self._latent(events, draw) for draw in range(DRAWS if self._discrete else 1)]
        per_member = [
            torch.stack(
                [family.log_density(family.member(body, k), latent).double() + jacobian for latent, jacobian in draws]
            )
            for k in range(count)
        ]
        stacked = torch.stack([member.logsumexp(0) - math.log(len(draws)) for member in per_member], -1)
        stacked = torch.where(torch.isneginf(draws[0][1])[:, None], -math.inf, stacked)
        return stacked if members == "all" else stacked.logsumexp(-1) - math.log(count)

    def _log_density_error(self, events: Events) -> Tensor:
        if not self._discrete:
            return self.family.log_density_error(self.fitted.body, self._latent(events, 0)[0]).double()
        values = torch.stack(
            [
                self.family.log_density(self.fitted.body, latent).double() + j
                for latent, j in (self._latent(events, k) for k in range(DRAWS))
            ]
        )
        relative = (values - values.max(0).values).exp()
        return relative.std(0) / relative.mean(0) / math.sqrt(DRAWS)

    def _latent(self, events: Events, draw: int) -> tuple[Events, Tensor]:
        """Latent events; discrete columns at placement ``draw`` within their cells, the same for all events: no row matters to another."""
        if not self._discrete:
            return self.fitted.prepare(events)
        index = torch.zeros(len(events), dtype=torch.int64, device=self.fitted.device)
        return self.fitted.prepare(events, Noise(derive_seed(0, "dequantise"), index, step=draw, dtype=torch.float64))

    def _in_chunks(self, events: Events, function: Callable[[Events], Tensor]) -> Tensor:
        track = any(field.requires_grad for field in events.fields.values())
        size = self.family.density_chunk(self.layout)
        with torch.enable_grad() if track else torch.no_grad():
            return (
                torch.cat([function(_padded(part, size))[: len(part)] for part in events.split(size)])
                if len(events)
                else torch.zeros(0, dtype=torch.float64)
            )

    # ------------------------------------------------------------------ noise to events and back

    def decode(self, noise: Mapping[str, Tensor] | Tensor, context: Any = None) -> Any:
        """Noise to events in the user's units: pure and differentiable. A tensor stands for the noise named ``"z"``; tensors out."""
        named = noise if isinstance(noise, Mapping) else {"z": noise}
        first = next(iter(named.values()))
        rows, _, _ = self.inputs.context_rows(context, len(first))
        if rows is not None and len(rows) not in (1, len(first)):
            raise ShapeError(f"expected one context, or {len(first)} beside the noise; got {len(rows)}")
        part = (
            None
            if rows is None
            else self.fitted.prepare_context(rows.map(lambda array: array.expand(len(first), *array.shape[1:])))
        )
        fields = self.fitted.restore(self.family.decode(self.fitted.body, named, part))
        return present(fields, self.layout.spec, (len(first),), True)

    def encode(self, x: Any, context: Any = None) -> dict[str, Tensor]:
        """Events to the noise that decodes to them, as a dictionary of tensors."""
        if not self.family.capabilities.encode:
            raise CapabilityError(f"{type(self.family).__name__} cannot encode events")
        events, _, _ = self.inputs.events(x, context)
        return dict(self.family.encode(self.fitted.body, self.fitted.prepare(events)[0]))

    def noise(self, n: int, *, seed: int, start: int = 0) -> dict[str, Tensor]:
        """The noise that ``sample`` uses for events ``start`` to ``start + n``."""
        return self._draw(
            Noise(
                seed, torch.arange(start, start + n, device=self.fitted.device), dtype=self.fitted.dtype, scope="sample"
            )
        )

    # ------------------------------------------------------------------ files and devices

    def save(self, path: str | Path) -> None:
        """Write card, weights and validation vectors to one file, without pickle (:mod:`pofx.artefact`)."""
        from pofx.models.saving import save

        save(self, path)

    def to(self, device: str | torch.device) -> Model:
        """A copy on another device."""
        return type(self)(self.family, copy.deepcopy(self.fitted).to(device), self.layout, self.card)


def _many(context: Any, layout: Layout) -> bool:
    """Whether a context is one of many rows."""
    if context is None or not layout.context:
        return False
    fields = context.fields if isinstance(context, Events) else context
    name, form = next(iter(layout.context.items()))
    value = fields[name] if isinstance(fields, Mapping) and name in fields else fields
    return np.ndim(value) > len(form.shape)


def _padded(events: Events, size: int) -> Events:
    """The same events, the last one repeated up to ``size``: what makes results independent of how events are batched."""
    missing = size - len(events)
    return events if missing == 0 else events.map(lambda a: torch.cat([a, a[-1:].expand(missing, *a.shape[1:])]))
