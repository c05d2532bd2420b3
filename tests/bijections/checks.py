"""Checks that any bijection can be put through: each raises AssertionError with what went wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from pofx.bijections import Bijection, Inverse

INVERSE_TOLERANCE = 1e-9
FLOAT32_TOLERANCE = 5e-5


def check_shapes(bijection: Bijection, x: Tensor) -> None:
    """One log-Jacobian per event, in the dtype of the input, in both directions."""
    for dtype in (torch.float32, torch.float64):
        module = copy.deepcopy(bijection).to(dtype)
        z, log_jacobian = module(x.to(dtype))
        assert z.shape == x.shape
        assert log_jacobian.shape == x.shape[:1]
        assert z.dtype == log_jacobian.dtype == dtype
        back, log_inverse = module.inverse(z)
        assert back.shape == x.shape
        assert log_inverse.shape == x.shape[:1]
        assert back.dtype == log_inverse.dtype == dtype


def check_round_trip(
    bijection: Bijection, x: Tensor, distance: Callable[[Tensor, Tensor], Tensor] | None = None
) -> None:
    """In float64 ``|x' - x| <= 1e-9 (1 + 1/f')`` per column, and the two log-Jacobians cancel."""
    x = x.to(torch.float64)
    z, log_jacobian = bijection(x)
    back, log_inverse = bijection.inverse(z)
    error = (back - x).abs() if distance is None else distance(back, x)
    allowed = INVERSE_TOLERANCE * (1 + inverse_slopes(bijection, z))
    worst = (error / allowed).max().item()
    assert worst <= 1, f"inverse error is {worst:.3g} times the tolerance"
    torch.testing.assert_close(log_inverse, -log_jacobian, atol=1e-6, rtol=1e-6)


def check_round_trip_float32(bijection: Bijection, z: Tensor) -> None:
    """From latent and back in float32 where slopes are of order one: ``|f(f^-1(z)) - z| <= 5e-5``."""
    z = z.to(torch.float32)
    x, _ = bijection.inverse(z)
    again, _ = bijection(x)
    worst = (again - z).abs().max().item()
    assert worst <= FLOAT32_TOLERANCE, f"float32 round trip is off by {worst:.3g}"


def inverse_slopes(bijection: Bijection, z: Tensor) -> Tensor:
    """Sum over outputs of |dx/dz| per column and event (for an elementwise map: 1/f')."""
    z = z.detach().clone().requires_grad_()
    x, _ = bijection.inverse(z)
    return torch.stack(
        [torch.autograd.grad(x[:, j].sum(), z, retain_graph=True)[0].abs().sum(1) for j in range(x.shape[1])], 1
    )


def check_log_jacobian(bijection: Bijection, x: Tensor, tolerance: float = 1e-8) -> None:
    """The log-Jacobian agrees with log|det| of the automatic Jacobian, in both directions."""
    x = x.to(torch.float64)
    z = bijection(x)[0].detach()
    for function, at in ((bijection.forward, x), (bijection.inverse, z)):
        jacobian = torch.stack([_jacobian(function, row) for row in at])
        torch.testing.assert_close(function(at)[1], jacobian.slogdet().logabsdet, atol=tolerance, rtol=tolerance)


def _jacobian(function: Callable[[Tensor], tuple[Tensor, Tensor]], row: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda value: function(value[None])[0][0], row)


def check_finite(bijection: Bijection, x: Tensor, *, zero_density: bool = False) -> None:
    """z finite, log-Jacobian finite (or, where allowed, -inf), gradients not NaN."""
    x = x.detach().clone().requires_grad_()
    z, log_jacobian = bijection(x)
    assert z.isfinite().all(), "z is not finite"
    allowed = log_jacobian.isfinite() | (log_jacobian == -math.inf if zero_density else False)
    assert allowed.all(), "the log-Jacobian is not finite"
    (z.sum() + torch.where(log_jacobian.isfinite(), log_jacobian, 0.0).sum()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all(), "a gradient is not finite"


def check_monotone(bijection: Bijection, x: Tensor) -> None:
    """Columns of an elementwise map increase with x."""
    x = x.to(torch.float64).sort(0).values
    assert (bijection(x)[0].diff(dim=0) >= 0).all()


def check_state_dict(bijection: Bijection, fresh: Bijection, x: Tensor) -> None:
    """A freshly built one, filled by ``load_state_dict``, gives the same bits."""
    fresh.load_state_dict(bijection.state_dict())
    for a, b in zip(bijection(x), fresh(x), strict=True):
        assert torch.equal(a, b)


def check_export(bijection: Bijection, x: Tensor) -> None:
    """``torch.export`` traces both directions with any number of events, and the trace agrees."""
    z = bijection(x)[0].detach()
    for module, at in ((bijection, x), (Inverse(bijection), z)):
        program = torch.export.export(module.eval(), (at,), dynamic_shapes={"x": {0: torch.export.Dim.AUTO}})
        for rows in (at, torch.cat([at, at])[:-1]):
            for a, b in zip(program.module()(rows), module(rows), strict=True):
                torch.testing.assert_close(a, b)
