"""More inference tasks: exact posteriors against closed forms and calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from pofx.simulators.inference_more import MORE_TASKS, Epidemic, GaussianLinear, GaussianLinearUniform, SlcpDistractors
from pofx.simulators.inference_tasks import TASKS


def test_gaussian_linear_posterior() -> None:
    task = GaussianLinear()
    x = task.simulate(task.prior(1, 1), 1)[0]
    theta = task.posterior(x, 4000, 2)
    for k in range(10):
        assert stats.kstest(theta[:, k], stats.norm(x[k] / 2, np.sqrt(0.05)).cdf).pvalue > 0.001
    wanted = stats.norm(theta[0], np.sqrt(0.1)).logpdf(x).sum()
    assert task.log_likelihood(x, theta[:1])[0] == pytest.approx(wanted)


def test_gaussian_linear_uniform_posterior() -> None:
    task = GaussianLinearUniform()
    x = np.linspace(-1.4, 1.4, 10)
    theta = task.posterior(x, 4000, 2)
    width = np.sqrt(0.1)
    for k in range(10):
        law = stats.truncnorm((-1 - x[k]) / width, (1 - x[k]) / width, x[k], width)
        assert stats.kstest(theta[:, k], law.cdf).pvalue > 0.001


def test_distractors_change_nothing() -> None:
    task, plain = SlcpDistractors(), TASKS["slcp"]
    theta = task.prior(3, 1)
    x = task.simulate(theta, 1)
    place = task.order
    np.testing.assert_array_equal(x[:, place[:8]], plain.simulate(theta, 1))
    gap = task.log_likelihood(x[0], theta) - plain.log_likelihood(x[0, place[:8]], theta)
    np.testing.assert_allclose(gap, gap[0])
    np.testing.assert_array_equal(task.posterior(x[0], 20, 3), plain.posterior(x[0, place[:8]], 20, 3))


def test_epidemic_against_an_adaptive_solver() -> None:
    task, theta = Epidemic(), np.array([[0.4, 0.125], [1.2, 0.2], [0.1, 0.15]])
    for row, found in zip(theta, task.infected(theta), strict=True):
        solved = integrate.solve_ivp(
            lambda _, s, b=row[0], g=row[1]: [-b * s[0] * s[1], b * s[0] * s[1] - g * s[1]],
            (0, 160), [1 - 1e-6, 1e-6], t_eval=np.arange(16, 161, 16), rtol=1e-9, atol=1e-12,
        )  # fmt: skip
        np.testing.assert_allclose(found, solved.y[1], rtol=2e-3, atol=1e-7)


@pytest.mark.slow
def test_epidemic_posterior_is_calibrated() -> None:
    """Ranks of the truth among draws are uniform (arXiv:1804.06788)."""
    task = Epidemic()
    theta = task.prior(60, 4)
    x = task.simulate(theta, 4)
    ranks = np.array([(task.posterior(x[k], 99, k) < theta[k]).sum(0) for k in range(len(theta))])
    for column in ranks.T:
        assert stats.chisquare(np.histogram(column, bins=6, range=(-0.5, 99.5))[0]).pvalue > 1e-3


def test_epidemic_posterior_on_a_grid() -> None:
    """Against prior times likelihood on a grid of the two logarithms."""
    task = Epidemic()
    x = task.simulate([[0.45, 0.13]], 5)[0]
    draws = np.log(task.posterior(x, 2000, 6))
    low, high = draws.min(0) - 0.01, draws.max(0) + 0.01
    axes = [np.linspace(a, b, 61) for a, b in zip(low, high, strict=True)]
    middle = [0.5 * (axis[1:] + axis[:-1]) for axis in axes]
    grid = np.stack(np.meshgrid(*middle, indexing="ij"), -1).reshape(-1, 2)
    prior = stats.norm(np.log(task.medians), task.widths).logpdf(grid).sum(1)
    log = task.log_likelihood(x, np.exp(grid)) + prior
    density = np.exp(log - log.max()).reshape(60, 60)
    expected = 2000 * (density / density.sum()).reshape(12, 5, 12, 5).sum((1, 3))
    found = np.histogram2d(*draws.T, bins=[axis[::5] for axis in axes])[0]
    some = expected > 8
    chi2 = ((found - expected)[some] ** 2 / expected[some]).sum()
    assert stats.chi2.sf(chi2, some.sum() - 1) > 1e-4


def test_columns_and_seeds() -> None:
    for name, task in MORE_TASKS.items():
        theta = task.prior(2, 1)
        assert len(task.columns()) == theta.shape[1] == task.parameters, name
        np.testing.assert_array_equal(task.simulate(theta, 2), task.simulate(theta, 2))
        assert np.isfinite(task.log_likelihood(task.simulate(theta, 2), theta)).all()
