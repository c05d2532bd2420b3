"""Energy-based models: energies with closed forms in the network's place, and what each objective learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pofx
from pofx.data.events import Events
from pofx.data.spec import Axis, Column, EventSpec, Field, vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models import energy_based
from pofx.models.base import Layout
from pofx.models.energy_based import EnergyBasedModel
from pofx.models.energy_body import Given, keyed
from pofx.networks import (
    DeepSets,
    EPiC,
    MessagePassing,
    NetworkConfig,
    PatchTransformer,
    Pointwise,
    ResidualMLP,
    SetTransformer,
    UNet,
)
from pofx.simulators.densities import Mixture
from pofx.solvers.hamiltonian import evaluate
from pofx.training.noise import Noise

MLP = ResidualMLP(width=24, layers=1, embedding=16)
MEAN = torch.tensor([0.6, -0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
NOTHING = Given(None, None)
IMAGE = {"x": Field("grid", (1, 4, 6), (Column("E"),), (Axis("a", 4), Axis("b", 6)))}
CLOUD = {"x": Field("cloud", (4, 2), (Column("a"), Column("b")))}


class Quadratic(nn.Module):
    """Parameters of x A x / 2 - b x, in the place of a network of one number."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return (0.5 * ((x @ self.a) * x).sum(1) - x @ self.b)[:, None]


def body_of(family: EnergyBasedModel, network: nn.Module | None = None, layout: Layout | None = None) -> Any:
    body: Any = family.build(layout or Layout(vector_spec(2))).double()
    if network is not None:
        body.network = network
    return body


def normal(n: int, seed: int = 1) -> Tensor:
    z = Noise(seed, torch.arange(n), dtype=torch.float64).normal("data", 2)
    return MEAN + z @ torch.linalg.cholesky(COVARIANCE).T


def gaussian_tilt() -> Quadratic:
    """What turns the base into N(MEAN, COVARIANCE)."""
    precision = torch.linalg.inv(COVARIANCE)
    return Quadratic(precision - torch.eye(2, dtype=torch.float64), precision @ MEAN)


def gaussian_log_z() -> float:
    """Of the base's energy plus that tilt."""
    precision = torch.linalg.inv(COVARIANCE)
    return float(0.5 * torch.logdet(COVARIANCE) + 0.5 * MEAN @ precision @ MEAN)


def minimise(loss: Any, parameters: list[Tensor], steps: int = 25) -> None:
    optimiser = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)


# Objectives


def test_the_minimum_of_denoising_is_the_score_of_the_smoothed_density() -> None:
    """At one noise, a quadratic energy fitted to a Gaussian with noise is that of the Gaussian with its covariance widened."""
    family = EnergyBasedModel(smallest=0.3, levels=4, chains=8)
    body = body_of(family, Quadratic(torch.zeros(2, 2).double(), torch.zeros(2).double()))
    x = normal(20_000)
    e = Noise(2, torch.arange(len(x)), dtype=torch.float64).normal("e", 2)
    t = torch.full((len(x),), 0.25, dtype=torch.float64)
    place, width, target = body.perturbed(x, t, e)
    r = float(body.ratio(t)[0])
    torch.testing.assert_close(place, (x + r * e) / math.sqrt(1 + r * r))

    def loss() -> Tensor:
        y = place.detach().requires_grad_()
        (slope,) = torch.autograd.grad(body.energy(y, t, NOTHING).sum(), y, create_graph=True)
        return (width * slope - target).square().mean()

    minimise(loss, list(body.network.parameters()))
    smoothed = (COVARIANCE + r * r * torch.eye(2)) / (1 + r * r)
    factor = (1.0 + r * r) ** -0.5
    found = body.network.a * factor + torch.eye(2)
    torch.testing.assert_close(0.5 * (found + found.T), torch.linalg.inv(smoothed), atol=0.03, rtol=0)
    centre = torch.linalg.solve(0.5 * (found + found.T), body.network.b * factor)
    torch.testing.assert_close(centre, MEAN / math.sqrt(1 + r * r), atol=0.02, rtol=0)


