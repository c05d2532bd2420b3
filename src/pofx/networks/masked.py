r"""Masked networks: output i sees inputs before i alone (MADE, arXiv:1502.03509; residual form as in ResMADE, arXiv:1912.02762).

Units are sorted by *degree*, the number of variables they may see. Two things follow. Training multiplies block-triangular
matrices and skips the blocks that are zero. And the inverse of an autoregressive layer can compute each hidden unit once, at the
moment when its inputs are known (:meth:`MaskedNetwork.sequence`), so that drawing an event costs one pass instead of one per variable.

Inside, activations are kept as ``(units, n)``: rows of one degree are then contiguous, and element-wise work runs along the events.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pofx.errors import ConfigError
from pofx.plain import plain

__all__ = ["MaskedLinear", "MaskedNetwork"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
    "tanh": torch.tanh,
}
"""Element-wise functions by the name that a config gives."""

_BLOCK_ROWS = 128
"""Rows per block of a masked matrix: small blocks skip more zeros, large ones make better products."""

_RUN = 8
"""Variables per run of the one-pass inverse."""


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
        if plain():
            return torch.addmm(self.bias[:, None], self.weight * self.mask, h)
        return _BlockLinear.apply(h, self.weight * self.mask, self.bias, self.blocks)  # type: ignore[no-untyped-call]


def _blocks(allowed: Tensor) -> tuple[tuple[int, int, int], ...]:
    """Row ranges with the number of leading inputs that any of their rows sees."""
    reach = allowed.sum(1).tolist()
    count = min(max(1, len(reach) // _BLOCK_ROWS), 8)
    edges = sorted({round(len(reach) * i / count) for i in range(count + 1)})
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight = ctx.saved_tensors
        grad_weight = torch.empty_like(weight)
        for start, stop, cut in ctx.blocks:
            torch.mm(grad[start:stop], h[:cut].t(), out=grad_weight[start:stop, :cut])
            grad_weight[start:stop, cut:] = 0.0
        grad_h = _back(weight, grad, ctx.blocks) if ctx.needs_input_grad[0] else None
        return grad_h, grad_weight, grad.sum(1), None


def _back(weight: Tensor, grad: Tensor, blocks: tuple[tuple[int, int, int], ...]) -> Tensor:
    """The transposed product: the last block reaches farthest, and the others add to it."""
    out = grad.new_empty(weight.shape[1], grad.shape[1])
    (start, stop, cut), *others = reversed(blocks)
    torch.mm(weight[start:stop, :cut].t(), grad[start:stop], out=out[:cut])
    out[cut:] = 0.0
    for start, stop, cut in others:
        out[:cut].addmm_(weight[start:stop, :cut].t(), grad[start:stop])
    return out


class _Block(nn.Module):
    """h + W2 h', with h' = act(W1 act(h)); gated: h + (W2 h' + V x) * sigmoid(G h').

    The gated form holds linear maps of the inputs that switch on and off, so data that are locally Gaussian are learnt exactly.
    """

    def __init__(
        self, inputs: Sequence[int], degrees: Sequence[int], activation: str, gated: bool, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first, self.second = MaskedLinear(degrees, degrees), MaskedLinear(degrees, degrees)
        self.gate = MaskedLinear(degrees, degrees) if gated else None
        self.direct = MaskedLinear(inputs, degrees) if gated else None
        self.activation = ACTIVATIONS[activation]
        with torch.no_grad():
            self.second.weight.mul_(0.1)
            self.second.bias.zero_()

    def combine(self, h: Tensor, inner: Tensor, direct: Tensor | None, gate: Tensor | None) -> Tensor:
        """The block's output from what its linear maps gave."""
        return h + (inner if gate is None or direct is None else (inner + direct) * torch.sigmoid(gate))

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        inner = self.dropout(self.activation(self.first(self.activation(h))))
        direct, gate = (None if part is None else part(at) for part, at in ((self.direct, x), (self.gate, inner)))
        return self.combine(h, self.second(inner), direct, gate)


