"""p-values of predictions against closed forms, rankings, and the far tail."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from pofx.errors import ConfigError, DataError, ShapeError
from pofx.metrics.pvalues import PValue, tail_probability
from pofx.simulators.densities import CorrelatedGaussian, Lognormal, correlation_matrix
from pofx.tasks.cross_section.predict import Verdict, predict
from pofx.tasks.cross_section.universes import Universes

ERROR = np.array([0.1, 0.2, 0.3])
GAUSSIAN = CorrelatedGaussian([1.0, 1.5, 2.0], correlation_matrix(3) * ERROR[:, None] * ERROR)
LOGNORMAL = Lognormal.from_moments([1.0, 1.0, 1.0], 0.36 * correlation_matrix(3))


def moments(truth: CorrelatedGaussian | Lognormal) -> tuple[np.ndarray, np.ndarray]:
    return truth.moments() if isinstance(truth, Lognormal) else (truth.mean, truth.covariance)


def test_gaussian_gives_the_p_values_of_chi2() -> None:
    x = GAUSSIAN.sample(8, seed=2)
    found = predict(x, density=GAUSSIAN, universes=moments(GAUSSIAN), toys=40_000, seed=3)
    for row, verdict in zip(x, found, strict=True):
        offset = row - GAUSSIAN.mean
        chi2 = offset @ np.linalg.solve(GAUSSIAN.covariance, offset)
        assert verdict.chi2 == pytest.approx(chi2, rel=1e-9)
        p = stats.chi2.sf(chi2, 3)
        assert verdict.p_chi2 == pytest.approx(p)
        sigma = np.sqrt(p * (1 - p) / 40_000)
        assert abs(verdict.gaussian.value - p) < 5 * sigma
        assert abs(verdict.density.value - p) < 5 * sigma
    assert found.moved == () or len(found.moved) % 2 == 0


def test_lognormal_ranks_otherwise_and_says_so() -> None:
    predictions = {"low": [0.05, 0.05, 0.05], "high": [2.4, 2.4, 2.4]}
    found = predict(predictions, density=LOGNORMAL, universes=moments(LOGNORMAL), toys=50_000, seed=1)
    low, high = found
    assert low.chi2 < high.chi2  # chi2 prefers the low one
    assert low.p_density < high.p_density  # which a positive cross section hardly reaches
    assert found.moved == ("low", "high")
    assert found.order("chi2") == ["low", "high"]
    assert found.order("density") == ["high", "low"]
    assert 0.05 in low.changes or 0.01 in low.changes or 0.0027 in low.changes
    assert "linear" in found.coordinates
    json.dumps(found.to_dict())
    head, rows = found.rows()
    assert all(len(row) == len(head) for row in rows)
    assert "▼" in str(found)
    assert "▲" in str(found)


def test_log_coordinates_of_a_lognormal_are_chi2_of_the_logs() -> None:
    x = LOGNORMAL.sample(5, seed=4)
    found = predict(x, density=LOGNORMAL, universes=moments(LOGNORMAL), toys=40_000, coordinates="log")
    g = np.log(x) - LOGNORMAL.normal.mean
    chi2 = np.einsum("ni,ij,nj->n", g, np.linalg.inv(LOGNORMAL.normal.covariance), g)
    for verdict, p in zip(found, stats.chi2.sf(chi2, 3), strict=True):
        assert abs(verdict.density.value - p) < 5 * np.sqrt(p * (1 - p) / 40_000) + 1e-9


def test_ratio_does_not_depend_on_units() -> None:
    x, factor = LOGNORMAL.sample(4, seed=5), np.array([1.0, 10.0, 0.1])
    mean, covariance = moments(LOGNORMAL)
    first = predict(x, density=LOGNORMAL, universes=(mean, covariance), toys=5000, coordinates="ratio")
    other = Lognormal.from_moments(mean * factor, covariance * factor[:, None] * factor)
    second = predict(x * factor, density=other, universes=other.moments(), toys=5000, coordinates="ratio")
    assert [v.density.count for v in first] == [v.density.count for v in second]


def test_far_tail_is_used_where_no_toy_is_below_and_a_limit_otherwise() -> None:
    point = GAUSSIAN.mean + 9 * np.linalg.cholesky(GAUSSIAN.covariance)[:, 0]
    (verdict,) = predict(point, density=GAUSSIAN, universes=moments(GAUSSIAN), toys=2000)
    assert verdict.far is not None
    assert abs(verdict.far.value - verdict.p_chi2) < 6 * verdict.far.error
    (plain,) = predict(point, density=GAUSSIAN, universes=moments(GAUSSIAN), toys=2000, far=False)
    assert plain.limited
    assert plain.p_density == pytest.approx(1 - 0.05 ** (1 / 2000))


def verdict(p_chi2: float, density: PValue) -> Verdict:
    return Verdict("one", 1.0, 1, p_chi2, density, density, -1.0)


def test_a_verdict_changes_only_where_counting_decides() -> None:
    toys = np.arange(1000.0)
    assert verdict(0.06, tail_probability(19.0, toys)).changes == (0.05,)  # 0.02 is clearly below
    near = verdict(0.06, tail_probability(47.0, toys))  # 0.048 ± 0.007
    assert near.changes == ()
    assert near.open == (0.05,)
    assert verdict(0.001, tail_probability(99.0, toys)).changes == (0.05, 0.01, 0.0027)
    limit = verdict(0.5, tail_probability(-1.0, toys[:100]))  # no toy of 100: below 0.0295 at 95 %
    assert limit.changes == (0.05,)
    assert limit.open == (0.01, 0.0027)


def test_rank_by_the_density_is_that_of_the_score() -> None:
    """Counting errors must not reorder predictions: with few toys the first three tie at zero."""
    axis = np.linalg.cholesky(GAUSSIAN.covariance)[:, 0]
    rows = {f"{k}": GAUSSIAN.mean + k * axis for k in (6.0, 5.0, 7.0, 1.0)}
    found = predict(rows, density=GAUSSIAN, universes=moments(GAUSSIAN), toys=200, far=False)
    assert found.order("density") == ["1.0", "5.0", "6.0", "7.0"]
    assert found.moved == ()


def test_singular_covariances_are_not_passed_over() -> None:
    total = np.random.default_rng(1).normal(size=(500, 2)) @ np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    found = predict([[0.0, 0.0, 1.0]], density=GAUSSIAN, universes=Universes(total), toys=500, far=False)
    assert "rank 2 of 3" in found.notes[0]
    assert found.verdicts[0].ndf == 2
    assert found.verdicts[0].outside > 0.1


def test_bad_input() -> None:
    options = {"density": GAUSSIAN, "universes": moments(GAUSSIAN)}
    with pytest.raises(ShapeError, match="expected 3 bins, as the measurement has; got 2"):
        predict([[1.0, 2.0]], **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 100"):
        predict([GAUSSIAN.mean], toys=3, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="coordinates"):
        predict([GAUSSIAN.mean], coordinates="cubic", **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="log coordinates"):
        predict([-GAUSSIAN.mean], coordinates="log", **options)  # type: ignore[arg-type]
