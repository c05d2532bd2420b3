"""A liquid-argon chamber without Geant4: random walks of particles, fast enough for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pofx.config import check_between
from pofx.data.numbers import Array
from pofx.simulators.calorimeter.deposits import Deposits, Primaries
from pofx.simulators.lartpc.cascade import cascade
from pofx.simulators.lartpc.events import PARTICLES, TYPES, ChamberSimulator
from pofx.simulators.lartpc.swarm import Box, Energy, Swarm
from pofx.simulators.lartpc.tracks import daughters, track

__all__ = ["ChamberWalk"]

HEAVY = ("pi+", "pi-", "proton", "mu-", "mu+")
"""Kinds with tracks, parents before daughters."""


@dataclass(frozen=True)
class ChamberWalk(ChamberSimulator):
    """Tracks and showers in liquid argon by random walks: Bethe's loss with straggling, scattering, knock-on electrons, decays, cascades.

    Particles do not hit nuclei: protons and pions stop by ionisation alone, and captured mu- and pi- leave nothing more.
    Settings beyond those of :class:`~pofx.simulators.lartpc.events.ChamberSimulator`:

    Parameters
    ----------
    step : longest step in mm.

    >>> protons = ChamberWalk(particles=("proton",), number=(1, 1), low=100.0, high=100.0, threshold=0.0).block_events(1, 0)
    >>> energy = protons.fields["points"][..., 3].sum(1)  # all of it, as protons of 100 MeV stop
    >>> bool(abs(energy - 100.0).max() < 1e-3)
    True
    """

    name: ClassVar[str] = "lartpc-walk"

    step: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.05, 10.0, "step")

    def deposits(self, primaries: Primaries, rng: np.random.Generator) -> Deposits:
        return self._binned(self._walk(primaries, rng))

    def _walk(self, primaries: Primaries, rng: np.random.Generator) -> Energy:
        """Tracks kind by kind, then everything light in one cascade."""
        box, left = Box(self.size), []
        waiting: dict[str, list[Swarm]] = {kind: [_swarm(primaries, kind)] for kind in PARTICLES}
        for kind in HEAVY:
            swarm = Swarm.joined(waiting[kind])
            if len(swarm):
                found = track(kind, swarm, box, self.step, PARTICLES[kind], rng)
                left.append(found.energy)
                waiting["e-"].append(found.electrons)
                name, swarm = daughters(kind, found.stopped, rng)
                waiting[name].append(swarm)
        light = {kind: Swarm.joined(waiting[kind]) for kind in ("e-", "e+", "gamma")}
        return Energy.joined([*left, cascade(light, box, self.step, PARTICLES["e-"], rng)])

    def _binned(self, left: Energy) -> Deposits:
        """Voxels, by type."""
        box, cells = Box(self.size), self.voxels**3
        inside = box.holds(left.place) & (left.energy > 0)
        x, y, z = np.floor(box.from_corner(left.place[inside]) / self.pitch).astype(np.int64).T.clip(0, self.voxels - 1)
        cell = (z * self.voxels + x) * self.voxels + y
        key, which = np.unique(
            (left.event[inside] * cells + cell) * len(TYPES) + left.type[inside], return_inverse=True
        )
        energy = np.bincount(which, 1e-3 * left.energy[inside], len(key))
        event, cell = np.divmod(key // len(TYPES), cells)
        return Deposits(event, np.zeros_like(event), cell, energy, key % len(TYPES))


def _swarm(primaries: Primaries, kind: str) -> Swarm:
    """Primaries of one kind."""
    rows: Array = primaries.kind == kind
    energy = 1e3 * primaries.energy[rows]
    return Swarm(primaries.event[rows], energy, primaries.position[rows], primaries.direction[rows])
