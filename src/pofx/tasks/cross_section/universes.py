"""Universes: many versions of one binned measurement, each re-extracted with other assumptions about flux, interaction, detector.

One row is a universe, one column a bin. ``total`` varies everything together; where universes of single sources are given as well, it is
known where a deviation from the Gaussian comes from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.data import Dataset, read
from pofx.data.files import atomic, existing, guard, sniff
from pofx.data.numbers import as_floats, as_numpy
from pofx.data.spec import Column
from pofx.errors import ColumnError, ConfigError, DataError, FormatError, NonFiniteError, ShapeError

__all__ = ["Universes"]

Floats = NDArray[np.float64]
SOURCES = "sources"
"""Group that holds the universes of single sources."""


@dataclass(frozen=True, eq=False)
class Universes:
    """Universes of a measurement.

    Attributes
    ----------
    total : ``(n, bins)``, everything varied.
    central : ``(bins,)``, the measured values; by default the mean of ``total``.
    columns : one per bin; ``bin0``, ``bin1``, ... where there are no names.
    sources : name -> ``(m, bins)``, one source of uncertainty varied.
    title : of the measurement.
    notes : what else one has to know (how ``total`` was made, what was normalised).

    Raises
    ------
    ShapeError, NonFiniteError, ColumnError.

    >>> universes = Universes(np.random.default_rng(1).normal(1.0, 0.1, (100, 3)))
    >>> universes.names, universes.covariance.shape
    (('bin0', 'bin1', 'bin2'), (3, 3))
    """

    total: Floats
    central: Any = None
    columns: tuple[Column, ...] = ()
    sources: Mapping[str, Floats] = field(default_factory=dict)
    title: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        total = _rows(self.total, "total")
        bins = total.shape[1]
        central = total.mean(0) if self.central is None else _finite(self.central, "central")
        if central.shape != (bins,):
            raise ShapeError(f"central: expected shape ({bins},), one value per bin; got {central.shape}")
        columns = tuple(self.columns) or tuple(Column(f"bin{i}") for i in range(bins))
        if len(columns) != bins:
            raise ColumnError(f"expected {bins} columns, one per bin; got {len(columns)}")
        sources = {str(name): _rows(rows, f"source {name!r}") for name, rows in self.sources.items()}
        for name, rows in sources.items():
            if rows.shape[1] != bins:
                raise ShapeError(f"source {name!r}: expected {bins} bins; got {rows.shape[1]}")
        made = {"total": total, "central": central, "columns": columns, "sources": sources, "notes": tuple(self.notes)}
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @classmethod
    def combine(
        cls, sources: Mapping[str, ArrayLike], central: ArrayLike, n: int, seed: int, **others: Any
    ) -> Universes:
        """Total universes out of those of single sources: the central values plus one independent deviation of each source.

        Right if the sources add; a note says so. Deviations are drawn with replacement.
        """
        rows = {name: _rows(values, f"source {name!r}") for name, values in sources.items()}
        if not rows:
            raise DataError("expected universes of at least one source; got none")
        middle, rng = _finite(central, "central"), np.random.default_rng(seed)
        total = middle + np.sum(
            [values[rng.integers(len(values), size=n)] - middle for values in rows.values()], axis=0
        )
        note = f"total: {n} sums of independent deviations of {', '.join(rows)}, which is right if the sources add"
        return cls(total, middle, sources=rows, notes=(note,), **others)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        total: str | None = None,
        central: str | None = None,
        sources: Mapping[str, str] | None = None,
        columns: Sequence[Column | str] | None = None,
    ) -> Universes:
        """Universes out of a file.

        Parameters
        ----------
        path : HDF5 or npz with an array ``total``, and perhaps ``central`` and ``sources/NAME``; or any table that :func:`pofx.read` reads,
            which is taken as the total.
        total, central, sources : names of the arrays where they have others.
        columns : names of the bins.

        Raises
        ------
        FormatError and its kind for an unusable file, ColumnError for an array that is not there (with what is).
        """
        full = existing(path)
        if sniff(full) in ("hdf5", "npz"):
            with guard(full, sniff(full)):
                found = _arrays(full)
            if (
                total is not None
                or "total" in found
                or sources
                or any(name.startswith(f"{SOURCES}/") for name in found)
            ):
                return _from_arrays(cls, found, full, (total, central, sources), columns)
        if central is not None or sources:
            raise FormatError(f"{full}: central values and sources need an HDF5 or npz file of arrays")
        data = read(full, key=total)
        names = data.spec[next(iter(data.spec))].columns
        return cls(np.asarray(data.arrays().x, np.float64), columns=_columns(columns) or names, title=full.stem)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """An HDF5 file that :meth:`read` reads: ``total``, ``central``, ``sources/NAME``; columns, title and notes as attributes."""
        target = Path(path)
        with atomic(target) as scratch, h5py.File(scratch, "w") as file:
            for name, rows in {"total": self.total, "central": self.central, **self._named()}.items():
                file.create_dataset(name, data=rows)
            file.attrs["columns"] = [column.name for column in self.columns]
            file.attrs["units"] = [column.unit for column in self.columns]
            file.attrs["types"] = [column.type for column in self.columns]
            for end in ("low", "high"):
                ends = (getattr(column, end) for column in self.columns)
                file.attrs[end] = [np.nan if value is None else value for value in ends]
            file.attrs["title"], file.attrs["notes"] = self.title, list(self.notes)
        return target

    def _named(self) -> dict[str, Floats]:
        return {f"{SOURCES}/{name}": rows for name, rows in self.sources.items()}

    def __len__(self) -> int:
        return len(self.total)

    @property
    def bins(self) -> int:
        """How many bins."""
        return len(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bins."""
        return tuple(column.name for column in self.columns)

    @property
    def unit(self) -> str:
        """The unit, if all bins have the same; else empty."""
        units = {column.unit for column in self.columns}
        return units.pop() if len(units) == 1 else ""

    @property
    def mean(self) -> Floats:
        """Of the total, ``(bins,)``."""
        return np.asarray(self.total.mean(0))

    @property
    def covariance(self) -> Floats:
        """Of the total, ``(bins, bins)``."""
        return np.atleast_2d(np.cov(self.total.T))

    @property
    def fingerprint(self) -> str:
        """A hash of the total."""
        return self.dataset().fingerprint

    def dataset(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Dataset:
        """The total as a data set, split at random."""
        return Dataset.from_arrays(self.total, columns=self.columns).with_split(fractions, seed=seed)

    def select(self, bins: Sequence[int]) -> Universes:
        """Some of the bins."""
        chosen = list(bins)
        if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= i < self.bins for i in chosen):
            raise ConfigError(f"expected distinct bins between 0 and {self.bins - 1}; got {chosen}")
        return replace(
            self,
            total=self.total[:, chosen],
            central=self.central[chosen],
            columns=tuple(self.columns[i] for i in chosen),
            sources={name: rows[:, chosen] for name, rows in self.sources.items()},
        )

    def shape_only(self, widths: ArrayLike | None = None) -> Universes:
        r"""Shapes alone: :math:`y_i = x_i / \sum_j x_j \Delta_j`, without the last bin, which the others fix.

        With it the covariance would be singular. Which bin is left out changes neither chi2 nor the ranking by a density per unit of y: the
        missing one is a linear function of the others, so that densities change by a constant.

        Parameters
        ----------
        widths : bin widths :math:`\Delta_j`, ``(bins,)``; one each by default.

        Raises
        ------
        DataError if the sum of a universe is not positive.
        """
        width = self._widths(widths)
        note = f"shape only: divided by the sum over bins; the last bin, {self.names[-1]}, follows from the others"
        return replace(
            self,
            total=_shape(self.total, width, "total"),
            central=_shape(self.central[None], width, "central")[0],
            columns=tuple(replace(column, unit="", type="real", low=None, high=None) for column in self.columns[:-1]),
            sources={name: _shape(rows, width, f"source {name!r}") for name, rows in self.sources.items()},
            notes=(*self.notes, note),
        )

    def shape_of(self, predictions: ArrayLike, widths: ArrayLike | None = None) -> Floats:
        """Predictions ``(m, bins)`` normalised as :meth:`shape_only` does, ``(m, bins - 1)``."""
        return _shape(_rows(predictions, "predictions"), self._widths(widths), "predictions")

    def _widths(self, widths: ArrayLike | None) -> Floats:
        if self.bins < 2:
            raise DataError("a shape needs at least two bins; got one")
        width = np.ones(self.bins) if widths is None else _finite(widths, "widths")
        if width.shape != (self.bins,) or not (width > 0).all():
            raise ShapeError(f"widths: expected {self.bins} positive numbers; got shape {width.shape}")
        return width


