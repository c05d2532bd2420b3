r"""What families that move noise to events along an ODE share: decode, encode, and the density by the change of variables.

.. math:: \frac{dx}{dt} = v_\theta(t, x, c), \qquad \log p(x(0)|c) = \log p_1(x(1)) + \int_0^1 \nabla \cdot v_\theta \, dt

with t = 0 at the data and t = 1 at the base: a standard normal, uniform on the circle for angles (arXiv:1806.07366).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.data.spec import Field, Kind
from pofx.models.base import CHUNK, Capabilities, Density, Family, Layout, NoiseShape
from pofx.models.field import FieldBody, field_noise, network_shape
from pofx.networks.base import NetworkConfig, default_network
from pofx.solvers import RK4, DormandPrince, MaskedField, Solver, VelocityField, log_density_ode, rademacher
from pofx.solvers.base import Rows
from pofx.training.noise import Noise

__all__ = ["KINDS", "OdeBody", "OdeFamily", "content_numbers", "field_of"]

KINDS: frozenset[Kind] = frozenset({"vector", "grid", "cloud"})

EXACT: Mapping[Kind, int] = {"vector": 64, "grid": 16, "cloud": 16}
"""Numbers per event up to which ``trace="auto"`` is exact: each takes a pass through the network, dear ones for images and clouds."""


class OdeBody(FieldBody):
    """The velocity network, ``network(x, t, context, mask)``."""

    def __init__(self, layout: Layout, network: NetworkConfig | None) -> None:
        super().__init__(layout)
        self.network = (network or default_network(self.kind)).build(network_shape(layout, times=1))


def field_of(
    velocity: Callable[[Tensor, Tensor, Events | None, Tensor | None], Tensor],
    context: Events | None,
    mask: Tensor | None,
) -> VelocityField:
    """``velocity(t, x, context, mask)`` of some events as the right-hand side that solvers take."""

    def of_rows(t: Tensor, x: Tensor, rows: Rows) -> Tensor:
        return velocity(t, x, None if context is None else context[rows], None if mask is None else mask[rows])

    return of_rows if mask is None else MaskedField(of_rows, mask)


def content_numbers(x: Tensor) -> Tensor:
    """A number for each event that its values alone decide, int64 ``(n,)``: the key of noise that no batch may change.

    >>> bool((content_numbers(torch.ones(2, 3)) == content_numbers(torch.ones(5, 3))[:2]).all())
    True
    """
    bits = x.detach().double().flatten(1).contiguous().view(torch.int64)
    odd = 2 * torch.arange(1, bits.shape[1] + 1, device=x.device) + 1
    mixed = (bits ^ (bits >> 29)) * (odd * 0x9E3779B97F4A7C1)
    return (mixed ^ (mixed >> 32)).sum(1)


@dataclass(frozen=True)
class OdeFamily(Family):
    """Families with a velocity; they state :meth:`velocity` (the network's, unless they say otherwise), their loss, and their defaults.

    Parameters
    ----------
    network : of the kind of field; None for the default (residual MLP, U-Net, EPiC).
    solver : that samples; any of :mod:`pofx.solvers`.
    density_solver : that integrates densities, tight by default.
    trace : ``"exact"``, one derivative per number of an event; ``"hutchinson"``, an unbiased estimate of the divergence, whose exponential
        is not unbiased; ``"auto"``, exact up to 64 numbers per event, 16 of images and clouds.
    probes : of Hutchinson's estimate, at least two, so that it has an error.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=KINDS, encode=True, periodic=True, context=frozenset({"vector", "cloud"})
    )

    network: NetworkConfig | None = None
    solver: Solver = field(default_factory=lambda: RK4(steps=12))
    density_solver: Solver = field(default_factory=lambda: DormandPrince(rtol=1e-5, atol=1e-6))
    trace: str = "auto"
    probes: int = 4

    def __post_init__(self) -> None:
        check_choice(self, "trace", ("auto", "exact", "hutchinson"))
        check_at_least(self, 2, "probes")

    def build(self, layout: Layout) -> nn.Module:
        return OdeBody(layout, self.network)

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        return field_noise(layout)

    def velocity(self, body: Any, t: Tensor, x: Tensor, context: Events | None, mask: Tensor | None) -> Tensor:
        """dx/dt at times ``(m,)``."""
        return body.network(x, t, context, mask)

    def field(self, body: Any, context: Events | None, mask: Tensor | None) -> VelocityField:
        """The velocity of these events, for solvers."""
        return field_of(lambda t, x, given, real: self.velocity(body, t, x, given, real), context, mask)

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        mask = body.mask(noise, context)
        start = body.base(noise["z"])
        start = start if mask is None else torch.where(mask[..., None], start, 0.0)
        end = self.solver.solve(self.field(body, context, mask), start, 1.0, 0.0).check().x
        return body.result(body.wrap(end), mask)

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        moving = self.field(body, events.context, events.mask)
        end = self.density_solver.solve(moving, events.x, 0.0, 1.0).check().x
        noise = {"z": body.to_normal(body.wrap(end))}
        return noise if body.count is None else noise | {"count": body.count.middle(events)}

    def density_of(self, layout: Layout) -> Density:
        return "exact" if self._exact(layout.spec[layout.only]) else "estimate"

    def density_chunk(self, layout: Layout) -> int:
        form = layout.spec[layout.only]
        return CHUNK // 8 if form.size <= EXACT[form.kind] else CHUNK // 64

    def log_density(self, body: Any, events: Events) -> Tensor:
        return self._log_density(body, events)[0]

    def log_density_error(self, body: Any, events: Events) -> Tensor:
        return self._log_density(body, events)[1]

    def _log_density(self, body: Any, events: Events) -> tuple[Tensor, Tensor]:
        """log p and its standard error, ``(n,)``."""
        exact = self._exact(body.form)
        found = log_density_ode(
            self.field(body, events.context, events.mask),
            events.x,
            lambda z: body.log_base(z, events.mask),
            solver=_within(self.density_solver, len(events)),
            trace="exact" if exact else "hutchinson",
            probes=None if exact else self._probes(events.x),
        )
        error = torch.zeros_like(found.log_prob) if found.error is None else found.error
        return found.log_prob + body.log_count(events), error

    def _exact(self, form: Field) -> bool:
        return self.trace == "exact" or (self.trace == "auto" and form.size <= EXACT[form.kind])

    def _probes(self, x: Tensor) -> Tensor:
        """Probes that depend on nothing but the event."""
        noise = Noise(0, content_numbers(x), dtype=x.dtype, scope="trace")
        return rademacher(noise, self.probes, *x.shape[1:])


def _within(solver: Solver, events: int) -> Solver:
    """An adaptive solver with blocks no larger than the batch."""
    if isinstance(solver, DormandPrince) and solver.block is not None:
        return replace(solver, block=min(solver.block, events))
    return solver
