r"""Shortcut models: the network is told how far the next step leads, and one long step has to do what two short ones do (arXiv:2410.12557).

.. math:: L = E\, \| F_\theta(x_t, t, 0) - (\epsilon - x_0) \|^2
          + E\, \Big\| F_\theta(x_t, t, 2d) - \tfrac12 \big( F_{\bar\theta}(x_t, t, d) + F_{\bar\theta}(x_{t-d}, t - d, d) \big) \Big\|^2

with x_{t-d} = x_t - d F(x_t, t, d) and d a power of two; the shortest step takes the velocity itself. One network, no teacher, and after
training any number of steps that is a power of two. Long steps of a velocity that is not learnt yet teach nothing, so that training
begins with the velocity alone, as the start of steps of every length; the paper's single phase is ``warm_up=False``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_between
from pofx.data.events import Events
from pofx.errors import ConfigError
from pofx.models.base import Layout
from pofx.models.field import count_estimate, count_updates, mean_event
from pofx.models.flow_matching import FlowMatching
from pofx.models.student import OwnVelocity, StudentBody, StudentFamily, choose, draw_base, expand, follow, keep_first
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["Shortcut"]


@dataclass(frozen=True)
class Shortcut(StudentFamily):
    """One model for 1, 2, 4, ... steps, trained in two phases (``max_steps={"velocity": 2000, "shortcut": 4000}``).

    Parameters
    ----------
    warm_up : learn the velocity first, in a phase of its own.
    finest : steps of the shortest kind, a power of two; ``steps`` is one as well, and no larger.
    consistent : share of events that learn from two shorter steps; the others learn the velocity.
    target_decay : of the moving average of the weights that takes the two short steps.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(1000, 2))
    >>> Shortcut(steps=2).fit(x, training=pofx.Training(max_steps=5, seed=1)).sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "shortcut"

    warm_up: bool = True
    finest: int = 128
    consistent: float = 0.75
    target_decay: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.0, 1.0, "consistent", "target_decay")
        powers = [2**k for k in range(1, 21)]
        if self.finest not in powers or self.steps not in [1, *powers] or self.steps > self.finest:
            raise ConfigError(
                f"Shortcut: finest and steps must be powers of two with steps <= finest; got {self.finest} and {self.steps}"
            )

    @property
    def doublings(self) -> int:
        """From the shortest step to one step for all."""
        return round(math.log2(self.finest))

    def build(self, layout: Layout) -> nn.Module:
        return StudentBody(layout, self.network, times=2, target=True)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        train = Update("shortcut", self.loss, parameters=("network.*",), after=follow(self.target_decay))
        if self.warm_up:
            return OwnVelocity(self, self.draw_ends).phase(layout), Phase(
                "shortcut", (train,), estimate=keep_first, keep="last"
            )
        return (Phase("shortcut", (train, *count_updates(layout)), estimate=count_estimate(layout), keep="last"),)

    def velocity(
        self, network: nn.Module, x: Tensor, t: Tensor, s: Tensor, context: Events | None, mask: Tensor | None
    ) -> Tensor:
        """F(x, t, d) with d = t - s; the network sees how many doublings make d, as a share of all: 0 is the velocity itself."""
        level = torch.log2(((t - s) * self.finest).clamp(min=1.0)) / self.doublings
        found: Tensor = network(x, torch.stack((t, level), -1), context, mask)
        return found

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Velocities for some events, two short steps in one for the others."""
        x, e = events.x, draw_base(body, events, noise)
        doubled = noise.uniform("kind", 1)[:, 0] < self.consistent
        t, d = self.draw_times(noise, doubled)
        place, slope = FlowMatching.path(body, x, e, t)
        rows = torch.nonzero(doubled)[:, 0]
        if len(rows):
            slope = slope.index_copy(0, rows, self.target(body, place[rows], t[rows], d[rows], events[rows]))
        found = self.velocity(body.network, place, t, t - d, events.context, events.mask)
        return Loss(mean_event((found - slope).square(), events.mask))

    def draw_ends(self, noise: Noise, t: Tensor) -> Tensor:
        """A step of any length from t ``(n,)``, or of none: steps that begin as the velocity, not as anything, lead somewhere."""
        level = choose(noise, "d", self.doublings + 1).to(t.dtype)
        return t - torch.where(level > 0.0, 2.0**level / self.finest, 0.0)

    def draw_times(self, noise: Noise, doubled: Tensor) -> tuple[Tensor, Tensor]:
        """Times ``(n,)`` and the step d from there: zero for velocities; for the others a multiple of d, which is two shorter steps."""
        fine = noise.uniform("t", 1)[:, 0]
        count = 2.0 ** choose(noise, "d", self.doublings).to(fine.dtype)  # steps of this length to the end
        coarse = (torch.floor(fine * count) + 1.0) / count
        return torch.where(doubled, coarse, fine), torch.where(doubled, 1.0 / count, 0.0)

    def target(self, body: Any, x: Tensor, t: Tensor, d: Tensor, events: Events) -> Tensor:
        """The mean velocity of two steps of length d / 2 from time t on, by the slower weights."""
        half = 0.5 * d
        with torch.no_grad():
            first = self.velocity(body.target, x, t, t - half, events.context, events.mask)
            middle = body.wrap(x - expand(half, x) * first)
            second = self.velocity(body.target, middle, t - half, t - d, events.context, events.mask)
        return 0.5 * (first + second)
