r"""Charged-current quasi-elastic scattering of a neutrino off a free nucleon, after Llewellyn Smith (Phys. Rept. 3 (1972) 261).

.. math::

    \frac{d\sigma}{dQ^2} = \frac{M^2 G_F^2 \cos^2\theta_C}{8 \pi E^2}
    \left[ A \mp B \frac{s - u}{M^2} + C \frac{(s - u)^2}{M^4} \right], \qquad s - u = 4 M E - Q^2 - m^2,

upper sign for :math:`\nu_\mu n \to \mu^- p`, lower for :math:`\bar\nu_\mu p \to \mu^+ n`. In Sachs form factors, with
:math:`\tau = Q^2 / 4 M^2` and the muon mass m kept,

.. math::

    A &= \frac{m^2 + Q^2}{M^2} \left[ (1 + \tau) F_A^2 - G_E^2 + \tau G_M^2
         - \frac{m^2}{4 M^2} \left( G_M^2 + (F_A + 2 F_P)^2 - 4 (1 + \tau) F_P^2 \right) \right], \\
    B &= 4 \tau F_A G_M, \qquad C = \frac{1}{4} \left( F_A^2 + \frac{G_E^2 + \tau G_M^2}{1 + \tau} \right).

:math:`F_A = g_A / (1 + Q^2 / M_A^2)^2` is a dipole, :math:`F_P = 2 M^2 F_A / (m_\pi^2 + Q^2)` follows from PCAC, and the isovector
:math:`G_E, G_M` (proton minus neutron) are those of BBBA05 (hep-ex/0602017). In a nucleus :math:`G_M^2` may be enlarged by
:math:`1 + a \cdot 6 Q^2 e^{-Q^2 / 0.34}` (:math:`Q^2` in GeV^2), the transverse enhancement seen in electron scattering off carbon
(arXiv:1106.0340), which stands for two-nucleon currents; a = 1 is the published size, a = 0 the free nucleon.
M is the mean nucleon mass: the mass difference of neutron and proton is neglected. Energies in GeV, cross sections in cm^2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.errors import DataError

__all__ = [
    "AXIAL_COUPLING",
    "AXIAL_MASS",
    "CM2",
    "MUON_MASS",
    "NUCLEON_MASS",
    "PREFACTOR",
    "FormFactors",
    "axial_form_factor",
    "differential_cross_section",
    "form_factors",
    "invariant",
    "momentum_transfer_range",
    "threshold",
    "total_cross_section",
]

Array = NDArray[np.float64]

FERMI_CONSTANT = 1.1663788e-5
"""G_F in GeV^-2."""
COS2_CABIBBO = 0.97373**2
"""|V_ud|^2."""
AXIAL_COUPLING = -1.2754
"""g_A = F_A(0), of neutron decay."""
AXIAL_MASS = 1.0
"""Nominal M_A in GeV."""
NUCLEON_MASS = 0.5 * (0.93956542 + 0.93827209)
MUON_MASS = 0.10565838
PION_MASS = 0.13957039
MOMENTS = (2.79284734, -1.91304273)
"""Magnetic moments of proton and neutron, in nuclear magnetons."""
CM2 = 3.893793721e-28
"""1 GeV^-2 in cm^2."""
PREFACTOR = CM2 * (NUCLEON_MASS * FERMI_CONSTANT) ** 2 * COS2_CABIBBO / (8 * math.pi)
"""M^2 G_F^2 cos^2 theta_C / 8 pi in cm^2: what stands before [...] / E^2."""

_BBBA05 = {
    "electric proton": ((1.0, -0.0578), (1.0, 11.1, 13.6, 33.0)),
    "magnetic proton": ((1.0, 0.150), (1.0, 11.1, 19.6, 7.54)),
    "electric neutron": ((0.0, 1.25, 1.30), (1.0, -9.86, 305.0, -758.0, 802.0)),
    "magnetic neutron": ((1.0, 1.81), (1.0, 14.1, 20.7, 68.7)),
}
"""Numerator and denominator in powers of tau; the magnetic ones are divided by the moments."""
_ENHANCEMENT = (6.0, 0.34)


class FormFactors(NamedTuple):
    """Isovector Sachs form factors and the axial one, at the same Q^2."""

    electric: Array
    magnetic: Array
    axial: Array


def form_factors(q2: ArrayLike, axial_mass: ArrayLike = AXIAL_MASS, enhancement: ArrayLike = 0.0) -> FormFactors:
    """G_E, G_M and F_A at ``q2`` (GeV^2, any shape).

    >>> [round(float(f), 4) for f in form_factors(0.0)]
    [1.0, 4.7059, -1.2754]
    """
    square = np.asarray(q2, dtype=np.float64)
    tau = square / (4 * NUCLEON_MASS**2)
    ratio = {
        name: np.polyval(top[::-1], tau) / np.polyval(bottom[::-1], tau) for name, (top, bottom) in _BBBA05.items()
    }
    electric = ratio["electric proton"] - ratio["electric neutron"]
    magnetic = MOMENTS[0] * ratio["magnetic proton"] - MOMENTS[1] * ratio["magnetic neutron"]
    enlarged = magnetic * np.sqrt(1 + np.asarray(enhancement) * transverse_excess(square))
    return FormFactors(electric, enlarged, axial_form_factor(square, axial_mass))


def axial_form_factor(q2: ArrayLike, axial_mass: ArrayLike = AXIAL_MASS) -> Array:
    """The dipole F_A(Q^2), negative."""
    result: Array = AXIAL_COUPLING / (1 + np.asarray(q2) / np.square(axial_mass)) ** 2
    return result


def transverse_excess(q2: ArrayLike) -> Array:
    """The published relative enlargement of G_M^2 in carbon, 6 Q^2 exp(-Q^2 / 0.34) (arXiv:1106.0340)."""
    slope, scale = _ENHANCEMENT
    result: Array = slope * np.asarray(q2) * np.exp(-np.asarray(q2) / scale)
    return result


def invariant(
    q2: ArrayLike, x: ArrayLike, factors: FormFactors, antineutrino: bool = False, lepton_mass: float = MUON_MASS
) -> Array:
    r""":math:`A \mp B x + C x^2` with :math:`x = (s - u) / M^2`: a Lorentz invariant, so that it holds for moving nucleons too."""
    square, x = np.asarray(q2, dtype=np.float64), np.asarray(x, dtype=np.float64)
    a, b, c = structure(square, factors, lepton_mass)
    result: Array = a + (b if antineutrino else -b) * x + c * x**2
    return result


def structure(q2: Array, factors: FormFactors, lepton_mass: float = MUON_MASS) -> tuple[Array, Array, Array]:
    """The functions A, B and C of the module's equation."""
    electric, magnetic, axial = factors
    tau, lepton = q2 / (4 * NUCLEON_MASS**2), lepton_mass**2
    pseudoscalar = 2 * NUCLEON_MASS**2 * axial / (PION_MASS**2 + q2)
    massive = magnetic**2 + (axial + 2 * pseudoscalar) ** 2 - 4 * (1 + tau) * pseudoscalar**2
    massless = (1 + tau) * axial**2 - electric**2 + tau * magnetic**2
    a = (lepton + q2) / NUCLEON_MASS**2 * (massless - lepton / (4 * NUCLEON_MASS**2) * massive)
    b = 4 * tau * axial * magnetic
    c = 0.25 * (axial**2 + (electric**2 + tau * magnetic**2) / (1 + tau))
    return a, b, c


