r"""Masked networks: output i sees inputs before i alone (MADE, arXiv:1502.03509; residual form as in ResMADE, arXiv:1912.02762).

Units are sorted by *degree*, the number of variables they may see. Two things follow. Training multiplies block-triangular
matrices and skips the blocks that are zero. And the inverse of an autoregressive layer can compute each hidden unit once, at the
moment when its inputs are known (:meth:`MaskedNetwork.sequence`), so that drawing an event costs one pass instead of one per variable.

Inside, activations are kept as ``(units, n)``: rows of one degree are then contiguous, and element-wise work runs along the events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pofx.errors import ConfigError

__all__ = ["MaskedLinear", "MaskedNetwork"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "elu": F.elu, "tanh": torch.tanh}
"""Element-wise functions by the name that a config gives."""

_BLOCKS = 6
"""Row blocks per matrix: more skip more zeros, fewer make larger products."""


class MaskedLinear(nn.Module):
    """A linear map whose unit i sees inputs of a degree up to its own (``strict``: below its own); both sides sorted by degree.

    Activations have the shape ``(units, n)``.
    """

    mask: Tensor

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int], strict: bool = False) -> None:
        super().__init__()
        source, target = torch.tensor(inputs), torch.tensor(outputs)
        allowed = target[:, None] > source if strict else target[:, None] >= source
        self.weight = nn.Parameter(torch.empty(len(outputs), len(inputs)))
        self.bias = nn.Parameter(torch.zeros(len(outputs)))
        self.register_buffer("mask", allowed.to(self.weight.dtype), persistent=False)
        self.blocks = _blocks(allowed)
        fan_in = allowed.sum(1, keepdim=True).clamp(min=1)
        with torch.no_grad():
            self.weight.uniform_(-1.0, 1.0).mul_(self.mask).div_(fan_in.sqrt())
            self.bias.uniform_(-1.0, 1.0).div_(fan_in.squeeze(1).sqrt())

    def forward(self, h: Tensor) -> Tensor:
        """``(inputs, n)`` to ``(outputs, n)``."""
        return _BlockLinear.apply(h, self.weight * self.mask, self.bias, self.blocks)  # type: ignore[no-any-return,no-untyped-call]

    def rows(self, h: Tensor, start: int, stop: int) -> Tensor:
        """Units ``start`` to ``stop`` alone, of one degree, from the inputs that they may see (a prefix, which is all ``h`` need hold)."""
        return torch.addmm(self.bias[start:stop, None], self.weight[start:stop, : len(h)], h)


def _blocks(allowed: Tensor) -> tuple[tuple[int, int, int], ...]:
    """Row ranges with the number of leading inputs that any of their rows sees."""
    reach = allowed.sum(1).tolist()
    edges = sorted({round(len(reach) * i / _BLOCKS) for i in range(_BLOCKS + 1)})
    return tuple((a, b, int(max(reach[a:b]))) for a, b in pairwise(edges) if b > a)


class _BlockLinear(torch.autograd.Function):
    """W h + b for a matrix whose row ranges see prefixes of the inputs only."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, blocks: tuple[tuple[int, int, int], ...]) -> Tensor:
        ctx.save_for_backward(h, weight)
        ctx.blocks = blocks
        out = h.new_empty(weight.shape[0], h.shape[1])
        for start, stop, cut in blocks:
            torch.addmm(bias[start:stop, None], weight[start:stop, :cut], h[:cut], out=out[start:stop])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        h, weight = ctx.saved_tensors
        grad_h = torch.zeros_like(h, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight)
        for start, stop, cut in ctx.blocks:
            part = grad[start:stop]
            grad_weight[start:stop, :cut] = part @ h[:cut].t()
            if grad_h is not None:
                grad_h[:cut].addmm_(weight[start:stop, :cut].t(), part)
        return grad_h, grad_weight, grad.sum(1), None


