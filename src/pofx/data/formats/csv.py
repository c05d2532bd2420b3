"""Text tables: comma, semicolon, tab or white space between numbers; names in the first line are optional, ``pt [GeV]`` gives a unit.

Read by pyarrow at full speed; only when that fails are the lines looked at one by one, to say which one is wrong and why. Tables above
the memory limit are converted once into a temporary binary file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.files import Spool
from pofx.data.layout import NOTE, Layout, Stored, column_parts, unique_names
from pofx.data.numbers import Array
from pofx.data.options import ReadOptions, Request
from pofx.data.store import MemoryStore
from pofx.data.writing import flat_arrays
from pofx.errors import CapabilityError, FormatError

__all__ = ["inspect", "open_store", "write"]

_MISSING = ("", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "None", "-nan")
_ROWS = 1 << 16


@dataclass(frozen=True)
class _Dialect:
    """How a file is laid out: names, delimiter, number of lines before the first row, and the note of pofx."""

    names: tuple[str, ...]
    delimiter: str
    skip: int
    note: Layout | None


def inspect(_path: Path) -> list[Stored]:
    """Nothing beyond the columns."""
    return []


def open_store(path: Path, request: Request) -> MemoryStore:
    """The table, in memory or spooled to a temporary file; ``key`` has no meaning here and is refused."""
    if request.key:
        raise FormatError(
            f"{path}: a text table has no keys; got key={', '.join(request.key)!r}; choose columns with columns="
        )
    dialect = _dialect(path, request.options)
    small = request.options.in_memory(path.stat().st_size)
    width, blocks = len(dialect.names), _blocks(path, dialect)
    owner = None if small else Spool(blocks, width)
    table = np.concatenate([np.empty((0, width)), *blocks]) if owner is None else owner.array
    types = {name: np.dtype(np.float64) for name in dialect.names}
    if dialect.note is not None:
        types = {
            name: np.dtype(dialect.note.types.get(stored, "float64")) for name, stored, _, _ in dialect.note.flat()
        }
    parts = column_parts(
        {name: types.get(name, np.dtype(np.float64)) for name in dialect.names}, dialect.note, {}, str(path)
    )
    arrays = {
        part.name: table[:, i].astype(part.dtype, copy=False) if small else table[:, i] for i, part in enumerate(parts)
    }
    return MemoryStore(str(path), parts, arrays, small, owner=owner)


def _dialect(path: Path, options: ReadOptions) -> _Dialect:
    with path.open("r", encoding="utf-8-sig", newline="") as file:
        try:
            note, skip, first = _top(file, path)
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}: expected text in UTF-8; byte {error.start} is {error.object[error.start]:#04x}"
            ) from None
    delimiter = options.delimiter or _delimiter(first, path, noted=note is not None)
    cells = _cells(first, delimiter)
    header = options.header if options.header is not None else not all(_is_number(cell) for cell in cells)
    names = tuple(cell.strip() for cell in cells) if header else tuple(f"x{i}" for i in range(len(cells)))
    unique_names(names, str(path))
    return _Dialect(names, delimiter, skip + int(header), note)


def _top(file: IO[str], path: Path) -> tuple[Layout | None, int, str]:
    """The note, the number of lines before the first that is neither blank nor a comment, and that line."""
    note = None
    for number, line in enumerate(file):
        if line.startswith(f"# {NOTE} "):
            note = Layout.loads(line.removeprefix(f"# {NOTE} "), str(path))
        elif line.strip() and not line.lstrip().startswith(("#", "//")):
            if "\0" in line:
                raise FormatError(f"{path}: expected text; line {number + 1} holds null bytes")
            return note, number, line.rstrip("\r\n")
    raise FormatError(f"{path}: holds no rows, only blank lines and comments")


def _delimiter(first: str, path: Path, *, noted: bool) -> str:
    if noted or len(first.split()) == 1:
        return "\t" if path.suffix == ".tsv" else next((d for d in ",;" if d in first), ",")
    return next((d for d in ",;\t" if d in first), " ")


def _cells(line: str, delimiter: str) -> list[str]:
    return line.split() if delimiter == " " else next(csv.reader([line], delimiter=delimiter), [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip() in _MISSING
    return "_" not in text


def _blocks(path: Path, dialect: _Dialect) -> Iterator[Array]:
    """The rows as float64 matrices of bounded size."""
    if dialect.delimiter == " ":
        return _checked_blocks(path, dialect)
    return _fast_blocks(path, dialect)


def _fast_blocks(path: Path, dialect: _Dialect) -> Iterator[Array]:
    import pyarrow as pa
    import pyarrow.csv as pc

    read = pc.ReadOptions(column_names=list(dialect.names), skip_rows=dialect.skip, block_size=16 << 20)
    convert = pc.ConvertOptions(
        column_types=dict.fromkeys(dialect.names, pa.float64()),
        null_values=list(_MISSING),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    try:
        with pc.open_csv(path, read, pc.ParseOptions(delimiter=dialect.delimiter), convert) as reader:
            for batch in reader:
                yield np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns], axis=1)
    except pa.ArrowInvalid as error:
        for _ in _checked_blocks(path, dialect):
            pass
        if "Empty CSV" not in str(error):
            raise FormatError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]:.200}") from None


def _checked_blocks(path: Path, dialect: _Dialect) -> Iterator[Array]:
    """Line by line, with errors that name line and column."""
    with path.open("r", encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = _lines(file, dialect)
        numbers = (_parsed(cells, number, dialect, path) for number, cells in lines)
        while block := list(islice(numbers, _ROWS)):
            yield np.array(block, dtype=np.float64)


def _lines(file: IO[str], dialect: _Dialect) -> Iterator[tuple[int, list[str]]]:
    rest = islice(file, dialect.skip, None)
    if dialect.delimiter == " ":
        for number, line in enumerate(rest, dialect.skip + 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield number, line.split()
        return
    reader = csv.reader(rest, delimiter=dialect.delimiter)
    for cells in reader:
        if cells:
            yield dialect.skip + reader.line_num, cells


def _parsed(cells: Sequence[str], number: int, dialect: _Dialect, path: Path) -> list[float]:
    if len(cells) != len(dialect.names):
        raise FormatError(
            f"{path}, line {number}: expected {len(dialect.names)} values as in the first line; got {len(cells)}"
        )
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        for name, cell in zip(dialect.names, cells, strict=True):
            if not _is_number(cell):
                raise FormatError(
                    f"{path}, line {number}, column {name!r}: expected a number; got {cell!r:.60}"
                ) from None
    return [float("nan") if cell.strip() in _MISSING else float(cell) for cell in cells]


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """The note, a line of names, and numbers with as many digits as bring them back exactly."""
    import pyarrow as pa
    import pyarrow.csv as pc

    if compress:
        raise CapabilityError(
            "text tables are written uncompressed; write .parquet or .h5 instead, or leave compress out"
        )
    blocks = flat_arrays(data, layout, "CSV")
    first = next(blocks, None) or {}
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    with path.open("wb") as file:
        file.write(f"# {NOTE} {layout.dumps()}\n".encode())
        with pc.CSVWriter(file, pa.table(first).schema, write_options=pc.WriteOptions(delimiter=delimiter)) as writer:
            for arrays in chain([first], blocks):
                writer.write_table(pa.table(arrays))
