"""Integrators of ODEs and SDEs: fixed steps, steps of its own for every sample, log-densities, samplers with noise as an input."""

from pofx.solvers.adaptive import DormandPrince
from pofx.solvers.base import Solution, Solver, Status, VelocityField
from pofx.solvers.density import LogDensity, Transport, log_density_ode, rademacher, transport
from pofx.solvers.fixed import RK4, Euler, Heun, Midpoint
from pofx.solvers.masked import MaskedField
from pofx.solvers.noise import GivenNoise, NoiseSource
from pofx.solvers.stochastic import EulerMaruyama, PredictorCorrector, ScoreProcess

__all__ = [
    "RK4",
    "DormandPrince",
    "Euler",
    "EulerMaruyama",
    "GivenNoise",
    "Heun",
    "LogDensity",
    "MaskedField",
    "Midpoint",
    "NoiseSource",
    "PredictorCorrector",
    "ScoreProcess",
    "Solution",
    "Solver",
    "Status",
    "Transport",
    "VelocityField",
    "log_density_ode",
    "rademacher",
    "transport",
]
