"""Vector-quantised autoencoders: few codes, so that sums over all of them are the truth."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import pofx
from pofx.data.events import Events
from pofx.data.spec import Axis, Column, Field, vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.autoencoder import DecoderSettings
from pofx.models.base import Layout
from pofx.models.vq_vae import POINTS, tokens
from pofx.networks import CausalTransformer, CloudGenerator, EPiC, ResidualMLP, VectorGenerator
from pofx.networks.lattices import LatticeDecoder, LatticeEncoder
from pofx.training.noise import Noise

MLP = ResidualMLP(width=24, layers=1, embedding=16)
SMALL: dict[str, Any] = {
    "encoder": MLP,
    "decoder": DecoderSettings(network=VectorGenerator(MLP)),
    "prior": CausalTransformer(width=16, layers=1, heads=2),
}
VECTOR = vector_spec(2)
CLOUD = {"x": Field("cloud", (3, 2), (Column("a"), Column("b")))}


def built(layout: Layout, spread: float = 0.3, **settings: Any) -> tuple[pofx.VQVAE, Any]:
    """A family, and a body away from where networks start, so that probabilities differ."""
    torch.manual_seed(1)
    family = pofx.VQVAE(**{**SMALL, **settings})
    body: Any = family.build(layout).double().eval()
    for parameter in body.parameters():
        parameter.data += spread * torch.randn(parameter.shape, dtype=torch.float64)
    return family, body


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# The prior


@pytest.mark.parametrize("settings", [{"codes": 5}, {"quantiser": "fsq", "levels": (3, 2)}], ids=["vq", "fsq"])
def test_the_probabilities_of_all_sequences_sum_to_one(settings: dict[str, Any]) -> None:
    _, body = built(Layout(VECTOR, vector_spec(1, "c")), slots=3, exact=16 * 216, **settings)
    events = Events({"x": normal(4, 2)}, context=Events({"c": normal(4, 1, seed=2)}))
    values = body.prior.values
    assert body.every.tolist() == [list(k) for k in itertools.product(range(values), repeat=3)]
    found = body.log_every(events)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(4).double())
    for row in range(4):
        many = events[torch.full((len(body.every),), row)]
        torch.testing.assert_close(found[row], body.prior.log_prob(body.every, many.context))
    assert float((found[0] - found[1]).detach().abs().max()) > 1e-3  # the context matters


def test_codes_are_drawn_as_often_as_the_prior_says() -> None:
    family, body = built(Layout(VECTOR), codes=3, slots=2)
    noise = Noise(1, torch.arange(20_000), dtype=torch.float64)
    with torch.no_grad():
        codes = body.prior.draw(noise.uniform("codes", *family.noise_shapes(Layout(VECTOR))["codes"].shape), None)
        wanted = body.log_every(Events({"x": normal(1, 2)})).exp()[0]
    seen = torch.bincount(codes[:, 0] * 3 + codes[:, 1], minlength=9)
    assert stats.chisquare(seen, 20_000 * wanted).pvalue > 1e-3


# Density


def log_normal(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, log_scale.exp()).log_prob(x).sum(-1)


def test_the_density_is_the_sum_over_sequences() -> None:
    family, body = built(Layout(VECTOR), codes=3, slots=2)
    assert family.density_of(Layout(VECTOR)) == "exact"
    x = normal(6, 2)
    found = family.log_density(body, Events({"x": x}))
    terms = []
    for k in itertools.product(range(3), repeat=2):
        codes = torch.tensor([k])
        seen = body.decoder(body.quantiser.book[codes].flatten(1))
        terms.append(body.prior.log_prob(codes) + log_normal(x, seen.mean, seen.log_scale))
    torch.testing.assert_close(found, torch.stack(terms).logsumexp(0))
    torch.testing.assert_close(family.log_density(body, Events({"x": x[2:4]})), found[2:4])


def test_with_a_context_every_event_has_its_own_sum() -> None:
    layout = Layout(VECTOR, vector_spec(1, "c"))
    family, body = built(layout, codes=3, slots=2)
    x, c = normal(5, 2), normal(5, 1, seed=2)
    found = family.log_density(body, Events({"x": x}, context=Events({"c": c})))
    for row in range(5):
        given = Events({"c": c[row : row + 1]})
        terms = []
        for k in itertools.product(range(3), repeat=2):
            codes = torch.tensor([k])
            seen = body.decoder(body.quantiser.book[codes].flatten(1), None, given)
            terms.append(body.prior.log_prob(codes, given) + seen.log_prob(x[row : row + 1]))
        torch.testing.assert_close(found[row], torch.stack(terms).logsumexp(0)[0])


def test_the_bound_is_one_term_and_below_the_sum() -> None:
    layout = Layout(VECTOR)
    exact, body = built(layout, 0.05, codes=6, slots=2)
    family, other = built(layout, 0.05, codes=6, slots=2, exact=0)
    assert family.density_of(layout) == "bound"
    points = torch.linspace(-12, 12, 161, dtype=torch.float64)
    events = Events({"x": torch.cartesian_prod(points, points)})
    with torch.no_grad():
        whole, bound = exact.log_density(body, events), family.log_density(other, events)
    area = float(points[1] - points[0]) ** 2
    assert float(whole.exp().sum()) * area == pytest.approx(1.0, abs=2e-3)
    assert float(bound.exp().sum()) * area < 1.0
    assert bool((bound <= whole + 1e-12).all())
    codes = other.codes(events)
    seen = other.decoder(other.quantiser.book[codes].flatten(1))
    term = other.prior.log_prob(codes) + log_normal(events.x, seen.mean, seen.log_scale)
    torch.testing.assert_close(bound, term)


def test_the_density_of_a_cloud_knows_its_number_of_points() -> None:
    network = EPiC(width=8, layers=1, latent=2, embedding=8)
    decoder = DecoderSettings(network=CloudGenerator(network, queries="learned"), components=2)
    family, body = built(Layout(CLOUD), encoder=network, decoder=decoder, codes=3, slots=2)
    body.count.shares.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
    mask = torch.arange(3) < torch.tensor([0, 1, 2, 3])[:, None]
    events = Events({"x": normal(4, 3, 2)}, {"x": mask})
    found = family.log_density(body, events)
    for row in range(4):
        one = events[row : row + 1]
        given = Events({POINTS: torch.tensor([[row / 3]]).double()})
        terms = []
        for k in itertools.product(range(3), repeat=2):
            codes = torch.tensor([k])
            seen = body.decoder(body.quantiser.book[codes].flatten(1), None, None, one.mask)
            terms.append(body.prior.log_prob(codes, given) + seen.log_prob(one.x, one.mask))
        wanted = torch.stack(terms).logsumexp(0)[0] + body.count.shares[row].double()
        torch.testing.assert_close(found[row], wanted)
    assert float(found[0].detach()) == pytest.approx(math.log(0.1), abs=1e-6)  # no points: only their number is left


# Noise and back


@pytest.mark.parametrize("settings", [{"codes": 5}, {"quantiser": "fsq", "levels": (3, 2)}], ids=["vq", "fsq"])
def test_encode_finds_the_codes_and_the_noise(settings: dict[str, Any]) -> None:
    family, body = built(Layout(VECTOR), slots=3, **settings)
    events = Events({"x": normal(200, 2)})
    noise = family.encode(body, events)
    assert torch.equal(body.prior.draw(noise["codes"]), body.codes(events))
    torch.testing.assert_close(family.decode(body, noise, None)["x"], events.x)


def test_tokens_are_the_codes_of_events() -> None:
    x = np.random.default_rng(1).normal(size=(1500, 2))
    model = pofx.VQVAE(codes=5, **SMALL).fit(x, training=pofx.Training(max_steps=5, seed=1))
    found = tokens(model, x)
    assert found.shape == (1500, 2)
    assert torch.equal(found[7:9], tokens(model, x[7:9]))
    assert torch.equal(model.fitted.body.prior.draw(model.encode(x)["codes"]), found)
    with pytest.raises(CapabilityError, match="VQVAE"):
        tokens(pofx.Gaussian().fit(x), x)


# Training


def test_the_codebook_sees_weights_in_training_alone() -> None:
    family, body = built(Layout(VECTOR), codes=4, slots=2)
    weight = torch.rand(30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    events = Events({"x": normal(30, 2)}, weight=weight, index=torch.arange(30))
    noise = Noise(1, events.index, dtype=torch.float64)
    family.reconstruction(body, events, noise)
    assert not body.quantiser.seen_count.any()
    body.train()
    family.reconstruction(body, events, noise)
    codes = body.codes(events)
    wanted = torch.stack([(weight[:, None] * (codes == k)).sum() for k in range(4)])
    torch.testing.assert_close(body.quantiser.seen_count, wanted)


def test_four_modes_are_four_codes() -> None:
    rng = np.random.default_rng(1)
    centres, shares = np.array([[-3.0, -3], [-3, 3], [3, -3], [3, 3]]), np.array([0.1, 0.2, 0.3, 0.4])

    def draw(n: int) -> np.ndarray:
        return centres[rng.choice(4, n, p=shares)] + 0.3 * rng.normal(size=(n, 2))

    def truth(x: np.ndarray) -> np.ndarray:
        parts = stats.norm(centres[:, None], 0.3).logpdf(x).sum(-1) + np.log(shares)[:, None]
        return np.logaddexp.reduce(parts, 0)

    training = pofx.Training(max_epochs=None, max_steps=250, batch_size=256, learning_rate=5e-3, seed=1)
    fresh = draw(4000)
    model = pofx.VQVAE(codes=4, slots=1, preprocess="affine", **SMALL).fit(draw(8000), training=training)
    body: Any = model.fitted.body
    for summed in (True, False):  # modes lie so far apart that the bound is as good
        body.summed = summed
        gap = truth(fresh) - model.log_prob(fresh)
        assert -0.02 < gap.mean() < 0.06
    sample = model.sample(4000, seed=1)
    seen = np.array([(np.abs(sample - c).max(1) < 1.5).mean() for c in centres])
    np.testing.assert_allclose(seen, shares, atol=0.06)


def test_a_density_that_is_summed_is_learnt_as_a_sum() -> None:
    """Noise that is fitted to the nearest code alone loses 0.07 nats per number here."""
    rng = np.random.default_rng(1)
    fresh = rng.normal(size=(4000, 2))
    training = pofx.Training(max_epochs=None, max_steps=120, batch_size=256, learning_rate=1e-2, seed=1)
    model = pofx.VQVAE(codes=16, slots=2, **SMALL).fit(rng.normal(size=(8000, 2)), training=training)
    gap = stats.norm.logpdf(fresh).sum(1) - model.log_prob(fresh)
    assert abs(gap.mean()) < 0.02
    np.testing.assert_allclose(model.sample(8000, seed=1).std(0), 1.0, atol=0.04)


@pytest.mark.parametrize("kind", ["vector", "cloud"])
def test_some_events_of_a_batch_stand_for_all(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(VECTOR, vector_spec(1, "c")) if kind == "vector" else Layout(CLOUD)
    network = EPiC(width=8, layers=1, latent=2, embedding=8)
    decoder = DecoderSettings(network=CloudGenerator(network, queries="learned"), components=2)
    settings = {} if kind == "vector" else {"encoder": network, "decoder": decoder}
    family, body = built(layout, codes=3, slots=2, **settings)
    x = normal(90, 2) if kind == "vector" else normal(90, 3, 2)
    context = Events({"c": normal(90, 1, seed=2)}) if kind == "vector" else None
    masks = {} if kind == "vector" else {"x": torch.ones(90, 3, dtype=torch.bool)}
    events = Events({"x": x}, masks, context=context)
    noise = Noise(1, torch.arange(90), dtype=torch.float64)
    whole = family.likelihood_of_all(body, events, noise).per_event
    torch.testing.assert_close(whole, -body.log_sum(events) / body.form.size)
    monkeypatch.setattr("pofx.models.vq_vae.ALONE", 3)
    few = family.likelihood_of_all(body, events, noise).per_event
    kept = few != 0
    assert 10 < int(kept.sum()) < 50
    torch.testing.assert_close(few[kept], 3.0 * whole[kept])
    same = family.likelihood_of_all(body, events[:45], Noise(1, torch.arange(45), dtype=torch.float64)).per_event
    torch.testing.assert_close(same, few[:45])  # which of them does not depend on the others


# Structure


def test_grids_are_lattices() -> None:
    form = Field("grid", (1, 8, 6), (Column("E"),), (Axis("x", 8), Axis("y", 6)))
    layout = Layout({"x": form})
    family = pofx.VQVAE(encoder=LatticeEncoder((4, 4)), decoder=DecoderSettings(network=LatticeDecoder((4, 4))))
    assert family.slot_count(layout) == 12
    assert pofx.VQVAE().slot_count(layout) == 6  # three levels by default: 2 x 3 cells
    with pytest.raises(ConfigError, match="12 cells"):
        pofx.VQVAE(slots=3, encoder=LatticeEncoder((4, 4))).build(layout)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"quantiser": "lfq"}, "quantiser"),
        ({"slots": 0}, "slots"),
        ({"codes": 1}, "codes"),
        ({"commitment": -1.0}, "commitment"),
        ({"decay": 1.5}, "decay"),
        ({"quantiser": "fsq", "levels": (4, 4), "latent": 3}, "latent"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        pofx.VQVAE(**wrong)
