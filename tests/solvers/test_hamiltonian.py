"""Hamiltonian and Langevin steps: the integrator's symmetries, the acceptance, stationary densities with closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pofx.errors import ConfigError
from pofx.solvers.hamiltonian import State, adapted, evaluate, hamiltonian_step
from pofx.training.noise import Noise

PRECISION = torch.tensor([[1.5, -0.9], [-0.9, 1.0]], dtype=torch.float64)
COVARIANCE = torch.linalg.inv(PRECISION)
CHAINS = 2000


def gaussian(x: Tensor) -> Tensor:
    return 0.5 * ((x @ PRECISION) * x).sum(1)


def banana(x: Tensor) -> Tensor:
    """x0 ~ N(0, 1), x1 ~ N(x0^2 / 2, 1/4)."""
    return 0.5 * x[:, 0] ** 2 + 2.0 * (x[:, 1] - 0.5 * x[:, 0] ** 2) ** 2


def noise_of(n: int) -> Noise:
    return Noise(3, torch.arange(n), dtype=torch.float64)


def chain(energy, x: Tensor, steps: int, h: float, leapfrogs: int, *, accept: bool = True) -> tuple[Tensor, float]:
    """The states after so many steps, and the share of proposals that were taken."""
    with torch.no_grad():
        state, taken = evaluate(energy, x), []
        for k in range(steps):
            noise = noise_of(len(x)).at(k)
            uniform = noise.uniform("accept", 1)[:, 0] if accept else None
            state, share = hamiltonian_step(energy, state, h, noise.normal("p", 2), uniform, leapfrogs=leapfrogs)
            taken.append(float(share.mean()))
    return state.x, float(np.mean(taken))


def check_mean(values: Tensor, truth: float) -> None:
    """Independent chains: within three standard errors."""
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - truth) < 3.0 * error


@pytest.mark.parametrize(("leapfrogs", "h", "steps"), [(1, 0.7, 60), (5, 0.35, 30)], ids=["mala", "hmc"])
def test_moments_of_a_correlated_gaussian(leapfrogs: int, h: float, steps: int) -> None:
    x, taken = chain(gaussian, torch.full((CHAINS, 2), 2.0, dtype=torch.float64), steps, h, leapfrogs)
    assert 0.5 < taken < 0.99
    check_mean(x[:, 0], 0.0)
    check_mean(x[:, 1], 0.0)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        check_mean(x[:, i] * x[:, j], float(COVARIANCE[i, j]))


@pytest.mark.parametrize(("leapfrogs", "h", "steps"), [(1, 0.45, 120), (6, 0.3, 40)], ids=["mala", "hmc"])
def test_moments_of_a_banana(leapfrogs: int, h: float, steps: int) -> None:
    x, taken = chain(banana, torch.zeros(CHAINS, 2, dtype=torch.float64), steps, h, leapfrogs)
    assert 0.5 < taken < 0.99
    check_mean(x[:, 0], 0.0)
    check_mean(x[:, 0] ** 2, 1.0)
    check_mean(x[:, 1], 0.5)
    check_mean(x[:, 1] ** 2, 0.25 + 0.75)
    check_mean(x[:, 0] ** 2 * x[:, 1], 1.5)


def test_without_acceptance_the_stationary_density_is_that_of_the_discretised_dynamics() -> None:
    """Unadjusted Langevin on N(0, 1): x' = (1 - h^2/2) x + h p has variance 1 / (1 - h^2/4)."""
    h = 0.8
    x, _ = chain(lambda x: 0.5 * (x**2).sum(1), torch.zeros(CHAINS, 2, dtype=torch.float64), 60, h, 1, accept=False)
    wrong = 1.0 / (1.0 - h**2 / 4.0)
    check_mean(x[:, 0] ** 2, wrong)
    assert abs(float((x[:, 0] ** 2).mean()) - 1.0) > 3.0 * float((x[:, 0] ** 2).std()) / math.sqrt(CHAINS)


def test_mala_accepts_by_the_densities_of_its_proposals() -> None:
    """One leapfrog is Langevin's proposal: its probability is min(1, pi(y) q(x|y) / pi(x) q(y|x))."""
    h, noise = 0.9, noise_of(200)
    x, p = noise.normal("x", 2), noise.normal("p", 2)
    with torch.no_grad():
        here = evaluate(banana, x)
        there, taken = hamiltonian_step(banana, here, h, p, None)

    def log_q(to: Tensor, start: State) -> Tensor:
        return -0.5 * ((to - start.x + 0.5 * h**2 * start.gradient) / h).square().sum(1)

    forth, back = log_q(there.x, here), log_q(x, there)
    expected = (here.energy - there.energy + back - forth).clamp(max=0.0).exp()
    torch.testing.assert_close(taken, expected, atol=1e-12, rtol=1e-10)


