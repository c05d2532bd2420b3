r"""A parametrised detector: resolution, momentum scale, efficiency, and reinteraction of hadrons, each with its uncertainty.

Measured momentum and angle of the muon, z standard normal and fixed per event (:math:`s, r, r_\theta` are parameters):

.. math::

    p_{rec} = (1 + s)\, p\, (1 + r \sqrt{0.06^2 + (0.04\, p/\mathrm{GeV})^2}\, z_p), \qquad
    \theta_{rec} = |\theta + r_\theta\, 0.03\, z_\theta| .

Efficiency to select a muon, with the logistic function L: low momenta do not reach the tracker, sideways and backward muons
(below :math:`\cos\theta = 0.3`) are found with a share b of the forward efficiency,

.. math::

    \varepsilon(p, \cos\theta) = 0.7\, n\, L\left(\frac{p - p_0}{0.05}\right)
    \left[ b + (1 - b)\, L\left(\frac{\cos\theta - 0.3}{0.15}\right) \right] .

Reinteraction moves events between the samples with and without a pion. A proton of kinetic energy T rescatters in the detector into
something that is vetoed as a pion with probability :math:`1 - e^{-0.1 \lambda_p L((T - 0.35) / 0.08)}`; a pion is absorbed, and its event
selected as signal, with probability :math:`1 - e^{-0.45 \lambda_\pi g(p_\pi)}`, where g is a Gaussian of mean 0.26 and width
0.12 GeV, around the Delta resonance. Energies and momenta in GeV; all shapes are illustrative.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.simulators.neutrino.cross_section import NUCLEON_MASS

__all__ = [
    "SMALLEST",
    "efficiency",
    "measured_angle",
    "measured_momentum",
    "pion_depth",
    "proton_depth",
    "relative_resolution",
    "side_share",
    "threshold_factor",
]

Array = NDArray[np.float64]

PLATEAU, TURN_ON, SIDE, SIDE_WIDTH = 0.7, 0.05, 0.3, 0.15
ANGULAR = 0.03
SMALLEST = 1e-3


def relative_resolution(momentum: ArrayLike) -> Array:
    """sigma(p) / p at nominal resolution."""
    result: Array = np.hypot(0.06, 0.04 * np.asarray(momentum))
    return result


def measured_momentum(momentum: Array, deviate: Array, scale: float = 0.0, resolution: float = 1.0) -> Array:
    """p_rec; ``deviate`` is p sigma(p) / p z, ``scale`` is s and ``resolution`` r."""
    result: Array = deviate * ((1 + scale) * resolution)
    result += momentum * (1 + scale)
    return result


def measured_angle(angle: Array, deviate: Array, resolution: float = 1.0) -> Array:
    """theta_rec in radians; ``deviate`` is z."""
    result: Array = deviate * (resolution * ANGULAR)
    result += angle
    return np.abs(result, out=result)


def threshold_factor(momentum: ArrayLike) -> Array:
    """exp(-p / 0.05), out of which :func:`efficiency` makes its turn-on at any threshold."""
    result: Array = np.exp(np.asarray(momentum) * (-1 / TURN_ON))
    return result


def side_share(cosine: ArrayLike) -> Array:
    """L((cos theta - 0.3) / 0.15)."""
    result: Array = _logistic((np.asarray(cosine) - SIDE) / SIDE_WIDTH)
    return result


def efficiency(factor: Array, share: Array, norm: float = 1.0, threshold: float = 0.2, side: float = 0.3) -> Array:
    """epsilon out of :func:`threshold_factor` and :func:`side_share`; n, p_0 and b of the module's equation.

    >>> f"{efficiency(threshold_factor(0.6), side_share(0.95)):.4f}"
    '0.6934'
    """
    turn_on = factor * np.exp(threshold / TURN_ON)
    turn_on += 1
    result: Array = share * (PLATEAU * norm * (1 - side))
    result += PLATEAU * norm * side
    result /= turn_on
    return result


def proton_depth(momentum: Array) -> Array:
    """Exponent of the probability that an ejected proton is not vetoed, at nominal strength."""
    kinetic = np.hypot(momentum, NUCLEON_MASS) - NUCLEON_MASS
    result: Array = 0.1 * _logistic((kinetic - 0.35) / 0.08)
    return result


def pion_depth(momentum: Array) -> Array:
    """Exponent of the probability that a pion is not absorbed, at nominal strength."""
    result: Array = 0.45 * np.exp(-0.5 * ((momentum - 0.26) / 0.12) ** 2)
    return result


def _logistic(u: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-u))
    return result
