"""Bounded information bottleneck autoencoders: every term against sums by hand, and what training makes of the latent vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pofx
from pofx.data.events import Events
from pofx.data.spec import Axis, Column, Field, vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models import sorted_values
from pofx.models.base import Layout
from pofx.models.flows import CouplingFlow
from pofx.models.sorted_values import sorted_discrepancy
from pofx.networks import GridGenerator, ResidualMLP, UNet, VectorGenerator
from pofx.networks.pointwise import Pointwise
from pofx.training.noise import Noise

MLP = ResidualMLP(width=24, layers=1, embedding=16)
SMALL: dict[str, Any] = {"encoder": MLP, "generator": VectorGenerator(MLP), "critic": MLP, "latent_critic": MLP}
GRID = {"x": Field("grid", (1, 6, 5), (Column("E"),), (Axis("phi", 6, periodic=True), Axis("z", 5)))}
IMAGES: dict[str, Any] = {
    "encoder": UNet(channels=(4,), embedding=8, attention=False),
    "generator": GridGenerator(channels=(4,), embedding=8),
    "critic": UNet(channels=(4,), embedding=8, attention=False),
    "post_processor": Pointwise(widths=(16, 16), embedding=8),
}


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def built(layout: Layout, **settings: Any) -> tuple[pofx.BIBAE, Any]:
    torch.manual_seed(1)
    family = pofx.BIBAE(**settings)
    body: Any = family.build(layout).double()
    for parameter in body.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    return family, body


# The terms


def test_sorted_values_against_direct_sums() -> None:
    x, y, scales = normal(3, 11), 2.0 * normal(3, 11, seed=2), (0.5, 2.0)
    found = sorted_discrepancy(x, y, 8, scales)

    def kernel(a: float, b: float) -> float:
        return sum(s**2 / ((a - b) ** 2 + s**2) for s in scales) / len(scales)

    for row in range(3):
        a, b = sorted(x[row].tolist(), reverse=True), sorted(y[row].tolist(), reverse=True)
        windows = []
        for start in (0, 2, 3):  # a quarter of eight; the last one ends with the last value
            p, q = a[start : start + 8], b[start : start + 8]
            terms = [
                kernel(p[i], p[j]) + kernel(q[i], q[j]) - 2 * kernel(p[i], q[j]) for i in range(8) for j in range(8)
            ]
            windows.append(sum(terms) / 64)
        assert float(found[row]) == pytest.approx(sum(windows) / 3, abs=1e-12)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sorted_discrepancy(x, x[:, order], 4), torch.zeros(3).double())
    assert bool((found > 0).all())


@pytest.mark.parametrize("together", [1, 500])
def test_sorted_values_do_not_depend_on_what_is_compared_at_a_time(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    x, y = normal(7, 11), 2.0 * normal(7, 11, seed=2)
    whole = sorted_discrepancy(x, y, 8)
    monkeypatch.setitem(sorted_values.PAIRS, "cpu", together)
    assert torch.equal(sorted_discrepancy(x, y, 8), whole)


def test_the_terms_of_the_autoencoder_are_those_of_the_equation() -> None:
    family, body = built(
        Layout(vector_spec(3)),
        latent=2,
        loss="wasserstein",
        adversarial=0.7,
        difference=0.3,
        information=0.2,
        mmd=3.0,
        **SMALL,
    )
    weight = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    events = Events({"x": normal(12, 3)}, weight=weight, index=torch.arange(12))
    noise = Noise(1, events.index, dtype=torch.float64)
    found = family.autoencoder_loss(body, events, noise)
    mean, log_scale = body.infer(events)
    z = mean + log_scale.exp() * noise.normal("q", 2)
    made, e = body.make(z, None), noise.normal("normal", 2)
    own = torch.distributions.Normal(mean, log_scale.exp())
    divergence = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(1)
    critics = body.critics
    wanted = -0.7 * critics["events"](made) - 0.3 * critics["difference"](made - events.x) - critics["latent"](z)
    widths = [s * 2.0 for s in (0.25, 0.5, 1.0, 2.0)]  # in units of sqrt(2 * 2)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        square = (a - b).square().sum()
        return sum((s**2 / (square + s**2) for s in widths), torch.zeros(())) / 4

    share = weight / weight.sum()
    total = torch.zeros(()).double()
    for i in range(12):
        for j in range(12):
            pair = kernel(e[i], e[j]) + kernel(z[i], z[j]) - 2 * kernel(e[i], z[j])
            total = total + share[i] * share[j] * pair
    torch.testing.assert_close((share * found.logs["mmd"]).sum(), total)
    wanted = wanted + 0.2 * divergence + 3.0 * found.logs["mmd"]
    torch.testing.assert_close(found.per_event, wanted)


def test_the_difference_of_angles_is_the_shorter_way() -> None:
    family, body = built(Layout(vector_spec(1), circular={"x": (0,)}), latent=1, **SMALL)
    events = Events({"x": torch.full((4, 1), 3.1).double()}, index=torch.arange(4))
    body.make = lambda z, context: torch.full((4, 1), -3.1).double()
    real, fake = family._pairs(body, events, Noise(1, events.index, dtype=torch.float64))["difference"]
    assert not real.any()
    torch.testing.assert_close(fake, torch.full((4, 1), 2 * math.pi - 6.2).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("penalty", ["one-centred", "r1-r2"])
def test_the_penalty_of_linear_critics_is_known(penalty: str) -> None:
    family, body = built(Layout(vector_spec(2)), latent=2, loss="wasserstein", penalty=penalty, strength=4.0, **SMALL)

    class Linear(torch.nn.Module):
        def forward(self, x: Tensor, *_: object) -> Tensor:
            return (x * torch.tensor([0.0, 3.0]).double()).sum(1, keepdim=True)

    for critic in body.critics.values():
        critic.network = Linear()
    events = Events({"x": normal(6, 2)}, index=torch.arange(6))
    noise = Noise(1, events.index, dtype=torch.float64)
    found = family.critic_loss(body, events, noise)
    pairs = family._pairs(body, events, noise)
    cost = 4.0 * (3.0 - 1.0) ** 2 if penalty == "one-centred" else 4.0 * 9.0
    for name, (real, fake) in pairs.items():
        apart = 3.0 * (fake - real)[:, 1]
        drift = 1e-3 * (3.0 * (fake + real)[:, 1]).mean() ** 2
        torch.testing.assert_close(found.logs[name], apart + drift + cost, atol=1e-6, rtol=1e-6)


# Training


@pytest.mark.slow
def test_latent_vectors_become_normal_and_events_are_rebuilt() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    x[:, 1] += 0.5 * x[:, 0] ** 2
    training = pofx.Training(max_epochs=None, max_steps=300, batch_size=128, learning_rate=3e-3, seed=1)
    model = pofx.BIBAE(latent=2, **SMALL).fit(x, training=training)
    events = model.fitted.prepare(Events({"x": torch.from_numpy(x)}))[0].replace(index=torch.arange(4000))
    body: Any = model.fitted.body
    with torch.no_grad():
        z = body.draw(events, Noise(1, torch.arange(4000)))
        lost = (body.make(z, None) - events.x).square().mean()
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(2), atol=0.3, rtol=0)
    assert float(lost) < 0.2  # of the variance of one
    sample = model.sample(4000, seed=1)
    np.testing.assert_allclose(sample.mean(0), x.mean(0), atol=0.15)
    np.testing.assert_allclose(sample.std(0), x.std(0), rtol=0.15)


@pytest.mark.slow
def test_the_post_processor_repairs_the_spectrum() -> None:
    family, body = built(Layout(GRID), nearness=0.0, window=20, **IMAGES)
    body = body.float()
    x = torch.from_numpy(np.random.default_rng(1).exponential(size=(256, 1, 6, 5))).float()
    events = Events({"x": x}, index=torch.arange(256))
    body.make = lambda z, context: torch.log1p(x.clamp(min=0.0))  # right order, wrong values
    noise = Noise(1, events.index)
    before = float(family.sorted_loss(body, events, noise).logs["sorted"].mean().detach())
    optimiser = torch.optim.Adam(body.post.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        loss = family.sorted_loss(body, events, noise).per_event.mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1 * before
    moved = body.processed(body.make(None, None), None).detach()
    assert float((moved - x).abs().mean()) < 0.5 * float((body.make(None, None) - x).abs().mean())


def test_a_flow_takes_the_place_of_normal_latent_vectors() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 2))
    training = pofx.Training(max_epochs=None, max_steps=60, batch_size=128, learning_rate=5e-3, seed=1)
    flow = CouplingFlow(layers=2, hidden=(16,))
    model = pofx.BIBAE(latent=2, flow=flow, mmd=1.0, **SMALL).fit(x, training=training)
    family: Any = model.family
    body: Any = model.fitted.body
    events = model.fitted.prepare(Events({"x": torch.from_numpy(x)}))[0].replace(index=torch.arange(2000))
    noise = Noise(1, torch.arange(2000))
    with torch.no_grad():
        z = body.draw(events, noise)
        normal_density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1).mean()
        assert -float(family.likelihood(body, events, noise.within("other")).per_event.mean()) * 2 > float(
            normal_density
        )
        e = noise.normal("z", 2)
        moved = family.flow.decode(body.prior, {"z": e}, None)["(code)"]
        torch.testing.assert_close(family.decode(body, {"z": e}, None)["x"], body.make(moved, None))
    assert float((moved - e).abs().max()) > 0.01


def test_phases_follow_what_is_asked_for() -> None:
    vector, grid = Layout(vector_spec(2)), Layout(GRID)

    def names(family: pofx.BIBAE, layout: Layout) -> list[str]:
        return [phase.name for phase in family.phases(layout)]

    assert names(pofx.BIBAE(), vector) == ["autoencoder"]
    assert names(pofx.BIBAE(), grid) == ["autoencoder", "post-processor"]
    assert names(pofx.BIBAE(post_processor=None), grid) == ["autoencoder"]
    assert names(pofx.BIBAE(flow=CouplingFlow()), vector) == ["autoencoder", "flow"]


def test_clouds_are_refused() -> None:
    x, mask = np.zeros((50, 3, 2)), np.ones((50, 3), dtype=bool)
    data = pofx.Dataset.from_arrays(
        {"x": x}, columns={"x": Field("cloud", (3, 2), (Column("a"), Column("b")))}, masks={"x": mask}
    )
    with pytest.raises(CapabilityError, match="cloud"):
        pofx.BIBAE().fit(data)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"loss": "best"}, "loss"),
        ({"penalty": "none"}, "penalty"),
        ({"mmd": -1.0}, "mmd"),
        ({"latent": 0}, "latent"),
        ({"betas": (1.0, 0.9)}, "betas"),
        ({"window": 0}, "window"),
        ({"flow": "spline"}, "flow"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        pofx.BIBAE(**wrong)