def test_leapfrogs_run_back_and_keep_the_volume() -> None:
    p = noise_of(50).normal("p", 2)
    x = noise_of(50).normal("x", 2)
    h, steps = 0.3, 4
    with torch.no_grad():
        there, _ = hamiltonian_step(banana, evaluate(banana, x), h, p, None, leapfrogs=steps)
        end = _momentum(x, p, h, steps)
        back, _ = hamiltonian_step(banana, there, h, -end, None, leapfrogs=steps)
    torch.testing.assert_close(back.x, x, atol=1e-12, rtol=0)

    def flow(both: Tensor) -> Tensor:
        moved, q = both[None, :2], both[None, 2:]
        for _ in range(steps):
            q = q - 0.5 * h * evaluate(banana, moved).gradient
            moved = moved + h * q
            q = q - 0.5 * h * evaluate(banana, moved).gradient
        return torch.cat((moved, q), 1)[0]

    jacobian = torch.autograd.functional.jacobian(flow, torch.cat((x[0], p[0])))
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-10)


def _momentum(x: Tensor, p: Tensor, h: float, steps: int) -> Tensor:
    for _ in range(steps):
        p = p - 0.5 * h * evaluate(banana, x).gradient
        x = x + h * p
        p = p - 0.5 * h * evaluate(banana, x).gradient
    return p


def test_detailed_balance_of_the_whole_step() -> None:
    """From the stationary density, as many chains go from A to B as from B to A, and the density stays."""
    n = 20_000
    x = noise_of(n).normal("x", 2) @ torch.linalg.cholesky(COVARIANCE).T
    noise = noise_of(n).within("step")
    with torch.no_grad():
        state, _ = hamiltonian_step(
            gaussian, evaluate(gaussian, x), 0.8, noise.normal("p", 2), noise.uniform("u", 1)[:, 0], leapfrogs=2
        )
    forth = int(((x[:, 0] > 0.5) & (state.x[:, 0] < -0.2)).sum())
    back = int(((state.x[:, 0] > 0.5) & (x[:, 0] < -0.2)).sum())
    assert forth > 250
    assert abs(forth - back) < 3.0 * math.sqrt(forth + back)
    check_mean(state.x[:, 0] * state.x[:, 1], float(COVARIANCE[0, 1]))


def test_an_angle_is_wrapped_and_stays_von_mises() -> None:
    """exp(2 cos x) on the circle: E[cos x] = I1(2) / I0(2)."""
    noise = noise_of(CHAINS)

    def energy(x: Tensor) -> Tensor:
        return -2.0 * x[:, 0].cos()

    def wrap(x: Tensor) -> Tensor:
        return torch.remainder(x + math.pi, 2.0 * math.pi) - math.pi

    with torch.no_grad():
        state = evaluate(energy, 2.0 * math.pi * noise.uniform("x", 1) - math.pi)
        for k in range(60):
            draw = noise.at(k)
            state, _ = hamiltonian_step(
                energy, state, 0.6, draw.normal("p", 1), draw.uniform("u", 1)[:, 0], leapfrogs=3, wrap=wrap
            )
    assert float(state.x.abs().max()) <= math.pi
    check_mean(state.x[:, 0].cos(), float(torch.special.i1(torch.tensor(2.0)) / torch.special.i0(torch.tensor(2.0))))


def test_differentiable_in_states_momenta_and_what_the_energy_holds() -> None:
    x = noise_of(3).normal("x", 2).requires_grad_()
    p = noise_of(3).normal("p", 2).requires_grad_()
    strength = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def end(x: Tensor, p: Tensor, strength: Tensor) -> Tensor:
        def energy(y: Tensor) -> Tensor:
            return strength * banana(y)

        state, _ = hamiltonian_step(energy, evaluate(energy, x), 0.2, p, torch.full((3,), 1e-9), leapfrogs=2)
        return state.x

    assert torch.autograd.gradcheck(end, (x, p, strength))


def test_a_proposal_without_an_energy_is_never_taken() -> None:
    def walled(x: Tensor) -> Tensor:
        return 0.5 * (x**2).sum(1) + torch.where(x[:, 0] > 1.0, torch.nan, 0.0)

    with torch.no_grad():
        start = evaluate(walled, torch.full((4, 2), 0.9))
        state, taken = hamiltonian_step(walled, start, 0.5, torch.full((4, 2), 3.0), torch.full((4,), 1e-6))
    assert not taken.any()
    torch.testing.assert_close(state.x, start.x)


def test_steps_adapt_to_what_is_taken() -> None:
    log_step = torch.zeros(())
    with torch.no_grad():
        state = evaluate(gaussian, torch.zeros(500, 2, dtype=torch.float64))
        for k in range(40):
            noise = noise_of(500).at(k)
            h = log_step.exp()
            state, taken = hamiltonian_step(gaussian, state, h, noise.normal("p", 2), noise.uniform("u", 1)[:, 0])
            log_step = adapted(log_step, taken, 0.6, 1.0 / (1.0 + 0.1 * k))
    assert 0.55 < float(taken.mean()) < 0.65


def test_no_leapfrogs_are_refused() -> None:
    with pytest.raises(ConfigError, match="leapfrogs"):
        hamiltonian_step(
            gaussian, evaluate(gaussian, torch.zeros(1, 2).double()), 0.1, torch.zeros(1, 2), None, leapfrogs=0
        )
