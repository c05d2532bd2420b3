"""Where truth comes from: densities in closed form to draw from and to score against. Numpy only."""

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

__all__ = [
    "Conditional",
    "CorrelatedGaussian",
    "DependentBeta",
    "Lognormal",
    "Mixture",
    "MixtureBenchmark",
    "Truth",
    "VonMisesChain",
    "correlation_matrix",
    "t2k_like",
]
