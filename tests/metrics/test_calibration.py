"""Tests of calibration against a conjugate normal model: the posterior of theta ~ N(0, 1) after x ~ N(theta, 1) is N(x/2, 1/2)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import pofx
from pofx.errors import CapabilityError, ConfigError, DataError, NonFiniteError, ShapeError
from pofx.metrics.calibration import (
    CalibrationCurve,
    PosteriorDraws,
    check_calibration,
    expected_coverage,
    pit,
    posterior_draws,
    quantile_calibration,
    sbc_ranks,
    tarp,
)
from pofx.metrics.calibration_bands import crossing, uniformity
from pofx.metrics.calibration_curves import curve

SIGMA = math.sqrt(0.5)
LEVELS = np.arange(1, 50) / 50


def conjugate(n: int, seed: int, *, width: float = 1.0, shift: float = 0.0, k: int = 99, d: int = 2) -> PosteriorDraws:
    """Draws of a posterior whose width is ``width`` times the right one and whose mean is off by ``shift`` of the right widths."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, d))
    centre = 0.5 * (theta + rng.normal(size=(n, d))) + shift * SIGMA
    draws = centre[:, None] + width * SIGMA * rng.normal(size=(n, k, d))

    def log_density(values: np.ndarray) -> np.ndarray:
        return -0.5 * ((values / (width * SIGMA)) ** 2).sum(-1)

    return PosteriorDraws(theta, draws, log_density(theta - centre), log_density(draws - centre[:, None]))


def every(posterior: PosteriorDraws, seed: int = 0) -> dict[str, CalibrationCurve]:
    """All tests, quantiles and PIT of the first quantity among them."""
    found = {c.name: c for c in check_calibration(posterior, seed=seed)}
    predicted = np.quantile(posterior.draws[..., 0], LEVELS, axis=1, method="weibull").T
    found["quantiles"] = quantile_calibration(posterior.truth[:, 0], predicted, LEVELS)
    return found


# Bands


def test_exact_crossing_probabilities_are_those_of_all_paths():
    """Three numbers on a grid of three points: the sum over all 4^3 ways to fall between them."""
    z, n = np.array([0.2, 0.5, 0.9]), 3
    width = np.diff(np.r_[0.0, z, 1.0])
    outcomes = []
    for cells in np.ndindex(4, 4, 4):
        count = np.array([sum(c <= i for c in cells) for i in range(3)])
        tail = 2 * np.minimum(stats.binom.cdf(count, n, z), stats.binom.sf(count - 1, n, z))
        outcomes.append((tail.min(), width[list(cells)].prod()))
    for gamma in sorted({tail for tail, _ in outcomes}):
        brute = sum(chance for tail, chance in outcomes if tail <= gamma * (1 + 1e-12))
        assert crossing(n, tuple(z), gamma) == pytest.approx(min(brute, 1.0), rel=1e-9)


def test_exact_bands_and_p_values_keep_their_promise():
    rng = np.random.default_rng(1)
    found = [uniformity(rng.random(100)) for _ in range(300)]
    inside = np.mean([((b.low <= b.ecdf) & (b.ecdf <= b.high)).all() for b in found])
    assert abs(inside - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 300)
    assert stats.kstest([b.p_value for b in found], "uniform").pvalue > 0.01
    assert all(
        (b.p_value > 0.05) == bool(((b.low <= b.ecdf) & (b.ecdf <= b.high)).all())
        for b in found
        if not 0.045 < b.p_value < 0.055
    )


def test_simulated_bands_agree_with_exact_ones():
    u = np.random.default_rng(2).random(300) ** 1.1
    exact, simulated = uniformity(u), uniformity(u, np.full(300, 0.7))
    assert (exact.method, simulated.method) == ("exact", "simulated")
    assert simulated.ecdf == pytest.approx(exact.ecdf)
    middle = slice(10, 40)
    assert (simulated.high - simulated.low)[middle] == pytest.approx((exact.high - exact.low)[middle], rel=0.08)
    assert simulated.p_value == pytest.approx(exact.p_value, abs=0.1)