def threshold(lepton_mass: float = MUON_MASS) -> float:
    """Least neutrino energy on a nucleon at rest, m + m^2 / 2M in GeV.

    >>> round(threshold(), 4)
    0.1116
    """
    return lepton_mass + lepton_mass**2 / (2 * NUCLEON_MASS)


def momentum_transfer_range(
    energy: ArrayLike, lepton_mass: float = MUON_MASS, hadron_mass: ArrayLike = NUCLEON_MASS
) -> tuple[Array, Array]:
    """Smallest and largest Q^2 (GeV^2) on a nucleon at rest that becomes a hadron of ``hadron_mass``; NaN below threshold."""
    e = np.asarray(energy, dtype=np.float64)
    s = NUCLEON_MASS**2 + 2 * NUCLEON_MASS * e
    neutrino = NUCLEON_MASS * e / np.sqrt(s)
    lepton = (s + lepton_mass**2 - np.square(hadron_mass)) / (2 * np.sqrt(s))
    with np.errstate(invalid="ignore"):
        momentum = np.sqrt(np.where(lepton >= lepton_mass, lepton**2 - lepton_mass**2, np.nan))
    high = 2 * neutrino * (lepton + momentum) - lepton_mass**2
    product = lepton_mass**2 * (
        4 * neutrino**2 - 4 * neutrino * lepton + lepton_mass**2
    )  # of both ends: no cancellation
    return product / high, high


