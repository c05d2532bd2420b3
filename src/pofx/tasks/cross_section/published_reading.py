"""A published mean and covariance out of files of any kind: ROOT histograms and matrices, HDF5, npz, CSV and plain text.

What is named stands in the file itself (``"CovStat"``), in another one (``"covariance.root:CovStat"``), or is another one
(``"covariance.csv"``, ``"covariance.txt"``); other files are looked for beside the first. The files of a release folder need no names.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pofx.data.files import FORMATS, existing, guard, sniff
from pofx.data.numbers import as_floats, as_numpy
from pofx.data.patterns import close
from pofx.data.release import combined_covariance, read_histogram, read_matrix, read_text_matrix
from pofx.data.spec import Column
from pofx.errors import ConfigError, DataError, FormatError, ShapeError
from pofx.tasks.cross_section.published_measured import Floats, Measured

__all__ = ["array_in", "arrays_in", "is_number", "read_measured", "read_table"]

_FILE = re.compile(rf"^(.+(?:{'|'.join(re.escape(ending) for ending in FORMATS)}))(?::(.+))?$", re.IGNORECASE)
_ENDS = ("_low", "_high")


class _Vector(NamedTuple):
    """Values with what else the file says about the bins."""

    values: Floats
    columns: tuple[Column, ...] = ()
    edges: dict[str, Floats] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    title: str = ""


def read_measured(
    path: str | os.PathLike[str],
    *,
    mean: str | Sequence[str] | None = None,
    covariance: str | Sequence[str] | None = None,
    smearing: str | None = None,
    scale: float = 1.0,
    unit: str = "",
    title: str = "",
) -> Measured:
    """A measurement out of one file or several.

    Parameters
    ----------
    path : ``.root .h5 .npz .csv .txt``; a CSV of one row per bin.
    mean : histogram(s), arrays or columns, put one after the other; ``central`` if it is left out (not in ROOT files).
    covariance : matrices, which are added if each has the full size (statistical, systematic), or make blocks if each has the size of its
        mean; ``covariance``, or ``covariance.csv`` beside a CSV, if it is left out. Text matrices are tables or lines ``i j value``.
    smearing : the matrix that predictions are multiplied by, rows for the measured bins; ``smearing`` is taken if the file has one.
    scale : on the mean, squared on the covariance: 1e39 brings cross sections in cm^2 near 1.
    unit, title : where the file has none.

    Raises
    ------
    FormatError, ShapeError, DataError, ConfigError : what was expected, what came, where.

    >>> Measured.read("t2k.root", mean=["hNuMu", "hAntiNuMu"], covariance=["CovStat", "CovSyst"], scale=1e39)  # doctest: +SKIP
    """
    main = existing(path)
    kind = sniff(main)
    if kind not in ("root", "hdf5", "npz", "csv"):
        raise FormatError(f"{main}: expected a .root, .h5, .npz, .csv or .txt file; this is {kind}")
    if kind == "root" and (mean is None or covariance is None):
        raise ConfigError(f"{main}: a ROOT file needs the names of its mean and covariance")
    vectors = [_vector(main, name) for name in _listed(mean, "central")]
    values = np.concatenate([vector.values for vector in vectors])
    matrices = [
        _matrix(main, name) for name in _listed(covariance, "covariance.csv" if kind == "csv" else "covariance")
    ]
    joint = combined_covariance(matrices, [len(vector.values) for vector in vectors], str(main))
    return Measured(
        values * scale,
        joint * scale**2,
        _columns(vectors, unit),
        _smearing(main, kind, smearing),
        title=title or vectors[0].title,
        unit=unit or (vectors[0].columns[0].unit if vectors[0].columns else ""),
        edges=vectors[0].edges if len(vectors) == 1 else {},
    )


def read_table(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a CSV, TSV or space-separated file, as text; columns without a header are called 0, 1, ...

    The first row is a header if it has no numbers, or begins with ``bin`` or ``prediction``.
    """
    full = existing(path)
    with guard(full, "a table"):
        text = full.read_text(encoding="utf-8-sig")
        rows = [row for row in _split(text) if row and not row[0].startswith(("#", "//"))]
        if not rows:
            raise FormatError("expected a table; the file has no lines")
        if rows[0][0] in ("bin", "prediction") or not any(is_number(cell) for cell in rows[0]):
            head, rows = rows[0], rows[1:]
        else:
            head = [str(i) for i in range(len(rows[0]))]
        for number, row in enumerate(rows):
            if len(row) != len(head):
                raise FormatError(f"row {number}: expected {len(head)} cells; got {len(row)}")
        return head, rows


def _split(text: str) -> list[list[str]]:
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "//"))), "")
    if "," not in first and "\t" not in first:
        return [line.split() for line in text.splitlines()]
    return [
        [cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter="," if "," in first else "\t")
    ]


