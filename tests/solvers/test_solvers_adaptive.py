"""Dormand-Prince per sample: accuracy, steps of its own for each sample, independence of the batch, budgets, what it evaluates."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from solver_problems import (
    Counted,
    linear,
    linear_solution,
    lotka_volterra,
    oscillator,
    oscillator_solution,
    scipy_solution,
    states,
    van_der_pol,
    waving,
    waving_solution,
)

from pofx.errors import ConfigError, SolverError
from pofx.solvers import DormandPrince, MaskedField, Status

TIGHT = DormandPrince(rtol=1e-10, atol=1e-12, max_steps=10_000)


@pytest.mark.parametrize("forwards", [True, False])
@pytest.mark.parametrize("problem", ["linear", "oscillator", "waving"])
def test_closed_forms(problem: str, forwards: bool) -> None:
    field, solution, shape = {
        "linear": (linear, linear_solution, (3,)),
        "oscillator": (oscillator, oscillator_solution, (2,)),
        "waving": (waving, waving_solution, (2, 2)),
    }[problem]
    x, end = states(5, *shape), solution(states(5, *shape), 3.0)
    found = TIGHT.solve(field, x, 0.0, 3.0) if forwards else TIGHT.solve(field, end, 3.0, 0.0)
    assert (found.check().x - (end if forwards else x)).abs().max() < 1e-8


def test_order_of_the_steps() -> None:
    """With a tolerance that accepts everything the grid gives the steps: order 5."""
    x, loose = states(4, 2), DormandPrince(rtol=1e9, atol=1e9, first_step=1e9)
    errors = []
    for steps in (24, 48):
        found = loose.solve(waving, x, 0.0, 2.0, grid=torch.linspace(0.0, 2.0, steps + 1))
        assert found.accepted.tolist() == [steps] * 4
        errors.append((found.x - waving_solution(x, 2.0)).norm())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize("method", ["RK45", "DOP853"])
def test_agrees_with_scipy(method: str) -> None:
    mu = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    x = states(3, 2)
    found = TIGHT.solve(van_der_pol(mu), x, 0.0, 3.0).check().x
    assert (found - scipy_solution(van_der_pol(mu), x, 0.0, 3.0, method)).abs().max() < 1e-7
    x = 1.0 + states(3, 2).abs()
    found = TIGHT.solve(lotka_volterra, x, 0.0, 2.0).check().x
    assert (found - scipy_solution(lotka_volterra, x, 0.0, 2.0, method)).abs().max() < 1e-7


def test_steps_like_those_of_scipy() -> None:
    """The same method at the same tolerance takes about as many steps as scipy's RK45, with an error as small."""
    from scipy.integrate import solve_ivp

    mu, x = torch.tensor([3.0], dtype=torch.float64), torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    field = van_der_pol(mu)
    ours = DormandPrince(rtol=1e-6, atol=1e-6).solve(field, x, 0.0, 10.0).check()
    theirs = solve_ivp(
        lambda t, y: [y[1], 3.0 * (1.0 - y[0] ** 2) * y[1] - y[0]], (0.0, 10.0), [2.0, 0.0], rtol=1e-6, atol=1e-6
    )
    assert int(ours.evaluations) < 1.1 * theirs.nfev
    exact = scipy_solution(field, x, 0.0, 10.0)
    assert (ours.x - exact).abs().max() < 2.0 * abs(theirs.y[:, -1] - exact.numpy()).max()


@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-7])
def test_every_sample_keeps_its_tolerance(rtol: float) -> None:
    """Decay with rates over four orders of magnitude: each is as exact as the tolerance says, and costs what it costs alone."""
    rate = torch.logspace(-1, 3, 30, dtype=torch.float64)[:, None]
    x = torch.ones(30, 2, dtype=torch.float64)
    solver = DormandPrince(rtol=rtol, atol=rtol, max_steps=5000)
    found = solver.solve(lambda t, x, rows: rate[rows] * (t.cos()[:, None] - x), x, 0.0, 1.0).check()
    a, t = rate, 1.0
    slow = a * (a * math.cos(t) + math.sin(t)) / (a**2 + 1.0)
    exact = (x - a**2 / (a**2 + 1.0)) * (-a * t).exp() + slow
    assert (found.x - exact).abs().max() < 5.0 * rtol
    assert found.accepted[-1] > 10 * found.accepted[0]


