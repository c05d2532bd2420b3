"""Geant4 in its own process: against stored showers, against geometry, against itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pofx.errors import ConfigError, PofxError
from pofx.simulators.calorimeter import Calorimeter, Geant4Shower, Module, Readout, find_data, process
from pofx.simulators.calorimeter.deposits import Primaries
from pofx.simulators.calorimeter.materials import MATERIALS
from pofx.simulators.calorimeter.process import Geant4Run, simulate_stack
from pofx.simulators.lartpc import ChamberGeant4

pytestmark = pytest.mark.data


@pytest.fixture(autouse=True)
def geant4(pofx_data: Path) -> None:
    """Geant4's data, and Geant4 itself: found, not imported."""
    if importlib.util.find_spec("geant4_pybind") is None:
        pytest.skip('needs Geant4: pip install "pofx[sim]"')
    find_data()


def fractions(fields: Mapping[str, np.ndarray], energy: np.ndarray) -> np.ndarray:
    """Of the energy in the layers, and of that in layer 1 in its rows, ``(n, 3 + 12)``."""
    layers = [np.asarray(fields[f"layer_{k}"], np.float64).reshape(len(energy), -1).sum(1) for k in range(3)]
    rows = np.asarray(fields["layer_1"], np.float64).reshape(-1, 12, 12).sum(2)
    return np.column_stack([*layers, rows]) / (1000.0 * energy.reshape(-1, 1))


def test_calogan_showers_are_those_on_file(pofx_data: Path) -> None:
    """Fractions of layers and rows against 10000 stored positron showers of the same energies."""
    simulator = Geant4Shower(geometry="calogan", particle="e+", low=1.0, high=3.0)
    events = simulator.generate(80, simulator.rng(1, 0))
    assert events.context is not None
    new = fractions(events.fields, events.context.fields["energy"])
    assert (new[:, :3].sum(1) < 1.0 + 1e-3).all()
    assert new[:, :3].sum(1).mean() > 0.98
    with h5py.File(pofx_data / "geant4_calogan" / "eplus_1_20GeV.h5") as file:
        rows = np.nonzero(file["energy"][:, 0] < 3.0)[0]
        stored = fractions({k: file[k][rows] for k in ("layer_0", "layer_1", "layer_2")}, file["energy"][rows])
    error = np.sqrt(new.var(0, ddof=1) / len(new) + stored.var(0, ddof=1) / len(stored))
    pulls = (new.mean(0) - stored.mean(0)) / error
    keep = [0, 1, *range(5, 13)]  # cells that nearly every shower reaches
    assert np.abs(pulls[keep]).max() < 3.5


CUBE = Calorimeter(
    "cube", (Module(4, "LAr", 20.0),), (Readout("cells", (0.0, 20.0, 40.0, 60.0, 80.0), (4, 8), (80.0, 160.0)),), 200.0
)
ROUND = replace(
    CUBE, name="round", readouts=(Readout("cells", CUBE.readouts[0].edges, (6, 5), (160.0, 160.0), "cylindrical"),)
)

RINGS = replace(
    ROUND, name="rings", readouts=(Readout("cells", CUBE.readouts[0].edges, (1, 5), (160.0, 160.0), "cylindrical"),)
)


@pytest.mark.parametrize("stack", [CUBE, ROUND, RINGS], ids=["cartesian", "cylindrical", "rings"])
def test_cells_lie_where_they_should(stack: Calorimeter) -> None:
    """Muons through the centre of every cell, parallel to the axis, leave most of their energy there, layer by layer."""
    readout = stack.readouts[0]
    cells = np.resize(np.arange(len(readout.centres())), max(30, len(readout.centres())))
    centres, n = readout.centres()[cells], len(cells)
    position = np.column_stack([centres, np.full(n, -1.0)])
    direction = np.tile([0.0, 0.0, 1.0], (n, 1))
    muons = Primaries(np.arange(n), np.full(n, "mu-"), np.full(n, 20.0), position, direction)
    found = simulate_stack(stack, Geant4Run(), muons, np.random.default_rng(1))
    energy = np.zeros((n, *readout.shape))
    np.add.at(energy.reshape(n, -1), (found.event, found.cell), found.energy)
    best = energy.reshape(n, 4, -1).argmax(2)
    assert (best == cells[:, None]).mean() > 0.97  # a knock-on electron may win
    layers = 1e3 * energy.sum((2, 3))
    assert np.median(layers, axis=0) == pytest.approx(
        np.full(4, 4.6), rel=0.15
    )  # 20 mm at the most probable 2.3 MeV/cm


