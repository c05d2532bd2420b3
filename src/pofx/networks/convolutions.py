"""Convolutions on grids of one to three axes, of which some may be periodic, and the levels of a pyramid of such grids.

Along a periodic axis the grid is continued by its other end, so that every layer commutes with a turn (by a whole number of the coarsest
cells); along an open axis by zeros. A periodic axis is halved only while its number of cells is even, an open one is halved with rounding
up; axes of fewer than four cells stay as they are. So grids of any size have a pyramid, of as many levels as wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pofx.data.spec import Axis
from pofx.errors import CapabilityError
from pofx.networks.layers import ACTIVATIONS, Film, zeroed

__all__ = [
    "GridBlock",
    "GridConv",
    "Levels",
    "axis_fraction",
    "coordinate_channels",
    "enlarge",
    "group_norm",
    "halved",
    "pyramid",
]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def halved(cells: Sequence[int], periodic: Sequence[bool]) -> tuple[int, ...]:
    """The grid one level down.

    >>> halved((16, 5, 9, 3), (True, True, False, False))
    (8, 5, 5, 3)
    """
    return tuple(
        n if n < 4 or (turning and n % 2) else (n + 1) // 2 for n, turning in zip(cells, periodic, strict=True)
    )


def pyramid(axes: Sequence[Axis], levels: int) -> tuple[tuple[int, ...], ...]:
    """Cells of every level, the finest first; CapabilityError for more than three axes."""
    if len(axes) > 3:
        raise CapabilityError(f"convolutions take grids of one to three axes; this one has {len(axes)}")
    cells, periodic = [tuple(axis.cells for axis in axes)], [axis.periodic for axis in axes]
    for _ in range(levels - 1):
        cells.append(halved(cells[-1], periodic))
    return tuple(cells)


class GridConv(nn.Module):
    """A convolution with three cells per axis (one along axes of a single cell) that keeps the grid's size, or halves it by stride.

    Parameters
    ----------
    inputs, outputs : channels; cells : of the input; periodic : per axis.
    target : cells of the result, as :func:`halved` gives them (None: as the input).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        cells: Sequence[int],
        periodic: Sequence[bool],
        target: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        strides = tuple(1 if n == m else 2 for n, m in zip(cells, target or cells, strict=True))
        kernel = tuple(3 if n > 1 else 1 for n in cells)
        self.wrapped = [2 + i for i, (n, turning) in enumerate(zip(cells, periodic, strict=True)) if turning and n > 1]
        padding = tuple(0 if 2 + i in self.wrapped else k // 2 for i, k in enumerate(kernel))
        self.convolution = _CONVOLUTIONS[len(kernel) - 1](inputs, outputs, kernel, strides, padding)  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        """``(n, inputs, *cells)`` to ``(n, outputs, *target)``."""
        for dim in self.wrapped:
            first, *inner, last = h.split([1, h.shape[dim] - 2, 1] if h.shape[dim] > 2 else 1, dim)
            h = torch.cat((last, first, *inner, last, first), dim)
        return self.convolution(h)


class _GridEnlarge(nn.Module):
    """A transposed convolution whose kernels do not overlap; what exceeds an odd open axis is left out."""

    def __init__(self, inputs: int, outputs: int, cells: Sequence[int], target: Sequence[int]) -> None:
        super().__init__()
        strides = tuple(1 if n == m else 2 for n, m in zip(cells, target, strict=True))
        self.target = tuple(target)
        self.convolution = _TRANSPOSED[len(strides) - 1](inputs, outputs, strides, strides)  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        h = self.convolution(h)
        for i, n in enumerate(self.target):
            h = h.narrow(2 + i, 0, n)
        return h


def enlarge(h: Tensor, cells: Sequence[int]) -> Tensor:
    """Every cell repeated to fill the finer grid ``cells`` (the last one of an odd open axis once)."""
    return h if tuple(h.shape[2:]) == tuple(cells) else F.interpolate(h, size=tuple(cells), mode="nearest")


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Normalisation over the cells and groups of at least four channels of one event (arXiv:1803.08494)."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 4)), channels, affine=affine)


@dataclass(frozen=True)
class Levels:
    """A pyramid of grids and what all blocks on it share.

    ``cells`` per level, the finest first; ``periodic`` per axis; ``condition``, the width of the conditioning vector (0 without one);
    ``identity``: blocks start as their skip connection alone.
    """

    cells: tuple[tuple[int, ...], ...]
    periodic: tuple[bool, ...]
    condition: int = 0
    identity: bool = True
    activation: str = "silu"
    dropout: float = 0.0

    def conv(self, inputs: int, outputs: int, level: int = 0) -> GridConv:
        """A convolution on the grid of one level."""
        return GridConv(inputs, outputs, self.cells[level], self.periodic)

    def down(self, inputs: int, outputs: int, level: int) -> GridConv:
        """A convolution from one level to the next coarser one."""
        return GridConv(inputs, outputs, self.cells[level], self.periodic, self.cells[level + 1])

    def up(self, inputs: int, outputs: int, level: int) -> nn.Module:
        """A transposed convolution from one level to the next finer one: every cell makes its own finer cells."""
        return _GridEnlarge(inputs, outputs, self.cells[level], self.cells[level - 1])

    def mix(self, inputs: int, outputs: int) -> nn.Module:
        """A linear map of the channels of every cell."""
        return _CONVOLUTIONS[len(self.periodic) - 1](inputs, outputs, 1)

    def block(self, inputs: int, outputs: int, level: int) -> GridBlock:
        """A residual block on the grid of one level."""
        return GridBlock(self, inputs, outputs, level)


class GridBlock(nn.Module):
    """A residual block: s(h) + conv(a(film(norm(conv(a(norm(h)))), c))) (arXiv:1512.03385, condition as in arXiv:2105.05233)."""

    def __init__(self, levels: Levels, inputs: int, outputs: int, level: int) -> None:
        super().__init__()
        self.activation, self.dropout = ACTIVATIONS[levels.activation], nn.Dropout(levels.dropout)
        self.norm, self.first = group_norm(inputs), levels.conv(inputs, outputs, level)
        self.second_norm = group_norm(outputs, affine=not levels.condition)
        self.film = Film(levels.condition, outputs, dim=1) if levels.condition else None
        self.second = levels.conv(outputs, outputs, level)
        zeroed(self.second.convolution, levels.identity)
        self.skip = None if inputs == outputs else levels.mix(inputs, outputs)

    def forward(self, h: Tensor, c: Tensor | None) -> Tensor:
        """``(n, inputs, *cells)`` to ``(n, outputs, *cells)``."""
        inner = self.second_norm(self.first(self.activation(self.norm(h))))
        inner = inner if self.film is None or c is None else self.film(inner, c)
        inner = self.second(self.dropout(self.activation(inner)))
        return inner + (h if self.skip is None else self.skip(h))


def coordinate_channels(axes: Sequence[Axis], which: str = "all") -> Tensor:
    """Where a cell is, ``(k, *cells)``: the centre of an open axis scaled to [-1, 1], cosine and sine of a periodic one.

    ``which``: of ``"all"`` axes, of the ``"open"`` ones, or of ``"none"``.
    """
    cells = [axis.cells for axis in axes]
    channels = [torch.zeros(0, *cells)]
    for i, axis in enumerate(axes):
        for values in _coordinates(axis, which):
            shape = [axis.cells if j == i else 1 for j in range(len(axes))]
            channels.append(values.reshape(1, *shape).expand(1, *cells))
    return torch.cat(channels)


def _coordinates(axis: Axis, which: str) -> list[Tensor]:
    fraction = axis_fraction(axis)
    if axis.cells == 1 or which == "none" or (axis.periodic and which == "open"):
        return []
    if axis.periodic:
        return [torch.cos(2.0 * math.pi * fraction), torch.sin(2.0 * math.pi * fraction)]
    return [2.0 * fraction - 1.0]


def axis_fraction(axis: Axis) -> Tensor:
    """The centre of every cell between the axis' ends as a number in (0, 1): from its edges, or equidistant without them."""
    edges = torch.linspace(0.0, 1.0, axis.cells + 1) if axis.edges is None else torch.tensor(axis.edges)
    scaled = (edges - edges[0]) / (edges[-1] - edges[0])
    return 0.5 * (scaled[1:] + scaled[:-1])
