"""Variational autoencoders: with linear-normal networks everything has a closed form (probabilistic principal components)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pofx
from pofx.data.events import Events
from pofx.data.spec import Column, Field, vector_spec
from pofx.errors import ConfigError
from pofx.models.autoencoder import DecoderSettings
from pofx.models.base import Layout
from pofx.models.importance import importance
from pofx.models.vae import at_beta
from pofx.networks import ResidualMLP
from pofx.networks.generators import VectorGenerator
from pofx.training.noise import Noise

SIGMA = 0.5
SHIFT = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
ORTHOGONAL = torch.tensor([[1.0, 0.5], [0.5, -1.0], [0.0, 0.0]], dtype=torch.float64)
OBLIQUE = torch.tensor([[1.0, 0.7], [0.5, 1.0], [-0.3, 0.4]], dtype=torch.float64)
CLOUD = Field("cloud", (3, 2), (Column("a"), Column("b")))


class LinearDecoder(nn.Module):
    """x = W z + b + sigma e, as the numbers that a decoder's network gives."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, z: Tensor, t: object, context: object) -> Tensor:
        mean = z @ self.weight.T + SHIFT
        return torch.cat((mean, torch.full_like(mean, math.log(SIGMA))), 1)


class LinearEncoder(nn.Module):
    """Mean of the exact posterior, and its widths: right where its covariance is diagonal; ``wider`` spoils them."""

    def __init__(self, weight: Tensor, wider: float = 1.0) -> None:
        super().__init__()
        self.precision = torch.eye(2, dtype=weight.dtype) + weight.T @ weight / SIGMA**2
        self.gain = torch.linalg.solve(self.precision, weight.T) / SIGMA**2
        self.log_scale = -0.5 * self.precision.diagonal().log() + math.log(wider)

    def forward(self, x: Tensor, t: object, context: object, mask: object) -> Tensor:
        mean = (x - SHIFT) @ self.gain.T
        return torch.cat((mean, _raw(self.log_scale).expand_as(mean)), 1)


def _raw(log_scale: Tensor) -> Tensor:
    """What becomes this log-width of q."""
    return 8.0 * torch.atanh(log_scale / 8.0)


def linear(weight: Tensor, wider: float = 1.0, **settings: Any) -> tuple[pofx.VAE, Any]:
    """A family and a body with linear networks; the smallest noise is too small to matter."""
    family = pofx.VAE(**{"latent": 2, "warm_up": 0, "decoder": DecoderSettings(floor=1e-6), **settings})
    body: Any = family.build(Layout(vector_spec(3))).double()
    body.encoder, body.decoder.network = LinearEncoder(weight, wider), LinearDecoder(weight)
    return family, body


def truth(weight: Tensor) -> torch.distributions.MultivariateNormal:
    return torch.distributions.MultivariateNormal(SHIFT, weight @ weight.T + SIGMA**2 * torch.eye(3).double())


def events_of(weight: Tensor, n: int, seed: int = 1) -> Events:
    e = Noise(seed, torch.arange(n), dtype=torch.float64).normal("x", 3)
    return Events({"x": SHIFT + e @ torch.linalg.cholesky(truth(weight).covariance_matrix).T}, index=torch.arange(n))


# Bounds against the closed form


def test_the_density_is_exact_where_the_encoder_is_the_posterior() -> None:
    family, body = linear(ORTHOGONAL, samples=4)
    events = events_of(ORTHOGONAL, 50)
    exact = truth(ORTHOGONAL).log_prob(events.x)
    torch.testing.assert_close(family.log_density(body, events), exact, atol=1e-8, rtol=0)
    assert float(family.log_density_error(body, events).max()) < 1e-8


@pytest.mark.parametrize("wider", [1.0, 1.5])
def test_the_evidence_bound_is_the_density_minus_the_divergence_from_the_posterior(wider: float) -> None:
    family, body = linear(ORTHOGONAL, wider)
    events = events_of(ORTHOGONAL, 1)[torch.zeros(40_000, dtype=torch.long)]
    loss = 3 * family.loss(body, events, Noise(1, torch.arange(40_000), dtype=torch.float64)).per_event
    divergence = 2 * (0.5 * (wider**2 - 1.0) - math.log(wider))
    wanted = -float(truth(ORTHOGONAL).log_prob(events.x[0])) + divergence
    assert abs(float(loss.mean()) - wanted) < 4 * float(loss.std()) / 200


def test_more_samples_are_tighter_and_never_above_the_density() -> None:
    _, body = linear(OBLIQUE, 1.3)
    events = events_of(OBLIQUE, 4000)
    noise = Noise(3, torch.arange(4000), dtype=torch.float64)
    weights = importance(body, events, noise.normal("e", 64, 2), None)
    exact = truth(OBLIQUE).log_prob(events.x)
    gaps = torch.stack(
        [exact - weights[:, :k].logsumexp(1) + math.log(k) for k in (1, 4, 16, 64)]
    )  # bounds of growing K on the same draws
    mean, error = gaps.mean(1), gaps.std(1) / math.sqrt(4000)
    assert bool((mean > -3 * error).all())
    assert bool((mean[1:] < mean[:-1]).all())
    assert float(mean[0]) > 0.1
    assert float(mean[-1]) < 0.02


