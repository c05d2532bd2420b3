"""Diffusion models with the analytic field of a mixture in the network's place: densities and samplers have closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import pofx
from pofx.data.events import Events
from pofx.data.spec import vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Layout
from pofx.models.diffusion_samplers import Ancestral, KarrasHeun
from pofx.models.score_sde import ReverseSDE
from pofx.solvers import DormandPrince, EulerMaruyama, PredictorCorrector
from pofx.training.noise import Noise

TIGHT = DormandPrince(rtol=1e-8, atol=1e-8)
MEANS = torch.tensor([[1.2, 0.0], [-0.8, 1.0]], dtype=torch.float64)
COVARIANCES = torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.5, 0.0], [0.0, 0.2]]], dtype=torch.float64)
SHARES = torch.tensor([0.6, 0.4], dtype=torch.float64)
LAYOUT = Layout({"x": vector_spec(2)["x"]})


def mixture(angle: Tensor) -> torch.distributions.Distribution:
    """The law of cos(angle) x0 + sin(angle) e at one angle for each event."""
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None, None]
    total = c[..., None] ** 2 * COVARIANCES + s**2 * torch.eye(2, dtype=torch.float64)
    shares = torch.distributions.Categorical(SHARES.expand(len(angle), -1))
    return torch.distributions.MixtureSameFamily(shares, torch.distributions.MultivariateNormal(c * MEANS, total))


def turn(angle: Tensor, y: Tensor) -> Tensor:
    """v by Tweedie's formula: the noise is -sin(angle) times the score."""
    with torch.enable_grad():
        leaf = y if y.requires_grad else y.detach().requires_grad_()
        (score,) = torch.autograd.grad(mixture(angle).log_prob(leaf).sum(), leaf, create_graph=True)
    return -angle.tan()[:, None] * (score + y)


class Analytic(nn.Module):
    """What a network would have to answer for this family."""

    def __init__(self, family) -> None:
        super().__init__()
        self.family = family

    def forward(self, x: Tensor, label: Tensor, context: object = None, mask: object = None) -> Tensor:
        angle = (4.0 * label).exp().atan()
        sin, cos = angle.sin()[:, None], angle.cos()[:, None]
        if not isinstance(self.family, pofx.EDM):
            v = turn(angle, x)
            return v if self.family.prediction == "velocity" else sin * x + cos * v
        width, sigma = self.family.sigma_data, sin / cos
        y = x * (sin**2 + width**2 * cos**2).sqrt()
        skip, out = width**2 / (sigma**2 + width**2), sigma * width / (sigma**2 + width**2).sqrt()
        return (cos * y - sin * turn(angle, y) - skip * y / cos) / out


def analytic(family, **changes):
    family = replace(family, density_solver=TIGHT, **changes)
    body = family.build(LAYOUT).double()
    body.network = Analytic(family)
    return family, body


def check_law(family, body, n: int, slack: float) -> None:
    """Mean and second moments of a sample are those of the mixture, within five standard errors and a bias."""
    noise = Noise(1, torch.arange(n), dtype=torch.float64)
    drawn = {name: noise.normal(name, *form.shape) for name, form in family.noise_shapes(LAYOUT).items()}
    with torch.no_grad():
        x = family.decode(body, drawn, None)["x"]
    mean = (SHARES[:, None] * MEANS).sum(0)
    second = (SHARES[:, None, None] * (COVARIANCES + MEANS[:, :, None] * MEANS[:, None])).sum(0)
    for found, truth in ((x, mean), (x[:, :, None] * x[:, None], second)):
        assert bool(((found.mean(0) - truth).abs() < 5 * found.std(0) / math.sqrt(n) + slack).all())