def _shape(rows: Floats, width: Floats, where: str) -> Floats:
    if rows.shape[1] != len(width):
        raise ShapeError(f"{where}: expected {len(width)} bins; got {rows.shape[1]}")
    norm = rows @ width
    if not (norm > 0).all():
        first = int(np.argmin(norm > 0))
        raise DataError(f"{where}: row {first} sums to {norm[first]:.3g}; a shape needs a positive sum")
    return np.asarray((rows / norm[:, None])[:, :-1])


def _finite(values: Any, where: str) -> Floats:
    found = as_floats(as_numpy(values), where, np.float64)
    if not np.isfinite(found).all():
        raise NonFiniteError(
            f"{where}: expected finite numbers; {int((~np.isfinite(found)).sum())} are NaN or infinite"
        )
    return found


def _rows(values: Any, where: str) -> Floats:
    found = _finite(values, where)
    if found.ndim != 2 or found.shape[1] < 1 or len(found) < 1:
        raise ShapeError(f"{where}: expected shape (universes, bins); got {found.shape}")
    return found


def _columns(columns: Sequence[Column | str] | None) -> tuple[Column, ...]:
    return tuple(column if isinstance(column, Column) else Column(column) for column in columns or ())


def _arrays(path: Path) -> dict[str, Any]:
    """Every numeric array of an HDF5 or npz file by its name, and under ``@`` the attributes of the file."""
    if sniff(path) == "npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: found.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None
        )
        found["@"] = dict(file.attrs)
    return found


