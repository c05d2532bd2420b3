r"""A muon-neutrino flux in closed form: a narrow peak and a tail, as in an off-axis beam.

.. math::

    \phi(E) = N \Phi_0 \left[ (1 - t)\, \Gamma(E; 9, E_{peak} / 8) + t\, \Gamma(E; 3, 0.8\,\mathrm{GeV}) \right], \qquad
    \Gamma(E; k, \theta) = \frac{E^{k-1} e^{-E/\theta}}{(k-1)!\, \theta^k} .

The first gamma density peaks at :math:`E_{peak}`, the second at 1.6 GeV; both integrate to one, so that the integrated flux is
:math:`N \Phi_0` whatever the shape. An analytic stand-in for a beam simulation: with :math:`E_{peak}` = 0.6 GeV, t = 0.12 and
:math:`\Phi_0 = 2 \cdot 10^{13}` per cm^2 and 10^21 protons on target it resembles the flux of T2K's near detector
(arXiv:1211.0469); no number in it comes from data. The peak's position, the size of the tail and the normalisation are uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LARGEST", "PER_EXPOSURE", "TAIL_SCALE", "Flux"]

Array = NDArray[np.float64]

PER_EXPOSURE = 2.0e13
"""Neutrinos per cm^2 and 10^21 protons on target."""
TAIL_SCALE = 0.8
LARGEST = 25.0
"""Above this energy in GeV the shape is below 1e-12: integrals end here."""


@dataclass(frozen=True)
class Flux:
    """N, E_peak (GeV) and t of the module's equation.

    >>> flux = Flux()
    >>> energies = np.linspace(0, 25, 100_001)
    >>> round(float(np.trapezoid(flux.shape(energies), energies)), 9)
    1.0
    """

    normalisation: float = 1.0
    peak: float = 0.6
    tail: float = 0.12

    def shape(self, energy: ArrayLike) -> Array:
        """phi(E) / (N Phi_0) in 1/GeV: a density; zero for negative energies."""
        e = np.maximum(np.asarray(energy, dtype=np.float64), 0.0)
        square = e * e
        peak, tail = self.factors()
        fourth = square * square
        result: Array = fourth * fourth * np.exp(e * (-8 / self.peak)) * peak
        result += square * np.exp(e * (-1 / TAIL_SCALE)) * tail
        return result

    def factors(self) -> tuple[float, float]:
        """What stands before E^8 exp(-8 E / E_peak) and before E^2 exp(-E / 0.8)."""
        return (1 - self.tail) * (8 / self.peak) ** 9 / 40320, self.tail / (2 * TAIL_SCALE**3)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """``n`` energies in GeV."""
        tail = rng.random(n) < self.tail
        return np.where(tail, rng.gamma(3.0, TAIL_SCALE, n), rng.gamma(9.0, self.peak / 8, n))
