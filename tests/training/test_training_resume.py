"""The training state: bit-exact resume, atomic files, refusal of another training's state."""

from __future__ import annotations

import json
import os
import signal
import threading

import numpy as np
import pytest
import torch
from kill import compare_after_kills, random_moments
from training_toys import Gaussian, fit, mlp, nll, normal, quick, source, weights

from pofx.errors import ConfigError, PofxWarning, TrainingError
from pofx.training import Loss, Phase, Update, train
from pofx.training.state import find_state, read_state, write_state


@pytest.mark.parametrize(("kind", "kills"), [("memory", 1), ("stream", 3)])
@pytest.mark.slow
def test_killed_and_resumed_is_the_same_bit_by_bit(tmp_path, kind, kills):
    found = compare_after_kills(tmp_path, random_moments(kills, 0.5, seed=4), kind, steps=150, every=10)
    assert found["kills"] == kills
    assert found["killed"] == found["alone"]
    assert found["alone"]["steps"] == 300


class Stop(Exception):
    pass


def stopping_after(calls: int):
    """A loss that raises after so many calls: a crash at a known step."""
    left = [calls]

    def loss(net, events, noise):
        left[0] -= net.training
        if left[0] < 0:
            raise Stop
        return nll(net, events, noise)

    return loss


OPTIMISERS = {
    "default": None,
    "lbfgs": lambda named: torch.optim.LBFGS([p for _, p in named], lr=0.1, max_iter=3, history_size=4),
    "rprop": lambda named: torch.optim.Rprop([p for _, p in named]),
    "asgd": lambda named: torch.optim.ASGD([p for _, p in named]),
    "amsgrad": lambda named: torch.optim.AdamW(named, amsgrad=True),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_resumes(tmp_path, name):
    def run(loss, path):
        net = Gaussian()
        phase = Phase("fit", (Update("nll", loss, optimiser=OPTIMISERS[name]),))
        settings = quick(max_epochs=4, checkpoint=path, checkpoint_every=1, ema=0.9)
        return net, train(net, [phase], source(normal(900), val=normal(100, 1)), settings)

    expected, record = run(nll, None)
    for stop in (1, 13, 30):
        with pytest.raises(Stop):
            run(stopping_after(stop), tmp_path / f"state{stop}")
        found, again = run(nll, tmp_path / f"state{stop}")
        assert torch.equal(weights(found), weights(expected)), stop
        assert [row.train_loss for row in again.history] == [row.train_loss for row in record.history], stop


def test_a_finished_training_returns_at_once(tmp_path):
    settings, data = quick(checkpoint=tmp_path / "state"), source(normal(500), val=normal(100, 1))
    first = Gaussian()
    record = train(first, [fit()], data, settings)
    again = Gaussian()
    assert train(again, [fit(stopping_after(0))], data, settings).steps == record.steps
    assert torch.equal(weights(first), weights(again))


def test_resume_must_and_never(tmp_path):
    settings, data = quick(checkpoint=tmp_path / "state", max_epochs=1), source(normal(300))
    with pytest.raises(TrainingError, match="expected a checkpoint"):
        train(Gaussian(), [fit()], data, settings, resume="must")
    with pytest.raises(TrainingError, match="expected a checkpoint"):
        train(Gaussian(), [fit()], data, quick(), resume="must")
    with pytest.raises(ConfigError, match="'auto', 'must' or 'never'"):
        train(Gaussian(), [fit()], data, settings, resume="yes")
    train(Gaussian(), [fit()], data, settings)
    train(Gaussian(), [fit()], data, settings, resume="must")
    with pytest.raises(Stop):
        train(Gaussian(), [fit(stopping_after(0))], data, settings, resume="never")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        (
            "settings.learning_rate: the checkpoint has 0.001, this training 0.002",
            {"settings": {"learning_rate": 2e-3}},
        ),
        ("phases.fit.updates.nll.parameters", {"phase": Phase("fit", (Update("nll", nll, parameters=("mean",)),))}),
        ("phases.other", {"phase": Phase("other", (Update("nll", nll),))}),
        ("data.sum_of_first_values", {"x": normal(300, 5)}),
        ("weights.mean", {"net": Gaussian(2).double()}),
    ],
)
def test_state_of_another_training_is_refused(tmp_path, what, change):
    path = tmp_path / "state"
    train(Gaussian(), [fit()], source(normal(300)), quick(checkpoint=path, max_epochs=1))
    settings = quick(checkpoint=path, max_epochs=1, **change.get("settings", {}))
    if "net" in change:
        settings = settings.replace(precision="float64")
    with pytest.raises(TrainingError, match=what):
        train(
            change.get("net", Gaussian()), [change.get("phase", fit())], source(change.get("x", normal(300))), settings
        )


