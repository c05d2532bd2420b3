r"""What the scores of a classifier on held-out events say: balanced accuracy, area under the ROC curve, and the permutation test.

With weights w, and F the weighted distribution of the scores of one label, ties counted half,

.. math:: \mathrm{AUC} = \frac{\sum_{i \in 1} w_i F_0(s_i)}{\sum_{i \in 1} w_i}, \qquad
          \sigma^2 = \sum_{k = 0, 1} \frac{\sum_{i \in k} w_i^2 (V_i - \bar V_k)^2}{(\sum_{i \in k} w_i)^2},

with the placements :math:`V_i = F_0(s_i)` of label 1 and :math:`1 - F_1(s_i)` of label 0 (DeLong et al., Biometrics 44 (1988) 837).
An event of weight two counts in all values as the event twice would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.classifiers.base import Floats, as_weight
from pofx.data.numbers import as_floats, as_numpy
from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError

__all__ = ["Scores", "accuracy", "area", "permutation_p_value", "scored"]

CELLS = 4_000_000
"""Labels that are permuted at once."""


class Scores(NamedTuple):
    """Scores ``(n,)`` in ascending order, with label (True is 1) and weight."""

    score: Floats
    label: NDArray[np.bool_]
    weight: Floats


class Value(NamedTuple):
    """A number and its variance."""

    value: float
    variance: float


def scored(scores: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Scores:
    """Checked and sorted; ShapeError, NonFiniteError or DataError otherwise."""
    found, marks = as_floats(as_numpy(scores), "scores", np.float64), as_numpy(label)
    if found.ndim != 1 or marks.shape != found.shape:
        raise ShapeError(f"expected scores and label of shape (n,); got {found.shape} and {marks.shape}")
    if np.isnan(found).any():
        raise NonFiniteError(f"scores: number {np.flatnonzero(np.isnan(found))[0]} is NaN")
    weights, one = as_weight(weight, len(found), "weight"), marks.astype(bool)
    if not np.isin(marks, (0, 1)).all() or min(one.sum(), (~one).sum()) == 0:
        raise DataError(f"label: expected 0 and 1, both at least once; got {np.unique(marks)[:4].tolist()}")
    if min(weights[one].sum(), weights[~one].sum()) <= 0:
        raise DataError("weight: expected a positive sum for each label")
    order = np.argsort(found, kind="stable")
    return Scores(found[order], one[order], weights[order])


def accuracy(scores: Scores) -> Value:
    """Mean of the two labels' shares of events on their side of zero (zero itself counts half), each share weighted.

    Its variance is binomial, with half an event added to either outcome, so that it never vanishes.
    """
    right = 0.5 * (1.0 + np.sign(scores.score) * np.where(scores.label, 1.0, -1.0))
    shares = [_share(right[rows], scores.weight[rows]) for rows in (scores.label, ~scores.label)]
    return Value(sum(s.value for s in shares) / 2, sum(s.variance for s in shares) / 4)


def _share(right: Floats, weight: Floats) -> Value:
    share, events = float(weight @ right / weight.sum()), effective(weight)
    smooth = np.clip((share * events + 0.5) / (events + 1), 0.0, 1.0)
    return Value(share, float(smooth * (1 - smooth)) / events)


def effective(weight: Floats) -> float:
    """(sum w)^2 / sum w^2."""
    return float(weight.sum() ** 2 / (weight @ weight))


def area(scores: Scores) -> Value:
    """Area under the ROC curve, with the variance of DeLong et al. and half a misplaced event per label, so that it never vanishes.

    >>> area(scored([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])).value
    0.75
    """
    starts = _group_starts(scores.score)
    placements = _placements(scores.label[None], scores.weight, starts)
    values, variances = _area(placements, scores.label[None], scores.weight)
    value = float(values[0])
    half = sum(0.25 / effective(scores.weight[rows]) ** 2 for rows in (scores.label, ~scores.label))
    return Value(value, float(variances[0]) + half * (value - 0.5) ** 2)


def _group_starts(score: Floats) -> NDArray[np.intp]:
    """Where each group of equal scores begins."""
    return np.flatnonzero(np.r_[True, np.diff(score) > 0])


def _placements(label: NDArray[np.bool_], weight: Floats, starts: NDArray[np.intp]) -> Floats:
    """For k labellings of sorted scores, the weighted share of the other label's scores below (for label 0: above) each, ``(k, n)``."""
    sizes = np.diff(np.r_[starts, label.shape[1]])
    mine = np.where(label, weight, 0.0)
    below = []
    for part in (mine, weight - mine):
        groups = np.add.reduceat(part, starts, axis=1)
        middle = np.cumsum(groups, axis=1) - groups / 2
        below.append(np.repeat(middle / groups.sum(1, keepdims=True), sizes, axis=1))
    return np.where(label, below[1], 1.0 - below[0])


