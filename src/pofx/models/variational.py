r"""What variational autoencoders share: the evidence bound, beta, decode and encode.

.. math:: L_\beta = E_{q(z|x)}\bigl[ -\log p(x|z) \bigr] + \beta\, KL\bigl(q(z|x) \,\|\, N(0, 1)\bigr)

(arXiv:1312.6114; beta: arXiv:1804.03599). Densities are importance-weighted bounds (:mod:`pofx.models.importance`). The noise z of the
prior is standard normal in every family, also where several layers of latents are made of it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.errors import ConfigError
from pofx.models.autoencoder import AutoencoderBody
from pofx.models.base import Layout
from pofx.models.field import count_estimate, count_updates
from pofx.models.importance import Code, ImportanceFamily, importance, mean_weight, normal_log_prob
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

if TYPE_CHECKING:
    from pofx.models.model import Model

__all__ = ["VariationalBody", "VariationalFamily", "at_beta"]

ACTIVE = 0.01
"""Nats of information below which a latent column counts as collapsed."""

WIDEST = 8.0
"""Bound of the absolute log-width of q(z|x)."""


class VariationalBody(AutoencoderBody):
    """Encoder and decoder with the way from noise to the decoder's input between them; here they are the same."""

    def read(self, x: Tensor, t: Tensor | None, context: Events | None, mask: Tensor | None) -> Tensor:
        """What the encoder says of events, ``(n, outputs)``."""
        found: Tensor = self.encoder(x, t, context, mask)
        return found

    def infer(self, events: Events, features: Tensor, e: Tensor, t: Tensor | None) -> Code:
        """The draw of q(z|x) that standard normal e ``(n, latent)`` gives; features are what the encoder said of the events."""
        mean, raw = features.chunk(2, 1)
        log_scale = WIDEST * torch.tanh(raw / WIDEST)
        z = mean + log_scale.exp() * e
        return Code(z, normal_log_prob(z), mean, log_scale, z)

    def state(self, z: Tensor, t: Tensor | None, context: Events | None, mask: Tensor | None) -> Tensor:
        """The decoder's input for noise z of the prior."""
        return z


