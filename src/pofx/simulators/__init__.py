"""Where truth comes from: densities in closed form, and simulated measurements. Numpy only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pofx.simulators.densities import (
    Conditional,
    CorrelatedGaussian,
    DependentBeta,
    Lognormal,
    Mixture,
    MixtureBenchmark,
    Truth,
    VonMisesChain,
    correlation_matrix,
    t2k_like,
)
from pofx.simulators.neutrino import Experiment, differential_cross_section, total_cross_section
from pofx.simulators.shapes import SHAPES
from pofx.simulators.toys import TOYS, CopulaToy, GridField, PointCloud, Shell, data_set, mixture_toy

if TYPE_CHECKING:
    from pofx.simulators.calorimeter import Calorimeter, Geant4Shower, GFlashShower
    from pofx.simulators.catalogue import ShapeSimulator, ToySimulator, toy
    from pofx.simulators.collider.detector import Detector
    from pofx.simulators.collider.dijets import LHCOBackground, LHCOSignal, QCDDijets
    from pofx.simulators.collider.generator import Beams
    from pofx.simulators.collider.jetnet import JetNetJets
    from pofx.simulators.collider.multijets import MultiJets
    from pofx.simulators.collider.tops import TopDilepton, TopLeptonJets
    from pofx.simulators.collider.zjets import ZJets
    from pofx.simulators.fields import DustMap, RandomField, power_spectrum
    from pofx.simulators.lartpc import ChamberGeant4, ChamberWalk
    from pofx.simulators.splitting import SplittingShower
    from pofx.simulators.task_toys.integrands import INTEGRANDS

_LAZY = {
    "DustMap": "pofx.simulators.fields",
    "INTEGRANDS": "pofx.simulators.task_toys.integrands",
    "RandomField": "pofx.simulators.fields",
    "ShapeSimulator": "pofx.simulators.catalogue",
    "SplittingShower": "pofx.simulators.splitting",
    "ToySimulator": "pofx.simulators.catalogue",
    "power_spectrum": "pofx.simulators.fields",
    "toy": "pofx.simulators.catalogue",
    "Beams": "pofx.simulators.collider.generator",
    "Calorimeter": "pofx.simulators.calorimeter",
    "ChamberGeant4": "pofx.simulators.lartpc",
    "ChamberWalk": "pofx.simulators.lartpc",
    "Detector": "pofx.simulators.collider.detector",
    "Geant4Shower": "pofx.simulators.calorimeter",
    "GFlashShower": "pofx.simulators.calorimeter",
    "JetNetJets": "pofx.simulators.collider.jetnet",
    "LHCOBackground": "pofx.simulators.collider.dijets",
    "LHCOSignal": "pofx.simulators.collider.dijets",
    "MultiJets": "pofx.simulators.collider.multijets",
    "QCDDijets": "pofx.simulators.collider.dijets",
    "TopDilepton": "pofx.simulators.collider.tops",
    "TopLeptonJets": "pofx.simulators.collider.tops",
    "ZJets": "pofx.simulators.collider.zjets",
}
"""What is imported when it is first used, and from where."""

__all__ = [
    "INTEGRANDS",
    "SHAPES",
    "TOYS",
    "Beams",
    "Calorimeter",
    "ChamberGeant4",
    "ChamberWalk",
    "Conditional",
    "CopulaToy",
    "CorrelatedGaussian",
    "DependentBeta",
    "Detector",
    "DustMap",
    "Experiment",
    "GFlashShower",
    "Geant4Shower",
    "GridField",
    "JetNetJets",
    "LHCOBackground",
    "LHCOSignal",
    "Lognormal",
    "Mixture",
    "MixtureBenchmark",
    "MultiJets",
    "PointCloud",
    "QCDDijets",
    "RandomField",
    "ShapeSimulator",
    "Shell",
    "SplittingShower",
    "TopDilepton",
    "TopLeptonJets",
    "ToySimulator",
    "Truth",
    "VonMisesChain",
    "ZJets",
    "correlation_matrix",
    "data_set",
    "differential_cross_section",
    "mixture_toy",
    "power_spectrum",
    "t2k_like",
    "total_cross_section",
    "toy",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pofx.simulators' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
