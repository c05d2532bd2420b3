r"""Statistics of multivariate normality. All act on rows whitened by their own mean and covariance, so none depends on either.

With z whitened (covariance with 1/n) and :math:`r_i^2 = |z_i|^2`:

.. math::

    b_1 = \Big|\frac1n \sum_i z_i^{\otimes 3}\Big|^2, \qquad b_2 = \frac1n \sum_i r_i^4 \qquad \text{(Mardia, Biometrika 57 (1970) 519)}

.. math::

    T = \frac1n \sum_{ij} e^{-\beta^2 |z_i - z_j|^2 / 2} - \frac{2}{(1 + \beta^2)^{d/2}} \sum_i e^{-\beta^2 r_i^2 / 2 (1 + \beta^2)}
        + \frac{n}{(1 + 2 \beta^2)^{d/2}}

(Henze and Zirkler, Commun. Stat. Theory Methods 19 (1990) 3595) with :math:`\beta = (n (2 d + 1) / 4)^{1/(d + 4)} / \sqrt2`; and the
distance of Cramer and von Mises between the :math:`r_i^2` and their exact law, that of :math:`(n - 1)^2/n` times a Beta(d/2, (n - d - 1)/2)
where the covariance is that with 1/(n - 1). In many dimensions T is ruled by its diagonal and has little power; it is kept because it
is customary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pofx.data.numbers import as_floats, as_numpy
from pofx.errors import DataError, NonFiniteError, ShapeError

__all__ = ["henze_zirkler", "mardia", "radial", "squared_mahalanobis", "whitened"]

Floats = NDArray[np.float64]
MOST = 2000
"""Events that enter the double sum of Henze and Zirkler: the first so many."""
BLOCK = 512


def rows_of(x: ArrayLike) -> Floats:
    """``(n, d)`` finite numbers, more rows than columns plus one; ShapeError, NonFiniteError, DataError."""
    found = as_floats(as_numpy(x), "x", np.float64)
    if found.ndim != 2 or found.shape[1] < 1:
        raise ShapeError(f"x: expected shape (n, d); got {found.shape}")
    if not np.isfinite(found).all():
        raise NonFiniteError(f"x: expected finite numbers; row {int(np.argmin(np.isfinite(found).all(1)))} has others")
    n, d = found.shape
    if n < d + 2:
        raise DataError(f"x: expected more rows than columns plus one, {d + 2} or more for {d} columns; got {n}")
    return found


def whitened(x: ArrayLike) -> Floats:
    """Rows with mean zero and unit covariance (with 1/(n - 1)), by the Cholesky factor of the correlation.

    Raises
    ------
    DataError if the covariance is singular: drop constant columns, or project on the directions that vary.

    >>> z = whitened(np.random.default_rng(1).normal(size=(50, 2)) @ [[1.0, 0.5], [0.0, 2.0]])
    >>> np.cov(z.T).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    rows = rows_of(x)
    centred = rows - rows.mean(0)
    sigma = centred.std(0, ddof=1)
    if not (sigma > 0).all():
        raise DataError(f"x: column {int(np.argmin(sigma > 0))} is constant; drop it")
    unit = centred / sigma
    correlation = unit.T @ unit / (len(rows) - 1)
    smallest = float(np.linalg.eigvalsh(correlation)[0])
    if smallest < 1e-10:
        raise DataError(
            f"x: the covariance is singular (an eigenvalue of the correlation is {smallest:.2g}); drop columns that follow from others, "
            "or project on the directions that vary"
        )
    return np.asarray(np.linalg.solve(np.linalg.cholesky(correlation), unit.T).T)


def squared_mahalanobis(x: ArrayLike) -> Floats:
    """(x - mean)^T S^{-1} (x - mean) of every row, ``(n,)``, with the sample's own mean and covariance (with 1/(n - 1)).

    >>> d2 = squared_mahalanobis(np.random.default_rng(1).normal(size=(50, 3)))
    >>> round(float(d2.mean()), 6)  # d (n - 1) / n
    2.94
    """
    return np.asarray((whitened(x) ** 2).sum(1))


def mardia(x: ArrayLike) -> tuple[float, float]:
    """Mardia's skewness and kurtosis; for a normal law about d (d + 1) (d + 2) / n and d (d + 2).

    >>> skewness, kurtosis = mardia(np.random.default_rng(1).normal(size=(4000, 2)))
    >>> round(skewness, 2), round(kurtosis, 1)
    (0.0, 8.0)
    """
    return mardia_of(whitened(x))


def henze_zirkler(x: ArrayLike) -> float:
    """The statistic of Henze and Zirkler, of the first 2000 rows.

    >>> 0 < henze_zirkler(np.random.default_rng(1).normal(size=(200, 2))) < 1
    True
    """
    return henze_zirkler_of(whitened(x))


def mardia_of(z: Floats) -> tuple[float, float]:
    """Of rows whitened with 1/(n - 1); the triple moments are summed over i <= j, with their multiplicities."""
    n, d = z.shape
    z = z * np.sqrt(n / (n - 1))
    skewness = 0.0
    for i in range(d):
        third = (z[:, i, None] * z[:, i:]).T @ z[:, i:] / n  # (j, k), i <= j, i <= k
        weight = np.full(third.shape, 3.0)
        weight[0, :] = weight[:, 0] = 3.0
        weight[0, 0] = 1.0
        weight[0, 1:] = weight[1:, 0] = 1.5
        skewness += float((weight * third**2).sum()) if d - i > 1 else float(third[0, 0] ** 2)
    return skewness, float((z**2).sum(1).__pow__(2).mean())


def henze_zirkler_of(z: Floats) -> float:
    """Of whitened rows."""
    z = z[:MOST]
    n, d = z.shape
    z = z * np.sqrt(n / (n - 1))
    beta2 = 0.5 * (n * (2 * d + 1) / 4) ** (2 / (d + 4))
    square = (z**2).sum(1)
    pairs = 0.0
    for start in range(0, n, BLOCK):
        part = slice(start, start + BLOCK)
        distance = square[part, None] + square - 2 * z[part] @ z.T
        pairs += float(np.exp(-0.5 * beta2 * np.maximum(distance, 0.0)).sum())
    single = float(np.exp(-0.5 * beta2 * square / (1 + beta2)).sum())
    return float(pairs / n - 2 * (1 + beta2) ** (-d / 2) * single + n * (1 + 2 * beta2) ** (-d / 2))


def radial(z: Floats) -> float:
    """Distance of Cramer and von Mises between the squared radii of whitened rows and their exact law."""
    n, d = z.shape
    u = np.sort(stats.beta.cdf((z**2).sum(1) * n / (n - 1) ** 2, d / 2, (n - d - 1) / 2))
    return float(((u - (np.arange(n) + 0.5) / n) ** 2).sum() + 1 / (12 * n))
