"""Steps of Markov chains: the proposal's density against scipy, and invariance of targets with known moments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pofx.errors import ConfigError
from pofx.uncertainty.kernels import AdamKernel, HamiltonianKernel, Kernel, run_chain

CHAINS = 400
AXES = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
COVARIANCE = torch.from_numpy(AXES * np.logspace(-1, 0.5, 5) @ AXES.T)
ROOT, PRECISION = torch.linalg.cholesky(COVARIANCE), torch.linalg.inv(COVARIANCE)


class OneWayDirection(AdamKernel):
    """The way back with the direction of the way there, as in the published code."""

    def _direction(self, gradient: Tensor, scale: Tensor, rate: Tensor, state: dict[str, Tensor]) -> Tensor:
        if "there" not in state:
            state["there"] = super()._direction(gradient, scale, rate, state)
            return state["there"]
        return state.pop("there")


def gaussian(x: Tensor) -> Tensor:
    return -0.5 * ((x @ PRECISION) * x).sum(1)


def banana(x: Tensor) -> Tensor:
    return -0.5 * x[:, 0].square() - 2.0 * (x[:, 1] - x[:, 0].square() + 1.0).square()


def pulls(moments: Tensor) -> Tensor:
    """Of moments ``(chains, m)`` that should be zero."""
    return moments.mean(0) / (moments.std(0) / len(moments) ** 0.5)


def gaussian_pulls(kernel: Kernel, steps: int) -> Tensor:
    """Every chain starts at a draw from the target, and so has to stay one."""
    start = torch.randn(CHAINS, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ ROOT.T
    x = run_chain(kernel, gaussian, start, steps=steps, seed=2, thin=2).positions
    white = torch.linalg.solve_triangular(ROOT, x.flatten(0, 1).T, upper=False).T.reshape(x.shape)
    i, j = torch.tril_indices(5, 5)
    return pulls(torch.cat([white, white[..., i] * white[..., j] - (i == j).double()], -1).mean(0))


@pytest.mark.parametrize("noise", ["adam", "isotropic"])
@pytest.mark.parametrize("direction", [0.0, 1.0, 30.0])
def test_density_of_the_proposal(noise: str, direction: float) -> None:
    kernel = AdamKernel(noise=noise, direction=direction, sigma=0.3)
    generator = torch.Generator().manual_seed(1)
    state = kernel.start(torch.zeros(1, 4, dtype=torch.float64))
    state["v"].copy_(torch.rand(1, 4, generator=generator, dtype=torch.float64))
    _, variance, _ = kernel._scales(state)
    first, second, u, w = torch.randn(4, 1, 4, generator=generator, dtype=torch.float64)

    def truth(residual: Tensor, along: Tensor) -> float:
        covariance = torch.diag(variance[0]) + direction**2 * torch.outer(along[0], along[0])
        return float(stats.multivariate_normal.logpdf(residual[0], np.zeros(4), covariance))

    found = kernel._log_q(first, u, variance) - kernel._log_q(second, w, variance)
    assert float(found) == pytest.approx(truth(first, u) - truth(second, w), rel=1e-9)


KERNELS = {
    "adam": AdamKernel(sigma=0.3, burn_in=200),
    "isotropic": AdamKernel(sigma=0.3, burn_in=200, noise="isotropic"),
    "much noise along u": AdamKernel(sigma=0.3, burn_in=200, direction=3.0),
    "hamiltonian": HamiltonianKernel(step_size=0.2, friction=0.3, burn_in=200),
}


@pytest.mark.parametrize("name", KERNELS)
def test_correlated_gaussian(name: str) -> None:
    largest = float(gaussian_pulls(KERNELS[name], 200).abs().max())
    assert stats.norm.sf(largest) * 2 * 20 > 0.01 / len(KERNELS)


@pytest.mark.parametrize("name", ["adam", "hamiltonian"])
def test_banana(name: str) -> None:
    kernel = HamiltonianKernel(step_size=0.05, friction=0.1, burn_in=200) if name == "hamiltonian" else KERNELS[name]
    normal = torch.randn(CHAINS, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    start = torch.stack([normal[:, 0], normal[:, 0].square() - 1.0 + 0.5 * normal[:, 1]], 1)
    a, b = run_chain(kernel, banana, start, steps=200, seed=2, thin=2).positions.unbind(-1)
    moments = torch.stack([a, b, a**2 - 1.0, b**2 - 2.25, a * b, a**2 * b - 2.0], -1).mean(0)
    assert stats.norm.sf(float(pulls(moments).abs().max())) * 2 * 6 > 0.005


def test_the_fault_of_the_published_code_is_seen() -> None:
    assert float(gaussian_pulls(OneWayDirection(sigma=0.3, burn_in=200), 200).abs().max()) > 6


def test_chains_are_functions_of_the_seed() -> None:
    start = torch.zeros(3, 5, dtype=torch.float64)
    runs = [run_chain(KERNELS["adam"], gaussian, start, steps=5, seed=seed).positions for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_noise_of_gradients_is_taken_off() -> None:
    """With gradients of known noise, the momentum keeps its variance of one where the noise is subtracted, and not where it is not."""
    spread, generator = 3.0, torch.Generator().manual_seed(5)
    target = torch.zeros(CHAINS, 20, dtype=torch.float64)
    found = {}
    for subtract in (False, True):
        kernel = HamiltonianKernel(step_size=0.2, friction=0.3, precondition=False, subtract=subtract, burn_in=200)
        x, state, late = target.clone(), kernel.start(target), []
        for step in range(300):
            gradient = x + spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)
            x = kernel.step(x, (x.sum(1), gradient), lambda at: (at.sum(1), at), state, generator)
            late += [x.var()] if step >= 200 else []
        found[subtract] = float(torch.stack(late).mean())
    assert found[False] > 1.2
    assert found[True] == pytest.approx(1.0, abs=0.1)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="betas"):
        AdamKernel(betas=(0.9, 1.0))
    with pytest.raises(ConfigError, match="noise"):
        AdamKernel(noise="none")
