r"""Integrands with known integrals: camels, a ring with a line, integrands that change sign, Genz's families, Drell and Yan.

=================  ======================================================================================  ============
name               integrand                                                                               domain
=================  ======================================================================================  ============
camel-line         0.35 N(2, 0.5) + 0.65 N(5, 0.1)                                                         (0, 8)
camel-cut          0.5 N(2, 0.5) + 0.5 N(5, 0.1) where x > 2.5                                             (0, 8)
ring-line          half a ring of radius 1 and width 0.05, half a line of widths 3 and 0.05 at 45 degrees  (-6, 6)^2
plus-minus         two normals of width 0.2 and opposite sign                                              (0, 1)^2
camel-d            two Gaussians of :math:`\sigma = 0.2 / \sqrt 2` on the diagonal (arXiv:2001.05486)      (0, 1)^d
entangled-circles  two thin overlapping circles, weighted by powers (arXiv:2001.05486)                     (0, 1)^2
breit-wigners      a product of resonances, each with a soft cut                                           (0, 1)^d
genz-*             oscillatory, product-peak, corner-peak, gaussian, continuous, discontinuous             (0, 1)^8
drell-yan          photon and Z to leptons with a toy parton density, and the same with a Z'               (0, 1)^4
=================  ======================================================================================  ============
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pofx.errors import ConfigError, ShapeError
from pofx.simulators.task_toys.drell_yan import drell_yan, drell_yan_integral

__all__ = ["INTEGRANDS", "Integrand", "breit_wigners", "camel", "genz"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Integrand:
    """A function on a box, with its integral.

    Attributes
    ----------
    function : of ``(n, dim)`` in the box, gives ``(n,)``.
    low, high : of the box, the same in every direction.
    integral, error : the truth, and how well it is known (zero for closed forms).

    >>> INTEGRANDS["camel-2"]([[0.5, 0.5]]).shape
    (1,)
    """

    dim: int
    function: Callable[[Array], Array]
    integral: float
    low: float = 0.0
    high: float = 1.0
    error: float = 0.0

    def __call__(self, x: ArrayLike) -> Array:
        """Values at points ``(n, dim)``; zero outside the box."""
        rows = np.asarray(x, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ShapeError(f"expected points of shape (n, {self.dim}); got {rows.shape}")
        inside = ((rows >= self.low) & (rows <= self.high)).all(1)
        return np.where(inside, self.function(np.clip(rows, self.low, self.high)), 0.0)

    def on_cube(self, u: ArrayLike) -> Array:
        """Values at points of the unit cube, times the volume of the box: the same integral."""
        return self(self.low + (self.high - self.low) * np.asarray(u, np.float64)) * (self.high - self.low) ** self.dim

    def estimate(self, n: int, seed: int) -> tuple[float, float]:
        """Plain Monte Carlo with n points: the integral and its error."""
        values = self.on_cube(np.random.default_rng(seed).random((n, self.dim)))
        return float(values.mean()), float(values.std(ddof=1) / math.sqrt(n))


def _peak(x: Array, mean: float, width: float) -> Array:
    return np.exp(-0.5 * ((x - mean) / width) ** 2) / (width * math.sqrt(math.tau))


def _mass(mean: float, width: float, low: float, high: float) -> float:
    return float(special.ndtr((high - mean) / width) - special.ndtr((low - mean) / width))


def _camel_line(x: Array) -> Array:
    return 0.35 * _peak(x[:, 0], 2.0, 0.5) + 0.65 * _peak(x[:, 0], 5.0, 0.1)


def _camel_cut(x: Array) -> Array:
    return np.where(x[:, 0] > 2.5, 0.5 * _peak(x[:, 0], 2.0, 0.5) + 0.5 * _peak(x[:, 0], 5.0, 0.1), 0.0)


def _ring_line(x: Array) -> Array:
    r, s = np.hypot(*x.T), 0.05
    grown = math.sqrt(math.pi / 2.0) * s * (1.0 + math.erf(1.0 / (math.sqrt(2.0) * s)))
    ring = np.exp(-0.5 * ((r - 1.0) / s) ** 2) / (math.tau * (s**2 * math.exp(-0.5 / s**2) + grown))
    along, across = (x[:, 0] + x[:, 1]) / math.sqrt(2.0), (x[:, 0] - x[:, 1]) / math.sqrt(2.0)
    return 0.5 * ring + 0.5 * _peak(along, 0.0, 3.0) * _peak(across, 0.0, 0.05)


def _ring_line_integral() -> float:
    """One but for the ends of the line outside the box: at 45 degrees the width across rounds the corners off."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    across, share = 8.0 * nodes, 8.0 * weights
    reach = (6.0 * math.sqrt(2.0) - 0.05 * np.abs(across)) / 3.0
    inside = special.ndtr(reach) - special.ndtr(-reach)
    return 0.5 + 0.5 * float(share @ (np.exp(-0.5 * across**2) / math.sqrt(math.tau) * inside))


