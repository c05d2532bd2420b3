"""Many statistics of two samples in one table: are they the same?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pofx.errors import ConfigError
from pofx.metrics.binned import SeparationPower
from pofx.metrics.c2st import c2st
from pofx.metrics.calibrated import CalibratedClassifier
from pofx.metrics.frechet import FrechetDistance
from pofx.metrics.kernels import MMD, EnergyDistance, KernelPhysicsDistance
from pofx.metrics.marginals import KolmogorovSmirnov, SlicedWasserstein, Wasserstein
from pofx.metrics.neighbours import Memorisation, PrecisionRecall
from pofx.metrics.samples import Features, Side, both_sides, side_of_any
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
    sides : both samples as they were compared, for figures; those of :func:`pofx.metrics.weights.where` too.
    """

    results: tuple[TwoSample, ...]
    columns: tuple[str, ...]
    events: tuple[int, int]
    seed: int
    sides: tuple[Side, ...] = field(default=(), repr=False, compare=False)

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
    features: Features | None = None,
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
        :class:`~pofx.data.events.Events`; grids are taken as rows of cells. Where both have names of columns, columns are matched by
        name, else by place.
    statistics : names out of :data:`STATISTICS` or ``"c2st"``, or configs such as ``MMD(kernel="polynomial")``; None for all of
        :data:`STATISTICS` (``"prdc"`` counts events, and is left out if a weight is negative), and for clouds of points without
        ``features`` for ``"c2st"``.
    features : from events (as they came; Events of a data set) to what is compared in their place: numbers ``(n, f)``, a data frame,
        or a mapping such as ``{"mass": ..., "multiplicity": ...}``, whose names are then those of the columns.
    training : events that the generator behind b learnt from, while a are held out: adds the memorisation test.
    weight_a, weight_b : ``(n,)`` and ``(m,)``, in place of those of a data set.
    null, replicas, seed : see :class:`~pofx.metrics.two_sample.Plan`.

    Raises
    ------
    ColumnError, ShapeError : different columns, or different units of one.
    NonFiniteError, DataError : NaN, too few events, weights without a positive sum.
    CapabilityError : clouds of points without ``features``.
    ConfigError : an unknown statistic or setting.

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> found = compare(rng.normal(0, 1, (300, 2)), rng.normal(1, 1, (300, 2)), statistics=["energy", "ks"])
    >>> found["KS"].p_value, found.p_value
    (0.005, 0.01)
    """
    Plan(null, replicas, seed)  # settings are checked before data
    sides = both_sides(side_of_any(a, weight_a, "a", features), side_of_any(b, weight_b, "b", features))
    columns = tuple(column.name for column in sides[0].named)
    plan = Plan(null, replicas, seed, columns)
    chosen = _chosen(statistics, sides)
    if training is not None:
        chosen.append(
            Memorisation(
                both_sides(sides[0], side_of_any(training, None, "training", features), ("a", "training"))[1].x
            )
        )
    results: list[TwoSample] = []
    for one in chosen:
        results += [_c2st(sides, seed)] if isinstance(one, str) else one.measure(*sides, plan)
    return Comparison(tuple(results), columns, (len(sides[0].x), len(sides[1].x)), seed, sides)


def _chosen(statistics: Sequence[str | Statistic] | None, sides: tuple[Side, Side]) -> list[Any]:
    if statistics is None and sides[0].mask is not None:
        return ["c2st"]
    if statistics is None:
        signed = min(float(one.weight.min(initial=0.0)) for one in sides) < 0
        return [kind() for name, kind in STATISTICS.items() if not (signed and name == PrecisionRecall.name)]
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
    found = c2st(*sides, seed=seed)
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