def test_p_values_with_weights_are_uniform():
    rng = np.random.default_rng(3)
    found = [uniformity(rng.random(60), rng.exponential(size=60) - 0.1, seed=s).p_value for s in range(60)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_weights_undo_a_bias():
    """Events of a density 2u come back to a flat one by the weight 1/u; without it the numbers are too high."""
    u = np.sqrt(np.random.default_rng(4).uniform(0.01, 1.0, 2000))
    flat = (u - 0.1) / 0.9
    assert pit(flat, weight=1 / u).p_value > 0.01
    assert pit(flat).diagnosis().startswith("biased low")


# The conjugate model


@pytest.mark.parametrize("name", ["x1", "x2", "TARP", "HPD", "quantiles"])
def test_nothing_is_found_in_the_right_posterior(name):
    found = every(conjugate(1000, 10))[name]
    assert found.p_value > 0.01 / 5
    assert found.diagnosis() == "no deviation found"
    assert found.value < 3 * found.floor


def test_p_values_of_the_right_posterior_are_uniform():
    found = [every(conjugate(100, 100 + s, k=49), seed=s) for s in range(100)]
    for name in found[0]:
        assert stats.kstest([each[name].p_value for each in found], "uniform").pvalue > 0.01 / 5, name


@pytest.mark.parametrize(("width", "word", "other"), [(0.7, "over", "under"), (1.4, "under", "over")])
@pytest.mark.slow
def test_wrong_widths_are_caught_with_their_sign(width, word, other):
    for name, found in every(conjugate(1000, 11, width=width)).items():
        assert found.p_value < 1e-3, name
        assert f"{word}-confident" in found.diagnosis(), name
        assert f"{other}-confident" not in found.diagnosis(), name


@pytest.mark.parametrize(("shift", "word"), [(0.5, "biased high"), (-0.5, "biased low")])
def test_shifts_are_caught_with_their_sign(shift, word):
    found = every(conjugate(1000, 12, shift=shift))
    for name in ("x1", "x2", "quantiles"):
        assert found[name].diagnosis() == word
    for name in ("TARP", "HPD"):
        assert found[name].p_value < 0.01, name
        assert "bias" in found[name].diagnosis()


@pytest.mark.parametrize("width", [0.7, 1.0, 1.4])
def test_bias_and_width_are_pulls(width):
    shift = 0.2  # scores end at the outermost rank: 3.3 widths
    found = sbc_ranks(conjugate(1000, 13, width=width, shift=shift, k=999, d=1))["x1"]
    assert abs(found.bias.value + shift / width) < 4 * found.bias.error
    assert abs(found.width.value - 1 / width) < 4 * found.width.error


def test_scores_of_few_draws_are_not_biased():
    found = [sbc_ranks(conjugate(200, 50 + s, k=4, d=1))["x1"] for s in range(50)]
    widths = np.array([each.width.value for each in found])
    assert abs(widths.mean() - 1.0) < 4 * widths.std() / math.sqrt(50)


def test_a_prior_that_ignores_its_context():
    """Passes ranks and coverage; TARP with references that depend on the context finds it."""
    rng = np.random.default_rng(14)
    theta, draws = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 99, 1))
    blind = PosteriorDraws(theta, draws, -(theta[:, 0] ** 2), -(draws[..., 0] ** 2))
    assert all(c.p_value > 0.01 / 3 for c in check_calibration(blind))
    assert tarp(blind, theta + rng.normal(size=(2000, 1))).p_value < 1e-6


def test_tied_ranks_stay_uniform():
    rng = np.random.default_rng(15)
    integers = PosteriorDraws(rng.poisson(1.0, 2000), rng.poisson(1.0, (2000, 19)))
    assert sbc_ranks(integers).p_value > 0.01


