"""Coordinates compared by likelihood: where the closed form says which is right, and by how much."""

import numpy as np
import pytest

import pofx
from pofx.errors import ConfigError, DataError
from pofx.models.parameterisation import compare_coordinates


def test_likelihoods_are_in_common_coordinates() -> None:
    """Of a lognormal, a Gaussian in log x is exact: -log p is its entropy; in x it loses what the closed form says."""
    x = np.random.default_rng(1).lognormal(0.0, 0.5, (4000, 1))
    found = compare_coordinates(x, pofx.Gaussian(), coordinates=("x", "log", "exp"))
    plain, logs, exp = found.coordinates
    entropy = 0.5 * np.log(2 * np.pi * np.e * 0.25)
    variance = (np.exp(0.25) - 1) * np.exp(0.25)
    assert logs.nll == pytest.approx(entropy, abs=4 * (logs.error or 0) + 1e-3)
    assert plain.nll == pytest.approx(0.5 * np.log(2 * np.pi * np.e * variance), abs=4 * (plain.error or 0))
    assert logs.gain is not None
    assert logs.gain.error < np.hypot(logs.error, plain.error)  # paired, though it counts the training events too
    assert found.recommended == "log"
    assert exp.nll > logs.nll


def test_exponential_has_closed_forms_in_every_coordinate() -> None:
    """exp(-x) of an exponential is uniform; log x has the variance pi^2 / 6 and the mean -gamma."""
    x = np.random.default_rng(2).exponential(1.0, (4000, 1))
    found = compare_coordinates(x, pofx.Gaussian(), coordinates=("x", "exp", "log", "rank"))
    level = 0.5 * np.log(2 * np.pi * np.e)
    expected = level, level + 0.5 * np.log(1 / 12) + 1.0, level + 0.5 * np.log(np.pi**2 / 6) - np.euler_gamma
    for one, value in zip(found.coordinates, expected, strict=False):
        assert one.nll == pytest.approx(value, abs=4 * (one.error or 0))
    assert found.coordinates[3].nll == pytest.approx(1.0, abs=0.05)  # ranks know the entropy
    assert found.recommended == "rank"
    assert compare_coordinates(x, pofx.Gaussian(), coordinates=("x", "exp")).recommended == "exp"
    normal = np.random.default_rng(3).normal(5.0, 0.4, (1500, 2))
    assert compare_coordinates(normal, pofx.Gaussian(), coordinates=("x", "exp", "log")).recommended == "x"


def test_a_coordinate_that_has_no_value_is_refused() -> None:
    x = np.random.default_rng(3).normal(size=(200, 1))
    found = compare_coordinates(x, pofx.Gaussian(), coordinates=("x", "log"))
    assert "positive columns" in str(found.coordinates[1].refused)
    assert found.recommended == "x"
    with pytest.raises(DataError, match="positive columns"):
        compare_coordinates(x, pofx.Gaussian(), coordinates=("log",))
    with pytest.raises(ConfigError, match="expected names"):
        compare_coordinates(x, pofx.Gaussian(), coordinates=("sqrt",))