def test_the_density_converges_and_states_its_error() -> None:
    events = events_of(OBLIQUE, 300)
    exact = truth(OBLIQUE).log_prob(events.x)
    family, body = linear(OBLIQUE, 1.3, samples=4096)
    found, error = family.log_density(body, events), family.log_density_error(body, events)
    assert float((found - exact).abs().max()) < 6 * float(error.max())
    assert float(error.max()) < 0.05
    pull = (found - exact) / error
    assert 0.2 < float(pull.square().mean().sqrt()) < 2.5
    part = family.log_density(body, events[7:9])
    torch.testing.assert_close(part, found[7:9], atol=1e-12, rtol=0)


def test_training_with_several_samples_maximises_their_bound() -> None:
    family, body = linear(OBLIQUE, training_samples=5)
    events, noise = events_of(OBLIQUE, 20), Noise(1, torch.arange(20), dtype=torch.float64)
    weights = importance(body, events, noise.normal("z", 5, 2), None)
    wanted = -(weights.exp().mean(1)).log() / 3
    torch.testing.assert_close(family.loss(body, events, noise).per_event, wanted)
    half = importance(body, events, noise.normal("z", 5, 2), None, 0.5)
    code = 2 * (weights - half)  # log p(z) - log q(z|x)
    tempered = replace(family, beta=0.3).loss(body, events, noise).per_event
    torch.testing.assert_close(tempered, -(weights - 0.7 * code).exp().mean(1).log() / 3)


def test_samples_have_the_covariance_of_signal_and_noise() -> None:
    family, body = linear(OBLIQUE)
    noise = Noise(1, torch.arange(20_000), dtype=torch.float64)
    z = {"z": noise.normal("z", 2), "e": noise.normal("e", 3)}
    x = family.decode(body, z, None)["x"]
    torch.testing.assert_close(x.mean(0), SHIFT, atol=0.04, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), truth(OBLIQUE).covariance_matrix, atol=0.06, rtol=0)
    again = family.decode(body, family.encode(body, Events({"x": x})), None)["x"]
    torch.testing.assert_close(again, x, atol=1e-9, rtol=0)


# Clouds: points about a common centre


class CentreDecoder(nn.Module):
    """Every point is z + sigma e: one component."""

    def forward(self, z: Tensor, t: object, context: object) -> Tensor:
        share = z.new_zeros(len(z), 1)
        return torch.cat((share, z, torch.full_like(z, math.log(SIGMA))), 1)[:, None]


class CentreEncoder(nn.Module):
    """The posterior of the centre."""

    def forward(self, x: Tensor, t: object, context: object, mask: Tensor) -> Tensor:
        count = mask.sum(1, keepdim=True)
        mean = torch.where(mask[..., None], x, 0.0).sum(1) / (count + SIGMA**2)
        return torch.cat((mean, _raw(0.5 * torch.log(SIGMA**2 / (count + SIGMA**2))).expand_as(mean)), 1)


