"""The check of normality: statistics against brute force, uniform p-values, and what carries a deviation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError
from pofx.metrics.gaussian_statistics import henze_zirkler, mardia, radial, squared_mahalanobis, whitened
from pofx.metrics.gaussianity import GLOBAL, GaussianCheck, _compared, check_gaussian
from pofx.metrics.gaussianity_culprits import _pulls, culprits
from pofx.metrics.nulls import LEVELS, STATISTICS, Null
from pofx.simulators.densities import correlation_matrix


def skewed(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, size=(n, d)) @ rng.normal(size=(d, d))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_mardia_is_the_double_sum(d: int) -> None:
    x = skewed(150, d, 1)
    offset = x - x.mean(0)
    product = offset @ np.linalg.inv(offset.T @ offset / len(x)) @ offset.T
    np.testing.assert_allclose(mardia(x), [(product**3).mean(), (np.diag(product) ** 2).mean()], rtol=1e-9)


@pytest.mark.parametrize("d", [1, 3])
def test_henze_zirkler_is_the_double_sum(d: int) -> None:
    x = skewed(80, d, 2)
    n, offset = len(x), x - x.mean(0)
    inverse = np.linalg.inv(offset.T @ offset / n)
    b2 = 0.5 * (n * (2 * d + 1) / 4) ** (2 / (d + 4))
    total = -2 * (1 + b2) ** (-d / 2) * sum(np.exp(-b2 * o @ inverse @ o / (2 * (1 + b2))) for o in offset)
    total += n * (1 + 2 * b2) ** (-d / 2)
    total += sum(np.exp(-0.5 * b2 * (a - b) @ inverse @ (a - b)) for a in offset for b in offset) / n
    assert henze_zirkler(x) == pytest.approx(total, rel=1e-9)


def test_squared_radii_follow_their_exact_law() -> None:
    """n r^2 / (n - 1)^2 of one row is a beta variable; rows of many small samples are tested together."""
    rng = np.random.default_rng(3)
    n, d = 12, 3
    r2 = np.array([squared_mahalanobis(rng.normal(size=(n, d)))[0] for _ in range(1500)])
    assert stats.kstest(r2 * n / (n - 1) ** 2, stats.beta(d / 2, (n - d - 1) / 2).cdf).pvalue > 0.01
    assert radial(whitened(rng.normal(size=(2000, 3)))) < 1.0
    assert radial(whitened(rng.standard_t(4, size=(2000, 3)))) > 2.0


def test_statistics_do_not_depend_on_units_or_mixing() -> None:
    x = skewed(300, 4, 4)
    moved = (x @ np.random.default_rng(5).normal(size=(4, 4))) * 1e-39 + 7e-39
    np.testing.assert_allclose(mardia(moved), mardia(x), rtol=1e-8)
    assert henze_zirkler(moved) == pytest.approx(henze_zirkler(x), rel=1e-8)
    np.testing.assert_allclose(squared_mahalanobis(moved), squared_mahalanobis(x), rtol=1e-8)


def quick(x: np.ndarray, seed: int = 0, replicas: int = 99) -> GaussianCheck:
    return check_gaussian(x, replicas=replicas, seed=seed, cache=False, locate=False)


def test_p_values_are_uniform_on_normal_data() -> None:
    root = np.linalg.cholesky(0.5 * np.eye(4) + 0.5)
    found = [quick(np.random.default_rng([6, k]).normal(size=(80, 4)) @ root.T, k, 400) for k in range(60)]
    names = [s.name for s in found[0].statistics]
    p = {name: [check[name].p_value for check in found] for name in names} | {
        "global": [check.global_p for check in found]
    }
    uniform = (np.arange(400) + 0.5) / 400  # the null has 400 replicas of its own
    for name, values in p.items():
        assert stats.ks_2samp(values, uniform).pvalue > 0.01 / len(p), name


def made_null(replicas: int, seed: int = 1) -> Null:
    """Correlated statistics with a law of our own."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((replicas, len(STATISTICS))) + rng.standard_normal((replicas, 1))
    return Null(values, np.zeros((replicas, len(LEVELS))))


@pytest.mark.parametrize("at", range(GLOBAL))
def test_one_extreme_statistic_is_enough(at: int) -> None:
    """However many statistics there are, the replicas set the smallest global p-value."""
    null = made_null(99)
    values = null.values.mean(0)
    values[at] += 20.0
    found, p = _compared(values, null)
    assert p == found[at].p_value == pytest.approx(0.01)


def test_the_global_p_value_is_uniform_where_the_statistics_are_exchangeable() -> None:
    """Each of 500 data sets against the others: its global p-value is one of 1/500, 2/500, ..., each once."""
    values = made_null(500).values
    p = [_compared(row, Null(np.delete(values, k, 0), np.zeros((499, 1))))[1] for k, row in enumerate(values)]
    np.testing.assert_allclose(np.sort(p), np.arange(1, 501) / 500)


def test_kurtosis_counts_on_both_sides() -> None:
    """Few events that fill a cube have too little of it, Student's t has too much."""
    rng = np.random.default_rng(10)
    for x, sign in ((rng.uniform(size=(300, 3)), -1), (rng.standard_t(5, size=(300, 3)), 1)):
        found = quick(x)["mardia-kurtosis"]
        assert found.p_value == pytest.approx(0.01)
        assert found.pull * sign > 3


