"""The spectrum of the values of an event, whatever their place: a kernel between sorted values (arXiv:2005.05334)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SCALES", "sorted_discrepancy"]

SCALES = (0.25, 0.5, 1.0, 2.0)
"""Widths of kernels, in units of the typical distance of what is compared."""
PAIRS = {"cpu": 2**17}
"""Values that are compared at a time: on a processor as many as its cache holds, elsewhere 2^24."""


def sorted_discrepancy(x: Tensor, y: Tensor, window: int, scales: Sequence[float] = SCALES) -> Tensor:
    r"""The squared MMD between the sorted values of x and of y, ``(n, k)`` each, in windows; ``(n,)``, one per event (arXiv:2005.05334).

    Values are sorted from the largest down, and those in a window are compared with those in the same window, by Breit-Wigner kernels:

    .. math:: d = \frac{1}{w^2} \sum_{ij} k(x_i, x_j) + k(y_i, y_j) - 2 k(x_i, y_j)

    averaged over windows, which start at every quarter of their length. So large values are compared with large ones, and no window with
    a great many small ones.

    >>> sorted_discrepancy(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 1.0, 2.0]]), 2)
    tensor([0.])
    """
    size = min(window, x.shape[1])
    a, b = (_windows(values.sort(1, descending=True).values, size) for values in (x, y))
    together = max(1, PAIRS.get(x.device.type, 2**24) // (a.shape[1] * size**2))
    return torch.cat([_apart(*piece, scales) for piece in zip(a.split(together), b.split(together), strict=True)])


def _apart(a: Tensor, b: Tensor, scales: Sequence[float]) -> Tensor:
    within, between = _mean_kernel(a, a, scales) + _mean_kernel(b, b, scales), _mean_kernel(a, b, scales)
    return (within - 2.0 * between).mean(1)


def _windows(values: Tensor, size: int) -> Tensor:
    """``(n, windows, size)``; the last window ends with the last value."""
    starts = list(range(0, values.shape[1] - size + 1, max(1, size // 4)))
    if starts[-1] != values.shape[1] - size:
        starts.append(values.shape[1] - size)
    return torch.stack([values[:, start : start + size] for start in starts], 1)


def _mean_kernel(a: Tensor, b: Tensor, scales: Sequence[float]) -> Tensor:
    """The mean of the kernel over all pairs within a window, ``(n, windows)``."""
    square = (a[..., :, None] - b[..., None, :]).square()
    return torch.stack([(width**2 / (square + width**2)).mean((-2, -1)) for width in scales]).mean(0)
