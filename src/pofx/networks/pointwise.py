r"""The same small network for every point, without communication between points: the noise predictor of CaloClouds (arXiv:2305.04847).

Each layer is a ConcatSquash map: the condition gates and shifts a linear map of the point,

.. math:: p' = a\bigl((W p + b)\,\sigma(G c + g) + B c\bigr)

Points are then independent given the condition, so the shape of the cloud must come from the context.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_widths
from pofx.data.events import Events
from pofx.data.spec import Kind
from pofx.networks.base import NetworkConfig, NetworkShape
from pofx.networks.clouds import CloudNetwork
from pofx.networks.layers import ACTIVATIONS
from pofx.networks.pooling import Points

__all__ = ["Pointwise"]


@dataclass(frozen=True)
class Pointwise(NetworkConfig):
    """ConcatSquash layers, point by point; with ``outputs`` the points are pooled at the end.

    Parameters
    ----------
    widths : of the hidden layers (CaloClouds: 128, 256, 512, 256, 128); embedding : width of the conditioning vector.

    >>> Pointwise(widths=(128, 256, 512, 256, 128)).name
    'pointwise'
    """

    name: ClassVar[str] = "pointwise"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"cloud"})

    widths: tuple[int, ...] = (64, 128, 128, 64)
    embedding: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths(self, "widths")
        check_at_least(self, 1, "embedding")

    def _module(self, shape: NetworkShape) -> nn.Module:
        return _PointwiseNetwork(self, shape)


class _PointwiseNetwork(CloudNetwork):
    def __init__(self, config: Pointwise, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.widths[-1], config.embedding)
        self.activation, self.dropout = ACTIVATIONS[config.activation], nn.Dropout(config.dropout)
        widths = (self.angles.width, *config.widths)
        self.layers = nn.ModuleList([_ConcatSquash(a, b, self.condition.width) for a, b in pairwise(widths)])

    def body(self, x: Tensor, points: Points, c: Tensor | None, context: Events | None) -> Tensor:
        p = self.angles(x)
        for layer in self.layers:
            p = self.dropout(self.activation(layer(p, c)))
        return p


class _ConcatSquash(nn.Module):
    """(W p + b) sigmoid(G c + g) + B c; without a condition W p + b."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(condition, outputs) if condition else None
        self.shift = nn.Linear(condition, outputs, bias=False) if condition else None

    def forward(self, p: Tensor, c: Tensor | None) -> Tensor:
        if self.gate is None or self.shift is None or c is None:
            return self.linear(p)
        return torch.addcmul(self.shift(c)[:, None, :], self.linear(p), self.gate(c).sigmoid()[:, None, :])
