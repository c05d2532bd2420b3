r"""Flow matching: a velocity field learnt by regression, without solving an ODE in training (arXiv:2210.02747, 2209.03003, 2209.15571).

.. math:: x_t = (1 - t)\, x_0 + t\, \epsilon, \qquad L = E\, \| v_\theta(t, x_t, c) - (\epsilon - x_0) \|^2

with x_0 an event, epsilon from the base and t in (0, 1). The minimum is the velocity that carries the base into p(x|c). On a circle the
path is the shorter arc, and the base is uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from pofx.config import check_choice
from pofx.data.events import Events
from pofx.errors import CapabilityError
from pofx.models.base import Layout
from pofx.models.field import count_estimate, count_updates, mean_event
from pofx.models.ode import OdeFamily
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["FlowMatching"]


@dataclass(frozen=True)
class FlowMatching(OdeFamily):
    """The linear path with independent noise; vectors, grids and clouds, exact density by the ODE.

    Parameters
    ----------
    times : density of training times: ``"uniform"``, or ``"logit-normal"``, more of them in the middle (arXiv:2403.03206).
    coupling : ``"independent"``, or ``"optimal-transport"``: within a batch, noise is given to the events that are nearest in all
        (arXiv:2302.00482), which straightens paths. Several processes, and accumulation, pair within their pieces of a batch. Only for
        vectors and grids without context and weights, whose conditional or weighted noise would no longer be normal.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> small = pofx.networks.ResidualMLP(width=16, layers=1)
    >>> family = FlowMatching(network=small, density_solver=pofx.solvers.Heun(steps=4))
    >>> model = family.fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "flow-matching"

    times: str = "uniform"
    coupling: str = "independent"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "times", ("uniform", "logit-normal"))
        check_choice(self, "coupling", ("independent", "optimal-transport"))

    def build(self, layout: Layout) -> nn.Module:
        if self.coupling == "optimal-transport" and (layout.context or layout.spec[layout.only].kind == "cloud"):
            raise CapabilityError(
                "FlowMatching: coupling='optimal-transport' is for vectors and grids without a context, because noise would depend on "
                "it; use coupling='independent'"
            )
        return super().build(layout)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        velocity = Update("velocity", self.loss, parameters=("network.*",))
        return (Phase("flow-matching", (velocity, *count_updates(layout)), estimate=count_estimate(layout)),)

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The mean squared difference of velocities over the numbers of an event."""
        x, t = events.x, self.draw_times(noise)
        e = body.base(noise.normal("e", *x.shape[1:]))
        if self.coupling == "optimal-transport":
            e = _paired(body, x, e, events.weight)
        place, slope = self.path(body, x, e, t)
        found = self.velocity(body, t, place, events.context, events.mask)
        return Loss(mean_event((found - slope).square(), events.mask))

    def draw_times(self, noise: Noise) -> Tensor:
        """Training times ``(n,)``."""
        if self.times == "uniform":
            return noise.uniform("t", 1)[:, 0]
        return torch.sigmoid(noise.normal("t", 1)[:, 0])

    @staticmethod
    def path(body: Any, x: Tensor, e: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point at times t between events and noise, and its velocity."""
        slope = body.wrap(e - x) if body.circular else e - x
        return body.wrap(x + t.reshape(-1, *[1] * (x.ndim - 1)) * slope), slope


def _paired(body: Any, x: Tensor, e: Tensor, weight: Tensor | None) -> Tensor:
    """The noise in the order of the events that it is nearest to."""
    if weight is not None and bool((weight != weight[0]).any()):
        raise CapabilityError(
            "FlowMatching: coupling='optimal-transport' needs events of equal weight; use coupling='independent' for weighted ones"
        )
    rows, columns = x.flatten(1), e.flatten(1)
    apart = rows[:, None] - columns[None]
    cost = (body.wrap(apart) if body.circular else apart).square().sum(-1)
    order = linear_sum_assignment(np.asarray(cost.detach().cpu().double()))[1]
    return e[torch.as_tensor(order, device=e.device)]