@pytest.mark.parametrize(
    "family",
    [
        pofx.EDM(),
        pofx.EDM(sigma_data=0.5),
        pofx.DDPM(),
        pofx.DDPM(prediction="velocity", schedule="cosine"),
        pofx.ScoreSDE(),
        pofx.ScoreSDE(sde="sub-vp"),
        pofx.ScoreSDE(sde="ve"),
    ],
    ids=lambda family: f"{family.name}-{getattr(family, 'sde', '')}",
)
def test_density_is_the_closed_form_and_the_ode_draws_it(family) -> None:
    family, body = analytic(family)
    x = 1.2 * torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    truth = mixture(torch.zeros(20, dtype=torch.float64)).log_prob(x)
    torch.testing.assert_close(family.log_density(body, Events({"x": x})).detach(), truth, atol=1e-4, rtol=0)
    check_law(family, body, 2000, 0.02)


@pytest.mark.parametrize(
    ("family", "sampler"),
    [
        (pofx.EDM(), KarrasHeun(steps=18)),
        (pofx.EDM(sigma_data=0.5), KarrasHeun(steps=32, churn=8.0)),
        (pofx.DDPM(), Ancestral(steps=200)),
        (pofx.DDPM(), Ancestral(steps=60, eta=0.0)),
        (pofx.ScoreSDE(), ReverseSDE(EulerMaruyama(steps=200))),
        (pofx.ScoreSDE(sde="sub-vp"), ReverseSDE(EulerMaruyama(steps=200))),
        (pofx.ScoreSDE(sde="ve"), ReverseSDE(PredictorCorrector(steps=150))),
    ],
    ids=str,
)
def test_samplers_draw_the_law(family, sampler) -> None:
    family, body = analytic(family, sampler=sampler)
    check_law(family, body, 2000, 0.03)
    with pytest.raises(CapabilityError, match="sampler=None"):
        family.encode(body, Events({"x": torch.zeros(2, 2, dtype=torch.float64)}))


@pytest.mark.parametrize("sde", ["vp", "sub-vp", "ve"])
def test_kernel_solves_its_moment_equations(sde: str) -> None:
    family = pofx.ScoreSDE(sde=sde)
    s = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    one, h, rows = torch.ones(19, 1, dtype=torch.float64), 1e-5, slice(None)
    (up, wide), (down, narrow), (mean, spread) = family.kernel(s + h), family.kernel(s - h), family.kernel(s)
    process = family.process(lambda angle, y: y)
    drift = process.drift(s, one, rows)[:, 0]
    growth = 2 * drift * spread**2 + process.diffusion(s, one, rows) ** 2
    torch.testing.assert_close((up - down) / (2 * h), drift * mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close((wide**2 - narrow**2) / (2 * h), growth, atol=1e-6, rtol=1e-5)


def test_a_step_of_the_chain_is_the_posterior_of_the_paper() -> None:
    family = pofx.DDPM(timesteps=50, sampler=Ancestral(steps=50))
    kept = family.chain(50).cos().square()
    e, y = torch.tensor([[0.3, -0.7]], dtype=torch.float64), torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    seen: list[Tensor] = []

    def v(angle: Tensor, at: Tensor) -> Tensor:
        seen.append(at)
        return (e - angle.sin()[:, None] * at) / angle.cos()[:, None]

    family.sampler.sample(family, v, y, {"ancestral": torch.ones(1, 50, 2, dtype=torch.float64)})
    alpha = kept[49] / kept[48]
    mean = (y - (1 - alpha) / (1 - kept[49]).sqrt() * e) / alpha.sqrt()
    variance = (1 - kept[48]) / (1 - kept[49]) * (1 - alpha)
    torch.testing.assert_close(seen[1], mean + variance.sqrt(), atol=1e-9, rtol=0)


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
        (pofx.ScoreSDE, {"sde": "vpp"}),
        (pofx.EDM, {"context_dropout": 1.0}),
    ):
        with pytest.raises(ConfigError):
            family(**settings)
    with pytest.raises(CapabilityError, match="context_dropout"):
        pofx.EDM(guidance=1.0).build(LAYOUT)
