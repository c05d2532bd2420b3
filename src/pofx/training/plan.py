"""Before the first step: which settings a phase has, how many steps it will take, and what a checkpoint must agree with."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pofx.errors import ConfigError
from pofx.training.contract import Phase, Source, Update
from pofx.training.evaluate import measure
from pofx.training.noise import Noise
from pofx.training.settings import BOOKKEEPING, Training
from pofx.training.stage import Stage

__all__ = ["Plan", "Speed", "describe", "make_plan", "probe", "settings_of", "validation_noise"]

PROBE_STEPS = 50
SAFETY = 0.9
"""Share of the time that is planned to be used."""
_FIXED = BOOKKEEPING | {"seed", "precision", "deterministic", "max_minutes"}


@dataclass(frozen=True)
class Plan:
    """Steps to take, what limits them, the number that the schedule is counted against, and when the clock ends it (seconds)."""

    steps: int
    limit: str
    horizon: int
    deadline: float | None


@dataclass(frozen=True)
class Speed:
    """Seconds of a step and of a validation."""

    step: float
    validation: float


def settings_of(phases: Sequence[Phase], training: Training) -> list[Training]:
    """The settings of every phase, with its own changes; also checks that the phases make sense."""
    if not phases:
        raise ConfigError("expected at least one phase of training; got none")
    _unique("phases", [phase.name for phase in phases])
    for phase in phases:
        _unique(f"updates of phase {phase.name!r}", [update.name for update in phase.updates])
        _check(phase, training)
    return [training.replace(**phase.training) for phase in phases]


def _unique(what: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ConfigError(f"names of {what} must be unique; got {', '.join(names)}")


def _check(phase: Phase, training: Training) -> None:
    if wrong := sorted(_FIXED & set(phase.training)):
        raise ConfigError(
            f"phase {phase.name!r}: {', '.join(wrong)} holds for the whole training, and a phase cannot change it"
        )
    if phase.keep not in ("best", "last"):
        raise ConfigError(f"phase {phase.name!r}: keep: expected 'best' or 'last'; got {phase.keep!r}")
    for update in phase.updates:
        if update.every < 1 or update.repeat < 1:
            raise ConfigError(
                f"update {update.name!r}: every and repeat: expected at least 1; got {update.every} and {update.repeat}"
            )
    if isinstance(training.max_steps, Mapping) and phase.updates and phase.name not in training.max_steps:
        raise ConfigError(
            f"Training.max_steps: expected a number for phase {phase.name!r}; got {dict(training.max_steps)}"
        )


def make_plan(module: nn.Module, stage: Stage, seconds: float | None, clock: Callable[[], float]) -> Plan:
    """The smallest of the limits; a share of the time becomes steps by measuring how long they take."""
    settings = stage.training
    if not stage.phase.updates:
        return Plan(0, "epochs", 1, None)
    limits: dict[str, float] = {}
    if settings.max_epochs is not None:
        limits["epochs"] = settings.max_epochs * stage.epoch_steps
    if settings.max_steps is not None:
        limits["steps"] = _of_phase(settings.max_steps, stage.phase) or math.inf
    deadline = None
    if seconds is not None:
        deadline = clock() + seconds
        speed = probe(module, stage, seconds)
        per_step = speed.step + speed.validation / (stage.epoch_steps * settings.validate_every)
        limits["minutes"] = max(1, math.floor(SAFETY * max(deadline - clock(), 0.0) / per_step))
    limit = min(limits, key=lambda name: limits[name])
    steps = int(limits[limit])
    return Plan(steps, limit, _of_phase(settings.horizon, stage.phase) or steps, deadline)


def _of_phase(setting: int | Mapping[str, int] | None, phase: Phase) -> int | None:
    return setting.get(phase.name) if isinstance(setting, Mapping) else setting


def probe(module: nn.Module, stage: Stage, seconds: float = math.inf) -> Speed:
    """Seconds per step, from at most fifty steps (or a twentieth of ``seconds``) of a copy; the training itself has not begun."""
    other, source = copy.deepcopy(module).train(), stage.source
    kept = copy.deepcopy(source.state_dict())
    twin = Stage(other, stage.phase, source, stage.training, stage.placement, first_draw=stage.first_draw)
    twin.total = PROBE_STEPS
    twin.advance(min(3, twin.epoch_steps))
    begun, done = _now(stage), 0
    team = stage.placement.team
    while not team.any(done >= PROBE_STEPS or (done > 0 and _now(stage) - begun >= seconds / 20)):
        twin.advance(twin.block)
        done += twin.block
    step = (_now(stage) - begun) / done
    begun = _now(stage)
    loss = stage.phase.monitor or stage.phase.updates[0].loss
    measure(other, loss, source.validation(), validation_noise(stage), team)
    source.load_state_dict(kept)
    return Speed(step, _now(stage) - begun)


def validation_noise(stage: Stage) -> Noise:
    """The same for every validation of a phase, so that its losses can be compared."""
    nobody = torch.zeros(0, dtype=torch.int64)
    return Noise(stage.training.seed, nobody, 0, stage.placement.dtype, f"{stage.phase.name}/validation")


def _now(stage: Stage) -> float:
    stage.placement.synchronise()
    return time.perf_counter()


def describe(module: nn.Module, phases: Sequence[Phase], source: Source, training: Training) -> dict[str, Any]:
    """What must be the same for a checkpoint to go on from: settings that enter the numbers, phases, data, shapes."""
    fingerprint = getattr(source, "fingerprint", None)
    data = (
        fingerprint() if callable(fingerprint) else {"events": source.size, "steps_per_epoch": source.steps_per_epoch}
    )
    return {
        "settings": {name: value for name, value in training.to_dict().items() if name not in BOOKKEEPING},
        "phases": {phase.name: _describe_phase(phase) for phase in phases},
        "data": data,
        "weights": {
            name: f"{tuple(t.shape)} {t.dtype}" for name, t in module.state_dict().items() if isinstance(t, Tensor)
        },
    }


def _describe_phase(phase: Phase) -> dict[str, Any]:
    return {
        "updates": {update.name: _describe_update(update) for update in phase.updates},
        "keep": phase.keep,
        "training": dict(phase.training),
        "estimate": phase.estimate is not None,
    }


def _describe_update(update: Update) -> dict[str, Any]:
    """Steps of its own (rate, betas) are there only where they are not the usual ones: older checkpoints have no such words."""
    usual = {"rate": 1.0, "betas": None}
    own = {name: _listed(getattr(update, name)) for name, value in usual.items() if getattr(update, name) != value}
    return {"parameters": list(update.parameters), "every": update.every, "repeat": update.repeat} | own


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
