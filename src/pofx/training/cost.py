"""The dry run: what a training would take, from a few steps of a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pofx.training.contract import Phase, Source
from pofx.training.placement import Placed, Placement, isolated_randomness, mixed_precision
from pofx.training.plan import make_plan, probe, settings_of
from pofx.training.record import Cost
from pofx.training.settings import Training
from pofx.training.stage import Stage
from pofx.training.state import tensors_in

__all__ = ["estimate_cost"]


def estimate_cost(module: nn.Module, phases: Sequence[Phase], source: Source, training: Training) -> Cost:
    """Parameters, memory and time that :func:`~pofx.training.loop.train` would take with the same arguments.

    A few steps of every phase run on a copy of the module, estimates included (a later phase may need them). A time budget is not
    reckoned with: the total is that of the other limits, or the budget where there is no other.
    """
    placement = Placement(training)
    module = placement.module(copy.deepcopy(module))
    unlimited = training if training.max_epochs or training.max_steps else training.replace(max_epochs=1)
    seconds, steps, epochs, memory = 0.0, 0, 0.0, 0
    with isolated_randomness(placement, training.deterministic), mixed_precision(module, placement):
        for phase, settings in zip(phases, settings_of(phases, unlimited), strict=True):
            stage = _stage(module, phase, source, settings, placement)
            if not phase.updates:
                continue
            plan = make_plan(module, stage, None, lambda: 0.0)
            speed = probe(module, stage)
            phase_epochs = plan.steps / stage.epoch_steps
            seconds += plan.steps * speed.step + phase_epochs / settings.validate_every * speed.validation
            steps, epochs = steps + plan.steps, epochs + phase_epochs
            memory = max(memory, _memory(stage))
    if unlimited is not training:
        assert training.max_minutes is not None
        factor = 60.0 * training.max_minutes / max(seconds, 1e-9)
        seconds, steps, epochs = seconds * factor, max(1, round(steps * factor)), epochs * factor
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Cost(parameters, memory, seconds / max(epochs, 1e-9), seconds / max(steps, 1), seconds)


def _stage(module: nn.Module, phase: Phase, source: Source, settings: Training, placement: Placement) -> Stage:
    placed = Placed(source, placement)
    if phase.source is not None:
        placed = Placed(phase.source(module, placed), placement)
    if phase.estimate is not None:
        phase.estimate(module, placed, settings)
    return Stage(module, phase, placed, settings, placement)


def _memory(stage: Stage) -> int:
    """Bytes of a step: on a GPU the measured peak, elsewhere state, gradients, and what the forward pass keeps for the backward pass."""
    device = stage.placement.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        stage.advance(1)
        return int(torch.cuda.max_memory_allocated(device))
    with _kept_for_backward() as kept:
        stage.advance(1)
    state = {tensor.data_ptr(): _bytes(tensor) for tensor in tensors_in(stage.state_dict())}
    gradients = sum(_bytes(p.grad) for p in stage.module.parameters() if p.grad is not None)
    return sum(state.values()) + gradients + sum(size for pointer, size in kept.items() if pointer not in state)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _kept_for_backward() -> Iterator[dict[int, int]]:
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept
