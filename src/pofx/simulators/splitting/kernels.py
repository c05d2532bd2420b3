r"""Splitting kernels with coefficients, and what follows from them in closed form or by quadrature: the oracle of the shower.

With z the energy fraction that the emitter keeps and :math:`y = k_T^2 / (Q^2 z (1 - z))` for a dipole of mass Q, in the manner of
arXiv:2012.09873 (the exact form of the C terms there was not at hand; that of this page is our choice),

.. math:: P_{qq} &= C_F \left[ D_{qq} \frac{2 z (1 - y)}{1 - z (1 - y)} + F_{qq} (1 - z) + C_{qq}\, y z (1 - z) \right] \\
          P_{gg} &= 2 C_A \left[ D_{gg} \left( \frac{z (1 - y)}{1 - z (1 - y)} + \frac{(1 - z)(1 - y)}{1 - (1 - z)(1 - y)} \right)
                    + F_{gg}\, z (1 - z) + C_{gg}\, y z (1 - z) \right] \\
          P_{gq} &= T_R \left[ F_{gq} \left( z^2 + (1 - z)^2 \right) + C_{gq}\, y z (1 - z) \right]

QCD is D = F = 1, C = 0: the kernels of Catani and Seymour, at y = 0 those of Altarelli and Parisi. D is the part that is enhanced by a
logarithm, F the finite one, C what vanishes in the collinear limit; :math:`g \to q \bar q` has no D. A kernel that a negative C drives
below zero is zero there.

Each of the two ends of a dipole splits with the probability

.. math:: dP = \frac{\alpha_s(k_T^2)}{2 \pi}\, \frac{dk_T^2}{k_T^2}\, dz\, (1 - y)\, K(z, y), \qquad K_q = P_{qq}, \quad
          K_g = \frac{1}{2} \left( \frac{1}{2} P_{gg} + n_f P_{gq} \right)

(a gluon belongs to two dipoles, and its two daughters are alike). By the same likeness the shower takes :math:`\frac{1}{2} P_{gg}` as
:math:`C_A [2 D z (1 - y) / (1 - z (1 - y)) + ...]`, whose soft gluon is always the second one.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.config import check_at_least, check_choice
from pofx.errors import ConfigError

__all__ = ["COLOUR", "Channel", "Coefficients", "Coupling", "Dipole", "emission_kernel", "kernel", "pair_kernel"]

Array = NDArray[np.float64]
Channel = Literal["qq", "gg", "gq"]

C_F, C_A, T_R = 4.0 / 3.0, 3.0, 0.5
COLOUR = {"qq": C_F, "gg": 2.0 * C_A, "gq": T_R}
Z_MASS = 91.188


@dataclass(frozen=True)
class Coefficients:
    """What multiplies the parts of the kernels; the defaults are QCD."""

    d_qq: float = 1.0
    f_qq: float = 1.0
    c_qq: float = 0.0
    d_gg: float = 1.0
    f_gg: float = 1.0
    c_gg: float = 0.0
    f_gq: float = 1.0
    c_gq: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 0.0, "d_qq", "f_qq", "d_gg", "f_gg", "f_gq")
        check_at_least(self, -math.inf, "c_qq", "c_gg", "c_gq")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """In the order of :meth:`array`."""
        return tuple(field.name for field in fields(cls))

    def array(self) -> Array:
        """All eight, ``(8,)``."""
        return np.array(astuple(self))


@dataclass(frozen=True)
class Coupling:
    """The strong coupling at the mass of the Z, fixed or running (one loop, ``flavours`` light quarks)."""

    at_z: float = 0.118
    running: bool = True
    flavours: int = 5

    def __post_init__(self) -> None:
        check_at_least(self, 1e-6, "at_z")
        check_choice(self, "flavours", (0, 1, 2, 3, 4, 5))

    def __call__(self, t: ArrayLike) -> Array:
        """At the scale t in GeV squared; ConfigError where perturbation theory ends (a coupling above 1)."""
        slope = (33.0 - 2.0 * self.flavours) / (12.0 * math.pi) if self.running else 0.0
        inverse = 1.0 / self.at_z + slope * np.log(np.asarray(t, dtype=np.float64) / Z_MASS**2)
        if (inverse < 1.0).any():
            raise ConfigError(
                f"the strong coupling exceeds 1 at {np.min(t):.3g} GeV^2; raise the cut-off or lower at_z"
            )
        return np.asarray(1.0 / inverse)


def kernel(
    channel: Channel, z: ArrayLike, y: ArrayLike = 0.0, coefficients: ArrayLike | Coefficients = Coefficients()
) -> Array:
    """The full kernel P(z, y), as above.

    Parameters
    ----------
    coefficients : one set, or an array ``(..., 8)`` whose leading shape is that of z.

    >>> kernel("qq", 0.5).round(6).item()  # 4/3 (1 + z^2) / (1 - z)
    3.333333
    """
    z, y = np.asarray(z, np.float64), np.asarray(y, np.float64)
    rows = coefficients.array() if isinstance(coefficients, Coefficients) else np.asarray(coefficients, np.float64)
    if channel == "gq":
        return pair_kernel(z, y, rows)
    found = emission_kernel(z, y, rows, np.asarray(channel == "gg"))
    return found if channel == "qq" else found + emission_kernel(1.0 - z, y, rows, np.asarray(True))


def emission_kernel(z: Array, y: Array, coefficients: Array, gluon: NDArray[np.bool_]) -> Array:
    """Of the emission of a gluon: P_qq, or half of P_gg with its pole at z = 1 alone."""
    d, f, c = (np.where(gluon, coefficients[..., 3 + i], coefficients[..., i]) for i in range(3))
    z_soft = z * (1.0 - y)
    finite = np.where(gluon, z * (1.0 - z), 1.0 - z)
    inner = 2.0 * d * z_soft / (1.0 - z_soft) + f * finite + c * y * z * (1.0 - z)
    return np.asarray(np.where(gluon, C_A, C_F) * np.maximum(inner, 0.0))


def pair_kernel(z: Array, y: Array, coefficients: Array) -> Array:
    """P_gq, of one flavour."""
    inner = coefficients[..., 6] * (z**2 + (1.0 - z) ** 2) + coefficients[..., 7] * y * z * (1.0 - z)
    return np.asarray(T_R * np.maximum(inner, 0.0))


@dataclass(frozen=True)
class Dipole:
    r"""Two partons of one kind and squared mass ``q2`` (GeV squared): what one of its ends does, by quadrature over z.

    >>> dipole = Dipole("quark", 91.188**2)
    >>> [round(dipole.no_emission(t), 4) for t in (1.0, 100.0)]
    [0.0664, 0.7986]
    """

    kind: Literal["quark", "gluon"]
    q2: float
    coefficients: Coefficients = Coefficients()
    coupling: Coupling = Coupling()
    nodes: int = 96

    def __post_init__(self) -> None:
        check_choice(self, "kind", ("quark", "gluon"))
        check_at_least(self, 1e-12, "q2")

    def density(self, t: ArrayLike, z: ArrayLike, channel: Channel | None = None) -> Array:
        """(1 - y) K(z, y) of one end, or its part of one channel; zero where y > 1."""
        t, z = np.asarray(t, np.float64), np.asarray(z, np.float64)
        y = np.minimum(t / (self.q2 * z * (1.0 - z)), 1.0)
        rows = self.coefficients.array()
        if self.kind == "quark":
            parts = {"qq": emission_kernel(z, y, rows, np.asarray(False))}
        else:
            pair = self.coupling.flavours * pair_kernel(z, y, rows)
            parts = {"gg": 0.5 * emission_kernel(z, y, rows, np.asarray(True)), "gq": 0.5 * pair}
        chosen = [part for name, part in parts.items() if channel in (None, name)]
        return np.asarray((1.0 - y) * sum(chosen))

    def cumulative(self, t: ArrayLike, z: ArrayLike, channel: Channel) -> Array:
        """The share of splittings at scale t below z, ``(n,)``: uniform if z follows the kernel."""
        t, z = np.atleast_1d(np.asarray(t, np.float64)), np.atleast_1d(np.asarray(z, np.float64))
        below, whole = (self._integral(t, channel, top) for top in (np.log(z / (1.0 - z)), None))
        return below / whole

    def rate(self, t: ArrayLike, channel: Channel | None = None) -> Array:
        """Splittings of one end per unit of ln t."""
        t = np.atleast_1d(np.asarray(t, np.float64))
        return np.asarray(self.coupling(t) / math.tau * self._integral(t, channel))

    def no_emission(self, low: float, ends: int = 2) -> float:
        r"""Sudakov's factor :math:`\exp(-\int_{low} \frac{dt}{t} R(t))` of this many ends, from q2 / 4 down to ``low``."""
        nodes, weights = np.polynomial.legendre.leggauss(self.nodes)
        span = math.log(0.25 * self.q2 / low)
        if span <= 0:
            return 1.0
        log_t = math.log(low) + 0.5 * span * (nodes + 1.0)
        return math.exp(-ends * 0.5 * span * float(weights @ self.rate(np.exp(log_t))))

    def _integral(self, t: Array, channel: Channel | None, top: Array | None = None) -> Array:
        """Over z, with the logarithm of z / (1 - z) as variable, up to ``top`` of it."""
        nodes, weights = np.polynomial.legendre.leggauss(self.nodes)
        end = 2.0 * np.arctanh(np.sqrt(np.maximum(1.0 - 4.0 * t / self.q2, 0.0)))
        span = 2.0 * end if top is None else np.clip(top, -end, end) + end
        u = -end[:, None] + 0.5 * span[:, None] * (nodes + 1.0)
        z = 1.0 / (1.0 + np.exp(-u))
        return 0.5 * span * ((self.density(t[:, None], z, channel) * z * (1.0 - z)) @ weights)
