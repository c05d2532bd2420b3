"""What families over vectors, grids and clouds share: the noise they start from, the number of points of a cloud, sums over an event.

A cloud of N points has the density p(N|c) p(x_1, ..., x_N | N, c) of its points in the order they come in (the density of the unordered
set is N! times as large). N is drawn first and becomes the mask that networks see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.data.store import mask_name
from pofx.models.base import Layout, NoiseShape
from pofx.networks.base import NetworkShape
from pofx.networks.embeddings import Conditioning
from pofx.training.contract import Loss, Source, Update
from pofx.training.noise import Noise

__all__ = [
    "FieldBody",
    "Multiplicity",
    "count_estimate",
    "count_updates",
    "field_noise",
    "mean_event",
    "network_shape",
    "sum_event",
]

PSEUDO = 0.5
"""Events that every possible number of points starts with (Jeffreys' prior), so that none has probability zero."""


def network_shape(
    layout: Layout, *, times: int = 0, outputs: int | None = None, channels: int | None = None
) -> NetworkShape:
    """The shape of a network over the layout's only field, given its context."""
    return NetworkShape(
        layout.spec[layout.only],
        outputs=outputs,
        channels=channels,
        context=layout.context,
        times=times,
        circular=layout.circular_columns,
        circular_context=layout.circular_context,
    )


def field_noise(layout: Layout) -> dict[str, NoiseShape]:
    """One standard normal per number of the only field, and for a cloud the uniform number that decides how many points there are."""
    form = layout.spec[layout.only]
    noise = {"z": NoiseShape("normal", form.shape)}
    return noise | ({"count": NoiseShape("uniform", (1,))} if form.kind == "cloud" else {})


class FieldBody(nn.Module):
    """The start of a body over the only field of a layout; families add their networks.

    Attributes
    ----------
    field, form, kind : name, :class:`~pofx.data.spec.Field` and kind of the field.
    angles : boolean per column, to be broadcast against events: latent columns on the circle [-pi, pi).
    count : p(number of points | context) of a cloud, else None.
    """

    angles: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.field = layout.only
        self.form = layout.spec[self.field]
        self.kind = self.form.kind
        columns = self.form.shape[-1] if self.kind == "cloud" else self.form.shape[0]
        angles = torch.zeros(columns, dtype=torch.bool)
        angles[list(layout.circular_columns)] = True
        self.register_buffer("angles", angles.reshape(-1, *[1] * len(self.form.axes)), persistent=False)
        self.circular = bool(layout.circular_columns)
        self.count = Multiplicity(layout) if self.kind == "cloud" else None

    def mask(self, noise: Mapping[str, Tensor], context: Events | None) -> Tensor | None:
        """Which points there are, ``(n, L)``; None unless the field is a cloud."""
        return None if self.count is None else self.count.mask(noise["count"], context)

    def result(self, x: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """What ``decode`` returns: the field, and for a cloud its mask; padding is zero."""
        if mask is None:
            return {self.field: x}
        return {self.field: torch.where(mask[..., None], x, 0.0), mask_name(self.field): mask}

    def log_count(self, events: Events) -> Tensor:
        """log p(number of points | context), ``(n,)``; zero unless the field is a cloud."""
        if self.count is None:
            return events.x.new_zeros(len(events))
        return self.count.log_prob(points(events), events.context)

    def size(self, events: Events) -> Tensor:
        """Numbers per event, ``(n,)``; of real points only."""
        if self.kind == "cloud":
            return points(events).to(events.x.dtype) * self.form.shape[-1]
        return events.x.new_full((len(events),), float(self.form.size))

    # The base: standard normal, and uniform on the circle for angles.

    def base(self, z: Tensor) -> Tensor:
        """Standard normal noise to the base distribution: angles become uniform on the circle."""
        if not self.circular:
            return z
        return torch.where(self.angles, math.pi * torch.erf(z / math.sqrt(2.0)), z)

    def to_normal(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`base`."""
        if not self.circular:
            return x
        inner = (x / math.pi).clamp(-1.0 + 1e-7, 1.0 - 1e-7)
        return torch.where(self.angles, math.sqrt(2.0) * torch.erfinv(inner), x)

    def log_base(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """log density of the base, ``(n,)``, over real points."""
        normal = -0.5 * z * z - 0.5 * math.log(2.0 * math.pi)
        if self.circular:
            normal = torch.where(self.angles, -math.log(2.0 * math.pi), normal)
        return sum_event(normal, mask)

    def wrap(self, x: Tensor) -> Tensor:
        """Angles back to [-pi, pi)."""
        if not self.circular:
            return x
        return torch.where(self.angles, torch.remainder(x + math.pi, 2.0 * math.pi) - math.pi, x)


def sum_event(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The sum over everything but the first axis, ``(n,)``; with a mask ``(n, L)`` over real points ``(n, L, F)``.

    >>> sum_event(torch.ones(2, 3, 4), torch.tensor([[True, False, False], [True, True, False]]))
    tensor([4., 8.])
    """
    kept = values if mask is None else torch.where(mask[..., None], values, 0.0)
    return kept.flatten(1).sum(1)


def mean_event(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean over everything but the first axis, ``(n,)``; with a mask over real points (zero where there is none)."""
    if mask is None:
        return values.flatten(1).mean(1)
    return sum_event(values, mask) / (mask.sum(1).clamp(min=1) * values.shape[-1]).to(values.dtype)


def points(events: Events) -> Tensor:
    """How many real points every event has, int64 ``(n,)``."""
    if events.mask is None:
        return torch.full((len(events),), events.x.shape[1], dtype=torch.int64, device=events.x.device)
    found: Tensor = events.mask.sum(1)
    return found


class Multiplicity(nn.Module):
    """p(number of points | context) of a cloud of at most L points, from 0 to L.

    Without a context, the shares that were counted; with one, a small network with a softmax.
    """

    shares: Tensor

    def __init__(self, layout: Layout, width: int = 64) -> None:
        super().__init__()
        self.most = layout.spec[layout.only].shape[0]
        self.condition = self.head = None
        if layout.context:
            self.condition = Conditioning(0, layout.context, layout.circular_context, width)
            self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, self.most + 1))
        else:
            self.register_buffer("shares", torch.full((self.most + 1,), -math.log(self.most + 1)))

    def log_shares(self, n: int, context: Events | None) -> Tensor:
        """Log-probabilities ``(n, L + 1)``."""
        if self.condition is None or self.head is None:
            return self.shares.expand(n, -1)
        like = next(self.head.parameters())
        hidden = self.condition(like.new_zeros(n, 1), None, context)
        return torch.log_softmax(self.head(hidden), -1)

    def log_prob(self, count: Tensor, context: Events | None) -> Tensor:
        """``(n,)`` of int64 counts ``(n,)``."""
        return self.log_shares(len(count), context).gather(1, count[:, None])[:, 0]

    def middle(self, events: Events) -> Tensor:
        """The number u, ``(n, 1)``, in the middle of those that :meth:`mask` turns into as many points."""
        count = points(events)[:, None]
        shares = self.log_shares(len(events), events.context).double().exp()
        return (shares.cumsum(1).gather(1, count) - 0.5 * shares.gather(1, count)).to(events.x.dtype)

    def mask(self, u: Tensor, context: Events | None) -> Tensor:
        """The mask ``(n, L)`` of the number of points at which the distribution function passes u, ``(n, 1)``."""
        below = self.log_shares(len(u), context).double().exp().cumsum(1)[:, :-1]
        count = (u.double() > below).sum(1)
        return torch.arange(self.most, device=u.device) < count[:, None]


def count_updates(layout: Layout) -> tuple[Update, ...]:
    """The update that trains p(number of points | context) of a cloud; none for other kinds, and none without a context."""
    if layout.spec[layout.only].kind != "cloud" or not layout.context:
        return ()
    return (Update("count", _count_loss, parameters=("count.*",)),)


def count_estimate(layout: Layout) -> Callable[[nn.Module, Source, Any], None] | None:
    """The ``estimate`` of a phase that counts the points of a cloud without context; None otherwise."""
    return None if layout.spec[layout.only].kind != "cloud" or layout.context else _count


def _count_loss(body: Any, events: Events, _noise: Noise) -> Loss:
    return Loss(-body.log_count(events))


def _count(body: Any, source: Source, _training: Any) -> None:
    total = torch.full((body.count.most + 1,), PSEUDO, dtype=torch.float64)
    for events in source.sweep():
        found = points(events).cpu()
        weight = torch.ones(len(found)) if events.weight is None else events.weight.cpu()
        total.index_add_(0, found, weight.double())
    body.count.shares.copy_((total.clamp(min=PSEUDO) / total.clamp(min=PSEUDO).sum()).log())
