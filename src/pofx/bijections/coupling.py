r"""Coupling layers: half of the columns are transformed given the other half (arXiv:1605.08803); one evaluation in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pofx.bijections.base import Bijection
from pofx.bijections.elements import Elements

__all__ = ["Coupling"]


class Coupling(Bijection):
    """Columns ``active`` are transformed by ``elements``, whose parameters the network gives from the columns ``passive``.

    The network is called as ``network(passive (k, n), context (n, c))`` and returns ``(sum of sizes, n)``: only what is used is computed.
    """

    active: Tensor
    passive: Tensor
    back: Tensor

    def __init__(self, network: nn.Module, elements: Elements, active: Sequence[int], passive: Sequence[int]) -> None:
        super().__init__()
        self.network, self.elements = network, elements
        self.register_buffer("active", torch.tensor(active), persistent=False)
        self.register_buffer("passive", torch.tensor(passive, dtype=torch.int64), persistent=False)
        self.register_buffer("back", torch.tensor([*passive, *active]).argsort(), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(z, context, inverse=True)

    def _run(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        rows = x.t()
        kept = rows[self.passive]
        changed, log_slope = self.elements.apply(rows[self.active], self.network(kept, context), inverse)
        return torch.cat((kept, changed))[self.back].t(), log_slope.sum(0)
