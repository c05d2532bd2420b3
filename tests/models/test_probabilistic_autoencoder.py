"""An autoencoder and a flow: the density against a closed form and against the flow's own integral, and what each phase may move."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

import pofx
from pofx.data.events import Events
from pofx.data.spec import Column, Field, vector_spec
from pofx.errors import ConfigError
from pofx.models.autoencoder import DecoderSettings
from pofx.models.base import Layout
from pofx.networks import ResidualMLP
from pofx.networks.generators import VectorGenerator
from pofx.training.noise import Noise

NETWORK = ResidualMLP(width=16, layers=1, embedding=8)
FLOW = pofx.CouplingFlow(layers=2, hidden=(8,), bins=4)
CLOUD = Field("cloud", (3, 2), (Column("a"), Column("b")))
SIGMA = 0.4
WEIGHT = torch.tensor([[1.0, 0.5], [0.5, -1.0], [0.0, 0.0]], dtype=torch.float64)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def case(layout: Layout, **settings: Any) -> tuple[pofx.ProbabilisticAutoencoder, Any]:
    defaults = {
        "latent": 2,
        "encoder": NETWORK,
        "decoder": DecoderSettings(network=VectorGenerator(NETWORK), floor=1e-6),
    }
    family = pofx.ProbabilisticAutoencoder(**{**defaults, "flow": FLOW, "embedding": 8, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return family, family.build(layout).double().requires_grad_(False)


class Linear(nn.Module):
    """x = W z + sigma e; with the codes' scale, z = mean + width * code."""

    def forward(self, z: Tensor, t: object, context: object) -> Tensor:
        mean = z @ WEIGHT.T
        return torch.cat((mean, torch.full_like(mean, math.log(SIGMA))), 1)


class Posterior(nn.Module):
    """The mean of z given x, for the prior z = mean + width * code with a normal code (columns of W are orthogonal)."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        width = body.codes.log_scale.detach().exp()
        self.mean, self.precision = body.codes.mean.detach(), width**-2 + WEIGHT.square().sum(0) / SIGMA**2
        self.log_width = -0.5 * self.precision.log() - body.codes.log_scale.detach()

    def forward(self, x: Tensor, t: object, context: object, mask: object) -> Tensor:
        return self.mean + (x - self.mean @ WEIGHT.T) @ WEIGHT / SIGMA**2 / self.precision


class Width(nn.Module):
    """The exact width of the posterior, as what the body adds to its start."""

    def __init__(self, posterior: Posterior) -> None:
        super().__init__()
        self.log_width = posterior.log_width

    def forward(self, x: Tensor, t: object, context: object, mask: object) -> Tensor:
        return (self.log_width + 3.0).expand(len(x), -1)


def test_the_density_is_exact_where_everything_is_linear() -> None:
    """A flow that is the identity: a normal prior of the codes, and principal components."""
    family, body = case(Layout(vector_spec(3)), samples=4)
    body.codes.mean.data, body.codes.log_scale.data = torch.tensor([[0.5, -1.0], [0.2, -0.3]]).double()
    body.decoder.network, body.encoder = Linear(), Posterior(body)
    body.spread = Width(body.encoder)
    x = normal(20, 3)
    identity = family.flow.log_density(body.prior, Events({"(code)": x[:, :2]}))
    torch.testing.assert_close(identity, Normal(0.0, 1.0).log_prob(x[:, :2]).sum(1), atol=1e-9, rtol=0)
    covariance = WEIGHT @ torch.diag((2 * body.codes.log_scale).exp()) @ WEIGHT.T + SIGMA**2 * torch.eye(3).double()
    truth = MultivariateNormal(WEIGHT @ body.codes.mean, covariance)
    torch.testing.assert_close(family.log_density(body, Events({"x": x})), truth.log_prob(x), atol=1e-8, rtol=0)
    assert float(family.log_density_error(body, Events({"x": x})).max()) < 1e-8


def test_the_density_is_the_integral_over_the_flow() -> None:
    """Random networks: against an average of p(x|z) over the flow's own samples."""
    decoder = DecoderSettings(network=VectorGenerator(NETWORK), floor=0.5)
    family, body = case(Layout(vector_spec(2)), decoder=decoder, samples=16384)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in body.named_parameters():
        scale = 0.0 if name.startswith("spread") else 0.3
        parameter.data += scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    body.spread = _Wide()
    x = normal(5, 2, seed=4)
    code = family.flow.decode(body.prior, {"z": normal(400_000, 2, seed=5)}, None)["(code)"]
    seen = body.decoder(body.codes.back(code))
    truth = torch.stack([Normal(seen.mean, seen.log_scale.exp()).log_prob(row).sum(1).exp().mean() for row in x]).log()
    found, error = (f(body, Events({"x": x})) for f in (family.log_density, family.log_density_error))
    assert float(error.max()) < 0.2
    assert bool(((found - truth).abs() < 5 * error + 0.02).all())


