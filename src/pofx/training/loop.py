"""The one training loop: phases in sequence, validation, best weights, patience, a time budget, checkpoints.

What a step does is in :mod:`pofx.training.stage`; what is learnt is in the phases of a family; where events come from is in the source.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pofx.errors import ConfigError, PofxWarning, TrainingError
from pofx.training.contract import Phase, Source
from pofx.training.evaluate import measure
from pofx.training.interrupt import Interrupt
from pofx.training.logs import Bar, Logs
from pofx.training.placement import Placed, Placement, isolated_randomness, mixed_precision
from pofx.training.plan import Plan, describe, make_plan, settings_of, validation_noise
from pofx.training.record import Epoch, Record
from pofx.training.settings import Training
from pofx.training.stage import Stage
from pofx.training.state import clone, differences, find_state, write_state

__all__ = ["train"]

logger = logging.getLogger(__name__)


def train(
    module: nn.Module, phases: Sequence[Phase], source: Source, training: Training, *, resume: str = "auto"
) -> Record:
    """Train ``module`` in place, one phase after the other; its last or best weights are in it at the end.

    Parameters
    ----------
    module : holds everything that is learnt.
    phases : what to do, see :class:`pofx.training.contract.Phase`.
    source : where events come from, see :mod:`pofx.training.sources`.
    training : the settings.
    resume : ``"auto"`` goes on from ``training.checkpoint`` if it exists, ``"must"`` insists on it, ``"never"`` starts afresh.

    Raises
    ------
    ConfigError : an update whose patterns match no parameter, settings that contradict each other.
    TrainingError : nothing to resume, or a checkpoint of another training (the message says what differs).
    DivergenceError : a loss or gradient is not finite; names phase, update, step, events and layer.

    Ctrl-C ends training after the current step, with a checkpoint if there is one, and with the best weights so far.

    ``torchrun --nproc-per-node 2 script.py`` trains in two processes, each on its share of every batch (:mod:`pofx.training.team`).
    The script needs no change, but that one process alone should save: ``if os.environ.get("RANK", "0") == "0": model.save(...)``.
    """
    if resume not in ("auto", "must", "never"):
        raise ConfigError(f"resume: expected 'auto', 'must' or 'never'; got {resume!r}")
    placement = Placement(training)
    with (
        _borrowed(module, placement),
        isolated_randomness(placement, training.deterministic),
        mixed_precision(module, placement),
    ):
        session = _Session(module, phases, source, training, placement)
        if resume != "never":
            session.resume(must=resume == "must")
        return session.run()


@contextmanager
def _borrowed(module: nn.Module, placement: Placement) -> Iterator[None]:
    """Put the module where it is trained, and back again."""
    tensor = next(iter([*module.parameters(), *module.buffers()]), torch.zeros(()))
    home, mode = tensor.device, module.training
    placement.module(module)
    try:
        yield
    finally:
        module.to(home).train(mode)


@dataclass
class _Position:
    """How far training is: JSON-able."""

    phase: int = 0
    draws: int = 0
    estimated: bool = False
    plan: dict[str, Any] | None = None
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0
    elapsed: float = 0.0
    skipped: int = 0
    budget_steps: dict[str, int] = field(default_factory=dict)
    phase_steps: dict[str, int] = field(default_factory=dict)
    stopped_by: str = ""
    finished: bool = False
    history: list[Epoch] = field(default_factory=list)


class _Session:
    """A training from its beginning, or from its checkpoint, to its end."""

    def __init__(
        self, module: nn.Module, phases: Sequence[Phase], source: Source, training: Training, placement: Placement
    ) -> None:
        self.module, self.phases, self.training, self.placement = module, list(phases), training, placement
        self.settings = settings_of(self.phases, training)
        self.identity = {} if training.checkpoint is None else describe(module, self.phases, source, training)
        self.source = Placed(source, placement)
        self.path = None if training.checkpoint is None else Path(training.checkpoint)
        self.position = _Position()
        self.best: dict[str, Any] | None = None
        self.stage: Stage | None = None
        self._saved: Mapping[str, Any] | None = None
        self._before, self._begun = 0.0, time.perf_counter()
        self._last_save, self._last_save_step = time.perf_counter(), 0
        self.team = placement.team
        watched = training if self.team.leads else training.replace(log_dir=None, progress=False)
        self.logs = Logs(watched)
        self.bar = Bar(watched)
        self.interrupt = Interrupt()

    # ------------------------------------------------------------------------------------------ the run

    def run(self) -> Record:
        """All phases from the current position on."""
        try:
            with self.interrupt, self.bar:
                self._run_phases()
        except KeyboardInterrupt:
            self._interrupted()
        finally:
            self.logs.close()
        return self._record()

    def _run_phases(self) -> None:
        while not self.position.finished:
            self._run_phase(self.phases[self.position.phase], self.settings[self.position.phase])

    def _run_phase(self, phase: Phase, settings: Training) -> None:
        position = self.position
        source = self._source(phase, settings)
        if phase.estimate is not None and not position.estimated:
            phase.estimate(self.module, source, settings)
            self._together()
        position.estimated = True
        self.stage = stage = Stage(self.module, phase, source, settings, self.placement, first_draw=position.draws)
        plan = self._begin(stage)
        if phase.updates and stage.step == 0:
            self._validate(stage, 0)  # the untrained weights compete: a Gaussian start may be the best there is
        self.module.train()
        while not (reason := self._reason_to_stop(stage, plan)):
            self._advance(stage, plan)
        if stage.step % stage.epoch_steps and (reason == "minutes" or stage.step == plan.steps):
            self._end_epoch(stage, last=True)
        self._end_phase(stage, reason)

    def _advance(self, stage: Stage, plan: Plan) -> None:
        left = stage.epoch_steps - stage.step % stage.epoch_steps
        stage.advance(min(stage.block, left, plan.steps - stage.step))
        self.bar.move(stage.step)
        if stage.step % stage.epoch_steps == 0:
            self._end_epoch(stage, last=stage.step == plan.steps)
        if self._checkpoint_due(stage.step):
            self._save()

    def _reason_to_stop(self, stage: Stage, plan: Plan) -> str:
        patience = stage.training.patience
        if self.team.any(self.interrupt.asked):
            raise KeyboardInterrupt
        if stage.step >= plan.steps:
            return plan.limit
        if patience is not None and stage.phase.keep == "best" and self.position.stale >= patience:
            return "patience"
        late = plan.deadline is not None and self.team.any(self._elapsed() > plan.deadline)
        return "minutes" if late else ""

    def _begin(self, stage: Stage) -> Plan:
        """Restore the stage, or plan it."""
        position, saved = self.position, self._saved
        if position.plan is None:
            later = [phase for phase in self.phases[position.phase :] if phase.updates]
            share = self.training.max_minutes and (60.0 * self.training.max_minutes - self._elapsed()) / max(
                len(later), 1
            )
            plan = self.team.agree(make_plan(self.module, stage, share, self._elapsed))
            position.plan = asdict(plan)
            if stage.phase.updates:
                position.budget_steps[stage.phase.name] = plan.steps
        plan = Plan(**position.plan)
        stage.total = plan.horizon
        if stage.phase.planned is not None:
            stage.phase.planned(self.module, plan.horizon)
        if saved is not None and saved["stage"] is not None:
            stage.load_state_dict(saved["stage"])
            self.best = saved["best"]
        self._saved = None
        self._last_save_step = stage.step
        self.bar.begin(stage.phase.name, stage.step, plan.steps)
        logger.info("phase %s: %d steps, from step %d", stage.phase.name, plan.steps, stage.step)
        return plan

    def _source(self, phase: Phase, settings: Training) -> Placed:
        source: Source = self.source
        if settings.batch_size != self.training.batch_size and callable(
            rebatched := getattr(source, "rebatched", None)
        ):
            source = rebatched(settings.batch_size)
        if phase.source is not None:
            source = phase.source(self.module, source)
        return source if isinstance(source, Placed) else Placed(source, self.placement)

    # ------------------------------------------------------------------------------------------ epochs and phases

    def _end_epoch(self, stage: Stage, *, last: bool) -> None:
        """Validate, note the epoch, and keep the weights if they are the best."""
        stage.clean = False
        number = -(-stage.step // stage.epoch_steps)
        value = error = None
        if last or number % stage.training.validate_every == 0:
            value, error = self._validate(stage, number)
        first = stage.phase.updates[0].name
        losses, norms = stage.means("loss:"), stage.means("norm:")
        epoch = Epoch(
            phase=stage.phase.name, epoch=number, step=stage.step, train_loss=losses.get(first, math.nan),
            validation_loss=value, validation_error=error, learning_rate=stage.rate, gradient_norm=norms.get(first, math.nan),
            seconds=self._elapsed(), losses=losses, logs=self.team.mean(stage.means("log:")),
        )  # fmt: skip
        stage.forget()
        self.position.history.append(epoch)
        self.logs.write(self.position.history)
        self.bar.show(epoch)
        logger.info(
            "%s epoch %d, step %d: loss %.6g, validation %s", epoch.phase, number, epoch.step, epoch.train_loss, value
        )
        stage.clean = True

    def _validate(self, stage: Stage, epoch: int) -> tuple[float | None, float | None]:
        """Validation loss of the weights that would be kept, with noise that is the same at every epoch."""
        phase, position = stage.phase, self.position
        loss, noise = phase.monitor or phase.updates[0].loss, validation_noise(stage)
        with _averaged(stage):
            measured = measure(self.module, loss, stage.source.validation(), noise, self.team)
            if measured is None:
                return None, None
            if measured.bad or not math.isfinite(measured.value):
                message = f"phase {phase.name!r}, epoch {epoch}: the validation loss is {measured.value} (events {list(measured.bad)})"
                warnings.warn(message, PofxWarning, stacklevel=2)
            better = math.isfinite(measured.value) and (
                position.best_loss is None or measured.value < position.best_loss
            )
            if better and phase.keep == "best":
                self.best = clone(dict(self.module.state_dict()))
        if better:
            position.best_loss, position.best_step = measured.value, stage.step
        position.stale = 0 if better else position.stale + stage.training.validate_every
        return measured.value, measured.error

    def _end_phase(self, stage: Stage, reason: str) -> None:
        self._put_best_weights(stage)
        self._together()
        position = self.position
        if stage.phase.updates:
            position.phase_steps[stage.phase.name] = stage.step
        position.skipped += stage.skipped
        position.stopped_by = reason
        position.draws += stage.step * stage.rounds
        position.finished = position.phase + 1 == len(self.phases)
        self.stage = None
        if not position.finished:
            position.phase += 1
            position.estimated, position.plan, position.best_loss, position.best_step, position.stale = (
                False,
                None,
                None,
                None,
                0,
            )
        self._save()

    def _put_best_weights(self, stage: Stage) -> None:
        if self.best is not None:
            self.module.load_state_dict(self.best)
        else:
            if stage.average is not None:
                stage.average.swap()
            self.position.best_loss = self.position.best_step = None
        self.best = None

    def _together(self) -> None:
        """All processes have the same weights, to the last bit."""
        self.team.copy([*self.module.parameters(), *self.module.buffers()])

    def _interrupted(self) -> None:
        """End with what there is, and say so."""
        stage = self.stage
        if stage is not None:
            if stage.clean:
                self._save()
            if stage.phase.updates:
                self.position.phase_steps[stage.phase.name] = stage.step
            self.position.skipped += stage.skipped
            self._put_best_weights(stage)
        self.position.stopped_by = "interrupt"
        kept = "" if self.path is None else f"; the checkpoint {self.path.name} goes on from here"
        done = f"phase {self.position.phase + 1} of {len(self.phases)}, step {0 if stage is None else stage.step}"
        warnings.warn(
            f"training was interrupted in {done}, and ends with the best weights so far{kept}",
            PofxWarning,
            stacklevel=3,
        )

    def _record(self) -> Record:
        position = self.position
        return Record(
            history=tuple(position.history), steps=sum(position.phase_steps.values()), seconds=self._elapsed(),
            stopped_by=position.stopped_by, best_step=position.best_step, best_loss=position.best_loss,
            budget_steps=dict(position.budget_steps), phase_steps=dict(position.phase_steps), seed=self.training.seed,
            settings=self.training.to_dict(), skipped_steps=position.skipped,
            parameters=sum(p.numel() for p in self.module.parameters() if p.requires_grad),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ checkpoints

    def resume(self, *, must: bool) -> None:
        """Take up the checkpoint, if there is one and it is of this very training."""
        state = self.team.agree(None if self.path is None or not self.team.leads else find_state(self.path))
        if state is None:
            if must:
                raise TrainingError(
                    f"resume='must': expected a checkpoint; there is none at Training.checkpoint={self.path}"
                )
            return
        if changed := list(differences(state["identity"], self.identity)):
            listing = "\n  ".join(changed[:12])
            raise TrainingError(
                f"the checkpoint {self.path} is of another training (resume='never' replaces it):\n  {listing}"
            )
        history = [Epoch(**row) for row in state["position"]["history"]]
        self.position = _Position(**{**state["position"], "history": history})
        self._before = self.position.elapsed
        self.module.load_state_dict(state["module"] if state["stage"] is None else state["stage"]["module"])
        self._saved = state

    def _save(self) -> None:
        if self.path is None or not self.team.leads:
            return
        self.position.elapsed = self._elapsed()
        stage = None if self.stage is None else self.stage.state_dict()
        module = None if stage is not None else dict(self.module.state_dict())
        position = asdict(self.position)
        write_state(
            self.path,
            {"identity": self.identity, "position": position, "module": module, "stage": stage, "best": self.best},
        )
        self._last_save, self._last_save_step = time.perf_counter(), 0 if self.stage is None else self.stage.step

    def _checkpoint_due(self, step: int) -> bool:
        every = self.training.checkpoint_every
        if self.path is None or not self.team.leads:
            return False
        if isinstance(every, int):
            return step - self._last_save_step >= every
        return time.perf_counter() - self._last_save >= every

    def _elapsed(self) -> float:
        self.placement.synchronise()
        return self._before + time.perf_counter() - self._begun


@contextmanager
def _averaged(stage: Stage) -> Iterator[None]:
    """The module with averaged weights, where there is an average."""
    if stage.average is None:
        yield
        return
    stage.average.swap()
    try:
        yield
    finally:
        stage.average.swap()
