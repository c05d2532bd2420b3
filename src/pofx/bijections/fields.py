r"""Preprocessing of grids and clouds: of columns, in every cell or at every real point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from pofx.bijections.base import Bijection
from pofx.bijections.fitted import Fitted, cast_like, weighted_moments
from pofx.errors import ConfigError, ShapeError

__all__ = ["FieldColumns", "FieldStandardise"]

Map = Callable[[Tensor], tuple[Tensor, Tensor]]


class _OfPoints(Fitted):
    """A map of the columns of a grid ``(n, C, *cells)`` or of a cloud ``(n, L, F)``, the same in every cell or at every point.

    Padding (mask ``(n, L)``, True = real) is zero in the result, whatever it held, in both directions.
    """

    def __init__(self, kind: Literal["grid", "cloud"], size: int) -> None:
        super().__init__(size)
        if kind not in ("grid", "cloud"):
            raise ConfigError(f"{type(self).__name__} is for 'grid' and 'cloud' fields; got {kind!r}")
        self.kind = kind

    def channels_last(self, x: Tensor) -> Tensor:
        """``(n, ..., columns)``."""
        return x.movedim(1, -1) if self.kind == "grid" else x

    def _field(self, function: Map, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """``function`` gives values ``(n, ..., columns)`` and the log-slope of all columns together, ``(n, ...)`` or one for all."""
        last = self.channels_last(x)
        if x.ndim < 3 or last.shape[-1] != self.size or (mask is not None and mask.shape != last.shape[:-1]):
            masked = "" if mask is None else f" with mask {tuple(mask.shape)}"
            raise ShapeError(f"expected a {self.kind} of {self.size} columns; got shape {tuple(x.shape)}{masked}")
        value, log_slope = function(last.to(torch.float64))
        log_slope = log_slope.expand(value.shape[:-1])
        if mask is not None:
            value, log_slope = torch.where(mask[..., None], value, 0.0), torch.where(mask, log_slope, 0.0)
        back = value.movedim(-1, 1) if self.kind == "grid" else value
        return cast_like(back, x), cast_like(log_slope.flatten(1).sum(1), x, finite=False)


class FieldStandardise(_OfPoints):
    r"""Zero mean and unit variance per channel of a grid or per feature of a cloud.

    The log-Jacobian is :math:`-\sum_j m \log s_j` with m the number of cells, or of real points, which alone enter the moments.

    >>> FieldStandardise("cloud", 3)(torch.ones(2, 5, 3), mask=torch.zeros(2, 5, dtype=torch.bool))[0].sum().item()
    0.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: Literal["grid", "cloud"], size: int) -> None:
        super().__init__(kind, size)
        self._buffer("mean", 0.0)
        self._buffer("std", 1.0)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._field(self._forward, x, mask)

    def inverse(self, z: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._field(self._inverse, z, mask)

    def fit(self, x: Tensor, weight: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Take the moments from real points only; an event's weight counts for each of its points."""
        self.mean, self.std = weighted_moments(*real_points(self.channels_last(x), weight, mask))
        return self.forward(x, mask=mask)[0]

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size}

    def describe(self) -> list[str]:
        return ["standardise"] * self.size

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.std, -self.std.log().sum()

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z * self.std + self.mean, self.std.log().sum()


class FieldColumns(_OfPoints):
    """Any map of columns ``(m, size)``, in every cell of a grid or at every real point of a cloud.

    Parameters
    ----------
    kind : ``"grid"`` or ``"cloud"``.
    inner : the map, fitted; one that takes ``noise`` gets it.
    spare : values ``(size,)`` of a real point, which padding has while it is mapped.

    >>> from pofx.bijections.elementwise import Log
    >>> FieldColumns("cloud", Log(low=0.0), torch.ones(1))(torch.ones(1, 2, 1))[1].tolist()
    [0.0]
    """

    inner: Any
    spare: Tensor

    def __init__(self, kind: Literal["grid", "cloud"], inner: Bijection, spare: Tensor) -> None:
        super().__init__(kind, len(spare))
        self.inner = inner
        self._buffer("spare", spare)

    @property
    def discrete_columns(self) -> tuple[int, ...]:
        """The columns that need dequantisation noise while training."""
        found: tuple[int, ...] = getattr(self.inner, "discrete_columns", ())
        return found

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As every bijection; ``noise`` of the shape of x, uniform in [0, 1), dequantises the discrete columns."""
        spread = {} if noise is None else {"noise": self.channels_last(noise).reshape(-1, self.size)}

        def run(last: Tensor) -> tuple[Tensor, Tensor]:
            kept = last if mask is None else torch.where(mask[..., None], last, self.spare)
            return _of_rows(lambda rows: self.inner(rows, **spread), kept)

        return self._field(run, x, mask)

    def inverse(self, z: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._field(lambda last: _of_rows(self.inner.inverse, last), z, mask)

    def describe(self) -> list[str]:
        found: list[str] = self.inner.describe()
        return found

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _of_rows(self.inner, x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return _of_rows(self.inner.inverse, z)


def real_points(last: Tensor, weight: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Cells or real points ``(m, columns)`` of ``(n, ..., columns)``, each with its event's weight."""
    real = torch.ones(last.shape[:-1], dtype=torch.bool, device=last.device) if mask is None else mask
    per_point = None if weight is None else weight.reshape(-1, *[1] * (real.ndim - 1)).expand(real.shape)[real]
    return last[real], per_point


def _of_rows(function: Map, last: Tensor) -> tuple[Tensor, Tensor]:
    value, log_slope = function(last.reshape(-1, last.shape[-1]))
    return value.reshape(last.shape), log_slope.reshape(last.shape[:-1])
