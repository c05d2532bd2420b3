"""Families that move along an ODE: with analytic velocities in the network's place everything has a closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pofx
from pofx.data.events import Events
from pofx.data.spec import Axis, Column, Field, vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Layout
from pofx.models.field import count_estimate, count_updates
from pofx.models.ode import content_numbers
from pofx.networks import ResidualMLP
from pofx.solvers import RK4, DormandPrince
from pofx.training.noise import Noise

TIGHT = DormandPrince(rtol=1e-8, atol=1e-8)
MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.5, 0.6], [0.6, 0.8]], dtype=torch.float64)


def linear_path_velocity(x: Tensor, t: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """E[e - x0 | x_t = x] for normal events and the linear path."""
    s = (1.0 - t)[:, None, None]
    total = s**2 * covariance + t[:, None, None] ** 2 * torch.eye(len(mean), dtype=x.dtype)
    away = torch.linalg.solve(total, (x - s[..., 0] * mean)[..., None])
    return t[:, None] * away[..., 0] - mean - (s * (covariance @ away))[..., 0]


class NormalVelocity(nn.Module):
    """The velocity of normal events, for vectors or for every point of a cloud."""

    def forward(self, x: Tensor, t: Tensor, context: Events | None = None, mask: Tensor | None = None) -> Tensor:
        if x.ndim == 2:
            return linear_path_velocity(x, t, MEAN, COVARIANCE)
        points = linear_path_velocity(x.flatten(0, 1), t.repeat_interleave(x.shape[1]), MEAN, COVARIANCE)
        return points.reshape(x.shape)


class MixtureVelocity(nn.Module):
    """The velocity of a mixture: that of the components, by their posterior probability."""

    means = torch.tensor([[2.0, 0.0], [-1.0, 1.5]], dtype=torch.float64)
    covariances = torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.5, 0.0], [0.0, 0.1]]], dtype=torch.float64)
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        s = (1.0 - t)[:, None]
        parts = []
        for weight, mean, covariance in zip(self.weights, self.means, self.covariances, strict=True):
            total = s[..., None] ** 2 * covariance + t[:, None, None] ** 2 * torch.eye(2, dtype=x.dtype)
            normal = torch.distributions.MultivariateNormal(s * mean, total)
            parts.append(weight.log() + normal.log_prob(x))
        return torch.stack(parts)

    def forward(self, x: Tensor, t: Tensor, context: Events | None = None, mask: Tensor | None = None) -> Tensor:
        share = torch.softmax(self.log_prob(x, t), 0)
        velocities = [linear_path_velocity(x, t, m, c) for m, c in zip(self.means, self.covariances, strict=True)]
        return (share[..., None] * torch.stack(velocities)).sum(0)


def layout_of(form: Field, context: dict[str, Field] | None = None, **more: object) -> Layout:
    return Layout({"x": form}, context, **more)  # type: ignore[arg-type]


def analytic(velocity: nn.Module, form: Field, **settings: object) -> tuple[pofx.FlowMatching, nn.Module]:
    """A family and a body whose network is given."""
    family = pofx.FlowMatching(solver=TIGHT, density_solver=TIGHT, **settings)  # type: ignore[arg-type]
    body = family.build(layout_of(form)).double()
    body.network = velocity
    return family, body


VECTOR = vector_spec(2)["x"]
CLOUD = Field("cloud", (4, 2), (Column("a"), Column("b")))


def test_density_of_normal_events() -> None:
    family, body = analytic(NormalVelocity(), VECTOR)
    truth = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)
    x = truth.mean + 2.0 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(family.log_density(body, Events({"x": x})), truth.log_prob(x), atol=1e-4, rtol=0)


def test_density_of_a_mixture() -> None:
    velocity = MixtureVelocity()
    family, body = analytic(velocity, VECTOR)
    x = 2.0 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    truth = velocity.log_prob(x, torch.zeros(50, dtype=torch.float64)).logsumexp(0)
    torch.testing.assert_close(family.log_density(body, Events({"x": x})), truth, atol=1e-4, rtol=0)


def test_samples_of_normal_events() -> None:
    family, body = analytic(NormalVelocity(), VECTOR)
    z = Noise(1, torch.arange(4000), dtype=torch.float64).normal("z", 2)
    x = family.decode(body, {"z": z}, None)["x"]
    torch.testing.assert_close(x.mean(0), MEAN, atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), COVARIANCE, atol=0.1, rtol=0)
    torch.testing.assert_close(family.encode(body, Events({"x": x}))["z"], z, atol=1e-5, rtol=0)


def test_density_of_a_cloud_is_that_of_its_number_and_its_points() -> None:
    family, body = analytic(NormalVelocity(), CLOUD, trace="exact")
    body.count.shares.copy_(torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15]).log())
    x = torch.randn(20, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    count = torch.arange(20) % 5
    mask = torch.arange(4) < count[:, None]
    found = family.log_density(body, Events({"x": x}, {"x": mask}))
    normal = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)
    truth = body.count.shares.double()[count] + (normal.log_prob(x) * mask).sum(1)
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=0)


def test_hutchinson_agrees_within_its_error() -> None:
    family, body = analytic(NormalVelocity(), CLOUD, trace="hutchinson", probes=16)
    x = torch.randn(200, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    events = Events({"x": x}, {"x": torch.ones(200, 4, dtype=torch.bool)})
    body.count.shares.zero_()
    found, error = family.log_density(body, events), family.log_density_error(body, events)
    truth = torch.distributions.MultivariateNormal(MEAN, COVARIANCE).log_prob(x).sum(1)
    pull = (found - truth) / error
    assert bool((error > 0).all())
    assert abs(float(pull.mean())) < 0.35
    assert 0.8 < float(pull.std()) < 1.3
    torch.testing.assert_close(family.log_density(body, events[7:9]), found[7:9], atol=1e-6, rtol=0)
    assert family.density_of(layout_of(CLOUD)) == "estimate"


def test_numbers_of_events_are_their_own() -> None:
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    numbers = content_numbers(x)
    assert len(set(numbers.tolist())) == 500
    assert bool((content_numbers(x[10:20]) == numbers[10:20]).all())


def test_the_loss_at_the_minimum_is_the_conditional_variance() -> None:
    class Standard(nn.Module):
        def forward(self, x: Tensor, t: Tensor, context: object, mask: object) -> Tensor:
            return linear_path_velocity(x, t, torch.zeros(1, dtype=x.dtype), torch.eye(1, dtype=x.dtype))

    family, body = analytic(Standard(), vector_spec(1)["x"])
    x = Noise(5, torch.arange(40_000), dtype=torch.float64).normal("x", 1)
    loss = family.loss(body, Events({"x": x}), Noise(1, torch.arange(40_000), dtype=torch.float64)).per_event
    t = np.linspace(0, 1, 20_001)
    truth = np.trapezoid(2 - (2 * t - 1) ** 2 / ((1 - t) ** 2 + t**2), t)
    assert abs(float(loss.mean()) - truth) < 5 * float(loss.std()) / 200


# Periodic columns


def test_a_circle_without_velocity_is_uniform() -> None:
    layout = layout_of(vector_spec(2)["x"], circular={"x": (0, 1)})
    family = pofx.FlowMatching(density_solver=RK4(steps=2))
    body = family.build(layout).double()
    x = (torch.rand(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.5) * 2 * math.pi
    found = family.log_density(body, Events({"x": x}))
    torch.testing.assert_close(found, torch.full_like(found, -2 * math.log(2 * math.pi)), atol=1e-12, rtol=0)
    z = family.encode(body, Events({"x": x}))["z"]
    torch.testing.assert_close(family.decode(body, {"z": z}, None)["x"], x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("coupling", ["independent", pytest.param("optimal-transport", marks=pytest.mark.slow)])
def test_a_peak_across_the_seam(coupling: str) -> None:
    rng = np.random.default_rng(1)
    x = np.stack([rng.vonmises(math.pi, 4.0, 4000), rng.normal(size=4000)], 1)
    data = pofx.Dataset.from_arrays(x, declare="x0:rad:periodic:-pi:pi")
    family = pofx.FlowMatching(
        network=ResidualMLP(width=32, layers=1, embedding=16), coupling=coupling, density_solver=RK4(steps=8)
    )
    training = pofx.Training(max_epochs=None, max_steps=150, batch_size=128, learning_rate=1e-2, seed=1)
    model = family.fit(data, training=training)
    angle, y = np.linspace(-math.pi, math.pi, 61), np.linspace(-4, 4, 17)
    mesh = np.stack(np.meshgrid(angle, y), -1).reshape(-1, 2)
    marginal = np.exp(model.log_prob(mesh)).reshape(17, 61).sum(0) * 0.5
    assert np.trapezoid(marginal, angle) == pytest.approx(1.0, abs=5e-3)
    assert marginal[0] == pytest.approx(marginal[-1], rel=1e-4)
    truth = np.exp(4 * np.cos(angle - math.pi)) / (2 * math.pi * np.i0(4.0))
    assert np.trapezoid(np.abs(marginal - truth), angle) < 0.2
    sample = model.sample(2000, seed=1)[:, 0]
    assert np.abs(sample).max() <= math.pi
    assert np.abs(np.exp(1j * sample).mean() + 0.8635) < 0.08  # I1(4) / I0(4)


# Couplings


def test_optimal_transport_pairs_the_nearest() -> None:
    family = pofx.FlowMatching(coupling="optimal-transport")
    body = family.build(layout_of(vector_spec(1)["x"])).double()
    seen: list[Tensor] = []
    body.network = _Watching(seen)
    x = Noise(2, torch.arange(64), dtype=torch.float64).normal("x", 1)
    noise = Noise(1, torch.arange(64), dtype=torch.float64)
    family.loss(body, Events({"x": x}), noise)
    t = noise.uniform("t", 1)[:, 0]
    e = (seen[0][:, 0] - (1 - t) * x[:, 0]) / t
    torch.testing.assert_close(e.sort().values, noise.normal("e", 1)[:, 0].sort().values)
    torch.testing.assert_close(e[x[:, 0].argsort()], e.sort().values)  # in one dimension the optimum is monotone


class _Watching(nn.Module):
    """Keeps what it is given."""

    def __init__(self, seen: list[Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor, t: Tensor, context: object, mask: object) -> Tensor:
        self.seen.append(x)
        return torch.zeros_like(x)


def test_optimal_transport_refuses_contexts_clouds_and_weights() -> None:
    family = pofx.FlowMatching(coupling="optimal-transport")
    for layout in (layout_of(VECTOR, vector_spec(1, "c")), layout_of(CLOUD)):
        with pytest.raises(CapabilityError, match="independent"):
            family.build(layout)
    x = np.random.default_rng(1).normal(size=(200, 2))
    with pytest.raises(CapabilityError, match="equal weight"):
        family.fit(x, weight=np.linspace(0.5, 1.5, 200), training=pofx.Training(max_steps=2))


# Numbers of points


def test_counts_are_those_of_the_weighted_events() -> None:
    layout = layout_of(CLOUD)
    body = pofx.FlowMatching().build(layout)
    mask = torch.arange(4) < torch.tensor([0, 1, 1, 4])[:, None]
    events = Events({"x": torch.zeros(4, 4, 2)}, {"x": mask}, weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))

    class Once:
        def sweep(self) -> list[Events]:
            return [events]

    estimate = count_estimate(layout)
    assert estimate is not None
    assert count_updates(layout) == ()
    estimate(body, Once(), None)  # type: ignore[arg-type]
    expected = torch.tensor([1.5, 5.5, 0.5, 0.5, 4.5]) / 12.5
    torch.testing.assert_close(body.count.shares.exp(), expected)
    u = (torch.arange(1000) + 0.5)[:, None] / 1000
    seen = torch.bincount(body.count.mask(u, None).sum(1), minlength=5) / 1000
    torch.testing.assert_close(seen, expected, atol=2e-3, rtol=0)
    again = body.count.mask(body.count.middle(events), None)
    assert bool((again == mask).all())


# Continuous flows


def test_the_likelihood_loss_is_the_negative_log_density() -> None:
    family = pofx.ContinuousFlow(
        network=ResidualMLP(width=8, layers=1), training_solver=RK4(steps=8), density_solver=TIGHT
    )
    body = family.build(layout_of(VECTOR)).double()
    for parameter in body.parameters():
        parameter.data += 0.1 * torch.randn(
            parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(parameter.numel())
        )
    x = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    events, noise = Events({"x": x}), Noise(1, torch.arange(100), dtype=torch.float64)
    exact = -family.log_density(body, events).detach()
    loss = family.loss(body, events, noise)
    torch.testing.assert_close(loss.logs["nll"], exact, atol=1e-3, rtol=0)
    torch.testing.assert_close(loss.per_event, loss.logs["nll"] + 0.01 * loss.logs["kinetic"])
    torch.testing.assert_close(family.likelihood(body, events, noise).per_event, exact)
    torch.testing.assert_close(loss.logs["kinetic"], _energy(family, body, x), atol=0, rtol=1e-2)
    estimates = [
        replace(family, training_trace="hutchinson").loss(body, events, noise.at(k)).logs["nll"] for k in range(24)
    ]
    found = torch.stack(estimates).detach()
    assert bool((found.std(0) > 1e-3).all())
    pull = (found.mean(0) - exact) / (found.std(0) / math.sqrt(24))
    assert float(pull.abs().max()) < 5
    assert abs(float(pull.mean())) < 0.5


@torch.no_grad()
def _energy(family: pofx.ContinuousFlow, body: nn.Module, x: Tensor, steps: int = 400) -> Tensor:
    """The mean over time of the mean square of the velocity along the path, by steps of Euler's method."""
    total = torch.zeros(len(x), dtype=x.dtype)
    for k in range(steps):
        v = family.velocity(body, torch.full((len(x),), (k + 0.5) / steps, dtype=x.dtype), x, None, None)
        x, total = x + v / steps, total + v.square().mean(1) / steps
    return total


def test_the_trace_of_training_is_checked() -> None:
    with pytest.raises(ConfigError, match="training_trace"):
        pofx.ContinuousFlow(training_trace="exakt")


def test_an_image_has_an_estimated_density() -> None:
    form = Field("grid", (1, 9, 9), (Column("e"),), (Axis("a", 9), Axis("b", 9)))
    family = pofx.FlowMatching()
    assert family.density_of(layout_of(form)) == "estimate"
    assert family.density_of(layout_of(VECTOR)) == "exact"
