"""Showers by GFlash in any calorimeter: the equations of ``parametrisation`` made into spots of energy, and spots into cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import numpy as np

from pofx.config import check_between
from pofx.data.numbers import Array
from pofx.simulators.calorimeter.deposits import Deposits, Primaries, collected
from pofx.simulators.calorimeter.geometry import Calorimeter, Module
from pofx.simulators.calorimeter.materials import material, mixture
from pofx.simulators.calorimeter.parametrisation import (
    Medium,
    Shape,
    cumulative,
    draw_shapes,
    medium_of,
    radial,
    sample_radius,
    spot_count,
    spot_shape,
)
from pofx.simulators.calorimeter.showers import ShowerSimulator

__all__ = ["GFlashShower", "Segments", "segments", "visible_fraction"]

STEP = 0.25
"""Longest segment in radiation lengths."""
CONVERSION = 9.0 / 7.0
"""Mean depth at which a photon converts, in radiation lengths."""
SPOTS = 1_000_000
"""Spots that are in memory at a time."""


@dataclass(frozen=True)
class GFlashShower(ShowerSimulator):
    """Showers of e-, e+ and photons in a calorimeter, by the parametrisation GFlash.

    Longitudinal and radial profiles of hep-ex/0001020 with their fluctuations; photons convert at a depth of 9/7 X0 on average. Below some
    100 MeV and for very thin layers the parametrisation was not made. Settings beyond those of
    :class:`~pofx.simulators.calorimeter.showers.ShowerSimulator`:

    Parameters
    ----------
    resolution : sampling term c of sigma(E)/E = c / sqrt(E / GeV), where only active layers are read; also says how many spots there are.
    fraction : of the energy of a layer that is deposited in its active part; 0 takes that of a minimum ionising particle times e/mip.

    >>> showers = GFlashShower(geometry="pbwo4", particle="gamma", low=10.0, high=10.0).block_events(1, 0)
    >>> bool(9.5 < showers.fields["showers"].sum((1, 2, 3, 4)).mean() < 10.0)
    True
    """

    name: ClassVar[str] = "gflash-shower"

    resolution: float = 0.11
    fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.01, 1.0, "resolution")
        check_between(self, 0.0, 1.0, "fraction")

    @cached_property
    def medium(self) -> Medium:
        """The effective medium."""
        return medium_of(self.stack)

    @cached_property
    def cut(self) -> Segments:
        """The depth, cut into segments."""
        return segments(self.stack, self.fraction)

    def deposits(self, primaries: Primaries, rng: np.random.Generator) -> Deposits:
        parts = [self._some(rows, primaries, rng) for rows in self._groups(primaries.energy)]
        event, readout, cell, energy = (np.concatenate([part[i] for part in parts]) for i in range(4))
        return collected(self.stack, event, readout, cell, energy)

    def _groups(self, energy: Array) -> Iterator[Array]:
        """Events whose spots fit into memory together."""
        spots = np.cumsum(spot_count(self.medium, energy, self.resolution)) // SPOTS
        for group in np.unique(spots):
            yield np.nonzero(spots == group)[0]

    def _some(self, rows: Array, primaries: Primaries, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
        """Event, readout, cell and energy of spots of some events."""
        shape = draw_shapes(self.medium, primaries.energy[rows], rng)
        cosine = primaries.direction[rows, 2]
        start = rng.exponential(CONVERSION, len(rows)) if self.particle == "gamma" else np.zeros(len(rows))
        depth = self.cut.t / cosine[:, None] - start[:, None]
        energy = self._profile(shape, depth, rng)
        count = self._counts(shape, depth, energy, rng)
        event, segment = (np.repeat(index, count.ravel()) for index in np.indices(count.shape).reshape(2, -1))
        middle = 0.5 * (depth[:, 1:] + depth[:, :-1])
        radius = sample_radius(radial(self.medium, shape, np.maximum(middle, 0.0))[event, segment], rng)
        place = self._places(rows[event], segment, radius * self.medium.material.moliere_mm, primaries, rng)
        return rows[event], *self._cells(place, energy[event, segment] / count[event, segment])

    def _profile(self, shape: Shape, depth: Array, rng: np.random.Generator) -> Array:
        """Of segments, ``(n, k)`` in GeV, with the fluctuation of sampling where absorbers are not read."""
        energy: Array = shape.energy[:, None] * np.diff(cumulative(shape, depth), axis=1)
        if self.medium.sampling and not self.stack.whole:
            return self.resolution**2 * rng.gamma(energy / self.resolution**2)
        return energy

    def _counts(self, shape: Shape, depth: Array, energy: Array, rng: np.random.Generator) -> Array:
        """Spots in segments, ``(n, k)``: at least one where there is energy."""
        total = spot_count(self.medium, shape.energy, self.resolution)[:, None]
        mean = total * np.diff(cumulative(spot_shape(self.medium, shape), depth), axis=1)
        count = np.floor(mean + rng.random(mean.shape)).astype(np.int64)
        return np.where(energy > 0, np.maximum(count, 1), 0)

    def _places(
        self, event: Array, segment: Array, radius: Array, primaries: Primaries, rng: np.random.Generator
    ) -> Array:
        """(x, y, z) of spots around the axis of their shower, in mm."""
        along, turn = rng.random(len(event)), 2.0 * math.pi * rng.random(len(event))
        z = self.cut.z[segment] + along * np.diff(self.cut.z)[segment]
        direction = primaries.direction[event]
        sine = np.hypot(direction[:, 0], direction[:, 1])
        azimuth = np.arctan2(direction[:, 1], direction[:, 0])
        x, y = radius * np.cos(turn), radius * np.sin(turn)  # across the axis: away from the z axis, and around it
        cosine, cos, sin = direction[:, 2], np.cos(azimuth), np.sin(azimuth)
        across = np.stack([x * cosine * cos - y * sin, x * cosine * sin + y * cos, -x * sine], 1)
        place: Array = primaries.position[event] + across
        place += direction * ((z - primaries.position[event, 2]) / cosine)[:, None]
        return place

    def _cells(self, place: Array, energy: Array) -> tuple[Array, Array, Array]:
        """Readout, cell and visible energy; spots that no cell sees have none."""
        segment = np.searchsorted(self.cut.z, place[:, 2], side="right") - 1
        inside = (segment >= 0) & (segment < len(self.cut.visible))
        segment = segment.clip(0, len(self.cut.visible) - 1)
        seen = np.where(inside, energy * self.cut.visible[segment], 0.0)
        readout, cell = self.cut.readout[segment], np.zeros(len(place), np.int64)
        for number, one in enumerate(self.stack.readouts):
            here = readout == number
            across, within = one.locate(place[here, 0], place[here, 1])
            cell[here] = self.cut.layer[segment[here]] * one.cells[0] * one.cells[1] + across
            seen[here] *= within
        return readout.clip(0), cell, np.where(readout >= 0, seen, 0.0)


@dataclass(frozen=True)
class Segments:
    """The depth of a calorimeter in short pieces.

    Attributes
    ----------
    z, t : edges in mm and in radiation lengths, ``(k + 1,)``.
    readout, layer : which readout sees a segment, and as which layer; -1 for none; ``(k,)``.
    visible : fraction of its energy that the readout sees, ``(k,)``.
    """

    z: Array
    t: Array
    readout: Array
    layer: Array
    visible: Array


def segments(stack: Calorimeter, fraction: float = 0.0) -> Segments:
    """Of at most a quarter of a radiation length; where absorbers are not read, they belong to the active layer behind."""
    rows, start = [], 0.0
    edges = sorted({edge for readout in stack.readouts for edge in readout.edges}) if stack.whole else []
    for module in stack.modules:
        visible = 1.0 if stack.whole else fraction or visible_fraction(module)
        for _ in range(module.repeat):
            active = start + module.depth - 0.5 * module.active_mm
            for low, high in pairwise(_cuts(start, module, edges)):
                readout, layer = stack.seen(0.5 * (low + high) if stack.whole or not module.absorber else active)
                rows.append((low, (high - low) / x0_of(module), readout, layer, visible if readout >= 0 else 0.0))
            start += module.depth
    lows, t, *seen = (np.array(column) for column in zip(*rows, strict=True))
    return Segments(np.append(lows, start), np.concatenate([[0.0], np.cumsum(t)]), *seen)


def _cuts(start: float, module: Module, edges: Sequence[float]) -> Array:
    """Depths that cut one absorber and its active layer: evenly, and where a readout begins another layer."""
    pieces = max(1, math.ceil(module.depth / x0_of(module) / STEP))
    even = np.linspace(start, start + module.depth, pieces + 1)
    inner = [e for e in edges if start < e < start + module.depth and np.abs(even - e).min() > 1e-6]
    return np.sort(np.concatenate([even, inner]))


def x0_of(module: Module) -> float:
    """Effective radiation length of a module in mm."""
    active = (material(module.active), module.active_mm)
    return (
        mixture([(material(module.absorber), module.absorber_mm), active]).x0_mm if module.absorber else active[0].x0_mm
    )


def visible_fraction(module: Module) -> float:
    """Of an electron's energy in the active layer: that of a minimum ionising particle times e/mip, 1 / (1 + 0.007 (Z1 - Z2)).

    >>> round(visible_fraction(Module(1, "Si", 0.3, "W", 1.4)), 4)
    0.0255
    """
    if not module.absorber:
        return 1.0
    absorber, active = material(module.absorber), material(module.active)
    lost = active.mip * active.density * module.active_mm
    whole = lost + absorber.mip * absorber.density * module.absorber_mm
    return lost / whole / (1.0 + 0.007 * (absorber.z - active.z))
