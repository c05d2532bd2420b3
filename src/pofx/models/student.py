r"""What few-step students share: jumps along the flow, teachers that do not change, targets that follow a network.

A student answers where the flow is at time s when it is at x at time t, s < t, by a network's mean velocity F between the two:

.. math:: x_s = x - (t - s)\, F_\theta(x, t, s, c)

so that s = t gives x exactly. Time runs from 1 (noise) to 0 (events); events are made in ``steps`` jumps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Capabilities, Family, Layout, NoiseShape
from pofx.models.field import (
    FieldBody,
    count_estimate,
    count_updates,
    field_noise,
    mean_event,
    network_shape,
    sum_event,
)
from pofx.models.flow_matching import FlowMatching
from pofx.models.ode import KINDS, OdeFamily, field_of
from pofx.networks.base import NetworkConfig, default_network
from pofx.solvers import Heun, Solver
from pofx.training.contract import Loss, Phase, Source, Update
from pofx.training.noise import Noise

if TYPE_CHECKING:
    from pofx.models.model import Model

__all__ = [
    "OwnVelocity",
    "StudentBody",
    "StudentFamily",
    "TaughtFamily",
    "Teacher",
    "choose",
    "draw_base",
    "expand",
    "follow",
    "huber",
    "keep_first",
]


class StudentBody(FieldBody):
    """The student's network, how many steps it has been trained, and if wanted a copy of it that no update moves: ``target``.

    Parameters
    ----------
    network : None for the recommended one.
    times : how many numbers condition it.
    """

    done: Tensor

    def __init__(self, layout: Layout, network: NetworkConfig | None, *, times: int, target: bool = False) -> None:
        super().__init__(layout)
        self.network = (network or default_network(self.kind)).build(network_shape(layout, times=times))
        self.target = copy.deepcopy(self.network).requires_grad_(False) if target else None
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def copy_network(self) -> None:
        """Make the target what the network is."""
        if self.target is not None:
            self.target.load_state_dict(self.network.state_dict())


def follow(decay: float) -> Callable[[Any], None]:
    r"""What moves the target after step k: :math:`\bar w \leftarrow d \bar w + (1 - d) w`, d the smaller of decay and (1 + k)/(10 + k)."""

    def after(body: Any) -> None:
        body.done.add_(1)
        now = min(decay, (1.0 + int(body.done)) / (10.0 + int(body.done)))
        for mean, weight in zip(body.target.parameters(), body.network.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1.0 - now)

    return after


def keep_first(body: Any, _source: Source, _training: Any) -> None:
    """The target begins as what the phase before has learnt; a phase's ``estimate``."""
    body.copy_network()


def expand(t: Tensor, x: Tensor) -> Tensor:
    """One number per event ``(n,)``, such that it multiplies x."""
    return t.reshape(-1, *[1] * (x.ndim - 1))


def choose(noise: Noise, name: str, count: int) -> Tensor:
    """A whole number from 0 to count - 1 per event, int64 ``(n,)``."""
    return (noise.uniform(name, 1)[:, 0].double() * count).long().clamp(max=count - 1)


def draw_base(body: Any, events: Events, noise: Noise) -> Tensor:
    """The noise that events are paired with, out of the base."""
    base: Tensor = body.base(noise.normal("e", *events.x.shape[1:]))
    return base


