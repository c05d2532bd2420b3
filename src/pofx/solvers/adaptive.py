r"""Dormand-Prince 5(4) with a step size, a tolerance and a step budget of its own for every sample.

A step of length h is accepted if the scaled difference of the two embedded solutions is at most one,

.. math:: e = \left\| \frac{x_5 - x_4}{\mathrm{atol} + \mathrm{rtol} \max(|x|, |x_5|)} \right\| \le 1, \qquad
          h \leftarrow h \, \min\big(10, \max(0.2,\; 0.9\, e^{-0.17} e_{-1}^{0.04})\big)

with :math:`e_{-1}` the error of the accepted step before (a PI controller). Dormand and Prince, J. Comput. Appl. Math. 6 (1980) 19;
Gustafsson, ACM TOMS 17 (1991) 533; constants and first step from Hairer, Norsett, Wanner, *Solving Ordinary Differential Equations I*,
sections II.4 and IV.2.

Samples do not see each other: each has its time, its step and its status, and leaves the batch when it has arrived. The field is
evaluated on blocks of a given number of rows, because the last bit of a matrix product may depend on how many rows it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pofx.config import check_at_least
from pofx.errors import ConfigError
from pofx.solvers.base import (
    Norm,
    Solution,
    Solver,
    Status,
    Times,
    VelocityField,
    check_count,
    check_end,
    check_state,
    column,
    evaluate,
    norm_of,
    time_grid,
)
from pofx.solvers.fixed import Tableau, combine

__all__ = ["DormandPrince"]

_WEIGHTS = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_TABLEAU = Tableau(
    nodes=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    matrix=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _WEIGHTS,
    ),
    weights=(*_WEIGHTS, 0.0),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Weights of order 5 minus weights of order 4."""

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0
_BETA = 0.04
_ALPHA = 0.2 - 0.75 * _BETA
_RUNNING = -1
_EARLY = 32
"""Steps that are made with full blocks. All samples under way have tried equally many, so that blocks depend on nothing else."""


class _Front(NamedTuple):
    """The samples on their way; every tensor has one row per sample."""

    rows: Tensor  # their numbers in the batch
    x: Tensor
    slope: Tensor
    t: Tensor
    goal: Tensor  # number of the grid time that is integrated to
    h: Tensor  # length of the next step, positive
    error: Tensor  # of the last accepted step
    retry: Tensor  # whether the last step was rejected
    accepted: Tensor
    rejected: Tensor

    def take(self, rows: Tensor) -> _Front:
        """The chosen ones."""
        return _Front(*(value[rows] for value in self))


