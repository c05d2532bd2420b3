"""Geometry of calorimeters, where Geant4's data are looked for, and the formats that showers are written in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pofx
from pofx.data.public.calochallenge import read_binning
from pofx.errors import ConfigError, MissingExtraError
from pofx.simulators.calorimeter import CALORIMETERS, Calorimeter, GFlashShower, Module, Readout, find_data
from pofx.simulators.calorimeter.deposits import Deposits, clouds, collected, voxels
from pofx.simulators.calorimeter.environment import DATA_SETS
from pofx.simulators.calorimeter.materials import MATERIALS, material, mixture

BLOCK = Calorimeter(
    "block", (Module(2, "PbWO4", 10.0),), (Readout("cells", (0.0, 10.0, 20.0), (2, 3), (20.0, 30.0)),), 40.0, unit="GeV"
)


# Materials: tables of the Review of Particle Physics


@pytest.mark.parametrize(("name", "mm"), [("Pb", 5.612), ("W", 3.504), ("Si", 93.70), ("LAr", 140.0), ("PbWO4", 8.904)])
def test_radiation_lengths(name: str, mm: float) -> None:
    assert material(name).x0_mm == pytest.approx(mm, rel=2e-3)


def test_a_mixture_of_one_material_is_that_material() -> None:
    lead = material("Pb")
    both = mixture([(lead, 1.0), (lead, 3.0)])
    for name in ("density", "x0", "z", "a", "mip", "critical", "moliere_mm"):
        assert getattr(both, name) == pytest.approx(getattr(lead, name))


def test_a_mixture_takes_radiation_lengths_in_turn() -> None:
    both = mixture([(material("Pb"), 2.0), (material("LAr"), 4.0)])
    assert 6.0 / both.x0_mm == pytest.approx(2.0 / material("Pb").x0_mm + 4.0 / material("LAr").x0_mm)


# Geometry


@pytest.mark.parametrize("stack", CALORIMETERS.values(), ids=lambda stack: stack.name)
def test_slabs_fill_the_depth(stack: Calorimeter) -> None:
    ends = [0.0]
    for slab in stack.slabs:
        assert slab.start == pytest.approx(ends[-1], abs=1e-5)
        ends.append(slab.start + slab.thickness)
    assert ends[-1] == pytest.approx(stack.depth, abs=1e-5)
    seen = {(slab.readout, slab.layer) for slab in stack.slabs if slab.readout >= 0}
    assert seen == {(i, k) for i, readout in enumerate(stack.readouts) for k in range(readout.shape[0])}


def test_calogan_is_the_published_cube() -> None:
    stack = CALORIMETERS["calogan"]
    active = [slab for slab in stack.slabs if slab.active]
    assert stack.depth == 480.0
    assert sum(slab.thickness for slab in active) == pytest.approx(320.0)
    thick = [sum(s.thickness for s in stack.slabs if s.readout == k) for k in range(3)]
    assert thick == pytest.approx([90.0, 347.0, 43.0])  # a layer of argon lies in two of them


def test_only_active_layers_are_read_without_whole() -> None:
    stack = CALORIMETERS["calochallenge-2"]
    assert {slab.material for slab in stack.slabs if slab.readout >= 0} == {"Si"}
    per_layer = np.bincount([slab.layer for slab in stack.slabs if slab.readout >= 0])
    assert per_layer.tolist() == [2] * 45


@pytest.mark.parametrize("stack", CALORIMETERS.values(), ids=lambda stack: stack.name)
def test_centres_lie_in_their_cells(stack: Calorimeter) -> None:
    for readout in stack.readouts:
        cell, inside = readout.locate(*readout.centres().T)
        assert inside.all()
        assert (cell == np.arange(readout.cells[0] * readout.cells[1])).all()
        assert not readout.locate(np.array([1e4]), np.array([0.0]))[1].any()


def test_cells_of_a_cylinder_against_histograms() -> None:
    readout = CALORIMETERS["calochallenge-2"].readouts[0]
    x, y = np.random.default_rng(1).uniform(-41.85, 41.85, (2, 5000))
    cell, inside = readout.locate(x, y)
    angle, r = readout.across
    wanted = np.histogram2d(np.arctan2(y, x), np.hypot(x, y), (angle, r))[0]
    assert (np.bincount(cell[inside], minlength=144).reshape(16, 9) == wanted).all()


@pytest.mark.data
@pytest.mark.parametrize("number", [2, 3])
def test_cells_of_the_calochallenge_are_those_of_its_xml(pofx_data: Path, number: int) -> None:
    layers = read_binning(pofx_data / "calochallenge_binning" / f"binning_dataset_{number}.xml")
    readout = CALORIMETERS[f"calochallenge-{number}"].readouts[0]
    assert readout.shape == (len(layers), *layers[0].cells)
    for layer in layers:
        assert readout.across[1] == pytest.approx(layer.edges)
        assert readout.cells[0] == layer.angles


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 10.0}, "wider than the calorimeter"),
        ({"modules": ()}, "at least one module"),
        ({"modules": (Module(1, "PbWO4", 10.0),)}, "follow one another within 10"),
        ({"unit": "keV"}, "unit must be one of"),
        ({"factor": 0.0}, "factor must be a number of at least"),
    ],
)
def test_impossible_calorimeters(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(BLOCK, **change)  # type: ignore[arg-type]


def test_impossible_modules_and_readouts() -> None:
    with pytest.raises(ConfigError, match="no material is called 'lead'"):
        Module(1, "lead", 1.0)
    with pytest.raises(ConfigError, match="a name and a thickness"):
        Module(1, "Si", 1.0, "W")
    with pytest.raises(ConfigError, match="rising edges"):
        Readout("cells", (0.0, 2.0, 1.0), (1, 1), (1.0, 1.0))
    with pytest.raises(ConfigError, match=r"no calorimeter is called 'calogam'.*calogan"):
        GFlashShower(geometry="calogam")
    with pytest.raises(ConfigError, match="angle must be"):
        GFlashShower(angle=(10.0, 90.0))


# Energies of cells, voxels and clouds


def test_voxels_and_clouds_hold_the_same() -> None:
    rng = np.random.default_rng(2)
    event, readout = np.sort(rng.integers(0, 5, 60)), np.zeros(60, int)
    deposits = collected(BLOCK, event, readout, rng.integers(0, 12, 60), rng.exponential(size=60))
    assert len(set(zip(deposits.event, deposits.cell, strict=True))) == len(deposits.event)
    grid = voxels(BLOCK, deposits, 5)["cells"]
    values, mask = clouds(BLOCK, deposits, 5, 12)
    assert grid.shape == (5, 1, 2, 2, 3)
    assert (mask.sum(1) == (grid > 0).sum((1, 2, 3, 4))).all()
    assert (np.diff(np.where(mask, values[..., 3], 0.0), axis=1) <= 0).all()
    x, layer, y = (values[mask][:, i] for i in range(3))
    rows = np.nonzero(mask)[0]
    place = (
        rows,
        np.zeros(len(rows), int),
        layer.astype(int),
        np.searchsorted([-5, 5], x),
        np.searchsorted([-10, 0, 10], y),
    )
    assert grid[place] == pytest.approx(values[mask][:, 3])


def test_a_short_cloud_keeps_the_largest_energies() -> None:
    zero = np.zeros(3, int)
    values, mask = clouds(BLOCK, Deposits(zero, zero, np.arange(3), np.array([1.0, 3.0, 2.0]), zero), 2, 2)
    assert values[0, :, 3].tolist() == [3.0, 2.0]
    assert mask.tolist() == [[True, True], [False, False]]


def test_a_threshold_empties_cells() -> None:
    zero = np.zeros(2, int)
    deposits = Deposits(zero, zero, np.arange(2), np.array([0.1, 0.3]), zero)
    stack = replace(BLOCK, threshold=0.2, factor=1.5)
    assert voxels(stack, deposits, 1)["cells"].ravel()[:2].tolist() == pytest.approx([0.0, 0.45])
    assert clouds(stack, deposits, 1, 4)[1].sum() == 1


# Public formats


@pytest.mark.parametrize(
    ("geometry", "output", "form"),
    [
        ("calogan", "voxels", "calogan"),
        ("calochallenge-2", "voxels", "calochallenge-2"),
        ("calochallenge-3", "voxels", "calochallenge-3"),
        ("ild", "voxels", "getting-high"),
        ("ild", "points", "caloclouds"),
    ],
)
def test_presets_are_written_in_public_formats(tmp_path: Path, geometry: str, output: str, form: str) -> None:
    simulator = GFlashShower(geometry=geometry, output=output, low=2.0, high=4.0)  # type: ignore[arg-type]
    data = simulator(20, seed=3)
    back = pofx.read(pofx.write(tmp_path / "showers.h5", data, format=form))
    assert set(back.spec) == set(data.spec)
    one, two = data.arrays(), back.arrays()
    for name in data.spec:
        if output == "voxels":
            assert back.spec[name].shape == data.spec[name].shape
            assert (two.fields[name] == one.fields[name]).all()
        else:
            total = [np.where(e.masks[name][..., None], e.fields[name], 0).sum((1, 2)) for e in (one, two)]
            assert total[0] == pytest.approx(total[1], rel=1e-5)
    assert one.context is not None
    assert two.context is not None
    first, second = (next(iter(e.context.fields.values())) for e in (one, two))
    assert (first == second).all()


def test_axes_are_those_of_the_public_formats(tmp_path: Path) -> None:
    for geometry, form in (("calogan", "calogan"), ("calochallenge-2", "calochallenge-2")):
        data = GFlashShower(geometry=geometry, low=1.0, high=1.0)(2, seed=1)
        back = pofx.read(pofx.write(tmp_path / f"{form}.h5", data, format=form))
        for name, field in back.spec.items():
            for ours, theirs in zip(data.spec[name].axes, field.axes, strict=True):
                assert (ours.name, ours.cells, ours.periodic) == (theirs.name, theirs.cells, theirs.periodic)
                assert ours.edges is None or ours.edges == pytest.approx(theirs.edges, abs=1e-6)


# Data of Geant4


def folders(root: Path, *names: str) -> Path:
    """A folder with these folders in it."""
    for name in names:
        (root / name).mkdir(parents=True)
    return root


def tables(root: Path) -> Path:
    """What looks like a minimal directory of electromagnetic tables."""
    folders(root, "brem_SB", "epics2017", "ensdf")
    (root / "ensdf" / "ENSDFSTATE.dat").touch()
    return root


def test_without_data_the_message_says_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="GEANT4_DATA_DIR"):
        find_data({"HOME": str(tmp_path)})
    with pytest.raises(MissingExtraError, match="lacks G4LEDATA"):
        find_data({"HOME": str(tmp_path), "GEANT4_DATA_DIR": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"G4LEDATA names .*nowhere, which is no folder"):
        find_data({"G4LEDATA": str(tmp_path / "nowhere")})


def test_a_minimal_directory_is_found(tmp_path: Path) -> None:
    tables(tmp_path / "geant4_em_data")
    for given in ({"POFX_DATA": str(tmp_path)}, {"POFX_GEANT4_DATA": str(tmp_path / "geant4_em_data")}):
        found = find_data({"HOME": "/", **given})
        assert not found.hadronic
        assert set(found.found) == {"G4LEDATA", "G4ENSDFSTATEDATA"}
        assert "hadronic interactions are off" in found.text()
        variables = found.variables(tmp_path)
        assert set(variables) == {*DATA_SETS, "GEANT4_DATA_DIR"}
        assert all(Path(folder).is_dir() for folder in variables.values())


def test_an_official_installation_is_preferred(tmp_path: Path) -> None:
    tables(tmp_path / "small" / "geant4_em_data")
    official = folders(
        tmp_path / "official", *(f"{start}1.0" for start in DATA_SETS.values()), "G4EMLOW8.10/brem_SB", "G4EMLOW8.8"
    )
    (official / "G4ENSDFSTATE1.0" / "ENSDFSTATE.dat").touch()
    found = find_data({"GEANT4_DATA_DIR": str(official), "POFX_DATA": str(tmp_path / "small")})
    assert found.hadronic
    assert found.missing == ()
    assert found.found["G4LEDATA"].name == "G4EMLOW8.10"  # the newest
    assert "are off" not in found.text()


def test_variables_of_geant4_come_first(tmp_path: Path) -> None:
    root = tables(tmp_path / "mine")
    given = {"G4LEDATA": str(root), "G4ENSDFSTATEDATA": str(root / "ensdf"), "POFX_DATA": str(tmp_path)}
    assert find_data(given).origin == "variables of Geant4"


def test_materials_have_names_in_geant4() -> None:
    assert all(one.geant4.startswith("G4_") for one in MATERIALS.values())
    assert math.isclose(material("PbWO4").critical, 2.66 * (7.39 * 68.4 / 170.9) ** 1.1)
