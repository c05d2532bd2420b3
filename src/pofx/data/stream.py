"""Events in order or shuffled, from stores of any size, in pieces of exactly the asked size.

Shuffling a file larger than memory: contiguous blocks of rows are read in random order, a buffer of several blocks is shuffled as a
whole. Every row comes exactly once per epoch. The order is a function of (seed, epoch, buffer) and nothing else, and which rows a
buffer will hold is known without reading it, so a stream starts at any piece at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from pofx.data.events import Events

if TYPE_CHECKING:
    from pofx.data.dataset import Dataset

__all__ = ["concat", "in_order", "rechunk", "shuffled"]

_BLOCK_BYTES = 1 << 20
_BUFFER_BYTES = 16 << 20


def concat(pieces: list[Events]) -> Events:
    """Pieces with the same fields, one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    return Events(
        fields={name: np.concatenate([p.fields[name] for p in pieces]) for name in first.fields},
        masks={name: np.concatenate([p.masks[name] for p in pieces]) for name in first.masks},
        context=None if first.context is None else concat([p.context for p in pieces if p.context is not None]),
        weight=None if first.weight is None else np.concatenate([p.weight for p in pieces]),
        index=None if first.index is None else np.concatenate([p.index for p in pieces]),
    )


def rechunk(pieces: Iterable[Events], size: int) -> Iterator[Events]:
    """The same events in pieces of exactly ``size`` (the last one may be shorter)."""
    held: list[Events] = []
    count = 0
    for piece in pieces:
        start = 0
        while len(piece) - start >= size - count:
            held.append(piece[start : start + size - count])
            start, count = start + size - count, 0
            yield concat(held)
            held = []
        if start < len(piece):
            held.append(piece[start:] if start else piece)
            count += len(piece) - start
    if held:
        yield concat(held)


def block_rows(data: Dataset, target: int = _BLOCK_BYTES) -> int:
    """Rows of a block: about ``target`` bytes, in whole grains of the store."""
    rows = max(1, target // data.recipe.row_bytes)
    grain = data.store.grain
    return max(1, round(rows / grain)) * grain


def in_order(data: Dataset, target: int = _BLOCK_BYTES) -> Iterator[Events]:
    """Events in order, in blocks of any size."""
    size = block_rows(data, target)
    if data.rows.chosen is not None:
        for start in range(0, len(data), size):
            yield data.gather(data.rows.chosen[start : start + size])
        return
    for start in range(0, data.rows.total, size):
        events = data.window(start, start + size)
        if len(events):
            yield events


def shuffled(data: Dataset, size: int, key: tuple[int, int], buffer: int | None, start: int) -> Iterator[Events]:
    """Pieces of ``size`` events in the order of ``key = (seed, epoch)``, from the piece number ``start`` on."""
    if data.store.in_memory or data.rows.chosen is not None:
        yield from _gathered(data, size, key, start)
        return
    wanted = buffer or max(4 * size, _BUFFER_BYTES // data.recipe.row_bytes)
    block = min(block_rows(data), max(wanted // 4, data.store.grain))
    order = np.random.default_rng((*key, 0)).permutation(-(-data.rows.total // block))
    together = max(1, wanted // block)
    groups = [order[i : i + together] * block for i in range(0, len(order), together)]
    yield from rechunk(_from(data, groups, block, key, start * size), size)


def _gathered(data: Dataset, size: int, key: tuple[int, int], start: int) -> Iterator[Events]:
    order = np.random.default_rng((*key, 0)).permutation(len(data))
    numbers = data.rows.numbers
    for first in range(start * size, len(order), size):
        yield data.gather(numbers[order[first : first + size]])


def _from(data: Dataset, groups: list[np.ndarray], block: int, key: tuple[int, int], skip: int) -> Iterator[Events]:
    """The shuffled groups without the first ``skip`` events; groups that fall away whole are counted, not read."""
    for number, starts in enumerate(groups):
        count = sum(len(data.rows.within(s, s + block)) for s in starts) if skip else -1
        if 0 <= count <= skip:
            skip -= count
            continue
        events = concat([data.window(int(s), int(s) + block) for s in starts])
        order = np.random.default_rng((*key, number + 1)).permutation(len(events))
        for first in range(skip, len(order), 1 << 16):
            yield events[order[first : first + (1 << 16)]]
        skip = 0
