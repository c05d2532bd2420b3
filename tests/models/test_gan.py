"""Adversaries against what is known of them: best critics, penalties, MMD, features in the user's units; and one fit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import Tensor, nn

import pofx
from pofx.config import from_plain, to_plain
from pofx.data.events import Events
from pofx.data.spec import Column, Field, vector_spec
from pofx.errors import ConfigError
from pofx.models.adversarial import LOSSES, Critic, batch_deviation, critic_terms, generator_terms, slope
from pofx.models.base import Layout
from pofx.models.discrepancy import breit_wigner_kernel, discrepancy, energy_kernel, gaussian_kernel
from pofx.models.features import ColumnSum, InvariantMass, column_values, spread
from pofx.models.fitting import prepare_fit
from pofx.models.gan import GAN, measured
from pofx.networks import ResidualMLP, VectorGenerator
from pofx.networks.base import NetworkShape
from pofx.training.noise import Noise

SMALL = {"generator": VectorGenerator(ResidualMLP(width=16, layers=1)), "critic": ResidualMLP(width=16, layers=1)}
QUICK = pofx.Training(max_epochs=None, max_steps=3, batch_size=64, seed=1, device="cpu", progress=False)


def double(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


# ------------------------------------------------------------------ best critics, one number per cell of a line

EDGES = np.linspace(-3.0, 3.0, 13)
EVENTS = 60_000


def cell_shares(mean: float) -> np.ndarray:
    """Exact probabilities of the cells of N(mean, 1), tails with the outermost."""
    cumulative = stats.norm.cdf(EDGES, mean, 1.0)
    cumulative[0], cumulative[-1] = 0.0, 1.0
    return np.diff(cumulative)


def cells_of(mean: float, seed: int) -> Tensor:
    x = np.random.default_rng(seed).normal(mean, 1.0, EVENTS)
    return torch.from_numpy(np.clip(np.digitize(x, EDGES) - 1, 0, len(EDGES) - 2))


def best_critic(loss: str, mean: float = 0.4) -> np.ndarray:
    """The minimum over the scores of the cells, for events of N(mean, 1) and made ones of N(-mean, 1)."""
    real, fake = cells_of(mean, 1), cells_of(-mean, 2)
    score = torch.zeros(len(EDGES) - 1, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([score], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        value = critic_terms(loss, score[real], score[fake]).mean()
        value.backward()
        return value

    search.step(closure)
    return score.detach().numpy()


P, Q = cell_shares(0.4), cell_shares(-0.4)
SIGMA = np.sqrt(1 / P + 1 / Q) / math.sqrt(EVENTS)
"""Standard error of log p/q in each cell."""


def average_critic(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """D of the relativistic average: the root of p s(m_q - D) - q s(D - m_p) + p E_q s(D - m_p) - q E_p s(m_q - D) = 0, mean zero."""

    def slopes(d: np.ndarray) -> np.ndarray:
        low, high = 1 / (1 + np.exp(d - q @ d)), 1 / (1 + np.exp(p @ d - d))
        return p * low - q * high + p * (q @ high) - q * (p @ low)

    d = optimize.root(lambda d: np.append(slopes(d)[:-1], p @ d + q @ d), np.log(p / q)).x
    np.testing.assert_allclose(slopes(d), 0, atol=1e-9)
    return d


@pytest.mark.parametrize("loss", ["non-saturating", "relativistic"])
def test_best_critic_is_the_log_ratio(loss):
    found, known = best_critic(loss), np.log(P / Q)
    if loss == "relativistic":
        found, known = found - found.mean(), known - known.mean()
    assert np.abs((found - known) / SIGMA).max() < 4.5


def test_best_critic_of_least_squares_is_the_share():
    known = P / (P + Q)
    assert np.abs((best_critic("least-squares") - known) / (known * (1 - known) * SIGMA)).max() < 4.5


def test_best_critic_of_hinge_is_the_sign():
    """The loss is a convex function of the score of each cell, so it is enough that no score can move."""
    real, fake = cells_of(0.4, 1), cells_of(-0.4, 2)

    def value(score: np.ndarray) -> float:
        found = torch.from_numpy(score)
        return critic_terms("hinge", found[real], found[fake]).mean().item()

    best = np.sign(P - Q)
    lowest = value(best)
    for cell in range(len(best)):
        for move in (-0.1, 0.1):
            assert value(best + move * np.eye(len(best))[cell]) > lowest


def test_best_critic_of_the_relativistic_average():
    """For laws that are not far apart: it has no best score where p/q is small."""
    p, q = cell_shares(0.1), cell_shares(-0.1)
    known, apart = average_critic(p, q), best_critic("relativistic-average", 0.1)
    apart = apart - known
    apart -= np.average(apart, weights=p + q)
    assert (
        np.abs(apart * math.sqrt(EVENTS) / np.sqrt(1 / p + 1 / q)).max() < 9.0
    )  # in units of the error of log p/q: it rises by up to 2
    assert np.abs(known - np.log(p / q)).max() > 0.05  # it is not the log-ratio


def test_best_critic_of_wasserstein_rises_by_one():
    """Between two unit normals at a distance of 0.8 on a line the potential is x, of slope one: with the penalty, a little more."""
    shape = NetworkShape(vector_spec(1)["x"], outputs=1)
    torch.manual_seed(1)
    critic = Critic(ResidualMLP(width=32, layers=1), shape)
    nn.init.zeros_(
        critic.network.last.weight
    )  # from a slope of the wrong sign, the penalty lets no critic through zero
    search = torch.optim.Adam(critic.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(2)
    for _ in range(250):
        real, fake = (torch.randn(256, 1, generator=generator) + mean for mean in (0.4, -0.4))
        u = torch.rand(256, 1, generator=generator)
        steep = critic.with_slope(real + u * (fake - real))[1]
        loss = critic_terms("wasserstein", critic(real), critic(fake)) + 10.0 * ((steep + 1e-12).sqrt() - 1.0).square()
        search.zero_grad()
        loss.mean().backward()
        search.step()
    ends = critic(torch.tensor([[-1.0], [1.0]])).detach()
    assert 0.98 < float(ends[1] - ends[0]) / 2 < 1.1  # 1 + 0.8 / 20, were the slope constant


@pytest.mark.parametrize("loss", LOSSES)
def test_generators_follow_a_better_critic(loss):
    """At the same scores, a made event with a higher score costs less; events of weight two count as two."""
    real, fake = double(5, seed=3), double(5, seed=4).requires_grad_()
    (gradient,) = torch.autograd.grad(generator_terms(loss, real, fake).sum(), fake)
    assert bool((gradient < 0).all()) or loss == "least-squares"
    weight = torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0], dtype=torch.float64)
    often = torch.arange(5).repeat_interleave(weight.long())
    for terms in (critic_terms, generator_terms):
        weighted = (weight * terms(loss, real, fake, weight)).sum() / weight.sum()
        torch.testing.assert_close(weighted, terms(loss, real[often], fake[often]).mean())


# ------------------------------------------------------------------ penalties and statistics


class Linear(nn.Module):
    """D(x) = a.x + b."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(len(a), 1).double()
        self.linear.weight.data = a[None].clone()

    def forward(self, x: Tensor, t: None = None, context: None = None, mask: None = None) -> Tensor:
        return self.linear(x.flatten(1))


