"""Log-densities along an ODE against closed forms: Gaussians and mixtures whose velocity fields are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from solver_problems import states
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from pofx.errors import CapabilityError, ConfigError, ShapeError, SolverError
from pofx.solvers import RK4, DormandPrince, GivenNoise, MaskedField, log_density_ode, rademacher, transport
from pofx.solvers.density import exact_divergence
from pofx.training.noise import Noise

LOOSE, TIGHT = DormandPrince(rtol=1e-6, atol=1e-6, block=20), DormandPrince(rtol=1e-8, atol=1e-9, block=20)


def base(z: Tensor) -> Tensor:
    """Standard normal."""
    return Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)


class GaussianFlow:
    """Velocity of the straight path from N(mean, covariance) at t = 0 to N(0, 1) at t = 1: E[e - x0 | x_t], linear in x."""

    def __init__(self, d: int) -> None:
        rng = np.random.default_rng(d)
        a = torch.from_numpy(rng.normal(size=(d, d))) / math.sqrt(d)
        self.mean, self.covariance = torch.from_numpy(rng.normal(size=d)), a @ a.T + 0.3 * torch.eye(d).double()
        self.variance, self.axes = torch.linalg.eigh(self.covariance)
        self.law = MultivariateNormal(self.mean, self.covariance)

    def __call__(self, t: Tensor, x: Tensor, rows: Any) -> Tensor:
        u = t[:, None]
        slope = (u - (1.0 - u) * self.variance) / ((1.0 - u) ** 2 * self.variance + u**2)
        return -self.mean + (slope * ((x - (1.0 - u) * self.mean) @ self.axes)) @ self.axes.T


class MixtureFlow:
    """The same for a mixture of round Gaussians: components' velocities, weighted with the posterior of the component."""

    def __init__(self, d: int, width: float) -> None:
        rng = np.random.default_rng(d)
        self.centres, self.width = torch.from_numpy(rng.normal(size=(3, d))), width
        self.log_weight = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()

    def log_prob(self, x: Tensor, t: Tensor | float = 0.0) -> Tensor:
        return self._parts(torch.as_tensor(t, dtype=x.dtype).expand(len(x)), x).logsumexp(1)

    def _parts(self, t: Tensor, x: Tensor) -> Tensor:
        scale = ((1.0 - t) ** 2 * self.width**2 + t**2).sqrt()[:, None]
        away = (x[:, None] - (1.0 - t)[:, None, None] * self.centres) / scale[..., None]
        return self.log_weight + Normal(0.0, 1.0).log_prob(away).sum(-1) - x.shape[1] * scale.log()

    def __call__(self, t: Tensor, x: Tensor, rows: Any) -> Tensor:
        posterior = self._parts(t, x).softmax(1)[..., None]
        variance = ((1.0 - t) ** 2 * self.width**2 + t**2)[:, None, None]
        slope = (t - (1.0 - t) * self.width**2)[:, None, None] / variance
        each = -self.centres + slope * (x[:, None] - (1.0 - t)[:, None, None] * self.centres)
        return (posterior * each).sum(1)

    def sample(self, n: int) -> Tensor:
        rng = np.random.default_rng(n)
        which = rng.choice(3, size=n, p=[0.2, 0.3, 0.5])
        return self.centres[which] + self.width * torch.from_numpy(rng.normal(size=(n, self.centres.shape[1])))


@pytest.mark.parametrize("d", [1, 3, 40])
def test_gaussian_flow(d: int) -> None:
    """The closed form to 1e-4, to 1e-6 at a tight tolerance."""
    flow = GaussianFlow(d)
    x = flow.mean + states(20, d) @ torch.linalg.cholesky(flow.covariance).T
    for solver, bar in ((LOOSE, 1e-4), (TIGHT, 1e-6)):
        found = log_density_ode(flow, x, base, solver=solver)
        assert (found.log_prob - flow.law.log_prob(x)).abs().max() < bar
        assert found.error is not None
        assert not found.error.any()


