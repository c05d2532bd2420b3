r"""Densities of one variable whose parameters a network gives, each with its map from standard normal noise to the variable and back.

With F the distribution function, :math:`x = F^{-1}(\Phi(z))` and :math:`z = \Phi^{-1}(F(x))`: for mixtures of normal or von Mises
distributions, whose F is known but not its inverse, bisection and a last Newton step, which carries the gradients. The map is smooth and
monotone, so that noise and events belong to each other one to one; choosing a component by chance would lose that. Whole numbers take
the cell of noise that their probability fills.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pofx.models.von_mises import von_mises_log_prob, von_mises_share
from pofx.networks.causal import choose

__all__ = ["Categorical", "Head", "NormalMixture", "VonMisesMixture", "without_far"]

BISECTIONS = 30
NARROWEST = math.log(1e-3)
"""Smallest logarithm of a component's width, in units of standardised data (or radians)."""

Function = Callable[[Tensor], Tensor]


class Head(ABC):
    """A density of one variable: ``parameters`` of shape ``(n, size)``, values and noise of shape ``(n,)``.

    Attributes
    ----------
    size : how many parameters it takes.
    inputs : how many features stand for a value where a network sees it.
    """

    size: int
    inputs: int

    @abstractmethod
    def start(self) -> Tensor:
        """Parameters to begin training at, ``(size,)``."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """``(n, inputs)``."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """``(n,)``."""

    @abstractmethod
    def draw(self, parameters: Tensor, z: Tensor) -> Tensor:
        """The value that standard normal noise stands for."""

    @abstractmethod
    def noise(self, parameters: Tensor, x: Tensor) -> Tensor:
        """The noise that stands for a value."""


class NormalMixture(Head):
    """A mixture of normal distributions.

    >>> head = NormalMixture(2)
    >>> parameters = torch.tensor([[0.0, 1.0, -1.0, 2.0, 0.5, -0.5]], dtype=torch.float64)
    >>> x = head.draw(parameters, torch.tensor([1.5], dtype=torch.float64))
    >>> torch.round(head.noise(parameters, x), decimals=10)
    tensor([1.5000], dtype=torch.float64)
    """

    def __init__(self, components: int, frequencies: int = 8) -> None:
        self.components, self.size, self.inputs = components, 3 * components, 1 + 2 * frequencies
        self.rates = [0.5 * 32.0 ** (i / max(frequencies - 1, 1)) for i in range(frequencies)]

    def start(self) -> Tensor:
        quantiles = torch.special.ndtri((torch.arange(self.components) + 0.5) / self.components)
        width = torch.full((self.components,), math.log(0.5) if self.components > 1 else 0.0)
        return torch.cat((torch.zeros(self.components), quantiles, width))

    def features(self, x: Tensor) -> Tensor:
        phases = x[:, None] * x.new_tensor(self.rates)
        return torch.cat((x[:, None], phases.cos(), phases.sin()), 1)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return _log_normals(x, *self._parts(parameters))

    def draw(self, parameters: Tensor, z: Tensor) -> Tensor:
        """In the tail that z lies in, so that no digits are lost to a probability near one."""
        share, mean, width = (part.double() for part in self._parts(parameters))
        side = torch.where(
            z.detach() > 0, -1.0, 1.0
        ).double()  # the upper tail is the lower one of the mirrored mixture
        below, mean = side * z.double(), side[:, None] * mean
        ends = (mean + width.exp() * below[:, None]).detach()
        found = _solve(
            lambda x: (share.exp() * _phi((x[:, None] - mean) * torch.exp(-width))).sum(-1),
            lambda x: _log_normals(x, share, mean, width).exp(),
            _phi(below),
            (ends.amin(-1), ends.amax(-1)),
        )
        return (side * found).to(z.dtype)

    def noise(self, parameters: Tensor, x: Tensor) -> Tensor:
        share, mean, width = (part.double() for part in self._parts(parameters))
        deviation = (x.double()[:, None] - mean) * torch.exp(-width)
        lower, upper = ((share.exp() * _phi(sign * deviation)).sum(-1) for sign in (1.0, -1.0))
        tail = torch.special.ndtri(torch.minimum(lower, upper).clamp(1e-300, 0.5))
        return torch.where(lower < upper, tail, -tail).to(x.dtype)

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of shares, means, logarithms of widths, each ``(n, components)``."""
        share, mean, width = parameters.chunk(3, -1)
        return share.log_softmax(-1), mean, _wide_enough(width)


