r"""Quasi-elastic scattering off nucleons bound in a relativistic Fermi gas (Smith and Moniz, Nucl. Phys. B 43 (1972) 605).

Nucleons fill a sphere of radius :math:`p_F`; the struck one must leave it (Pauli blocking). Removing a nucleon costs
:math:`E_b`, which here the neutrino pays before it scatters: the vertex sees :math:`k = \tilde E (1, \hat k)` with
:math:`\tilde E = E - E_b` and on-shell nucleons. That is the only treatment of binding in which :math:`E_b` is a pure shift of the
neutrino energy; compared with shifting the energy transfer alone, it changes the momentum transfer by at most :math:`E_b`.

The scattering off a nucleon of momentum **p** is that of :mod:`~pofx.simulators.neutrino.cross_section`, an invariant. With the
momentum transfer :math:`(\omega, \mathbf q) = k - k'` (:math:`k'` the muon of momentum p_mu), the average over the sphere is

.. math::

    \frac{d^2\sigma}{dp_\mu\,d\cos\theta} = \frac{3\, p_\mu^2}{8 \pi\, p_F^3 \tilde E E_\mu |\mathbf q|}\, M^4 G_F^2 \cos^2\theta_C
    \int_{E_-}^{E_F} dE_p \left[ A - B \langle x \rangle + C \langle x^2 \rangle \right],

.. math::

    E_- = \max\left( E_B - \omega,\ \tfrac{1}{2} (|\mathbf q| \sqrt{1 + 4 M^2 / Q^2} - \omega) \right), \qquad
    E_F^2 = M^2 + p_F^2, \quad E_B^2 = M^2 + (\kappa p_F)^2 .

Energy conservation fixes the component of **p** along **q**, and the average over its azimuth leaves a polynomial of second degree in
the nucleon's energy :math:`E_p`, so that the integral is exact (Simpson's rule). :math:`\kappa = 1` is the Fermi gas; other values
scale Pauli blocking, after the parameter of that name of MiniBooNE (arXiv:0706.0926). Per neutron; GeV and cm^2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.simulators.neutrino.cross_section import (
    MUON_MASS,
    NUCLEON_MASS,
    PREFACTOR,
    FormFactors,
    form_factors,
    structure,
)

__all__ = ["FERMI_MOMENTUM", "Leptons", "bound_cross_section", "energy_breaks", "leptons"]

Array = NDArray[np.float64]

FERMI_MOMENTUM = 0.221
"""p_F of carbon in GeV, from electron scattering (Moniz et al., Phys. Rev. Lett. 26 (1971) 445)."""
FERMI_ENERGY = math.hypot(NUCLEON_MASS, FERMI_MOMENTUM)


class Leptons(NamedTuple):
    """What the two leptons fix: energies of neutrino (at the vertex) and muon, muon momentum, momentum and energy transfer, Q^2, and
    the neutrino's direction along the momentum transfer."""

    neutrino: Array
    muon: Array
    momentum: Array
    transfer: Array
    omega: Array
    q2: Array
    along: Array


def leptons(momentum: ArrayLike, cosine: ArrayLike, energy: ArrayLike) -> Leptons:
    """From p_mu (GeV), cos theta_mu and the neutrino energy at the vertex (GeV), shapes that broadcast."""
    p, e = np.asarray(momentum, dtype=np.float64), np.asarray(energy, dtype=np.float64)
    muon = np.hypot(p, MUON_MASS)
    longitudinal = p * np.asarray(cosine)
    transfer = np.sqrt(np.maximum(e**2 - 2 * e * longitudinal + p**2, 1e-30))
    q2 = 2 * e * (muon - longitudinal) - MUON_MASS**2
    return Leptons(e, muon, p, transfer, e - muon, q2, (e - longitudinal) / transfer)