def test_the_denoising_loss_is_that_formula() -> None:
    """With the base alone as the energy: slope x_t, so that the loss is the mean square of w x_t - e."""
    family = EnergyBasedModel(levels=4, chains=8)
    body, x = body_of(family, Quadratic(torch.zeros(2, 2).double(), torch.zeros(2).double())), normal(6)
    events, noise = Events({"x": x}), Noise(5, torch.arange(6), dtype=torch.float64)
    t, e = noise.uniform("t", 1), noise.normal("e", 2)
    r = 0.02 * (10.0 / 0.02) ** t
    expected = (r * (x + r * e) / (1 + r**2) - e).square().mean(1)
    torch.testing.assert_close(family.denoising(body, events, noise).per_event, expected)
    with torch.no_grad():
        torch.testing.assert_close(family.denoising(body, events, noise).per_event, expected)


def test_noise_contrastive_estimation_finds_log_z_of_a_gaussian() -> None:
    family = EnergyBasedModel(objective="noise-contrastive", levels=4, chains=8)
    body = body_of(family, Quadratic(torch.zeros(2, 2).double(), torch.zeros(2).double()))
    events, noise = Events({"x": normal(20_000)}), Noise(4, torch.arange(20_000), dtype=torch.float64)

    def loss() -> Tensor:
        return family.contrast(body, events, noise).per_event.mean()

    minimise(loss, list(body.parameters()), 60)
    precision = torch.linalg.inv(COVARIANCE)
    found = 0.5 * (body.network.a + body.network.a.T) + torch.eye(2)
    torch.testing.assert_close(found, precision, atol=0.1, rtol=0.03)
    torch.testing.assert_close(body.network.b, precision @ MEAN, atol=0.1, rtol=0)
    assert body.log_z.item() == pytest.approx(gaussian_log_z(), abs=0.04)


def test_the_likelihood_s_gradient_vanishes_where_chains_and_events_are_of_the_model() -> None:
    """And the chains are moved so that they are: from the base to N(MEAN, COVARIANCE) within their errors."""
    family = EnergyBasedModel(objective="persistent", persistent=4000, leapfrogs=3, refresh=0.0)
    body = body_of(family, gaussian_tilt())
    with torch.no_grad():
        for _ in range(30):
            family.move_chains(body)
    chains = body.chains
    errors = torch.sqrt(COVARIANCE.diagonal() / len(chains))
    assert bool(((chains.mean(0) - MEAN).abs() < 3.5 * errors).all())
    torch.testing.assert_close(torch.cov(chains.T), COVARIANCE, atol=0.04, rtol=0)
    loss = family.likelihood(body, Events({"x": normal(4000, 7)}), Noise(0, torch.arange(4000)))
    gradient = torch.autograd.grad(loss.per_event.mean(), body.network.b)[0]
    assert float(gradient.abs().max()) < 4.0 * math.sqrt(2.0) * float(errors.max())
    assert int(body.moves) == 30


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["denoising", "noise-contrastive", "persistent"])
def test_every_objective_learns_a_correlated_gaussian(objective: str) -> None:
    x = normal(3000).numpy()
    family = EnergyBasedModel(
        network=MLP, objective=objective, smallest=0.1, levels=12, moves=3, chains=1024, preprocess="standardise"
    )
    training = pofx.Training(
        max_epochs=None, max_steps=800, batch_size=256, learning_rate=5e-3, seed=1, device="cpu", progress=False
    )
    model = family.fit(x, training=training)
    fresh = normal(2000, 9)
    truth = torch.distributions.MultivariateNormal(MEAN, COVARIANCE).log_prob(fresh).numpy()
    gap = truth - model.log_prob(fresh.numpy())
    assert abs(gap.mean()) < 0.06 + 3.0 * (gap.std() / math.sqrt(2000) + float(model.log_prob_error(x[0])))
    sample = model.sample(4000, seed=3)
    np.testing.assert_allclose(np.cov(sample.T), COVARIANCE, atol=0.05)  # with one move per level walks end too early
    assert model.density == "estimate"


# The tilt


