r"""Consistency models: any point of a path of the flow to the event at its end, in one evaluation (arXiv:2303.01469, arXiv:2310.14189).

.. math:: f_\theta(x_t, t, c) = x_t - t\, F_\theta(x_t, t, c), \qquad
          L = E\, \lambda\, d\big(f_\theta(x_t, t),\, f_{\bar\theta}(x_s, s)\big), \quad s < t

with x_s one solver step of the teacher from x_t (distillation), or the same event and the same noise at time s (training without a
teacher, for which see :class:`ConsistencyTraining`). f(x, 0) = x by construction. More steps add noise to the event and jump again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Layout, NoiseShape
from pofx.models.field import count_estimate, count_updates, mean_event
from pofx.models.flow_matching import FlowMatching
from pofx.models.student import (
    OwnVelocity,
    StudentBody,
    StudentFamily,
    TaughtFamily,
    Teacher,
    choose,
    draw_base,
    follow,
    huber,
    keep_first,
)
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["Consistency", "ConsistencyTraining"]

Path = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The point between events and noise at times t."""

HUBER = 0.00054
"""The pseudo-Huber scale of arXiv:2310.14189, per square root of a number."""

GRADED = 1.5
"""Times of targets by the batch are this power of equal distances: narrow structures are made close to time 0."""

MANY = 64
"""Numbers per event from which on ``metric="auto"`` is a length."""


class ConsistencyBody(StudentBody):
    """A student that knows how the path mixes events with noise at the times between its steps.

    Attributes
    ----------
    mixing : ``(steps - 1, 3)``: factors of event and noise, and how far along the arc angles are.
    """

    mixing: Tensor

    def __init__(self, layout: Layout, family: StudentFamily, *, target: bool = False) -> None:
        super().__init__(layout, family.network, times=1, target=target)
        self.register_buffer("mixing", torch.zeros(family.steps - 1, 3))

    def read_path(self, path: Path) -> None:
        """Take ``mixing`` from a path, which is linear in event and noise, and in the arc of angles."""
        zero, steps = torch.zeros(1, *self.form.shape), len(self.mixing) + 1
        for k, row in enumerate(self.mixing, start=1):
            t = torch.tensor([1.0 - k / steps])
            of_event, of_noise = path(zero + 1.0, zero, t), path(zero, zero + 1.0, t)
            if not self.circular:
                row[0], row[1] = of_event.flatten()[0], of_noise.flatten()[0]
                continue
            angles = self.angles.expand_as(zero)
            row[2] = of_noise[angles][0]
            if not bool(angles.all()):
                row[0], row[1] = (part[~angles][0] for part in (of_event, of_noise))

    def renoise(self, x: Tensor, e: Tensor, k: int) -> Tensor:
        """The point of the path that step k starts from."""
        of_event, of_noise, arc = self.mixing[k - 1].to(x.dtype)
        mixed = of_event * x + of_noise * e
        return torch.where(self.angles, self.wrap(x + arc * self.wrap(e - x)), mixed) if self.circular else mixed


@dataclass(frozen=True)
class _Jumps(StudentFamily):
    """What both ways of training share: the function itself, and events in several steps."""

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        """That of one step, and fresh noise for each step more."""
        again = {f"z{k}": NoiseShape("normal", layout.spec[layout.only].shape) for k in range(1, self.steps)}
        return {**super().noise_shapes(layout), **again}

    def end(self, body: Any, network: nn.Module, x: Tensor, t: Tensor, events: Events) -> Tensor:
        """f(x, t): the event at the end of the path through x, with the context and the mask of ``events``."""
        return self.jump(body, network, x, t, torch.zeros_like(t), events.context, events.mask)

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        trained = len(body.mixing) + 1
        if self.steps not in (1, trained):
            raise ConfigError(
                f"{type(self).__name__}: the model was trained to be sampled in {trained} steps; expected steps=1 or {trained}, "
                f"got {self.steps}"
            )
        mask = body.mask(noise, context)
        x = body.base(noise["z"])
        for k in range(self.steps):
            x = x if k == 0 else body.renoise(x, body.base(noise[f"z{k}"]), k)
            x = x if mask is None else torch.where(mask[..., None], x, 0.0)
            t = x.new_full((len(x),), 1.0 - k / self.steps)
            x = self.jump(body, body.network, x, t, torch.zeros_like(t), context, mask)
        return body.result(x, mask)


