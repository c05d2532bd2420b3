"""numpy ``.npy``: one array without names (or a structured one with them); large ones are memory-mapped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.formats.npz import npy_header
from pofx.data.layout import Layout, Stored, array_parts, piece_of, source_of
from pofx.data.options import Request
from pofx.data.store import MemoryStore
from pofx.data.writing import event_arrays
from pofx.errors import CapabilityError, FormatError

__all__ = ["inspect", "open_store", "write"]


def inspect(path: Path) -> list[Stored]:
    """The only array, called x."""
    with path.open("rb") as file:
        shape, dtype, _ = npy_header(file, str(path))
        rest = path.stat().st_size - file.tell()
    if dtype.hasobject:
        raise FormatError(f"{path}: holds Python objects, which would need pickle; save a plain array of numbers")
    if math.prod(shape) * dtype.itemsize > rest:
        raise FormatError(f"{path}: says shape {shape} of {dtype}, but holds {rest} bytes of data (truncated?)")
    if not shape:
        raise FormatError(f"{path}: expected an array with rows; got a single value")
    return [Stored("x", shape, dtype)]


def open_store(path: Path, request: Request) -> MemoryStore:
    """The array, loaded or mapped."""
    stored = inspect(path)[0]
    small = request.options.in_memory(path.stat().st_size)
    array = np.load(path, mmap_mode=None if small else "r", allow_pickle=False)
    parts = array_parts([stored])
    arrays = {part.name: piece_of(array, part, source_of(part.name, {"x"})[1]) for part in parts}
    return MemoryStore(str(path), tuple(parts), arrays, small)


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """The only field; contexts, weights and several fields need another format."""
    fields = layout.fields()
    if len(fields) != 1 or fields[0][1].kind == "cloud" or compress:
        raise CapabilityError(
            f".npy holds one uncompressed array; got {', '.join(f[0] for f in fields)}: write .npz or .h5 instead"
        )
    name, form, _, _ = fields[0]
    with path.open("wb") as file:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(layout.types[name])),
            "fortran_order": False,
            "shape": (len(data), *form.shape),
        }
        np.lib.format.write_array_header_2_0(file, header)
        for arrays in event_arrays(data):
            file.write(np.ascontiguousarray(arrays[name]).tobytes())
