r"""Progressive distillation: a student whose one step does what two of its teacher's do, round after round (arXiv:2202.00512).

.. math:: L = E\, w(t)\, \Big\| F_\theta(x_t, t, c) - \frac{x_t - x''}{t - s} \Big\|^2, \qquad s = t - \tfrac{1}{N}

with x'' where two half steps of the teacher lead from x_t. The first teacher is the model, the next one the student of N steps when it
learns to make N / 2. On the straight path this is the v-prediction of the paper: the step x - (t - s) F is DDIM's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_choice
from pofx.data.events import Events
from pofx.errors import ConfigError
from pofx.models.base import Layout
from pofx.models.field import count_estimate, count_updates, mean_event
from pofx.models.student import StudentBody, TaughtFamily, Teacher, choose, draw_base, expand
from pofx.training.contract import Loss, Phase, Source, Update
from pofx.training.noise import Noise

__all__ = ["ProgressiveDistillation"]

WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "truncated-snr": lambda t: torch.maximum(t, 1.0 - t).square(),
    "snr-plus-one": lambda t: t.square() + (1.0 - t).square(),
    "velocity": torch.ones_like,
}
"""The weights of an error of F: of the paper's error of x, times the t^2 that turns one into the other on the straight path."""


@dataclass(frozen=True)
class ProgressiveDistillation(TaughtFamily):
    """Halving rounds, each a phase of training: ``ProgressiveDistillation().fit(data, teacher=model)``.

    The limits of :class:`pofx.Training` hold for each round; the names of its phases are ``"to-8"``, ``"to-4"`` and so on.

    Parameters
    ----------
    first : steps of the student of the first round; halved until there are ``steps`` (``first`` is ``steps`` times a power of two).
    weighting : ``"truncated-snr"``, max(SNR, 1), ``"snr-plus-one"``, or ``"velocity"``, the same weight at all times.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(1000, 2))
    >>> quick = pofx.Training(max_steps=5, seed=1)
    >>> small = pofx.networks.ResidualMLP(width=16, layers=1)
    >>> teacher = pofx.FlowMatching(network=small, density_solver=pofx.solvers.Heun(steps=4)).fit(x, training=quick)
    >>> ProgressiveDistillation(first=2).fit(x, teacher=teacher, training=quick).sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "progressive-distillation"

    first: int = 8
    weighting: str = "truncated-snr"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "weighting", tuple(WEIGHTS))
        if self.first not in [self.steps * 2**k for k in range(31)]:
            raise ConfigError(
                f"ProgressiveDistillation: first must be steps={self.steps} times a power of two; got {self.first!r}"
            )

    def build(self, layout: Layout) -> nn.Module:
        body = StudentBody(layout, self.network, times=1, target=True)
        if layout.teacher is not None:
            self.prepare(body, layout)
        return body

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        teacher, rounds = Teacher(self, layout.teacher), int(math.log2(self.first / self.steps)) + 1
        return tuple(self._round(layout, teacher, self.first // 2**k, first=k == 0) for k in range(rounds))

    def _round(self, layout: Layout, teacher: Teacher, steps: int, *, first: bool) -> Phase:
        halve = Update("halve", _Halving(self, teacher, steps, first), parameters=("network.*",))
        if first:
            return Phase(f"to-{steps}", (halve, *count_updates(layout)), estimate=count_estimate(layout))
        return Phase(f"to-{steps}", (halve,), estimate=_next_round)


@dataclass(frozen=True)
class _Halving:
    """A round that ends with ``steps`` steps; after the first one, the teacher is the student of the round before."""

    student: ProgressiveDistillation
    teacher: Teacher
    steps: int
    first: bool

    def __call__(self, body: Any, events: Events, noise: Noise) -> Loss:
        k = choose(noise, "t", self.steps).to(events.x.dtype)
        t, s = (k + 1.0) / self.steps, k / self.steps
        place = self.teacher.path(events.x, draw_base(body, events, noise), t)
        apart = body.network(place, t, events.context, events.mask) - self.target(body, place, t, s, events)
        squares = mean_event(apart.square(), events.mask)
        return Loss(WEIGHTS[self.student.weighting](t) * squares, logs={"squares": squares})

    def target(self, body: Any, x: Tensor, t: Tensor, s: Tensor, events: Events) -> Tensor:
        """The mean velocity between s and t of two half steps of the teacher."""
        half = 0.5 * (t + s)
        with torch.no_grad():
            middle = self._half(body, x, t, half, events)
            return (x - self._half(body, middle, half, s, events)) / expand(t - s, x)

    def _half(self, body: Any, x: Tensor, t: Tensor, s: Tensor, events: Events) -> Tensor:
        """Where it leads; angles are not wrapped."""
        if self.first:
            return self.teacher.move(self.student.solver, x, t, s, events.context, events.mask)
        return x - expand(t - s, x) * self.student.velocity(body.target, x, t, s, events.context, events.mask)


def _next_round(body: Any, _source: Source, _training: Any) -> None:
    """The student becomes the teacher."""
    body.copy_network()
