"""What text files of generated events share: a cloud of particles (px, py, pz, e, pid, status) and a weight per event.

A file, compressed by gzip or not, is read once, line by line, into a temporary file that goes with the data set, so its size does not
matter. Momenta in GeV.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.files import Spool
from pofx.data.layout import Layout
from pofx.data.numbers import Array
from pofx.data.public.ragged import Ragged, cloud, points_of
from pofx.data.spec import Column, Field, vector_spec
from pofx.data.store import Part, mask_name
from pofx.errors import CapabilityError, FormatError

__all__ = ["COLUMNS", "Lines", "ParticleStore", "lines_of", "read_particles", "text_file", "write_particles"]

COLUMNS = (
    Column("px", "GeV"),
    Column("py", "GeV"),
    Column("pz", "GeV"),
    Column("e", "GeV"),
    Column("pid"),
    Column("status"),
)
NAMES = tuple(column.name for column in COLUMNS)
Lines = Iterator[tuple[int, bytes]]
"""Lines of a file with their numbers, from 1."""
_ROWS = 1 << 12


def text_file(path: Path, mode: str) -> IO[Any]:
    """A binary file, through gzip if its name ends with ``.gz``."""
    return gzip.open(path, mode) if path.suffix.lower() == ".gz" else path.open(mode)  # type: ignore[return-value]


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, compressed or not, with their numbers."""
    with text_file(path, "rb") as file:
        yield from enumerate(file, 1)


class ParticleStore:
    """Events in a temporary file."""

    in_memory = False
    grain = 1

    def __init__(self, path: Path, name: str, spool: Spool, counts: Array, weights: Array, points: int | None) -> None:
        self.origin, self._name, self._spool, self._counts, self._weights = str(path), name, spool, counts, weights
        self._ends = np.concatenate([[0], np.cumsum(counts)])
        self._most = points or max(1, int(counts.max(initial=1)))
        kind = np.dtype(np.float64)
        form = Field("cloud", (self._most, len(COLUMNS)), COLUMNS)
        weight = vector_spec(["weight"], "weight")["weight"]
        self.parts = (Part(name, form, kind, name), Part("weight", weight, kind, "weight", "weight"))

    def __len__(self) -> int:
        return len(self._counts)

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Events start..stop."""
        found: dict[str, Array] = {}
        if self._name in names:
            stop = min(stop, len(self))
            flat = np.array(self._spool.array[self._ends[start] : self._ends[max(stop, start)]])
            counts = self._counts[start:stop]
            made = cloud([Ragged(flat[:, i], counts) for i in range(len(COLUMNS))], NAMES, self._most, flat.dtype)
            found = {self._name: made.values, mask_name(self._name): np.asarray(made.mask)}
        return found | ({"weight": self._weights[start:stop]} if "weight" in names else {})


def read_particles(path: Path, name: str, events: Iterator[tuple[float, Array]], points: int | None) -> ParticleStore:
    """A store of the events that a parser yields as (weight, particles ``(n, 6)``)."""
    weights: list[float] = []
    counts: list[int] = []

    def blocks() -> Iterator[Array]:
        for weight, particles in events:
            weights.append(weight)
            counts.append(len(particles))
            yield particles

    spool = Spool(blocks(), len(COLUMNS))
    return ParticleStore(path, name, spool, np.array(counts, np.int64), np.array(weights), points)


def numbers(line: bytes, count: int, path: Path, number: int) -> list[float]:
    """The first ``count`` numbers of a line; FormatError, with its number, where there are fewer or something else."""
    try:
        found = [float(word) for word in line.replace(b"D", b"E").split()]
    except ValueError:
        found = []
    if len(found) < count:
        shown = line.decode("utf-8", "replace").strip()
        raise FormatError(f"{path}: line {number}: expected {count} numbers of an event; got {shown!r:.80}")
    return found[:count]


def write_particles(
    path: Path,
    data: Dataset,
    layout: Layout,
    ends: tuple[str, str],
    lines: Callable[[int, Array, float], Iterator[str]],
) -> None:
    """Every event with its particles and its weight (1 where there are none), between two lines at the ends of the file."""
    name = next((n for n, f in layout.spec.items() if f.kind == "cloud" and f.names == NAMES), None)
    if name is None or len(layout.spec) != 1 or layout.context_spec is not None:
        raise CapabilityError(
            f"files of generated events hold one cloud with the columns {', '.join(NAMES)} and a weight; write .h5 or .npz instead"
        )
    with text_file(path, "wb") as file:
        file.write(ends[0].encode())
        for start, (real, weights) in _events(data, name):
            each = enumerate(zip(real.objects(), weights, strict=True), start)
            texts = chain.from_iterable(lines(k, particles, float(weight)) for k, (particles, weight) in each)
            file.writelines(text.encode() for text in texts)
        file.write(ends[1].encode())


def _events(data: Dataset, name: str) -> Iterator[tuple[int, tuple[Ragged, Array]]]:
    """Blocks of particles and weights, with the number of their first event."""
    start = 0
    for events in data.chunks(_ROWS):
        values = events.fields[name].astype(np.float64)
        real = points_of(values, events.masks.get(name, np.ones(values.shape[:2], bool)))
        weights = np.ones(len(events)) if events.weight is None else np.asarray(events.weight)
        yield start, (real, weights)
        start += len(events)
