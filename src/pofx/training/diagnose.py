"""Where a number stopped being finite: the events and the first layer, found by doing the step again and watching it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.errors import DivergenceError
from pofx.training.contract import Loss, Update
from pofx.training.evaluate import batch_loss
from pofx.training.noise import Noise

__all__ = ["divergence"]

_SHOWN = 8

Evaluate = Callable[[Events], Loss]


def divergence(module: nn.Module, update: Update, events: Events, noise: Noise, where: str) -> DivergenceError:
    """The error that says what is not finite in this update of this batch, whose weights have not been touched yet."""

    def evaluate(some: Events) -> Loss:
        assert some.index is not None
        return update.loss(module, some, Noise(noise.seed, some.index, noise.step, noise.dtype, noise.scope))

    with torch.enable_grad():
        parts = [where, _inputs(events), *_forward(module, evaluate, events), update.advice]
    return DivergenceError("; ".join(part for part in parts if part))


def _forward(module: nn.Module, evaluate: Evaluate, events: Events) -> list[str]:
    with _watching(module) as seen:
        loss = evaluate(events)
        bad = ~loss.per_event.isfinite()
        extra = loss.extra is not None and not bool(loss.extra.isfinite().all())
        if bool(bad.any()):
            return [_events("the loss is not finite", events, bad), _layer(seen.outputs)]
        if extra:
            return ["the extra term of the loss is not finite", _layer(seen.outputs)]
        total = batch_loss(loss, events)
        if not bool(total.isfinite()):
            return ["every term of the loss is finite, and their weighted mean is not: weights or terms are too large"]
        return _backward(module, evaluate, events, total, seen.gradients)


def _backward(module: nn.Module, evaluate: Evaluate, events: Events, total: Tensor, gradients: list[str]) -> list[str]:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    found: Sequence[Tensor | None] = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    broken = [name for (name, _), gradient in zip(named, found, strict=True) if _spoilt(gradient)]
    if not broken:
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in found if g is not None]))
        if not bool(norm.isfinite()):
            return [f"the loss has grown to {total.item():.2g}, and the norm of its gradient beyond all numbers"]
        return ["it did not happen again when the step was repeated"]
    layer = gradients[0] if gradients else broken[-1].rpartition(".")[0] or broken[-1]
    bad = torch.zeros(len(events), dtype=torch.bool)
    bad[_guilty(evaluate, events, [p for _, p in named])] = True
    return [
        _events("the loss is finite, but not its gradient", events, bad),
        f"first layer {layer!r}",
        f"parameter {broken[-1]!r}",
    ]


def _spoilt(gradient: Tensor | None) -> bool:
    """Whether there is a gradient (an unused parameter has none) with a number that is not finite."""
    return gradient is not None and not bool(gradient.isfinite().all())


def _guilty(evaluate: Evaluate, events: Events, parameters: list[nn.Parameter]) -> list[int]:
    """Rows whose own gradient is not finite, by halving; at most a handful."""

    def broken(rows: list[int]) -> bool:
        some = events[torch.tensor(rows, device=events.index.device)]  # type: ignore[union-attr]
        found = torch.autograd.grad(batch_loss(evaluate(some), some), parameters, allow_unused=True)
        return any(map(_spoilt, found))

    guilty: list[int] = []
    todo = [list(range(len(events)))]
    while todo and len(guilty) < _SHOWN:
        rows = todo.pop()
        if not broken(rows):
            continue
        if len(rows) == 1:
            guilty += rows
        else:
            todo += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return guilty


class _Seen:
    def __init__(self) -> None:
        self.outputs: list[str] = []
        self.gradients: list[str] = []


@contextmanager
def _watching(module: nn.Module) -> Iterator[_Seen]:
    """Note, in order, the layers with an output (forward) or a gradient of the output (backward) that is not finite."""
    seen = _Seen()

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_layer: nn.Module, _args: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if not bool(tensor.isfinite().all()):
                    seen.outputs.append(name)
                if tensor.requires_grad:
                    tensor.register_hook(lambda g: None if bool(g.isfinite().all()) else seen.gradients.append(name))

        return note

    with ExitStack() as stack:
        for name, layer in module.named_modules():
            stack.callback(layer.register_forward_hook(hook(name or type(layer).__name__)).remove)
        yield seen


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor) and output.is_floating_point():
        yield output
    elif isinstance(output, tuple | list):
        for item in output:
            yield from _tensors(item)


def _layer(names: list[str]) -> str:
    return f"first layer {names[0]!r}" if names else "the outputs of all layers are finite: it is in the loss itself"


def _events(what: str, events: Events, bad: Tensor) -> str:
    assert events.index is not None
    numbers = events.index[bad.to(events.index.device)].tolist()
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return (
        f"{what} for event {', '.join(map(str, numbers[:_SHOWN]))}{more}" if numbers else f"{what} (of no single event)"
    )


def _inputs(events: Events) -> str:
    for name, array in events.fields.items():
        bad = ~array.isfinite().flatten(1).all(1) if array.ndim > 1 else ~array.isfinite()
        if bool(bad.any()):
            return _events(f"field {name!r} came in with NaN or infinity", events, bad)
    return ""
