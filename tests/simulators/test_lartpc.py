"""Random walks in liquid argon against Bethe's formula, Highland's width, exact integrals and conservation of energy; layouts of events."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

import pofx
from pofx.errors import ConfigError
from pofx.simulators.calorimeter.deposits import Deposits
from pofx.simulators.lartpc import TYPES, ChamberGeant4, ChamberWalk, stopping
from pofx.simulators.lartpc.cascade import LOWEST, cascade, compton_rate, pair_rate, radiated, scattered_photons
from pofx.simulators.lartpc.stopping import DENSITY, ELECTRON, X0, electron_loss, gentle_loss, knock_on_rate
from pofx.simulators.lartpc.swarm import Box, Swarm, turned
from pofx.simulators.lartpc.tracks import CUT, MASSES, michel_energies, track

MUON = MASSES["mu-"]
HUGE = Box(1e6)


def swarm(n: int, energy: float, z: float = 5e5) -> Swarm:
    """Particles on the axis of the huge box, along it; in its middle by default."""
    place = np.tile([0.0, 0.0, z], (n, 1))
    return Swarm(np.arange(n), np.full(n, energy), place, np.tile([0.0, 0.0, 1.0], (n, 1)))


def none() -> Swarm:
    return Swarm.joined([])


# Loss of energy


def test_bethe_against_the_tables() -> None:
    """Review of Particle Physics: liquid argon 1.508 MeV cm2/g at least; critical energy of electrons 32.84 MeV."""
    energy = np.geomspace(50.0, 2000.0, 400)
    loss = 10.0 * gentle_loss(energy, MUON) / DENSITY
    assert loss.min() == pytest.approx(1.508, rel=1e-3)
    assert energy[loss.argmin()] == pytest.approx(266.0, rel=0.05)
    critical = 32.84
    assert X0 * electron_loss(np.array(critical)) == pytest.approx(critical, rel=0.03)


@pytest.mark.parametrize("energy", [50.0, 500.0, 5000.0])
def test_gentle_and_knocked_on_losses_add_up_to_bethe(energy: float) -> None:
    at = np.array(energy)
    beta, most = float(stopping.beta_gamma(at, MUON)[0]), float(stopping.largest_transfer(at, MUON))

    def shape(t: float) -> float:
        return (1 - beta * t / most) / t**2

    norm = float(knock_on_rate(at, MUON, CUT)) / integrate.quad(shape, CUT, most, limit=200)[0]
    hard = norm * integrate.quad(lambda t: t * shape(t), CUT, most, limit=200)[0]
    assert gentle_loss(at, MUON, CUT) + hard == pytest.approx(float(gentle_loss(at, MUON)), rel=1e-6)


def test_muons_lose_what_bethe_says() -> None:
    """Over 100 mm from 1 GeV on, the mean with all fluctuations; electrons are counted with their energy."""
    n = 300
    found = track("mu-", swarm(n, 1000.0, 1e6 - 100.0), HUGE, 1.0, 1, np.random.default_rng(1))
    lost = np.bincount(found.energy.event, found.energy.energy, n)
    lost += np.bincount(found.electrons.event, found.electrons.energy, n)
    wanted = 100.0 * float(gentle_loss(np.array(990.0), MUON))
    assert lost.mean() == pytest.approx(wanted, abs=4 * lost.std() / math.sqrt(n) + 0.005 * wanted)
    assert np.median(lost) < 0.97 * wanted  # Landau's tail


@pytest.mark.parametrize(("kind", "energy"), [("proton", 200.0), ("proton", 60.0)])
def test_ranges(kind: str, energy: float) -> None:
    """Where protons stop against the integral of 1 / (dE/dx); they hardly scatter."""
    found = track(kind, swarm(60, energy), HUGE, 1.0, 3, np.random.default_rng(2))
    reach = found.stopped.position[:, 2] - 5e5
    wanted = integrate.quad(lambda t: 1 / float(gentle_loss(np.array(t), MASSES[kind])), 1.2, energy)[0]
    assert len(found.stopped) == 60
    assert reach.mean() == pytest.approx(wanted, rel=0.015)
    assert reach.std() / reach.mean() == pytest.approx(0.012, abs=0.006)  # range straggling of protons, about 1.2 %


def test_scattering_at_one_radiation_length() -> None:
    """Width of the angle in a plane 13.6 MeV / (beta p), of the displacement X0 / sqrt(3) times as much."""
    n, rng = 400, np.random.default_rng(3)
    muons = swarm(n, 2000.0)
    for _ in range(140):
        theta = stopping.scattering_width(muons.energy, MUON, np.full(n, X0 / 140)) * rng.rayleigh(size=n)
        muons = muons.moved(np.full(n, X0 / 140))
        muons = replace(muons, direction=turned(muons.direction, theta, rng))
    beta, square = stopping.beta_gamma(np.array(2000.0), MUON)
    width = 13.6 / (MUON * math.sqrt(float(beta * square)))
    for axis in (0, 1):
        assert muons.direction[:, axis].std() == pytest.approx(width, rel=4 / math.sqrt(2 * n))
        assert muons.position[:, axis].std() == pytest.approx(X0 * width / math.sqrt(3), rel=4 / math.sqrt(2 * n))


def test_michel_electrons() -> None:
    energy = michel_energies(5000, np.random.default_rng(4))
    x = (energy + ELECTRON) / 52.83
    assert stats.kstest(x, lambda v: 2 * v**3 - v**4).pvalue > 0.01


# Cascades


@pytest.mark.parametrize(("kind", "more"), [("e-", 0.0), ("e+", 2 * ELECTRON), ("gamma", 0.0)])
def test_cascades_conserve_energy(kind: str, more: float) -> None:
    light = {name: swarm(20, 80.0) if name == kind else none() for name in ("e-", "e+", "gamma")}
    left = cascade(light, HUGE, 2.0, 0, np.random.default_rng(5))
    assert np.bincount(left.event, left.energy) == pytest.approx(np.full(20, 80.0 + more), rel=1e-9)


def test_radiation_takes_the_whole_energy_per_radiation_length() -> None:
    """Rossi's spectrum integrates to E per X0."""
    energy = 200.0
    hard, soft = (float(v) for v in radiated(np.array(energy)))
    spectrum = lambda k: (4 / 3 - 4 / 3 * k / energy + (k / energy) ** 2) / k  # noqa: E731
    assert hard == pytest.approx(integrate.quad(spectrum, LOWEST, energy, limit=200)[0], rel=1e-6)
    above = integrate.quad(lambda k: k * spectrum(k), LOWEST, energy)[0]
    assert soft + above == pytest.approx(energy, rel=1e-9)


