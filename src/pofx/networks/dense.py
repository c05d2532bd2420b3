"""Fully connected networks with the one call signature, and the form that coupling layers use.

>>> import torch
>>> MLP(3, 2, (16,))(torch.zeros(5, 3)).shape
torch.Size([5, 2])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pofx.networks.masked import ACTIVATIONS

__all__ = ["MLP", "CouplingNetwork"]


class MLP(nn.Module):
    """A multilayer perceptron; time (``(n,)``) and context (``(n, c)``) are appended to the inputs.

    Parameters
    ----------
    inputs, outputs : columns of x and of the result.
    hidden : widths.
    context : columns of the context; time : whether a time is given.
    activation : a name out of :data:`pofx.networks.masked.ACTIVATIONS`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (128, 128),
        *,
        context: int = 0,
        time: bool = False,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        widths = [inputs + context + int(time), *hidden]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(widths, [*hidden, outputs], strict=True)])
        self.activation = ACTIVATIONS[activation]

    def forward(
        self,
        x: Tensor,
        t: Tensor | None = None,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """``(n, inputs)`` to ``(n, outputs)``."""
        parts = [
            x,
            *([] if t is None else [t.reshape(-1, 1).expand(len(x), 1)]),
            *([] if context is None else [context]),
        ]
        h = torch.cat(parts, -1) if len(parts) > 1 else x
        for layer in self.layers[:-1]:
            h = self.activation(layer(h))
        return self.layers[-1](h)


class CouplingNetwork(nn.Module):
    """Parameters of the active columns from the passive ones, as ``(outputs, n)``: what :class:`pofx.bijections.Coupling` calls.

    The last layer starts at zero, so that the flow starts at the identity. ``circular`` inputs enter as sine and cosine.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        *,
        context: int = 0,
        activation: str = "relu",
        dropout: float = 0.0,
        circular: Sequence[int] = (),
    ) -> None:
        super().__init__()
        widths = [max(inputs + len(circular) + context, 1), *hidden]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(widths, [*hidden, outputs], strict=True)])
        self.activation, self.circular, self.dropout = ACTIVATIONS[activation], list(circular), nn.Dropout(dropout)
        self.linear = [i for i in range(inputs) if i not in circular]
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``x`` of shape ``(inputs, n)``, context ``(n, c)``; the result has shape ``(outputs, n)``."""
        h = self._embed(x, context)
        for layer in self.layers[:-1]:
            h = self.dropout(self.activation(layer(h)))
        last = self.layers[-1]
        return torch.addmm(last.bias[:, None], last.weight, h.t())  # type: ignore[index,arg-type]

    def _embed(self, x: Tensor, context: Tensor | None) -> Tensor:
        rows = torch.cat((x[self.linear], x[self.circular].cos(), x[self.circular].sin())) if self.circular else x
        h = rows.t() if context is None else torch.cat((rows.t(), context), -1)
        return h if h.shape[1] else h.new_zeros(h.shape[0], 1)  # a single column: nothing to look at
