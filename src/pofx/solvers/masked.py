"""A field on clouds: padded points stay where they are, and tolerances are those of the real points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pofx.solvers.base import Rows, VelocityField, flat

__all__ = ["MaskedField"]


@dataclass(frozen=True)
class MaskedField:
    """``field`` where ``mask``, ``(n, L)`` with ``True`` = real point, and zero elsewhere; states are ``(n, L, *shape)``.

    The error of a sample is averaged over its real points, so that an adaptive solver takes the same steps whatever the padding.

    >>> import torch
    >>> from pofx.solvers import Euler
    >>> field = MaskedField(lambda t, x, rows: x, torch.tensor([[True, False]]))
    >>> Euler(steps=1).solve(field, torch.ones(1, 2, 1), 0.0, 1.0).x.flatten().tolist()
    [2.0, 1.0]
    """

    field: VelocityField
    mask: Tensor

    def __call__(self, t: Tensor, x: Tensor, rows: Rows) -> Tensor:
        return torch.where(self._mask(x, rows), self.field(t, x, rows), 0.0)

    def norm(self, scaled: Tensor, rows: Rows) -> Tensor:
        """Root of the mean square over the real points of each sample."""
        mask = flat(self._mask(scaled, rows).expand_as(scaled))
        return ((flat(scaled).square() * mask).sum(1) / mask.sum(1).clamp(min=1)).sqrt()

    def _mask(self, x: Tensor, rows: Rows) -> Tensor:
        return self.mask[rows].reshape(*x.shape[:2], *[1] * (x.ndim - 2))