def net(seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.SiLU(), torch.nn.Linear(64, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_do_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    """Bit for bit: alone, among others, in another order, among harder ones; steps and evaluations too."""
    module, x, context = net().to(dtype), states(300, 3).to(dtype), 3.0 * states(300, 1, seed=2).exp().to(dtype)
    solver = DormandPrince(rtol=1e-4, atol=1e-5)

    def solve(chosen: torch.Tensor) -> Any:
        c = context[chosen]
        field = lambda t, x, rows: c[rows] * module(torch.cat([x, t[:, None]], 1))  # noqa: E731
        with torch.no_grad():
            return solver.solve(field, x[chosen], 1.0, 0.0).check()

    whole = solve(torch.arange(300))
    assert len(whole.accepted.unique()) > 3
    for chosen in (torch.tensor([17]), torch.arange(100, 103), torch.arange(40, 259), torch.arange(299, -1, -1)):
        part = solve(chosen)
        assert torch.equal(part.x, whole.x[chosen])
        assert torch.equal(part.evaluations, whole.evaluations[chosen])


def test_without_blocks_results_agree_to_rounding() -> None:
    x, module = states(50, 3), net().double()
    field = lambda t, x, rows: 5.0 * module(torch.cat([x, t[:, None]], 1))  # noqa: E731
    with torch.no_grad():
        a = DormandPrince(block=None).solve(field, x, 1.0, 0.0)
        b = DormandPrince(block=16).solve(field, x, 1.0, 0.0)
    assert a.padding == 0
    assert (a.x - b.x).abs().max() < 1e-6


@pytest.mark.parametrize("block", [None, 8, 128])
@pytest.mark.parametrize("first_step", [None, 0.01])
def test_evaluations_are_what_the_field_saw(block: int | None, first_step: float | None) -> None:
    mu = torch.logspace(-1, 2, 21, dtype=torch.float64)
    field = Counted(van_der_pol(mu), 21)
    found = DormandPrince(block=block, first_step=first_step).solve(field, states(21, 2), 0.0, 2.0).check()
    assert field.rows == int(found.evaluations.sum()) + found.padding
    if block is None:
        assert torch.equal(found.evaluations, field.each)
        assert found.padding == 0
    else:
        assert field.sizes == ({block, block // 4} if int((found.accepted + found.rejected).max()) > 32 else {block})


def test_budget_is_reported() -> None:
    """Only the hard samples spend it; what they reached is there; check() names them."""
    rate = torch.tensor([[1.0], [1e4], [1.0], [2e4]], dtype=torch.float64)
    x, solver = torch.ones(4, 1, dtype=torch.float64), DormandPrince(max_steps=50)
    found = solver.solve(lambda t, x, rows: -rate[rows] * x, x, 0.0, 1.0)
    assert found.status.tolist() == [Status.OK, Status.BUDGET, Status.OK, Status.BUDGET]
    assert (found.accepted + found.rejected)[[1, 3]].tolist() == [50, 50]
    assert bool(((found.t[[1, 3]] > 0.0) & (found.t[[1, 3]] < 1.0)).all())
    assert (found.x - (-rate * found.t[:, None]).exp()).abs().max() < 1e-4
    with pytest.raises(SolverError, match=r"2 of 4 samples.*sample 1 at t = .*max_steps"):
        found.check()


def test_a_jump_stalls_or_spends_the_budget_but_never_loops() -> None:
    x = torch.ones(2, 1, dtype=torch.float64)
    noise = torch.Generator().manual_seed(1)
    rough = lambda t, x, rows: 1e12 * torch.rand(x.shape, generator=noise, dtype=x.dtype)  # noqa: E731
    found = DormandPrince(rtol=1e-13, atol=1e-13, max_steps=100).solve(rough, x, 0.5, 1.0)
    assert bool((found.status != Status.OK).all())
    with pytest.raises(SolverError):
        found.check()
    jump = DormandPrince(max_steps=200).solve(lambda t, x, rows: (t > 0.3).to(x.dtype)[:, None] * 5.0, x, 0.0, 1.0)
    assert (jump.check().x - 4.5).abs().max() < 1e-4
    assert bool((jump.rejected > 0).all())


def test_grid_stops_and_path() -> None:
    """States at the grid's times, each sample with its steps; NaN where the budget ended a sample before."""
    rate = torch.tensor([[1.0], [100.0], [5e3]], dtype=torch.float64)
    x, grid = torch.ones(3, 1, dtype=torch.float64), torch.tensor([1.0, 0.75, 0.5, 0.0], dtype=torch.float64)
    solver = DormandPrince(rtol=1e-6, atol=1e-8, max_steps=100)
    found = solver.solve(lambda t, x, rows: rate[rows] * x, x, 1.0, 0.0, grid=grid, keep=True)
    assert found.path is not None
    exact = (rate[None] * (grid[:, None, None] - 1.0)).exp()
    assert (found.path[:, :2] - exact[:, :2]).abs().max() < 1e-6
    assert found.status.tolist() == [Status.OK, Status.OK, Status.BUDGET]
    assert found.path[:, 2].isfinite().flatten().tolist()[0]
    assert not found.path[-1, 2].isfinite().any()
    ends = solver.solve(lambda t, x, rows: rate[rows] * x, x[:2], 1.0, 0.0, keep=True)
    assert ends.path is not None
    assert torch.equal(ends.path, torch.stack([x[:2], ends.x]))


def test_intervals_per_sample_and_empty_ones() -> None:
    x, t1 = states(3, 2), torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    found = TIGHT.solve(waving, x, torch.zeros(3), t1).check()
    assert (found.x - x * t1.sin().exp()[:, None]).abs().max() < 1e-9
    assert found.accepted[1] == 0
    empty = DormandPrince().solve(waving, x[:0], 0.0, 1.0).check()
    assert empty.x.shape == (0, 2)


def test_gradients_of_mixed_samples() -> None:
    """Samples with steps of their own: the derivative by each rate has a closed form."""
    rate = torch.tensor([[0.3], [5.0], [30.0]], dtype=torch.float64, requires_grad=True)
    x = torch.ones(3, 1, dtype=torch.float64)
    for checkpoint in (False, True):
        solver = DormandPrince(rtol=1e-5, atol=1e-7, checkpoint=checkpoint)
        end = solver.solve(lambda t, x, rows: -rate[rows] * x, x, 0.0, 1.0, keep=True).check()
        (found,) = torch.autograd.grad(end.x.sum(), rate)
        assert (found + (-rate).exp()).abs().max() < 1e-5
        assert len(end.accepted.unique()) == 3


def test_padding_of_clouds_changes_no_step() -> None:
    """Clouds of one to four points, padded to 4 or to 40; without the mask in the norm the padding would loosen the tolerance."""
    field = lambda t, x, rows: torch.stack([x[..., 1], 3.0 * (1.0 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]], 2)  # noqa: E731
    solver, found = DormandPrince(rtol=1e-4, atol=1e-4), {}
    points = states(4, 4, 2)
    for length in (4, 40):
        x = torch.cat([points, torch.full((4, length - 4, 2), 7.0)], 1)
        mask = torch.arange(length) <= torch.arange(4)[:, None]
        found[length] = solver.solve(MaskedField(field, mask), x, 0.0, 2.0).check()
        assert torch.equal(found[length].x[~mask], x[~mask])
    assert torch.equal(found[4].accepted, found[40].accepted)
    assert (found[4].x - found[40].x[:, :4]).abs().max() < 1e-13


def test_relative_tolerance_alone() -> None:
    """A state that is zero, with atol = 0: no division by zero."""
    x = torch.zeros(1, 2, dtype=torch.float64)
    found = DormandPrince(rtol=1e-6, atol=0.0).solve(lambda t, x, rows: -x, x, 0.0, 1.0).check()
    assert torch.equal(found.x, x)


def test_what_is_refused() -> None:
    for wrong in ({"rtol": -1.0}, {"rtol": 0.0, "atol": 0.0}, {"max_steps": 0}, {"first_step": 0.0}, {"block": 0}):
        with pytest.raises(ConfigError, match="DormandPrince"):
            DormandPrince(**wrong)  # type: ignore[arg-type]
