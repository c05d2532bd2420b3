"""Particles in flight: arrays with one row each, all of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from pofx.data.numbers import Array

__all__ = ["Box", "Energy", "Swarm", "isotropic", "turned"]


@dataclass(frozen=True)
class Swarm:
    """p particles.

    Attributes
    ----------
    event : ``(p,)``.
    energy : kinetic, in MeV.
    position, direction : in mm, ``(p, 3)``.
    """

    event: Array
    energy: Array
    position: Array
    direction: Array

    def __len__(self) -> int:
        return len(self.event)

    def __getitem__(self, rows: Any) -> Swarm:
        return Swarm(*(getattr(self, f.name)[rows] for f in fields(self)))

    def moved(self, step: Array) -> Swarm:
        """Straight on by ``(p,)`` mm."""
        return replace(self, position=self.position + step[:, None] * self.direction)

    @staticmethod
    def joined(parts: Sequence[Swarm]) -> Swarm:
        """All in one; none for no parts."""
        if not parts:
            return Swarm(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)))
        return Swarm(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Swarm)))


@dataclass(frozen=True)
class Box:
    """A cube of side ``size`` mm: x and y around zero, z from zero."""

    size: float

    def from_corner(self, position: Array) -> Array:
        """Places ``(p, 3)`` seen from the corner of smallest x, y and z."""
        found: Array = position + np.array([0.5, 0.5, 0.0]) * self.size
        return found

    def holds(self, position: Array) -> Array:
        """Whether places ``(p, 3)`` are inside."""
        place = self.from_corner(position)
        inside: Array = np.all((place >= 0.0) & (place < self.size), axis=1)
        return inside


@dataclass(frozen=True)
class Energy:
    """What was left where: event ``(p,)``, place ``(p, 3)`` in mm, energy in MeV, and the type of the particle that left it."""

    event: Array
    place: Array
    energy: Array
    type: Array

    @staticmethod
    def of(swarm: Swarm, energy: Array, type: int) -> Energy:
        """Left by particles where they are."""
        return Energy(swarm.event, swarm.position, energy, np.full(len(swarm), type))

    @staticmethod
    def joined(parts: Sequence[Energy]) -> Energy:
        """All in one."""
        return Energy(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Energy)))


def turned(direction: Array, theta: Array, rng: np.random.Generator) -> Array:
    """Directions ``(p, 3)`` turned by theta ``(p,)`` in a random plane."""
    x, y, z = direction.T
    sine = np.hypot(x, y)
    along = sine < 1e-9  # on the z axis any plane does
    cos, sin = (np.where(along, one, part / np.where(along, 1.0, sine)) for one, part in ((1.0, x), (0.0, y)))
    phi = 2.0 * np.pi * rng.random(len(direction))
    u, v, w = np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)
    new = np.stack([u * z * cos - v * sin + w * x, u * z * sin + v * cos + w * y, w * z - u * sine], 1)
    found: Array = new / np.sqrt((new**2).sum(1, keepdims=True))
    return found


def isotropic(n: int, rng: np.random.Generator) -> Array:
    """Unit vectors, ``(n, 3)``."""
    vectors = rng.standard_normal((n, 3))
    found: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found
