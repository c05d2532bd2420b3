r"""Power spectra P(k): power laws, a double power law shaped like that of convergence maps, and tables.

.. math:: \langle \delta(k)\, \delta^*(k') \rangle = (2 \pi)^d\, \delta_D(k - k')\, P(k), \qquad
          \sigma^2 = \int \frac{d^d k}{(2 \pi)^d} P(k)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.config import check_at_least, check_choice
from pofx.errors import ConfigError

__all__ = ["Spectrum"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    r"""An isotropic power spectrum.

    Attributes
    ----------
    form : ``"power-law"``, :math:`A (k / k_0)^{-a}`; ``"double-power-law"``, :math:`A (k / k_0)^{-a} / (1 + (k / k_0)^{b - a})`;
        ``"table"``, straight lines between the logarithms of ``k`` and ``power``, the outer ones going on beyond the table.
    amplitude, scale, slope, far_slope : A, k0, a and b. The defaults are near the convergence of galaxies at redshift one,
        with k in inverse radians: k^2 P / 2 pi is 1e-4 at k = 1000, and falls beyond a few arc minutes.
    k, power : the table.

    >>> Spectrum("power-law", amplitude=2.0, scale=1.0, slope=3.0)([1.0, 2.0]).tolist()
    [2.0, 0.25]
    >>> Spectrum("table", k=(1.0, 100.0), power=(1.0, 0.01))([10.0]).round(6).tolist()
    [0.1]
    """

    form: Literal["power-law", "double-power-law", "table"] = "double-power-law"
    amplitude: float = 1.2e-9
    scale: float = 1000.0
    slope: float = 0.9
    far_slope: float = 2.4
    k: tuple[float, ...] = ()
    power: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choice(self, "form", ("power-law", "double-power-law", "table"))
        check_at_least(self, 1e-300, "amplitude", "scale")
        check_at_least(self, -math.inf, "slope", "far_slope")
        if self.form == "table":
            k, power = np.asarray(self.k), np.asarray(self.power)
            if len(k) < 2 or len(k) != len(power) or (np.diff(k) <= 0).any() or min(k[0], power.min()) <= 0:
                raise ConfigError(
                    f"Spectrum: a table needs as many k (rising) as power, two at least, all positive; got {self.k} and {self.power}"
                )

    def __call__(self, k: ArrayLike) -> Array:
        """P at wave numbers k > 0 (radians per unit of length)."""
        k = np.asarray(k, np.float64)
        if self.form == "table":
            return np.exp(_lines(np.log(k), np.log(self.k), np.log(self.power)))
        ratio = k / self.scale
        law = self.amplitude * ratio**-self.slope
        return np.asarray(law / (1.0 + ratio ** (self.far_slope - self.slope)) if self.form != "power-law" else law)


def _lines(x: Array, knots: Array, values: Array) -> Array:
    """Linear between knots, and beyond them."""
    left = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    slope = np.diff(values) / np.diff(knots)
    return np.asarray(values[left] + slope[left] * (x - knots[left]))
