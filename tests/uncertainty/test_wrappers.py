"""One contract for all wrappers, around different families: files, seeds, single draws, mixtures and bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pofx
from pofx.config import from_plain, to_plain
from pofx.errors import ConfigError, ShapeError
from pofx.models.base import Family
from pofx.networks import ResidualMLP
from pofx.networks.generators import VectorGenerator
from pofx.solvers import RK4
from pofx.uncertainty import Band, BayesianModel

FLOW = pofx.SplineFlow(layers=1, hidden=(8,), bins=4)
MLP = ResidualMLP(width=8, layers=1, embedding=8)
MATCHING = pofx.FlowMatching(network=MLP, solver=RK4(steps=2), density_solver=RK4(steps=2))
QUICK = pofx.Training(max_epochs=None, max_steps=6, batch_size=64, seed=1, device="cpu", progress=False)
WRAPPERS: dict[str, Family] = {
    "ensemble": pofx.Ensemble(FLOW, members=3),
    "variational": pofx.Variational(FLOW, draws=3),
    "bayesian flow matching": pofx.Variational(MATCHING, draws=3),
    "adam-mcmc": pofx.AdamMCMC(FLOW, draws=3, steps=12),
    "sghmc of a gan": pofx.SGHMC(pofx.GAN(generator=VectorGenerator(MLP), critic=MLP), draws=3, steps=6),
    "swag": pofx.SWAG(FLOW, draws=3, steps=8, every=2, rank=3),
    "laplace": pofx.Laplace(pofx.SplineFlow(layers=1, hidden=(3,), bins=3), draws=3, layers=("*bias",)),
}


def toy() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    c = rng.normal(size=(100, 1))
    return 0.5 * c + rng.normal(size=(100, 2)), c


def fit(name: str, seed: int = 1) -> BayesianModel:
    return WRAPPERS[name].fit(*toy(), training=QUICK.replace(seed=seed))


@pytest.mark.parametrize("name", WRAPPERS)
def test_contract(name: str, tmp_path: Path) -> None:
    x, c = (part[:5] for part in toy())
    assert from_plain(to_plain(WRAPPERS[name])) == WRAPPERS[name]
    model = fit(name)
    assert isinstance(model, BayesianModel)
    assert model.draws == 3
    model.save(tmp_path / "m.pofx")
    loaded = pofx.load(tmp_path / "m.pofx")
    assert isinstance(loaded, BayesianModel)
    np.testing.assert_array_equal(loaded.sample(4, [0.3], seed=2), model.sample(4, [0.3], seed=2))
    single = [model.sample(20, [0.3], seed=2, draw=k) for k in range(3)]
    assert not np.allclose(single[0], single[1])
    mixed = model.sample(20, [0.3], seed=2)
    nearest = np.min([np.abs(mixed - one).max(1) for one in single], 0)
    assert nearest.max() < 1e-4  # every event is one of a single draw, from the same noise
    if model.family.capabilities.density == "none":
        return
    each = model.log_probs(x, c)
    np.testing.assert_allclose(model.log_prob(x, c), np.logaddexp.reduce(each, 0) - np.log(3), rtol=1e-10)
    np.testing.assert_allclose(each[1], model.member(1).log_prob(x, c), rtol=1e-10)
    np.testing.assert_allclose(model.density_band(x, c).mean, np.exp(model.log_prob(x, c)), rtol=1e-10)
    np.testing.assert_array_equal(loaded.log_probs(x, c), each)


@pytest.mark.parametrize("name", ["ensemble", "variational", "adam-mcmc"])
def test_seeds(name: str) -> None:
    x, c = toy()
    first, second, other = (fit(name, seed).log_prob(x, c) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)


def test_bands_and_histograms() -> None:
    model = fit("ensemble")
    means = model.bands(lambda member: member.sample(50, [0.0], seed=1).mean(0))
    expected = np.stack([model.sample(50, [0.0], seed=1, draw=k).mean(0) for k in range(3)])
    np.testing.assert_array_equal(means.values, expected)
    edges = np.linspace(-6, 6, 13)
    band = model.histogram(edges, 200, [0.0], seed=3, of=lambda events: events[:, 0])
    np.testing.assert_allclose((band.values * np.diff(edges)).sum(1), 1.0, atol=0.02)
    assert band.floor is not None
    share = band.mean[5]
    assert band.floor[5] == pytest.approx(np.sqrt(share * (1 - share) / 200))
    with pytest.raises(Exception, match="of="):
        model.histogram(edges, 10, [0.0], seed=1)
    with pytest.raises(ShapeError, match="from 0 to 2"):
        model.member(3)


def test_band() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=(4000, 1))
    band = Band(values)
    assert band.error[0] == pytest.approx(2.0, rel=0.04)
    low, high = band.interval(0.683)
    assert (low[0], high[0]) == pytest.approx((1.0, 5.0), abs=0.2)
    with pytest.raises(ConfigError, match="two draws"):
        _ = Band(values[:1]).error
    with pytest.raises(ConfigError, match="level"):
        band.interval(1.5)


def test_weights_that_are_not_named_do_not_vary() -> None:
    model = WRAPPERS["laplace"].fit(*toy(), training=QUICK)
    parts = [dict(model.member(k).fitted.body.named_parameters()) for k in range(2)]
    same = {name for name, value in parts[0].items() if torch.equal(value, parts[1][name])}
    assert same == {name for name in parts[0] if not name.endswith("bias")}


def test_weighted_events_are_worth_less() -> None:
    x, c = toy()
    weight = np.where(np.arange(100) < 50, 1.0, 3.0)
    model = pofx.Ensemble(pofx.Gaussian(), members=2).fit(x, c, weight)
    used = pofx.Dataset.from_arrays(x, context=c, weight=weight).train.arrays().weight
    assert float(model.fitted.body.size) == pytest.approx(used.sum() ** 2 / (used**2).sum())
