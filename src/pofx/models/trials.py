"""The rule by which ``select`` chooses: a candidate on its way through the splits, and what becomes of it.

A candidate takes the place of a simpler one if its mean held-out log-density is higher by more than :data:`ERRORS` errors of the paired
difference (:mod:`pofx.models.folds`). Further splits are spared where the case is clear: a candidate is dropped if it is worse by
:data:`HOPELESS` errors; one that is trained by gradients, which takes long, also if it cannot be better by :data:`WORTH` nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pofx.models.candidates import Candidate, is_plain_gaussian, only_shrinkage_differs
from pofx.models.folds import Split, average, paired
from pofx.models.gaussian import Gaussian
from pofx.models.model import Model

__all__ = ["Trial", "best", "decided", "finalists", "replaces", "rule"]

ERRORS = 2.0
"""A candidate replaces a simpler one if its gain is more than so many errors."""

HOPELESS, CLEAR = 3.0, 5.0
"""Errors by which a candidate is worse (dropped) or better (further folds of an expensive one are spared)."""

WORTH = 0.01
"""Nats per event: a smaller gain is not worth a training."""


@dataclass
class Trial:
    """A candidate on its way.

    Attributes
    ----------
    name, candidate : what is tried.
    trained : by gradients.
    values : held-out log-densities of every split so far.
    model : of the last split.
    seconds : spent so far.
    refused : why it could not be fitted, or None.
    note, dropped : why it was cut short, and whether it is out.
    """

    name: str
    candidate: Candidate
    trained: bool = False
    values: list[NDArray[np.float64]] = field(default_factory=list)
    model: Model | None = None
    seconds: float = 0.0
    refused: str | None = None
    note: str = ""
    dropped: bool = False

    @property
    def eligible(self) -> bool:
        """Whether it may be chosen."""
        return bool(self.values) and self.refused is None and not self.dropped

    @property
    def plain(self) -> bool:
        """Whether it is a Gaussian in the user's coordinates."""
        return is_plain_gaussian(self.candidate.family)


def rule() -> str:
    """In words."""
    return (
        "the simplest first; another takes its place if its mean log-density of held-out events is higher by more than "
        f"{ERRORS:g} errors of the paired difference (of Gaussians that differ in shrinkage alone, the best is taken)"
    )


def replaces(trial: Trial, choice: Trial, splits: Sequence[Split]) -> bool:
    """Whether the trial takes the place of a simpler choice."""
    gain = paired(trial.values, choice.values, splits)
    alike = only_shrinkage_differs(trial.candidate.family, choice.candidate.family)
    return gain.value > (0.0 if alike else ERRORS * gain.error)


def decided(trial: Trial, choice: Trial, splits: Sequence[Split]) -> bool:
    """Whether no further split is needed; notes in the trial why it was dropped or cut short."""
    done = len(trial.values)
    if done == len(splits) or only_shrinkage_differs(trial.candidate.family, choice.candidate.family):
        return done == len(splits)
    gain = paired(trial.values, choice.values, splits)
    if gain.value < -HOPELESS * gain.error:
        trial.dropped, verdict = True, f"worse than {choice.name} by {-gain.value:.3g} +- {gain.error:.2g} nats"
    elif trial.trained and gain.value + ERRORS * gain.error < WORTH:
        trial.dropped, verdict = True, f"cannot be better than {choice.name} by {WORTH} nats"
    elif trial.trained and gain.value > CLEAR * gain.error:
        verdict = f"better than {choice.name} by {gain.value:.3g} +- {gain.error:.2g} nats"
    elif done == len(choice.values):
        verdict = f"compared with {choice.name}"
    else:
        return False
    trial.note = f"{verdict} after {done} of {len(splits)} folds"
    return True


def best(trials: Sequence[Trial], splits: Sequence[Split]) -> Trial | None:
    """The one of the highest mean log-density; None of none."""
    return max(trials, key=lambda trial: average(trial.values, splits).value, default=None)


def finalists(trials: Sequence[Trial], splits: Sequence[Split]) -> list[str]:
    """Who is worth being fitted to all events, in order: the best plain Gaussian, the best closed form and the one that the rule chooses,
    and the best of those trained by gradients, if it is better than a Gaussian at all."""
    able = [trial for trial in trials if trial.eligible]
    closed = [trial for trial in able if not trial.trained]
    choice: Trial | None = None
    for trial in closed:
        choice = trial if choice is None or replaces(trial, choice, splits) else choice
    flow = best([trial for trial in able if trial.trained], splits)
    gaussian = best([trial for trial in able if isinstance(trial.candidate.family, Gaussian)], splits)
    if flow is not None and gaussian is not None:
        gain = paired(flow.values, gaussian.values, splits)
        flow = flow if gain.value > max(ERRORS * gain.error, WORTH) else None
    chosen = (best([trial for trial in able if trial.plain], splits), best(closed, splits), choice, flow)
    names = {trial.name for trial in chosen if trial is not None}
    return [trial.name for trial in trials if trial.name in names]
