r"""Gaussian random fields on periodic grids, drawn and scored by the fast Fourier transform.

On a grid of N cells a side and volume V, :math:`\delta_k = N^{-d} \sum_x \delta(x)\, e^{-i k x}` has :math:`\langle |\delta_k|^2
\rangle = P(k) / V` at every one of the :math:`N^d` wave vectors of the grid: the spectrum is exact on the grid, not only in the limit of
small cells. The power of the mean is a convention, here that of the smallest wave number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from pofx.data.spec import Axis
from pofx.errors import DataError, ShapeError
from pofx.simulators.fields.spectrum import Spectrum

__all__ = ["GaussianField", "Lattice"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lattice:
    """A periodic square (or cube) of ``cells`` a side; ``length`` of a side in any unit.

    >>> Lattice(8, 2.0).wave_numbers.shape, Lattice(8, 2.0, 3).shape
    ((8, 5), (8, 8, 8))
    """

    cells: int
    length: float
    dim: int = 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a map."""
        return (self.cells,) * self.dim

    @property
    def cell_volume(self) -> float:
        """Of one cell."""
        return (self.length / self.cells) ** self.dim

    @cached_property
    def wave_numbers(self) -> Array:
        """Lengths of the wave vectors of the modes of a real transform (half of the last axis), radians per unit of length."""
        step = math.tau / self.length
        axes = [step * self.cells * fft.fftfreq(self.cells)] * (self.dim - 1) + [
            step * self.cells * fft.rfftfreq(self.cells)
        ]
        return np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))

    @cached_property
    def multiplicity(self) -> Array:
        """How many modes of the full transform each mode of the real one stands for: two, or one where it is its own partner's column."""
        count = np.full(self.wave_numbers.shape, 2.0)
        count[..., 0] = 1.0
        if self.cells % 2 == 0:
            count[..., -1] = 1.0
        return count

    def power(self, spectrum: Spectrum) -> Array:
        """P of every mode; of the mean, that of the smallest wave number."""
        k = self.wave_numbers.copy()
        k.flat[0] = math.tau / self.length
        return spectrum(k)

    def correlation(self, power: Array) -> Array:
        """The correlation function of the lattice that belongs to this power per mode; at zero the variance of a cell."""
        return self.back(power / self.cell_volume)

    def transform(self, maps: Array) -> NDArray[np.complex128]:
        """Of the last axes."""
        return np.asarray(fft.rfftn(maps, axes=range(-self.dim, 0)))

    def back(self, modes: Array | NDArray[np.complex128]) -> Array:
        """The inverse of :meth:`transform`."""
        found: Array = fft.irfftn(modes, s=self.shape, axes=range(-self.dim, 0))
        return found

    def axes(self, unit: str) -> tuple[Axis, ...]:
        """Of a grid field."""
        edges = tuple(float(edge) for edge in np.linspace(0.0, self.length, self.cells + 1))
        return tuple(Axis(name, self.cells, edges, unit, periodic=True) for name in "xyz"[: self.dim])

    def checked(self, maps: ArrayLike) -> Array:
        """Maps ``(n, *shape)`` or ``(n, 1, *shape)`` as the former; ShapeError otherwise."""
        array = np.asarray(maps, np.float64)
        array = array[:, 0] if array.ndim == self.dim + 2 and array.shape[1] == 1 else array
        if array.ndim != self.dim + 1 or array.shape[1:] != self.shape:
            raise ShapeError(f"expected maps of shape (n, {', '.join(map(str, self.shape))}); got {np.shape(maps)}")
        return array


class GaussianField:
    """A field of mean zero with this power in every mode of the lattice.

    Parameters
    ----------
    power : in the shape of ``lattice.wave_numbers``, positive (DataError otherwise).

    >>> lattice = Lattice(16, 1.0)
    >>> field = GaussianField(lattice, lattice.power(Spectrum("power-law", 1.0, 1.0, 2.0)))
    >>> field.log_prob(field.sample(3, np.random.default_rng(1))).shape
    (3,)
    """

    def __init__(self, lattice: Lattice, power: Array) -> None:
        if power.shape != lattice.wave_numbers.shape or not (power > 0).all():
            raise DataError(
                f"expected positive power in every mode; the smallest is {power.min():.3g}, of mode {power.argmin()}"
            )
        self.lattice, self.power = lattice, power
        self.root = np.sqrt(power / lattice.cell_volume)

    @property
    def variance(self) -> float:
        """Of a cell."""
        return float(self.lattice.correlation(self.power).flat[0])

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Maps ``(n, *shape)``: white noise, coloured."""
        white = rng.standard_normal((n, *self.lattice.shape))
        return self.lattice.back(self.root * self.lattice.transform(white))

    def log_prob(self, maps: ArrayLike) -> Array:
        """log p of maps, ``(n,)``: the noise that makes them, and the determinant of the colouring."""
        white = self.lattice.back(self.lattice.transform(self.lattice.checked(maps)) / self.root)
        cells = math.prod(self.lattice.shape)
        volume = float((self.lattice.multiplicity * np.log(self.root)).sum())
        square: Array = (white**2).reshape(len(white), -1).sum(1)
        return -0.5 * square - 0.5 * cells * math.log(math.tau) - volume
