"""The loop against closed forms: convergence, weights, accumulation, average, validation, limits, precision."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from torch import nn
from training_toys import Gaussian, fit, mlp, nll, normal, quick, source, weights

from pofx.data.events import Events
from pofx.errors import ConfigError, PofxWarning, ShapeError, TrainingError
from pofx.training import FunctionSource, Loss, Phase, Update, estimate_cost, train


def sgd(rate: float):
    return lambda named: torch.optim.SGD([p for _, p in named], lr=rate)


def gradient(x, weight, batch_size=10_000):
    """The gradient that the loop computes on the first batch, in float64."""
    net = mlp(2, 8, 1).double()
    before = weights(net)
    squares = lambda net, events, noise: Loss(net(events.x)[:, 0] ** 2 + 1)  # noqa: E731
    phase = Phase("fit", (Update("u", squares, optimiser=sgd(1.0)),))
    train(
        net, [phase], source(x, weight, batch_size=batch_size), quick(max_epochs=None, max_steps=1, precision="float64")
    )
    return before - weights(net)


def test_gaussian_reaches_the_weighted_maximum_of_the_likelihood():
    x = normal(400).astype("f8")
    weight = np.random.default_rng(1).normal(1.0, 0.7, 400)  # some are negative
    mean = weight @ x / weight.sum()
    std = np.sqrt(weight @ (x - mean) ** 2 / weight.sum())
    net = Gaussian()
    settings = quick(max_epochs=1500, batch_size=400, learning_rate=0.05, precision="float64")
    train(net, [fit()], source(x, weight, batch_size=400), settings)
    assert net.mean.detach().numpy() == pytest.approx(mean, abs=1e-6)
    assert net.log_std.exp().detach().numpy() == pytest.approx(std, abs=1e-6)


def test_weights_are_duplicated_events():
    x, weight = normal(50).astype("f8"), np.random.default_rng(0).integers(0, 4, 50).astype("f8")
    twice = gradient(np.repeat(x, weight.astype(int), axis=0), None)
    assert gradient(x, weight) == pytest.approx(twice, rel=1e-10, abs=1e-12)
    assert gradient(x, 3.7 * weight) == pytest.approx(twice, rel=1e-10, abs=1e-12)


def test_negative_weights_take_events_away():
    x = normal(30).astype("f8")
    weight = np.r_[np.ones(30), -np.ones(10)]
    assert gradient(np.r_[x, x[:10]], weight) == pytest.approx(gradient(x[10:], None), rel=1e-10, abs=1e-12)


def test_mini_batches_are_unbiased():
    """The mean of the loop's loss over the batches of an epoch is the full weighted mean."""
    x, weight = normal(100).astype("f8"), np.random.default_rng(0).normal(1, 1, 100)
    net = Gaussian().double()
    phase = Phase("fit", (Update("u", nll, optimiser=sgd(1e-300)),))
    settings = quick(max_epochs=1, precision="float64", batch_size=10)
    record = train(net, [phase], source(x, weight, batch_size=10), settings)
    assert record.history[0].train_loss == pytest.approx((weight @ (x**2 / 2).sum(1)) / weight.sum(), rel=1e-10)


@pytest.mark.parametrize("pieces", [2, 3, 7])
def test_accumulation_is_the_big_batch(pieces):
    def loss(net, events, noise):
        x = events.x + noise.normal("jitter", 2)
        return Loss(net(x)[:, 0] ** 2, extra=sum(p.square().sum() for p in net.parameters()))

    nets = []
    for accumulate in (1, pieces):
        nets.append(mlp(2, 8, 1).double())
        settings = quick(accumulate=accumulate, precision="float64", clip=0.1, max_epochs=2)
        train(nets[-1], [fit(loss)], source(normal(500), np.linspace(0, 1, 500)), settings)
    assert weights(nets[0]) == pytest.approx(weights(nets[1]), rel=1e-9, abs=1e-12)


