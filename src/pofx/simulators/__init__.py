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

__all__ = [
    "Conditional",
    "CorrelatedGaussian",
    "DependentBeta",
    "Experiment",
    "Lognormal",
    "Mixture",
    "MixtureBenchmark",
    "Truth",
    "VonMisesChain",
    "correlation_matrix",
    "differential_cross_section",
    "t2k_like",
    "total_cross_section",
]