class MaskedNetwork(nn.Module):
    """Parameters of variable i from the variables before it and from the context.

    Parameters
    ----------
    sizes : how many numbers each variable's element needs, in the order of the variables.
    hidden : widths of the hidden layers.
    context : columns of the context (0 without one).
    activation : one of :data:`ACTIVATIONS`.
    residual : hidden layers, of equal width, become one linear map and residual blocks of two maps each.
    gated : residual blocks switch linear maps of the inputs on and off.
    dropout : rate, after each hidden layer.
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
        dropout: float = 0.0,
        circular: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        if gated and not residual:
            raise ConfigError("gated networks are residual: set residual=True as well")
        if residual and len(set(hidden)) > 1:
            raise ConfigError(f"a residual network needs hidden layers of equal width; got {tuple(hidden)}")
        self.sizes, self.features, self.circular = tuple(sizes), len(sizes), tuple(circular)
        self.activation = ACTIVATIONS[activation]
        self.edges = _cumulative(sizes)
        self.slots = [
            slice(*edges) for edges in pairwise(_cumulative(2 if i in circular else 1 for i in range(self.features)))
        ]
        inputs = [i + 1 for i in range(self.features) for _ in range(2 if i in circular else 1)]
        outputs = [i + 1 for i, size in enumerate(sizes) for _ in range(size)]
        self.degrees = [_degrees(width, self.features, context > 0) for width in hidden]
        self.context = nn.Linear(context, hidden[0]) if context else None
        self.first = MaskedLinear(inputs, self.degrees[0])
        pairs = list(pairwise(self.degrees))
        self.layers = nn.ModuleList(
            [_Block(inputs, self.degrees[0], activation, gated, dropout) for _ in pairs]
            if residual
            else [MaskedLinear(a, b) for a, b in pairs]
        )
        self.last = MaskedLinear(self.degrees[-1], outputs, strict=True)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.residual, self.gated, self.dropout = residual, gated, nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``x`` of shape ``(features, n)``, context ``(n, c)``; the result has shape ``(sum(sizes), n)``."""
        x = self._embed(x)
        h = self.first(x)
        if self.context is not None:
            h = h + self.context(context).t()
        if self.residual:
            for block in self.layers:
                h = block(h, x)
            return self.last(self.finish(h))
        for layer in [None, *self.layers]:
            h = self.dropout(self.activation(h if layer is None else layer(h)))
        return self.last(h)

    def finish(self, h: Tensor) -> Tensor:
        """What the last layer reads of the last block's output: its activation, or (gated) the output itself."""
        return h if self.gated else self.activation(h)

    def sequence(self, n: int, context: Tensor | None, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Variables one after the other: ``choose(i, parameters (size_i, n))`` gives variable i, shape ``(n,)``; returns ``(features, n)``.

        Each hidden unit is computed once, as soon as the variables that it sees are known.
        """
        state = _Progress(self, n, None if self.context is None else self.context(context).t())
        chosen: list[Tensor] = []
        for i in range(self.features):
            if i % _RUN == 0:
                state.open(i, min(i + _RUN, self.features) - 1)
            state.advance(i)
            chosen.append(choose(i, state.linear(self.last, -1, self.edges[i], self.edges[i + 1])))
            state.put(0, self._embed_one(i, chosen[-1]))
        return torch.stack(chosen)

    def _embed(self, x: Tensor) -> Tensor:
        return torch.cat([self._embed_one(i, x[i]) for i in range(self.features)]) if self.circular else x

    def _embed_one(self, i: int, x: Tensor) -> Tensor:
        return torch.stack((x.cos(), x.sin())) if i in self.circular else x[None]


class _Progress:
    """Activations computed so far, one growing prefix of units per level (level 0 is the inputs).

    Variables are worked through in runs: at the start of a run one product brings in all that was known before, so that the steps inside
    it multiply only what is new. Buffers without gradients, concatenated pieces with them.
    """

    def __init__(self, network: MaskedNetwork, n: int, offset: Tensor | None) -> None:
        self.network, self.offset = network, offset
        self.track = torch.is_grad_enabled()
        widths = [network.slots[-1].stop, *[len(d) for d in self._levels()]]
        like = network.last.weight
        self.rows: list[Tensor] = [like.new_zeros(0, n) if self.track else like.new_empty(width, n) for width in widths]
        self.filled = [0 for _ in widths]
        self.known: dict[int, tuple[int, int, Tensor]] = {}

    def _levels(self) -> list[list[int]]:
        """Degrees of every stored activation: of a residual block its activated input and its inner one, of the last one its output."""
        net = self.network
        return [net.degrees[0]] * (1 + 2 * len(net.layers)) if net.residual else net.degrees

    def put(self, level: int, values: Tensor) -> None:
        """Append units to a level."""
        stop = self.filled[level] + len(values)
        if self.track:
            self.rows[level] = torch.cat((self.rows[level], values))
        else:
            self.rows[level][self.filled[level] : stop] = values
        self.filled[level] = stop

    def linear(self, layer: MaskedLinear, level: int, start: int, stop: int) -> Tensor:
        """Units ``start`` to ``stop`` of a layer that reads a level."""
        first, base, before = self.known[id(layer)]
        part, seen = before[start - first : stop - first], self.filled[level]
        if seen == base:
            return part
        return torch.addmm(part, layer.weight[start:stop, base:seen], self.rows[level][base:seen])

    def open(self, first: int, last: int) -> None:
        """Begin the run of variables ``first`` to ``last``: what is known contributes to all of its units at once."""
        net = self.network
        for layer, level, degrees in self._plan():
            start, stop = (
                (net.edges[first], net.edges[last + 1])
                if degrees is None
                else (bisect_left(degrees, first), bisect_right(degrees, last))
            )
            seen = self.filled[level]
            before = torch.addmm(layer.bias[start:stop, None], layer.weight[start:stop, :seen], self.rows[level][:seen])
            self.known[id(layer)] = (start, seen, before)

    def _plan(self) -> Iterator[tuple[MaskedLinear, int, list[int] | None]]:
        """Every masked layer, the level it reads, and its units' degrees (None for the outputs)."""
        net = self.network
        yield net.first, 0, net.degrees[0]
        for k, layer in enumerate(net.layers):
            if net.residual:
                yield layer.first, 1 + 2 * k, net.degrees[0]  # type: ignore[misc]
                yield layer.second, 2 + 2 * k, net.degrees[0]  # type: ignore[misc]
                if net.gated:
                    yield layer.gate, 2 + 2 * k, net.degrees[0]  # type: ignore[misc]
                    yield layer.direct, 0, net.degrees[0]  # type: ignore[misc]
            else:
                yield layer, 1 + k, net.degrees[k + 1]  # type: ignore[misc]
        yield net.last, len(self.rows) - 1, None

    def advance(self, degree: int) -> None:
        """Compute all hidden units of this degree."""
        (self._residual if self.network.residual else self._plain)(degree)

    def _plain(self, degree: int) -> None:
        net = self.network
        for level, layer in enumerate([net.first, *net.layers]):
            start, stop = bisect_left(net.degrees[level], degree), bisect_right(net.degrees[level], degree)
            if stop > start:
                h = self.linear(layer, level, start, stop)
                self.put(level + 1, net.activation(h if level or self.offset is None else h + self.offset[start:stop]))

    def _residual(self, degree: int) -> None:
        net = self.network
        start, stop = bisect_left(net.degrees[0], degree), bisect_right(net.degrees[0], degree)
        if stop == start:
            return
        h = self.linear(net.first, 0, start, stop)
        h = h if self.offset is None else h + self.offset[start:stop]
        for k, block in enumerate(net.layers):
            self.put(1 + 2 * k, net.activation(h))
            self.put(2 + 2 * k, net.activation(self.linear(block.first, 1 + 2 * k, start, stop)))  # type: ignore[arg-type]
            direct = self.linear(block.direct, 0, start, stop) if net.gated else None  # type: ignore[arg-type]
            gate = self.linear(block.gate, 2 + 2 * k, start, stop) if net.gated else None  # type: ignore[arg-type]
            h = block.combine(h, self.linear(block.second, 2 + 2 * k, start, stop), direct, gate)  # type: ignore[operator,arg-type]
        self.put(1 + 2 * len(net.layers), net.finish(h))


def _degrees(width: int, features: int, with_zero: bool) -> list[int]:
    """Sorted degrees spread evenly over 1 .. features - 1 (from 0 where a context exists, and where there is a single variable)."""
    low = 0 if with_zero or features == 1 else 1
    count = features - low if features > 1 else 1
    return sorted(low + math.floor(i * count / width) for i in range(width))


def _cumulative(counts: Any) -> list[int]:
    edges = [0]
    for count in counts:
        edges.append(edges[-1] + count)
    return edges
