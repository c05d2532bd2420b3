"""U-Net on grids of one to three axes (arXiv:1505.04597), as diffusion models and calorimeter surrogates use it (arXiv:2308.03876).

Residual blocks at every level of a pyramid of grids, the way down joined to the way up at equal levels, self-attention between the cells of
the coarsest one. Periodic axes stay periodic at all levels. Channels with the coordinates of the cells let the network treat places
differently; without them (or with those of open axes alone) it commutes with turns of the periodic axes by whole coarsest cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_choice, check_widths
from pofx.data.events import Events
from pofx.data.spec import Kind
from pofx.networks.attention import Attention, check_heads
from pofx.networks.base import FieldNetwork, NetworkConfig, NetworkShape
from pofx.networks.convolutions import Levels, coordinate_channels, enlarge, group_norm, pyramid
from pofx.networks.layers import ACTIVATIONS, Dense, zeroed

__all__ = ["UNet"]


@dataclass(frozen=True)
class UNet(NetworkConfig):
    """The default for grids; with ``outputs`` only the way down, the mean over the coarsest cells and a dense head.

    Parameters
    ----------
    channels : per level, the finest first; blocks : residual blocks per level and direction.
    attention : self-attention at the coarsest level; heads : of it.
    coordinates : ``"all"`` axes, ``"open"`` ones only, or ``"none"``.
    embedding : width of the conditioning vector.

    >>> UNet(channels=(32, 64, 96), coordinates="open").name
    'unet'
    """

    name: ClassVar[str] = "unet"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"grid"})

    channels: tuple[int, ...] = (16, 24, 32)
    blocks: int = 1
    attention: bool = True
    heads: int = 4
    coordinates: str = "all"
    embedding: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths(self, "channels")
        check_at_least(self, 1, "blocks", "heads", "embedding")
        check_choice(self, "coordinates", ("all", "open", "none"))
        if self.attention:
            check_heads(self, self.channels[-1])

    def _module(self, shape: NetworkShape) -> nn.Module:
        return _UNetwork(self, shape)


class _UNetwork(FieldNetwork):
    """Way down, middle, way up."""

    coordinates: Tensor

    def __init__(self, config: UNet, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.embedding)
        channels, zero = config.channels, config.starts_at_zero(shape)
        levels = Levels(
            cells=pyramid(shape.field.axes, len(channels)),
            periodic=tuple(axis.periodic for axis in shape.field.axes),
            condition=self.condition.width,
            identity=zero,
            activation=config.activation,
            dropout=config.dropout,
        )
        coarser = range(len(channels) - 1)
        self.enter = levels.conv(self.angles.width, channels[0])
        self.place = self._place(config, shape, levels)
        self.down = nn.ModuleList([_Down(config, levels, k) for k in coarser])
        self.middle = _Middle(config, levels)
        self.up = nn.ModuleList([] if shape.outputs else [_Up(config, levels, k) for k in reversed(coarser)])
        self.head = _Pooled(config, shape.outputs) if shape.outputs else _Cells(config, levels, shape.result, zero)

    def _place(self, config: UNet, shape: NetworkShape, levels: Levels) -> nn.Module | None:
        """The convolution of the coordinate channels, which are the same for all events."""
        found = coordinate_channels(shape.field.axes, config.coordinates)
        self.register_buffer("coordinates", found[None], persistent=False)
        return levels.conv(len(found), config.channels[0]) if len(found) else None

    def forward(
        self, x: Tensor, t: Tensor | None = None, context: Events | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``(n, channels, *cells)`` to the same with the result's channels, or to ``(n, outputs)``."""
        self.check(x)
        c = self.condition(x, t, context)
        h = self.enter(self.angles(x))
        h = h if self.place is None else h + self.place(self.coordinates)
        kept = []
        for stage in self.down:
            h, skip = stage(h, c)
            kept.append(skip)
        h = self.middle(h, c)
        for stage in self.up:
            h = stage(h, kept.pop(), c)
        return self.head(h)


class _Down(nn.Module):
    """Residual blocks at one level, kept for the way up, and a convolution to the next coarser one."""

    def __init__(self, config: UNet, levels: Levels, level: int) -> None:
        super().__init__()
        here, below = config.channels[level : level + 2]
        self.blocks = nn.ModuleList([levels.block(here, here, level) for _ in range(config.blocks)])
        self.leave = levels.down(here, below, level)

    def forward(self, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            h = block(h, c)
        return self.leave(h), h


class _Up(nn.Module):
    """From the next coarser level, joined with what was kept, through residual blocks."""

    def __init__(self, config: UNet, levels: Levels, level: int) -> None:
        super().__init__()
        here, below = config.channels[level : level + 2]
        self.mix = levels.mix(below, here)
        self.blocks = nn.ModuleList([levels.block(here if k else 2 * here, here, level) for k in range(config.blocks)])

    def forward(self, h: Tensor, kept: Tensor, c: Tensor | None) -> Tensor:
        h = torch.cat((enlarge(self.mix(h), kept.shape[2:]), kept), 1)
        for block in self.blocks:
            h = block(h, c)
        return h


class _Middle(nn.Module):
    """A residual block, self-attention between cells, another block, on the coarsest grid."""

    def __init__(self, config: UNet, levels: Levels) -> None:
        super().__init__()
        width, level = config.channels[-1], len(config.channels) - 1
        self.first, self.second = (levels.block(width, width, level) for _ in range(2))
        self.norm = group_norm(width) if config.attention else None
        self.attention = Attention(width, config.heads) if config.attention else None

    def forward(self, h: Tensor, c: Tensor | None) -> Tensor:
        h = self.first(h, c)
        if self.norm is not None and self.attention is not None:
            tokens = self.norm(h).flatten(2).transpose(1, 2)
            h = h + self.attention(tokens).transpose(1, 2).reshape(h.shape)
        return self.second(h, c)


class _Cells(nn.Module):
    """The result's channels of every cell."""

    def __init__(self, config: UNet, levels: Levels, result: int, zero: bool) -> None:
        super().__init__()
        self.norm, self.activation = group_norm(config.channels[0]), ACTIVATIONS[config.activation]
        self.last = levels.conv(config.channels[0], result)
        zeroed(self.last.convolution, zero)

    def forward(self, h: Tensor) -> Tensor:
        return self.last(self.activation(self.norm(h)))


class _Pooled(nn.Module):
    """A vector from the mean over the coarsest cells."""

    def __init__(self, config: UNet, outputs: int) -> None:
        super().__init__()
        width = config.channels[-1]
        self.activation = ACTIVATIONS[config.activation]
        self.last = Dense((width, 2 * width, outputs), config.activation, config.dropout)

    def forward(self, h: Tensor) -> Tensor:
        return self.last(self.activation(h).flatten(2).mean(-1))