@pytest.mark.parametrize("context", [None, {"jet": Field("cloud", (3, 2), (Column("p"), Column("q")))}])
@pytest.mark.parametrize(
    ("network", "spec"),
    [
        (MLP, vector_spec(2)),
        (MLP, IMAGE),
        (UNet(channels=(4, 8), heads=2), IMAGE),
        (PatchTransformer(patch=2, width=8, layers=1, heads=2), IMAGE),
        (EPiC(width=8, layers=1, latent=1), CLOUD),
        (DeepSets(width=8, layers=1), CLOUD),
        (SetTransformer(width=8, layers=1, heads=2), CLOUD),
        (Pointwise(widths=(8,)), CLOUD),
    ],
    ids=lambda value: getattr(value, "name", value["x"].kind if isinstance(value, dict) else None),
)
def test_every_network_starts_as_the_base_and_has_no_constant(
    network: NetworkConfig, spec: EventSpec, context: EventSpec | None
) -> None:
    body = body_of(EnergyBasedModel(network=network), layout=Layout(spec, context=context))
    x = torch.randn(3, *spec["x"].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.ones(x.shape[:2], dtype=torch.bool) if spec["x"].kind == "cloud" else None
    jets = None if context is None else Events({"jet": torch.ones(3, 3, 2, dtype=torch.float64)})
    assert body.tilt(x, 0.3, Given(jets, mask)).abs().max() == 0.0
    last = [layer for layer in body.network.modules() if isinstance(layer, nn.Linear) and layer.out_features == 1]
    assert sum(len(list(layer.parameters())) == 1 for layer in last) == 1


def test_the_tilt_of_one_function_does_not_change_while_the_noise_is_small() -> None:
    """The true one tends to a constant: a network would have to make up for a factor, and its error would grow with it."""
    body = body_of(EnergyBasedModel(smallest=0.02), gaussian_tilt())
    x = normal(20)
    torch.testing.assert_close(body.tilt(x, 0.3, NOTHING), body.tilt(x, 0.0, NOTHING), rtol=0.02, atol=0)


@pytest.mark.slow
def test_a_mixture_with_little_noise_is_learnt_in_a_thousand_steps() -> None:
    means = [[-1.2, -2.0], [-0.4, 0.6], [1.0, 1.1]]
    covariances = [[[0.5, 0.36], [0.36, 0.5]], [[1.0, 0.94], [0.94, 1.0]], [[1.5, 0.0], [0.0, 1.5]]]
    truth = Mixture([0.5, 0.3, 0.2], means, covariances)
    training = pofx.Training(
        max_epochs=None,
        max_steps=1000,
        batch_size=512,
        learning_rate=3e-3,
        ema=0.995,
        validate_every=4,
        seed=1,
        device="cpu",
        progress=False,
    )
    family = EnergyBasedModel(network=ResidualMLP(width=64, layers=2), levels=30)
    model = family.fit(truth.sample(30_000, 1), training=training)
    fresh = truth.sample(2000, 2)
    gap = truth.log_prob(fresh) - model.log_prob(fresh)
    assert gap.mean() < 0.08


# Walks


def tuned(family: EnergyBasedModel) -> Any:
    body = body_of(family, gaussian_tilt())
    family._normalise(body, None, None)  # type: ignore[arg-type]
    return body


def test_walks_end_at_the_model_and_their_weights_give_log_z() -> None:
    family = EnergyBasedModel(objective="persistent", levels=20, chains=2000, leapfrogs=3)
    body = tuned(family)
    assert abs(float(body.normaliser) - gaussian_log_z()) < 3.0 * float(body.normaliser_error) < 0.2
    noise = {
        name: getattr(Noise(3, torch.arange(4000), dtype=torch.float64), wanted.kind)(name, *wanted.shape)
        for name, wanted in family.noise_shapes(Layout(vector_spec(2))).items()
    }
    with torch.no_grad():
        x = family.decode(body, noise, None)["x"]
    errors = torch.sqrt(COVARIANCE.diagonal() / 4000)
    assert bool(((x.mean(0) - MEAN).abs() < 4.0 * errors).all())
    torch.testing.assert_close(torch.cov(x.T), COVARIANCE, atol=0.05, rtol=0)


def test_pulls_of_log_z_have_width_one() -> None:
    family = EnergyBasedModel(objective="persistent", levels=6, chains=200, leapfrogs=1)
    body = tuned(family)
    found = [family.annealed_log_partition(body, chains=200, seed=seed) for seed in range(40)]
    pulls = np.array([float(each.value - gaussian_log_z()) / float(each.error) for each in found])
    assert abs(pulls.mean()) < 3.5 / math.sqrt(40)
    assert 0.7 < pulls.std(ddof=1) < 1.3


def test_log_z_comes_from_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of at most WALKS walks, with the value of all at once."""
    family = EnergyBasedModel(objective="persistent", levels=4, chains=8, leapfrogs=1)
    body = tuned(family)
    sizes, energy = [], body.energy

    def watched(x: Tensor, *more: Any) -> Tensor:
        sizes.append(len(x))
        found: Tensor = energy(x, *more)
        return found

    body.energy = watched
    pieces = family.annealed_log_partition(body, chains=1024)
    assert max(sizes) == energy_based.WALKS < 1024
    monkeypatch.setattr(energy_based, "WALKS", 1024)
    whole = family.annealed_log_partition(body, chains=1024)
    assert max(sizes) == 1024
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-12)


def test_steps_are_tuned_to_the_target() -> None:
    family = EnergyBasedModel(objective="persistent", levels=5, chains=8, leapfrogs=2)
    body = tuned(family)
    noise = Noise(8, torch.arange(3000), dtype=torch.float64)
    with torch.no_grad():
        x = normal(3000, 3)
        state = evaluate(lambda y: body.energy(y, 0.0, NOTHING), x)
        _, taken = body.move(state, 0.0, body.log_steps[-1].exp(), keyed(noise, 2)(0), NOTHING, 2)
    assert 0.6 < float(taken.mean()) < 0.9


# Angles, clouds, contexts


def test_noise_on_a_circle_has_the_score_of_a_wrapped_normal() -> None:
    layout = Layout(vector_spec(1), circular={"x": (0,)})
    body = body_of(EnergyBasedModel(network=MLP, smallest=0.1), layout=layout)
    x = torch.linspace(-3.1, 3.1, 9, dtype=torch.float64)[:, None]
    t = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    place, width, target = body.perturbed(x, t, Noise(1, torch.arange(9), dtype=torch.float64).normal("e", 1))
    place.requires_grad_()
    turns = 2.0 * math.pi * torch.arange(-30, 31, dtype=torch.float64)
    log_kernel = (-0.5 * ((place - x + turns) / width) ** 2).logsumexp(1)
    (slope,) = torch.autograd.grad(log_kernel.sum(), place)
    torch.testing.assert_close(-width * slope, target, atol=1e-9, rtol=0)
    assert float(place.detach().abs().max()) <= math.pi


@pytest.mark.slow
def test_an_angle_is_learnt_on_the_circle() -> None:
    """Von Mises about the seam: the energy is periodic, and log Z is that of the Bessel function."""
    rng = np.random.default_rng(1)
    x = rng.vonmises(math.pi, 2.0, (3000, 1)) % (2.0 * math.pi)
    spec = {"x": Field("vector", (1,), (Column("phi", type="periodic", low=0.0, high=2.0 * math.pi),))}
    training = pofx.Training(
        max_epochs=None, max_steps=300, batch_size=256, learning_rate=5e-3, seed=1, device="cpu", progress=False
    )
    family = EnergyBasedModel(network=MLP, objective="noise-contrastive", levels=20, moves=3, leapfrogs=2, chains=256)
    model = family.fit(pofx.Dataset.from_arrays(x, columns=spec), training=training)
    points = np.linspace(0.0, 2.0 * math.pi, 400, endpoint=False)[:, None]
    log_p = model.log_prob(points)
    truth = 2.0 * np.cos(points[:, 0] - math.pi) - math.log(2.0 * math.pi * np.i0(2.0))
    total = np.exp(log_p).sum() * 2.0 * math.pi / 400
    assert abs(math.log(total)) < 3.0 * float(model.log_prob_error(points[0])) < 0.1
    assert np.abs(np.exp(log_p) / total - np.exp(truth)).max() < 0.06
    assert log_p[0] == pytest.approx(log_p[-1], abs=0.05)
    sample = model.sample(3000, seed=1)
    assert 0.0 <= sample.min() <= sample.max() <= 2.0 * math.pi
    assert np.cos(sample - math.pi).mean() == pytest.approx(np.cos(x - math.pi).mean(), abs=0.04)


def cloud_body() -> tuple[EnergyBasedModel, Any]:
    family = EnergyBasedModel(
        network=EPiC(width=8, layers=1, embedding=8, activation="silu"),
        objective="noise-contrastive",
        levels=4,
        leapfrogs=2,
        context_chains=16,
    )
    body = body_of(family, layout=Layout(CLOUD))
    generator = torch.Generator().manual_seed(1)
    for parameter in body.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return family, body


def test_a_cloud_has_a_normaliser_for_each_number_of_points() -> None:
    """Of an empty cloud it is the energy itself, exactly; of one point it is the integral over the plane."""
    family, body = cloud_body()
    x = Noise(1, torch.arange(3), dtype=torch.float64).normal("x", 4, 2)
    mask = torch.tensor([[False] * 4, [True, False, False, False], [False, False, True, False]])
    x = torch.where(mask[..., None], x, 0.0)
    with torch.no_grad():
        found = family._log_z(body, Events({"x": x}, {"x": mask}))
        empty = -body.energy(x[:1], 0.0, Given(None, mask[:1]))
        side = torch.linspace(-7.0, 7.0, 141, dtype=torch.float64)
        mesh = torch.cartesian_prod(side, side)
        points = torch.zeros(len(mesh), 4, 2, dtype=torch.float64)
        points[:, 0] = mesh
        log_f = -body.energy(points, 0.0, Given(None, mask[1:2].expand(len(mesh), 4)))
        one = float(log_f.logsumexp(0) + 2.0 * math.log(0.1))
    assert float(found.value[0]) == pytest.approx(float(empty), abs=1e-10)
    assert float(found.error[0]) < 1e-10
    assert torch.equal(found.value[1], found.value[2])
    assert abs(float(found.value[1]) - one) < 4.0 * float(found.error[1]) < 0.6


class Shifted(nn.Module):
    """An energy x^2 / 2 + c x: log Z(c) = c^2 / 2, E[x] = -c."""

    def forward(self, x: Tensor, _t: Any, context: Events, _mask: Any) -> Tensor:
        return x * context.x


def test_log_z_of_a_context_and_its_gradient() -> None:
    layout = Layout(vector_spec(1), context=vector_spec(1, "c"))
    family = EnergyBasedModel(objective="noise-contrastive", levels=10, leapfrogs=2, context_chains=400)
    body = body_of(family, Shifted(), layout)
    c = torch.tensor([[0.0], [1.0], [-1.5]], dtype=torch.float64, requires_grad=True)
    events = Events({"x": torch.zeros(3, 1, dtype=torch.float64)}, context=Events({"c": c}))
    found = family._log_z(body, events)
    off = (found.value - 0.5 * c[:, 0] ** 2).abs()
    assert bool((off <= 3.5 * found.error + 1e-12).all())
    assert float(found.error.detach().max()) < 0.1
    (gradient,) = torch.autograd.grad(found.value.sum(), c)
    torch.testing.assert_close(gradient, c.detach(), atol=0.25, rtol=0)  # of about 400 unit normals


# What is refused


def test_what_no_chain_can_do_is_refused() -> None:
    with pytest.raises(CapabilityError, match="without a context"):
        EnergyBasedModel(objective="persistent").build(Layout(vector_spec(2), context=vector_spec(1, "c")))
    with pytest.raises(CapabilityError, match="use EPiC"):
        EnergyBasedModel(network=MessagePassing()).build(Layout(CLOUD))
    for wrong in ({"objective": "magic"}, {"levels": 0}, {"chains": 1}, {"smallest": 0.0}, {"refresh": 2.0}):
        with pytest.raises(ConfigError):
            EnergyBasedModel(**wrong)
