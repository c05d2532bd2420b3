r"""Markov chains that leave :math:`\exp(-E(x))` alone: Hamiltonian and Langevin dynamics whose noise is an input (arXiv:1206.1901).

One step draws a momentum p ~ N(0, 1), follows :math:`H = E(x) + p^2 / 2` by L leapfrogs of size h,

.. math:: p \leftarrow p - \tfrac{h}{2} \nabla E(x), \quad x \leftarrow x + h p, \quad p \leftarrow p - \tfrac{h}{2} \nabla E(x),

and takes the end with probability :math:`\min(1, e^{H - H'})`, which makes up for the error of the leapfrogs. With L = 1 this is the
Metropolis-adjusted Langevin algorithm (Roberts, Tweedie, Bernoulli 2 (1996) 341) of step :math:`\epsilon = h^2 / 2`; without the
acceptance, unadjusted Langevin dynamics, whose stationary density is wrong by an amount that vanishes with h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pofx.errors import ConfigError
from pofx.solvers.base import column, flat

__all__ = ["Energy", "State", "adapted", "evaluate", "hamiltonian_step"]

Energy = Callable[[Tensor], Tensor]
"""States ``(n, *shape)`` to energies ``(n,)``, row by row."""


class State(NamedTuple):
    """States ``(n, *shape)``, their energies ``(n,)``, and the gradients there."""

    x: Tensor
    energy: Tensor
    gradient: Tensor


def evaluate(energy: Energy, x: Tensor) -> State:
    """The state at x, whether gradients are being recorded or not; differentiable if they are.

    >>> with torch.no_grad():
    ...     evaluate(lambda x: (x**2).sum(1), torch.tensor([[1.0, 2.0]])).gradient
    tensor([[2., 4.]])
    """
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        place = x if recorded and x.requires_grad else x.detach().requires_grad_()
        value = energy(place)
        (gradient,) = torch.autograd.grad(value.sum(), place, create_graph=recorded)
    return State(x, value if recorded else value.detach(), gradient)


def hamiltonian_step(
    energy: Energy,
    state: State,
    step: Tensor | float,
    momentum: Tensor,
    uniform: Tensor | None,
    *,
    leapfrogs: int = 1,
    wrap: Callable[[Tensor], Tensor] | None = None,
) -> tuple[State, Tensor]:
    """One step of every chain: the states after it, and the probabilities ``(n,)`` with which its proposals were taken.

    Differentiable in x, momentum and what the energy holds, along the proposals as they were taken; the decision itself has no gradient.

    Parameters
    ----------
    energy : E; state : from :func:`evaluate`, or from the step before.
    step : h, one number or ``(n,)``.
    momentum : standard normal ``(n, *shape)``; zero where nothing shall move (padding).
    uniform : in (0, 1), ``(n,)``, decides; None takes every proposal.
    leapfrogs : L.
    wrap : puts states back into their range (angles).

    >>> normal = lambda x: 0.5 * (x**2).sum(1)
    >>> with torch.no_grad():
    ...     start = evaluate(normal, torch.ones(1, 2))
    ...     state, taken = hamiltonian_step(normal, start, 0.1, torch.zeros(1, 2), torch.ones(1) / 2)
    >>> state.x
    tensor([[0.9950, 0.9950]])
    """
    if leapfrogs < 1:
        raise ConfigError(f"leapfrogs must be at least 1; got {leapfrogs}")
    h = column(step, state.x) if isinstance(step, Tensor) and step.ndim else step
    moved, p = state, momentum
    for _ in range(leapfrogs):
        p = p - 0.5 * h * moved.gradient
        x = moved.x + h * p
        moved = evaluate(energy, x if wrap is None else wrap(x))
        p = p - 0.5 * h * moved.gradient
    log_ratio = state.energy - moved.energy + 0.5 * flat(momentum.square() - p.square()).sum(1)
    taken = log_ratio.detach().clamp(max=0.0).exp().nan_to_num(0.0)
    if uniform is None:
        return moved, taken
    yes = uniform < taken
    kept = (torch.where(_beside(yes, new), new, old) for new, old in zip(moved, state, strict=True))
    return State(*kept), taken


def adapted(log_step: Tensor, taken: Tensor, target: float, rate: float = 1.0) -> Tensor:
    """log h after a look at the acceptance ``(n,)``: larger if more than the target share of proposals was taken.

    >>> adapted(torch.tensor(0.0), torch.ones(10), 0.75)
    tensor(0.2500)
    """
    return log_step + rate * (taken.mean() - target)


def _beside(yes: Tensor, value: Tensor) -> Tensor:
    """``(n,)`` in a shape that goes with the value's."""
    return yes.reshape(-1, *[1] * (value.ndim - 1))
