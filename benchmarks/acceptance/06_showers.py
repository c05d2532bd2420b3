"""Showers and liquid argon: Geant4 against stored showers and its own reference, the fast simulators beside Geant4, and their speed.

Rows on stored showers compare means per event (fractions of energy in layers, rows or columns) with those of the files by Hotelling's
T^2 over both samples' covariances. Value: T^2 per degree of freedom; a row passes at p > 0.01 / 6, as there are six. Photons on file in
lead tungstate enter uniformly in the cell (8, 8), which their lateral profile says; so do ours.

TestEm2: 5 GeV electrons in a cylinder of lead tungstate, 20 X0 long and of 5 X0 radius; Geant4's own reference is 94.8 +- 0.2 % of the
energy and a mean depth of 7.51 X0 (error about 0.1). The minimal tables are known to be up to 3 % shallow.

GFlash beside Geant4: mean depths, and distances of profiles (half the sum of absolute differences of fractions), each with an error from 50
bootstraps and its floor, the mean distance of two resamples of Geant4's events. Nothing has to pass: GFlash is the baseline.

Speed: events per second of processor time, children included. Two workers over one: wall-clock times, the better of two runs each.
"""

import functools
import math
import resource
import time
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from common import Row
from measuring import Mean, Sheet, mean, parser, public_data
from scipy import stats

from pofx.simulators.base import Simulator
from pofx.simulators.calorimeter import Calorimeter, Geant4Shower, GFlashShower, Module, Readout
from pofx.simulators.calorimeter.parametrisation import medium_of
from pofx.simulators.lartpc import ChamberGeant4, ChamberWalk

NAME = "06_showers"
SEED = 1
P_VALUE, SPEED_UP = 0.01 / 6, 1.8
X0 = 8.9  # of PbWO4 in mm, for TestEm2
Arrays = dict[str, np.ndarray]


# Samples