def _plus_minus(x: Array) -> Array:
    up, down = (((x - 0.5 + shift) ** 2).sum(1) for shift in (0.3, -0.3))
    return np.exp(-up / 0.08) - np.exp(-down / 0.08)


def camel(dim: int) -> Integrand:
    """Two Gaussians on the diagonal of the unit cube.

    >>> [round(camel(d).integral, 6) for d in (2, 4, 8, 16)]
    [0.98166, 0.963657, 0.928635, 0.862363]
    """
    s = 0.2

    def function(x: Array) -> Array:
        ends = (((x - end) ** 2).sum(1) / s**2 for end in (1 / 3, 2 / 3))
        return 0.5 * (s * math.sqrt(math.pi)) ** -dim * sum(np.exp(-end) for end in ends)

    return Integrand(dim, function, (0.5 * (math.erf(2 / 3 / s) + math.erf(1 / 3 / s))) ** dim)


def _circles(x: Array) -> Array:
    first, second = ((x[:, 1] - b) ** 2 + (x[:, 0] - a) ** 2 - 0.25**2 for a, b in ((0.4, 0.6), (0.6, 0.4)))
    return x[:, 1] ** 3 * np.exp(-250.0 * np.abs(first)) + (1 - x[:, 1]) ** 3 * np.exp(-250.0 * np.abs(second))


