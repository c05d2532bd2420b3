r"""Log-densities along an ODE (instantaneous change of variables, arXiv:1806.07366).

If x follows :math:`dx/dt = v(t, x)`, then :math:`d \log p(t, x(t)) / dt = -\nabla \cdot v`, so the map from x(t0) to x(t1) has

.. math:: \log \left| \frac{\partial x(t_1)}{\partial x(t_0)} \right| = \int_{t_0}^{t_1} \nabla \cdot v \, dt , \qquad
          \log p_0(x(0)) = \log p_1(x(1)) + \int_0^1 \nabla \cdot v \, dt .

The integral is solved together with x, and steps are small enough for both. The divergence is exact (one vector-Jacobian product per
number of an event), or Hutchinson's unbiased estimate, the mean of :math:`\epsilon^T (\partial v / \partial x) \epsilon` over probes of
unit covariance that stay the same along the path (arXiv:1810.01367); several probes give its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.solvers.base import Norm, Rows, Solution, Solver, Times, VelocityField, flat, norm_of
from pofx.solvers.noise import NoiseSource

__all__ = [
    "LogDensity",
    "Transport",
    "exact_divergence",
    "log_density_ode",
    "probe_divergence",
    "rademacher",
    "transport",
]

_COLUMNS = 64
"""Vector-Jacobian products at once."""


@dataclass(frozen=True)
class Transport:
    """Where the samples end, and how much the map stretches there.

    Attributes
    ----------
    x : states at t1, ``(n, *shape)``.
    log_jacobian : log|dx(t1)/dx(t0)|, ``(n,)``.
    error : standard error of ``log_jacobian`` over the probes, ``(n,)``: zero for the exact trace, None for a single probe. It does not
        contain the solver's error, which the tolerance limits.
    solution : what the solver returned, for states and integrals together.
    """

    x: Tensor
    log_jacobian: Tensor
    error: Tensor | None
    solution: Solution


@dataclass(frozen=True)
class LogDensity(Transport):
    """A transport to the base density, and the log-density of what it started from, ``log_prob``, ``(n,)``, with the same error."""

    log_prob: Tensor


def log_density_ode(
    field: VelocityField,
    x: Tensor,
    base: Callable[[Tensor], Tensor],
    *,
    solver: Solver,
    t0: Times = 0.0,
    t1: Times = 1.0,
    trace: str = "exact",
    probes: Tensor | None = None,
) -> LogDensity:
    """Log-density of ``x`` at t0 if ``base``, ``(n, *shape)`` to ``(n,)``, is that of the states at t1; the rest is of :func:`transport`.

    >>> import torch
    >>> from pofx.solvers import DormandPrince
    >>> normal = torch.distributions.Normal(0.0, 1.0)
    >>> x = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    >>> base = lambda z: normal.log_prob(z).sum(-1)
    >>> found = log_density_ode(lambda t, x, rows: 2.0 * x, x, base, solver=DormandPrince(rtol=1e-8, atol=1e-8))
    >>> truth = base(math.exp(2.0) * x) + 4.0  # x is normal with width exp(-2)
    >>> bool((found.log_prob - truth).abs() < 1e-4)
    True
    """
    moved = transport(field, x, t0, t1, solver=solver, trace=trace, probes=probes)
    log_prob = base(moved.x) + moved.log_jacobian
    return LogDensity(moved.x, moved.log_jacobian, moved.error, moved.solution, log_prob)


def transport(
    field: VelocityField,
    x: Tensor,
    t0: Times,
    t1: Times,
    *,
    solver: Solver,
    trace: str = "exact",
    probes: Tensor | None = None,
    grid: Tensor | Sequence[float] | None = None,
) -> Transport:
    """Integrate x from t0 to t1 with the logarithm of the map's Jacobian, differentiably.

    Parameters
    ----------
    field : must let gradients through to its argument x. Where it is zero (padded points of a cloud), nothing is added.
    trace : ``"exact"``, whose cost grows with the numbers per event (made for up to about 64), or ``"hutchinson"``.
    probes : of ``"hutchinson"``: ``(n, probes, *shape)``, such as :func:`rademacher` gives.

    Raises
    ------
    SolverError
        The field is not finite, or a sample did not reach t1.
    CapabilityError
        The field's result does not depend on x, as far as autograd can see.
    """
    size = math.prod(x.shape[1:])
    augmented = _Augmented(field, _divergence(trace, probes, x), x.shape[1:], norm_of(field))
    start = torch.cat([flat(x), x.new_zeros(x.shape[0], 1 if probes is None else probes.shape[1])], 1)
    with torch.set_grad_enabled(_wanted(field, x, t0)):
        solution = solver.solve(augmented, start, t0, t1, grid=grid).check()
    end, integrals = solution.x[:, :size].reshape(x.shape), solution.x[:, size:]
    return Transport(end, integrals.mean(1), _standard_error(integrals, trace), solution)


@dataclass(frozen=True)
class _Augmented:
    """Velocity and divergence, side by side: the field of the flat state and its integrals."""

    field: VelocityField
    divergence: Callable[..., tuple[Tensor, Tensor]]
    shape: torch.Size
    norm_of_state: Norm

    def __call__(self, t: Tensor, state: Tensor, rows: Rows) -> Tensor:
        velocity, change = self.divergence(self.field, t, self._state(state), rows)
        return torch.cat([flat(velocity), change], 1)

    def norm(self, scaled: Tensor, rows: Rows) -> Tensor:
        """The error of the state or of its worst integral: many numbers of x do not hide the integral's error."""
        integrals = scaled[:, math.prod(self.shape) :].abs().amax(1)
        return self.norm_of_state(self._state(scaled), rows).maximum(integrals)

    def _state(self, both: Tensor) -> Tensor:
        return both[:, : math.prod(self.shape)].reshape(both.shape[0], *self.shape)


