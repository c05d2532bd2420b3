"""Input files that are wrong in every way we could think of, for tests and for ``benchmarks/acceptance/02_fuzz.py``.

``cases(n, seed)`` yields n of them, reproducibly; whatever reads one may succeed or raise a ``PofxError``, and nothing else.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Case", "cases"]

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """One file: its name, its bytes, what is wrong with it, and arguments for ``pofx.read``."""

    name: str
    content: bytes
    what: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """The file, in the folder."""
        path = folder / self.name
        path.write_bytes(self.content)
        return path


def cases(n: int, seed: int = 0) -> Iterator[Case]:
    """n fuzzed files; case i depends on (seed, i) only."""
    makers: list[Callable[[Rng, int], Case]] = [
        _mutated,
        _truncated,
        _odd_array,
        _odd_text,
        _foreign,
        _arguments,
        _hdf5,
        _spliced,
    ]
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        yield makers[i % len(makers)](rng, i)


# Good files to begin with


def _table(rng: Rng, rows: int = 40, columns: int = 3) -> np.ndarray[Any, Any]:
    return rng.normal(size=(rows, columns)).astype(rng.choice(["f4", "f8"]))


class _Kept(io.BytesIO):
    """A buffer that outlives the library that wrote to it."""

    def close(self) -> None:
        """Stay open."""


def _good(rng: Rng, kind: str) -> bytes:
    buffer, table = _Kept(), _table(rng)
    if kind == "npz":
        (np.savez if rng.random() < 0.5 else np.savez_compressed)(buffer, x=table, weight=np.ones(len(table)))
    elif kind == "npy":
        np.save(buffer, table)
    elif kind == "csv":
        np.savetxt(buffer, table, delimiter=",", header="a,b,c", comments="")
    elif kind == "h5":
        import h5py

        with h5py.File(buffer, "w") as file:
            file.create_dataset("x", data=table, compression=rng.choice([None, "gzip"]))  # type: ignore[arg-type]
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({f"c{i}": table[:, i] for i in range(3)}), buffer)
    else:
        import uproot

        with uproot.recreate(buffer) as file:
            file["events"] = {f"c{i}": table[:, i] for i in range(3)}
    return buffer.getvalue()


_KINDS = ("npz", "npy", "csv", "h5", "parquet", "root")


# What can be wrong


def _mutated(rng: Rng, i: int) -> Case:
    kind = str(rng.choice(_KINDS))
    data = bytearray(_good(rng, kind))
    end = len(data) if rng.random() < 0.5 else min(len(data), 600)
    for place in rng.integers(0, end, size=int(rng.integers(1, 12))):
        data[int(place)] = int(rng.integers(0, 256))
    return Case(f"mutated{i}.{kind}", bytes(data), "bytes changed")


def _truncated(rng: Rng, i: int) -> Case:
    kind = str(rng.choice(_KINDS))
    data = _good(rng, kind)
    return Case(f"truncated{i}.{kind}", data[: int(rng.integers(0, len(data)))], "cut off")


def _spliced(rng: Rng, i: int) -> Case:
    kind = str(rng.choice(_KINDS))
    data, other = _good(rng, kind), _good(rng, str(rng.choice(_KINDS)))
    cut = int(rng.integers(8, len(data)))
    return Case(f"spliced{i}.{kind}", data[:cut] + other[int(rng.integers(0, len(other))) :], "two files in one")


def _odd_arrays(rng: Rng) -> list[tuple[str, Any]]:
    table = _table(rng)
    holed = table.copy()
    holed[rng.integers(0, 40), rng.integers(0, 3)] = rng.choice([np.nan, np.inf, -np.inf])
    return [
        ("NaN", holed),
        ("zero rows", table[:0]),
        ("zero columns", table[:, :0]),
        ("constant column", table * np.array([1, 0, 1])),
        ("boolean", table > 0),
        ("complex", table + 1j),
        ("text", np.array([["a", "b"], ["c", "d"]])),
        ("bytes", np.array([b"a", b"b"])),
        ("dates", np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]")),
        ("huge integers", np.array([[2**63 - 1, -(2**63)], [1, 2]])),
        ("unsigned", np.array([[2**64 - 1, 0], [1, 2]], np.uint64)),
        ("half", table.astype("f2")),
        ("long double", table.astype(np.longdouble)),
        ("scalar", np.array(3.0)),
        ("four axes", rng.normal(size=(3, 2, 2, 2))),
        ("big-endian", table.astype(">f8")),
        ("structured", np.zeros(4, dtype=[("a", "f4"), ("b", "i8")])),
        ("nested structure", np.zeros(4, dtype=[("a", [("b", "f4")]), ("c", "f4", (2,))])),
        ("Fortran order", np.asfortranarray(table)),
        ("objects", np.array([[1, "a"], [None, 2.0]], dtype=object)),
        ("ones, one row", np.ones((1, 5))),
        ("unicode objects", np.array(["\N{SNOWMAN}", "x"])),
    ]


def _odd_array(rng: Rng, i: int) -> Case:
    options = _odd_arrays(rng)
    what, array = options[int(rng.integers(len(options)))]
    buffer, kind = io.BytesIO(), str(rng.choice(["npz", "npy"]))
    if kind == "npy":
        np.save(buffer, array, allow_pickle=True)
    else:
        np.savez(buffer, **{str(rng.choice(["x", "\N{GREEK SMALL LETTER PHI}", "a b", "pofx", "weight"])): array})
    return Case(f"array{i}.{kind}", buffer.getvalue(), what)


_TEXTS = [
    ("ragged", "a,b\n1,2\n3\n"),
    ("too long", "a,b\n1,2,3\n"),
    ("text in numbers", "a,b\n1,2\n3,four\n"),
    ("duplicate names", "a,a\n1,2\n3,4\n"),
    ("empty name", "a,,c\n1,2,3\n"),
    ("header only", "a,b\n"),
    ("blank", "\n\n\n"),
    ("NaN and missing", "a,b\n1,NaN\n,2\n"),
    ("infinity", "a,b\n1,inf\n-inf,2\n"),
    ("overflow", "a,b\n1e999,2\n1,2\n"),
    ("huge integers", "a,b\n" + "9" * 400 + ",2\n1,2\n"),
    ("unicode names", "\u03c6,\U0001f984\n1,2\n3,5\n"),
    ("quotes", '"a","b\n1,2\n'),
    ("quoted newline", '"a\nb",c\n1,2\n'),
    ("null bytes", "a,b\n1,\0\n"),
    ("mixed delimiters", "a;b\n1;2\n3,4\n"),
    ("spaces", "1 2 3\n4 5\n"),
    ("semicolons and decimal commas", "a;b\n1,5;2\n"),
    ("carriage returns", "a,b\r1,2\r3,4\r"),
    ("damaged note", "# pofx {nonsense\na,b\n1,2\n"),
    ("foreign note", "# pofx " + json.dumps({"spec": 3}) + "\na\n1\n2\n"),
    ("hexadecimal", "a,b\n0x10,1_000\n2,3\n"),
    ("very long line", "a\n" + "1" * 100_000 + "\n"),
    ("many columns", ",".join(f"c{i}" for i in range(2000)) + "\n" + ",".join("1" * 2000) + "\n"),
    ("byte-order mark", "\ufeffa,b\n1,2\n2,4\n"),
    ("comment inside", "a,b\n1,2\n# comment\n3,4\n"),
    ("constant", "a,b\n1,2\n1,3\n1,4\n"),
    ("tabs", "a\tb\n1\t2\n\t\n"),
]


def _odd_text(rng: Rng, i: int) -> Case:
    what, text = _TEXTS[int(rng.integers(len(_TEXTS)))]
    encoding = str(rng.choice(["utf-8", "utf-8", "utf-16", "latin-1"]))
    return Case(
        f"text{i}.{rng.choice(['csv', 'tsv', 'txt'])}", text.encode(encoding, "replace"), f"{what} ({encoding})"
    )


def _foreign(rng: Rng, i: int) -> Case:
    heads = [
        b"\xff\xd8\xff\xe0JFIF",
        b"\x89PNG\r\n\x1a\n",
        b"%PDF-1.7",
        b"\x80\x04K\x01.",
        b"",
        b"\0" * 100,
        rng.bytes(300),
    ]
    content = heads[int(rng.integers(len(heads)))] + (rng.bytes(200) if rng.random() < 0.5 else b"")
    if rng.random() < 0.3:
        content = _good(rng, str(rng.choice(_KINDS)))
    name = str(
        rng.choice([*(f"foreign{i}.{kind}" for kind in _KINDS), f"foreign{i}.docx", f"foreign{i}", f"\u03c6{i}.H5"])
    )
    return Case(name, content, "another kind of file")


def _arguments(rng: Rng, i: int) -> Case:
    kind = str(rng.choice(_KINDS))
    options: list[dict[str, Any]] = [
        {"columns": "nothing*"}, {"columns": []}, {"context": "*"}, {"weight": "c9"}, {"key": "missing"}, {"key": ["x", "x"]},
        {"declare": "c0:GeV:bounded:0:"}, {"declare": "*:x:periodic:0:1e-9"}, {"declare": ["c0", "c0"]}, {"declare": "c0:::"},
        {"context": "c0", "weight": "c0"}, {"columns": [1]}, {"nan": "keep"}, {"columns": "[", "context": "?"}, {"weight": "*"},
        {"declare": "a:1:discrete"}, {"columns": "!c0"}, {"columns": ["c0", "c0"]}, {"key": ""}, {"weight": ""}, {"declare": "x_0:m:odd"},
    ]  # fmt: skip
    return Case(f"arguments{i}.{kind}", _good(rng, kind), "wrong arguments", options[int(rng.integers(len(options)))])


def _hdf5(rng: Rng, i: int) -> Case:
    import h5py

    options = _odd_arrays(rng)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("deep/er") if rng.random() < 0.3 else file
        for number in range(int(rng.integers(0, 4))):
            _add_set(group, number, *options[int(rng.integers(len(options)))])
        if rng.random() < 0.2:
            group["loop"] = file["/"]
            group["gone"] = h5py.SoftLink("/nowhere")
        if rng.random() < 0.2:
            file.attrs["pofx"] = str(rng.choice(["{}", "[]", '{"spec": {"x": 1}}', "\0"]).replace("\0", " "))
    return Case(f"sets{i}.h5", buffer.getvalue(), "odd HDF5", {"key": "d0"} if rng.random() < 0.3 else {})


def _add_set(group: Any, number: int, what: str, array: Any) -> None:
    import h5py

    if array.dtype.kind in "OMU":
        array = np.array([what.encode(), b"\xff"], dtype=h5py.special_dtype(vlen=bytes))
    group.create_dataset(f"d{number}", data=array)
    group[f"d{number}"].attrs["columns"] = ["one", "one", "three"]
