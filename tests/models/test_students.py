"""Few-step students: exact identities with analytic networks in place, and learnt maps against the closed form of the flow."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_diffusion import NORMAL, Analytic
from test_ode_families import COVARIANCE, MEAN, NormalVelocity, linear_path_velocity
from torch import Tensor, nn

import pofx
from pofx.data.events import Events
from pofx.data.spec import vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Layout
from pofx.models.consistency import GRADED, _interval, _step_by_batch, _times, batch_mean, noise_levels
from pofx.models.mean_flow import along
from pofx.models.progressive_distillation import WEIGHTS
from pofx.models.student import StudentFamily, Teacher, follow, huber
from pofx.networks import ResidualMLP
from pofx.solvers import RK4, Euler
from pofx.training import loop, plan
from pofx.training.noise import Noise

SMALL = ResidualMLP(width=32, layers=2, embedding=16)
QUICK = pofx.Training(max_epochs=None, max_steps=400, batch_size=256, learning_rate=5e-3, seed=1, ema=0.98)
LAYOUT = Layout({"x": vector_spec(2)["x"]})
STUDENTS = (pofx.Consistency, pofx.ConsistencyTraining, pofx.ProgressiveDistillation, pofx.MeanFlow, pofx.Shortcut)
ALONE = (pofx.ConsistencyTraining, pofx.MeanFlow, pofx.Shortcut)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix_power(matrix: Tensor, power: float) -> Tensor:
    values, axes = torch.linalg.eigh(matrix)
    return (axes * values[..., None, :] ** power) @ axes.mT


def total(t: Tensor) -> Tensor:
    """Covariance at times t of the straight path from N(MEAN, COVARIANCE) to N(0, 1)."""
    return (1.0 - t)[:, None, None] ** 2 * COVARIANCE + t[:, None, None] ** 2 * torch.eye(2, dtype=t.dtype)


def flow_map(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Where the flow of normal events takes x from t to s; covariances at all times have the same axes."""
    stretch = matrix_power(total(s), 0.5) @ matrix_power(total(t), -0.5)
    return (1.0 - s)[:, None] * MEAN + (stretch @ (x - (1.0 - t)[:, None] * MEAN)[..., None])[..., 0]


class MeanVelocity(nn.Module):
    """The exact mean velocity of normal events; ``read`` turns the network's numbers into t and s."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor, times: Tensor, context: object = None, mask: object = None) -> Tensor:
        t, s = self.read(times)
        same = (t - s) < 1e-12
        apart = torch.where(same, 1.0, t - s)[:, None]
        return torch.where(same[:, None], linear_path_velocity(x, t, MEAN, COVARIANCE), (x - flow_map(x, t, s)) / apart)


def taught(family: pofx.FlowMatching | None = None) -> pofx.Model:
    """A teacher whose velocity is that of normal events, in the user's coordinates."""
    family = family or pofx.FlowMatching(preprocess="none", network=SMALL, density_solver=RK4(steps=2))
    model = family.fit(events_of(400), training=pofx.Training(max_steps=1, seed=1))
    model.fitted.body.network = NormalVelocity()
    return model


@pytest.fixture(scope="module")
def teacher() -> pofx.Model:
    return taught()


def events_of(n: int, seed: int = 2) -> np.ndarray:
    truth = np.random.default_rng(seed).multivariate_normal(MEAN.numpy(), COVARIANCE.numpy(), n)
    return np.asarray(truth)


def body_of(family: StudentFamily, network: nn.Module | None = None) -> Any:
    body = family.build(LAYOUT).double()
    if network is not None:
        body.network = body.target = network
        if hasattr(body, "first"):
            body.first = network
    return body


# What holds whatever the weights are


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_jump_of_no_time_leads_nowhere(kind: type[StudentFamily]) -> None:
    family = kind(network=ResidualMLP(width=16, layers=1, zero_start=False))
    body, x, t = body_of(family), numbers(20, 2), torch.rand(20, dtype=torch.float64)
    now = t if kind in (pofx.MeanFlow, pofx.Shortcut) else torch.zeros_like(t)  # f(x, 0) = x
    torch.testing.assert_close(family.jump(body, body.network, x, now, now, None, None), x, atol=0, rtol=0)


def test_the_target_follows() -> None:
    body = body_of(pofx.Shortcut(network=SMALL))
    before = [p.clone() for p in body.target.parameters()]
    body.done.fill_(1000)
    for parameter in body.network.parameters():
        parameter.data += 1.0
    with torch.no_grad():
        follow(0.9)(body)
    assert int(body.done) == 1001
    for old, new in zip(before, body.target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)
        assert not new.requires_grad