class _Block(nn.Module):
    """h + W2 act(W1 act(h)), optionally gated: h + (A h') * sigmoid(B h')."""

    def __init__(self, degrees: Sequence[int], activation: str, gated: bool) -> None:
        super().__init__()
        self.first, self.second = MaskedLinear(degrees, degrees), MaskedLinear(degrees, degrees)
        self.gate = MaskedLinear(degrees, degrees) if gated else None
        self.activation = ACTIVATIONS[activation]
        with torch.no_grad():
            self.second.weight.mul_(0.1)
            self.second.bias.zero_()

    def combine(self, h: Tensor, inner: Tensor, gate: Tensor | None) -> Tensor:
        """The block's output from what its linear maps gave."""
        return h + (inner if gate is None else inner * torch.sigmoid(gate))

    def forward(self, h: Tensor) -> Tensor:
        inner = self.activation(self.first(self.activation(h)))
        return self.combine(h, self.second(inner), None if self.gate is None else self.gate(inner))


class MaskedNetwork(nn.Module):
    """Parameters of variable i from the variables before it and from the context.

    Parameters
    ----------
    sizes : how many numbers each variable's element needs, in the order of the variables.
    hidden : widths of the hidden layers.
    context : columns of the context (0 without one).
    activation : one of :data:`ACTIVATIONS`.
    residual, gated : all hidden layers of the same width become one linear map and residual blocks of two maps each.
    circular : variables that are angles in [-pi, pi); they enter as sine and cosine.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        hidden: Sequence[int] = (256, 256),
        *,
        context: int = 0,
        activation: str = "relu",
        residual: bool = False,
        gated: bool = False,
        circular: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        if residual and len(set(hidden)) > 1:
            raise ConfigError(f"a residual network needs hidden layers of equal width; got {tuple(hidden)}")
        self.sizes, self.features, self.circular = tuple(sizes), len(sizes), tuple(circular)
        self.activation = ACTIVATIONS[activation]
        self.slots = [slice(*edges) for edges in pairwise(_cumulative(2 if i in circular else 1 for i in range(self.features)))]
        inputs = [i + 1 for i in range(self.features) for _ in range(2 if i in circular else 1)]
        outputs = [i + 1 for i, size in enumerate(sizes) for _ in range(size)]
        self.degrees = [_degrees(width, self.features, context > 0) for width in hidden]
        self.context = nn.Linear(context, hidden[0]) if context else None
        self.first = MaskedLinear(inputs, self.degrees[0])
        pairs = list(pairwise(self.degrees))
        self.layers = nn.ModuleList(
            [_Block(self.degrees[0], activation, gated) for _ in pairs] if residual else [MaskedLinear(a, b) for a, b in pairs]
        )
        self.last = MaskedLinear(self.degrees[-1], outputs, strict=True)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.residual = residual

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``x`` of shape ``(features, n)``, context ``(n, c)``; the result has shape ``(sum(sizes), n)``."""
        h = self.first(self._embed(x))
        if self.context is not None:
            h = h + self.context(context).t()
        if not self.residual:
            h = self.activation(h)
        for layer in self.layers:
            h = layer(h) if self.residual else self.activation(layer(h))
        return self.last(self.activation(h) if self.residual else h)  # type: ignore[no-any-return]

    def sequence(self, n: int, context: Tensor | None, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Variables one after the other: ``choose(i, parameters (size_i, n))`` gives variable i, shape ``(n,)``; returns ``(features, n)``.

        Each hidden unit is computed once, as soon as the variables that it sees are known.
        """
        offset = None if self.context is None else self.context(context).t()
        state = _Progress(self, n, offset)
        chosen: list[Tensor] = []
        row = 0
        for i, size in enumerate(self.sizes):
            state.advance(i)
            chosen.append(choose(i, self.last.rows(state.seen(-1), row, row + size)))
            state.put(i, self._embed_one(i, chosen[-1]))
            row += size
        return torch.stack(chosen)

    def _embed(self, x: Tensor) -> Tensor:
        return torch.cat([self._embed_one(i, x[i]) for i in range(self.features)]) if self.circular else x

    def _embed_one(self, i: int, x: Tensor) -> Tensor:
        return torch.stack((x.cos(), x.sin())) if i in self.circular else x[None]


class _Progress:
    """Activations computed so far: growing prefixes, one per layer. Buffers without gradients, concatenated pieces with them."""

    def __init__(self, network: MaskedNetwork, n: int, offset: Tensor | None) -> None:
        self.network, self.offset, self.n = network, offset, n
        self.track = torch.is_grad_enabled()
        widths = [network.slots[-1].stop, *[len(d) for d in self._layers()]]
        like = network.last.weight
        self.rows: list[Any] = [like.new_zeros(0, n) if self.track else like.new_empty(width, n) for width in widths]
        self.filled = [0 for _ in widths]

    def _layers(self) -> list[list[int]]:
        """Degrees of every stored activation after the inputs; a residual block stores its inner activation and its output."""
        net = self.network
        return [net.degrees[0]] * (1 + 2 * len(net.layers)) if net.residual else net.degrees

    def put(self, i: int, values: Tensor, level: int = 0) -> None:
        """Append rows to a level (0 = the inputs)."""
        stop = self.filled[level] + len(values)
        if self.track:
            self.rows[level] = torch.cat((self.rows[level], values))
        else:
            self.rows[level][self.filled[level] : stop] = values
        self.filled[level] = stop

    def seen(self, level: int) -> Tensor:
        """The rows of a level that are known."""
        level = level % len(self.rows)
        part: Tensor = self.rows[level][: self.filled[level]]
        return self.network.activation(part) if self.network.residual and level == len(self.rows) - 1 and self.track else part

    def advance(self, degree: int) -> None:
        """Compute all hidden units of this degree."""
        (self._residual if self.network.residual else self._plain)(degree)

    def _plain(self, degree: int) -> None:
        net = self.network
        for level, layer in enumerate([net.first, *net.layers]):
            start, stop = _range(net.degrees[level], degree)
            if stop > start:
                h = layer.rows(self.seen(level), start, stop)  # type: ignore[operator]
                self.put(0, net.activation(h if level or self.offset is None else h + self.offset[start:stop]), level + 1)

    def _residual(self, degree: int) -> None:
        net = self.network
        start, stop = _range(net.degrees[0], degree)
        if stop == start:
            return
        h = net.first.rows(self.seen(0), start, stop)
        h = h if self.offset is None else h + self.offset[start:stop]
        for k, block in enumerate(net.layers):
            self.put(0, net.activation(h), 1 + 2 * k)
            self.put(0, net.activation(block.first.rows(self.seen(1 + 2 * k), start, stop)), 2 + 2 * k)  # type: ignore[union-attr,operator]
            inner = self.seen(2 + 2 * k)
            gate = None if block.gate is None else block.gate.rows(inner, start, stop)  # type: ignore[union-attr,operator]
            h = block.combine(h, block.second.rows(inner, start, stop), gate)  # type: ignore[union-attr,operator]
        self.put(0, h if self.track else net.activation(h), 1 + 2 * len(net.layers))


def _degrees(width: int, features: int, with_zero: bool) -> list[int]:
    """Sorted degrees spread evenly over 1 .. features - 1 (from 0 where a context exists, and where there is a single variable)."""
    low = 0 if with_zero or features == 1 else 1
    count = features - low if features > 1 else 1
    return sorted(low + math.floor(i * count / width) for i in range(width))


def _range(degrees: Sequence[int], degree: int) -> tuple[int, int]:
    from bisect import bisect_left, bisect_right

    return bisect_left(degrees, degree), bisect_right(degrees, degree)


def _cumulative(counts: Any) -> list[int]:
    edges = [0]
    for count in counts:
        edges.append(edges[-1] + count)
    return edges
