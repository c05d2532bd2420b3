r"""A critic and what it is asked to tell apart: losses with one term per event, slopes, statistics of the batch.

With a = D(x, c) for an event and b = D(G(z, c), c) for one that was made under the same context (and, of a cloud, the same number of
points), both with the weight of that event:

======================  =============================================  ===========================================  ===============
loss                    critic                                         generator                                    source
======================  =============================================  ===========================================  ===============
non-saturating          s(-a) + s(b)                                   s(-b)                                        arXiv:1406.2661
wasserstein             b - a                                          -b                                           1701.07875
least-squares           ((a - 1)^2 + b^2) / 2                          (b - 1)^2 / 2                                1611.04076
hinge                   max(0, 1 - a) + max(0, 1 + b)                  -b                                           1705.02894
relativistic            s(b - a)                                       s(a - b)                                     1807.00734
relativistic-average    s(E b - a) + s(b - E a)                        s(E a - b) + s(a - E b)                      1807.00734
======================  =============================================  ===========================================  ===============

where s(u) = log(1 + e^u), and E is the weighted mean over the batch. The best critic is, with events of density p and made ones of density
q: log p/q (non-saturating; relativistic, up to a constant), p/(p + q) (least squares), the sign of p - q (hinge).

Penalties on the slope of the critic go beside them: :math:`\frac{\gamma}{2} \|\nabla D\|^2` at events (R1, arXiv:1801.04406), at made ones
too (R2, arXiv:2501.05441), or :math:`\gamma (\|\nabla D\| - 1)^2` between them (arXiv:1704.00028).

Where a loss leaves a constant of the critic free, :func:`critic_terms` also asks for E a + E b = 0, so that scores do not drift; that
changes neither the differences of scores nor what the generator learns.

>>> critic_terms("least-squares", torch.tensor([1.0]), torch.tensor([0.0]))
tensor([0.])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pofx.data.events import Events
from pofx.models.discrepancy import shares
from pofx.networks.base import NetworkConfig, NetworkShape, normalise_spectra
from pofx.networks.layers import Dense

__all__ = ["LOSSES", "PENALTIES", "STATISTICS", "Critic", "batch_deviation", "critic_terms", "generator_terms", "slope"]

LOSSES = ("non-saturating", "wasserstein", "least-squares", "hinge", "relativistic", "relativistic-average")
PENALTIES = ("none", "r1", "r1-r2", "one-centred")
STATISTICS = ("none", "deviation")

DRIFT = 1e-3
"""Strength of the pull of the mean score to zero, for losses that leave it free."""
_FREE = frozenset({"wasserstein", "relativistic", "relativistic-average"})

Pair = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def critic_terms(loss: str, real: Tensor, fake: Tensor, weight: Tensor | None = None) -> Tensor:
    """What the critic minimises, ``(n,)``, from its scores ``(n,)`` of events and of made ones; ``weight`` enters means over the batch."""
    terms = _CRITIC[loss](real, fake, weight)
    if loss not in _FREE:
        return terms
    return terms + DRIFT * weighted_mean(real + fake, weight).square()


def generator_terms(loss: str, real: Tensor, fake: Tensor, weight: Tensor | None = None) -> Tensor:
    """What the generator minimises, ``(n,)``; only relativistic losses look at the scores of events."""
    return _GENERATOR[loss](real, fake, weight)


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Over the first axis; of a batch in which an event of weight two stands for two."""
    if weight is None:
        return values.mean(0)
    share = shares(weight).to(values.dtype)
    return (share.reshape(-1, *[1] * (values.ndim - 1)) * values).sum(0)


def _average_critic(real: Tensor, fake: Tensor, weight: Tensor | None) -> Tensor:
    return F.softplus(weighted_mean(fake, weight) - real) + F.softplus(fake - weighted_mean(real, weight))


_CRITIC: dict[str, Pair] = {
    "non-saturating": lambda a, b, _w: F.softplus(-a) + F.softplus(b),
    "wasserstein": lambda a, b, _w: b - a,
    "least-squares": lambda a, b, _w: 0.5 * ((a - 1.0).square() + b.square()),
    "hinge": lambda a, b, _w: F.relu(1.0 - a) + F.relu(1.0 + b),
    "relativistic": lambda a, b, _w: F.softplus(b - a),
    "relativistic-average": _average_critic,
}
_GENERATOR: dict[str, Pair] = {
    "non-saturating": lambda _a, b, _w: F.softplus(-b),
    "wasserstein": lambda _a, b, _w: -b,
    "least-squares": lambda _a, b, _w: 0.5 * (b - 1.0).square(),
    "hinge": lambda _a, b, _w: -b,
    "relativistic": lambda a, b, _w: F.softplus(a - b),
    "relativistic-average": lambda a, b, w: _average_critic(b, a, w),
}


def slope(score: Tensor, x: Tensor) -> Tensor:
    """The squared gradient of every score ``(n,)`` with respect to its own x ``(n, ...)``, as ``(n,)``, to be differentiated again."""
    (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def batch_deviation(features: Tensor, weight: Tensor | None = None) -> Tensor:
    """Standard deviation of every column over the batch, ``(n, k)`` to ``(k,)``: duplicated events count as weights do (arXiv:1710.10196).

    >>> batch_deviation(torch.tensor([[0.0], [2.0]]), torch.tensor([3.0, 1.0])).item() ** 2
    0.75
    """
    mean = weighted_mean(features, weight)
    return (weighted_mean((features - mean).square(), weight).clamp(min=0.0) + 1e-8).sqrt()


class Critic(nn.Module):
    """A network with one score per event: ``critic(x, context, mask, weight)`` to ``(n,)``.

    Parameters
    ----------
    network, shape : the network, and the field and context that it sees (``outputs`` is set here).
    statistics : ``"none"``, or ``"deviation"``: the network gives features, and a small head sees them beside their standard deviations
        over the batch, by which it notices that all made events look alike. ``weight`` then enters these, ``(n,)``.
    width : of the features.
    """

    def __init__(self, network: NetworkConfig, shape: NetworkShape, statistics: str = "none", width: int = 32) -> None:
        super().__init__()
        many = statistics == "deviation"
        self.network = network.build(replace(shape, outputs=width if many else 1, channels=None))
        head = Dense((2 * width, width, 1), network.activation) if many else None
        self.head = normalise_spectra(head) if head is not None and network.spectral_norm else head

    def forward(
        self, x: Tensor, context: Events | None = None, mask: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """Scores ``(n,)``."""
        return self._scores(x, context, mask, weight)[0]

    def with_slope(
        self, x: Tensor, context: Events | None = None, mask: Tensor | None = None, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores ``(n,)``, and the squared gradient of each with respect to its own event, ``(n,)``; statistics of the batch held fixed."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            score, alone = self._scores(x, context, mask, weight)
            return score, slope(alone, x)

    def _scores(
        self, x: Tensor, context: Events | None, mask: Tensor | None, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The scores, and the same numbers as functions of one event at fixed statistics."""
        features = self.network(x, None, context, mask)
        if self.head is None:
            return features[:, 0], features[:, 0]
        spread = batch_deviation(features, weight)
        score, alone = (
            self.head(torch.cat((features, s.expand(len(x), -1)), 1))[:, 0] for s in (spread, spread.detach())
        )
        return score, alone
