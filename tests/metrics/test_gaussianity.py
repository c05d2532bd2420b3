"""The check of normality: statistics against brute force, uniform p-values, and what carries a deviation."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pofx.classifiers.polynomial import PolynomialClassifier
from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError
from pofx.metrics import nulls
from pofx.metrics.gaussian_statistics import henze_zirkler, mardia, radial, squared_mahalanobis, whitened
from pofx.metrics.gaussianity import check_gaussian
from pofx.metrics.nulls import gaussian_null

JUDGE = PolynomialClassifier()


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


def test_moments_of_the_null_are_those_in_the_books() -> None:
    n, d = 400, 5
    values = gaussian_null(n, d, JUDGE, 150, cache=False).values
    kurtosis = values[:, 2]
    error = np.sqrt(8 * d * (d + 2) / n / 150)
    assert abs(kurtosis.mean() - d * (d + 2) * (n - 1) / (n + 1)) < 5 * error
    skewness = n * values[:, 1] / 6  # chi2 with d (d + 1) (d + 2) / 6 degrees of freedom for large n
    assert abs(skewness.mean() / 35 - 1) < 0.1


def test_p_values_are_uniform_on_normal_data() -> None:
    root = np.linalg.cholesky(0.5 * np.eye(4) + 0.5)
    found = [
        check_gaussian(np.random.default_rng([6, k]).normal(size=(80, 4)) @ root.T, replicas=400, seed=k, cache=False)
        for k in range(60)
    ]
    names = [s.name for s in found[0].statistics]
    p = {name: [check[name].p_value for check in found] for name in names} | {
        "global": [check.global_p for check in found]
    }
    uniform = (np.arange(400) + 0.5) / 400  # the null has 400 replicas of its own
    for name, values in p.items():
        assert stats.ks_2samp(values, uniform).pvalue > 0.01 / len(p), name


def test_lognormal_data_are_recognised() -> None:
    x = np.exp(0.3 * np.random.default_rng(7).normal(size=(600, 6)))
    found = check_gaussian(x, replicas=99, cache=False)
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


def test_quantiles_lie_in_the_band() -> None:
    qq = check_gaussian(np.random.default_rng(9).normal(size=(400, 3)), replicas=99, cache=False).qq
    inside = (qq.observed >= qq.low95) & (qq.observed <= qq.high95)
    assert inside.mean() > 0.6
    assert (np.diff(qq.median) >= 0).all()


def test_cache_is_the_same_as_computing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = gaussian_null(30, 2, JUDGE, 20, cache=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    nulls._null.cache_clear()
    np.testing.assert_array_equal(gaussian_null(30, 2, JUDGE, 20, cache=tmp_path).values, first.values)
    nulls._null.cache_clear()
    path.write_bytes(path.read_bytes()[:-50])
    with caplog.at_level(logging.WARNING, logger="pofx.metrics.nulls"):
        np.testing.assert_array_equal(gaussian_null(30, 2, JUDGE, 20, cache=tmp_path).values, first.values)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(gaussian_null(30, 2, JUDGE, 25, cache=False).values[:20], first.values)


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
