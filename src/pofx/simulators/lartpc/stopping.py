r"""Loss of energy in liquid argon: means and fluctuations, of heavy particles and of electrons.

Equations of the Review of Particle Physics, "Passage of particles through matter" (Phys. Rev. D 110 (2024) 030001): Bethe's formula with
the density effect,

.. math:: -\frac{dE}{dx} = K \frac{Z}{A} \frac{1}{\beta^2} \Big[\tfrac12 \ln \frac{2 m_e \beta^2\gamma^2 W}{I^2}
    - \tfrac{\beta^2}{2}\Big(1 + \frac{W}{W_{max}}\Big) - \tfrac{\delta}{2}\Big], \qquad W = \min(W_{cut}, W_{max}),

and that of Berger and Seltzer for electrons. Energies are in MeV, lengths in mm.
"""

from __future__ import annotations

import numpy as np

from pofx.data.numbers import Array

__all__ = [
    "ELECTRON",
    "X0",
    "beta_gamma",
    "electron_loss",
    "gentle_loss",
    "knock_on_rate",
    "largest_transfer",
    "scattering_width",
    "straggling_variance",
]

ELECTRON = 0.51099895
"""Mass in MeV."""
DENSITY, Z, ATOMIC, EXCITATION = 1.396, 18.0, 39.948, 188e-6
"""Liquid argon: g/cm3, charge, g/mol, MeV."""
X0 = 10.0 * 19.55 / DENSITY
"""Radiation length in mm."""
RATE = 0.1 * 0.307075 * Z / ATOMIC * DENSITY
"""K Z / A in MeV/mm."""
STERNHEIMER = (5.2146, 0.2000, 3.0000, 0.19559, 3.0000)
"""C, x0, x1, a and k of the density effect."""


def beta_gamma(energy: Array, mass: Array | float) -> tuple[Array, Array]:
    """beta^2 and (beta gamma)^2 at a kinetic energy."""
    gamma = 1.0 + energy / mass
    square: Array = gamma**2 - 1.0
    return square / gamma**2, square


def largest_transfer(energy: Array, mass: Array | float) -> Array:
    """To a free electron."""
    _, square = beta_gamma(energy, mass)
    ratio = ELECTRON / mass
    found: Array = 2.0 * ELECTRON * square / (1.0 + 2.0 * ratio * (1.0 + energy / mass) + ratio**2)
    return found


def density_effect(square: Array) -> Array:
    """Delta at a given (beta gamma)^2."""
    c, low, high, a, k = STERNHEIMER
    x = 0.5 * np.log10(square)
    between = 2.0 * np.log(10.0) * x - c + a * np.maximum(high - x, 0.0) ** k
    found: Array = np.where(x < low, 0.0, between)
    return found


def gentle_loss(energy: Array, mass: Array | float, cut: float = np.inf) -> Array:
    """Mean loss in MeV/mm by transfers of at most ``cut`` MeV; all of them by default.

    >>> muons = np.linspace(100.0, 1000.0, 500)
    >>> round(float(gentle_loss(muons, 105.658).min()) * 10 / DENSITY, 2)  # MeV cm2/g; the tables say 1.508
    1.51
    """
    beta, square = beta_gamma(energy, mass)
    most = largest_transfer(energy, mass)
    w = np.minimum(cut, most)
    log = 0.5 * np.log(2.0 * ELECTRON * square * w / EXCITATION**2)
    found: Array = RATE / beta * np.maximum(log - 0.5 * beta * (1.0 + w / most) - 0.5 * density_effect(square), 0.5)
    return found


def straggling_variance(energy: Array, mass: Array | float, cut: float) -> Array:
    """Of the loss by transfers of at most ``cut`` MeV, in MeV^2/mm."""
    beta, _ = beta_gamma(energy, mass)
    most = largest_transfer(energy, mass)
    w = np.minimum(cut, most)
    found: Array = 0.5 * RATE / beta * w * (1.0 - 0.5 * beta * w / most)
    return found


def knock_on_rate(energy: Array, mass: Array | float, cut: float) -> Array:
    """Electrons of more than ``cut`` MeV per mm."""
    beta, _ = beta_gamma(energy, mass)
    most = np.maximum(largest_transfer(energy, mass), cut)
    found: Array = 0.5 * RATE / beta * (1.0 / cut - 1.0 / most - beta / most * np.log(most / cut))
    return np.maximum(found, 0.0)


def electron_loss(energy: Array) -> Array:
    """By collisions, of an electron, in MeV/mm (Berger and Seltzer)."""
    beta, square = beta_gamma(energy, ELECTRON)
    tau = energy / ELECTRON
    shape = (1.0 - beta) * (1.0 + tau**2 / 8.0 - (2.0 * tau + 1.0) * np.log(2.0))
    found: Array = (
        0.5 * RATE / beta * (2.0 * np.log(energy / EXCITATION) + np.log1p(0.5 * tau) + shape - density_effect(square))
    )
    return found


def scattering_width(energy: Array, mass: Array | float, step: Array) -> Array:
    """Of the angle in a plane after a short step.

    Highland's 13.6 MeV / (beta p) sqrt(x / X0), whose logarithm is left out: it is zero at one radiation length, and steps add up to that.
    """
    beta, square = beta_gamma(energy, mass)
    found: Array = 13.6 / (np.sqrt(beta * square) * mass) * np.sqrt(step / X0)
    return found
