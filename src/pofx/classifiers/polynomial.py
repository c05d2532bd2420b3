"""Logistic regression on powers of the columns and of random projections: a quick judge for smooth differences in shape.

The features of standardised x are its columns, their squares and cubes, the same of fixed random directions, and the squared radius with
its square. Skewness, kurtosis and spread in any direction are linear in them, so few events suffice, where trees and networks need many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pofx.classifiers.base import Floats, as_rows, labelled
from pofx.classifiers.signed import positive_weights
from pofx.config import check_at_least

__all__ = ["FittedPolynomial", "PolynomialClassifier"]


@dataclass(frozen=True)
class PolynomialClassifier:
    """Logistic regression on low powers (scikit-learn's ``LogisticRegression``).

    Parameters
    ----------
    directions : random projections beside the columns.
    penalty : L2 penalty of the coefficients of standardised features, relative to one event.
    iterations : of the minimiser at most.

    >>> x = np.random.default_rng(1).normal(size=(400, 2)) + np.repeat([[0.0], [3.0]], 200, axis=0)
    >>> fitted = PolynomialClassifier().fit(x, np.repeat([0, 1], 200), seed=1)
    >>> bool(fitted.logit([[0.0, 0.0]]) < 0 < fitted.logit([[3.0, 3.0]]))
    True
    """

    directions: int = 32
    penalty: float = 30.0
    iterations: int = 60
    name: ClassVar[str] = "polynomial"

    def __post_init__(self) -> None:
        check_at_least(self, 0, "directions", "penalty")
        check_at_least(self, 1, "iterations")

    def fit(self, x: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, seed: int) -> FittedPolynomial:
        """See :class:`~pofx.classifiers.base.Classifier`. Negative weights are replaced by their conditional mean first."""
        from sklearn.linear_model import LogisticRegression

        events = positive_weights(labelled(x, label, weight), seed)
        centre, spread = events.x.mean(0), events.x.std(0)
        scale = np.where(spread > 0, spread, 1.0)
        rng = np.random.default_rng(seed)
        directions = rng.standard_normal((events.x.shape[1], self.directions))
        directions /= np.linalg.norm(directions, axis=0)
        raw = _features((events.x - centre) / scale, directions)
        middle, width = raw.mean(0), raw.std(0)
        width = np.where(width > 0, width, 1.0)
        made = LogisticRegression(C=1.0 / max(self.penalty, 1e-9), max_iter=self.iterations, tol=1e-3)
        made.fit((raw - middle) / width, events.label.astype(np.int64), sample_weight=events.weight)
        return FittedPolynomial(made, centre, scale, directions, middle, width)


@dataclass(frozen=True, eq=False)
class FittedPolynomial:
    """Coefficients, and how columns become features."""

    regression: Any
    centre: Floats
    scale: Floats
    directions: Floats
    middle: Floats
    width: Floats

    def logit(self, x: ArrayLike) -> Floats:
        """log p(1|x) - log p(0|x), ``(n,)``."""
        rows = (as_rows(x, "x", len(self.centre)) - self.centre) / self.scale
        features = (_features(rows, self.directions) - self.middle) / self.width
        return np.asarray(self.regression.decision_function(features), dtype=np.float64)


def _features(z: Floats, directions: Floats) -> Floats:
    lines = np.concatenate([z, z @ directions], axis=1)
    radius = (z**2).mean(1, keepdims=True)
    return np.concatenate([lines, lines**2, lines**3, radius, radius**2], axis=1)
