r"""Whitening of two labelled samples together, such that nothing depends on the linear coordinates that they came in.

With C the covariance of both labels together, each with half the weight, :math:`C = V \Lambda V^T`, and :math:`C_0` that of label 0
about its own mean,

.. math:: z = R^T \Lambda^{-1/2} V^T (x - m), \qquad \Lambda^{-1/2} V^T C_0 V \Lambda^{-1/2} = R D R^T ,

has unit covariance, and its axes are those along which the spread of one label is diagonal: the generalised eigenvectors of (C_0, C).
Each axis points to the side of label 1. A linear map of x leaves z as it is, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers.base import Floats, Labelled, balanced_weights, centre_scale
from pofx.errors import DataError

__all__ = ["Whitening"]


@dataclass(frozen=True)
class Whitening:
    """z = (x - centre) @ matrix; ``(d,)`` and ``(d, k)`` with k < d where columns depend linearly on others."""

    centre: Floats
    matrix: Floats

    def __call__(self, x: Floats) -> Floats:
        """``(n, d)`` to ``(n, k)``."""
        return (x - self.centre) @ self.matrix

    @classmethod
    def of(cls, events: Labelled) -> Whitening:
        """Fitted to these events (with the size of their weights); DataError if all of them are the same.

        >>> rng = np.random.default_rng(1)
        >>> x, label = rng.normal(size=(100, 2)) * [1.0, 1e-3], np.repeat([False, True], 50)
        >>> z = Whitening.of(Labelled(x, label, np.ones(100)))(x)
        >>> np.cov(z.T, bias=True).round(9).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        weight = balanced_weights(events.label, np.abs(events.weight)) / len(events.label)
        centre, scale = centre_scale(events.x, weight)
        unit = (events.x - centre) / scale
        values, vectors = np.linalg.eigh((unit * weight[:, None]).T @ unit)
        kept = values > 10 * len(values) * np.finfo(float).eps * max(values[-1], 1e-300)
        if not kept.any():
            raise DataError("whitening: expected columns that vary; all events are the same")
        root = vectors[:, kept] / np.sqrt(values[kept])
        return cls(centre, root @ _axes(unit @ root, events.label, weight) / scale[:, None])


def _axes(z: Floats, label: NDArray[np.bool_], weight: Floats) -> Floats:
    """R above, ``(k, k)``."""
    means = [2 * weight[rows] @ z[rows] for rows in (~label, label)]
    inner = z[~label] - means[0]
    axes = np.linalg.eigh((inner * weight[~label, None]).T @ inner)[1]
    return axes * np.where((means[1] - means[0]) @ axes < 0, -1.0, 1.0)
