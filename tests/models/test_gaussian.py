"""The multivariate normal against scipy, scikit-learn and its own formulae."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.covariance
import torch
from scipy import stats

from pofx import Dataset, Gaussian
from pofx.errors import ConfigError, DataError
from pofx.simulators import Conditional, CorrelatedGaussian, correlation_matrix

TRUTH = CorrelatedGaussian([1.0, -2.0, 3.0], correlation_matrix(3) * np.outer([1, 2, 3], [1, 2, 3]))


def everything(x, **more) -> Dataset:
    """All events for training."""
    return Dataset.from_arrays(x, **more).with_split((1, 0, 0))


def test_is_scipys_normal_of_mean_and_covariance() -> None:
    x = TRUTH.sample(500, 1)
    expected = stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x)
    np.testing.assert_allclose(Gaussian().fit(everything(x)).log_prob(x), expected, rtol=1e-10)


def test_weights() -> None:
    x, weight = TRUTH.sample(500, 1), np.random.default_rng(2).normal(1, 0.8, 500)
    expected = (
        stats.multivariate_normal(np.average(x, 0, weight), np.cov(x.T, aweights=weight, ddof=0))
        if (weight > 0).all()
        else None
    )
    assert expected is None  # some weights are negative, which numpy refuses
    mean = np.average(x, 0, weight)
    covariance = (x - mean).T @ ((x - mean) * weight[:, None]) / weight.sum()
    model = Gaussian().fit(everything(x, weight=weight))
    np.testing.assert_allclose(model.log_prob(x), stats.multivariate_normal(mean, covariance).logpdf(x), rtol=1e-9)


def test_conditional_is_the_regression_on_the_context() -> None:
    truth = Conditional(TRUTH, context=2)
    x, context = truth.sample(2000, 1)
    model = Gaussian().fit(everything(x, context=context))
    both = np.concatenate([context, x], 1)
    joint = CorrelatedGaussian(both.mean(0), np.cov(both.T, bias=True))
    np.testing.assert_allclose(model.log_prob(x, context), Conditional(joint, 2).log_prob(x, context), rtol=1e-9)
    slope = joint.covariance[2, :2] @ np.linalg.inv(joint.covariance[:2, :2])
    predicted = joint.mean[2] + slope @ (context[7] - joint.mean[:2])
    assert model.sample(40_000, context[7], seed=1).mean() == pytest.approx(predicted, abs=0.05)
    centre = model.decode(torch.zeros(1, 1, dtype=torch.float64), context[7:8]).item()
    assert centre == pytest.approx(predicted)


def test_rows_too_many_to_keep_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x = TRUTH.sample(20_000, 1)
    kept = Gaussian(shrinkage="ledoit-wolf").fit(x).log_prob(x[:50])
    monkeypatch.setattr("pofx.models.gaussian.CACHE", 0)
    np.testing.assert_array_equal(Gaussian(shrinkage="ledoit-wolf").fit(x).log_prob(x[:50]), kept)


def test_periodic_context_enters_by_cosine_and_sine() -> None:
    rng = np.random.default_rng(1)
    phi = rng.uniform(-np.pi, np.pi, 4000)
    x = (2 * np.cos(phi) + 0.1 * rng.standard_normal(4000))[:, None]
    data = Dataset.from_arrays(x, phi[:, None], context_columns=["phi"], declare="phi:rad:periodic:-pi:pi")
    model = Gaussian().fit(data)
    means = model.sample(500, np.array([[-3.14159], [3.14159], [0.0]]), seed=1).mean((1, 2))
    np.testing.assert_allclose(means, [-2, -2, 2], atol=0.05)


@pytest.mark.parametrize("n", [12, 300])
@pytest.mark.parametrize(
    ("shrinkage", "reference"),
    [("ledoit-wolf", sklearn.covariance.ledoit_wolf), ("oas", sklearn.covariance.oas)],
)
def test_shrinkage_is_scikit_learns(n: int, shrinkage: str, reference) -> None:
    x = CorrelatedGaussian(np.zeros(8), correlation_matrix(8)).sample(n, 3) * np.arange(1, 9)
    sigma = x.std(0)
    unit = (x - x.mean(0)) / sigma
    correlation, _ = reference(unit)
    model = Gaussian(shrinkage=shrinkage).fit(everything(x))
    expected = stats.multivariate_normal(x.mean(0), correlation * np.outer(sigma, sigma)).logpdf(x)
    np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-9)


def test_full_shrinkage_is_independence() -> None:
    x = TRUTH.sample(500, 1)
    model = Gaussian(shrinkage=1.0).fit(everything(x))
    expected = stats.norm(x.mean(0), x.std(0)).logpdf(x).sum(1)
    np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-10)


def test_a_large_offset_costs_no_digits() -> None:
    x = TRUTH.sample(2000, 1)
    near, far = (Gaussian(preprocess="none").fit(everything(x + offset)) for offset in (0.0, 1e6))
    np.testing.assert_allclose(far.log_prob(x + 1e6), near.log_prob(x), atol=1e-6)


def test_tiny_cross_sections() -> None:
    x = 1e-39 * (10 + TRUTH.sample(1000, 1))
    model = Gaussian(preprocess="none").fit(everything(x))
    expected = Gaussian().fit(everything(x)).log_prob(x)
    np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-9)


def test_singular_covariance_names_the_empty_direction() -> None:
    x = TRUTH.sample(300, 1)
    doubled = {"a": x[:, 0], "b": x[:, 1], "sum": x[:, 0] + x[:, 1]}
    with pytest.raises(DataError, match=r"1 of 3 directions.*(a.*b|b.*a).*shrink") as caught:
        Gaussian().fit(Dataset.from_arrays(doubled))
    assert "sum" in str(caught.value)
    model = Gaussian(shrinkage=0.01).fit(Dataset.from_arrays(doubled))
    assert np.isfinite(model.log_prob(np.stack(list(doubled.values()), 1)[:10])).all()


def test_negative_weights_may_leave_no_variance() -> None:
    x = np.concatenate([TRUTH.sample(50, 1), 10 * TRUTH.sample(50, 2)])
    weight = np.concatenate([np.full(50, 1.0), np.full(50, -0.9)])
    with pytest.raises(DataError, match=r"variance"):
        Gaussian().fit(everything(x, weight=weight))


@pytest.mark.parametrize("shrinkage", ["strong", -0.1, 1.5, True])
def test_settings_are_checked(shrinkage: object) -> None:
    with pytest.raises(ConfigError, match="shrinkage"):
        Gaussian(shrinkage=shrinkage)
