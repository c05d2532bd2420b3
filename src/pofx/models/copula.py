r"""The Gaussian copula: smooth marginals of any shape, joined by the correlations of their normal scores.

With :math:`z_j = \Phi^{-1}(F_j(x_j))`, F the marginal distribution functions and R the correlation of z,

.. math:: p(x) = N(z; 0, R) \prod_j \frac{d z_j}{d x_j}

Context columns take part in the copula, and :math:`p(x | c) = p(x, c) / p(c)`. Sklar (1959); Joe, Dependence Modeling with Copulas (2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.bijections.marginal import Gaussianise
from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.models.base import Capabilities, Family, Layout
from pofx.models.gaussian import Joint, JointNormal, Rows, check_shrinkage, moments, shrunk
from pofx.training.contract import Phase, Source

__all__ = ["CopulaBody", "GaussianCopula"]

MARGINAL_EVENTS = 1_000_000
"""Marginals are fitted on at most this many events; correlations on all."""


@dataclass(frozen=True)
class GaussianCopula(Family):
    """Gaussian copula with smooth marginals (:class:`~pofx.bijections.marginal.Gaussianise`); with a context the exact p(x | c).

    Parameters
    ----------
    shrinkage : of the correlations of the normal scores; as in :class:`~pofx.models.gaussian.Gaussian`.
    knots : per marginal; None grows them with the number of events.
    preprocess : see :class:`~pofx.models.base.Family`; ``"standardise"`` maps declared ranges to the whole line, so that no event is
        drawn outside them, and leaves the columns unmixed.

    >>> x = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> GaussianCopula().fit(x).sample(5, seed=1).shape
    (5, 2)
    """

    name: ClassVar[str] = "gaussian-copula"
    capabilities: ClassVar[Capabilities] = Capabilities(encode=True, precision="float64")

    shrinkage: str | float = "none"
    knots: int | None = None
    preprocess: str = field(default="standardise", kw_only=True)

    def __post_init__(self) -> None:
        check_shrinkage(self)
        if self.knots is not None:
            check_at_least(self, 4, "knots")

    @property
    def few_events(self) -> bool:
        """With shrinkage, correlations of fewer events than columns are positive definite too."""
        return self.shrinkage not in ("none", 0)

    def build(self, layout: Layout) -> nn.Module:
        return CopulaBody(Joint(layout), self.knots or _knots(layout.events))

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("estimate", estimate=self._estimate),)

    def log_density(self, body: Any, events: Events) -> Tensor:
        x, context = body.joint.split(events)
        z, log_jacobian = body.marginals(x)
        return body.normal.log_density(z, body.scores(context)) + log_jacobian

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        scores = body.scores(body.joint.context(context))
        return {body.joint.field: body.marginals.inverse(body.normal.decode(noise["z"], scores))[0]}

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        x, context = body.joint.split(events)
        return {"z": body.normal.encode(body.marginals(x)[0], body.scores(context))}

    def _estimate(self, body: Any, source: Source, training: Any) -> None:
        rows = Rows(source, body.joint)
        body.fit_marginals(*rows.first(MARGINAL_EVENTS))
        scores = rows.through(body.all_scores)
        covariance = shrunk(moments(scores), scores, self.shrinkage, body.joint.names)
        sigma = covariance.diagonal().sqrt()
        body.normal.set(torch.zeros_like(sigma), covariance / sigma[:, None] / sigma)


class CopulaBody(nn.Module):
    """Marginals of event and context, and the normal that joins their scores."""

    def __init__(self, joint: Joint, knots: int) -> None:
        super().__init__()
        self.joint = joint
        self.marginals = Gaussianise(joint.features, knots)
        self.context_marginals = Gaussianise(joint.contexts, knots) if joint.contexts else None
        self.normal = JointNormal(joint)

    def fit_marginals(self, rows: Tensor, weight: Tensor) -> None:
        """From rows v = (c, x). Equal rows are merged: they say no more about the shape of a marginal than one row of their weight."""
        rows, which = rows.unique(dim=0, return_inverse=True)
        weight = weight.new_zeros(len(rows)).scatter_add_(0, which, weight)
        self.marginals.fit(rows[:, self.joint.contexts :], weight)
        if self.context_marginals is not None:
            self.context_marginals.fit(rows[:, : self.joint.contexts], weight)

    def scores(self, context: Tensor | None) -> Tensor | None:
        """Normal scores of the context."""
        return None if context is None or self.context_marginals is None else self.context_marginals(context)[0]

    def all_scores(self, rows: Tensor) -> Tensor:
        """Normal scores of rows v = (c, x)."""
        z = self.marginals(rows[:, self.joint.contexts :])[0]
        context = self.scores(rows[:, : self.joint.contexts])
        return z if context is None else torch.cat([context, z], 1)


def _knots(events: int) -> int:
    return max(6, min(256, round(2.0 * events**0.3)))
