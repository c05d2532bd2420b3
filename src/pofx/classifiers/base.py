r"""The contract of a classifier: events with a label 0 or 1 in, the logarithm of the ratio of their densities out.

With weights whose sums are equal for both labels, the best logit is the log-density ratio (Neyman and Pearson),

.. math:: \mathrm{logit}(x) = \log \frac{p(1|x)}{p(0|x)} = \log \frac{p(x|1)}{p(x|0)} ;

:func:`balanced_weights` makes such weights.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.data.numbers import as_floats, as_numpy
from pofx.errors import DataError, NonFiniteError, ShapeError

__all__ = [
    "Classifier",
    "FittedClassifier",
    "Labelled",
    "as_rows",
    "as_weight",
    "balanced_weights",
    "centre_scale",
    "labelled",
]

Floats = NDArray[np.float64]


@runtime_checkable
class FittedClassifier(Protocol):
    """What :meth:`Classifier.fit` returns."""

    def logit(self, x: ArrayLike) -> Floats:
        """log p(1|x) - log p(0|x), ``(n,)``, for ``x`` of shape ``(n, d)``; higher means more like label 1."""


@runtime_checkable
class Classifier(Protocol):
    """A way to tell two samples apart, given by a frozen config."""

    name: ClassVar[str]

    def fit(self, x: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, seed: int) -> FittedClassifier:
        """Learn from ``x`` of shape ``(n, d)``, ``label`` (``(n,)``, 0 or 1) and ``weight`` (``(n,)``, of positive sum for each label)."""


class Labelled(NamedTuple):
    """Checked events of two labels: ``(n, d)``, booleans ``(n,)``, weights ``(n,)`` of mean one."""

    x: Floats
    label: NDArray[np.bool_]
    weight: Floats


def labelled(x: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Labelled:
    """The events that a classifier is to learn from, checked.

    Raises
    ------
    ShapeError : x is not ``(n, d)``, label or weight not ``(n,)``.
    NonFiniteError : NaN or infinity in x or weight.
    DataError : labels other than 0 and 1, fewer than two events of a label, or a label whose weights have no positive sum.

    >>> labelled([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]).weight.tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    rows, marks = as_rows(x, "x"), as_numpy(label)
    if marks.shape != (len(rows),):
        raise ShapeError(f"label: expected shape ({len(rows)},); got {marks.shape}")
    if not np.isin(marks, (0, 1)).all():
        raise DataError(f"label: expected 0 and 1; got {np.unique(marks)[:4].tolist()}")
    one = marks.astype(bool)
    if min(one.sum(), (~one).sum()) < 2:
        raise DataError(f"expected at least two events of each label; got {(~one).sum()} of 0 and {one.sum()} of 1")
    weights = as_weight(weight, len(rows), "weight")
    if min(weights[one].sum(), weights[~one].sum()) <= 0:
        raise DataError("weight: expected a positive sum for each label")
    return Labelled(rows, one, weights / weights.mean())


def as_rows(x: Any, where: str, width: int | None = None) -> Floats:
    """``(n, d)`` finite numbers in float64, ``(n,)`` taken as one column; ``where`` names them in the errors."""
    rows = as_floats(as_numpy(x), where, np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or (width is not None and rows.shape[1] != width):
        raise ShapeError(f"{where}: expected shape (n, {'d' if width is None else width}); got {rows.shape}")
    bad = ~np.isfinite(rows)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise NonFiniteError(f"{where}: row {row}, column {column} is {rows[row, column]}; expected finite numbers")
    return rows


def as_weight(weight: Any, n: int, where: str) -> Floats:
    """``(n,)`` finite weights; ones for None."""
    if weight is None:
        return np.ones(n)
    found = as_floats(as_numpy(weight), where, np.float64)
    if found.shape != (n,):
        raise ShapeError(f"{where}: expected shape ({n},); got {found.shape}")
    if not np.isfinite(found).all():
        raise NonFiniteError(f"{where}: event {np.flatnonzero(~np.isfinite(found))[0]} has no finite weight")
    return found


def balanced_weights(label: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Weights, ``(n,)``, scaled such that both labels have the same sum and the mean is one.

    >>> balanced_weights([0, 0, 0, 1]).round(3).tolist()
    [0.667, 0.667, 0.667, 2.0]
    """
    one = as_numpy(label).astype(bool)
    weights = as_weight(weight, len(one), "weight")
    return np.where(one, weights / weights[one].sum(), weights / weights[~one].sum()) * (len(one) / 2)


def centre_scale(x: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Weighted mean and standard deviation of each column, ``(d,)`` each; the value itself and one where a column is constant.

    >>> centre_scale(np.array([[1.0, 1e-200], [1.0, 3e-200]]), np.ones(2))
    (array([1.e+000, 2.e-200]), array([1.e+000, 1.e-200]))
    """
    share, low, high = weight / weight.sum(), x.min(0), x.max(0)
    varies = high > low
    centre = np.where(varies, share @ x, low)
    unit = np.where(varies, high - low, 1.0)  # squares of 1e-200 would vanish
    scale = unit * np.sqrt(share @ ((x - centre) / unit) ** 2)
    return centre, np.where(varies, scale, 1.0)
