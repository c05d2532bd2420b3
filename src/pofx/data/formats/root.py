"""ROOT trees (TTree and RNTuple) through uproot: flat branches are columns, jagged ones become clouds when asked for.

``ReadOptions(clouds={"jets": ["Jet_Px", "Jet_Py"]})`` makes a cloud field out of jagged branches of equal lengths. Histograms and
matrices of data releases are read by :mod:`pofx.data.release`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.info import Entry
from pofx.data.layout import NOTE, Layout, Stored, column_parts, unique_names
from pofx.data.numbers import Array
from pofx.data.options import ReadOptions, Request
from pofx.data.patterns import close, listing, match_names
from pofx.data.public import public_format, public_tree
from pofx.data.public.base import Extras, PublicStore
from pofx.data.public.ragged import Ragged
from pofx.data.spec import Column, Field
from pofx.data.store import Part, mask_name
from pofx.data.writing import flat_arrays
from pofx.errors import ColumnError, FormatError, ShapeError

__all__ = ["RootStore", "inspect", "open_store", "write"]

_TREE = "events"
_JAGGED = (
    "has a varying number of values per event; "
    "make a cloud field of such branches with options=ReadOptions(clouds={'name': ['branch*']})"
)


def inspect(path: Path) -> list[Entry]:
    """Trees, histograms, matrices and everything else, by key and class."""
    import uproot

    with uproot.open(path) as file:
        return [_entry(file, key, what) for key, what in file.classnames(cycle=False).items() if key != NOTE]


def _entry(file: Any, key: str, what: str) -> Entry:
    if _is_tree(what):
        tree = file[key]
        return Entry(key, what, (int(tree.num_entries), len(_branch_names(tree))))
    if what.startswith(("TH1", "TH2", "TH3", "TProfile")):
        axes = [file[key].member(name, none_if_missing=True) for name in ("fXaxis", "fYaxis", "fZaxis")]
        return Entry(
            key,
            what,
            tuple(
                int(axis.member("fNbins")) for axis in axes[: int(what.removeprefix("TProfile").lstrip("TH")[:1] or 1)]
            ),
        )
    if what.startswith("TMatrixT"):
        return Entry(key, what, (int(file[key].member("fNrows")), int(file[key].member("fNcols"))))
    return Entry(key, what)


def _is_tree(what: str) -> bool:
    return what == "TTree" or what.endswith("RNTuple") or what == "TNtuple"


@dataclass(frozen=True)
class _Branch:
    dtype: np.dtype[Any]
    problem: str = ""
    jagged: bool = False
    inner: np.dtype[Any] | None = None

    def stored(self, name: str, rows: int) -> Stored:
        """What a public format is recognised by."""
        kind = self.dtype if self.inner is None else np.dtype(object, metadata={"vlen": self.inner})
        return Stored(name, (rows,), kind)


def open_store(path: Path, request: Request) -> RootStore | PublicStore:
    """The chosen tree, or the only one, or the events of a public format; what is chosen of it is loaded later, if it is small."""
    import uproot

    with uproot.open(path) as file:
        key = _tree_key(file.classnames(cycle=False), request.key, path)
        branches = {name: _branch(file[key], name) for name in _branch_names(file[key])}
        rows = int(file[key].num_entries)
        note = Layout.loads(str(file[NOTE]), str(path)) if NOTE in file and key == _TREE else None
    unique_names(list(branches), str(path))
    stored = [branch.stored(name, rows) for name, branch in branches.items()]
    plain = note is not None or request.options.clouds
    public = None if plain else public_format("root", stored, replace(request, key=()))
    if public is not None:
        return PublicStore(path, public, {s.name: s for s in stored}, _Branches(path, key), request)
    clouds = _clouds(branches, request.options, str(path))
    inside = {name for names in clouds.values() for name in names}
    flat = {name: branch for name, branch in branches.items() if name not in inside}
    parts = column_parts(
        {n: b.dtype for n, b in flat.items()}, note, {n: b.problem for n, b in flat.items()}, str(path)
    )
    store = RootStore(path, key, rows, parts, clouds)
    store.add_clouds(request.options.points)
    return store


def _tree_key(classes: dict[str, str], key: Sequence[str], path: Path) -> str:
    trees = [name for name, what in classes.items() if _is_tree(what)]
    if len(key) > 1:
        raise FormatError(f"{path}: expected one tree; got key={list(key)}")
    if key:
        if key[0] in trees:
            return key[0]
        if key[0] in classes:
            raise FormatError(
                f"{path}: {key[0]!r} is a {classes[key[0]]}, not a tree; read it with pofx.data.read_histogram or read_matrix"
            )
        raise FormatError(f"{path}: no tree is called {key[0]!r}; {close(key[0], trees or classes)}")
    if not trees:
        what = listing(f"{name} ({kind})" for name, kind in classes.items()) or "nothing"
        raise FormatError(
            f"{path}: no tree in this file; it holds {what}; histograms and matrices: pofx.data.read_histogram, read_matrix"
        )
    if len(trees) > 1 and public_tree(trees):
        return str(public_tree(trees))
    if len(trees) > 1:
        raise FormatError(f"{path}: several trees to choose from, say which with key=: {listing(trees)}")
    return trees[0]


def _branch_names(tree: Any) -> list[str]:
    """All branches of a TTree; of an RNTuple those on top, without its hidden collections."""
    if "RNTuple" not in type(tree).__name__:
        return [str(name) for name in tree.keys()]  # noqa: SIM118 (a tree is no dictionary)
    return [str(name) for name in tree.keys(recursive=False) if not name.startswith("_")]


def _branch(tree: Any, name: str) -> _Branch:
    """Type of a branch, or why it is no column."""
    kind = getattr(tree[name], "interpretation", None)
    if kind is None:
        return _ntuple_field(tree[name])
    text = type(kind).__name__
    if text == "AsDtype":
        dtype = np.dtype(kind.to_dtype)
        return (
            _Branch(dtype.base.newbyteorder("="))
            if not dtype.shape and not dtype.names
            else _Branch(dtype.base, "has several values per event")
        )
    if text == "AsJagged":
        content = kind.content.to_dtype if type(kind.content).__name__ == "AsDtype" else None
        inner = None if content is None or content.names or content.shape else content.newbyteorder("=")
        return _Branch(np.dtype(object), _JAGGED, jagged=True, inner=inner)
    return _Branch(
        np.dtype(object),
        {"AsStrings": "holds text where numbers are needed"}.get(
            text, f"is of a type ({text}) that is no plain number"
        ),
    )


def _ntuple_field(item: Any) -> _Branch:
    """The same for a field of an RNTuple."""
    kind = str(getattr(item, "typename", "")).replace("std::", "").replace("_t", "")
    if kind.startswith("ROOT::RNTupleCardinality"):
        return _Branch(np.dtype(np.int64))
    names = {"double": "f8", "float": "f4", "bool": "?", "int": "i4", "unsigned int": "u4", "char": "i1"}
    names |= {f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    if kind in names:
        return _Branch(np.dtype(names[kind]))
    if kind.startswith(("vector<", "ROOT::VecOps")):
        return _Branch(np.dtype(object), _JAGGED, jagged=True)
    return _Branch(np.dtype(object), f"is of a type ({kind or 'unknown'}) that is no plain number")


def _clouds(branches: dict[str, _Branch], options: ReadOptions, origin: str) -> dict[str, list[str]]:
    jagged = [name for name, branch in branches.items() if branch.jagged]
    return {
        cloud: match_names(patterns, jagged, f"{origin}, cloud {cloud!r}") for cloud, patterns in options.clouds.items()
    }


class RootStore:
    """Entries of a tree, read when they are asked for."""

    in_memory = False
    grain = 1

    def __init__(self, path: Path, key: str, rows: int, parts: tuple[Part, ...], clouds: dict[str, list[str]]) -> None:
        self.path, self.key, self.parts, self.origin, self._rows, self._clouds = (
            path,
            key,
            parts,
            str(path),
            rows,
            clouds,
        )
        self._tree: Any = None

    def __len__(self) -> int:
        return self._rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tree": None}

    @property
    def tree(self) -> Any:
        """The open tree (opening costs too much to do it for every block)."""
        if self._tree is None:
            import uproot

            self._tree = uproot.open(self.path)[self.key]
        return self._tree

    def add_clouds(self, points: int | None) -> None:
        """One part for every cloud; without ``points`` one pass finds the largest number of points."""
        for name, branches in self._clouds.items():
            if name in {part.name for part in self.parts}:
                raise ColumnError(f"{self.origin}: the cloud {name!r} has the name of a branch; give it another")
            most = points or self._largest(branches)
            field = Field("cloud", (max(most, 1), len(branches)), tuple(Column(b) for b in branches))
            self.parts = (*self.parts, Part(name, field, np.dtype(np.float64), name))

    def _largest(self, branches: list[str]) -> int:
        import awkward as ak

        step = 1 << 16
        blocks = (
            self._awkward(start, min(start + step, self._rows), branches[:1]) for start in range(0, self._rows, step)
        )
        return max((int(ak.max(ak.num(block[branches[0]]), initial=0)) for block in blocks), default=0)

    def _awkward(self, start: int, stop: int, names: Sequence[str]) -> Any:
        if not names:
            return None
        return self.tree.arrays(list(names), entry_start=start, entry_stop=stop)

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Entries start..stop of the named branches and clouds (with their masks)."""
        import awkward as ak

        branches = [b for name in names for b in self._clouds.get(name, [name])]
        block = self._awkward(start, stop, branches)
        found: dict[str, Array] = {}
        for part in (part for part in self.parts if part.name in names):
            if part.name in self._clouds:
                found[part.name], found[mask_name(part.name)] = self._cloud(block, part)
            else:
                found[part.name] = np.asarray(ak.to_numpy(block[part.name]))
        return found

    def _cloud(self, block: Any, part: Part) -> tuple[Array, Array]:
        import awkward as ak

        most, branches = part.field.shape[0], self._clouds[part.name]
        counts = ak.to_numpy(ak.num(block[branches[0]]))
        for other in branches[1:]:
            if not np.array_equal(counts, ak.to_numpy(ak.num(block[other]))):
                raise ShapeError(
                    f"{self.origin}, cloud {part.name!r}: branches {branches[0]!r} and {other!r} differ in their numbers of points"
                )
        padded = [ak.to_numpy(ak.fill_none(ak.pad_none(block[b], most, clip=True), 0.0)) for b in branches]
        mask = np.arange(most) < counts[:, None]
        return np.stack(padded, axis=-1).astype(np.float64).reshape(len(counts), *part.field.shape), mask


