r"""Statistics of nearest neighbours: precision, recall, density, coverage; and whether a generator has memorised its training events.

With B(x) the ball around x that reaches to its k-th nearest neighbour in its own sample (arXiv:1904.06991, 2002.09797), n true and m
generated events:

- precision: share of generated events that lie in the ball of any true event; recall: the same with the samples exchanged;
- density: mean number of true balls that a generated event lies in, divided by k; coverage: share of true balls with a generated event.

None of them is a distance: precision, recall and coverage of two samples of one law are below one (see the floor), and precision is higher
for a sample that is too narrow. Events are counted, so weighted ones are first made unweighted, each kept with the probability
w / max(w); permutations are then exact. Errors are the scatter over random halves of either sample, which is that of whole samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers.base import Floats
from pofx.config import check_at_least, check_choice
from pofx.errors import DataError, ShapeError
from pofx.metrics.samples import Side
from pofx.metrics.scales import SCALES, Scale, unit_of
from pofx.metrics.two_sample import FEWEST, Marks, MeasureStatistic, Plan, Pooled, Prepared, Tail, TwoSample, judged

__all__ = ["Memorisation", "PrecisionRecall", "unweighted"]

BLOCK = 512
HALVES = 50
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class PrecisionRecall(MeasureStatistic):
    """Precision, recall, density and coverage of b as generated and a as true events.

    Parameters
    ----------
    neighbours : k.
    scale : of the columns.
    most : events per side; the smaller side sets the number of both.

    >>> from pofx.metrics.samples import side
    >>> rng = np.random.default_rng(1)
    >>> a, b = side(rng.normal(0, 1, (400, 2)), None, "a"), side(rng.normal(0, 0.3, (400, 2)), None, "b")
    >>> precision, recall, density, coverage = PrecisionRecall().measure(a, b, Plan())
    >>> precision.value > 0.98, recall.value < 0.6, recall.p_value < 0.01
    (True, True, True)
    """

    neighbours: int = 5
    scale: Scale = "deviation"
    most: int | None = 2000
    name: ClassVar[str] = "prdc"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "neighbours")
        check_choice(self, "scale", SCALES)

    def measure(self, a: Side, b: Side, plan: Plan) -> tuple[TwoSample, ...]:
        """See :class:`~pofx.metrics.two_sample.Statistic`."""
        rng = plan.rng("unweighted")
        sides = [unweighted(one, name, rng) for one, name in ((a, "a"), (b, "b"))]
        least = min(*(len(one.x) for one in sides), self.most or len(a.x))
        events = Pooled.of(*sides).thinned(least, rng)
        found = judged(self.prepare(events, plan), replace(plan, null="permutation"), self.name)
        kept = "" if _equal(a) and _equal(b) else "; unweighted by acceptance"
        return tuple(replace(one, note=f"k = {self.neighbours}{kept}") for one in found)

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        if min(events.events) <= 2 * self.neighbours:
            raise DataError(f"expected more than {2 * self.neighbours} unweighted events per side; got {events.events}")
        centre, scale = unit_of(events, self.scale)
        nearest = _nearest((events.x - centre) / scale)
        rng, second = plan.rng("halves"), events.second
        halves = np.array([_values(nearest, second, self.neighbours, _half(second, rng)) for _ in range(HALVES)])
        everything = np.ones(len(second), dtype=bool)

        def values(_a: Floats, b: Floats) -> Floats:
            return np.array([_values(nearest, marks, self.neighbours, everything) for marks in (b > 0).T])

        names = tuple(f"{name} (k = {self.neighbours})" for name in ("precision", "recall", "density", "coverage"))
        tails: tuple[Tail, ...] = ("lower", "lower", "both", "lower")
        return Prepared(events, values, names, tails=tails, errors=halves.std(0, ddof=1))


@dataclass(frozen=True, eq=False)
class Memorisation(MeasureStatistic):
    """Is a generated event nearer to the training events than a held-out true event is (the test of arXiv:1712.10321)?

    The value is the probability that it is, ties counted half: 1/2 for a generator of the true law that has not memorised, 1 for one that
    repeats its training events. Side a are held-out true events, which the generator has not seen; b are generated. Small p-values
    are also had from samples that are too narrow, which :class:`PrecisionRecall` tells from memory.

    Parameters
    ----------
    training : ``(t, d)``, the events that the generator learnt from.
    scale : of the columns.
    most : events of either side; most_training: of the training events.

    >>> from pofx.metrics.samples import side
    >>> rng = np.random.default_rng(1)
    >>> training, new = rng.normal(size=(400, 3)), rng.normal(size=(200, 3))
    >>> copies = side(training[:200] + 1e-3, None, "b")
    >>> Memorisation(training).measure(side(new, None, "a"), copies, Plan())[0].value > 0.99
    True
    """

    training: Floats
    scale: Scale = "deviation"
    most: int | None = 5000
    most_training: int = 100_000
    name: ClassVar[str] = "memorisation"

    def __post_init__(self) -> None:
        check_choice(self, "scale", SCALES)
        check_at_least(self, 1, "most_training")

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        known = np.asarray(self.training, dtype=np.float64)
        if known.ndim != 2 or known.shape[1] != events.x.shape[1]:
            raise ShapeError(f"training: expected shape (t, {events.x.shape[1]}); got {known.shape}")
        known = known[plan.rng("training").permutation(len(known))[: self.most_training]]
        centre, scale = unit_of(events, self.scale)
        distance = _distance((events.x - centre) / scale, (known - centre) / scale)
        copies = float(events.b @ (distance == 0.0))
        order = np.argsort(distance, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(distance[order]) > 0])

        def values(a: Floats, b: Floats) -> Floats:
            p, q = (np.add.reduceat(one[order], starts, axis=0) for one in (a, b))
            nearer = 1.0 - (q * (np.cumsum(p, axis=0) - p / 2.0)).sum(0)
            return np.asarray(nearer[:, None])

        note = f"{len(known)} training events; exact copies among the generated: {copies:.2g}"
        return Prepared(events, values, ("memorisation",), note=note)


def unweighted(one: Side, name: str, rng: np.random.Generator) -> Side:
    """Events of weight one of the same law: each is kept with probability w / max(w).

    >>> side = Side(np.arange(1000.0)[:, None], np.r_[np.ones(500), np.full(500, 0.1)])
    >>> bool(30 < (unweighted(side, "a", np.random.default_rng(1)).x > 499).sum() < 70)
    True
    """
    if (one.weight < 0).any():
        raise DataError(
            f"weight_{name}: neighbours are counted, which needs weights of at least 0; the lowest is {one.weight.min():.4g}"
        )
    kept = rng.random(len(one.weight)) * one.weight.max() < one.weight
    if kept.sum() < FEWEST:
        raise DataError(
            f"weight_{name}: only {kept.sum()} of {len(kept)} events are left without weights; one of them outweighs the others"
        )
    return Side(one.x[kept], np.ones(int(kept.sum())))


def _equal(one: Side) -> bool:
    return bool(np.ptp(one.weight) <= 1e-12 * abs(one.weight).max())


def _half(second: Marks, rng: np.random.Generator) -> Marks:
    """Half of the events of either side."""
    chosen = np.zeros(len(second), dtype=bool)
    for rows in (np.flatnonzero(second), np.flatnonzero(~second)):
        chosen[rng.permutation(rows)[: len(rows) // 2]] = True
    return chosen


# Neighbours


def _blocks(x: Floats, others: Floats) -> Iterator[tuple[int, Floats]]:
    """Squared distances of some rows to all others at a time."""
    squares = (others**2).sum(1)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        yield start, (rows**2).sum(1)[:, None] + squares - 2.0 * rows @ others.T


def _nearest(x: Floats) -> Indices:
    """All other rows, the nearest first, ``(n, n - 1)``."""
    found = np.empty((len(x), len(x) - 1), dtype=np.int32)
    for start, distance in _blocks(x, x):
        size = len(distance)
        distance[np.arange(size), start + np.arange(size)] = -np.inf
        found[start : start + size] = np.argsort(distance, axis=1, kind="stable")[:, 1:]
    return found.astype(np.intp)


def _distance(x: Floats, others: Floats) -> Floats:
    """To the nearest of the others, ``(n,)``, exact for copies."""
    found = np.empty(len(x))
    for start, squares in _blocks(x, others):
        rows = x[start : start + BLOCK]
        found[start : start + len(rows)] = np.sqrt(((rows - others[squares.argmin(1)]) ** 2).sum(1))
    return found


def _values(nearest: Indices, second: Marks, k: int, chosen: Marks) -> Floats:
    """Precision, recall, density and coverage, of the chosen events alone."""
    precision, density, coverage = _balls(nearest, second, k, chosen)
    return np.array([precision, _balls(nearest, ~second, k, chosen)[0], density, coverage])


def _balls(nearest: Indices, second: Marks, k: int, chosen: Marks) -> tuple[float, float, float]:
    """How events of label True lie in the balls of the others: share inside any, mean number of balls over k, share of balls with any."""
    centres, inside = np.flatnonzero(chosen & ~second), np.zeros(len(second), dtype=bool)
    others, total, filled = int((chosen & second).sum()), 0, 0
    own, strange = chosen & ~second, chosen & second
    for start in range(0, len(centres), BLOCK):
        near = nearest[centres[start : start + BLOCK]]
        within = strange[near] & (np.cumsum(own[near], axis=1, dtype=np.int32) < k)
        total += int(within.sum())
        filled += int(within.any(1).sum())
        inside[near[within]] = True
    return float(inside.sum() / others), total / (k * others), filled / len(centres)