def test_average_against_its_closed_form():
    """Constant gradient -1 and rate r: after step t the weight is r t, its average a known sum."""
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    rate, decay, steps = 0.5, 0.8, 40
    loss = lambda net, events, noise: Loss(-net.weight.sum() * torch.ones(len(events), dtype=torch.float64))  # noqa: E731
    phase = Phase("fit", (Update("u", loss, optimiser=sgd(rate)),), keep="last")
    train(net, [phase], source(normal(10)), quick(max_epochs=None, max_steps=steps, ema=decay, precision="float64"))
    expected = 0.0
    for t in range(1, steps + 1):
        d = min(decay, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * rate * t
    assert net.weight.item() == pytest.approx(expected, rel=1e-12)


def test_validation_loss_and_its_error():
    x, val = normal(100), normal(1000, 1)
    record = train(Gaussian(), [fit()], source(x, val=val), quick(max_epochs=1, learning_rate=1e-30))
    terms = (val.astype("f8") ** 2 / 2).sum(1)
    assert record.history[-1].validation_loss == pytest.approx(terms.mean(), rel=1e-5)
    assert record.history[-1].validation_error == pytest.approx(terms.std() / math.sqrt(1000), rel=1e-4)


def test_validation_is_in_evaluation_mode_with_the_same_noise():
    seen = []

    def loss(net, events, noise):
        if not net.training:
            seen.append(noise.normal("z").sum().item())
            assert not torch.is_grad_enabled()
        return nll(net, events, noise)

    train(Gaussian(), [fit(loss)], source(normal(100), val=normal(50)), quick(max_epochs=4))
    assert len(seen) == 5  # the untrained weights are validated too
    assert len(set(seen)) == 1


def test_best_weights_are_kept():
    """The monitor is smallest on the way: those weights are put back."""
    data = source(normal(300), val=normal(300, 1))
    net, kept = Gaussian(), []

    def monitor(net, events, noise):
        kept.append(weights(net))
        return Loss((net.mean[1] - 0.5).square().expand(len(events)))

    record = train(net, [Phase("fit", fit().updates, monitor=monitor)], data, quick(max_epochs=30, learning_rate=0.1))
    losses = [row.validation_loss for row in record.history]
    assert 0 < np.argmin(losses) < 29
    assert torch.equal(weights(net), kept[int(np.argmin(losses)) + 1])  # the first is that of the untrained weights
    assert record.best_loss == min(losses)
    assert record.best_step == record.history[int(np.argmin(losses))].step


def test_last_weights_are_kept_where_asked_for():
    net = Gaussian()
    record = train(
        net, [Phase("fit", fit().updates, keep="last")], source(normal(300), val=normal(300, 1)), quick(patience=1)
    )
    assert record.best_step is None
    assert record.stopped_by == "epochs"


def test_patience():
    data = source(normal(300), val=normal(300, 1))
    worse = lambda net, events, noise: Loss(-nll(net, events, noise).per_event)  # noqa: E731
    phase = Phase("fit", (Update("nll", nll),), monitor=worse)
    record = train(Gaussian(), [phase], data, quick(max_epochs=50, patience=3, learning_rate=0.01))
    assert record.stopped_by == "patience"
    assert (record.best_step, record.steps) == (0, 9)
    assert train(Gaussian(), [phase], data, quick(max_epochs=50, patience=4, validate_every=2)).steps == 12


def test_time_budget_plans_steps_and_repeats_bit_for_bit():
    data = source(normal(3000), val=normal(300, 1))
    net, again = Gaussian(), Gaussian()
    phases = [fit(), Phase("more", fit().updates, training={"learning_rate": 1e-2})]
    settings = quick(max_epochs=None, max_minutes=0.7 / 60, ema=0.9)
    record = train(net, phases, data, settings)
    assert record.stopped_by == "minutes"
    assert record.seconds < 2
    assert all(record.phase_steps[name] <= record.budget_steps[name] for name in ("fit", "more"))
    limits = {"max_minutes": None, "max_steps": record.phase_steps, "horizon": record.budget_steps}
    repeated = train(again, phases, data, settings.replace(**limits))
    assert torch.equal(weights(net), weights(again))
    assert [row.validation_loss for row in repeated.history] == [row.validation_loss for row in record.history]


def test_the_clock_stops_what_was_planned_too_long():
    import time

    net = Gaussian()

    def slow_later(module, events, noise):
        time.sleep(0.05 if module is net else 0)  # the speed is measured on a copy
        return nll(module, events, noise)

    record = train(net, [fit(slow_later)], source(normal(3000)), quick(max_epochs=None, max_minutes=0.7 / 60))
    assert record.stopped_by == "minutes"
    assert record.seconds < 1.5
    assert record.steps < record.budget_steps["fit"]


@pytest.mark.parametrize(("limits", "steps", "why"), [({"max_steps": 7}, 7, "steps"), ({"max_epochs": 2}, 6, "epochs")])
def test_limits(limits, steps, why):
    record = train(Gaussian(), [fit()], source(normal(300), val=normal(50)), quick(**limits))
    assert (record.steps, record.stopped_by, record.history[-1].step) == (steps, why, steps)
    assert record.history[-1].validation_loss is not None


def test_learning_rate_follows_the_schedule_and_own_optimisers_do_not():
    from pofx.training.schedule import factor

    settings = quick(max_epochs=4, learning_rate=0.1)
    record = train(Gaussian(), [fit()], source(normal(300)), settings)
    assert [row.learning_rate for row in record.history] == [
        0.1 * factor(row.step - 1, 12, settings) for row in record.history
    ]
    own = train(Gaussian(), [Phase("fit", (Update("nll", nll, optimiser=sgd(0.3)),))], source(normal(300)), settings)
    assert {row.learning_rate for row in own.history} == {0.3}


def test_clipping_bounds_the_step():
    net = Gaussian()
    phase = Phase("fit", (Update("nll", nll, optimiser=sgd(1.0)),))
    record = train(net, [phase], source(100 * normal(100)), quick(max_epochs=None, max_steps=1, clip=0.01))
    assert weights(net).norm().item() == pytest.approx(0.01, rel=1e-4)
    assert record.history[0].gradient_norm > 100


def test_every_repeat_and_order_of_updates():
    seen = []

    def noting(name):
        def loss(net, events, noise):
            seen.append((name, noise.step))
            return nll(net, events, noise)

        return loss

    updates = (Update("a", noting("a"), repeat=2), Update("b", noting("b"), every=2))
    record = train(Gaussian(), [Phase("fit", updates)], source(normal(1280)), quick(max_epochs=1))
    assert record.steps == 5
    assert seen[:8] == [("a", 0), ("a", 1), ("b", 0), ("a", 2), ("a", 3), ("a", 4), ("a", 5), ("b", 4)]


def test_patterns_choose_parameters():
    net = Gaussian()
    train(net, [Phase("fit", (Update("nll", nll, parameters=("mea*",)),))], source(normal(300)), quick())
    assert net.log_std.tolist() == [0, 0]
    assert net.log_std.grad is None
    assert (net.mean != 0).all()
    with pytest.raises(
        ConfigError, match=r"update 'nll': the pattern 'x\.\*' matches no trainable parameter; there are mean, log_std"
    ):
        train(net, [Phase("fit", (Update("nll", nll, parameters=("mean", "x.*")),))], source(normal(300)), quick())


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "at least one phase"),
        ([fit(), fit()], "names of phases must be unique"),
        ([Phase("fit", (Update("a", nll), Update("a", nll)))], "names of updates of phase 'fit' must be unique"),
        ([fit(seed=1)], "seed holds for the whole training"),
        ([fit(nothing=1)], "no such setting"),
        ([Phase("fit", (Update("a", nll),), keep="first")], "keep: expected 'best' or 'last'"),
        ([Phase("fit", (Update("a", nll, every=0),))], "every and repeat: expected at least 1"),
    ],
)
def test_phases_that_make_no_sense(phases, message):
    with pytest.raises(ConfigError, match=message):
        train(Gaussian(), phases, source(normal(30)), quick())


