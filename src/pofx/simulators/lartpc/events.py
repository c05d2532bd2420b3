"""What simulators of a liquid-argon chamber share: which particles start, and voxels, clouds and images of what they leave."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.data.numbers import Array
from pofx.data.patterns import close
from pofx.data.spec import Axis, Column, EventSpec, Field, vector_spec
from pofx.errors import ConfigError
from pofx.simulators.base import Simulator
from pofx.simulators.calorimeter.deposits import Deposits, Primaries
from pofx.simulators.lartpc.swarm import Box, isotropic

__all__ = ["PARTICLES", "TYPES", "ChamberSimulator"]

TYPES = ("e", "mu", "pi", "p")
"""Types of particles that leave energy: electrons (of photons too), muons, pions, protons and nuclei."""
PARTICLES = {"e-": 0, "e+": 0, "gamma": 0, "mu-": 1, "mu+": 1, "pi-": 2, "pi+": 2, "proton": 3}
"""Particles that may start, and the number of their type."""


@dataclass(frozen=True)
class ChamberSimulator(Simulator):
    """Events of a few particles from one vertex in a cube of liquid argon.

    Parameters
    ----------
    voxels : along each side.
    pitch : side of a voxel in mm.
    particles : kinds of which those of an event are drawn, each as likely.
    number : range of how many particles there are, each as likely.
    low, high : range of their kinetic energies in MeV, uniform.
    vertex : half of the side of the central cube in which vertices lie, as a fraction of the chamber's.
    threshold : voxels with less energy are empty, in MeV.
    output : ``"points"``, a cloud (x, y, z [voxels], e [MeV]) by falling energy; ``"image"``, a projection, cropped.
    labels : with points, a second cloud ``types``: the number (0 e, 1 mu, 2 pi, 3 p) of the type of particle that left most in a
        voxel; with an image, one channel per type.
    points : how many points a cloud has at most.
    axis : along which an image is projected.
    crop : pixels along each side of an image, which lies at random around the vertex.

    Directions are isotropic. The context ``particles`` is the number of particles of each kind and the sum of their energies.

    Raises
    ------
    ConfigError : for settings that make no sense.
    """

    block: ClassVar[int] = 100

    voxels: int = 128
    pitch: float = 4.0
    particles: tuple[str, ...] = ("e-", "mu-", "proton", "pi+", "gamma")
    number: tuple[int, int] = (1, 3)
    low: float = 50.0
    high: float = 500.0
    vertex: float = 0.5
    threshold: float = 0.13
    output: Literal["points", "image"] = "points"
    labels: bool = True
    points: int = 2000
    axis: Literal["x", "y", "z"] = "z"
    crop: int = 64

    def __post_init__(self) -> None:
        check_at_least(self, 1, "voxels", "points")
        check_at_least(self, 0.1, "pitch", "low")
        check_at_least(self, self.low, "high")
        check_at_least(self, 0.0, "threshold")
        check_between(self, 0.0, 1.0, "vertex")
        check_between(self, 1, self.voxels, "crop")
        check_choice(self, "output", ("points", "image"))
        check_choice(self, "axis", ("x", "y", "z"))
        unknown = [kind for kind in self.particles if kind not in PARTICLES]
        if unknown or not self.particles:
            raise ConfigError(
                f"{type(self).__name__}: no particle is called {unknown!r}; {close(str(unknown), PARTICLES)}"
            )
        if not 1 <= self.number[0] <= self.number[1]:
            raise ConfigError(
                f"{type(self).__name__}: number must be (least, most) with at least one; got {self.number}"
            )

    @property
    def size(self) -> float:
        """Side of the chamber in mm."""
        return self.voxels * self.pitch

    def spec(self) -> EventSpec:
        if self.output == "image":
            names = TYPES if self.labels else ("energy",)
            columns, across = tuple(Column(name, "MeV") for name in names), "xyz".replace(self.axis, "")
            axes = tuple(Axis(name, self.crop, unit="voxels") for name in across)
            return {"image": Field("grid", (len(names), self.crop, self.crop), columns, axes)}
        place = tuple(Column(name, "voxels") for name in "xyz")
        found = {"points": Field("cloud", (self.points, 4), (*place, Column("e", "MeV")))}
        if self.labels:
            kind = Column("type", "", "discrete", 0, len(TYPES) - 1)
            found["types"] = Field("cloud", (self.points, 1), (kind,))
        return found

    def context_spec(self) -> EventSpec:
        counts = [Column(f"n {kind}", "", "discrete", 0, self.number[1]) for kind in self.particles]
        return vector_spec([*counts, Column("energy", "MeV", "bounded", low=0.0)], "particles")

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        vertex = self.vertex * 0.5 * self.size * rng.uniform(-1.0, 1.0, (n, 3)) + [0.0, 0.0, 0.5 * self.size]
        primaries, context = self._primaries(n, vertex, rng)
        deposits = self.deposits(primaries, rng)
        about = Events({"particles": context.astype(np.float32)})
        if self.output == "image":
            return Events({"image": self._images(deposits, n, vertex, rng)}, context=about)
        points, types, mask = self._clouds(deposits, n)
        fields = {"points": points, "types": types} if self.labels else {"points": points}
        return Events(fields, dict.fromkeys(fields, mask), about)

    @abstractmethod
    def deposits(self, primaries: Primaries, rng: np.random.Generator) -> Deposits:
        """Energies [GeV] of voxels (cells in the order z, x, y) by type of particle (``scorer``)."""

    def _primaries(self, n: int, vertex: Array, rng: np.random.Generator) -> tuple[Primaries, Array]:
        """Particles of all events, and the context ``(n, kinds + 1)``."""
        count = rng.integers(self.number[0], self.number[1] + 1, n)
        event = np.repeat(np.arange(n), count)
        kind = rng.integers(0, len(self.particles), len(event))
        energy = rng.uniform(self.low, self.high, len(event))
        primaries = Primaries(
            event, np.asarray(self.particles)[kind], 1e-3 * energy, vertex[event], isotropic(len(event), rng)
        )
        context = np.zeros((n, len(self.particles) + 1))
        np.add.at(context, (event, kind), 1.0)
        np.add.at(context[:, -1], event, energy)
        return primaries, context

    def _voxels(self, deposits: Deposits) -> tuple[Array, Array, Array]:
        """Event, voxel and MeV by type ``(v, 4)`` of voxels above threshold, in the order of events."""
        place, which = np.unique(deposits.event * self.voxels**3 + deposits.cell, return_inverse=True)
        energy = np.zeros((len(place), len(TYPES)))
        np.add.at(energy, (which, deposits.scorer), 1e3 * deposits.energy)
        keep = (total := energy.sum(1)) >= max(self.threshold, 1e-30)
        order = np.lexsort((-total[keep], place[keep] // self.voxels**3))
        event, voxel = np.divmod(place[keep][order], self.voxels**3)
        return event, voxel, energy[keep][order]

    def _indices(self, voxel: Array) -> Array:
        """(x, y, z) of voxels, ``(v, 3)``."""
        z, x, y = np.unravel_index(voxel, (self.voxels,) * 3)
        return np.stack([x, y, z], 1)

    def _clouds(self, deposits: Deposits, n: int) -> tuple[Array, Array, Array]:
        event, voxel, energy = self._voxels(deposits)
        rank = np.arange(len(event)) - np.searchsorted(event, event)
        first = rank < self.points
        points, types = np.zeros((n, self.points, 4), np.float32), np.zeros((n, self.points, 1), np.float32)
        mask = np.zeros((n, self.points), bool)
        where = event[first], rank[first]
        points[where] = np.column_stack([self._indices(voxel), energy.sum(1)])[first]
        types[where] = energy.argmax(1)[first, None]
        mask[where] = True
        return points, types, mask

    def _images(self, deposits: Deposits, n: int, vertex: Array, rng: np.random.Generator) -> Array:
        """``(n, channels, crop, crop)``: windows that contain the vertex, as far as they fit."""
        event, voxel, energy = self._voxels(deposits)
        across = [i for i in range(3) if "xyz"[i] != self.axis]
        middle = Box(self.size).from_corner(vertex)[:, across] / self.pitch
        corner = np.floor(middle).astype(np.int64) - rng.integers(0, self.crop, (n, 2))
        corner = corner.clip(0, self.voxels - self.crop)
        pixel = self._indices(voxel)[:, across] - corner[event]
        inside = np.all((pixel >= 0) & (pixel < self.crop), axis=1)
        images = np.zeros((n, self.crop, self.crop, len(TYPES)))
        np.add.at(images, (event[inside], *pixel[inside].T), energy[inside])
        channels = images if self.labels else images.sum(-1, keepdims=True)
        return np.moveaxis(channels, -1, 1).astype(np.float32)
