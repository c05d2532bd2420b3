"""Parquet: columns of numbers, read by row groups; the note lives in the schema's metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.layout import NOTE, Layout, Stored, column_parts, unique_names
from pofx.data.numbers import Array
from pofx.data.options import Request
from pofx.data.patterns import close
from pofx.data.store import Part
from pofx.data.writing import flat_arrays
from pofx.errors import FormatError

__all__ = ["ParquetStore", "inspect", "open_store", "write"]


def inspect(_path: Path) -> list[Stored]:
    """Nothing beyond the columns."""
    return []


def _schema(path: Path) -> tuple[dict[str, tuple[np.dtype[Any], str]], bytes | None]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
    unique_names(schema.names, str(path))
    kept = [f for f in schema if not f.name.startswith("__index_level_")]
    return {f.name: _type(f.type) for f in kept}, (schema.metadata or {}).get(NOTE.encode())


def _type(kind: Any) -> tuple[np.dtype[Any], str]:
    """numpy type, and why the column cannot be used, if so."""
    from pyarrow import types

    if (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_struct(kind)
        or types.is_map(kind)
    ):
        return np.dtype(object), f"is nested ({kind}); only plain columns can be read from Parquet"
    if types.is_decimal(kind):
        return np.dtype(object), f"is of type {kind}; store it as double"
    if types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind):
        return np.dtype(kind.to_pandas_dtype()), ""
    return np.dtype(object), f"is of type {kind}, not a number"


def open_store(path: Path, request: Request) -> ParquetStore:
    """The table; ``key`` has no meaning here and is refused."""
    if request.key:
        raise FormatError(
            f"{path}: a Parquet file has no keys; got key={', '.join(request.key)!r}; choose columns with columns="
        )
    types, note = _schema(path)
    layout = None if note is None else Layout.loads(note, str(path))
    dtypes = {name: dtype for name, (dtype, _) in types.items()}
    parts = column_parts(dtypes, layout, {name: problem for name, (_, problem) in types.items()}, str(path))
    return ParquetStore(path, parts)


class ParquetStore:
    """Rows of a table; the row group read last is kept, so that small blocks do not read it again and again."""

    in_memory = False

    def __init__(self, path: Path, parts: tuple[Part, ...]) -> None:
        import pyarrow.parquet as pq

        self.path, self.parts, self.origin = path, parts, str(path)
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._edges = np.cumsum([0, *sizes])
        self.grain = max([1, *sizes])
        self._held: tuple[int, tuple[str, ...], dict[str, Array]] | None = None

    def __len__(self) -> int:
        return int(self._edges[-1])

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Rows start..stop of the named columns; nulls come as NaN."""
        first, last = np.searchsorted(self._edges, (start, stop), side="right") - 1
        pieces = []
        for number in range(int(first), min(int(last), len(self._edges) - 2) + 1):
            low, high = int(self._edges[number]), int(self._edges[number + 1])
            if high > start and low < stop:
                group = self._group(number, tuple(names))
                pieces.append({name: array[max(start - low, 0) : stop - low] for name, array in group.items()})
        if not pieces:
            return {part.name: np.empty(0, part.dtype) for part in self.parts if part.name in names}
        return (
            pieces[0]
            if len(pieces) == 1
            else {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
        )

    def _group(self, number: int, names: tuple[str, ...]) -> dict[str, Array]:
        import pyarrow.parquet as pq

        if self._held is None or self._held[:2] != (number, names):
            with pq.ParquetFile(self.path) as file:
                table = file.read_row_group(number, columns=list(names))
            self._held = (number, names, {name: _numpy(table, name, self.origin) for name in names})
        return self._held[2]


def _numpy(table: Any, name: str, origin: str) -> Array:
    found = table.schema.get_field_index(name)
    if found < 0:
        raise FormatError(f"{origin}: no column {name!r}; {close(name, table.schema.names)}")
    array: Array = table.column(found).to_numpy()
    return array


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """Row groups of 65536 rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for arrays in flat_arrays(data, layout, "Parquet"):
        table = pa.table(arrays).replace_schema_metadata({NOTE: layout.dumps()})
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd" if compress else "none")
        writer.write_table(table)
    if writer is None:
        raise FormatError("no rows to write")
    writer.close()