class _Wide(nn.Module):
    """A proposal of about the prior's width."""

    def forward(self, x: Tensor, t: object, context: object, mask: object) -> Tensor:
        return torch.full_like(x, 3.4)


def test_each_loss_moves_its_own_part() -> None:
    family, body = case(Layout(vector_spec(2)))
    body.requires_grad_(True)
    events, noise = (
        Events({"x": normal(50, 2)}, index=torch.arange(50)),
        Noise(1, torch.arange(50), dtype=torch.float64),
    )
    phases = family.phases(Layout(vector_spec(2)))
    assert [phase.name for phase in phases] == ["autoencoder", "flow"]
    patterns = [pattern for phase in phases for update in phase.updates for pattern in update.parameters]
    assert sorted(patterns) == ["codes.*", "decoder.*", "encoder.*", "prior.*", "spread.*"]
    for loss, kept in ((family.codes, "encoder"), (family.likelihood, "encoder"), (family.likelihood, "codes")):
        body.zero_grad(set_to_none=True)
        loss(body, events, noise).per_event.sum().backward()
        moved = [p.grad for name, p in body.named_parameters() if name.startswith(kept)]
        assert kept == "codes" or all(gradient is None for gradient in moved)


@pytest.mark.slow
def test_codes_reach_mean_zero_and_width_one() -> None:
    x = np.random.default_rng(1).normal(size=(3000, 2)) * [3.0, 0.1] + 5.0
    training = pofx.Training(max_epochs=None, max_steps=150, batch_size=256, learning_rate=1e-2, seed=1)
    family = pofx.ProbabilisticAutoencoder(
        encoder=NETWORK, decoder=DecoderSettings(network=VectorGenerator(NETWORK), floor=0.05), flow=FLOW
    )
    model = family.fit(x, training=training)
    body: Any = model.fitted.body
    with torch.no_grad():
        code = body.codes(body.encoder(model.fitted.prepare(Events({"x": torch.from_numpy(x)}))[0].x, None, None, None))
    assert float(code.mean(0).abs().max()) < 0.3
    assert bool(((code.std(0) > 0.6) & (code.std(0) < 1.6)).all())
    sample = model.sample(4000, seed=1)
    np.testing.assert_allclose((sample.mean(0) - 5) / [3, 0.1], 0.0, atol=0.3)
    np.testing.assert_allclose(sample.std(0), [3, 0.1], rtol=0.2)


def test_clouds_know_context_and_number_of_points() -> None:
    layout = Layout({"x": CLOUD}, vector_spec(2, "c"))
    family, body = case(layout, encoder=None, decoder=DecoderSettings(components=3), samples=8)
    generator = torch.Generator().manual_seed(2)
    for parameter in body.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x, mask = normal(4, 3, 2), torch.arange(3) < torch.tensor([0, 1, 2, 3])[:, None]
    events = Events({"x": x}, {"x": mask}, context=Events({"c": normal(4, 2, seed=5)}))
    found = family.log_density(body, events)
    assert bool(found.isfinite().all())
    hidden = events.replace(fields={"x": torch.where(mask[..., None], x, -7.0)})
    assert torch.equal(family.log_density(body, hidden), found)
    again = family.decode(body, family.encode(body, events), events.context)
    torch.testing.assert_close(again["x"], torch.where(mask[..., None], x, 0.0), atol=1e-6, rtol=0)
    assert torch.equal(again["x.mask"], mask)


def test_other_families_are_no_flow() -> None:
    with pytest.raises(ConfigError, match="flow must be"):
        pofx.ProbabilisticAutoencoder(flow=pofx.Gaussian())  # type: ignore[arg-type]
