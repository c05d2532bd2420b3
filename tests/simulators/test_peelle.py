"""Peelle's toy: moments and density against independent numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from pofx.errors import DataError, ShapeError
from pofx.simulators.peelle import Peelle

TRUTH = Peelle([1.0, 1.5, 0.7], 0.15, [0.1, 0.2, 0.05])


def test_moments_are_those_of_the_sample() -> None:
    x = TRUTH.sample(400_000, seed=1)
    error = np.sqrt(np.diag(TRUTH.covariance) / len(x))
    assert (np.abs(x.mean(0) - TRUTH.mean) < 5 * error).all()
    np.testing.assert_allclose(np.cov(x.T), TRUTH.covariance, rtol=0.02)


@pytest.mark.parametrize("seed", [1, 2])
def test_density_is_the_integral_over_the_factor(seed: int) -> None:
    for x in [*TRUTH.sample(5, seed=seed), np.array([3.0, 0.2, 1.5])]:

        def integrand(g: float, x: np.ndarray = x) -> float:
            scale = np.exp(0.15 * g - 0.5 * 0.15**2)
            return float(stats.norm.pdf(g) * np.prod(stats.norm.pdf(x, scale * TRUTH.nominal, TRUTH.noise)))

        peak = max(np.linspace(-9, 9, 400), key=integrand)
        wanted = integrate.quad(integrand, peak - 3, peak + 3, points=[peak], epsrel=1e-11, limit=400)[0]
        assert abs(TRUTH.log_prob(x[None])[0] - np.log(wanted)) < 1e-6


def test_marginal_and_small_factor() -> None:
    x = TRUTH.sample(10, seed=3)
    narrow = Peelle([1.0, 1.5], 1e-4, 0.2)
    wanted = stats.norm.logpdf(x[:, :2], narrow.nominal, 0.2).sum(1)
    np.testing.assert_allclose(narrow.log_prob(x[:, :2]), wanted, atol=1e-4)
    assert TRUTH.marginal([2, 0]).nominal.tolist() == [0.7, 1.0]


def test_bad_input() -> None:
    with pytest.raises(ShapeError, match="nominal"):
        Peelle([[1.0]])
    with pytest.raises(DataError, match="positive noise"):
        Peelle([1.0], noise=0.0)
