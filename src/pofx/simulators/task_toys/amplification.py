r"""Toys of the amplification of samples (arXiv:2008.06545): how many true events a generated sample is worth, counted in quantiles.

A camel back on the line, a ring, and a spherical shell. Each has a map to the unit cube under which its density is uniform, so quantiles
of any number are equal boxes there. With shares :math:`x_j` of a sample in N boxes, the error is

.. math:: E = \sum_j \left( x_j - \frac{1}{N} \right)^2, \qquad \langle E \rangle = \frac{1 - 1/N}{n}

for n events of the truth: that is the floor, and :math:`(1 - 1/N)/E` the number of true events that a sample is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pofx.config import check_at_least
from pofx.errors import ShapeError
from pofx.simulators.densities import Mixture
from pofx.simulators.task_toys.base import Array
from pofx.simulators.toys import Shell

__all__ = ["AMPLIFICATION", "Camel", "QuantileError", "RadialShell", "quantile_error"]


class QuantileError(NamedTuple):
    """E, the mean of E over samples of the truth of this size and its standard deviation, and the number of true events that E is
    worth."""

    value: float
    floor: float
    spread: float
    worth: float


def quantile_error(uniform: ArrayLike, per_axis: int) -> QuantileError:
    """The error of a sample in the unit cube ``(n, d)``, in ``per_axis ** d`` boxes.

    >>> quantile_error([[0.1], [0.3], [0.6], [0.9]], 4).value
    0.0
    """
    u = np.asarray(uniform, np.float64)
    if u.ndim != 2 or not len(u) or (u < 0).any() or (u > 1).any():
        raise ShapeError(f"quantile_error: expected numbers in (0, 1) of shape (n, d); got shape {u.shape}")
    n, boxes = len(u), per_axis ** u.shape[1]
    cell = np.minimum((u * per_axis).astype(np.int64), per_axis - 1) @ per_axis ** np.arange(u.shape[1])
    value = float(((np.bincount(cell, minlength=boxes) / n - 1.0 / boxes) ** 2).sum())
    floor = (1.0 - 1.0 / boxes) / n
    spread = math.sqrt(2.0 * (n - 1) / n * (boxes - 1)) / (boxes * n)
    return QuantileError(value, floor, spread, math.inf if value == 0.0 else floor * n / value)


class Camel(Mixture):
    """Two normals of width one at -4 and 4.

    >>> Camel().uniform([[0.0]]).tolist()
    [[0.5]]
    """

    def __init__(self) -> None:
        super().__init__([1.0, 1.0], [[-4.0], [4.0]], np.ones((2, 1, 1)))

    def uniform(self, x: ArrayLike) -> Array:
        """The distribution function, ``(n, 1)``."""
        rows = self._rows(x)
        return np.asarray(0.5 * (special.ndtr(rows + 4.0) + special.ndtr(rows - 4.0)))


class RadialShell(Shell):
    r"""A shell of radius 4 and width 1 (a ring in two dimensions), with its map to the unit cube.

    Coordinates of the cube: the distribution functions of :math:`|r|`, of the polar angles :math:`\theta_i` with density
    :math:`\propto \sin^{d - 1 - i} \theta_i`, and of the azimuth.

    >>> RadialShell(2).uniform([[0.0, 4.0]]).round(3).tolist()
    [[0.5, 0.75]]
    """

    def __init__(self, dim: int = 5) -> None:
        super().__init__(dim, 4.0, 1.0)
        check_at_least(self, 2, "dim")

    def uniform(self, x: ArrayLike) -> Array:
        """``(n, dim)`` in the unit cube, uniform for events of the shell."""
        rows = self._rows(x)
        r = np.linalg.norm(rows, axis=1)
        columns = [special.ndtr(r - 4.0) - special.ndtr(-r - 4.0)]
        for i in range(self.dim - 2):
            rest = np.linalg.norm(rows[:, i:], axis=1).clip(1e-300)
            half = 0.5 * (self.dim - 1 - i)
            columns.append(special.betainc(half, half, np.clip(0.5 * (1.0 - rows[:, i] / rest), 0.0, 1.0)))
        azimuth = np.arctan2(rows[:, -1], rows[:, -2]) / math.tau + 0.5
        return np.stack([*columns, np.clip(azimuth, 0.0, 1.0)], 1)


AMPLIFICATION: Mapping[str, Camel | RadialShell] = {"camel": Camel(), "ring": RadialShell(2), "shell": RadialShell(5)}
"""The three by name."""