@dataclass(frozen=True)
class VariationalFamily(ImportanceFamily):
    """The settings of variational autoencoders; a family builds the body and says what it is called.

    Parameters
    ----------
    beta : weight of the KL divergence; or (lowest, highest): an input of the networks, drawn log-uniformly in training, so that one model
        holds all compressions (arXiv:2210.11489).
    beta_used : where beta is an input, its value in sampling, density and encoding; None for what is nearest to 1. See :func:`at_beta`.
    free_bits : nats per latent column and event that cost nothing (arXiv:1606.04934).
    warm_up : steps over which the weight of the KL divergence rises from zero (arXiv:1602.02282), so that latents do not collapse before
        they are of use; well below the number of steps. 0 for none.
    training_samples : K of the bound that training maximises; 1 is the evidence bound.
    """

    trained: ClassVar[tuple[str, ...]] = ("encoder.*", "decoder.*")

    beta: float | tuple[float, float] = 1.0
    beta_used: float | None = None
    free_bits: float = 0.0
    warm_up: int = 400
    training_samples: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "free_bits", "warm_up")
        check_at_least(self, 1, "training_samples")
        name = type(self).__name__
        low, high = self._range
        if not 0.0 < low <= high or (isinstance(self.beta, tuple) and low == high):
            raise ConfigError(f"{name}: beta must be a positive number or (lowest, highest); got {self.beta!r}")
        if self.beta_used is not None and (low == high or not low <= self.beta_used <= high):
            raise ConfigError(f"{name}: beta_used must be within beta=(lowest, highest); got {self.beta_used!r}")
        if self.training_samples > 1 and self.free_bits:
            raise ConfigError(f"{name}: free_bits are for training_samples=1; got {self.training_samples}")

    # What a family states

    @abstractmethod
    def build(self, layout: Layout) -> nn.Module:
        """A :class:`VariationalBody`."""

    # Training

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        bound = Update("bound", self.loss, parameters=self.trained)
        return (Phase("bound", (bound, *count_updates(layout)), estimate=count_estimate(layout), monitor=self.full),)

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Minus the bound, divided by the numbers of an event."""
        return self._loss(body, events, noise, min(1.0, (noise.step + 1) / self.warm_up) if self.warm_up else 1.0)

    def full(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The same after warm-up."""
        return self._loss(body, events, noise, 1.0)

    def _loss(self, body: Any, events: Events, noise: Noise, warmth: float) -> Loss:
        beta, t = self._drawn_beta(body, events, noise)
        e = noise.normal("z", self.training_samples, body.latent)
        if self.training_samples > 1:
            return Loss(-mean_weight(importance(body, events, e, t, warmth * beta)) / body.form.size)
        code = body.infer(events, body.read(events.x, t, events.context, events.mask), e[:, 0], t)
        lost = -body.decoder(code.state, t, events.context, events.mask).log_prob(events.x, events.mask)
        information = _information(code)
        paid = information.clamp(min=self.free_bits) if self.free_bits else information
        active = (information.detach().mean(0) > ACTIVE).sum().to(lost.dtype)
        logs = {"reconstruction": lost, "information": information.sum(1), "active": active}
        return Loss((lost + warmth * beta * paid.sum(1)) / body.form.size, logs=logs)

    # beta

    @property
    def _range(self) -> tuple[float, float]:
        return self.beta if isinstance(self.beta, tuple) else (self.beta, self.beta)

    @property
    def times(self) -> int:
        """How many numbers beside the context condition the networks."""
        return int(isinstance(self.beta, tuple))

    def _drawn_beta(self, body: Any, events: Events, noise: Noise) -> tuple[Tensor | float, Tensor | None]:
        """beta of every event, ``(n,)``, and what the networks see of it."""
        low, high = self._range
        if not self.times:
            return low, None
        place = noise.uniform("beta", 1)
        return low * (high / low) ** place[:, 0], place

    def conditions(self, x: Tensor) -> Tensor | None:
        """What the networks see of the beta that is used, ``(n, 1)``: its place between the logarithms of lowest and highest."""
        low, high = self._range
        if not self.times:
            return None
        used = min(max(1.0, low), high) if self.beta_used is None else self.beta_used
        return x.new_full((len(x), 1), math.log(used / low) / math.log(high / low))

    # Noise to events and back

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        mask, t = body.mask(noise, context), self.conditions(noise["z"])
        seen = body.decoder(body.state(noise["z"], t, context, mask), t, context, mask)
        return body.result(seen.sample(noise), mask)

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        """z at the mean of q, and the noise of the decoder that is left."""
        t, mask = self.conditions(events.x), events.mask
        features = body.read(events.x, t, events.context, mask)
        code = body.infer(events, features, events.x.new_zeros(len(events), body.latent), t)
        noise = {"z": code.z} | body.decoder(code.state, t, events.context, mask).noise(events.x, mask)
        return noise if body.count is None else noise | {"count": body.count.middle(events)}


def at_beta(model: Model, beta: float) -> Model:
    """The same model at another beta, where beta is an input: samples, densities and codes of that compression.

    ConfigError if beta is no input of the model, or out of its range.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> model = pofx.VAE(beta=(0.1, 10.0)).fit(x, training=pofx.Training(max_steps=3, seed=1))
    >>> at_beta(model, 5.0).encode(x[:3])["z"].shape
    torch.Size([3, 4])
    """
    family = model.family
    if not isinstance(family, VariationalFamily):
        raise ConfigError(f"at_beta: expected a variational autoencoder; got a fitted {type(family).__name__}")
    return replace(model, family=replace(family, beta_used=beta))


def _information(code: Code) -> Tensor:
    """KL(q | p) of every latent column, in nats, ``(n, latent)``."""
    return 0.5 * (code.mean.square() + (2.0 * code.log_scale).exp() - 1.0) - code.log_scale
