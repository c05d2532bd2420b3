r"""The classifier two-sample test: can a judge tell two samples apart (arXiv:1610.06545)?

A classifier learns on one part of both samples and is asked about the other part. Its balanced accuracy and the AUC of its scores are
1/2 if both samples have one law, and at most those of the exact likelihood ratio otherwise: the test has the power of its judge.
The mean over repeated random splits is the value; the p-value comes from the first split alone.

Errors. Splits share events, so their mean is less certain than independent ones would make it. For the accuracies A_1 ... A_K of K splits
with variance v each (that of their test events),

.. math:: \sigma^2 = v \left(\frac{1}{K} + \frac{K - 1}{K} \rho\right), \qquad \rho = \max_{s \ge 1} s \, t \, r^{s - 1},

where r and t are the shares of the events that train and that test. Under the null, A - 1/2 is a sum of products of s labels, of one test
event and s - 1 training events; a product that is in one split is in another with a probability of at most rho. So this is an upper bound,
which the AUC of a linear judge reaches (s is two; for r = t = 1/2, rho is 1/2); trees and networks stay 10 to 20 % below. It is
``floor_error``. ``error`` adds what the choice of training events does: where the A_k scatter more than v explains, the rest is taken for
the variance between judges. With a single split there is no scatter, and ``error`` is that of the test events for this one judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers import Classifier, classifier
from pofx.classifiers.base import Labelled, balanced_weights
from pofx.classifiers.whitening import Whitening
from pofx.errors import CapabilityError, ConfigError, DataError
from pofx.metrics.samples import Side, both_sides, side
from pofx.metrics.scores import Scores, Value, accuracy, area, effective, permutation_p_value, scored

__all__ = ["C2ST", "Split", "c2st", "permutation_p_value"]

FEWEST = 10
"""Events per side to train on, at least."""


@dataclass(frozen=True)
class Split:
    """What one judge said about its held-out events; errors are those of the finite number of these events."""

    accuracy: float
    error: float
    auc: float
    auc_error: float


@dataclass(frozen=True)
class C2ST:
    """The result of :func:`c2st`.

    Attributes
    ----------
    accuracy, error : mean balanced accuracy of the splits, and its standard error (see the module for what it covers).
    auc, auc_error : the same for the area under the ROC curve.
    p_value : of the AUC of the first split, by permutation of its held-out labels.
    floor, floor_error : 1/2, and the standard deviation of ``accuracy`` if both samples have one law.
    splits : one by one.
    events_train, events_test : per side (a, b) and split.
    judge : its name.
    """

    accuracy: float
    error: float
    auc: float
    auc_error: float
    p_value: float
    floor: float
    floor_error: float
    splits: tuple[Split, ...]
    events_train: tuple[int, int]
    events_test: tuple[int, int]
    judge: str

    def __str__(self) -> str:
        return (
            f"C2ST ({self.judge}): accuracy {self.accuracy:.4f} ± {self.error:.4f} (floor {self.floor} ± {self.floor_error:.4f}), "
            f"AUC {self.auc:.4f} ± {self.auc_error:.4f}, p = {self.p_value:.3g}"
        )


class _Sizes(NamedTuple):
    """Events of one side that train and that test, out of all."""

    train: int
    test: int
    all: int


def c2st(  # noqa: PLR0913
    a: Any,
    b: Any,
    *,
    judge: str | Classifier = "network",
    splits: int = 3,
    train: float = 0.5,
    test: float | None = None,
    whiten: bool = False,
    permutations: int = 999,
    weight_a: Any = None,
    weight_b: Any = None,
    seed: int = 0,
) -> C2ST:
    """Compare two samples by how well a classifier tells them apart.

    Parameters
    ----------
    a, b : arrays ``(n, d)`` and ``(m, d)``, tensors, data frames, data sets or :class:`~pofx.data.events.Events`; of the last two all
        fields, the context and the weights count. Clouds of points, if they are the only field, are compared as sets.
    judge : ``"network"``, ``"trees"``, or a config such as ``NetworkClassifier(hidden=(500, 500))``; for clouds ``"network"`` or a
        :class:`~pofx.classifiers.CloudClassifier`.
    splits : independent random splits into events that train the judge and events that test it.
    train, test : a float is a share of either side, an integer a number of events per side; ``test=None`` takes all that do not train.
    whiten : rotate and scale such that the training events of both sides together, each side with half the weight, have unit covariance.
        The axes are those along which the covariance of side a is diagonal, so the result is the same after any invertible linear map.
    permutations : of the held-out labels behind the p-value.
    weight_a, weight_b : ``(n,)`` and ``(m,)``, in place of those of a data set; may be negative, of positive sum.
    seed : of splits, judges and permutations.

    Sides of unequal size or weight are balanced: each has half the weight in training and in every value.

    Raises
    ------
    ColumnError, ShapeError, NonFiniteError, DataError : the samples have different columns, NaN, too few events.
    ConfigError : an unknown judge, shares that add up to more than one.
    CapabilityError : a cloud of points beside other fields or a context, or with a judge that is not for clouds.

    >>> rng = np.random.default_rng(1)
    >>> found = c2st(rng.normal(0, 1, (200, 1)), rng.normal(3, 1, (200, 1)), judge="trees", splits=1)
    >>> found.accuracy > 0.8, found.p_value
    (True, 0.001)
    """
    sides = both_sides(side(a, weight_a, "a"), side(b, weight_b, "b"))
    if splits < 1:
        raise ConfigError(f"splits: expected at least 1; got {splits}")
    config = classifier(judge)
    if sides[0].mask is not None:
        config, sides = _of_clouds(judge, sides, whiten)
    sizes = [_sizes(len(side.x), train, test, name) for side, name in zip(sides, "ab", strict=True)]
    held_out = [_judged(config, sides, sizes, whiten, _seed(seed, number)) for number in range(splits)]
    first = held_out[0]
    p_value = permutation_p_value(first.score, first.label, permutations, _seed(seed, "permutations"), first.weight)
    return _result(held_out, sizes, p_value, config.name)


def _seed(seed: int, *labels: str | int) -> int:
    from pofx.training.noise import derive_seed

    return derive_seed(seed, "c2st", *labels)


# Samples


def _of_clouds(judge: Any, sides: tuple[Side, Side], whiten: bool) -> tuple[Classifier, tuple[Side, Side]]:
    """The judge of these clouds, and the clouds as rows of equal length."""
    from pofx.classifiers.clouds import CloudClassifier

    if whiten:
        raise ConfigError("whiten: clouds of points are not whitened; expected False")
    chosen = CloudClassifier() if judge == "network" else judge
    if not isinstance(chosen, CloudClassifier):
        raise CapabilityError(f"clouds of points: expected judge='network' or a CloudClassifier; got {judge!r}")
    length = max(side.x.shape[1] for side in sides)
    first, second = (_cloud_side(side, length) for side in sides)
    return replace(chosen, features=sides[0].x.shape[2]), (first, second)


def _cloud_side(side: Side, length: int) -> Side:
    from pofx.classifiers.clouds import cloud_rows

    mask = np.zeros(side.x.shape[:2], bool) if side.mask is None else side.mask
    more = length - side.x.shape[1]
    return side._replace(x=cloud_rows(np.pad(side.x, ((0, 0), (0, more), (0, 0))), np.pad(mask, ((0, 0), (0, more)))))


def _sizes(n: int, train: float, test: float | None, name: str) -> _Sizes:
    """How many events of a side train, and how many test."""
    trained = _count(train, n, "train")
    tested = n - trained if test is None else _count(test, n, "test")
    if test is not None and max(train, test) < 1 < train + test:
        raise ConfigError(f"expected train + test of at most 1; got {train} + {test}")
    if trained < FEWEST or tested < 2 or trained + tested > n:
        raise DataError(
            f"{name}: expected at least {FEWEST} events to train on and 2 to test on, of {n} in all; got {trained} and {tested}"
        )
    return _Sizes(trained, tested, n)


def _count(wanted: Any, n: int, name: str) -> int:
    if isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool) and wanted >= 1:
        return int(wanted)
    if isinstance(wanted, float) and 0 < wanted < 1:
        return int(wanted * n)
    raise ConfigError(f"{name}: expected a share between 0 and 1, or a number of events; got {wanted!r}")


# One split


def _judged(config: Classifier, sides: tuple[Side, Side], sizes: Sequence[_Sizes], whiten: bool, seed: int) -> Scores:
    """The scores of events that a judge has not seen."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(size.all) for size in sizes]
    train = _part(sides, [order[: size.train] for order, size in zip(orders, sizes, strict=True)])
    rows = [order[size.train : size.train + size.test] for order, size in zip(orders, sizes, strict=True)]
    test = _part(sides, rows)
    if whiten:
        change = Whitening.of(train)
        train, test = (part._replace(x=change(part.x)) for part in (train, test))
    fitted = config.fit(train.x, train.label, train.weight, seed=seed)
    return scored(fitted.logit(test.x), test.label, test.weight)