def test_huber_is_a_length_far_away_and_a_square_nearby() -> None:
    d = numbers(5, 3)
    torch.testing.assert_close(huber(1e6 * d, None, 0.1), 1e6 * d.norm(dim=1), rtol=1e-6, atol=0)
    near = 1e-6 * d
    torch.testing.assert_close(huber(near, None, 0.1), near.square().sum(1) / (0.2 * math.sqrt(3)), rtol=1e-3, atol=0)


# Consistency


def test_the_exact_consistency_function_has_no_loss(teacher: pofx.Model) -> None:
    family = pofx.Consistency(solver=RK4(steps=8), metric="squared")
    exact = MeanVelocity(lambda t: (t, torch.zeros_like(t)))
    loss = family.phases(Layout({"x": LAYOUT.spec["x"]}, teacher=teacher))[0].updates[0].loss
    events = Events({"x": torch.from_numpy(events_of(200))})
    noise = Noise(1, torch.arange(200), dtype=torch.float64)
    assert float(loss(body_of(family, exact), events, noise).per_event.max()) < 1e-12
    wrong = MeanVelocity(lambda t: (t, 0.5 * t))
    assert float(loss(body_of(family, wrong), events, noise).per_event.mean()) > 1e-3


def test_noise_levels_are_those_of_the_paper() -> None:
    sigma = noise_levels(40)
    assert float(sigma[0]) == pytest.approx(0.002)
    assert float(sigma[-1]) == pytest.approx(80.0)
    times = _times(sigma)
    assert float(times[0]) == 0.0
    assert float(times[-1]) == 1.0
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    seen = torch.bincount(_interval(u, sigma, -1.1, 2.0), minlength=40) / 200_000
    shares = torch.distributions.Normal(-1.1, 2.0).cdf(sigma.log()).diff()
    torch.testing.assert_close(seen.double(), shares / shares.sum(), atol=2e-5, rtol=0)


def test_intervals_double_in_equal_stretches() -> None:
    family = pofx.ConsistencyTraining(targets="path", intervals=(10, 80))
    body = body_of(family)
    body.planned.fill_(400)
    found = []
    for done in (0, 99, 100, 200, 300, 399, 1000):
        body.done.fill_(done)
        found.append(family.count(body))
    assert found == [10, 10, 20, 40, 80, 80, 80]


def test_a_training_knows_its_length() -> None:
    family = pofx.ConsistencyTraining(network=SMALL, targets="path")
    model = family.fit(events_of(500), training=QUICK.replace(max_steps=7))
    assert int(model.fitted.body.planned) == int(model.fitted.body.done) == 7