@pytest.mark.parametrize("width", [0.5, 0.03])
def test_mixture_flow(width: float) -> None:
    """Not linear, and stiff near the data where the components are narrow."""
    flow = MixtureFlow(2, width)
    x = torch.cat([flow.sample(15), flow.sample(5) + 2.0 * width])
    for solver, bar in ((LOOSE, 1e-4), (TIGHT, 1e-6)):
        found = log_density_ode(flow, x, base, solver=solver)
        assert (found.log_prob - flow.log_prob(x)).abs().max() < bar


def test_back_and_forth() -> None:
    """From noise to data with the density on the way: the Jacobian of the way back is minus that of the way forth."""
    flow = MixtureFlow(2, 0.2)
    z = states(15, 2)
    down = transport(flow, z, 1.0, 0.0, solver=TIGHT)
    assert (base(z) - down.log_jacobian - flow.log_prob(down.x)).abs().max() < 1e-6
    up = transport(flow, down.x, 0.0, 1.0, solver=TIGHT)
    assert (up.x - z).abs().max() < 1e-6
    assert (up.log_jacobian + down.log_jacobian).abs().max() < 1e-6


def test_fixed_steps_and_grids() -> None:
    flow = GaussianFlow(2)
    x = states(5, 2)
    grid = torch.linspace(0.0, 1.0, 61, dtype=torch.float64) ** 1.5
    for chosen in (None, grid):
        moved = transport(flow, x, 0.0, 1.0, solver=RK4(steps=60), grid=chosen)
        assert (base(moved.x) + moved.log_jacobian - flow.law.log_prob(x)).abs().max() < 1e-6


def twisted(weight: Tensor) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """A smooth field for events of any shape."""

    def field(t: Tensor, x: Tensor, rows: Any) -> Tensor:
        flat = x.reshape(len(x), -1)
        return torch.tanh(flat @ weight + t[:, None]).reshape(x.shape)

    return field


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 2)])
def test_log_jacobian_is_that_of_the_map(shape: tuple[int, ...]) -> None:
    """For scalars, vectors and grids: against the determinant of autograd's Jacobian of the solver itself."""
    size = math.prod(shape)
    field, x = twisted(states(size, size)), states(4, *shape)
    moved = transport(field, x, 0.0, 1.0, solver=TIGHT)
    for i in range(2):
        end = lambda one: TIGHT.solve(field, one[None], 0.0, 1.0).x[0]  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(end, x[i]).reshape(size, size)
        assert float(moved.log_jacobian[i]) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-7)


def test_padding_of_a_cloud_adds_nothing() -> None:
    """A field that is zero on padded points: the density is that of the real points."""
    mask = torch.tensor([[True, True, True], [True, True, False]])
    field = lambda t, x, rows: x.sin() * x.sum(2, keepdim=True).cos()  # noqa: E731
    x = states(2, 3, 2)
    moved = transport(MaskedField(field, mask), x, 0.0, 1.0, solver=LOOSE)
    alone = transport(field, x[1:, :2], 0.0, 1.0, solver=LOOSE)
    assert float(moved.log_jacobian[1]) == pytest.approx(float(alone.log_jacobian[0]), abs=1e-13)
    assert moved.solution.accepted[1] == alone.solution.accepted[0]
    assert torch.equal(moved.x[1, 2], x[1, 2])


@pytest.mark.parametrize("columns", [1, 4, 64])
def test_exact_divergence(columns: int) -> None:
    """Against the trace of the whole Jacobian, in pieces of any size."""
    field, x, t = twisted(states(10, 10)), states(3, 10), torch.full((3,), 0.3, dtype=torch.float64)
    velocity, found = exact_divergence(field, t, x, slice(None), columns)
    whole = [
        torch.autograd.functional.jacobian(lambda y, i=i: field(t[i : i + 1], y[None], 0)[0], x[i]) for i in range(3)
    ]
    assert (found[:, 0] - torch.stack([one.trace() for one in whole])).abs().max() < 1e-12
    assert torch.equal(velocity, field(t, x, slice(None)))


