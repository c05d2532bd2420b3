r"""Bounded information bottleneck autoencoder: an autoencoder whose losses are critics (arXiv:1912.00830, 2005.05334).

The encoder gives a normal q(z|x, c), the generator x' = G(z, c) has no noise of its own, and

.. math:: L = \beta_C \, C(x', c) + \beta_D \, C_D(x' - x, c) + \beta_L \, C_L(z) + \beta_{KL} \, KL\bigl(q \,\|\, N(0, 1)\bigr)
              + \beta_{MMD} \, MMD^2\bigl(z, N(0, 1)\bigr)

where each C stands for the generator's loss against a critic that learns meanwhile: one tells reconstructions from events, one tells their
difference from zero, which keeps events and reconstructions together, one tells z from normal noise. Samples are G of normal noise.

Critics are bad at steep one-dimensional spectra. For grids a second phase therefore trains a post-processor, a network that moves
the value of every cell, whatever its place, by a kernel between the sorted values of event and reconstruction
(:mod:`pofx.models.sorted_values`). The latent vectors are only nearly normal, and a flow may learn how they are distributed instead
(in place of the kernel density estimate of arXiv:2102.12491).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.data.spec import Field, vector_spec
from pofx.errors import ConfigError
from pofx.models.adversarial import LOSSES, Critic, critic_terms, generator_terms
from pofx.models.autoencoder import encoder_of
from pofx.models.base import Capabilities, Family, Layout, NoiseShape
from pofx.models.discrepancy import breit_wigner_kernel, discrepancy, energy_kernel
from pofx.models.field import FieldBody, mean_event, network_shape
from pofx.models.flows import AutoregressiveFlow, CouplingFlow, FlowFamily
from pofx.models.sorted_values import SCALES, sorted_discrepancy
from pofx.networks.base import NetworkConfig, NetworkShape, default_network
from pofx.networks.embeddings import Conditioning
from pofx.networks.generators import GeneratorConfig, default_generator
from pofx.networks.layers import Angles
from pofx.networks.pointwise import Pointwise
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["BIBAE"]

CODE, GIVEN = "(code)", "(given)"
"""Names of the latent flow's event and context."""

TOGETHER = 512
"""Events that are compared with one another by the energy distance."""

WIDEST = 8.0
"""Bound of the absolute log-width of q(z|x)."""


