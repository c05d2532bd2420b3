r"""A causal transformer: token i sees the tokens before it and the whole context (arXiv:1706.03762).

.. math:: h_i = T_\theta(c, s, y_0, \dots, y_{i-1}), \qquad i = 0 \dots L

with a learnt start token s. The context's tokens (one per vector, one per point of a cloud) and the start token are the *prefix*, whose
tokens see each other in both directions. Position enters by a learnt vector per place; the prefix's context has none, so that clouds stay
sets. Blocks normalise before each part (arXiv:2002.04745).

In training all h come from one pass. Drawing goes token by token, and the keys and values of earlier tokens are kept in a
:class:`Cache`, so that a sequence costs about one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.data.spec import EventSpec
from pofx.errors import CapabilityError, ShapeError
from pofx.networks.attention import Attention, check_heads
from pofx.networks.embeddings import ContextTokens
from pofx.networks.layers import ACTIVATIONS, Dense

__all__ = ["Cache", "CausalNetwork", "CausalTransformer", "TokenModel"]

_NO_ANGLES: Mapping[str, tuple[int, ...]] = {}
_NOTHING = -1e30
"""Added to the logarithm of an attention weight that must be zero; finite, so that no row can become NaN."""


class Cache(NamedTuple):
    """What has been computed of a sequence: keys and values per block ``(n, heads, T, width / heads)``.

    ``bias`` hides padded points of the context, ``(n, 1, 1, T)``, None where there are none; ``length`` counts the tokens after the start.
    """

    seen: tuple[tuple[Tensor, Tensor], ...]
    bias: Tensor | None
    length: int


@dataclass(frozen=True)
class CausalTransformer:
    """The settings of a causal transformer; ConfigError where they are out of range.

    Parameters
    ----------
    width : of tokens, a multiple of ``heads``.
    layers, heads : blocks, and heads of attention in each.
    expansion : hidden width of a block's two-layer network in units of ``width``.
    activation : a name out of :data:`pofx.networks.layers.ACTIVATIONS`.
    dropout : rate inside blocks; off in ``eval`` mode.

    >>> network = CausalTransformer(width=16, layers=2).build(5)
    >>> tokens = torch.randn(3, 5, 16)
    >>> whole = network(tokens)
    >>> whole.shape
    torch.Size([3, 6, 16])
    >>> hidden, cache = network.start(3)
    >>> hidden, cache = network.step(tokens[:, 0], cache)
    >>> torch.allclose(hidden, whole[:, 1], atol=1e-5)
    True
    """

    name: ClassVar[str] = "causal-transformer"

    width: int = 64
    layers: int = 3
    heads: int = 4
    expansion: int = 2
    activation: str = "silu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "width", "layers", "heads", "expansion")
        check_choice(self, "activation", tuple(ACTIVATIONS))
        check_between(self, 0.0, 0.9, "dropout")
        check_heads(self, self.width)

    def build(
        self, length: int, context: EventSpec | None = None, circular: Mapping[str, tuple[int, ...]] = _NO_ANGLES
    ) -> CausalNetwork:
        """The network for sequences of up to ``length`` tokens, given the fields of a context and their columns that are angles."""
        return CausalNetwork(self, length, context, circular)


class CausalNetwork(nn.Module):
    """Hidden vectors of a sequence, each from what lies before it; built by :class:`CausalTransformer`."""

    mixed_precision = True

    def __init__(
        self,
        config: CausalTransformer,
        length: int,
        context: EventSpec | None = None,
        circular: Mapping[str, tuple[int, ...]] = _NO_ANGLES,
    ) -> None:
        super().__init__()
        wrong = [name for name, part in (context or {}).items() if part.kind == "grid"]
        if wrong:
            raise CapabilityError(f"networks take vectors and clouds as context; {', '.join(wrong)} is a grid")
        self.width, self.length = config.width, length
        self.context = ContextTokens(context, config.width, circular) if context else None
        self.places = nn.Parameter(0.02 * torch.randn(length + 1, config.width))  # place 0 is the start token
        self.blocks = nn.ModuleList([_Block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, context: Events | None = None) -> Tensor:
        """Tokens ``(n, T, width)``, T <= length, to ``(n, T + 1, width)``: row i has seen the first i tokens and the context."""
        self._check(tokens, tokens.shape[1])
        prefix, hidden = self._prefix(len(tokens), context)
        h = torch.cat((prefix, tokens + self.places[1 : tokens.shape[1] + 1]), 1)
        bias = _causal(h, prefix.shape[1])
        if hidden is not None:
            bias = bias + F.pad(hidden, (0, tokens.shape[1]))
        for block in self.blocks:
            h = block(h, bias)
        return self.norm(h[:, prefix.shape[1] - 1 :])

    def start(self, n: int, context: Events | None = None) -> tuple[Tensor, Cache]:
        """The first hidden vector ``(n, width)``, which has seen the context alone, and the cache to go on from."""
        h, bias = self._prefix(n, context)
        seen = []
        for block in self.blocks:
            h, known = block.extend(h, None, bias)  # type: ignore[operator]
            seen.append(known)
        return self.norm(h[:, -1]), Cache(tuple(seen), bias, 0)

    def step(self, token: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """The hidden vector ``(n, width)`` after one more token ``(n, width)``, and the cache with it."""
        self._check(token[:, None], cache.length + 1)
        h = (token + self.places[cache.length + 1])[:, None]
        bias = None if cache.bias is None else F.pad(cache.bias, (0, 1))
        seen = []
        for block, known in zip(self.blocks, cache.seen, strict=True):
            h, grown = block.extend(h, known, bias)  # type: ignore[operator]
            seen.append(grown)
        return self.norm(h[:, 0]), Cache(tuple(seen), bias, cache.length + 1)

    def _prefix(self, n: int, context: Events | None) -> tuple[Tensor, Tensor | None]:
        """The tokens of the context and the start token last, ``(n, P, width)``, and the bias ``(n, 1, 1, P)`` that hides padding."""
        start = self.places[:1].expand(n, 1, self.width)
        if self.context is None:
            return start, None
        if context is None:
            raise ShapeError(f"this network is conditioned on {', '.join(self.context.names)}; got context=None")
        tokens, points = self.context(context)
        tokens = tokens.expand(n, -1, -1)
        bias = None if points.real is None else F.pad(_hiding(points.real), (0, 1)).expand(n, -1, -1, -1)
        return torch.cat((tokens, start), 1), bias

    def _check(self, tokens: Tensor, length: int) -> None:
        if tokens.ndim != 3 or tokens.shape[2] != self.width or length > self.length:
            raise ShapeError(
                f"expected at most {self.length} tokens of width {self.width}; got {length} in a tensor of shape {tuple(tokens.shape)}"
            )


class _Block(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h))."""

    def __init__(self, config: CausalTransformer) -> None:
        super().__init__()
        width = config.width
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, config.heads)
        self.mlp = Dense((width, config.expansion * width, width), config.activation, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, bias: Tensor | None) -> Tensor:
        return self.extend(h, None, bias)[0]

    def extend(
        self, h: Tensor, known: tuple[Tensor, Tensor] | None, bias: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block for further tokens h, which also see the keys and values that are known; returns all of these."""
        inner = self.first(h)
        k, v = self.attention.seen(inner)
        if known is not None:
            k, v = torch.cat((known[0], k), 2), torch.cat((known[1], v), 2)
        h = h + self.dropout(self.attention.look(inner, k, v, bias))
        return h + self.dropout(self.mlp(self.second(h))), (k, v)


class TokenModel(nn.Module):
    r"""A density of whole numbers, :math:`p(k_1 \dots k_L | c) = \prod_i p(k_i | k_1 \dots k_{i-1}, c)`, each from 0 to ``values`` - 1.

    >>> model = TokenModel(CausalTransformer(width=16, layers=1), length=4, values=3)
    >>> codes = model.draw(torch.rand(5, 4))
    >>> codes.shape, model.log_prob(codes).shape
    (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(
        self,
        config: CausalTransformer,
        length: int,
        values: int,
        context: EventSpec | None = None,
        circular: Mapping[str, tuple[int, ...]] = _NO_ANGLES,
    ) -> None:
        super().__init__()
        self.length, self.values = length, values
        self.embed = nn.Embedding(values, config.width)
        self.network = config.build(length - 1, context, circular)
        self.head = nn.Linear(config.width, values)

    def log_shares(self, codes: Tensor, context: Events | None = None) -> Tensor:
        """Log-probabilities ``(n, L, values)`` of every place, given the int64 codes ``(n, L)`` before it."""
        return self.head(self.network(self.embed(codes[:, :-1]), context)).log_softmax(-1)

    def log_prob(self, codes: Tensor, context: Events | None = None) -> Tensor:
        """``(n,)`` of int64 codes ``(n, L)``."""
        return self.log_shares(codes, context).gather(2, codes[..., None])[..., 0].sum(1)

    def draw(self, u: Tensor, context: Events | None = None) -> Tensor:
        """Codes ``(n, L)`` from uniform numbers ``(n, L)``, by the distribution function of each place."""
        hidden, cache = self.network.start(len(u), context)
        codes = [choose(self.head(hidden), u[:, 0])]
        for i in range(1, self.length):
            hidden, cache = self.network.step(self.embed(codes[-1]), cache)
            codes.append(choose(self.head(hidden), u[:, i]))
        return torch.stack(codes, 1)


def choose(logits: Tensor, u: Tensor) -> Tensor:
    """The index, int64 ``(n,)``, at which the distribution function of ``(n, values)`` logits passes u, ``(n,)``.

    >>> choose(torch.zeros(3, 2), torch.tensor([0.1, 0.6, 0.9]))
    tensor([0, 1, 1])
    """
    below = logits.double().softmax(-1).cumsum(-1)[..., :-1]
    return (u.double()[..., None] > below).sum(-1)


def _causal(h: Tensor, prefix: int) -> Tensor:
    """The bias ``(1, 1, T, T)`` by which a token sees the prefix, itself and what lies before it; the prefix sees the prefix."""
    place = torch.arange(h.shape[1], device=h.device)
    visible = (place[None, :] <= place[:, None]) | (place[None, :] < prefix)
    return torch.where(visible, 0.0, _NOTHING).to(h.dtype)[None, None]


def _hiding(real: Tensor) -> Tensor:
    """The bias ``(n, 1, 1, T)`` of padding, where ``real`` ``(n, T, 1)`` is zero."""
    return ((1.0 - real) * _NOTHING).transpose(1, 2)[:, None]
