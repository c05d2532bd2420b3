"""What the contract makes possible, each in about ten lines: nothing below needs a loop of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from training_toys import Gaussian, mlp, nll, normal, quick, source

from pofx.data.events import Events
from pofx.training import FunctionSource, Loss, Phase, TeacherSource, Update, train


def test_gan_is_one_phase_with_two_updates():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator, self.critic = nn.Linear(2, 2), mlp(2, 32, 1)

        def fake(self, noise):
            return self.generator(noise.normal("z", 2))

    def critic(net, events, noise):
        return Loss(
            nn.functional.softplus(-net.critic(events.x))[:, 0]
            + nn.functional.softplus(net.critic(net.fake(noise).detach()))[:, 0]
        )

    def generator(net, events, noise):
        return Loss(nn.functional.softplus(-net.critic(net.fake(noise)))[:, 0])

    phase = Phase(
        "adversarial",
        (Update("critic", critic, ("critic.*",), repeat=2), Update("generator", generator, ("generator.*",))),
        keep="last",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Gan()
    train(net, [phase], source(normal(2000)), quick(max_epochs=60, learning_rate=5e-3, schedule="constant", ema=0.99))
    assert net.generator.bias.detach().numpy() == pytest.approx([0, 1], abs=0.35)


def test_two_phases_autoencoder_then_density_on_its_latent():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder, self.density = nn.Linear(2, 1), nn.Linear(1, 2), Gaussian(1)

    def reconstruct(net, events, noise):
        return Loss((net.decoder(net.encoder(events.x)) - events.x).square().sum(1))

    def density(net, events, noise):
        return nll(net.density, events.replace(fields={"x": net.encoder(events.x).detach()}), noise)

    net, line = Two(), np.linspace(-1, 1, 500)[:, None].astype("f4") * np.array([[1.0, 2.0]], "f4")
    phases = [
        Phase(
            "autoencoder",
            (Update("reconstruct", reconstruct, ("encoder.*", "decoder.*")),),
            training={"learning_rate": 0.02},
        ),
        Phase("density", (Update("nll", density, ("density.*",)),), training={"learning_rate": 0.05, "max_epochs": 60}),
    ]
    record = train(net, phases, source(line, val=line[::5]), quick(max_epochs=120))
    latent = net.encoder(torch.from_numpy(line)).detach()
    assert net.density.mean.item() == pytest.approx(latent.mean().item(), abs=0.05)
    assert net.density.log_std.exp().item() == pytest.approx(latent.std().item(), rel=0.05)
    assert record.phase_steps == {"autoencoder": 480, "density": 240}


def test_integrand_sampled_from_the_current_model():
    """MadNIS in one dimension: the variance of f/q is driven to zero, with events from q itself."""

    def integrand(x):
        return 3.0 * torch.exp(-0.5 * ((x - 2.0) / 0.5) ** 2)

    def log_q(net, x):
        return torch.distributions.Normal(net.mean, net.log_std.exp()).log_prob(x)[:, 0]

    def draw(net, step, noise):
        x = net.mean + net.log_std.exp() * noise.normal("z", 1)
        return Events({"x": x}, weight=integrand(x)[:, 0] / log_q(net, x).exp())

    events = FunctionSource(draw, size=256, steps_per_epoch=10, seed=1)
    net = Gaussian(1)
    phase = Phase("fit", (Update("kl", lambda net, e, n: Loss(-log_q(net, e.x))),))
    train(net, [phase], events, quick(max_epochs=60, learning_rate=0.02))
    ratio = events.next(net, 10_000).weight
    assert ratio.mean().item() == pytest.approx(3.0 * 0.5 * math.sqrt(2 * math.pi), rel=0.01)
    assert (ratio.std() / ratio.mean()).item() < 0.1


def test_student_with_a_teacher():
    teacher = mlp(2, 8, 1)
    data = TeacherSource(
        lambda step, noise: Events({"x": noise.normal("x", 2)}), size=128, steps_per_epoch=10, validation_events=100
    )
    with torch.no_grad():
        student = mlp(2, 8, 1)
        for p in student.parameters():
            p.mul_(0.5)
    loss = lambda net, events, noise: Loss((net(events.x) - teacher(events.x)).square()[:, 0])  # noqa: E731
    record = train(student, [Phase("distil", (Update("match", loss),))], data, quick(max_epochs=80, learning_rate=0.02))
    assert record.best_loss < 1e-4
    assert all(p.grad is None for p in teacher.parameters())


def test_variational_weights_add_their_divergence():
    """Mean of a Gaussian with unit variance and prior N(0, 1): the posterior is N(n xbar/(n + 1), 1/(n + 1))."""

    class Variational(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.log_std = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def loss(net, events, noise):
        draws = noise.at(noise.step).normal("w", 1)
        kl = 0.5 * (net.mean**2 + (2 * net.log_std).exp() - 1) - net.log_std
        return Loss(0.5 * (events.x - net.mean - net.log_std.exp() * draws).square()[:, 0], extra=kl.sum() / data.size)

    x = np.random.default_rng(0).normal(1.0, 1.0, (20, 1)).astype("f4")
    data, net = source(x, batch_size=20), Variational()
    train(net, [Phase("fit", (Update("elbo", loss),))], data, quick(max_epochs=600, learning_rate=0.05, ema=0.99))
    assert net.mean.item() == pytest.approx(20 * x.mean() / 21, abs=0.01)
    assert net.log_std.exp().item() == pytest.approx(1 / math.sqrt(21), rel=0.1)


class Langevin(torch.optim.Optimizer):
    """Underdamped Langevin dynamics with n events: a sampler of weights, dressed as an optimiser."""

    def __init__(self, parameters, n: int, step: float = 0.05) -> None:
        super().__init__(list(parameters), {"n": n, "lr": step})
        self.generator = torch.Generator().manual_seed(1)
        self.kept: list[float] = []

    @torch.no_grad()
    def step(self, closure):
        closure()
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                noise = torch.randn(p.shape, generator=self.generator, dtype=p.dtype)
                momentum.mul_(0.5).add_(-(group["lr"] ** 2) * group["n"] * p.grad).add_(
                    noise, alpha=group["lr"] * math.sqrt(0.75)
                )
                p.add_(momentum)
                self.kept.append(p.sum().item())


def test_sampler_over_weights_is_an_optimiser():
    made = []

    def build(named):
        made.append(Langevin([p for _, p in named], n=20))
        return made[-1]

    x = np.random.default_rng(0).normal(1.0, 1.0, (20, 1)).astype("f4")
    net = Gaussian(1)
    phase = Phase("sample", (Update("posterior", nll, ("mean",), optimiser=build),), keep="last")
    train(net, [phase], source(x, batch_size=20), quick(max_epochs=2000))
    chain = np.array(made[0].kept[200:])
    assert chain.mean() == pytest.approx(x.mean(), abs=0.05)
    assert chain.std() == pytest.approx(1 / math.sqrt(20), rel=0.15)


def test_estimate_before_updates_and_source_of_a_phase():
    calls = []

    def estimate(net, source, training):
        calls.append(sum(len(batch) for batch in source.sweep()))
        with torch.no_grad():
            net.mean.copy_(torch.cat([batch.x for batch in source.sweep()]).mean(0))

    def doubled(net, source):
        x = torch.cat([batch.x for batch in source.sweep()])
        return FunctionSource(lambda net, step, noise: Events({"x": 2 * x[:64]}), size=64, steps_per_epoch=2)

    seen = []

    def loss(net, events, noise):
        seen.append(events.x)
        return nll(net, events, noise)

    net, x = Gaussian(), normal(300)
    record = train(net, [Phase("closed", estimate=estimate)], source(x), quick(ema=0.9))
    assert (record.steps, calls) == (0, [300])
    assert net.mean.detach().numpy() == pytest.approx(x.mean(0), abs=1e-5)
    train(net, [Phase("more", (Update("nll", loss),), source=doubled)], source(x), quick(max_epochs=1))
    assert torch.equal(seen[0], 2 * torch.from_numpy(x[:64]))


def test_steps_that_a_phase_without_updates_did_not_take_are_not_recorded():
    phases, data = [Phase("closed", estimate=lambda *_: None), Phase("fit", (Update("nll", nll),))], source(normal(300))
    record = train(Gaussian(), phases, data, quick(max_epochs=2))
    assert record.phase_steps == record.budget_steps == {"fit": record.steps}
    again = train(Gaussian(), phases, data, quick(max_epochs=None, max_steps=record.budget_steps))
    assert again.history[-1].train_loss == record.history[-1].train_loss
    closed = train(Gaussian(), phases[:1], data, quick(max_epochs=2))
    assert train(Gaussian(), phases[:1], data, quick(max_steps=closed.budget_steps)).steps == closed.steps == 0


def test_a_phase_is_told_how_long_its_schedule_is():
    told = []
    phase = Phase("fit", (Update("nll", nll),), planned=lambda net, steps: told.append(steps))
    train(Gaussian(), [phase], source(normal(300)), quick(max_epochs=2))
    train(Gaussian(), [phase], source(normal(300)), quick(max_epochs=2, horizon=9))
    record = train(Gaussian(), [phase], source(normal(300)), quick(max_epochs=None, max_minutes=0.01))
    assert told == [6, 9, record.budget_steps["fit"]]


def test_after_each_step():
    def clip(net):
        net.mean.clamp_(-0.01, 0.01)

    net = Gaussian()
    train(net, [Phase("fit", (Update("nll", nll, after=clip),))], source(normal(300)), quick(learning_rate=0.1))
    assert net.mean.abs().max() <= 0.01
