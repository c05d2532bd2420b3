"""A small data set of every public format, made here: what its files hold, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One format.

    Attributes
    ----------
    name : of the format; suffix : of its files.
    make : n and a random generator to the arrays of a file, as its authors store them.
    fields, context : shapes of an event's fields and of its context's.
    energies : arrays that must not be negative.
    key : which array is read, where the file holds several sets of events; optional : arrays that a file may lack.
    """

    name: str
    suffix: str
    make: Callable[[int, np.random.Generator], Arrays]
    fields: dict[str, tuple[int, ...]]
    context: dict[str, tuple[int, ...]]
    energies: tuple[str, ...] = ()
    key: str | None = None
    optional: tuple[str, ...] = ()


def calogan(n: int, rng: np.random.Generator) -> Arrays:
    shapes = {"layer_0": (3, 96), "layer_1": (12, 12), "layer_2": (12, 6)}
    layers = {name: rng.exponential(10.0, (n, *shape)).astype(np.float32) for name, shape in shapes.items()}
    energy = rng.uniform(1, 100, (n, 1)).astype(np.float32)
    return {**layers, "energy": energy, "overflow": np.zeros((n, 3), np.float32)}


def calochallenge(voxels: int) -> Callable[[int, np.random.Generator], Arrays]:
    def make(n: int, rng: np.random.Generator) -> Arrays:
        showers = rng.exponential(10.0, (n, voxels)) * (rng.random((n, voxels)) < 0.3)
        return {"incident_energies": rng.uniform(1e3, 1e6, (n, 1)), "showers": showers}

    return make


def ild(group: str, shape: tuple[int, ...]) -> Callable[[int, np.random.Generator], Arrays]:
    def make(n: int, rng: np.random.Generator) -> Arrays:
        layers = rng.exponential(1.0, (n, *shape)).astype(np.float32)
        return {f"{group}/layers": layers, f"{group}/energy": rng.uniform(10, 100, (n, 1)).astype(np.float32)}

    return make


def caloclouds(n: int, rng: np.random.Generator) -> Arrays:
    """Zeros at the front of every shower."""
    points = rng.normal(size=(n, 4, 20)).astype(np.float32)
    points[:, 3] = rng.exponential(1e-3, (n, 20)) + 1e-6
    points *= np.arange(20) >= rng.integers(0, 20, (n, 1, 1))
    return {"events": points, "energy": rng.uniform(10, 90, (n, 1)).astype(np.float32)}


def jetnet(n: int, rng: np.random.Generator) -> Arrays:
    """Zeros at the end of every jet."""
    real = np.arange(30) < rng.integers(1, 31, (n, 1))
    particles = rng.normal(size=(n, 30, 4)).astype(np.float32) * real[..., None]
    particles[..., 3] = real
    jets = rng.uniform(1, 1000, (n, 4)).astype(np.float32)
    jets[:, 3] = real.sum(1)
    return {"particle_features": particles, "jet_features": jets}


LHCO = [f"{name}j{jet}" for jet in (1, 2) for name in ("px", "py", "pz", "m", "tau1", "tau2", "tau3")]


def pandas(values: np.ndarray, items: np.ndarray) -> Arrays:
    """pandas' fixed layout."""
    index = {"df/axis0": items, "df/axis1": np.arange(len(values)), "df/block0_items": items}
    return {**index, "df/block0_values": values}


def lhco_features(n: int, rng: np.random.Generator) -> Arrays:
    values = np.concatenate([rng.normal(0, 1000, (n, 14)), rng.integers(0, 2, (n, 1))], 1)
    values[:, [3, 4, 5, 6, 10, 11, 12, 13]] = np.abs(values[:, [3, 4, 5, 6, 10, 11, 12, 13]])
    return pandas(values, np.array([*LHCO, "label"], "S"))


def lhco_raw(n: int, rng: np.random.Generator) -> Arrays:
    particles = np.stack([rng.exponential(9, (n, 700)), rng.normal(0, 2, (n, 700)), rng.uniform(-3, 3, (n, 700))], -1)
    particles *= (np.arange(700) < rng.integers(1, 700, (n, 1)))[..., None]
    return pandas(np.concatenate([particles.reshape(n, -1), rng.integers(0, 2, (n, 1))], 1), np.arange(2101))


def lhco_dijets(n: int, rng: np.random.Generator) -> Arrays:
    values = rng.uniform(0, 4, (n + 3, 6)).astype(np.float32)
    values[:, 5] = rng.integers(0, 2, n + 3)
    return {"train": values[:n], "val": values[n:]}


PHOTONS = {
    "layer_0": (1, 1, 8),
    "layer_1": (1, 10, 16),
    "layer_2": (1, 10, 19),
    "layer_3": (1, 1, 5),
    "layer_12": (1, 1, 5),
}
PIONS = {
    "layer_0": (1, 1, 8),
    "layer_1": (1, 10, 10),
    "layer_2": (1, 10, 10),
    "layer_3": (1, 1, 5),
    "layer_12": (1, 10, 15),
    "layer_13": (1, 10, 16),
    "layer_14": (1, 1, 10),
}
INDEX = ("df/axis0", "df/axis1", "df/block0_items")
INCIDENT = {"incident_energies": (1,)}

CASES = {
    case.name: case
    for case in (
        Case(
            "calogan",
            ".h5",
            calogan,
            {"layer_0": (1, 3, 96), "layer_1": (1, 12, 12), "layer_2": (1, 12, 6)},
            {"energy": (1,)},
            energies=("layer_0", "layer_1", "layer_2"),
        ),
        Case("calochallenge-1-photons", ".h5", calochallenge(368), PHOTONS, INCIDENT, energies=("showers",)),
        Case("calochallenge-1-pions", ".h5", calochallenge(533), PIONS, INCIDENT, energies=("showers",)),
        Case(
            "calochallenge-2", ".h5", calochallenge(6480), {"showers": (1, 45, 16, 9)}, INCIDENT, energies=("showers",)
        ),
        Case(
            "calochallenge-3",
            ".h5",
            calochallenge(40500),
            {"showers": (1, 45, 50, 18)},
            INCIDENT,
            energies=("showers",),
        ),
        Case(
            "getting-high",
            ".h5",
            ild("30x30", (30, 30, 30)),
            {"layers": (1, 30, 30, 30)},
            {"energy": (1,)},
            energies=("30x30/layers",),
        ),
        Case(
            "convl2lflow",
            ".h5",
            ild("10x9", (5, 10, 9)),
            {"layers": (1, 5, 10, 9)},
            {"energy": (1,)},
            energies=("10x9/layers",),
        ),
        Case("caloclouds", ".h5", caloclouds, {"points": (20, 4)}, {"energy": (1,)}),
        Case("jetnet", ".h5", jetnet, {"particles": (30, 3)}, {"jet": (4,)}),
        Case("lhco-features", ".h5", lhco_features, {"features": (14,)}, {"label": (1,)}, optional=INDEX),
        Case("lhco-raw", ".h5", lhco_raw, {"particles": (700, 3)}, {"label": (1,)}, optional=INDEX),
        Case("lhco-dijets", ".npz", lhco_dijets, {"dijet": (5,)}, {"label": (1,)}, key="train", optional=("val",)),
    )
}
