"""Several layers of latents: the bound against sums by hand in the latents themselves, and against the prior's own integral."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import pofx
from pofx.data.events import Events
from pofx.data.spec import Column, Field, vector_spec
from pofx.errors import ConfigError
from pofx.models.autoencoder import DecoderSettings
from pofx.models.base import Layout
from pofx.models.importance import importance
from pofx.networks import ResidualMLP
from pofx.networks.generators import VectorGenerator
from pofx.training.noise import Noise

NETWORK = ResidualMLP(width=12, layers=1, embedding=8)
CLOUD = Field("cloud", (3, 2), (Column("a"), Column("b")))


def case(layout: Layout, **settings: Any) -> tuple[pofx.HierarchicalVAE, Any]:
    """A family and a body with random weights, of which nothing is zero."""
    decoder = DecoderSettings(network=VectorGenerator(NETWORK), floor=0.3)
    defaults = {"levels": 2, "latent": 1, "width": 8, "encoder": NETWORK, "decoder": decoder}
    family = pofx.HierarchicalVAE(**{**defaults, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        body: Any = family.build(layout).double()
    size = 0.3 if layout.spec["x"].kind == "vector" else 0.05
    generator = torch.Generator().manual_seed(1)
    for parameter in body.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return family, body.requires_grad_(False)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_weights_are_those_of_the_latents_themselves() -> None:
    """p(x, z1, z2) / q(z1, z2 | x) with z in place of the noise: all scales written out."""
    _, body = case(Layout(vector_spec(2)))
    x, e = normal(20, 2), normal(20, 1, 2, seed=2)
    found = importance(body, Events({"x": x}), e, None)[:, 0]
    said = body.encoder(x).split(8, 1)
    h, total = body.ladder.first.expand(20, -1), torch.zeros(20, dtype=torch.float64)
    for level, own, part in zip(body.ladder.levels, said, e[:, 0].split(1, 1), strict=True):
        centre, raw = level.prior(h).chunk(2, 1)
        prior = Normal(centre, (8 * torch.tanh(raw / 8)).exp())
        shift, narrow = level.relative(torch.cat((h, own), 1)).chunk(2, 1)
        q = Normal(centre + prior.scale * shift, prior.scale * (8 * torch.tanh(narrow / 8)).exp())
        z = q.mean + q.stddev * part
        total = total + (prior.log_prob(z) - q.log_prob(z)).sum(1)
        h = h + level.change(torch.cat((h, z), 1))
    torch.testing.assert_close(found, total + body.decoder(h).log_prob(x))


def test_the_density_is_the_integral_over_the_prior() -> None:
    """Against a plain average of p(x|z) over a million draws of the prior, made by ``decode``'s own way down."""
    family, body = case(Layout(vector_spec(2)), samples=4096)
    for level in body.ladder.levels:  # a proposal that is not far narrower than the prior
        level.relative.layers[-1].weight.mul_(0.2)
        level.relative.layers[-1].bias.zero_()
    x = normal(6, 2, seed=3)
    total = torch.zeros(6, dtype=torch.float64)
    for k in range(10):
        z = normal(100_000, 2, seed=10 + k)
        seen = body.decoder(body.state(z, None, None, None))
        total += torch.stack([Normal(seen.mean, seen.log_scale.exp()).log_prob(row).sum(1).exp().mean() for row in x])
    truth = (total / 10).log()
    found, error = (f(body, Events({"x": x})) for f in (family.log_density, family.log_density_error))
    assert float(error.max()) < 0.2
    assert bool(((found - truth).abs() < 5 * error + 0.02).all())


def test_the_divergence_is_that_of_the_bound() -> None:
    """Reconstruction plus information is minus the mean log-weight."""
    family, body = case(Layout(vector_spec(2)))
    n = 20_000
    events = Events({"x": normal(1, 2).expand(n, 2)}, index=torch.arange(n))
    noise = Noise(1, torch.arange(n), dtype=torch.float64)
    loss = family.full(body, events, noise)
    weights = importance(body, events, noise.normal("z", 1, 2), None)[:, 0]
    both = 2 * loss.per_event + weights  # zero on average: the divergence in closed form against one draw of it
    assert abs(float(both.mean())) < 4 * float(both.std()) / math.sqrt(n)
    torch.testing.assert_close(2 * loss.per_event, loss.logs["reconstruction"] + loss.logs["information"])


@pytest.mark.parametrize("beta", [1.0, (0.1, 10.0)])
def test_clouds_know_context_beta_and_number_of_points(beta: Any) -> None:
    layout = Layout({"x": CLOUD}, vector_spec(2, "c"))
    family, body = case(layout, beta=beta, encoder=None, decoder=DecoderSettings(components=3), samples=8)
    x, mask = normal(4, 3, 2), torch.arange(3) < torch.tensor([0, 1, 2, 3])[:, None]
    events = Events({"x": x}, {"x": mask}, context=Events({"c": normal(4, 2, seed=5)}))
    found = family.log_density(body, events)
    assert bool(found.isfinite().all())
    other = events.replace(context=Events({"c": normal(4, 2, seed=6)}))
    assert bool((family.log_density(body, other) != found).all())
    again = family.decode(body, family.encode(body, events), events.context)
    torch.testing.assert_close(again["x"], torch.where(mask[..., None], x, 0.0), atol=1e-7, rtol=0)
    assert torch.equal(again["x.mask"], mask)


def test_latents_are_shared_out_over_levels() -> None:
    layout = Layout(vector_spec(7))
    assert pofx.HierarchicalVAE(levels=3).latent_columns(layout) == 9
    assert pofx.HierarchicalVAE(levels=3, latent=2).latent_columns(layout) == 6
    with pytest.raises(ConfigError, match="levels"):
        pofx.HierarchicalVAE(levels=0)
