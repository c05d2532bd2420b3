"""A liquid-argon chamber by Geant4: energies of voxels added up by its own scorers, one per type of particle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from pofx.config import check_at_least, check_choice
from pofx.data.numbers import Array
from pofx.simulators.calorimeter.deposits import Deposits, Primaries
from pofx.simulators.calorimeter.geometry import Calorimeter, Module, Readout
from pofx.simulators.calorimeter.process import Geant4Run, simulate_stack, versions
from pofx.simulators.lartpc.events import ChamberSimulator

__all__ = ["ChamberGeant4"]

SCORERS = (("e-", "e+", "gamma"), ("mu-", "mu+"), ("pi-", "pi+"), ())
"""The last one scores all particles; what is left of it goes to protons and nuclei, whose names are too many to list."""


@dataclass(frozen=True)
class ChamberGeant4(ChamberSimulator):
    """Tracks and showers in liquid argon by Geant4.

    With ``physics="em"`` particles ionise, scatter, radiate and decay, but hit no nuclei. Settings beyond those of
    :class:`~pofx.simulators.lartpc.events.ChamberSimulator`:

    Parameters
    ----------
    physics : ``"em"``, or ``"hadronic"`` (FTFP_BERT), which needs Geant4's official data sets.
    cut : range below which no secondary is made, in mm.

    >>> ChamberGeant4(output="image").spec()["image"].shape
    (4, 64, 64)
    """

    name: ClassVar[str] = "lartpc-geant4"
    modules: ClassVar[tuple[str, ...]] = ("geant4_pybind",)

    physics: Literal["em", "hadronic"] = "em"
    cut: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "physics", ("em", "hadronic"))
        check_at_least(self, 1e-4, "cut")

    @property
    def stack(self) -> Calorimeter:
        """The chamber as a stack of slabs as thick as a voxel."""
        edges = tuple(round(self.pitch * k, 6) for k in range(self.voxels + 1))
        readout = Readout("voxels", edges, (self.voxels, self.voxels), (self.size, self.size))
        return Calorimeter("chamber", (Module(self.voxels, "LAr", self.pitch),), (readout,), self.size)

    def deposits(self, primaries: Primaries, rng: np.random.Generator) -> Deposits:
        run = Geant4Run(self.physics, self.cut, SCORERS)
        return _separated(simulate_stack(self.stack, run, primaries, rng))

    def versions(self) -> Mapping[str, str]:
        return versions()


def _separated(deposits: Deposits) -> Deposits:
    """The last scorer without what the others have."""
    span = int(deposits.cell.max(initial=0)) + 1
    key, which = np.unique(deposits.event * span + deposits.cell, return_inverse=True)
    energy = np.zeros((len(key), len(SCORERS)))
    np.add.at(energy, (which, deposits.scorer), deposits.energy)
    energy[:, -1] -= energy[:, :-1].sum(1)
    energy[energy < 1e-12] = 0.0  # rounding
    row, scorer = np.nonzero(energy)
    event, cell = np.divmod(key[row], span)
    found: Array = energy[row, scorer]
    return replace(deposits, event=event, readout=np.zeros_like(event), cell=cell, energy=found, scorer=scorer)