def test_pit_of_a_closed_form():
    x = np.random.default_rng(16).normal(size=1000)
    assert pit(stats.norm.cdf(x)).diagnosis() == "no deviation found"
    assert pit(stats.norm.cdf(x, scale=0.7)).diagnosis() == "over-confident"
    assert pit(stats.norm.cdf(x, loc=0.5)).diagnosis() == "biased high"
    assert pit(np.full(100, 0.3)).p_value < 1e-6


# Models


def test_a_fitted_model_faces_its_test_set():
    rng = np.random.default_rng(17)
    c = rng.normal(size=(4000, 1))
    data = pofx.Dataset.from_arrays(c @ [[1.0, -1.0]] + rng.normal(size=(4000, 2)), context=c)
    model = pofx.Gaussian().fit(data.train)
    posterior = posterior_draws(model, data.test, draws=50, seed=3)
    assert posterior.draws.shape == (len(data.test), 50, 2)
    assert posterior.log_truth == pytest.approx(model.log_prob(data.test))
    assert check_calibration(posterior).diagnosis() == "no deviation found"
    assert len(check_calibration(posterior)) == 4
    assert posterior.names == model.layout.spec["x"].names


def test_draws_do_not_depend_on_the_chunk(monkeypatch):
    rng = np.random.default_rng(18)
    c = rng.normal(size=(60, 1))
    data = pofx.Dataset.from_arrays(c + rng.normal(size=(60, 1)), context=c)
    model = pofx.Gaussian().fit(data)
    whole = posterior_draws(model, data, draws=7, seed=1)
    monkeypatch.setattr("pofx.metrics.calibration_draws.CHUNK", 50)
    pieces = posterior_draws(model, data, draws=7, seed=1)
    assert (pieces.draws == whole.draws).all()
    assert pieces.log_draws == pytest.approx(whole.log_draws)
    assert (posterior_draws(model, data, draws=7, seed=2).draws != whole.draws).all()


def test_a_model_without_context():
    x = np.random.default_rng(19).normal(size=(500, 2))
    model = pofx.Gaussian().fit(x)
    assert check_calibration(model, x, draws=30).diagnosis() == "no deviation found"
    assert "over-confident" in check_calibration(model, 2 * x, draws=30).diagnosis()


# Texts and errors


def test_texts():
    found = check_calibration(conjugate(300, 20, width=0.7))
    assert str(found).splitlines()[0].startswith("over-confident")
    assert "exact, 300 events" in str(found["x1"])
    with pytest.raises(DataError, match="expected one of x1, x2, TARP, HPD; got 'y'"):
        found["y"]


def test_errors_are_typed():
    one = np.zeros((5, 1))
    with pytest.raises(ShapeError, match=r"truth \(n, d\) and draws \(n, k, d\); got \(5, 1\) and \(4, 3, 1\)"):
        PosteriorDraws(one, np.zeros((4, 3, 1)))
    with pytest.raises(NonFiniteError, match="truth: event 2"):
        PosteriorDraws(np.array([0.0, 1.0, math.nan]), np.zeros((3, 2)))
    with pytest.raises(DataError, match="neither"):
        PosteriorDraws(one, np.zeros((5, 3, 1)), log_truth=np.zeros(5))
    with pytest.raises(CapabilityError, match="use tarp"):
        expected_coverage(PosteriorDraws(one, np.zeros((5, 3, 1))))
    with pytest.raises(DataError, match=r"numbers in \[0, 1\]"):
        pit([0.5, 1.5])
    with pytest.raises(ConfigError, match="level"):
        uniformity([0.5], level=1.0)
    with pytest.raises(ConfigError, match="ascending"):
        quantile_calibration(np.zeros(3), np.zeros((3, 2)), [0.5, 0.5])
    with pytest.raises(ShapeError, match="references"):
        tarp(PosteriorDraws(one, np.zeros((5, 3, 1))), np.zeros(5))
    with pytest.raises(DataError, match="two events"):
        curve("x", [0.5])
    with pytest.raises(ConfigError, match="draws"):
        posterior_draws(pofx.Gaussian().fit(np.random.default_rng(1).normal(size=(20, 1))), one, draws=0)
