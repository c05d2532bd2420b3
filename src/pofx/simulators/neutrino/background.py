r"""Pion production off a nucleon at rest through the Delta(1232), the background of the measurement, in closed form.

.. math::

    \frac{d^2\sigma}{dQ^2\,dW} = \frac{3 \sigma_0}{M_\pi^2} \left(1 + \frac{Q^2}{M_\pi^2}\right)^{-4} \mathrm{BW}(W)

inside the kinematic range, zero outside: :math:`M_\pi` is a dipole mass, BW a Breit-Wigner distribution of mass 1.232 and width
0.117 GeV on [1.085, 1.6] GeV, normalised to one, so that the cross section rises from threshold to :math:`\sigma_0`, taken as
4.5e-39 cm^2 per nucleon of carbon, roughly the size of measured charged-current single-pion production. The Delta decays isotropically
into nucleon and pion. An effective shape of the right gross features, not a model of resonance production such as Rein-Sehgal's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.simulators.neutrino.cross_section import NUCLEON_MASS, PION_MASS

__all__ = ["CROSS_SECTION", "MASSES", "mass_density", "pion_momentum", "q2_density", "sample_mass", "sample_q2"]

Array = NDArray[np.float64]

CROSS_SECTION = 4.5e-39
"""sigma_0 in cm^2 per nucleon."""
MASSES = (1.085, 1.6)
_POLE, _WIDTH = 1.232, 0.117


def q2_density(q2: ArrayLike, dipole_mass: ArrayLike = 1.0) -> Array:
    """The factor of Q^2 per GeV^2: a density on [0, infinity), before the kinematic range cuts it."""
    square = np.square(dipole_mass)
    result: Array = 3 / square / (1 + np.asarray(q2) / square) ** 4
    return result


def mass_density(mass: ArrayLike) -> Array:
    """BW(W) per GeV: a density on :data:`MASSES`."""
    w = np.asarray(mass, dtype=np.float64)
    start, stop = (np.arctan(2 * (end - _POLE) / _WIDTH) for end in MASSES)
    inside = (w >= MASSES[0]) & (w <= MASSES[1])
    return np.where(inside, 2 / _WIDTH / (1 + (2 * (w - _POLE) / _WIDTH) ** 2) / (stop - start), 0.0)


def sample_mass(n: int, rng: np.random.Generator) -> Array:
    """W from :func:`mass_density`, ``(n,)`` in GeV."""
    start, stop = (np.arctan(2 * (end - _POLE) / _WIDTH) for end in MASSES)
    result: Array = _POLE + 0.5 * _WIDTH * np.tan(rng.uniform(start, stop, n))
    return result


def sample_q2(n: int, rng: np.random.Generator, dipole_mass: float) -> Array:
    """Q^2 from :func:`q2_density`, ``(n,)`` in GeV^2."""
    return dipole_mass**2 * (np.cbrt(1 / rng.random(n)) - 1)


def pion_momentum(mass: Array, energy: Array, cosine: Array) -> Array:
    """Of a pion from a hadron of this mass and energy that decays at this cosine to its flight, GeV."""
    pion = (mass**2 + PION_MASS**2 - NUCLEON_MASS**2) / (2 * mass)
    size = np.sqrt(pion**2 - PION_MASS**2)
    gamma = energy / mass
    boosted = gamma * pion + np.sqrt(np.maximum(gamma**2 - 1, 0.0)) * size * cosine
    return np.sqrt(boosted**2 - PION_MASS**2)
