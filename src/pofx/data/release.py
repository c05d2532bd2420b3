"""Published measurements in ROOT and text files: histograms, matrices, and mean + covariance put together from several of them.

Shapes are those of numpy: ``TH1`` -> (n,), ``TH2`` -> (nx, ny), matrices -> (rows, columns). A ``TMatrixTSym`` is stored as its upper
triangle, row by row, and comes out full.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pofx.data.files import existing, guard, sniff
from pofx.data.patterns import close
from pofx.errors import FormatError, ShapeError

__all__ = [
    "Histogram",
    "Release",
    "combined_covariance",
    "read_histogram",
    "read_matrix",
    "read_release",
    "read_text_matrix",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Contents, bin edges per axis, variances (or None), and titles; without under- and overflow."""

    values: Floats
    edges: tuple[Floats, ...]
    variances: Floats | None = None
    title: str = ""
    axes: tuple[str, ...] = ()

    @property
    def centres(self) -> tuple[Floats, ...]:
        """The middle of every bin, per axis."""
        return tuple(0.5 * (e[1:] + e[:-1]) for e in self.edges)


@dataclass(frozen=True, eq=False)
class Release:
    """A measurement: mean (d,), covariance (d, d), one label per bin."""

    mean: Floats
    covariance: Floats
    labels: tuple[str, ...] = field(default_factory=tuple)

    @property
    def correlation(self) -> Floats:
        """covariance / (error x error); zero where an error is zero."""
        error = np.sqrt(np.diag(self.covariance))
        scale = np.divide(1.0, error, out=np.zeros_like(error), where=error > 0)
        return self.covariance * scale[:, None] * scale


def read_histogram(path: str | os.PathLike[str], key: str) -> Histogram:
    """A TH1 or TH2 (or TProfile) out of a ROOT file.

    >>> read_histogram("release.root", "hNuMuCC0piXsecLinearResult").values.shape  # doctest: +SKIP
    (58,)
    """
    full, found = _object(path, key, ("TH1", "TH2", "TProfile"))
    with guard(full, "a ROOT histogram"):
        names = [f"f{letter}axis" for letter in "XY"[: np.ndim(found.values())]]
        axes = tuple(str(found.member(name).member("fTitle")) for name in names)
        edges = tuple(np.asarray(found.axis(i).edges(), np.float64) for i in range(len(names)))
        variances = found.variances()
        errors = None if variances is None else np.asarray(variances, np.float64)
        return Histogram(np.asarray(found.values(), np.float64), edges, errors, str(found.title or ""), axes)


def read_matrix(path: str | os.PathLike[str], key: str) -> Floats:
    """A matrix ``(rows, columns)``: TMatrixT, TMatrixTSym (out of its upper triangle) or the contents of a TH2."""
    full, found = _object(path, key, ("TMatrixT", "TH2"))
    with guard(full, "a ROOT matrix"):
        if found.classname.startswith("TH2"):
            return np.asarray(found.values(), np.float64)
        rows, columns = int(found.member("fNrows")), int(found.member("fNcols"))
        elements = np.asarray(found.member("fElements"), np.float64)
        return _full(elements, rows, columns, found.classname.startswith("TMatrixTSym"), f"{full}: {key!r}")


def _full(elements: Floats, rows: int, columns: int, symmetric: bool, where: str) -> Floats:
    if symmetric and len(elements) == rows * (rows + 1) // 2:
        matrix = np.zeros((rows, rows))
        matrix[np.triu_indices(rows)] = elements
        return matrix + np.triu(matrix, 1).T
    if len(elements) != rows * columns:
        raise FormatError(f"{where}: expected {rows} x {columns} elements; got {len(elements)}")
    return elements.reshape(rows, columns)


def read_text_matrix(path: str | os.PathLike[str]) -> Floats:
    """A matrix ``(rows, columns)`` out of a text file: a table of numbers, or lines ``i j value`` (counted from 0 or from 1).

    Numbers may be separated by spaces, commas, semicolons, ``|`` or a lone ``-``. Lines without a number, and what follows a ``#`` or
    ``//``, are left out. Of ``i j value`` lines, either all pairs must be there, or each pair once; then the matrix is made symmetric.

    Raises
    ------
    FormatError : rows of different lengths, no numbers, or pairs that make no square matrix.

    >>> read_text_matrix("covariance_analysisI.txt").shape  # doctest: +SKIP
    (67, 67)
    """
    full = existing(path)
    with guard(full, "a matrix of numbers"):
        rows = [row for line in full.read_text(encoding="utf-8").splitlines() if (row := _numbers(line))]
        lengths = sorted({len(row) for row in rows})
        if len(lengths) != 1:
            raise FormatError(
                f"expected rows of numbers, all of one length; got lengths {lengths[:5] or 'none at all'}"
            )
        table = np.array(rows)
    return table if (found := _from_pairs(table)) is None else found


