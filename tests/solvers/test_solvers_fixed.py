"""Fixed-step solvers: closed forms, orders, directions, grids, what they evaluate, and what they refuse."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from solver_problems import (
    Counted,
    linear,
    linear_solution,
    oscillator,
    oscillator_solution,
    scipy_solution,
    states,
    van_der_pol,
    waving,
    waving_solution,
)

from pofx.config import from_plain, to_plain
from pofx.errors import ConfigError, ShapeError, SolverError
from pofx.solvers import RK4, DormandPrince, Euler, Heun, Midpoint, Solver

ORDERS = {Euler: 1, Midpoint: 2, Heun: 2, RK4: 4}
STAGES = {Euler: 1, Midpoint: 2, Heun: 2, RK4: 4}


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("problem", ["linear", "oscillator", "waving"])
def test_convergence_order(kind: type, problem: str) -> None:
    """Halving the step divides the error by two to the order, forwards and backwards in time."""
    field, solution, shape = {
        "linear": (linear, linear_solution, (3,)),
        "oscillator": (oscillator, oscillator_solution, (2,)),
        "waving": (waving, waving_solution, (2, 2)),
    }[problem]
    x, steps = states(4, *shape), {1: 200, 2: 100, 4: 20}[ORDERS[kind]]
    for t0, t1 in ((0.0, 1.0), (1.0, 0.0)):
        start, end = (x, solution(x, 1.0)) if t0 < t1 else (solution(x, 1.0), x)
        error = [(kind(steps=k).solve(field, start, t0, t1).x - end).norm() for k in (steps, 2 * steps)]
        assert math.log2(error[0] / error[1]) == pytest.approx(ORDERS[kind], abs=0.15)


@pytest.mark.parametrize("kind", ORDERS)
def test_agrees_with_scipy_on_a_nonlinear_problem(kind: type) -> None:
    mu, x = torch.tensor([0.5, 2.0], dtype=torch.float64), states(2, 2)
    steps, bar = {1: (1500, 4e-2), 2: (500, 1e-3), 4: (300, 1e-6)}[ORDERS[kind]]
    found = kind(steps=steps).solve(van_der_pol(mu), x, 0.0, 3.0).check()
    assert (found.x - scipy_solution(van_der_pol(mu), x, 0.0, 3.0, "RK45")).abs().max() < bar


@pytest.mark.parametrize("kind", ORDERS)
def test_times_per_sample(kind: type) -> None:
    """Each sample has its interval and direction; one without length stays."""
    x, t0 = states(3, 2), torch.tensor([0.0, 1.0, 0.5])
    t1 = torch.tensor([1.0, 0.25, 0.5])
    together = kind(steps=7).solve(waving, x, t0, t1)
    alone = [kind(steps=7).solve(waving, x[i : i + 1], float(t0[i]), float(t1[i])).x for i in range(3)]
    assert torch.equal(together.x, torch.cat(alone))
    assert torch.equal(together.x[2], x[2])
    assert torch.equal(together.t, t1.double())


@pytest.mark.parametrize("kind", STAGES)
def test_evaluations_are_what_the_field_saw(kind: type) -> None:
    field = Counted(waving, 3)
    found = kind(steps=5).solve(field, states(3, 2), 0.0, 1.0)
    assert torch.equal(found.evaluations, field.each)
    assert found.evaluations.tolist() == [5 * STAGES[kind]] * 3
    assert found.accepted.tolist() == [5] * 3
    assert not found.rejected.any()
    assert not found.status.any()


def test_grid_gives_the_steps() -> None:
    """Two Euler steps of unequal length, by hand; per sample too; states at the grid's times on demand."""
    x = torch.ones(2, 1, dtype=torch.float64)
    found = Euler(steps=1).solve(lambda t, x, rows: x * t[:, None], x, 1.0, 0.0, grid=[1.0, 0.75, 0.0], keep=True)
    by_hand = [1.0, 0.75, 0.75 - 0.75 * 0.75 * 0.75]
    assert found.path is not None
    assert found.path[:, 0, 0].tolist() == by_hand
    assert found.accepted.tolist() == [2, 2]
    each = torch.tensor([[1.0, 0.75, 0.0], [1.0, 0.5, 0.0]])
    other = Euler(steps=1).solve(lambda t, x, rows: x * t[:, None], x, 1.0, 0.0, grid=each)
    assert other.x.flatten().tolist() == [by_hand[2], 0.5 - 0.5 * 0.5 * 0.5]