class Body:
    """What the losses need, with a linear critic and events that are made at random."""

    def __init__(self, a: Tensor) -> None:
        self.critic = Critic(ResidualMLP(width=4), NetworkShape(vector_spec(len(a))["x"]))
        self.critic.network = Linear(a)

    def draw(self, events: Events, noise: Noise) -> dict[str, Tensor]:
        return {"z": noise.normal("z", events.x.shape[1])}

    def make(self, noise: dict[str, Tensor], context: None, mask: None) -> Tensor:
        return noise["z"]

    def between(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return x + u * (y - x)


@pytest.mark.parametrize(
    ("penalty", "closed"),
    [
        ("r1", lambda s: 0.5 * s),
        ("r1-r2", lambda s: s),
        ("one-centred", lambda s: (s**0.5 - 1) ** 2),
        ("none", lambda s: 0.0),
    ],
)
def test_penalties_of_a_linear_critic(penalty, closed):
    """|grad D|^2 = |a|^2 everywhere; and the derivative of the penalty with respect to a."""
    a = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
    body, events = Body(a), Events({"x": double(7, 3)}, index=torch.arange(7))
    noise = Noise(1, events.index, dtype=torch.float64)
    with_penalty = GAN(penalty=penalty, strength=2.0, loss="non-saturating").critic_loss(body, events, noise)
    without = GAN(penalty="none", loss="non-saturating").critic_loss(body, events, noise)
    square = float(a @ a)
    rest = with_penalty.per_event - without.per_event
    torch.testing.assert_close(rest, torch.full_like(rest, 2.0 * closed(square)))
    if penalty == "none":
        return
    parameter = body.critic.network.linear.weight
    (found,) = torch.autograd.grad(rest.mean(), parameter)
    rise = (closed(square * (1 + 1e-6)) - closed(square)) / 1e-6 / square
    torch.testing.assert_close(found[0], 2.0 * rise * 2.0 * a, rtol=1e-5, atol=1e-8)


def test_slope_is_that_of_each_event():
    x = double(5, 3).requires_grad_()
    torch.testing.assert_close(slope((x**2).sum(1), x), 4 * (x**2).sum(1))


@pytest.mark.parametrize("weighted", [False, True])
def test_batch_deviation_is_that_of_numpy(weighted):
    h, weight = double(20, 3), np.random.default_rng(2).integers(1, 4, 20)
    rows = np.repeat(h.numpy(), weight, 0) if weighted else h.numpy()
    found = batch_deviation(h, torch.from_numpy(weight.astype(float)) if weighted else None)
    np.testing.assert_allclose(found, np.sqrt(rows.var(0) + 1e-8), rtol=1e-12)


def test_a_critic_with_statistics_sees_a_collapse():
    """Events that are each possible, but all the same, have another score."""
    critic = Critic(ResidualMLP(width=16), NetworkShape(vector_spec(2)["x"]), "deviation").double()
    x = double(50, 2)
    same = x[:1].expand(50, -1)
    assert abs((critic(x)[0] - critic(same)[0]).item()) > 1e-4
    plain = Critic(ResidualMLP(width=16), NetworkShape(vector_spec(2)["x"])).double()
    torch.testing.assert_close(plain(x)[:1], plain(same)[:1])


def test_spectral_norm_holds_for_the_head_as_well():
    critic = Critic(ResidualMLP(width=16, spectral_norm=True), NetworkShape(vector_spec(2)["x"]), "deviation").double()
    for _ in range(30):  # of the power iteration
        critic(double(4, 2))
    layers = [layer for layer in critic.modules() if isinstance(layer, nn.Linear)]
    assert max(float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) for layer in layers) < 1.01


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_weight_asks_for_nothing(loss):
    """Events of weight zero are legal, and a batch may hold no others."""
    a, b, zero = double(5), double(5, seed=2), torch.zeros(5, dtype=torch.float64)
    for terms in (critic_terms, generator_terms):
        assert bool(terms(loss, a, b, zero).isfinite().all())
    assert bool(batch_deviation(double(5, 2), zero).isfinite().all())
    assert not discrepancy(double(5, 2), double(5, 2, seed=2), energy_kernel, zero).any()


