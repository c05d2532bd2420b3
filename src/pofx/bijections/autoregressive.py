r"""Masked autoregressive layers: z_i = f(x_i; theta_i(x_{<i}, c)) (arXiv:1705.07057), with a one-pass inverse.

Density: one network evaluation. Inverse: one pass as well, spread over the variables, because each hidden unit is evaluated once
(:meth:`pofx.networks.masked.MaskedNetwork.sequence`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from pofx.bijections.base import Bijection
from pofx.bijections.elements import Elements

__all__ = ["MaskedAutoregressive", "SequentialNetwork"]


class SequentialNetwork(Protocol):
    """What an autoregressive layer needs of its network (activations as ``(features, n)``)."""

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """All parameters at once, from known variables."""

    def sequence(self, n: int, context: Tensor | None, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Variables one by one."""


class MaskedAutoregressive(Bijection):
    """An autoregressive layer in a given order of the columns.

    Parameters
    ----------
    network : masked, for ``elements`` in that order.
    elements : one per column, in that order.
    order : the permutation of the columns.
    """

    order: Tensor
    back: Tensor

    def __init__(self, network: nn.Module, elements: Elements, order: Sequence[int]) -> None:
        super().__init__()
        self.network, self.elements = network, elements
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.register_buffer("back", torch.tensor(order).argsort(), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = x.t().index_select(0, self.order)
        z, log_slope = self.elements.apply(rows, self.network(rows, context))
        return z.index_select(0, self.back).t(), log_slope.sum(0)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = z.t().index_select(0, self.order)
        slopes: list[Tensor] = []

        def choose(i: int, raw: Tensor) -> Tensor:
            x, log_slope = self.elements.of[i].inverse(rows[i], raw, 0)
            slopes.append(log_slope)
            return x

        x: Tensor = self.network.sequence(z.shape[0], context, choose)  # type: ignore[operator]
        return x.index_select(0, self.back).t(), torch.stack(slopes).sum(0)
