r"""Mean flow: the mean velocity between two times, learnt without a teacher from the identity that it obeys (arXiv:2505.13447).

.. math:: u(x_t, s, t) = \frac{1}{t - s} \int_s^t v(x_r, r)\, dr \quad\Rightarrow\quad
          u = v - (t - s) \Big( v \cdot \frac{\partial u}{\partial x} + \frac{\partial u}{\partial t} \Big)

The right-hand side, with the velocity of the straight path between an event and noise in the place of v, is the target; the derivative
along (v, 1) is one forward-mode product. For s = t it is flow matching.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.models.base import Layout
from pofx.models.field import count_estimate, count_updates, mean_event
from pofx.models.flow_matching import FlowMatching
from pofx.models.student import StudentBody, StudentFamily, draw_base, expand
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["MeanFlow"]


@dataclass(frozen=True)
class MeanFlow(StudentFamily):
    r"""One step from noise to an event, trained from scratch.

    Parameters
    ----------
    apart : share of events with s < t; the others learn the velocity itself.
    times : of the two that t and s are the larger and the smaller of: ``"uniform"``, or ``"logit-normal"`` with mean -0.4 and deviation 1,
        which is best for images in the paper, but hardly ever looks at the whole step from 1 to 0.
    power : p of the loss :math:`\|d\|^2 / (\|d\|^2 + 10^{-3})^p`, the denominator held fixed. 0 is the mean square, whose minimum
        is the mean velocity. The paper's 1 is steadier for images, whose squared lengths are nearly all the same; with few columns
        it is biased.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(1000, 2))
    >>> MeanFlow().fit(x, training=pofx.Training(max_steps=5, seed=1)).sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "mean-flow"

    apart: float = 0.5
    times: str = "uniform"
    power: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.0, 1.0, "apart")
        check_at_least(self, 0.0, "power")
        check_choice(self, "times", ("uniform", "logit-normal"))

    def build(self, layout: Layout) -> nn.Module:
        return StudentBody(layout, self.network, times=2)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        mean = Update("mean-velocity", self.loss, parameters=("network.*",))
        return (Phase("mean-flow", (mean, *count_updates(layout)), estimate=count_estimate(layout), keep="last"),)

    def velocity(
        self, network: nn.Module, x: Tensor, t: Tensor, s: Tensor, context: Events | None, mask: Tensor | None
    ) -> Tensor:
        found: Tensor = network(x, torch.stack((t, t - s), -1), context, mask)
        return found

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The squared difference of both sides of the identity, over a power of itself."""
        t, s = self.draw_times(noise)
        place, slope = FlowMatching.path(body, events.x, draw_base(body, events, noise), t)
        target = self.target(body.network, place, slope, (t, s), events)
        found = self.velocity(body.network, place, t, s, events.context, events.mask)
        squares = mean_event((found - target).square(), events.mask)
        return Loss(squares / (squares.detach() + 1e-3) ** self.power, logs={"squares": squares})

    def draw_times(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Times t and s <= t, ``(n,)`` each."""
        both = noise.uniform("t", 2) if self.times == "uniform" else torch.sigmoid(noise.normal("t", 2) - 0.4)
        t, s = both.max(1).values, both.min(1).values
        return t, torch.where(noise.uniform("apart", 1)[:, 0] < self.apart, s, t)

    def target(
        self, network: nn.Module, x: Tensor, slope: Tensor, times: tuple[Tensor, Tensor], events: Events
    ) -> Tensor:
        """v - (t - s) du/dt, without a gradient; only events with s < t need the derivative."""
        t, s = times
        rows = torch.nonzero(s < t)[:, 0]
        if len(rows) == 0:
            return slope
        some, after, before = events[rows], t[rows], s[rows]

        def of_place_and_time(y: Tensor, u: Tensor) -> Tensor:
            return self.velocity(network, y, u, before, some.context, some.mask)

        change = along(of_place_and_time, (x[rows], after), (slope[rows], torch.ones_like(after)))
        return slope.index_add(0, rows, -expand(after - before, x) * change)


def along(function: Callable[..., Tensor], place: tuple[Tensor, ...], direction: tuple[Tensor, ...]) -> Tensor:
    """The derivative of a function along a direction, without a gradient of its own.

    >>> along(lambda x, t: x * t, (torch.tensor(2.0), torch.tensor(3.0)), (torch.tensor(1.0), torch.tensor(10.0)))
    tensor(23.)
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of torch.jit, which torch itself uses when it first gets here
        change: Tensor = torch.func.jvp(function, place, direction)[1]
    return change
