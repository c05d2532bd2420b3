r"""Continuous normalising flow trained by likelihood: FFJORD (arXiv:1810.01367).

.. math:: L = -\log p_1(x(1)) - \int_0^1 \nabla \cdot v \, dt + \lambda \int_0^1 |v|^2 \, dt / d

The kinetic energy keeps paths straight and solvers fast (arXiv:2002.02798). Gradients are those of the solver's own steps. Before that,
the velocity is learnt by flow matching (arXiv:2210.02747), which solves no ODE: the likelihood begins where its steps are short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.models.base import Capabilities, Layout
from pofx.models.field import mean_event
from pofx.models.flow_matching import FlowMatching
from pofx.models.ode import OdeBody, OdeFamily
from pofx.networks import ResidualMLP
from pofx.networks.base import NetworkConfig
from pofx.solvers import RK4, Solver, transport
from pofx.solvers.base import Rows
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["ContinuousFlow"]

WARP = 0.8
"""How much the pace of time may differ from one, as a share."""


@dataclass(frozen=True)
class ContinuousFlow(OdeFamily):
    """For few columns and few events, where every event counts: training solves an ODE at every step; flow matching is far cheaper.

    Weights are chosen by the likelihood of validation events that ``density_solver`` finds, so that none is kept for the error of the
    training's solver.

    Parameters
    ----------
    warm_up : begin with flow matching, a phase of its own (``max_steps={"flow-matching": 2000, "likelihood": 300}``).
    rate : learning rate of the likelihood after that, as a multiple of that of :class:`pofx.Training`.
    training_solver : of the loss, in a time that is warped for every event, so that no velocity learns to exploit the grid.
    kinetic : weight of the kinetic energy.
    training_trace : ``"exact"`` or ``"hutchinson"`` (one probe per event and step); ``"auto"``: exact up to four columns.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> flow = ContinuousFlow(network=ResidualMLP(width=16, layers=1), training_solver=RK4(steps=2))
    >>> flow.fit(x, training=pofx.Training(max_steps=3, seed=1)).log_prob(x[:4]).shape
    (4,)
    """

    name: ClassVar[str] = "continuous-flow"
    capabilities: ClassVar[Capabilities] = Capabilities(
        encode=True, periodic=True, context=frozenset({"vector", "cloud"})
    )

    network: NetworkConfig | None = field(default_factory=lambda: ResidualMLP(width=64, layers=2))
    warm_up: bool = True
    rate: float = 0.1
    training_solver: Solver = field(default_factory=lambda: RK4(steps=6))
    kinetic: float = 0.01
    training_trace: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0.0, "kinetic", "rate")
        check_choice(self, "training_trace", ("auto", "exact", "hutchinson"))

    def build(self, layout: Layout) -> nn.Module:
        return OdeBody(layout, self.network)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        nll = Update("nll", self.loss, rate=self.rate if self.warm_up else 1.0)
        likelihood = Phase("likelihood", (nll,), monitor=self.likelihood)
        return (Phase("flow-matching", (Update("velocity", self.velocity_loss),)), likelihood)[
            0 if self.warm_up else 1 :
        ]

    def velocity_loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Flow matching's: the mean squared difference of velocities."""
        x, t = events.x, noise.uniform("t", 1)[:, 0]
        place, slope = FlowMatching.path(body, x, body.base(noise.normal("e", *x.shape[1:])), t)
        return Loss(mean_event((self.velocity(body, t, place, events.context, None) - slope).square(), None))

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Negative log-likelihood and kinetic energy."""
        nll, energy = self._solve(body, events, noise)
        return Loss(nll + self.kinetic * energy, logs={"nll": nll, "kinetic": energy})

    def likelihood(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Negative log-likelihood by the solver of densities."""
        return Loss(-self.log_density(body, events))

    def _solve(self, body: Any, events: Events, noise: Noise) -> tuple[Tensor, Tensor]:
        """-log p and the kinetic energy, ``(n,)`` each."""
        x = events.x
        exact = self.training_trace == "exact" or (self.training_trace == "auto" and x.shape[1] <= 4)
        probes = None if exact else torch.where(noise.normal("probe", 1, *x.shape[1:]) < 0.0, -1.0, 1.0)
        counted = _Energetic(self.field(body, events.context, None), x.shape[1])
        moving = _Warped(counted, noise.uniform("warp", 1)[:, 0])
        start = torch.cat([x, x.new_zeros(len(x), 1)], 1)
        wide = None if probes is None else torch.cat([probes, torch.zeros_like(probes[..., :1])], -1)
        moved = transport(
            moving, start, 0.0, 1.0, solver=self.training_solver, trace="exact" if exact else "hutchinson", probes=wide
        )
        end, energy = moved.x[:, :-1], moved.x[:, -1]
        return -(body.log_base(end) + moved.log_jacobian), energy


@dataclass(frozen=True)
class _Warped:
    r"""A field in another time s, of every event's own: :math:`t = s + a \sin(2 \pi s) / 2 \pi`, a uniform in (-WARP, WARP) by ``u``.

    Steps of equal length in s are steps of unequal length in t, and differ from event to event. On a fixed grid a velocity learns to turn
    the solver's error into likelihood.
    """

    moving: Any
    u: Tensor

    def __call__(self, s: Tensor, x: Tensor, rows: Rows) -> Tensor:
        a = WARP * (2.0 * self.u[rows] - 1.0).to(s.dtype)
        t = s + a * torch.sin(math.tau * s) / math.tau
        pace = 1.0 + a * torch.cos(math.tau * s)
        velocity: Tensor = self.moving(t, x, rows)
        return velocity * pace[:, None]


@dataclass(frozen=True)
class _Energetic:
    """A field with the mean square of its velocity as one more column, which does not move it."""

    moving: Any
    columns: int

    def __call__(self, t: Tensor, x: Tensor, rows: Rows) -> Tensor:
        velocity = self.moving(t, x[:, : self.columns], rows)
        return torch.cat([velocity, velocity.square().mean(1, keepdim=True) + 0.0 * x[:, self.columns :]], 1)
