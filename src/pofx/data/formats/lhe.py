"""Les Houches events (arXiv:hep-ph/0609017), ``.lhe``: a cloud of particles (px, py, pz, e, pid, status) and a weight per event.

The file is read once, line by line, into a temporary file that goes with the data set, so its size does not matter. Momenta in GeV. What
is written has no beams, mothers or colours; masses are those of the four-momenta.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.files import Spool
from pofx.data.layout import Layout, Stored
from pofx.data.numbers import Array
from pofx.data.options import Request
from pofx.data.public.ragged import Ragged, cloud, points_of
from pofx.data.spec import Column, Field, vector_spec
from pofx.data.store import Part, mask_name
from pofx.errors import CapabilityError, FormatError

__all__ = ["LHEStore", "inspect", "open_store", "write"]

COLUMNS = (
    Column("px", "GeV"),
    Column("py", "GeV"),
    Column("pz", "GeV"),
    Column("e", "GeV"),
    Column("pid"),
    Column("status"),
)
NAMES = tuple(column.name for column in COLUMNS)
_ORDER = [6, 7, 8, 9, 0, 1]
"""Where px, py, pz, e, pid, status stand in a line."""
_ROWS = 1 << 12


def inspect(path: Path) -> list[Stored]:
    """The particles and the weights."""
    store = open_store(path, Request())
    most = store.parts[0].field.shape
    kind = np.dtype(np.float64)
    return [Stored("particles", (len(store), *most), kind), Stored("weight", (len(store),), kind)]


def open_store(path: Path, request: Request) -> LHEStore:
    """All events; the largest number of particles is the file's, or ``ReadOptions(points=...)``."""
    weights: list[float] = []
    counts: list[int] = []
    with path.open("rb") as lines:
        spool = Spool(_blocks(lines, path, weights, counts), len(COLUMNS))
    return LHEStore(path, spool, np.array(counts, np.int64), np.array(weights), request.options.points)


def _blocks(lines: Iterable[bytes], path: Path, weights: list[float], counts: list[int]) -> Iterator[Array]:
    """The particles of one event after the other; weights and numbers of particles are noted beside."""
    source = iter(enumerate(lines, 1))
    for number, line in source:
        tag = line.strip()
        if tag.startswith(b"</LesHouchesEvents>"):
            return
        if tag.startswith(b"<event"):
            weight, particles = _event(source, path, number)
            weights.append(weight)
            counts.append(len(particles))
            yield particles
    raise _wrong(path, "ends without </LesHouchesEvents> (damaged or truncated?)")


def _event(source: Iterator[tuple[int, bytes]], path: Path, number: int) -> tuple[float, Array]:
    """Weight and particles ``(n, 6)`` of the event that begins here."""
    number, line = next(source, (number, b""))
    head = _numbers(line, 6, path, number)
    count = int(head[0])
    rows = [_numbers(line, 13, path, number) for number, line in (next(source, (number, b"")) for _ in range(count))]
    for _, line in source:
        if line.strip().startswith(b"<event"):
            break
        if line.strip().startswith(b"</event>"):
            return head[2], np.array(rows).reshape(count, 13)[:, _ORDER]
    raise _wrong(path, f"event that begins before line {number} does not end (damaged or truncated?)")


def _numbers(line: bytes, count: int, path: Path, number: int) -> list[float]:
    try:
        found = [float(word) for word in line.replace(b"D", b"E").split()]
    except ValueError:
        found = []
    if len(found) < count or (count == 6 and not 0 <= found[0] < 1e6):
        raise _wrong(
            path,
            f"line {number}: expected {count} numbers of an event; got {line.decode('utf-8', 'replace').strip()!r:.80}",
        )
    return found[:count]


def _wrong(path: Path, words: str) -> FormatError:
    return FormatError(f"{path}: {words}")


class LHEStore:
    """Events in a temporary file."""

    in_memory = False
    grain = 1

    def __init__(self, path: Path, spool: Spool, counts: Array, weights: Array, points: int | None) -> None:
        self.origin, self._spool, self._counts, self._weights = str(path), spool, counts, weights
        self._ends = np.concatenate([[0], np.cumsum(counts)])
        self._most = points or max(1, int(counts.max(initial=1)))
        kind = np.dtype(np.float64)
        form = Field("cloud", (self._most, len(COLUMNS)), COLUMNS)
        weight = vector_spec(["weight"], "weight")["weight"]
        self.parts = (Part("particles", form, kind, "particles"), Part("weight", weight, kind, "weight", "weight"))

    def __len__(self) -> int:
        return len(self._counts)

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Events start..stop."""
        found: dict[str, Array] = {}
        if "particles" in names:
            stop = min(stop, len(self))
            flat = np.array(self._spool.array[self._ends[start] : self._ends[max(stop, start)]])
            counts = self._counts[start:stop]
            made = cloud([Ragged(flat[:, i], counts) for i in range(len(COLUMNS))], NAMES, self._most, flat.dtype)
            found = {"particles": made.values, mask_name("particles"): np.asarray(made.mask)}
        return found | ({"weight": self._weights[start:stop]} if "weight" in names else {})


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """Every event with its particles and its weight (1 where there are none)."""
    name = next((n for n, f in layout.spec.items() if f.kind == "cloud" and f.names == NAMES), None)
    if name is None or len(layout.spec) != 1 or layout.context_spec is not None or compress:
        raise CapabilityError(
            f"LHE files hold one cloud with the columns {', '.join(NAMES)} and a weight, not compressed; write .h5 or .npz instead"
        )
    with path.open("w", encoding="ascii") as file:
        file.write('<LesHouchesEvents version="3.0">\n<init>\n0 0 0 0 0 0 0 0 3 1\n1 0 1 1\n</init>\n')
        for events in data.chunks(_ROWS):
            values = events.fields[name].astype(np.float64)
            real = points_of(values, events.masks.get(name, np.ones(values.shape[:2], bool)))
            weights = np.ones(len(events)) if events.weight is None else events.weight
            file.writelines(chain.from_iterable(map(_lines, real.objects(), weights)))
        file.write("</LesHouchesEvents>\n")


def _lines(particles: Array, weight: Any) -> Iterator[str]:
    yield f"<event>\n{len(particles)} 1 {float(weight)!r} 0 0 0\n"
    for px, py, pz, e, pid, status in particles.tolist():
        mass = max(e * e - px * px - py * py - pz * pz, 0.0) ** 0.5
        yield f"{pid:.0f} {status:.0f} 0 0 0 0 {px!r} {py!r} {pz!r} {e!r} {mass!r} 0 9\n"
    yield "</event>\n"