def test_photons_at_high_energies_make_pairs_in_nine_sevenths() -> None:
    assert float(pair_rate(np.array(1e4))) * X0 == pytest.approx(7 / 9)
    assert float(pair_rate(np.array(1.0))) == 0.0


@pytest.mark.parametrize("energy", [0.3, 2.0, 20.0])
def test_compton_scattering_is_that_of_klein_and_nishina(energy: float) -> None:
    k = energy / ELECTRON

    def density(e: float) -> float:  # of the ratio of energies
        cosine = 1 - (1 / e - 1) / k
        return e + 1 / e - (1 - cosine**2)

    low = 1 / (1 + 2 * k)
    total = integrate.quad(density, low, 1)[0]
    radius = 2.8179403e-13  # cm
    electrons = DENSITY * 18 / 39.948 * 6.02214076e23 / 10  # per cm2 and mm
    assert float(compton_rate(np.array(energy))) == pytest.approx(electrons * math.pi * radius**2 * total / k, rel=1e-4)
    scattered, cosine = scattered_photons(np.full(4000, energy), np.random.default_rng(6))
    assert scattered == pytest.approx(energy / (1 + k * (1 - cosine)))
    grid = np.linspace(low, 1, 300)
    cumulative = integrate.cumulative_simpson([density(e) for e in grid], x=grid, initial=0) / total
    assert stats.kstest(scattered / energy, lambda e: np.interp(e, grid, cumulative)).pvalue > 0.003


def test_turns_keep_length_and_angle() -> None:
    rng = np.random.default_rng(7)
    before = rng.normal(size=(500, 3))
    before /= np.linalg.norm(before, axis=1, keepdims=True)
    before[0] = [0.0, 0.0, -1.0]
    theta = rng.uniform(0, math.pi, 500)
    after = turned(before, theta, rng)
    assert np.linalg.norm(after, axis=1) == pytest.approx(np.ones(500))
    assert np.arccos((before * after).sum(1).clip(-1, 1)) == pytest.approx(theta, abs=1e-6)


# Events


SMALL = ChamberWalk(voxels=64, pitch=4.0, low=30.0, high=150.0, vertex=0.3)


