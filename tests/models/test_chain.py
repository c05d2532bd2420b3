"""Chains of stages: the density of a Gaussian in two pieces, and what stages see of each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import pofx
from pofx.data.spec import Column, Field, vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.networks import EPiC, ResidualMLP
from pofx.simulators import Conditional, CorrelatedGaussian
from pofx.solvers import RK4

JOINT = CorrelatedGaussian([0.5, 1.0, -2.0], [[1.0, 0.9, -0.4], [0.9, 2.25, 0.3], [-0.4, 0.3, 1.0]])
QUICK = pofx.Training(max_epochs=None, max_steps=60, batch_size=128, learning_rate=5e-3, seed=1)


def pieces(n: int, seed: int, context: bool = False) -> pofx.Dataset:
    x = JOINT.sample(n, seed)
    if context:
        return pofx.Dataset.from_arrays({"b": x[:, 1:2], "c": x[:, 2:]}, x[:, :1])
    return pofx.Dataset.from_arrays({"a": x[:, :1], "bc": x[:, 1:]})


@pytest.mark.parametrize("order", [None, ("bc", "a")])
def test_two_gaussian_stages_are_the_joint_gaussian(order: tuple[str, ...] | None) -> None:
    model = pofx.Chain(stages=(pofx.Gaussian(), pofx.Gaussian()), order=order).fit(pieces(20_000, 1))
    x = JOINT.sample(500, 2)
    found = model.log_prob({"a": x[:, :1], "bc": x[:, 1:]})
    np.testing.assert_allclose(found, pofx.Gaussian().fit(JOINT.sample(20_000, 1)[:16_000]).log_prob(x), atol=0.05)
    assert abs((JOINT.log_prob(x) - found).mean()) < 0.01
    drawn = model.sample(20_000, seed=1)
    both = np.concatenate([drawn.fields["a"], drawn.fields["bc"]], 1)
    np.testing.assert_allclose(np.cov(both.T), JOINT.covariance, atol=0.1)
    assert model.density == "exact"


def test_conditional_chain() -> None:
    model = pofx.Chain(stages=(pofx.Gaussian(), pofx.Gaussian())).fit(pieces(20_000, 1, True))
    x, context = Conditional(JOINT).sample(500, 3)
    found = model.log_prob({"b": x[:, :1], "c": x[:, 1:]}, context)
    assert abs((Conditional(JOINT).log_prob(x, context) - found).mean()) < 0.01
    assert model.sample(4, context[:3], seed=1).fields["c"].shape == (3, 4, 1)


@pytest.mark.slow
def test_stages_of_several_kinds(tmp_path) -> None:
    """Points about an axis that the first stage draws: the cloud follows the drawn axis."""
    rng = np.random.default_rng(1)
    jet = np.stack([rng.uniform(-3, 3, 1200), rng.integers(1, 5, 1200) + 0.0], 1)
    mask = np.arange(4) < jet[:, 1:]
    points = jet[:, None, :1] + 0.1 * rng.normal(size=(1200, 4, 2))
    spec = vector_spec(["eta", Column("n", type="discrete", low=1, high=4)], "jet") | {
        "particles": Field("cloud", (4, 2), (Column("eta"), Column("phi")))
    }
    data = pofx.Dataset.from_arrays({"jet": jet, "particles": points}, columns=spec, masks={"particles": mask})
    cloud = pofx.FlowMatching(
        network=EPiC(width=24, layers=2, embedding=16), solver=RK4(steps=4), density_solver=RK4(steps=1)
    )
    flow = pofx.SplineFlow(layers=1, hidden=(16,), bins=4)
    model = pofx.Chain(stages=(flow, cloud)).fit(data, training=QUICK.replace(max_steps=150, learning_rate=1e-2))
    drawn = model.sample(200, seed=2)
    real = drawn.masks["particles"]
    jets, made = drawn.fields["jet"], drawn.fields["particles"]
    assert (real.sum(1) == jets[:, 1]).mean() > 0.8
    mean = (made[..., 0] * real).sum(1) / real.sum(1)
    assert np.corrcoef(mean, jets[:, 0])[0, 1] > 0.97
    model.save(tmp_path / "chain.pofx")
    again = pofx.load(tmp_path / "chain.pofx").sample(200, seed=2)
    np.testing.assert_array_equal(again.fields["particles"], made)
    events = data.arrays()[:3]
    assert np.isfinite(model.log_prob(events)).all()
    assert model.density == "estimate"  # a discrete column


def whole_numbers(rng: np.random.Generator, n: int, low: int = 0) -> dict[str, np.ndarray]:
    """k uniform over 1001 whole numbers, y = sin(k / 150) + 0.2 noise."""
    k = rng.integers(0, 1001, size=(n, 1)).astype(float)
    return {"k": low + k, "y": np.sin(k / 150) + 0.2 * rng.normal(size=(n, 1))}


def test_whole_numbers_are_scaled_where_a_later_stage_sees_them(tmp_path) -> None:
    spec = {
        "k": Field("vector", (1,), (Column("k", "", "discrete", -500, 500),)),
        "y": Field("vector", (1,), (Column("y"),)),
    }
    rng = np.random.default_rng(1)
    data = pofx.Dataset.from_arrays(whole_numbers(rng, 6000, -500), columns=spec)
    first = pofx.AutoregressiveTransformer(network=pofx.networks.CausalTransformer(width=16, layers=1), components=2)
    second = pofx.MixtureDensityNetwork(components=2, hidden=(64, 64))
    steps = {"k/likelihood": 1, "y/likelihood": 600}
    quick = QUICK.replace(max_steps=steps, batch_size=256, learning_rate=3e-3, ema=0.98)
    model = pofx.Chain(stages=(first, second)).fit(data, training=quick)
    given = model.fitted.body.plan[1].given(model.fitted.prepare(data.arrays())[0], None).x
    assert abs(float(given.mean())) < 0.05
    assert float(given.std()) == pytest.approx(1.0, abs=0.02)
    new = whole_numbers(rng, 2000, -500)
    truth = stats.norm.logpdf(new["y"][:, 0], np.sin((new["k"][:, 0] + 500) / 150), 0.2) - np.log(1001)
    assert abs((truth - model.log_prob(new)).mean()) < 0.05  # unscaled: 0.4
    assert model.density == "exact"  # nothing is spread by noise
    model.save(tmp_path / "chain.pofx")
    np.testing.assert_array_equal(pofx.load(tmp_path / "chain.pofx").log_prob(new), model.log_prob(new))


def test_a_whole_number_in_a_chain_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"k": Field("vector", (1,), (Column("k", "", "discrete", 0, 1000),)), "y": vector_spec(["y"], "y")["y"]}
    data = pofx.Dataset.from_arrays(whole_numbers(np.random.default_rng(1), 500), columns=spec)
    first = pofx.AutoregressiveTransformer(network=pofx.networks.CausalTransformer(width=16, layers=1), components=2)
    flow = pofx.SplineFlow(layers=1, hidden=(8,))
    exact, spread = (
        pofx.Chain(stages=(one, flow)).fit(data, training=QUICK.replace(max_steps=3)) for one in (first, flow)
    )
    assert (exact.density, spread.density) == ("exact", "estimate")
    rows, asked = {"k": np.array([[3.0]]), "y": np.array([[0.1]])}, []
    plain = pofx.Chain.log_density
    monkeypatch.setattr(pofx.Chain, "log_density", lambda *given: asked.append(1) or plain(*given))
    exact.log_prob(rows)
    assert len(asked) == 1
    spread.log_prob(rows)
    assert len(asked) == 17
    assert float(exact.log_prob_error(rows)[0]) == 0.0


def test_every_stage_is_trained_in_its_own_phase() -> None:
    chain = pofx.Chain(
        stages=(pofx.SplineFlow(layers=1, hidden=(8,)), pofx.FlowMatching(network=ResidualMLP(width=8, layers=1)))
    )
    model = chain.fit(pieces(600, 1), training=QUICK.replace(max_steps=5))
    assert list(model.card["training"]["phase_steps"]) == ["a/likelihood", "bc/flow-matching"]
    assert set(model.noise(2, seed=1)) == {"z", "bc.z"}


def test_wrong_chains_are_refused() -> None:
    with pytest.raises(ConfigError, match="families"):
        pofx.Chain()
    with pytest.raises(CapabilityError, match="one stage for each of the fields a, bc"):
        pofx.Chain(stages=(pofx.Gaussian(),)).fit(pieces(100, 1))
    with pytest.raises(CapabilityError, match="order"):
        pofx.Chain(stages=(pofx.Gaussian(), pofx.Gaussian()), order=("a", "x")).fit(pieces(100, 1))
    cloud = {"p": Field("cloud", (3, 2), (Column("u"), Column("v")))} | vector_spec(1, "m")
    rng = np.random.default_rng(1)
    data = pofx.Dataset.from_arrays({"p": rng.normal(size=(100, 3, 2)), "m": rng.normal(size=(100, 1))}, columns=cloud)
    with pytest.raises(CapabilityError, match="takes fields of kind vector"):
        pofx.Chain(stages=(pofx.Gaussian(), pofx.Gaussian())).fit(data)
    with pytest.raises(CapabilityError, match="comes after, is a cloud"):
        pofx.Chain(stages=(pofx.FlowMatching(), pofx.Gaussian())).fit(data)


def test_gradients_pass_through_all_stages() -> None:
    model = pofx.Chain(stages=(pofx.Gaussian(), pofx.Gaussian())).fit(pieces(500, 1))
    noise = {name: z.requires_grad_() for name, z in model.noise(5, seed=1).items()}
    made = model.decode(noise)
    (gradient,) = torch.autograd.grad(made.fields["bc"].sum(), noise["z"])
    assert bool((gradient != 0).all())
