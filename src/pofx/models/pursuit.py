r"""Directions in which events are not Gaussian: projection pursuit, each direction tested against what Gaussian events would show.

Every projection of a normal vector is normal, and a vector whose projections are all normal is normal (Cramér, Wold 1936). So for
whitened events u one looks for the direction w whose projection :math:`y = w \cdot u` is farthest from N(0, 1) by the index

.. math:: T(w) = n \sum_k \Big( \sum_i p_i \, \phi_k(y_i) \, q_k(c_i) \Big)^2

with functions that vanish on average for the normal and are orthonormal under it. Two look at y alone, :math:`y e^{-y^2/2}` (odd) and
:math:`e^{-y^2/2}` (even) less what 1, y and y^2 explain of them: T is then 2 n times the estimate of the negentropy, in nats, of Hyvärinen
(Advances in NIPS 10, 1997), and single outliers do not dominate it. With a context c there are also y q(c) and
:math:`(y^2 - 1) q(c) / \sqrt{2}`, q running over polynomials of third order in the ranks of each context column: means that are no linear
function of c, widths that change with it.

The maximum is climbed to from many starting points by the fixed point of FastICA (doi:10.1109/72.761722). A direction is accepted if T
exceeds what the same search finds in Gaussian events of the same number, weights, context and dimension (a Gumbel distribution through
the maxima of such replicas), and the next one is looked for in the orthogonal complement. What is left over is Gaussian as far as these
events can tell: non-Gaussian component analysis (Blanchard et al., JMLR 7 (2006) 247).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pofx.training.noise import derive_seed

__all__ = ["Directions", "find_directions"]

SEARCH_EVENTS = 10_000
"""Directions are looked for in at most this many events, chosen at random."""

REPLICAS = 40
"""Gaussian samples behind a p-value."""

CLIMBERS, ITERATIONS = 8, 12
"""So many of the best starting points are followed, for so many steps."""

ODD, EVEN = 1 / math.sqrt(3**-1.5 - 1 / 8), 1 / math.sqrt(3**-0.5 - 9 / 16)
"""What makes the two functions of y, less what 1, y and y^2 explain of them, of unit variance under the normal."""


@dataclass(frozen=True)
class Directions:
    """Orthonormal directions that are not Gaussian, in the order in which they were found.

    Attributes
    ----------
    rows : ``(m, d)``.
    negentropy : T / 2n of each, in nats.
    p_values : of each; None where no test was asked for.
    rejected : p-value of the first direction that was not accepted; None if there was none.
    """

    rows: Tensor
    negentropy: tuple[float, ...]
    p_values: tuple[float, ...] | None
    rejected: float | None = None


def find_directions(
    u: Tensor,
    weight: Tensor,
    context: Tensor | None = None,
    *,
    count: int | None = None,
    level: float = 0.01,
    seed: int = 0,
) -> Directions:
    """The directions of ``u`` that are not Gaussian.

    Parameters
    ----------
    u : ``(n, d)`` in float64, of mean zero and unit covariance with these weights, and without linear dependence on the context.
    weight : ``(n,)``, of positive sum.
    context : ``(n, c)``.
    count : take so many directions, without a test; None takes those that are significant.
    level : p-value below which a direction counts as significant.
    seed : of starting points, replicas and the choice of events.

    >>> u = torch.randn(4000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> u[:, 2] = u[:, 2].sign() * (0.8 + 0.6 * u[:, 2].abs())
    >>> find_directions(u, torch.ones(4000)).rows.abs().argmax(1)
    tensor([2])
    """
    sample = _Sample.choose(u.double(), weight.double(), context, seed)
    null = None if count is not None else _Null.of(sample, seed)
    basis = torch.eye(u.shape[1], dtype=torch.float64)
    found, values, p_values, rejected = [], [], [], None
    for number in range(u.shape[1] if count is None else min(count, u.shape[1])):
        w, value = _climb(sample.projected(basis), derive_seed(seed, "starts", number))
        p_value = null.p_value(value) if null else 0.0
        if p_value >= level:
            rejected = p_value
            break
        found.append(_signed(basis @ w))
        basis = basis @ _complement(w)
        values.append(value / (2 * sample.events))
        p_values.append(p_value)
    rows = torch.stack(found) if found else basis.new_zeros(0, len(basis))
    return Directions(rows, tuple(values), tuple(p_values) if null else None, rejected)


class _Sample(NamedTuple):
    """White events u ``(n, d)``, their shares p of the weight ``(n,)``, p u, functions q of the context ``(n, k)``, the context with a
    constant ``(n, 1 + c)``, and the effective number of events."""

    u: Tensor
    share: Tensor
    weighted: Tensor
    functions: Tensor
    linear: Tensor
    events: float

    @classmethod
    def choose(cls, u: Tensor, weight: Tensor, context: Tensor | None, seed: int) -> _Sample:
        """At most :data:`SEARCH_EVENTS` of the events."""
        if len(u) > SEARCH_EVENTS:
            rows = torch.randperm(len(u), generator=_generator(seed, "events"))[:SEARCH_EVENTS]
            u, weight, context = u[rows], weight[rows], None if context is None else context[rows]
        share = weight / weight.sum()
        context = u.new_zeros(len(u), 0) if context is None else context.double()
        linear = torch.cat([u.new_ones(len(u), 1), context], 1)
        white = _white(u, share, linear)
        events = 1 / float(share.square().sum())
        return cls(white, share, share[:, None] * white, _functions(context, share), linear, events)

    def projected(self, basis: Tensor) -> _Sample:
        """The same events in a subspace, given by orthonormal columns ``(d, k)``."""
        return self._replace(u=self.u @ basis, weighted=self.weighted @ basis)

    def gaussian(self, seed: int) -> _Sample:
        """As many Gaussian events, with the same weights and contexts."""
        u = torch.randn(self.u.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        white = _white(u, self.share, self.linear)
        return self._replace(u=white, weighted=self.share[:, None] * white)


class _Null(NamedTuple):
    """The Gumbel distribution of the largest index of Gaussian events."""

    location: float
    scale: float

    @classmethod
    def of(cls, sample: _Sample, seed: int) -> _Null:
        """By moments, through the maxima of :data:`REPLICAS` replicas."""
        seeds = (derive_seed(seed, "replica", number) for number in range(REPLICAS))
        maxima = torch.tensor([_climb(sample.gaussian(one), one)[1] for one in seeds], dtype=torch.float64)
        scale = float(maxima.std()) * math.sqrt(6) / math.pi
        return cls(float(maxima.mean()) - 0.5772156649 * scale, scale)

    def p_value(self, value: float) -> float:
        """Probability of a larger one."""
        return -math.expm1(-math.exp(min((self.location - value) / self.scale, 700.0)))


def _climb(sample: _Sample, seed: int) -> tuple[Tensor, float]:
    """The direction ``(d,)`` of the largest index that was found, and the index."""
    starts = _starts(sample, seed)
    w = starts[:, _index(sample, starts)[0].topk(min(CLIMBERS, starts.shape[1])).indices]
    best, highest = w[:, 0], -math.inf
    for _ in range(ITERATIONS + 1):
        value, following = _index(sample, w)
        top = int(value.argmax())
        if float(value[top]) > highest:
            best, highest = w[:, top], float(value[top])
        w = following
    return best, highest


def _index(sample: _Sample, w: Tensor) -> tuple[Tensor, Tensor]:
    """T of every column of w ``(d, r)``, and the columns after one step of the fixed point.

    The events being white, averages of 1, y and y^2 are 1, 0 and 1; what they contribute to the step cancels.
    """
    share, q = sample.share, sample.functions
    y = sample.u @ w
    square = y.square()
    bell = (-0.5 * square).exp()
    odd_bell, even_bell = y * bell, square * bell
    odd, even = ODD * (share @ odd_bell), EVEN * (share @ bell - math.sqrt(0.5))
    value = odd**2 + even**2
    slope = (ODD * odd) * (bell - even_bell) - (EVEN * even) * odd_bell
    curvature = ODD * odd * (share @ (square * odd_bell) - 3 * (share @ odd_bell))
    curvature = curvature + EVEN * even * (share @ even_bell - share @ bell)
    step = sample.weighted.T @ slope - w * curvature
    if q.shape[1]:
        covariance = sample.weighted.T @ q
        mean, width = covariance.T @ w, math.sqrt(0.5) * (q.T @ (share[:, None] * square))
        value = value + mean.square().sum(0) + width.square().sum(0)
        step = step + covariance @ mean + sample.weighted.T @ (math.sqrt(2) * y * (q @ width))
    return sample.events * value, step / step.norm(dim=0).clamp(min=torch.finfo(step.dtype).tiny)


def _starts(sample: _Sample, seed: int) -> Tensor:
    """Starting points ``(d, r)``: eigenvectors of the kurtosis matrix, the skewness vector, covariances with q(c), and a random basis."""
    u = sample.u
    size = u.square().sum(1, keepdim=True)
    fourth = torch.linalg.eigh(sample.weighted.T @ (size * u)).eigenvectors
    special = sample.weighted.T @ torch.cat([size, sample.functions], 1)
    normal = torch.randn(u.shape[1], u.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    starts = torch.cat([fourth, special, torch.linalg.qr(normal).Q], 1)
    return starts / starts.norm(dim=0).clamp(min=torch.finfo(starts.dtype).tiny)


def _white(u: Tensor, share: Tensor, linear: Tensor) -> Tensor:
    """Residuals of a linear fit to the columns ``linear``, decorrelated and of unit variance."""
    design = linear * share[:, None]
    u = u - linear @ torch.linalg.lstsq(design.T @ linear, design.T @ u).solution
    root = torch.linalg.cholesky((u * share[:, None]).T @ u)
    return torch.linalg.solve_triangular(root, u.T, upper=False).T.contiguous()


def _functions(context: Tensor, share: Tensor) -> Tensor:
    """Polynomials of orders 1 to 3 in the ranks of every context column, orthonormal with these shares, without a constant."""
    columns = []
    for column in context.T:
        values, which = column.unique(return_inverse=True)
        mass = share.new_zeros(len(values)).scatter_add_(0, which, share)
        rank = (2 * (mass.cumsum(0) - 0.5 * mass) - 1)[which]
        columns += [rank, rank.square(), rank**3]
    if not columns:
        return context
    functions = torch.stack(columns, 1)
    functions = functions - share @ functions
    values, vectors = torch.linalg.eigh((functions * share[:, None]).T @ functions)
    kept = values > 1e-9 * values[-1]
    return functions @ (vectors[:, kept] / values[kept].sqrt())


def _complement(w: Tensor) -> Tensor:
    """Orthonormal columns ``(d, d - 1)`` orthogonal to w."""
    return torch.linalg.qr(w[:, None], mode="complete").Q[:, 1:]


def _signed(w: Tensor) -> Tensor:
    """The direction or its opposite: the largest component is positive."""
    return w * torch.where(w[w.abs().argmax()] < 0, -1.0, 1.0)


def _generator(seed: int, *what: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, *what))