def test_the_density_of_a_cloud_is_that_of_exchangeable_points() -> None:
    family = pofx.VAE(latent=2, samples=4, decoder=DecoderSettings(floor=1e-6, components=1))
    body: Any = family.build(Layout({"x": CLOUD})).double()
    body.encoder, body.decoder.network = CentreEncoder(), CentreDecoder()
    body.count.shares.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
    count = torch.arange(20) % 4
    x = torch.randn(20, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(3) < count[:, None]
    found = family.log_density(body, Events({"x": x}, {"x": mask}))
    for row, n in enumerate(count.tolist()):
        wanted = float(body.count.shares[n])
        if n:
            covariance = torch.ones(n, n).double() + SIGMA**2 * torch.eye(n).double()
            normal = torch.distributions.MultivariateNormal(torch.zeros(n).double(), covariance)
            wanted += float(normal.log_prob(x[row, :n].T).sum())
        assert float(found[row]) == pytest.approx(wanted, abs=1e-8)


# Angles


def test_a_peak_across_the_seam() -> None:
    rng = np.random.default_rng(1)
    x = np.stack([rng.vonmises(math.pi, 4.0, 4000), rng.normal(size=4000)], 1)
    data = pofx.Dataset.from_arrays(x, declare="x0:rad:periodic:-pi:pi")
    training = pofx.Training(max_epochs=None, max_steps=300, batch_size=128, learning_rate=5e-3, seed=1)
    model = small(latent=2, samples=16).fit(data, training=training)
    sample = model.sample(4000, seed=1)[:, 0]
    assert np.abs(sample).max() <= math.pi
    assert np.abs(np.exp(1j * sample).mean() + 0.8635) < 0.06  # I1(4) / I0(4)
    points = np.linspace(-math.pi, math.pi, 101)
    mesh = np.stack(np.meshgrid(points, np.linspace(-5, 5, 41), indexing="ij"), -1)
    density = np.exp(model.log_prob(mesh.reshape(-1, 2))).reshape(101, 41)
    assert np.trapezoid(density.sum(1) * 0.25, points) == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(density[0], density[-1], rtol=1e-3)
    fresh = np.stack([rng.vonmises(math.pi, 4.0, 2000), rng.normal(size=2000)], 1)
    exact = 4.0 * np.cos(fresh[:, 0] - math.pi) - np.log(2 * math.pi * np.i0(4.0))
    gap = exact - 0.5 * fresh[:, 1] ** 2 - 0.5 * math.log(2 * math.pi) - model.log_prob(fresh)
    assert -0.01 < gap.mean() < 0.05


# beta, free bits, warm-up, collapse


def small(**settings: Any) -> pofx.VAE:
    network = ResidualMLP(width=24, layers=1, embedding=16)
    return pofx.VAE(encoder=network, decoder=DecoderSettings(network=VectorGenerator(network)), warm_up=60, **settings)


def _divergence(mean: Tensor, log_scale: Tensor) -> Tensor:
    own, prior = torch.distributions.Normal(mean, log_scale.exp()), torch.distributions.Normal(0.0, 1.0)
    return torch.distributions.kl_divergence(own, prior).sum(1)


def test_beta_as_an_input_is_one_model_for_all_compressions() -> None:
    x = np.random.default_rng(1).normal(size=(2000, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    training = pofx.Training(max_epochs=None, max_steps=300, batch_size=128, learning_rate=5e-3, seed=1)
    model = small(latent=2, beta=(0.01, 10.0), preprocess="affine").fit(x, training=training)
    latent = model.fitted.prepare(Events({"x": torch.from_numpy(x[:500])}))[0]
    body: Any = model.fitted.body
    found = []
    for beta in (0.02, 0.5, 8.0):
        at = at_beta(model, beta)
        family: Any = at.family
        with torch.no_grad():
            features = body.read(latent.x, family.conditions(latent.x), None, None)
            code = body.infer(latent, features, torch.zeros(500, 2), None)
        found.append(float(_divergence(code.mean, code.log_scale).mean()))
        np.testing.assert_allclose(at.decode(at.encode(x[:50])).detach(), x[:50], atol=1e-3)
    assert found[0] > found[1] + 0.3
    assert found[1] > found[2]
    assert found[2] < 0.1
    again = at_beta(model, 1.0).encode(x[:5])["z"]
    torch.testing.assert_close(again, model.encode(x[:5])["z"])  # beta_used=None is 1
    with pytest.raises(ConfigError, match="beta_used"):
        at_beta(model, 20.0)


def test_the_loss_at_a_beta_is_that_of_its_own() -> None:
    family, body = linear(ORTHOGONAL, 1.5)
    events, noise = events_of(ORTHOGONAL, 100), Noise(1, torch.arange(100), dtype=torch.float64)
    one = family.loss(body, events, noise)
    information = one.logs["information"]
    double = replace(family, beta=2.0).loss(body, events, noise).per_event
    torch.testing.assert_close(double, one.per_event + information / 3)
    early, fifth = replace(family, warm_up=10), noise.at(4)
    late = family.loss(body, events, fifth).per_event
    torch.testing.assert_close(early.loss(body, events, fifth).per_event, late - 0.5 * information / 3)
    torch.testing.assert_close(early.full(body, events, fifth).per_event, late)
    free = replace(family, free_bits=50.0).loss(body, events, noise).per_event
    torch.testing.assert_close(free, (one.logs["reconstruction"] + 100.0) / 3)


def test_collapsed_columns_are_counted() -> None:
    family, body = linear(ORTHOGONAL)
    events, noise = events_of(ORTHOGONAL, 100), Noise(1, torch.arange(100), dtype=torch.float64)
    assert float(family.loss(body, events, noise).logs["active"]) == 2
    alone = ORTHOGONAL * torch.tensor([1.0, 0.0])
    body.encoder, body.decoder.network = LinearEncoder(alone), LinearDecoder(alone)
    assert float(family.loss(body, events, noise).logs["active"]) == 1


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"beta": 0.0}, "beta"),
        ({"beta": (2.0, 1.0)}, "beta"),
        ({"beta_used": 1.0}, "beta_used"),
        ({"free_bits": -1.0}, "free_bits"),
        ({"samples": 1}, "samples"),
        ({"training_samples": 4, "free_bits": 0.1}, "training_samples"),
        ({"latent": 0}, "latent"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        pofx.VAE(**wrong)


def test_only_variational_models_have_a_beta() -> None:
    x = np.random.default_rng(1).normal(size=(100, 2))
    with pytest.raises(ConfigError, match="variational"):
        at_beta(pofx.Gaussian().fit(x), 1.0)
