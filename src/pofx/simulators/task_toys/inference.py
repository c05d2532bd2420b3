"""Tasks of simulation-based inference as toys: parameters from the prior, given what was simulated from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pofx.data.events import Events
from pofx.data.spec import EventSpec, vector_spec
from pofx.simulators.inference_tasks import InferenceTask
from pofx.simulators.task_toys.base import Array, Toy

__all__ = ["InferenceToy"]


class InferenceToy(Toy):
    """Field ``theta`` given the context ``x`` of an inference task, whose posterior can be drawn exactly.

    >>> from pofx.simulators.inference_tasks import TASKS
    >>> InferenceToy(TASKS["slcp"]).sample(2, seed=1).context.x.shape
    (2, 8)
    """

    def __init__(self, task: InferenceTask) -> None:
        self.task = task

    def spec(self) -> EventSpec:
        return vector_spec(self.task.columns(), "theta")

    def context_spec(self) -> EventSpec:
        return vector_spec(self.task.simulate(self.task.prior(1, 0), 0).shape[1], "x")

    def sample(self, n: int, seed: int) -> Events:
        theta = self.task.prior(n, seed)
        return Events({"theta": theta}, context=Events({"x": self.task.simulate(theta, seed)}))

    def posterior(self, x: ArrayLike, n: int, seed: int) -> Array:
        """Independent draws of theta given one x."""
        return np.asarray(self.task.posterior(x, n, seed))