def test_judges_go_by_name() -> None:
    x = np.random.default_rng(11).normal(size=(60, 2))
    found = check_gaussian(x, judge="trees", replicas=19, cache=False, locate=False)
    assert found["mardia-skewness"] == quick(x, replicas=19)["mardia-skewness"]
    assert found["c2st"] != quick(x, replicas=19)["c2st"]
    with pytest.raises(ConfigError, match="classifier"):
        check_gaussian(x, judge="astrologer", replicas=19, cache=False)


def test_lognormal_data_are_recognised() -> None:
    x = np.exp(0.3 * np.random.default_rng(7).normal(size=(600, 6)))
    found = quick(x)
    assert found.global_p == pytest.approx(0.01)
    assert not found.is_gaussian(0.02)
    assert found["mardia-skewness"].pull > 5
    assert found["c2st"].value > 0.6


def test_the_planted_bin_and_pair_are_named() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(1500, 6)) @ np.linalg.cholesky(0.4 * np.eye(6) + 0.6).T
    x[:, 2] = np.exp(0.4 * x[:, 2])
    x[:, 5] = x[:, 5] + 0.5 * x[:, 0] ** 2
    found = check_gaussian(x, names=list("abcdef"), replicas=19, cache=False)
    assert found.bins[0].names in (("c",), ("f",))
    assert {culprit.names for culprit in found.bins[:4]} >= {("c",), ("f",)}
    assert found.bins[0].p_value < 0.01
    assert set(found.pairs[0].names) == {"a", "f"}
    assert found.pairs[0].p_value < 0.01
    assert found.bins[-1].p_value > 0.05


def test_pulls_are_against_all_others() -> None:
    values = np.random.default_rng(12).normal(size=(7, 3))
    values[:, 2] = 1.0  # does not vary
    rest = [np.delete(values[:, :2], k, 0) for k in range(7)]
    expected = np.stack([(values[k, :2] - r.mean(0)) / r.std(0, ddof=1) for k, r in enumerate(rest)])
    np.testing.assert_allclose(_pulls(values), np.column_stack([expected, np.zeros(7)]), rtol=1e-9)


@pytest.mark.slow
def test_culprits_are_chosen_at_random_on_normal_data() -> None:
    """The p-values of the largest of 10 bins and of 90 pairs are uniform, whatever the correlation."""
    root = np.linalg.cholesky(correlation_matrix(10))
    names = [str(i) for i in range(10)]
    found = [culprits(np.random.default_rng([13, k]).normal(size=(60, 10)) @ root.T, names, k) for k in range(80)]
    for kind in range(2):
        p = [check[kind][0].p_value for check in found]
        assert stats.kstest(p, "uniform").pvalue > 0.01 / 2


def test_values_of_culprits_are_moments_and_mixed_moments() -> None:
    x = np.random.default_rng(14).gamma(2.0, size=(400, 2))
    bins, pairs = culprits(x, ["a", "b"], 1)
    u = stats.norm.ppf((stats.rankdata(x, axis=0) - 0.5) / 400)
    u /= u.std(0)
    expected = {
        (("a",), "skewness"): stats.skew(x[:, 0]),
        (("b",), "kurtosis"): stats.kurtosis(x[:, 1]),
        (("a", "b"), "squares"): np.cov(u.T**2, ddof=0)[0, 1] - 2 * (u[:, 0] * u[:, 1]).mean() ** 2,
        (("b", "a"), "bent"): (u[:, 1] * u[:, 0] ** 2).mean(),
    }
    found = {(c.names, c.what): c.value for c in (*bins, *pairs)}
    assert len(found) == 4 + 3
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9), key


def test_one_column_has_no_pairs() -> None:
    found = check_gaussian(np.random.default_rng(15).exponential(size=(100, 1)), replicas=19, cache=False)
    assert found.pairs == ()
    assert found.bins[0].p_value < 0.01


def test_quantiles_lie_in_the_band() -> None:
    qq = quick(np.random.default_rng(9).normal(size=(400, 3))).qq
    inside = (qq.observed >= qq.low95) & (qq.observed <= qq.high95)
    assert inside.mean() > 0.6
    assert (np.diff(qq.median) >= 0).all()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros(5), ShapeError, "shape"),
        (np.full((9, 2), np.nan), NonFiniteError, "finite"),
        (np.random.default_rng(1).normal(size=(5, 4)), DataError, "6 or more for 4 columns; got 5"),
        (np.ones((9, 2)), DataError, "column 0 is constant"),
        (np.random.default_rng(1).normal(size=(30, 1)) * [1.0, 2.0], DataError, "singular"),
    ],
)
def test_bad_input_is_named(x: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_gaussian(x, replicas=19, cache=False)


def test_bad_options_are_named() -> None:
    x = np.random.default_rng(1).normal(size=(30, 2))
    with pytest.raises(ConfigError, match="at least 19"):
        check_gaussian(x, replicas=3)
    with pytest.raises(ShapeError, match="names: expected 2; got 1"):
        check_gaussian(x, names=["a"])
