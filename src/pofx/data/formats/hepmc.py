"""HepMC3 events in ASCII (Asciiv3, arXiv:1912.08005), ``.hepmc``, ``.hepmc3`` and the same with ``.gz``: a cloud of particles and a weight.

``key="particles"`` (the default) gives all particles, ``key="final"`` those of status 1. Momenta come out in GeV whatever the unit of
the file; the weight is the first of an event, 1 where it has none. Vertices, attributes and further weights are not read; what is written
has one vertex, into which particles of status 4 go (they are written first) and out of which the others come; none without status 4.
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

KEYS = ("particles", "final")
START, END = b"HepMC::Asciiv3-START_EVENT_LISTING", b"HepMC::Asciiv3-END_EVENT_LISTING"
_HEAD = "HepMC::Version 3.02.00\nHepMC::Asciiv3-START_EVENT_LISTING\n"
_ORDER = [3, 4, 5, 6, 2, 8]
"""Where px, py, pz, e, pid, status stand after the letter of a particle's line: number, parent, pid, px, py, pz, e, m, status."""
_UNITS = {b"GEV": 1.0, b"MEV": 1e-3}


def inspect(path: Path) -> list[Stored]:
    """All particles, those of the final state, and the weights."""
    kind, found = np.dtype(np.float64), []
    for key in KEYS:
        store = open_store(path, Request.of(key))
        found.append(Stored(key, (len(store), *store.parts[0].field.shape), kind))
    return [*found, Stored("weight", found[0].shape[:1], kind)]


def open_store(path: Path, request: Request) -> ParticleStore:
    """All events; the largest number of particles is the file's, or ``ReadOptions(points=...)``."""
    name = request.key[0] if request.key else "particles"
    if name not in KEYS or len(request.key) > 1:
        raise FormatError(f"{path}: expected key 'particles' or 'final'; got {', '.join(request.key)!r}")
    return read_particles(path, name, _events(lines_of(path), path, name == "final"), request.options.points)


def _events(source: Lines, path: Path, final: bool) -> Iterator[tuple[float, Array]]:
    """Weight and particles of one event after the other."""
    _header(source, path)
    number, line = next(source, (0, b""))
    while not line.startswith(END):
        if not line:
            raise FormatError(f"{path}: ends without {END.decode()} (damaged or truncated?)")
        if not line.startswith(b"E "):
            number, line = next(source, (number, b""))
            continue  # weight names, tools and attributes of the run
        event = _Event(line, path, number)
        number, line = event.read(source)
        yield event.weight, event.array(final)


def _header(source: Lines, path: Path) -> None:
    """Past the line that begins the listing, within the first twenty."""
    for number, line in source:
        if line.startswith(START):
            return
        if line.startswith((b"HepMC::IO_GenEvent", b"HepMC::Ascii")):
            raise FormatError(
                f"{path}: expected HepMC3 events (Asciiv3); got {line.strip().decode('utf-8', 'replace')!r:.80}"
            )
        if number == 20:
            break
    raise FormatError(f"{path}: expected a line {START.decode()} near the beginning; this is no HepMC3 file in ASCII")


class _Event:
    """One event, line by line, from the one that begins it."""

    def __init__(self, line: bytes, path: Path, number: int) -> None:
        self.path, self.number, self.weight, self.scale = path, number, 1.0, 1.0
        self.vertices, self.wanted = (int(n) for n in numbers(line.split(b"@")[0][2:], 3, path, number)[1:])
        self.rows: list[list[float]] = []
        self.seen = 0

    def read(self, source: Lines) -> tuple[int, bytes]:
        """All lines up to the next event or the end, which is returned."""
        for number, line in source:
            if line.startswith((b"E ", END)):
                self._check()
                return number, line
            self._take(line, number)
        raise FormatError(f"{self.path}: event that begins in line {self.number} does not end (damaged or truncated?)")

    def _take(self, line: bytes, number: int) -> None:
        letter = line[:2]
        if letter == b"P ":
            self.rows.append(numbers(line[2:], 9, self.path, number))
        elif letter == b"V ":
            self.seen += 1
        elif letter == b"W ":
            self.weight = numbers(line[2:], 1, self.path, number)[0]
        elif letter == b"U ":
            self.scale = self._unit(line, number)
        elif letter not in (b"A ", b"N ", b"T "):
            raise FormatError(
                f"{self.path}: line {number}: expected a line of an event (P, V, W, U, A or E); got {line!r:.80}"
            )

    def _check(self) -> None:
        if len(self.rows) != self.wanted or self.seen > self.vertices:
            raise FormatError(
                f"{self.path}: event that begins in line {self.number}: expected {self.wanted} particles and at most {self.vertices} "
                f"vertices; got {len(self.rows)} and {self.seen} (damaged?)"
            )

    def _unit(self, line: bytes, number: int) -> float:
        name = [*line.split(), b"", b""][1].upper()
        if name not in _UNITS:
            raise FormatError(f"{self.path}: line {number}: expected units GEV or MEV; got {line!r:.60}")
        return _UNITS[name]

    def array(self, final: bool) -> Array:
        """``(n, 6)`` in GeV."""
        table = np.array(self.rows).reshape(-1, 9)[:, _ORDER]
        table[:, :4] *= self.scale
        return table[table[:, 5] == 1] if final else table


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """Every event with its particles and its weight (1 where there are none)."""
    if compress and path.suffix.lower() != ".gz":
        raise CapabilityError("HepMC files are compressed by their name: write .hepmc.gz, or leave compress out")
    write_particles(path, data, layout, (_HEAD, f"{END.decode()}\n\n"), _lines)


def _lines(number: int, particles: Array, weight: float) -> Iterator[str]:
    incoming = particles[:, 5] == 4
    into, out = particles[incoming].tolist(), particles[~incoming].tolist()
    vertex = int(bool(into and out))
    yield f"E {number} {vertex} {len(particles)}\nU GEV MM\nW {weight!r}\n"
    yield from (_particle(i, 0, row) for i, row in enumerate(into, 1))
    if vertex:
        yield f"V -1 0 [{','.join(str(i + 1) for i in range(len(into)))}]\n"
    yield from (_particle(i, -vertex, row) for i, row in enumerate(out, len(into) + 1))


def _particle(i: int, parent: int, row: list[float]) -> str:
    px, py, pz, e, pid, status = row
    mass = max(e * e - px * px - py * py - pz * pz, 0.0) ** 0.5
    return f"P {i} {parent} {pid:.0f} {px!r} {py!r} {pz!r} {e!r} {mass!r} {status:.0f}\n"
