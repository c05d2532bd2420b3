r"""Factors of an event's weight, as functions of the parameters: exact, and prepared so that a universe costs little.

An event that was generated with density :math:`p_0` gets the weight :math:`p / p_0` when a parameter moves. Each class here holds what
of one factor depends on the event alone:

- flux: :math:`\phi(E)` with :math:`E = \tilde E + E_b`; events are kept by their energy at the vertex :math:`\tilde E`, so that this
  is all that the removal energy does;
- structure: :math:`A - B x + C x^2`, which is :math:`e + m R + \sqrt R F_A i + F_A^2 a` with event numbers e, m, i, a,
  :math:`R = 1 + a_T f(Q^2)` the transverse enhancement, and the dipole :math:`F_A(Q^2)`;
- muons: efficiency, and the smearing by the event's own normal numbers.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pofx.simulators.neutrino import detector
from pofx.simulators.neutrino.binning import Binning
from pofx.simulators.neutrino.cross_section import (
    AXIAL_COUPLING,
    FormFactors,
    form_factors,
    invariant,
    transverse_excess,
)
from pofx.simulators.neutrino.flux import TAIL_SCALE, Flux
from pofx.simulators.neutrino.parameters import Parameters

__all__ = ["FluxTerms", "Muons", "Structure"]

Array = NDArray[np.float64]
Integers = NDArray[np.intp]


class FluxTerms(NamedTuple):
    """Energies in GeV ``(n,)``, and exp(-energy / 0.8)."""

    energy: Array
    tail: Array

    @classmethod
    def of(cls, energy: Array) -> Self:
        return cls(energy, np.exp(energy * (-1 / TAIL_SCALE)))

    def shape(self, values: Parameters, removal_energy: float = 0.0) -> Array:
        """phi / Phi_0 at energy + removal energy (zero where that is negative), ``(n,)``: :meth:`Flux.shape` times N."""
        flux = Flux(values.flux_normalisation, values.flux_peak, values.flux_tail)
        peak, tail = (flux.normalisation * factor for factor in flux.factors())
        e = self.energy + removal_energy
        result = np.exp(e * (-8 / flux.peak))
        np.maximum(e, 0.0, out=e)
        e *= e
        for _ in range(3):
            result *= e
        result *= e
        result *= peak
        e *= self.tail
        e *= tail * np.exp(-removal_energy / TAIL_SCALE)
        result += e
        return result


class Structure(NamedTuple):
    """Q^2, f(Q^2) and the numbers e, m, i, a of each event, ``(n,)``."""

    q2: Array
    excess: Array
    electric: Array
    magnetic: Array
    interference: Array
    axial: Array

    @classmethod
    def of(cls, q2: Array, x: Array) -> Self:
        """A polynomial's coefficients from its values: the form factors enter as G_E^2, G_M^2, G_M F_A and F_A^2 alone."""
        factors, zero, one = form_factors(q2), np.zeros_like(q2), np.ones_like(q2)
        electric = invariant(q2, x, FormFactors(factors.electric, zero, zero))
        magnetic = invariant(q2, x, FormFactors(zero, factors.magnetic, zero))
        axial = invariant(q2, x, FormFactors(zero, zero, one))
        together = invariant(q2, x, FormFactors(zero, factors.magnetic, one))
        return cls(q2, transverse_excess(q2), electric, magnetic, together - magnetic - axial, axial)

    def value(self, axial_mass: float, enhancement: float) -> Array:
        """A - B x + C x^2, ``(n,)``."""
        ratio = self.excess * enhancement
        ratio += 1
        factor = self.q2 * (1 / axial_mass**2)
        factor += 1
        factor *= factor
        np.divide(AXIAL_COUPLING, factor, out=factor)
        result = factor * self.axial
        result += self.interference * np.sqrt(ratio)
        result *= factor
        ratio *= self.magnetic
        result += ratio
        result += self.electric
        return result


class Muons(NamedTuple):
    """What the detector needs of each muon, ``(n,)``.

    momentum, spread : p, and p sigma(p) / p z_p, in GeV.
    angle, deviate : theta in radians, and z_theta.
    threshold, side : of :func:`~pofx.simulators.neutrino.detector.efficiency`.
    """

    momentum: Array
    spread: Array
    angle: Array
    deviate: Array
    threshold: Array
    side: Array

    @classmethod
    def of(cls, momentum: Array, cosine: Array, rng: np.random.Generator) -> Self:
        z = rng.standard_normal((2, len(momentum)))
        spread = momentum * detector.relative_resolution(momentum) * z[0]
        shapes = detector.threshold_factor(momentum), detector.side_share(cosine)
        return cls(momentum, spread, np.arccos(cosine), z[1], *shapes)

    def efficiency(self, values: Parameters) -> Array:
        """Probability that the muon is selected."""
        numbers = (values.efficiency, values.efficiency_threshold, values.efficiency_side)
        return detector.efficiency(self.threshold, self.side, *numbers)

    def measured(self, values: Parameters, binning: Binning) -> Integers:
        """The bin where the muon is seen; ``len(binning)`` for none."""
        momentum = detector.measured_momentum(
            self.momentum, self.spread, values.momentum_scale, values.momentum_resolution
        )
        return binning.find(momentum, detector.measured_angle(self.angle, self.deviate, values.angular_resolution))
