r"""Toys of symmetries and of morphing: Gaussians whose symmetry group is known, and shapes turned by the context.

For an affine map g(x) = A x + b, the distance of the mapped Gaussian from itself is closed:

.. math:: \mathrm{KL}(g N \| N) = \frac{1}{2} \left[ \mathrm{tr}\, S^{-1} A S A^T + (A m + b - m)^T S^{-1} (A m + b - m) - d
   - \ln |A|^2 \right]

and zero exactly for symmetries (arXiv:2112.05722).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from pofx.config import check_choice
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.simulators.densities import CorrelatedGaussian, Truth
from pofx.simulators.shapes import SHAPES
from pofx.simulators.task_toys.base import Array, Toy, rows_of

__all__ = ["SYMMETRIC", "TurnedShape", "symmetry_defect"]

SYMMETRIC: dict[str, CorrelatedGaussian] = {
    "reflection": CorrelatedGaussian([0.5], [[1.0]]),
    "rotations": CorrelatedGaussian([0.0, 0.0], np.eye(2)),
    "axes": CorrelatedGaussian([0.0, 0.0], np.diag([1.0, 4.0])),
}
"""Normals with the symmetry groups Z2 (x to 1 - x), O(2), and Z2 x Z2."""


def symmetry_defect(gaussian: CorrelatedGaussian, matrix: ArrayLike, offset: ArrayLike = 0.0) -> float:
    """KL divergence, in nats, of the Gaussian mapped by x -> matrix x + offset from the Gaussian itself; infinite for singular maps.

    >>> symmetry_defect(SYMMETRIC["reflection"], [[-1.0]], [1.0])
    0.0
    """
    a, s = np.asarray(matrix, np.float64), gaussian.covariance
    away = a @ gaussian.mean + np.asarray(offset) - gaussian.mean
    log_volume = 2.0 * np.linalg.slogdet(a)[1]
    trace = float(np.trace(np.linalg.solve(s, a @ s @ a.T)))
    return 0.5 * (trace + float(away @ np.linalg.solve(s, away)) - gaussian.dim - float(log_volume))


class TurnedShape(Toy):
    """A shape of the plane turned by an angle that is the context: conditional morphing (arXiv:2211.02487), with its density.

    Parameters
    ----------
    shape : one of ``pofx.simulators.SHAPES``.
    turns : angles are uniform between zero and this many full turns.

    >>> toy = TurnedShape("banana")
    >>> events = toy.sample(3, seed=1)
    >>> toy.log_prob(events.x, events.context.x).shape
    (3,)
    """

    def __init__(self, shape: str = "banana", turns: float = 0.25) -> None:
        self.shape, self.turns = shape, turns
        check_choice(self, "shape", tuple(SHAPES))
        self.truth: Truth = SHAPES[shape]

    def spec(self) -> EventSpec:
        return vector_spec(2, "x")

    def context_spec(self) -> EventSpec:
        return vector_spec([Column("angle", "rad")], "angle")

    def sample(self, n: int, seed: int) -> Events:
        angle = math.tau * self.turns * np.random.default_rng((seed, 1)).random((n, 1))
        return Events({"x": _turned(self.truth.sample(n, seed), angle)}, context=Events({"angle": angle}))

    def morphed(self, x: ArrayLike, source: ArrayLike, target: ArrayLike) -> Array:
        """Events at the angles ``source`` as they are at ``target``, ``(n, 1)`` both: the map that a morphing model may learn."""
        return _turned(rows_of(x, 2, "x"), np.asarray(target, np.float64) - np.asarray(source, np.float64))

    def log_prob(self, x: ArrayLike, angle: ArrayLike) -> Array:
        """log p(x | angle), ``(n,)``."""
        return self.truth.log_prob(_turned(rows_of(x, 2, "x"), -np.asarray(angle, np.float64)))


def _turned(x: Array, angle: Array) -> Array:
    cos, sin = np.cos(angle[:, 0]), np.sin(angle[:, 0])
    return np.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1)
