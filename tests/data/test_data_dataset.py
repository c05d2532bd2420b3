"""The data set: splits, selections, contexts, weights, streaming in order and shuffled."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pofx.data as pofx_data
from pofx.data import Column, Dataset, Field, ReadOptions
from pofx.data.rows import Cut, Rows, row_hash, split_rows
from pofx.errors import ColumnError, ConfigError, DataError, NonFiniteError, ShapeError

STREAM = ReadOptions(stream=True)
PINNED = [6, 13, 26]


@pytest.fixture
def table() -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).normal(size=(1003, 4))


@pytest.fixture(params=["h5", "h5-chunked", "npz", "npy", "parquet", "root", "csv"])
def streamed(request: pytest.FixtureRequest, tmp_path: Path, table: np.ndarray[Any, Any]) -> Dataset:
    name = request.param.partition("-")
    path = pofx_data.write(tmp_path / f"t.{name[0]}", table, compress=bool(name[2]))
    data = pofx_data.read(path, options=STREAM)
    assert not data.in_memory
    return data


# Splits


def test_split_sizes_are_exact_and_parts_disjoint(table: np.ndarray[Any, Any]) -> None:
    data = Dataset.from_arrays(table)
    parts = [part.arrays().index for part in (data.train, data.val, data.test)]
    assert [len(part) for part in parts] == [803, 100, 100]
    assert sorted(np.concatenate(parts)) == list(range(1003))


def test_split_does_not_depend_on_storage_or_chunks(streamed: Dataset, table: np.ndarray[Any, Any]) -> None:
    memory = Dataset.from_arrays(table)
    for name in ("train", "val", "test"):
        expected = getattr(memory, name).arrays()
        for size in (1, 64, 5000):
            index = np.concatenate([events.index for events in getattr(streamed, name).chunks(size)])
            np.testing.assert_array_equal(index, expected.index)
        np.testing.assert_array_equal(getattr(streamed, name).arrays().x, expected.x)


def test_split_depends_on_the_seed(table: np.ndarray[Any, Any]) -> None:
    data = Dataset.from_arrays(table)
    again = data.with_split(seed=1)
    assert set(again.test.arrays().index) != set(data.test.arrays().index)
    assert len(data.with_split((0.5, 0.25, 0.25), seed=3).val) == 251


def test_split_is_pinned() -> None:
    """Saved models name a split by its seed: the places of rows must never change."""
    assert list(Dataset.from_arrays(np.random.default_rng(0).normal(size=(30, 1))).test.arrays().index) == PINNED


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.8, 0.3, -0.1), (0.5, 0.1, 0.1), ()])
def test_bad_split_is_refused(table: np.ndarray[Any, Any], fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="three fractions"):
        Dataset.from_arrays(table).with_split(fractions)


def test_parts_of_parts_and_small_data() -> None:
    data = Dataset.from_arrays(np.random.default_rng(0).normal(size=(10, 1)))
    assert [len(p) for p in (data.train, data.val, data.test)] == [8, 1, 1]
    inner = data.train
    assert {*inner.train.arrays().index, *inner.val.arrays().index, *inner.test.arrays().index} == set(
        inner.arrays().index
    )
    assert len(data.with_split((1, 0, 0)).val) == 0
    assert data.with_split((1, 0, 0)).val.arrays().x.shape == (0, 1)


def test_copies_of_a_row_share_their_part(table: np.ndarray[Any, Any]) -> None:
    boot = Dataset.from_arrays(table).take(np.random.default_rng(1).integers(0, 1003, size=1003))
    parts = [set(part.arrays().index) for part in (boot.train, boot.val, boot.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_row_hash_is_uniform_and_split_is_exact_for_many_rows() -> None:
    hashes = row_hash(np.arange(100_000), seed=5)
    counts = np.histogram(hashes.astype(float), bins=20, range=(0, 2.0**64))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 44  # chi2(19), p = 0.001
    train, val, test = split_rows(Rows(3_000_000), (0.8, 0.1, 0.1), 11)
    assert (train.count, val.count, test.count) == (2_400_000, 300_000, 300_000)
    assert Cut(0, 5, 4).holds(np.arange(10)).sum() == 0


# Streams


def test_shuffled_shows_every_row_once_and_repeats_itself(streamed: Dataset) -> None:
    train = streamed.train
    first = list(train.shuffled(32, seed=3, epoch=1, buffer=100))
    index = np.concatenate([events.index for events in first])
    assert {len(events) for events in first[:-1]} == {32}
    assert sorted(index) == list(train.arrays().index)
    np.testing.assert_array_equal(
        index, np.concatenate([e.index for e in train.shuffled(32, seed=3, epoch=1, buffer=100)])
    )
    other = np.concatenate([e.index for e in train.shuffled(32, seed=3, epoch=2, buffer=100)])
    assert (other != index).any()
    assert (np.diff(index) == 1).mean() < 0.1


@pytest.mark.parametrize("start", [0, 1, 7, 25, 26, 99])
def test_shuffled_starts_anywhere(streamed: Dataset, start: int) -> None:
    whole = list(streamed.train.shuffled(32, seed=3, buffer=100))
    rest = list(streamed.train.shuffled(32, seed=3, buffer=100, start=start))
    assert len(rest) == max(0, len(whole) - start)
    for expected, got in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(expected.index, got.index)
        np.testing.assert_array_equal(expected.x, got.x)


def test_shuffled_in_memory_and_of_chosen_rows(table: np.ndarray[Any, Any]) -> None:
    for data in (Dataset.from_arrays(table).train, Dataset.from_arrays(table).take(np.arange(0, 900, 3))):
        whole = list(data.shuffled(50, seed=1))
        assert sorted(np.concatenate([e.index for e in whole])) == list(data.arrays().index)
        later = next(data.shuffled(50, seed=1, start=3))
        np.testing.assert_array_equal(later.x, table[later.index])
        np.testing.assert_array_equal(later.x, whole[3].x)


def test_values_belong_to_their_index(streamed: Dataset, table: np.ndarray[Any, Any]) -> None:
    for events in itertools.chain(streamed.val.chunks(17), streamed.val.shuffled(17, buffer=64)):
        np.testing.assert_array_equal(events.x, table[events.index])


def test_take_from_a_file(streamed: Dataset, table: np.ndarray[Any, Any]) -> None:
    rows = np.array([900, 3, 3, -1, 500])
    taken = streamed.take(rows).arrays()
    np.testing.assert_array_equal(taken.x, table[rows])
    np.testing.assert_array_equal(taken.index, [900, 3, 3, 1002, 500])
    with pytest.raises(ShapeError, match="positions below 1003"):
        streamed.take([1003])
    with pytest.raises(ShapeError, match="1003 booleans"):
        streamed.take([True])


def _peak_of_an_epoch(path: Path, rows: int, width: int) -> float:
    """Megabytes allocated while a file of ones and zeros is opened and read once, shuffled."""
    import h5py

    with h5py.File(path, "w") as file:
        stored = file.create_dataset("x", (rows, width), "f4")
        rng = np.random.default_rng(0)
        for start in range(0, rows, 100_000):
            stored[start : start + 100_000] = rng.normal(size=(min(100_000, rows - start), width))
    tracemalloc.start()
    data = pofx_data.read(path, options=ReadOptions(memory=1 << 20))
    seen = sum(len(events) for events in data.train.shuffled(1000, seed=1, buffer=50_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == len(data.train) == round(0.8 * rows)
    return peak / 1e6


def test_memory_of_a_stream_is_bounded(tmp_path: Path) -> None:
    assert _peak_of_an_epoch(tmp_path / "small.h5", 500_000, 10) < 60  # the values alone are 20 MB, row numbers 4 MB


@pytest.mark.slow
def test_memory_of_a_long_stream_is_bounded(tmp_path: Path) -> None:
    assert _peak_of_an_epoch(tmp_path / "large.h5", 5_000_000, 10) < 100  # 200 MB of values


# Columns, contexts, weights


def test_select_context_and_weight(table: np.ndarray[Any, Any]) -> None:
    data = Dataset.from_arrays(table, columns=["bin0", "bin1", "energy", "w"], declare="bin*:cm:bounded:-10:10")
    moved = data.with_context("energy").with_weight(np.ones(1003)).select("bin*")
    events = moved.arrays()
    assert moved.names == ("bin0", "bin1")
    assert moved.context_spec is not None
    assert moved.context_spec["context"].names == ("energy",)
    np.testing.assert_array_equal(events.context.x[:, 0], table[:, 2])
    assert moved.spec["x"].columns[0] == Column("bin0", "cm", "bounded", -10, 10)
    assert data.select(["w", "!bin*"]).names == ("w",)
    assert data.select("!bin0").names == ("bin1", "energy", "w")
    with pytest.raises(DataError, match="context is given twice"):
        moved.with_context("bin0")
    with pytest.raises(DataError, match="weight is given twice"):
        moved.with_weight(np.ones(1003))
    with pytest.raises(ColumnError, match=r"no column matches 'enrgy'; did you mean 'energy'"):
        data.select("enrgy")


def test_context_beside_a_file_and_beside_a_part(streamed: Dataset, table: np.ndarray[Any, Any]) -> None:
    extra = np.arange(1003.0)[:, None]
    events = streamed.with_context(extra).val.arrays()
    np.testing.assert_array_equal(events.context.x[:, 0], events.index)
    part = streamed.test
    events = part.with_weight(1.0 + part.arrays().index).arrays()
    np.testing.assert_array_equal(events.weight, 1.0 + events.index)
    np.testing.assert_array_equal(events.x, table[events.index])
    with pytest.raises(ShapeError, match="expected 1003 rows, one per event; got 3"):
        streamed.with_context(np.ones((3, 1)))


def test_types_are_served_as_stored() -> None:
    values = np.arange(12.0).reshape(6, 2)
    for given, served in [("f4", "f4"), ("f8", "f8"), ("f2", "f4"), ("i4", "f8"), (">f4", "f4"), ("u1", "f8")]:
        x = Dataset.from_arrays(values.astype(given)).arrays().x
        assert x.dtype == np.dtype(served)
        assert x.dtype.isnative
        np.testing.assert_array_equal(x, values)


def test_no_copy_of_plain_arrays(table: np.ndarray[Any, Any]) -> None:
    assert np.shares_memory(Dataset.from_arrays(table).arrays().x, table)


def test_origins(table: np.ndarray[Any, Any]) -> None:
    import awkward as ak
    import torch

    frame = {"a": table[:, 0], "b": table[:, 1]}
    structured = np.array(list(zip(table[:, 0], table[:, 1], strict=True)), dtype=[("a", "f8"), ("b", "f8")])
    for x in (frame, structured, ak.Array(frame), {"a": torch.tensor(table[:, 0]), "b": list(table[:, 1])}):
        data = Dataset.from_arrays(x)
        assert data.names == ("a", "b")
        np.testing.assert_array_equal(data.arrays().x, table[:, :2])
    tensor = torch.tensor(table, requires_grad=True)
    np.testing.assert_array_equal(pofx_data.as_dataset(tensor).arrays().x, table)
    assert Dataset.from_arrays(table[:, 0]).arrays().x.shape == (1003, 1)


def test_grids_clouds_and_fields(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    axes = (pofx_data.Axis("z", 3), pofx_data.Axis("phi", 4, periodic=True))
    points = tuple(Column(name) for name in ("pt", "eta", "phi"))
    spec = {
        "jet": pofx_data.vector_spec(["pt", "m"])["x"],
        "voxels": Field("grid", (1, 3, 4), (Column("E", "MeV"),), axes),
        "parts": Field("cloud", (5, 3), points),
    }
    x = {
        "jet": rng.normal(size=(20, 2)),
        "voxels": rng.random((20, 1, 3, 4)).astype("f4"),
        "parts": rng.normal(size=(20, 5, 3)),
    }
    mask = rng.random((20, 5)) < 0.6
    x["parts"][~mask] = np.nan  # padding may be anything
    context = pofx_data.Events({"parts": x["parts"]}, {"parts": mask})
    data = Dataset.from_arrays(
        x, context, columns=spec, masks={"parts": mask}, context_columns={"parts": spec["parts"]}
    )
    for suffix in ("npz", "h5"):
        back = pofx_data.read(pofx_data.write(tmp_path / f"e.{suffix}", data))
        assert back.spec == data.spec
        events = back.train.arrays()
        np.testing.assert_array_equal(events.masks["parts"], mask[events.index])
        np.testing.assert_array_equal(events.fields["voxels"], x["voxels"][events.index])
        np.testing.assert_array_equal(events.context.masks["parts"], mask[events.index])
        streamed = pofx_data.read(tmp_path / f"e.{suffix}", options=STREAM)
        assert all(
            (np.diff(e.masks["parts"].sum(1)) == np.diff(mask[e.index].sum(1))).all() for e in streamed.shuffled(3)
        )
    with pytest.raises(ShapeError, match=r"expected shape \(n, 1, 3, 4\); got \(20, 12\)"):
        Dataset.from_arrays({**x, "voxels": np.ones((20, 12))}, columns=spec)
    with pytest.raises(ColumnError, match="expected the fields jet, voxels, parts; got jet"):
        Dataset.from_arrays({"jet": x["jet"]}, columns=spec)
    with pytest.raises(ShapeError, match="expected a mask of shape"):
        Dataset.from_arrays(x, columns=spec, masks={"parts": mask[:, :2]})
    with pytest.raises(NonFiniteError, match="column 'pt'"):
        Dataset.from_arrays(x, columns=spec)
    with pytest.raises(ShapeError, match="for grids and clouds"):
        Dataset.from_arrays(x["voxels"])


def test_dropping_rows_is_counted_and_logged(
    table: np.ndarray[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holed = table.copy()
    holed[[5, 77], [1, 2]] = np.nan
    holed[500, 0] = np.inf
    path = pofx_data.write(tmp_path / "t.h5", holed)
    makers = (
        lambda: Dataset.from_arrays(holed, nan="drop"),
        lambda: pofx_data.read(path, nan="drop"),
        lambda: pofx_data.read(path, nan="drop", options=STREAM),
    )
    for make in makers:
        data = make()
        assert (len(data), data.dropped) == (1000, 3)
        assert "dropped 3 of 1003 rows" in caplog.text
        assert {5, 77, 500}.isdisjoint(data.arrays().index)
        assert [len(p) for p in (data.train, data.val, data.test)] == [800, 100, 100]
        assert sum(len(e) for e in data.shuffled(64, buffer=200)) == 1000
        caplog.clear()


def test_periodic_values_are_wrapped_within_one_period(tmp_path: Path) -> None:
    phi = np.linspace(0, 2 * np.pi, 50, endpoint=False)[:, None]
    original = phi.copy()
    for data in (
        Dataset.from_arrays(phi, columns=["phi"], declare="phi:rad:periodic:-pi:pi"),
        pofx_data.read(
            pofx_data.write(tmp_path / "p.h5", phi, columns=["phi"]), declare="phi:rad:periodic:-pi:pi", options=STREAM
        ),
    ):
        x = data.arrays().x
        assert x.min() >= -np.pi
        assert x.max() <= np.pi
        np.testing.assert_allclose(np.exp(1j * x), np.exp(1j * phi), atol=1e-12)
    np.testing.assert_array_equal(phi, original)
    with pytest.raises(
        DataError, match=r"column 'phi' is declared periodic, values within one period .* got 14.4 in row 2"
    ):
        Dataset.from_arrays(np.degrees(phi), columns=["phi"], declare="phi:rad:periodic:-pi:pi")


def test_as_dataset(table: np.ndarray[Any, Any], tmp_path: Path) -> None:
    path = pofx_data.write(tmp_path / "t.h5", table, columns=["a", "b", "c", "w"])
    weights = np.abs(table[:, 3])
    data = pofx_data.as_dataset(path, context="a", weight=weights)
    assert data.names == ("b", "c", "w")
    assert data.weighted
    assert pofx_data.as_dataset(data) is data
    assert pofx_data.as_dataset(table, context=table[:, :1]).context_spec is not None
    with pytest.raises(DataError, match="context is given twice"):
        pofx_data.as_dataset(data, context="b")
    with pytest.raises(DataError, match="weight is given twice"):
        pofx_data.as_dataset(data, weight=weights)


def test_unfit_for_training(table: np.ndarray[Any, Any], tmp_path: Path) -> None:
    flat = table.copy()
    flat[:, 1] = 2.5
    with pytest.raises(DataError, match=r"1 constant column.*: x1; leave them out with columns=\['!x1'\]"):
        pofx_data.as_dataset(flat)
    with pytest.raises(DataError, match="constant column"):
        pofx_data.as_dataset(pofx_data.read(pofx_data.write(tmp_path / "t.h5", flat), options=STREAM))
    assert len(pofx_data.as_dataset(flat, trainable=False)) == 1003
    assert len(pofx_data.as_dataset(Dataset.from_arrays(flat).select("!x1"))) == 1003
    with pytest.raises(DataError, match="expected more rows than columns; got 3 rows of 4 columns"):
        pofx_data.as_dataset(table[:3])


def test_fingerprint_follows_content(table: np.ndarray[Any, Any], tmp_path: Path) -> None:
    data = Dataset.from_arrays(table)
    assert data.fingerprint == Dataset.from_arrays(table.copy()).fingerprint
    changed = table.copy()
    changed[900, 2] += 1e-12
    others = [
        Dataset.from_arrays(changed),
        data.train,
        data.with_weight(np.ones(1003)),
        Dataset.from_arrays(table, columns=list("abcd")),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5
    path = pofx_data.write(tmp_path / "t.h5", table)
    assert pofx_data.read(path, options=STREAM).fingerprint == pofx_data.read(path, options=STREAM).fingerprint