def test_the_length_of_a_training_is_that_of_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever limits it; a run whose clock was the limit is repeated bit for bit, and one that ends early keeps its doublings."""
    looks = itertools.count()
    for module in (plan, loop):  # a clock that goes on by 5 ms when it is looked at
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 0.005 * next(looks)))
    family, x = pofx.ConsistencyTraining(network=SMALL, targets="path", intervals=(2, 64)), events_of(500)
    by_clock = family.fit(x, training=QUICK.replace(max_steps=None, max_minutes=0.02))
    record = by_clock.card["training"]
    assert int(by_clock.fitted.body.planned) == record["budget_steps"]["training"]
    limits = {"max_steps": record["phase_steps"], "horizon": record["budget_steps"]}
    again = family.fit(x, training=QUICK.replace(**limits))
    np.testing.assert_array_equal(again.sample(20, seed=1), by_clock.sample(20, seed=1))
    assert family.count(by_clock.fitted.body) == 64
    early = family.fit(x, training=QUICK.replace(max_steps=6, horizon=12))
    assert (int(early.fitted.body.planned), family.count(early.fitted.body)) == (12, 16)


def test_a_resumed_training_has_the_same_length(tmp_path) -> None:
    family, x = pofx.ConsistencyTraining(network=SMALL, targets="path", intervals=(2, 64)), events_of(500)
    quick = QUICK.replace(max_steps=12, checkpoint=tmp_path / "state", checkpoint_every=5)
    whole = family.fit(x, training=quick.replace(checkpoint=None))

    class StoppedError(Exception):
        pass

    def stop(body: Any) -> None:
        if int(body.done) == 8:
            raise StoppedError

    class Stopping(pofx.ConsistencyTraining):
        def loss(self, body: Any, events: Events, noise: Noise) -> Any:
            stop(body)
            return super().loss(body, events, noise)

    with pytest.raises(StoppedError):
        Stopping(network=SMALL, targets="path", intervals=(2, 64)).fit(x, training=quick)
    resumed = family.fit(x, training=quick, resume="must")
    assert int(resumed.fitted.body.planned) == 12
    np.testing.assert_array_equal(resumed.sample(20, seed=1), whole.sample(20, seed=1))


def test_consistency_training_is_a_stage_with_steps_of_its_own() -> None:
    x = events_of(500)
    data = pofx.Dataset.from_arrays({"a": x[:, :1], "b": x[:, 1:]})
    chain = pofx.Chain(
        stages=(pofx.MixtureDensityNetwork(components=1, hidden=(8,)), pofx.ConsistencyTraining(network=SMALL))
    )
    model = chain.fit(data, training=QUICK.replace(max_steps={"a/likelihood": 3, "b/training": 5}))
    assert int(model.fitted.body.stages[1].planned) == 5
    wrapped = pofx.Ensemble(pofx.ConsistencyTraining(network=SMALL, targets="path"), members=2)
    members = wrapped.fit(x, training=QUICK.replace(max_steps=4)).fitted.body.members
    assert [int(member.planned) for member in members] == [4, 4]


@pytest.mark.parametrize("warm_up", [True, False])
def test_the_phases_of_consistency_training(warm_up: bool) -> None:
    family = pofx.ConsistencyTraining(network=SMALL, warm_up=warm_up)
    names = ["velocity", "training"] if warm_up else ["training"]
    assert [phase.name for phase in family.phases(LAYOUT)] == names
    by_path = pofx.ConsistencyTraining(network=SMALL, targets="path", warm_up=warm_up)
    assert [phase.name for phase in by_path.phases(LAYOUT)] == ["training"]
    limits = QUICK.replace(max_steps={"velocity": 20, "training": 1}, learning_rate=1e-3)
    family.fit(events_of(500), training=limits)
    if warm_up:  # the consistency phase, and its target, start where the velocity ended
        model = family.fit(events_of(500), training=limits.replace(ema=None, max_steps={"velocity": 20, "training": 1}))
        network, target = model.fitted.body.network.state_dict(), model.fitted.body.target.state_dict()
        apart = [float((target[name] - value).abs().max()) for name, value in network.items()]
        assert 0.0 < max(apart) < 5e-3


def test_the_mean_over_a_batch_is_that_of_bayes_theorem() -> None:
    """Of normal events in closed form; weights count as events do."""
    generator = torch.Generator().manual_seed(1)
    x = MEAN + torch.randn(40_000, 2, dtype=torch.float64, generator=generator) @ matrix_power(COVARIANCE, 0.5)
    t, place = torch.tensor([0.4, 0.7, 1.0], dtype=torch.float64), numbers(3, 2)
    noisy = ((1 - t) ** 2)[:, None, None] * torch.as_tensor(COVARIANCE) + (t**2)[:, None, None] * torch.eye(2)
    pull = torch.linalg.solve(noisy, (place - (1 - t)[:, None] * MEAN)[..., None])
    exact = MEAN + (1 - t)[:, None] * (torch.as_tensor(COVARIANCE) @ pull)[..., 0]
    torch.testing.assert_close(batch_mean(x, place, t), exact, atol=0.03, rtol=0)
    few, times = x[:20], torch.full((5,), 0.5, dtype=torch.float64)
    double = batch_mean(torch.cat([few, few[:7]]), numbers(5, 2), times)
    weight = torch.ones(20).index_fill(0, torch.arange(7), 2.0)
    torch.testing.assert_close(batch_mean(few, numbers(5, 2), times, weight), double, atol=1e-12, rtol=0)
    nothing = batch_mean(few, numbers(5, 2), times, torch.tensor([0.0, -1.0]).repeat(10))  # no weight to go by
    torch.testing.assert_close(nothing, batch_mean(few, numbers(5, 2), times))


@pytest.mark.parametrize("width", [1.0, 0.6])
def test_a_step_by_the_batch_is_right_on_average(width: float) -> None:
    """Of normal events in 20 columns, where the batch has hardly any other event that could have led there.

    Regression slopes of the place before on x_t, over all intervals, give the variance that the best linear function ends with.
    """
    generator, share, count, n = torch.Generator().manual_seed(1), 1.0, 18, 256
    for k in range(1, count + 1):
        t, s = (torch.full((n,), (j / count) ** GRADED, dtype=torch.float64) for j in (k, k - 1))
        x = width * torch.randn(6, n, 20, dtype=torch.float64, generator=generator)
        place = (1 - t[:, None]) * x + t[:, None] * torch.randn(x.shape, dtype=torch.float64, generator=generator)
        before = torch.stack([_step_by_batch(Events({"x": part}), at, t, s) for part, at in zip(x, place, strict=True)])
        share *= float((before * place).sum() / place.square().sum())
    assert share**2 / width**2 == pytest.approx(1.0, abs=0.03)


def test_a_step_by_the_batch_follows_the_flow() -> None:
    """Of standard normal events exactly, up to the error of the mean; at its end it is the mean itself."""
    x, t = numbers(20_000, 2, seed=5), torch.tensor([1.0, 0.7, 0.3], dtype=torch.float64)
    place, s = numbers(3, 2), t - 0.2
    r = ((1 - s) ** 2 + s**2).sqrt() / ((1 - t) ** 2 + t**2).sqrt()
    torch.testing.assert_close(_step_by_batch(Events({"x": x}), place, t, s), r[:, None] * place, atol=0.02, rtol=0)
    zero, late = torch.zeros_like(t), torch.full_like(t, 1e-4)
    end = _step_by_batch(Events({"x": x}), place, late, zero)
    torch.testing.assert_close(end, batch_mean(x, place, late), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (LAYOUT, True),
        (Layout({"x": vector_spec(2)["x"]}, circular={"x": (1,)}), False),
        (Layout({"x": vector_spec(70)["x"]}), False),
    ],
    ids=["vector", "angle", "many"],
)
def test_targets_of_the_batch_where_events_may_replace_each_other(layout: Layout, expected: bool) -> None:
    assert pofx.ConsistencyTraining().by_batch(layout) is expected
    if layout.circular_columns:
        with pytest.raises(CapabilityError, match="targets='path'"):
            pofx.ConsistencyTraining(targets="batch").build(layout)


def test_more_steps_start_from_the_path(teacher: pofx.Model) -> None:
    family = pofx.Consistency(network=SMALL, steps=4)
    body: Any = family.build(Layout({"x": LAYOUT.spec["x"]}, teacher=teacher))
    torch.testing.assert_close(body.mixing[:, 0], torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(body.mixing[:, 1], 1.0 - body.mixing[:, 0])
    x, e = numbers(3, 2).float(), numbers(3, 2, seed=2).float()
    torch.testing.assert_close(body.renoise(x, e, 1), 0.25 * x + 0.75 * e)
    assert set(family.noise_shapes(LAYOUT)) == {"z", "z1", "z2", "z3"}


def test_fewer_steps_than_the_noise_is_mixed_for_are_refused() -> None:
    family = pofx.ConsistencyTraining(network=SMALL, steps=4)
    body, noise = family.build(LAYOUT), {f"z{k or ''}": numbers(3, 2, seed=k).float() for k in range(4)}
    for steps in (4, 1):
        assert replace(family, steps=steps).decode(body, noise, None)["x"].shape == (3, 2)
    with pytest.raises(ConfigError, match="trained to be sampled in 4 steps; expected steps=1 or 4, got 2"):
        replace(family, steps=2).decode(body, noise, None)


def test_angles_are_mixed_along_the_arc() -> None:
    layout = Layout({"x": vector_spec(2)["x"]}, circular={"x": (1,)})
    body: Any = pofx.ConsistencyTraining(network=SMALL, steps=2).build(layout)
    torch.testing.assert_close(body.mixing, torch.full((1, 3), 0.5))
    mixed = body.renoise(torch.tensor([[1.0, 3.0]]), torch.tensor([[3.0, -3.0]]), 1)
    assert float(mixed[0, 0]) == pytest.approx(2.0)
    assert abs(float(mixed[0, 1])) == pytest.approx(math.pi, abs=1e-6)


# Progressive distillation


def test_the_target_is_two_steps_of_the_teacher(teacher: pofx.Model) -> None:
    family = pofx.ProgressiveDistillation(first=4, solver=Euler(steps=1))
    loss: Any = family.phases(Layout({"x": LAYOUT.spec["x"]}, teacher=teacher))[0].updates[0].loss
    x, t = numbers(30, 2), torch.full((30,), 0.75, dtype=torch.float64)
    slope = loss.target(body_of(family), x, t, t - 0.25, Events({"x": x}))
    velocity = NormalVelocity()
    middle = x - 0.125 * velocity(x, t)
    end = middle - 0.125 * velocity(middle, t - 0.125)
    torch.testing.assert_close(x - 0.25 * slope, end, atol=1e-14, rtol=0)


def test_the_target_is_that_of_the_paper() -> None:
    """The event x that one DDIM step takes to where two took z_t (eq. 9 of the paper's appendix), as a velocity of the straight path."""
    z, end, t, s = numbers(10, 2), numbers(10, 2, seed=2), 0.75, 0.5
    ratio = s / t
    x = (end - ratio * z) / ((1 - s) - ratio * (1 - t))
    torch.testing.assert_close((z - x) / t, (z - end) / (t - s), atol=1e-13, rtol=0)
    time = torch.linspace(0.05, 0.95, 10)
    snr = ((1 - time) / time) ** 2
    for name, weight in (("truncated-snr", snr.clamp(min=1.0)), ("snr-plus-one", snr + 1.0)):
        torch.testing.assert_close(WEIGHTS[name](time), time**2 * weight)


def test_later_rounds_learn_from_the_student_before(teacher: pofx.Model) -> None:
    family = pofx.ProgressiveDistillation(first=4, network=SMALL)
    layout = Layout({"x": LAYOUT.spec["x"]}, teacher=teacher)
    phases, body = family.phases(layout), body_of(family)
    assert [phase.name for phase in phases] == ["to-4", "to-2", "to-1"]
    for parameter in body.network.parameters():
        parameter.data += 0.1 * numbers(*parameter.shape)
    phases[1].estimate(body, None, None)  # type: ignore[misc, arg-type]
    x, t = numbers(10, 2), torch.ones(10, dtype=torch.float64)
    slope = phases[1].updates[0].loss.target(body, x, t, 0.5 * t, Events({"x": x}))  # type: ignore[attr-defined]
    middle = x - 0.25 * body.network(x, t)
    end = middle - 0.25 * body.network(middle, 0.75 * t)
    torch.testing.assert_close(x - 0.5 * slope, end, atol=1e-14, rtol=0)


# Mean flow


def test_the_derivative_along_a_direction() -> None:
    network = ResidualMLP(width=16, layers=1, zero_start=False).build(
        pofx.networks.NetworkShape(LAYOUT.spec["x"], times=1)
    )
    network, x, v, t = network.double(), numbers(5, 2), numbers(5, 2, seed=3), torch.rand(5, dtype=torch.float64)
    h = 1e-6
    found = along(network, (x, t), (v, torch.ones_like(t)))
    difference = (network(x + h * v, t + h) - network(x - h * v, t - h)) / (2 * h)
    torch.testing.assert_close(found, difference.detach(), atol=1e-8, rtol=1e-6)
    assert not found.requires_grad


def test_the_mean_velocity_obeys_the_identity() -> None:
    family = pofx.MeanFlow()
    exact = MeanVelocity(lambda both: (both[:, 0], both[:, 0] - both[:, 1]))
    s, gap = (
        0.8 * torch.rand(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).unbind(1)[0],
        0.15,
    )
    t, x = s + gap, numbers(100, 2)
    target = family.target(exact, x, linear_path_velocity(x, t, MEAN, COVARIANCE), (t, s), Events({"x": x}))
    torch.testing.assert_close(target, family.velocity(exact, x, t, s, None, None), atol=1e-9, rtol=0)


def test_a_step_and_the_rest_are_the_whole() -> None:
    """Up to the error of one step of Heun's method, of third order."""
    exact = MeanVelocity(lambda both: (both[:, 0], both[:, 0] - both[:, 1]))
    t, x = torch.linspace(0.6, 1.0, 100, dtype=torch.float64), numbers(100, 2)
    s = t - 0.5

    def error(step: float) -> float:
        family = pofx.MeanFlow(step=step)
        target = family.stepped(body_of(family, exact), x, (t, s), Events({"x": x}))
        return float((target - family.velocity(exact, x, t, s, None, None)).abs().max())

    assert error(0.01) < 1e-4
    assert 6.0 < error(0.04) / error(0.02) < 10.0


def test_what_is_learnt_first_stays() -> None:
    """The second phase does not move the velocity of the first."""
    models = [
        pofx.MeanFlow(network=SMALL).fit(
            events_of(500), training=QUICK.replace(max_steps={"velocity": 30, "mean-flow": n})
        )
        for n in (1, 20)
    ]
    one, other = (model.fitted.body.first.state_dict() for model in models)
    assert all(torch.equal(other[name], value) for name, value in one.items())
    moved = models[1].fitted.body.network.state_dict()
    assert not all(torch.equal(moved[name], value) for name, value in other.items())


@pytest.mark.parametrize("step", [None, 1 / 16])
def test_one_event_has_no_loss(step: float | None) -> None:
    """If all events are the same, paths do not cross: the mean velocity is (x - event) / t, and the loss zero."""
    family, event = pofx.MeanFlow(apart=1.0, step=step), torch.tensor([0.5, -1.0], dtype=torch.float64)

    class Straight(nn.Module):
        def forward(self, x: Tensor, times: Tensor, context: object, mask: object) -> Tensor:
            return (x - event) / times[:, :1]

    loss = family.loss(
        body_of(family, Straight()),
        Events({"x": event.expand(300, 2)}),
        Noise(1, torch.arange(300), dtype=torch.float64),
    )
    assert float(loss.logs["squares"].max()) < 1e-20


def test_times_are_ordered_and_some_are_the_same() -> None:
    t, s = pofx.MeanFlow(apart=0.25, times="logit-normal").draw_times(Noise(1, torch.arange(20_000)))
    assert bool((s <= t).all())
    assert float((s < t).float().mean()) == pytest.approx(0.25, abs=0.015)
    logit = torch.cat((torch.logit(t[s < t]), torch.logit(s[s < t])))
    assert float(logit.mean()) == pytest.approx(-0.4, abs=0.06)


# Shortcuts


def _of_level(both: Tensor) -> tuple[Tensor, Tensor]:
    """t and s of the numbers that the network of a shortcut model of 16 steps sees."""
    t, level = both.unbind(1)
    return t, t - torch.where(level > 0, 2.0 ** (4.0 * level) / 16.0, 0.0)


def test_two_short_steps_of_the_exact_map_are_the_long_one() -> None:
    family, exact = pofx.Shortcut(finest=16), MeanVelocity(_of_level)
    body, x = body_of(family, exact), numbers(40, 2)
    for d in (0.25, 0.5, 1.0):
        t, step = torch.ones(40, dtype=torch.float64), torch.full((40,), d, dtype=torch.float64)
        target = family.target(body, x, t, step, Events({"x": x}))
        torch.testing.assert_close(target, family.velocity(exact, x, t, t - step, None, None), atol=1e-12, rtol=0)


def test_steps_start_where_sampling_starts_them() -> None:
    family, doubled = pofx.Shortcut(finest=16), torch.arange(4000) % 2 == 0
    t, d = family.draw_times(Noise(1, torch.arange(4000), dtype=torch.float64), doubled)
    assert bool((d[~doubled] == 0).all())
    assert set(d[doubled].tolist()) == {1.0, 0.5, 0.25, 0.125}
    whole = t[doubled] / d[doubled]
    assert bool((whole == whole.round()).all())
    assert bool((t[doubled] - d[doubled] >= 0).all())


# What is learnt


@pytest.mark.parametrize(
    ("family", "steps"),
    [
        (pofx.Consistency(network=SMALL, intervals=8, target_decay=0.8), 150),
        pytest.param(pofx.ProgressiveDistillation(network=SMALL, first=2), 400, marks=pytest.mark.slow),
        pytest.param(
            pofx.ProgressiveDistillation(network=SMALL, first=4, steps=2, weighting="velocity"),
            400,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["consistency", "progressive", "progressive-2"],
)
def test_a_taught_student_learns_the_map_of_the_flow(teacher: pofx.Model, family: StudentFamily, steps: int) -> None:
    student = family.fit(events_of(4000), teacher=teacher, training=QUICK.replace(max_steps=steps))
    noise = student.noise(2000, seed=3)
    apart = student.decode(noise).detach() - (MEAN + noise["z"].double() @ matrix_power(COVARIANCE, 0.5))
    assert float(apart.square().mean().sqrt()) < 0.08


def narrowing(intervals: int) -> float:
    """The share of the variance of normal events that consistency training of so many intervals ends with, in closed form.

    The function of each time is the mean of that of the time before, given the later point: a product of regression slopes.
    """
    times = _times(noise_levels(intervals))
    s, t = times[:-1], times[1:]
    slopes = ((1 - s) * (1 - t) + s * t) / ((1 - t) ** 2 + t**2)
    return float(slopes.prod()) ** 2


@pytest.mark.slow
def test_many_columns_keep_their_width() -> None:
    """Without the velocity first, as many steps leave 0.52."""
    x = np.random.default_rng(1).normal(size=(8000, 20))
    family = pofx.ConsistencyTraining(network=SMALL, preprocess="none")
    sample = family.fit(x, training=QUICK.replace(max_steps=300)).sample(4000, seed=1)
    assert sample.var(0).mean() > 0.8


def test_a_batch_without_weight_teaches() -> None:
    x, weight = events_of(300), (np.arange(300) < 20) + 0.0
    model = pofx.ConsistencyTraining(network=SMALL).fit(
        x, weight=weight, training=QUICK.replace(max_steps=40, batch_size=4)
    )
    assert np.isfinite(model.sample(10, seed=1)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "steps", "share", "error"),
    [
        (pofx.ConsistencyTraining(network=SMALL), 800, 1.0, 0.08),
        (pofx.ConsistencyTraining(network=SMALL, targets="path", intervals=(4, 16)), 1200, narrowing(16), 0.2),
        (pofx.MeanFlow(network=SMALL), 800, 1.0, 0.15),
        (pofx.MeanFlow(network=SMALL, step=None, apart=0.5), 3000, 1.0, 0.15),
        (pofx.Shortcut(network=SMALL, finest=32, target_decay=0.9), 800, 1.0, 0.15),
        (pofx.Shortcut(network=SMALL, finest=32, target_decay=0.9, warm_up=False, consistent=0.25), 1200, 1.0, 0.15),
    ],
    ids=[
        "consistency-training",
        "consistency-training-path",
        "mean-flow",
        "mean-flow-paper",
        "shortcut",
        "shortcut-paper",
    ],
)
def test_a_student_without_a_teacher_learns_it_too(
    family: StudentFamily, steps: int, share: float, error: float
) -> None:
    """Errors as shares of the variances; over two or three seeds: 0.04, by path 0.2, mean flow and shortcuts 0.14 (too narrow)."""
    student = family.fit(events_of(8000), training=QUICK.replace(max_steps=steps))
    sample = student.sample(4000, seed=1)
    assert np.abs(sample.mean(0) - MEAN.numpy()).max() < 0.15
    widths = COVARIANCE.diagonal().sqrt().numpy()
    apart = np.cov(sample.T) / share - COVARIANCE.numpy()
    assert np.abs(apart / np.outer(widths, widths)).max() < error


def test_the_narrowing_of_consistency_training_ends() -> None:
    assert narrowing(16) == pytest.approx(0.72, abs=0.005)
    assert 1.0 - narrowing(1280) < 0.005


def test_steps_of_a_shortcut_begin_as_the_velocity() -> None:
    """As shares of its square, 0.001 at most; untaught steps 0.03 to 0.07, from where training in 50 columns ran away."""
    x = np.random.default_rng(3).normal(size=(4000, 20)) @ np.random.default_rng(4).normal(size=(20, 20))
    family = pofx.Shortcut(network=SMALL, finest=16)
    network = family.fit(x, training=QUICK.replace(max_steps={"velocity": 400, "shortcut": 1})).fitted.body.network
    y, t = numbers(2000, 20).float(), numbers(2000, 1)[:, 0].float().sigmoid()
    with torch.no_grad():
        velocity = family.velocity(network, y, t, t, None, None)
        for level in range(5):
            step = family.velocity(network, y, t, t - 2.0**level / 16, None, None)
            assert (step - velocity).square().mean() < 0.005 * velocity.square().mean()


@pytest.mark.slow
def test_a_shortcut_does_what_its_finest_steps_do() -> None:
    """Four Euler steps of the velocity, which fall short of the width of the events by a quarter."""
    student = pofx.Shortcut(network=SMALL, finest=4, target_decay=0.9, preprocess="none").fit(
        events_of(8000), training=QUICK
    )
    noise = student.noise(2000, seed=3)
    euler = Euler(steps=4).solve(lambda t, x, rows: NormalVelocity()(x, t), noise["z"].double(), 1.0, 0.0).x
    assert float((student.decode(noise).detach() - euler).square().mean().sqrt()) < 0.12


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*ALONE, pofx.Consistency])
def test_a_peak_across_the_seam(kind: type[StudentFamily]) -> None:
    rng = np.random.default_rng(1)
    x = np.stack([rng.vonmises(math.pi, 4.0, 4000), rng.normal(size=4000)], 1)
    data = pofx.Dataset.from_arrays(x, declare="x0:rad:periodic:-pi:pi")
    known = pofx.FlowMatching(network=SMALL).fit(data, training=QUICK) if kind is pofx.Consistency else None
    training = QUICK if known else QUICK.replace(max_steps=1500)  # ends of paths of single events teach more slowly
    sample = kind(network=SMALL).fit(data, training=training, teacher=known).sample(2000, seed=1)[:, 0]
    assert np.abs(sample).max() <= math.pi
    assert np.abs(np.exp(1j * sample).mean() + 0.8635) < 0.15  # I1(4) / I0(4)


