"""Every public format: recognised, read as documented, written back array by array, and damaged files refused in words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from public_cases import CASES, Arrays, Case
from public_files import load, same, save

import pofx
from pofx.data import ReadOptions, describe
from pofx.data.public import format_named, format_names
from pofx.data.public.calochallenge import read_binning
from pofx.errors import ConfigError, DataError, FormatError, NonFiniteError, PofxError

HDF5 = [case for case in CASES.values() if case.suffix == ".h5"]


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=HDF5, ids=[case.name for case in HDF5])
def stored(request: pytest.FixtureRequest) -> Case:
    """A format whose files are HDF5."""
    return request.param


def arrays_of(case: Case, n: int = 7) -> Arrays:
    return case.make(n, np.random.default_rng(1))


def required(case: Case) -> list[str]:
    """Names of the arrays that a file must hold."""
    keys = format_named(case.name).keys
    free = not any(name in keys for name in arrays_of(case))
    return [name for name in arrays_of(case) if name in keys or (free and name not in case.optional)]


def read(case: Case, path: Path, **options: object) -> pofx.Dataset:
    """As the format that it is; a file of several sets of events needs a key."""
    return pofx.read(path, key=case.key, options=ReadOptions(format=case.name, **options))


def test_every_format_has_a_case() -> None:
    """Except EDM4hep, which is not written: a real file is read below."""
    assert set(CASES) == set(format_names()) - {"edm4hep"}


def test_recognised(case: Case, tmp_path: Path) -> None:
    path = save(tmp_path / f"a{case.suffix}", arrays_of(case))
    data = read(case, path) if case.key else pofx.read(path)
    assert len(data) == 7
    assert {name: form.shape for name, form in data.spec.items()} == case.fields
    assert {name: form.shape for name, form in (data.context_spec or {}).items()} == case.context
    assert f"format={case.name!r}" in describe(path).note
    assert format_named(case.name).reference
    assert format_named(case.name).becomes


def test_round_trip(case: Case, tmp_path: Path) -> None:
    before = arrays_of(case)
    data = read(case, save(tmp_path / f"a{case.suffix}", before))
    after = load(pofx.write(tmp_path / f"b{case.suffix}", data, format=case.name))
    for name in [case.key] if case.key else before if case.suffix == ".root" else set(before) | set(after):
        same(before[name], after[name], name)


def test_streamed(case: Case, tmp_path: Path) -> None:
    """Row by row out of the file, as from memory."""
    path = save(tmp_path / f"a{case.suffix}", arrays_of(case, 40))
    whole, streamed = (read(case, path, stream=stream) for stream in (False, True))
    for name in case.fields:
        np.testing.assert_array_equal(whole.arrays().fields[name], streamed.arrays().fields[name])


def test_missing_arrays_are_named(stored: Case, tmp_path: Path) -> None:
    for key in required(stored):
        path = save(tmp_path / "a.h5", {name: array for name, array in arrays_of(stored).items() if name != key})
        with pytest.raises(FormatError, match=rf"{re.escape(key.rpartition('/')[2])}.* is missing"):
            pofx.read(path, options=ReadOptions(format=stored.name))


def test_wrong_shapes_and_types_are_named(stored: Case, tmp_path: Path) -> None:
    key = required(stored)[0]
    arrays = arrays_of(stored)
    longer = [arrays[key][..., None]] if arrays[key].dtype.kind != "O" else []
    for wrong in (*longer, np.full(arrays[key].shape, b"text")):
        path = save(tmp_path / "a.h5", {**arrays, key: wrong})
        with pytest.raises(FormatError, match=key.rpartition("/")[2]):
            pofx.read(path, options=ReadOptions(format=stored.name))
    if len(required(stored)) < 2:
        return
    path = save(tmp_path / "a.h5", {**arrays, key: arrays[key][:3]})
    with pytest.raises(PofxError, match="same number of rows"):
        pofx.read(path, options=ReadOptions(format=stored.name))


def test_no_rows(stored: Case, tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", {name: array[:0] for name, array in arrays_of(stored).items()})
    with pytest.raises(DataError):
        pofx.Gaussian().fit(pofx.read(path))


def test_nan_and_negative_energies_are_refused(stored: Case, tmp_path: Path) -> None:
    for key in stored.energies:
        for bad, error, words in (
            (np.nan, NonFiniteError, "got nan in row 4"),
            (-1.0, DataError, r"row 4.*negative.*-1"),
        ):
            arrays = arrays_of(stored)
            arrays[key].reshape(7, -1)[4, 0] = bad
            with pytest.raises(error, match=words):
                pofx.read(save(tmp_path / "a.h5", arrays)).arrays()


def test_truncated(stored: Case, tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", arrays_of(stored))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FormatError, match="damaged or truncated"):
        pofx.read(path)


def test_arrays_as_they_are(stored: Case, tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", arrays_of(stored))
    key = required(stored)[0]
    if arrays_of(stored)[key].dtype.kind != "O":
        assert len(pofx.read(path, key=key)) == 7
    assert "recognised" not in describe(path, key=key).note


def test_unknown_format(tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", arrays_of(CASES["calogan"]))
    with pytest.raises(ConfigError, match="did you mean 'calogan'"):
        pofx.read(path, options=ReadOptions(format="calogna"))
    with pytest.raises(FormatError, match="are hdf5"):
        pofx.write(tmp_path / "b.npz", pofx.read(path), format="calogan")
    with pytest.raises(FormatError, match="need a field or column 'layer_0'"):
        pofx.write(tmp_path / "b.h5", np.eye(3), format="calogan")


@pytest.mark.data
def test_binning_of_calochallenge(pofx_data: Path) -> None:
    """What is built in is what the XML files say."""
    folder = pofx_data / "calochallenge_binning"
    for name, file in (("1-photons", "1_photons"), ("1-pions", "1_pions"), ("2", "2"), ("3", "3")):
        layers = read_binning(folder / f"binning_dataset_{file}.xml")
        form = format_named(f"calochallenge-{name}")
        assert sum(layer.voxels for layer in layers) == form.keys["showers"][0]
        if name.startswith("1"):
            assert layers == form.layers
        else:
            axes = form.pieces({})[0].field.axes
            assert len(layers) == 45
            assert {layer.axes for layer in layers} == {axes[1:]}


def test_binning_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<Bins></Bins>")
    with pytest.raises(FormatError, match="no layer"):
        read_binning(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text("not xml")
    with pytest.raises(FormatError, match="ParseError"):
        read_binning(tmp_path / "a.xml")


@pytest.mark.data
def test_real_files(pofx_data: Path) -> None:
    hits = pofx.read(pofx_data / "caloclouds3/single_event_example.edm4hep.root").arrays()
    assert hits.mask.sum() == 293 + 339 + 446 + 502 + 1 + 3 + 6 + 2
    assert hits.x[..., 3].sum() == pytest.approx(2.453935, abs=1e-5)
    nano = pofx_data / "skhep/nanoAOD_2015_CMS_Open_Data_ttbar.root"
    found = pofx.read(nano, columns="Muon", context="MET_pt", options=ReadOptions(points=2))
    assert "nanoaod" in describe(nano).note
    assert found.spec["Muon"].shape == (2, 57)
    assert found.context_spec["MET"].names == ("MET_pt",)
    clouds = pofx.read(pofx_data / "caloclouds3/mini_data_sample.hdf5").arrays()
    assert clouds.x.shape == (2, 6000, 4)
    assert (clouds.x[..., 3][clouds.mask] > 0).all()
    assert not clouds.x[~clouds.mask].any()
    showers = pofx.read(pofx_data / "geant4_calogan/eplus_1_20GeV.h5")
    events = showers.arrays()
    seen = sum(layer.sum((1, 2, 3)) for layer in events.fields.values())
    assert np.median(seen / (1000 * events.context.x[:, 0])) == pytest.approx(0.996, abs=0.005)