@dataclass(frozen=True)
class _Blocks:
    """The field, evaluated on blocks of ``size`` rows; all rows at once where that is None."""

    field: VelocityField
    size: int | None
    owner: object
    norm: Norm

    def __call__(self, t: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        if self.size is None:
            return evaluate(self.field, t, x, rows, self.owner)
        if filling := self.filling(len(rows)):
            t, x, rows = (torch.cat([v, v[-1:].expand(filling, *v.shape[1:])]) for v in (t, x, rows))
        parts = zip(t.split(self.size), x.split(self.size), rows.split(self.size), strict=True)
        values = torch.cat([evaluate(self.field, *part, self.owner) for part in parts])
        return values[: len(values) - filling]

    def filling(self, n: int) -> int:
        """Rows that fill the last block."""
        return 0 if self.size is None else -n % self.size


class _Path:
    """States at the times of the grid, collected as samples arrive."""

    def __init__(self, x: Tensor, times: int, *, keep: bool) -> None:
        self.keep, self.shape = keep, (times, *x.shape)
        self.places, self.states = [torch.arange(len(x), device=x.device)], [x]

    def add(self, front: _Front, arrived: Tensor) -> None:
        """Keep the states of the samples that have arrived at their goal."""
        if self.keep:
            self.places.append((front.goal * self.shape[1] + front.rows)[arrived])
            self.states.append(front.x[arrived])

    def stack(self) -> Tensor | None:
        """``(times, n, *shape)``, NaN where nobody arrived."""
        if not self.keep:
            return None
        missing = self.states[0].new_full((self.shape[0] * self.shape[1], *self.shape[2:]), torch.nan)
        return missing.index_put((torch.cat(self.places),), torch.cat(self.states)).reshape(self.shape)


@dataclass(frozen=True)
class DormandPrince(Solver):
    """The adaptive solver: as many steps as each sample needs.

    Parameters
    ----------
    rtol, atol : relative and absolute tolerance per step and sample (root of the mean square over its numbers).
    max_steps : budget of accepted and rejected steps per sample; a sample that needs more ends with ``Status.BUDGET``.
    first_step : length of the first step; None chooses one per sample with one evaluation.
    block : rows per evaluation. Samples under way are evaluated in blocks of exactly so many rows, the last one filled up, so that a
        result does not depend, to the last bit, on what else is in the batch; after 32 steps, when the easy samples have left, in
        blocks of a quarter of that. Larger is faster on a GPU. None evaluates them at once, without filling; results then
        agree to rounding.

    Gradients treat the steps that were accepted as given.

    >>> import torch
    >>> x = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    >>> rate = torch.tensor([[1.0], [300.0]], dtype=torch.float64)
    >>> solution = DormandPrince(rtol=1e-6, atol=1e-9).solve(lambda t, x, rows: -rate[rows] * x, x, 0.0, 1.0).check()
    >>> bool((solution.x - (-rate).exp()).abs().max() < 1e-6), bool(solution.accepted[0] < solution.accepted[1] / 5)
    (True, True)
    """

    rtol: float = 1e-5
    atol: float = 1e-6
    max_steps: int = 1000
    first_step: float | None = None
    block: int | None = 128

    def __post_init__(self) -> None:
        check_at_least(self, 0.0, "rtol", "atol")
        if not self.rtol + self.atol > 0.0:
            raise ConfigError("DormandPrince: one of rtol and atol must be positive")
        check_count(self, "max_steps", *([] if self.block is None else ["block"]))
        if self.first_step is not None and not self.first_step > 0.0:
            raise ConfigError(f"DormandPrince: first_step must be positive or None; got {self.first_step!r}")

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
        """See :meth:`pofx.solvers.Solver.solve`; every sample stops at each time of the grid."""
        check_state(x)
        times = time_grid(x, t0, t1, grid, 1)
        many, few = (
            _Blocks(field, size, self, norm_of(field)) for size in (self.block, self.block and max(self.block // 4, 1))
        )
        front, padding = self._start(many, x, times), many.filling(len(x)) * self._starting
        path = _Path(x, len(times), keep=keep)
        front, status = self._arrive(front, times, path)
        ended, tried = [], 0
        while bool((running := status == _RUNNING).any()):
            if not bool(running.all()):
                ended.append((front.take(~running), status[~running]))
                front = front.take(running)
            blocks, tried = many if tried < _EARLY else few, tried + 1
            padding += blocks.filling(len(front.rows)) * len(_WEIGHTS)
            front, status = self._arrive(self._advance(blocks, front, times), times, path)
        return self._solution([*ended, (front, status)], padding, path.stack())

    @property
    def _starting(self) -> int:
        """Evaluations before the first step."""
        return 1 if self.first_step is not None else 2

    def _start(self, field: _Blocks, x: Tensor, times: Tensor) -> _Front:
        n, device = len(x), x.device
        index, zeros = torch.arange(n, device=device), torch.zeros(n, dtype=torch.int64, device=device)
        slope = self._checkpointed(field, times[0], x, index)
        length = (times[1] - times[0]).abs()
        given = self.first_step
        h = self._first_step(field, x, slope, times) if given is None else torch.full_like(length, given)
        retry = torch.zeros(n, dtype=torch.bool, device=device)
        return _Front(index, x, slope, times[0], zeros + 1, h, torch.full_like(length, 1e-4), retry, zeros, zeros)

    @torch.no_grad()
    def _first_step(self, field: _Blocks, x: Tensor, slope: Tensor, times: Tensor) -> Tensor:
        """Hairer, Norsett, Wanner, section II.4: the step whose error would be a hundredth of the tolerance, by a trial Euler step."""
        scale = self._scale(x.abs())
        rows = torch.arange(len(x), device=x.device)
        size, speed = field.norm(x / scale, rows).double(), field.norm(slope / scale, rows).double()
        small = (size < 1e-5) | (speed < 1e-5)
        reach = times[1] - times[0]
        trial = torch.where(small, 1e-6, 0.01 * size / speed.clamp(min=1e-300)).minimum(reach.abs())
        signed = trial * reach.sign()
        after = field(times[0] + signed, x + column(signed, x) * slope, rows)
        bend = field.norm((after - slope) / scale, rows).double() / trial.clamp(min=1e-300)
        most = speed.maximum(bend)
        h = torch.where(most <= 1e-15, (1e-3 * trial).clamp(min=1e-6), (0.01 / most.clamp(min=1e-15)) ** 0.2)
        return _coarse(h.minimum(100.0 * trial))

    def _advance(self, field: _Blocks, front: _Front, times: Tensor) -> _Front:
        """Try one step with every sample."""
        goal = times[front.goal, front.rows]
        step = _landing(front.h, goal - front.t)
        x, slope, error = self._checkpointed(self._step, field, front.rows, front.t, step, front.x, front.slope)
        check_end(x, front.t, front.rows, self)
        good = error <= 1.0
        wide = good.reshape(-1, *[1] * (x.ndim - 1))
        t = torch.where(step == goal - front.t, goal, front.t + step)
        return front._replace(
            x=torch.where(wide, x, front.x),
            slope=torch.where(wide, slope, front.slope),
            t=torch.where(good, t, front.t),
            h=step.abs() * _factor(error, front.error, good, front.retry),
            error=torch.where(good, error.clamp(min=1e-4), front.error),
            retry=~good,
            accepted=front.accepted + good,
            rejected=front.rejected + ~good,
        )

    def _step(
        self, field: _Blocks, rows: Tensor, t: Tensor, step: Tensor, x: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """State and slope after the step, and its error in units of the tolerance."""
        h, slopes, at = column(step, x), [slope], x
        for node, weights in zip(_TABLEAU.nodes[1:], _TABLEAU.matrix[1:], strict=True):
            at = x + h * combine(weights, slopes)
            slopes.append(field(t + node * step, at, rows))
        with torch.no_grad():
            scale = self._scale(x.abs().maximum(at.abs()))
            error = (
                field.norm(h * combine(_ERROR, slopes) / scale, rows)
                .double()
                .nan_to_num(nan=torch.inf, posinf=torch.inf)
            )
        return at, slopes[-1], error

    def _scale(self, size: Tensor) -> Tensor:
        """What an error is measured in."""
        return (self.atol + self.rtol * size).clamp(min=torch.finfo(size.dtype).tiny)

    def _arrive(self, front: _Front, times: Tensor, path: _Path) -> tuple[_Front, Tensor]:
        """Set the next goal of those that have reached theirs; the status of all."""
        arrived = front.t == times[front.goal, front.rows]
        path.add(front, arrived)
        goal = (front.goal + arrived).clamp(max=len(times) - 1)
        ahead = times[goal, front.rows] - front.t
        status = torch.full_like(goal, _RUNNING)
        status = torch.where(front.accepted + front.rejected >= self.max_steps, int(Status.BUDGET), status)
        status = torch.where(front.t + front.h * ahead.sign() == front.t, int(Status.STALLED), status)
        return front._replace(goal=goal), torch.where(ahead == 0.0, int(Status.OK), status)

    def _solution(self, ended: list[tuple[_Front, Tensor]], padding: int, path: Tensor | None) -> Solution:
        front = _Front(*(torch.cat(parts) for parts in zip(*(front for front, _ in ended), strict=True)))
        order = front.rows.argsort()
        front, status = front.take(order), torch.cat([status for _, status in ended])[order]
        return Solution(
            x=front.x,
            t=front.t,
            status=status,
            evaluations=self._starting + len(_WEIGHTS) * (front.accepted + front.rejected),
            accepted=front.accepted,
            rejected=front.rejected,
            padding=padding,
            path=path,
            solver=repr(self),
        )


def _landing(h: Tensor, left: Tensor) -> Tensor:
    """The signed step to try: all that is left if h nearly does it, half of it if two steps do, else h."""
    rest = left.abs()
    return left.sign() * torch.where(h >= 0.99 * rest, rest, torch.where(h >= 0.5 * rest, 0.5 * rest, h))


def _factor(error: Tensor, before: Tensor, good: Tensor, retry: Tensor) -> Tensor:
    """What the step is multiplied with."""
    error = error.clamp(min=1e-30)
    grown = (_SAFETY * error**-_ALPHA * before**_BETA).clamp(_SHRINK, _GROW)
    grown = torch.where(retry, grown.clamp(max=1.0), grown)
    return _coarse(torch.where(good, grown, (_SAFETY * error**-0.2).clamp(_SHRINK, 1.0)))


def _coarse(value: Tensor) -> Tensor:
    """The leading ten bits, so that the last bit of a power, which may depend on the position in a batch, changes no step."""
    mantissa, exponent = torch.frexp(value)
    return torch.ldexp((mantissa * 1024.0).floor() / 1024.0, exponent)
