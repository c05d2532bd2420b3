"""The toys of Bayesian flows, against numerical integrals and against their own samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from pofx.simulators.ramps import RAMPS, PowerRamp


@pytest.mark.parametrize("name", RAMPS)
def test_density_is_normalised_and_samples_follow_it(name: str) -> None:
    toy = RAMPS[name]
    low, high = (-12.0, 12.0) if name == "gaussian-ring" else (0.0, 1.0)
    axis = np.linspace(low, high, 801)[:-1] + (high - low) / 1600
    x, y = np.meshgrid(axis, axis)
    cell = (axis[1] - axis[0]) ** 2
    assert np.exp(toy.log_prob(np.stack([x.ravel(), y.ravel()], 1))).sum() * cell == pytest.approx(1, abs=2e-3)
    sample = toy.sample(4000, 1)
    along = np.hypot(*sample.T) if name == "gaussian-ring" else sample[:, 0]
    levels = np.linspace(0.1, 0.9, 9)
    counts = np.histogram(along, [-np.inf, *toy.quantiles(levels), np.inf])[0]
    assert stats.chisquare(counts).pvalue > 0.01
    below = integrate.quad(lambda r: float(toy.profile(r)), 0.0, float(toy.quantiles(0.3)))[0]
    assert below == pytest.approx(0.3, abs=1e-4)
    points = toy.points(toy.quantiles(levels), 0.3)
    ratio = np.exp(toy.log_prob(points)) / toy.profile(toy.quantiles(levels))
    expected = 1 / (2 * np.pi * np.hypot(*points.T)) if name == "gaussian-ring" else np.ones(9)
    np.testing.assert_allclose(ratio, expected)


def test_entropy_and_edges() -> None:
    toy = PowerRamp(2.0)
    value, error = toy.entropy_estimate(20_000, seed=1)
    assert abs(value - toy.entropy()) < 4 * error
    assert toy.log_prob([[1.5, 0.5], [0.5, -0.1]]).tolist() == [-np.inf, -np.inf]
