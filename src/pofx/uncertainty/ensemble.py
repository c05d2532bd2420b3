"""Several models of the same data, trained from different initial weights and, with the bootstrap, on events drawn again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from pofx.config import check_at_least
from pofx.models.base import Layout
from pofx.training.contract import Phase
from pofx.uncertainty.base import Members, Posterior, data_phase
from pofx.uncertainty.inside import inside
from pofx.uncertainty.together import resampled, separable, together

__all__ = ["Ensemble"]


@dataclass(frozen=True)
class Ensemble(Posterior):
    r"""Independent trainings of one family (arXiv:1612.01474); with the bootstrap their spread is the statistical uncertainty.

    Every member has its own initial weights and its own training noise. With ``bootstrap`` it also sees every event as often as a Poisson
    variable of mean one says, which is drawn by the event's number: the members then scatter about their mean as fits to independent data
    sets do about the truth, as far as a fit is smooth in the data. Without it, they show only what the training leaves undecided.

    Parameters
    ----------
    members : how many. With K of them, bands are themselves uncertain by :math:`1/\sqrt{2 (K - 1)}`.
    bootstrap : whether every member is trained on events drawn again with replacement.
    together : train them in one loop, on the same batches: the loss is evaluated for all members at once (``vmap`` over stacked weights)
        where its operations allow it, and K times per step elsewhere. Small networks then cost little more than one; memory is that of
        K. The loss is their mean, and the best weights are those of the best mean. False trains one after the other, as do phases that
        are more than steps on a loss (closed forms, latents of the phase before, persistent chains).

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(400, 1))
    >>> model = Ensemble(pofx.Gaussian(), members=20).fit(x)
    >>> mean = model.bands(lambda member: member.sample(4000, seed=1).mean())
    >>> bool(0.03 < float(mean.error) < 0.09)  # bootstrap error of a mean: 1 / sqrt(320), as 80 % of the events train
    True
    """

    name: ClassVar[str] = "ensemble"

    members: int = 10
    bootstrap: bool = True
    together: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "members")

    def build(self, layout: Layout) -> nn.Module:
        return Members([self.family.build(layout) for _ in range(self.members)])

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        weighting = resampled if self.bootstrap else None
        parts = [f"members.{k}" for k in range(self.members)]
        phases = [data_phase()]
        for phase in self.family.phases(layout):
            if self.together and separable(phase):
                phases.append(together(phase, weighting))
            else:
                phases += [inside(phase, path, resampled=self.bootstrap) for path in parts]
        return tuple(phases)
