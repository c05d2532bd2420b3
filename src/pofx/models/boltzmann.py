r"""The body of a restricted Boltzmann machine: visible units v and hidden units h in {0, 1}, tied by W alone.

.. math:: p(v, h|c) \propto \exp\big(A(v) + b' v + h^T (a + W v')\big), \qquad
          \log f(v) = A_b(v) + \sum_j \log\big(1 + e^{a_j + W_j v'}\big)

**Bernoulli** units: v in {0, 1}, v' = v, A_b(v) = b v. **Normal** units: v real, v' = v / s^2, :math:`A_b(v) = -(v - b)^2 / 2 s^2`, so
that :math:`v|h \sim N(b + W^T h, s^2)` and p(v) is a mixture of 2^H normals. A context adds to a and b. Between a base without hidden
units and the machine lie those of inverse temperature beta (Salakhutdinov, Murray, ICML 2008),

.. math:: \log f_\beta(v) = (1 - \beta) A_0(v) + \beta A_b(v) + \sum_j \log\big(1 + e^{\beta (a_j + W_j v')}\big) .
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pofx.data.events import Events
from pofx.errors import CapabilityError
from pofx.models.base import Layout
from pofx.networks.embeddings import Conditioning

__all__ = ["Bernoulli", "Biases", "Machine", "Normal", "configurations", "is_binary", "lowest"]

PIECE = 2**14
"""States that are summed over at a time."""


class Biases(NamedTuple):
    """b ``(n, d)`` or ``(d,)`` of the visible units and a ``(n, H)`` or ``(H,)`` of the hidden ones."""

    visible: Tensor
    hidden: Tensor

    def repeat(self, times: int) -> Biases:
        """Every row so many times, one after the other."""
        return Biases(*(part if part.ndim == 1 else part.repeat_interleave(times, 0) for part in self))


def is_binary(layout: Layout) -> bool:
    """Whether the columns are integers of two values each; CapabilityError where some are and some are not, or where there are more."""
    columns = layout.spec[layout.only].columns
    discrete = [column.type == "discrete" for column in columns]
    if any(discrete) and not all(discrete):
        raise CapabilityError(
            "RBM: expected columns that are all discrete, or none; use two fields in a Chain, or another family"
        )
    for column in columns:
        if column.type == "discrete" and column.high is not None and column.high - (column.low or 0.0) != 1.0:
            raise CapabilityError(
                f"RBM: expected discrete columns of two values, such as 0 and 1; {column.name!r} goes from {column.low} to {column.high}"
            )
    return all(discrete)


def lowest(layout: Layout) -> Tensor:
    """The smaller value of binary columns (0 unless another is declared); 0 for real ones; ``(d,)``."""
    return torch.tensor([(c.low or 0.0) if c.type == "discrete" else 0.0 for c in layout.spec[layout.only].columns])


def configurations(units: int, like: Tensor) -> Tensor:
    """All 2^units states, ``(2^units, units)``.

    >>> configurations(2, torch.zeros(()))
    tensor([[0., 0.],
            [1., 0.],
            [0., 1.],
            [1., 1.]])
    """
    return _bits(torch.arange(2**units, device=like.device), units, like)


def _bits(numbers: Tensor, units: int, like: Tensor) -> Tensor:
    """The last ``units`` binary digits, the smallest first."""
    return ((numbers[:, None] >> torch.arange(units, device=like.device)) & 1).to(like.dtype)


def _log_sum(units: int, like: Tensor, log_terms: Callable[[Tensor], Tensor]) -> Tensor:
    """The logarithm of the sum over all 2^units states; ``log_terms`` takes some states to ``(..., states)``."""
    pieces = torch.arange(2**units, device=like.device).split(PIECE)
    return torch.stack([log_terms(_bits(piece, units, like)).logsumexp(-1) for piece in pieces], -1).logsumexp(-1)


class Machine(nn.Module, ABC):
    """Weights, biases, the normaliser, and persistent chains of visible states.

    Attributes
    ----------
    weight : W, ``(H, d)``; visible, hidden : b and a.
    normaliser, normaliser_error : log Z and its standard error, where there is one Z that was estimated.
    chains, moves : persistent states ``(m, d)`` and how often they moved.
    """

    normaliser: Tensor
    normaliser_error: Tensor
    chains: Tensor
    moves: Tensor
    low: Tensor

    def __init__(self, layout: Layout, hidden: int, chains: int) -> None:
        super().__init__()
        self.field, self.units, self.columns = layout.only, hidden, layout.features
        self.weight = nn.Parameter(0.01 * torch.randn(hidden, self.columns))
        self.visible, self.hidden = nn.Parameter(torch.zeros(self.columns)), nn.Parameter(torch.zeros(hidden))
        self.condition = self.shift = None
        if layout.context:
            self.condition = Conditioning(0, layout.context, layout.circular_context, 64)
            self.shift = nn.Linear(64, self.columns + hidden)
            nn.init.zeros_(self.shift.weight)
            nn.init.zeros_(self.shift.bias)
        self.register_buffer("normaliser", torch.zeros(()))
        self.register_buffer("normaliser_error", torch.zeros(()))
        self.register_buffer("chains", torch.randn(0 if layout.context else chains, self.columns))
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))
        self.register_buffer("low", lowest(layout), persistent=False)

    @property
    def smaller_side(self) -> int:
        """Units that a sum over states has to run over."""
        return self.units

    def possible(self, v: Tensor) -> Tensor:
        """Whether v can occur at all, ``(n,)``."""
        return v.new_ones(len(v), dtype=torch.bool)

    def biases(self, context: Events | None) -> Biases:
        """Those of every context, or of the machine."""
        if self.condition is None or self.shift is None:
            return Biases(self.visible, self.hidden)
        n = 1 if context is None else len(context)
        more = self.shift(self.condition(self.weight.new_zeros(n, 1), None, context))
        visible, hidden = more.split((self.columns, self.units), -1)
        return Biases(self.visible + visible, self.hidden + hidden)

    def log_f(self, v: Tensor, biases: Biases, beta: float = 1.0) -> Tensor:
        """log f_beta, ``(n,)``: minus the free energy."""
        own = beta * self.own(v, biases.visible)
        own = own if beta == 1.0 else own + (1.0 - beta) * self.own_base(v)
        return own + softplus(beta * self.field_of_hidden(v, biases)).sum(-1)

    def field_of_hidden(self, v: Tensor, biases: Biases) -> Tensor:
        """a + W v', the log-odds of the hidden units."""
        return biases.hidden + self.scaled(v) @ self.weight.T

    def sweep(self, v: Tensor, biases: Biases, uniform: Tensor, noise: Tensor, beta: float = 1.0) -> Tensor:
        """Gibbs sampling of h given v, then of v given h; ``uniform`` (n, H), ``noise`` (n, d) of :attr:`noise_kind`."""
        h = (uniform < torch.sigmoid(beta * self.field_of_hidden(v, biases))).to(v.dtype)
        return self.draw(h @ self.weight, biases.visible, noise, beta)

    def log_z_base(self) -> Tensor:
        """log Z at beta = 0."""
        return self.units * math.log(2.0) + self.log_z_own()

    noise_kind: str

    @abstractmethod
    def scaled(self, v: Tensor) -> Tensor:
        """v', what the hidden units see."""

    @abstractmethod
    def own(self, v: Tensor, b: Tensor) -> Tensor:
        """A_b, ``(n,)``."""

    @abstractmethod
    def own_base(self, v: Tensor) -> Tensor:
        """A_0, ``(n,)``."""

    @abstractmethod
    def log_z_own(self) -> Tensor:
        """The logarithm of the sum over v of exp(A_0)."""

    @abstractmethod
    def draw(self, field: Tensor, b: Tensor, noise: Tensor, beta: float) -> Tensor:
        """v given W^T h, ``(n, d)``."""

    @abstractmethod
    def start(self, noise: Tensor) -> Tensor:
        """v of the base."""

    @abstractmethod
    def log_partition(self, biases: Biases) -> Tensor:
        """log Z by the sum over all states of the smaller side, ``(n,)`` or ``()``: 2^H or 2^d terms."""


