"""p-values, their agreement and coverage against scipy, scikit-learn, chi2 and normal laws with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_squared_error, r2_score

from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError
from pofx.metrics import agreement, clopper_pearson, coverage, tail_probabilities, tail_probability
from pofx.report import statistics

SIGMA = math.erf(math.sqrt(0.5))


@pytest.mark.parametrize(("count", "trials"), [(0, 50), (3, 50), (50, 50), (1, 1), (499, 1000)])
def test_the_interval_is_that_of_scipy(count, trials):
    toys = np.r_[np.zeros(count), np.ones(trials - count)]
    found = tail_probability(0.5, toys)
    expected = stats.binomtest(count, trials).proportion_ci(SIGMA, "exact")
    assert (found.value, found.count, found.trials) == (count / trials, count, trials)
    assert (found.low, found.high) == (pytest.approx(expected.low, rel=1e-9), pytest.approx(expected.high, rel=1e-9))
    assert clopper_pearson(count, trials, 0.9) == pytest.approx(
        tuple(stats.binomtest(count, trials).proportion_ci(0.9, "exact")), rel=1e-9
    )


def test_the_report_uses_the_same_interval():
    assert statistics.clopper_pearson is clopper_pearson


def test_significance_is_one_sided():
    found = tail_probability(0.5, np.r_[np.zeros(27), np.ones(973)])
    assert found.z == pytest.approx(stats.norm.isf(0.027))
    assert found.z_low == pytest.approx(stats.norm.isf(found.high))
    assert found.z_high == pytest.approx(stats.norm.isf(found.low))
    assert found.z_low < found.z < found.z_high
    never = tail_probability(-1.0, np.zeros(1000))
    assert never.z == math.inf
    assert 2.5 < never.z_low < 3.5


def test_upper_limits():
    never = tail_probability(-1.0, np.zeros(1000))
    assert never.upper_limit() == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert never.upper_limit(0.9) == pytest.approx(1 - 0.1 ** (1 / 1000))
    some = tail_probability(0.5, np.r_[np.zeros(4), np.ones(96)])
    limit = some.upper_limit()
    assert stats.binom.cdf(4, 100, limit) == pytest.approx(0.05)  # so few would come one time in twenty


def test_texts():
    assert str(tail_probability(-1.0, np.zeros(100))) == "< 0.02"
    assert str(tail_probability(1.0, np.zeros(100))).startswith("> 0.98")
    assert str(tail_probability(0.5, np.r_[np.zeros(50), np.ones(50)])) == "0.5000 ± 0.0547"


def test_many_are_as_one_by_one():
    rng = np.random.default_rng(1)
    toys = np.r_[rng.normal(size=500).round(1), -math.inf]
    events = np.r_[rng.normal(size=50).round(1), -math.inf, math.inf]
    brute = [np.mean([toy <= event for toy in toys]) for event in events]
    assert tail_probabilities(events, toys).tolist() == brute
    assert [tail_probability(event, toys).value for event in events] == brute
    assert tail_probabilities(torch.tensor(events), torch.tensor(toys)).tolist() == brute


def test_a_flat_density_has_nothing_against_any_event():
    assert tail_probabilities(np.zeros(3), np.zeros(10)).tolist() == [1.0, 1.0, 1.0]


def test_for_a_gaussian_it_is_chi2():
    rng = np.random.default_rng(2)
    x, toys = rng.normal(size=(200, 5)), rng.normal(size=(100_000, 5))
    p = tail_probabilities(-0.5 * (x**2).sum(1), -0.5 * (toys**2).sum(1))
    exact = stats.chi2.sf((x**2).sum(1), 5)
    assert np.abs(p - exact).max() < 5 * 0.5 / math.sqrt(100_000)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_agreement_of_hand_made_arrays():
    rng = np.random.default_rng(3)
    truth = rng.random(400)
    p = np.clip(truth + rng.normal(0, 0.1, 400), 0, 1)
    found = agreement(p, truth)
    assert found.r.value == pytest.approx(stats.pearsonr(p, truth).statistic, rel=1e-12)
    assert found.mse.value == pytest.approx(mean_squared_error(truth, p), rel=1e-12)
    assert found.r2.value == pytest.approx(r2_score(truth, p), rel=1e-12)
    assert agreement(truth, truth).r2.value == 1.0
    assert agreement(1 - truth, truth).r.value == pytest.approx(-1.0)
    assert agreement(1 - truth, truth).r2.value < -1
    assert list(found.r) == [found.r.value, found.r.error]
    assert "MSE" in str(found)


def test_errors_of_the_agreement_are_those_of_the_events():
    """The error of a mean square is known; that of r is (1 - r^2)/sqrt(n) for normal numbers."""
    rng = np.random.default_rng(4)
    truth = rng.normal(size=2000)
    p = 0.8 * truth + 0.6 * rng.normal(size=2000)
    found = agreement(p, truth, replicas=1000)
    assert found.mse.error == pytest.approx(((p - truth) ** 2).std() / math.sqrt(2000), rel=0.1)
    assert found.r.error == pytest.approx((1 - 0.8**2) / math.sqrt(2000), rel=0.15)
    assert agreement(p, truth, seed=1) == agreement(p, truth, seed=1)
    assert agreement(p, truth, seed=1) != agreement(p, truth, seed=2)


def test_the_floor_from_finitely_many_toys_is_the_one_quoted():
    rng = np.random.default_rng(5)
    events = rng.normal(size=2000)
    both = [[tail_probabilities(events, rng.normal(size=100)) for _ in range(2)] for _ in range(200)]
    assert np.mean([(p - t) ** 2 for p, t in both]) == pytest.approx(1 / 300, rel=0.1)


LEVELS = np.array([0.1, 0.5, 0.6827, 0.95])


def region(x: np.ndarray, sigma: float) -> np.ndarray:
    return -0.5 * (x / sigma) ** 2


def test_coverage_of_the_true_density_is_right():
    """Over 200 repetitions, with errors that are the scatter: as many toys as events, so that the toys' own error counts."""
    rng = np.random.default_rng(6)
    found = [coverage(region(rng.normal(size=400), 1), region(rng.normal(size=400), 1), LEVELS) for _ in range(200)]
    offset = np.array([c.covered - c.level for c in found])
    assert (np.abs(offset.mean(0)) < 4 * offset.std(0) / math.sqrt(200) + 1 / 400).all()
    assert np.mean([c.error for c in found], axis=0) == pytest.approx(offset.std(0), rel=0.2)
    assert np.array([c.pull for c in found]).std(0) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("sigma", [0.7, 1.4])