def differential_cross_section(
    q2: ArrayLike,
    energy: ArrayLike,
    axial_mass: ArrayLike = AXIAL_MASS,
    antineutrino: bool = False,
    enhancement: ArrayLike = 0.0,
    lepton_mass: float = MUON_MASS,
) -> Array:
    """d sigma / d Q^2 in cm^2 / GeV^2 per free neutron (proton for antineutrinos) at rest; zero outside the kinematic range.

    Parameters
    ----------
    q2, energy : Q^2 in GeV^2 and neutrino energy in GeV, of shapes that broadcast.
    axial_mass : M_A in GeV.
    antineutrino : the other sign of the interference of vector and axial currents.
    enhancement : a of the module's equation.
    lepton_mass : in GeV.

    Raises
    ------
    DataError if an energy or an axial mass is not positive.

    >>> f"{differential_cross_section(0.2, 1.0):.3e}"
    '1.483e-38'
    """
    square, e = np.asarray(q2, dtype=np.float64), np.asarray(energy, dtype=np.float64)
    if not (e > 0).all() or not (np.asarray(axial_mass) > 0).all():
        raise DataError(f"expected positive energies and axial masses in GeV; got {np.min(e)} and {np.min(axial_mass)}")
    low, high = momentum_transfer_range(e, lepton_mass)
    inside = (square >= low) & (square <= high)
    safe = np.where(inside, square, 0.0)
    x = (4 * NUCLEON_MASS * e - safe - lepton_mass**2) / NUCLEON_MASS**2
    value = invariant(safe, x, form_factors(safe, axial_mass, enhancement), antineutrino, lepton_mass)
    return np.where(inside, PREFACTOR / e**2 * value, 0.0)


def total_cross_section(
    energy: ArrayLike, axial_mass: float = AXIAL_MASS, antineutrino: bool = False, enhancement: float = 0.0
) -> Array:
    r"""sigma in cm^2 per free neutron (proton for antineutrinos) at rest, shape of ``energy`` (GeV); zero below threshold.

    Gauss-Legendre quadrature with 96 nodes in :math:`\log(Q^2 + 0.2\,\mathrm{GeV}^2)`.

    >>> f"{total_cross_section(1.0):.3e}"
    '1.045e-38'
    """
    e = np.asarray(energy, dtype=np.float64)
    low, high = momentum_transfer_range(e)
    open_channel = e >= threshold()
    start, stop = (np.log(np.where(open_channel, end, 1.0) + 0.2) for end in (low, high))
    nodes, weights = np.polynomial.legendre.leggauss(96)
    u = 0.5 * (start + stop)[..., None] + 0.5 * (stop - start)[..., None] * nodes
    value = differential_cross_section(np.exp(u) - 0.2, e[..., None], axial_mass, antineutrino, enhancement) * np.exp(u)
    return np.where(open_channel, 0.5 * (stop - start) * (value @ weights), 0.0)
