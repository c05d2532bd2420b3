r"""Standardisation of grids and clouds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from pofx.bijections.fitted import Fitted, cast_like, weighted_moments
from pofx.errors import ConfigError, ShapeError

__all__ = ["FieldStandardise"]

Map = Callable[[Tensor], tuple[Tensor, Tensor]]


class FieldStandardise(Fitted):
    r"""Zero mean and unit variance per channel of a grid ``(n, C, *cells)`` or per feature of a cloud ``(n, L, F)``.

    The log-Jacobian is :math:`-\sum_j m_j \log s_j` with m the number of cells, or of real points (mask ``(n, L)``, True = real). Padding
    takes no part in the moments and is zero in the result, whatever it held, in both directions.

    >>> FieldStandardise("cloud", 3)(torch.ones(2, 5, 3), mask=torch.zeros(2, 5, dtype=torch.bool))[0].sum().item()
    0.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: Literal["grid", "cloud"], size: int) -> None:
        super().__init__(size)
        if kind not in ("grid", "cloud"):
            raise ConfigError(f"FieldStandardise is for 'grid' and 'cloud' fields; got {kind!r}")
        self.kind = kind
        self._buffer("mean", 0.0)
        self._buffer("std", 1.0)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._field(self._forward, x, mask)

    def inverse(self, z: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._field(self._inverse, z, mask)

    def fit(self, x: Tensor, weight: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Take the moments from real points only; an event's weight counts for each of its points."""
        last = self._channels_last(x)
        real = torch.ones(last.shape[:-1], dtype=torch.bool, device=x.device) if mask is None else mask
        per_point = None if weight is None else weight.reshape(-1, *[1] * (real.ndim - 1)).expand(real.shape)[real]
        self.mean, self.std = weighted_moments(last[real], per_point)
        return self.forward(x, mask=mask)[0]

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size}

    def describe(self) -> list[str]:
        return ["standardise"] * self.size

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.std, -self.std.log().sum()

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z * self.std + self.mean, self.std.log().sum()

    def _channels_last(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1) if self.kind == "grid" else x

    def _field(self, function: Map, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        last = self._channels_last(x)
        if x.ndim < 3 or last.shape[-1] != self.size or (mask is not None and mask.shape != last.shape[:-1]):
            masked = "" if mask is None else f" with mask {tuple(mask.shape)}"
            raise ShapeError(f"expected a {self.kind} of {self.size} columns; got shape {tuple(x.shape)}{masked}")
        value, log_slope = function(last.to(torch.float64))
        if mask is None:
            points = value.new_full((x.shape[0],), float(last[0, ..., 0].numel()))
        else:
            value = torch.where(mask[..., None], value, 0.0)
            points = mask.sum(-1).to(torch.float64)
        back = value.movedim(-1, 1) if self.kind == "grid" else value
        return cast_like(back, x), cast_like(points * log_slope, x, finite=False)
