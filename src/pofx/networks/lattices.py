"""Grids to a coarser lattice of vectors and back: the encoder and decoder of autoencoders whose codes have a place.

A way down by convolutions, and the way up that belongs to it, over the same pyramid of grids as the U-Net's
(:mod:`pofx.networks.convolutions`), periodic axes included. The lattice is the coarsest grid; its vectors come out one after the other, as
``(n, cells * width)``, so that both fit wherever a network with ``outputs`` and a generator do.

>>> from pofx.data.spec import Axis, Column, Field
>>> image = Field("grid", (1, 8, 6), (Column("E"),), (Axis("phi", 8, periodic=True), Axis("z", 6)))
>>> encoder = LatticeEncoder(channels=(8, 8)).build(NetworkShape(image, outputs=12 * 5))
>>> decoder = LatticeDecoder(channels=(8, 8)).build(12 * 5, NetworkShape(image))
>>> decoder(encoder(torch.randn(3, 1, 8, 6))).shape
torch.Size([3, 1, 8, 6])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between, check_choice, check_widths
from pofx.data.events import Events
from pofx.data.spec import Axis, Kind
from pofx.errors import ConfigError
from pofx.networks.base import FieldNetwork, NetworkConfig, NetworkShape
from pofx.networks.convolutions import Levels, coordinate_channels, group_norm, pyramid
from pofx.networks.embeddings import Conditioning
from pofx.networks.generators import GeneratorConfig
from pofx.networks.layers import ACTIVATIONS

__all__ = ["LatticeDecoder", "LatticeEncoder", "lattice_cells"]


def lattice_cells(axes: Sequence[Axis], levels: int) -> tuple[int, ...]:
    """Cells of the lattice, the coarsest of so many levels.

    >>> lattice_cells((Axis("x", 16), Axis("y", 9)), 3)
    (4, 3)
    """
    return pyramid(axes, levels)[-1]


@dataclass(frozen=True)
class LatticeEncoder(NetworkConfig):
    """Convolutions from a grid down to its lattice; ``outputs`` is a multiple of the lattice's cells (ConfigError otherwise).

    Parameters
    ----------
    channels : per level, the finest first; blocks : residual blocks per level.
    embedding : width of the conditioning vector.
    """

    name: ClassVar[str] = "lattice-encoder"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"grid"})

    channels: tuple[int, ...] = (16, 24, 32)
    blocks: int = 1
    embedding: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths(self, "channels")
        check_at_least(self, 1, "blocks", "embedding")

    def _module(self, shape: NetworkShape) -> nn.Module:
        return _Encoder(self, shape)


class _Encoder(FieldNetwork):
    coordinates: Tensor

    def __init__(self, config: LatticeEncoder, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.embedding)
        channels, axes = config.channels, shape.field.axes
        levels = _levels(axes, config, self.condition.width)
        width = _width(shape.result, axes, len(channels))
        self.register_buffer("coordinates", coordinate_channels(axes)[None], persistent=False)
        self.enter = levels.conv(self.angles.width + self.coordinates.shape[1], channels[0])
        self.blocks = nn.ModuleList(
            [nn.ModuleList([levels.block(c, c, k) for _ in range(config.blocks)]) for k, c in enumerate(channels)]
        )
        self.leave = nn.ModuleList([levels.down(channels[k], channels[k + 1], k) for k in range(len(channels) - 1)])
        self.norm, self.activation = group_norm(channels[-1]), ACTIVATIONS[config.activation]
        self.last = levels.mix(channels[-1], width)

    def forward(
        self, x: Tensor, t: Tensor | None = None, context: Events | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``(n, channels, *cells)`` to ``(n, outputs)``."""
        self.check(x)
        c = self.condition(x, t, context)
        place = self.coordinates.expand(len(x), *self.coordinates.shape[1:])
        h = self.enter(torch.cat((self.angles(x), place), 1))
        for k, blocks in enumerate(self.blocks):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, c)
            h = self.leave[k](h) if k < len(self.leave) else h
        found: Tensor = self.last(self.activation(self.norm(h)))
        return found.flatten(2).transpose(1, 2).flatten(1)


