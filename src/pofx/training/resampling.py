r"""Positive weights instead of negative ones: the conditional mean weight, learnt first (neural resampling, arXiv:2007.11586).

A likelihood with negative weights has no upper bound: a density that vanishes at one negative event is infinitely good. But for every f

.. math:: E[w f(x)] = E[m(x) f(x)], \qquad m(x) = E[w | x],

and m is nowhere negative if the density is not. With a context, x stands for both. One small network learns both factors of

.. math:: m(x) = a(x) \, (2 s(x) - 1)

from unweighted events: the mean size a = E[abs(w) | x] by the Poisson deviance a - abs(w) log a, and the positive share s of that size by
the cross-entropy weighted with abs(w). Both are well behaved where weights differ by orders of magnitude, as a squared error is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pofx.data.events import Events
from pofx.errors import DataError
from pofx.networks.dense import MLP
from pofx.training.contract import Loss, Phase, Source, Update
from pofx.training.loop import train
from pofx.training.noise import Noise, derive_seed
from pofx.training.settings import Training

__all__ = ["MeanWeight", "PositiveWeights", "learn_positive_weights"]

WEIGHT = "weight of the event"
"""The field that holds what the network is to learn."""

HIDDEN = (64, 64)
POOLED = 32
"""Numbers that the points of a cloud are summed up in."""

Angles = Mapping[str, Sequence[int]]
"""Field -> columns that are angles."""


@dataclass(frozen=True)
class Angular:
    """Which latent columns of event and context are angles, of which the network sees cosine and sine."""

    events: Angles
    context: Angles


def learn_positive_weights(
    source: Source, training: Training, angular: Angular | None = None, resume: str = "auto"
) -> PositiveWeights:
    """A source of the same events with their conditional mean weight, clipped at zero, in place of their weight.

    The network is trained on the source's training events, and kept where its loss on the validation events is smallest. With a time
    budget this takes at most a tenth of it, on top; with a checkpoint it has one of its own beside it.
    """
    angular = angular or Angular({}, {})
    body = _seeded_body(source, angular, training)
    phase = Phase("weights", (Update("weight", _loss),))
    record = train(
        body, [phase], _Unweighted(source), _settings(training), resume="auto" if resume == "must" else resume
    )
    learnt = PositiveWeights(source, body)
    learnt.notes |= {"steps": record.steps, "validation_loss": record.best_loss}
    return learnt


def _settings(training: Training) -> Training:
    """Short, and with everything of the main training that says where and how to compute."""
    precision = "float32" if training.precision == "bf16" else training.precision
    checkpoint = None if training.checkpoint is None else Path(f"{training.checkpoint}.weights")
    budget = None if training.max_minutes is None else training.max_minutes / 10
    own = {"max_epochs": 40, "max_steps": 4000, "learning_rate": 3e-3, "weight_decay": 0.1, "patience": 10}
    kept = ("seed", "device", "deterministic", "progress", "checkpoint_every")
    same = {name: getattr(training, name) for name in kept}
    return Training(precision=precision, checkpoint=checkpoint, max_minutes=budget).replace(**own, **same)


def _seeded_body(source: Source, angular: Angular, training: Training) -> MeanWeight:
    example = next(iter(source.sweep()))
    sizes = [piece.weight.double().abs().mean() for piece in source.sweep() if piece.weight is not None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(training.seed, "resampling"))
        return MeanWeight(example, float(torch.stack(sizes).mean()), angular)


class MeanWeight(nn.Module):
    """E[w | x, c]; ``size`` is a typical weight, ``example`` are events that say which numbers there are and how large.

    >>> events = Events({"x": torch.randn(100, 2, generator=torch.Generator().manual_seed(1))})
    >>> MeanWeight(events, 1.0).mean(events).shape
    torch.Size([100])
    """

    def __init__(self, example: Events, size: float, angular: Angular | None = None) -> None:
        super().__init__()
        self.size, angular = size, angular or Angular({}, {})
        self.events = Numbers(example, angular.events)
        self.context = None if example.context is None else Numbers(example.context, angular.context)
        self.network = MLP(self.events.count + (self.context.count if self.context is not None else 0), 2, HIDDEN)

    def forward(self, events: Events) -> tuple[Tensor, Tensor]:
        """log a (in units of ``size``) and the logit of s, ``(n,)`` each."""
        rows = self.events(events)
        if self.context is not None:
            rows = torch.cat([rows, self.context(events.context)], 1)
        return self.network(rows).unbind(1)

    def mean(self, events: Events) -> Tensor:
        """E[w | x, c], ``(n,)``, of either sign."""
        log_size, logit = self(events)
        return self.size * log_size.double().exp() * (0.5 * logit.double()).tanh()


class Numbers(nn.Module):
    """Events of any kind as rows of about unit size: standardised columns; cosine and sine of angles; means over the points of a cloud."""

    centre: Tensor
    scale: Tensor

    def __init__(self, example: Events, angles: Angles) -> None:
        super().__init__()
        self.angles = {name: list(columns) for name, columns in angles.items() if columns}
        self.flat = [name for name in example.fields if name not in example.masks and name != WEIGHT]
        self.clouds = list(example.masks)
        self.points = nn.ModuleList([MLP(example.fields[name].shape[-1], POOLED, (POOLED,)) for name in self.clouds])
        rows = self._columns(example)
        self.register_buffer("centre", rows.mean(0))
        self.register_buffer("scale", rows.std(0, correction=0).clamp(min=torch.finfo(rows.dtype).tiny))
        self.count = rows.shape[1] + (POOLED + 1) * len(self.clouds)

    def forward(self, events: Events) -> Tensor:
        """``(n, count)``."""
        rows = [(self._columns(events).to(self.centre) - self.centre) / self.scale]
        for name, network in zip(self.clouds, self.points, strict=True):
            mask = events.masks[name].unsqueeze(-1).to(self.centre)
            number = mask.sum(1)
            points = (network(events.fields[name].to(self.centre)) * mask).sum(1)
            rows += [points / number.clamp(min=1.0), number.log1p()]
        return torch.cat(rows, 1)

    def _columns(self, events: Events) -> Tensor:
        columns = [self._turned(name, events.fields[name].flatten(1)) for name in self.flat]
        first = next(iter(events.fields.values()))
        return torch.cat(columns, 1) if columns else first.new_zeros(len(events), 0)

    def _turned(self, name: str, rows: Tensor) -> Tensor:
        angles = self.angles.get(name)
        if angles is None:
            return rows
        lines = [i for i in range(rows.shape[1]) if i not in angles]
        return torch.cat([rows[:, lines], rows[:, angles].cos(), rows[:, angles].sin()], 1)


def _loss(body: Any, events: Events, _noise: Noise) -> Loss:
    weight = events.fields[WEIGHT] / body.size
    log_size, logit = body(events)
    size = weight.abs()
    deviance = log_size.exp() - size * log_size
    return Loss(deviance + size * softplus(torch.where(weight > 0, -logit, logit)))


class _Wrapped:
    """A source whose events are changed on their way."""

    def __init__(self, source: Source, change: Callable[[Events], Events]) -> None:
        self.inner, self._change = source, change

    @property
    def size(self) -> int | None:
        """See :class:`~pofx.training.contract.Source`, here and below."""
        return self.inner.size

    @property
    def steps_per_epoch(self) -> int:
        return self.inner.steps_per_epoch

    def next(self, module: nn.Module, step: int) -> Events:
        return self._change(self.inner.next(module, step))

    def sweep(self) -> Iterator[Events]:
        return map(self._change, self.inner.sweep())

    def validation(self) -> Iterator[Events]:
        return map(self._change, self.inner.validation())

    def fingerprint(self) -> dict[str, Any]:
        own = getattr(self.inner, "fingerprint", dict)
        return {**own(), "weights": type(self).__name__}

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


class _Unweighted(_Wrapped):
    """Every event once, its weight among its fields."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, self._unweighted)

    @staticmethod
    def _unweighted(events: Events) -> Events:
        first = next(iter(events.fields.values()))
        weight = torch.ones(len(events)) if events.weight is None else events.weight
        return events.replace(fields={**events.fields, WEIGHT: weight.to(first)}, weight=None)