# ------------------------------------------------------------------ distances


@pytest.mark.parametrize(
    ("kernel", "formula"),
    [
        (gaussian_kernel([0.5, 2.0]), lambda r: 0.5 * (math.exp(-2.0 * r**2) + math.exp(-0.125 * r**2))),
        (breit_wigner_kernel([0.5]), lambda r: 0.25 / (r**2 + 0.25)),
        (energy_kernel, lambda r: -r),
    ],
)
def test_discrepancy_is_the_double_sum(kernel, formula):
    x, y, weight = double(6, 2), double(6, 2, seed=2), torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0], dtype=torch.float64)

    def mean(a: Tensor, b: Tensor) -> float:
        pairs = [
            (float(weight[i] * weight[j]), formula(float((a[i] - b[j]).norm()))) for i in range(6) for j in range(6)
        ]
        return sum(w * k for w, k in pairs) / float(weight.sum()) ** 2

    terms = discrepancy(x, y, kernel, weight)
    found = float((weight * terms).sum() / weight.sum())
    assert found == pytest.approx(mean(x, x) + mean(y, y) - 2 * mean(x, y), rel=1e-10)
    often = torch.arange(6).repeat_interleave(torch.tensor([1, 2, 1, 1, 3, 1]))
    whole = torch.tensor([1.0, 2.0, 1.0, 1.0, 3.0, 1.0], dtype=torch.float64)
    same = discrepancy(x, y, kernel, whole)
    assert float((whole * same).sum() / whole.sum()) == pytest.approx(
        float(discrepancy(x[often], y[often], kernel).mean()), rel=1e-12
    )


