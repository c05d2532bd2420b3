"""The likelihood of a reconstruction, against scipy and against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from pofx.data.events import Events
from pofx.data.spec import Axis, Column, Field, vector_spec
from pofx.errors import ConfigError
from pofx.models.autoencoder import Decoder, DecoderSettings, decoder_noise, encoder_of
from pofx.models.base import Layout
from pofx.models.observation import Numbers, PointMixture
from pofx.models.von_mises import von_mises_angle, von_mises_log_prob, von_mises_normal
from pofx.networks import CloudGenerator
from pofx.training.noise import Noise

CLOUD = Field("cloud", (5, 2), (Column("a"), Column("b")))
GRID = Field("grid", (2, 6, 5), (Column("a"), Column("b")), (Axis("x", 6), Axis("y", 5)))
VECTOR = vector_spec(3)["x"]


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Noise on a circle


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.4, 1.0, 3.0, 50.0])
def test_von_mises_is_that_of_scipy(sigma: float) -> None:
    truth = stats.vonmises(sigma**-2)
    delta = torch.linspace(-min(5 * sigma, 3.1), min(5 * sigma, 3.1), 41, dtype=torch.float64)
    log_scale = torch.full_like(delta, math.log(sigma))
    np.testing.assert_allclose(von_mises_log_prob(delta, log_scale), truth.logpdf(delta.numpy()), atol=1e-7)
    e = von_mises_normal(delta, log_scale)
    below = 0.5 + np.array([integrate.quad(truth.pdf, 0.0, d)[0] for d in delta.numpy()])  # cdf of scipy is approximate
    np.testing.assert_allclose(stats.norm.cdf(e), below, atol=1e-8)
    torch.testing.assert_close(von_mises_angle(e, log_scale), delta, atol=1e-8, rtol=0)


def test_the_angle_is_differentiable_in_noise_and_width() -> None:
    e = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    log_scale = torch.linspace(-2, 1, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(von_mises_angle, (e, log_scale), eps=1e-5, atol=1e-5)
    narrow = von_mises_angle(e.detach(), torch.full_like(e, math.log(1e-3)).detach())
    torch.testing.assert_close(narrow, 1e-3 * e.detach(), atol=1e-7, rtol=0)


# Distributions of events


def check_inverse(seen: Numbers | PointMixture, noise: dict[str, Tensor], mask: Tensor | None = None) -> Tensor:
    """``sample`` of the noise that ``noise`` finds is the sample; returns it."""
    x = seen.sample(noise)
    torch.testing.assert_close(seen.sample(seen.noise(x, mask)), x, atol=1e-7, rtol=0)
    return x


def test_numbers_have_the_density_of_their_samples() -> None:
    mean, log_scale = normal(4, 3), 0.3 * normal(4, 3, seed=2)
    angles = torch.tensor([False, True, False])
    seen = Numbers(mean, log_scale, angles)
    x = check_inverse(seen, {"e": normal(4, 3, seed=3)})
    assert bool((x[:, 1].abs() <= math.pi).all())
    lines = torch.distributions.Normal(mean, log_scale.exp()).log_prob(x)[:, ~angles].sum(1)
    circle = stats.vonmises(log_scale[:, 1].exp().numpy() ** -2, loc=mean[:, 1].numpy()).logpdf(x[:, 1].numpy())
    torch.testing.assert_close(seen.log_prob(x), lines + torch.from_numpy(circle), atol=1e-9, rtol=0)
    around = torch.where(angles, x + 2 * math.pi, x)
    torch.testing.assert_close(seen.log_prob(around), seen.log_prob(x), atol=1e-9, rtol=0)


def mixture() -> PointMixture:
    return PointMixture(normal(6, 3).log_softmax(1), 2 * normal(6, 3, 2, seed=2), 0.3 * normal(6, 3, 2, seed=3) - 1)


def test_points_have_the_density_of_a_mixture() -> None:
    seen, x = mixture(), normal(6, 5, 2, seed=4)
    mask = torch.arange(5) < torch.arange(6)[:, None]
    found = seen.log_prob(x, mask)
    parts = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=seen.log_share[:, None].expand(6, 5, 3)),
        torch.distributions.Independent(
            torch.distributions.Normal(
                seen.mean[:, None].expand(6, 5, 3, 2), seen.log_scale.exp()[:, None].expand(6, 5, 3, 2)
            ),
            1,
        ),
    )
    torch.testing.assert_close(found, (parts.log_prob(x) * mask).sum(1))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(seen.log_prob(x[:, order], mask[:, order]), found)
    hidden = torch.where(mask[..., None], x, torch.nan)
    assert torch.equal(seen.log_prob(hidden, mask), found)


def test_points_are_drawn_from_the_mixture() -> None:
    one = mixture()
    seen = PointMixture(one.log_share[:1], one.mean[:1], one.log_scale[:1])
    noise = Noise(1, torch.arange(1), dtype=torch.float64)
    x = check_inverse(seen, {"e": noise.normal("e", 20_000, 2), "pick": noise.uniform("pick", 20_000)})
    share = seen.log_share.exp()[0]
    mean = (share[:, None] * seen.mean[0]).sum(0)
    second = (share[:, None] * (seen.mean[0] ** 2 + seen.log_scale[0].exp() ** 2)).sum(0)
    torch.testing.assert_close(x[0].mean(0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close((x[0] ** 2).mean(0), second, rtol=0.05, atol=0)


# Encoder and decoder


@pytest.mark.parametrize("form", [VECTOR, GRID, CLOUD], ids=lambda form: form.kind)
@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic"])
def test_shapes(form: Field, noise: str) -> None:
    layout = Layout({"x": form}, vector_spec(2, "c"), circular={"x": (1,)})
    decoder = Decoder(layout, 4, DecoderSettings(noise=noise), times=1).double()
    encoder = encoder_of(layout, None, 7, times=1).double()
    wanted = decoder_noise(layout)
    source = Noise(1, torch.arange(3), dtype=torch.float64)
    drawn = {key: getattr(source, shape.kind)(key, *shape.shape) for key, shape in wanted.items()}
    context, mask, t = Events({"c": normal(3, 2)}), None, normal(3, 1)
    if form.kind == "cloud":
        mask = torch.arange(5) < torch.tensor([0, 2, 5])[:, None]
    seen = decoder(normal(3, 4), t, context, mask)
    x = seen.sample(drawn)
    assert x.shape == (3, *form.shape)
    assert seen.log_prob(x, mask).shape == (3,)
    assert encoder(x, t, context, mask).shape == (3, 7)
    assert bool((seen.log_scale >= math.log(0.01)).all())


def test_a_decoder_of_clouds_that_needs_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="learned"):
        Decoder(Layout({"x": CLOUD}), 4, DecoderSettings(network=CloudGenerator(queries="noise")))


@pytest.mark.parametrize("wrong", [{"noise": "none"}, {"floor": 0.0}, {"components": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DecoderSettings(**wrong)  # type: ignore[arg-type]
