"""Where training events come from: a data set in memory, one that is streamed, or a function of the current model.

Weights are divided by their mean over the training events, and the loop takes the mean of weight times loss over a batch. An event of
weight two then counts exactly as the event twice would: a full batch gives the same gradient, a mini-batch an unbiased one. (Dividing by
the batch's own sum of weights would be biased, and would explode for negative weights.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.errors import CapabilityError, DataError, TrainingError
from pofx.training.noise import Noise
from pofx.training.order import BatchSize, Order, Stream, concatenate

__all__ = ["DataPart", "DatasetSource", "FunctionSource", "MemoryPart", "TeacherSource"]

CHUNK = 2048
"""Events per piece of a pass over the data; a fixed number, so that sums are always added in the same order."""

Prepare = Callable[[Events, Noise], Events]


class DataPart(Protocol):
    """What a source needs of a data set; :class:`pofx.Dataset` has it."""

    def __len__(self) -> int: ...

    @property
    def in_memory(self) -> bool:
        """Whether ``arrays`` is cheap."""

    def arrays(self) -> Events:
        """All events."""

    def chunks(self, size: int) -> Iterator[Events]:
        """All events in order, ``size`` at a time."""

    def shuffled(self, size: int, *, seed: int, epoch: int = 0, start: int = 0) -> Iterator[Events]:
        """All events in the order of (seed, epoch), ``size`` at a time, from batch ``start`` on."""


class MemoryPart:
    """Events that are in memory already (numpy), as a source reads them."""

    in_memory = True

    def __init__(self, events: Events) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    def arrays(self) -> Events:
        return self._events

    def chunks(self, size: int) -> Iterator[Events]:
        return self._events.split(size)

    def shuffled(self, size: int, *, seed: int, epoch: int = 0, start: int = 0) -> Iterator[Events]:
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        return self._events[order[start * size :]].split(size)


class DatasetSource:
    """Batches of a data set.

    Parameters
    ----------
    train, val : the training events and the validation events (None or empty for none).
    prepare : numpy events to tensors in latent coordinates; it is given keyed noise (for dequantisation).
    batch_size : events per batch (or ``"auto"``, by their number); what is left over at the end of an epoch begins the next one.
    seed : of the order and of the noise.

    ``signed`` says whether a training event has a negative weight.
    Events in memory are prepared once, before training, where ``prepare`` does not ask for noise.
    """

    def __init__(
        self, train: DataPart, val: DataPart | None, prepare: Prepare, *, batch_size: BatchSize, seed: int
    ) -> None:
        if len(train) == 0:
            raise DataError("expected at least one training event; the training split is empty")
        self._train, self._val, self._prepare = train, val, prepare
        self._seed = seed
        self._order = Order(len(train), batch_size, seed)
        self.mean_weight, self.signed = _weights(train)
        self._validation_mean = 1.0 if val is None or len(val) == 0 else _weights(val)[0]
        self._raw = _numbered(train.arrays()) if train.in_memory else None
        self._stream = None if train.in_memory else Stream(train, self._order)
        self._cache: Events | None = None
        self._cached = self._raw is None

    @property
    def size(self) -> int:
        """Number of distinct training events."""
        return len(self._train)

    @property
    def total_weight(self) -> float:
        """Sum of the weights of the training events: their number, were they unweighted."""
        return self.size * self.mean_weight

    @property
    def steps_per_epoch(self) -> int:
        """Batches that show every training event once."""
        return self._order.steps_per_epoch

    def next(self, module: nn.Module, step: int) -> Events:
        """Batch number ``step``."""
        if self._raw is None:
            assert self._stream is not None
            return self._finish(self._stream.batch(step), step)
        cache = self._prepared()
        rows = self._order.rows(step)
        if cache is None:
            return self._finish(self._raw if rows is None else self._raw[rows], step)
        if rows is None:
            return cache
        chosen = torch.from_numpy(rows)
        return cache.map(lambda array: array.index_select(0, chosen.to(array.device)))

    def rebatched(self, batch_size: BatchSize) -> DatasetSource:
        """The same events in batches of another size (a phase may ask for it)."""
        other = copy.copy(self)
        other._order = Order(self.size, batch_size, self._seed)
        other._stream = None if self._raw is not None else Stream(self._train, other._order)
        return other

    def place(self, function: Callable[[Events], Events]) -> None:
        """Send what is kept in memory to the training's device and precision."""
        if self._raw is not None and (cache := self._prepared()) is not None:
            self._cache = function(cache)

    def sweep(self) -> Iterator[Events]:
        """One pass over the training events in order."""
        for piece in self._pieces(self._train):
            yield self._finish(piece, 0, "sweep")

    def validation(self) -> Iterator[Events]:
        """One pass over the validation events, with the same noise every time."""
        if self._val is not None:
            for piece in self._pieces(self._val):
                yield self._finish(piece, 0, "validation")

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint remembers of the data."""
        first = next(iter(self._pieces(self._train)))
        total = sum(float(np.sum(np.asarray(array, dtype=np.float64))) for array in first.fields.values())
        named = getattr(self._train, "fingerprint", None)
        return {
            "events": self.size,
            "batch_size": self._order.batch,
            "seed": self._seed,
            "sum_of_weights": self.total_weight,
            "sum_of_first_values": total,
            "sha256": named if isinstance(named, str) else None,
        }

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a batch is a function of its number."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore; a stream finds its place when it is asked for a batch."""

    def _pieces(self, part: DataPart) -> Iterator[Events]:
        start = 0
        for piece in part.chunks(CHUNK):
            yield _numbered(piece, start)
            start += len(piece)

    def _prepared(self) -> Events | None:
        """All training events prepared, or None where that takes noise."""
        if not self._cached:
            assert self._raw is not None
            watch = _Watch()
            parts = [self._finish(piece, 0, watch=watch) for piece in self._raw.split(CHUNK)]
            self._cache, self._cached = None if watch.used else concatenate(parts), True
        return self._cache

    def _finish(self, raw: Events, step: int, scope: str = "prepare", watch: _Watch | None = None) -> Events:
        index = torch.from_numpy(np.ascontiguousarray(raw.index, dtype=np.int64))
        noise = _WatchedNoise(self._seed, index, step, torch.float64, scope)
        noise.watched_by(watch)
        mean = self._validation_mean if scope == "validation" else self.mean_weight
        weight = None if raw.weight is None else torch.from_numpy(np.asarray(raw.weight, dtype=np.float64) / mean)
        return self._prepare(raw, noise).replace(weight=weight, index=index)


