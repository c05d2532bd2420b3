"""HDF5: every data set with rows can be used; its ``columns`` (and ``units``) attributes, compound types and pandas blocks name columns.

The file is opened anew for every block, so a store can be copied to other processes and holds nothing open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.formats.npz import check_rows, stored_parts
from pofx.data.layout import NOTE, Layout, Stored, array_parts, choose_arrays, piece_of, source_of
from pofx.data.numbers import Array
from pofx.data.options import Request
from pofx.data.public import public_format
from pofx.data.public.base import Extras, PublicStore
from pofx.data.public.ragged import Ragged
from pofx.data.spec import Field
from pofx.data.store import Part, mask_name
from pofx.data.writing import event_arrays

__all__ = ["HDF5Store", "inspect", "open_store", "write"]


def inspect(path: Path) -> list[Stored]:
    """Every data set of the file."""
    import h5py

    with h5py.File(path, "r") as file:
        return list(_datasets(file, ""))


def _datasets(group: Any, prefix: str, depth: int = 0) -> Iterator[Stored]:
    import h5py

    for name in group:
        item = group.get(name, getlink=True)
        if not isinstance(item, h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Group) and depth < 20:
            yield from _datasets(item, f"{prefix}{name}/", depth + 1)
        elif isinstance(item, h5py.Dataset) and item.shape is not None:
            yield Stored(prefix + name, item.shape, item.dtype, _names(item, group, name))


def _names(item: Any, group: Any, name: str) -> tuple[str, ...]:
    """Column names from the ``columns`` attribute (with ``units``, if given) or from pandas' ``block*_items``."""
    names = item.attrs.get("columns")
    if names is None and name.endswith("_values") and name.replace("_values", "_items") in group:
        names = group[name.replace("_values", "_items")][()]
    if names is None or np.ndim(names) != 1 or item.ndim != 2 or len(names) != item.shape[1]:
        return ()
    units = item.attrs.get("units", [""] * len(names))
    units = units if np.ndim(units) == 1 and len(units) == len(names) else [""] * len(names)
    return tuple(_text(n) + (f" [{_text(u)}]" if _text(u) else "") for n, u in zip(names, units, strict=True))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def open_store(path: Path, request: Request) -> HDF5Store | PublicStore:
    """The chosen data sets, or the events of a public format; nothing is loaded yet."""
    stored = inspect(path)
    note = _note(path)
    public = None if note is not None else public_format("hdf5", stored, request)
    if public is not None:
        return PublicStore(path, public, {s.name: s for s in stored}, partial(read_rows, path), request, _grain(path))
    if note is not None and not request.key:
        parts = stored_parts(note, stored, str(path))
    else:
        parts = array_parts(choose_arrays(stored, request, str(path)))
    there = {array.name: array for array in stored}
    check_rows({name: there[name] for name in (source_of(part.name, there)[0] for part in parts)}.values(), str(path))
    return HDF5Store(path, tuple(parts), mask_names={mask_name(p.name) for p in parts} & set(there))


def read_rows(path: Path, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
    """Rows start..stop of data sets, as they are stored."""
    import h5py

    with h5py.File(path, "r") as file:
        return {name: _rows(file[name], start, stop) for name in names}


def _rows(item: Any, start: int, stop: int) -> Any:
    array = item[start:stop]
    return array if array.dtype.kind != "O" else Ragged.of(array, np.dtype((item.dtype.metadata or {})["vlen"]))


def _grain(path: Path) -> int:
    """Rows in a chunk of the data set that holds most bytes."""
    import h5py

    found: list[tuple[int, int]] = [(0, 1)]
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda _, item: found.append((item.nbytes, item.chunks[0])) if getattr(item, "chunks", None) else None
        )
    return max(found)[1]


def _note(path: Path) -> Layout | None:
    import h5py

    with h5py.File(path, "r") as file:
        note = file.attrs.get(NOTE)
        return Layout.loads(note, str(path)) if isinstance(note, (str, bytes)) else None


class HDF5Store:
    """Rows of data sets, read from the file when they are asked for."""

    in_memory = False

    def __init__(self, path: Path, parts: tuple[Part, ...], mask_names: set[str]) -> None:
        import h5py

        self.path, self.parts, self.origin, self._masks = path, parts, str(path), mask_names
        with h5py.File(path, "r") as file:
            sets = [file[source_of(part.name, file)[0]] for part in parts]
            self._length = len(sets[0]) if sets else 0
            self.grain = max([1, *(s.chunks[0] for s in sets if s.chunks)])
        self.grain = self.grain if self.grain * 4 <= max(self._length, 4) else 1

    def __len__(self) -> int:
        return self._length

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Rows start..stop of the named parts, and the masks of clouds."""
        import h5py

        by_name = {part.name: part for part in self.parts}
        found: dict[str, Array] = {}
        with h5py.File(self.path, "r") as file:
            for name in names:
                source, member = source_of(name, file)
                found[name] = piece_of(file[source][start:stop], by_name[name], member)
                if mask_name(name) in self._masks:
                    found[mask_name(name)] = file[mask_name(name)][start:stop].astype(bool)
        return found


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """One data set per field, mask, context and weight; ``columns`` and ``units`` as attributes for other readers, and the note."""
    import h5py

    forms = {name: form for name, form, _, _ in layout.fields()}
    options = {"compression": "gzip", "chunks": True, "shuffle": True} if compress else {}
    with h5py.File(path, "w") as file:
        file.attrs[NOTE] = layout.dumps()
        start = 0
        for arrays in event_arrays(data):
            for name, array in arrays.items():
                if name not in file:
                    _label(
                        file.create_dataset(name, (len(data), *array.shape[1:]), array.dtype, **options),
                        forms.get(name),
                    )
                file[name][start : start + len(array)] = array
            start += len(next(iter(arrays.values())))


def write_arrays(path: Path, rows: int, blocks: Iterable[Mapping[str, Any]], extras: Extras) -> None:
    """Blocks of rows of named arrays, as they are, compressed, and what else there is: files of public formats."""
    import h5py

    start = 0
    with h5py.File(path, "w") as file:
        for arrays in blocks:
            for name, array in arrays.items():
                if name not in file:
                    _create(file, name, rows, array)
                _put(file[name], start, array)
            start += len(next(iter(arrays.values())))
        for name, array in extras.arrays.items():
            file[name] = array
        for name, attributes in extras.attributes.items():
            file[name].attrs.update(attributes)


def _put(item: Any, start: int, array: Any) -> None:
    """Rows from ``start`` on; of different lengths one by one (h5py takes several of equal length for a matrix)."""
    if isinstance(array, Ragged):
        for i, row in enumerate(array.objects()):
            item[start + i] = row
    else:
        item[start : start + len(array)] = array


def _create(file: Any, name: str, rows: int, array: Any) -> None:
    """An empty data set for rows such as these."""
    import h5py

    if isinstance(array, Ragged):
        file.create_dataset(name, (rows,), h5py.vlen_dtype(array.flat.dtype))
    else:
        shape = (rows, *array.shape[1:])
        file.create_dataset(name, shape, array.dtype, compression="gzip", chunks=True, shuffle=True)


def _label(created: Any, form: Field | None) -> None:
    if form is not None and form.kind == "vector" and created.ndim == 2:
        created.attrs["columns"] = [column.name for column in form.columns]
        created.attrs["units"] = [column.unit for column in form.columns]