def _circles_integral() -> float:
    r"""In polar coordinates of one circle (the other is its mirror image): :math:`\int y^3 e^{-w |\rho^2 - r^2|} \rho\, d\rho\,
    d\phi`."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    total = 0.0
    for low, high in (
        (0.0, 0.0625),
        (0.0625, 0.16),
    ):  # in the square of the radius; the circle of radius 0.4 lies in the box
        u = low + 0.5 * (high - low) * (nodes + 1.0)
        # y = 0.6 + rho sin(phi): the mean of y^3 over the circle
        mean = 0.6**3 + 1.5 * 0.6 * u
        total += 0.25 * (high - low) * float(weights @ (np.exp(-250.0 * np.abs(u - 0.0625)) * mean)) * math.tau
    return 2.0 * total


def breit_wigners(dim: int = 3, mass: float = 0.4, width: float = 0.02, cut: float = 0.1) -> Integrand:
    r"""The product of :math:`\frac{m \Gamma}{(s - m^2)^2 + m^2 \Gamma^2} \cdot \frac{1}{2}(1 + \tanh((s - s_0)/0.02))` in each
    direction s."""

    def one(s: Array) -> Array:
        resonance = mass * width / ((s - mass**2) ** 2 + (mass * width) ** 2)
        return resonance * special.expit((s - cut) / 0.01)

    nodes, weights = np.polynomial.legendre.leggauss(400)
    low, high = (math.atan((end - mass**2) / (mass * width)) for end in (0.0, 1.0))
    angle = low + 0.5 * (high - low) * (nodes + 1.0)  # flattens the resonance
    s = mass**2 + mass * width * np.tan(angle)
    each = 0.5 * (high - low) * float(weights @ special.expit((s - cut) / 0.01))
    return Integrand(dim, lambda x: one(x).prod(1), each**dim)


GENZ = ("oscillatory", "product-peak", "corner-peak", "gaussian", "continuous", "discontinuous")


def genz(family: str, dim: int = 8) -> Integrand:
    """One of Genz's six families, with a_i = i 5 / (1 + 2 + ... + d) (half of it for corner-peak) and u_i = 0.3 + 0.4 i / d.

    >>> round(genz("product-peak", 2).integral, 6)
    15.062719
    """
    if family not in GENZ:
        raise ConfigError(f"genz: expected one of {', '.join(GENZ)}; got {family!r}")
    i = np.arange(1.0, dim + 1)
    a, u = 5.0 * i / i.sum() * (0.5 if family == "corner-peak" else 1.0), 0.3 + 0.4 * i / dim
    function, integral = _GENZ[family](a, u)
    return Integrand(dim, function, integral)


def _oscillatory(a: Array, u: Array) -> tuple[Callable[[Array], Array], float]:
    whole = np.exp(1j * math.tau * u[0]) * np.prod((np.exp(1j * a) - 1.0) / (1j * a))
    return lambda x: np.cos(math.tau * u[0] + x @ a), float(whole.real)


def _product_peak(a: Array, u: Array) -> tuple[Callable[[Array], Array], float]:
    each = a * (np.arctan(a * (1 - u)) + np.arctan(a * u))
    return lambda x: (1.0 / (a**-2.0 + (x - u) ** 2)).prod(1), float(each.prod())


def _corner_peak(a: Array, _: Array) -> tuple[Callable[[Array], Array], float]:
    d, sums, signs = len(a), np.zeros(1), np.ones(1)
    for each in a:  # the sum over corners, with signs
        sums, signs = np.concatenate([sums, sums + each]), np.concatenate([signs, -signs])
    integral = float((signs / (1.0 + sums)).sum()) / (math.factorial(d) * float(a.prod()))
    return lambda x: (1.0 + x @ a) ** -(d + 1.0), integral


def _gaussian(a: Array, u: Array) -> tuple[Callable[[Array], Array], float]:
    each = 0.5 * math.sqrt(math.pi) / a * (special.erf(a * (1 - u)) + special.erf(a * u))
    return lambda x: np.exp(-((a * (x - u)) ** 2).sum(1)), float(each.prod())


def _continuous(a: Array, u: Array) -> tuple[Callable[[Array], Array], float]:
    each = (2.0 - np.exp(-a * u) - np.exp(-a * (1 - u))) / a
    return lambda x: np.exp(-(a * np.abs(x - u)).sum(1)), float(each.prod())


def _discontinuous(a: Array, u: Array) -> tuple[Callable[[Array], Array], float]:
    top = np.where(np.arange(len(a)) < 2, u, 1.0)
    return lambda x: np.where((x[:, :2] <= u[:2]).all(1), np.exp(x @ a), 0.0), float((np.expm1(a * top) / a).prod())


_GENZ: Mapping[str, Callable[[Array, Array], tuple[Callable[[Array], Array], float]]] = {
    "oscillatory": _oscillatory,
    "product-peak": _product_peak,
    "corner-peak": _corner_peak,
    "gaussian": _gaussian,
    "continuous": _continuous,
    "discontinuous": _discontinuous,
}

_LINE = 0.35 * _mass(2.0, 0.5, 0.0, 8.0) + 0.65 * _mass(5.0, 0.1, 0.0, 8.0)
_CUT = 0.5 * _mass(2.0, 0.5, 2.5, 8.0) + 0.5 * _mass(5.0, 0.1, 2.5, 8.0)

INTEGRANDS: Mapping[str, Integrand] = {
    "camel-line": Integrand(1, _camel_line, _LINE, 0.0, 8.0),
    "camel-cut": Integrand(1, _camel_cut, _CUT, 0.0, 8.0),
    "ring-line": Integrand(2, _ring_line, _ring_line_integral(), -6.0, 6.0),
    "plus-minus": Integrand(2, _plus_minus, 0.0),
    **{f"camel-{d}": camel(d) for d in (2, 4, 8, 16)},
    "entangled-circles": Integrand(2, _circles, _circles_integral(), error=1e-9),
    "breit-wigners": breit_wigners(),
    **{f"genz-{family}": genz(family) for family in GENZ},
    "drell-yan": Integrand(4, drell_yan, drell_yan_integral(), error=1e-6),
    "drell-yan-zprime": Integrand(4, partial(drell_yan, zprime=True), drell_yan_integral(zprime=True), error=1e-6),
}
"""All by name."""
