"""The hybrid family: which directions it finds, and that the density is the product it claims to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import pofx
from pofx.errors import ConfigError
from pofx.models import pursuit
from pofx.models.base import Layout
from pofx.models.hybrid import HybridFlow
from pofx.models.pursuit import find_directions
from pofx.simulators import Conditional, CorrelatedGaussian, correlation_matrix
from pofx.training import Training

QUICK = Training(max_epochs=None, max_steps=200, batch_size=512, learning_rate=5e-3, precision="float64", seed=1)
TINY = QUICK.replace(max_steps=20)
SMALL = {"layers": 1, "hidden": (16,), "bins": 6}


class Planted:
    """x = A (f, g) + 3 with g normal; f0 has two peaks, and f1 is skewed (Gumbel) about |f0|. In closed form."""

    peaks = stats.norm(-1.5, 0.5), stats.norm(1.5, 0.5)

    def __init__(self, dim: int = 10, seed: int = 4) -> None:
        self.dim = dim
        rng = np.random.default_rng(seed)
        self.mix = rng.normal(size=(dim, dim)) * np.geomspace(0.1, 10.0, dim)[:, None]
        self.unmix = np.linalg.inv(self.mix)

    def hidden(self, n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(n, self.dim))
        z[:, 0] = 0.5 * z[:, 0] + np.where(rng.random(n) < 0.5, 1.5, -1.5)
        z[:, 1] = rng.gumbel(np.abs(z[:, 0]), 0.6)
        return z

    def sample(self, n: int, seed: int) -> np.ndarray:
        return self.hidden(n, seed) @ self.mix.T + 3.0

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        z = (x - 3.0) @ self.unmix.T
        first = np.log(0.5 * sum(peak.pdf(z[:, 0]) for peak in self.peaks))
        second = stats.gumbel_r.logpdf(z[:, 1], np.abs(z[:, 0]), 0.6)
        return first + second + stats.norm.logpdf(z[:, 2:]).sum(1) + np.linalg.slogdet(self.unmix)[1]


PLANTED = Planted()


def unsplit(x: np.ndarray, context: np.ndarray | None = None) -> pofx.Dataset:
    return pofx.Dataset.from_arrays(x, context).with_split((1, 0, 0))


def turned(model: pofx.Model, x: np.ndarray) -> np.ndarray:
    """(f, g) as the model sees them."""
    body = model.fitted.body
    latent = model.fitted.prepare(pofx.Dataset.from_arrays(x).arrays())[0].x
    return (body.normal.encode(latent, None) @ body.rotation.T).detach().numpy()


def white(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


# Which directions


def test_planted_directions_are_found() -> None:
    model = HybridFlow(**SMALL).fit(PLANTED.sample(4000, 1), training=TINY)
    assert len(model.layout.extra["directions"]) == 2
    z = PLANTED.hidden(4000, 2)
    free = turned(model, z @ PLANTED.mix.T + 3.0)[:, :2]
    design = np.column_stack([free, np.ones(len(free))])
    for k in (0, 1):
        residual = z[:, k] - design @ np.linalg.lstsq(design, z[:, k], rcond=None)[0]
        assert residual.var() / z[:, k].var() < 0.02
    assert max(model.layout.extra["p_values"]) < 0.01 < model.layout.extra["rejected"]


def test_the_index_is_the_negentropy_in_nats() -> None:
    """Of a mildly skewed density on a grid, against the integral."""
    nodes = np.linspace(-6, 6, 20001)
    density = stats.norm.pdf(nodes) * (1 + 0.2 * np.sin(2 * nodes))
    density /= density.sum()
    mean = density @ nodes
    y = (nodes - mean) / math.sqrt(density @ (nodes - mean) ** 2)
    entropy = -density @ np.log(density / (nodes[1] - nodes[0]))
    exact = 0.5 * math.log(math.tau * math.e * (density @ (nodes - mean) ** 2)) - entropy
    found = find_directions(torch.from_numpy(y[:, None]), torch.from_numpy(density), count=1)
    assert found.negentropy[0] == pytest.approx(exact, rel=0.3)


def test_p_values_of_gaussian_events_are_uniform() -> None:
    rng = np.random.default_rng(5)
    weight, context = torch.from_numpy(rng.uniform(0.2, 1.0, 200)), torch.from_numpy(rng.gamma(2.0, size=(200, 1)))
    for number, given in enumerate((None, context)):
        null = pursuit._Null.of(pursuit._Sample.choose(white(200, 3, 1), weight, given, 1), 1)
        samples = (pursuit._Sample.choose(white(200, 3, 100 + k), weight, given, 1) for k in range(60))
        p_values = [null.p_value(pursuit._climb(sample, 7)[1]) for sample in samples]
        assert stats.kstest(p_values, "uniform").pvalue > 0.005, number


def test_weights_are_duplicates() -> None:
    u, repeats = white(300, 3, 1) ** 3, np.random.default_rng(2).integers(1, 4, 300)
    u = (u - u.mean(0)) / u.std(0)
    repeated = u[torch.arange(300).repeat_interleave(torch.from_numpy(repeats))]
    first = find_directions(u, torch.from_numpy(repeats.astype(float)), count=2)
    second = find_directions(repeated, torch.ones(len(repeated)), count=2)
    torch.testing.assert_close(first.rows, second.rows, atol=1e-6, rtol=0)
    np.testing.assert_allclose(first.negentropy, second.negentropy, rtol=1e-6)


@pytest.mark.parametrize("what", ["mean", "width"])
def test_nonlinear_dependence_on_the_context_is_found(what: str) -> None:
    rng = np.random.default_rng(6)
    c, x = rng.normal(size=(1500, 1)), rng.normal(size=(1500, 5))
    x[:, 3] = x[:, 3] + 0.4 * c[:, 0] ** 2 if what == "mean" else x[:, 3] * np.exp(0.3 * c[:, 0])
    x += 0.7 * c
    model = HybridFlow(**SMALL).fit(unsplit(x, c), training=TINY)
    directions = np.array(model.layout.extra["directions"])
    assert len(directions) == 1
    assert abs(directions[0, 3]) > 0.95


# What density


def test_gaussian_events_give_exactly_the_gaussian() -> None:
    truth = CorrelatedGaussian(np.arange(6.0), correlation_matrix(6))
    x = truth.sample(2000, 1)
    model = HybridFlow().fit(unsplit(x), training=TINY)
    assert model.layout.extra["directions"] == []
    expected = stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x[:50])
    np.testing.assert_allclose(model.log_prob(x[:50]), expected, atol=1e-9, rtol=0)


def test_with_few_events_it_is_the_gaussian() -> None:
    """Gamma marginals, plainly skewed, that 60 events in 10 dimensions cannot show."""
    x = np.random.default_rng(3).gamma(4.0, size=(60, 10)) - 20.0
    model = HybridFlow().fit(unsplit(x), training=TINY)
    expected = stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x[:20])
    np.testing.assert_allclose(model.log_prob(x[:20]), expected, atol=1e-9, rtol=0)


def test_a_linear_context_gives_exactly_the_regression() -> None:
    x, c = Conditional(CorrelatedGaussian(np.zeros(6), correlation_matrix(6)), 2).sample(1500, 3)
    model, regression = (family.fit(unsplit(x, c), training=TINY) for family in (HybridFlow(), pofx.Gaussian()))
    assert model.layout.extra["directions"] == []
    np.testing.assert_allclose(model.log_prob(x[:50], c[:50]), regression.log_prob(x[:50], c[:50]), atol=1e-8, rtol=0)


@pytest.mark.slow
def test_the_density_approaches_the_closed_form() -> None:
    model = HybridFlow(layers=2, hidden=(32, 32)).fit(PLANTED.sample(4000, 1), training=QUICK)
    x = PLANTED.sample(3000, 2)
    gap = PLANTED.log_prob(x) - model.log_prob(x)
    gaussian = PLANTED.log_prob(x) - pofx.Gaussian().fit(PLANTED.sample(4000, 1)).log_prob(x)
    assert -4 * gap.std() / math.sqrt(3000) < gap.mean() < 0.15
    assert gaussian.mean() > 0.7


def test_the_flow_sees_the_gaussian_directions() -> None:
    """A width that follows a Gaussian direction: f | g ~ N(0, e^g)."""
    rng = np.random.default_rng(7)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(n, 4))
        return np.column_stack([x[:, 0], x[:, 1], x[:, 2] * np.exp(0.6 * x[:, 0]), x[:, 3]]), x

    train, (x, hidden) = sample(4000)[0], sample(3000)
    exact = stats.norm.logpdf(hidden).sum(1) - 0.6 * hidden[:, 0]
    gaps = []
    for conditional in (True, False):
        model = HybridFlow(**SMALL, directions=1, conditional=conditional).fit(train, training=QUICK)
        gaps.append(np.mean(exact - model.log_prob(x)))
    assert gaps[0] < 0.06
    assert gaps[1] > 0.12


@pytest.mark.parametrize("conditional", [True, False])
def test_gaussian_directions_are_exactly_normal(conditional: bool) -> None:
    """p(x) / N(x; m, S) = q(f | g) / N(f): its integral over f with weight N(f) is one for every g, and without a condition it does not
    depend on g at all."""
    x = PLANTED.sample(3000, 1)
    family = HybridFlow(**SMALL, directions=1, conditional=conditional, preprocess="affine")
    model = family.fit(unsplit(x), training=QUICK.replace(max_steps=60))
    mean, covariance = x.mean(0), np.cov(x.T, bias=True)
    coordinates = turned(model, x)
    np.testing.assert_allclose(np.cov(coordinates.T, bias=True), np.eye(10), atol=1e-9)
    back = np.linalg.lstsq(np.column_stack([coordinates, np.ones(3000)]), x, rcond=None)[0]
    nodes = np.linspace(-7, 7, 1401)
    found = []
    for g in (np.zeros(9), np.random.default_rng(1).normal(size=9)):
        points = np.column_stack([nodes, np.tile(g, (len(nodes), 1)), np.ones(len(nodes))]) @ back
        ratio = np.exp(model.log_prob(points) - stats.multivariate_normal(mean, covariance).logpdf(points))
        assert np.sum(ratio * stats.norm.pdf(nodes)) * 0.01 == pytest.approx(1.0, abs=1e-4)
        found.append(ratio)
    assert np.allclose(*found, rtol=1e-6) == (not conditional)


def test_untrained_it_is_the_gaussian_whatever_gets_a_flow() -> None:
    x = PLANTED.sample(1000, 1)
    model = HybridFlow(**SMALL, directions=3).fit(unsplit(x), training=QUICK.replace(max_steps=1, learning_rate=1e-12))
    expected = stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x[:50])
    np.testing.assert_allclose(model.log_prob(x[:50]), expected, atol=1e-6, rtol=0)


def test_without_events_to_look_at_all_directions_get_a_flow() -> None:
    layout = Layout(pofx.Dataset.from_arrays(np.zeros((2, 4)) + np.eye(2, 4)).spec)
    family = HybridFlow(**SMALL)
    assert family.build(layout).free == 4
    assert family.phases(layout)[0].updates
    assert HybridFlow(**SMALL, directions=2).build(layout).free == 2


def test_bad_settings_are_refused() -> None:
    for bad in ({"directions": "some"}, {"directions": -1}, {"level": 2.0}):
        with pytest.raises(ConfigError):
            HybridFlow(**bad)
