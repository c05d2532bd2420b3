r"""Dust-like maps with their large scales as context: small-scale structure to be restored, with a conditional density in closed form.

.. math:: L = e^{g - \sigma_g^2 / 2}, \qquad I = L\, e^{a(L)\, u - a(L)^2 / 2}, \qquad
          a(L) = a_0 \left( \frac{2 L}{1 + L} \right)^{\beta}

g and u are independent Gaussian fields. With P a power law of slope ``slope`` and :math:`W(k) = e^{-k^2 \theta^2 / 2}` a beam of full
width at half maximum :math:`\sqrt{8 \ln 2}\, \theta`, g has the power of P W^2 and u that of :math:`P (1 - W^2)`, scaled to standard
deviations ``contrast`` and one. So (1) L has the one-point law :math:`\ln L \sim N(-\sigma_g^2/2, \sigma_g^2)`; (2) :math:`E[I | L] =
L` in every cell; (3) given L, :math:`\ln I` is a Gaussian field with standard deviation a(L) in each cell: small scales are stronger
in bright regions; (4) with beta = 0 the map I is lognormal as a whole, its correlation function :math:`e^{\xi_g + a_0^2 \xi_u} - 1`.
The task is that of arXiv:2011.02221.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.config import check_at_least, check_between
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, Field
from pofx.errors import CapabilityError
from pofx.simulators.base import Simulator
from pofx.simulators.fields.gaussian import GaussianField, Lattice
from pofx.simulators.fields.spectrum import Spectrum

__all__ = ["DustMap"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DustMap(Simulator):
    """Dust-like maps and, as context, their large scales alone: small-scale structure to be restored (arXiv:2011.02221).

    Attributes
    ----------
    cells, length : of a side; the length in degrees.
    slope : of the power law of both parts.
    beam : full width at half maximum of the beam that parts large from small scales, degrees.
    contrast : standard deviation of ln L, the large scales.
    strength, modulation : a0 and beta: how strong small scales are, and how much more so in bright regions.

    >>> maps = DustMap(cells=32)(2, seed=1).arrays()
    >>> maps.x.shape, maps.context.x.shape
    ((2, 1, 32, 32), (2, 1, 32, 32))
    """

    name: ClassVar[str] = "dust-map"
    block: ClassVar[int] = 64

    cells: int = 64
    length: float = 20.0
    slope: float = 2.6
    beam: float = 1.333
    contrast: float = 0.6
    strength: float = 0.4
    modulation: float = 0.5

    def __post_init__(self) -> None:
        check_at_least(self, 4, "cells")
        check_at_least(self, 1e-6, "length", "contrast", "strength")
        check_between(self, 1e-6, self.length, "beam")
        check_between(self, 0.0, 4.0, "slope", "modulation")

    @cached_property
    def lattice(self) -> Lattice:
        """Where the maps live."""
        return Lattice(self.cells, self.length)

    @cached_property
    def parts(self) -> tuple[GaussianField, GaussianField]:
        """g and u."""
        power = self.lattice.power(Spectrum("power-law", 1.0, 1.0, self.slope))
        k = self.lattice.wave_numbers.copy()
        k.flat[0] = math.tau / self.length
        exponent = -((k * self.beam) ** 2) / (8.0 * math.log(2.0))
        large, small = power * np.exp(np.maximum(exponent, -60.0)), power * -np.expm1(exponent)
        g, u = (GaussianField(self.lattice, part) for part in (large, small))
        return (
            GaussianField(self.lattice, large * self.contrast**2 / g.variance),
            GaussianField(self.lattice, small / u.variance),
        )

    def amplitude(self, large: ArrayLike) -> Array:
        """a(L), the standard deviation of ln I given L."""
        ratio = np.asarray(large, np.float64)
        return np.asarray(self.strength * (2.0 * ratio / (1.0 + ratio)) ** self.modulation)

    def spec(self) -> EventSpec:
        return {"map": self._form("intensity")}

    def context_spec(self) -> EventSpec:
        return {"large": self._form("large")}

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        g, u = (part.sample(n, rng) for part in self.parts)
        large = np.exp(g - 0.5 * self.contrast**2)
        a = self.amplitude(large)
        return Events({"map": (large * np.exp(a * u - 0.5 * a**2))[:, None]}, context=Events({"large": large[:, None]}))

    def log_prob(self, maps: ArrayLike, large: ArrayLike) -> Array:
        """log p(I | L), ``(n,)``; ``-inf`` where a cell is not positive."""
        full, context = self.lattice.checked(maps), self.lattice.checked(large)
        a, inside = self.amplitude(context), (full > 0).all((1, 2))
        log = np.log(np.where(full > 0, full, 1.0))
        u = (log - np.log(context) + 0.5 * a**2) / a
        found = self.parts[1].log_prob(u) - (log + np.log(a)).sum((1, 2))
        return np.where(inside, found, -np.inf)

    def power(self) -> Array:
        """Of I, in every mode of ``lattice.wave_numbers``, the mean excepted; only without modulation is there a closed form."""
        if self.modulation != 0.0:
            raise CapabilityError("dust-map: the spectrum of the full map has a closed form for modulation=0 only")
        g, u = (self.lattice.correlation(part.power) for part in self.parts)
        return self.lattice.transform(np.expm1(g + self.strength**2 * u)).real * self.lattice.cell_volume

    def _form(self, name: str) -> Field:
        return Field("grid", (1, self.cells, self.cells), (Column(name, "", "bounded", 0.0),), self.lattice.axes("deg"))