def rademacher(noise: NoiseSource, count: int, *shape: int, name: str = "probe") -> Tensor:
    """Probes of +1 and -1 with equal probability for every event, ``(n, count, *shape)``."""
    return torch.where(noise.normal(name, count, *shape) < 0.0, -1.0, 1.0)


def exact_divergence(
    field: VelocityField, t: Tensor, x: Tensor, rows: Rows, columns: int = _COLUMNS
) -> tuple[Tensor, Tensor]:
    """The field and its divergence, ``(m, *shape)`` and ``(m, 1)``: the diagonal of the Jacobian, ``columns`` rows of it at a time."""
    size = math.prod(x.shape[1:])
    basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        velocity, x = _recorded(field, t, x, rows)
        change = x.new_zeros(x.shape[0], 1)
        for part in basis.split(columns):
            product = _products(velocity, x, part.expand(-1, *x.shape), record)
            change = change + (product * part).reshape(len(part), x.shape[0], size).sum((0, 2))[:, None]
    return (velocity, change) if record else (velocity.detach(), change.detach())


def probe_divergence(probes: Tensor, field: VelocityField, t: Tensor, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """The field and one estimate of its divergence per probe, ``(m, *shape)`` and ``(m, probes)``."""
    probe = probes[rows].to(x.dtype).transpose(0, 1)
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        velocity, x = _recorded(field, t, x, rows)
        product = _products(velocity, x, probe, record)
        change = (product * probe).reshape(*probe.shape[:2], -1).sum(-1).T
    return (velocity, change) if record else (velocity.detach(), change.detach())


def _wanted(field: VelocityField, x: Tensor, t0: Times) -> bool:
    """Whether gradients are wanted, of x or of what the field holds; one sample tells (divergences need a graph of their own)."""
    if x.requires_grad or not torch.is_grad_enabled():
        return torch.is_grad_enabled()
    t = torch.as_tensor(t0, dtype=x.dtype, device=x.device).detach().expand(x.shape[0])
    return field(t[:1], x[:1], slice(0, 1)).requires_grad


def _divergence(trace: str, probes: Tensor | None, x: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    if trace not in ("exact", "hutchinson"):
        raise ConfigError(f"expected trace='exact' or 'hutchinson'; got {trace!r}")
    if (probes is None) != (trace == "exact"):
        raise ConfigError("trace='hutchinson' needs probes, and trace='exact' takes none")
    if probes is None:
        return exact_divergence
    if probes.ndim < 2 or probes.shape[:1] + probes.shape[2:] != x.shape or not probes.shape[1]:
        wanted = ", ".join(map(str, ("probes", *x.shape[1:])))
        raise ShapeError(f"expected probes of shape ({x.shape[0]}, {wanted}); got {tuple(probes.shape)}")
    return partial(probe_divergence, probes)


def _recorded(field: VelocityField, t: Tensor, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """The field, and the x that it can be differentiated by."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    velocity = field(t, x, rows)
    if velocity.shape != x.shape:
        raise ShapeError(f"expected a field of the shape of x, {tuple(x.shape)}; got {tuple(velocity.shape)}")
    return velocity, x


def _products(velocity: Tensor, x: Tensor, vectors: Tensor, record: bool) -> Tensor:
    """Vector-Jacobian products with vectors ``(k, m, *shape)``, of their shape."""
    try:
        (found,) = torch.autograd.grad(
            velocity, x, vectors, is_grads_batched=True, create_graph=record, retain_graph=True
        )
    except RuntimeError as error:
        if velocity.requires_grad and "not have been used" not in str(error):
            raise
        raise CapabilityError(
            "the divergence needs a field that is differentiable in x; this one's result does not depend on x (is it evaluated "
            "under no_grad, or is x detached? A field that is constant indeed must say so: v + 0.0 * x)"
        ) from error
    return found


def _standard_error(integrals: Tensor, trace: str) -> Tensor | None:
    count = integrals.shape[1]
    if trace == "exact":
        return torch.zeros_like(integrals[:, 0])
    return None if count == 1 else integrals.std(1) / math.sqrt(count)