def bound_cross_section(
    momentum: ArrayLike,
    cosine: ArrayLike,
    energy: ArrayLike,
    axial_mass: float = 1.0,
    enhancement: float = 0.0,
    pauli: float = 1.0,
) -> Array:
    """d^2 sigma / d p_mu d cos theta_mu in cm^2 / GeV per bound neutron, zero where no nucleon of the sphere can contribute.

    Parameters
    ----------
    momentum, cosine : of the muon.
    energy : at the vertex, E - E_b in GeV; all three of shapes that broadcast.
    axial_mass, enhancement : of :func:`~pofx.simulators.neutrino.cross_section.form_factors`.
    pauli : kappa above.

    >>> f"{bound_cross_section(0.5, 0.9, 0.55):.3e}"
    '1.428e-37'
    """
    seen = leptons(momentum, cosine, energy)
    possible = seen.q2 > 0
    seen = Leptons(*(np.where(possible, part, 1.0) for part in seen))
    least = np.maximum(
        math.hypot(NUCLEON_MASS, pauli * FERMI_MOMENTUM) - seen.omega,
        0.5 * (seen.transfer * np.sqrt(1 + 4 * NUCLEON_MASS**2 / seen.q2) - seen.omega),
    )
    span = FERMI_ENERGY - least
    factors = form_factors(seen.q2, axial_mass, enhancement)
    ends = [_at_nucleon_energy(seen, factors, least + part * span) for part in (0.0, 0.5, 1.0)]
    integral = span / 6 * (ends[0] + 4 * ends[1] + ends[2])
    before = 3 * PREFACTOR * NUCLEON_MASS**2 / FERMI_MOMENTUM**3 * seen.momentum**2
    value = before / (seen.neutrino * seen.muon * seen.transfer) * integral
    return np.where(possible & (span > 0), value, 0.0)


def _at_nucleon_energy(seen: Leptons, factors: FormFactors, nucleon: Array) -> Array:
    """A - B<x> + C<x^2> for struck nucleons of this energy."""
    a, b, c = structure(seen.q2, factors)
    parallel = (nucleon * seen.omega - 0.5 * seen.q2) / seen.transfer
    across = (nucleon**2 - NUCLEON_MASS**2 - parallel**2) * (1 - seen.along**2)
    x = (4 * seen.neutrino * (nucleon - parallel * seen.along) - seen.q2 - MUON_MASS**2) / NUCLEON_MASS**2
    result: Array = a - b * x + c * (x**2 + 8 * seen.neutrino**2 * across / NUCLEON_MASS**4)
    return result


def energy_breaks(momentum: ArrayLike, cosine: ArrayLike, largest: float, pauli: float = 1.0) -> Array:
    r"""Vertex energies between which the cross section at a fixed muon is smooth, ascending, shape ``(4, ...)``.

    The ends of the support are where only a nucleon on the surface of the sphere, collinear with **q**, can be struck:
    :math:`E_F \omega \mp p_F |\mathbf q| = Q^2 / 2`. In between is where the ejected nucleon, collinear with **q**, is on the surface
    of Pauli blocking: :math:`E_B \omega \mp \kappa p_F |\mathbf q| = -Q^2 / 2`. Both are quadratic in the energy. Blocking also
    asks for :math:`\omega > E_B - E_F`. Nothing is above ``largest``.
    """
    p, c = np.broadcast_arrays(np.asarray(momentum, np.float64), np.asarray(cosine, np.float64))
    muon = np.hypot(p, MUON_MASS)
    blocked = math.hypot(NUCLEON_MASS, pauli * FERMI_MOMENTUM)
    low, high = _collinear(p, c, FERMI_ENERGY, FERMI_MOMENTUM, sign=1.0)
    first, second = _collinear(p, c, blocked, pauli * FERMI_MOMENTUM, sign=-1.0)
    start = np.minimum(np.maximum(low, muon + blocked - FERMI_ENERGY), largest)
    stop = np.maximum(np.minimum(high, largest), start)
    inner = np.sort(np.stack([np.clip(root, start, stop) for root in (first, second)]), axis=0)
    return np.stack([start, *inner, stop])


def _collinear(p: Array, c: Array, nucleon: float, fermi: float, sign: float) -> tuple[Array, Array]:
    """The two energies at which a nucleon of energy ``nucleon`` and momentum ``fermi`` along **q** is struck (``sign`` 1) or ejected (-1).

    With Q^2 = 2 E (E_mu - p c) - m^2 and omega = E - E_mu, (N omega - sign Q^2 / 2)^2 = fermi^2 |q|^2 is a E^2 + b E + d = 0.
    Infinity stands for no such energy.
    """
    muon = np.hypot(p, MUON_MASS)
    slope, offset = nucleon - sign * (muon - p * c), sign * 0.5 * MUON_MASS**2 - nucleon * muon
    a, d = slope**2 - fermi**2, offset**2 - fermi**2 * p**2
    b = 2 * (slope * offset + fermi**2 * p * c)
    with np.errstate(invalid="ignore", divide="ignore"):
        q = 0.5 * (np.sqrt(b**2 - 4 * a * d) - b)
        low, high = d / q, q / a
    return np.where(low > 0, low, np.inf), np.where((a > 0) & (high > 0), high, np.inf)
