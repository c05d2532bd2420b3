r"""Distances that are quadratic in the difference of two laws: maximum mean discrepancy, energy distance, kernel physics distance.

.. math:: \mathrm{MMD}^2 = E\,k(x, x') + E\,k(y, y') - 2 E\,k(x, y), \qquad x, x' \sim P, \quad y, y' \sim Q

(arXiv:0805.2368), without bias: no event meets itself, :math:`\sum_{i \ne j} a_i a_j k_{ij} / (1 - \sum_i a_i^2)`. With
:math:`k = -|x - y|^\beta` this is the energy distance (Székely and Rizzo, J. Stat. Plan. Inference 143 (2013) 1249), which is twice
Cramér's distance in one column; with :math:`k = (x \cdot y / d + 1)^4` of columns divided by their largest absolute value it is the kernel
physics distance (arXiv:2211.10295; there the median over batches of 5000 events, here the mean over all pairs).

All pairs are computed in blocks, so memory does not grow with their number; time does, hence the sub-sample of ``most`` events per side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from pofx.classifiers.base import Floats
from pofx.config import check_at_least, check_between, check_choice
from pofx.errors import ConfigError
from pofx.metrics.scales import SCALES, Scale, unit_of
from pofx.metrics.two_sample import MeasureStatistic, Plan, Pooled, Prepared

__all__ = ["MMD", "EnergyDistance", "Kernel", "KernelPhysicsDistance"]

BLOCK = 512
MEDIAN_OF = 1000
"""Events of both sides whose distances have the median that RBF widths are multiples of."""


class Kernel(NamedTuple):
    """A kernel of rows in their own coordinates: of pairs ``(n, d), (m, d) -> (n, m)``, and of each row with itself, ``(n,)``."""

    x: Floats
    pairs: Callable[[Floats, Floats], Floats]
    own: Floats


class _Quadratic(MeasureStatistic):
    """What these distances share."""

    title: ClassVar[str]

    @abstractmethod
    def on(self, events: Pooled, plan: Plan) -> Kernel:
        """The kernel, with all that is fixed by both samples together."""

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        kernel = self.on(events, plan)
        a, b = events.a, events.b
        sums = [float(form) for form in _quadratic(kernel, np.stack([a, b, a - b], axis=1))]
        inside = [
            (total - float(one**2 @ kernel.own)) / (1.0 - float(one @ one))
            for total, one in zip(sums, (a, b), strict=False)
        ]
        unbiased = sum(inside) - (sums[0] + sums[1] - sums[2])
        return Prepared(
            events,
            lambda a, b: _quadratic(kernel, a - b)[:, None],
            (self.title,),
            offset=np.array([sums[2] - unbiased]),
            quadratic=True,
        )


@dataclass(frozen=True)
class MMD(_Quadratic):
    """Maximum mean discrepancy, squared.

    Parameters
    ----------
    kernel : ``"rbf"``: the mean of Gaussians :math:`exp(-|x - y|^2 / 2 s^2)`; ``"polynomial"``: :math:`(x y / d + 1)^q`; ``"energy"``:
        :math:`-|x - y|`.
    widths : of the Gaussians, in units of the median distance between events of both samples.
    width : in place of that median, in the units of the scaled columns.
    degree : q.
    scale : of the columns: ``"deviation"`` (standard deviation), ``"largest"`` (absolute value) or ``"none"``.
    most : events per side.

    >>> rng = np.random.default_rng(1)
    >>> from pofx.metrics.samples import side
    >>> a, b = (side(rng.normal(shift, 1, (300, 2)), None, "") for shift in (0, 0.5))
    >>> print(MMD().measure(a, b, Plan())[0])
    MMD² (rbf): 0.0...
    """

    kernel: Literal["rbf", "polynomial", "energy"] = "rbf"
    widths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    width: float | None = None
    degree: int = 3
    scale: Scale = "deviation"
    most: int | None = 5000
    name: ClassVar[str] = "mmd"

    def __post_init__(self) -> None:
        check_choice(self, "kernel", ("rbf", "polynomial", "energy"))
        check_choice(self, "scale", SCALES)
        check_at_least(self, 1, "degree")
        if not self.widths or min(self.widths) <= 0 or (self.width is not None and self.width <= 0):
            raise ConfigError(f"MMD: widths must be positive; got {self.widths}, width={self.width}")

    @property
    def title(self) -> str:  # type: ignore[override]
        """With the kernel."""
        return f"MMD² ({self.kernel})"

    def on(self, events: Pooled, plan: Plan) -> Kernel:
        """See :class:`_Quadratic`."""
        centre, scale = unit_of(events, self.scale)
        if self.kernel == "polynomial":
            return polynomial((events.x - centre) / scale, self.degree)
        if self.kernel == "energy":
            return energy(events.x / scale, 1.0)
        x = (events.x - events.x.mean(0)) / scale
        width = self.width or median_distance(x, plan.rng("median"))
        return gaussians(x, tuple(width * factor for factor in self.widths))


@dataclass(frozen=True)
class EnergyDistance(_Quadratic):
    r""":math:`2 E|x - y| - E|x - x'| - E|y - y'|`, without bias; in one column scipy's ``energy_distance`` squared, up to that.

    Parameters
    ----------
    exponent : of the distances, above 0 and below 2.
    scale : of the columns.
    most : events per side.

    >>> EnergyDistance(scale="none").most
    5000
    """

    exponent: float = 1.0
    scale: Scale = "deviation"
    most: int | None = 5000
    name: ClassVar[str] = "energy"
    title: ClassVar[str] = "energy distance"

    def __post_init__(self) -> None:
        check_between(self, 1e-3, 1.999, "exponent")
        check_choice(self, "scale", SCALES)

    def on(self, events: Pooled, plan: Plan) -> Kernel:
        """See :class:`_Quadratic`."""
        return energy(events.x / unit_of(events, self.scale)[1], self.exponent)


@dataclass(frozen=True)
class KernelPhysicsDistance(_Quadratic):
    """The polynomial kernel of degree four on columns divided by their largest absolute value (KPD, arXiv:2211.10295).

    >>> KernelPhysicsDistance().degree
    4
    """

    degree: int = 4
    scale: Scale = "largest"
    most: int | None = 5000
    name: ClassVar[str] = "kpd"
    title: ClassVar[str] = "kernel physics distance"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "degree")
        check_choice(self, "scale", SCALES)

    def on(self, events: Pooled, plan: Plan) -> Kernel:
        """See :class:`_Quadratic`."""
        centre, scale = unit_of(events, self.scale)
        return polynomial((events.x - centre) / scale, self.degree)


# Kernels


def gaussians(x: Floats, widths: tuple[float, ...]) -> Kernel:
    """The mean of Gaussians of these widths, one of an event with itself; those of twice the width are fourth roots."""

    def pairs(rows: Floats, columns: Floats) -> Floats:
        squares, total, last, at = _squares(rows, columns), np.zeros((len(rows), len(columns))), None, 0.0
        for width in sorted(widths, reverse=True):
            fourth = last is not None and abs(at / width - 2.0) < 1e-12
            last = (last**2) ** 2 if fourth and last is not None else np.exp(squares * (-0.5 / width**2))
            at = width
            total += last
        return total / len(widths)

    return Kernel(x, pairs, np.ones(len(x)))


def energy(x: Floats, exponent: float) -> Kernel:
    """-|x - y|^exponent."""

    def pairs(rows: Floats, columns: Floats) -> Floats:
        squares = _squares(rows, columns)
        return -np.sqrt(squares) if exponent == 1.0 else -(squares ** (0.5 * exponent))

    return Kernel(x - x.mean(0), pairs, np.zeros(len(x)))


def polynomial(x: Floats, degree: int) -> Kernel:
    """(x y / d + 1)^degree."""
    d = x.shape[1]
    return Kernel(x, lambda rows, columns: (rows @ columns.T / d + 1.0) ** degree, ((x**2).sum(1) / d + 1.0) ** degree)


def median_distance(x: Floats, rng: np.random.Generator) -> float:
    """Of pairs among a thousand events; one where all are the same."""
    some = x[rng.permutation(len(x))[:MEDIAN_OF]]
    squares = _squares(some, some)[np.triu_indices(len(some), 1)]
    return float(np.sqrt(np.median(squares))) or 1.0


def _squares(rows: Floats, columns: Floats) -> Floats:
    squares = (rows**2).sum(1)[:, None] + (columns**2).sum(1) - 2.0 * rows @ columns.T
    return np.maximum(squares, 0.0)


def _quadratic(kernel: Kernel, measures: Floats) -> Floats:
    """sum_ij m_i m_j k_ij of measures ``(n, k)``, ``(k,)``; pairs of blocks are visited once."""
    total = np.zeros(measures.shape[1])
    for start in range(0, len(kernel.x), BLOCK):
        block = kernel.pairs(kernel.x[start : start + BLOCK], kernel.x[start:])
        size = len(block)
        np.fill_diagonal(block[:, :size], kernel.own[start : start + size])
        block[:, size:] *= 2.0
        total += (measures[start : start + size] * (block @ measures[start:])).sum(0)
    return total