def test_hutchinson_is_unbiased_with_an_honest_error() -> None:
    """400 events at one x, 8 probes each: the mean agrees with the exact trace, pulls have unit width."""
    n, d, weight = 400, 6, states(6, 6)
    x = states(1, d).expand(n, d)
    noise = Noise(1, torch.arange(n), dtype=torch.float64)
    solver = DormandPrince(rtol=1e-6, atol=1e-6)
    exact = float(transport(twisted(weight), x[:1], 0.0, 1.0, solver=solver).log_jacobian)
    moved = transport(twisted(weight), x, 0.0, 1.0, solver=solver, trace="hutchinson", probes=rademacher(noise, 8, d))
    assert moved.error is not None
    z = float((moved.log_jacobian.mean() - exact) / (moved.log_jacobian.std() / math.sqrt(n)))
    assert abs(z) < 2.6
    assert float((moved.error**2).mean().sqrt() / moved.log_jacobian.std()) == pytest.approx(1.0, abs=0.15)


def test_probes_are_exact_for_diagonal_fields() -> None:
    """With probes of +-1 a diagonal Jacobian has no variance; one probe has no error to give."""
    x, noise = states(5, 3), Noise(3, torch.arange(5))
    field = lambda t, x, rows: x.sin()  # noqa: E731
    exact = transport(field, x, 0.0, 1.0, solver=TIGHT)
    for count in (1, 4):
        moved = transport(field, x, 0.0, 1.0, solver=TIGHT, trace="hutchinson", probes=rademacher(noise, count, 3))
        assert (moved.log_jacobian - exact.log_jacobian).abs().max() < 1e-7
        assert (moved.error is None) == (count == 1)


def test_rademacher_belongs_to_events() -> None:
    probes = rademacher(Noise(1, torch.arange(1000)), 4, 2, 3)
    assert probes.shape == (1000, 4, 2, 3)
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(probes.mean())) < 4.0 / math.sqrt(probes.numel())
    assert torch.equal(probes[500:510], rademacher(Noise(1, torch.arange(500, 510)), 4, 2, 3))


def test_the_density_has_its_own_tolerance() -> None:
    """The state hardly moves, its density does: 20 numbers of which one has a fast divergence."""

    def field(t: Tensor, x: Tensor, rows: Any) -> Tensor:
        fast = 1e-3 * (1e3 * x[:, :1]).sin() * (30.0 * t[:, None]).cos()
        return torch.cat([fast, 0.0 * x[:, 1:]], 1)

    x = 1e-3 * states(4, 20)
    rough = transport(field, x, 0.0, 1.0, solver=DormandPrince(rtol=1e-5, atol=1e-5))
    fine = transport(field, x, 0.0, 1.0, solver=DormandPrince(rtol=1e-9, atol=1e-9))
    assert (rough.log_jacobian - fine.log_jacobian).abs().max() < 1e-4
    alone = DormandPrince(rtol=1e-5, atol=1e-5).solve(field, x, 0.0, 1.0)
    assert rough.solution.accepted.sum() > 1.5 * alone.accepted.sum()


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_gradient_of_the_density(trace: str, checkpoint: bool) -> None:
    """v = a x: log p(x) = log N(x e^a) + a d, whose derivatives by a and x are known; a non-linear network by differences."""
    a = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    x = states(6, 3).requires_grad_()
    probes = rademacher(Noise(1, torch.arange(6)), 2, 3) if trace == "hutchinson" else None
    solver = DormandPrince(rtol=1e-7, atol=1e-7, checkpoint=checkpoint)
    found = log_density_ode(lambda t, x, rows: a * x, x, base, solver=solver, trace=trace, probes=probes)
    by_a, by_x = torch.autograd.grad(found.log_prob.sum(), [a, x])
    end = (x * a.exp()).detach()
    assert float(by_a) == pytest.approx(float((3.0 - end.square().sum(1)).sum()), abs=1e-5)
    assert (by_x + end * a.exp()).abs().max() < 1e-5

    weight = states(3, 3).requires_grad_()
    probe = probes[:1] if probes is not None else None
    fixed = RK4(steps=6, checkpoint=checkpoint)

    def loss(at: Tensor) -> Tensor:
        return log_density_ode(
            twisted(at), x[:1].detach(), base, solver=fixed, trace=trace, probes=probe
        ).log_prob.sum()

    (gradient,) = torch.autograd.grad(loss(weight), weight)
    shift = torch.zeros(3, 3, dtype=torch.float64)
    shift[1, 2] = 1e-5
    with torch.no_grad():
        difference = (loss(weight + shift) - loss(weight - shift)) / 2e-5
    assert float(gradient[1, 2]) == pytest.approx(float(difference), rel=1e-6)


