r"""The flux-averaged cross section of a model in the bins of the measurement, by deterministic quadrature.

.. math::

    \sigma_i = \frac{1}{2\, \Delta p_i\, \Delta c_i} \int_i dp\, dc \int dE\, \frac{\phi(E)}{N \Phi_0}\,
    \frac{d^2\sigma}{dp\,dc}(E - E_b)

per nucleon of a nucleus with as many neutrons as protons. Gauss-Legendre in p, c and E; at each (p, c) the energies are cut where
the Fermi gas has its edges (:func:`~pofx.simulators.neutrino.nucleus.energy_breaks`), so that all pieces are smooth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pofx.simulators.neutrino.flux import LARGEST, Flux
from pofx.simulators.neutrino.nucleus import bound_cross_section, energy_breaks
from pofx.simulators.neutrino.parameters import NOMINAL, Parameters

CUTS = (1.5, 5.0)
"""Further cuts of long energy ranges, in GeV, as the flux falls over them."""

__all__ = ["flux_averaged"]

Array = NDArray[np.float64]


def flux_averaged(edges: Array, values: Parameters = NOMINAL, nodes: int = 8) -> Array:
    """sigma_i in cm^2 / GeV per nucleon, ``(bins,)``.

    Parameters
    ----------
    edges : ``(bins, 4)``: p_low, p_high (GeV), cos_low, cos_high.
    values : those of flux and signal count; N does not, as it drops out.
    nodes : of the quadrature, per bin and axis.

    >>> f"{flux_averaged(np.array([[0.4, 0.5, 0.8, 0.9]]))[0]:.3e}"
    '6.464e-39'
    """
    flux = Flux(1.0, values.flux_peak, values.flux_tail)
    unit, weight = _legendre(nodes)
    p = edges[:, 0, None, None] + (edges[:, 1] - edges[:, 0])[:, None, None] * unit[:, None]
    c = edges[:, 2, None, None] + (edges[:, 3] - edges[:, 2])[:, None, None] * unit
    breaks = energy_breaks(p, c, LARGEST, values.pauli)
    breaks = np.concatenate([breaks[:3], *(np.clip(cut, breaks[2], breaks[3])[None] for cut in CUTS), breaks[3:]])
    width = np.diff(breaks, axis=0)
    piece, *where = np.nonzero(width > 0)
    p, c = (np.broadcast_to(one, width.shape[1:])[tuple(where)][:, None] for one in (p, c))
    e = breaks[(piece, *where)][:, None] + width[(piece, *where)][:, None] * unit
    physics = (values.axial_mass, values.enhancement, values.pauli)
    value = bound_cross_section(p, c, e, *physics) * flux.shape(e + values.removal_energy)
    pieces = np.zeros_like(width)
    pieces[(piece, *where)] = value @ weight
    averaged = (pieces * width).sum(0)
    result: Array = 0.5 * np.einsum("bij,i,j->b", averaged, weight, weight)
    return result


def _legendre(nodes: int) -> tuple[Array, Array]:
    """Nodes and weights on [0, 1]."""
    unit, weight = np.polynomial.legendre.leggauss(nodes)
    return 0.5 * (unit + 1), 0.5 * weight
