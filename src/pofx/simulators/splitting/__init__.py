"""A parton shower whose splitting kernels can be changed (arXiv:2012.09873): kernels, evolution, kinematics, simulator."""

from __future__ import annotations

from pofx.simulators.splitting.evolution import Emissions, Evolution
from pofx.simulators.splitting.kernels import Coefficients, Dipole, kernel
from pofx.simulators.splitting.simulator import SplittingShower

__all__ = ["Coefficients", "Dipole", "Emissions", "Evolution", "SplittingShower", "kernel"]