def _numbers(line: str) -> list[float]:
    """The numbers of a line; none if there is anything else on it."""
    words = re.split(r"[\s,;|]+", re.sub(r"(#|//).*", "", line).strip())
    try:
        return [float(word) for word in words if word not in ("", "-")]
    except ValueError:
        return []


def _from_pairs(table: Floats) -> Floats | None:
    """The matrix that lines ``i j value`` make; None if these are no such lines."""
    pairs = np.rint(table[:, :2]).astype(int) if table.shape[1] == 3 else np.zeros((0, 2), int)
    if not len(pairs) or np.any(pairs != table[:, :2]) or pairs.min() not in (0, 1):
        return None
    pairs -= pairs.min()
    size = int(pairs.max()) + 1
    matrix = np.full((size, size), np.nan)
    matrix[pairs[:, 0], pairs[:, 1]] = table[:, 2]
    whole = len(table) == size**2
    matrix = matrix if whole else np.where(np.isnan(matrix), matrix.T, matrix)
    return None if len(table) not in (size**2, size * (size + 1) // 2) or np.isnan(matrix).any() else matrix


def _object(path: str | os.PathLike[str], key: str, classes: tuple[str, ...]) -> tuple[Path, Any]:
    import uproot

    full = existing(path)
    if sniff(full) != "root":
        raise FormatError(f"{full}: expected a ROOT file")
    with guard(full, "root"), uproot.open(full) as file:
        there = file.classnames(cycle=False)
        good = [name for name, what in there.items() if what.startswith(classes)]
        if key not in there:
            raise FormatError(f"{full}: no object is called {key!r}; {close(key, good or there)}")
        if key not in good:
            raise FormatError(f"{full}: expected {key!r} to be a {' or '.join(classes)}; it is a {there[key]}")
        return full, file[key]


def read_release(
    path: str | os.PathLike[str],
    mean: str | Sequence[str],
    covariance: str | Sequence[str],
    scale: float = 1.0,
    *,
    covariance_path: str | os.PathLike[str] | None = None,
) -> Release:
    """Mean and covariance of a published measurement.

    Parameters
    ----------
    mean : histogram(s), put one after the other.
    covariance : matrices (or TH2) of the full size, which are added (e.g. statistical and systematic), or one block per mean
        histogram, where each has the size of its histogram, for independent measurements.
    scale : the mean is multiplied by it, the covariance by its square (1e39 brings cross sections near 1).
    covariance_path : where the matrices are in another file.

    >>> release = read_release("t2k.root", ["hNuMu", "hAntiNuMu"], ["CovStat", "CovSyst"], scale=1e39)  # doctest: +SKIP
    """
    names = [mean] if isinstance(mean, str) else list(mean)
    parts = [read_histogram(path, name).values.ravel() for name in names]
    matrices = [
        read_matrix(covariance_path or path, key)
        for key in ([covariance] if isinstance(covariance, str) else covariance)
    ]
    full = np.concatenate(parts)
    combined = combined_covariance(matrices, [len(part) for part in parts], str(path))
    if not np.allclose(combined, combined.T, rtol=1e-6, atol=1e-9 * np.abs(combined).max(initial=0)):
        raise ShapeError(f"{path}: the covariance is not symmetric")
    labels = tuple(f"{name}[{i}]" for name, part in zip(names, parts, strict=True) for i in range(len(part)))
    return Release(full * scale, 0.5 * (combined + combined.T) * scale**2, labels)


def combined_covariance(matrices: Sequence[Floats], sizes: Sequence[int], path: str) -> Floats:
    """The sum of matrices of the full size, or block-diagonal ones of the given sizes; ``path`` names them in the ShapeError."""
    total, shapes = sum(sizes), [matrix.shape for matrix in matrices]
    if matrices and all(shape == (total, total) for shape in shapes):
        return np.sum(matrices, axis=0)
    if shapes != [(size, size) for size in sizes]:
        raise ShapeError(
            f"{path}: expected covariances of shape {(total, total)}, or one of each of {[(s, s) for s in sizes]}; got {shapes}"
        )
    out, start = np.zeros((total, total)), 0
    for matrix, size in zip(matrices, sizes, strict=True):
        out[start : start + size, start : start + size] = matrix
        start += size
    return out
