"""What simulators of showers share: which particles start, what an event looks like. How energy is deposited is theirs."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.data.numbers import Array
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.errors import ConfigError
from pofx.simulators.base import Simulator
from pofx.simulators.calorimeter.deposits import Deposits, Primaries, clouds, voxels
from pofx.simulators.calorimeter.geometry import CALORIMETERS, Calorimeter, calorimeter

__all__ = ["ShowerSimulator"]

Particle = Literal["e-", "e+", "gamma"]
BEFORE = 1e-3
"""Particles start so far in front of the calorimeter, in mm."""


@dataclass(frozen=True)
class ShowerSimulator(Simulator):
    """Showers of single particles in a calorimeter.

    Parameters
    ----------
    geometry : a :class:`Calorimeter`, or the name of one of ``CALORIMETERS``.
    particle : ``"e-"``, ``"e+"`` or ``"gamma"``.
    low, high : range of its kinetic energy in GeV; equal for one energy.
    spectrum : ``"uniform"`` or ``"log-uniform"`` between these.
    position : (x, y) in mm where it enters.
    spread : half of the width of a square around it, in which it enters uniformly.
    angle : range of the angle to the normal in degrees; the azimuth is uniform.
    output : ``"voxels"``, one grid per readout; ``"points"``, a cloud (x [mm], layer, z [mm], e [GeV]) of the cells that are not empty, by
        falling energy, where z is the second direction across.
    points : how many points a cloud has at most.

    The context is the particle's energy; if ``spread`` or ``angle`` are not zero, also ``incidence``: x, y [mm], angle, azimuth [rad].

    Raises
    ------
    ConfigError : for settings that make no sense.
    """

    block: ClassVar[int] = 100

    geometry: Calorimeter | str = CALORIMETERS["calogan"]
    particle: Particle = "e-"
    low: float = 1.0
    high: float = 20.0
    spectrum: Literal["uniform", "log-uniform"] = "uniform"
    position: tuple[float, float] = (0.0, 0.0)
    spread: float = 0.0
    angle: tuple[float, float] = (0.0, 0.0)
    output: Literal["voxels", "points"] = "voxels"
    points: int = 1000

    def __post_init__(self) -> None:
        object.__setattr__(self, "geometry", calorimeter(self.geometry))
        check_choice(self, "particle", ("e-", "e+", "gamma"))
        check_choice(self, "spectrum", ("uniform", "log-uniform"))
        check_choice(self, "output", ("voxels", "points"))
        check_at_least(self, 1e-3, "low")
        check_at_least(self, self.low, "high")
        check_between(self, 0.0, self.stack.width, "spread")
        check_at_least(self, 1, "points")
        if not 0 <= self.angle[0] <= self.angle[1] < 80:
            raise ConfigError(
                f"{type(self).__name__}: angle must be (low, high) from 0 to 80 degrees; got {self.angle}"
            )

    @property
    def stack(self) -> Calorimeter:
        """The calorimeter."""
        return calorimeter(self.geometry)

    @property
    def varied(self) -> bool:
        """Whether particles enter at different places or angles."""
        return self.spread > 0 or self.angle[1] > 0

    def spec(self) -> EventSpec:
        if self.output == "points":
            columns = (Column("x", "mm"), Column("y"), Column("z", "mm"), Column("e", "GeV"))
            return {"points": Field("cloud", (self.points, 4), columns)}
        return {
            r.name: Field("grid", (1, *r.grid), (Column("cells", self.stack.unit),), r.grid_axes)
            for r in self.stack.readouts
        }

    def context_spec(self) -> EventSpec:
        name, unit = self.stack.context, self.stack.context_unit
        energy = vector_spec([Column("energy", unit, "bounded", low=0.0)], name)
        if not self.varied:
            return energy
        azimuth = Column("azimuth", "rad", "periodic", -math.pi, math.pi)
        return energy | vector_spec(
            [Column("x", "mm"), Column("y", "mm"), Column("angle", "rad"), azimuth], "incidence"
        )

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        energy, incidence = self._energies(n, rng), self._incidence(n, rng)
        deposits = self.deposits(self._primaries(energy, incidence), rng)
        unit = 1000.0 if self.stack.context_unit == "MeV" else 1.0
        context = {self.stack.context: (unit * energy[:, None]).astype(np.float32)}
        if self.varied:
            context["incidence"] = incidence.astype(np.float32)
        if self.output == "points":
            values, mask = clouds(self.stack, deposits, n, self.points)
            return Events({"points": values}, {"points": mask}, Events(context))
        return Events(voxels(self.stack, deposits, n), context=Events(context))

    @abstractmethod
    def deposits(self, primaries: Primaries, rng: np.random.Generator) -> Deposits:
        """What the particles leave in the cells: one particle per event."""

    def _energies(self, n: int, rng: np.random.Generator) -> Array:
        u = rng.random(n)
        if self.spectrum == "uniform":
            uniform: Array = self.low + (self.high - self.low) * u
            return uniform
        logarithmic: Array = self.low * (self.high / self.low) ** u
        return logarithmic

    def _incidence(self, n: int, rng: np.random.Generator) -> Array:
        """x, y, angle, azimuth; ``(n, 4)``."""
        u = rng.random((n, 4))
        place = np.asarray(self.position) + self.spread * (2.0 * u[:, :2] - 1.0)
        angle = np.radians(self.angle[0] + (self.angle[1] - self.angle[0]) * u[:, 2])
        return np.column_stack([place, angle, math.pi * (2.0 * u[:, 3] - 1.0)])

    def _primaries(self, energy: Array, incidence: Array) -> Primaries:
        x, y, angle, azimuth = incidence.T
        direction = np.stack([np.sin(angle) * np.cos(azimuth), np.sin(angle) * np.sin(azimuth), np.cos(angle)], 1)
        position = np.stack([x, y, np.zeros_like(x)], 1) - BEFORE * direction
        n = len(energy)
        return Primaries(np.arange(n), np.full(n, self.particle), energy, position, direction)