def _from_arrays(
    cls: type[Universes],
    found: Mapping[str, Any],
    path: Path,
    keys: tuple[str | None, str | None, Mapping[str, str] | None],
    columns: Sequence[Column | str] | None,
) -> Universes:
    total, central, sources = keys
    own = {name.removeprefix(f"{SOURCES}/"): name for name in found if name.startswith(f"{SOURCES}/")}
    attributes: Mapping[str, Any] = found.get("@", {})
    middle: Any = _get(found, central or "central", path) if central is not None or "central" in found else None
    parts = {name: _get(found, key, path) for name, key in (own if sources is None else sources).items()}
    options: dict[str, Any] = {
        "columns": _columns(columns) or _written(attributes),
        "title": str(attributes.get("title", path.stem)),
    }
    if total is None and "total" not in found:
        if middle is None:
            raise ColumnError(f"{path}: sources alone need central values as well (name the array with central=)")
        return cls.combine(parts, middle, max(map(len, parts.values())), 0, **options)
    notes = tuple(str(note) for note in attributes.get("notes", ()))
    return cls(_get(found, total or "total", path), middle, sources=parts, notes=notes, **options)


def _written(attributes: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns as :meth:`Universes.write` declares them."""
    names = attributes.get("columns", ())
    rest = {"units": "", "types": "real", "low": np.nan, "high": np.nan}
    parts = [attributes.get(key, [default] * len(names)) for key, default in rest.items()]
    return tuple(
        Column(str(name), str(unit), str(kind), *(None if np.isnan(end) else float(end) for end in ends))  # type: ignore[arg-type]
        for name, unit, kind, *ends in zip(names, *parts, strict=True)
    )


def _get(found: Mapping[str, Any], name: str, path: Path) -> Any:
    if name not in found:
        raise ColumnError(
            f"{path}: no array is called {name!r}; there are {', '.join(key for key in found if key != '@')}"
        )
    return found[name]
