"""Showers by Geant4: particles in a stack of layers, energies added up by its own scorers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pofx.config import check_at_least
from pofx.simulators.calorimeter.deposits import Deposits, Primaries
from pofx.simulators.calorimeter.process import Geant4Run, simulate_stack, versions
from pofx.simulators.calorimeter.showers import ShowerSimulator

__all__ = ["Geant4Shower"]


@dataclass(frozen=True)
class Geant4Shower(ShowerSimulator):
    """Showers of e-, e+ and photons in a calorimeter, by Geant4.

    Standard electromagnetic physics (G4EmStandardPhysics), about 15 ms per GeV, in a process of its own for every block.
    Settings beyond those of :class:`~pofx.simulators.calorimeter.showers.ShowerSimulator`:

    Parameters
    ----------
    cut : range below which no secondary is made, in mm; 0.7 is Geant4's default.

    >>> Geant4Shower(geometry="ild", particle="gamma", low=10.0, high=100.0).spec()["layers"].shape
    (1, 30, 30, 30)
    """

    name: ClassVar[str] = "geant4-shower"
    modules: ClassVar[tuple[str, ...]] = ("geant4_pybind",)

    cut: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1e-4, "cut")

    def deposits(self, primaries: Primaries, rng: np.random.Generator) -> Deposits:
        return simulate_stack(self.stack, Geant4Run(cut=self.cut), primaries, rng)

    def versions(self) -> Mapping[str, str]:
        return versions()
