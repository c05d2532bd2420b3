r"""Peelle's puzzle: a common factor on every bin, with which a chi2 whose covariance is made of measured values pulls fits down.

The data are :math:`x_i = k m_i + \epsilon_i` with a factor k of mean one, lognormal with :math:`\sigma(\log k) = f`, and normal noise of
standard deviations :math:`s_i` (:class:`Peelle`). An experiment varies factor and noise and extracts the values again from what it
measured, :math:`m_i = \kappa (x_i + \epsilon_i)` with :math:`\kappa` like k (:class:`PeelleUniverses`). Their covariance,
:math:`f^2 x_i x_j + s_i^2 \delta_{ij}` to first order, gives small errors to bins that fluctuated down, and a fit of a common value comes
out below all of them (R. W. Peelle, 1987; G. D'Agostini, NIM A 346 (1994) 306). Both densities are one quadrature over the factor.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pofx.errors import DataError, ShapeError
from pofx.simulators.densities import Truth

__all__ = ["Peelle", "PeelleUniverses"]

Array = NDArray[np.float64]
LOG_TAU = math.log(math.tau)
NODES = 96
"""Of the Gauss-Hermite quadrature."""


class _CommonFactor(Truth):
    """Values with a common lognormal factor of mean one and independent normal noise."""

    def __init__(self, values: ArrayLike, factor: float = 0.15, noise: ArrayLike = 0.1) -> None:
        self.values = np.asarray(values, np.float64)
        if self.values.ndim != 1 or not len(self.values):
            raise ShapeError(f"values: expected shape (d,); got {self.values.shape}")
        self.noise = np.broadcast_to(np.asarray(noise, np.float64), self.values.shape).copy()
        if not ((self.noise > 0).all() and factor > 0):
            raise DataError(f"expected positive noise and factor; got {noise!r} and {factor}")
        self.dim, self.factor = len(self.values), factor

    @property
    def mean(self) -> Array:
        """Exact, ``(d,)``."""
        return self.values

    @property
    @abstractmethod
    def covariance(self) -> Array:
        """Exact, ``(d, d)``."""

    def log_prob(self, x: ArrayLike) -> Array:
        """The quadrature over g, the standard normal behind the factor, is centred on the integrand's peak, with the width of it."""
        rows = self._rows(x)
        g, width = self._peak(rows)
        node, weight = special.roots_hermitenorm(NODES)
        terms = self._joint(rows, g[:, None] + width[:, None] * node) + 0.5 * node**2 + np.log(weight)
        return np.asarray(special.logsumexp(terms, axis=1) + np.log(width))

    def marginal(self, columns: Sequence[int]) -> Truth:
        chosen = list(columns)
        return type(self)(self.values[chosen], self.factor, self.noise[chosen])

    @abstractmethod
    def _joint(self, rows: Array, g: Array) -> Array:
        """log N(g; 0, 1) p(x | g), ``(n, nodes)``, for ``g`` of that shape."""

    def _scale(self, g: Array) -> Array:
        return np.asarray(np.exp(self.factor * g - 0.5 * self.factor**2))

    def _chi2(self, one: Array, scale: Array, other: Array) -> Array:
        """sum_i (a_i - k b_i)^2 / s_i^2 with k of shape ``(n, nodes)``, a and b ``(n or 1, d)``."""
        a, b = one / self.noise, other / self.noise
        return np.asarray(
            (a**2).sum(1)[:, None] - 2 * (a * b).sum(1)[:, None] * scale + (b**2).sum(1)[:, None] * scale**2
        )

    def _peak(self, rows: Array) -> tuple[Array, Array]:
        grid, step = np.linspace(-9.0, 9.0, 361), 0.02
        g = grid[self._joint(rows, np.broadcast_to(grid, (len(rows), len(grid)))).argmax(1)]
        around = self._joint(rows, g[:, None] + step * np.array([-1.0, 0.0, 1.0]))
        curvature = (2 * around[:, 1] - around[:, 0] - around[:, 2]) / step**2
        return g, 1.0 / np.sqrt(np.clip(curvature, 0.05, None))

    @property
    def _constant(self) -> float:
        return -0.5 * (self.dim + 1) * LOG_TAU - float(np.log(self.noise).sum())


class Peelle(_CommonFactor):
    """The data: k m + noise.

    Parameters
    ----------
    values : ``(d,)``, the true values m.
    factor : standard deviation of the logarithm of the common factor.
    noise : ``(d,)`` or one number, standard deviations of the independent noise.

    Raises
    ------
    ShapeError, DataError (noise or factor not positive).

    >>> Peelle([1.0, 1.5], 0.2, 0.1).covariance.round(4).tolist()
    [[0.0508, 0.0612], [0.0612, 0.1018]]
    """

    @property
    def covariance(self) -> Array:
        common = math.expm1(self.factor**2) * self.values[:, None] * self.values
        return np.asarray(common + np.diag(self.noise**2))

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        scale = self._scale(rng.standard_normal((n, 1)))
        return np.asarray(scale * self.values + self.noise * rng.standard_normal((n, self.dim)))

    def _joint(self, rows: Array, g: Array) -> Array:
        return -0.5 * self._chi2(rows, self._scale(g), self.values[None]) - 0.5 * g**2 + self._constant


class PeelleUniverses(_CommonFactor):
    """Universes about measured values x: kappa (x + noise).

    Parameters
    ----------
    values : ``(d,)``, the measured values.
    factor, noise : as for :class:`Peelle`.

    >>> PeelleUniverses([1.0, 1.5], 0.2, 0.1).covariance.round(4).tolist()
    [[0.0512, 0.0612], [0.0612, 0.1022]]
    """

    @property
    def covariance(self) -> Array:
        square = math.exp(self.factor**2)
        return np.asarray((square - 1) * self.values[:, None] * self.values + np.diag(square * self.noise**2))

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        scale = self._scale(rng.standard_normal((n, 1)))
        return np.asarray(scale * (self.values + self.noise * rng.standard_normal((n, self.dim))))

    def _joint(self, rows: Array, g: Array) -> Array:
        scale = self._scale(g)
        chi2 = self._chi2(np.broadcast_to(self.values, rows.shape), 1 / scale, rows)
        return -0.5 * chi2 - self.dim * np.log(scale) - 0.5 * g**2 + self._constant
