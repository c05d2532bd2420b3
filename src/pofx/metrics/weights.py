r"""Where is a sample wrong? The weights of a classifier, their tails, and what the events in the tails have in common (arXiv:2305.16774).

The weight :math:`w(x) = p_{truth}(x) / p_{generated}(x)` is a classifier's D/(1 - D), each event's from judges that have not seen it
(two folds, three judges each), with the temperature (arXiv:1706.04599) that fits these events best: where judges have learnt noise,
weights are near one. Generated events with small w are too many, true events with large w are missing from the sample.

For either tail, a shallow regression tree of max(log w, 0), or of max(-log w, 0), on the columns as they come finds boxes; those in which
events beyond a quantile of log w are frequent are clusters of failing events. All that is said of boxes is of the second fold, which the
judges of its weights have not seen, and the tree is not told which events are true: so a box found in noise has a ratio of one, within its
error, in samples weighted in one way exactly so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers import Classifier, classifier
from pofx.classifiers.base import Floats, Labelled, balanced_weights
from pofx.data.spec import Column
from pofx.errors import CapabilityError, ConfigError, DataError
from pofx.metrics.calibrated import temperature
from pofx.metrics.pvalues import Estimate
from pofx.metrics.samples import Features, Side, both_sides, side_of_any
from pofx.metrics.scores import effective, permutation_p_value
from pofx.metrics.two_sample import Plan, Pooled

__all__ = ["TAILS", "Region", "Tail", "Where", "where"]

Marks = NDArray[np.bool_]
Tail = Literal["missing", "too many"]
TAILS: tuple[Tail, ...] = ("missing", "too many")
"""Large weights, and small ones."""
JUDGES = 3
"""Per fold, whose mean logit counts: less of what each has learnt of noise."""
LEAVES = 6
"""Boxes of each tail, at most."""
LEAST_GAIN = 0.02
"""Share of the variance that a cut has to explain."""


@dataclass(frozen=True)
class Region:
    """A box of events in one tail.

    Attributes
    ----------
    tail : ``"missing"`` (large weights) or ``"too many"`` (small ones).
    limits : column -> (low, high), infinite where it is open; other columns have no limits.
    truth, generated : share of either sample inside.
    share : of the tail's events, those inside.
    centre, spread : column -> mean and standard deviation of the tail's events inside, in the column's unit; empty for fewer than two.
    """

    tail: Tail
    limits: dict[str, tuple[float, float]]
    truth: Estimate
    generated: Estimate
    share: Estimate
    centre: dict[str, Estimate]
    spread: dict[str, Estimate]

    @property
    def pull(self) -> float:
        """(truth - generated) / error."""
        return (self.truth.value - self.generated.value) / math.hypot(self.truth.error, self.generated.error)

    @property
    def box(self) -> str:
        """The limits in words."""
        return " and ".join(_interval(name, *ends) for name, ends in self.limits.items()) or "everywhere"

    def __str__(self) -> str:
        return f"{self.tail}: {self.box}: truth {self.truth}, generated {self.generated} ({self.pull:+.1f} sigma)"


@dataclass(frozen=True, eq=False)
class Where:
    """The result of :func:`where`.

    Attributes
    ----------
    log_weight_truth, log_weight_generated : ``(n,)`` and ``(m,)``, log w of every event.
    p_value : of the first fold's AUC, by permutation of labels.
    effective_share : of generated events that reweighting with w would leave, (sum w)^2 / (n sum w^2).
    thresholds : of log w, of the two tails.
    regions : the largest differences first.
    sides : truth and generated as they were compared.
    """

    log_weight_truth: Floats
    log_weight_generated: Floats
    p_value: float
    effective_share: float
    thresholds: tuple[float, float]
    regions: tuple[Region, ...]
    sides: tuple[Side, Side]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Names and units."""
        return self.sides[0].named

    def beyond(self, tail: Tail) -> tuple[Marks, Marks]:
        """Which true and which generated events are in this tail, ``(n,)`` and ``(m,)``."""
        low, high = self.thresholds
        both = self.log_weight_truth, self.log_weight_generated
        truth, generated = (log_w >= high if tail == "missing" else log_w <= low for log_w in both)
        return truth, generated

    def __str__(self) -> str:
        head = f"weights: p = {self.p_value:.3g}, effective share {self.effective_share:.3f}"
        return "\n".join([head, *map(str, self.regions)])


