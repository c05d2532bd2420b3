"""A small data set of every public format, made here: what its files hold, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from public_files import jagged

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


def lagan(n: int, rng: np.random.Generator) -> Arrays:
    return {"image": rng.exponential(1.0, (n, 25, 25)), "signal": rng.integers(0, 2, n).astype(np.float64)}


def omnifold(n: int, rng: np.random.Generator) -> Arrays:
    found = {}
    for side in ("gen", "sim"):
        found[f"{side}_jets"] = rng.uniform(1, 200, (n, 4))
        for name in ("mults", "widths", "tau2s", "sdms", "zgs", "lhas", "ang2s"):
            found[f"{side}_{name}"] = rng.uniform(0.1, 1, n)
    return found


def omnifold_table(n: int, rng: np.random.Generator) -> Arrays:
    return {"hard": rng.normal(size=(n, 6)).astype(np.float32), "reco": rng.normal(size=(n, 6)).astype(np.float32)}


def records(rng: np.random.Generator, shape: tuple[int, ...], members: str) -> np.ndarray:
    """A compound type of single precision."""
    made = np.zeros(shape, [(name, np.float32) for name in members.split()])
    for name in members.split():
        made[name] = rng.uniform(0, 3, shape)
    return made


def neutrinos(leptons: int) -> Callable[[int, np.random.Generator], Arrays]:
    def make(n: int, rng: np.random.Generator) -> Arrays:
        shape = (n,) if leptons == 1 else (n, leptons)
        njets = rng.integers(0, 11, n)
        jets = records(rng, (n, 10), "pt eta phi energy is_tagged")
        jets[np.arange(10) >= njets[:, None]] = 0
        found = {
            "MET": records(rng, (n,), "MET phi"),
            "leptons": records(rng, shape, "pt eta phi energy type"),
            "jets": jets,
            "njets": njets,
            "nbjets": njets // 2,
        }
        if leptons == 1:
            found["truth_neutrinos"] = records(rng, shape, "pt eta phi")
        else:
            found["neutrinos"] = records(rng, shape, "pdgid pt eta phi")
            found["neutrinos"]["pdgid"] = 0
        return {f"delphes/{name}": array for name, array in found.items()}

    return make


def pilarnet(n: int, rng: np.random.Generator) -> Arrays:
    """The largest event has 12 voxels; one is empty."""
    counts = [12, 0, *rng.integers(1, 12, n)][:n]
    points = [np.pad(rng.uniform(0, 9, (k, 4)), ((0, 0), (0, 4))).reshape(-1) for k in counts]
    return {"point": jagged(points), "cluster": jagged([np.array([k, -1, -1, -1, -1]) for k in counts])}


PARTS = "px py pz energy deta dphi d0val d0err dzval dzerr charge isChargedHadron isNeutralHadron isPhoton isElectron isMuon"
JET = "pt eta phi energy nparticles sdmass tau1 tau2 tau3 tau4"
LABELS = "QCD Hbb Hcc Hgg H4q Hqql Zqq Wqq Tbqq Tbl"


def jetclass(n: int, rng: np.random.Generator) -> Arrays:
    """The largest jet has 9 constituents."""
    counts = [9, *rng.integers(1, 9, n)][:n]
    found = {f"part_{name}": jagged([rng.normal(size=k) for k in counts]) for name in PARTS.split()}
    found |= {f"jet_{name}": rng.uniform(1, 9, n).astype(np.float32) for name in JET.split()}
    return found | {f"label_{name}": rng.integers(0, 2, n).astype(np.int32) for name in LABELS.split()}


def nanoaod(n: int, rng: np.random.Generator) -> Arrays:
    """The largest event has 5 jets; one has none."""
    counts = [5, 0, *rng.integers(0, 5, n)][:n]
    found = {f"Jet_{name}": jagged([rng.uniform(0, 9, k) for k in counts]) for name in ("pt", "eta", "phi")}
    numbers = {name: rng.integers(1, 9, n).astype(np.float64) for name in ("run", "luminosityBlock", "event")}
    met = {f"MET_{name}": rng.uniform(0, 9, n).astype(np.float32) for name in ("pt", "phi")}
    return {"tree name": np.array("Events"), **found, **numbers, **met}


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
TOP = {"met": (2,), "misc": (2,), "jets": (10, 5)}
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
        Case("lagan", ".h5", lagan, {"image": (1, 25, 25)}, {"signal": (1,)}),
        Case("omnifold", ".npz", omnifold, {"gen": (11,)}, {"sim": (11,)}),
        Case("omnifold-table", ".h5", omnifold_table, {"hard": (6,)}, {"reco": (6,)}),
        Case("nu-flows", ".h5", neutrinos(1), {"neutrinos": (3,)}, {**TOP, "leptons": (5,)}),
        Case("nu2-flows", ".h5", neutrinos(2), {"neutrinos": (6,)}, {**TOP, "leptons": (10,)}),
        Case("pilarnet-m", ".h5", pilarnet, {"points": (12, 4)}, {}),
        Case("jetclass", ".root", jetclass, {"particles": (9, 16)}, {"jet": (10,), "label": (10,)}),
        Case("nanoaod", ".root", nanoaod, {"Jet": (5, 3), "event": (3,), "MET": (2,)}, {}),
    )
}
