"""Tasks of simulation-based inference: likelihoods, and draws from posteriors that are calibrated and have the density they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pofx.errors import DataError
from pofx.simulators.inference_tasks import TASKS, InferenceTask


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> InferenceTask:
    return TASKS[request.param]


def test_shapes_and_seeds(task: InferenceTask) -> None:
    theta = task.prior(5, 1)
    assert np.abs(theta).max() <= task.edge
    np.testing.assert_array_equal(task.simulate(theta, 2), task.simulate(theta, 2))
    assert (task.simulate(theta, 2) != task.simulate(theta, 3)).all()
    assert [column.high for column in task.columns()] == [task.edge] * task.parameters
    assert np.isfinite(task.log_likelihood(task.simulate(theta, 2), theta)).all()


@pytest.mark.parametrize("name", ["two-moons", "gaussian-mixture", pytest.param("slcp", marks=pytest.mark.slow)])
def test_posterior_is_calibrated(name: str) -> None:
    """The rank of every true parameter among draws of its posterior is uniform (arXiv:1804.06788)."""
    task = TASKS[name]
    theta = task.prior(150, 4)
    x = task.simulate(theta, 4)
    ranks = np.array([(task.posterior(x[k], 99, k) < theta[k]).sum(0) for k in range(len(theta))])
    for column in ranks.T:
        counts = np.histogram(column, bins=10, range=(-0.5, 99.5))[0]
        assert stats.chisquare(counts).pvalue > 1e-3 / task.parameters


@pytest.mark.parametrize("name", ["two-moons", "gaussian-mixture"])
def test_posterior_in_the_plane_is_the_likelihood_on_a_grid(name: str) -> None:
    task = TASKS[name]
    theta = task.prior(3, 5)
    x = task.simulate(theta, 5)[0]
    draws = task.posterior(x, 20_000, 6)
    low, high = draws.min(0) - 0.02, draws.max(0) + 0.02
    edges = np.linspace(low, high, 8 * 50 + 1).T
    middles = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
    grid = np.stack(np.meshgrid(*middles, indexing="ij"), -1).reshape(-1, 2)
    inside = (np.abs(grid) <= task.edge).all(1)
    density = np.where(inside, np.exp(task.log_likelihood(x, grid)), 0.0)
    expected = 20_000 * (density / density.sum()).reshape(50, 8, 50, 8).sum((1, 3))
    found = np.histogram2d(*draws.T, bins=[edge[::8] for edge in edges])[0]
    some = expected > 10
    chi2 = ((found - expected)[some] ** 2 / expected[some]).sum()
    assert stats.chi2.sf(chi2, some.sum() - 1) > 1e-4


def test_slcp_likelihood_is_scipys() -> None:
    task = TASKS["slcp"]
    theta = np.array([[0.5, -1.0, 1.2, -0.8, 0.7]])
    x = task.simulate(theta, 1)
    variances = np.array([1.2, 0.8]) ** 4
    off = np.tanh(0.7) * 1.2**2 * 0.8**2
    law = stats.multivariate_normal([0.5, -1.0], [[variances[0] + 1e-6, off], [off, variances[1] + 1e-6]])
    assert task.log_likelihood(x, theta)[0] == pytest.approx(law.logpdf(x.reshape(4, 2)).sum())


def test_slcp_posterior_moments_by_importance() -> None:
    """Means of bounded functions, against draws of the prior's shape weighted by the likelihood."""
    task = TASKS["slcp"]
    x = task.simulate(np.array([[0.5, -0.5, 1.5, 1.4, 0.3]]), 8)[0]
    draws = task.posterior(x, 20_000, 9)
    theta = task.prior(400_000, 10)
    weight = np.exp((log := task.log_likelihood(x, theta)) - log.max())
    size = weight.sum() ** 2 / (weight @ weight)
    assert size > 200
    for function in (lambda t: np.abs(t[:, 2]), lambda t: np.abs(t[:, 3]), lambda t: t[:, 4], lambda t: t[:, 0]):
        values = function(theta)
        expected = weight @ values / weight.sum()
        error = np.sqrt(weight**2 @ (values - expected) ** 2) / weight.sum()
        assert abs(function(draws).mean() - expected) < 4 * error + 4 * function(draws).std() / np.sqrt(20_000)
    assert np.abs(np.mean(np.sign(draws[:, 2:4]), axis=0)).max() < 0.04


def test_impossible_observations_are_refused() -> None:
    with pytest.raises(DataError, match="were possible"):
        TASKS["two-moons"].posterior([50.0, 0.0], 10, 1)
