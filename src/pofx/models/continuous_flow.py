r"""Continuous normalising flow trained by likelihood: FFJORD (arXiv:1810.01367).

.. math:: L = -\log p_1(x(1)) - \int_0^1 \nabla \cdot v \, dt + \lambda \int_0^1 |v|^2 \, dt / d

The kinetic energy keeps paths straight and solvers fast (arXiv:2002.02798). Gradients are those of the solver's own steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.models.base import Capabilities, Layout
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

    Parameters
    ----------
    training_solver : of the loss, in a time that is warped for every event, so that no velocity learns to exploit the grid; its error
        becomes a bias, which a finer ``density_solver`` shows.
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
    training_solver: Solver = field(default_factory=lambda: RK4(steps=4))
    kinetic: float = 0.01
    training_trace: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0.0, "kinetic")

    def build(self, layout: Layout) -> nn.Module:
        return OdeBody(layout, self.network)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("likelihood", (Update("nll", self.loss),), monitor=self.likelihood),)

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Negative log-likelihood and kinetic energy."""
        nll, energy = self._solve(body, events, noise)
        return Loss(nll + self.kinetic * energy, logs={"nll": nll, "kinetic": energy})

    def likelihood(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Negative log-likelihood alone."""
        return Loss(self._solve(body, events, noise)[0])

    def _solve(self, body: Any, events: Events, noise: Noise) -> tuple[Tensor, Tensor]:
        """-log p and the kinetic energy, ``(n,)`` each."""
        x = events.x
        exact = self.training_trace == "exact" or (self.training_trace == "auto" and x.shape[1] <= 4)
        probes = None if exact else torch.where(noise.normal("probe", 1, *x.shape[1:]) < 0.0, -1.0, 1.0)
        turned = _Warped(self.field(body, events.context, None), noise.uniform("warp", 1)[:, 0])
        moving = _Energetic(turned, x.shape[1])
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