class PositiveWeights(_Wrapped):
    """The same events, their weight replaced by max(E[w | x, c], 0), times the number that leaves its mean over the training events at one.

    ``notes`` say, for the card, how many events had a negative weight and how many have now none, and the effective number of events
    :math:`(\\sum w)^2 / \\sum w^2` before and after. What they can resolve is nearer to the number before.
    """

    signed = False

    def __init__(self, source: Source, body: MeanWeight) -> None:
        super().__init__(source, self._weighted)
        self._body, self.scale = body.eval(), 1.0
        self.notes = self._measure()

    def rebatched(self, batch_size: Any) -> PositiveWeights:
        """The same with batches of another size, where the source can have them."""
        rebatched = getattr(self.inner, "rebatched", None)
        if rebatched is None:
            return self
        other = object.__new__(PositiveWeights)
        _Wrapped.__init__(other, rebatched(batch_size), other._weighted)
        other._body, other.scale, other.notes = self._body, self.scale, self.notes
        return other

    def place(self, function: Callable[[Events], Events]) -> None:
        """Send what the source keeps in memory to the training's device and precision."""
        place = getattr(self.inner, "place", None)
        if place is not None:
            place(function)

    def _weighted(self, events: Events) -> Events:
        return events.replace(weight=self.scale * self._mean(events).clamp(min=0.0))

    @torch.no_grad()
    def _mean(self, events: Events) -> Tensor:
        device = next(iter(events.fields.values())).device
        if self._body.events.centre.device != device:
            self._body.to(device)
        return self._body.mean(events)

    def _measure(self) -> dict[str, Any]:
        """Fix the scale, and count."""
        before = torch.zeros(3, dtype=torch.float64)
        after = torch.zeros(3, dtype=torch.float64)
        events = 0
        for piece in self.inner.sweep():
            old = torch.ones(len(piece)) if piece.weight is None else piece.weight
            before += _sums(old, old < 0)
            mean = self._mean(piece)
            after += _sums(mean.clamp(min=0.0), mean <= 0)
            events += len(piece)
        if not float(after[0]) > 0:
            raise DataError(
                f"expected events with a positive mean weight somewhere; that of {events} events is nowhere positive"
            )
        self.scale = float(before[0] / after[0])
        return {
            "method": "conditional mean weight, arXiv:2007.11586",
            "negative_fraction": float(before[2]) / events,
            "clipped_fraction": float(after[2]) / events,
            "scale": self.scale,
            "effective_events_before": float(before[0] ** 2 / before[1]),
            "effective_events": float(after[0] ** 2 / after[1]),
        }


def _sums(weight: Tensor, chosen: Tensor) -> Tensor:
    """Sum of weights, of their squares, and the number chosen."""
    weight = weight.double().cpu()
    return torch.stack([weight.sum(), weight.square().sum(), chosen.double().cpu().sum()])
