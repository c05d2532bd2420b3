r"""Where is a sample wrong? The weights of a classifier, their tails, and what the events in the tails have in common (arXiv:2305.16774).

The weight :math:`w(x) = p_{truth}(x) / p_{generated}(x)` is a classifier's D/(1 - D), each event's from a judge that has not seen it
(two folds). Generated events with small w are too many, true events with large w are missing from the sample. For either tail, the
events beyond a quantile of log w (both samples together) are described by a shallow decision tree on the columns as they come: its leaves
are boxes. Trees learn on one half of the events; shares of truth and sample in a box are counted in the other half, so that
a box found in noise has a ratio of one, within its error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers import Classifier, classifier
from pofx.classifiers.base import Floats, balanced_weights
from pofx.errors import ConfigError, DataError, ShapeError
from pofx.metrics.pvalues import Estimate
from pofx.metrics.samples import column_names, side
from pofx.metrics.scores import effective, permutation_p_value
from pofx.metrics.two_sample import Plan, Pooled

__all__ = ["Region", "Where", "where"]

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A box of events in one tail.

    Attributes
    ----------
    tail : ``"missing"`` (large weights) or ``"too many"`` (small ones).
    limits : column -> (low, high), infinite where it is open; other columns have no limits.
    truth, generated : share of either sample inside.
    ranges : column -> central 68 % range of the tail's events inside, weighted.
    """

    tail: str
    limits: dict[str, tuple[float, float]]
    truth: Estimate
    generated: Estimate
    ranges: dict[str, tuple[float, float]]

    @property
    def pull(self) -> float:
        """(truth - generated) / error."""
        return (self.truth.value - self.generated.value) / math.hypot(self.truth.error, self.generated.error)

    def __str__(self) -> str:
        box = " and ".join(f"{low:.4g} < {name} <= {high:.4g}" for name, (low, high) in self.limits.items())
        return f"{self.tail}: {box or 'everywhere'}: truth {self.truth}, generated {self.generated} ({self.pull:+.1f} sigma)"


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
    """

    log_weight_truth: Floats
    log_weight_generated: Floats
    p_value: float
    effective_share: float
    thresholds: tuple[float, float]
    regions: tuple[Region, ...]

    def __str__(self) -> str:
        head = f"weights: p = {self.p_value:.3g}, effective share {self.effective_share:.3f}"
        return "\n".join([head, *map(str, self.regions)])


def where(
    truth: Any,
    generated: Any,
    *,
    judge: str | Classifier = "trees",
    tail: float = 0.05,
    depth: int = 3,
    weight_truth: Any = None,
    weight_generated: Any = None,
    seed: int = 0,
) -> Where:
    """Weights of true and generated events, and boxes of those in the tails.

    Parameters
    ----------
    truth, generated : as in :func:`pofx.compare`, without clouds of points.
    judge : see :func:`pofx.c2st`.
    tail : share of all events in either tail.
    depth : of the trees, most limits per box.
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
    sides = side(truth, weight_truth, "truth"), side(generated, weight_generated, "generated")
    if sides[0].x.shape[-1] != sides[1].x.shape[-1]:
        raise ShapeError(f"expected two samples of equal columns; got shapes {sides[0].x.shape} and {sides[1].x.shape}")
    if min(float(one.weight.min()) for one in sides) < 0:
        raise DataError("where: expected weights of at least 0: events are counted")
    events, plan = Pooled.of(*sides), Plan(seed=seed)
    fold = _folds(events, plan.rng("folds"))
    log_weight = _log_weights(events, fold, judge, plan)
    first = ~fold  # judged by what the first fold taught
    chance = permutation_p_value(-log_weight[first], events.second[first], 999, plan.derived("p"), events.weight[first])
    low, high = (float(edge) for edge in np.quantile(log_weight, [tail, 1 - tail]))
    names = column_names(truth, events.x.shape[1])
    regions = [
        *_regions("missing", events, log_weight >= high, fold, names, depth),
        *_regions("too many", events, log_weight <= low, fold, names, depth),
    ]
    share = effective(np.exp(log_weight[events.second]) * events.weight[events.second]) / effective(sides[1].weight)
    return Where(
        log_weight[~events.second],
        log_weight[events.second],
        chance,
        share,
        (low, high),
        tuple(sorted(regions, key=lambda region: -abs(region.pull))),
    )


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
        fitted = classifier(judge).fit(events.x[learn], label, weight, seed=plan.derived("judge", number))
        found[~learn] = fitted.logit(events.x[~learn])
    return found


def _regions(tail: str, events: Pooled, inside: Marks, fold: Marks, names: tuple[str, ...], depth: int) -> list[Region]:
    """Leaves in which the tail is at least twice as frequent as on average, counted in the other fold."""
    from sklearn.tree import DecisionTreeClassifier

    weight = balanced_weights(events.second, events.weight)
    least = max(10, int(fold.sum() * 0.005))
    tree = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=least, random_state=0)
    tree.fit(events.x[fold], inside[fold], sample_weight=weight[fold])
    leaves = tree.apply(events.x)
    average, made = np.average(inside[fold], weights=weight[fold]), []
    for leaf in np.unique(leaves[fold]):
        learnt, counted = fold & (leaves == leaf), ~fold & (leaves == leaf)
        if np.average(inside[learnt], weights=weight[learnt]) > 2 * average and counted.any():
            true, made_up = (_share(events, counted, ~fold & rows) for rows in (~events.second, events.second))
            ranges = _ranges(events.x[counted & inside], weight[counted & inside], names)
            made.append(Region(tail, _limits(tree.tree_, int(leaf), names), true, made_up, ranges))
    return made


def _share(events: Pooled, inside: Marks, whole: Marks) -> Estimate:
    """Share of the weight, with half an event added so that its error never vanishes."""
    weight = events.weight[whole]
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


def _ranges(x: Floats, weight: Floats, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    if not len(x):
        return {}
    found = {}
    for name, column in zip(names, x.T, strict=True):
        order = np.argsort(column)
        below = np.cumsum(weight[order]) / weight.sum()
        ends = np.searchsorted(below, [0.16, 0.84]).clip(0, len(order) - 1)
        found[name] = (float(column[order[ends[0]]]), float(column[order[ends[1]]]))
    return found
