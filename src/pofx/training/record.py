"""What a training leaves behind: one row per epoch, and how, when and why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Cost", "Epoch", "Record"]


@dataclass(frozen=True)
class Epoch:
    """One row of the history; an epoch that ends without validation has ``validation_loss=None``.

    ``losses`` holds the mean training loss of every update, ``logs`` what losses log, named ``update.name``; ``train_loss`` is that of the
    first update. ``gradient_norm`` is a mean over the steps of the first update, before clipping. ``seconds`` counts from the beginning.
    """

    phase: str
    epoch: int
    step: int
    train_loss: float
    validation_loss: float | None
    validation_error: float | None
    learning_rate: float | None
    gradient_norm: float
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    logs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """The record of a training, part of the card.

    Attributes
    ----------
    history : one :class:`Epoch` per epoch.
    steps : optimiser steps of all phases.
    seconds : time spent, interruptions not counted.
    stopped_by : ``"epochs"``, ``"steps"``, ``"minutes"``, ``"patience"`` or ``"interrupt"``, of the last phase.
    best_step : step (within its phase) of the weights that were kept, None where the last ones were kept.
    best_loss : their validation loss.
    budget_steps : the steps that each phase's limits allowed; as ``max_steps`` they repeat a run that had a time budget.
    phase_steps : the steps that each phase took.
    seed, settings : of :class:`pofx.Training`.
    skipped_steps : updates left out because something was not finite.
    parameters : numbers that training may change.
    """

    history: tuple[Epoch, ...]
    steps: int
    seconds: float
    stopped_by: str
    best_step: int | None
    best_loss: float | None
    budget_steps: dict[str, int]
    phase_steps: dict[str, int]
    seed: int
    settings: dict[str, Any]
    skipped_steps: int
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        plain = asdict(self)
        plain["history"] = list(plain["history"])
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, "history": tuple(Epoch(**row) for row in values["history"])})


@dataclass(frozen=True)
class Cost:
    """What a training would take; seconds are averages over all phases.

    Attributes
    ----------
    parameters : trainable numbers.
    memory_bytes : weights, gradients, optimiser, averages, and what one step keeps for its backward pass (on a GPU: measured peak).
    seconds_per_epoch : including validation.
    seconds_per_step : without it.
    total : seconds of the whole training, unless patience ends it early.
    """

    parameters: int
    memory_bytes: int
    seconds_per_epoch: float
    seconds_per_step: float
    total: float