def test_steps_for_every_phase_are_needed():
    with pytest.raises(ConfigError, match="max_steps: expected a number for phase 'fit'"):
        train(Gaussian(), [fit()], source(normal(30)), quick(max_steps={"other": 3}))


def test_a_loss_of_the_wrong_shape():
    with pytest.raises(ShapeError, match=r"one term per event, shape \(30,\); got \(\)"):
        train(Gaussian(), [fit(lambda net, e, n: Loss(nll(net, e, n).per_event.mean()))], source(normal(30)), quick())


def test_a_source_that_runs_dry():
    empty = FunctionSource(lambda net, step, noise: Events({"x": noise.normal("x", 2)[:0]}), size=4, steps_per_epoch=3)
    with pytest.raises(TrainingError, match="expected events in batch 0"):
        train(Gaussian(), [fit()], empty, quick())


def test_seed_decides_and_global_generators_are_left_alone():
    def loss(net, events, noise):
        return Loss((net(events.x + noise.normal("z", 2)) ** 2).sum(1))

    def run(seed):
        net = nn.Sequential(mlp(2, 8), nn.Dropout(0.5), mlp(8, 1))
        train(net, [fit(loss)], source(normal(300), seed=seed), quick(seed=seed, max_epochs=2))
        return weights(net)

    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = run(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert torch.equal(run(1), one)
    assert not torch.equal(run(2), one)


def test_bf16_runs_products_low_and_losses_high():
    seen = {}

    class Head(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen["inside"] = out.dtype
            return out

    net = nn.Sequential(Head(2, 4), nn.Tanh(), nn.Linear(4, 1))

    def loss(net, events, noise):
        out = net(events.x)
        seen["outside"] = out.dtype
        return Loss(out[:, 0] ** 2)

    train(net, [fit(loss)], source(normal(300)), quick(precision="bf16", max_epochs=1))
    assert seen == {"inside": torch.bfloat16, "outside": torch.float32}
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert not net[0]._forward_hooks
    assert not net[0]._forward_pre_hooks


def test_deterministic_is_put_back():
    train(Gaussian(), [fit()], source(normal(30)), quick(deterministic=True, max_epochs=1))
    assert not torch.are_deterministic_algorithms_enabled()


def test_module_without_this_device():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="does not find here"):
        train(Gaussian(), [fit()], source(normal(30)), quick(device="cuda"))


def test_csv_has_one_row_per_epoch(tmp_path):
    loss = lambda net, e, n: Loss(nll(net, e, n).per_event, logs={"size": e.x.norm(dim=1)})  # noqa: E731
    settings = quick(log_dir=tmp_path / "logs", tensorboard=False)
    record = train(Gaussian(), [fit(loss)], source(normal(300), val=normal(30)), settings)
    rows = list(csv.DictReader((tmp_path / "logs" / "training.csv").read_text().splitlines()))
    assert [float(row["train_loss"]) for row in rows] == [row.train_loss for row in record.history]
    assert float(rows[0]["logs.nll.size"]) == pytest.approx(np.linalg.norm(normal(300), axis=1).mean(), rel=0.1)


def test_progress_bar_on_demand(capfd):
    train(Gaussian(), [fit()], source(normal(300)), quick(progress=True))
    train(Gaussian(), [fit()], source(normal(300)), quick(progress="auto"))
    assert capfd.readouterr().out == ""


def test_validation_that_is_not_finite_warns_and_is_no_best():
    val = normal(50)
    val[7] = np.inf
    with pytest.warns(PofxWarning, match=r"validation loss is inf \(events \[7\]\)"):
        record = train(Gaussian(), [fit()], source(normal(300), val=val), quick(max_epochs=1))
    assert record.best_step is None


def test_cost_is_a_dry_run():
    net, data = mlp(2, 64, 2), source(normal(3000), val=normal(300, 1))
    loss = lambda net, e, n: Loss(net(e.x).sum(1) ** 2)  # noqa: E731
    before = weights(net)
    settings = quick(max_epochs=20, ema=0.9)
    cost = estimate_cost(net, [fit(loss)], data, settings)
    assert torch.equal(weights(net), before)
    assert cost.parameters == 2 * 64 + 64 + 64 * 2 + 2
    assert 5 * 4 * cost.parameters < cost.memory_bytes < 5 * 4 * cost.parameters + 4 * 128 * (64 * 3 + 20)
    assert cost.total == pytest.approx(20 * cost.seconds_per_epoch)
    assert 0.1 < train(net, [fit(loss)], data, settings).seconds / cost.total < 10
    assert estimate_cost(net, [fit(loss)], data, quick(max_epochs=None, max_minutes=3.0)).total == pytest.approx(
        180, rel=1e-3
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_on_a_gpu_as_on_the_cpu(precision):
    nets = [mlp(2, 16, 2) for _ in range(2)]
    loss = lambda net, e, n: Loss((net(e.x) - n.normal("z", 2)).square().sum(1))  # noqa: E731
    for net, device in zip(nets, ("cpu", "cuda"), strict=True):
        settings = quick(device=device, precision=precision, ema=0.9, clip=1.0)
        train(net, [fit(loss)], source(normal(1000), val=normal(100, 1)), settings)
    assert nets[1][0].weight.device.type == "cpu"
    close = {"float32": 1e-4, "float64": 1e-10, "bf16": 3e-2}[precision]
    assert weights(nets[1]) == pytest.approx(weights(nets[0]), rel=close, abs=close)
