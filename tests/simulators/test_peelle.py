"""Peelle's toy: moments and densities against independent numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from pofx.errors import DataError, ShapeError
from pofx.simulators.peelle import Peelle, PeelleUniverses

VALUES, FACTOR, NOISE = [1.0, 1.5, 0.7], 0.15, [0.1, 0.2, 0.05]
TRUTHS = [Peelle(VALUES, FACTOR, NOISE), PeelleUniverses(VALUES, FACTOR, NOISE)]
IDS = ["data", "universes"]


@pytest.mark.parametrize("truth", TRUTHS, ids=IDS)
def test_moments_are_those_of_the_sample(truth: Peelle | PeelleUniverses) -> None:
    x = truth.sample(400_000, seed=1)
    error = np.sqrt(np.diag(truth.covariance) / len(x))
    assert (np.abs(x.mean(0) - truth.mean) < 5 * error).all()
    np.testing.assert_allclose(np.cov(x.T), truth.covariance, rtol=0.02)


@pytest.mark.parametrize("truth", TRUTHS, ids=IDS)
def test_density_is_the_integral_over_the_factor(truth: Peelle | PeelleUniverses) -> None:
    for x in [*truth.sample(8, seed=2), np.array([3.0, 0.2, 1.5])]:

        def integrand(g: float, x: np.ndarray = x) -> float:
            k = np.exp(FACTOR * g - 0.5 * FACTOR**2)
            data = stats.norm.pdf(x, k * truth.values, NOISE)
            universes = stats.norm.pdf(x / k, truth.values, NOISE) / k
            return float(stats.norm.pdf(g) * np.prod(data if isinstance(truth, Peelle) else universes))

        peak = max(np.linspace(-9, 9, 400), key=integrand)
        wanted = integrate.quad(integrand, peak - 3, peak + 3, points=[peak], epsrel=1e-11, limit=400)[0]
        assert abs(truth.log_prob(x[None])[0] - np.log(wanted)) < 1e-6


@pytest.mark.parametrize("kind", [Peelle, PeelleUniverses])
def test_small_factor_is_normal(kind: type[Peelle | PeelleUniverses]) -> None:
    x = TRUTHS[0].sample(10, seed=3)[:, :2]
    wanted = stats.norm.logpdf(x, [1.0, 1.5], 0.2).sum(1)
    np.testing.assert_allclose(kind([1.0, 1.5], 1e-4, 0.2).log_prob(x), wanted, atol=2e-4)


def test_marginal_and_bad_input() -> None:
    assert TRUTHS[0].marginal([2, 0]).mean.tolist() == [0.7, 1.0]
    with pytest.raises(ShapeError, match="values"):
        Peelle([[1.0]])
    with pytest.raises(DataError, match="positive noise"):
        PeelleUniverses([1.0], noise=0.0)
