r"""Generative adversarial network: a generator that a critic cannot tell from the data (arXiv:1406.2661).

.. math:: x = G(z, c), \quad z \sim N(0, 1); \qquad D(x, c) \text{ learns to tell events from } G(z, c), \; G \text{ to mislead it}

The losses of both, and penalties on the critic's slope, are in :mod:`pofx.models.adversarial`. Losses of adversaries do not say how good
the events are, so the weights that are kept are those (averaged over steps) whose events are nearest to the validation events in the
energy distance, always with the same noise (:mod:`pofx.models.discrepancy`). There is no density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.errors import ConfigError
from pofx.models.adversarial import LOSSES, PENALTIES, STATISTICS, Critic, critic_terms, generator_terms
from pofx.models.base import Capabilities, Family, Layout, NoiseShape
from pofx.models.discrepancy import discrepancy, energy_kernel
from pofx.models.features import Feature, column_values, feature_terms
from pofx.models.field import FieldBody, count_estimate, count_updates, network_shape
from pofx.networks.base import NetworkConfig, default_network
from pofx.networks.generators import GeneratorConfig, VectorGenerator, default_generator
from pofx.networks.layers import Angles
from pofx.networks.pooling import Points
from pofx.networks.residual import ResidualMLP
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["GAN"]

NETWORK = ResidualMLP(width=128, layers=2, activation="leaky_relu")
"""Of generator and critic of vectors: critics with kinks find edges and gaps sooner than smooth ones."""

TOGETHER = 512
"""Events that are compared with one another by the energy distance; more of them cost quadratic time."""


@dataclass(frozen=True)
class GAN(Family):
    """Generator and critic for vectors, grids and clouds; samples in one pass, no density.

    Parameters
    ----------
    generator, critic : networks; None for :data:`NETWORK` on vectors, and on grids and clouds for those that
        :func:`pofx.networks.default_generator` and ``default_network`` recommend. A critic may have ``spectral_norm=True``.
    latent : columns of the noise z.
    loss : ``"non-saturating"``, ``"wasserstein"``, ``"least-squares"``, ``"hinge"``, ``"relativistic"`` (event and made event in pairs) or
        ``"relativistic-average"``.
    penalty : on the critic's slope: ``"r1"``, ``"r1-r2"``, ``"one-centred"`` (the gradient penalty of Wasserstein critics) or ``"none"``.
    strength : of the penalty: gamma.
    critic_steps : of the critic per step of the generator; Wasserstein critics like five.
    critic_rate : learning rate of the critic in units of the generator's, which is that of :class:`pofx.Training`.
    betas : of the Adam optimiser of both.
    statistics : ``"deviation"`` shows the critic how much its features vary over the batch, against mode collapse; ``"none"`` does not.
    features : quantities of which the distribution has to be right, such as ``InvariantMass``, by an MMD term in the generator's loss
        (arXiv:1907.03764), in the user's units (:mod:`pofx.models.features`); feature_weight : the factor of these terms.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(1000, 2))
    >>> model = GAN().fit(x, training=pofx.Training(max_steps=5, seed=1))
    >>> model.sample(3, seed=1).shape, model.density
    ((3, 2), 'none')
    """

    name: ClassVar[str] = "gan"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=frozenset({"vector", "grid", "cloud"}),
        density="none",
        context=frozenset({"vector", "cloud"}),
        periodic=True,
    )

    generator: GeneratorConfig | None = None
    critic: NetworkConfig | None = None
    latent: int = 8
    loss: str = "relativistic"
    penalty: str = "r1-r2"
    strength: float = 0.01
    critic_steps: int = 1
    critic_rate: float = 3.0
    betas: tuple[float, float] = (0.0, 0.99)
    statistics: str = "none"
    features: tuple[Feature, ...] = ()
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        check_choice(self, "loss", LOSSES)
        check_choice(self, "penalty", PENALTIES)
        check_choice(self, "statistics", STATISTICS)
        check_at_least(self, 1, "latent", "critic_steps")
        check_at_least(self, 0, "strength", "feature_weight")
        check_between(self, 1e-3, 1e3, "critic_rate")
        betas: tuple[float, ...] = self.betas
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"GAN: betas must be two numbers in [0, 1); got {self.betas!r}")

    # What training starts from

    def structure(self, layout: Layout, events: Events) -> Mapping[str, Any]:
        """The widths of the kernels of every feature, in its unit."""
        if not self.features:
            return {}
        found = measured(self.features, layout, events.x, events.mask)
        return {
            "widths": [
                feature.widths(values, events.weight) for feature, values in zip(self.features, found, strict=True)
            ]
        }

    def build(self, layout: Layout) -> nn.Module:
        return _Body(layout, self)

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        form, per_point = layout.spec[layout.only], self._generator(layout).point_noise
        noise = {"z": NoiseShape("normal", (self.latent,))}
        if form.kind == "cloud":
            noise["count"] = NoiseShape("uniform", (1,))
            if per_point:
                noise["points"] = NoiseShape("normal", (form.shape[0], per_point))
        return noise

    def _generator(self, layout: Layout) -> GeneratorConfig:
        if self.generator is not None:
            return self.generator
        kind = layout.spec[layout.only].kind
        return VectorGenerator(NETWORK) if kind == "vector" else default_generator(kind)

    def _critic(self, layout: Layout) -> NetworkConfig:
        if self.critic is not None:
            return self.critic
        kind = layout.spec[layout.only].kind
        return NETWORK if kind == "vector" else default_network(kind)

    # Training

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        critic = Update(
            "critic",
            self.critic_loss,
            parameters=("critic.*",),
            repeat=self.critic_steps,
            rate=self.critic_rate,
            betas=self.betas,
        )
        generator = Update(
            "generator", partial(self.generator_loss, layout), parameters=("generator.*",), betas=self.betas
        )
        updates = (critic, generator, *count_updates(layout))
        return (Phase("gan", updates, estimate=count_estimate(layout), monitor=self.distance),)

    def critic_loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """That of the critic with its penalty; events are made under the context, and with the number of points, of those of the batch."""
        with torch.no_grad():
            fake = body.make(body.draw(events, noise), events.context, events.mask)
        real_score, fake_score, penalty = self._judged(body, events, fake, noise)
        terms = critic_terms(self.loss, real_score, fake_score, events.weight)
        logs = {"real": real_score, "fake": fake_score, "penalty": penalty}
        return Loss(terms + self.strength * penalty, logs=logs)

    def _judged(self, body: Any, events: Events, fake: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of events and of made ones, and the penalty, each ``(n,)``."""
        critic, x, given = body.critic, events.x, (events.context, events.mask, events.weight)
        if self.penalty == "none":
            real_score = critic(x, *given)
            return real_score, critic(fake, *given), torch.zeros_like(real_score)
        if self.penalty == "one-centred":
            between = body.between(x, fake, noise.uniform("between", 1))
            square = critic.with_slope(between, *given)[1]
            return critic(x, *given), critic(fake, *given), ((square + 1e-12).sqrt() - 1.0).square()
        real_score, square = critic.with_slope(x, *given)
        if self.penalty == "r1":
            return real_score, critic(fake, *given), 0.5 * square
        fake_score, other = critic.with_slope(fake, *given)
        return real_score, fake_score, 0.5 * (square + other)

    def generator_loss(self, layout: Layout, body: Any, events: Events, noise: Noise) -> Loss:
        """That of the generator, and the MMD of the features."""
        given = (events.context, events.mask, events.weight)
        fake = body.make(body.draw(events, noise), events.context, events.mask)
        with torch.no_grad():
            real_score = body.critic(events.x, *given) if self.loss.startswith("relativistic") else fake.new_zeros(())
        terms = generator_terms(self.loss, real_score, body.critic(fake, *given), events.weight)
        if not self.features:
            return Loss(terms)
        apart = self._feature_terms(layout, events, fake).to(terms.dtype)
        return Loss(terms + self.feature_weight * apart, logs={"features": apart})

    def _feature_terms(self, layout: Layout, events: Events, fake: Tensor) -> Tensor:
        """The sum over features of their squared MMD, ``(n,)`` terms."""
        real, made = (measured(self.features, layout, x, events.mask) for x in (events.x, fake))
        widths = layout.extra.get("widths") or [_own_width(feature) for feature in self.features]
        found = [feature_terms(*each, events.weight) for each in zip(self.features, widths, real, made, strict=True)]
        return torch.stack(found).sum(0)

    def distance(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The energy distance of events and context to made events with the same context, within pieces of the batch."""
        fake = body.make(body.draw(events, noise), events.context, events.mask)
        real, made = (body.summary(x, events.mask, events.context) for x in (events.x, fake))
        pieces = [slice(start, start + TOGETHER) for start in range(0, len(events), TOGETHER)]
        weights = [None if events.weight is None else events.weight[piece] for piece in pieces]
        terms = [
            discrepancy(real[piece], made[piece], energy_kernel, w) for piece, w in zip(pieces, weights, strict=True)
        ]
        return Loss(torch.cat(terms))

    # The model

    def decode(self, body: nn.Module, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        gan: Any = body
        mask = gan.mask(noise, context)
        found: Mapping[str, Tensor] = gan.result(gan.make(noise, context, mask), mask)
        return found


class _Body(FieldBody):
    """The generator, the critic, and what both losses need of them."""

    def __init__(self, layout: Layout, family: GAN) -> None:
        super().__init__(layout)
        shape, generator = network_shape(layout), family._generator(layout)
        self.latent, self.per_point = family.latent, generator.point_noise if self.kind == "cloud" else 0
        self.generator = generator.build(family.latent, shape)
        self.critic = Critic(family._critic(layout), shape, family.statistics)
        self.columns = Angles(shape.columns, shape.circular, dim=1 if self.kind == "grid" else -1)

    def draw(self, events: Events, noise: Noise) -> dict[str, Tensor]:
        """The noise of one batch, as :meth:`make` takes it."""
        drawn = {"z": noise.normal("z", self.latent)}
        return drawn | ({"points": noise.normal("points", events.x.shape[1], self.per_point)} if self.per_point else {})

    def make(self, noise: Mapping[str, Tensor], context: Events | None, mask: Tensor | None) -> Tensor:
        """Latent events from noise."""
        return self.wrap(self.generator(noise["z"], None, context, mask, noise.get("points")))

    def between(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """The point at u, ``(n, 1)``, of the way from x to y; along the shorter arc of a circle."""
        return self.wrap(x + u.reshape(-1, *[1] * (x.ndim - 1)) * self.wrap(y - x))

    def summary(self, x: Tensor, mask: Tensor | None, context: Events | None) -> Tensor:
        """Events and their context as vectors ``(n, k)``: numbers as they are, of clouds the count, mean and spread of the points."""
        columns = self.columns(x)
        parts = [_moments(columns, mask) if self.kind == "cloud" else columns.flatten(1)]
        if context is not None:
            for name, value in context.fields.items():
                parts.append(_moments(value, context.masks.get(name)) if value.ndim == 3 else value)
        return torch.cat(parts, 1)


def _moments(x: Tensor, mask: Tensor | None) -> Tensor:
    """Count, mean and standard deviation of the points ``(n, L, F)`` of every cloud, ``(n, 1 + 2 F)``."""
    points = Points.of(x, mask)
    count = points.count.clamp(min=1.0)
    mean = points.total(points.hide(x)) / count
    variance = points.total(points.hide((x - mean[:, None]).square())) / count
    return torch.cat((points.count.log1p(), mean, (variance + 1e-12).sqrt()), 1)


def measured(features: Sequence[Feature], layout: Layout, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Every feature of latent x, ``(n,)`` each, in the user's units."""
    name = layout.only
    if layout.to_user is None:
        raise ConfigError("GAN: features are in the user's units, and these events have no way back to them")
    values = column_values(layout.spec[name], layout.to_user(name, x, mask), mask)
    unknown = sorted({column for feature in features for column in feature.columns} - set(values))
    if unknown:
        raise ConfigError(f"GAN: features name the columns {', '.join(unknown)}; there are {', '.join(values)}")
    return [feature(values) for feature in features]


def _own_width(feature: Feature) -> list[float]:
    if feature.width is None:
        raise ConfigError(f"GAN: without data to look at before training, {type(feature).__name__} needs a width")
    return [feature.width]