@functools.cache
def sample(simulator: Simulator, n: int) -> Arrays:
    """Fields and the context's energy [GeV] of n events or a few more: whole blocks."""
    blocks = [simulator.block_events(SEED, k) for k in range(-(-n // simulator.block))]
    fields = {name: np.concatenate([b.fields[name] for b in blocks]) for name in blocks[0].fields}
    context = np.concatenate([next(iter(b.context.fields.values())) for b in blocks if b.context])
    return fields | {"context": context}


def few(simulator: Simulator, n: int) -> Arrays:
    """Exactly n events (for rehearsals too)."""
    if n % simulator.block == 0:
        return sample(simulator, n)
    events = simulator.generate(n, simulator.rng(SEED, 0))
    return dict(events.fields) | {"context": next(iter(events.context.fields.values()))}


# Stored showers


def calogan(fields: Arrays, energy: np.ndarray, what: str) -> np.ndarray:
    """Fractions of the energy per event: in layers, or across."""
    cells = [fields[f"layer_{k}"].reshape(len(energy), *shape) for k, shape in enumerate(((3, 96), (12, 12), (12, 6)))]
    if what == "longitudinal":
        found = [layer.sum((1, 2))[:, None] for layer in cells[:2]]
    else:
        found = [cells[0].sum(1)[:, 40:56], cells[1].sum(1), cells[1].sum(2)[:, 1:]]
    return np.concatenate(found, 1) / (1000.0 * energy.reshape(-1, 1))


def on_file(particle: str, what: str, n: int) -> Row:
    """CaloGAN geometry."""
    name = {"e+": "eplus", "gamma": "gamma"}[particle]
    with h5py.File(public_data() / "geant4_calogan" / f"{name}_1_20GeV.h5") as file:
        stored = calogan({k: file[k][:] for k in file if k.startswith("layer")}, file["energy"][:], what)
    new = few(Geant4Shower(particle=particle), n)
    return hotelling(stored, calogan(new, new["context"], what))


def crystal(fields: np.ndarray, energy: np.ndarray, what: str) -> np.ndarray:
    """Fractions in layers, or across in x and y; ``fields`` (n, z, x, y)."""
    parts = [fields.sum((2, 3))[:, :20]] if what == "longitudinal" else [fields.sum((1, 3)), fields.sum((1, 2))[:, 1:]]
    return np.concatenate(parts, 1) / energy.reshape(-1, 1)


def crystal_on_file(what: str, n: int) -> Row:
    """Lead tungstate."""
    with np.load(public_data() / "geant4_pbwo4" / "photon_1_20GeV.npz") as file:
        stored = crystal(np.moveaxis(file["showers"], 3, 1), file["energy"], what)
    settings = {"spectrum": "log-uniform", "position": (5.0, 5.0), "spread": 5.0}
    new = few(Geant4Shower(geometry="pbwo4", particle="gamma", **settings), n)
    return hotelling(stored, crystal(new["showers"][:, 0], new["context"], what))


def hotelling(a: np.ndarray, b: np.ndarray) -> Row:
    """Equality of means. (Sums of rows and of columns are equal, so one of them is left out above.)"""
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariance = np.cov(a.T) / len(a) + np.cov(b.T) / len(b)
    width = np.sqrt(np.diag(covariance))
    pulls, rank = (a.mean(0) - b.mean(0)) / width, len(width)
    t2 = float(pulls @ np.linalg.solve(covariance / np.outer(width, width), pulls))
    dof = max(len(b) - 1, rank)  # of the smaller sample, which dominates
    p = float(stats.f.sf(t2 * (dof - rank + 1) / (dof * rank), rank, dof - rank + 1))
    return {
        "value": t2 / rank,
        "error": math.sqrt(2 / rank),
        "passed": p > P_VALUE,
        "p_value": p,
        "largest_pull": float(np.abs(pulls).max()),
        "events": [len(a), len(b)],
    }


# TestEm2


def testem2(what: str, n: int) -> Row:
    """Energy in per cent, or mean depth in X0."""
    edges = tuple(round(X0 * k, 6) for k in range(21))
    readout = Readout("cells", edges, (1, 20), (10 * X0, 10 * X0), "cylindrical")
    stack = Calorimeter("TestEm2", (Module(20, "PbWO4", X0),), (readout,), 10 * X0, unit="GeV")
    cells = few(Geant4Shower(geometry=stack, low=5.0, high=5.0), n)["cells"].reshape(-1, 20, 20)
    total = cells.sum((1, 2))
    if what == "energy":
        found, known = mean(100 * total / 5.0), Mean(94.8, 0.2)
        allowed = 0.03 * 94.8
    else:
        found, known = mean((cells.sum(2) * (np.arange(20) + 0.5)).sum(1) / total), Mean(7.51, 0.1)
        allowed = 0.03 * 7.51
    passed = abs(found.value - known.value) < allowed + 2 * math.hypot(found.error, known.error)
    return {**found._asdict(), "passed": passed, "reference": known.value, "reference_error": known.error, "events": n}


# GFlash beside Geant4

CASES = {"calogan": "e-", "calochallenge-2": "e-", "ild": "gamma", "pbwo4": "gamma"}


def pair(geometry: str, n: int) -> tuple[Any, list[np.ndarray]]:
    """10 GeV showers of both, (n, layer, cells, cells); CaloGAN's cube is cut into cells of 12 mm x 6 mm x 12 mm for this."""
    chosen: Any = geometry
    if geometry == "calogan":
        edges = tuple(12.0 * k for k in range(41))
        whole = Readout("cells", edges, (48, 48), (480.0, 480.0))
        chosen = Calorimeter("cube", (Module(80, "LAr", 4.0, "Pb", 2.0),), (whole,), 480.0, whole=True)
    settings = {"geometry": chosen, "particle": CASES[geometry], "low": 10.0, "high": 10.0}
    both = [few(kind(**settings), n) for kind in (Geant4Shower, GFlashShower)]
    name = next(key for key in both[0] if key != "context")
    return Geant4Shower(**settings).stack, [one[name][:, 0].astype(np.float64) for one in both]


def profiles(stack: Calorimeter, cells: np.ndarray, what: str) -> np.ndarray:
    """Energy of events in layers, or in rings around the axis, ``(n, k)``."""
    if what == "longitudinal":
        return cells.sum((2, 3))
    readout = stack.readouts[0]
    across = cells.sum(1).reshape(len(cells), -1)
    if stack.round:
        return across.reshape(len(cells), *readout.cells).sum(1)
    r = np.hypot(*readout.centres().T)
    width = readout.size[0] / readout.cells[0]
    ring = np.floor(r / width).astype(int).clip(0, readout.cells[0] // 2 - 1)
    return np.stack([across[:, ring == k].sum(1) for k in range(ring.max() + 1)], 1)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Half the sum of absolute differences of mean fractions."""
    one, two = (x.sum(0) / x.sum() for x in (a, b))
    return 0.5 * float(np.abs(one - two).sum())


def beside(geometry: str, what: str, n: int) -> Row:
    """Distance of profiles."""
    stack, cells = pair(geometry, n)
    a, b = (profiles(stack, one, what) for one in cells)
    rng = np.random.default_rng(SEED)
    rows = [[rng.integers(0, len(x), len(x)) for x in (a, b, a)] for _ in range(50)]
    spread = np.std([distance(a[i], b[j]) for i, j, _ in rows], ddof=1)
    floor = np.mean([distance(a[i], a[k]) for i, _, k in rows])
    return {"value": distance(a, b), "error": float(spread), "passed": None, "floor": float(floor), "events": n}


def depth(geometry: str, n: int) -> Row:
    """Mean depth of GFlash minus that of Geant4, in X0."""
    stack, cells = pair(geometry, n)
    edges = np.asarray(stack.readouts[0].edges) / medium_of(stack).material.x0_mm
    middle = 0.5 * (edges[1:] + edges[:-1])
    depths = [mean((one.sum((2, 3)) @ middle) / one.sum((1, 2, 3))) for one in cells]
    response = [mean(one.sum((1, 2, 3))) for one in cells]
    return {
        "value": depths[1].value - depths[0].value,
        "error": math.hypot(depths[0].error, depths[1].error),
        "passed": None,
        "geant4": depths[0].value,
        "gflash": depths[1].value,
        "response_ratio": response[1].value / response[0].value,
        "events": n,
    }


# Liquid argon


def chamber(kind: str, energy: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Energy [MeV] and mean radius [mm] of events from the centre, ``(2, n)``, by Geant4 and by walks."""
    found = []
    for simulator in (ChamberGeant4, ChamberWalk):
        settings = {"number": (1, 1), "low": energy, "high": energy, "vertex": 0.0, "threshold": 0.0, "points": 4000}
        points = few(simulator(particles=(kind,), labels=False, **settings), n)["points"].astype(np.float64)
        radius = np.linalg.norm(4.0 * (points[..., :3] + 0.5) - 256.0, axis=-1)
        total = points[..., 3].sum(1)
        found.append(np.stack([total, (radius * points[..., 3]).sum(1) / np.maximum(total, 1e-9)]))
    return found[0], found[1]


def walks(kind: str, energy: float, quantity: int, bar: float, n: int) -> Row:
    """Ratio of means, walk over Geant4; showers that leave nothing are left out of radii."""
    both = [x[quantity][x[0] > 1.0] if quantity else x[0] for x in chamber(kind, energy, n)]
    geant4, walk = (mean(x) for x in both)
    ratio = walk.value / geant4.value
    error = ratio * math.hypot(walk.error / walk.value, geant4.error / geant4.value)
    passed = abs(ratio - 1) < bar + 2 * error
    return {"value": ratio, "error": error, "passed": passed, "geant4": geant4.value, "walk": walk.value, "events": n}


# Speed

SPEEDS: dict[str, Callable[[], Simulator]] = {
    "geant4 calogan 10 GeV e-": lambda: Geant4Shower(low=10.0, high=10.0),
    "gflash calogan 10 GeV e-": lambda: GFlashShower(low=10.0, high=10.0),
    "geant4 calochallenge-2 10 GeV e-": lambda: Geant4Shower(geometry="calochallenge-2", low=10.0, high=10.0),
    "gflash calochallenge-2 10 GeV e-": lambda: GFlashShower(geometry="calochallenge-2", low=10.0, high=10.0),
    "geant4 ild 10 GeV photon": lambda: Geant4Shower(geometry="ild", particle="gamma", low=10.0, high=10.0),
    "gflash ild 10 GeV photon": lambda: GFlashShower(geometry="ild", particle="gamma", low=10.0, high=10.0),
    "geant4 pbwo4 10 GeV photon": lambda: Geant4Shower(geometry="pbwo4", particle="gamma", low=10.0, high=10.0),
    "gflash pbwo4 10 GeV photon": lambda: GFlashShower(geometry="pbwo4", particle="gamma", low=10.0, high=10.0),
    "geant4 liquid argon": ChamberGeant4,
    "walk liquid argon": ChamberWalk,
}


def processor() -> float:
    """Seconds of processor time, of children too."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in (own, children))


def speed(name: str, quick: bool) -> Row:
    """Events per second of processor time, of two blocks."""
    simulator, rates = SPEEDS[name](), []
    n = 5 if quick else simulator.block
    for block in range(2):
        begun = processor()
        simulator.generate(n, simulator.rng(SEED, block))
        rates.append(n / (processor() - begun))
    found = mean(rates)
    return {**found._asdict(), "passed": None, "events": 2 * n}


def two_workers(name: str, blocks: int) -> Row:
    """Time with one worker over time with two."""
    simulator, times = SPEEDS[name](), {}
    for _ in range(2):
        for workers in (1, 2):
            begun = time.monotonic()
            simulator(blocks * simulator.block, seed=SEED, workers=workers)
            times.setdefault(workers, []).append(time.monotonic() - begun)
    ratio = min(times[1]) / min(times[2])
    return {
        "value": ratio,
        "error": None,
        "passed": ratio > SPEED_UP,
        "seconds_one_two": [min(times[1]), min(times[2])],
    }


def jobs(quick: bool) -> dict[str, tuple[Callable[[], Row], float | None]]:
    """All rows by name, with their bars."""
    n, many = (20, 20) if quick else (1000, 300)
    found: dict[str, tuple[Callable[[], Row], float | None]] = {}
    for what in ("longitudinal", "lateral"):
        for particle in ("e+", "gamma"):
            found[f"calogan {particle}, {what}"] = functools.partial(on_file, particle, what, n), P_VALUE
        found[f"pbwo4 gamma, {what}"] = functools.partial(crystal_on_file, what, n), P_VALUE
    for what, reference in (("energy", 94.8), ("depth", 7.51)):
        found[f"TestEm2, {what}"] = functools.partial(testem2, what, many), reference
    for geometry in CASES:
        found[f"gflash, {geometry}, mean depth"] = functools.partial(depth, geometry, many), None
        for what in ("longitudinal", "radial"):
            found[f"gflash, {geometry}, {what}"] = functools.partial(beside, geometry, what, many), None
    for kind, energy, bar in (("mu+", 200.0, 0.05), ("proton", 200.0, 0.05), ("e-", 200.0, 0.1), ("gamma", 200.0, 0.1)):
        for quantity, what in enumerate(("energy", "radius")):
            found[f"walk, {kind}, {what}"] = functools.partial(walks, kind, energy, quantity, bar, many), bar
    for name in SPEEDS:
        found[f"speed, {name}"] = functools.partial(speed, name, quick), None
    for name, blocks in (("geant4 ild 10 GeV photon", 8), ("walk liquid argon", 64)):  # some 40 s of one core, or more
        found[f"two workers, {name}"] = functools.partial(two_workers, name, 2 if quick else blocks), SPEED_UP
    return found


def main() -> None:
    """Measure what is missing; `--only` takes rows whose names begin with a text."""
    line = parser(__doc__)
    line.add_argument("--only", default="", help="rows whose names begin with this")
    options = line.parse_args()
    sheet, rows = Sheet(NAME, quick=options.quick, any_source=True), jobs(options.quick)
    for name, (make, bar) in rows.items():
        if name.startswith(options.only):
            sheet.measure(name, make, seeds=[SEED], bar=bar)
    sheet.finish(rows)


if __name__ == "__main__":
    main()