def test_edm_sampler_is_heun_on_a_grid() -> None:
    """Algorithm 1 of arXiv:2206.00364 by hand, with the exact denoiser of normal data; the field is singular at t = 0."""
    width, sigma = 0.5, [80.0, 20.0, 5.0, 1.0, 0.2, 0.0]
    x = 80.0 * states(4, 3)

    def denoise(x: Any, s: float) -> Any:
        return x * width**2 / (width**2 + s**2)

    y = x
    for s, after in pairwise(sigma):
        d = (y - denoise(y, s)) / s
        moved = y + (after - s) * d
        if after:
            moved = y + (after - s) * 0.5 * (d + (moved - denoise(moved, after)) / after)
        y = moved

    def field(t: torch.Tensor, x: torch.Tensor, rows: Any) -> torch.Tensor:
        s = t[:, None]
        return (x - x * width**2 / (width**2 + s**2)) / s

    found = Heun(steps=1, euler_end=True).solve(field, x, 80.0, 0.0, grid=sigma)
    assert (found.x - y).abs().max() < 1e-12
    assert found.evaluations.tolist() == [9] * 4
    with pytest.raises(SolverError, match="at t = 0 for sample 0"):
        Heun(steps=1).solve(field, x, 80.0, 0.0, grid=sigma)


@pytest.mark.parametrize("solver", [Heun(steps=40), RK4(steps=40), DormandPrince(rtol=1e-8, atol=1e-8)])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradients(solver: Solver, checkpoint: bool) -> None:
    """dx/dt = -a x: derivatives by x0 and by a have closed forms; a checkpoint changes no bit of them."""
    rate = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    x = states(4, 2).requires_grad_()
    solver = type(solver)(**{**vars(solver), "checkpoint": checkpoint})
    end = solver.solve(lambda t, x, rows: -rate * x, x, 0.0, 1.0).check().x
    by_x, by_rate = torch.autograd.grad(end.sum(), [x, rate])
    bar = 1e-3 if isinstance(solver, Heun) else 1e-6
    assert (by_x - (-rate).exp()).abs().max() < bar
    assert (by_rate + (x * (-rate).exp()).sum(0)).abs().max() < bar


