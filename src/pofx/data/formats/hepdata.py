"""Tables of HEPData (hepdata-submission.readthedocs.io), ``.yaml``: rows of numbers with bins and errors; written as measured columns.

A bin gives two columns, ``NAME_low`` and ``NAME_high``, a point one, ``NAME``; a measured variable gives its value under its own name and
one column per error, ``NAME_LABEL`` or ``NAME_LABEL_minus`` and ``..._plus``. :func:`pofx.data.read_hepdata` keeps the structure, and makes
mean and covariance.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.hepdata import Quantity, Table, load_table, write_hepdata
from pofx.data.layout import Layout, Stored
from pofx.data.numbers import Array
from pofx.data.options import Request
from pofx.data.spec import Column, Field
from pofx.data.store import MemoryStore, Part
from pofx.data.writing import flat_arrays
from pofx.errors import CapabilityError, FormatError

__all__ = ["inspect", "open_store", "write"]


def inspect(_path: Path) -> list[Stored]:
    """Nothing beyond the columns."""
    return []


def open_store(path: Path, request: Request) -> MemoryStore:
    """The table as columns; ``key`` has no meaning here and is refused."""
    if request.key:
        raise FormatError(
            f"{path}: a HEPData table has no keys; got key={', '.join(request.key)!r}; choose columns with columns="
        )
    found = _columns(load_table(path))
    names = [column.name for column, _ in found]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise FormatError(
            f"{path}: several variables or errors are called {', '.join(doubled)}; use pofx.data.read_hepdata"
        )
    parts = tuple(Part(column.name, Field("vector", (1,), (column,)), np.dtype(np.float64)) for column, _ in found)
    return MemoryStore(str(path), parts, {column.name: values for column, values in found})


def _columns(table: Table) -> list[tuple[Column, Array]]:
    found: list[tuple[Column, Array]] = []
    for axis in table.axes:
        if axis.binned:
            found += [
                (Column(f"{axis.name}_{end}", axis.unit), axis.bins[:, i]) for i, end in enumerate(("low", "high"))
            ]
        else:
            found.append((Column(axis.name, axis.unit), axis.bins[:, 0]))
    for measured in table.measured:
        found.append((Column(measured.name, measured.unit), measured.values))
        found += _errors(measured)
    return found


def _errors(measured: Quantity) -> list[tuple[Column, Array]]:
    found: list[tuple[Column, Array]] = []
    for label, (minus, plus) in measured.errors.items():
        name = f"{measured.name}_{label}"
        if np.array_equal(minus, plus, equal_nan=True):
            found.append((Column(name, measured.unit), plus))
        else:
            found += [(Column(f"{name}_minus", measured.unit), minus), (Column(f"{name}_plus", measured.unit), plus)]
    return found


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """Every column as a measured variable without errors."""
    if compress or layout.weighted or layout.context_spec is not None:
        raise CapabilityError(
            "HEPData tables hold plain columns without context and weights, not compressed; write .h5 or .npz instead"
        )
    blocks = list(flat_arrays(data, layout, "HEPData"))
    columns = [column for form in layout.spec.values() for column in form.columns]
    values = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}
    measured = [
        Quantity(name, column.unit, np.asarray(values.get(name, np.zeros(0)), np.float64))
        for (name, _, _, _), column in zip(layout.flat(), columns, strict=True)
    ]
    write_hepdata(path, Table((), tuple(measured)))