def test_geant4_knows_all_materials() -> None:
    """A muon crosses a centimetre of each; in the order of their stopping powers per length."""
    names = sorted(MATERIALS, key=lambda name: MATERIALS[name].mip * MATERIALS[name].density)
    edges = tuple(10.0 * k for k in range(len(names) + 1))
    stack = Calorimeter(
        "all", tuple(Module(1, name, 10.0) for name in names), (Readout("cells", edges, (1, 1), (400.0, 400.0)),), 400.0
    )
    n = 60
    ahead = np.tile([0.0, 0.0, 1.0], (n, 1))
    muons = Primaries(np.arange(n), np.full(n, "mu-"), np.full(n, 1.0), -1.0 * ahead, ahead)
    found = simulate_stack(stack, Geant4Run(), muons, np.random.default_rng(2))
    layers = np.array([np.median(1e3 * found.energy[found.cell == k]) for k in range(len(names))])
    wanted = np.array([10.0 * 0.1 * MATERIALS[name].mip * MATERIALS[name].density for name in names])
    assert layers == pytest.approx(wanted, rel=0.25)


def test_scorers_keep_particles_apart() -> None:
    """Protons of 200 MeV stop in liquid argon after 259 mm (the integral of Bethe's formula): their energy is all there, and theirs."""
    simulator = ChamberGeant4(particles=("proton",), number=(1, 1), low=200.0, high=200.0, vertex=0.0, threshold=0.0)
    events = simulator.generate(20, np.random.default_rng(3))
    energy, mask = events.fields["points"][..., 3], events.masks["points"]
    assert energy.sum(1) == pytest.approx(np.full(20, 200.0), rel=0.05)
    protons = (events.fields["types"][..., 0] == 3) & mask
    assert (energy * protons).sum() / energy.sum() > 0.97
    place = (events.fields["points"][..., :3] + 0.5) * 4.0 - 256.0
    reach = np.where(protons, np.linalg.norm(place, axis=-1), 0.0).max(1)
    assert np.median(reach) == pytest.approx(259.0, abs=6.0)


def test_blocks_do_not_depend_on_what_ran_before() -> None:
    simulator = Geant4Shower(geometry="ild", particle="gamma", low=1.0, high=1.0, output="points")
    one, two = (simulator.generate(3, simulator.rng(5, 0)) for _ in range(2))
    assert (one.fields["points"] == two.fields["points"]).all()
    assert one.masks["points"].any()


def test_failures_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    electron = Primaries(
        np.zeros(1, int), np.array(["unicorn"]), np.ones(1), np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]])
    )
    with pytest.raises(ConfigError, match="Geant4 knows no particle unicorn"):
        simulate_stack(CUBE, Geant4Run(), electron, np.random.default_rng(1))
    child = tmp_path / "child.py"
    child.write_text("import sys; sys.exit('out of memory')")
    monkeypatch.setattr(process, "CHILD", child)
    with pytest.raises(PofxError, match="Geant4 ended with code 1: out of memory"):
        simulate_stack(CUBE, Geant4Run(), electron, np.random.default_rng(1))
    if not find_data().hadronic:
        with pytest.raises(ConfigError, match="hadronic physics needs Geant4's official data"):
            simulate_stack(CUBE, Geant4Run("hadronic"), electron, np.random.default_rng(1))


def test_the_card_names_versions_and_data() -> None:
    versions = Geant4Shower().versions()
    assert set(versions) == {"geant4-pybind", "geant4 data"}
    assert find_data().found["G4LEDATA"].name in versions["geant4 data"]
