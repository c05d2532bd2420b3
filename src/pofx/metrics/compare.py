"""Many statistics of two samples in one table: are they the same?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pofx.classifiers.base import as_rows
from pofx.data.numbers import as_numpy
from pofx.errors import ConfigError, ShapeError
from pofx.metrics.binned import SeparationPower
from pofx.metrics.c2st import c2st
from pofx.metrics.calibrated import CalibratedClassifier
from pofx.metrics.frechet import FrechetDistance
from pofx.metrics.kernels import MMD, EnergyDistance, KernelPhysicsDistance
from pofx.metrics.marginals import KolmogorovSmirnov, SlicedWasserstein, Wasserstein
from pofx.metrics.neighbours import Memorisation, PrecisionRecall
from pofx.metrics.samples import Side, column_names, feature_side, side
from pofx.metrics.two_sample import Null, Plan, Statistic, TwoSample

__all__ = ["STATISTICS", "Comparison", "compare"]

STATISTICS: dict[str, type[Any]] = {
    one.name: one
    for one in (
        CalibratedClassifier,
        MMD,
        EnergyDistance,
        SlicedWasserstein,
        Wasserstein,
        KolmogorovSmirnov,
        FrechetDistance,
        KernelPhysicsDistance,
        PrecisionRecall,
        SeparationPower,
    )
}
"""By name, with default settings; ``"c2st"`` is :func:`pofx.c2st`."""


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`, a sequence of results.

    Attributes
    ----------
    results : of every statistic.
    columns : names.
    events : of either side, before any sub-sample.
    seed : of everything random.
    """

    results: tuple[TwoSample, ...]
    columns: tuple[str, ...]
    events: tuple[int, int]
    seed: int

    def __iter__(self) -> Iterator[TwoSample]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, name: str) -> TwoSample:
        """The result whose name begins so."""
        for one in self.results:
            if one.name.lower().startswith(name.lower()):
                return one
        raise ConfigError(f"no result is called {name!r}; there are {', '.join(one.name for one in self.results)}")

    @property
    def p_value(self) -> float | None:
        """Of all tests together: the smallest p-value times their number (Bonferroni), at most one; an upper bound."""
        found = [one.p_value for one in self.results if one.p_value is not None]
        return min(1.0, min(found) * len(found)) if found else None

    def __str__(self) -> str:
        lines = [("statistic", "value", "floor", "p-value", "events")]
        for one in self.results:
            floor = "–" if one.floor is None else f"{one.floor:.4g} ± {one.floor_error:.2g}"
            chance = "–" if one.p_value is None else f"{one.p_value:.3g}"
            lines.append(
                (one.name, f"{one.value:.4g} ± {one.error:.2g}", floor, chance, " + ".join(map(str, one.events)))
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        if self.p_value is not None:
            rows.append(f"all together: p <= {self.p_value:.3g}")
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {
            "results": [one.to_dict() for one in self.results],
            "columns": list(self.columns),
            "events": list(self.events),
            "seed": self.seed,
            "p_value": self.p_value,
        }


def compare(  # noqa: PLR0913
    a: Any,
    b: Any,
    *,
    statistics: Sequence[str | Statistic] | None = None,
    features: Callable[[Any], Any] | None = None,
    training: Any = None,
    weight_a: Any = None,
    weight_b: Any = None,
    null: Null = "auto",
    replicas: int = 199,
    seed: int = 0,
) -> Comparison:
    """Compare two samples by many statistics, each with its error, its floor and its p-value.

    Parameters
    ----------
    a, b : truth (or reference) and generated: arrays ``(n, d)``, tensors, data frames, data sets or
        :class:`~pofx.data.events.Events`; grids are taken as rows of cells.
    statistics : names out of :data:`STATISTICS` or ``"c2st"``, or configs such as ``MMD(kernel="polynomial")``; None for all of
        :data:`STATISTICS`, and for clouds of points without ``features`` for ``"c2st"``.
    features : from events (as they came; Events of a data set) to numbers ``(n, f)``, which are compared in their place.
    training : events that the generator behind b learnt from, while a are held out: adds the memorisation test.
    weight_a, weight_b : ``(n,)`` and ``(m,)``, in place of those of a data set.
    null, replicas, seed : see :class:`~pofx.metrics.two_sample.Plan`.

    Raises
    ------
    ShapeError, NonFiniteError, DataError : different columns, NaN, too few events, weights without a positive sum.
    CapabilityError : clouds of points without ``features``.
    ConfigError : an unknown statistic or setting.

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> found = compare(rng.normal(0, 1, (300, 2)), rng.normal(1, 1, (300, 2)), statistics=["energy", "ks"])
    >>> found["KS"].p_value, found.p_value
    (0.005, 0.01)
    """
    plan = Plan(null, replicas, seed)
    sides = _side(a, weight_a, "a", features), _side(b, weight_b, "b", features)
    if sides[0].x.ndim != sides[1].x.ndim or sides[0].x.shape[-1] != sides[1].x.shape[-1]:
        raise ShapeError(f"expected two samples of equal columns; got shapes {sides[0].x.shape} and {sides[1].x.shape}")
    width = sides[0].x.shape[-1]
    columns = column_names(a, width) if features is None else tuple(f"feature{i}" for i in range(width))
    plan = Plan(null, replicas, seed, columns)
    chosen = _chosen(statistics, clouds=sides[0].mask is not None)
    if training is not None:
        chosen.append(Memorisation(_side(training, None, "training", features).x))
    results: list[TwoSample] = []
    for one in chosen:
        results += [_c2st(sides, seed)] if isinstance(one, str) else one.measure(*sides, plan)
    return Comparison(tuple(results), columns, (len(sides[0].x), len(sides[1].x)), seed)


def _side(data: Any, weight: Any, name: str, features: Callable[[Any], Any] | None) -> Side:
    if features is not None:
        return feature_side(data, weight, name, features)
    if getattr(data, "ndim", 0) > 2:
        array = as_numpy(data)
        data = as_rows(array.reshape(len(array), -1), name)
    return side(data, weight, name)


def _chosen(statistics: Sequence[str | Statistic] | None, clouds: bool) -> list[Any]:
    if statistics is None:
        return ["c2st"] if clouds else [kind() for kind in STATISTICS.values()]
    if isinstance(statistics, (str, Statistic)):
        statistics = [statistics]
    found: list[Any] = []
    for one in statistics:
        if isinstance(one, Statistic) or one == "c2st":
            found.append(one)
        elif one in STATISTICS:
            found.append(STATISTICS[one]())
        else:
            raise ConfigError(
                f"statistics: expected a statistic out of c2st, {', '.join(STATISTICS)}, or a config; got {one!r}"
            )
    return found


def _c2st(sides: tuple[Side, Side], seed: int) -> TwoSample:
    if sides[0].mask is not None:
        from pofx.data.events import Events

        a, b = (Events({"x": one.x}, masks={"x": one.mask}, weight=one.weight) for one in sides)
        found = c2st(a, b, seed=seed)
    else:
        found = c2st(sides[0].x, sides[1].x, weight_a=sides[0].weight, weight_b=sides[1].weight, seed=seed)
    return TwoSample(
        name=f"C2ST accuracy ({found.judge})",
        value=found.accuracy,
        error=found.error,
        floor=found.floor,
        floor_error=found.floor_error,
        p_value=found.p_value,
        events=found.events_test,
        null="permutation of held-out labels",
        note=f"AUC {found.auc:.4f} ± {found.auc_error:.4f}; p-value of the AUC",
    )
