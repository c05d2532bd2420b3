"""Gaussian mixtures: EM rises, recovers known mixtures, keeps exact conditionals, and survives degenerate components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture as SklearnMixture

from pofx import Dataset, GaussianMixture
from pofx.errors import ConfigError, DataError
from pofx.models.mixture import Components, expectation_maximisation
from pofx.simulators import Conditional, Mixture, MixtureBenchmark, correlation_matrix

TRUTH = Mixture(
    [0.5, 0.3, 0.2], [[-3, 0], [3, 0], [0, 4]], [correlation_matrix(2), np.eye(2) * 0.5, [[1, -0.5], [-0.5, 1]]]
)


def start(x: np.ndarray, k: int, seed: int) -> Components:
    mean = torch.from_numpy(x[np.random.default_rng(seed).choice(len(x), k, replace=False)])
    covariance = torch.from_numpy(np.cov(x.T)).expand(k, -1, -1)
    return Components(torch.full((k,), 1 / k, dtype=torch.float64), mean, covariance)


def run(
    x: np.ndarray, begin: Components, weight: np.ndarray | None = None, **changes
) -> tuple[Components, list[float]]:
    weights = np.ones(len(x)) if weight is None else weight
    settings = {
        "floor": torch.zeros(x.shape[1], dtype=torch.float64),
        "events": len(x),
        "diagonal": False,
        "tolerance": 0.0,
        "iterations": 40,
    }
    return expectation_maximisation(
        begin, [(torch.from_numpy(x), torch.from_numpy(weights))], **{**settings, **changes}
    )


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_likelihood_never_falls(seed: int, diagonal: bool) -> None:
    x = TRUTH.sample(1000, seed)
    begin = start(x, 3, seed)
    _, trace = run(x, begin, np.random.default_rng(seed).exponential(size=1000), diagonal=diagonal, tolerance=-1.0)
    assert len(trace) == 41
    assert min(np.diff(trace[1:])) > -1e-12


def test_one_step_is_scikit_learns() -> None:
    x = TRUTH.sample(500, 1)
    begin = start(x, 3, 2)
    found, trace = run(x, begin, iterations=1)
    precisions = np.linalg.inv(begin.covariance.numpy())
    reference = SklearnMixture(
        3, weights_init=begin.weight, means_init=begin.mean, precisions_init=precisions, max_iter=1, reg_covar=0.0
    )
    with pytest.warns(UserWarning, match="converge"):
        reference.fit(x)
    np.testing.assert_allclose(found.mean, reference.means_, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, reference.covariances_, rtol=1e-8)
    assert len(trace) == 2


def test_pieces_add_up() -> None:
    x = torch.from_numpy(TRUTH.sample(900, 1))
    one = torch.ones(900, dtype=torch.float64)
    settings = {
        "floor": torch.zeros(2, dtype=torch.float64),
        "events": 900,
        "diagonal": False,
        "tolerance": 0.0,
        "iterations": 10,
    }
    whole, _ = expectation_maximisation(start(x.numpy(), 3, 1), [(x, one)], **settings)
    parts, _ = expectation_maximisation(
        start(x.numpy(), 3, 1), list(zip(x.split(250), one.split(250), strict=True)), **settings
    )
    torch.testing.assert_close(whole, parts, rtol=1e-9, atol=1e-9)


def test_recovers_a_known_mixture() -> None:
    data = Dataset.from_arrays(TRUTH.sample(20_000, 1))
    model = GaussianMixture(components=3).fit(data)
    body, fresh = model.fitted.body, TRUTH.sample(20_000, 2)
    assert np.mean(TRUTH.log_prob(fresh) - model.log_prob(fresh)) < 0.003
    np.testing.assert_allclose(body.log_weight.exp(), [0.5, 0.3, 0.2], atol=0.02)


def test_is_scipys_sum_of_normals() -> None:
    x = TRUTH.sample(2000, 1)
    model = GaussianMixture(components=3, preprocess="none").fit(x)
    body = model.fitted.body
    parts = [
        w * stats.multivariate_normal(m, root @ root.T).pdf(x)
        for w, m, root in zip(body.log_weight.exp().tolist(), body.mean.numpy(), body.root.numpy(), strict=True)
    ]
    np.testing.assert_allclose(model.log_prob(x), np.log(sum(parts)), rtol=1e-9)


def test_conditional_weights_depend_on_the_context() -> None:
    truth = Conditional(TRUTH)
    x, context = truth.sample(20_000, 1)
    model = GaussianMixture(components=3).fit(x, context)
    fresh, given = truth.sample(5000, 2)
    inside = (given > context.min()) & (given < context.max())
    fresh, given = fresh[inside[:, 0]], given[inside[:, 0]]
    assert np.mean(truth.log_prob(fresh, given) - model.log_prob(fresh, given)) < 0.005
    edges = np.linspace(-4, 8, 25)
    counts = np.histogram(model.sample(20_000, [0.0], seed=1), edges)[0]
    grid = np.linspace(-4, 8, 2401)
    density = np.exp(model.log_prob(grid[:, None], [0.0]))
    expected = 20_000 * (0.5 * (density[1:] + density[:-1]) * 0.005).reshape(24, 100).sum(1)
    assert (((counts - expected) ** 2 / np.maximum(expected, 1)).sum()) < 60


@pytest.mark.filterwarnings("ignore::pofx.errors.RangeWarning")
def test_bic_finds_the_number_of_components() -> None:
    model = GaussianMixture(components="bic", most=6).fit(TRUTH.sample(6000, 1))
    body, fresh = model.fitted.body, TRUTH.sample(3000, 2)
    assert body.components == 3
    assert torch.isneginf(body.log_weight[3:]).all()
    assert np.mean(TRUTH.log_prob(fresh) - model.log_prob(fresh)) < 0.02
    assert np.isfinite(model.sample(5000, seed=1)).all()
    again = torch.tensor(fresh[:5], requires_grad=True)
    assert bool(torch.autograd.grad(model.log_prob(again).sum(), again)[0].isfinite().all())


def test_diagonal_keeps_no_correlation() -> None:
    body = GaussianMixture(components=3, covariance="diagonal").fit(TRUTH.sample(3000, 1)).fitted.body
    assert not body.root.tril(-1).any()


def test_more_components_than_events_can_carry_are_dropped() -> None:
    x = TRUTH.sample(60, 1)
    model = GaussianMixture(components=20).fit(x)
    assert 1 <= model.fitted.body.components <= 20
    assert np.isfinite(model.log_prob(x)).all()
    assert np.isfinite(model.sample(1000, seed=1)).all()


def test_repeated_rows_make_no_spike() -> None:
    x = np.concatenate([TRUTH.sample(1000, 1), np.tile([[0.5, 0.5]], (500, 1))])
    model = GaussianMixture(components=4, regularise=1e-4).fit(x)
    assert np.isfinite(model.log_prob(x)).all()
    assert model.log_prob(x).max() < 20


def test_negative_weights() -> None:
    x = np.concatenate([TRUTH.sample(8000, 1), TRUTH.sample(2000, 2)])
    weight = np.concatenate([np.ones(8000), np.random.default_rng(1).choice([-1.0, 1.0], 2000)])
    model = GaussianMixture(components=3).fit(x, weight=weight)
    fresh = TRUTH.sample(3000, 3)
    inside = (np.abs(fresh - x.mean(0)) < 3 * x.std(0)).all(1)
    assert np.mean((TRUTH.log_prob(fresh) - model.log_prob(fresh))[inside]) < 0.01


def test_no_positive_covariance_is_refused() -> None:
    x = torch.from_numpy(np.concatenate([0.1 * TRUTH.sample(50, 1), 10 * TRUTH.sample(50, 2)]))
    weight = torch.cat([torch.full((50,), 1.0), torch.full((50,), -0.9)]).double()
    one = Components(torch.ones(1).double(), torch.zeros(1, 2).double(), 100 * torch.eye(2).double()[None])
    with pytest.raises(DataError, match="no component"):
        expectation_maximisation(
            one, [(x, weight)], floor=torch.zeros(2).double(), events=100, diagonal=False, tolerance=0, iterations=3
        )


def test_few_events_do_not_end_the_iterations_early() -> None:
    """Regularisation lowers the likelihood of an overfitted start, and a component that is dropped that of the events it leaves: neither is
    convergence. The Gaussian is 40 nats away here."""
    truth = MixtureBenchmark()
    data = Dataset.from_arrays(truth.sample(500, 1)).with_split((1, 0, 0))
    model = GaussianMixture(components=4, regularise=3e-3).fit(data)
    fresh = truth.sample(1000, 2)
    assert np.mean(truth.log_prob(fresh) - model.log_prob(fresh)) < 20


@pytest.mark.slow
def test_benchmark_of_fifty_dimensions() -> None:
    truth = MixtureBenchmark()
    model = GaussianMixture(components=4).fit(Dataset.from_arrays(truth.sample(100_000, 1)))
    fresh = truth.sample(20_000, 2)
    assert np.mean(truth.log_prob(fresh) - model.log_prob(fresh)) < 0.1


@pytest.mark.parametrize(
    "bad",
    [
        {"components": 0},
        {"components": "aic"},
        {"covariance": "tied"},
        {"restarts": 0},
        {"tolerance": -1.0},
        {"regularise": -1.0},
    ],
)
def test_settings_are_checked(bad: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        GaussianMixture(**bad)
