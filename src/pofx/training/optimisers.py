"""Which parameters an update moves, and the optimiser that moves them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pofx.errors import ConfigError
from pofx.training.contract import Update
from pofx.training.settings import Training

__all__ = ["Average", "build_optimiser", "chosen_parameters", "clip_gradients", "gradient_norm"]

Named = list[tuple[str, nn.Parameter]]


def chosen_parameters(module: nn.Module, update: Update) -> Named:
    """The trainable parameters that match the update's patterns, in the module's order."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    for pattern in update.parameters:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            some = ", ".join(name for name, _ in named[:8]) or "none"
            raise ConfigError(
                f"update {update.name!r}: the pattern {pattern!r} matches no trainable parameter; there are {some}"
            )
    return [(name, p) for name, p in named if any(fnmatchcase(name, pattern) for pattern in update.parameters)]


def build_optimiser(update: Update, named: Named, training: Training) -> Optimizer:
    """The update's own optimiser, or that of the settings: weights with two or more axes decay, biases and scales do not."""
    if update.optimiser is not None:
        return update.optimiser(named)
    groups = _groups([p for _, p in named], training.weight_decay)
    rate = update.rate * training.learning_rate
    if training.optimiser == "sgd":
        return SGD(groups, lr=rate, momentum=0.9)
    kind = AdamW if training.optimiser == "adamw" else Adam
    return kind(groups, lr=rate, betas=update.betas or (0.9, 0.999), fused=_fusable(p for _, p in named))


def _groups(parameters: list[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    if decay == 0:
        return [{"params": parameters, "weight_decay": 0.0}]
    both = {decay: [p for p in parameters if p.ndim >= 2], 0.0: [p for p in parameters if p.ndim < 2]}
    return [{"params": some, "weight_decay": rate} for rate, some in both.items() if some]


def _fusable(parameters: Iterable[nn.Parameter]) -> bool:
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)


def gradient_norm(parameters: Sequence[nn.Parameter], like: Tensor) -> Tensor:
    """Euclidean norm over all gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return like.new_zeros(())
    if len(gradients) == 1:
        return torch.linalg.vector_norm(gradients[0])
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def clip_gradients(parameters: Sequence[nn.Parameter], norm: Tensor, largest: float) -> None:
    """Scale the gradients such that their norm, which is given, is at most ``largest``."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, (largest / (norm + 1e-12)).clamp(max=1.0))


class Average:
    r"""Exponential moving average of weights after step t = 1, 2, ...

    :math:`\bar w_t = d_t \bar w_{t-1} + (1 - d_t) w_t` with :math:`d_t = \min(d, (1 + t)/(10 + t))`; the rising decay lets the average
    forget the initial weights. Buffers are not averaged.
    """

    def __init__(self, named: Named, decay: float) -> None:
        self.decay = decay
        self.live: list[Tensor] = [p for _, p in named]
        self.mean = [p.detach().clone() for _, p in named]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number ``step`` (from 0)."""
        decay = min(self.decay, (2.0 + step) / (11.0 + step))
        torch._foreach_lerp_(self.mean, self.live, 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average (twice to undo)."""
        kept = [p.detach().clone() for p in self.live]
        torch._foreach_copy_(self.live, self.mean)
        torch._foreach_copy_(self.mean, kept)
