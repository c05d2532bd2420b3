r"""What a statistic of two samples is here: a function of two measures on the pooled events, judged by resampling.

Both samples are weights on one list of events, :math:`P = \sum_i a_i \delta_{x_i}` and :math:`Q = \sum_i b_i \delta_{x_i}`, each of sum
one. A statistic T(P, Q) is computed once for the data, and then for replicas:

- **permutation**: pairs (event, weight) change sides at random. Exact in samples of any size if the weights are exchangeable: if there
  are none, or if both samples were weighted in one way.
- **bootstrap**, if only the weighted laws are the same under the null: with signs :math:`g_i = \pm 1` at random (the wild, or multiplier,
  bootstrap; arXiv:1408.5404) and the pooled measure M,

  .. math:: P^* = M + P(g - \bar g_P) / \sqrt{1 - \textstyle\sum a_i^2}, \qquad \bar g_P = \textstyle\sum_i a_i g_i ,

  and Q* in the same way: their difference fluctuates as P - Q does under the null. It holds in
  large samples, and for weights of either sign.

The replicas' mean and standard deviation are the *floor*; the share of replicas that are as extreme as the data, :math:`(1 + k)/(1 + N)`,
is the p-value; data and replicas with one value are put in order at random (of a seed), so that p-values of a statistic with few
values are uniform as well. The *error* is the scatter of T(P + dP, Q + dQ) with the same dP, dQ. Statistics that are quadratic in
P - Q have no linear term under the null; there the data's own fluctuation doubles as a signal, and that is taken out: with variances S
of this scatter and N of the null, the error is the root of max(S - 2 N, N).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers.base import Floats
from pofx.errors import CapabilityError, ConfigError, DataError
from pofx.metrics.samples import Side
from pofx.metrics.scores import effective

__all__ = [
    "FEWEST",
    "NULLS",
    "MeasureStatistic",
    "Part",
    "Plan",
    "Pooled",
    "Prepared",
    "Statistic",
    "TwoSample",
    "judged",
]

CELLS = 3_000_000
"""Numbers of one measure of all replicas that are made at once; three times as many are worked on."""
FEWEST = 10
"""Events per side."""
NULLS = ("auto", "permutation", "bootstrap")

Null = Literal["auto", "permutation", "bootstrap"]
Tail = Literal["upper", "lower", "both"]
Marks = NDArray[np.bool_]
Measures = tuple[Floats, Floats]


class Part(NamedTuple):
    """A column's share in a statistic; ``global_p_value`` is that of the largest of all columns reaching this value."""

    name: str
    value: float
    p_value: float
    global_p_value: float


@dataclass(frozen=True)
class TwoSample:
    """One number about two samples.

    Attributes
    ----------
    name : of the statistic.
    value, error : and its standard error.
    floor, floor_error : mean and standard deviation of the value between two samples of one law, of these sizes and weights.
    p_value : of equal laws; None where it is not defined.
    events : of either side that entered.
    null : how floor and p-value were made: ``"permutation"``, ``"bootstrap"``, or in words.
    note : what else there is to say.
    parts : one per column, where the statistic has them.
    """

    name: str
    value: float
    error: float
    floor: float | None
    floor_error: float | None
    p_value: float | None
    events: tuple[int, int]
    null: str
    note: str = ""
    parts: tuple[Part, ...] = ()

    def __str__(self) -> str:
        floor = "" if self.floor is None else f" (floor {self.floor:.4g} ± {self.floor_error:.2g})"
        chance = "" if self.p_value is None else f", p = {self.p_value:.3g}"
        return f"{self.name}: {self.value:.4g} ± {self.error:.2g}{floor}{chance}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        made = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "parts"}
        return {**made, "events": list(self.events), "parts": [part._asdict() for part in self.parts]}


@dataclass(frozen=True)
class Plan:
    """How a statistic is judged.

    Parameters
    ----------
    null : ``"permutation"``, ``"bootstrap"``, or ``"auto"``: permutation where all weights of either side are equal, else bootstrap.
    replicas : of the null, and of the error.
    seed : of sub-samples and replicas.
    columns : their names.
    """

    null: Null = "auto"
    replicas: int = 199
    seed: int = 0
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.null not in NULLS:
            raise ConfigError(f"null: expected one of {', '.join(NULLS)}; got {self.null!r}")
        if self.replicas < 19:
            raise ConfigError(f"replicas: expected at least 19, for p-values of 0.05; got {self.replicas}")

    def rng(self, *labels: str | int) -> np.random.Generator:
        """A generator for a named purpose."""
        return np.random.default_rng(self.derived(*labels))

    def derived(self, *labels: str | int) -> int:
        """A seed for a named purpose."""
        from pofx.training.noise import derive_seed

        return derive_seed(self.seed, "two-sample", *labels)

    def name_of(self, column: int) -> str:
        """Of a column."""
        return self.columns[column] if column < len(self.columns) else f"x{column}"


