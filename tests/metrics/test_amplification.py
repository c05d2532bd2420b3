"""Amplification against closed forms: resampled training data, fresh truth, a fit of one parameter, a Dirichlet posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import pofx
from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError
from pofx.metrics.amplification import amplification, average_amplification
from pofx.metrics.bayesian_amplification import bayesian_amplification
from pofx.metrics.quantile_cells import quantile_cells
from pofx.simulators.task_toys.amplification import AMPLIFICATION, quantile_error


class Line:
    """The standard normal distribution."""

    def uniform(self, x: object) -> np.ndarray:
        return stats.norm.cdf(np.asarray(x))


NORMAL = Line()
TRUTHS = {"closed form": NORMAL, "held out": np.random.default_rng(1).normal(size=20_000)}


def fit_worth(quantiles: int) -> float:
    """True events per training event that the fit of a normal mean is worth: (1 - 1/N) / sum of (dp/dmu)^2."""
    edges = stats.norm.ppf(np.linspace(0, 1, quantiles + 1))
    return (1 - 1 / quantiles) / float((np.diff(stats.norm.pdf(edges)) ** 2).sum())


@pytest.mark.parametrize("truth", list(TRUTHS))
def test_resampled_training_data_are_worth_themselves(truth):
    rng = np.random.default_rng(2)
    found = [
        amplification(rng.choice(rng.normal(size=100), 20_000), TRUTHS[truth], 100, quantiles=(5, 20))
        for _ in range(60)
    ]
    for point in average_amplification(found):
        pull = (point.mse - point.scale * (1 / 100 + 1 / 20_000)) / point.mse_error
        assert abs(pull) < 3
        assert 0.8 < point.value < 1.25


def test_fresh_truth_is_worth_its_number():
    rng = np.random.default_rng(3)
    found = [amplification(rng.normal(size=1000), NORMAL, 100, quantiles=(10,))[10] for _ in range(200)]
    mean = average_amplification(
        [amplification(rng.normal(size=1000), NORMAL, 100, quantiles=(10,)) for _ in range(100)]
    )
    assert abs(mean[10].mse - 0.9 / 1000) < 3 * mean[10].mse_error
    assert np.mean([f.low < 10 < f.high for f in found]) == pytest.approx(0.68, abs=0.12)
    assert np.mean([f.mse_error for f in found]) == pytest.approx(np.std([f.mse for f in found]), rel=0.2)


@pytest.mark.parametrize("truth", list(TRUTHS))
@pytest.mark.parametrize("quantiles", [2, 10, 40])
def test_a_parametric_fit_is_worth_what_the_closed_form_says(truth, quantiles):
    """500 training events, of which a fit knows the mean; its sample has 20 000 events of its own noise."""
    rng, expected = np.random.default_rng(4), 1 / (1 / (500 * fit_worth(quantiles)) + 1 / 20_000)
    means = rng.normal(0.0, 1 / math.sqrt(500), 100)
    found = average_amplification(
        [amplification(rng.normal(m, 1.0, 20_000), TRUTHS[truth], 500, quantiles=(quantiles,)) for m in means]
    )[quantiles]
    floor = found.scale / 20_000 * math.sqrt(2 / (quantiles - 1)) if truth == "held out" else 0.0  # one truth for all
    assert abs(found.mse - found.scale / expected) < 3 * math.hypot(found.mse_error, floor)
    assert found.limit >= found.value


def test_it_is_the_error_of_the_toys():
    toy = AMPLIFICATION["ring"]
    x = np.asarray(toy.sample(500, 5))
    found = amplification(x, toy, 500, quantiles=(3,))[3]
    known = quantile_error(toy.uniform(x), 3)
    assert (found.mse, found.worth) == pytest.approx((known.value, known.worth))
    assert found.quantiles == 9


def test_cells_hold_as_many_events_in_every_column():
    x = np.random.default_rng(6).normal(size=(6400, 3)) @ [[1.0, 0.9, 0.0], [0.0, 0.4, 0.3], [0.0, 0.0, 1.0]]
    counts = np.bincount(quantile_cells(x, 4)(x), minlength=64)
    assert counts.min() >= 99
    assert counts.max() <= 101


def test_weights_count_as_repeated_events():
    rng = np.random.default_rng(7)
    x, w = rng.normal(size=400), rng.integers(0, 3, 400)
    weighted = amplification(x, NORMAL, 100, quantiles=(5,), weight=w)[5]
    assert weighted.mse == pytest.approx(amplification(np.repeat(x, w), NORMAL, 100, quantiles=(5,))[5].mse)
    assert weighted.generated == pytest.approx(w.sum() ** 2 / (w**2).sum())
    truth = rng.normal(0.5, 1.0, 20_000)
    back = np.exp(-0.5 * truth + 0.125)  # from a mean of 1/2 to one of 0
    found = amplification(rng.normal(size=50_000), truth, 100, quantiles=(10,), truth_weight=back)[10]
    assert found.mse < 4 * found.mse_error


# Without held-out truth


def test_a_dirichlet_posterior_is_worth_its_events():
    """After counts n_j with a flat prior, Var p_j = p (1 - p) / (n + N + 1): worth n + N + 1 events, whatever the counts."""
    rng, n, cells = np.random.default_rng(8), 200, 8
    p = rng.dirichlet(np.ones(cells) + rng.multinomial(n, np.full(cells, 1 / cells)), 400)
    draws = [(rng.choice(cells, 2000, p=each) + rng.random(2000)) / cells for each in p]

    class Unit:
        def uniform(self, x: object) -> np.ndarray:
            return np.asarray(x)

    found = bayesian_amplification(draws, n, quantiles=(cells,), truth=Unit())
    assert abs(found[cells].mse - found[cells].scale / (n + cells + 1)) < 3 * found[cells].mse_error
    assert found[cells].mse_error / found[cells].mse < 0.1
    assert np.median(found.cells[0]) == pytest.approx(n + cells + 1, rel=0.1)


@pytest.mark.parametrize("quantiles", [2, 10])
def test_the_posterior_of_a_fit_agrees_with_held_out_truth(quantiles):
    rng = np.random.default_rng(9)
    draws = [rng.normal(m, 1.0, 5000) for m in rng.normal(0.0, 1 / math.sqrt(200), 200)]
    found = bayesian_amplification(draws, 200, quantiles=(quantiles,))[quantiles]
    assert abs(found.mse - found.scale / (200 * fit_worth(quantiles))) < 3.5 * found.mse_error


def test_a_posterior_that_is_too_narrow_claims_too_much():
    rng = np.random.default_rng(10)
    right, narrow = (
        bayesian_amplification([rng.normal(m, 1.0, 5000) for m in rng.normal(0.0, s, 100)], 200, quantiles=(10,))[10]
        for s in (1 / math.sqrt(200), 0.5 / math.sqrt(200))
    )
    assert narrow.value / right.value == pytest.approx(4, rel=0.5)


def test_draws_of_a_wrapped_model():
    x = np.random.default_rng(11).normal(size=200)
    model = pofx.Ensemble(pofx.Gaussian(), members=12).fit(x)
    found = bayesian_amplification(model, 200, quantiles=(10,), events=4000, seed=1)
    assert found[10].value > 2
    assert bayesian_amplification(model, 200, quantiles=(10,), events=4000, seed=1)[10] == found[10]


# Texts and errors


def test_texts():
    rng = np.random.default_rng(12)
    curve = amplification(rng.normal(size=1000), NORMAL, 100, quantiles=(5, 10))
    assert str(curve).startswith("amplification of 100 training events by 1000 generated ones\n5 quantiles: ")
    assert "worth" in str(curve[10])
    assert math.isinf(amplification([[0.25], [0.75]], np.linspace(0, 1, 100), 2, quantiles=(2,))[2].worth)


def test_errors_are_typed():
    x = np.random.default_rng(13).normal(size=(100, 2))
    with pytest.raises(DataError, match="25 cells, for which 100 true events are too few"):
        amplification(x, x, 10, quantiles=(5,))
    with pytest.raises(DataError, match="too many equal values"):
        amplification(x[:, 0], np.zeros(100), 10, quantiles=(2,))
    with pytest.raises(ShapeError, match="expected 1 columns; got 2"):
        amplification(x, x[:, 0], 10, quantiles=(2,))
    with pytest.raises(NonFiniteError, match="generated: event 1"):
        amplification([0.0, math.nan], x[:, 0], 10)
    with pytest.raises(ConfigError, match="training_size"):
        amplification(x, x, 0)
    with pytest.raises(ConfigError, match="quantiles"):
        amplification(x, x, 10, quantiles=(1,))
    with pytest.raises(DataError, match="two experiments"):
        average_amplification([])
    with pytest.raises(DataError, match="three draws"):
        bayesian_amplification([x, x], 10)
    with pytest.raises(DataError, match="expected one of"):
        amplification(x, x, 10, quantiles=(2,))[3]
