r"""Maps with a chosen power spectrum, Gaussian or lognormal.

A lognormal map is :math:`\kappa = s\, (e^{g - \sigma_g^2 / 2} - 1)` with a Gaussian g: it has mean zero, is above -s, and its correlation
function is :math:`\xi = s^2 (e^{\xi_g} - 1)` (Coles and Jones 1991; arXiv:1602.08503). So g gets the spectrum of
:math:`\ln(1 + \xi / s^2)`, taken on the lattice, cell by cell, and the power of the map is the chosen one in every mode. Not every spectrum
is that of a lognormal field: where a mode of g would need negative power, that is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, Field
from pofx.errors import ConfigError
from pofx.simulators.base import Simulator
from pofx.simulators.fields.gaussian import GaussianField, Lattice
from pofx.simulators.fields.measured import binned
from pofx.simulators.fields.spectrum import Spectrum

__all__ = ["RandomField"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RandomField(Simulator):
    """Gaussian or lognormal random fields of a chosen power spectrum on a periodic grid, such as convergence maps (arXiv:1706.02390).

    Attributes
    ----------
    law : of the map.
    cells, length, dim : cells a side, length of a side, two or three dimensions; by default five degrees, in radians.
    spectrum : P(k), k in radians per unit of length.
    shift : s of a lognormal map, which lies above -s; the smaller, the less Gaussian.
    unit : of the length.

    >>> maps = RandomField(cells=32)
    >>> maps(3, seed=1).arrays().x.shape
    (3, 1, 32, 32)
    """

    name: ClassVar[str] = "random-field"
    block: ClassVar[int] = 64

    law: Literal["gaussian", "lognormal"] = "lognormal"
    cells: int = 64
    length: float = 0.0872665
    dim: int = 2
    spectrum: Spectrum = field(default_factory=Spectrum)
    shift: float = 0.03
    unit: str = "rad"

    def __post_init__(self) -> None:
        check_choice(self, "law", ("gaussian", "lognormal"))
        check_choice(self, "dim", (2, 3))
        check_at_least(self, 2, "cells")
        check_at_least(self, 1e-300, "length", "shift")

    @cached_property
    def lattice(self) -> Lattice:
        """Where the maps live."""
        return Lattice(self.cells, self.length, self.dim)

    @cached_property
    def power(self) -> Array:
        """Of the maps, in every mode of ``lattice.wave_numbers``."""
        return self.lattice.power(self.spectrum)

    @cached_property
    def gaussian(self) -> GaussianField:
        """The map itself, or g of a lognormal one; ConfigError where no lognormal field has this spectrum."""
        if self.law == "gaussian":
            return GaussianField(self.lattice, self.power)
        ratio = 1.0 + self.lattice.correlation(self.power) / self.shift**2
        needed = self.lattice.transform(np.log(np.maximum(ratio, 1e-300))).real * self.lattice.cell_volume
        if ratio.min() <= 0 or needed.min() <= 0:
            k = self.lattice.wave_numbers.flat[needed.argmin()]
            raise ConfigError(
                f"random-field: no lognormal field with shift {self.shift:.3g} has this spectrum (g would need negative power at "
                f"k = {k:.3g}); raise the shift, or choose a spectrum that falls less steeply"
            )
        return GaussianField(self.lattice, needed)

    def spec(self) -> EventSpec:
        column = Column("value", "", "bounded", -self.shift) if self.law == "lognormal" else Column("value")
        return {"map": Field("grid", (1, *self.lattice.shape), (column,), self.lattice.axes(self.unit))}

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        g = self.gaussian.sample(n, rng)
        if self.law == "lognormal":
            g = self.shift * np.expm1(g - 0.5 * self.gaussian.variance)
        return Events({"map": g[:, None]})

    def log_prob(self, maps: ArrayLike) -> Array:
        """log p of maps, ``(n,)``; ``-inf`` where a cell is not above -shift."""
        array = self.lattice.checked(maps)
        if self.law == "gaussian":
            return self.gaussian.log_prob(array)
        axes = tuple(range(1, array.ndim))
        inside = (array > -self.shift).all(axes)
        log = np.log1p(np.where(array > -self.shift, array, 0.0) / self.shift)
        found = (
            self.gaussian.log_prob(log + 0.5 * self.gaussian.variance)
            - log.sum(axes)
            - log[0].size * np.log(self.shift)
        )
        return np.where(inside, found, -np.inf)

    def expected(self, bins: int = 16) -> Array:
        """The mean of what :func:`~pofx.simulators.fields.power_spectrum` finds in its bins."""
        return binned(self.lattice, self.power, bins)[2]