@dataclass(frozen=True)
class Pooled:
    """Both samples in one list: rows ``(n, d)``, which are of side b ``(n,)``, and weights ``(n,)``."""

    x: Floats
    second: Marks
    weight: Floats

    @classmethod
    def of(cls, a: Side, b: Side) -> Pooled:
        """Two samples, the weights of each divided by their mean."""
        for one, name in ((a, "a"), (b, "b")):
            if one.x.ndim != 2:
                raise CapabilityError(f"{name}: clouds of points need features=, a function from events to rows (n, f)")
            if len(one.x) < FEWEST:
                raise DataError(f"{name}: expected at least {FEWEST} events; got {len(one.x)}")
            if not one.weight.sum() > 0:
                raise DataError(f"weight_{name}: expected a positive sum; got {one.weight.sum():g}")
        weight = np.concatenate([a.weight / a.weight.mean(), b.weight / b.weight.mean()])
        return cls(np.concatenate([a.x, b.x]), np.repeat([False, True], [len(a.x), len(b.x)]), weight)

    @property
    def a(self) -> Floats:
        """The measure of side a, ``(n,)``."""
        return np.where(self.second, 0.0, self.weight) / self.weight[~self.second].sum()

    @property
    def b(self) -> Floats:
        """The measure of side b, ``(n,)``."""
        return np.where(self.second, self.weight, 0.0) / self.weight[self.second].sum()

    @property
    def pooled(self) -> Floats:
        """Both, by their effective numbers of events, ``(n,)``; without weights every event counts alike."""
        n, m = (effective(self.weight[rows]) for rows in (~self.second, self.second))
        return (n * self.a + m * self.b) / (n + m)

    @property
    def equal(self) -> bool:
        """Whether all weights of either side are the same."""
        return all(bool(np.ptp(self.weight[rows]) <= 1e-12) for rows in (self.second, ~self.second))

    @property
    def events(self) -> tuple[int, int]:
        """Of either side."""
        return int((~self.second).sum()), int(self.second.sum())

    def thinned(self, most: int | None, rng: np.random.Generator) -> Pooled:
        """At most so many events of either side, at random."""
        if most is None or max(self.events) <= most:
            return self
        sides = [np.flatnonzero(~self.second), np.flatnonzero(self.second)]
        rows = np.concatenate([np.sort(rng.permutation(side)[:most]) for side in sides])
        return Pooled(self.x[rows], self.second[rows], self.weight[rows])


Values = Callable[[Floats, Floats], Floats]
"""From measures ``(n, k)`` and ``(n, k)`` to ``(k, m)`` quantities."""


@dataclass(frozen=True)
class Prepared:
    """A statistic with everything done that does not depend on which event is of which side.

    Attributes
    ----------
    pooled : the events that enter.
    values : from k pairs of measures to m quantities each.
    names : of the quantities; of the whole, where ``summary`` is not ``"each"``.
    summary : ``"each"`` quantity is a result, or quantities are columns whose ``"largest"`` or ``"mean"`` is the one result.
    tails : which values speak against the null, per result.
    offset : ``(m,)``, taken off values and floors: the known bias.
    quadratic : in the difference of the measures.
    errors : ``(m,)`` where the multiplier bootstrap would not do.
    note : for the results.
    """

    pooled: Pooled
    values: Values
    names: tuple[str, ...]
    summary: Literal["each", "largest", "mean"] = "each"
    tails: tuple[Tail, ...] = ("upper",)
    offset: Floats = field(default_factory=lambda: np.zeros(1))
    quadratic: bool = False
    errors: Floats | None = None
    note: str = ""

    def summarise(self, values: Floats) -> Floats:
        """``(k, m)`` quantities to ``(k, r)`` results."""
        if self.summary == "each":
            return values
        return values.max(1, keepdims=True) if self.summary == "largest" else values.mean(1, keepdims=True)


class Statistic(ABC):
    """A statistic of two samples, given by a frozen config."""

    name: ClassVar[str]

    @abstractmethod
    def measure(self, a: Side, b: Side, plan: Plan) -> tuple[TwoSample, ...]:
        """One result or several that are computed together."""


class MeasureStatistic(Statistic):
    """One that is a function of two measures; subclasses prepare it.

    Attributes
    ----------
    most : events per side that enter, at most; a random sub-sample of more.
    """

    most: int | None

    def measure(self, a: Side, b: Side, plan: Plan) -> tuple[TwoSample, ...]:
        """See :class:`Statistic`."""
        events = Pooled.of(a, b).thinned(self.most, plan.rng("thinned", self.name))
        return judged(self.prepare(events, plan), plan, self.name)

    @abstractmethod
    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """What can be computed before sides are known."""


# Replicas


