"""Where truth comes from: densities in closed form, and simulated measurements. Numpy only."""

from __future__ import annotations

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

__all__ = [
    "SHAPES",
    "TOYS",
    "Conditional",
    "CopulaToy",
    "CorrelatedGaussian",
    "DependentBeta",
    "Experiment",
    "GridField",
    "Lognormal",
    "Mixture",
    "MixtureBenchmark",
    "PointCloud",
    "Shell",
    "Truth",
    "VonMisesChain",
    "correlation_matrix",
    "data_set",
    "differential_cross_section",
    "mixture_toy",
    "t2k_like",
    "total_cross_section",
]