def test_coverage_of_a_wrong_width_is_the_known_one(sigma):
    rng = np.random.default_rng(7)
    found = coverage(region(rng.normal(size=20_000), sigma), region(sigma * rng.normal(size=100_000), sigma), LEVELS)
    half = stats.norm.isf((1 - LEVELS) / 2)
    expected = 2 * stats.norm.cdf(sigma * half) - 1
    assert (np.abs(found.covered - expected) < 4 * found.error).all()
    assert (np.sign(found.pull) == np.sign(sigma - 1)).all()
    assert "95%" in str(found)


def test_coverage_of_all_or_none_still_has_an_error():
    found = coverage(np.full(50, 5.0), np.linspace(0, 1, 1000), [0.5, 0.9])
    assert found.covered.tolist() == [1.0, 1.0]
    assert (found.error > 0.01).all()


def test_errors_are_typed():
    with pytest.raises(NonFiniteError, match="toys: number 1 is NaN"):
        tail_probability(0.0, [1.0, math.nan])
    with pytest.raises(DataError, match="at least one"):
        tail_probabilities([0.0], [])
    with pytest.raises(ShapeError, match=r"toys: expected shape \(n,\); got \(2, 2\)"):
        tail_probabilities([0.0], np.zeros((2, 2)))
    with pytest.raises(ShapeError, match=r"truth: expected shape \(4,\)"):
        agreement(np.zeros(4), np.zeros(5))
    with pytest.raises(DataError, match="three finite p-values"):
        agreement([0.1, 0.2], [0.1, 0.2])
    with pytest.raises(DataError, match="all the same"):
        agreement([0.1, 0.2, 0.3], [0.1, 0.1, 0.1])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        coverage([0.0], [0.0], [1.0])