def _part(sides: tuple[Side, Side], rows: Sequence[NDArray[np.intp]]) -> Labelled:
    """Some events of either side, b with label 1, each side with half the weight."""
    label = np.repeat([False, True], [len(some) for some in rows])
    x, weight = (
        np.concatenate([part[some] for part, some in zip(parts, rows, strict=True)])
        for parts in zip(*((side.x, side.weight) for side in sides), strict=True)
    )
    for name, sum_ in (("a", weight[~label].sum()), ("b", weight[label].sum())):
        if not sum_ > 0:
            raise DataError(f"weight_{name}: expected a positive sum in every part; that of a split is {sum_}")
    return Labelled(x, label, balanced_weights(label, weight))


# All splits


def _result(held_out: Sequence[Scores], sizes: Sequence[_Sizes], p_value: float, judge: str) -> C2ST:
    pairs = [(accuracy(scores), area(scores)) for scores in held_out]
    trained, tested = (max(size[k] / size.all for size in sizes) for k in (0, 1))
    found = [_mean([pair[k] for pair in pairs], trained, tested) for k in (0, 1)]
    splits = tuple(Split(*(n for v in pair for n in (v.value, math.sqrt(v.variance)))) for pair in pairs)
    null = float(np.mean([sum(1 / effective(s.weight[rows]) for rows in (s.label, ~s.label)) / 16 for s in held_out]))
    return C2ST(
        accuracy=found[0].value,
        error=math.sqrt(found[0].variance),
        auc=found[1].value,
        auc_error=math.sqrt(found[1].variance),
        p_value=p_value,
        floor=0.5,
        floor_error=math.sqrt(null * _together(len(pairs), _shared(trained, tested))),
        splits=splits,
        events_train=(sizes[0].train, sizes[1].train),
        events_test=(sizes[0].test, sizes[1].test),
        judge=judge,
    )


def _mean(values: Sequence[Value], trained: float, tested: float) -> Value:
    """Mean over the splits; its variance is that of the test events and what the scatter tells of that between judges."""
    count, shared = len(values), _shared(trained, tested)
    numbers, inner = [v.value for v in values], float(np.mean([v.variance for v in values]))
    variance = inner * _together(count, shared)
    if count > 1 and trained < 1:
        rest = max(0.0, float(np.var(numbers, ddof=1)) - inner)
        variance += rest / (1 - trained) * _together(count, trained)
    return Value(float(np.mean(numbers)), variance)


def _together(count: int, correlation: float) -> float:
    """Variance of the mean of numbers of unit variance and this correlation."""
    return 1 / count + (1 - 1 / count) * correlation


def _shared(trained: float, tested: float) -> float:
    """rho: the largest of s t r^(s - 1) over s = 1, 2, ...

    >>> _shared(0.5, 0.5)
    0.5
    """
    orders = np.arange(1, 1000)
    return min(1.0, float((orders * tested * trained ** (orders - 1.0)).max()))
