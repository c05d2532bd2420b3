r"""Mean flow: the mean velocity between two times, learnt without a teacher from the identity that it obeys (arXiv:2505.13447).

.. math:: u(x_t, s, t) = \frac{1}{t - s} \int_s^t v(x_r, r)\, dr \quad\Rightarrow\quad
          u = v - (t - s) \Big( v \cdot \frac{\partial u}{\partial x} + \frac{\partial u}{\partial t} \Big)

In the paper the right-hand side, with the velocity of the straight path between an event and noise in the place of v, is the target, and
the derivative along (v, 1) is one forward-mode product. That target scatters with the events that a path may come from, and the derivative
multiplies the scatter. Here the network learns the velocity first (s = t: flow matching), and then, with that velocity held fixed, the
identity over a step of length h along the flow,

.. math:: (t - s)\, u(x_t, s, t) = h\, \bar v + (t - h - s)\, \bar u(x_t - h \bar v, s, t - h) ,

which becomes the derivative's for small h; :math:`\bar v` is the mean of the velocities at both ends of the step (Heun's method), and
:math:`\bar u` a moving average of the weights. Its target does not scatter.
"""

from __future__ import annotations

import copy
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
from pofx.models.student import OwnVelocity, StudentBody, StudentFamily, draw_base, expand, follow, keep_first
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["MeanFlow"]


class _Body(StudentBody):
    """A student with its velocity as first learnt, ``first``, where it keeps one."""

    def __init__(self, layout: Layout, family: MeanFlow) -> None:
        super().__init__(layout, family.network, times=2, target=family.step is not None)
        self.first = None if family.step is None else copy.deepcopy(self.network).requires_grad_(False)

    def copy_network(self) -> None:
        super().copy_network()
        if self.first is not None:
            self.first.load_state_dict(self.network.state_dict())


@dataclass(frozen=True)
class MeanFlow(StudentFamily):
    r"""One step from noise to an event, trained from scratch, in two phases (``max_steps={"velocity": 2000, "mean-flow": 4000}``).

    Parameters
    ----------
    step : h, at most t - s; None for the paper's way: its derivative, along the path, in one phase.
    target_decay : of the moving average of the weights at the far end of a step.
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

    step: float | None = 1 / 16
    target_decay: float = 0.95
    apart: float = 0.75
    times: str = "uniform"
    power: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.0, 1.0, "apart", "target_decay")
        if self.step is not None:
            check_between(self, 1e-3, 1.0, "step")
        check_at_least(self, 0.0, "power")
        check_choice(self, "times", ("uniform", "logit-normal"))

    def build(self, layout: Layout) -> nn.Module:
        return _Body(layout, self)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        if self.step is None:
            mean = Update("mean-velocity", self.loss, parameters=("network.*",))
            return (Phase("mean-flow", (mean, *count_updates(layout)), estimate=count_estimate(layout), keep="last"),)
        mean = Update("mean-velocity", self.loss, parameters=("network.*",), after=follow(self.target_decay))
        return OwnVelocity(self).phase(layout), Phase("mean-flow", (mean,), estimate=keep_first, keep="last")

    def velocity(
        self, network: nn.Module, x: Tensor, t: Tensor, s: Tensor, context: Events | None, mask: Tensor | None
    ) -> Tensor:
        found: Tensor = network(x, torch.stack((t, t - s), -1), context, mask)
        return found

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The squared difference of both sides of the identity, over a power of itself."""
        t, s = self.draw_times(noise)
        place, slope = FlowMatching.path(body, events.x, draw_base(body, events, noise), t)
        paper = self.step is None
        target = (
            self.target(body.network, place, slope, (t, s), events)
            if paper
            else self.stepped(body, place, (t, s), events)
        )
        found = self.velocity(body.network, place, t, s, events.context, events.mask)
        squares = mean_event((found - target).square(), events.mask)
        return Loss(squares / (squares.detach() + 1e-3) ** self.power, logs={"squares": squares})

    def draw_times(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Times t and s <= t, ``(n,)`` each."""
        both = noise.uniform("t", 2) if self.times == "uniform" else torch.sigmoid(noise.normal("t", 2) - 0.4)
        t, s = both.max(1).values, both.min(1).values
        return t, torch.where(noise.uniform("apart", 1)[:, 0] < self.apart, s, t)

    def stepped(self, body: Any, x: Tensor, times: tuple[Tensor, Tensor], events: Events) -> Tensor:
        """The mean velocity of a step along the velocity as first learnt, and of the rest by the slower weights."""
        t, s = times
        h = (t - s).clamp(max=self.step)
        share = expand(torch.where(t > s, h / (t - s).clamp(min=1e-9), 1.0), x)
        with torch.no_grad():
            v = self.velocity(body.first, x, t, t, events.context, events.mask)
            end = body.wrap(x - expand(h, x) * v)
            v = 0.5 * (v + self.velocity(body.first, end, t - h, t - h, events.context, events.mask))
            end = body.wrap(x - expand(h, x) * v)
            rest = self.velocity(body.target, end, t - h, s, events.context, events.mask)
        return share * v + (1.0 - share) * rest

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