@dataclass(frozen=True)
class LatticeDecoder(GeneratorConfig):
    """Convolutions from a lattice up to the grid; the latent columns are a multiple of the lattice's cells (ConfigError otherwise).

    Parameters
    ----------
    channels : per level, the finest first, as those of the encoder; blocks : residual blocks per level.
    embedding : width of the conditioning vector; activation, dropout : as for networks.
    """

    name: ClassVar[str] = "lattice-decoder"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"grid"})

    channels: tuple[int, ...] = (16, 24, 32)
    blocks: int = 1
    embedding: int = 64
    activation: str = attribute(default="silu", kw_only=True)
    dropout: float = attribute(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        check_widths(self, "channels")
        check_at_least(self, 1, "blocks", "embedding")
        check_choice(self, "activation", tuple(ACTIVATIONS))
        check_between(self, 0.0, 0.9, "dropout")

    def _module(self, latent: int, shape: NetworkShape) -> nn.Module:
        return _Decoder(self, latent, shape)


class _Decoder(nn.Module):
    mixed_precision = True
    coordinates: Tensor

    def __init__(self, config: LatticeDecoder, latent: int, shape: NetworkShape) -> None:
        super().__init__()
        channels, axes = config.channels, shape.field.axes
        self.condition = Conditioning(
            shape.times, shape.context, shape.circular_context, config.embedding, config.activation
        )
        levels, coarsest = _levels(axes, config, self.condition.width), len(channels) - 1
        self.start = (_width(latent, axes, len(channels)), *levels.cells[-1])
        self.register_buffer("coordinates", _coarse_coordinates(axes, levels)[None], persistent=False)
        self.enter = levels.conv(self.start[0] + self.coordinates.shape[1], channels[-1], coarsest)
        order = range(coarsest, -1, -1)
        self.blocks = nn.ModuleList(
            [nn.ModuleList([levels.block(channels[k], channels[k], k) for _ in range(config.blocks)]) for k in order]
        )
        self.leave = nn.ModuleList([levels.up(channels[k], channels[k - 1], k) for k in order if k])
        self.norm, self.activation = group_norm(channels[0]), ACTIVATIONS[config.activation]
        self.last = levels.conv(channels[0], shape.result)

    def forward(
        self,
        z: Tensor,
        t: Tensor | None = None,
        context: Events | None = None,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Tensor:
        """``(n, latent)`` to ``(n, channels, *cells)``."""
        c = self.condition(z, t, context)
        lattice = z.unflatten(1, (-1, self.start[0])).transpose(1, 2).reshape(-1, *self.start)
        h = self.enter(torch.cat((lattice, self.coordinates.expand(len(z), *self.coordinates.shape[1:])), 1))
        for k, blocks in enumerate(self.blocks):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, c)
            h = self.leave[k](h) if k < len(self.leave) else h
        found: Tensor = self.last(self.activation(self.norm(h)))
        return found


def _levels(axes: Sequence[Axis], config: LatticeEncoder | LatticeDecoder, condition: int) -> Levels:
    return Levels(
        cells=pyramid(axes, len(config.channels)),
        periodic=tuple(axis.periodic for axis in axes),
        condition=condition,
        identity=False,
        activation=config.activation,
        dropout=config.dropout,
    )


def _coarse_coordinates(axes: Sequence[Axis], levels: Levels) -> Tensor:
    """Where a cell of the lattice is."""
    coarse = [
        Axis(axis.name, cells, periodic=axis.periodic) for axis, cells in zip(axes, levels.cells[-1], strict=True)
    ]
    return coordinate_channels(coarse)


def _width(columns: int, axes: Sequence[Axis], levels: int) -> int:
    """Columns of a lattice's vector."""
    cells = math.prod(lattice_cells(axes, levels))
    if columns % cells:
        raise ConfigError(f"a lattice of {cells} cells takes a multiple of as many columns; got {columns}")
    return columns // cells
