"""One phase at work: a step is every update in turn, each with its events, its keyed noise, its optimiser and its check.

A step is a function of (seed, step, state): noise, dropout and batches are keyed by their numbers. Where looking at a loss makes the
host wait (on a GPU), steps therefore run in blocks whose numbers are looked at once; a block with a number that is not finite is taken
back and done again step by step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pofx.data.events import Events
from pofx.errors import DivergenceError, TrainingError
from pofx.training.contract import Loss, Phase, Update
from pofx.training.diagnose import divergence
from pofx.training.evaluate import batch_loss
from pofx.training.noise import Noise, derive_seed
from pofx.training.optimisers import Average, build_optimiser, chosen_parameters, clip_gradients, gradient_norm
from pofx.training.placement import Placed, Placement, seed_torch
from pofx.training.schedule import factor
from pofx.training.settings import Training
from pofx.training.state import clone

__all__ = ["Stage"]

BLOCK = 32
"""Steps between two looks at a device that computes asynchronously."""


class _NotFinite(Exception):
    """A loss or a gradient is not finite; the weights have not been touched."""


class _Mover:
    """An update with its parameters and its optimiser."""

    def __init__(self, module: nn.Module, update: Update, training: Training) -> None:
        self.update = update
        self.named = chosen_parameters(module, update)
        self.parameters = [p for _, p in self.named]
        self.optimiser = build_optimiser(update, self.named, training)
        self.rates = None if update.optimiser is not None else [group["lr"] for group in self.optimiser.param_groups]

    def set_rate(self, relative: float) -> None:
        """The schedule's learning rate; an optimiser of the update's own keeps its own."""
        if self.rates is not None:
            for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
                group["lr"] = rate * relative


class Stage:
    """A phase between its first and its last step. ``total`` is what the schedule is counted against."""

    def __init__(
        self,
        module: nn.Module,
        phase: Phase,
        source: Placed,
        training: Training,
        placement: Placement,
        *,
        first_draw: int = 0,
    ) -> None:
        self.module, self.phase, self.source, self.training, self.placement = module, phase, source, training, placement
        self.movers = [_Mover(module, update, training) for update in phase.updates]
        self.rounds = max((update.repeat for update in phase.updates), default=1)
        self.average = None if training.ema is None or not self.movers else Average(self._moved(), training.ema)
        self.first_draw = first_draw
        self.step, self.total = 0, 1
        self.skipped, self.skipped_in_row = 0, 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.clean = True
        self._eager = not placement.asynchronous
        self._suspect = torch.zeros((), device=placement.device)
        buffers = list(_persistent_buffers(module)) if placement.team.size > 1 else []
        self._summed = [(owner, name) for owner, name in buffers if name in getattr(owner, "summed", ())]
        self._kept = [each for each in buffers if each not in self._summed]

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; a step takes as many batches as its most repeated update."""
        return -(-self.source.steps_per_epoch // self.rounds)

    @property
    def block(self) -> int:
        """Steps that are best done in one call of :meth:`advance`."""
        return 1 if self._eager else BLOCK

    @property
    def rate(self) -> float | None:
        """The learning rate of the latest step, None without an optimiser."""
        return float(self.movers[0].optimiser.param_groups[0].get("lr", math.nan)) if self.movers else None

    def advance(self, steps: int) -> None:
        """Do so many steps."""
        if self._eager:
            for _ in range(steps):
                self._step()
            return
        before = clone(self.state_dict())
        self._suspect.zero_()
        for _ in range(steps):
            self._step()
        if bool(self._suspect):
            self.load_state_dict(before)
            self._eager = True
            self.advance(steps)
            self._eager = False

    def means(self, prefix: str) -> dict[str, float]:
        """Means since the last :meth:`forget` of what was noted under ``prefix``."""
        return {
            name.removeprefix(prefix): float(total) / self.counts[name]
            for name, total in self.sums.items()
            if name.startswith(prefix)
        }

    def forget(self) -> None:
        """Begin new means."""
        self.sums, self.counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, and the means so far (references, no copies)."""
        return {
            "module": dict(self.module.state_dict()),
            "average": None if self.average is None else list(self.average.mean),
            "optimisers": {mover.update.name: mover.optimiser.state_dict() for mover in self.movers},
            "source": self.source.state_dict(),
            "counters": [self.step, self.total, self.skipped, self.skipped_in_row],
            "sums": dict(self.sums),
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`, bit by bit."""
        self.module.load_state_dict(state["module"])
        if self.average is not None:
            torch._foreach_copy_(self.average.mean, [self.placement.tensor(t) for t in state["average"]])
        for mover in self.movers:
            _load_optimiser(mover.optimiser, state["optimisers"][mover.update.name])
        self.source.load_state_dict(state["source"])
        self.step, self.total, self.skipped, self.skipped_in_row = state["counters"]
        self.sums = {name: tensor.to(self.placement.device, copy=True) for name, tensor in state["sums"].items()}
        self.counts = dict(state["counts"])

    def _moved(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters of any update, each once."""
        return list({name: (name, p) for mover in self.movers for name, p in mover.named}.values())

    def _step(self) -> None:
        relative = factor(self.step, self.total, self.training)
        batches: dict[int, Events] = {}
        for mover in self.movers:
            if self.step % mover.update.every:
                continue
            mover.set_rate(relative)
            for repetition in range(mover.update.repeat):
                draw = self.first_draw + self.step * self.rounds + repetition
                if repetition not in batches:
                    batches[repetition] = self.source.next(self.module, draw)
                self._update(mover, batches[repetition], draw)
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        self.clean = True

    def _update(self, mover: _Mover, events: Events, draw: int) -> None:
        if len(events) == 0:
            raise TrainingError(f"phase {self.phase.name!r}: expected events in batch {draw}; the source gave none")
        evaluation = _Evaluation(self, mover, events, draw)
        try:
            if mover.update.optimiser is None:
                evaluation()
                mover.optimiser.step()
            else:
                self.clean = False  # a sampler moves the weights before it evaluates the loss
                mover.optimiser.step(evaluation)  # type: ignore[arg-type]
        except _NotFinite:
            evaluation.seed()
            self._skip(mover, events, evaluation.noise(events))
            return
        self.skipped_in_row = 0
        self.placement.team.copy([owner._buffers[name] for owner, name in self._kept])
        if mover.update.after is not None:
            self.placement.team.add([owner._buffers[name] for owner, name in self._summed])
            with torch.no_grad():
                mover.update.after(self.module)

    def _skip(self, mover: _Mover, events: Events, noise: Noise) -> None:
        where = f"phase {self.phase.name!r}, update {mover.update.name!r}, step {self.step}"
        self.skipped += 1
        self.skipped_in_row += 1
        if self.training.nan_policy == "raise":
            raise divergence(self.module, mover.update, events, noise, where)
        if self.skipped_in_row > self.training.max_skips:
            error = divergence(self.module, mover.update, events, noise, where)
            raise DivergenceError(f"more than {self.training.max_skips} updates skipped in a row; {error}") from error

    def note(self, name: str, value: Tensor) -> None:
        """Add a number to a mean, without looking at it."""
        value = value.detach()
        if name in self.sums:
            self.sums[name].add_(value)
        else:
            self.sums[name] = value.to(torch.float32 if value.device.type == "mps" else torch.float64, copy=True)
        self.counts[name] = self.counts.get(name, 0) + 1

    def check(self, total: Tensor) -> None:
        """Complain about a number that is not finite: at once, or at the end of the block."""
        if self._eager:
            if not math.isfinite(float(total)):
                raise _NotFinite
        else:
            self._suspect.add_(~total.isfinite())


class _Evaluation:
    """The closure of an update: clears the gradient, computes loss and gradient on the batch, and returns the loss."""

    def __init__(self, stage: Stage, mover: _Mover, events: Events, draw: int) -> None:
        self.stage, self.mover, self.events, self.draw = stage, mover, events, draw
        self.first = True
        self._logs: list[Loss] = []

    def noise(self, events: Events) -> Noise:
        """The noise of these events in this update of this step."""
        assert events.index is not None
        scope = f"{self.stage.phase.name}/{self.mover.update.name}"
        return Noise(self.stage.training.seed, events.index, self.draw, self.stage.placement.dtype, scope)

    def seed(self, *more: str) -> None:
        """Make dropout and the like a function of the batch's number."""
        labels: list[str | int] = ["torch", self.stage.phase.name, self.mover.update.name, self.draw, *more]
        seed_torch(derive_seed(self.stage.training.seed, *labels), self.stage.placement.device)

    def __call__(self) -> Tensor:
        stage, parameters, team = self.stage, self.mover.parameters, self.stage.placement.team
        for parameter in parameters:
            parameter.grad = None
        self.seed()
        with torch.enable_grad():
            losses = [self._piece(piece, share) for piece, share in self._pieces()]
        total = team.total(parameters, losses[0] if len(losses) == 1 else torch.stack(losses).sum())
        norm = gradient_norm(parameters, total)
        stage.check(total + norm)
        if stage.training.clip is not None:
            clip_gradients(parameters, norm, stage.training.clip)
        if self.first:
            self._note(total, norm)
        if team.size > 1:  # a sampler draws the same numbers everywhere, however many each process's events took
            self.seed("step")
        self.first = stage.clean = False
        return total

    def _pieces(self) -> Iterator[tuple[Events, float]]:
        """Pieces of this process's share of the batch, each with its fraction of the whole batch."""
        events, pieces = self.stage.placement.team.share(self.events), self.stage.training.accumulate
        if len(events) == 0:  # more processes than events: this one computes something that does not count
            yield self.events[:1], 0.0
            return
        for piece in [events] if pieces == 1 else events.split(-(-len(events) // pieces)):
            yield piece, len(piece) / len(self.events)

    def _piece(self, events: Events, share: float) -> Tensor:
        found = self.mover.update.loss(self.stage.module, events, self.noise(events))
        loss = batch_loss(found, events)
        loss = loss if share == 1 else loss * share
        self.stage.placement.backward(loss, self.mover.parameters)
        if self.first and found.logs:
            self._logs.append(found)
        return loss.detach()

    def _note(self, total: Tensor, norm: Tensor) -> None:
        name = self.mover.update.name
        self.stage.note(f"loss:{name}", total)
        self.stage.note(f"norm:{name}", norm)
        for found in self._logs:
            for label, value in found.logs.items():
                self.stage.note(f"log:{name}.{label}", value.detach().float().mean())


def _persistent_buffers(module: nn.Module) -> Iterator[tuple[Any, str]]:
    """Buffers that are state (running means, codebooks, chains), by owner and name: training may put another tensor in their place.

    Those that a module lists in ``summed`` are what a step has seen so far, to be added up over processes before ``Update.after``.
    """
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and name not in part._non_persistent_buffers_set:
                yield part, name


def _load_optimiser(optimiser: Optimizer, state: dict[str, Any]) -> None:
    """``load_state_dict`` without its casts: state keeps the number type that it was saved with."""
    optimiser.load_state_dict(state)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for number, saved in state.get("state", {}).items():
        if not isinstance(number, int) or number >= len(parameters):
            continue
        loaded = optimiser.state.get(parameters[number], {})
        for name, value in saved.items():
            if isinstance(value, Tensor) and isinstance(loaded.get(name), Tensor) and loaded[name].dtype != value.dtype:
                loaded[name] = value.to(loaded[name].device, copy=True)
