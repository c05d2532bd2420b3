r"""What diffusion models share: one noised state for all of them, its velocity, guidance, and the loss.

A process with kernel :math:`x_t = \alpha x_0 + s\, \epsilon` is carried as :math:`y = x_t / \sqrt{\alpha^2 + s^2}`, so that with the angle
:math:`\theta = \arctan(s / \alpha) = \pi t / 2`

.. math:: y = \cos\theta\, x_0 + \sin\theta\, \epsilon, \qquad
          \frac{dy}{d\theta} = v = \cos\theta\, \hat\epsilon - \sin\theta\, \hat x_0 = \frac{\cos\theta\, y - \hat x_0}{\sin\theta}

is the probability-flow ODE (arXiv:2011.13456) from events (t = 0) to a standard normal (t = 1), whatever the process: the clock of training
and of a sampler is a choice of angles. Denoised event and noise follow from v: :math:`\hat x_0 = \cos\theta\, y - \sin\theta\, v`,
:math:`\hat\epsilon = \sin\theta\, y + \cos\theta\, v`. Networks are asked at angles between those of training alone. Below, the score
:math:`-\hat\epsilon / \sin\theta` is held; above, the denoised event is taken where the
event's likelihood has the same slope, at :math:`y \cos\theta \sin^2\theta_1 / (\cos\theta_1 \sin^2\theta)` for the last angle theta_1.

Circular columns are refused: noise that is wrapped has no such scaled state.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.errors import CapabilityError
from pofx.models.base import Capabilities, Density, Layout, NoiseShape
from pofx.models.field import FieldBody, count_estimate, count_updates, field_noise, mean_event, network_shape
from pofx.models.ode import KINDS, OdeFamily
from pofx.networks.base import NetworkConfig, default_network
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["LAST_ANGLE", "Diffusion", "DiffusionBody", "NoisePrediction", "Velocity", "expand"]

LAST_ANGLE = math.atan(160.0)
"""No angle of training is larger: there the denoised event is off by 160 times what the predicted noise is off by."""

Velocity = Callable[[Tensor, Tensor], Tensor]
"""dy/d(angle) at angles ``(n,)`` and states ``(n, *shape)``."""


def expand(t: Tensor, x: Tensor) -> Tensor:
    """One number per event ``(n,)``, such that it multiplies x."""
    return t.reshape(-1, *[1] * (x.ndim - 1))


class DiffusionBody(FieldBody):
    """The network; with dropped contexts it takes a second number beside the noise level, 1 where the context is given and 0 without."""

    def __init__(self, layout: Layout, network: NetworkConfig | None, flagged: bool) -> None:
        super().__init__(layout)
        self.flagged = flagged
        shape = network_shape(layout, times=2 if flagged else 1)
        self.network = (network or default_network(self.kind)).build(shape)

    def answer(self, x: Tensor, label: Tensor, context: Events | None, mask: Tensor | None, given: Tensor) -> Tensor:
        """The network's result; ``given`` ``(n,)`` is one where the context counts."""
        if not self.flagged or context is None:
            found: Tensor = self.network(x, label, context, mask)
            return found
        seen: Tensor = self.network(x, torch.stack((label, given), -1), _hidden(context, given), mask)
        return seen


def _hidden(context: Events, given: Tensor) -> Events:
    """The context with zeros, or without points, where it does not count."""
    yes = given > 0.5
    fields = {name: torch.where(expand(yes, value), value, 0.0) for name, value in context.fields.items()}
    masks = {name: mask & yes[:, None] for name, mask in context.masks.items()}
    missing = {
        name: yes[:, None].expand(value.shape[:2])
        for name, value in fields.items()
        if value.ndim == 3 and name not in masks
    }
    return context.replace(fields=fields, masks={**masks, **missing})


