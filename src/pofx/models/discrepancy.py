r"""Distances between two weighted samples by a kernel, with one term per event: MMD and the energy distance.

For pairs of events x_i and y_i with the common weight w_i, of sum W,

.. math:: d = \frac{1}{W^2} \sum_{ij} w_i w_j \left[ k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j) \right]
            = \frac{1}{W} \sum_i w_i d_i

(arXiv:0805.2368). Pairs i = j are in the sum: only so is an event of weight two the same as the event twice, and d is never negative. It
exceeds the distance between the laws by about the floor of two samples of n events, of order 1/n.

>>> x = torch.tensor([[0.0], [1.0]])
>>> discrepancy(x, x, energy_kernel)
tensor([0., 0.])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["breit_wigner_kernel", "discrepancy", "energy_kernel", "gaussian_kernel", "shares"]

Kernel = Callable[[Tensor, Tensor], Tensor]
"""``(n, d)`` and ``(m, d)`` to ``(n, m)``."""


def discrepancy(x: Tensor, y: Tensor, kernel: Kernel, weight: Tensor | None = None) -> Tensor:
    """d_i, ``(n,)``, of ``(n, d)`` and ``(n, d)``; its mean with the same weights is the squared distance."""
    share = x.new_full((len(x),), 1.0 / len(x)) if weight is None else shares(weight).to(x.dtype)
    cross = kernel(x, y)
    return (kernel(x, x) + kernel(y, y) - cross - cross.T) @ share


def shares(weight: Tensor) -> Tensor:
    """Weights of a batch as parts of their sum; zeros where all of them are zero.

    >>> shares(torch.tensor([1.0, 3.0])), shares(torch.zeros(2))
    (tensor([0.2500, 0.7500]), tensor([0., 0.]))
    """
    total = weight.sum()
    return weight / torch.where(total == 0.0, torch.ones_like(total), total)


def energy_kernel(x: Tensor, y: Tensor) -> Tensor:
    """-|x - y|, Euclidean: with it the discrepancy is the energy distance 2 E|x - y| - E|x - x'| - E|y - y'| (arXiv:1207.6076)."""
    return -torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def gaussian_kernel(widths: Sequence[float]) -> Kernel:
    """The mean over the widths of exp(-|x - y|^2 / (2 width^2))."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        square = _squares(x, y)
        return torch.stack([torch.exp(-0.5 * square / width**2) for width in widths]).mean(0)

    return kernel


def breit_wigner_kernel(widths: Sequence[float]) -> Kernel:
    """The mean over the widths of width^2 / (|x - y|^2 + width^2), whose tails pull from further away."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        square = _squares(x, y)
        return torch.stack([width**2 / (square + width**2) for width in widths]).mean(0)

    return kernel


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] - y[None]).square().sum(-1)
