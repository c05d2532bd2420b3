r"""Inverse autoregressive student of a flow: one pass per sample, taught by density distillation (arXiv:1711.10433, arXiv:2110.11377).

.. math:: x_i = \tau(z_i;\, h(z_{<i}, c)), \qquad
          L = \tfrac{1}{d} \| x - s(t(x)) \|^2 + \tfrac{1}{d} \| z - t(s(z)) \|^2

with t the teacher from events to noise, s the student from noise to events, x training events and z noise. Both passes that a step needs
are the fast ones: the teacher's density and the student's sampling. ``"likelihood"`` is the divergence KL(student | teacher)
instead, which needs no events but prefers to drop modes. By default that divergence is added in a second phase, for what the maps leave.

(arXiv:2110.11377 also compares the states between the layers, for which teacher and student need layers of the same kind; here they may
differ, and only the ends are compared.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.bijections.base import Inverse
from pofx.config import check_choice
from pofx.data.events import Events
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Capabilities, Layout
from pofx.models.flows import AutoregressiveFlow, FlowBody
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

if TYPE_CHECKING:
    from pofx.models.model import Model

__all__ = ["InverseAutoregressiveFlow"]

KEEP = 10.0
"""Weight of the maps beside the divergence, in nats per squared distance."""


@dataclass(frozen=True)
class InverseAutoregressiveFlow(AutoregressiveFlow):
    """The fast student of an autoregressive flow; its own density is exact too, and as slow as an autoregressive flow samples.

    Parameters
    ----------
    objective : ``"maps"``, the mean squared differences of events and noise sent through both, or ``"likelihood"``; ``"auto"`` is the
        one, then the sum of both (phases "maps" and "likelihood"), but the second alone where there are angles, whose distance does not
        say which way to go at half a turn.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(1000, 2))
    >>> quick = pofx.Training(max_steps=10, seed=1)
    >>> teacher = pofx.SplineFlow(layers=1, hidden=(16,)).fit(x, training=quick)
    >>> InverseAutoregressiveFlow(hidden=(16,)).fit(x, teacher=teacher, training=quick).sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "inverse-autoregressive-flow"
    capabilities: ClassVar[Capabilities] = Capabilities(encode=True, periodic=True, teacher=True)

    layers: int = 3
    element: str = "affine-spline"
    residual: bool = True
    gated: bool = True
    experts: int = 4
    objective: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "objective", ("auto", "maps", "likelihood"))

    def build(self, layout: Layout) -> nn.Module:
        """Layers as in other flows, the other way round: noise enters the networks."""
        body: FlowBody = super().build(layout)  # type: ignore[assignment]
        body.flow = Inverse(body.flow)
        return body

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        teacher = layout.teacher
        can = teacher.family.capabilities
        if not can.encode or can.density != "exact":
            raise CapabilityError(
                f"InverseAutoregressiveFlow: expected a teacher that encodes events with an exact density, such as SplineFlow; got a "
                f"fitted {type(teacher.family).__name__}"
            )
        maps = Phase("maps", (Update("maps", _Maps(self, teacher)),))
        likelihood = Phase("likelihood", (Update("likelihood", _Likelihood(self, teacher)),))
        if self.objective == "auto" and not layout.circular_columns:
            return maps, Phase("likelihood", (Update("both", _Both(self, teacher)),))
        return (maps,) if self.objective == "maps" else (likelihood,)

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        raise CapabilityError("InverseAutoregressiveFlow learns from a teacher")


@dataclass(frozen=True)
class _Taught:
    """A student and the model it learns from, whose weights do not change."""

    student: InverseAutoregressiveFlow
    teacher: Model

    def _known(self, like: Tensor) -> nn.Module:
        """The teacher's body, for tensors like this one."""
        precision = self.teacher.fitted.dtype
        if like.dtype != precision:
            theirs, mine = (str(dtype).removeprefix("torch.") for dtype in (precision, like.dtype))
            raise ConfigError(
                f"InverseAutoregressiveFlow: expected a student of its teacher's precision, {theirs}; got {mine}: give "
                f"Training(precision={theirs!r}), or a teacher in {mine}"
            )
        return self.teacher.fitted.body


class _Maps(_Taught):
    """Events through teacher and student, noise through student and teacher: both come back."""

    def __call__(self, body: Any, events: Events, noise: Noise) -> Loss:
        family, known = self.teacher.family, self._known(events.x)
        with torch.no_grad():
            z = family.encode(known, events)["z"]
        x = self.student.decode(body, {"z": z}, events.context)[body.field]
        e = noise.normal("z", *events.x.shape[1:])
        made = self.student.decode(body, {"z": e}, events.context)[body.field]
        back = family.encode(known, Events({body.field: made}, context=events.context))["z"]
        of_events = _apart(body, x, events.x)
        of_noise = _apart(body, body.from_normal(back), body.from_normal(e))
        return Loss(of_events + of_noise, logs={"events": of_events, "noise": of_noise})


def _apart(body: Any, a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of the columns, ``(n,)``; of angles the short way round, for normal noise is torn apart where they close."""
    short = torch.remainder(a - b + math.pi, 2 * math.pi) - math.pi
    return torch.where(body.angles, short, a - b).square().mean(1)


class _Likelihood(_Taught):
    """log q(x) - log p(x) of events that the student makes."""

    def __call__(self, body: Any, events: Events, noise: Noise) -> Loss:
        base = body.from_normal(noise.normal("z", *events.x.shape[1:]))
        x, log_jacobian = body.flow.inverse(base, body.context(events.context))
        own = body.log_base(base) - log_jacobian
        known = self.teacher.family.log_density(self._known(x), Events({body.field: x}, context=events.context))
        return Loss(own - known)


class _Both(_Taught):
    """The divergence, with the maps beside it, so that no mode is dropped."""

    def __call__(self, body: Any, events: Events, noise: Noise) -> Loss:
        divergence, maps = (loss(self.student, self.teacher)(body, events, noise) for loss in (_Likelihood, _Maps))
        return Loss(
            divergence.per_event + KEEP * maps.per_event, logs={"divergence": divergence.per_event, **maps.logs}
        )