def test_energy_distance_of_two_normals():
    """2 E|x - y| - E|x - x'| - E|y - y'| of unit normals at a distance of 1, in closed form, from quantiles as events."""
    quantiles = stats.norm.ppf((np.arange(800) + 0.5) / 800)
    x, y = (torch.from_numpy(quantiles[:, None] + mean) for mean in (0.0, 1.0))
    r = 1 / math.sqrt(2)
    across = 2 * math.sqrt(2) * stats.norm.pdf(r) + 2 * stats.norm.cdf(r) - 1
    known = 2 * across - 2 * 2 / math.sqrt(math.pi)
    assert float(discrepancy(x, y, energy_kernel).mean()) == pytest.approx(known, abs=5e-3)


def test_monitor_is_lowest_for_the_truth():
    """The energy distance of a generator that makes the data's law is below that of one that is wrong."""
    x = np.random.default_rng(1).normal(size=(1200, 2))
    _, source, fitted, _ = prepare_fit(GAN(**SMALL), x, None, None, training=QUICK)
    events = next(iter(source.validation()))
    noise = Noise(3, events.index)
    found = {}
    for name, factor in (("truth", 1.0), ("narrow", 0.5)):
        fitted.body.make = lambda drawn, context, mask, f=factor: f * drawn["z"][:, :2]
        found[name] = float(GAN(**SMALL).distance(fitted.body, events, noise).per_event.mean())
    assert found["truth"] < 0.5 * found["narrow"]


# ------------------------------------------------------------------ features in the user's units

PARTICLES = (("e1", "px1", "py1", "pz1"), ("e2", "px2", "py2", "pz2"))
NAMES = [name for names in PARTICLES for name in names]


def decays(n: int, seed: int, mass: float = 91.0) -> np.ndarray:
    """Two massless particles from a mother with a Gaussian mass of width 3, at a random momentum: ``(n, 8)``."""
    rng = np.random.default_rng(seed)
    m, total = rng.normal(mass, 3.0, n), rng.normal(0.0, 20.0, (n, 3))
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    energy = np.sqrt(m**2 + (total**2).sum(1))
    beta, gamma = total / energy[:, None], energy / m
    parts = []
    for sign in (1, -1):
        p = sign * 0.5 * m[:, None] * direction
        along = (beta * p).sum(1)
        square = (beta**2).sum(1)
        boosted = p + ((gamma - 1) * along / square + gamma * 0.5 * m)[:, None] * beta
        parts += [gamma * (0.5 * m + along), boosted]
    return np.column_stack([parts[0], parts[1], parts[2], parts[3]])


def numpy_mass(x: np.ndarray) -> np.ndarray:
    total = x[:, :4] + x[:, 4:]
    return np.sqrt(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(1))


@pytest.mark.parametrize("preprocess", ["auto", "standardise", "gaussianise"])
def test_features_are_in_the_users_units(preprocess):
    """The mass after preprocessing and back is the mass; the spread that kernels take is that of the data."""
    x = decays(3000, 1)
    data = pofx.Dataset.from_arrays(x, columns=vector_spec(NAMES))
    family = GAN(features=(InvariantMass(PARTICLES), ColumnSum("pz2")), preprocess=preprocess, **SMALL)
    _, source, _, layout = prepare_fit(family, data, None, None, training=QUICK.replace(precision="float64"))
    events = source.next(nn.Identity(), 0)
    mass, pz2 = measured(family.features, layout, events.x)
    raw = x[events.index]
    np.testing.assert_allclose(mass, numpy_mass(raw), rtol=1e-8)
    np.testing.assert_allclose(pz2, raw[:, 7], rtol=1e-7, atol=1e-7)
    assert layout.extra["widths"][0][-1] == pytest.approx(3.0, rel=0.1)


