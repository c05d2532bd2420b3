"""Tables of HEPData in YAML, and measurements with their covariance made of them.

A table has *axes* (``independent_variables``: bins or points) and *measured* quantities (``dependent_variables``) with labelled errors,
symmetric or not, absolute or in percent. A covariance or correlation matrix is a table of its own, with two axes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pofx.data.files import atomic, existing, guard
from pofx.data.patterns import close
from pofx.data.release import Release
from pofx.errors import FormatError, MissingExtraError, ShapeError

__all__ = [
    "AxisValues",
    "Quantity",
    "Table",
    "hepdata_release",
    "load_table",
    "matrix_table",
    "read_hepdata",
    "write_hepdata",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AxisValues:
    """An independent variable: ``bins`` ``(n, 2)``, low and high, equal for points; NaN where the file has none or text."""

    name: str
    unit: str
    bins: Floats

    @property
    def binned(self) -> bool:
        """Whether these are bins, not points."""
        return bool((self.bins[:, 0] != self.bins[:, 1]).any() and np.isfinite(self.bins).any())


@dataclass(frozen=True, eq=False)
class Quantity:
    """A dependent variable: values ``(n,)``, and errors by label, (minus, plus), both positive upwards from the value."""

    name: str
    unit: str
    values: Floats
    errors: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    qualifiers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Table:
    """Axes and measured quantities, all of one length."""

    axes: tuple[AxisValues, ...]
    measured: tuple[Quantity, ...]

    def __len__(self) -> int:
        columns = [axis.bins for axis in self.axes] + [quantity.values for quantity in self.measured]
        return len(columns[0]) if columns else 0

    def quantity(self, name: str | None = None) -> Quantity:
        """The measured quantity of a name; the only one without."""
        names = [quantity.name for quantity in self.measured]
        if name is None and len(names) == 1:
            return self.measured[0]
        if name not in names:
            raise FormatError(f"no measured quantity is called {name!r}; {close(str(name), names)}")
        return self.measured[names.index(name)]


def read_hepdata(path: str | os.PathLike[str], table: str | None = None) -> Table:
    """A table out of its own file, or, by its name, out of a ``submission.yaml`` that lists several.

    Raises
    ------
    FormatError : no YAML, no table of HEPData, columns of different lengths, no such table.

    >>> read_hepdata("submission.yaml", "Table 1").quantity().values.shape  # doctest: +SKIP
    (20,)
    """
    full = existing(path)
    if table is None:
        return load_table(full)
    with guard(full, "a submission of HEPData"):
        listed = {str(entry["name"]): str(entry["data_file"]) for entry in _documents(full) if "data_file" in entry}
        if table not in listed:
            raise FormatError(f"{full}: no table is called {table!r}; {close(table, listed)}")
    return load_table(existing(full.parent / Path(listed[table]).name))


def load_table(path: Path) -> Table:
    """The table of a file."""
    with guard(path, "a table of HEPData"):
        documents = list(_documents(path))
        kinds = ("independent_variables", "dependent_variables")
        if len(documents) != 1 or not all(isinstance(documents[0].get(kind), list) for kind in kinds):
            keys = ", ".join(str(key) for document in documents[:3] for key in document)
            raise FormatError(
                f"{path}: expected one table with independent_variables and dependent_variables; got {keys or 'none'!r:.200}"
            )
        axes = tuple(_axis(entry, path) for entry in documents[0][kinds[0]])
        measured = tuple(_quantity(entry, path) for entry in documents[0][kinds[1]])
    lengths = {**{axis.name: len(axis.bins) for axis in axes}, **{q.name: len(q.values) for q in measured}}
    if len(set(lengths.values())) > 1:
        raise FormatError(f"{path}: expected columns of one length; got {lengths}")
    return Table(axes, measured)


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    """The mappings of a YAML file; nothing but plain values is ever made of it."""
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError("files of HEPData need PyYAML: pip install pyyaml") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with path.open("rb") as file:
            for document in yaml.load_all(file, loader):
                if not isinstance(document, dict):
                    raise FormatError(f"{path}: expected keys and values; got {type(document).__name__}")
                yield document
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise FormatError(
            f"{path}: no YAML (damaged or truncated?): line {line}: {getattr(error, 'problem', error)}"
        ) from None


def _header(entry: Any, path: Path) -> tuple[str, str]:
    header = entry.get("header") if isinstance(entry, dict) else None
    if not isinstance(header, dict) or "name" not in header or not isinstance(entry.get("values"), list):
        raise FormatError(
            f"{path}: expected a variable with a header, its name, and a list of values; got {str(entry)[:100]}"
        )
    return str(header["name"]), str(header.get("units") or "")


def _axis(entry: Any, path: Path) -> AxisValues:
    name, unit = _header(entry, path)
    ends = [_ends(value, f"{path}: {name!r}, row {i}") for i, value in enumerate(entry["values"])]
    return AxisValues(name, unit, np.array(ends, np.float64).reshape(-1, 2))


def _ends(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, dict) or not ("value" in value or {"low", "high"} <= set(value)):
        raise FormatError(f"{where}: expected a value, or low and high; got {value!r:.80}")
    if "low" in value:
        return _number(value["low"], where), _number(value["high"], where)
    try:
        point = float(value["value"])
    except (TypeError, ValueError):
        point = math.nan  # names of bins are allowed on axes
    return point, point


def _quantity(entry: Any, path: Path) -> Quantity:
    name, unit = _header(entry, path)
    values, errors = [], []
    for i, row in enumerate(entry["values"]):
        where = f"{path}: {name!r}, row {i}"
        if not isinstance(row, dict) or "value" not in row:
            raise FormatError(f"{where}: expected a value; got {row!r:.80}")
        values.append(_number(row["value"], where))
        errors.append(dict(_error(error, values[-1], k, where) for k, error in enumerate(row.get("errors") or [])))
    labels = list(dict.fromkeys(label for row in errors for label in row))
    table = np.array([[row.get(label, (0.0, 0.0)) for label in labels] for row in errors]).reshape(
        len(values), len(labels), 2
    )
    qualifiers = {str(q.get("name")): str(q.get("value")) for q in entry.get("qualifiers") or [] if isinstance(q, dict)}
    named = {label: (table[:, i, 0], table[:, i, 1]) for i, label in enumerate(labels)}
    return Quantity(name, unit, np.array(values, np.float64), named, qualifiers)


def _error(error: Any, value: float, k: int, where: str) -> tuple[str, tuple[float, float]]:
    """Label, and the distances below and above the value."""
    if not isinstance(error, dict) or not ("symerror" in error or "asymerror" in error):
        raise FormatError(f"{where}: expected a symerror or an asymerror; got {error!r:.80}")
    label = str(error.get("label") or ("error" if k == 0 else f"error{k + 1}"))
    if "symerror" in error:
        size = _number(error["symerror"], where, value)
        return label, (size, size)
    both = error["asymerror"]
    if not isinstance(both, dict) or not {"plus", "minus"} <= set(both):
        raise FormatError(f"{where}: expected an asymerror with plus and minus; got {both!r:.80}")
    return label, (-_number(both["minus"], where, value), _number(both["plus"], where, value))


def _number(given: Any, where: str, of: float = 1.0) -> float:
    """A number, or a share of ``of`` in percent; NaN for the dashes that stand for nothing."""
    text = str(given).strip()
    if text in ("", "-", "--", "---", "None"):
        return math.nan
    try:
        return 0.01 * float(text[:-1]) * of if text.endswith("%") else float(text)
    except ValueError:
        raise FormatError(f"{where}: expected a number; got {given!r:.60}") from None


def hepdata_release(
    table: Table,
    covariance: Table | None = None,
    *,
    quantity: str | None = None,
    correlated: Sequence[str] = (),
    is_correlation: bool = False,
) -> Release:
    """Mean and covariance of a measured quantity.

    Parameters
    ----------
    covariance : the table of the matrix, whose rows are all pairs of bins, in order, or each pair once (then it is symmetric).
        Without it, the covariance is made of the errors, half the sum of upwards and downwards each.
    quantity : its name, where the table has several.
    correlated : labels of errors that are fully correlated between bins; the others are independent.
    is_correlation : the matrix is one of correlations, to be multiplied by the errors.

    Raises
    ------
    ShapeError, FormatError : a matrix that does not fit; labels that are not there.
    """
    found = table.quantity(quantity)
    sizes = {label: 0.5 * (minus + plus) for label, (minus, plus) in found.errors.items()}
    unknown = [label for label in correlated if label not in sizes]
    if unknown:
        raise FormatError(f"{found.name}: no error is labelled {unknown[0]!r}; {close(unknown[0], sizes)}")
    matrix = sum((np.outer(s, s) if label in correlated else np.diag(s**2)) for label, s in sizes.items()) + np.zeros(
        (len(table),) * 2
    )
    if covariance is not None:
        matrix = _matrix(covariance, len(table))
        if is_correlation:
            total = np.sqrt(sum((size**2 for size in sizes.values()), np.zeros(len(table))))
            matrix = matrix * total[:, None] * total
    return Release(found.values, matrix, tuple(f"{found.name}[{i}]" for i in range(len(table))))


def _matrix(table: Table, size: int) -> Floats:
    """The square matrix that a table of pairs lists."""
    values = table.quantity().values if len(table.measured) == 1 else table.measured[0].values
    if len(values) == size**2:
        return values.reshape(size, size)
    if len(values) != size * (size + 1) // 2 or len(table.axes) != 2:
        raise ShapeError(f"expected a matrix of {size} x {size} bins, all pairs or each once; got {len(values)} rows")
    keys = [np.unique(axis.bins.mean(1), return_inverse=True) for axis in table.axes]
    if any(len(known) != size for known, _ in keys):
        raise ShapeError(f"expected {size} different bins on both axes; got {[len(known) for known, _ in keys]}")
    matrix = np.full((size, size), np.nan)
    matrix[keys[0][1], keys[1][1]] = values
    matrix = np.where(np.isnan(matrix), matrix.T, matrix)
    if np.isnan(matrix).any():
        raise ShapeError("expected every pair of bins once; some are missing")
    return matrix


def matrix_table(matrix: npt.ArrayLike, name: str = "covariance", unit: str = "") -> Table:
    """All pairs of bins, counted from 1, with the elements of a square matrix."""
    square = np.asarray(matrix, np.float64)
    if square.ndim != 2 or square.shape[0] != square.shape[1]:
        raise ShapeError(f"expected a square matrix; got shape {square.shape}")
    index = 1.0 + np.arange(len(square))
    first, second = np.repeat(index, len(square)), np.tile(index, len(square))
    axes = (AxisValues(f"bin {k}", "", np.stack([v, v], 1)) for k, v in (("i", first), ("j", second)))
    return Table(tuple(axes), (Quantity(name, unit, square.ravel()),))


def write_hepdata(path: str | os.PathLike[str], table: Table) -> Path:
    """A table as HEPData takes it; the file appears whole or not at all. Numbers come back exactly."""
    import yaml

    document = {
        "independent_variables": [_plain_axis(axis) for axis in table.axes],
        "dependent_variables": [_plain_quantity(quantity) for quantity in table.measured],
    }
    target = Path(path).expanduser()
    with atomic(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(
            document, file, getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, default_flow_style=None
        )
    return target


def _named(name: str, unit: str) -> dict[str, str]:
    return {"name": name, "units": unit} if unit else {"name": name}


def _plain_axis(axis: AxisValues) -> dict[str, Any]:
    points = [{"value": low} if low == high else {"low": low, "high": high} for low, high in axis.bins.tolist()]
    return {"header": _named(axis.name, axis.unit), "values": points}


def _plain_quantity(quantity: Quantity) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"value": value} for value in quantity.values.tolist()]
    for label, (minus, plus) in quantity.errors.items():
        for row, low, high in zip(rows, minus.tolist(), plus.tolist(), strict=True):
            size = {"symerror": high} if low == high else {"asymerror": {"plus": high, "minus": -low}}
            row.setdefault("errors", []).append({**size, "label": label})
    qualifiers = [{"name": name, "value": value} for name, value in quantity.qualifiers.items()]
    header = {"header": _named(quantity.name, quantity.unit)}
    return {**header, **({"qualifiers": qualifiers} if qualifiers else {}), "values": rows}