class _Branches:
    """Entries of branches; jagged ones as :class:`Ragged`. The tree stays open."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._tree: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tree": None}

    def __call__(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Any]:
        import uproot

        if self._tree is None:
            self._tree = uproot.open(self._path)[self._key]
        return {name: _plain(self._tree[name].array(entry_start=start, entry_stop=stop)) for name in names}


def _plain(block: Any) -> Any:
    import awkward as ak

    if block.ndim == 1:
        return ak.to_numpy(block)
    return Ragged(ak.to_numpy(ak.flatten(block)), ak.to_numpy(ak.num(block)).astype(np.int64))


def write_arrays(path: Path, rows: int, blocks: Iterable[Mapping[str, Any]], extras: Extras) -> None:
    """Blocks of rows of named arrays as one tree; jagged branches ``outer_inner`` of one ``outer`` share a counter ``nouter``."""
    import uproot

    tree, count = None, 0
    with uproot.recreate(path) as file:
        for arrays in blocks:
            content = _zipped(arrays)
            tree = tree or file.mktree(extras.tree or _TREE, {name: _type(array) for name, array in content.items()})
            tree.extend(content)
            count += len(next(iter(content.values())))
    if count != rows:
        raise FormatError(f"{path}: expected {rows} events; got {count}")


def _zipped(arrays: Mapping[str, Any]) -> dict[str, Any]:
    import awkward as ak

    found: dict[str, Any] = {name: array for name, array in arrays.items() if not isinstance(array, Ragged)}
    outer: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        if isinstance(array, Ragged):
            collection, _, member = name.partition("_")
            outer.setdefault(collection, {})[member] = ak.unflatten(array.flat, array.counts)
    return found | {name: ak.zip(members) for name, members in outer.items()}


def _type(array: Any) -> Any:
    return array.dtype if isinstance(array, np.ndarray) else array.type.content


def write(path: Path, data: Dataset, layout: Layout, compress: bool) -> None:
    """A TTree ``events`` of flat branches, and the note as a string beside it."""
    import uproot

    tree = None
    with uproot.recreate(path, compression=uproot.ZLIB(4) if compress else None) as file:
        for arrays in flat_arrays(data, layout, "ROOT"):
            tree = tree or file.mktree(_TREE, {name: array.dtype for name, array in arrays.items()})
            tree.extend(arrays)
        file[NOTE] = layout.dumps()
