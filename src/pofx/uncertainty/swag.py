"""SWAG: a normal distribution of the weights from the path of stochastic gradient descent at a constant rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import SGD

from pofx.config import check_at_least, check_between
from pofx.errors import ConfigError
from pofx.models.base import Layout
from pofx.training.contract import Phase, Source
from pofx.uncertainty.base import DrawsBody, Posterior, data_phase, draws_phase
from pofx.uncertainty.chains import VALIDATIONS, last_updates
from pofx.uncertainty.inside import PartSource, inside
from pofx.uncertainty.weights import Weights, matching

__all__ = ["SWAG"]


class _Path(DrawsBody):
    """With the moments of the weights along the path, and their last deviations from the running mean."""

    mean: Tensor
    square: Tensor
    deviations: Tensor

    def __init__(self, inner: nn.Module, weights: Weights, count: int, rank: int) -> None:
        super().__init__(inner, weights, count)
        self.register_buffer("mean", torch.zeros(weights.size))
        self.register_buffer("square", torch.zeros(weights.size))
        self.register_buffer("deviations", torch.zeros(rank, weights.size))

    @torch.no_grad()
    def note(self, number: int) -> None:
        """Position ``number`` (from 1) of the path."""
        now = self.weights.flat(self.inner).to(self.mean)
        before = now - self.mean
        self.mean.add_(before / number)
        self.square.add_((before * (now - self.mean) - self.square) / number)
        self.deviations[(number - 1) % len(self.deviations)].copy_(now - self.mean)


@dataclass(frozen=True)
class SWAG(Posterior):
    r"""Stochastic weight averaging, Gaussian (arXiv:1902.02476): mean of the path, half its variances, half a covariance of low rank.

    .. math:: w = \bar w + \sqrt{\tfrac{1}{2} \mathrm{Var}}\; \xi_1 + \frac{1}{\sqrt{2 (R - 1)}} D\, \xi_2

    After the family's own training, stochastic gradient descent goes on at a constant rate; every ``every``-th position counts, and D holds
    the last R deviations from the running mean. The spread is that of the path: it scales with rate over batch size, and it is a posterior
    only where these are chosen such that it is one (arXiv:1704.04289). Cheap; check its calibration before its band is believed.

    Parameters
    ----------
    family : any family that is trained by gradients.
    layers : patterns of the weights that vary.
    draws : from the normal distribution.
    steps, every : of the path, and between two positions that count.
    rate, momentum : of the descent.
    rank : R.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(200, 1))
    >>> family = pofx.SplineFlow(layers=1, hidden=(8,), bins=4)
    >>> model = SWAG(family, steps=40, every=2, rank=5, draws=4).fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.density_band([[0.0]]).values.shape
    (4, 1)
    """

    name: ClassVar[str] = "swag"

    layers: tuple[str, ...] = ("*",)
    draws: int = 30
    steps: int = 1000
    every: int = 10
    rate: float = 0.01
    momentum: float = 0.0
    rank: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "draws", "every", "steps")
        check_at_least(self, 2, "rank")
        check_at_least(self, 1e-12, "rate")
        check_between(self, 0.0, 0.999, "momentum")
        if self.steps // self.every < self.rank:
            raise ConfigError(
                f"SWAG: {self.steps} steps, every {self.every}th, are fewer positions than rank={self.rank}"
            )

    def build(self, layout: Layout) -> nn.Module:
        inner = self.family.build(layout)
        return _Path(inner, Weights(inner, self.layers), self.draws, self.rank)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        own = tuple(inside(phase, "inner") for phase in self.family.phases(layout))
        return (data_phase(), *own, self._path(layout), draws_phase(self._draw))

    def _path(self, layout: Layout) -> Phase:
        last = inside(last_updates(self.family, layout), "inner")
        names = tuple(f"inner.{name}" for name in Weights(self.family.build(layout), self.layers).names)
        updates = [
            replace(update, optimiser=self._descent, parameters=matching(names, update.parameters, self.name))
            for update in last.updates
        ]
        final = updates[-1]

        def after(body: Any) -> None:
            if final.after is not None:
                final.after(body)
            body.seen.add_(1)
            if int(body.seen) % self.every == 0:
                body.note(int(body.seen) // self.every)

        settings = {**last.training, "max_epochs": None, "max_steps": self.steps, "ema": None}
        return replace(
            last,
            name="path",
            updates=(*updates[:-1], replace(final, after=after)),
            estimate=None,
            keep="last",
            source=self._source,
            training=settings,
        )

    def _source(self, body: nn.Module, source: Source) -> Source:
        return PartSource(source, body, "inner", epoch=max(self.steps // VALIDATIONS, 1))

    def _descent(self, named: list[tuple[str, nn.Parameter]]) -> SGD:
        return SGD([p for _, p in named], lr=self.rate, momentum=self.momentum)

    def _draw(self, body: Any, generator: torch.Generator) -> Tensor:
        size, rank = len(body.mean), len(body.deviations)
        first = torch.randn(self.draws, size, generator=generator, dtype=torch.float64).to(body.mean)
        second = torch.randn(self.draws, rank, generator=generator, dtype=torch.float64).to(body.mean)
        diagonal = (0.5 * body.square.clamp(min=0.0)).sqrt()
        return body.mean + diagonal * first + second @ body.deviations / math.sqrt(2.0 * (rank - 1))