class Bernoulli(Machine):
    """Visible units in {0, 1}; the base has the rates of the data."""

    noise_kind = "uniform"
    base: Tensor

    def __init__(self, layout: Layout, hidden: int, chains: int) -> None:
        super().__init__(layout, hidden, chains)
        self.chains = (self.chains > 0).to(self.chains.dtype)
        self.register_buffer("base", torch.zeros(self.columns))

    @property
    def smaller_side(self) -> int:
        return min(self.units, self.columns)

    def possible(self, v: Tensor) -> Tensor:
        return ((v == 0) | (v == 1)).all(-1)

    def scaled(self, v: Tensor) -> Tensor:
        return v

    def own(self, v: Tensor, b: Tensor) -> Tensor:
        return (v * b).sum(-1)

    def own_base(self, v: Tensor) -> Tensor:
        return v @ self.base

    def log_z_own(self) -> Tensor:
        return softplus(self.base).sum()

    def draw(self, field: Tensor, b: Tensor, noise: Tensor, beta: float) -> Tensor:
        odds = (1.0 - beta) * self.base + beta * (b + field)
        return (noise < torch.sigmoid(odds)).to(field.dtype)

    def start(self, noise: Tensor) -> Tensor:
        return (noise < torch.sigmoid(self.base)).to(noise.dtype)

    def log_partition(self, biases: Biases) -> Tensor:
        if self.columns < self.units:
            own, other, weight = *biases, self.weight.T
        else:
            own, other, weight = *reversed(biases), self.weight

        def log_terms(states: Tensor) -> Tensor:
            return own @ states.T + softplus(other[..., None, :] + states @ weight).sum(-1)

        return _log_sum(self.smaller_side, self.weight, log_terms)


