"""Autoregressive transformer: heads against scipy, the density against the Jacobian of decode, whole numbers, orders, clouds as context."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import pofx
from pofx.data.events import Events
from pofx.data.spec import Column, Field
from pofx.errors import CapabilityError, ConfigError
from pofx.models.autoregressive_transformer import AutoregressiveTransformer
from pofx.models.chain import Chain
from pofx.models.heads import Categorical, NormalMixture, VonMisesMixture
from pofx.networks.causal import CausalTransformer
from pofx.simulators.densities import VonMisesChain
from pofx.training import Training

QUICK = Training(
    max_epochs=None, max_steps=150, batch_size=256, learning_rate=1.5e-2, seed=1, device="cpu", progress=False
)
SMALL = AutoregressiveTransformer(network=CausalTransformer(width=24, layers=1, heads=2), components=4)
DOUBLE = {"dtype": torch.float64}


def random_parameters(size: int, n: int = 40) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(1), **DOUBLE)


# Heads


def test_normal_mixture_is_that_of_scipy() -> None:
    head = NormalMixture(3)
    parameters = random_parameters(head.size)
    share, mean, width = (part.numpy() for part in head._parts(parameters))
    x = torch.linspace(-3, 3, 40, **DOUBLE)
    parts = np.exp(share) * stats.norm.pdf(x.numpy()[:, None], mean, np.exp(width))
    np.testing.assert_allclose(head.log_prob(parameters, x), np.log(parts.sum(1)), atol=1e-10)
    cdf = (np.exp(share) * stats.norm.cdf(x.numpy()[:, None], mean, np.exp(width))).sum(1)
    np.testing.assert_allclose(stats.norm.cdf(head.noise(parameters, x)), cdf, atol=1e-12)


def test_von_mises_mixture_is_that_of_scipy() -> None:
    head = VonMisesMixture(3)
    parameters = random_parameters(head.size)
    share, mean, width = (part.numpy() for part in head._parts(parameters))
    kappa = np.exp(-2 * width)
    x = torch.linspace(-3.1, 3.1, 40, **DOUBLE)
    parts = np.exp(share) * stats.vonmises.pdf(x.numpy()[:, None], kappa, mean)
    np.testing.assert_allclose(head.log_prob(parameters, x), np.log(parts.sum(1)), atol=1e-9)
    from_cut = stats.vonmises.cdf(x.numpy()[:, None], kappa, mean) - stats.vonmises.cdf(-np.pi, kappa, mean)
    np.testing.assert_allclose(stats.norm.cdf(head.noise(parameters, x)), (np.exp(share) * from_cut).sum(1), atol=1e-9)


@pytest.mark.parametrize("head", [NormalMixture(1), NormalMixture(5), VonMisesMixture(1), VonMisesMixture(5)])
def test_draw_and_noise_are_inverse_with_the_slope_that_the_density_says(head: NormalMixture | VonMisesMixture) -> None:
    parameters, reach = random_parameters(head.size), 6.0 if isinstance(head, NormalMixture) else 3.0
    z = torch.linspace(-reach, reach, 40, **DOUBLE).requires_grad_(True)
    x = head.draw(parameters, z)
    torch.testing.assert_close(head.noise(parameters, x), z, atol=1e-6, rtol=0)
    (slope,) = torch.autograd.grad(x.sum(), z)
    normal = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(normal - slope.log(), head.log_prob(parameters, x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("head", [NormalMixture(2), VonMisesMixture(2)])
def test_gradients_of_draw_by_the_parameters_are_those_of_differences(head: NormalMixture | VonMisesMixture) -> None:
    z = torch.tensor([-1.3, 2.0], **DOUBLE)
    parameters = random_parameters(head.size, 2).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda p: head.draw(p, z), parameters, atol=1e-4)


def test_a_whole_number_fills_the_cell_of_its_probability() -> None:
    head, n = Categorical(-1, 4), 20_000
    parameters = random_parameters(4, 1)
    z = torch.randn(n, generator=torch.Generator().manual_seed(2), **DOUBLE)
    drawn = head.draw(parameters.expand(n, -1), z)
    shares = parameters[0].softmax(0)
    assert stats.chisquare(np.bincount(drawn.int() + 1, minlength=4), n * shares.numpy()).pvalue > 1e-3
    values = torch.tensor([-1.0, 0.0, 1.0, 2.0, 3.0, 0.5], **DOUBLE)
    log_prob = head.log_prob(parameters.expand(6, -1), values)
    torch.testing.assert_close(log_prob[:4].exp(), shares)
    assert torch.isneginf(log_prob[4:]).all()
    torch.testing.assert_close(
        head.draw(parameters.expand(4, -1), head.noise(parameters.expand(4, -1), values[:4])), values[:4]
    )


# The family


def mixed_columns(rng: np.random.Generator, n: int) -> np.ndarray:
    """k in {0, 1, 2}, x | k ~ N(2 k, 0.5^2), phi | x, k ~ von Mises(x, 1 + k)."""
    k = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    x = rng.normal(2.0 * k, 0.5)
    phi = rng.vonmises((x + np.pi) % (2 * np.pi) - np.pi, 1.0 + k)
    return np.stack([k, x, phi], 1)


def mixed_truth(rows: np.ndarray) -> np.ndarray:
    k, x, phi = rows.T
    share = np.log(np.array([0.5, 0.3, 0.2])[k.astype(int)])
    return share + stats.norm.logpdf(x, 2 * k, 0.5) + stats.vonmises.logpdf(phi, 1.0 + k, x)


MIXED = [
    Column("k", "", "discrete", 0, 2),
    Column("x"),
    Column("phi", "rad", "periodic", -math.pi, math.pi),
]


@pytest.fixture(scope="module")
def mixed() -> pofx.Model:
    data = pofx.Dataset.from_arrays(mixed_columns(np.random.default_rng(1), 6000), columns=MIXED)
    return SMALL.fit(data, training=QUICK)


def test_learns_a_discrete_a_real_and_a_circular_column(mixed: pofx.Model) -> None:
    rows = mixed_columns(np.random.default_rng(2), 4000)
    gap = mixed_truth(rows) - mixed.log_prob(rows)
    assert mixed.density == "exact"
    assert -5 * gap.std() / 63 < gap.mean() < 0.06


def test_whole_numbers_come_as_they_are_and_as_often_as_the_density_says(mixed: pofx.Model) -> None:
    drawn = mixed.sample(4000, seed=3)
    assert set(np.unique(drawn[:, 0])) == {0.0, 1.0, 2.0}
    counts = np.bincount(drawn[:, 0].astype(int))
    with torch.no_grad():
        start = mixed.fitted.body.network.start(1)[0]
        shares = mixed.fitted.body.read[0](start).double().softmax(-1)[0].numpy()
    assert stats.chisquare(counts, 4000 * shares / shares.sum()).pvalue > 1e-3
    assert np.isneginf(mixed.log_prob([[0.5, 0.0, 0.0], [3.0, 0.0, 0.0]])).all()


def test_density_sums_and_integrates_to_one(mixed: pofx.Model) -> None:
    x, phi = np.linspace(-4, 8, 121), np.linspace(-np.pi, np.pi, 48, endpoint=False)
    mesh = np.stack(np.meshgrid([0.0, 1.0, 2.0], x, phi, indexing="ij"), -1).reshape(-1, 3)
    total = np.exp(mixed.log_prob(mesh)).sum() * (x[1] - x[0]) * (phi[1] - phi[0])
    assert total == pytest.approx(1.0, abs=2e-3)


def test_encode_inverts_decode_for_every_type_of_column(mixed: pofx.Model) -> None:
    rows = mixed_columns(np.random.default_rng(4), 300)
    back = mixed.decode(mixed.encode(rows)).detach().numpy()
    np.testing.assert_array_equal(back[:, 0], rows[:, 0])
    np.testing.assert_allclose(back[:, 1], rows[:, 1], atol=1e-3)
    turn = (back[:, 2] - rows[:, 2] + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(turn, 0.0, atol=1e-3)


def test_density_is_the_jacobian_of_decode() -> None:
    """By the change of variables, with the full matrix of derivatives, on angles and numbers of the line."""
    truth = VonMisesChain(2)
    angles, line = truth.sample(3000, 1), np.random.default_rng(1).normal(size=(3000, 1))
    data = pofx.Dataset.from_arrays(np.hstack([line + angles[:, :1], angles]), columns=[Column("a"), *truth.columns()])
    model = SMALL.fit(data, training=QUICK.replace(max_steps=60, precision="float64"))
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(5), **DOUBLE)
    x = model.decode(z).detach()
    for i in range(5):
        matrix = torch.autograd.functional.jacobian(lambda e: model.decode(e[None])[0], z[i])
        normal = -0.5 * z[i].square().sum() - 1.5 * math.log(2 * math.pi)
        expected = float(normal - torch.linalg.slogdet(matrix)[1])
        assert float(model.log_prob(x[i : i + 1])[0]) == pytest.approx(expected, abs=1e-5)


def test_a_file_gives_the_same_model(mixed: pofx.Model, tmp_path) -> None:
    mixed.save(tmp_path / "model.pofx")
    again, rows = pofx.load(tmp_path / "model.pofx"), mixed_columns(np.random.default_rng(5), 50)
    np.testing.assert_array_equal(again.log_prob(rows), mixed.log_prob(rows))
    np.testing.assert_array_equal(again.sample(50, seed=1), mixed.sample(50, seed=1))


# Orders


def falling(rng: np.random.Generator, n: int) -> np.ndarray:
    """Three standard exponentials, sorted: p = 3! exp(-sum)."""
    return np.sort(rng.exponential(size=(n, 3)))[:, ::-1]


PT = [Column(f"pt{i}", "GeV", "bounded", 0.0) for i in (1, 2, 3)]
FALLING = (("pt1", ">", "pt2"), ("pt2", ">", "pt3"))


@pytest.fixture(scope="module")
def ordered() -> pofx.Model:
    data = pofx.Dataset.from_arrays(falling(np.random.default_rng(1), 6000), columns=PT)
    family = AutoregressiveTransformer(network=SMALL.network, components=4, order=FALLING)
    return family.fit(data, training=QUICK)


def test_every_event_drawn_is_in_order(ordered: pofx.Model) -> None:
    drawn = ordered.sample(20_000, seed=1)
    assert (np.diff(drawn, axis=1) <= 0).all()
    assert (drawn >= 0).all()


def test_density_under_an_order_is_that_of_the_truth_and_zero_elsewhere(ordered: pofx.Model) -> None:
    rows = falling(np.random.default_rng(2), 4000)
    gap = math.log(6.0) - rows.sum(1) - ordered.log_prob(rows)
    assert -5 * gap.std() / 63 < gap.mean() < 0.06
    assert np.isneginf(ordered.log_prob([[1.0, 2.0, 0.5], [3.0, 1.0, 2.0], [3.0, 1.0, -0.1]])).all()


def test_an_order_is_kept_in_a_chain_and_through_a_file(ordered: pofx.Model, tmp_path) -> None:
    ordered.save(tmp_path / "model.pofx")
    np.testing.assert_array_equal(pofx.load(tmp_path / "model.pofx").sample(20, seed=1), ordered.sample(20, seed=1))
    data = pofx.Dataset.from_arrays(falling(np.random.default_rng(1), 500), columns=PT)
    for preprocess in ("auto", "standardise"):
        chain = Chain(stages=(ordered.family,), preprocess=preprocess)
        drawn = chain.fit(data, training=QUICK.replace(max_steps=5)).sample(2000, seed=1)
        assert (np.diff(drawn, axis=1) <= 0).all()


# Contexts and settings

ONE = {"x": Field("vector", (1,), (Column("x"),))}


def test_learns_from_a_cloud_as_context() -> None:
    """x ~ N(mean of the cloud's points, 0.5^2), clouds of one to four points."""
    rng = np.random.default_rng(1)
    spec = {"seen": Field("cloud", (4, 1), (Column("u"),))}

    def made(n: int) -> tuple[pofx.Dataset, np.ndarray]:
        mask = np.arange(4) < rng.integers(1, 5, size=(n, 1))
        points = np.where(mask[..., None], rng.normal(size=(n, 4, 1)), 99.0)
        centre = (points[..., 0] * mask).sum(1) / mask.sum(1)
        x = centre[:, None] + 0.5 * rng.normal(size=(n, 1))
        data = pofx.Dataset.from_arrays(
            {"x": x}, Events({"seen": points}, {"seen": mask}), context_columns=spec, columns=ONE
        )
        return data, stats.norm.logpdf(x[:, 0], centre, 0.5)

    family = AutoregressiveTransformer(network=SMALL.network, components=2)
    model = family.fit(made(6000)[0], training=QUICK.replace(max_steps=100))
    data, truth = made(3000)
    gap = truth - model.log_prob(data.arrays())
    assert gap.mean() < 0.04  # knowing nothing of the cloud costs 0.5 log(1 + 0.52 / 0.25) = 0.56


@pytest.mark.parametrize("low", [-7, 2**24 + 1, 1_000_010_020])
def test_large_whole_numbers_are_exact(low: int) -> None:
    """Those beyond 2^24 that float32 does not hold, with a real column beside them and alone."""
    rng = np.random.default_rng(1)
    values, other = low + rng.integers(0, 3, size=(600, 1)).astype(float), rng.normal(size=(600, 1))
    column = Column("n", "", "discrete", low, low + 2)
    model = SMALL.fit(pofx.Dataset.from_arrays(values, columns=[column]), training=QUICK.replace(max_steps=20))
    every = low + np.arange(-1.0, 4.0)[:, None]
    found = np.exp(model.log_prob(every))
    assert found[1:4].sum() == pytest.approx(1.0, abs=1e-5)
    assert (found[[0, 4]] == 0).all()
    assert set(np.unique(model.sample(300, seed=1))) == {low, low + 1.0, low + 2.0}
    data = pofx.Dataset.from_arrays(np.hstack([other, values]), columns=[Column("x"), column])
    drawn = SMALL.fit(data, training=QUICK.replace(max_steps=5)).sample(300, seed=1)
    assert set(np.unique(drawn[:, 1])) == {low, low + 1.0, low + 2.0}


@pytest.mark.filterwarnings("ignore::pofx.errors.RangeWarning")
@pytest.mark.parametrize("far", [1e18, 1e19, 2e19, 1e30, 1e60, 1e300])
def test_very_far_away_the_density_is_zero(far: float) -> None:
    model = SMALL.fit(np.random.default_rng(1).normal(size=(500, 2)), training=QUICK.replace(max_steps=5))
    found = model.log_prob([[far, -far], [far, far], [0.0, far], [0.0, 0.0]])
    assert (found[:3] < -1e30).all()
    assert np.isfinite(found[3])


def test_what_it_cannot_do_is_refused() -> None:
    rows = np.random.default_rng(1).poisson(3.0, size=(200, 2)).astype(float)
    data = pofx.Dataset.from_arrays(rows, columns=[Column("a", "", "discrete", 0), Column("b")])
    with pytest.raises(CapabilityError, match="declare low and high"):
        SMALL.fit(data, training=QUICK)
    data = pofx.Dataset.from_arrays(rows, columns=[Column("a", "", "discrete", 0, 10**6), Column("b")])
    with pytest.raises(CapabilityError, match="1000001 values"):
        SMALL.fit(data, training=QUICK)
    with pytest.raises(ConfigError, match="CausalTransformer"):
        AutoregressiveTransformer(network=pofx.networks.ResidualMLP())
    with pytest.raises(ConfigError, match="components"):
        AutoregressiveTransformer(components=0)
