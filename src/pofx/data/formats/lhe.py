"""Les Houches events (arXiv:hep-ph/0609017), ``.lhe`` and ``.lhe.gz``: a cloud of particles and a weight per event.

What is written has no beams, mothers or colours; masses are those of the four-momenta.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.formats.particles import Lines, ParticleStore, lines_of, numbers, read_particles, write_particles
from pofx.data.layout import Layout, Stored
from pofx.data.numbers import Array
from pofx.data.options import Request
from pofx.errors import CapabilityError, FormatError

__all__ = ["inspect", "open_store", "write"]

_ORDER = [6, 7, 8, 9, 0, 1]
"""Where px, py, pz, e, pid, status stand in a line."""
_HEAD = '<LesHouchesEvents version="3.0">\n<init>\n0 0 0 0 0 0 0 0 3 1\n1 0 1 1\n</init>\n'


def inspect(path: Path) -> list[Stored]:
    """The particles and the weights."""
    store = open_store(path, Request())
    kind = np.dtype(np.float64)
    return [Stored("particles", (len(store), *store.parts[0].field.shape), kind), Stored("weight", (len(store),), kind)]


def open_store(path: Path, request: Request) -> ParticleStore:
    """All events; the largest number of particles is the file's, or ``ReadOptions(points=...)``."""
    return read_particles(path, "particles", _events(lines_of(path), path), request.options.points)


def _events(source: Lines, path: Path) -> Iterator[tuple[float, Array]]:
    """Weight and particles of one event after the other."""
    for number, line in source:
        tag = line.strip()
        if tag.startswith(b"</LesHouchesEvents>"):
            return
        if tag.startswith(b"<event"):
            yield _event(source, path, number)
    raise FormatError(f"{path}: ends without </LesHouchesEvents> (damaged or truncated?)")


def _event(source: Lines, path: Path, number: int) -> tuple[float, Array]:
    """Weight and particles ``(n, 6)`` of the event that begins here."""
    number, line = next(source, (number, b""))
    head = numbers(line, 6, path, number)
    if not 0 <= head[0] < 1e6:
        raise FormatError(
            f"{path}: line {number}: expected 6 numbers of an event, the number of particles first; got {line!r:.80}"
        )
    count = int(head[0])
    rows = [numbers(line, 13, path, number) for number, line in (next(source, (number, b"")) for _ in range(count))]
    for _, line in source:
        if line.strip().startswith(b"<event"):
            break
        if line.strip().startswith(b"</event>"):
            return head[2], np.array(rows).reshape(count, 13)[:, _ORDER]
    raise FormatError(f"{path}: event that begins before line {number} does not end (damaged or truncated?)")


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """Every event with its particles and its weight (1 where there are none)."""
    if compress and path.suffix.lower() != ".gz":
        raise CapabilityError("LHE files are compressed by their name: write .lhe.gz, or leave compress out")
    write_particles(path, data, layout, (_HEAD, "</LesHouchesEvents>\n"), _lines)


def _lines(_number: int, particles: Array, weight: float) -> Iterator[str]:
    yield f"<event>\n{len(particles)} 1 {weight!r} 0 0 0\n"
    for px, py, pz, e, pid, status in particles.tolist():
        mass = max(e * e - px * px - py * py - pz * pz, 0.0) ** 0.5
        yield f"{pid:.0f} {status:.0f} 0 0 0 0 {px!r} {py!r} {pz!r} {e!r} {mass!r} 0 9\n"
    yield "</event>\n"
