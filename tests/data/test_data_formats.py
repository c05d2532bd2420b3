"""Every format: what is written comes back; what others write is understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import pofx.data as pofx_data
from pofx.data import Column, Dataset, ReadOptions
from pofx.errors import CapabilityError, DataError, FormatError

TABLES = ["npz", "h5", "parquet", "root", "csv", "tsv"]


@pytest.fixture
def full() -> Dataset:
    """Units, ranges, types, context, weights, single precision."""
    rng = np.random.default_rng(3)
    columns = [
        Column("pt [weird]", "GeV", "bounded", 0, None),
        Column("\u03c6", "rad", "periodic", -4, 4),
        Column("n", "", "discrete"),
    ]
    x = np.stack(
        [rng.exponential(size=200), rng.uniform(-3, 3, size=200), rng.integers(0, 9, size=200)], axis=1
    ).astype("f4")
    return Dataset.from_arrays(
        x, rng.normal(size=(200, 2)), rng.normal(1, 1, size=200), columns=columns, context_columns=["E", "a.b"]
    )


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("stream", [False, True])
def test_round_trip(full: Dataset, tmp_path: Path, suffix: str, stream: bool) -> None:
    path = pofx_data.write(tmp_path / f"t.{suffix}", full)
    back = pofx_data.read(path, options=ReadOptions(stream=stream))
    assert (back.spec, back.context_spec) == (full.spec, full.context_spec)
    before, after = full.arrays(), back.arrays()
    assert after.x.dtype == np.float32
    np.testing.assert_array_equal(after.x, before.x)
    np.testing.assert_array_equal(after.context.x, before.context.x)
    np.testing.assert_array_equal(after.weight, before.weight)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [*TABLES, "npy"])
def test_plain_array_with_extreme_numbers(tmp_path: Path, suffix: str) -> None:
    x = np.array([[1e-308, -1e308], [np.pi, 5e-324], [1 / 3, -0.0]])
    path = pofx_data.write(tmp_path / f"t.{suffix}", x)
    np.testing.assert_array_equal(pofx_data.read(path).arrays().x, x)


@pytest.mark.parametrize("suffix", ["npz", "h5", "parquet", "root"])
def test_compressed(full: Dataset, tmp_path: Path, suffix: str) -> None:
    path = pofx_data.write(tmp_path / f"t.{suffix}", full.train, compress=True)
    back = pofx_data.read(path, options=ReadOptions(stream=True))
    np.testing.assert_array_equal(back.arrays().x, full.train.arrays().x)


def test_not_finite_values_are_written_as_they_are(tmp_path: Path) -> None:
    for suffix in TABLES:
        path = pofx_data.write(tmp_path / f"t.{suffix}", np.array([[1.0], [-np.inf], [np.nan], [2.0]]))
        assert len(pofx_data.read(path, nan="drop")) == 2
        assert [c.not_finite for c in pofx_data.describe(path).columns] == [2]


def test_what_a_format_cannot_carry(full: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match=r"write .npz or .h5 instead"):
        pofx_data.write(tmp_path / "t.npy", full)
    grid = {"v": pofx_data.Field("grid", (1, 2), (Column("E"),), (pofx_data.Axis("z", 2),))}
    for suffix in ("csv", "parquet", "root"):
        with pytest.raises(CapabilityError, match=r"field 'v' is a grid: write .h5 or .npz instead"):
            pofx_data.write(tmp_path / f"t.{suffix}", np.ones((3, 1, 2)), columns=grid)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path: Path, full: Dataset) -> None:
    path = pofx_data.write(tmp_path / "t.h5", full)
    before = path.read_bytes()

    def broken(*_: Any) -> Any:
        raise OSError("disk full")

    object.__setattr__(full, "chunks", broken)
    with pytest.raises(FormatError, match=r"t.h5: cannot be used as a file to write.*disk full"):
        pofx_data.write(path, full)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FormatError, match=r"the folder .* does not exist"):
        pofx_data.write(tmp_path / "no" / "t.h5", np.ones((2, 2)))
    with pytest.raises(FormatError, match=r"unknown extension '.xls'"):
        pofx_data.write(tmp_path / "t.xls", np.ones((2, 2)))


# Files of others


def _hdf5(path: Path, **sets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in sets.items():
            file[name] = values
    return path


def test_hdf5_of_others(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(6, 2)
    path = _hdf5(tmp_path / "a.h5", toys=x)
    assert pofx_data.read(path).names == ("toys_0", "toys_1")
    with h5py.File(path, "a") as file:
        file["toys"].attrs["columns"] = ["pt", "eta"]
        file["toys"].attrs["units"] = ["GeV", ""]
    assert pofx_data.read(path).spec["x"].columns == (Column("pt", "GeV"), Column("eta"))
    path = _hdf5(tmp_path / "b.h5", pt=x[:, 0], eta=x[:, 1].astype("i4"), w=np.ones(6))
    data = pofx_data.read(path, weight="w")
    assert set(data.names) == {"pt", "eta"}
    assert data.arrays().x.dtype == np.float64
    path = _hdf5(tmp_path / "c.h5", toys=x, w=np.ones(6), other=np.ones((3, 3)))
    with pytest.raises(
        FormatError,
        match=r"several arrays to choose from, say which with key=: other \(3, 3\), toys \(6, 2\), w \(6,\)",
    ):
        pofx_data.read(path)
    with pytest.raises(FormatError, match=r"no array is called 'toy'; did you mean 'toys'"):
        pofx_data.read(path, key="toy")
    assert pofx_data.read(path, key=["toys", "w"], weight="w").weighted
    with pytest.raises(DataError, match="expected the same number of rows everywhere; got other: 3, toys: 6"):
        pofx_data.read(path, key=["other", "toys"])


def test_hdf5_groups_compounds_and_pandas(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(6, 2)
    path = _hdf5(tmp_path / "a.h5", **{"g/pt": x[:, 0], "g/eta": x[:, 1], "h/z": np.ones(4)})
    assert set(pofx_data.read(path, key="g").names) == {"pt", "eta"}
    table = np.array([(1.0, 2), (3.0, 4)], dtype=[("pt", "f4"), ("n", "i8")])
    path = _hdf5(tmp_path / "b.h5", table=table)
    for stream in (False, True):
        data = pofx_data.read(path, options=ReadOptions(stream=stream))
        assert data.names == ("pt", "n")
        np.testing.assert_array_equal(data.arrays().x, [[1, 2], [3, 4]])
    path = _hdf5(
        tmp_path / "c.h5",
        **{
            "df/block0_values": x,
            "df/block0_items": np.array([b"mj1", b"mj2"]),
            "df/axis0": np.array([b"mj1", b"mj2"]),
        },
    )
    assert pofx_data.read(path, key="df/block0_values").names == ("mj1", "mj2")


def test_hdf5_grid_with_context(tmp_path: Path) -> None:
    showers, energy = np.random.default_rng(0).random((20, 3, 4)).astype("f4"), np.arange(20.0)[:, None]
    path = _hdf5(tmp_path / "a.h5", showers=showers, energy=energy, overflow=np.zeros((20, 3)))
    for stream in (False, True):
        data = pofx_data.read(path, key=["showers", "energy"], context="energy", options=ReadOptions(stream=stream))
        assert data.spec["showers"].kind == "grid"
        assert data.spec["showers"].shape == (1, 3, 4)
        np.testing.assert_array_equal(data.arrays().x[:, 0], showers)
        np.testing.assert_array_equal(data.arrays().context.x, energy)


def test_npz_and_npy_of_others(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(6, 2)
    np.savez(tmp_path / "a.npz", x=x, weight=np.ones(6))
    assert pofx_data.read(tmp_path / "a.npz", weight="weight").names == ("x_0", "x_1")
    np.savez(tmp_path / "f.npz", x=np.asfortranarray(x))
    np.testing.assert_array_equal(pofx_data.read(tmp_path / "f.npz", options=ReadOptions(stream=True)).arrays().x, x)
    np.save(tmp_path / "s.npy", np.array([(1.0, 2), (3.0, 4)], dtype=[("pt", "f4"), ("n", "i8")]))
    assert pofx_data.read(tmp_path / "s.npy").names == ("pt", "n")
    np.save(tmp_path / "b.npy", x.astype(">f4"))
    assert pofx_data.read(tmp_path / "b.npy").arrays().x.dtype == np.dtype("f4")


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("1,2\n3,4\n", ("x0", "x1"), 2),
        ("pt [GeV],eta\n1,2\n\n3,4\n", ("pt", "eta"), 2),
        ("a;b\n1;2\n", ("a", "b"), 1),
        ("# a comment\na\tb\n1\t2\n", ("a", "b"), 1),
        ("// min max\n  1.0    2\n 3 4 \n", ("x0", "x1"), 2),
        ('"a, b", c\n1, 2\n-3, 4e5\n', ("a, b", "c"), 2),
        ("\ufeffa,b\r\n1,2\r\n", ("a", "b"), 1),
        ("7\n8\n", ("x0",), 2),
    ],
)
def test_text_of_others(tmp_path: Path, text: str, names: tuple[str, ...], rows: int) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    for stream in (False, True):
        data = pofx_data.read(path, options=ReadOptions(stream=stream))
        assert (data.names, len(data)) == (names, rows)


def test_parquet_of_others(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "a": [1, 2, 3],
            "b": [1.0, None, 2.0],
            "s": ["x", "y", "z"],
            "l": [[1], [2, 3], []],
            "__index_level_0__": [0, 1, 2],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    with pytest.raises(DataError, match="column 's' is of type string, not a number"):
        pofx_data.read(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'l' is nested"):
        pofx_data.read(tmp_path / "t.parquet", columns="l")
    for stream in (False, True):
        data = pofx_data.read(
            tmp_path / "t.parquet", columns=["b", "a"], nan="drop", options=ReadOptions(stream=stream)
        )
        np.testing.assert_array_equal(data.arrays().x, [[1, 1], [2, 3]])


def test_root_of_others(tmp_path: Path) -> None:
    import awkward as ak
    import uproot

    jets = ak.Array([[1.0, 2.0], [], [3.0]])
    path = tmp_path / "t.root"
    with uproot.recreate(path) as file:
        events = {"met": np.arange(3.0), "jet": ak.zip({"pt": jets, "eta": -jets})}
        file.mktree("events", {name: ak.type(ak.Array(value)) for name, value in events.items()}).extend(events)
        file.mktree("other", {"a": "f8"}).extend({"a": np.arange(4.0)})
    with pytest.raises(FormatError, match="several trees to choose from, say which with key=: events, other"):
        pofx_data.read(path)
    with pytest.raises(DataError, match="'jet_pt' has a varying number of values per event"):
        pofx_data.read(path, key="events")
    with pytest.raises(FormatError, match="no tree is called 'event'; did you mean 'events'"):
        pofx_data.read(path, key="event")
    for stream in (False, True):
        options = ReadOptions(stream=stream, clouds={"jets": ["jet_pt", "jet_eta"]})
        data = pofx_data.read(path, key="events", columns="jets", context="met", options=options)
        assert data.spec["jets"].kind == "cloud"
        assert data.spec["jets"].shape == (2, 2)
        events = data.arrays()
        np.testing.assert_array_equal(events.mask, [[True, True], [False, False], [True, False]])
        np.testing.assert_array_equal(events.x[..., 0], [[1, 2], [0, 0], [3, 0]])
        np.testing.assert_array_equal(events.context.x[:, 0], [0, 1, 2])
    clipped = ReadOptions(clouds={"jets": "jet_*"}, points=1)
    with pytest.raises(DataError):
        pofx_data.read(path, key="other", options=clipped)
    assert pofx_data.read(
        path, key="events", columns="jets", options=ReadOptions(clouds={"jets": "jet_*"}, points=1)
    ).spec["jets"].shape == (1, 2)


def test_describe(full: Dataset, tmp_path: Path) -> None:
    for suffix in TABLES:
        info = pofx_data.describe(pofx_data.write(tmp_path / f"t.{suffix}", full))
        assert info.rows == 200
        assert [c.name for c in info.columns] == [
            "pt [weird]",
            "\u03c6",
            "n",
            "E",
            "a.b",
            "weight",
        ]
        assert (info.columns[0].unit, info.columns[1].type, info.columns[3].role, info.columns[5].role) == (
            "GeV",
            "periodic",
            "context",
            "weight",
        )
        assert info.columns[2].low == 0
        assert info.columns[2].high == 8
        assert info.columns[0].dtype == "float32"
        assert "periodic" in str(info)
    path = _hdf5(tmp_path / "m.h5", toys=np.ones((3, 2)), names=np.array([b"a", b"b"]), other=np.ones(4))
    info = pofx_data.describe(path)
    assert {e.name: e.shape for e in info.entries} == {"names": (2,), "toys": (3, 2), "other": (4,)}
    assert "several arrays to choose from" in info.note
    assert info.rows is None
    assert pofx_data.describe(path, key="toys").rows == 3
