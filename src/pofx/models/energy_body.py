r"""The body of an energy-based model: an energy at every place of a path from data (t = 0) to the base (t = 1), and walks along it.

.. math:: E_t(x, c) = -\log p_1(x) + f_t(x, c), \qquad f_t = \frac{n_\theta(x, t, c)}{\sqrt{1 + r^2}} \text{ or } (1 - t)\, n_\theta(x, c)

with p_1 a standard normal, uniform on the circle for angles, and n a network that grows no faster than linearly, so that every
:math:`\exp(-E_t)` can be normalised. The first form belongs to data with noise of the ratio r(t) to the signal, whose f_t tends to a
constant for small r and falls with r for large ones; the second to one energy that is switched on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.models.annealing import anneal
from pofx.models.base import Layout
from pofx.models.field import FieldBody, network_shape
from pofx.networks.base import NetworkConfig, default_network
from pofx.networks.layers import Dense
from pofx.solvers.base import column
from pofx.solvers.hamiltonian import State, adapted, evaluate, hamiltonian_step
from pofx.training.noise import Noise

__all__ = ["LARGEST", "Draw", "EnergyBody", "Given", "keyed"]

LARGEST = 10.0
"""Ratio of noise to signal at t = 1."""
WIDEST = 4.0
"""Width of the noise on angles at t = 1, in radian: uniform to 3e-4."""
TARGET = 0.75
"""Share of proposals to be taken."""

Draw = Callable[[int], tuple[Tensor, Tensor]]
"""Number of a move to momenta ``(n, *shape)`` and uniform numbers ``(n,)``."""


class Given(NamedTuple):
    """What energies are conditioned on: the context, and the mask of a cloud."""

    context: Events | None
    mask: Tensor | None


def keyed(noise: Noise, *shape: int) -> Draw:
    """Draws out of keyed noise; move k takes what belongs to step k."""
    return lambda k: (noise.at(k).normal("momentum", *shape), noise.at(k).uniform("accept", 1)[:, 0])


class EnergyBody(FieldBody):
    """Network, step sizes, normaliser, and chains.

    Attributes
    ----------
    network : n, ``(n, 1)``, without a constant, which no loss could see.
    log_z : logarithm of the normaliser as noise-contrastive estimation learns it; None for other objectives.
    log_steps : logarithm of the leapfrogs' size per level.
    normaliser, normaliser_error : log Z at t = 0 and its standard error, where there is only one.
    chains, moves, log_step : persistent states, how often they moved, and their step; of no length where there are none.
    """

    log_steps: Tensor
    normaliser: Tensor
    normaliser_error: Tensor
    chains: Tensor
    moves: Tensor
    log_step: Tensor

    def __init__(
        self, layout: Layout, network: NetworkConfig | None, levels: int, smallest: float | None, chains: int
    ) -> None:
        super().__init__(layout)
        self.levels, self.smallest = levels, smallest
        shape = network_shape(layout, times=0 if smallest is None else 1, outputs=1)
        self.network = _without_constant((network or default_network(self.kind)).build(shape))
        self.single = layout.context is None and self.kind != "cloud"
        self.register_parameter("log_z", None)
        self.register_buffer("log_steps", self._first_steps())
        self.register_buffer("normaliser", torch.zeros(()))
        self.register_buffer("normaliser_error", torch.zeros(()))
        self.register_buffer("chains", self.base(torch.randn(chains, *self.form.shape)))
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))
        self.register_buffer("log_step", torch.tensor(math.log(0.3)))

    def times(self, k: int) -> float:
        """The place t of level k, from the base (k = 0) to the data."""
        return 1.0 - k / self.levels

    def ratio(self, t: Tensor) -> Tensor:
        """Noise over signal at t, a geometric progression."""
        smallest = self.smallest or 1.0
        return smallest * (LARGEST / smallest) ** t

    def perturbed(self, x: Tensor, t: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Events with noise at times ``(n,)``, the noise's width, and that width times :math:`-\nabla \log p(x_t | x)`.

        Lines: :math:`x_t = (x + r e) / \sqrt{1 + r^2}`. Angles: :math:`x + w e`, wrapped.
        """
        r = column(self.ratio(t), x)
        signal = (1.0 + r * r).rsqrt()
        if not self.circular:
            return signal * (x + r * e), r * signal, e
        smallest = self.smallest or 1.0
        w = column(smallest * (WIDEST / smallest) ** t, x)
        width = torch.where(self.angles, w, r * signal)
        place = torch.where(self.angles, self.wrap(x + w * e), signal * (x + r * e))
        return place, width, torch.where(self.angles, _wrapped_score(self.wrap(w * e), w), e)

    def energy(self, x: Tensor, t: Tensor | float, given: Given) -> Tensor:
        """E_t, ``(n,)``; t is one number or ``(n,)``."""
        return self.tilt(x, t, given) - self.log_base(x, given.mask)

    def tilt(self, x: Tensor, t: Tensor | float, given: Given) -> Tensor:
        """f_t, ``(n,)``: what the network adds to the energy of the base."""
        at = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))
        if self.smallest is None:
            return (1.0 - at) * self.network(x, None, given.context, given.mask)[:, 0]
        return self.network(x, at, given.context, given.mask)[:, 0] * (1.0 + self.ratio(at).square()).rsqrt()

    def start(self, z: Tensor, mask: Tensor | None) -> Tensor:
        """Events of the base, with zeros for padding."""
        x = self.base(z)
        return x if mask is None else torch.where(mask[..., None], x, 0.0)

    def move(
        self, state: State, t: float, step: Tensor, draw: tuple[Tensor, Tensor], given: Given, leapfrogs: int
    ) -> tuple[State, Tensor]:
        """One step of Hamiltonian dynamics in E_t."""
        momentum, uniform = draw
        momentum = momentum if given.mask is None else torch.where(given.mask[..., None], momentum, 0.0)
        wrap = self.wrap if self.circular else None
        return hamiltonian_step(
            lambda x: self.energy(x, t, given), state, step, momentum, uniform, leapfrogs=leapfrogs, wrap=wrap
        )

    def walk(self, x: Tensor, draw: Draw, given: Given, moves: int, leapfrogs: int) -> tuple[Tensor, Tensor]:
        """Events of the base to events of the model, and the logarithm of their weights ``(n,)`` (annealed importance sampling)."""

        def advance(k: int, before: State) -> tuple[Tensor, State]:
            state = evaluate(lambda y: self.energy(y, self.times(k), given), before.x)
            gain = before.energy - state.energy
            for j in range(moves):
                step = self.log_steps[k - 1].exp()
                state, _ = self.move(state, self.times(k), step, draw((k - 1) * moves + j), given, leapfrogs)
            return gain, state

        base = -self.log_base(x, given.mask)
        end, log_weight = anneal(State(x, base, torch.zeros_like(x)), self.levels, advance)
        return end.x, torch.as_tensor(log_weight)

    @torch.no_grad()
    def tune(self, x: Tensor, draw: Draw, given: Given, rounds: int, leapfrogs: int) -> None:
        """Set the step of every level by what is accepted, in a walk of its own."""
        for k in range(1, self.levels + 1):
            t = self.times(k)
            state = evaluate(lambda y, t=t: self.energy(y, t, given), x)  # type: ignore[misc]
            log_step = self.log_steps[k - 1] if k == 1 or self.smallest is not None else self.log_steps[k - 2]
            for j in range(rounds):
                rate = 2.0 / (1.0 + 0.5 * j)
                state, taken = self.move(state, t, log_step.exp(), draw(k * rounds + j), given, leapfrogs)
                log_step = adapted(log_step, taken, TARGET, rate).clamp(max=math.log(2.0))
            self.log_steps[k - 1] = log_step
            x = state.x

    def _first_steps(self) -> Tensor:
        """About the width of the noise, or of the base."""
        t = torch.tensor([self.times(k) for k in range(1, self.levels + 1)])
        if self.smallest is None:
            return torch.full_like(t, math.log(0.5))
        r = self.ratio(t)
        return (r * (1.0 + r * r).rsqrt()).log()


def _without_constant(network: nn.Module) -> nn.Module:
    """The network with a last layer that starts at zero (so that the model starts as its base) and has no bias.

    A constant has no gradient in x, and would cancel against log Z.
    """
    last = getattr(getattr(network, "head", network), "last", None)
    layer = last.layers[-1] if isinstance(last, Dense) else last
    if isinstance(layer, nn.Linear):
        layer.register_parameter("bias", None)
        nn.init.zeros_(layer.weight)
    return network


def _wrapped_score(away: Tensor, width: Tensor) -> Tensor:
    """Width times minus the derivative of the log-density of a wrapped normal, at angles ``away`` in [-pi, pi)."""
    turns = 2.0 * math.pi * torch.arange(-4, 5, device=away.device, dtype=away.dtype)
    images = (away[..., None] + turns) / width[..., None]
    share = torch.softmax(-0.5 * images.square(), -1)
    return (share * images).sum(-1)
