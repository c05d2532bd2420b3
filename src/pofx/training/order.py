"""In which order events are shown: one keyed permutation per epoch, end to end, cut into batches.

The permutations of all epochs make one endless stream; batch k is the events ``[k b, (k + 1) b)`` of it. Nothing is left out, no batch
is short, and a batch is a function of its number, so there is nothing to save. A data set of at most b events is one batch, in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import numpy as np
import torch

from pofx.data.events import Events
from pofx.training.noise import derive_seed

__all__ = ["BatchSize", "Order", "Stream", "batch_size_for", "concatenate"]

BatchSize = int | Literal["auto"]
SMALLEST, LARGEST = 8, 512

Rows = np.ndarray[Any, np.dtype[np.int64]]


class _Shuffled(Protocol):
    def shuffled(self, size: int, *, seed: int, epoch: int = 0, start: int = 0) -> Iterator[Events]: ...


def batch_size_for(events: int, wanted: BatchSize) -> int:
    """Events per batch: what is wanted, but no more than there are; ``"auto"`` is the power of two next to a tenth of them, 8 to 512.

    >>> [batch_size_for(n, "auto") for n in (5, 160, 1600, 4000, 10**6)]
    [5, 16, 128, 512, 512]
    """
    near: int = 2 ** round(math.log2(max(events, 10) / 10))
    return min(min(max(near, SMALLEST), LARGEST) if wanted == "auto" else wanted, events)


class Order:
    """Which rows of ``size`` events batch number k holds."""

    def __init__(self, size: int, batch_size: BatchSize, seed: int) -> None:
        self.size, self.batch, self.seed = size, batch_size_for(size, batch_size), seed
        self._permutations: dict[int, Rows] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every event once."""
        return -(-self.size // self.batch)

    def rows(self, step: int) -> Rows | None:
        """Rows of batch ``step``; None means all of them, in order."""
        if self.batch == self.size:
            return None
        pieces = [self._permutation(epoch)[begin:end] for epoch, begin, end in self.spans(step)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def spans(self, step: int) -> list[tuple[int, int, int]]:
        """Batch ``step`` as (epoch, begin, end) within the order of each epoch."""
        spans, position, end = [], step * self.batch, (step + 1) * self.batch
        while position < end:
            epoch, begin = divmod(position, self.size)
            length = min(end - position, self.size - begin)
            spans.append((epoch, begin, begin + length))
            position += length
        return spans

    def _permutation(self, epoch: int) -> Rows:
        if epoch not in self._permutations:
            made = np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(self.size)
            self._permutations = {old: rows for old, rows in self._permutations.items() if old == epoch - 1}
            self._permutations[epoch] = made
        return self._permutations[epoch]


class Stream:
    """The same for a data set that is read in shuffled chunks: a sequential reader that can begin at any batch."""

    def __init__(self, data: _Shuffled, order: Order) -> None:
        self._data, self._order = data, order
        self._reader: Iterator[Events] = iter(())
        self._rest: Events | None = None
        self._epoch, self._position = -1, 0

    def batch(self, step: int) -> Events:
        """Batch number ``step``; the next one costs least."""
        return concatenate([self._read(epoch, begin, end) for epoch, begin, end in self._order.spans(step)])

    def _read(self, epoch: int, begin: int, end: int) -> Events:
        if (epoch, begin) != (self._epoch, self._position):
            self._seek(epoch, begin)
        pieces, missing = [], end - begin
        while missing > 0:
            piece = self._rest if self._rest is not None else next(self._reader)
            pieces.append(piece[:missing])
            self._rest = piece[missing:] if len(piece) > missing else None
            missing -= len(pieces[-1])
        self._position = end
        if end == self._order.size:
            self._epoch, self._position, self._reader, self._rest = epoch + 1, 0, self._open(epoch + 1, 0), None
        return concatenate(pieces)

    def _seek(self, epoch: int, begin: int) -> None:
        batch, skip = divmod(begin, self._order.batch)
        self._reader, self._epoch, self._position = self._open(epoch, batch), epoch, begin
        self._rest = next(self._reader)[skip:] if skip else None

    def _open(self, epoch: int, batch: int) -> Iterator[Events]:
        return iter(self._data.shuffled(self._order.batch, seed=self._order.seed, epoch=epoch, start=batch))


def concatenate(parts: list[Events]) -> Events:
    """Events of all parts, one after the other (numpy or torch)."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]

    def join(arrays: list[Any]) -> Any:
        if arrays[0] is None:
            return None
        return torch.cat(arrays) if isinstance(arrays[0], torch.Tensor) else np.concatenate(arrays)

    return Events(
        fields={name: join([part.fields[name] for part in parts]) for name in first.fields},
        masks={name: join([part.masks[name] for part in parts]) for name in first.masks},
        context=None
        if first.context is None
        else concatenate([part.context for part in parts if part.context is not None]),
        weight=join([part.weight for part in parts]),
        index=join([part.index for part in parts]),
    )
