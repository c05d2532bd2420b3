"""numpy ``.npz``: a zip of ``.npy`` members. Pickled members are refused; large uncompressed members are memory-mapped."""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.layout import NOTE, Layout, Stored, array_parts, choose_arrays, piece_of, source_of
from pofx.data.numbers import Array
from pofx.data.options import Request
from pofx.data.public import public_format
from pofx.data.public.base import Extras, PublicStore
from pofx.data.store import MemoryStore, Part, mask_name, same_length
from pofx.data.writing import event_arrays
from pofx.errors import FormatError

__all__ = ["inspect", "npy_header", "open_store", "stored_parts", "write"]


def inspect(path: Path) -> list[Stored]:
    """The members, from their headers."""
    with zipfile.ZipFile(path) as file:
        return [
            _stored(file, info, path)
            for info in file.infolist()
            if info.filename.endswith(".npy") and info.filename != f"{NOTE}.npy"
        ]


def npy_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and Fortran order of the ``.npy`` data that begin here."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise FormatError(f"{where}: unknown npy version {version}")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(file)
    return shape, dtype, fortran


def _stored(file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Stored:
    name = info.filename.removesuffix(".npy")
    with file.open(info) as member:
        shape, dtype, _ = npy_header(member, f"{path}: {name!r}")
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > info.file_size:
        raise FormatError(
            f"{path}: array {name!r} says shape {shape} of {dtype}, but holds {info.file_size} bytes (damaged or truncated?)"
        )
    return Stored(name, shape, dtype)


def open_store(path: Path, request: Request) -> MemoryStore | PublicStore:
    """The chosen members as parts, or the events of a public format."""
    stored = inspect(path)
    note = _note(path)
    public = None if note is not None else public_format("npz", stored, request)
    if public is not None:
        return PublicStore(path, public, {s.name: s for s in stored}, _Members(path), request)
    if note is not None and not request.key:
        parts = stored_parts(note, stored, str(path))
    else:
        parts = array_parts(choose_arrays(stored, request, str(path)))
    there = {array.name: array for array in stored}
    sources = {part.name: source_of(part.name, there) for part in parts}
    used = {source: there[source] for source, _ in sources.values()}
    check_rows(used.values(), str(path))
    small = request.options.in_memory(sum(math.prod(a.shape) * a.dtype.itemsize for a in used.values()))
    arrays = {}
    for part in (p for p in parts if not p.problem):
        source, member = sources[part.name]
        arrays[part.name] = piece_of(_array(path, source, small), part, member)
        if mask_name(part.name) in there and part.field.kind == "cloud":
            arrays[mask_name(part.name)] = _array(path, mask_name(part.name), small).astype(bool, copy=False)
    return MemoryStore(str(path), tuple(parts), arrays, in_memory=small)


class _Members:
    """Rows of members, each of which is mapped, or loaded when it is first needed (a compressed one cannot be read in part)."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, dict[str, Array]()

    def __call__(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        for name in names:
            if name not in self._held:
                self._held[name] = _array(self._path, name, small=False)
        return {name: np.array(self._held[name][start:stop]) for name in names}


def check_rows(arrays: Iterable[Stored], origin: str) -> None:
    """Refuse single values and arrays of different lengths."""
    lengths = {}
    for array in arrays:
        if not array.shape:
            raise FormatError(f"{origin}: expected arrays with rows; {array.name!r} is a single value")
        lengths[array.name] = array.shape[0]
    same_length(lengths, origin)


def stored_parts(note: Layout, stored: list[Stored], origin: str) -> list[Part]:
    """The parts that the note speaks of, checked against what is there."""
    there = {array.name: array for array in stored}
    parts = []
    for name, form, group, role in note.fields():
        if name not in there or there[name].shape[1:] not in (form.shape, () if form.shape == (1,) else form.shape):
            got = there[name].shape if name in there else "none"
            raise FormatError(
                f"{origin}: the note in the file speaks of an array {name!r} of shape (n, {form.shape}); got {got}"
            )
        parts.append(Part(name, form, there[name].dtype, group, role))
    return parts


def _note(path: Path) -> Layout | None:
    with zipfile.ZipFile(path) as file:
        if f"{NOTE}.npy" not in file.namelist() or _stored(file, file.getinfo(f"{NOTE}.npy"), path).dtype.kind != "U":
            return None
    return Layout.loads(str(_array(path, NOTE, small=True)), str(path))


def _array(path: Path, name: str, small: bool) -> Array:
    """The member, loaded; or, if it is large and not compressed, mapped."""
    if not small:
        mapped = _mapped(path, f"{name}.npy")
        if mapped is not None:
            return mapped
    with np.load(path, allow_pickle=False) as file:
        array: Array = file[name]
        return array


def _mapped(path: Path, member: str) -> Array | None:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        file.seek(info.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(info.header_offset + 30 + int(lengths.sum()))
        shape, dtype, fortran = npy_header(file, f"{path}: {member}")
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def write_arrays(path: Path, rows: int, blocks: Iterable[Mapping[str, Array]], extras: Extras) -> None:
    """Blocks of rows of named arrays, compressed: files of public formats. They are collected in temporary files first."""
    held: dict[str, tuple[IO[bytes], Array]] = {}
    with ExitStack() as stack:
        for arrays in blocks:
            for name, array in arrays.items():
                if name not in held:
                    held[name] = (stack.enter_context(tempfile.SpooledTemporaryFile(64 << 20)), array[:0])
                held[name][0].write(np.ascontiguousarray(array).tobytes())
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, (spool, head) in held.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_header(member, head, rows)
                    spool.seek(0)
                    shutil.copyfileobj(spool, member)
            for name, array in extras.arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def _write_header(member: IO[bytes], head: Array, rows: int) -> None:
    descr, shape = np.lib.format.dtype_to_descr(head.dtype), (rows, *head.shape[1:])
    np.lib.format.write_array_header_2_0(member, {"descr": descr, "fortran_order": False, "shape": shape})


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """One member per field, mask, context and weight, and the note; one pass over the data per member."""
    first = next(event_arrays(data), None) or {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED, allowZip64=True) as file:
        for name, head in first.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_header(member, head, len(data))
                for arrays in event_arrays(data):
                    member.write(np.ascontiguousarray(arrays[name]).tobytes())
        with file.open(f"{NOTE}.npy", "w") as member:
            np.lib.format.write_array(member, np.array(layout.dumps()), allow_pickle=False)
