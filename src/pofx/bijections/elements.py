"""Elements: monotone maps of single numbers, whose parameters a network gives; and how columns share them.

An element has ``size`` raw parameters per number, all zero meaning the identity, and ``forward``/``inverse`` with an axis for the
parameters. :class:`Elements` assigns one element to each column (splines on the line, circular splines on angles).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pofx.bijections.splines import RationalQuadratic

__all__ = ["SHIFT", "AffineElement", "AffineSpline", "Element", "Elements"]

SHIFT = 1
"""Which raw parameter of the affine elements is the shift."""


class Element(Protocol):
    """A monotone map of one number."""

    @property
    def size(self) -> int:
        """Raw parameters per number."""

    def forward(self, x: Tensor, raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        """``(y, log dy/dx)``."""

    def inverse(self, y: Tensor, raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        """``(x, log dx/dy)``."""


@dataclass(frozen=True)
class AffineElement:
    """y = x exp(a) + b, with a softly limited to (-limit, limit)."""

    limit: float = math.log(1e3)

    @property
    def size(self) -> int:
        """A log-scale and a shift."""
        return 2

    def forward(self, x: Tensor, raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._split(raw, dim)
        return x * log_scale.exp() + shift, log_scale

    def inverse(self, y: Tensor, raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._split(raw, dim)
        log_slope = -log_scale
        return (y - shift) * log_slope.exp(), log_slope

    def _split(self, raw: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        a, shift = raw.unbind(dim)
        return a / (1.0 + a.abs() / self.limit), shift


@dataclass(frozen=True)
class AffineSpline:
    """A shift and scale, then a spline: the first follows where a narrow conditional density lies, the second gives it its shape."""

    spline: RationalQuadratic
    affine: AffineElement = AffineElement()

    @property
    def size(self) -> int:
        """Parameters of both."""
        return self.affine.size + self.spline.size

    def forward(self, x: Tensor, raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        y, first = self.affine.forward(x, raw.narrow(dim, 0, 2), dim)
        z, second = self.spline.forward(y, raw.narrow(dim, 2, self.spline.size), dim)
        return z, first + second

    def inverse(self, y: Tensor, raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        z, first = self.spline.inverse(y, raw.narrow(dim, 2, self.spline.size), dim)
        x, second = self.affine.inverse(z, raw.narrow(dim, 0, 2), dim)
        return x, first + second


class Elements:
    """One element per column: ``real``, but circular splines for the given ones.

    Parameters come as ``(sum of sizes, n)``, column by column.
    """

    def __init__(self, features: int, real: Element, circular: Sequence[int] = (), bins: int = 8) -> None:
        self.features = features
        self.of = [RationalQuadratic(bins, math.pi, circular=True) if i in circular else real for i in range(features)]
        self.sizes = [element.size for element in self.of]
        self.groups: list[tuple[Element, list[int]]] = [(real, [i for i in range(features) if i not in circular])]
        if circular:
            self.groups.append(
                (RationalQuadratic(bins, math.pi, circular=True), [i for i in range(features) if i in circular])
            )
        self.groups = [(element, columns) for element, columns in self.groups if columns]
        order = [column for _, columns in self.groups for column in columns]
        self.back = [order.index(i) for i in range(features)]
        edges = [sum(self.sizes[:i]) for i in range(features)]
        self.rows = [
            [r for c in columns for r in range(edges[c], edges[c] + element.size)] for element, columns in self.groups
        ]

    def apply(self, x: Tensor, raw: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """``x`` of shape ``(features, n)`` to ``(y, log dy/dx)`` of the same shape."""
        n = x.shape[1]
        if len(self.groups) == 1:
            element = self.groups[0][0]
            return (element.inverse if inverse else element.forward)(x, raw.reshape(self.features, element.size, n), 1)
        parts = [
            (element.inverse if inverse else element.forward)(
                x[columns], raw[rows].reshape(len(columns), element.size, n), 1
            )
            for (element, columns), rows in zip(self.groups, self.rows, strict=True)
        ]
        return torch.cat([p[0] for p in parts])[self.back], torch.cat([p[1] for p in parts])[self.back]
