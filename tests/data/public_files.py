"""Files of public formats as their authors make them: arrays by name, some with rows of different lengths."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

Arrays = dict[str, np.ndarray]


def jagged(rows: list[np.ndarray], dtype: str = "f4") -> np.ndarray:
    """An array of arrays, one per row."""
    made = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        made[i] = np.asarray(row, dtype)
    return made


def save(path: Path, arrays: Arrays) -> Path:
    """In the container that the suffix says."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".root":
        _save_root(path, arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                if array.dtype.kind == "O":
                    kind = array[0].dtype if len(array) else np.dtype("f4")
                    file.create_dataset(name, len(array), h5py.vlen_dtype(kind))
                    for i, row in enumerate(array):
                        file[name][i] = row
                else:
                    file[name] = array
    return path


def load(path: Path) -> Arrays:
    """The inverse."""
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix == ".root":
        return _load_root(path)
    found: Arrays = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: found.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return found


def same(before: np.ndarray, after: np.ndarray, name: str) -> None:
    """Equal, value by value and in their types."""
    assert after.dtype == before.dtype, name
    if before.dtype.kind != "O":
        np.testing.assert_array_equal(after, before, err_msg=name)
        return
    assert len(before) == len(after), name
    for one, other in zip(before, after, strict=True):
        same(one, other, name)


def _save_root(path: Path, arrays: Arrays) -> None:
    import awkward as ak
    import uproot

    tree = arrays.pop("tree name").item() if "tree name" in arrays else "tree"
    content = {name: array for name, array in arrays.items() if array.dtype.kind != "O"}
    outer: dict[str, dict[str, object]] = {}
    for name, array in arrays.items():
        if array.dtype.kind == "O":
            flat = np.concatenate([np.empty(0, array[0].dtype if len(array) else "f4"), *array])
            collection, _, member = name.partition("_")
            outer.setdefault(collection, {})[member] = ak.unflatten(flat, [len(row) for row in array])
    content |= {name: ak.zip(members) for name, members in outer.items()}
    with uproot.recreate(path) as file:
        made = file.mktree(tree, {name: _kind(array) for name, array in content.items()})
        if len(next(iter(content.values()))):
            made.extend(content)


def _kind(array: object) -> object:
    return array.dtype if isinstance(array, np.ndarray) else array.type.content


def _load_root(path: Path) -> Arrays:
    import uproot

    with uproot.open(path) as file:
        tree = next(file[key] for key, what in file.classnames(cycle=False).items() if what == "TTree")
        found: Arrays = {}
        for name in tree.keys():  # noqa: SIM118 (a tree is no dictionary)
            array = tree[name].array()
            if array.ndim == 1:
                found[name] = np.asarray(array)
            else:
                found[name] = jagged([np.asarray(row) for row in array], str(np.asarray(array[0]).dtype))
    return found
