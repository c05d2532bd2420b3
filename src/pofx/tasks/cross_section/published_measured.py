r"""A published measurement, central values m and covariance C, and the directions in which C says something.

Everything is done on the correlation :math:`R_{ij} = C_{ij} / (\sigma_i \sigma_j) = \sum_k \lambda_k v_k v_k^T`, which does not know
units: a direction :math:`v_k` is *empty* if :math:`\lambda_k` is not above a tolerance, by default what rounding alone leaves of a zero,
:math:`d \epsilon \lambda_{max}`. With :math:`u = (x - m) / \sigma`,

.. math:: \chi^2 = \sum_{\lambda_k > t} \frac{(v_k \cdot u)^2}{\lambda_k}, \qquad |u_0|^2 = \sum_{\lambda_k \le t} (v_k \cdot u)^2,

and :math:`\chi^2` along the empty directions, infinite if they are really empty, is at least :math:`|u_0|^2 / t`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from pofx.data.numbers import as_floats, as_numpy
from pofx.data.spec import Column
from pofx.errors import ColumnError, ConfigError, DataError, NonFiniteError, ShapeError

__all__ = ["UNTESTABLE", "Direction", "Floats", "Measured", "Spectrum", "prediction_rows"]

Floats = NDArray[np.float64]
UNTESTABLE = (
    "Whether the measurement is Gaussian cannot be tested from a mean and a covariance: every law has both. "
    "That needs throws (universes) of the measurement."
)
NEGATIVE = 1e-4
"""How far below zero an eigenvalue of a correlation may be, relative to the largest, before the matrix is refused as no covariance."""
NAMED = 6
"""Bins by which a direction is named."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Central values and covariance, as published.

    Attributes
    ----------
    central : ``(bins,)``.
    covariance : ``(bins, bins)``, symmetric.
    columns : one per bin; ``bin0``, ``bin1``, ... where there are no names.
    smearing : ``(bins, true bins)``, by which predictions are multiplied before they are compared (the additional smearing matrix of a
        regularised unfolding, or a folding matrix); None where predictions compare as they are.
    title, unit : of the measurement; columns without a unit get this one.
    notes : what else one has to know: the reference, conventions.
    edges : bin edges by quantity, ``(bins, 2)`` each, where they are known.

    Raises
    ------
    ShapeError, NonFiniteError, ColumnError, DataError (not symmetric, negative variances).

    >>> measured = Measured([1.0, 2.0], [[0.04, 0.0], [0.0, 0.01]], unit="1e-38 cm2")
    >>> measured.errors.tolist(), measured.columns[1].name
    ([0.2, 0.1], 'bin1')
    """

    central: Floats
    covariance: Floats
    columns: tuple[Column, ...] = ()
    smearing: Floats | None = None
    title: str = ""
    unit: str = ""
    notes: tuple[str, ...] = ()
    edges: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        central = _finite(self.central, "central", 1)
        covariance = _covariance(self.covariance, len(central))
        columns = self.columns or tuple(Column(f"bin{i}", self.unit) for i in range(len(central)))
        _check_columns(columns, len(central))
        smearing = None if self.smearing is None else _finite(self.smearing, "smearing", 2)
        if smearing is not None and len(smearing) != len(central):
            raise ShapeError(f"smearing: expected {len(central)} rows, one per bin; got shape {smearing.shape}")
        edges = {
            str(name).replace("/", "_"): _finite(pairs, f"edges of {name!r}", 2) for name, pairs in self.edges.items()
        }
        for name, pairs in edges.items():
            if pairs.shape != (len(central), 2):
                raise ShapeError(f"edges of {name!r}: expected shape {(len(central), 2)}; got {pairs.shape}")
        units = tuple(column if column.unit else replace(column, unit=self.unit) for column in columns)
        given: Any = self.notes
        notes = (given,) if isinstance(given, str) else tuple(given)
        made = {
            "central": central, "covariance": covariance, "columns": units, "smearing": smearing, "notes": notes, "edges": edges,
        }  # fmt: skip
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        mean: str | Sequence[str] | None = None,
        covariance: str | Sequence[str] | None = None,
        smearing: str | None = None,
        scale: float = 1.0,
        unit: str = "",
        title: str = "",
    ) -> Measured:
        """A measurement out of ROOT, HDF5, npz or text files: see :func:`pofx.tasks.cross_section.published_reading.read_measured`."""
        from pofx.tasks.cross_section.published_reading import read_measured

        return read_measured(
            path, mean=mean, covariance=covariance, smearing=smearing, scale=scale, unit=unit, title=title
        )

    def __len__(self) -> int:
        return len(self.central)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bins."""
        return tuple(column.name for column in self.columns)

    @property
    def errors(self) -> Floats:
        """Standard deviations ``(bins,)``."""
        return np.sqrt(np.diag(self.covariance))

    def relative_errors(self) -> Floats:
        """error / |central value| ``(bins,)``; infinite where the central value is zero."""
        size = np.abs(self.central)
        return np.divide(self.errors, size, out=np.full(len(self), np.inf), where=size > 0)

    def marginal(self, bins: Sequence[int]) -> Measured:
        """The measurement of some of the bins, in that order: sub-blocks of mean and covariance, exact for any distribution."""
        chosen = list(bins)
        return replace(
            self,
            central=self.central[chosen],
            covariance=self.covariance[np.ix_(chosen, chosen)],
            columns=tuple(self.columns[i] for i in chosen),
            smearing=None if self.smearing is None else self.smearing[chosen],
            edges={name: pairs[chosen] for name, pairs in self.edges.items()},
        )

    def spectrum(self, tolerance: float | None = None) -> Spectrum:
        """Eigenvalues and directions of the correlation; see :class:`Spectrum`."""
        return Spectrum.of(self, tolerance)

    def smeared(self, predictions: Floats) -> Floats:
        """Predictions ``(n, true bins)`` as they compare with the measurement, ``(n, bins)``: times the smearing matrix, if any."""
        return predictions if self.smearing is None else np.stack([self.smearing @ row for row in predictions])

    def compared(
        self, predictions: Mapping[str, ArrayLike] | ArrayLike, smeared: bool = False
    ) -> tuple[list[str], Floats]:
        """Names and values ``(n, bins)`` of predictions, multiplied by the smearing matrix unless they are ``smeared`` already."""
        if smeared or self.smearing is None:
            return prediction_rows(predictions, len(self))
        names, rows = prediction_rows(predictions, self.smearing.shape[1])
        return names, self.smeared(rows)


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in the space of the bins, in units of their errors.

    Attributes
    ----------
    eigenvalue : variance of the correlation along it.
    vector : ``(bins,)``, of length one.
    bins : the names of the bins that make most of it, with their components, largest first.
    """

    eigenvalue: float
    vector: Floats
    bins: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        terms = " ".join(f"{value:+.2f} {name}" for name, value in self.bins)
        rest = float(1 - sum(value**2 for _, value in self.bins))
        return f"{terms} (eigenvalue {self.eigenvalue:.2g}" + (
            f"; other bins make {rest:.0%})" if rest > 0.005 else ")"
        )


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The correlation of a measurement by its eigenvectors.

    Attributes
    ----------
    central, scale : ``(bins,)``: u = (x - central) / scale, the scale being the errors.
    values : ``(bins,)`` eigenvalues, ascending.
    vectors : ``(bins, bins)``, in columns.
    tolerance : eigenvalues up to it are empty.
    names : of the bins.
    """

    central: Floats
    scale: Floats
    values: Floats
    vectors: Floats
    tolerance: float
    names: tuple[str, ...]

    @classmethod
    def of(cls, measured: Measured, tolerance: float | None = None) -> Spectrum:
        """Decompose.

        Parameters
        ----------
        tolerance : of an eigenvalue, relative to the largest one. By default bins x 2.2e-16, or twice the most negative eigenvalue if that
            is more: a covariance that was rounded when it was written shows it there.

        Raises
        ------
        ConfigError for a tolerance outside [0, 1); DataError if an eigenvalue is so negative (below -1e-4 of the largest) that the matrix
        is no covariance; a tolerance of one's own overrides that.
        """
        if tolerance is not None and not 0 <= tolerance < 1:
            raise ConfigError(
                f"tolerance: expected a number from 0 to below 1, relative to the largest eigenvalue; got {tolerance}"
            )
        scale = _scale(measured)
        values, vectors = np.linalg.eigh(measured.covariance / scale[:, None] / scale)
        largest = float(values[-1])
        if largest <= 0:
            raise DataError("the covariance has no positive eigenvalue: there is no measurement in it")
        relative = _rounding(values) if tolerance is None else tolerance
        return cls(measured.central, scale, values, vectors, relative * largest, measured.names)

    def of_bins(self, measured: Measured, bins: Sequence[int]) -> Spectrum:
        """That of some of the bins, with the same tolerance."""
        return replace(Spectrum.of(measured.marginal(bins), 0.0), tolerance=self.tolerance)

    @property
    def full(self) -> NDArray[np.bool_]:
        """``(bins,)``: which directions are not empty."""
        return (self.values > self.tolerance) & (self.values > 0)

    @property
    def rank(self) -> int:
        """Directions that are not empty."""
        return int(self.full.sum())

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue that is not empty."""
        return float(self.values[-1] / self.values[self.full][0])

    def components(self, x: Floats) -> Floats:
        """``(n, bins)``: the parts of (x - central) / scale along each direction, for ``x`` of shape ``(n, bins)``."""
        return ((x - self.central) / self.scale) @ self.vectors

    def chi2(self, x: Floats) -> Floats:
        """``(n,)`` of the directions that are not empty."""
        return (self.components(x)[:, self.full] ** 2 / self.values[self.full]).sum(1)

    def outside(self, x: Floats) -> Floats:
        """``(n,)``: length of (x - central) / scale along the empty directions; 0 where there are none."""
        return np.sqrt((self.components(x)[:, ~self.full] ** 2).sum(1))

    def throws(self, n: int, rng: np.random.Generator) -> Floats:
        """Gaussian throws of the measurement, ``(n, bins)``; constant along empty directions."""
        root = self.vectors[:, self.full] * np.sqrt(self.values[self.full])
        return self.central + self.scale * (rng.standard_normal((n, self.rank)) @ root.T)

    def directions(self, which: NDArray[np.bool_]) -> tuple[Direction, ...]:
        """The chosen directions, named by their largest bins."""
        return tuple(self._direction(int(k)) for k in np.flatnonzero(which))

    def empty(self) -> tuple[Direction, ...]:
        """The directions in which nothing is known to vary."""
        return self.directions(~self.full)

    def independent(self) -> list[int]:
        """As many bins as the rank, in order, from which the others follow: the first pivots of a pivoted Cholesky decomposition.

        Fewer where bins that are almost redundant make even these singular.
        """
        correlation = (self.vectors * self.values) @ self.vectors.T
        pivots = lapack.dpstrf(np.asfortranarray(correlation), tol=0.0)[1] - 1
        for count in range(self.rank, 1, -1):
            bins = np.sort(pivots[:count])
            if np.linalg.eigvalsh(correlation[np.ix_(bins, bins)])[0] > self.tolerance:
                return [int(i) for i in bins]
        return [int(pivots[0])]

    def _direction(self, k: int) -> Direction:
        vector = self.vectors[:, k] * np.sign(self.vectors[np.abs(self.vectors[:, k]).argmax(), k])
        order = np.argsort(-np.abs(vector))[:NAMED]
        bins = tuple((self.names[i], float(vector[i])) for i in order if abs(vector[i]) > 0.1 * abs(vector[order[0]]))
        return Direction(float(self.values[k]), vector, bins)


def prediction_rows(predictions: Mapping[str, ArrayLike] | ArrayLike, bins: int) -> tuple[list[str], Floats]:
    """Names and values ``(n, bins)`` of predictions given by name, as rows, or as a single one; typed errors otherwise.

    >>> prediction_rows({"nominal": [1.0, 2.0]}, 2)
    (['nominal'], array([[1., 2.]]))
    """
    if isinstance(predictions, Mapping):
        named = {str(name): _finite(row, f"prediction {name!r}", 1) for name, row in predictions.items()}
        names, rows = list(named), list(named.values())
    else:
        array = as_floats(as_numpy(predictions), "predictions", np.float64)
        rows = list(_finite(np.atleast_2d(array), "predictions", 2))
        names = [f"prediction {i}" for i in range(len(rows))]
    if not rows:
        raise DataError("predictions: expected at least one; got none")
    for name, row in zip(names, rows, strict=True):
        if len(row) != bins:
            raise ShapeError(f"prediction {name!r}: expected {bins} bins, as the measurement has; got {len(row)}")
    return names, np.stack(rows)


def _rounding(values: Floats) -> float:
    """The relative tolerance that the eigenvalues themselves ask for."""
    below = float(max(-values[0], 0.0) / values[-1])
    if below > NEGATIVE:
        raise DataError(
            f"not a covariance: its correlation has the eigenvalue {values[0]:.3g} beside a largest one of {values[-1]:.3g}; "
            "if it was rounded so coarsely, give a tolerance"
        )
    return float(max(len(values) * np.finfo(np.float64).eps, 2 * below))


def _scale(measured: Measured) -> Floats:
    """The errors; where one is zero, the central value, so that the direction is empty and a deviation still has a size."""
    errors, size = measured.errors, np.abs(measured.central)
    return np.where(errors > 0, errors, np.where(size > 0, size, 1.0))


def _covariance(values: ArrayLike, bins: int) -> Floats:
    matrix = _finite(values, "covariance", 2)
    if matrix.shape != (bins, bins):
        raise ShapeError(f"covariance: expected shape {(bins, bins)} for {bins} central values; got {matrix.shape}")
    variance = np.diag(matrix)
    if (variance < 0).any():
        raise DataError(f"covariance: bin {int(np.argmin(variance))} has the variance {variance.min():.3g}")
    scale = np.sqrt(variance) + (variance == 0)
    asymmetry = np.abs(matrix - matrix.T) / scale[:, None] / scale
    if asymmetry.max(initial=0) > 1e-6:
        i, j = np.unravel_index(asymmetry.argmax(), asymmetry.shape)
        raise DataError(
            f"covariance: not symmetric; between bins {i} and {j} it says {matrix[i, j]:.6g} and {matrix[j, i]:.6g}"
        )
    return 0.5 * (matrix + matrix.T)


def _finite(values: ArrayLike, where: str, ndim: int) -> Floats:
    array = as_floats(as_numpy(values), where, np.float64)
    if array.ndim != ndim or array.size == 0:
        shape = "(bins,)" if ndim == 1 else "(rows, columns)"
        raise ShapeError(f"{where}: expected shape {shape}, not empty; got {array.shape}")
    if not np.isfinite(array).all():
        raise NonFiniteError(
            f"{where}: NaN or infinity at {tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])}"
        )
    return array


def _check_columns(columns: tuple[Column, ...], bins: int) -> None:
    names = [column.name for column in columns]
    if len(names) != bins:
        raise ShapeError(f"columns: expected {bins}, one per bin; got {len(names)}")
    if len(set(names)) < bins:
        twice = next(name for name in names if names.count(name) > 1)
        raise ColumnError(f"columns: the name {twice!r} is there more than once")
