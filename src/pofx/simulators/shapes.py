r"""Ten shapes in the plane, with their densities: what shows where a generative model fails.

Thin curved ridges, modes that lie apart, holes, sharp edges. All are of order one to four in size. Where a shape is a curve with normal
noise, :math:`p(x) = \int_0^1 N(x; \gamma(s), \sigma^2)\, ds`, the integral is a sum over the nodes of Gauss and Legendre, so many
that it is exact to about ten digits.

>>> sorted(SHAPES)[:3]
['banana', 'checkerboard', 'eight-gaussians']
>>> SHAPES["rings"].sample(5, seed=1).shape
(5, 2)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from pofx.errors import CapabilityError
from pofx.simulators.densities import Array, Mixture, Truth

__all__ = [
    "SHAPES",
    "Banana",
    "Checkerboard",
    "EightGaussians",
    "Pinwheel",
    "Rings",
    "Shape",
    "SineWave",
    "Spirals",
    "SwissRoll",
    "TwentyFiveGaussians",
    "TwoMoons",
]

ROWS = 1024
"""Events whose distances to a curve are held at once."""


class Shape(Truth):
    """A density of two columns."""

    dim = 2

    def marginal(self, columns: Sequence[int]) -> Truth:
        raise CapabilityError(f"{type(self).__name__} has no marginals in closed form")


class _Curve(Shape):
    """Points of curves at a parameter s in (0, 1), with normal noise. Subclasses give the curve of each arm and the law of s."""

    noise: float
    arms: int = 1

    @abstractmethod
    def curve(self, s: Array, arm: int) -> Array:
        """Points ``(n, 2)`` at parameters ``(n,)``."""

    def quantile(self, u: Array) -> Array:
        """The s below which a share u of the events lies."""
        return u

    def weight(self, s: Array) -> Array:
        """The density of s."""
        return np.ones_like(s)

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        s, arm = self.quantile(rng.random(n)), rng.integers(self.arms, size=n)
        x = np.empty((n, 2))
        for k in range(self.arms):
            x[arm == k] = self.curve(s[arm == k], k)
        return x + self.noise * rng.standard_normal((n, 2))

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        blocks = [self._log_prob(rows[k : k + ROWS]) for k in range(0, len(rows), ROWS)]
        return np.concatenate(blocks) if blocks else np.zeros(0)

    def _log_prob(self, rows: Array) -> Array:
        points, log_share = self._points
        apart = ((rows[:, None] - points[None]) ** 2).sum(-1) / (2 * self.noise**2)
        found: Array = logsumexp(log_share - apart, axis=1) - math.log(math.tau * self.noise**2)
        return found

    @cached_property
    def _points(self) -> tuple[Array, Array]:
        """The middle of equal steps in s, as many as keep neighbours within a third of the noise, and the logarithms of their shares."""
        fine = np.stack([self.curve(np.linspace(0, 1, 4001), k) for k in range(self.arms)])
        longest = np.linalg.norm(np.diff(fine, axis=1), axis=-1).max() * 4000
        count = math.ceil(3 * longest / self.noise)
        s = (np.arange(count) + 0.5) / count
        share = np.tile(self.weight(s), self.arms)
        return np.concatenate([self.curve(s, k) for k in range(self.arms)]), np.log(share / share.sum())


class TwoMoons(_Curve):
    """Two half circles of radius 1 that reach into each other, noise 0.1; centred, and scaled by 1.5."""

    noise, arms = 0.15, 2

    def curve(self, u: Array, arm: int) -> Array:
        turn = np.stack([np.cos(math.pi * u), np.sin(math.pi * u)], 1)
        return 1.5 * (turn - [0.5, 0.25] if arm == 0 else [0.5, 0.25] - turn)


class Spirals(_Curve):
    r"""Two arms, :math:`r = 3 s` at the angle :math:`3 \pi s`: one and a half turns each, the density of s is 2 s, noise 0.1."""

    noise, arms = 0.1, 2

    def curve(self, s: Array, arm: int) -> Array:
        angle = math.pi * (3 * s + arm)
        return 3 * s[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)

    def quantile(self, u: Array) -> Array:
        return np.sqrt(u)

    def weight(self, s: Array) -> Array:
        return 2 * s


class SwissRoll(_Curve):
    r"""One arm, :math:`r = 3\, t / t_{max}` at angle t from 1.5 pi to 4.5 pi, noise 0.1."""

    noise = 0.1

    def curve(self, u: Array, arm: int) -> Array:
        angle = 1.5 * math.pi * (1 + 2 * u)
        return (angle / (1.5 * math.pi))[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


class SineWave(_Curve):
    """y = sin(2 x) for x between -pi and pi, noise 0.1."""

    noise = 0.1

    def curve(self, u: Array, arm: int) -> Array:
        x = math.pi * (2 * u - 1)
        return np.stack([x, np.sin(2 * x)], 1)


class Rings(Shape):
    r"""Concentric rings of radius 1, 2 and 3, equally likely, of normal width 0.1: :math:`p(x) = p(r) / 2 \pi r`."""

    radii, width = (1.0, 2.0, 3.0), 0.1

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        r = rng.choice(self.radii, n) + self.width * rng.standard_normal(n)
        angle = math.tau * rng.random(n)
        return r[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)

    def log_prob(self, x: ArrayLike) -> Array:
        r = np.linalg.norm(self._rows(x), axis=1).clip(1e-300)
        pulls = [(sign * r - radius) / self.width for radius in self.radii for sign in (1, -1)]
        norm = math.log(len(self.radii) * self.width * math.sqrt(math.tau))
        found: Array = logsumexp([-0.5 * pull**2 for pull in pulls], axis=0) - norm - np.log(math.tau * r)
        return found


class Checkerboard(Shape):
    """Uniform on the eight black squares of a board of four times four, from -2 to 2."""

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        column, row = rng.integers(4, size=n), rng.integers(2, size=n)
        corner = np.stack([column - 2, 2 * row - 2 + column % 2], 1)
        return corner + rng.random((n, 2))

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        black = np.floor(rows).sum(1) % 2 == 0
        inside = (rows >= -2).all(1) & (rows < 2).all(1)
        return np.where(black & inside, -math.log(8), -np.inf)


class Pinwheel(Shape):
    r"""Five arms, normal with mean 1 and widths 0.3 (along) and 0.1 (across), twisted by an angle :math:`0.6\, r` and scaled by 2.

    A twist by the radius keeps areas, so that :math:`p(x) = p_0(R(-0.6\, r) x)`; the usual pinwheel twists by the coordinate along.
    """

    arms, along, across, twist, scale = 5, 0.3, 0.1, 0.6, 2.0

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        arm = rng.integers(self.arms, size=n)
        straight = rng.standard_normal((n, 2)) * [self.along, self.across] + [1.0, 0.0]
        return self.scale * _turned(straight, math.tau * arm / self.arms + self._angle(straight))

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x) / self.scale
        norm = math.log(self.arms * math.tau * self.along * self.across * self.scale**2)
        parts = []
        for arm in range(self.arms):
            pull = (_turned(rows, -math.tau * arm / self.arms - self._angle(rows)) - [1.0, 0.0]) / [
                self.along,
                self.across,
            ]
            parts.append(-0.5 * (pull**2).sum(1) - norm)
        found: Array = logsumexp(parts, axis=0)
        return found

    def _angle(self, x: Array) -> Array:
        angle: Array = self.twist * self.scale * np.linalg.norm(x, axis=1)
        return angle


def _turned(x: Array, angle: Array) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1)


class Banana(Shape):
    r""":math:`x_1 \sim N(0, 1)`, :math:`x_2 = x_1^2 - 1 + 0.3\, z`: curved, with a long tail."""

    noise = 0.3

    def sample(self, n: int, seed: int) -> Array:
        z = np.random.default_rng(seed).standard_normal((n, 2))
        return np.stack([z[:, 0], z[:, 0] ** 2 - 1 + self.noise * z[:, 1]], 1)

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        pull = (rows[:, 1] - rows[:, 0] ** 2 + 1) / self.noise
        return -0.5 * (rows[:, 0] ** 2 + pull**2) - math.log(math.tau * self.noise)


class EightGaussians(Mixture, Shape):
    """Eight normals of width 0.2, evenly on a circle of radius 2."""

    def __init__(self) -> None:
        angle = math.tau * np.arange(8) / 8
        means = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
        super().__init__(np.ones(8), means, np.repeat(0.04 * np.eye(2)[None], 8, 0))


class TwentyFiveGaussians(Mixture, Shape):
    """Twenty-five normals of width 0.1 on the integer points from -2 to 2."""

    def __init__(self) -> None:
        ticks = np.arange(-2.0, 3.0)
        means = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
        super().__init__(np.ones(25), means, np.repeat(0.01 * np.eye(2)[None], 25, 0))


SHAPES: Mapping[str, Truth] = {
    "two-moons": TwoMoons(),
    "rings": Rings(),
    "checkerboard": Checkerboard(),
    "eight-gaussians": EightGaussians(),
    "twenty-five-gaussians": TwentyFiveGaussians(),
    "spirals": Spirals(),
    "swiss-roll": SwissRoll(),
    "pinwheel": Pinwheel(),
    "banana": Banana(),
    "sine-wave": SineWave(),
}
"""The ten shapes by name."""
