"""How to train: one frozen object with every setting of the loop, checked when it is made.

Where a setting may count or measure, an integer counts steps and a float measures: ``warmup=500`` is 500 steps, ``warmup=0.1`` a
tenth of all steps; ``checkpoint_every=1000`` is 1000 steps, ``checkpoint_every=60.0`` a minute.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from pofx.errors import ConfigError

__all__ = ["BOOKKEEPING", "Training"]

OPTIMISERS = ("adamw", "adam", "sgd")
SCHEDULES = ("one-cycle", "cosine", "linear", "constant")
PRECISIONS = ("float32", "float64", "bf16")
BOOKKEEPING = frozenset({"checkpoint", "checkpoint_every", "log_dir", "tensorboard", "progress", "device"})
"""Settings that a resumed run may change: they do not enter the numbers."""


@dataclass(frozen=True)
class Training:
    """Settings of :func:`pofx.training.train`; ``fit(..., training=Training(max_epochs=20))``.

    The defaults are meant to be left alone: averaged weights, clipped gradients, and the weights of the best validation loss.
    Training ends at whichever limit comes first. Every limit holds for each phase of a family,
    except ``max_minutes``, which the phases share.

    Parameters
    ----------
    max_epochs : passes over the training events; None for no such limit.
    max_steps : optimiser steps, one number or ``{phase: number}`` (what ``Record.budget_steps`` holds: phases with updates).
    max_minutes : time budget of the whole training. A measurement of the speed fixes the number of steps beforehand, and the schedule
        counts against it, so that a run with ``max_steps=record.budget_steps`` repeats this one; the clock stops it in any case.
    horizon : steps that the schedule is counted against (or ``{phase: number}``); None means as many as there will be. A run that the clock
        stopped is repeated by ``max_steps=record.phase_steps, horizon=record.budget_steps``.
    batch_size : events per step; a data set with fewer events is one batch. ``"auto"`` is 512, or for less than about 4000 training events
        the power of two next to a tenth of them.
    learning_rate : its peak.
    weight_decay : of weights with two or more axes (biases and scales do not decay).
    optimiser : ``"adamw"``, ``"adam"`` or ``"sgd"`` (with momentum 0.9).
    schedule : ``"one-cycle"``, ``"cosine"``, ``"linear"`` or ``"constant"``; see :func:`pofx.training.schedule.factor`.
    warmup : steps (integer) or fraction (float) with a rising learning rate.
    patience : epochs without a better validation loss before training ends; None never ends early. The weights that are kept are those
        with the best validation loss in any case.
    seed : of everything random.
    checkpoint : file that holds the state of an unfinished training; None for none.
    checkpoint_every : steps (integer) or seconds (float) between checkpoints.
    ema : decay of the exponential moving average of the weights, which then are what is validated and kept; None for none. It rises from
        2/11 as training goes on, so that a short training forgets its beginning as well.
    clip : largest norm of the gradient; None for no clipping.
    accumulate : pieces that a batch is worked through in, to save memory; the result is that of the whole batch.
    precision : ``"float32"``, ``"float64"`` or ``"bf16"`` (matrix products in bfloat16; losses and log-densities in float32).
    device : ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    nan_policy : ``"raise"`` or ``"skip"``, for a loss or gradient that is not finite.
    max_skips : steps that may be skipped in a row.
    log_dir : folder for ``training.csv`` and TensorBoard's file.
    tensorboard : ``"auto"`` writes it where TensorBoard is installed, True insists, False never does.
    progress : ``"auto"`` shows a bar on a terminal only.
    validate_every : epochs between validations.
    deterministic : insist on deterministic kernels (slower on a GPU).

    >>> Training(max_epochs=3).replace(seed=2).seed
    2
    """

    max_epochs: int | None = 100
    max_steps: int | Mapping[str, int] | None = None
    max_minutes: float | None = None
    horizon: int | Mapping[str, int] | None = None
    batch_size: int | Literal["auto"] = "auto"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["one-cycle", "cosine", "linear", "constant"] = "one-cycle"
    warmup: int | float = 0.1
    patience: int | None = None
    seed: int = 0
    checkpoint: str | Path | None = None
    checkpoint_every: int | float = 60.0
    ema: float | None = 0.999
    clip: float | None = 5.0
    accumulate: int = 1
    precision: Literal["float32", "float64", "bf16"] = "float32"
    device: str = "auto"
    nan_policy: Literal["raise", "skip"] = "raise"
    max_skips: int = 10
    log_dir: str | Path | None = None
    tensorboard: bool | Literal["auto"] = "auto"
    progress: bool | Literal["auto"] = "auto"
    validate_every: int = 1
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, (expected, good) in _RULES.items():
            value = getattr(self, name)
            if not good(value):
                raise ConfigError(f"Training.{name}: expected {expected}; got {value!r}")
        if self.max_epochs is None and self.max_steps is None and self.max_minutes is None:
            raise ConfigError(
                "Training: expected at least one of max_epochs, max_steps and max_minutes; got none of them"
            )

    def replace(self, **changes: Any) -> Training:
        """A copy with some settings changed."""
        known = {field.name for field in fields(self)}
        for name in changes:
            if name not in known:
                raise ConfigError(
                    f"Training.{name}: there is no such setting; expected one of {', '.join(sorted(known))}"
                )
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, all of them."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Training:
        """The inverse of :meth:`to_dict`; unknown names are refused."""
        return cls().replace(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return str(value) if isinstance(value, Path) else value


Rule = tuple[str, Callable[[Any], bool]]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(low: int) -> Rule:
    return f"an integer of at least {low}", lambda v: _is_int(v) and v >= low


def _positive() -> Rule:
    return "a number above 0", lambda v: _is_number(v) and v > 0


def _optional(rule: Rule) -> Rule:
    return f"{rule[0]}, or None", lambda v: v is None or rule[1](v)


def _choice(*values: str | bool) -> Rule:
    return f"one of {', '.join(map(repr, values))}", lambda v: any(
        v is w or (isinstance(v, str) and v == w) for w in values
    )


def _steps(value: Any) -> bool:
    several = value.values() if isinstance(value, Mapping) else [value]
    return value is None or all(_is_int(v) and v >= 1 for v in several)


def _path() -> Rule:
    return "a path, or None", lambda v: v is None or isinstance(v, Path) or (isinstance(v, str) and v != "")


_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")

_RULES: dict[str, Rule] = {
    "max_epochs": _optional(_count(1)),
    "max_steps": ("an integer of at least 1, {phase: integer}, or None", _steps),
    "max_minutes": _optional(_positive()),
    "horizon": ("an integer of at least 1, {phase: integer}, or None", _steps),
    "batch_size": ("an integer of at least 1, or 'auto'", lambda v: v == "auto" or (_is_int(v) and v >= 1)),
    "learning_rate": _positive(),
    "weight_decay": ("a number of at least 0", lambda v: _is_number(v) and v >= 0),
    "optimiser": _choice(*OPTIMISERS),
    "schedule": _choice(*SCHEDULES),
    "warmup": (
        "an integer of at least 0 (steps) or a float in [0, 1) (fraction)",
        lambda v: _is_number(v) and (v >= 0 if _is_int(v) else 0 <= v < 1),
    ),
    "patience": _optional(_count(1)),
    "seed": _count(0),
    "checkpoint": _path(),
    "checkpoint_every": ("an integer of at least 1 (steps) or a float above 0 (seconds)", _positive()[1]),
    "ema": ("a number in (0, 1), or None", lambda v: v is None or (_is_number(v) and 0 < v < 1)),
    "clip": _optional(_positive()),
    "accumulate": _count(1),
    "precision": _choice(*PRECISIONS),
    "device": (
        "'auto', 'cpu', 'cuda', 'cuda:<number>', 'xpu' or 'mps'",
        lambda v: isinstance(v, str) and bool(_DEVICE.fullmatch(v)),
    ),
    "nan_policy": _choice("raise", "skip"),
    "max_skips": _count(1),
    "log_dir": _path(),
    "tensorboard": _choice(True, False, "auto"),
    "progress": _choice(True, False, "auto"),
    "validate_every": _count(1),
    "deterministic": _choice(True, False),
}
