r"""The common part of all preprocessing steps: fitted numbers in float64, and the weighted moments they are fitted with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from pofx.bijections.base import Bijection
from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError

__all__ = ["Fitted", "cast_like", "check_finite", "event_shares", "weighted_moments"]


class Fitted(Bijection):
    """A bijection of ``(n, size)`` without trained parameters: buffers stay float64 through ``.float()``, ``.half()`` and ``.to(dtype)``.

    A subclass gives :meth:`_forward` and :meth:`_inverse`, float64 in and out, each returning the values and the log-slopes, whose
    sum over columns is the log-Jacobian.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"{type(self).__name__} needs at least one column; got size={size}")
        self.size = size

    @abstractmethod
    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(self._forward, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(self._inverse, z)

    def config(self) -> dict[str, Any]:
        """Plain numbers and names, ready for JSON, from which :meth:`from_config` rebuilds the unfitted object."""
        return {"size": self.size}

    @classmethod
    def from_config(cls, plain: dict[str, Any]) -> Self:
        """The inverse of :meth:`config`; ``load_state_dict`` then fills in what was fitted."""
        return cls(**plain)

    def describe(self) -> list[str]:
        """What happens to each column, in words; one string per column."""
        return [type(self).__name__.lower()] * self.size

    def _run(self, function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim != 2 or x.shape[1] != self.size:
            raise ShapeError(f"{type(self).__name__} was built for (n, {self.size}); got shape {tuple(x.shape)}")
        value, log_slope = function(x.to(torch.float64))
        return cast_like(value, x), cast_like(log_slope.sum(-1), x, finite=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep_double(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_double, recurse)  # type: ignore[no-untyped-call]

    def _buffer(self, name: str, value: Tensor | Sequence[float] | float) -> None:
        """Register one float64 number per column."""
        tensor = torch.as_tensor(value, dtype=torch.float64)
        self.register_buffer(name, tensor.expand(self.size).clone() if tensor.ndim == 0 else tensor)


def weighted_moments(x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Weighted mean and standard deviation of each column of ``x`` (n, d), in float64, safe for any magnitude.

    .. math:: m = \sum_i w_i x_i / W, \qquad s^2 = \sum_i w_i (x_i - m)^2 / W, \qquad W = \sum_i w_i

    Raises :class:`NonFiniteError` for NaN or infinity, :class:`DataError` for constant columns and weights that do not add up to a
    positive number.

    >>> weighted_moments(torch.tensor([[1.0], [3.0]]))[1].item()
    1.0
    """
    x = check_finite(x)
    share = event_shares(x, weight)
    scale = x.abs().amax(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    unit = x / scale
    mean = share @ unit
    variance = share @ (unit - mean).square()
    flat = (x.amax(0) == x.amin(0)) | (variance <= (8 * torch.finfo(torch.float64).eps) ** 2)
    if flat.any():
        columns = ", ".join(str(i) for i in flat.nonzero().flatten().tolist())
        raise DataError(
            f"column {columns}: expected values that vary; the variance is zero (or, with negative weights, below zero)"
        )
    return mean * scale, variance.sqrt() * scale


def cast_like(value: Tensor, x: Tensor, finite: bool = True) -> Tensor:
    """``value`` (float64) in the dtype of ``x`` (float64 if that is an integer one), at most the largest finite number of that dtype."""
    if not x.is_floating_point() or x.dtype == torch.float64:
        return value
    largest = torch.finfo(x.dtype).max
    return (value.clamp(-largest, largest) if finite else value).to(x.dtype)


def check_finite(x: Tensor) -> Tensor:
    """``x`` (n, d) in float64; a typed error that says where, if it is empty, not two-dimensional, or holds NaN or infinity."""
    if x.ndim != 2 or x.shape[0] == 0:
        raise ShapeError(f"expected training data of shape (n, d) with n > 0; got {tuple(x.shape)}")
    x = x.detach().to(torch.float64)
    if not bool(x.isfinite().all()):
        row, column = (~x.isfinite()).nonzero()[0].tolist()
        raise NonFiniteError(f"expected finite training data; row {row}, column {column} is {x[row, column].item()}")
    return x


def event_shares(x: Tensor, weight: Tensor | None) -> Tensor:
    """Weights (n,) in float64 that sum to one."""
    if weight is None:
        return x.new_full((x.shape[0],), 1.0 / x.shape[0], dtype=torch.float64)
    if weight.shape != x.shape[:1]:
        raise ShapeError(f"expected one weight per event, shape ({x.shape[0]},); got {tuple(weight.shape)}")
    weight = weight.detach().to(torch.float64)
    total = weight.sum()
    if not bool(total > 0):
        raise DataError(f"expected weights with a positive, finite sum; got {total.item()}")
    return weight / total