@dataclass(frozen=True)
class Diffusion(OdeFamily):
    """Families that learn to take noise away; they state their angles of training, their preconditioner, and the weight of their loss.

    Parameters
    ----------
    context_dropout : share of training events whose context is hidden, for guidance (arXiv:2207.12598).
    guidance : w in v(c) + w (v(c) - v(no context)); 0 samples p(x|c). The guided model has no density: what it draws from is not p(x|c).
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=KINDS, encode=True, context=frozenset({"vector", "cloud"})
    )

    context_dropout: float = 0.0
    guidance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.0, 0.99, "context_dropout")
        check_at_least(self, -1.0, "guidance")

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest angle that the network is asked at."""

    @abstractmethod
    def draw_angles(self, noise: Noise) -> Tensor:
        """Training angles ``(n,)``."""

    @abstractmethod
    def weight(self, angle: Tensor) -> Tensor:
        """What multiplies the squared error of v in the loss, ``(n,)``."""

    @abstractmethod
    def inner(self, angle: Tensor, y: Tensor, ask: Velocity) -> Tensor:
        """v within the bounds, from the network's answer ``ask(label, input)``: the preconditioner."""

    def build(self, layout: Layout) -> nn.Module:
        if self.guidance and not (layout.context and self.context_dropout):
            raise CapabilityError(f"{self.name}: guidance needs a context and context_dropout > 0 in training")
        return DiffusionBody(layout, self.network, bool(layout.context) and self.context_dropout > 0)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        update = Update("denoise", self.loss, parameters=("network.*",))
        return (Phase(self.name, (update, *count_updates(layout)), estimate=count_estimate(layout)),)

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The weighted squared error of v, averaged over the numbers of an event."""
        x, angle = events.x, self.draw_angles(noise)
        e = noise.normal("e", *x.shape[1:])
        given = self._given(noise).to(x.dtype)
        y, slope = self.path(body, x, e, angle * (2.0 / math.pi))
        low, high = self.bounds
        found = self.inner(
            angle.clamp(low, high), y, lambda label, z: body.answer(z, label, events.context, events.mask, given)
        )
        error = (found - slope * (2.0 / math.pi)).square()
        return Loss(self.weight(angle) * mean_event(error, events.mask))

    def _given(self, noise: Noise) -> Tensor:
        """1 for events that see their context, 0 for those that learn without: (n,)."""
        if not self.context_dropout:
            return torch.ones_like(noise.index)
        return noise.uniform("given", 1)[:, 0] >= self.context_dropout

    @staticmethod
    def path(_body: Any, x: Tensor, e: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The state at times t between events and noise, and its velocity dy/dt."""
        cos, sin = expand((0.5 * math.pi * t).cos(), x), expand((0.5 * math.pi * t).sin(), x)
        return cos * x + sin * e, 0.5 * math.pi * (cos * e - sin * x)

    def velocity(self, body: Any, t: Tensor, x: Tensor, context: Events | None, mask: Tensor | None) -> Tensor:
        return 0.5 * math.pi * self.turn(body, 0.5 * math.pi * t, x, context, mask)

    def turn(self, body: Any, angle: Tensor, y: Tensor, context: Events | None, mask: Tensor | None) -> Tensor:
        """v = dy/d(angle) at angles in [0, pi/2], guided."""

        def at(given: float) -> Tensor:
            count = torch.full_like(angle, given)
            return self._everywhere(angle, y, lambda label, z: body.answer(z, label, context, mask, count))

        with_context = at(1.0)
        return with_context if not self.guidance else with_context + self.guidance * (with_context - at(0.0))

    def _everywhere(self, angle: Tensor, y: Tensor, ask: Velocity) -> Tensor:
        """v at all angles, by what is held outside the bounds."""
        low, high = self.bounds
        inside = angle.clamp(low, high)
        cos, sin = expand(inside.cos(), y), expand(inside.sin(), y)
        c, s = expand(angle.cos(), y), expand(angle.sin(), y)
        wide = expand(angle, y)
        asked = torch.where(wide > high, c * sin**2 / (cos * s.clamp(min=0.5) ** 2) * y, y)
        v = self.inner(inside, asked, ask)
        below = (s / sin * (sin * y + cos * v) - s * y) / c.clamp(min=0.5)
        above = (c * y - (cos * asked - sin * v)) / s.clamp(min=0.5)
        return torch.where(wide < low, below, torch.where(wide > high, above, v))

    def density_of(self, layout: Layout) -> Density:
        return "none" if self.guidance else super().density_of(layout)

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        if self.sampler_of() is not None:
            raise CapabilityError(f"{self.name}: only the ODE can be run backwards; encode needs sampler=None")
        return super().encode(body, events)

    def sampler_of(self) -> Any:
        """The sampler that takes the place of the ODE solver, or None."""
        return getattr(self, "sampler", None)

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        sampler, shape = self.sampler_of(), layout.spec[layout.only].shape
        extra = {} if sampler is None else sampler.noise_shapes(*shape)
        return {**field_noise(layout), **{name: NoiseShape("normal", size) for name, size in extra.items()}}

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        sampler = self.sampler_of()
        if sampler is None:
            return super().decode(body, noise, context)
        mask = body.mask(noise, context)
        real = (lambda x: x) if mask is None else (lambda x: torch.where(mask[..., None], x, 0.0))
        given = {name: _real(noise[name], mask) for name in sampler.noise_shapes(*noise["z"].shape[1:])}
        end = sampler.sample(
            self, lambda angle, y: real(self.turn(body, angle, real(y), context, mask)), _real(noise["z"], mask), given
        )
        return body.result(end, mask)

    def unguided(self) -> Diffusion:
        """The same family without guidance: that of the density."""
        return replace(self, guidance=0.0)


def _real(noise: Tensor, mask: Tensor | None) -> Tensor:
    """A sampler's noise ``(n, ..., L, F)`` without that of padding, which no sum over an event may see."""
    if mask is None:
        return noise
    kept = mask | ~mask.any(1, keepdim=True)  # an empty cloud keeps its own, so that no length is zero
    return torch.where(kept.reshape(len(mask), *[1] * (noise.ndim - 3), -1, 1), noise, 0.0)


@dataclass(frozen=True)
class NoisePrediction(Diffusion):
    """Diffusion whose network predicts the noise, or v.

    Parameters
    ----------
    prediction : ``"epsilon"`` (arXiv:2006.11239), the loss of which is the error of the noise; or ``"velocity"`` (arXiv:2202.00512), the
        error of v.
    """

    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "prediction", ("epsilon", "velocity"))

    def weight(self, angle: Tensor) -> Tensor:
        return angle.cos().square() if self.prediction == "epsilon" else torch.ones_like(angle)

    def inner(self, angle: Tensor, y: Tensor, ask: Velocity) -> Tensor:
        answer = ask(0.25 * angle.tan().log(), y)
        if self.prediction == "velocity":
            return answer
        return (answer - expand(angle.sin(), y) * y) / expand(angle.cos(), y)