@pytest.mark.parametrize("kind", [Euler, Heun, RK4, DormandPrince])
def test_gradients_agree_with_finite_differences(kind: type) -> None:
    """Through a network; steps of the adaptive solver come from the grid, so that they are the same on both sides."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    solver = kind(rtol=1.0, atol=1.0) if kind is DormandPrince else kind(steps=4)
    x = states(3, 2)

    def loss(checkpoint: bool = False) -> torch.Tensor:
        one = type(solver)(**{**vars(solver), "checkpoint": checkpoint})
        grid = torch.linspace(0.0, 1.0, 5)
        field = lambda t, x, rows: net(torch.cat([x, t[:, None]], 1))  # noqa: E731
        return one.solve(field, x, 0.0, 1.0, grid=grid).x.square().sum()

    parameters = list(net.parameters())
    plain, checked = (torch.autograd.grad(loss(checkpoint), parameters) for checkpoint in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain, checked, strict=True))
    weight = parameters[0].data
    for i, j in ((0, 0), (3, 2), (7, 1)):
        kept = float(weight[i, j])
        with torch.no_grad():
            sides = []
            for shift in (1e-5, -1e-5):
                weight[i, j] = kept + shift
                sides.append(float(loss()))
            weight[i, j] = kept
        assert float(plain[0][i, j]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("solver", [Euler(steps=3), Midpoint(steps=3), Heun(steps=3), RK4(steps=3), DormandPrince()])
def test_nan_raises_with_time_and_sample(solver: Solver) -> None:
    """At once: the field is not called again."""
    calls = []

    def field(t: torch.Tensor, x: torch.Tensor, rows: Any) -> torch.Tensor:
        bad = (torch.arange(4)[rows] == 2) & (t > 0.3)
        calls.append(bool(bad.any()))
        return torch.where(bad[:, None], torch.nan, -x)

    with pytest.raises(SolverError, match=r"the field is nan at t = 0\.\d+ for sample 2"):
        solver.solve(field, states(4, 2), 0.0, 1.0)
    assert calls.count(True) == 1
    with pytest.raises(SolverError, match="inf"):
        solver.solve(lambda t, x, rows: x + torch.inf, torch.ones(2, 1), 0.0, 1.0)


@pytest.mark.parametrize("solver", [Euler(steps=3), RK4(steps=3), DormandPrince(first_step=0.5)])
def test_overflow_of_the_state_raises(solver: Solver) -> None:
    with pytest.raises(SolverError, match="state is inf"):
        solver.solve(lambda t, x, rows: torch.full_like(x, 3e38), torch.full((1, 1), 3e38), 0.0, 1.0)


def test_what_is_refused() -> None:
    x = states(3, 2)
    for wrong in (0, 2.5, -1, True):
        with pytest.raises(ConfigError, match="steps"):
            Euler(steps=wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="shape of x"):
        Euler(steps=1).solve(lambda t, x, rows: x[:, :1], x, 0.0, 1.0)
    with pytest.raises(ShapeError, match="one time or one per sample"):
        Euler(steps=1).solve(waving, x, 0.0, torch.ones(2))
    with pytest.raises(ShapeError, match="floating-point"):
        Euler(steps=1).solve(waving, torch.ones(3, 2, dtype=torch.int64), 0.0, 1.0)
    with pytest.raises(SolverError, match="1 of 3 samples are not, the first is 1"):
        Euler(steps=1).solve(waving, torch.where(torch.arange(3)[:, None] == 1, torch.nan, x), 0.0, 1.0)
    with pytest.raises(ConfigError, match="finite times"):
        Euler(steps=1).solve(waving, x, 0.0, math.inf)
    for grid, why in (([0.0, 0.5], "from t0 to t1"), ([0.0, 0.7, 0.7, 1.0], "turning"), ([0.0, math.nan, 1.0], "NaN")):
        with pytest.raises(ConfigError, match=why):
            Euler(steps=1).solve(waving, x, 0.0, 1.0, grid=grid)
    with pytest.raises(ShapeError, match=r"shape \(k \+ 1,\)"):
        Euler(steps=1).solve(waving, x, 0.0, 1.0, grid=torch.zeros(2, 2))


@pytest.mark.parametrize(
    "solver",
    [
        Euler(steps=2),
        Midpoint(steps=3),
        Heun(steps=18, euler_end=True),
        RK4(steps=4, checkpoint=True),
        DormandPrince(rtol=1e-3, first_step=0.1, block=None),
    ],
)
def test_settings_survive_a_saved_model(solver: Solver) -> None:
    assert from_plain(to_plain(solver)) == solver


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", [Heun(steps=5), DormandPrince()])
def test_precision_follows_the_states(solver: Solver, dtype: torch.dtype) -> None:
    seen = set()

    def field(t: torch.Tensor, x: torch.Tensor, rows: Any) -> torch.Tensor:
        seen.update((t.dtype, x.dtype))
        return -x

    found = solver.solve(field, torch.ones(2, 3, dtype=dtype), 1.0, 0.0)
    assert seen == {dtype}
    assert found.x.dtype == dtype


def test_fixed_steps_export() -> None:
    """A sampler with fixed steps is a graph of its noise."""

    class Sampler(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(2, 2)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return Heun(steps=2).solve(lambda t, x, rows: self.net(x) * t[:, None], z, 1.0, 0.0).check().x

    module, z = Sampler(), torch.randn(5, 2)
    exported = torch.export.export(module, (z,), dynamic_shapes=({0: torch.export.Dim("n")},))
    assert torch.allclose(exported.module()(z[:3]), module(z[:3]), atol=1e-6)