def _area(placements: Floats, label: NDArray[np.bool_], weight: Floats) -> tuple[Floats, Floats]:
    """AUC and its variance for each labelling, ``(k,)``."""
    one = np.where(label, weight, 0.0)
    other = weight - one
    total, rest = one.sum(1), other.sum(1)
    value = (one * placements).sum(1) / total
    square = (placements - value[:, None]) ** 2
    return value, (one**2 * square).sum(1) / total**2 + (other**2 * square).sum(1) / rest**2


def permutation_p_value(
    scores: ArrayLike, label: ArrayLike, permutations: int = 999, seed: int = 0, weight: ArrayLike | None = None
) -> float:
    r"""One-sided p-value of the AUC of held-out scores against random permutations of their labels, :math:`(1 + k)/(1 + N)`.

    k of N permutations have an AUC of at least that of the data; ties have mid-ranks. If both samples have one law, the p-value is valid
    in samples of any size, :math:`P(p \le a) \le a`, for whatever classifier that has not seen these events.

    With weights, (score, weight) pairs get permuted labels, and each AUC, less 1/2, is divided by its own error. The p-value then holds in
    large samples even where only the weighted laws agree, but not those of the weights (arXiv:1304.5939).

    Parameters
    ----------
    scores, label, weight : ``(n,)``; higher scores are more like label 1.
    permutations : N.
    seed : of the permutations; the order of the events does not matter.

    >>> permutation_p_value([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [0, 0, 0, 0, 1, 1, 1, 1]) < 0.03
    True
    """
    if permutations < 1:
        raise ConfigError(f"permutations: expected at least 1; got {permutations}")
    events = scored(scores, label, weight)
    equal = bool((events.weight == events.weight[0]).all())
    statistic = _rank_sums(events) if equal else _studentised(events)
    least = statistic(events.label[None])[0]
    least -= 1e-9 * abs(least)  # sums of floating-point numbers in another order
    above = sum(int((statistic(labels) >= least).sum()) for labels in _permuted(events, permutations, seed))
    return (1 + above) / (1 + permutations)


Labels = NDArray[np.bool_]


def _permuted(events: Scores, permutations: int, seed: int) -> Iterator[Labels]:
    """Random labellings with as many events of label 1, ``(k, n)``, some at a time."""
    rng, n = np.random.default_rng(seed), len(events.label)
    canonical = np.arange(n) < events.label.sum()
    size = max(1, CELLS // n)
    for start in range(0, permutations, size):
        yield rng.permuted(np.tile(canonical, (min(size, permutations - start), 1)), axis=1)


def _rank_sums(events: Scores) -> Callable[[Labels], Floats]:
    """Sums of the mid-ranks of label 1, ``(k,)``: the AUC up to constants (Mann and Whitney)."""
    starts = _group_starts(events.score)
    ends = np.r_[starts[1:], len(events.score)]
    ranks = np.repeat((starts + ends + 1) / 2, ends - starts)
    return lambda labels: labels @ ranks


def _studentised(events: Scores) -> Callable[[Labels], Floats]:
    """(AUC - 1/2) / error, ``(k,)``."""
    starts = _group_starts(events.score)

    def statistic(labels: Labels) -> Floats:
        value, variance = _area(_placements(labels, events.weight, starts), labels, events.weight)
        return (value - 0.5) / np.sqrt(np.maximum(variance, 1e-300))

    return statistic
