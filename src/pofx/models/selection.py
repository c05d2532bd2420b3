r"""Choosing a density by cross-validated log-likelihood: the simplest that is not clearly worse than another.

Candidates are tried in order, the simplest first, on the same splits; :mod:`pofx.models.trials` has the rule. It protects a simple truth
twice. A candidate whose log-density scatters by s about the truth's loses :math:`s^2 / 2` nats per event to second order, while the
difference that is measured on n events fluctuates by :math:`s / \sqrt{n}`: to be chosen and be worse by 0.05 nats on 500 events, it would
have to fluctuate by 3.5 errors beyond those that the rule asks for.

Up to :data:`ONE_SPLIT` events there are K folds, and the chosen one is fitted again to all events. More events: all candidates are
screened on a random part of them, and the best of the closed forms and the best of the flows then meet on all but a few.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pofx.data import Dataset, as_dataset
from pofx.errors import CapabilityError, ConfigError, DataError, PofxError, PofxWarning
from pofx.models.base import Family, Layout
from pofx.models.candidates import Candidate, automatic
from pofx.models.folds import Split, average, held_out, paired, score, splits_of
from pofx.models.model import Model
from pofx.models.trials import Trial, best, decided, finalists, replaces, rule
from pofx.training.settings import Training

__all__ = ["Candidate", "Score", "Selection", "select"]

logger = logging.getLogger(__name__)

ONE_SPLIT, SCREEN, HELD = 20_000, 20_000, 10_000
"""More events than the first get one split; so many are screened on; at most so many are held out in the end (and at most a tenth)."""

SCREENING, LATEST = 0.3, 0.6
"""Share of the time left that flows have for being screened; screening ends at the latest after this share of all the time."""

VALIDATION = 0.1, 0.05
"""Share of the training events that decide when to stop, for K folds and for one split."""

FAILURES = (PofxError, ArithmeticError, MemoryError, RuntimeError, ValueError)
"""What disqualifies a candidate, and nobody else: errors of pofx, of linear algebra, of torch."""


@dataclass(frozen=True)
class Score:
    """What cross-validation found about one candidate.

    Attributes
    ----------
    name : of the candidate.
    nll, error : mean negative log-density of held-out events, nats per event in the user's units, and its error from their number.
    gain, gain_error : mean paired difference of log-densities to the Gaussian (the best of the plain ones; the first candidate where there
        is none), with the error of :func:`pofx.models.folds.paired`. None if it was not scored.
    seconds : spent on it.
    folds : how many it was trained and scored on.
    events : training events of each.
    refused : why it could not be fitted, or None.
    note : what else is to be said: dropped early, screened on a part of the events, not tried for want of time.
    """

    name: str
    nll: float | None
    error: float | None
    gain: float | None
    gain_error: float | None
    seconds: float
    folds: int
    events: int
    refused: str | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.nll is None:
            return f"{self.name}: {self.refused or self.note}"
        remark = f"; {self.note}" if self.note else ""
        folds = f"{self.folds} fold{'s' if self.folds > 1 else ''} of {self.events} events"
        return (
            f"{self.name}: -log p {self.nll:.3f} +- {self.error:.3f}, gain {self.gain:+.3f} +- {self.gain_error:.3f} nats "
            f"({folds}, {self.seconds:.1f} s{remark})"
        )


@dataclass(frozen=True)
class Selection:
    """The chosen density and how it was chosen.

    Attributes
    ----------
    model : fitted on all training events (see ``rule`` for the exception).
    chosen : name of its candidate.
    scores : one per candidate, in their order.
    rule : how the choice was made, in words.
    """

    model: Model
    chosen: str
    scores: tuple[Score, ...]
    rule: str

    def table(self) -> list[dict[str, Any]]:
        """One row per candidate, ready for a report or JSON."""
        return [{"chosen": score.name == self.chosen, **asdict(score)} for score in self.scores]

    def __str__(self) -> str:
        lines = [f"{'*' if score.name == self.chosen else ' '} {score}" for score in self.scores]
        return "\n".join([*lines, self.rule])


def select(
    data: Any,
    context: Any = None,
    weight: Any = None,
    *,
    candidates: str | Mapping[str, Candidate | Family] = "auto",
    folds: int = 5,
    seed: int = 0,
    minutes: float | None = None,
    training: Training | None = None,
) -> Selection:
    """Choose a density by cross-validated log-likelihood and fit it to all training events.

    The training and validation splits of a data set are used together; the test split is left alone.

    Parameters
    ----------
    data, context, weight : as for ``fit``.
    candidates : ``"auto"`` (:func:`pofx.models.candidates.automatic`), or name -> family or :class:`Candidate`, the simplest first.
    folds : of the cross-validation; more than 20 000 events are split once.
    seed : of the folds and of every training. The same seed gives the same choice, as long as no time is given.
    minutes : for everything. Trainings share it; closed forms are not cut short.
    training : how to train every candidate, instead of its own settings.

    Raises
    ------
    DataError if no candidate can be fitted; the message has every reason. ConfigError for settings out of range.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).lognormal(size=(200, 2))
    >>> pofx.select(x, candidates={"normal": pofx.Gaussian(), "in logs": pofx.Gaussian(preprocess="log")}).chosen
    'in logs'
    """
    if folds < 2 or (minutes is not None and not minutes > 0):
        raise ConfigError(f"select: expected at least 2 folds and a positive number of minutes; got {folds}, {minutes}")
    whole = as_dataset(data, context, weight, trainable=False)
    search = _Search(whole, _candidates(candidates, whole, training), seed, minutes)
    if len(search.pool) > ONE_SPLIT:
        return search.in_two_rounds()
    return search.in_folds(min(folds, len(search.pool)))


def _candidates(
    given: str | Mapping[str, Candidate | Family], data: Dataset, training: Training | None
) -> dict[str, Candidate]:
    """By name, with the settings that all are trained with."""
    if isinstance(given, str):
        if given != "auto":
            raise ConfigError(f"select: candidates: expected 'auto' or a mapping; got {given!r}")
        given = automatic(len(_pool(data)))
    if not given:
        raise ConfigError("select: expected at least one candidate; got none")
    made = {name: one if isinstance(one, Candidate) else Candidate(one) for name, one in given.items()}
    return made if training is None else {name: replace(one, training=training) for name, one in made.items()}


def _pool(data: Dataset) -> Dataset:
    """Training and validation events together."""
    return data.with_split((1.0 - data.fractions[2], 0.0, data.fractions[2]), data.seed).train


class _Search:
    """The candidates of one call, their trials, and the clock."""

    def __init__(self, data: Dataset, candidates: Mapping[str, Candidate], seed: int, minutes: float | None) -> None:
        self.data, self.pool, self.candidates, self.seed = data, _pool(data), dict(candidates), seed
        self.minutes = minutes
        self.deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.validation = VALIDATION[len(self.pool) > ONE_SPLIT]

    # ------------------------------------------------------------------ the two protocols

    def in_folds(self, folds: int) -> Selection:
        """K folds, and a fit of the chosen one to everything."""
        splits = splits_of(self.pool, folds, self.seed)
        trials, chosen = self._compare(self.candidates, splits)
        words = f"{rule()}; {folds} folds of {len(self.pool)} events"
        return self._selection(self._refitted(chosen), chosen.name, _scores(trials, splits), words)

    def in_two_rounds(self) -> Selection:
        """Screening on a part of the events, then the finalists on all but a few."""
        part = held_out(self.pool, min(1.0, SCREEN / len(self.pool)), self.seed, "screen").held
        screen = [held_out(part, 0.25, self.seed, "score")]
        screened, _ = self._compare(self.candidates, screen, screening=True)
        names = finalists(screened, screen)
        final = [held_out(self.pool, min(0.1, HELD / len(self.pool)), self.seed, "final")]
        trials, chosen = self._compare({name: self.candidates[name] for name in names}, final)
        scores = {one.name: _noted(one, f"screened on {len(part)} events") for one in _scores(screened, screen)}
        scores |= {one.name: one for one in _scores(trials, final)}
        words = f"{rule()}; the best of a screening on {len(part)} events, with {len(final[0].held)} of {len(self.pool)} events held out"
        if chosen.trained and chosen.model is not None:
            words += "; the model is the one that was scored, and has not seen the events held out"
            return self._selection(chosen.model, chosen.name, list(scores.values()), words)
        return self._selection(self._refitted(chosen), chosen.name, list(scores.values()), words)

    # ------------------------------------------------------------------ the comparison

    def _compare(
        self, candidates: Mapping[str, Candidate], splits: Sequence[Split], screening: bool = False
    ) -> tuple[list[Trial], Trial]:
        """Every candidate in its turn, and the one that the rule chooses."""
        trials = [Trial(name, candidate) for name, candidate in candidates.items()]
        until = self.deadline - 60 * (self.minutes or 0.0) * (1 - LATEST) * screening
        choice: Trial | None = None
        for number, trial in enumerate(trials):
            share = (SCREENING if screening else 1.0) / (len(trials) - number)
            self._try(trial, choice, splits, until, share)
            if trial.refused is not None:
                logger.warning("%s is out: %s", trial.name, trial.refused)
            elif trial.eligible and (choice is None or replaces(trial, choice, splits)):
                choice = trial
            logger.info("%s took %.1f s; the choice so far is %s", trial.name, trial.seconds, choice and choice.name)
        if choice is None:
            reasons = "; ".join(f"{trial.name}: {trial.refused}" for trial in trials)
            raise DataError(f"{self.data.origin}: none of the candidates can be fitted: {reasons}")
        return trials, choice

    def _try(self, trial: Trial, choice: Trial | None, splits: Sequence[Split], until: float, share: float) -> None:
        """Train and score on one split after the other, until all are done or the case is clear. A training gets its part of the time
        left: ``share`` is that of the candidate, and of K folds there will be one fit more."""
        begun = time.monotonic()
        for number, split in enumerate(splits):
            now = time.monotonic()
            if choice is not None and now > until:
                trial.note, trial.dropped = "the time was spent", True
                break
            fits = len(splits) - number + (len(splits) > 1)
            try:
                trial.trained = _trains(trial.candidate.family, self.data)
                data = split.training(self.validation if trial.trained else 0.0)
                trial.model = self._fit(trial, data, 0.95 * (self.deadline - now) * share / fits)
                trial.values.append(score(trial.model, split))
            except FAILURES as error:
                trial.refused = f"{type(error).__name__}: {error}"
                break
            if choice is not None and decided(trial, choice, splits):
                break
        trial.seconds += time.monotonic() - begun

    def _fit(self, trial: Trial, data: Dataset, seconds: float) -> Model:
        """One fit, in at most so many seconds if there is a limit."""
        family, training = trial.candidate.family, trial.candidate.training
        if family.capabilities.density not in ("exact", "estimate"):
            raise CapabilityError(f"{type(family).__name__} has no density to be compared by")
        minutes = min(training.max_minutes or math.inf, max(seconds, 1.0) / 60)
        limit = minutes if minutes < math.inf else None
        training = training.replace(seed=self.seed, max_minutes=limit, checkpoint=None, log_dir=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PofxWarning)
            model = family.fit(data, training=training)
        if model.card["training"]["stopped_by"] == "interrupt":
            raise KeyboardInterrupt
        return model

    # ------------------------------------------------------------------ the result

    def _refitted(self, chosen: Trial) -> Model:
        """On all training events; a flow keeps a part of them for validation."""
        rest = 1.0 - self.data.fractions[2]
        held = self.validation * rest if chosen.trained else 0.0
        data = self.data.with_split((rest - held, held, self.data.fractions[2]), self.data.seed)
        return self._fit(chosen, data, self.deadline - time.monotonic())

    def _selection(self, model: Model, chosen: str, scores: Sequence[Score], words: str) -> Selection:
        found = Selection(model, chosen, tuple(scores), words)
        model.card["selection"] = {"rule": words, "seed": self.seed, "scores": found.table()}
        return found


def _trains(family: Family, data: Dataset) -> bool:
    """Whether it is trained by gradients: it needs validation events, time, and luck."""
    return any(phase.updates for phase in family.phases(Layout(data.spec, data.context_spec)))


def _scores(trials: Sequence[Trial], splits: Sequence[Split]) -> list[Score]:
    able = [trial for trial in trials if trial.eligible]
    reference = best([trial for trial in able if trial.plain], splits) or next(iter(able))
    return [_score(trial, reference, splits) for trial in trials]


def _score(trial: Trial, reference: Trial, splits: Sequence[Split]) -> Score:
    made = Score(trial.name, None, None, None, None, round(trial.seconds, 3), 0, 0, trial.refused, trial.note)
    if not trial.values or trial.refused:
        return made
    level, gain = average(trial.values, splits), paired(trial.values, reference.values, splits)
    made = replace(made, nll=-level.value, error=level.error, gain=gain.value, gain_error=gain.error)
    return replace(made, folds=len(trial.values), events=splits[0].events)


def _noted(score: Score, note: str) -> Score:
    return replace(score, note="; ".join(filter(None, [note, score.note])))