def test_feature_term_in_the_loss_is_the_double_sum():
    """The generator's loss with a feature minus without, in the user's units, and a gradient that reaches the generator."""
    data = pofx.Dataset.from_arrays(decays(500, 1), columns=vector_spec(NAMES))
    family = GAN(features=(InvariantMass(PARTICLES, width=5.0),), feature_weight=7.0, **SMALL)
    _, source, fitted, layout = prepare_fit(family, data, None, None, training=QUICK.replace(precision="float64"))
    events = source.next(fitted.body, 0)
    noise = Noise(1, events.index, dtype=torch.float64)
    found = family.generator_loss(layout, fitted.body, events, noise).per_event
    plain = replace(family, features=()).generator_loss(layout, fitted.body, events, noise).per_event
    made = fitted.body.make(fitted.body.draw(events, noise), None, None)
    (real,), (fake,) = (measured(family.features, layout, x) for x in (events.x, made.detach()))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (25.0 / ((a[:, None] - b[None]) ** 2 + 25.0)).mean()

    known = kernel(real, real) + kernel(fake, fake) - 2 * kernel(real, fake)
    assert (found - plain).mean().item() == pytest.approx(7.0 * float(known), rel=1e-8)
    slopes = torch.autograd.grad((found - plain).mean(), list(fitted.body.generator.parameters()), allow_unused=True)
    assert any(s is not None and bool((s != 0).any()) for s in slopes)


def test_features_of_clouds_and_grids_are_sums_of_what_is_real():
    form = Field("cloud", (3, 4), tuple(map(Column, ("e", "px", "py", "pz"))))
    x, mask = double(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]])
    x[..., 0] = 5.0
    mass = InvariantMass((("e", "px", "py", "pz"),))(column_values(form, x, mask))
    total = torch.where(mask[..., None], x, 0.0).sum(1)
    torch.testing.assert_close(mass, (total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(1)).sqrt())


def test_a_mass_of_zero_has_a_slope():
    values = {name: torch.zeros(1, dtype=torch.float64, requires_grad=True) for name in "epqr"}
    values["e"] = values["p"] = torch.ones(1, dtype=torch.float64, requires_grad=True)
    mass = InvariantMass((("e", "p", "q", "r"),))(values)
    (gradient,) = torch.autograd.grad(mass, values["e"])
    assert bool(gradient.isfinite().all())
    assert InvariantMass((("e", "p", "q", "r"),))({**values, "p": 2 * values["p"]}).item() == pytest.approx(
        -math.sqrt(3)
    )


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "best"},
        {"penalty": "r3"},
        {"statistics": "mean"},
        {"latent": 0},
        {"critic_steps": 0},
        {"strength": -1.0},
        {"critic_rate": 0.0},
        {"betas": (0.5, 1.0)},
        {"betas": (0.5,)},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError, match=f"GAN: {next(iter(wrong))}"):
        GAN(**wrong)


def test_features_are_checked():
    with pytest.raises(ConfigError, match="kernel"):
        ColumnSum("x0", kernel="box")
    with pytest.raises(ConfigError, match="width"):
        ColumnSum("x0", width=0.0)
    with pytest.raises(ConfigError, match="particles"):
        InvariantMass((("e", "px"),))
    with pytest.raises(ConfigError, match=r"columns energy; there are x0, x1"):
        GAN(features=(ColumnSum("energy"),), **SMALL).fit(double(100, 2).numpy(), training=QUICK)
    mostly_one = np.column_stack([np.where(np.arange(1000) % 50, 1.0, 2.0), double(1000).numpy()])
    with pytest.raises(ConfigError, match=r"ColumnSum of x0: .* set width="):
        GAN(features=(ColumnSum("x0"),), **SMALL).fit(mostly_one, training=QUICK)
    family = GAN(features=(InvariantMass(PARTICLES, width=2.5),))
    assert from_plain(to_plain(family)) == family


def test_a_weight_of_two_is_two_events_for_the_width_of_a_kernel():
    x, weight = double(400), torch.from_numpy(np.random.default_rng(3).integers(0, 4, 400))
    assert spread(x, weight) == pytest.approx(spread(x.repeat_interleave(weight)), rel=0.02)
    assert spread(double(100_000)) == pytest.approx(stats.norm.ppf(0.84), rel=0.01)