def test_bookkeeping_may_change(tmp_path):
    data = source(normal(300))
    train(Gaussian(), [fit()], data, quick(checkpoint=tmp_path / "state"))
    train(
        Gaussian(),
        [fit()],
        data,
        quick(checkpoint=tmp_path / "state", checkpoint_every=3, log_dir=tmp_path, tensorboard=False),
    )


def test_state_round_trip(tmp_path):
    state = {
        "a": [1, 2.5, None, True, "x", (torch.arange(3), -0.0)],
        3: {"nested": np.float32(0.1), "array": np.arange(4.0).reshape(2, 2)},
        "odd": {
            "inf": float("inf"),
            "seed": 2**62 + 1,
            "empty": torch.zeros(0, 3),
            "half": torch.ones(2, dtype=torch.bfloat16),
        },
        "tied": torch.ones(4)[::2],
        ("a", 1): "tuple key",
    }
    write_state(tmp_path / "s", state)
    found = read_state(tmp_path / "s")
    assert list(found) == list(state)
    assert found["a"][:5] == state["a"][:5]
    assert torch.equal(found["a"][5][0], torch.arange(3))
    assert found["odd"]["inf"] == float("inf")
    assert found["odd"]["seed"] == 2**62 + 1
    assert found["odd"]["half"].dtype == torch.bfloat16
    assert found["odd"]["empty"].shape == (0, 3)
    assert np.array_equal(found[3]["array"], state[3]["array"])
    assert torch.equal(found["tied"], torch.ones(2))


def test_what_takes_pickle_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"state\.a\.0: .* got object"):
        write_state(tmp_path / "s", {"a": [object()]})


def test_damaged_state_falls_back_to_the_previous_one(tmp_path):
    path = tmp_path / "s"
    assert find_state(path) is None
    write_state(path, {"number": 1})
    write_state(path, {"number": 2})
    assert find_state(path) == {"number": 2}
    path.write_bytes(path.read_bytes()[:-3] if path.stat().st_size > 200 else b"x")
    path.write_bytes(b"damaged")
    assert find_state(path) == {"number": 1}
    path.with_name("s.previous").unlink()
    with pytest.raises(TrainingError, match="damaged"):
        find_state(path)


def test_no_pickle_in_the_file(tmp_path):
    train(
        mlp(2, 4, 2),
        [fit(lambda net, e, n: Loss(net(e.x).sum(1) ** 2))],
        source(normal(300)),
        quick(checkpoint=tmp_path / "s"),
    )
    size = int.from_bytes((tmp_path / "s").read_bytes()[:8], "little")
    assert json.loads((tmp_path / "s").read_bytes()[8 : 8 + size])["__metadata__"]


@pytest.fixture
def ctrl_c():
    """Ctrl-C as on a terminal; where the tests run in the background it may be ignored, and then training ignores it too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("how", ["signal", "raise"])
def test_interrupt_keeps_the_checkpoint_and_the_best_weights(tmp_path, how):
    assert threading.current_thread() is threading.main_thread()
    data = source(normal(900), val=normal(100, 1))
    calls = []

    def loss(net, events, noise):
        calls.append(net.training)
        if sum(calls) == 20:
            if how == "raise":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)
        return nll(net, events, noise)

    interrupted, whole, resumed = Gaussian(), Gaussian(), Gaussian()
    settings = quick(checkpoint=tmp_path / "state", checkpoint_every=1000.0, ema=0.9)
    with pytest.warns(PofxWarning, match="interrupted in phase 1 of 1, step"):
        record = train(interrupted, [fit(loss)], data, settings)
    assert record.stopped_by == "interrupt"
    assert record.steps == (19 if how == "raise" else 20)
    assert record.best_step == 16
    expected = train(whole, [fit()], data, quick(ema=0.9))
    found = train(resumed, [fit()], data, settings)
    assert torch.equal(weights(whole), weights(resumed))
    assert found.steps == expected.steps
