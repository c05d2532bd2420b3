"""Every error says what was expected, what came, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pofx.data as pofx_data
from pofx.data import Column, Dataset
from pofx.data.rows import Rows
from pofx.errors import ColumnError, DataError, FormatError, NonFiniteError, PofxError, ShapeError

GOOD = np.random.default_rng(0).normal(size=(20, 3))


def _text(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def test_paths(tmp_path: Path) -> None:
    pofx_data.write(tmp_path / "toys.h5", GOOD)
    cases = {
        "toy.h5": r"toy.h5: no such file; did you mean 'toys.h5'\?",
        "no/toys.h5": "the folder .*no' does not exist",
        "": "is a directory; expected a file",
    }
    for name, message in cases.items():
        with pytest.raises(FormatError, match=message):
            pofx_data.read(tmp_path / name)
    with pytest.raises(FormatError, match=r"unknown extension '.doc'; expected one of .csv, .dat"):
        pofx_data.read(_text(tmp_path, "x", "t.doc"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.h5", b"\xff\xd8\xff\xe0 JFIF", "the name says hdf5, but the content looks like JPEG image"),
        ("t.npz", b"\x89HDF\r\n\x1a\n", "the name says npz, but the content looks like hdf5; if it is hdf5, rename it"),
        ("t.npy", b"\x80\x04K\x01.", "looks like pickle"),
        ("t.parquet", b"PAR1 PAR1", "cannot be used as parquet"),
        ("t.root", b"root" + b"\0" * 50, "cannot be used as root"),
        ("t.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "cannot be used as hdf5"),
        ("t.csv", b"", "the file is empty"),
        ("t.csv", b"a,b\n1,\xff\n", "expected text in UTF-8; byte 6 is 0xff"),
    ],
)
def test_foreign_and_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    for function in (pofx_data.read, pofx_data.describe):
        with pytest.raises(FormatError, match=message) as caught:
            function(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.parametrize("suffix", ["npz", "npy", "h5", "parquet", "root"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = pofx_data.write(tmp_path / f"t.{suffix}", np.random.default_rng(0).normal(size=(5000, 3)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FormatError, match="truncated"):
        pofx_data.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "line 3: expected 2 values as in the first line; got 1"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4: expected 2 values as in the first line; got 3"),
        ("a,b\n1,2\n3,four\n", "line 3, column 'b': expected a number; got 'four'"),
        ("1 2\n3\n", "line 2: expected 2 values as in the first line; got 1"),
        ("a,a\n1,2\n", "column names must be unique; more than once: a"),
        (",a\n0,2\n", "column 1 of the header has no name"),
        ("a,b\n", "no rows"),
        ("a,b\n1,NaN\n,2\n", r"got nan in row 1, column 'a' \(1 in this column, 2 rows in all; also in b\)"),
        ("a,b\n1,2\n1,inf\n", r"got inf in row 1, column 'b' .* nan='drop' leaves such rows out"),
        ("\n# only a comment\n", "holds no rows"),
    ],
)
def test_text(tmp_path: Path, text: str, message: str) -> None:
    path = _text(tmp_path, text)
    for stream in (False, True):
        with pytest.raises(DataError, match=message) as caught:
            pofx_data.read(path, options=pofx_data.ReadOptions(stream=stream))
        assert "t.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (GOOD > 0, "is boolean"),
        (GOOD + 1j, "is complex; give its real and imaginary parts"),
        (np.array(["2020-01-01"], "M8[D]"), "holds dates"),
        (np.array(["a", "b"]), r"holds text where numbers are needed"),
        (np.array([[1, None]], object), "holds Python objects, which would need pickle"),
        ([[1, 2], [3]], "expected an array with rows of equal length"),
        ("text", "expected an array of numbers; got 'text'"),
        (GOOD[:0], "no rows"),
        (GOOD[:, :0], "no column is left for x"),
        (np.float64(3), r"expected rows and columns, shape \(n, d\); got shape \(\)"),
        ({"a": [1, 2], "b": [1]}, "expected columns of equal length; got {'a': 2, 'b': 1}"),
        ({}, "need a spec"),
        (np.full((2, 1), np.nan), "got nan in row 0, column 'x0' .2 in this column, 2 rows in all"),
    ],
)
def test_arrays(array: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset.from_arrays(array)


def test_objects_in_files_are_refused(tmp_path: Path) -> None:
    objects = np.array([[1, "a"]], object)
    np.save(tmp_path / "t.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "t.npz", x=objects)
    for name in ("t.npy", "t.npz"):
        with pytest.raises(DataError, match=r"pickle|Python objects|object"):
            pofx_data.read(tmp_path / name)


def test_everything_dropped() -> None:
    with pytest.raises(DataError, match="no rows are left of 4 after dropping"):
        Dataset.from_arrays(np.full((4, 2), np.nan), nan="drop")


def test_declarations() -> None:
    def declared(*declare: Column | str) -> Dataset:
        return Dataset.from_arrays(GOOD, columns=["pt", "eta", "bin1"], declare=declare)

    with pytest.raises(DataError, match=r"column 'pt' is declared bounded, values in \[0.0, inf\] GeV; got -"):
        declared("pt:GeV:bounded:0:")
    with pytest.raises(DataError, match=r"'eta' is declared discrete, integers in \[-inf, inf\]"):
        declared("eta::discrete")
    with pytest.raises(ColumnError, match="declared column 'phi' matches none; there are: pt, eta, bin1"):
        declared("phi:rad:periodic:-pi:pi")
    with pytest.raises(ColumnError, match="column 'bin1' is declared twice"):
        declared("bin*", "b*1")
    assert declared("*:MeV", "pt:GeV").spec["x"].columns[:2] == (Column("pt", "GeV"), Column("eta", "MeV"))
    single = np.array([[np.pi]], "f4")  # a little above pi in double precision
    assert len(Dataset.from_arrays(single, columns=["phi"], declare="phi:rad:bounded:-pi:pi")) == 1


def test_columns_and_roles(tmp_path: Path) -> None:
    path = pofx_data.write(tmp_path / "t.h5", GOOD, columns=["pt", "eta", "w"])
    for arguments, message in [
        ({"columns": "pT"}, r"columns: no column matches 'pT'; did you mean 'pt'"),
        ({"columns": "x*"}, "no column matches 'x.'; there are: pt, eta, w"),
        ({"context": "*"}, "no column is left for x; there are x"),
        ({"context": "w", "weight": "w"}, "'w' is given both as context and as weight"),
        ({"weight": "*t*"}, "expected one weight column; got pt, eta"),
        ({"columns": "!*"}, "no column is left"),
        ({"columns": [3]}, "expected names or patterns of columns; got 3"),
        ({"key": "y"}, "no array is called 'y'; there are: x"),
    ]:
        with pytest.raises(DataError, match=message):
            pofx_data.read(path, **arguments)  # type: ignore[arg-type]
    with pytest.raises(PofxError, match="nan: expected 'error' or 'drop'; got 'keep'"):
        pofx_data.read(path, nan="keep")  # type: ignore[arg-type]
    with pytest.raises(ColumnError, match="expected 3 column names for an array with 3 columns; got 2"):
        Dataset.from_arrays(GOOD, columns=["a", "b"])


def test_weights_and_contexts() -> None:
    with pytest.raises(DataError, match="the weights must have a positive sum; theirs is -20 over 20 rows"):
        Dataset.from_arrays(GOOD, weight=-np.ones(20))
    with pytest.raises(NonFiniteError, match="column 'weight'"):
        Dataset.from_arrays(GOOD, weight=np.where(np.arange(20) == 3, np.nan, 1))
    with pytest.raises(ShapeError, match=r"weight: expected one number per event, shape \(n,\); got \(20, 3\)"):
        Dataset.from_arrays(GOOD, weight=GOOD)
    with pytest.raises(ShapeError, match="expected the same number of rows everywhere; got x: 20, context: 3"):
        Dataset.from_arrays(GOOD, context=np.ones((3, 1)))
    with pytest.raises(NonFiniteError, match="column 'context1'"):
        Dataset.from_arrays(GOOD, context=np.array([[1.0, np.inf]] * 20))
    assert Dataset.from_arrays(GOOD, weight=np.where(np.arange(20) < 5, -1, 1)).weighted


def test_pieces_need_a_size() -> None:
    data = Dataset.from_arrays(GOOD)
    assert data.rows.everything
    assert Rows(3).count == 3
    with pytest.raises(PofxError, match="expected a positive number of events per piece; got 0"):
        list(data.chunks(0))
