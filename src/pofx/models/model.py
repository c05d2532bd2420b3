"""The one fitted class: sample, log_prob, decode, encode, save. Numpy in, numpy out; torch in, torch out; always the user's units.

Everything is evaluated in chunks of a fixed size, the last one padded, with noise keyed by the event's number. So no result depends
on the batch size, on the number of workers, or on its neighbours in a batch.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from pofx.data.dataset import Dataset
from pofx.data.events import Events
from pofx.data.spec import EventSpec
from pofx.errors import CapabilityError, ColumnError, NoDensityError, NonFiniteError, RangeWarning, ShapeError
from pofx.models.base import Family, Layout, NoiseShape
from pofx.models.fitted import Fitted
from pofx.training.noise import Noise, derive_seed

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CHUNK", "Model"]

CHUNK = 1024
"""Events per evaluation. Part of what makes a sample reproducible: do not change it between versions without saying so."""

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

    # ------------------------------------------------------------------ sampling

    def sample(self, n: int | None = None, context: Any = None, *, seed: int, weights: bool = False) -> Any:
        """Draw events.

        Parameters
        ----------
        n : events (per context row). None with a context means one event per row.
        context : ``(c,)`` gives ``(n, *event)``; ``(m, c)`` gives ``(m, n, *event)`` for every m, or ``(m, *event)`` if n is None.
        seed : any integer; the same seed always gives the same events, whatever is drawn beside them.
        weights : also return the events' weights (ones for every family without a refiner).

        Returns
        -------
        float64 array (a tensor if the context is one); a dictionary of arrays if the event has several fields.
        """
        rows, shape, torch_out = self.context_rows(context, n)
        events = self.sample_rows(0, math.prod(shape), seed, rows, shape)
        out = {name: field.reshape(*shape, *field.shape[1:]) for name, field in events.items()}
        result = self._present(out, torch_out)
        one = torch.ones(shape, dtype=torch.float64)
        return (result, one if torch_out else one.numpy()) if weights else result

    def sample_range(self, start: int, stop: int, *, seed: int, n: int | None = None, context: Any = None) -> Any:
        """Events number ``start`` to ``stop`` of ``sample(n, context, seed=seed)``, row by row; n matters for contexts ``(m, c)`` alone."""
        rows, shape, torch_out = self.context_rows(context, stop if n is None and np.ndim(context) < 2 else n)
        return self._present(self.sample_rows(start, stop, seed, rows, shape), torch_out)

    def sample_rows(
        self, start: int, stop: int, seed: int, context: Tensor | None, shape: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Events number ``start`` to ``stop`` of ``sample`` (counted row by row over ``shape``): what parallel workers draw."""
        repeat = (
            shape[-1]
            if len(shape) == 2
            else (1 if context is not None and len(context) == math.prod(shape) else stop or 1)
        )
        pieces: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for first in range(start - start % CHUNK, stop, CHUNK):
                index = torch.arange(first, first + CHUNK, device=self.fitted.device)
                part = None if context is None else context[(index.cpu() // repeat).clamp(max=len(context) - 1)]
                fields = self._decode_rows(Noise(seed, index, dtype=self.fitted.dtype, scope="sample"), part)
                keep = slice(max(start - first, 0), min(stop - first, CHUNK))
                pieces.append({name: field[keep] for name, field in fields.items()})
        if not pieces:
            return {name: torch.zeros(0, *field.shape, dtype=torch.float64) for name, field in self.layout.spec.items()}
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _decode_rows(self, noise: Noise, context: Tensor | None) -> dict[str, Tensor]:
        members = self.family.members(self.fitted.body)
        latent_context = None if context is None else self.fitted.prepare_context(self._context_events(context))
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
        x : ``(n, *event)`` or one event; ``(m, n, *event)`` with m contexts; a dictionary if the event has several fields; or a
            :class:`pofx.Dataset` of the same columns, which is streamed and brings its own context.
        context : ``(c,)``, ``(n, c)``, or ``(m, c)`` beside ``(m, n, *event)``.
        members : for families of several members: their mixture, or one row per member.

        Returns
        -------
        float64 of the leading shape of ``x``. ``-inf`` outside a declared range.
        """
        self._need_density()
        if isinstance(x, Dataset):
            return self._log_prob_dataset(x, context, members)
        events, shape, torch_out = self._events(x, context)
        self._warn_outside(events)
        values = self._in_chunks(events, lambda part: self._log_density(part, members))
        out = values.T.reshape(-1, *shape) if members == "all" else values.reshape(shape)
        return out if torch_out else out.detach().cpu().numpy()

    def log_prob_events(self, events: Events) -> np.ndarray[Any, Any]:
        """:meth:`log_prob` of a batch of numpy :class:`Events` (what a data set yields), as an array ``(n,)``."""
        self._need_density()
        return self._in_chunks(_tensors(events), lambda part: self._log_density(part, "mix")).detach().cpu().numpy()

    def _log_prob_dataset(self, data: Dataset, context: Any, members: Literal["mix", "all"]) -> np.ndarray[Any, Any]:
        if context is not None:
            raise ShapeError("a data set brings its own context; context was given as well")
        for role, wanted, found in (
            ("columns", self.layout.spec, data.spec),
            ("context", self.layout.context or {}, data.context_spec or {}),
        ):
            if _names(wanted) != _names(found):
                raise ColumnError(
                    f"expected the {role} {_listed(_names(wanted))}; the data set has {_listed(_names(found))}"
                )
        parts = [
            self.log_prob(
                part.fields if len(part.fields) > 1 else part.x, part.context and part.context.x, members=members
            )
            for part in data.chunks(16 * CHUNK)
        ]
        return np.concatenate(parts, axis=-1) if parts else np.zeros(0)

    def log_prob_error(self, x: Any, context: Any = None) -> Any:
        """The standard error of :meth:`log_prob`: zero where the density is exact."""
        self._need_density()
        events, shape, torch_out = self._events(x, context)
        out = self._in_chunks(events, self._log_density_error).reshape(shape)
        return out if torch_out else out.detach().cpu().numpy()

    @property
    def density(self) -> str:
        """``"exact"``, ``"estimate"``, ``"bound"`` or ``"none"``; discrete columns turn exact into estimate."""
        declared = self.family.capabilities.density
        return "estimate" if declared == "exact" and self._discrete else declared

    @property
    def _discrete(self) -> bool:
        return any(column.type == "discrete" for field in self.layout.spec.values() for column in field.columns)

    def _need_density(self) -> None:
        if self.family.capabilities.density == "none":
            raise NoDensityError(
                f"{type(self.family).__name__} has no density; for a density use SplineFlow (exact), "
                "for a ratio of two samples train a classifier between them"
            )

    def _log_density(self, events: Events, members: str) -> Tensor:
        body, family = self.fitted.body, self.family
        count = family.members(body)
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
        with torch.enable_grad() if track else torch.no_grad():
            return (
                torch.cat([function(_padded(part))[: len(part)] for part in events.split(CHUNK)])
                if len(events)
                else torch.zeros(0, dtype=torch.float64)
            )

    # ------------------------------------------------------------------ noise to events and back

    def decode(self, noise: Mapping[str, Tensor] | Tensor, context: Any = None) -> Any:
        """Noise to events in the user's units: pure and differentiable. A tensor stands for the noise named ``"z"``; torch out."""
        named = noise if isinstance(noise, Mapping) else {"z": noise}
        first = next(iter(named.values()))
        rows, _, _ = self.context_rows(context, len(first))
        part = None if rows is None else self.fitted.prepare_context(self._context_events(rows.expand(len(first), -1)))
        fields = self.family.decode(self.fitted.body, named, part)
        return self._present(self.fitted.restore(fields), torch_out=True)

    def encode(self, x: Any, context: Any = None) -> dict[str, Tensor]:
        """Events to the noise that decodes to them, as a dictionary of tensors."""
        if not self.family.capabilities.encode:
            raise CapabilityError(f"{type(self.family).__name__} cannot encode events")
        events, _, _ = self._events(x, context)
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
        return Model(self.family, copy.deepcopy(self.fitted).to(device), self.layout, self.card)

    # ------------------------------------------------------------------ input

    def _events(self, x: Any, context: Any) -> tuple[Events, tuple[int, ...], bool]:
        named = x if isinstance(x, Mapping) else {self.layout.only: x}
        unknown = sorted(set(named) ^ set(self.layout.spec))
        if unknown:
            raise ShapeError(f"expected the fields {', '.join(self.layout.spec)}; got {', '.join(map(str, named))}")
        torch_out = any(isinstance(value, Tensor) for value in named.values())
        fields, shapes = {}, []
        for name, value in named.items():
            tensor = _as_tensor(value, f"x[{name!r}]" if len(named) > 1 else "x")
            inner = self.layout.spec[name].shape
            if tuple(tensor.shape[tensor.ndim - len(inner) :]) != inner or tensor.ndim < len(inner):
                raise ShapeError(
                    f"expected x of shape (n, {', '.join(map(str, inner))}) for field {name!r}; got {tuple(tensor.shape)}"
                )
            shapes.append(tuple(tensor.shape[: tensor.ndim - len(inner)]))
            fields[name] = tensor.reshape(-1, *inner)
        shape = shapes[0]
        rows = self._match_context(context, shape)
        events = Events(fields, context=None if rows is None else self._context_events(rows))
        return events, shape, torch_out

    def _match_context(self, context: Any, shape: tuple[int, ...]) -> Tensor | None:
        rows = self._context_tensor(context)
        if rows is None:
            return None
        count = math.prod(shape)
        lead = tuple(rows.shape[:-1])
        if lead not in ((), (1,), shape, shape[:1]):
            raise ShapeError(
                f"expected a context of shape ({rows.shape[-1]},), or {(*shape, rows.shape[-1])} beside x; got {tuple(rows.shape)}"
            )
        if lead == shape[:1] and len(shape) == 2 and lead != (1,):
            return rows[:, None].expand(*shape, rows.shape[-1]).reshape(count, -1)
        return rows.reshape(-1, rows.shape[-1]).expand(count, -1)

    def context_rows(self, context: Any, n: Any) -> tuple[Tensor | None, tuple[int, ...], bool]:
        """Context rows ``(m, c)`` or None, the leading shape of a sample, and whether it is to be a tensor."""
        if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0):
            raise ShapeError(f"expected a number of events n >= 0; got {n!r}")
        rows = self._context_tensor(context)
        if rows is None:
            if n is None:
                raise ShapeError("expected n, the number of events to draw (it may be left out only beside a context)")
            return None, (int(n),), False
        torch_out = isinstance(context, Tensor)
        if rows.ndim > 2:
            raise ShapeError(f"expected a context of shape (c,) or (m, c); got {tuple(rows.shape)}")
        if rows.ndim == 1:
            return rows[None], (1 if n is None else int(n),), torch_out
        return rows, (len(rows),) if n is None else (len(rows), int(n)), torch_out

    def _context_tensor(self, context: Any) -> Tensor | None:
        wanted = self.layout.context_features
        if context is None:
            if wanted:
                raise ShapeError(f"expected a context of {wanted} columns ({', '.join(self._context_names)}); got none")
            return None
        if not wanted:
            raise ShapeError("this model was fitted without a context; got one")
        rows = _as_tensor(context, "context")
        if rows.ndim == 0 or rows.shape[-1] != wanted:
            raise ShapeError(
                f"expected a context of {wanted} columns ({', '.join(self._context_names)}); got shape {tuple(rows.shape)}"
            )
        self._warn_context(rows)
        return rows

    @property
    def _context_names(self) -> tuple[str, ...]:
        return tuple(name for field in (self.layout.context or {}).values() for name in field.names)

    def _context_events(self, rows: Tensor) -> Events:
        return Events(dict.fromkeys(self.layout.context or {}, rows))

    def _warn_context(self, rows: Tensor) -> None:
        _warn_range(
            "context",
            self.layout.context or {},
            {name: rows.reshape(-1, rows.shape[-1]) for name in self.layout.context or {}},
            self.card,
            0.1,
        )

    def _warn_outside(self, events: Events) -> None:
        _warn_range("x", self.layout.spec, events.fields, self.card, 0.5)

    def _present(self, fields: Mapping[str, Tensor], torch_out: bool) -> Any:
        out = {name: field if torch_out else field.detach().cpu().numpy() for name, field in fields.items()}
        return out if len(out) > 1 else next(iter(out.values()))


def _names(spec: EventSpec) -> tuple[str, ...]:
    return tuple(name for field in spec.values() for name in field.names)


def _listed(names: tuple[str, ...], most: int = 6) -> str:
    return (", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")) or "none"


def _as_tensor(value: Any, where: str) -> Tensor:
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


def _tensors(events: Events) -> Events:
    return events.map(lambda array: torch.as_tensor(np.asarray(array)))


def _padded(events: Events) -> Events:
    """The same events, the last one repeated up to CHUNK: what makes results independent of how events are batched."""
    missing = CHUNK - len(events)
    return events if missing == 0 else events.map(lambda a: torch.cat([a, a[-1:].expand(missing, *a.shape[1:])]))


def _warn_range(
    role: str, spec: EventSpec, fields: Mapping[str, Tensor], card: Mapping[str, Any], margin: float
) -> None:
    """Warn once per call about columns outside the trained range (widened by ``margin`` of its width) or the declared one."""
    notes = []
    for name, field in spec.items():
        known = card.get("ranges", {}).get(f"{role}:{name}")
        if known is None or fields[name].ndim != 2 or not len(fields[name]):
            continue
        low, high = (torch.tensor(known[end], dtype=torch.float64) for end in ("low", "high"))
        slack = margin * (high - low)
        values = fields[name].detach().double().cpu()
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