# Teachers


def test_a_student_begins_as_its_teacher() -> None:
    x = events_of(1000)
    model = pofx.FlowMatching(network=SMALL, solver=Euler(steps=1)).fit(x, training=QUICK.replace(max_steps=30))
    one = QUICK.replace(max_steps=1, learning_rate=1e-12)
    family = pofx.Consistency(network=SMALL)
    np.testing.assert_allclose(
        family.fit(x, teacher=model, training=one).sample(50, seed=1), model.sample(50, seed=1), atol=1e-4
    )
    other = pofx.Consistency(network=SMALL, warm_start=False).fit(x, teacher=model, training=one)
    assert np.abs(other.sample(50, seed=1) - model.sample(50, seed=1)).max() > 1e-2
    for activation, same in (("silu", True), ("tanh", False)):
        network = ResidualMLP(width=32, layers=2, embedding=16, activation=activation)
        student = pofx.Consistency(network=network).fit(x, teacher=model, training=one)
        mine, theirs = student.fitted.body.network.state_dict(), model.fitted.body.network.state_dict()
        assert all(torch.allclose(mine[name], value, atol=1e-6) for name, value in theirs.items()) is same
    smaller = pofx.Consistency(network=ResidualMLP(width=8, layers=1, embedding=8))
    assert smaller.fit(x, teacher=model, training=one).card["parameters"] < model.card["parameters"]


