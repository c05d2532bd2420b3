r"""The toys of Bayesian flows (arXiv:2104.04543): two ramps on the unit square and a ring, with the densities along their one direction.

>>> RAMPS["wedge-ramp"].sample(2, seed=1).shape
(2, 2)
>>> round(float(RAMPS["kicker-ramp"].profile([0.5])[0]), 3)
0.75
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pofx.config import check_at_least
from pofx.data.spec import Column
from pofx.errors import CapabilityError
from pofx.simulators.densities import LOG_TAU, Array, Truth

__all__ = ["RAMPS", "GaussianRing", "PowerRamp"]


class PowerRamp(Truth):
    r"""Rises in x as a power and is flat in y: :math:`p(x, y) = (k + 1)\, x^k` on the unit square.

    Parameters
    ----------
    power : k; 1 is the wedge ramp, 2 the kicker ramp.

    >>> PowerRamp(1).quantiles([0.25]).tolist()
    [0.5]
    """

    dim = 2

    def __init__(self, power: float = 1.0) -> None:
        self.power = power
        check_at_least(self, 0, "power")

    def sample(self, n: int, seed: int) -> Array:
        u = np.random.default_rng(seed).random((n, 2))
        u[:, 0] **= 1.0 / (self.power + 1.0)
        found: Array = u
        return found

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        inside = ((rows > 0) & (rows < 1)).all(1)
        found: Array = np.where(inside, np.log(self.profile(rows[:, 0].clip(1e-300, 1.0))), -np.inf)
        return found

    def entropy(self) -> float:
        return self.power / (self.power + 1.0) - math.log(self.power + 1.0)

    def marginal(self, columns: Sequence[int]) -> Truth:
        raise CapabilityError("PowerRamp has no marginals as truths; its profile is the density in x")

    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(name, type="bounded", low=0.0, high=1.0) for name in ("x", "y"))

    def profile(self, x: ArrayLike) -> Array:
        """The density in x."""
        found: Array = (self.power + 1.0) * np.asarray(x, dtype=np.float64) ** self.power
        return found

    def quantiles(self, levels: ArrayLike) -> Array:
        """Of x."""
        found: Array = np.asarray(levels, dtype=np.float64) ** (1.0 / (self.power + 1.0))
        return found

    def points(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Events ``(n, 2)`` at x, and at fractions y in (0, 1) of the flat direction."""
        found: Array = np.stack(
            np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)), -1
        )
        return found


class GaussianRing(Truth):
    r"""Radius normal (and positive), direction flat: :math:`p(x, y) = \frac{N(r; R, w^2)}{2 \pi r\, P(r > 0)}`.

    Parameters
    ----------
    radius, width : R and w.

    >>> GaussianRing().quantiles([0.5]).round(3).tolist()
    [4.0]
    """

    dim = 2

    def __init__(self, radius: float = 4.0, width: float = 1.0) -> None:
        self.radius, self.width = radius, width
        check_at_least(self, 1e-12, "radius", "width")
        self._radial = stats.truncnorm(-radius / width, np.inf, loc=radius, scale=width)

    def sample(self, n: int, seed: int) -> Array:
        u = np.random.default_rng(seed).random((n, 2))
        return self.points(self._radial.ppf(u[:, 0]), u[:, 1])

    def log_prob(self, x: ArrayLike) -> Array:
        r = np.linalg.norm(self._rows(x), axis=1).clip(1e-300)
        found: Array = self._radial.logpdf(r) - np.log(r) - LOG_TAU
        return found

    def marginal(self, columns: Sequence[int]) -> Truth:
        raise CapabilityError("GaussianRing has no marginals as truths; its profile is the density in the radius")

    def profile(self, r: ArrayLike) -> Array:
        """The density in the radius."""
        found: Array = self._radial.pdf(np.asarray(r, dtype=np.float64))
        return found

    def quantiles(self, levels: ArrayLike) -> Array:
        """Of the radius."""
        found: Array = self._radial.ppf(np.asarray(levels, dtype=np.float64))
        return found

    def points(self, r: ArrayLike, turn: ArrayLike) -> Array:
        """Events ``(n, 2)`` at radius r, and at fractions of a turn."""
        angle = math.tau * np.asarray(turn, dtype=np.float64)
        found: Array = np.stack(np.broadcast_arrays(r * np.cos(angle), r * np.sin(angle)), -1)
        return found


RAMPS: dict[str, PowerRamp | GaussianRing] = {
    "wedge-ramp": PowerRamp(1.0),
    "kicker-ramp": PowerRamp(2.0),
    "gaussian-ring": GaussianRing(),
}
"""By name."""
