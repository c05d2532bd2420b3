"""Mixture density network: densities against scipy, far tails, Bishop's inverse problem, a covariance that depends on the context."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

import pofx
from pofx.data.events import Events
from pofx.data.spec import Column, Field
from pofx.errors import CapabilityError, ConfigError
from pofx.models.mixture_density import Components, MixtureDensityNetwork
from pofx.simulators.densities import Mixture
from pofx.training import Training

QUICK = Training(
    max_epochs=None, max_steps=400, batch_size=256, learning_rate=5e-3, seed=1, device="cpu", progress=False
)
SMALL = MixtureDensityNetwork(components=4, hidden=(32, 32))


def components(d: int, k: int = 3) -> Components:
    generator = torch.Generator().manual_seed(1)
    options = {"generator": generator, "dtype": torch.float64}
    factor = torch.randn(1, k, d, d, **options).tril(-1) + torch.diag_embed(torch.rand(1, k, d, **options) + 0.5)
    return Components(torch.randn(1, k, **options).log_softmax(-1), torch.randn(1, k, d, **options), factor)


def expanded(one: Components, n: int) -> Components:
    return Components(*(part.expand(n, *part.shape[1:]) for part in one))


def scipy_log_prob(one: Components, x: np.ndarray) -> np.ndarray:
    parts = []
    for k in range(one.mean.shape[1]):
        a = one.factor[0, k].numpy()
        normal = stats.multivariate_normal(one.mean[0, k].numpy(), np.linalg.inv(a.T @ a))
        parts.append(float(one.log_share[0, k]) + normal.logpdf(x))
    return logsumexp(np.stack(parts), axis=0)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_density_is_that_of_scipy(d: int) -> None:
    one, x = components(d), np.random.default_rng(2).normal(size=(20, d))
    np.testing.assert_allclose(expanded(one, 20).log_prob(torch.from_numpy(x)), scipy_log_prob(one, x), atol=1e-10)


def test_draws_have_the_moments_of_the_mixture() -> None:
    one, n = components(2), 100_000
    generator = torch.Generator().manual_seed(3)
    u, z = torch.rand(n, generator=generator, dtype=torch.float64), torch.randn(n, 2, generator=generator).double()
    x = expanded(one, n).draw(u, z).numpy()
    share, mean = one.log_share[0].exp().numpy(), one.mean[0].numpy()
    inner = np.linalg.inv(one.factor[0].numpy().transpose(0, 2, 1) @ one.factor[0].numpy())
    expected = share @ mean
    apart = mean - expected
    covariance = np.einsum("k,kij->ij", share, inner + apart[:, :, None] * apart[:, None, :])
    error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(x.mean(0) - expected) < 5 * error).all()
    assert np.abs(np.cov(x.T) / covariance - 1).max() < 0.05


def test_far_away_it_is_finite_and_has_gradients() -> None:
    one = Components(*(part.float() for part in components(2)))
    x = torch.tensor([[1e6, -1e6]], requires_grad=True)
    value = one.log_prob(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert bool(value.isfinite().all() and gradient.isfinite().all())
    assert float(value.detach()) < -1e9


@pytest.mark.filterwarnings("ignore::pofx.errors.RangeWarning")
@pytest.mark.parametrize("far", [1e18, 1e19, 2e19, 1e30, 1e60, 1e300])
def test_very_far_away_the_density_is_zero(far: float) -> None:
    one, places = Components(*(part.float() for part in components(2))), torch.tensor([[far, -far], [0.0, far]])
    value = expanded(one, 2).log_prob(places)
    assert bool((value < -1e30).all())
    model = SMALL.fit(np.random.default_rng(1).normal(size=(500, 2)), training=QUICK.replace(max_steps=5))
    found = model.log_prob([[far, -far], [far, far], [0.0, 0.0]])
    assert (found[:2] < -1e30).all()
    assert np.isfinite(found[2])


def inverse_problem(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Bishop's example: c = x + 0.3 sin(2 pi x) + noise, x uniform; x given c has up to three branches."""
    x = rng.uniform(size=(n, 1))
    return x, x + 0.3 * np.sin(2 * np.pi * x) + 0.1 * rng.normal(size=(n, 1))


