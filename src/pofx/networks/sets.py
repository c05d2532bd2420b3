r"""Networks of sets: DeepSets (arXiv:1703.06114) and the set transformer (arXiv:1810.00825).

A DeepSets layer is the most general linear map that commutes with permutations, here with a sum beside the mean and a residual connection:

.. math:: p'_j = p_j + a(A p_j + B [\mathrm{mean}_k p_k, \mathrm{sum}_k p_k] + C c)

The set transformer replaces the pool by self-attention over real points, directly or through a few learnt inducing points, and attends
to the points of context clouds. A softmax does not see how many points there are, so that log(1 + N) is added to every point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.data.spec import Kind
from pofx.networks.attention import Attention, ContextMemory, TransformerBlock, check_heads
from pofx.networks.base import NetworkConfig, NetworkShape
from pofx.networks.clouds import CloudNetwork
from pofx.networks.layers import ACTIVATIONS
from pofx.networks.pooling import SUM_SCALE, Points

__all__ = ["DeepSets", "SetTransformer"]


@dataclass(frozen=True)
class DeepSets(NetworkConfig):
    """Equivariant linear layers with activations; with ``outputs`` a pool and a dense head follow, as in the paper's invariant form.

    Parameters
    ----------
    width : of the points' features; layers : how many; embedding : width of the conditioning vector.

    >>> DeepSets(width=32).name
    'deep-sets'
    """

    name: ClassVar[str] = "deep-sets"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"cloud"})

    width: int = 64
    layers: int = 4
    embedding: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width", "layers", "embedding")

    def _module(self, shape: NetworkShape) -> nn.Module:
        return _DeepSetsNetwork(self, shape)


class _DeepSetsNetwork(CloudNetwork):
    def __init__(self, config: DeepSets, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.width, config.embedding)
        self.activation, self.dropout = ACTIVATIONS[config.activation], nn.Dropout(config.dropout)
        width, pooled = config.width, 2 * config.width + 1 + self.condition.width
        self.first = nn.Linear(self.angles.width, width)
        self.points = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(config.layers)])
        self.pools = nn.ModuleList([nn.Linear(pooled, width) for _ in range(config.layers)])

    def body(self, x: Tensor, points: Points, c: Tensor | None, context: Events | None) -> Tensor:
        p = self.activation(self.first(self.angles(x)))
        count, condition = points.count.clamp(min=1.0), [] if c is None else [c]
        for point, pool in zip(self.points, self.pools, strict=True):
            total = points.total(p)
            shared = pool(torch.cat((total / count, total * SUM_SCALE, points.count.log1p(), *condition), -1))
            p = p + self.dropout(self.activation(point(p) + shared[:, None, :]))
        return p


@dataclass(frozen=True)
class SetTransformer(NetworkConfig):
    """Self-attention among the points of a cloud; every point of a context cloud can be looked at.

    Parameters
    ----------
    width, layers, heads : of the transformer; expansion : hidden width of its two-layer networks in units of ``width``.
    inducing : points talk through so many learnt points instead of directly (0: directly), at a cost linear in the cloud's length.
    embedding : width of the conditioning vector.

    >>> SetTransformer(inducing=16).inducing
    16
    """

    name: ClassVar[str] = "set-transformer"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"cloud"})

    width: int = 64
    layers: int = 3
    heads: int = 4
    expansion: int = 2
    inducing: int = 0
    embedding: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width", "layers", "heads", "expansion", "embedding")
        check_heads(self, self.width)
        check_at_least(self, 0, "inducing")

    def _module(self, shape: NetworkShape) -> nn.Module:
        return _SetTransformerNetwork(self, shape)


class _SetTransformerNetwork(CloudNetwork):
    def __init__(self, config: SetTransformer, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.width, config.embedding, heads=config.heads)
        self.first = nn.Linear(self.angles.width, config.width)
        self.memory = ContextMemory(shape.context, shape.circular_context, config.width)
        self.inducers = nn.ModuleList(
            [
                _Inducing(config.width, config.heads, config.inducing)
                for _ in range(config.layers if config.inducing else 0)
            ]
        )
        self.blocks = nn.ModuleList(
            [
                TransformerBlock(
                    config.width,
                    config.heads,
                    expansion=config.expansion,
                    condition=self.condition.width,
                    memory=self.memory.present,
                    identity=config.starts_at_zero(shape),
                    activation=config.activation,
                    dropout=config.dropout,
                )
                for _ in range(config.layers)
            ]
        )
        self.norm = nn.LayerNorm(config.width)
        self.many = nn.Linear(1, config.width, bias=False)
        nn.init.normal_(self.many.weight, std=0.1)  # so that a hundred points do not drown what each of them is

    def body(self, x: Tensor, points: Points, c: Tensor | None, context: Events | None) -> Tensor:
        h, bias, memory = self.first(self.angles(x)), points.bias(), self.memory(context)
        h = h + self.many(points.count.log1p())[:, None, :]
        for k, block in enumerate(self.blocks):
            h = block(h, c, bias, memory, self.inducers[k](h, bias, points) if self.inducers else None)
        return self.norm(h)


class _Inducing(nn.Module):
    """A few learnt points look at the cloud, ``(n, inducing, width)``: what the cloud then looks at."""

    def __init__(self, width: int, heads: int, inducing: int) -> None:
        super().__init__()
        self.seeds = nn.Parameter(torch.randn(inducing, width))
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)

    def forward(self, h: Tensor, bias: Tensor | None, points: Points) -> Tensor:
        seeds = self.seeds.expand(h.shape[0], -1, -1)
        return seeds + self.attention(seeds, self.norm(h), bias) * points.some()