def where(  # noqa: PLR0913
    truth: Any,
    generated: Any,
    *,
    features: Features | None = None,
    judge: str | Classifier = "trees",
    tail: float = 0.05,
    depth: int = 4,
    weight_truth: Any = None,
    weight_generated: Any = None,
    seed: int = 0,
) -> Where:
    """Weights of true and generated events, and boxes of those in the tails.

    Parameters
    ----------
    truth, generated, features : as in :func:`pofx.compare`; clouds of points need features.
    judge : see :func:`pofx.c2st`.
    tail : share of all events in either tail.
    depth : of the trees, most limits per box; a tree grows by its best split, to :data:`LEAVES` boxes at most.
    weight_truth, weight_generated : ``(n,)`` and ``(m,)``, none negative.
    seed : of folds, judges and permutations.

    >>> rng = np.random.default_rng(1)
    >>> made = rng.uniform(size=(2000, 2))
    >>> found = where(made[:1000], made[1000:][made[1000:, 0] < 0.8])
    >>> region = found.regions[0]
    >>> region.tail, list(region.limits), region.generated.value < 0.05 < region.truth.value
    ('missing', ['x0'], True)
    """
    if not 0 < tail < 0.5 or depth < 1:
        raise ConfigError(f"where: expected a tail between 0 and 0.5 and a depth of at least 1; got {tail} and {depth}")
    sides = _sides(
        side_of_any(truth, weight_truth, "truth", features),
        side_of_any(generated, weight_generated, "generated", features),
    )
    events, plan = Pooled.of(*sides), Plan(seed=seed)
    fold = _folds(events, plan.rng("folds"))
    log_weight = _log_weights(events, fold, judge, plan)
    first = ~fold  # judged by what the first fold taught
    chance = permutation_p_value(-log_weight[first], events.second[first], 999, plan.derived("p"), events.weight[first])
    low, high = (float(edge) for edge in np.quantile(log_weight, [tail, 1 - tail]))
    names = tuple(column.name for column in sides[0].named)
    judged, far = Pooled(events.x[first], events.second[first], events.weight[first]), log_weight[first]
    regions = [
        *_regions("missing", judged, far, tail, names, depth),
        *_regions("too many", judged, -far, tail, names, depth),
    ]
    share = effective(np.exp(log_weight[events.second]) * events.weight[events.second]) / effective(sides[1].weight)
    return Where(
        log_weight[~events.second],
        log_weight[events.second],
        chance,
        share,
        (low, high),
        tuple(sorted(regions, key=lambda region: -abs(region.pull))),
        sides,
    )


def _sides(truth: Side, generated: Side) -> tuple[Side, Side]:
    """With the same columns, as rows, without negative weights."""
    sides = both_sides(truth, generated, ("truth", "generated"))
    if sides[0].mask is not None:
        raise CapabilityError("where: clouds of points need features=, a function from events to rows (n, f)")
    if min(float(one.weight.min(initial=0.0)) for one in sides) < 0:
        raise DataError("where: expected weights of at least 0: events are counted")
    return sides