class _Watch:
    used = False


class _WatchedNoise(Noise):
    """Noise that notes whether it was asked for."""

    _watch: _Watch | None = None

    def watched_by(self, watch: _Watch | None) -> None:
        object.__setattr__(self, "_watch", watch)

    def within(self, scope: str) -> Noise:
        return self._noted(super().within(scope))

    def at(self, step: int) -> Noise:
        return self._noted(super().at(step))

    def _uniform(self, name: str, size: int) -> Tensor:
        return self._noted(super()._uniform(name, size))

    def _noted(self, result: Any) -> Any:
        if self._watch is not None:
            self._watch.used = True
        return result


def _numbered(events: Events, start: int = 0) -> Events:
    return events if events.index is not None else events.replace(index=np.arange(start, start + len(events)))


def _weights(part: DataPart) -> tuple[float, bool]:
    """Mean weight of all events (one without weights), and whether any is negative."""
    total, lowest = 0.0, 0.0
    for piece in part.chunks(CHUNK):
        if piece.weight is None:
            return 1.0, False
        total += float(np.sum(piece.weight, dtype=np.float64))
        lowest = min(lowest, float(np.min(piece.weight)))
    if not (math.isfinite(total) and total > 0):
        raise DataError(f"expected weights with a positive sum; {len(part)} events have a sum of weights of {total}")
    return total / len(part), lowest < 0


class FunctionSource:
    """Events made on the fly by ``function(module, step, noise)``: an integrand sampled from the current model, a simulator.

    Parameters
    ----------
    function : returns Events of tensors; ``noise`` has one row per event, keyed by the batch's number.
    size : events per batch.
    steps_per_epoch : batches that the loop calls an epoch.
    seed : of the noise.

    >>> source = FunctionSource(lambda module, step, noise: Events({"x": noise.normal("x", 2)}), size=4, steps_per_epoch=10, seed=1)
    >>> source.next(nn.Identity(), 3).x.shape
    torch.Size([4, 2])
    """

    def __init__(
        self, function: Callable[[nn.Module, int, Noise], Events], *, size: int, steps_per_epoch: int, seed: int = 0
    ) -> None:
        if size < 1 or steps_per_epoch < 1:
            raise TrainingError(f"expected size and steps_per_epoch of at least 1; got {size} and {steps_per_epoch}")
        self._function, self._batch, self._seed = function, size, seed
        self._steps_per_epoch = steps_per_epoch

    @property
    def size(self) -> int | None:
        """None: there is no end of events."""
        return None

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, as the user wished."""
        return self._steps_per_epoch

    def next(self, module: nn.Module, step: int) -> Events:
        """Batch number ``step``."""
        return self._make(module, step, self._batch, "source")

    def sweep(self) -> Iterator[Events]:
        """There is no pass over events that are made on the fly."""
        raise CapabilityError(
            "a pass over all training events was asked of a source that makes events on the fly; use a data set"
        )

    def validation(self) -> Iterator[Events]:
        """No events: what the current model samples is no measure from one epoch to the next."""
        return iter(())

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint remembers of the source."""
        return {"batch_size": self._batch, "steps_per_epoch": self._steps_per_epoch, "seed": self._seed}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a batch is a function of its number and of the module."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def _make(self, module: nn.Module, step: int, size: int, scope: str) -> Events:
        tensor = next(iter(module.parameters()), torch.zeros(()))
        index = torch.arange(size, device=tensor.device) + step * size
        dtype = tensor.dtype if tensor.dtype.is_floating_point else torch.float32
        with torch.no_grad():
            events = self._function(module, step, Noise(self._seed, index, step, dtype, scope))
        return events if events.index is not None else events.replace(index=index[: len(events)])


class TeacherSource(FunctionSource):
    """Events drawn from a teacher by ``function(step, noise)``; ``validation_events`` of them, always the same, serve for validation."""

    def __init__(
        self,
        function: Callable[[int, Noise], Events],
        *,
        size: int,
        steps_per_epoch: int,
        seed: int = 0,
        validation_events: int = 0,
    ) -> None:
        super().__init__(
            lambda _module, step, noise: function(step, noise), size=size, steps_per_epoch=steps_per_epoch, seed=seed
        )
        self._validation_events = validation_events
        self._kept: list[Events] | None = None

    def sweep(self) -> Iterator[Events]:
        """The batches of the first epoch."""
        for step in range(self.steps_per_epoch):
            yield self._make(nn.Identity(), step, self._batch, "source")

    def validation(self) -> Iterator[Events]:
        """The same events every time; drawn once."""
        if self._kept is None:
            starts = range(0, self._validation_events, CHUNK)
            sizes = [min(CHUNK, self._validation_events - start) for start in starts]
            self._kept = [self._make(nn.Identity(), number, size, "validation") for number, size in enumerate(sizes)]
        return iter(self._kept)
