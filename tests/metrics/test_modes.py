"""Modes that a sample lacks: a known fraction is found, p-values are uniform where nothing is missing, weights count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError
from pofx.metrics import modes

MODES = 8


def ring(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight normal modes on a circle, ``(n, 2)``, and which one each event is of."""
    rng = np.random.default_rng(seed)
    k = rng.integers(0, MODES, n)
    angle = 2 * np.pi * k / MODES
    return 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.2 * rng.normal(size=(n, 2)), k


@pytest.mark.parametrize("cells", [8, 32, None])
def test_one_of_eight_modes_is_missing(cells):
    truth, _ = ring(8000, 1)
    made, k = ring(9000, 2)
    found = modes(truth, made[k != 3], cells=cells)
    assert abs(found.lacking.value - 1 / MODES) < 4 * found.lacking.error
    assert found.value == pytest.approx(1 / MODES, abs=4 * found.error)
    assert found.error == pytest.approx(np.sqrt(1 / 8 * 7 / 8 / 4000), rel=0.1)
    assert found.p_value < 1e-20
    assert found.floor < 0.01
    angles = np.arctan2(found.centres[found.thin, 1], found.centres[found.thin, 0])
    np.testing.assert_allclose(angles, 3 * 2 * np.pi / MODES, atol=0.3)


def test_a_mode_with_half_of_its_events():
    truth, _ = ring(8000, 1)
    made, k = ring(8000, 2)
    kept = (k != 3) | (np.arange(8000) % 2 == 0)
    found = modes(truth, made[kept], cells=8)
    assert found.thin.sum() == 1
    assert abs(found.lacking.value - (1 / 8 - 0.5 / 7.5)) < 4 * found.lacking.error


def test_weights_make_a_mode_missing():
    truth, k = ring(8000, 1)
    made, _ = ring(8000, 2)
    found = modes(truth, made, cells=8, weight_truth=np.where(k == 3, 5.0, 1.0))
    assert found.thin.sum() == 1
    assert found.value == pytest.approx(5 / 12, abs=4 * found.error)


def test_without_weights_it_is_the_statistic_of_a_contingency_table():
    """Against scipy's chi-squared, on the same counts."""
    found = modes(ring(2000, 1)[0], ring(1500, 2)[0], cells=10)
    table = np.stack([found.truth * 1000, found.generated * 1500])
    known = stats.chi2_contingency(table, correction=False)
    assert found.chi_squared == pytest.approx(known.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(known.pvalue, rel=1e-9)
    assert found.dof == known.dof


@pytest.mark.parametrize("weighted", [False, True])
def test_p_values_are_uniform_and_few_cells_thin_where_nothing_is_missing(weighted):
    """120 pairs of samples of one law; weights, where there are any, depend on x and scatter."""
    values, thin = [], 0
    for seed in range(120):
        rng = np.random.default_rng([seed, 5])
        sides = [rng.normal(size=(n, 2)) for n in (2000, 1000)]
        weight = [None, None]
        if weighted:  # of mean density sigmoid(2 x) N(x), in two ways
            kept = rng.uniform(size=1000) < 1 / (1 + np.exp(-2 * sides[1][:, 0]))
            sides[1] = sides[1][kept]
            weight[0] = 2 * rng.uniform(size=2000) / (1 + np.exp(-2 * sides[0][:, 0]))
        found = modes(*sides, cells=10, weight_truth=weight[0], weight_generated=weight[1], replicas=2, seed=seed)
        values.append(found.p_value)
        thin += found.thin.any()
    assert stats.kstest(values, "uniform").pvalue > 0.005
    assert stats.binom.sf(thin - 1, 120, 0.01) > 0.005


def test_an_event_of_weight_two_is_not_two_events_but_has_their_share():
    truth, made = ring(2000, 1)[0], ring(1000, 2)[0]
    once = modes(truth, made, cells=8, weight_generated=np.full(1000, 2.0))
    plain = modes(truth, made, cells=8)
    assert once.chi_squared == pytest.approx(plain.chi_squared, rel=1e-12)
    np.testing.assert_allclose(once.generated, plain.generated)


def test_units_do_not_matter():
    truth, made = ring(2000, 1)[0], ring(1000, 2)[0]
    scale, shift = np.array([1e-39, 1e6]), np.array([0.0, 1e7])
    plain, scaled = modes(truth, made, cells=8), modes(truth * scale + shift, made * scale + shift, cells=8)
    assert scaled.chi_squared == pytest.approx(plain.chi_squared, rel=1e-6)
    np.testing.assert_allclose(scaled.centres, plain.centres * scale + shift, rtol=1e-5)


def test_what_is_refused():
    x = ring(1000, 1)[0]
    with pytest.raises(ShapeError, match="equal columns"):
        modes(x, x[:, :1])
    with pytest.raises(NonFiniteError, match="generated"):
        modes(x, np.array([[np.nan, 0.0]]))
    with pytest.raises(DataError, match="weights of at least 0"):
        modes(x, x, weight_truth=np.linspace(-1, 1, 1000))
    with pytest.raises(DataError, match="at least 200 events"):
        modes(x[:150], x)
    with pytest.raises(ConfigError, match="between 2 and 10"):
        modes(x, x, cells=11)
    with pytest.raises(ConfigError, match="level"):
        modes(x, x, level=1.0)
    with pytest.raises(DataError, match="all events are the same"):
        modes(np.ones((500, 2)), x)
