r"""Multi-head attention with padding, and the transformer block that sets and patches share.

.. math:: \mathrm{softmax}(q k^\top/\sqrt{d} + b)\, v

with b = 0 for real points and a large negative number for padding (arXiv:1706.03762). Written out instead of calling the fused kernel,
which has no second derivative. A condition enters by adaptive layer norm with gates (adaLN-zero, arXiv:2212.09748).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.data.spec import EventSpec
from pofx.errors import ConfigError
from pofx.networks.embeddings import ContextTokens
from pofx.networks.layers import Dense

__all__ = ["Attention", "ContextMemory", "Memory", "TransformerBlock", "check_heads"]

Memory = tuple[Tensor, Tensor | None, Tensor]
"""What is attended to beside the cloud itself: tokens ``(n, T, width)``, their bias, and whether there is any (``(n, 1, 1)``)."""


def check_heads(config: Any, width: int) -> None:
    """Raise ConfigError unless the width that attends is a multiple of ``config.heads``."""
    if width % config.heads:
        raise ConfigError(
            f"{type(config).__name__}: attention needs a width that is a multiple of heads; got {width} and heads={config.heads}"
        )


class Attention(nn.Module):
    """Queries ``(n, Q, width)`` look at keys ``(n, K, width)``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.factor = heads, (width // heads) ** -0.5
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.keys = nn.Linear(width, 2 * width, bias=False)  # of keys it would cancel, of values it is that of `out`

    def forward(self, h: Tensor, memory: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """``memory`` is h itself unless given; ``bias`` broadcasts to ``(n, heads, Q, K)``."""
        return self.look(h, *self.seen(h if memory is None else memory), bias)

    def seen(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of what is looked at, each ``(n, heads, K, width / heads)``: what a cache holds."""
        k, v = self.keys(memory).chunk(2, -1)
        return self._split(k), self._split(v)

    def look(self, h: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Queries from h ``(n, Q, width)`` at keys and values that are known."""
        logits = self._split(self.query(h) * self.factor) @ k.transpose(-1, -2)
        weights = (logits if bias is None else logits + bias).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def _split(self, h: Tensor) -> Tensor:
        return h.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ContextMemory(nn.Module):
    """The context's tokens as a :data:`Memory`, if any of its fields is a cloud (``present``): single vectors need no attention."""

    def __init__(self, spec: EventSpec | None, circular: Mapping[str, tuple[int, ...]], width: int) -> None:
        super().__init__()
        self.present = any(field.kind == "cloud" for field in (spec or {}).values())
        self.tokens = ContextTokens(spec, width, circular) if spec and self.present else None

    def forward(self, context: Events | None) -> Memory | None:
        if self.tokens is None or context is None:
            return None
        tokens, points = self.tokens(context)
        return tokens, points.bias(), points.some()


class TransformerBlock(nn.Module):
    """Self-attention, attention to a memory (if any), and a two-layer network, each around a residual connection.

    Parameters
    ----------
    width, heads : of tokens and attention; expansion : hidden width of the two-layer network in units of ``width``.
    condition : width of the conditioning vector (0 without one).
    memory : whether tokens of a context are attended to.
    identity : with a condition, start as the identity (gates at zero) and not with open gates.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        expansion: int = 2,
        condition: int = 0,
        memory: bool = False,
        identity: bool = True,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.cross = Attention(width, heads) if memory else None
        self.mlp = Dense((width, expansion * width, width), activation, dropout)
        self.around = nn.ModuleList([_Residual(width, condition, identity) for _ in range(3 if memory else 2)])
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        h: Tensor,
        c: Tensor | None,
        bias: Tensor | None = None,
        memory: Memory | None = None,
        summary: Tensor | None = None,
    ) -> Tensor:
        """``h`` of shape ``(n, T, width)``, condition ``(n, condition)``; tokens look at ``summary``, if given, instead of each other."""
        seen_of_self = bias if summary is None else None
        h = self.around[0](h, c, lambda inner: self.dropout(self.attention(inner, summary, seen_of_self)))
        if self.cross is not None and memory is not None:
            tokens, seen, some = memory
            cross = self.cross
            h = self.around[1](h, c, lambda inner: self.dropout(cross(inner, tokens, seen)) * some)
        return self.around[-1](h, c, self.mlp)


class _Residual(nn.Module):
    """h + gate(c) f(norm(h) (1 + scale(c)) + shift(c)); without a condition h + f(norm(h))."""

    def __init__(self, width: int, condition: int, identity: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=not condition)
        self.linear = nn.Linear(condition, 3 * width) if condition else None
        if self.linear is not None and identity:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        elif self.linear is not None:
            nn.init.ones_(self.linear.bias[2 * width :])

    def forward(self, h: Tensor, c: Tensor | None, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.linear is None or c is None:
            return h + branch(self.norm(h))
        scale, shift, gate = self.linear(c)[:, None, :].chunk(3, -1)
        return torch.addcmul(h, gate, branch(torch.addcmul(shift, self.norm(h), 1.0 + scale)))