def huber(difference: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    r"""The pseudo-Huber length :math:`\sqrt{\|d\|^2 + s^2 D} - s \sqrt{D}` of an event of D numbers, ``(n,)`` (arXiv:2310.14189).

    >>> huber(torch.tensor([[3.0, 4.0]]), None, 0.00054)
    tensor([4.9992])
    """
    squares = sum_event(difference.square(), mask)
    size = sum_event(torch.ones_like(difference), mask)
    return (squares + scale**2 * size.clamp(min=1.0)).sqrt() - scale * size.clamp(min=1.0).sqrt()


@dataclass(frozen=True)
class StudentFamily(Family):
    """Families that jump; they state :meth:`jump` (by :meth:`velocity`, unless they say otherwise) and their loss.

    Parameters
    ----------
    network : of the kind of field; None for the default (residual MLP, U-Net, EPiC).
    steps : jumps from noise to an event: so many evaluations of the network.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=KINDS, density="none", periodic=True, context=frozenset({"vector", "cloud"})
    )

    network: NetworkConfig | None = None
    steps: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "steps")
        if not isinstance(self.steps, int):
            raise ConfigError(f"{type(self).__name__}: steps must be an integer; got {self.steps!r}")

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        return field_noise(layout)

    def velocity(
        self, network: nn.Module, x: Tensor, t: Tensor, s: Tensor, context: Events | None, mask: Tensor | None
    ) -> Tensor:
        """The mean velocity between times s and t, ``(n,)`` each, of the flow that is at x at t; here a network that knows t alone."""
        found: Tensor = network(x, t, context, mask)
        return found

    def jump(
        self,
        body: Any,
        network: nn.Module,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        context: Events | None,
        mask: Tensor | None,
    ) -> Tensor:
        """Where the flow is at time s, by this network."""
        end: Tensor = body.wrap(x - expand(t - s, x) * self.velocity(network, x, t, s, context, mask))
        return end

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        mask = body.mask(noise, context)
        x = body.base(noise["z"])
        x = x if mask is None else torch.where(mask[..., None], x, 0.0)
        for before, after in pairwise(range(self.steps, -1, -1)):
            t, s = (x.new_full((len(x),), k / self.steps) for k in (before, after))
            x = self.jump(body, body.network, x, t, s, context, mask)
        return body.result(x, mask)


@dataclass(frozen=True)
class OwnVelocity:
    """Flow matching of a student's own network, whose mean velocity from t to t is the velocity itself: what some begin with.

    ``ends`` draws the times ``(n,)`` to which the network believes it leads from times t; t themselves without it.
    """

    student: StudentFamily
    ends: Callable[[Noise, Tensor], Tensor] | None = None

    def phase(self, layout: Layout) -> Phase:
        """A phase of its own, with the number of points of clouds."""
        update = Update("velocity", self, parameters=("network.*",))
        return Phase("velocity", (update, *count_updates(layout)), estimate=count_estimate(layout), keep="last")

    def __call__(self, body: Any, events: Events, noise: Noise) -> Loss:
        t = noise.uniform("t", 1)[:, 0]
        place, slope = FlowMatching.path(body, events.x, draw_base(body, events, noise), t)
        end = t if self.ends is None else self.ends(noise, t)
        found = self.student.velocity(body.network, place, t, end, events.context, events.mask)
        return Loss(mean_event((found - slope).square(), events.mask))


class Teacher:
    """A fitted flow matching or diffusion model, as it is, in the precision and on the device of who asks.

    Parameters
    ----------
    student : the family that learns; model : what ``fit`` was given.
    """

    def __init__(self, student: Family, model: Model) -> None:
        if not isinstance(model.family, OdeFamily):
            raise CapabilityError(
                f"{type(student).__name__}: expected a teacher that moves along an ODE, such as FlowMatching or EDM; got a fitted "
                f"{type(model.family).__name__}"
            )
        self.family: Any = model.family
        self.network = getattr(student, "network", None)
        self._body = model.fitted.body
        self._copies: dict[tuple[torch.dtype, torch.device], nn.Module] = {}

    def body(self, like: Tensor) -> nn.Module:
        """The teacher's body beside this tensor."""
        key = (like.dtype, like.device)
        if key not in self._copies:
            self._copies[key] = copy.deepcopy(self._body).to(like.device, like.dtype).requires_grad_(False).eval()
        return self._copies[key]

    def path(self, x: Tensor, e: Tensor, t: Tensor) -> Tensor:
        """The point at times t between events and noise."""
        place: Tensor = getattr(self.family, "path", FlowMatching.path)(self.body(x), x, e, t)[0]
        return place

    def move(
        self, solver: Solver, x: Tensor, t: Tensor, s: Tensor, context: Events | None, mask: Tensor | None
    ) -> Tensor:
        """Where the teacher's flow takes x from times t to s; angles are not wrapped."""
        body = self.body(x)
        moving = field_of(lambda u, y, c, m: self.family.velocity(body, u, y, c, m), context, mask)
        with torch.no_grad():
            return solver.solve(moving, x, t, s).check().x

    def warm_start(self, network: nn.Module) -> bool:
        """Copy the teacher's network where it is its velocity and configured as the student's; returns whether it was so."""
        theirs = getattr(self._body, "network", None)
        if theirs is None or type(self.family).velocity is not OdeFamily.velocity:
            return False
        kind: Any = self._body.kind
        usual = default_network(kind)
        mine, state = network.state_dict(), theirs.state_dict()
        same = (self.network or usual) == (self.family.network or usual)
        same = same and {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in state.items()}
        if same:
            network.load_state_dict(state)
        return same


@dataclass(frozen=True)
class TaughtFamily(StudentFamily):
    """Students of a teacher: any family that moves along an ODE.

    Parameters
    ----------
    solver : of the teacher's ODE, for what one step of the student's training asks: one step of Heun's method unless given.
    warm_start : begin with the teacher's weights, where the networks are the same and the teacher's is its velocity.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=KINDS, density="none", periodic=True, context=frozenset({"vector", "cloud"}), teacher=True
    )

    solver: Solver = field(default_factory=lambda: Heun(steps=1))
    warm_start: bool = True

    def prepare(self, body: StudentBody, layout: Layout) -> Teacher:
        """The teacher, whose weights the body begins with where it can."""
        teacher = Teacher(self, layout.teacher)
        if self.warm_start and teacher.warm_start(body.network):
            body.copy_network()
        return teacher
