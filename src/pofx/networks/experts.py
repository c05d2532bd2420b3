r"""Linear experts: a masked network whose shifts are a gated choice among linear maps of the earlier variables.

.. math:: \mathrm{shift}_i = s_i + \sum_k \mathrm{softmax}_k(g_i) \, \big(\textstyle\sum_{j<i} A_{kij} x_j + B_{ki} c\big)

The masked network gives s and g (:mod:`pofx.networks.masked`), A and B are plain weights. A mixture of correlated Gaussians has conditional
densities of this form, and correlated measurements nearly so; mixtures of experts: Jacobs et al., Neural Computation 3 (1991) 79.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pofx.networks.masked import MaskedNetwork

__all__ = ["ExpertNetwork"]

_SPREAD = 0.35
"""Standard deviation of an expert's map of standardised inputs, before training."""


class ExpertNetwork(nn.Module):
    """A masked network with experts for the shifts of its straight (not circular) variables.

    Before training all gates are equal and the experts add up to zero, so the network gives what it would give without them.

    Parameters
    ----------
    sizes : numbers that each variable's element needs.
    shift : which of them is the shift, the same for every straight variable.
    experts : how many linear maps.
    hidden, context, circular, options : as for :class:`~pofx.networks.masked.MaskedNetwork`.
    """

    mask: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        shift: int,
        experts: int,
        hidden: Sequence[int],
        *,
        context: int = 0,
        circular: Sequence[int] = (),
        **options: object,
    ) -> None:
        super().__init__()
        self.features, self.shift, self.experts, self.sizes = len(sizes), shift, experts, tuple(sizes)
        self.straight = [i for i in range(self.features) if i not in circular]
        wider = [size + experts * (i in self.straight) for i, size in enumerate(sizes)]
        self.network = MaskedNetwork(wider, hidden, context=context, circular=circular, **options)  # type: ignore[arg-type]
        lower = torch.ones(self.features, self.features).tril(-1)
        lower[:, list(circular)] = 0.0
        self.register_buffer("mask", lower[self.straight], persistent=False)
        self.maps = nn.Parameter(_balanced(experts, len(self.straight), self.features))
        self.context_maps = nn.Parameter(_balanced(experts, len(self.straight), context)) if context else None
        self.edges = self.network.edges
        self.rows, self.gates = self._rows()

    def _rows(self) -> tuple[list[int], list[int]]:
        """Rows of the network's output that are parameters, and those that are gates, variable by variable."""
        rows: list[int] = []
        gates: list[int] = []
        for i, size in enumerate(self.sizes):
            start = self.edges[i]
            rows += range(start, start + size)
            gates += range(start + size, self.edges[i + 1])
        return rows, gates

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``x`` of shape ``(features, n)``, context ``(n, c)``; the result has shape ``(sum(sizes), n)``."""
        raw, n = self.network(x, context), x.shape[1]
        maps = (self.maps * self.mask).reshape(-1, self.features) @ x
        if self.context_maps is not None and context is not None:
            maps = maps + self.context_maps.flatten(0, 1) @ context.t()
        linear = maps.reshape(self.experts, len(self.straight), n)
        if len(self.straight) == self.features and len(set(self.sizes)) == 1:
            return self._even(raw.reshape(self.features, -1, n), linear)
        gate = raw[self.gates].reshape(len(self.straight), self.experts, n).softmax(1)
        added = raw.new_zeros(len(self.rows), n)
        places = torch.tensor([sum(self.sizes[:i]) + self.shift for i in self.straight], device=raw.device)
        return raw[self.rows] + added.index_copy(0, places, (gate.transpose(0, 1) * linear).sum(0))

    def _even(self, raw: Tensor, linear: Tensor) -> Tensor:
        """The common case, all variables alike: no gathering of rows."""
        size, at = self.sizes[0], self.shift
        shift = raw[:, at] + (raw[:, size:].softmax(1) * linear.transpose(0, 1)).sum(1)
        return torch.cat((raw[:, :at], shift[:, None], raw[:, at + 1 : size]), 1).reshape(self.features * size, -1)

    def sequence(self, n: int, context: Tensor | None, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Variables one after the other, as in :meth:`MaskedNetwork.sequence`."""
        maps = self.maps * self.mask
        offset = None if self.context_maps is None or context is None else self.context_maps @ context.t()
        chosen: list[Tensor] = []

        def expert(i: int, raw: Tensor) -> Tensor:
            if i in self.straight:
                k, size = self.straight.index(i), self.sizes[i]
                linear = maps[:, k, :i] @ torch.stack(chosen) if i else raw.new_zeros(self.experts, n)
                linear = linear if offset is None else linear + offset[:, k]
                shift = raw[self.shift] + (raw[size:].softmax(0) * linear).sum(0)
                raw = torch.cat((raw[: self.shift], shift[None], raw[self.shift + 1 : size]))
            chosen.append(choose(i, raw))
            return chosen[-1]

        return self.network.sequence(n, context, expert)


def _balanced(experts: int, outputs: int, inputs: int) -> Tensor:
    """Random maps that add up to zero, ``(experts, outputs, inputs)``."""
    maps = torch.randn(experts, outputs, inputs) * (_SPREAD / math.sqrt(inputs))
    return maps - maps.mean(0)