def is_number(text: str) -> bool:
    """Whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(names: str | Sequence[str] | None, default: str) -> list[str]:
    found = [default] if names is None else [names] if isinstance(names, str) else list(names)
    if not found:
        raise ConfigError("expected at least one name of a mean and of a covariance")
    return found


def _place(main: Path, name: str) -> tuple[Path, str]:
    """The file and the name in it that ``name`` stands for."""
    found = _FILE.match(name)
    if found is None:
        return main, name
    other = Path(found[1]).expanduser()
    return existing(other if other.is_absolute() else main.parent / other), found[2] or ""


def _vector(main: Path, name: str) -> _Vector:
    path, key = _place(main, name)
    kind = sniff(path)
    if kind == "root":
        histogram = read_histogram(path, key)
        values = histogram.values.ravel()
        pairs = np.stack([histogram.edges[0][:-1], histogram.edges[0][1:]], axis=1)
        edges = {histogram.axes[0].strip() or "x": pairs} if len(histogram.edges) == 1 else {}
        return _Vector(values, tuple(Column(f"{key}[{i}]") for i in range(len(values))), edges, histogram.title)
    return _from_csv(path, key or "central") if kind == "csv" else _from_arrays(path, kind, key or "central")


def _matrix(main: Path, name: str) -> Floats:
    path, key = _place(main, name)
    kind = sniff(path)
    if kind == "root":
        return read_matrix(path, key)
    if kind != "csv":
        return array_in(path, kind, key or "covariance", 2)
    return read_text_matrix(path)


def _smearing(main: Path, kind: str, name: str | None) -> Floats | None:
    if name is not None:
        return _matrix(main, name)
    if kind in ("hdf5", "npz") and "smearing" in arrays_in(main, kind):
        return array_in(main, kind, "smearing", 2)
    return None


def _columns(vectors: Sequence[_Vector], unit: str) -> tuple[Column, ...]:
    """The columns of all vectors, if all have some with different names."""
    if not all(vector.columns for vector in vectors):
        return ()
    columns = [Column(c.name, c.unit or unit, c.type, c.low, c.high) for vector in vectors for c in vector.columns]
    return tuple(columns) if len({column.name for column in columns}) == len(columns) else ()


def _from_csv(path: Path, key: str) -> _Vector:
    head, rows = read_table(path)
    if key not in head:
        raise FormatError(f"{path}: there is no column {key!r}; {close(key, head)}")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(head)}

    def floats(name: str) -> Floats:
        try:
            return np.array([float(cell) for cell in columns[name]])
        except ValueError as error:
            raise FormatError(f"{path}: column {name!r}: {error}") from None

    named = columns.get("bin", [])
    units = columns.get("unit", [""] * len(rows))
    edges = [name.removesuffix("_low") for name in head if name.endswith("_low")]
    return _Vector(
        floats(key),
        tuple(Column(name, unit) for name, unit in zip(named, units, strict=False)),
        {name: np.stack([floats(name + end) for end in _ENDS], axis=1) for name in edges if f"{name}_high" in head},
    )


def _from_arrays(path: Path, kind: str, key: str) -> _Vector:
    values = array_in(path, kind, key, 1)
    if kind != "hdf5":
        return _Vector(values)
    import h5py

    with guard(path, kind), h5py.File(path) as file:
        names = [text.decode() for text in file["bins"][()]] if "bins" in file else []
        units = [text.decode() for text in file["units"][()]] if "units" in file else [""] * len(names)
        edges = {name: np.asarray(pairs[()], np.float64) for name, pairs in file.get("edges", {}).items()}
        title = str(file.attrs.get("title", ""))
    if len(names) != len(values):
        return _Vector(values, title=title)
    return _Vector(values, tuple(Column(n, u) for n, u in zip(names, units, strict=True)), edges, title)


def arrays_in(path: Path, kind: str) -> list[str]:
    """Names of the arrays in an ``"hdf5"`` or ``"npz"`` file."""
    if kind == "npz":
        with guard(path, kind), np.load(path, allow_pickle=False) as file:
            return list(file.files)
    import h5py

    with guard(path, kind), h5py.File(path) as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return found


def array_in(path: Path, kind: str, key: str, ndim: int) -> Floats:
    """One of them, with so many axes; FormatError, ShapeError or DataError otherwise."""
    names = arrays_in(path, kind)
    if key not in names:
        raise FormatError(f"{path}: there is no array {key!r}; {close(key, names)}")
    values = as_floats(as_numpy(_load(path, kind, key)), f"{path}: {key!r}", np.float64)
    if values.ndim != ndim:
        raise ShapeError(f"{path}: expected {key!r} to have {ndim} axes; got shape {values.shape}")
    if not values.size:
        raise DataError(f"{path}: {key!r} is empty")
    return values


def _load(path: Path, kind: str, key: str) -> Any:
    if kind == "npz":
        with guard(path, kind), np.load(path, allow_pickle=False) as file:
            return file[key]
    import h5py

    with guard(path, kind), h5py.File(path) as file:
        return file[key][()]
