"""Boosted trees on binned columns (scikit-learn's ``HistGradientBoostingClassifier``), stopped early on a share of the events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pofx.classifiers.base import Floats, as_rows, labelled
from pofx.classifiers.signed import positive_weights
from pofx.config import check_at_least, check_between

__all__ = ["FittedTrees", "TreeClassifier"]


@dataclass(frozen=True)
class TreeClassifier:
    """Gradient-boosted decision trees; no scaling of columns matters, and heavy tails do no harm.

    Parameters
    ----------
    trees : largest number of them.
    learning_rate : shrinkage of each tree.
    leaves : largest number of leaves per tree.
    least_events : smallest number of events in a leaf.
    penalty : L2 penalty of leaf values.
    bins : of each column, 2 to 255.
    validation : share of the events, by label, whose loss says when to stop.
    patience : trees without a better loss before it stops.

    >>> x = np.random.default_rng(1).normal(size=(400, 2)) + np.repeat([[0.0], [3.0]], 200, axis=0)
    >>> fitted = TreeClassifier(trees=20).fit(x, np.repeat([0, 1], 200), seed=1)
    >>> bool(fitted.logit([[0.0, 0.0]]) < 0 < fitted.logit([[3.0, 3.0]]))
    True
    """

    trees: int = 500
    learning_rate: float = 0.1
    leaves: int = 31
    least_events: int = 20
    penalty: float = 1.0
    bins: int = 127
    validation: float = 0.1
    patience: int = 10
    name: ClassVar[str] = "trees"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "trees", "least_events", "patience")
        check_at_least(self, 2, "leaves")
        check_at_least(self, 0, "penalty")
        check_between(self, 1e-6, 1, "learning_rate")
        check_between(self, 2, 255, "bins")
        check_between(self, 0.01, 0.9, "validation")

    def fit(self, x: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, seed: int) -> FittedTrees:
        """See :class:`~pofx.classifiers.base.Classifier`. Negative weights are replaced by their conditional mean first."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        events = positive_weights(labelled(x, label, weight), seed)
        made = HistGradientBoostingClassifier(
            max_iter=self.trees, learning_rate=self.learning_rate, max_leaf_nodes=self.leaves,
            min_samples_leaf=self.least_events, l2_regularization=self.penalty, max_bins=self.bins, early_stopping=True,
            validation_fraction=self.validation, n_iter_no_change=self.patience, random_state=seed % 2**32,
        )  # fmt: skip
        made.fit(events.x, events.label.astype(np.int64), sample_weight=events.weight)
        return FittedTrees(made, events.x.shape[1])


@dataclass(frozen=True)
class FittedTrees:
    """Boosted trees of ``width`` columns; ``forest`` is the fitted scikit-learn estimator."""

    forest: Any
    width: int

    def logit(self, x: ArrayLike) -> Floats:
        """log p(1|x) - log p(0|x), ``(n,)``."""
        rows = as_rows(x, "x", self.width)
        return np.asarray(self.forest.decision_function(rows), dtype=np.float64) if len(rows) else np.zeros(0)
