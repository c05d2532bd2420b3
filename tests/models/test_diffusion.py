"""Diffusion models with the analytic field of a mixture in the network's place: densities and samplers have closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pofx
from pofx.data.events import Events
from pofx.data.spec import Column, Field, vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Layout
from pofx.models.ddpm import chain_angles
from pofx.models.diffusion import LAST_ANGLE, Diffusion
from pofx.models.diffusion_samplers import Ancestral, KarrasHeun
from pofx.models.score_sde import ReverseSDE
from pofx.networks import EPiC, ResidualMLP
from pofx.solvers import DormandPrince, EulerMaruyama, PredictorCorrector
from pofx.training.noise import Noise

TIGHT = DormandPrince(rtol=1e-6, atol=1e-7)
LAYOUT = Layout({"x": vector_spec(2)["x"]})
FAMILIES = {
    "edm": pofx.EDM(),
    "edm-narrow": pofx.EDM(sigma_data=0.5),
    "ddpm": pofx.DDPM(),
    "ddpm-cosine": pofx.DDPM(schedule="cosine"),
    "ddpm-cosine-v": pofx.DDPM(prediction="velocity", schedule="cosine"),
    "vp": pofx.ScoreSDE(),
    "vp-steep": pofx.ScoreSDE(beta_max=40.0),
    "sub-vp": pofx.ScoreSDE(sde="sub-vp"),
    "ve": pofx.ScoreSDE(sde="ve"),
}


class Mixture:
    """A mixture of normals in the plane; covariances of the noised state have the same axes at all angles."""

    def __init__(self, shares: list[float], means: list[list[float]], covariances: list[list[list[float]]]) -> None:
        self.shares, self.means, self.covariances = (
            torch.tensor(a, dtype=torch.float64) for a in (shares, means, covariances)
        )
        self.values, self.axes = torch.linalg.eigh(self.covariances)

    def law(self) -> torch.distributions.MixtureSameFamily:
        """The law of events."""
        parts = torch.distributions.MultivariateNormal(self.means, self.covariances)
        return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(self.shares), parts)

    def moments(self) -> tuple[Tensor, Tensor]:
        """E x and E x x^T."""
        outer = self.covariances + self.means[:, :, None] * self.means[:, None]
        return self.shares @ self.means, (self.shares[:, None, None] * outer).sum(0)

    def turn(self, angle: Tensor, y: Tensor) -> Tensor:
        """v by Tweedie's formula: the noise is -sin(angle) times the score of y."""
        c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
        away = torch.einsum("nkd,kde->nke", y[:, None] - c * self.means, self.axes)
        variance = c**2 * self.values + s**2
        share = torch.softmax(self.shares.log() - 0.5 * (away**2 / variance + variance.log()).sum(-1), -1)
        score = -torch.einsum("nk,kde,nke->nd", share, self.axes, away / variance)
        return -angle.tan()[:, None] * (score + y)


MIXTURE = Mixture([0.6, 0.4], [[1.2, 0.0], [-0.8, 1.0]], [[[0.3, 0.1], [0.1, 0.2]], [[0.5, 0.0], [0.0, 0.2]]])
NORMAL = Mixture([1.0], [[0.5, -1.0]], [[[1.5, 0.6], [0.6, 0.8]]])


class Analytic(nn.Module):
    """What a network would have to answer for this family, plus a shift."""

    def __init__(self, family: Any, truth: Mixture, shift: float = 0.0) -> None:
        super().__init__()
        self.family, self.truth, self.shift = family, truth, shift

    def forward(self, x: Tensor, label: Tensor, context: object = None, mask: object = None) -> Tensor:
        angle = (4.0 * label).exp().atan()
        sin, cos = angle.sin()[:, None], angle.cos()[:, None]
        if not isinstance(self.family, pofx.EDM):
            v = self.truth.turn(angle, x)
            return self.shift + (v if self.family.prediction == "velocity" else sin * x + cos * v)
        width, sigma = self.family.sigma_data, sin / cos
        y = x * (sin**2 + width**2 * cos**2).sqrt()
        skip, out = width**2 / (sigma**2 + width**2), sigma * width / (sigma**2 + width**2).sqrt()
        return self.shift + (cos * y - sin * self.truth.turn(angle, y) - skip * y / cos) / out


def analytic(name: str, truth: Mixture = MIXTURE, **changes: Any) -> tuple[Any, Any]:
    family = replace(FAMILIES[name], **changes)
    body = family.build(LAYOUT).double()
    body.network = Analytic(family, truth)
    return family, body


