r"""The density of models with latent vectors, by importance sampling (arXiv:1509.00519).

.. math:: \log p(x) = \log \int p(x|z)\, p(z)\, dz \ge E \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)},
          \quad z_k \sim q(z|x)

whatever the proposal q is; the bound grows to log p(x) with K. A body says ``read(x, t, context, mask)``, what its encoder finds in events,
and ``infer(events, features, e, t)``, a :class:`Code` drawn from q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.models.autoencoder import AutoencoderFamily
from pofx.models.base import CHUNK, Layout
from pofx.training.noise import Noise

__all__ = ["Code", "ImportanceFamily", "importance", "mean_weight", "normal_log_prob"]


@dataclass(frozen=True)
class Code:
    """A draw z of q(z|x), its log p(z) ``(n,)``, mean and log-width of q along the way ``(n, latent)``, and the decoder's input."""

    z: Tensor
    log_prior: Tensor
    mean: Tensor
    log_scale: Tensor
    state: Tensor

    def log_ratio(self) -> Tensor:
        """log p(z) - log q(z|x), ``(n,)``."""
        return self.log_prior - normal_log_prob(self.z, self.mean, self.log_scale)


@dataclass(frozen=True)
class ImportanceFamily(AutoencoderFamily):
    """Autoencoders whose density is the bound of K importance samples.

    The samples are drawn with noise that is the same for all events. So the density is a smooth function of x, whatever batch x comes in;
    it is a lower bound in expectation, and the errors of different events are not independent.

    Parameters
    ----------
    samples : K.
    """

    samples: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 2, "samples")

    def conditions(self, x: Tensor) -> Tensor | None:
        """What conditions the networks beside the context, ``(n, times)``; nothing here."""
        return None

    def density_chunk(self, layout: Layout) -> int:
        return CHUNK // 16 if layout.spec[layout.only].kind == "vector" else CHUNK // 128

    def log_density(self, body: Any, events: Events) -> Tensor:
        return mean_weight(self._log_weights(body, events)) + body.log_count(events)

    def log_density_error(self, body: Any, events: Events) -> Tensor:
        weights = torch.softmax(self._log_weights(body, events), 1) * self.samples
        return weights.std(1) / math.sqrt(self.samples)

    def _log_weights(self, body: Any, events: Events) -> Tensor:
        numbers = torch.arange(self.samples, device=events.x.device)
        e = Noise(0, numbers, dtype=events.x.dtype, scope="importance").normal("z", body.latent)
        return importance(body, events, e.expand(len(events), -1, -1), self.conditions(events.x))


def importance(body: Any, events: Events, e: Tensor, t: Tensor | None, power: Tensor | float = 1.0) -> Tensor:
    """log of p(x|z) (p(z) / q(z|x))^power, ``(n, K)``, of the draws that standard normal e ``(n, K, latent)`` gives.

    With a power of 1 (``(n,)``, or one for all) these are the weights whose mean is the density.
    """
    rows = torch.arange(len(events), device=events.x.device).repeat_interleave(e.shape[1])
    features = body.read(events.x, t, events.context, events.mask)[rows]
    many, times = events[rows], None if t is None else t[rows]
    code = body.infer(many, features, e.flatten(0, 1), times)
    seen = body.decoder(code.state, times, many.context, many.mask)
    found, ratio = seen.log_prob(many.x, many.mask).reshape(e.shape[:2]), code.log_ratio().reshape(e.shape[:2])
    return found + (power[:, None] if isinstance(power, Tensor) else power) * ratio


def normal_log_prob(z: Tensor, mean: Tensor | float = 0.0, log_scale: Tensor | None = None) -> Tensor:
    """log density of independent normal columns, ``(n, latent)`` to ``(n,)``."""
    if log_scale is None:
        return (-0.5 * (z - mean).square() - 0.5 * math.log(2.0 * math.pi)).sum(1)
    return (-0.5 * ((z - mean) * torch.exp(-log_scale)).square() - log_scale - 0.5 * math.log(2.0 * math.pi)).sum(1)


def mean_weight(log_weights: Tensor) -> Tensor:
    """log of the mean of the weights, ``(n, K)`` to ``(n,)``."""
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])