class VonMisesMixture(Head):
    """A mixture of von Mises distributions on the circle [-pi, pi), each with a mean direction."""

    def __init__(self, components: int, harmonics: int = 6) -> None:
        self.components, self.size, self.inputs = components, 4 * components, 2 * harmonics
        self.harmonics = [float(k + 1) for k in range(harmonics)]

    def start(self) -> Tensor:
        mean = 2.0 * math.pi * (torch.arange(self.components) + 0.5) / self.components - math.pi
        zeros = torch.zeros(self.components)
        return torch.cat((zeros, mean.cos(), mean.sin(), zeros))

    def features(self, x: Tensor) -> Tensor:
        phases = x[:, None] * x.new_tensor(self.harmonics)
        return torch.cat((phases.cos(), phases.sin()), 1)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        share, mean, width = self._parts(parameters)
        return torch.logsumexp(share + von_mises_log_prob(x[:, None] - mean, width), -1)

    def draw(self, parameters: Tensor, z: Tensor) -> Tensor:
        share, mean, width = (part.double() for part in self._parts(parameters))
        end = torch.full_like(z, math.pi, dtype=torch.float64)
        found = _solve(
            lambda x: _circular_share(x, share, mean, width),
            lambda x: torch.logsumexp(share + von_mises_log_prob(x[:, None] - mean, width), -1).exp(),
            _phi(z.double()),
            (-end, end),
        )
        return found.clamp(-math.pi, math.pi).to(z.dtype)

    def noise(self, parameters: Tensor, x: Tensor) -> Tensor:
        parts = (part.double() for part in self._parts(parameters))
        return torch.special.ndtri(_circular_share(x.double(), *parts).clamp(1e-15, 1.0 - 1e-15)).to(x.dtype)

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        share, x, y, width = parameters.chunk(4, -1)
        return share.log_softmax(-1), torch.atan2(y, x), _wide_enough(width).clamp(max=3.0)


class Categorical(Head):
    """Whole numbers from ``low`` to ``low + values - 1``; others have probability zero.

    >>> head = Categorical(low=3, values=2)
    >>> head.log_prob(torch.zeros(2, 2), torch.tensor([4.0, 5.0]))
    tensor([-0.6931,    -inf])
    >>> head.draw(torch.zeros(2, 2), torch.tensor([-0.1, 0.1]))
    tensor([3., 4.])
    """

    def __init__(self, low: int, values: int) -> None:
        self.low, self.size, self.inputs = low, values, values

    def start(self) -> Tensor:
        return torch.zeros(self.size)

    def features(self, x: Tensor) -> Tensor:
        return self._cells(x).to(x.dtype)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        cells = self._cells(x)
        chosen = torch.where(cells, parameters.log_softmax(-1), 0.0).sum(-1)
        return torch.where(cells.any(-1), chosen, -math.inf)

    def draw(self, parameters: Tensor, z: Tensor) -> Tensor:
        return self.low + choose(parameters, _phi(z.double())).to(z.dtype)

    def noise(self, parameters: Tensor, x: Tensor) -> Tensor:
        """In the middle of the cell."""
        shares = parameters.double().softmax(-1)
        middle = torch.where(self._cells(x), shares.cumsum(-1) - 0.5 * shares, 0.0).sum(-1)
        return torch.special.ndtri(middle.clamp(1e-15, 1.0 - 1e-15)).to(x.dtype)

    def _cells(self, x: Tensor) -> Tensor:
        return x[:, None] == torch.arange(self.low, self.low + self.size, device=x.device)


def without_far(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``(n, d)`` so far away that a square overflows become zeros; which they are, ``(n,)``: their density is zero.

    >>> without_far(torch.tensor([[1e6], [1e30]]))
    (tensor([[1000000.],
            [      0.]]), tensor([False,  True]))
    """
    far = (x.abs() > math.sqrt(torch.finfo(x.dtype).max)).any(-1)
    return x.masked_fill(far[:, None], 0.0), far


def _wide_enough(width: Tensor) -> Tensor:
    return NARROWEST + F.softplus(width - NARROWEST)


def _log_normals(x: Tensor, share: Tensor, mean: Tensor, width: Tensor) -> Tensor:
    deviation = (x[:, None] - mean) * torch.exp(-width)
    return torch.logsumexp(share - width - 0.5 * deviation.square(), -1) - 0.5 * math.log(2.0 * math.pi)


def _phi(z: Tensor) -> Tensor:
    """The standard normal distribution function, with all digits in the lower tail."""
    return 0.5 * torch.erfc(-z / math.sqrt(2.0))


def _circular_share(x: Tensor, share: Tensor, mean: Tensor, width: Tensor) -> Tensor:
    """The probability of angles between -pi and x in [-pi, pi], ``(n,)``."""
    from_cut = _turned(x[:, None] - mean, width) - _turned(-math.pi - mean, width)
    return (share.exp() * from_cut).sum(-1)


def _turned(delta: Tensor, width: Tensor) -> Tensor:
    """The von Mises distribution function of an angle from the mean, plus the full turns that it has made."""
    turns = torch.round(delta.detach() / (2.0 * math.pi))
    inner = delta - 2.0 * math.pi * turns
    return turns + 0.5 + 0.5 * inner.sign() * von_mises_share(inner.abs(), torch.exp(-2.0 * width))


def _solve(below: Function, density: Function, wanted: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """Where an increasing function takes the values wanted, each between its ends: gradients come from the last step."""
    low, high = ends
    with torch.no_grad():
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            under = below(middle) < wanted
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        at = 0.5 * (low + high)
        slope = density(at).clamp(min=1e-300)
        at = torch.minimum(torch.maximum(at - (below(at) - wanted) / slope, low), high)
        slope = density(at).clamp(min=1e-300)
    return at - (below(at) - wanted) / slope
