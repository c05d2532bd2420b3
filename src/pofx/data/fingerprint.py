"""A hash of the content of a data set, for cards: it says whether a model was trained on these very data.

Covered: the specs of x and context, the number of events, and the values served (little-endian bytes of fields, masks, context,
weights, row numbers). For data in memory all values; for files that are streamed 64 windows of 256 rows, evenly spaced from the first
row to the last, so that hashing does not cost a reading of the file. File names and times do not enter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pofx.data.events import Events
from pofx.data.spec import spec_to_dict

if TYPE_CHECKING:
    from pofx.data.dataset import Dataset

__all__ = ["fingerprint"]

_WINDOWS, _ROWS = 64, 256


def fingerprint(data: Dataset) -> str:
    """The hexadecimal sha256 of what the module says."""
    specs = [spec_to_dict(spec) if spec else None for spec in (data.spec, data.context_spec)]
    found = hashlib.sha256(json.dumps([*specs, len(data), data.weighted], sort_keys=True).encode())
    for events in _samples(data):
        for part in _bytes(events):
            found.update(part)
    return found.hexdigest()


def _samples(data: Dataset) -> Iterator[Events]:
    total = data.rows.total
    if data.in_memory or data.rows.chosen is not None or total <= _WINDOWS * _ROWS:
        yield from data.chunks(1 << 16)
        return
    for start in np.linspace(0, total - _ROWS, _WINDOWS).astype(int):
        yield data.window(int(start), int(start) + _ROWS)


def _bytes(events: Events) -> Iterator[bytes]:
    arrays = [
        *events.fields.values(),
        *events.masks.values(),
        *(a for a in (events.weight, events.index) if a is not None),
    ]
    for array in arrays:
        yield np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes()
    if events.context is not None:
        yield from _bytes(events.context)
