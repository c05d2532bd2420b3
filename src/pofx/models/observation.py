r"""What a decoder says of an event: p(x | z), with noise of learnt size on every number, as density, as samples and as noise.

- :class:`Numbers` (vectors and grids): independent numbers, :math:`x = m(z) + \sigma(z)\,\epsilon`.
- :class:`PointMixture` (clouds): points that are independent and alike given z, each from a mixture,

  .. math:: \log p(x_1, \ldots, x_N | z) = \sum_i \log \sum_k w_k(z)\, N(x_i;\, m_k(z), \sigma_k(z)),

  so that the density does not depend on the order of the points, and z carries what correlates them.

Angles have von Mises noise of concentration :math:`1/\sigma^2` instead of normal noise. Samples are functions of the noise in
:func:`observation_noise`; ``noise`` inverts them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pofx.data.spec import Field
from pofx.models.base import NoiseShape
from pofx.models.field import sum_event
from pofx.models.von_mises import von_mises_angle, von_mises_log_prob, von_mises_normal

__all__ = ["Numbers", "Observation", "PointMixture", "observation_noise"]


def observation_noise(form: Field) -> dict[str, NoiseShape]:
    """What ``sample`` takes: ``e``, a standard normal per number, and for clouds ``pick``, a uniform number per point."""
    noise = {"e": NoiseShape("normal", form.shape)}
    return noise | ({"pick": NoiseShape("uniform", form.shape[:1])} if form.kind == "cloud" else {})


@dataclass(frozen=True)
class Numbers:
    """Independent numbers: ``mean`` and ``log_scale`` of the shape of x; ``angles`` broadcasts against them (None: there are none).

    >>> seen = Numbers(torch.zeros(1, 2), torch.zeros(1, 2))
    >>> seen.log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """

    mean: Tensor
    log_scale: Tensor
    angles: Tensor | None = None

    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x | z), ``(n,)``."""
        return sum_event(_log_noise(x - self.mean, self.log_scale, self.angles))

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """x, of the noise ``e``."""
        return _moved(self.mean, self.log_scale, noise["e"], self.angles)

    def noise(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """The noise of which :meth:`sample` is x."""
        return {"e": _as_noise(x - self.mean, self.log_scale, self.angles)}


@dataclass(frozen=True)
class PointMixture:
    """Points from a mixture of K components: ``log_share`` ``(n, K)``, ``mean`` and ``log_scale`` ``(n, K, F)``."""

    log_share: Tensor
    mean: Tensor
    log_scale: Tensor
    angles: Tensor | None = None

    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x | z) of the real points, ``(n,)``; the empty cloud has zero."""
        points = self._joint(x).logsumexp(-1)
        return (points if mask is None else torch.where(mask, points, 0.0)).sum(1)

    def sample(self, noise: Mapping[str, Tensor]) -> Tensor:
        """Points ``(n, L, F)``: ``pick`` ``(n, L)`` chooses the component of each, ``e`` its place."""
        below = self.log_share.double().exp().cumsum(1)[:, None, :-1]
        mean, log_scale = self._chosen((noise["pick"].double()[..., None] > below).sum(-1))
        return _moved(mean, log_scale, noise["e"], self.angles)

    def noise(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Noise of which :meth:`sample` is x: by the component that x most probably came from; half and zero at padding."""
        which = self._joint(x).argmax(-1)
        mean, log_scale = self._chosen(which)
        share = self.log_share.double().exp()
        pick = (share.cumsum(1) - 0.5 * share).gather(1, which).to(x.dtype)
        e = _as_noise(x - mean, log_scale, self.angles)
        if mask is None:
            return {"e": e, "pick": pick}
        return {"e": torch.where(mask[..., None], e, 0.0), "pick": torch.where(mask, pick, 0.5)}

    def _joint(self, x: Tensor) -> Tensor:
        """log of share times density of every component at every point, ``(n, L, K)``."""
        apart = x[:, :, None, :] - self.mean[:, None]
        return self.log_share[:, None] + _log_noise(apart, self.log_scale[:, None], self.angles).sum(-1)

    def _chosen(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of the component of every point, ``(n, L, F)``."""
        rows = which[..., None].expand(*which.shape, self.mean.shape[-1])
        return self.mean.gather(1, rows), self.log_scale.gather(1, rows)


Observation = Numbers | PointMixture
"""What :class:`pofx.models.autoencoder.Decoder` returns."""


def _log_noise(apart: Tensor, log_scale: Tensor, angles: Tensor | None) -> Tensor:
    """log-density of every number that is so far from its mean."""
    normal = -0.5 * (apart * torch.exp(-log_scale)).square() - log_scale - 0.5 * math.log(2.0 * math.pi)
    return normal if angles is None else torch.where(angles, von_mises_log_prob(apart, log_scale), normal)


def _moved(mean: Tensor, log_scale: Tensor, e: Tensor, angles: Tensor | None) -> Tensor:
    """The mean plus noise; angles in [-pi, pi)."""
    moved = mean + log_scale.exp() * e
    if angles is None:
        return moved
    return torch.where(angles, _wrapped(mean + von_mises_angle(e, log_scale)), moved)


def _as_noise(apart: Tensor, log_scale: Tensor, angles: Tensor | None) -> Tensor:
    """The inverse of :func:`_moved`, of differences from the mean."""
    e = apart * torch.exp(-log_scale)
    return e if angles is None else torch.where(angles, von_mises_normal(_wrapped(apart), log_scale), e)


def _wrapped(x: Tensor) -> Tensor:
    return torch.remainder(x + math.pi, 2.0 * math.pi) - math.pi