def _folds(events: Pooled, rng: np.random.Generator) -> Marks:
    """Half of either side."""
    chosen = np.zeros(len(events.second), dtype=bool)
    for rows in (np.flatnonzero(events.second), np.flatnonzero(~events.second)):
        chosen[rng.permutation(rows)[: len(rows) // 2]] = True
    return chosen


def _log_weights(events: Pooled, fold: Marks, judge: str | Classifier, plan: Plan) -> Floats:
    """log p_truth / p_generated of events that the judge has not seen, ``(n,)``."""
    found = np.empty(len(fold))
    for number, learn in enumerate((fold, ~fold)):
        label = ~events.second[learn]
        weight = balanced_weights(label, events.weight[learn])
        seeds = [plan.derived("judge", number, k) for k in range(JUDGES)]
        fitted = [classifier(judge).fit(events.x[learn], label, weight, seed=seed) for seed in seeds]
        rest = Labelled(
            events.x[~learn], ~events.second[~learn], balanced_weights(events.second[~learn], events.weight[~learn])
        )
        scores = np.mean([one.logit(rest.x) for one in fitted], axis=0)
        found[~learn] = scores / temperature(scores, rest)
    return found


def _regions(tail: Tail, events: Pooled, far: Floats, share: float, names: tuple[str, ...], depth: int) -> list[Region]:
    """Leaves in which the tail is at least twice as frequent as on average; ``far`` is log w, or -log w, of these events."""
    from sklearn.tree import DecisionTreeRegressor

    target, least = np.maximum(far, 0.0), max(10, int(len(far) * 0.005))
    gain = LEAST_GAIN * float(np.cov(target, aweights=events.weight))
    tree = DecisionTreeRegressor(
        max_depth=depth, max_leaf_nodes=LEAVES, min_samples_leaf=least, min_impurity_decrease=gain, random_state=0
    )
    leaves = tree.fit(events.x, target, sample_weight=events.weight).apply(events.x)
    extreme, made = far >= np.quantile(far, 1 - share), []
    average, balanced = np.average(extreme, weights=events.weight), balanced_weights(events.second, events.weight)
    for leaf in np.unique(leaves):
        inside = leaves == leaf
        if np.average(extreme[inside], weights=events.weight[inside]) > 2 * average:
            true, made_up = (_share(events.weight, inside, rows) for rows in (~events.second, events.second))
            both = inside & extreme
            moments = _moments(events.x[both], balanced[both], names)
            limits = _limits(tree.tree_, int(leaf), names)
            made.append(Region(tail, limits, true, made_up, _share(balanced, both, extreme), *moments))
    return made


def _interval(name: str, low: float, high: float) -> str:
    """
    >>> _interval("pt", 1.0, 2.0), _interval("pt", -math.inf, 2.0), _interval("pt", 1.0, math.inf)
    ('1 < pt <= 2', 'pt <= 2', 'pt > 1')
    """
    if low == -math.inf:
        return f"{name} <= {high:.4g}"
    return f"{name} > {low:.4g}" if high == math.inf else f"{low:.4g} < {name} <= {high:.4g}"


def _share(weight: Floats, inside: Marks, whole: Marks) -> Estimate:
    """Share of the weight of ``whole``, with half an event added so that its error never vanishes."""
    weight = weight[whole]
    if not weight.sum() > 0:
        return Estimate(math.nan, math.inf)
    share, n = float(weight @ inside[whole] / weight.sum()), effective(weight)
    smooth = (share * n + 0.5) / (n + 1.0)
    return Estimate(share, math.sqrt(smooth * (1.0 - smooth) / n))


def _limits(tree: Any, leaf: int, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """What the path to a leaf asks of each column."""
    found: dict[str, tuple[float, float]] = {}
    node = leaf
    while node != 0:
        left = node in tree.children_left
        node = int(np.flatnonzero((tree.children_left if left else tree.children_right) == node)[0])
        name, cut = names[tree.feature[node]], float(tree.threshold[node])
        low, high = found.get(name, (-math.inf, math.inf))
        found[name] = (low, min(high, cut)) if left else (max(low, cut), high)
    return found


def _moments(x: Floats, weight: Floats, names: tuple[str, ...]) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Mean and standard deviation of each column, with the errors of independent events."""
    n = effective(weight) if weight.sum() > 0 else 0.0
    if n < 2:
        return {}, {}
    share = weight / weight.sum()
    mean = share @ x
    variance, fourth = (share @ (x - mean) ** power for power in (2, 4))
    spread = np.sqrt(variance * n / (n - 1))
    error = np.sqrt(np.maximum(fourth - variance**2, 0.0) / n) / np.where(spread > 0, 2 * spread, 1.0)
    centres = {
        name: Estimate(float(m), float(s / math.sqrt(n))) for name, m, s in zip(names, mean, spread, strict=True)
    }
    return centres, {name: Estimate(float(s), float(e)) for name, s, e in zip(names, spread, error, strict=True)}
