r"""The contract of every ODE solver: :math:`dx/dt = v(t, x)` from t0 to t1, one time interval and one status per sample.

A field is called as ``field(t, x, rows)``. A solver may evaluate some samples only, so ``rows`` says which ones of the batch given to
``solve`` they are: a slice or an int64 tensor, made to select what belongs to them, ``context[rows]``. In pofx t = 0 is data and t = 1 is
noise, and a solver runs in either direction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pofx.errors import ConfigError, ShapeError, SolverError

__all__ = ["Norm", "Rows", "Solution", "Solver", "Status", "Times", "VelocityField"]

Rows = slice | Tensor
"""Which samples of the batch: ``slice(None)`` for all of them in order, or int64 numbers ``(m,)``; ``context[rows]`` works with both."""

Times = float | Tensor
"""One time for all samples, or one per sample, ``(n,)``. Not differentiated."""

Norm = Callable[[Tensor, Rows], Tensor]
"""Errors in units of the tolerance, ``(m, *shape)``, and rows to one number per sample, ``(m,)``; at most one is within tolerance."""


class VelocityField(Protocol):
    """The right-hand side. A row of the result depends on the same row of the arguments alone.

    A field may have a method ``norm(scaled, rows)``, a :data:`Norm`, that says how an adaptive solver sums up the errors of a sample; by
    default that is the root of their mean square.
    """

    def __call__(self, t: Tensor, x: Tensor, rows: Rows, /) -> Tensor:
        """dx/dt, of the shape of ``x``: ``t`` is ``(m,)``, ``x`` is ``(m, *shape)``, ``rows`` chooses m samples of the batch."""


class Status(IntEnum):
    """How a sample ended."""

    OK = 0
    BUDGET = 1
    STALLED = 2


_REASONS = {
    Status.BUDGET: "the step budget is spent: raise max_steps or loosen rtol and atol",
    Status.STALLED: "the step became too small to change the time: the field is not smooth, or the tolerance is below rounding",
}


@dataclass(frozen=True)
class Solution:
    """The end of an integration.

    Attributes
    ----------
    x : states at the end, ``(n, *shape)``; of a sample that failed, the last state it reached.
    t : times reached, ``(n,)`` float64.
    status : a :class:`Status` per sample, ``(n,)``.
    evaluations : how many times the field was evaluated for each sample, ``(n,)``.
    accepted, rejected : steps per sample, ``(n,)``.
    padding : rows evaluated beside them to fill blocks; the field has seen ``evaluations.sum() + padding`` rows.
    path : with ``keep=True``, the states at the times of the grid, ``(times, n, *shape)``; NaN where a sample did not arrive.
    solver : its settings, in words.
    """

    x: Tensor
    t: Tensor
    status: Tensor
    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor
    padding: int = 0
    path: Tensor | None = None
    solver: str = ""

    def check(self) -> Solution:
        """Return itself, or raise SolverError with the number of samples that failed and the first ones."""
        if is_traced() or not bool(self.status.any()):
            return self
        failed = self.status.nonzero().flatten().tolist()
        first = ", ".join(f"sample {i} at t = {float(self.t[i]):.6g}" for i in failed[:5])
        reasons = {_REASONS[Status(int(self.status[i]))] for i in failed}
        raise SolverError(
            f"{self.solver}: {len(failed)} of {len(self.x)} samples did not reach the end ({first}{', ...' if failed[5:] else ''}); "
            + "; ".join(sorted(reasons))
        )


@dataclass(frozen=True)
class Solver(ABC):
    """A way to integrate, given by a frozen config.

    Parameters
    ----------
    checkpoint : keep only the states between steps for the backward pass and evaluate the field again there: the same gradient with
        less memory (arXiv:1604.06174).
    """

    checkpoint: bool = field(default=False, kw_only=True)

    @abstractmethod
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
        """Integrate ``x`` of shape ``(n, *shape)`` from t0 to t1, in either direction, differentiably in x and what the field holds.

        Parameters
        ----------
        grid : times from t0 to t1, ``(k + 1,)`` or ``(n, k + 1)``: the steps of a fixed-step solver, stops of an adaptive one.
        keep : keep the states at the times of the grid in ``Solution.path``.

        Raises
        ------
        SolverError
            The field is NaN or infinite; the message has the time and the sample. A spent budget does not raise here but in
            :meth:`Solution.check`.
        ShapeError, ConfigError
            x, the field's result, t0, t1 or the grid do not fit together.
        """

    def _checkpointed(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call it, under a checkpoint where that is wanted and gradients are recorded."""
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)


def check_count(owner: object, *names: str, least: int = 1) -> None:
    """Raise ConfigError unless each named attribute is an integer of at least 1 (or of ``least``)."""
    for name in names:
        value = getattr(owner, name)
        if type(value) is not int or value < least:
            raise ConfigError(f"{type(owner).__name__}: {name} must be an integer of at least {least}; got {value!r}")


def is_traced() -> bool:
    """Whether this runs to be exported or compiled, where nothing may depend on values."""
    return torch.compiler.is_compiling()