class Normal(Machine):
    """Real visible units, of a width s per column; the base is a standard normal."""

    noise_kind = "normal"

    def __init__(self, layout: Layout, hidden: int, chains: int, smallest: float) -> None:
        super().__init__(layout, hidden, chains)
        self.smallest = smallest
        self.log_scale = nn.Parameter(torch.full((self.columns,), 0.5 * math.log(0.5)))
        self._spread()

    @torch.no_grad()
    def _spread(self) -> None:
        """Centres that hold half of the variance: from small weights, no gradient leads away from a Gaussian."""
        self.weight.mul_(100.0 * math.sqrt(2.0 / self.units))
        self.visible.copy_(-0.5 * self.weight.sum(0))
        scaled = self.weight / self.variance
        self.hidden.copy_(-scaled @ self.visible - 0.5 * (scaled * self.weight).sum(1))

    @property
    def variance(self) -> Tensor:
        """s^2, ``(d,)``."""
        return (2.0 * self.log_scale).exp() + self.smallest**2

    def scaled(self, v: Tensor) -> Tensor:
        return v / self.variance

    def own(self, v: Tensor, b: Tensor) -> Tensor:
        return -0.5 * ((v - b).square() / self.variance).sum(-1)

    def own_base(self, v: Tensor) -> Tensor:
        return -0.5 * v.square().sum(-1)

    def log_z_own(self) -> Tensor:
        return self.weight.new_tensor(0.5 * self.columns * math.log(2.0 * math.pi))

    def draw(self, field: Tensor, b: Tensor, noise: Tensor, beta: float) -> Tensor:
        precision = (1.0 - beta) + beta / self.variance
        return beta * (b + field) / self.variance / precision + noise * precision.rsqrt()

    def start(self, noise: Tensor) -> Tensor:
        return noise

    def log_partition(self, biases: Biases) -> Tensor:
        variance = self.variance

        def log_terms(states: Tensor) -> Tensor:
            centres = states @ self.weight
            linear = biases.hidden @ states.T + (biases.visible / variance) @ centres.T
            return linear + 0.5 * (centres.square() / variance).sum(-1)

        return _log_sum(self.units, self.weight, log_terms) + 0.5 * (2.0 * math.pi * variance).log().sum()