def test_clouds_and_types() -> None:
    events = SMALL.block_events(1, 0)
    points, mask, types = events.fields["points"], events.masks["points"], events.fields["types"][..., 0]
    assert events.masks["types"] is mask
    assert (points[mask][:, 3] >= SMALL.threshold).all()
    assert ((points[..., :3] >= 0) & (points[..., :3] < 64)).all()
    assert (np.diff(np.where(mask, points[..., 3], 0.0), axis=1) <= 0).all()
    assert not points[~mask].any()
    assert set(np.unique(types[mask])) == {0.0, 1.0, 2.0, 3.0}
    places = [set(map(tuple, row[m][:, :3])) for row, m in zip(points, mask, strict=True)]
    assert [len(place) for place in places] == mask.sum(1).tolist()
    assert events.context is not None
    counts = events.context.fields["particles"]
    assert ((counts[:, :5].sum(1) >= 1) & (counts[:, :5].sum(1) <= 3)).all()
    assert (points[..., 3].sum(1) <= counts[:, -1] + 60 * 3).all()  # decays add at most a Michel electron each


@pytest.mark.parametrize(("kind", "number"), [("mu-", 1), ("pi-", 2), ("proton", 3), ("e-", 0)])
def test_a_particle_leaves_its_own_type(kind: str, number: int) -> None:
    simulator = replace(SMALL, particles=(kind,), number=(1, 1), low=60.0, high=60.0, vertex=0.0)
    events = simulator.block_events(2, 0)
    own = (events.fields["types"][..., 0] == number) & events.masks["points"]
    energy = events.fields["points"][..., 3]
    assert (energy * own).sum() / energy.sum() > (0.6 if kind == "mu-" else 0.95)


def test_images_are_projections_of_the_points() -> None:
    whole = replace(SMALL, voxels=32, output="image", crop=32, axis="y", threshold=0.0)
    image = whole.block_events(3, 0).fields["image"]
    points = replace(SMALL, voxels=32, crop=32, threshold=0.0, points=4000).block_events(3, 0)
    assert image.shape == (100, len(TYPES), 32, 32)
    wanted = np.zeros((100, 32, 32))
    rows, _ = np.nonzero(points.masks["points"])
    x, _, z, energy = points.fields["points"][points.masks["points"]].T
    np.add.at(wanted, (rows, x.astype(int), z.astype(int)), energy)
    assert image.sum(1) == pytest.approx(wanted, abs=1e-3)
    plain = replace(whole, labels=False).block_events(3, 0).fields["image"]
    assert plain[:, 0] == pytest.approx(image.sum(1), abs=1e-4)


def test_crops_hold_the_vertex() -> None:
    """Energy in the vertex's voxel is always in the image."""
    simulator = replace(SMALL, output="image", crop=16, labels=False)
    n, rng = 500, np.random.default_rng(8)
    place = rng.integers(0, 64, (n, 3))
    vertex = 4.0 * (place + rng.random((n, 3))) - [128.0, 128.0, 0.0]
    zero, cell = np.zeros(n, int), (place[:, 2] * 64 + place[:, 0]) * 64 + place[:, 1]
    image = simulator._images(Deposits(np.arange(n), zero, cell, np.full(n, 1e-3), zero), n, vertex, rng)
    assert image.shape == (n, 1, 16, 16)
    assert image.sum((1, 2, 3)) == pytest.approx(np.ones(n))
    rows = np.nonzero(image[(place[:, 0] > 16) & (place[:, 0] < 48)])[2]
    assert stats.chisquare(np.bincount(rows, minlength=16)).pvalue > 0.01


def test_pilarnet_files(tmp_path: Path) -> None:
    data = SMALL(100, seed=5)
    back = pofx.read(pofx.write(tmp_path / "events.h5", data, format="pilarnet-m"))
    one, two = data.arrays(), back.arrays()
    assert (two.masks["points"].sum(1) == one.masks["points"].sum(1)).all()
    assert (two.fields["points"][two.masks["points"]] == one.fields["points"][one.masks["points"]]).all()


def test_blocks_repeat_and_seeds_differ() -> None:
    one, two, other = (SMALL.block_events(seed, 0).fields["points"] for seed in (1, 1, 2))
    assert (one == two).all()
    assert not (one == other).all()


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match=r"no particle is called \['muon'\]"):
        ChamberWalk(particles=("muon",))
    with pytest.raises(ConfigError, match="crop must be a number between 1 and 32"):
        ChamberWalk(voxels=32)
    with pytest.raises(ConfigError, match="number must be"):
        ChamberWalk(number=(2, 1))
    with pytest.raises(ConfigError, match="physics must be one of"):
        ChamberGeant4(physics="full")  # type: ignore[arg-type]


def test_the_chamber_as_a_stack() -> None:
    stack = ChamberGeant4(voxels=16, crop=8).stack
    assert stack.readouts[0].shape == (16, 16, 16)
    assert len(stack.slabs) == 16
    assert stack.depth == stack.width == 64.0
