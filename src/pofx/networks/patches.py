"""Transformer on the patches of a grid (arXiv:2010.11929, arXiv:2212.09748), as calorimeter models use it (arXiv:2405.09629).

A patch is a block of cells; its channels become one token. Fourier features of the patch's place are added: whole numbers of periods along
a periodic axis, so that its two ends meet, half periods along an open one. With ``causal`` a patch looks at patches of its own and of
earlier layers only. Every point of a context cloud can be looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_widths
from pofx.data.events import Events
from pofx.data.spec import Axis, Kind
from pofx.errors import ConfigError
from pofx.networks.attention import ContextMemory, TransformerBlock, check_heads
from pofx.networks.base import FieldNetwork, NetworkConfig, NetworkShape
from pofx.networks.layers import zeroed

__all__ = ["PatchTransformer"]


@dataclass(frozen=True)
class PatchTransformer(NetworkConfig):
    """Self-attention between patches; with ``outputs`` the mean token and a linear map.

    Parameters
    ----------
    patch : cells per patch, one number per axis, each a divisor of the axis; or one number for all axes, of which every axis takes its
        largest divisor not above it.
    width, layers, heads : of the transformer; expansion : hidden width of its two-layer networks in units of ``width``.
    causal : an axis that is walked through in one direction (None: none).
    embedding : width of the conditioning vector.

    >>> PatchTransformer(patch=(3, 4, 1), causal=0).causal
    0
    """

    name: ClassVar[str] = "patch-transformer"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"grid"})

    patch: int | tuple[int, ...] = 4
    width: int = 64
    layers: int = 3
    heads: int = 4
    expansion: int = 2
    causal: int | None = None
    embedding: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width", "layers", "heads", "expansion", "embedding")
        check_heads(self, self.width)
        if isinstance(self.patch, tuple):
            check_widths(self, "patch")
        else:
            check_at_least(self, 1, "patch")
        if self.causal is not None:
            check_at_least(self, 0, "causal")

    def sizes(self, axes: Sequence[Axis]) -> tuple[int, ...]:
        """Cells per patch along every axis; ConfigError where these do not fit the grid."""
        if self.causal is not None and self.causal >= len(axes):
            raise ConfigError(f"PatchTransformer: causal must be an axis of 0..{len(axes) - 1}; got {self.causal}")
        if isinstance(self.patch, int):
            most = self.patch
            return tuple(max(k for k in range(1, most + 1) if axis.cells % k == 0) for axis in axes)
        if len(self.patch) != len(axes) or any(a.cells % k for a, k in zip(axes, self.patch, strict=True)):
            raise ConfigError(
                f"PatchTransformer: patch must divide the grid {tuple(a.cells for a in axes)}; got {self.patch}"
            )
        return self.patch

    def _module(self, shape: NetworkShape) -> nn.Module:
        return _PatchNetwork(self, shape)


class _PatchNetwork(FieldNetwork):
    """Grid to tokens, transformer blocks, tokens to grid or vector."""

    places: Tensor
    order: Tensor | None

    def __init__(self, config: PatchTransformer, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.embedding)
        self.patches = _Patches(shape.field.axes, config.sizes(shape.field.axes))
        self.first = nn.Linear(self.angles.width * self.patches.cells, config.width)
        self.register_buffer("places", _places(shape.field.axes, self.patches.counts), persistent=False)
        self.place = nn.Linear(self.places.shape[1], config.width, bias=False)
        self.register_buffer("order", _order(self.patches.counts, config.causal), persistent=False)
        self.memory = ContextMemory(shape.context, shape.circular_context, config.width)
        zero = config.starts_at_zero(shape)
        self.blocks = nn.ModuleList(
            [
                TransformerBlock(
                    config.width,
                    config.heads,
                    expansion=config.expansion,
                    condition=self.condition.width,
                    memory=self.memory.present,
                    identity=zero,
                    activation=config.activation,
                    dropout=config.dropout,
                )
                for _ in range(config.layers)
            ]
        )
        self.norm = nn.LayerNorm(config.width)
        self.last = zeroed(nn.Linear(config.width, shape.outputs or shape.result * self.patches.cells), zero)

    def forward(
        self, x: Tensor, t: Tensor | None = None, context: Events | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``(n, channels, *cells)`` to the same with the result's channels, or to ``(n, outputs)``."""
        self.check(x)
        c, memory = self.condition(x, t, context), self.memory(context)
        h = self.first(self.patches.split(self.angles(x))) + self.place(self.places)
        for block in self.blocks:
            h = block(h, c, self.order, memory)
        h = self.norm(h)
        return self.last(h.mean(1)) if self.shape.outputs else self.patches.join(self.last(h))


class _Patches:
    """A grid ``(n, channels, *cells)`` as tokens ``(n, patches, channels * cells of a patch)`` and back."""

    def __init__(self, axes: Sequence[Axis], sizes: Sequence[int]) -> None:
        self.sizes, self.cells = tuple(sizes), math.prod(sizes)
        self.counts = tuple(axis.cells // k for axis, k in zip(axes, sizes, strict=True))

    def split(self, x: Tensor) -> Tensor:
        """Axes become (patch, cell within it) pairs; patches go first, then channels, then cells."""
        d = len(self.sizes)
        pairs = [number for pair in zip(self.counts, self.sizes, strict=True) for number in pair]
        order = (0, *range(2, 2 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2))
        return x.reshape(x.shape[0], x.shape[1], *pairs).permute(order).flatten(1 + d).flatten(1, d)

    def join(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`split`."""
        d = len(self.sizes)
        grid = tokens.reshape(tokens.shape[0], *self.counts, -1, *self.sizes)
        order = (0, 1 + d, *(k for i in range(d) for k in (1 + i, 2 + d + i)))
        whole = [n * k for n, k in zip(self.counts, self.sizes, strict=True)]
        return grid.permute(order).reshape(tokens.shape[0], -1, *whole)


def _places(axes: Sequence[Axis], counts: Sequence[int]) -> Tensor:
    """Fourier features of every patch's place, ``(patches, features)``: as many per axis as there are patches along it."""
    features = []
    for i, (axis, count) in enumerate(zip(axes, counts, strict=True)):
        turn = (2.0 if axis.periodic else 1.0) * math.pi * (torch.arange(count) + 0.5) / count
        waves = [wave(k * turn) for k in range(1, 1 + max(1, count // 2)) for wave in (torch.cos, torch.sin)]
        shape = [count if j == i else 1 for j in range(len(counts))]
        features += [wave.reshape(shape).expand(*counts).flatten() for wave in waves]
    return torch.stack(features, -1)


def _order(counts: Sequence[int], causal: int | None) -> Tensor | None:
    """What to add to attention logits so that no patch sees later layers, ``(patches, patches)``."""
    if causal is None:
        return None
    shape = [counts[causal] if j == causal else 1 for j in range(len(counts))]
    layer = torch.arange(counts[causal]).reshape(shape).expand(*counts).flatten()
    later = layer[:, None] < layer[None, :]
    return torch.zeros(later.shape).masked_fill(later, 0.5 * torch.finfo(torch.float32).min)