def test_a_teacher_is_what_it_was_whatever_the_precision(teacher: pofx.Model) -> None:
    known = Teacher(pofx.Consistency(), teacher)
    x, t = numbers(5, 2), torch.full((5,), 0.5, dtype=torch.float64)
    moved = known.move(RK4(steps=30), x, t, torch.zeros_like(t), None, None)
    torch.testing.assert_close(moved, flow_map(x, t, torch.zeros_like(t)), atol=1e-6, rtol=0)
    assert known.body(x.float()) is known.body(x.float())
    assert known.move(Euler(steps=1), x.float(), t.float(), 0 * t.float(), None, None).dtype == torch.float32


@pytest.mark.parametrize("kind", [pofx.Consistency, pofx.ProgressiveDistillation])
def test_other_teachers_are_refused(kind: type[StudentFamily]) -> None:
    x = events_of(300)
    with pytest.raises(CapabilityError, match="is a student"):
        kind().fit(x)
    with pytest.raises(CapabilityError, match="moves along an ODE"):
        kind().fit(x, teacher=pofx.Gaussian().fit(x))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (pofx.MeanFlow, {"steps": 0}, "steps"),
        (pofx.MeanFlow, {"steps": 1.5}, "integer"),
        (pofx.MeanFlow, {"apart": 2.0}, "apart"),
        (pofx.MeanFlow, {"step": 0.0}, "step"),
        (pofx.Consistency, {"metric": "cubic"}, "metric"),
        (pofx.ConsistencyTraining, {"intervals": (10, 5)}, "increasing"),
        (pofx.ProgressiveDistillation, {"first": 6}, "power of two"),
        (pofx.ProgressiveDistillation, {"weighting": "none"}, "weighting"),
        (pofx.Shortcut, {"finest": 12}, "powers of two"),
        (pofx.Shortcut, {"finest": 4, "steps": 8}, "powers of two"),
    ],
)
def test_settings_are_checked(kind: type[StudentFamily], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


# A teacher with another path


class Recorder(nn.Module):
    """A network that remembers where it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, context: object = None, mask: object = None) -> Tensor:
        self.seen.append((x, t))
        return torch.zeros_like(x)


def test_students_learn_on_the_path_of_an_edm_teacher() -> None:
    """Its path is a circle, not a line: points of training lie on it, and the teacher's steps follow its flow, known for normal events."""
    family = pofx.EDM(preprocess="none", network=SMALL, density_solver=RK4(steps=2))
    model = taught(family)  # type: ignore[arg-type]
    model.fitted.body.network = Analytic(family, NORMAL)
    events = Events({"x": numbers(50, 2)}, index=torch.arange(50))
    layout = Layout({"x": vector_spec(2)["x"]}, teacher=model)
    noise = Noise(1, events.index, dtype=torch.float64)
    e = noise.normal("e", 2)
    for student in (pofx.Consistency(network=SMALL), pofx.ProgressiveDistillation(network=SMALL)):
        body = student.build(layout).double()
        body.network = Recorder()
        student.phases(layout)[0].updates[0].loss(body, events, noise)
        ((place, t),) = body.network.seen
        angle = (0.5 * math.pi * t)[:, None]
        torch.testing.assert_close(place, angle.cos() * events.x + angle.sin() * e, atol=1e-6, rtol=0)
    t, s = torch.full((50,), 0.7, dtype=torch.float64), torch.full((50,), 0.2, dtype=torch.float64)
    found = Teacher(pofx.Consistency(), model).move(RK4(steps=20), place, t, s, None, None)
    before, after = 0.5 * math.pi * t[0], 0.5 * math.pi * s[0]
    one = torch.eye(2, dtype=torch.float64)
    there, here = (a.cos() ** 2 * COVARIANCE + a.sin() ** 2 * one for a in (after, before))
    stretch = matrix_power(there, 0.5) @ matrix_power(here, -0.5)
    truth = after.cos() * MEAN + (place - before.cos() * MEAN) @ stretch.T
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)
