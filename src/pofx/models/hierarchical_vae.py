r"""Hierarchical variational autoencoder: several layers of latents, each given those above it (arXiv:1602.02282, arXiv:2007.03898).

.. math:: p(x|c) = \int p(x | h_L) \prod_{l=1}^{L} N(z_l;\, m_l(h_{l-1}), s_l(h_{l-1}))\, dz, \qquad
          q(z_l | z_{<l}, x) = N(m_l + s_l\, \Delta m_l,\; s_l\, \Delta s_l)

with :math:`h_l = h_{l-1} + f_l(h_{l-1}, z_l)` the state on the way down, which p and q share, and :math:`\Delta m_l, \Delta s_l`
functions of the state and of what one bottom-up pass of the encoder says of x. In the noise :math:`\epsilon_l = (z_l - m_l)/s_l` the prior
is standard normal and q is :math:`N(\Delta m_l, \Delta s_l)`: a posterior that does not factorise, with the bounds of
:mod:`pofx.models.variational` and :mod:`pofx.models.importance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.models.base import Layout
from pofx.models.importance import Code, normal_log_prob
from pofx.models.variational import WIDEST, VariationalBody, VariationalFamily
from pofx.networks.embeddings import Conditioning
from pofx.networks.layers import Dense, zeroed

__all__ = ["HierarchicalVAE"]


@dataclass(frozen=True)
class HierarchicalVAE(VariationalFamily):
    """Latents in layers, drawn from the top down; vectors, grids and clouds (of which the latents are vectors), density as in a VAE.

    Parameters
    ----------
    levels : how many layers of latents, of ``latent`` columns each.
    width : of the state on the way down, and of what the encoder says to each layer.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> model = HierarchicalVAE(levels=2, latent=1).fit(x, training=pofx.Training(max_steps=5, seed=1))
    >>> model.sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "hierarchical-vae"
    trained: ClassVar[tuple[str, ...]] = ("encoder.*", "decoder.*", "ladder.*")

    levels: int = 3
    width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "levels", "width")

    def columns_per_level(self, layout: Layout) -> int:
        """Latent columns of one layer."""
        return self.latent or max(1, -(-super().latent_columns(layout) // self.levels))

    def latent_columns(self, layout: Layout) -> int:
        return self.levels * self.columns_per_level(layout)

    def build(self, layout: Layout) -> nn.Module:
        return _HierarchicalBody(layout, self)


class _HierarchicalBody(VariationalBody):
    """An encoder with something to say to every layer, the ladder of layers, and a decoder of the last state."""

    def __init__(self, layout: Layout, family: HierarchicalVAE) -> None:
        said = family.levels * family.width
        super().__init__(layout, family, outputs=said, inputs=family.width, times=family.times)
        self.ladder = _Ladder(layout, family)

    def infer(self, events: Events, features: Tensor, e: Tensor, t: Tensor | None) -> Code:
        return self.ladder.down(e, self.ladder.start(e, t, events.context, events.mask), features)

    def state(self, z: Tensor, t: Tensor | None, context: Events | None, mask: Tensor | None) -> Tensor:
        return self.ladder.down(z, self.ladder.start(z, t, context, mask), None).state


class _Ladder(nn.Module):
    """The way down: a first state from the context (and beta, and the number of points), then layer by layer."""

    def __init__(self, layout: Layout, family: HierarchicalVAE) -> None:
        super().__init__()
        self.cloud = layout.spec[layout.only].kind == "cloud"
        times = family.times + self.cloud
        self.condition = Conditioning(times, layout.context, layout.circular_context, family.width)
        self.first = None if self.condition.width else nn.Parameter(torch.randn(family.width))
        self.columns, self.width = family.columns_per_level(layout), family.width
        self.levels = nn.ModuleList([_Level(self.columns, family.width) for _ in range(family.levels)])

    def start(self, like: Tensor, t: Tensor | None, context: Events | None, mask: Tensor | None) -> Tensor:
        """The first state, ``(n, width)``."""
        if self.first is not None:
            return self.first.expand(len(like), -1)
        parts = [] if t is None else [t]
        if self.cloud:
            parts.append(like.new_ones(len(like), 1) if mask is None else mask.to(like.dtype).mean(1, keepdim=True))
        found: Tensor = self.condition(like, torch.cat(parts, 1) if parts else None, context)
        return found

    def down(self, e: Tensor, h: Tensor, features: Tensor | None) -> Code:
        """From standard normal e ``(n, levels * columns)``: draws of q, given what the encoder says; without it, draws of p."""
        said = [None] * len(self.levels) if features is None else list(features.split(self.width, 1))
        codes: list[tuple[Tensor, Tensor, Tensor]] = []
        for level, part, own in zip(self.levels, e.split(self.columns, 1), said, strict=True):
            code, h = level(h, part, own)
            codes.append(code)
        z, mean, log_scale = (torch.cat(parts, 1) for parts in zip(*codes, strict=True))
        return Code(z, normal_log_prob(z), mean, log_scale, h)


class _Level(nn.Module):
    """One layer: the prior's mean and width from the state, q relative to it, and the next state."""

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.prior = zeroed(nn.Linear(width, 2 * columns))
        self.relative = Dense((2 * width, width, 2 * columns))
        self.change = Dense((width + columns, width, width))

    def forward(self, h: Tensor, e: Tensor, said: Tensor | None) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Noise of the prior with mean and log-width of what it was drawn from (q, or p where nothing is said), and the state below."""
        mean, log_scale = _normal(self.relative(torch.cat((h, said), 1))) if said is not None else (0.0 * e, 0.0 * e)
        noise = mean + log_scale.exp() * e
        centre, log_width = _normal(self.prior(h))
        z = centre + log_width.exp() * noise
        return (noise, mean, log_scale), h + self.change(torch.cat((h, z), 1))


def _normal(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and bounded log-width."""
    mean, raw = numbers.chunk(2, 1)
    return mean, WIDEST * torch.tanh(raw / WIDEST)
