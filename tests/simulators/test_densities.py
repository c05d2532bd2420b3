"""Closed-form truths: each integrates to one, its entropy is that of its sample, and it refuses what cannot be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pofx import Dataset
from pofx.errors import CapabilityError, DataError, ShapeError
from pofx.simulators import (
    Conditional,
    CorrelatedGaussian,
    DependentBeta,
    Lognormal,
    Mixture,
    MixtureBenchmark,
    Truth,
    VonMisesChain,
    correlation_matrix,
    t2k_like,
)

S = np.array([[1.0, 0.6], [0.6, 2.0]])
TRUTHS = {
    "gaussian": CorrelatedGaussian([1.0, -1.0], S),
    "mixture": Mixture([3, 1], [[-2.0, 0.0], [2.0, 1.0]], [S, 0.5 * np.eye(2)]),
    "lognormal": Lognormal.from_moments([3.0, 4.0], 0.3 * S),
    "mixed": Lognormal.from_moments([3.0, 4.0], 0.3 * S, [True, False]),
    "beta": DependentBeta([2.0, 3.0], [2.5, 1.5]),
    "von-mises": VonMisesChain(2),
}
BOXES = {"beta": [(0, 1)] * 2, "von-mises": [(-math.pi, math.pi)] * 2}


@pytest.fixture(params=TRUTHS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def truth(name: str) -> Truth:
    return TRUTHS[name]


def grid(name: str, side: int = 400) -> tuple[np.ndarray, float]:
    sample = TRUTHS[name].sample(100_000, 9)
    low, high = sample.min(0), sample.max(0)
    box = BOXES.get(name, list(zip(low - 0.3 * (high - low), high + 0.3 * (high - low), strict=True)))
    edges = [np.linspace(a, b, side + 1) for a, b in box]
    centres = [0.5 * (e[1:] + e[:-1]) for e in edges]
    return np.stack(np.meshgrid(*centres, indexing="ij"), -1).reshape(-1, 2), math.prod(e[1] - e[0] for e in edges)


def test_integrates_to_one(name: str, truth: Truth) -> None:
    points, area = grid(name)
    assert np.exp(truth.log_prob(points)).sum() * area == pytest.approx(1, abs=2e-3)


def test_sample_has_the_moments_of_the_density(name: str, truth: Truth) -> None:
    points, area = grid(name)
    p = np.exp(truth.log_prob(points)) * area
    sample = truth.sample(100_000, 3)
    for function in (lambda x: np.cos(x[:, 0]), lambda x: np.sin(x[:, 1]), lambda x: np.cos(x[:, 0] - 2 * x[:, 1])):
        values = function(sample)
        assert abs(values.mean() - p @ function(points)) < 5 * values.std() / math.sqrt(1e5) + 2e-3


def test_entropy(truth: Truth) -> None:
    estimate, error = truth.entropy_estimate(50_000, seed=4)
    if truth.entropy() is not None:
        assert abs(estimate - truth.entropy()) < 4.5 * error
    else:
        assert isinstance(truth, Mixture)


def test_marginal_integrates_the_joint(name: str, truth: Truth) -> None:
    side = 400
    points, area = grid(name, side)
    density = np.exp(truth.log_prob(points)).reshape(side, side)
    first = points.reshape(side, side, 2)[:, 0, :1]
    step = float(first[1, 0] - first[0, 0])
    np.testing.assert_allclose(np.exp(truth.marginal([0]).log_prob(first)), density.sum(1) * area / step, atol=5e-3)


def test_conditional(truth: Truth) -> None:
    conditional = Conditional(truth)
    x, context = conditional.sample(5, seed=1)
    both = np.concatenate([context, x], 1)
    np.testing.assert_array_equal(both, truth.sample(5, seed=1))
    np.testing.assert_allclose(
        conditional.log_prob(x, context), truth.log_prob(both) - truth.marginal([0]).log_prob(context)
    )
    assert len(conditional.columns()) == len(conditional.context_columns()) == 1
    if truth.entropy() is not None:
        values = -conditional.log_prob(*conditional.sample(50_000, seed=2))
        assert abs(values.mean() - conditional.entropy()) < 4.5 * values.std() / math.sqrt(50_000)


def test_seed_and_columns(truth: Truth) -> None:
    np.testing.assert_array_equal(truth.sample(10, 1), truth.sample(10, 1))
    assert (truth.sample(10, 1) != truth.sample(10, 2)).any()
    data = Dataset.from_arrays(truth.sample(100, 1), columns=truth.columns())
    assert len(data.names) == truth.dim


def test_gaussian_is_scipys() -> None:
    x = TRUTHS["gaussian"].sample(10, 1)
    reference = stats.multivariate_normal([1.0, -1.0], S)
    np.testing.assert_allclose(TRUTHS["gaussian"].log_prob(x), reference.logpdf(x))
    assert TRUTHS["gaussian"].entropy() == pytest.approx(reference.entropy())


def test_von_mises_is_scipys() -> None:
    x = np.linspace(-3, 3, 7)[:, None]
    np.testing.assert_allclose(
        VonMisesChain(1, 2.0, mean=0.3).log_prob(x), stats.vonmises(2.0, loc=0.3).logpdf(x[:, 0])
    )


@pytest.mark.parametrize("log", [None, [True, True, False]])
def test_lognormal_moments_are_exact(log) -> None:
    mean, covariance = np.array([1.0, 2.0, 3.0]), correlation_matrix(3) * np.outer([0.4, 1.0, 1.5], [0.4, 1.0, 1.5])
    truth = Lognormal.from_moments(mean, covariance, log)
    np.testing.assert_allclose(truth.moments()[0], mean, rtol=1e-12)
    np.testing.assert_allclose(truth.moments()[1], covariance, rtol=1e-12)
    sample = truth.sample(400_000, 1)
    np.testing.assert_allclose(sample.mean(0), mean, rtol=0.01)
    np.testing.assert_allclose(np.cov(sample.T), covariance, rtol=0.05)


def test_outside_the_support_there_is_nothing() -> None:
    assert TRUTHS["lognormal"].log_prob([[-1.0, 1.0]])[0] == -np.inf
    assert TRUTHS["beta"].log_prob([[0.5, 1.5]])[0] == -np.inf
    assert TRUTHS["von-mises"].log_prob([[0.0, 4.0]])[0] == -np.inf


def test_extreme_scales() -> None:
    small = CorrelatedGaussian([0.0, 0.0], 1e-78 * S)
    x = TRUTHS["gaussian"].sample(5, 1) - [1.0, -1.0]
    np.testing.assert_allclose(
        small.log_prob(1e-39 * x), CorrelatedGaussian([0, 0], S).log_prob(x) + 2 * 39 * math.log(10)
    )


def test_beta_scores_survive_the_ends() -> None:
    truth = DependentBeta([0.5, 5.0], [0.5, 0.3])
    assert np.isfinite(truth.log_prob(truth.sample(20_000, 1))).all()


def test_benchmark_is_the_one_described() -> None:
    truth = MixtureBenchmark()
    root = np.linalg.cholesky(correlation_matrix(50))
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((50, 6)))[0]
    np.testing.assert_allclose(truth.means[2], 0.5 * root @ rng.standard_normal(50), rtol=1e-12)
    expected = root @ (0.02 * np.eye(50) + 0.98 * 50 / 6 * basis @ basis.T) @ root.T
    np.testing.assert_allclose(truth.covariances[2], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(truth.weights, [0.4, 0.3, 0.2, 0.1])
    assert MixtureBenchmark(np.eye(10)).dim == 10


def test_t2k_like_is_a_falling_spectrum_of_cross_sections() -> None:
    truth = t2k_like()
    mean, covariance = truth.moments()
    relative = np.sqrt(np.diag(covariance)) / mean
    assert truth.dim == len(truth.columns()) == 58
    assert relative[0] == pytest.approx(0.1)
    assert relative[-1] == pytest.approx(0.9)
    assert (np.diff(mean) < 0).all()
    assert 1e-41 < mean.min() < mean.max() < 1e-38
    assert 0 < truth.logarithmic.sum() < 58
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(correlation, correlation_matrix(58), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: CorrelatedGaussian([0, 0], [[1, 2], [2, 1]]), DataError, "positive-definite"),
        (lambda: CorrelatedGaussian([0, 0], [[1, 0.5], [0.2, 1]]), DataError, "symmetric"),
        (lambda: CorrelatedGaussian([0, 0], np.eye(3)), ShapeError, r"\(2, 2\)"),
        (lambda: CorrelatedGaussian([0, 0], [[1, 0], [0, -1]]), DataError, "positive variances"),
        (lambda: Mixture([1, -1], [[0], [1]], [[[1]], [[1]]]), ShapeError, "positive weights"),
        (lambda: Lognormal.from_moments([1, -1], np.eye(2)), DataError, "column 1"),
        (lambda: Lognormal.from_moments([1, 1], [[4, -1.5], [-1.5, 4]]), DataError, r"1 \+ cov.*columns 0 and 1"),
        (lambda: Lognormal([0, 0], np.eye(2), [True]), ShapeError, "booleans"),
        (lambda: DependentBeta([1, 0], [1, 1]), ShapeError, "positive a and b"),
        (lambda: VonMisesChain(0), DataError, "dim"),
        (lambda: VonMisesChain(3).marginal([1]), CapabilityError, "leading"),
        (lambda: Conditional(TRUTHS["gaussian"], 2), ShapeError, "context"),
        (lambda: TRUTHS["gaussian"].log_prob([[1.0]]), ShapeError, r"\(n, 2\)"),
    ],
)
def test_what_cannot_be_is_refused(make, error, words) -> None:
    with pytest.raises(error, match=words):
        make()