def check_state(x: Tensor) -> None:
    """Raise unless x is a batch of finite numbers."""
    if x.ndim < 1 or not x.is_floating_point():
        raise ShapeError(
            f"expected floating-point states of shape (n, *shape); got {x.dtype} of shape {tuple(x.shape)}"
        )
    if not is_traced() and not bool(torch.isfinite(x).all()):
        bad = (~flat(torch.isfinite(x))).any(1).nonzero().flatten()
        raise SolverError(
            f"expected finite states to start from; {len(bad)} of {x.shape[0]} samples are not, the first is {int(bad[0])}"
        )


def evaluate(field: VelocityField, t: Tensor, x: Tensor, rows: Rows, owner: object) -> Tensor:
    """The field at ``t`` (float64, ``(m,)``), checked for its shape and for NaN and infinity."""
    slope = field(t.to(x.dtype), x, rows)
    if slope.shape != x.shape:
        raise ShapeError(f"expected a field of the shape of x, {tuple(x.shape)}; got {tuple(slope.shape)}")
    if not is_traced() and not bool(torch.isfinite(slope).all()):
        raise _not_finite(slope, t, rows, owner)
    return slope.to(x.dtype)


def check_end(x: Tensor, t: Tensor, rows: Rows, owner: object) -> None:
    """Raise if a step has led to NaN or infinity though the field was finite."""
    if not is_traced() and not bool(torch.isfinite(x).all()):
        raise _not_finite(x, t, rows, owner, "state")


def _not_finite(values: Tensor, t: Tensor, rows: Rows, owner: object, what: str = "field") -> SolverError:
    values = flat(values.detach())
    bad = (~torch.isfinite(values)).any(1).nonzero().flatten()
    first = int(bad[0])
    worst = values[first][~torch.isfinite(values[first])][0]
    sample = first if isinstance(rows, slice) else int(rows[first])
    return SolverError(
        f"{type(owner).__name__}: the {what} is {float(worst)} at t = {float(t[first]):.6g} for sample {sample} "
        f"({len(bad)} of {values.shape[0]} rows evaluated together are not finite)"
    )


def time_grid(x: Tensor, t0: Times, t1: Times, grid: Tensor | Sequence[float] | None, steps: int) -> Tensor:
    """Times of the steps, float64 of shape ``(steps + 1, n)``: uniform from t0 to t1, or those given."""
    start, stop = (_per_sample(t, x.shape[0], x.device, name) for t, name in ((t0, "t0"), (t1, "t1")))
    if grid is None:
        share = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64, device=x.device)[:, None]
        return (start * (1.0 - share) + stop * share).expand(-1, x.shape[0])
    times = torch.as_tensor(grid, dtype=torch.float64, device=x.device).detach()
    if times.ndim not in (1, 2) or times.shape[-1] < 2 or (times.ndim == 2 and len(times) != x.shape[0]):
        raise ShapeError(
            f"expected a grid of shape (k + 1,) or ({x.shape[0]}, k + 1), k >= 1; got {tuple(times.shape)}"
        )
    times = times.T if times.ndim == 2 else times[:, None].expand(-1, x.shape[0])
    if not is_traced():
        _check_grid(times, start, stop)
    return times


def _per_sample(t: Times, n: int, device: torch.device, name: str) -> Tensor:
    times = torch.as_tensor(t, dtype=torch.float64, device=device).detach()
    if times.shape not in ((), (n,)):
        raise ShapeError(f"expected {name} as one time or one per sample, ({n},); got shape {tuple(times.shape)}")
    if not is_traced() and not bool(torch.isfinite(times).all()):
        raise ConfigError(f"expected finite times; {name} has NaN or infinity")
    return times


def _check_grid(times: Tensor, start: Tensor, stop: Tensor) -> None:
    if not bool(torch.isfinite(times).all()):
        raise ConfigError("expected finite times; the grid has NaN or infinity")
    ends = torch.stack([times[0] - start, times[-1] - stop]).abs()
    if bool((ends > 1e-6 * (times[0] - times[-1]).abs()).any()):
        raise ConfigError("expected a grid from t0 to t1; its first or last time is another one")
    steps = times.diff(dim=0) * (stop - start).sign()
    if bool((steps <= 0.0).any()):
        raise ConfigError("expected a grid that goes from t0 to t1 without stopping or turning back")


def flat(x: Tensor) -> Tensor:
    """``(n, *shape)`` as ``(n, size)``."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def root_mean_square(scaled: Tensor, _rows: Rows) -> Tensor:
    """Root of the mean square over the numbers of each sample."""
    return flat(scaled).square().mean(1).sqrt()


def norm_of(field: VelocityField) -> Norm:
    """The norm that the field asks for, or the root of the mean square."""
    found: Norm = getattr(field, "norm", root_mean_square)
    return found


def column(value: Tensor, x: Tensor) -> Tensor:
    """One number per sample, to be multiplied with x."""
    return value.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
