"""The training of a part of a module: phases of the wrapped family, told where its body is inside the wrapper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.errors import CapabilityError
from pofx.training.contract import Loss, LossFunction, Phase, Source, Update
from pofx.training.noise import Noise, derive_seed, uniforms

__all__ = ["PartSource", "inside", "loss_inside", "multiplicities"]


def inside(phase: Phase, path: str, *, resampled: bool = False) -> Phase:
    """A phase of the body at ``path``, as one of the whole body; ``resampled``: on events drawn again with replacement."""
    estimate, planned, own = phase.estimate, phase.planned, phase.source

    def estimate_part(body: nn.Module, source: Source, training: Any) -> None:
        assert estimate is not None
        estimate(body.get_submodule(path), source, training)

    def planned_part(body: nn.Module, steps: int) -> None:
        assert planned is not None
        planned(body.get_submodule(path), steps)

    def source_of(body: nn.Module, source: Source) -> Source:
        part = PartSource(source, body, path, _key(body, path) if resampled else None)
        return part if own is None else own(body.get_submodule(path), part)

    return replace(
        phase,
        name=f"{path}/{phase.name}",
        updates=tuple(_update(update, path) for update in phase.updates),
        estimate=None if estimate is None else estimate_part,
        planned=None if planned is None else planned_part,
        monitor=None if phase.monitor is None else loss_inside(phase.monitor, path),
        source=source_of,
    )


def loss_inside(loss: LossFunction, path: str) -> LossFunction:
    """A loss of the part, as one of the whole."""

    def of_part(body: nn.Module, events: Events, noise: Noise) -> Loss:
        return loss(body.get_submodule(path), events, noise)

    return of_part


def _update(update: Update, path: str) -> Update:
    after = update.after

    def after_part(body: nn.Module) -> None:
        assert after is not None
        after(body.get_submodule(path))

    return replace(
        update,
        loss=loss_inside(update.loss, path),
        parameters=tuple(f"{path}.{pattern}" for pattern in update.parameters),
        after=None if after is None else after_part,
    )


def _key(body: Any, path: str) -> int:
    return derive_seed(int(body.seed), "bootstrap", path)


def multiplicities(keys: Sequence[int], index: Tensor) -> Tensor:
    """How often each event is in data sets that were drawn again with replacement, ``(K, n)``: Poisson of mean one, by the event's number.

    >>> multiplicities([1], torch.arange(100_000)).mean().round(decimals=2)
    tensor(1., dtype=torch.float64)
    """
    words = torch.tensor([derive_seed(key, "", "multiplicity", 0) for key in keys])
    u = uniforms(words, index, 1).squeeze(2)
    counts = torch.arange(0, 20, dtype=torch.float64, device=index.device)
    cumulative = (-1.0 - torch.lgamma(counts + 1)).exp().cumsum(0)
    return torch.searchsorted(cumulative, u).double()


@dataclass(frozen=True)
class PartSource:
    """A source for the training of a part.

    Attributes
    ----------
    source : of the whole.
    whole, path : the part is ``whole.get_submodule(path)``; events that are made by the current model are made by it.
    key : of the resampling of events with replacement, or None for all events as they are.
    epoch : steps that are called an epoch; None means as the source says.
    """

    source: Source
    whole: nn.Module
    path: str
    key: int | None = None
    epoch: int | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.source.size is None:
            raise CapabilityError("bootstrap=True draws again from a finite set of events; these are made on the fly")

    @property
    def size(self) -> int | None:
        return self.source.size

    @property
    def steps_per_epoch(self) -> int:
        return self.source.steps_per_epoch if self.epoch is None else self.epoch

    def next(self, module: nn.Module, step: int) -> Events:
        return self._drawn(self.source.next(self.whole.get_submodule(self.path), step))

    def sweep(self) -> Iterator[Events]:
        return map(self._drawn, self.source.sweep())

    def validation(self) -> Iterator[Events]:
        return self.source.validation()

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.source.load_state_dict(state)

    def _drawn(self, events: Events) -> Events:
        if self.key is None:
            return events
        assert events.index is not None
        times = multiplicities([self.key], events.index)[0]
        return events.replace(
            weight=times.to(next(iter(events.fields.values())).dtype)
            if events.weight is None
            else events.weight * times
        )