def test_float32() -> None:
    flow = MixtureFlow(2, 0.5)
    x = flow.sample(30)
    exact = flow.log_prob(x)
    flow.centres, flow.log_weight = flow.centres.float(), flow.log_weight.float()
    found = log_density_ode(flow, x.float(), base, solver=DormandPrince(rtol=1e-5, atol=1e-5))
    assert found.log_prob.dtype == torch.float32
    assert (found.log_prob - exact).abs().max() < 1e-3


def test_densities_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.SiLU(), torch.nn.Linear(32, 3))
    field = lambda t, x, rows: 3.0 * net(torch.cat([x, t[:, None]], 1))  # noqa: E731
    x = states(70, 3).float()
    with torch.no_grad():
        whole = log_density_ode(field, x, base, solver=DormandPrince(block=16)).log_prob
        part = log_density_ode(field, x[60:65], base, solver=DormandPrince(block=16)).log_prob
    assert torch.equal(whole[60:65], part)


def test_what_is_refused() -> None:
    x = states(4, 2)
    with pytest.raises(ConfigError, match="trace"):
        transport(twisted(states(2, 2)), x, 0.0, 1.0, solver=LOOSE, trace="approximate")
    with pytest.raises(ConfigError, match="probes"):
        transport(twisted(states(2, 2)), x, 0.0, 1.0, solver=LOOSE, trace="hutchinson")
    with pytest.raises(ShapeError, match=r"\(4, probes, 2\)"):
        transport(twisted(states(2, 2)), x, 0.0, 1.0, solver=LOOSE, trace="hutchinson", probes=torch.ones(4, 2))
    weight = states(2, 2).requires_grad_()
    blind: list[Callable[..., Tensor]] = [
        lambda t, x, rows: torch.ones_like(x),
        lambda t, x, rows: torch.no_grad()(torch.tanh)(x),
        lambda t, x, rows: x.detach() @ weight,
    ]
    for field in blind:
        with pytest.raises(CapabilityError, match="differentiable in x"):
            transport(field, x, 0.0, 1.0, solver=LOOSE)
    still = transport(lambda t, x, rows: torch.ones_like(x) + 0.0 * x, x, 0.0, 1.0, solver=LOOSE)
    assert not still.log_jacobian.any()
    assert not still.x.requires_grad
    with pytest.raises(SolverError, match="4 of 4 samples"):
        transport(lambda t, x, rows: -1e5 * x, x, 0.0, 1.0, solver=DormandPrince(max_steps=10))
    with pytest.raises(SolverError, match="nan"):
        transport(lambda t, x, rows: x * torch.nan, x, 0.0, 1.0, solver=LOOSE)
    with pytest.raises(ShapeError, match="noise called 'probe'"):
        rademacher(GivenNoise({}), 2, 2)