def test_noise_is_what_networks_predict_by_default() -> None:
    """So that the tests with ``pofx.DDPM()`` and ``pofx.ScoreSDE()`` are about that."""
    assert pofx.DDPM().prediction == pofx.ScoreSDE().prediction == "epsilon"


@pytest.mark.parametrize("name", FAMILIES)
def test_density_of_a_mixture(name: str) -> None:
    family, body = analytic(name, density_solver=TIGHT)
    x = 1.2 * torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = family.log_density(body, Events({"x": x})).detach()
    torch.testing.assert_close(found, MIXTURE.law().log_prob(x), atol=1e-4, rtol=0)


def flow(z: Tensor, angle: float) -> Tensor:
    """The events that the ODE leads to from z at an angle, for normal events."""
    (values,), (axes,), (mean,) = NORMAL.values, NORMAL.axes, NORMAL.means
    stretch = (values / (math.cos(angle) ** 2 * values + math.sin(angle) ** 2)).sqrt()
    return mean + ((z - math.cos(angle) * mean) @ axes * stretch) @ axes.T


@pytest.mark.parametrize("name", FAMILIES)
def test_map_of_normal_events(name: str) -> None:
    """Noise to events and back, by the ODE; the default solver is within a hundredth."""
    family, body = analytic(name, NORMAL, density_solver=TIGHT)
    z = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    truth = flow(z, 0.5 * math.pi)
    torch.testing.assert_close(family.decode(body, {"z": z}, None)["x"], truth, atol=1e-2, rtol=0)
    exact = replace(family, solver=TIGHT).decode(body, {"z": z}, None)["x"]
    torch.testing.assert_close(exact, truth, atol=1e-4, rtol=0)
    torch.testing.assert_close(family.encode(body, Events({"x": truth}))["z"], z, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_small_error_of_the_network_moves_events_little(name: str) -> None:
    """A chain that ends in nothing but noise asks the predicted noise for the event, and multiplies its error without bound."""
    z = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    family, body = analytic(name, NORMAL)
    exact = family.decode(body, {"z": z}, None)["x"]
    body.network = Analytic(family, NORMAL, 0.01)
    assert float((family.decode(body, {"z": z}, None)["x"] - exact).abs().max()) < 0.3


@pytest.mark.parametrize("timesteps", [50, 1000, 4000])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_angles_of_the_chain_do_not_fall_and_end(timesteps: int, schedule: str) -> None:
    angles = chain_angles(timesteps, schedule)
    assert len(angles) == timesteps
    assert bool((angles.diff() >= 0).all())
    assert 1.56 < float(angles[-1]) <= LAST_ANGLE


# Samplers: with the field of normal events they are affine in their noise, so that their law is known without drawing from it

SAMPLERS = [
    ("edm", KarrasHeun(steps=18), 0.14),
    ("edm-narrow", KarrasHeun(steps=18), 0.14),
    ("edm-narrow", KarrasHeun(steps=32, churn=8.0), 0.1),
    ("ddpm", Ancestral(steps=200), 0.06),
    ("ddpm-cosine-v", Ancestral(steps=200), 0.035),
    ("ddpm", Ancestral(steps=100, eta=0.0), 0.055),
    ("vp", ReverseSDE(EulerMaruyama(steps=200)), 0.03),
    ("sub-vp", ReverseSDE(EulerMaruyama(steps=200)), 0.03),
    ("ve", ReverseSDE(PredictorCorrector(steps=150)), 0.03),
]
"""Family, sampler, and the largest error of means and covariances that its steps may make."""


def law_of(family: Any, body: Any) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what is decoded, by the derivative with respect to every number of noise."""
    shapes = {name: form.shape for name, form in family.noise_shapes(LAYOUT).items()}
    size = sum(math.prod(shape) for shape in shapes.values())
    rows = torch.cat((torch.zeros(1, size), torch.eye(size))).double()
    parts = rows.split([math.prod(shape) for shape in shapes.values()], 1)
    noise = {name: part.reshape(-1, *shapes[name]) for name, part in zip(shapes, parts, strict=True)}
    x = family.decode(body, noise, None)["x"]
    slope = x[1:] - x[0]
    return x[0], slope.T @ slope


def bias(name: str, sampler: Any) -> float:
    mean, covariance = law_of(*analytic(name, NORMAL, sampler=sampler))
    return max(float((mean - NORMAL.means[0]).abs().max()), float((covariance - NORMAL.covariances[0]).abs().max()))


def label(value: object) -> str:
    return type(value).__name__ if not isinstance(value, (str, float)) else str(value)


@pytest.mark.parametrize(("name", "sampler", "limit"), SAMPLERS, ids=label)
def test_samplers_draw_normal_events_up_to_their_steps(name: str, sampler: Any, limit: float) -> None:
    assert bias(name, sampler) < limit
    family, body = analytic(name, sampler=sampler)
    with pytest.raises(CapabilityError, match="sampler=None"):
        family.encode(body, Events({"x": torch.zeros(2, 2, dtype=torch.float64)}))


STANDARD = Mixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])


def test_the_larger_variance_keeps_the_width_of_events() -> None:
    """That of standard normal events stays up to the last step, which denoises; the smaller one loses width with every step."""
    for steps in (100, 10):
        family, body = analytic("ddpm", STANDARD, sampler=Ancestral(steps=steps))
        mean, covariance = law_of(family, body)
        kept = family.chain(steps)[0].cos().square()
        torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
        torch.testing.assert_close(covariance, kept * torch.eye(2, dtype=torch.float64), atol=1e-9, rtol=0)
        narrow = law_of(*analytic("ddpm", STANDARD, sampler=Ancestral(steps=steps, variance="small")))[1]
        assert float(narrow[0, 0]) < kept - 0.05


def test_errors_of_samplers_fall_with_their_order() -> None:
    assert bias("edm", KarrasHeun(steps=18)) > 3.5 * bias("edm", KarrasHeun(steps=36))
    assert bias("ddpm-cosine-v", Ancestral(steps=50)) > 1.6 * bias("ddpm-cosine-v", Ancestral(steps=100))


@pytest.mark.parametrize(
    ("name", "sampler"), [(name, sampler) for name, sampler, _ in SAMPLERS if name != "edm"], ids=label
)
def test_samplers_draw_a_mixture(name: str, sampler: Any) -> None:
    """First and second moments of a sample within four standard errors and 0.03, which is the steps' share."""
    n, (family, body) = 1000, analytic(name, sampler=sampler)
    noise = Noise(1, torch.arange(n), dtype=torch.float64)
    drawn = {key: noise.normal(key, *form.shape) for key, form in family.noise_shapes(LAYOUT).items()}
    x = family.decode(body, drawn, None)["x"]
    for found, truth in zip((x, x[:, :, None] * x[:, None]), MIXTURE.moments(), strict=True):
        assert bool(((found.mean(0) - truth).abs() < 4 * found.std(0) / math.sqrt(n) + 0.03).all())


def test_ddim_without_noise_converges_to_the_map_of_the_ode() -> None:
    """Its error halves when the number of steps is doubled; it starts at the chain's last angle."""
    z = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    truth, errors = flow(z, float(chain_angles(1000, "cosine")[-1])), []
    for steps in (25, 50, 100):
        family, body = analytic("ddpm-cosine-v", NORMAL, sampler=Ancestral(steps=steps, eta=0.0))
        noise = {"z": z, "ancestral": torch.zeros(20, steps, 2, dtype=torch.float64)}
        errors.append(float((family.decode(body, noise, None)["x"] - truth).abs().max()))
    assert errors[2] < 0.05
    for coarse, fine in pairwise(errors):
        assert 1.6 < coarse / fine < 2.6


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("steps", [50, 10])
def test_steps_of_the_chain_are_the_posterior_of_the_paper(steps: int, large: bool) -> None:
    family = pofx.DDPM(timesteps=50, sampler=Ancestral(steps=steps, variance="large" if large else "small"))
    kept = family.chain(steps).cos().square()
    e, y = torch.tensor([[0.3, -0.7]], dtype=torch.float64), torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    seen: list[Tensor] = []

    def v(angle: Tensor, at: Tensor) -> Tensor:
        seen.append(at)
        return (e - angle.sin()[:, None] * at) / angle.cos()[:, None]

    family.sampler.sample(family, v, y, {"ancestral": torch.ones(1, steps, 2, dtype=torch.float64)})
    for k in range(steps - 1):
        now, then = kept[steps - 1 - k], kept[steps - 2 - k]
        mean = (seen[k] - (1 - now / then) / (1 - now).sqrt() * e) / (now / then).sqrt()
        variance = (1.0 if large else (1 - then) / (1 - now)) * (1 - now / then)
        torch.testing.assert_close(seen[k + 1], mean + variance.sqrt(), atol=1e-9, rtol=1e-9)


# Losses


@pytest.mark.parametrize("name", FAMILIES)
def test_the_exact_network_is_the_minimum_of_the_loss(name: str) -> None:
    """A network that is off by 0.3 is worse by the square of that, in the units of what the network answers."""
    n, (family, body) = 4000, analytic(name)
    events = Events({"x": _mixture_events(n)}, index=torch.arange(n))
    noise = Noise(1, events.index, dtype=torch.float64)
    best = family.loss(body, events, noise).per_event
    for shift in (0.3, -0.3):
        body.network = Analytic(family, MIXTURE, shift)
        more = family.loss(body, events, noise).per_event - best
        assert float(more.mean()) == pytest.approx(shift**2, abs=4 * float(more.std()) / math.sqrt(n))


def _mixture_events(n: int) -> Tensor:
    noise = Noise(5, torch.arange(n), dtype=torch.float64)
    k = (noise.uniform("k", 1)[:, 0] > MIXTURE.shares[0]).long()
    return MIXTURE.means[k] + (torch.linalg.cholesky(MIXTURE.covariances)[k] @ noise.normal("x", 2)[..., None])[..., 0]


@pytest.mark.parametrize("sde", ["vp", "sub-vp", "ve"])
def test_kernel_solves_its_moment_equations(sde: str) -> None:
    family = pofx.ScoreSDE(sde=sde)
    s = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    one, h, rows = torch.ones(19, 1, dtype=torch.float64), 1e-5, slice(None)
    (up, wide), (down, narrow), (mean, spread) = family.kernel(s + h), family.kernel(s - h), family.kernel(s)
    process = family.process(lambda _angle, y: y)
    drift = process.drift(s, one, rows)[:, 0]
    growth = 2 * drift * spread**2 + process.diffusion(s, one, rows) ** 2
    torch.testing.assert_close((up - down) / (2 * h), drift * mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close((wide**2 - narrow**2) / (2 * h), growth, atol=1e-6, rtol=1e-5)


def test_guidance_of_normal_events() -> None:
    """x|c ~ N(c, 1), x ~ N(0, 2): the guided velocity is the line through the two."""
    layout = Layout({"x": vector_spec(1)["x"]}, vector_spec(1, "c"))
    family = pofx.DDPM(context_dropout=0.2, guidance=1.5)
    body = family.build(layout).double()

    class Normal(nn.Module):
        def forward(self, x: Tensor, t: Tensor, context: Events, mask: object) -> Tensor:
            angle, given = (4.0 * t[:, :1]).exp().atan(), t[:, 1:]
            width = angle.sin() ** 2 + angle.cos() ** 2 * (2.0 - given)
            return angle.sin() * (x - angle.cos() * context.x) / width

    body.network = Normal()
    x = torch.randn(9, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    a = (0.5 * math.pi * t)[:, None]
    given, free = a.sin() * (x - 0.7 * a.cos()), a.sin() * x / (1 + a.cos() ** 2)
    truth = 0.5 * math.pi * (given + 1.5 * (given - free) - a.sin() * x) / a.cos()
    context = Events({"c": torch.full((9, 1), 0.7, dtype=torch.float64)})
    torch.testing.assert_close(family.velocity(body, t, x, context, None), truth, atol=1e-9, rtol=0)
    assert family.density_of(layout) == "none"
    assert family.unguided().density_of(layout) == "exact"


def test_hidden_contexts_are_not_seen() -> None:
    body = pofx.EDM(context_dropout=0.3).build(Layout({"x": vector_spec(1)["x"]}, vector_spec(1, "c")))
    generator = torch.Generator().manual_seed(1)
    for parameter in body.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    x, given = torch.randn(4, 1, generator=generator), torch.tensor([0.0, 0.0, 1.0, 1.0])
    one, two = (body.answer(x, torch.zeros(4), Events({"c": torch.full((4, 1), c)}), None, given) for c in (1.0, -2.0))
    assert bool((one == two)[:2].all())
    assert bool((one != two)[2:].all())


def test_settings_are_checked() -> None:
    for family, settings in (
        (pofx.EDM, {"sigma_min": 2.0, "sigma_max": 1.0}),
        (pofx.DDPM, {"schedule": "steep"}),
        (pofx.DDPM, {"timesteps": 50, "sampler": Ancestral(steps=100)}),
        (Ancestral, {"variance": "fixed"}),
        (pofx.ScoreSDE, {"sde": "vpp"}),
        (pofx.EDM, {"context_dropout": 1.0}),
    ):
        with pytest.raises(ConfigError):
            family(**settings)
    with pytest.raises(CapabilityError, match="context_dropout"):
        pofx.EDM(guidance=1.0).build(LAYOUT)


@pytest.mark.parametrize("kind", [pofx.EDM, pofx.DDPM, pofx.ScoreSDE])
def test_circular_columns_are_refused(kind: type[Diffusion]) -> None:
    x = np.random.default_rng(1).uniform(-3.0, 3.0, 50)
    angles = pofx.Dataset.from_arrays({"phi": x}, declare="phi:rad:periodic:-pi:pi")
    with pytest.raises(CapabilityError, match="periodic"):
        kind(network=ResidualMLP(width=16, layers=1)).fit(angles, training=pofx.Training(max_steps=1, seed=1))


@pytest.mark.parametrize(
    "family",
    [
        pofx.EDM(),
        pofx.EDM(sampler=KarrasHeun(steps=4, churn=2.0)),
        pofx.DDPM(sampler=Ancestral(steps=4)),
        pofx.ScoreSDE(sampler=ReverseSDE(EulerMaruyama(steps=4))),
        pofx.ScoreSDE(sde="ve", sampler=ReverseSDE(PredictorCorrector(steps=3))),
        pofx.ScoreSDE(sampler=ReverseSDE(PredictorCorrector(steps=3, score_norm="score"))),
    ],
    ids=lambda family: f"{family.name}-{label(family.sampler)}",
)
def test_padding_stays_zero_and_is_not_seen(family: Any) -> None:
    layout = Layout({"x": Field("cloud", (4, 2), (Column("a"), Column("b")))})
    family = replace(family, network=EPiC(width=8, layers=1))
    body = family.build(layout).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in body.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    noise = Noise(1, torch.arange(6), dtype=torch.float64)
    drawn = {key: noise.normal(key, *form.shape) for key, form in family.noise_shapes(layout).items()}
    drawn["count"] = ((torch.arange(6, dtype=torch.float64) % 5 + 0.5) / 5)[:, None]
    made = family.decode(body, drawn, None)
    mask = made["x.mask"]
    assert mask.sum(1).tolist() == [0, 1, 2, 3, 4, 0]
    assert not bool(made["x"][~mask].any())
    assert bool((made["x"][mask] != 0).all())
    gone = {key: value if key == "count" else value + 9.0 * ~_where(mask, value) for key, value in drawn.items()}
    torch.testing.assert_close(family.decode(body, gone, None)["x"], made["x"], atol=1e-12, rtol=0)


class Still(nn.Module):
    """The v of standard normal points."""

    def forward(self, x: Tensor, label: Tensor, context: object, mask: object) -> Tensor:
        return torch.zeros_like(x)


def test_steps_of_the_corrector_do_not_grow_with_padding() -> None:
    """The same two points from the same noise, in clouds of at most 2 and of at most 30."""
    found = []
    for most in (2, 30):
        layout = Layout({"x": Field("cloud", (most, 2), (Column("a"), Column("b")))})
        sampler = ReverseSDE(PredictorCorrector(steps=20, score_norm="score"))
        family = pofx.ScoreSDE(prediction="velocity", network=EPiC(width=8, layers=1), sampler=sampler)
        body = family.build(layout).double()
        body.network = Still()
        body.count.shares.fill_(-1e9)
        body.count.shares[2] = 0.0
        noise = Noise(1, torch.arange(200), dtype=torch.float64)
        drawn = {
            key: noise.normal(key, *form.shape[:-2], 30, 2)[..., :most, :]
            for key, form in family.noise_shapes(layout).items()
            if key != "count"
        }
        drawn["count"] = torch.full((200, 1), 0.5, dtype=torch.float64)
        made = family.decode(body, drawn, None)
        found.append(made["x"][made["x.mask"]])
    torch.testing.assert_close(found[1], found[0], atol=1e-10, rtol=0)
    assert float(found[1].std()) < 1.3


def _where(mask: Tensor, like: Tensor) -> Tensor:
    """The mask over noise ``(n, 4, 2)`` or ``(n, steps, ..., 4, 2)``."""
    return mask.reshape(len(mask), *[1] * (like.ndim - 3), 4, 1).expand(like.shape)
