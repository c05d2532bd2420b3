"""Showers in calorimeters: by Geant4, and by the parametrisation that is its classical fast counterpart (GFlash)."""

from __future__ import annotations

from pofx.simulators.calorimeter.environment import Geant4Data, find_data
from pofx.simulators.calorimeter.geant4 import Geant4Shower
from pofx.simulators.calorimeter.geometry import CALORIMETERS, Calorimeter, Module, Readout
from pofx.simulators.calorimeter.gflash import GFlashShower
from pofx.simulators.calorimeter.materials import MATERIALS, Material

__all__ = [
    "CALORIMETERS",
    "MATERIALS",
    "Calorimeter",
    "GFlashShower",
    "Geant4Data",
    "Geant4Shower",
    "Material",
    "Module",
    "Readout",
    "find_data",
]