def judged(ready: Prepared, plan: Plan, label: str) -> tuple[TwoSample, ...]:
    """The results of a prepared statistic; ``label`` keeps its random numbers apart from those of others."""
    null = plan.null if plan.null != "auto" else "permutation" if ready.pooled.equal else "bootstrap"
    found, replicas, about = _all_values(ready, plan, null == "permutation", label)
    errors = _errors(ready, about, replicas) if ready.errors is None else ready.errors
    rank = float(plan.rng("ties", label).random())
    parts = () if ready.summary == "each" else _parts(found[0], replicas, plan, rank)
    value, under_null = ready.summarise(found)[0], ready.summarise(replicas)
    offset = np.broadcast_to(ready.offset, value.shape)
    tails = ready.tails * (len(value) // len(ready.tails))
    return tuple(
        TwoSample(
            name=name,
            value=float(value[i] - offset[i]),
            error=float(errors[i]),
            floor=float(under_null[:, i].mean() - offset[i]),
            floor_error=float(under_null[:, i].std(ddof=1)),
            p_value=_p_value(value[i], under_null[:, i], tails[i], rank),
            events=ready.pooled.events,
            null=null,
            note=ready.note,
            parts=parts,
        )
        for i, name in enumerate(ready.names)
    )


def _all_values(ready: Prepared, plan: Plan, permute: bool, label: str) -> tuple[Floats, Floats, Floats]:
    """Of the data, of replicas of the null, and of replicas about the data (none if the statistic knows its errors)."""
    events, count = ready.pooled, plan.replicas
    pooled, own = (events.pooled, events.pooled), (events.a, events.b)
    rng, rng_about = plan.rng("null", label), plan.rng("error", label)
    draws: list[Iterator[Measures]] = [iter([(events.a[:, None], events.b[:, None])])]
    draws.append(_permuted(events, count, rng) if permute else _perturbed(events, pooled, count, rng))
    if ready.errors is None:
        draws.append(_perturbed(events, own, count, rng_about))
    values = [ready.values(a, b) for a, b in _gathered(itertools.chain(*draws), CELLS // len(events.weight))]
    found = np.concatenate(values)
    return found[:1], found[1 : 1 + count], found[1 + count :]


def _gathered(draws: Iterable[Measures], most: int) -> Iterator[Measures]:
    """The same, as many at a time as may be: a statistic with work of its own does it less often."""
    held: list[Measures] = []
    for draw in draws:
        if held and sum(a.shape[1] for a, _ in held) + draw[0].shape[1] > 3 * most:
            yield np.concatenate([a for a, _ in held], axis=1), np.concatenate([b for _, b in held], axis=1)
            held = []
        held.append(draw)
    yield np.concatenate([a for a, _ in held], axis=1), np.concatenate([b for _, b in held], axis=1)


def _sizes(n: int, count: int) -> Iterator[int]:
    """So many replicas at a time, ``count`` in all."""
    size = max(1, CELLS // n)
    for start in range(0, count, size):
        yield min(size, count - start)


def _permuted(events: Pooled, count: int, rng: np.random.Generator) -> Iterator[Measures]:
    """Measures with permuted sides, ``(n, k)`` each."""
    for size in _sizes(len(events.weight), count):
        marks = np.stack([rng.permutation(events.second) for _ in range(size)], axis=1)
        b = np.where(marks, events.weight[:, None], 0.0)
        a = events.weight[:, None] - b
        yield a / a.sum(0), b / b.sum(0)


def _perturbed(
    events: Pooled, shape: tuple[Floats, Floats], count: int, rng: np.random.Generator
) -> Iterator[Measures]:
    """Two measures of this shape with the fluctuations of the samples, ``(n, k)`` each."""
    for size in _sizes(len(events.weight), count):
        signs: Floats = rng.integers(0, 2, (len(events.weight), size), dtype=np.int8).astype(np.float64) * 2.0 - 1.0
        a, b = (_fluctuation(own, signs) for own in (events.a, events.b))
        a += shape[0][:, None]
        b += shape[1][:, None]
        yield a, b


def _fluctuation(measure: Floats, signs: Floats) -> Floats:
    own: Floats = measure[:, None] * (signs - measure @ signs)
    return own / math.sqrt(max(1.0 - float(measure @ measure), 1e-12))


def _errors(ready: Prepared, about: Floats, null: Floats) -> Floats:
    scatter, noise = (ready.summarise(values).var(0, ddof=1) for values in (about, null))
    return np.asarray(np.sqrt(np.maximum(scatter - 2.0 * noise, noise) if ready.quadratic else scatter))


def _p_value(value: float, null: Floats, tail: Tail, rank: float) -> float:
    """(1 + k) / (1 + N); of the replicas that tie with the data, the share ``rank`` counts as more extreme."""
    if tail == "both":
        upper, lower = _p_value(value, null, "upper", rank), _p_value(value, null, "lower", 1.0 - rank)
        return min(1.0, 2.0 * min(upper, lower))
    slack = 1e-9 * abs(value)  # sums in another order
    ties = np.abs(null - value) <= slack
    beyond = (null > value if tail == "upper" else null < value) & ~ties
    extreme = int(beyond.sum()) + min(int(rank * (ties.sum() + 1)), int(ties.sum()))
    return (1 + extreme) / (1 + len(null))


def _parts(found: Floats, null: Floats, plan: Plan, rank: float) -> tuple[Part, ...]:
    largest = null.max(1)
    return tuple(
        Part(plan.name_of(j), float(value), *(_p_value(value, one, "upper", rank) for one in (null[:, j], largest)))
        for j, value in enumerate(found)
    )
