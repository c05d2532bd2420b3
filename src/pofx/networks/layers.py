"""Small parts that several networks share: activations, dense stacks, angles as cosine and sine, conditions as scale and shift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pofx.networks.masked import ACTIVATIONS as _COMMON

__all__ = ["ACTIVATIONS", "Activation", "Angles", "Dense", "Film", "Waves", "zeroed"]

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {**_COMMON, "leaky_relu": F.leaky_relu}
"""Element-wise functions by the name that a config gives."""

Layer = TypeVar("Layer", bound=nn.Module)


def zeroed(layer: Layer, yes: bool = True) -> Layer:
    """The layer with its own weight and bias set to zero (``yes=False``: as it is)."""
    if yes:
        for parameter in layer.parameters(recurse=False):
            nn.init.zeros_(parameter)
    return layer


class Dense(nn.Module):
    """Linear layers with an activation and dropout between them (none after the last).

    >>> Dense((3, 16, 2))(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, widths: Sequence[int], activation: str = "silu", dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths)])
        self.activation, self.dropout = ACTIVATIONS[activation], nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """``(..., widths[0])`` to ``(..., widths[-1])``."""
        for layer in self.layers[:-1]:
            h = self.dropout(self.activation(layer(h)))
        return self.layers[-1](h)


class Waves(nn.Module):
    """Columns ``(n, d)``, with cosine and sine of random projections of them beside: ``(n, d + 2 waves)`` (arXiv:2006.10739).

    Parameters
    ----------
    scale : standard deviation of the wave numbers.

    >>> Waves(3, 16, scale=2.0)(torch.zeros(5, 3)).shape
    torch.Size([5, 35])
    """

    matrix: Tensor

    def __init__(self, inputs: int, waves: int, *, scale: float) -> None:
        super().__init__()
        self.register_buffer("matrix", scale * torch.randn(inputs, waves))

    def forward(self, x: Tensor) -> Tensor:
        """The columns and the waves."""
        phase = x @ self.matrix
        return torch.cat((x, phase.cos(), phase.sin()), 1)


class Angles(nn.Module):
    """Columns along one dimension, those that are angles as cosine and sine; ``width`` columns come out.

    >>> Angles(3, (1,))(torch.zeros(1, 3))
    tensor([[0., 0., 1., 0.]])
    """

    lines: Tensor
    circles: Tensor

    def __init__(self, columns: int, circular: Sequence[int] = (), dim: int = -1) -> None:
        super().__init__()
        self.circular, self.dim, self.width = bool(circular), dim, columns + len(circular)
        lines = [i for i in range(columns) if i not in circular]
        self.register_buffer("lines", torch.tensor(lines, dtype=torch.long), persistent=False)
        self.register_buffer("circles", torch.tensor(list(circular), dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The straight columns, then all cosines, then all sines."""
        if not self.circular:
            return x
        lines, angles = x.index_select(self.dim, self.lines), x.index_select(self.dim, self.circles)
        return torch.cat((lines, angles.cos(), angles.sin()), self.dim)


class Film(nn.Module):
    """h (1 + scale(c)) + shift(c), with scale and shift linear in the condition (FiLM, arXiv:1709.07871).

    ``dims`` is where the width of h lies: -1 for vectors and points, 1 for the channels of a grid.
    """

    def __init__(self, condition: int, width: int, *, dim: int = -1) -> None:
        super().__init__()
        self.dim, self.linear = dim, nn.Linear(condition, 2 * width)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """``h`` of shape ``(n, ..., width)`` or ``(n, width, ...)``, ``c`` of shape ``(n, condition)``."""
        inner = [1] * (h.ndim - 2)
        scale, shift = self.linear(c).chunk(2, -1)
        shape = (-1, *inner, scale.shape[-1]) if self.dim == -1 else (-1, scale.shape[-1], *inner)
        return torch.addcmul(shift.reshape(shape), h, 1.0 + scale.reshape(shape))