@dataclass(frozen=True)
class Consistency(_Jumps, TaughtFamily):
    """Consistency distillation: ``Consistency().fit(data, teacher=model)``.

    Parameters
    ----------
    intervals : of time, between whose ends a step of the teacher's solver leads.
    target_decay : of the moving average of the weights that gives targets; 0 takes the weights themselves.
    metric : ``"squared"`` or ``"huber"`` (pseudo-Huber, arXiv:2310.14189).

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(1000, 2))
    >>> quick = pofx.Training(max_steps=5, seed=1)
    >>> small = pofx.networks.ResidualMLP(width=16, layers=1)
    >>> teacher = pofx.FlowMatching(network=small, density_solver=pofx.solvers.Heun(steps=4)).fit(x, training=quick)
    >>> Consistency().fit(x, teacher=teacher, training=quick).sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "consistency"

    intervals: int = 18
    target_decay: float = 0.95
    metric: str = "squared"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "intervals")
        check_between(self, 0.0, 1.0, "target_decay")
        check_choice(self, "metric", ("squared", "huber"))

    def build(self, layout: Layout) -> nn.Module:
        body = ConsistencyBody(layout, self, target=True)
        if layout.teacher is not None:
            teacher = self.prepare(body, layout)
            body.read_path(teacher.path)
        return body

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        loss = _Distillation(self, Teacher(self, layout.teacher))
        distil = Update("consistency", loss, parameters=("network.*",), after=follow(self.target_decay))
        return (Phase("distillation", (distil, *count_updates(layout)), estimate=count_estimate(layout), keep="last"),)


@dataclass(frozen=True)
class _Distillation:
    """The two ends of one step of the teacher have the same end."""

    student: Consistency
    teacher: Teacher

    def __call__(self, body: Any, events: Events, noise: Noise) -> Loss:
        student, count = self.student, self.student.intervals
        later = choose(noise, "t", count) + 1
        t, s = ((k.to(events.x.dtype)) / count for k in (later, later - 1))
        place = self.teacher.path(events.x, draw_base(body, events, noise), t)
        with torch.no_grad():
            before = body.wrap(self.teacher.move(student.solver, place, t, s, events.context, events.mask))
            target = student.end(body, body.target, before, s, events)
        apart = body.wrap(student.end(body, body.network, place, t, events) - target)
        squares = mean_event(apart.square(), events.mask)
        return Loss(
            squares if student.metric == "squared" else huber(apart, events.mask, HUBER), logs={"squares": squares}
        )


@dataclass(frozen=True)
class ConsistencyTraining(_Jumps):
    r"""Consistency training, without a teacher.

    With ``targets="path"`` it is the improved training of arXiv:2310.14189: x_s is the same event and the same noise at time s. Noise
    levels :math:`\sigma = t / (1 - t)` lie as in arXiv:2206.00364 (rho = 7, from 0.002 to 80), their number doubles in equal
    stretches of the training from ``intervals[0]`` to ``intervals[1]``, and the interval is drawn as if log sigma were normal. The target
    has the same weights, held fixed. Many events lead through x_t, so that this target scatters.

    With ``targets="batch"`` x_s is one step of the flow from x_t, whose velocity :math:`(x_t - E[x_0 | x_t]) / t` has a mean over events
    that is taken over the batch, with the weights :math:`w_i N(x_t; (1 - t) x_i, t^2)` that Bayes' theorem gives them (stable targets,
    arXiv:2302.00670, arXiv:2410.18958). That mean is right on average where x_t was made from an event of the batch, and nowhere else,
    so that a step asks for it once. Times are :math:`(k / K)^{3/2}`, closer where events are, and the target is a moving average of the
    weights. That needs events that may replace each other: vectors without a context and without angles; of many columns the batch
    holds no second event that could have led there. A target is as good as the function at earlier times, so that training begins
    with the velocity alone, whose weights make f the mean of all events that lead through x_t
    (``max_steps={"velocity": 2000, "training": 3000}``).

    Parameters
    ----------
    targets : ``"batch"``, ``"path"``, or ``"auto"``: batch for such vectors of less than 64 columns.
    warm_up : for ``"batch"``: learn the velocity first, in a phase of its own.
    intervals : how many there are at first and at last; the last counts for ``"batch"``. None: (10, 1280), and 18 for batch.
    target_decay : of the moving average, for ``"batch"``.
    centre, spread : mean and standard deviation of log sigma, for ``"path"``.
    metric : for ``"path"``: ``"huber"``, the paper's pseudo-Huber length over the difference of the noise levels, or ``"squared"``, the
        squared length over the difference of times. Neighbouring points lead to the same event only on average over events, and of few
        numbers a length has its minimum elsewhere (a median), so that ``"auto"`` takes the square for less than 64 numbers per event.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(1000, 2))
    >>> ConsistencyTraining().fit(x, training=pofx.Training(max_steps=5, seed=1)).sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "consistency-training"

    targets: str = "auto"
    warm_up: bool = True
    intervals: tuple[int, int] | None = None
    target_decay: float = 0.95
    centre: float = -1.1
    spread: float = 2.0
    metric: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "targets", ("auto", "batch", "path"))
        check_choice(self, "metric", ("auto", "huber", "squared"))
        check_between(self, 0.0, 1.0, "target_decay")
        _check_intervals(self)
        check_at_least(self, 1e-3, "spread")

    def build(self, layout: Layout) -> nn.Module:
        body = _TrainingBody(layout, self)
        body.read_path(lambda x, e, t: FlowMatching.path(body, x, e, t)[0])
        return body

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        if self.by_batch(layout):
            train = Update("consistency", self.batch_loss, parameters=("network.*",), after=follow(self.target_decay))
            if self.warm_up:
                return OwnVelocity(self).phase(layout), Phase("training", (train,), estimate=keep_first, keep="last")
            return (Phase("training", (train,), keep="last"),)
        train = Update("consistency", self.loss, parameters=("network.*",), after=_count_step)
        updates, points = (train, *count_updates(layout)), count_estimate(layout)
        return (Phase("training", updates, estimate=points, planned=_plan, keep="last"),)

    def by_batch(self, layout: Layout) -> bool:
        """Whether targets are those of the batch."""
        form = layout.spec[layout.only]
        can = form.kind == "vector" and not layout.context and not layout.circular_columns
        if self.targets == "batch" and not can:
            raise CapabilityError(
                f"ConsistencyTraining: targets='batch' is for vectors without a context and without angles; got a {form.kind}"
                f"{' with a context' if layout.context else ''}; use targets='path'"
            )
        return self.targets == "batch" or (self.targets == "auto" and can and form.size < MANY)

    def batch_loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """How far the end from x_t is from that of the step before it, for the slower weights."""
        count, x = 18 if self.intervals is None else self.intervals[1], events.x
        later = choose(noise, "t", count) + 1
        t, s = ((k.to(x.dtype) / count) ** GRADED for k in (later, later - 1))
        place = FlowMatching.path(body, x, draw_base(body, events, noise), t)[0]
        with torch.no_grad():
            before = _step_by_batch(events, place, t, s)
            target = self.end(body, body.target, before, s, events)
        return Loss(mean_event((self.end(body, body.network, place, t, events) - target).square(), None))

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """How far apart the ends are that two neighbouring points of a path lead to."""
        sigma = noise_levels(self.count(body), events.x.device)
        k, times = _interval(noise.uniform("t", 1)[:, 0].double(), sigma, self.centre, self.spread), _times(sigma)
        t, s = (times[i].to(events.x.dtype) for i in (k + 1, k))
        e = draw_base(body, events, noise)
        with torch.no_grad():
            target = self.end(body, body.network, FlowMatching.path(body, events.x, e, s)[0], s, events)
        found = self.end(body, body.network, FlowMatching.path(body, events.x, e, t)[0], t, events)
        apart = body.wrap(found - target)
        squares = mean_event(apart.square(), events.mask)
        if self.metric == "squared" or (self.metric == "auto" and body.form.size < MANY):
            return Loss(squares / (t - s), logs={"squares": squares})
        gap = (sigma[k + 1] - sigma[k]).to(t.dtype)
        return Loss(huber(apart, events.mask, HUBER) / gap, logs={"squares": squares})

    def count(self, body: Any) -> int:
        """Intervals at this point of the training."""
        first, last = self.intervals or (10, 1280)
        doublings = max(math.ceil(math.log2(last / first)), 0)
        stretch = max(int(body.planned) // (doublings + 1), 1)
        return int(min(first * 2 ** min(int(body.done) // stretch, doublings), last))


def batch_mean(x: Tensor, place: Tensor, t: Tensor, weight: Tensor | None = None) -> Tensor:
    """E[x_0 | x_t] at places ``(n, d)`` and times ``(n,)`` for x_0 among the events ``(m, d)`` of a batch, on straight paths.

    Where no weight is positive, which a small batch may have, all events count the same.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> batch_mean(x, torch.tensor([[0.5], [0.5]]), torch.tensor([0.5, 0.01])).squeeze()  # half way between; near one of them
    tensor([1.0000, 0.0000])
    """
    scaled, events = place.double() / t[:, None], x.double()
    ratio = ((1.0 - t) / t).double()[:, None]
    log = ratio * scaled @ events.T - 0.5 * ratio**2 * events.square().sum(1)
    if weight is not None:
        log = log + torch.where((weight > 0.0).any(), weight.double().clamp(min=0.0), 1.0).log()
    return (torch.softmax(log, 1) @ events).to(place.dtype)


def _step_by_batch(events: Events, place: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Where the flow leads from times t to s, by one mean over the batch; exact for standard normal events.

    Euler's method by the angle of :math:`x_t / r_t = \cos\varphi\, x_0 + \sin\varphi\, \epsilon`,
    :math:`r_t^2 = (1 - t)^2 + t^2`. A second mean, at the end of the step (Heun's method), would be drawn to the event that x_t was made
    from: that costs a tenth of the variance of normal events in 20 columns.
    """
    before, after = (torch.atan2(u, 1.0 - u)[:, None] for u in (t, s))
    size, end = (torch.hypot(1.0 - u, u)[:, None] for u in (t, s))
    x = place / size
    slope = (before.cos() * x - batch_mean(events.x, place, t, events.weight)) / before.sin()
    return end * (x - (before - after) * slope)


class _TrainingBody(ConsistencyBody):
    """It knows how many steps training takes, ``planned``, because they decide how fine noise levels are; 1 before that is known."""

    planned: Tensor

    def __init__(self, layout: Layout, family: ConsistencyTraining) -> None:
        super().__init__(layout, family, target=family.by_batch(layout))
        self.register_buffer("planned", torch.ones((), dtype=torch.int64))


def noise_levels(count: int, device: torch.device | None = None) -> Tensor:
    """``count + 1`` noise levels from 0.002 to 80, float64 (arXiv:2206.00364, eq. 5, rho = 7).

    >>> [round(float(s), 3) for s in noise_levels(2)]
    [0.002, 2.515, 80.0]
    """
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    return torch.linspace(low, high, count + 1, dtype=torch.float64, device=device) ** 7


def _times(sigma: Tensor) -> Tensor:
    """Times of noise levels, the first exactly 0 and the last exactly 1."""
    t = sigma / (1.0 + sigma)
    return (t - t[0]) / (t[-1] - t[0])


def _interval(u: Tensor, sigma: Tensor, centre: float, spread: float) -> Tensor:
    """The interval of noise levels that uniform numbers fall into, if log sigma is normal: int64 ``(n,)``."""
    below = torch.erf((sigma.log() - centre) / (math.sqrt(2.0) * spread))
    share = (below - below[0]) / (below[-1] - below[0])
    return (torch.searchsorted(share, u, right=True) - 1).clamp(0, len(sigma) - 2)


def _count_step(body: Any) -> None:
    body.done.add_(1)


def _plan(body: nn.Module, steps: int) -> None:
    """Note how long training is going to be, in a body or inside of what wraps it."""
    for part in body.modules():
        if isinstance(part, _TrainingBody):
            part.planned.fill_(steps)


def _check_intervals(owner: ConsistencyTraining) -> None:
    found: Any = owner.intervals
    if found is None:
        return
    whole = isinstance(found, tuple) and len(found) == 2 and all(type(k) is int for k in found)
    if not whole or not 1 <= found[0] <= found[1]:
        raise ConfigError(
            f"ConsistencyTraining: intervals must be two increasing integers, e.g. (10, 1280); got {found!r}"
        )
