"""Settings, schedules, and what a record looks like."""

from __future__ import annotations

import json
import math

import pytest
import torch

from pofx.errors import ConfigError, MissingExtraError
from pofx.training import Record, Training
from pofx.training.logs import Logs
from pofx.training.schedule import factor

BAD = {
    "max_epochs": [0, -1, 1.5, True, "3"],
    "max_steps": [0, 1.0, {"fit": 0}, "x"],
    "max_minutes": [0, -1, math.nan, math.inf, "1"],
    "horizon": [0, 2.5, {"fit": 0}],
    "batch_size": [0, None, 2.0, "all"],
    "learning_rate": [0, -1e-3, math.nan, None],
    "weight_decay": [-1, math.inf, None],
    "optimiser": ["lion", None, 3],
    "schedule": ["step", None],
    "warmup": [-1, 1.0, -0.1, "x", None],
    "patience": [0, 1.5],
    "seed": [-1, None, 0.5],
    "checkpoint": ["", 3],
    "checkpoint_every": [0, -1.0, None],
    "ema": [0, 1, 1.5, "x"],
    "clip": [0, -1],
    "accumulate": [0, None],
    "precision": ["float16", None],
    "device": ["gpu", "cuda:x", 0, None],
    "nan_policy": ["ignore", None],
    "max_skips": [0],
    "log_dir": ["", 1],
    "tensorboard": ["yes", None, 1],
    "progress": ["yes", None],
    "validate_every": [0],
    "deterministic": [None, "no", 1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_value_names_field_expected_and_got(name, value):
    with pytest.raises(ConfigError, match=rf"Training\.{name}: expected .*; got ") as caught:
        Training(**{name: value})
    assert repr(value) in str(caught.value)


def test_every_setting_is_checked():
    assert set(BAD) == set(Training().to_dict())


def test_some_limit_is_needed():
    with pytest.raises(ConfigError, match="at least one of max_epochs"):
        Training(max_epochs=None)


def test_round_trip_through_json():
    training = Training(max_steps={"fit": 3}, warmup=0.1, checkpoint="a/b", ema=0.99)
    assert Training.from_dict(json.loads(json.dumps(training.to_dict()))) == training
    with pytest.raises(ConfigError, match="no such setting"):
        Training.from_dict({"epochs": 3})


def test_one_cycle_is_that_of_torch():
    training = Training(schedule="one-cycle", learning_rate=1.0, warmup=30)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    other = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1.0, total_steps=101, pct_start=31 / 101, cycle_momentum=False
    )
    for step in range(101):
        assert factor(step, 101, training) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        optimiser.step()
        other.step()


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("cosine", lambda u: (1 + math.cos(math.pi * u)) / 2),
        ("linear", lambda u: 1 - u),
        ("constant", lambda u: 1.0),
    ],
)
def test_schedule_against_its_formula(name, formula):
    training = Training(schedule=name, warmup=9)
    assert [factor(step, 110, training) for step in range(9)] == pytest.approx([(step + 1) / 10 for step in range(9)])
    assert [factor(step, 110, training) for step in range(9, 110)] == pytest.approx(
        [formula((step - 9) / 100) for step in range(9, 110)]
    )


def test_warmup_as_a_fraction_is_that_many_steps():
    half, steps = Training(schedule="cosine", warmup=0.5), Training(schedule="cosine", warmup=50)
    assert [factor(i, 100, half) for i in range(100)] == [factor(i, 100, steps) for i in range(100)]


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "linear", "constant"])
def test_very_short_schedules_are_finite(total, schedule):
    assert all(0 <= factor(step, total, Training(schedule=schedule)) <= 1 for step in range(total + 3))


def test_record_round_trip():
    row = {"phase": "fit", "epoch": 1, "step": 2, "train_loss": 0.5, "validation_loss": None, "validation_error": None}
    row |= {"learning_rate": 1e-3, "gradient_norm": 1.0, "seconds": 0.1, "losses": {"a": 1.0}, "logs": {}}
    plain = {"history": [row], "steps": 2, "seconds": 0.1, "stopped_by": "epochs", "best_step": None, "best_loss": None}
    plain |= {
        "budget_steps": {"fit": 2},
        "phase_steps": {"fit": 2},
        "seed": 0,
        "settings": {},
        "skipped_steps": 0,
        "parameters": 4,
    }
    assert Record.from_dict(json.loads(json.dumps(plain))).to_dict() == plain


def test_tensorboard_that_is_asked_for_and_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pofx\[tensorboard\]'"):
        Logs(Training(log_dir=tmp_path, tensorboard=True))
