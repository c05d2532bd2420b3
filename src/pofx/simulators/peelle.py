r"""Peelle's puzzle: a common factor on every bin, with which a chi2 whose covariance is made of the measured values pulls fits down.

.. math:: x_i = m_i(\theta)\, e^{f g} + \epsilon_i, \qquad g \sim N(0, 1) \text{ (shifted to mean one)}, \quad \epsilon_i \sim N(0, s_i^2)

The density is one quadrature over g. A measurement publishes universes about what it measured, with the factor applied to the measured
values and the noise added; the covariance of these is :math:`f^2 x_i x_j + s_i^2 \delta_{ij}`, in which bins that fluctuated down have
smaller errors, so a fit of a common value comes out below all of them (R. W. Peelle, 1987; G. D'Agostini, NIM A 346 (1994) 306).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pofx.errors import DataError, ShapeError
from pofx.simulators.densities import Truth

__all__ = ["Peelle"]

Array = NDArray[np.float64]
LOG_TAU = math.log(math.tau)


class Peelle(Truth):
    r"""Values with a common lognormal factor and independent normal noise.

    Parameters
    ----------
    nominal : ``(d,)``, the values without factor and noise.
    factor : standard deviation f of the logarithm of the common factor, which has the mean one.
    noise : ``(d,)`` or one number, standard deviations of the independent noise.
    nodes : of the Gauss-Hermite quadrature.

    Raises
    ------
    ShapeError, DataError (noise or factor not positive).

    >>> truth = Peelle([1.0, 1.5], 0.2, 0.1)
    >>> truth.covariance.round(4).tolist()
    [[0.0508, 0.0612], [0.0612, 0.1018]]
    """

    def __init__(self, nominal: ArrayLike, factor: float = 0.15, noise: ArrayLike = 0.1, nodes: int = 96) -> None:
        self.nominal = np.asarray(nominal, np.float64)
        if self.nominal.ndim != 1 or not len(self.nominal):
            raise ShapeError(f"nominal: expected shape (d,); got {self.nominal.shape}")
        self.noise = np.broadcast_to(np.asarray(noise, np.float64), self.nominal.shape).copy()
        if not ((self.noise > 0).all() and factor > 0):
            raise DataError(f"expected positive noise and factor; got {noise!r} and {factor}")
        self.dim, self.factor, self.nodes = len(self.nominal), factor, nodes

    @classmethod
    def about(cls, measured: ArrayLike, factor: float = 0.15, noise: ArrayLike = 0.1) -> Peelle:
        """The universes that a measurement of these values would publish: factor and noise about what was measured."""
        return cls(measured, factor, noise)

    @property
    def mean(self) -> Array:
        """Exact, ``(d,)``."""
        return self.nominal

    @property
    def covariance(self) -> Array:
        """Exact, ``(d, d)``."""
        common = math.expm1(self.factor**2) * self.nominal[:, None] * self.nominal
        return np.asarray(common + np.diag(self.noise**2))

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        scale = np.exp(self.factor * rng.standard_normal((n, 1)) - 0.5 * self.factor**2)
        return np.asarray(scale * self.nominal + self.noise * rng.standard_normal((n, self.dim)))

    def log_prob(self, x: ArrayLike) -> Array:
        r"""The quadrature is centred on the most probable factor of each event.

        In g the integrand is N(g; 0, 1) N(x; k(g) m, s^2); a Newton step on k about the weighted ratio of x to m finds its peak.
        """
        rows = self._rows(x)
        g, width = self._peak(rows)
        node, weight = special.roots_hermitenorm(self.nodes)
        points = g[:, None] + width[:, None] * node
        terms = self._joint(rows, points) + 0.5 * node**2 + np.log(weight)
        return np.asarray(special.logsumexp(terms, axis=1) + np.log(width))

    def marginal(self, columns: Sequence[int]) -> Peelle:
        chosen = list(columns)
        return Peelle(self.nominal[chosen], self.factor, self.noise[chosen], self.nodes)

    def _joint(self, rows: Array, g: Array) -> Array:
        """log N(g; 0, 1) N(x; k(g) m, s^2) for ``g`` of shape ``(n, nodes)``."""
        scale = np.exp(self.factor * g - 0.5 * self.factor**2)
        a = (self.nominal**2 / self.noise**2).sum()
        b = (rows * self.nominal / self.noise**2).sum(1)[:, None]
        c = (rows**2 / self.noise**2).sum(1)[:, None]
        constant = -0.5 * (self.dim + 1) * LOG_TAU - np.log(self.noise).sum()
        return np.asarray(-0.5 * (c - 2 * b * scale + a * scale**2) - 0.5 * g**2 + constant)

    def _peak(self, rows: Array) -> tuple[Array, Array]:
        """Peak and width of the integrand in g: the best of a fixed grid, and the curvature of the Gaussian factor there."""
        grid = np.linspace(-9.0, 9.0, 361)
        g = grid[self._joint(rows, np.broadcast_to(grid, (len(rows), len(grid)))).argmax(1)]
        step = 0.02
        around = self._joint(rows, g[:, None] + step * np.array([-1.0, 0.0, 1.0]))
        curvature = (2 * around[:, 1] - around[:, 0] - around[:, 2]) / step**2
        return g, 1.0 / np.sqrt(np.clip(curvature, 0.05, None))