def inverse_truth(x: np.ndarray, c: np.ndarray) -> np.ndarray:
    def log_likelihood(at: np.ndarray) -> np.ndarray:
        return stats.norm.logpdf(c, at + 0.3 * np.sin(2 * np.pi * at), 0.1)

    grid = (np.arange(2000) + 0.5) / 2000
    evidence = logsumexp(log_likelihood(grid[None, :]), axis=1) - math.log(2000)
    return log_likelihood(x)[:, 0] - evidence


@pytest.mark.slow
def test_the_inverse_problem() -> None:
    x, c = inverse_problem(np.random.default_rng(1), 8000)
    model = MixtureDensityNetwork(components=5, hidden=(32, 32)).fit(
        x, c, training=QUICK.replace(max_steps=600, learning_rate=1e-2)
    )
    x, c = inverse_problem(np.random.default_rng(2), 4000)
    gap = inverse_truth(x, c) - model.log_prob(x, c)
    assert -5 * gap.std() / 63 < gap.mean() < 0.06  # one normal per context leaves 0.4
    drawn = model.sample(4000, [0.5], seed=1)[:, 0]
    assert [((drawn > a) & (drawn < b)).mean() > 0.1 for a, b in ((0.05, 0.35), (0.35, 0.65), (0.65, 0.95))] == [
        True
    ] * 3


def turning(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A normal distribution whose long axis turns with the context; events, contexts and log-densities."""
    angle = rng.uniform(-np.pi / 2, np.pi / 2, size=(n, 1))
    z = rng.normal(size=(n, 2))
    along, across = z[:, :1], 0.2 * z[:, 1:]
    x = along * np.hstack([np.cos(angle), np.sin(angle)]) + across * np.hstack([-np.sin(angle), np.cos(angle)])
    return x, angle, stats.norm.logpdf(z).sum(1) - math.log(0.2)


def test_full_covariances_follow_the_context() -> None:
    x, c, _ = turning(np.random.default_rng(1), 8000)
    model = MixtureDensityNetwork(components=2, hidden=(64, 64)).fit(x, c, training=QUICK.replace(max_steps=500))
    x, c, truth = turning(np.random.default_rng(2), 4000)
    gap = truth - model.log_prob(x, c)
    assert -5 * gap.std() / 63 < gap.mean() < 0.05  # without the correlation it would be 0.5 on average


def test_without_a_context_it_is_a_mixture() -> None:
    truth = Mixture(
        [0.6, 0.4], np.array([[-2.0, 0.0], [2.0, 1.0]]), np.array([[[1, 0.8], [0.8, 1]], [[0.3, 0], [0, 0.5]]])
    )
    model = SMALL.fit(truth.sample(8000, 1), training=QUICK)
    x = truth.sample(4000, 2)
    gap = truth.log_prob(x) - model.log_prob(x)
    assert -5 * gap.std() / 63 < gap.mean() < 0.03


def test_a_cloud_as_context() -> None:
    """x ~ N(sum of the points, 0.3^2): sums of up to four points."""
    rng = np.random.default_rng(1)
    spec = {"seen": Field("cloud", (4, 1), (Column("u"),))}
    form = {"x": Field("vector", (1,), (Column("x"),))}

    def made(n: int) -> tuple[pofx.Dataset, np.ndarray]:
        mask = np.arange(4) < rng.integers(0, 5, size=(n, 1))
        points = np.where(mask[..., None], rng.normal(size=(n, 4, 1)), 99.0)
        total = (points[..., 0] * mask).sum(1)
        x = total[:, None] + 0.3 * rng.normal(size=(n, 1))
        data = pofx.Dataset.from_arrays(
            {"x": x}, Events({"seen": points}, {"seen": mask}), columns=form, context_columns=spec
        )
        return data, stats.norm.logpdf(x[:, 0], total, 0.3)

    model = SMALL.fit(made(8000)[0], training=QUICK)
    data, truth = made(3000)
    assert (truth - model.log_prob(data.arrays())).mean() < 0.1  # knowing nothing costs 1.6


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="components"):
        MixtureDensityNetwork(components=0)
    with pytest.raises(ConfigError, match="hidden"):
        MixtureDensityNetwork(hidden=())
    rows = np.random.default_rng(1).uniform(size=(200, 2))
    data = pofx.Dataset.from_arrays(rows, columns=[Column("phi", "", "periodic", 0.0, 1.0), Column("x")])
    with pytest.raises(CapabilityError, match="periodic"):
        SMALL.fit(data, training=QUICK)
