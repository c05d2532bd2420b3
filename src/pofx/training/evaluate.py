"""Losses of one batch and of a whole pass: the weighted mean of per-event terms plus the extra term."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.errors import ShapeError
from pofx.training.contract import Loss, LossFunction
from pofx.training.noise import Noise
from pofx.training.team import Team

__all__ = ["Measured", "batch_loss", "measure"]


def batch_loss(loss: Loss, events: Events) -> Tensor:
    """Mean over the batch of weight times loss (sources give weights of mean one), plus the extra term; in float32 or better."""
    terms = loss.per_event
    if terms.shape != (len(events),):
        raise ShapeError(f"a loss must return one term per event, shape ({len(events)},); got {tuple(terms.shape)}")
    terms = terms if events.weight is None else terms * events.weight
    total = terms.mean() if terms.dtype == torch.float64 else terms.float().mean()
    return total if loss.extra is None else total + loss.extra


@dataclass(frozen=True)
class Measured:
    """Weighted mean of a loss over a pass, its standard error, and the numbers of events with a term that is not finite."""

    value: float
    error: float
    bad: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Part:
    """What a loss gave for one piece of a pass."""

    terms: Tensor
    weights: Tensor
    numbers: Tensor
    extra: float


@torch.no_grad()
def measure(
    module: nn.Module, loss: LossFunction, batches: Iterable[Events], noise: Noise, team: Team | None = None
) -> Measured | None:
    """The mean loss over a pass, in evaluation mode; None for an empty pass. ``noise`` has no events yet: each batch brings its own.

    The error of sum(w l)/sum(w) is sqrt(sum(w^2 (l - mean)^2))/sum(w). A team shares out the batches, and all get the result.
    """
    was_training, team = module.training, team or Team()
    module.eval()
    mine = (batch for number, batch in enumerate(batches) if number % team.size == team.rank)
    parts = team.gather([_part(module, loss, batch, noise) for batch in mine])
    module.train(was_training)
    if not parts:
        return None
    terms, weights, numbers = (torch.cat([getattr(p, name) for p in parts]) for name in ("terms", "weights", "numbers"))
    return team.agree(_mean(terms, weights, numbers, sum(p.extra for p in parts)))


def _part(module: nn.Module, loss: LossFunction, batch: Events, noise: Noise) -> _Part:
    assert batch.index is not None
    found = loss(module, batch, replace(noise, index=batch.index))
    terms = found.per_event.double().cpu()
    weights = torch.ones_like(terms) if batch.weight is None else batch.weight.double().cpu()
    extra = 0.0 if found.extra is None else float(found.extra) * len(batch)
    return _Part(terms, weights, batch.index.cpu(), extra)


def _mean(terms: Tensor, weights: Tensor, numbers: Tensor, extra: float) -> Measured:
    total = weights.sum()
    mean = (weights * terms).sum() / total
    error = (weights * (terms - mean)).square().sum().sqrt() / total
    bad = () if math.isfinite(float(mean)) else tuple(numbers[~terms.isfinite()][:8].tolist())
    return Measured(float(mean) + extra / len(terms), float(error), bad)
