r"""Distances of one-dimensional laws, column by column or along random directions: Kolmogorov-Smirnov and Wasserstein.

With F and G the weighted distribution functions of a column,

.. math:: D = \sup |F - G|, \qquad W_1 = \int |F - G| \, dx .

The largest D of all columns has the permutation law of a largest D, correlations of the columns included: this is the look-elsewhere
correction. The sliced distance is the mean of W_1 over directions that are uniform on the sphere (arXiv:1902.00434).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pofx.classifiers.base import Floats
from pofx.config import check_at_least, check_choice
from pofx.metrics.scales import SCALES, Scale, unit_of
from pofx.metrics.two_sample import MeasureStatistic, Plan, Pooled, Prepared

__all__ = ["KolmogorovSmirnov", "SlicedWasserstein", "Wasserstein"]


@dataclass(frozen=True)
class KolmogorovSmirnov(MeasureStatistic):
    """The largest Kolmogorov-Smirnov distance of all columns; each column has a local and a global p-value.

    Parameters
    ----------
    most : events per side.

    >>> from pofx.metrics.samples import side
    >>> rng = np.random.default_rng(1)
    >>> a, b = (side(rng.normal(shift, 1, (300, 2)), None, "") for shift in ([0, 0], [0, 0.5]))
    >>> [part.global_p_value < 0.01 for part in KolmogorovSmirnov().measure(a, b, Plan())[0].parts]
    [False, True]
    """

    most: int | None = 50_000
    name: ClassVar[str] = "ks"

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        columns = _Columns(events.x)
        title = f"KS distance, largest of {events.x.shape[1]}" if events.x.shape[1] > 1 else "KS distance"
        return Prepared(events, lambda a, b: columns.distances(a - b, "largest"), (title,), summary="largest")


@dataclass(frozen=True)
class Wasserstein(MeasureStatistic):
    """Wasserstein distance of each column, in standard deviations of both samples together, and the mean over the columns.

    Parameters
    ----------
    scale : of the columns: ``"deviation"``, ``"largest"`` (absolute value), ``"none"``.
    most : events per side.

    >>> Wasserstein(scale="none").scale
    'none'
    """

    scale: Scale = "deviation"
    most: int | None = 50_000
    name: ClassVar[str] = "wasserstein"

    def __post_init__(self) -> None:
        check_choice(self, "scale", SCALES)

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        centre, scale = unit_of(events, self.scale)
        columns = _Columns((events.x - centre) / scale)
        title = f"W1, mean of {events.x.shape[1]} columns" if events.x.shape[1] > 1 else "W1"
        return Prepared(events, lambda a, b: columns.distances(a - b, "integral"), (title,), summary="mean")


@dataclass(frozen=True)
class SlicedWasserstein(MeasureStatistic):
    """Mean Wasserstein distance along random directions of the scaled columns.

    Parameters
    ----------
    directions : how many.
    scale, most : see :class:`Wasserstein`.

    >>> SlicedWasserstein().directions
    50
    """

    directions: int = 50
    scale: Scale = "deviation"
    most: int | None = 50_000
    name: ClassVar[str] = "sliced-wasserstein"

    def __post_init__(self) -> None:
        check_choice(self, "scale", SCALES)
        check_at_least(self, 1, "directions")

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        centre, scale = unit_of(events, self.scale)
        axes = plan.rng("directions").normal(size=(events.x.shape[1], self.directions))
        columns = _Columns((events.x - centre) / scale @ (axes / np.linalg.norm(axes, axis=0)))
        return Prepared(
            events,
            lambda a, b: columns.distances(a - b, "integral").mean(1, keepdims=True),
            ("sliced W1",),
            note=f"{self.directions} directions",
        )


class _Columns:
    """Columns in order, for differences of distribution functions."""

    def __init__(self, x: Floats) -> None:
        self._orders = np.argsort(x, axis=0, kind="stable").T
        self._gaps = [np.diff(x[order, j]) for j, order in enumerate(self._orders)]

    def distances(self, difference: Floats, what: Literal["largest", "integral"]) -> Floats:
        """Of signed measures of sum zero ``(n, k)``, for every column, ``(k, d)``."""
        made = np.empty((difference.shape[1], len(self._orders)))
        for j, (order, gaps) in enumerate(zip(self._orders, self._gaps, strict=True)):
            apart = np.abs(np.cumsum(difference[order], axis=0)[:-1])
            made[:, j] = gaps @ apart if what == "integral" else apart[gaps > 0].max(0, initial=0.0)
        return made