def test_updates_have_the_rates_and_betas_of_the_family():
    from pofx.training.optimisers import build_optimiser

    family = GAN(critic_rate=4.0, betas=(0.5, 0.9), critic_steps=5, **SMALL)
    critic, generator = family.phases(Layout(vector_spec(2)))[0].updates
    parameter = nn.Parameter(torch.zeros(2))
    groups = [build_optimiser(update, [("p", parameter)], QUICK).param_groups[0] for update in (critic, generator)]
    assert [group["lr"] for group in groups] == [4e-3, 1e-3]
    assert {tuple(group["betas"]) for group in groups} == {(0.5, 0.9)}
    assert (critic.repeat, generator.repeat) == (5, 1)


# ------------------------------------------------------------------ fits


@pytest.mark.parametrize(
    "loss",
    [
        "non-saturating",
        "wasserstein",
        *(pytest.param(loss, marks=pytest.mark.slow) for loss in ("least-squares", "hinge", "relativistic-average")),
    ],
)
def test_losses_learn_a_normal(loss):
    """Mean and spread of a line, from a start that is far off; with the critic that each loss is made for."""
    rng = np.random.default_rng(1)
    x = rng.normal([3.0, -1.0], [0.5, 2.0], (2000, 2))
    more = {
        "wasserstein": {"penalty": "one-centred", "strength": 1.0, "critic_steps": 2},
        "least-squares": {"strength": 0.01},  # its scores are between 0 and 1, so a slope of one is much
        "hinge": {"critic": replace(SMALL["critic"], spectral_norm=True)},
        "relativistic-average": {"statistics": "deviation"},
    }.get(loss, {})
    training = QUICK.replace(max_steps=100, batch_size=128, learning_rate=1e-2)
    made = GAN(**{"loss": loss, **SMALL, **more}).fit(x, training=training).sample(2000, seed=1)
    np.testing.assert_allclose((made.mean(0) - x.mean(0)) / x.std(0), 0, atol=0.4)
    np.testing.assert_allclose(made.std(0) / x.std(0), 1, atol=0.4)


@pytest.mark.slow
def test_a_mass_peak_is_sharper_with_its_feature():
    """A resonance of mass 10 at rest or moving: energy and momentum are smooth, their combination is a narrow peak."""
    rng = np.random.default_rng(1)
    momentum, mass = rng.normal(0.0, 15.0, (6000, 3)), rng.normal(10.0, 0.2, 6000)
    x = np.column_stack([np.sqrt(mass**2 + (momentum**2).sum(1)), momentum])
    columns = {"x": Field("vector", (4,), tuple(Column(name) for name in ("e", "px", "py", "pz")))}
    data = pofx.Dataset.from_arrays(x, columns=columns)
    # as wide as what is wrong without it: the slopes of a much narrower one drown the critic's
    feature = InvariantMass((("e", "px", "py", "pz"),), width=6.0)
    widths = []
    for features in ((), (feature,)):
        training = QUICK.replace(max_steps=250, batch_size=256, learning_rate=4e-3)
        made = GAN(features=features, feature_weight=3.0, **SMALL).fit(data, training=training).sample(4000, seed=1)
        square = made[:, 0] ** 2 - (made[:, 1:] ** 2).sum(1)
        widths.append(spread(torch.from_numpy(np.sign(square) * np.sqrt(np.abs(square)))))
    assert widths[1] < 0.75 * widths[0], widths


def test_angles_stay_on_the_circle():
    """A peak across the border of a periodic column."""
    rng = np.random.default_rng(1)
    x = np.column_stack([np.mod(rng.normal(0.0, 20.0, 2000), 360.0), rng.normal(size=2000)])
    columns = {"x": Field("vector", (2,), (Column("phi", type="periodic", low=0.0, high=360.0), Column("a")))}
    data = pofx.Dataset.from_arrays(x, columns=columns)
    made = (
        GAN(**SMALL)
        .fit(data, training=QUICK.replace(max_steps=150, batch_size=64, learning_rate=5e-3))
        .sample(1000, seed=1)
    )
    assert made[:, 0].min() >= 0
    assert made[:, 0].max() < 360
    inside = np.cos(np.deg2rad(made[:, 0]))
    assert inside.mean() == pytest.approx(math.exp(-0.5 * np.deg2rad(20) ** 2), abs=0.15)
    assert min((made[:, 0] < 90).mean(), (made[:, 0] > 270).mean()) > 0.2