@dataclass(frozen=True)
class BIBAE(Family):
    """Autoencoder with critics of latent vectors, events and differences; vectors and grids; samples in one pass, no density.

    Clouds are left out: their points have no order, so there is no difference of an event and its reconstruction.

    Parameters
    ----------
    encoder, generator, critic, latent_critic : networks; None for the defaults. ``critic`` is that of events and that of differences.
    latent : columns of z; None for the family's choice.
    loss : of all critics, see :mod:`pofx.models.adversarial`. The paper's are ``"wasserstein"``, with ``penalty="one-centred"``,
        ``strength=10`` and ``critic_steps=5``; the default learns faster.
    penalty, strength : on the critics' slopes: ``"one-centred"`` or ``"r1-r2"``, and its factor.
    critic_steps, critic_rate : steps of the critics per step of the autoencoder, and their learning rate in units of its.
    betas : of the Adam optimiser of both.
    adversarial, difference, latent_adversarial, information, mmd : weights of the five terms, in the order of the equation.
    post_processor : of the cells of grids whose channels are no angles, a second phase; None for none.
    window : sorted values that are compared together; nearness : weight of the mean squared change that the post-processor makes.
    flow : of latent vectors; None: they are normal.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> model = BIBAE().fit(x, training=pofx.Training(max_steps=3, seed=1))
    >>> model.sample(3, seed=1).shape, model.density
    ((3, 2), 'none')
    """

    name: ClassVar[str] = "bib-ae"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=frozenset({"vector", "grid"}), density="none", context=frozenset({"vector", "cloud"}), periodic=True
    )

    encoder: NetworkConfig | None = None
    generator: GeneratorConfig | None = None
    critic: NetworkConfig | None = None
    latent_critic: NetworkConfig | None = None
    latent: int | None = None
    loss: str = "relativistic"
    penalty: str = "r1-r2"
    strength: float = 0.1
    critic_steps: int = 1
    critic_rate: float = 3.0
    betas: tuple[float, float] = (0.0, 0.99)
    adversarial: float = 1.0
    difference: float = 1.0
    latent_adversarial: float = 1.0
    information: float = 0.05
    mmd: float = 10.0
    post_processor: Pointwise | None = field(default_factory=lambda: Pointwise(widths=(64, 64)))
    window: int = 100
    nearness: float = 1.0
    flow: FlowFamily | None = None

    def __post_init__(self) -> None:
        check_choice(self, "loss", LOSSES)
        check_choice(self, "penalty", ("one-centred", "r1-r2"))
        check_at_least(self, 0, "strength", "adversarial", "difference", "latent_adversarial", "information", "mmd")
        check_at_least(self, 0, "nearness")
        check_at_least(self, 1, "critic_steps", "window")
        check_between(self, 1e-3, 1e3, "critic_rate")
        betas: tuple[float, ...] = self.betas
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"BIBAE: betas must be two numbers in [0, 1); got {self.betas!r}")
        if self.latent is not None and (type(self.latent) is not int or self.latent < 1):
            raise ConfigError(f"BIBAE: latent must be an integer of at least 1, or None; got {self.latent!r}")
        flow: object = self.flow
        if flow is not None and (not isinstance(flow, (CouplingFlow, AutoregressiveFlow)) or flow.capabilities.teacher):
            raise ConfigError(f"BIBAE: flow must be a coupling, autoregressive or spline flow, or None; got {flow!r}")

    def build(self, layout: Layout) -> nn.Module:
        return _Body(layout, self)

    def latent_columns(self, layout: Layout) -> int:
        """Columns of z."""
        return self.latent or min(24, max(4, layout.spec[layout.only].size))

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        return {"z": NoiseShape("normal", (self.latent_columns(layout),))}

    # Training

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        critics = Update(
            "critics",
            self.critic_loss,
            parameters=("critics.*",),
            repeat=self.critic_steps,
            rate=self.critic_rate,
            betas=self.betas,
        )
        coder = Update("autoencoder", self.autoencoder_loss, parameters=("encoder.*", "generator.*"), betas=self.betas)
        phases = [Phase("autoencoder", (critics, coder), monitor=self.distance)]
        if self._processed(layout):
            phases.append(Phase("post-processor", (Update("sorted", self.sorted_loss, parameters=("post.*",)),)))
        if self.flow is not None:
            patterns = ("prior.*", "condition.*") if layout.context else ("prior.*",)
            phases.append(Phase("flow", (Update("flow", self.likelihood, parameters=patterns),)))
        return tuple(phases)

    def critic_loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Those of the three critics, with their penalties."""
        with torch.no_grad():
            pairs = self._pairs(body, events, noise)
        found = {name: self._judged(body, name, pair, events, noise) for name, pair in pairs.items()}
        return Loss(torch.stack(list(found.values())).sum(0), logs=found)

    def autoencoder_loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The five terms of encoder and generator."""
        mean, log_scale = body.infer(events)
        pairs = self._pairs(body, events, noise)
        weights = {"events": self.adversarial, "difference": self.difference, "latent": self.latent_adversarial}
        logs = {}
        for name, (real, fake) in pairs.items():
            score = body.judge(name, real.detach(), events)
            logs[name] = generator_terms(self.loss, score, body.judge(name, fake, events), events.weight)
        information = 0.5 * (mean.square() + (2.0 * log_scale).exp() - 1.0) - log_scale
        normal, z = pairs["latent"]
        apart = discrepancy(normal, z, _kernel(body.latent), events.weight)
        total = sum((weights[name] * term for name, term in logs.items()), self.mmd * apart)
        return Loss(
            total + self.information * information.sum(1),
            logs=logs | {"information": information.sum(1), "mmd": apart},
        )

    def _pairs(self, body: Any, events: Events, noise: Noise) -> dict[str, tuple[Tensor, Tensor]]:
        """What is real and what is made, for every critic."""
        z = body.draw(events, noise)
        made = body.make(z, events.context)
        apart = body.wrap(made - events.x)
        return {
            "events": (events.x, made),
            "difference": (torch.zeros_like(apart), apart),
            "latent": (noise.normal("normal", body.latent), z),
        }

    def _judged(self, body: Any, name: str, pair: tuple[Tensor, Tensor], events: Events, noise: Noise) -> Tensor:
        """The loss of one critic, ``(n,)``."""
        real, fake = pair
        if self.penalty == "one-centred":
            u = noise.uniform(f"between/{name}", 1).reshape(-1, *[1] * (real.ndim - 1))
            gap = fake - real if name == "latent" else body.wrap(fake - real)
            square = body.judge(name, real + u * gap, events, slope=True)[1]
            scores = [body.judge(name, x, events) for x in pair]
            penalty = ((square + 1e-12).sqrt() - 1.0).square()
        else:
            found = [body.judge(name, x, events, slope=True) for x in pair]
            scores, penalty = [score for score, _ in found], 0.5 * (found[0][1] + found[1][1])
        return critic_terms(self.loss, scores[0], scores[1], events.weight) + self.strength * penalty

    def sorted_loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The discrepancy of sorted values, of event and post-processed reconstruction, and how far the latter was moved."""
        with torch.no_grad():
            made = body.make(body.draw(events, noise), events.context)
        moved = body.processed(made, events.context)
        apart = torch.stack(
            [sorted_discrepancy(x.flatten(1), y.flatten(1), self.window) for x, y in _channels(events.x, moved)]
        ).mean(0)
        near = mean_event((moved - made).square())
        return Loss(apart + self.nearness * near, logs={"sorted": apart, "moved": near})

    def likelihood(self, body: Any, events: Events, noise: Noise) -> Loss:
        """-log p of latent vectors under the flow, per column."""
        assert self.flow is not None
        with torch.no_grad():
            z = body.draw(events, noise)
        inner = Events({CODE: z}, context=body.given(events.context, z))
        return Loss(-self.flow.log_density(body.prior, inner) / body.latent)

    def distance(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The energy distance of events and context to samples with the same context, within pieces of the batch."""
        made = body.make(noise.normal("z", body.latent), events.context)
        real, fake = (body.summary(x, events.context) for x in (events.x, made))
        terms = []
        for start in range(0, len(events), TOGETHER):
            piece = slice(start, start + TOGETHER)
            weight = None if events.weight is None else events.weight[piece]
            terms.append(discrepancy(real[piece], fake[piece], energy_kernel, weight))
        return Loss(torch.cat(terms))

    # The model

    def decode(self, body: nn.Module, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        own: Any = body
        z = noise["z"]
        if self.flow is not None:
            z = self.flow.decode(own.prior, {"z": z}, own.given(context, z))[CODE]
        made = own.make(z, context)
        found: Mapping[str, Tensor] = own.result(own.processed(made, context), None)
        return found

    def _processed(self, layout: Layout) -> bool:
        grid = layout.spec[layout.only].kind == "grid" and not layout.circular_columns
        return self.post_processor is not None and grid


class _Body(FieldBody):
    """Encoder, generator, the three critics, and what later phases train."""

    def __init__(self, layout: Layout, family: BIBAE) -> None:
        super().__init__(layout)
        shape, latent = network_shape(layout), family.latent_columns(layout)
        self.latent = latent
        self.encoder = encoder_of(layout, family.encoder, 2 * latent)
        self.generator = (family.generator or default_generator(self.kind)).build(latent, shape)
        seen = family.critic or default_network(self.kind)
        inner = NetworkShape(vector_spec(latent, CODE)[CODE])
        self.critics = nn.ModuleDict(
            {
                "events": Critic(seen, shape),
                "difference": Critic(seen, shape),
                "latent": Critic(family.latent_critic or default_network("vector"), inner),
            }
        )
        self.columns = Angles(shape.columns, shape.circular, dim=1 if self.kind == "grid" else -1)
        self.post = None
        if family.post_processor is not None and family._processed(layout):
            self.post = _PostProcessor(family.post_processor, layout)
        self.condition = self.prior = None
        if family.flow is not None:
            width = 32 if layout.context else 0
            self.condition = Conditioning(0, layout.context, layout.circular_context, width) if width else None
            context = vector_spec(width, GIVEN) if width else None
            self.prior = family.flow.build(Layout(vector_spec(latent, CODE), context))

    def infer(self, events: Events) -> tuple[Tensor, Tensor]:
        """Mean and log-width of q(z|x), ``(n, latent)``."""
        mean, raw = self.encoder(events.x, None, events.context, None).chunk(2, 1)
        return mean, WIDEST * torch.tanh(raw / WIDEST)

    def draw(self, events: Events, noise: Noise) -> Tensor:
        """z of q(z|x)."""
        mean, log_scale = self.infer(events)
        return mean + log_scale.exp() * noise.normal("q", self.latent)

    def make(self, z: Tensor, context: Events | None) -> Tensor:
        """Latent events from z, before the post-processor."""
        return self.wrap(self.generator(z, None, context, None, None))

    def processed(self, made: Tensor, context: Events | None) -> Tensor:
        """What the post-processor makes of these."""
        return made if self.post is None else self.wrap(self.post(made, context))

    def judge(self, name: str, x: Tensor, events: Events, *, slope: bool = False) -> Any:
        """Scores ``(n,)`` of one critic, and with ``slope`` their squared gradients as well."""
        critic: Any = self.critics[name]
        return (critic.with_slope if slope else critic)(x, None if name == "latent" else events.context)

    def given(self, context: Events | None, like: Tensor) -> Events | None:
        """What the flow is conditioned on."""
        return None if self.condition is None else Events({GIVEN: self.condition(like, None, context)})

    def summary(self, x: Tensor, context: Events | None) -> Tensor:
        """Events and their context as vectors ``(n, k)``; of a cloud its mean point."""
        parts = [self.columns(x).flatten(1)]
        for name, value in ({} if context is None else context.fields).items():
            mask = None if context is None else context.masks.get(name)
            parts.append(_mean_point(value, mask) if value.ndim == 3 else value)
        return torch.cat(parts, 1)


class _PostProcessor(nn.Module):
    """Every cell moved by a function of its own value, the means of the channels, and the context."""

    def __init__(self, config: Pointwise, layout: Layout) -> None:
        super().__init__()
        form = layout.spec[layout.only]
        channels, cells = form.shape[0], math.prod(form.shape[1:])
        shape = NetworkShape(
            Field("cloud", (cells, channels), form.columns),
            context=layout.context,
            times=channels,
            circular_context=layout.circular_context,
        )
        self.network = config.build(shape)

    def forward(self, x: Tensor, context: Events | None) -> Tensor:
        """``(n, channels, *cells)`` to the same."""
        points = x.flatten(2).transpose(1, 2)
        moved = points + self.network(points, points.mean(1), context, None)
        return moved.transpose(1, 2).reshape(x.shape)


def _kernel(latent: int) -> Any:
    """For vectors whose typical distance is that of two normal ones."""
    return breit_wigner_kernel([scale * math.sqrt(2.0 * latent) for scale in SCALES])


def _channels(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.unbind(1), y.unbind(1), strict=True))


def _mean_point(points: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of the real points ``(n, L, F)``, zero where there are none."""
    real = points.new_ones(points.shape[:2]) if mask is None else mask.to(points.dtype)
    kept = torch.where(real[..., None] > 0, points, 0.0)
    return kept.sum(1) / real.sum(1, keepdim=True).clamp(min=1.0)
