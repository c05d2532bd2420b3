r"""Explicit Runge-Kutta solvers with fixed steps: Euler, midpoint, Heun, RK4.

.. math:: k_i = v\Big(t + c_i h, x + h \sum_{j<i} a_{ij} k_j\Big), \qquad x(t + h) \approx x + h \sum_i b_i k_i

(Hairer, Norsett, Wanner, *Solving Ordinary Differential Equations I*, section II.1.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from pofx.solvers.base import (
    Solution,
    Solver,
    Times,
    VelocityField,
    check_count,
    check_end,
    check_state,
    column,
    evaluate,
    time_grid,
)

__all__ = ["RK4", "Euler", "FixedStep", "Heun", "Midpoint", "Tableau", "combine"]


class Tableau(NamedTuple):
    """Coefficients of an explicit method: ``nodes`` c, ``matrix`` a (one row per stage, without the zeros), ``weights`` b."""

    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


_EULER = Tableau((0.0,), ((),), (1.0,))


def combine(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """The sum of weights times slopes; zero weights cost nothing."""
    first, *rest = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
    total = first[1] if first[0] == 1.0 else first[0] * first[1]
    for weight, slope in rest:
        total = torch.add(total, slope, alpha=weight)
    return total


@dataclass(frozen=True)
class FixedStep(Solver):
    """The same number of steps for every sample, of equal length unless a grid is given.

    Parameters
    ----------
    steps : how many; a grid given to ``solve`` overrides it.
    """

    steps: int

    tableau: ClassVar[Tableau]

    def __post_init__(self) -> None:
        check_count(self, "steps")

    def solve(
        self,
        field: VelocityField,
        x: Tensor,
        t0: Times,
        t1: Times,
        *,
        grid: Tensor | Sequence[float] | None = None,
        keep: bool = False,
    ) -> Solution:
        """See :meth:`pofx.solvers.Solver.solve`."""
        check_state(x)
        times = time_grid(x, t0, t1, grid, self.steps)
        tableaus = self._tableaus(len(times) - 1)
        path = [x]
        for tableau, (start, stop) in zip(tableaus, pairwise(times), strict=True):
            x = self._checkpointed(partial(self._step, field, tableau), x, start, stop)
            if keep:
                path.append(x)
        check_end(x, times[-1], slice(None), self)
        counts = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        return Solution(
            x=x,
            t=times[-1],
            status=counts,
            evaluations=counts + sum(len(tableau.nodes) for tableau in tableaus),
            accepted=counts + len(tableaus),
            rejected=counts,
            path=torch.stack(path) if keep else None,
            solver=repr(self),
        )

    def _tableaus(self, steps: int) -> list[Tableau]:
        """The method of each step."""
        return [self.tableau] * steps

    def _step(self, field: VelocityField, tableau: Tableau, x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
        h = column(stop - start, x)
        slopes: list[Tensor] = []
        for node, weights in zip(tableau.nodes, tableau.matrix, strict=True):
            at = x + h * combine(weights, slopes) if slopes else x
            slopes.append(evaluate(field, torch.lerp(start, stop, node), at, slice(None), self))
        return x + h * combine(tableau.weights, slopes)


@dataclass(frozen=True)
class Euler(FixedStep):
    """Euler's method: order 1, one evaluation per step.

    >>> import torch
    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> Euler(steps=2).solve(lambda t, x, rows: -x, x, 0.0, 1.0).x.item()
    0.25
    """

    tableau: ClassVar[Tableau] = _EULER


@dataclass(frozen=True)
class Midpoint(FixedStep):
    """The explicit midpoint rule: order 2, two evaluations per step.

    >>> import torch
    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> Midpoint(steps=1).solve(lambda t, x, rows: -x, x, 0.0, 1.0).x.item()
    0.5
    """

    tableau: ClassVar[Tableau] = Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0))


@dataclass(frozen=True)
class Heun(FixedStep):
    """Heun's method (explicit trapezoid): order 2, two evaluations per step.

    Parameters
    ----------
    euler_end : make the last step Euler's, so that the field is not evaluated at t1, where that of a diffusion model may be
        singular: with a grid of noise levels that ends at 0 this is algorithm 1 of arXiv:2206.00364.

    >>> import torch
    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> solution = Heun(steps=4, euler_end=True).solve(lambda t, x, rows: x / t[:, None], x, 1.0, 0.0)
    >>> solution.x.item(), solution.evaluations.item()
    (0.0, 7)
    """

    euler_end: bool = False

    tableau: ClassVar[Tableau] = Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5))

    def _tableaus(self, steps: int) -> list[Tableau]:
        return [self.tableau] * (steps - self.euler_end) + [_EULER] * self.euler_end


@dataclass(frozen=True)
class RK4(FixedStep):
    """The classical Runge-Kutta method: order 4, four evaluations per step.

    >>> import torch
    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> RK4(steps=1).solve(lambda t, x, rows: -x, x, 0.0, 1.0).x.item()
    0.375
    """

    tableau: ClassVar[Tableau] = Tableau(
        (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
    )
