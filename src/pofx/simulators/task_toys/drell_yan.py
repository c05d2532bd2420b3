r"""Drell and Yan's process with a toy parton density: an integrand on the unit cube with one or two resonances, and its integral.

:math:`q \bar q \to \gamma, Z, (Z') \to \ell^+ \ell^-` at 13 TeV, above a lepton pair mass of 15 GeV, for an up and a down quark that
both have
:math:`x f(x) = x^{0.3} (1 - x)^3`; massless, in lowest order, in pb:

.. math:: \frac{d\hat\sigma}{d\Omega} = \frac{1}{12} \frac{\alpha^2}{4 \hat s} \sum_{h, h' = L, R}
          \left| Q_q Q_\ell + \sum_V \frac{g_q^h g_\ell^{h'}\, \hat s}{\hat s - M_V^2 + i M_V \Gamma_V} \right|^2 (1 \pm \cos\theta)^2

The four numbers are the logarithm of :math:`\tau = \hat s / s`, the rapidity in units of its range, :math:`\cos\theta` and phi. A Z'
has 400 GeV, a width of 0.5 GeV, and the couplings of the Z.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["drell_yan", "drell_yan_integral"]

Array = NDArray[np.float64]

ENERGY, LEAST = 13_000.0, 15.0
ALPHA, SINE2, PICOBARN = 1.0 / 132.507, 0.2222, 0.3893794e9
RESONANCES = ((91.188, 2.441404), (400.0, 0.5))
LOG_LEAST = math.log((LEAST / ENERGY) ** 2)


def drell_yan(u: Array, zprime: bool = False) -> Array:
    """The integrand at points of the unit cube ``(n, 4)``, ``(n,)``, in pb."""
    log_tau = LOG_LEAST * (1.0 - u[:, 0])
    tau, span = np.exp(log_tau), -log_tau
    rapidity, cosine = (u[:, 1] - 0.5) * span, 2.0 * u[:, 2] - 1.0
    same, other = _amplitudes(tau * ENERGY**2, zprime)
    # a quark of either proton: the cosine of the one is minus that of the other
    angle = (same + other) * 2.0 * (1.0 + cosine**2)
    size = PICOBARN * ALPHA**2 / (48.0 * tau * ENERGY**2) * 2.0 * math.tau
    return np.asarray(size * angle * _partons(tau, rapidity) * tau * -LOG_LEAST * span)


def drell_yan_integral(zprime: bool = False) -> float:
    """The cross section in pb: angles in closed form, mass and rapidity by Gauss and Legendre on pieces that halve towards the
    resonances."""
    nodes, weights = np.polynomial.legendre.leggauss(48)
    edges = _edges(RESONANCES[: 2 if zprime else 1])
    half = 0.5 * np.diff(edges)[:, None]
    mass = (edges[:-1, None] + half * (nodes + 1.0)).ravel()
    s = mass**2
    tau, same_other = s / ENERGY**2, sum(_amplitudes(s, zprime))
    span = -np.log(tau)
    luminosity = (_partons(tau[:, None], 0.5 * span[:, None] * nodes) @ weights) * 0.5 * span
    partonic = PICOBARN * ALPHA**2 / (48.0 * s) * 2.0 * math.tau * (8.0 / 3.0) * same_other
    return float((partonic * luminosity * 2.0 * mass / ENERGY**2 * (half * weights).ravel()).sum())


def _edges(resonances: tuple[tuple[float, float], ...]) -> Array:
    """Masses that lie twice as far from the resonance each time."""
    steps = 2.0 ** np.arange(-2, 16)
    around = [m + sign * width * steps for m, width in resonances for sign in (1, -1)]
    marks = np.concatenate([*around, np.geomspace(LEAST, ENERGY, 20), [m for m, _ in resonances]])
    return np.unique(marks[(marks >= LEAST) & (marks <= ENERGY)])


def _partons(tau: Array, rapidity: Array) -> Array:
    """f(x1) f(x2)."""
    x1, x2 = np.sqrt(tau) * np.exp(rapidity), np.sqrt(tau) * np.exp(-rapidity)
    return np.asarray(tau**-0.7 * (np.clip(1.0 - x1, 0.0, 1.0) * np.clip(1.0 - x2, 0.0, 1.0)) ** 3)


def _amplitudes(s: Array, zprime: bool) -> tuple[Array, Array]:
    """Squares for equal and for opposite helicities of quark and lepton, summed over both quarks."""
    propagators = sum(s / (s - m**2 + 1j * m * w) for m, w in RESONANCES[: 2 if zprime else 1])
    lepton = _couplings(-1.0, -0.5)
    same, other = np.zeros_like(s), np.zeros_like(s)
    for charge, isospin in ((2 / 3, 0.5), (-1 / 3, -0.5)):
        for i, quark in enumerate(_couplings(charge, isospin)):
            for j, g in enumerate(lepton):
                square = np.abs(-charge + quark * g * propagators) ** 2
                same, other = (same + square, other) if i == j else (same, other + square)
    return same, other


def _couplings(charge: float, isospin: float) -> tuple[float, float]:
    """Left- and right-handed, to the Z, in units of e."""
    scale = math.sqrt(SINE2 * (1.0 - SINE2))
    return (isospin - charge * SINE2) / scale, -charge * SINE2 / scale
