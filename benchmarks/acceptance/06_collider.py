"""Collider events: peaks, features beside the public sample of the LHC Olympics, jets, missing momentum, weights, speed.

Features: ratio of medians to those of the public signal region (3.3 < mjj < 3.7 TeV), with the statistical error of both; bar 10 %. For the
background the Kolmogorov-Smirnov distance to the public one, beside the distance of two such samples of one truth; histograms of both
go into a figure of the documentation. Peaks: median of the mass that generated particles give, in GeV from its place; the bar is 1 GeV,
or the share of the mass that reconstructed jets may lose. Speed: accepted events per second of one process, start-up included.
"""

import math
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import cache, partial
from typing import Any

import awkward as ak
import numpy as np
from common import ROOT, Row
from measuring import Sheet, parser, public_data
from scipy import stats

from pofx import simulators as sim
from pofx.data.events import Events
from pofx.simulators.base import Simulator, simulator_class
from pofx.simulators.collider.particles import NEUTRINOS, decay_products

NAME = "06_collider"
FIGURE = ROOT / "docs" / "figures" / "lhco-like.png"
FEATURES = ("mjj", "mj1", "dmj", "tau21_j1", "tau21_j2")
TITLES = (r"$m_{jj}$ [TeV]", r"$m_{J1}$ [TeV]", r"$m_{J2} - m_{J1}$ [TeV]", r"$\tau_{21}$ of J1", r"$\tau_{21}$ of J2")
SEED, PER_CENT = 6, 0.10
QUIET = sim.Beams(mpi=False)
PEAKS = {"W": 80.4, "top": 172.5, "Z": 91.19, "W'": 3500.0, "X": 500.0, "Y": 100.0}
SPEED: dict[str, dict[str, Any]] = {
    name: {}
    for name in (
        *("qcd-dijets", "lhco-signal", "lhco-background", "multijets"),
        *("ttbar-dilepton", "ttbar-lepton-jets", "z-jets", "jetnet-jets"),
    )
}
SPEED["z-jets, VINCIA"] = {"beams": sim.Beams(14000.0, False, "vincia")}
SIZE = {"divide": 1}


def rng() -> np.random.Generator:
    """Of every sample."""
    return np.random.default_rng(SEED)


def events(simulator: Simulator, n: int) -> Events:
    """As many, times what a rehearsal leaves of it."""
    return simulator.generate(max(20, n // SIZE["divide"]), rng())


def median(values: np.ndarray) -> tuple[float, float]:
    """And its error, by 200 bootstrap samples."""
    rows = np.random.default_rng(1).integers(0, len(values), (200, len(values)))
    return float(np.median(values)), float(np.median(values[rows], axis=1).std())


def row(value: float, error: float | None, passed: bool | None, **more: Any) -> Row:
    """A row."""
    return {"value": value, "error": error, "passed": passed, **more}


# LHC Olympics


@cache
def public(label: int) -> np.ndarray:
    """The public features of signal or background in the signal region."""
    with np.load(public_data() / "lhco" / "lhco_rd_signal_region.npz", allow_pickle=False) as file:
        rows = np.concatenate([file[name] for name in ("train", "val", "extrasig_train")])
    return rows[rows[:, 5] == label, :5]


@cache
def own(label: int) -> tuple[np.ndarray, np.ndarray]:
    """Ours in the signal region, with weights."""
    made = events(sim.LHCOSignal() if label else sim.LHCOBackground(), 3000 if label else 6000)
    x, weight = made.fields["dijet"], np.ones(len(made)) if made.weight is None else made.weight
    inside = (x[:, 0] > 3.3) & (x[:, 0] < 3.7)
    return x[inside], weight[inside]


def feature_row(i: int) -> Row:
    """Ratio of medians of the signal."""
    (ours, error), (theirs, other) = median(own(1)[0][:, i]), median(public(1)[:, i])
    ratio = ours / theirs
    wide = ratio * math.hypot(error / ours, other / theirs)
    return row(ratio, wide, abs(ratio - 1) < PER_CENT, ours=ours, public=theirs, events=len(own(1)[0]))


def distance_row(i: int, label: int) -> Row:
    """Kolmogorov-Smirnov distance, and what it would be of two samples of one truth (its expectation, 0.87 / root of n)."""
    (x, weight), reference = own(label), public(label)
    order = np.argsort(x[:, i])
    steps = np.concatenate([[0.0], np.cumsum(weight[order]) / weight.sum()])
    there = np.searchsorted(np.sort(reference[:, i]), x[order, i]) / len(reference)
    distance = float(np.maximum(np.abs(steps[1:] - there), np.abs(steps[:-1] - there)).max())
    effective = weight.sum() ** 2 / (weight**2).sum()
    floor = 0.8687 / math.sqrt(effective * len(reference) / (effective + len(reference)))
    return row(distance, 0.26 / math.sqrt(effective), None, floor=floor, effective=effective)


def figure_row() -> Row:
    """Histograms of both beside the public ones; the value is the number of features drawn."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 5, figsize=(15, 3.2))
    for i, panel in enumerate(axes):
        for label, colour, name in ((0, "tab:blue", "background"), (1, "tab:red", "signal")):
            (x, weight), reference = own(label), public(label)[:, i]
            edges = np.linspace(*np.quantile(np.concatenate([public(0)[:, i], public(1)[:, i]]), [0.002, 0.998]), 31)
            panel.hist(reference, edges, density=True, color=colour, alpha=0.3, label=f"{name}, public")
            panel.hist(
                x[:, i], edges, weights=weight, density=True, histtype="step", color=colour, label=f"{name}, pofx"
            )
        panel.set(xlabel=TITLES[i], yticks=[])
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    if SIZE["divide"] == 1:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
    plt.close(figure)
    return row(len(axes), None, True)


def spectrum_row() -> Row:
    """p-value of the chi-square between mjj of weighted and of natural events, in seven bins."""
    counts, errors = [], []
    for bias in (0.0, 5.0):
        made = events(sim.LHCOBackground(bias=bias), 4000)
        where = np.digitize(made.fields["dijet"][:, 0], [2.5, 2.7, 2.9, 3.2, 3.6, 4.2])
        total = made.weight.sum()
        counts.append(np.bincount(where, made.weight, 7) / total)
        errors.append(np.bincount(where, made.weight**2, 7) / total**2)
    used = (errors[0] + errors[1]) > 0
    chi2 = ((counts[0] - counts[1])[used] ** 2 / (errors[0] + errors[1])[used]).sum()
    p = float(stats.chi2.sf(chi2, used.sum() - 1))
    return row(p, None, p > 0.01, chi2=float(chi2), bins=int(used.sum()))


def edge_row() -> Row:
    """Share of the weight that comes from the lowest 5 % of the generated range, which cannot be seen to be cut off if it is small."""
    simulator = sim.LHCOBackground()
    made = events(simulator, 4000)
    momentum = simulator.pt_hat_min * made.weight ** (-1 / simulator.bias)
    low = momentum < 1.05 * simulator.pt_hat_min
    share = float(made.weight[low].sum() / made.weight.sum())
    return row(share, math.sqrt((made.weight[low] ** 2).sum()) / made.weight.sum(), share < 0.02)


# Peaks


@cache
def record(name: str) -> Any:
    """Pythia's particles."""
    simulator = {"tops": sim.TopDilepton(beams=QUIET), "z": sim.ZJets(), "signal": sim.LHCOSignal()}[name]
    return next(simulator.beams.batches(simulator.process(), rng(), iter([max(20, 1500 // SIZE["divide"])]))).particles


def masses(name: str) -> np.ndarray:
    """What the decay products of a resonance say, or Pythia's own number where they are quarks."""
    if name == "W":
        tops = record("tops")
        neutrinos, leptons = decay_products(tops, (24,), NEUTRINOS), decay_products(tops, (24,), (11, 13))
        return ak.to_numpy((neutrinos[neutrinos.id > 0][:, 0] + leptons[leptons.id < 0][:, 0]).mass)
    if name == "Z":
        neutrinos = decay_products(record("z"), (23,), NEUTRINOS)
        return ak.to_numpy((neutrinos[:, 0] + neutrinos[:, 1]).mass)
    code, status, source = {
        "top": (6, 62, "tops"),
        "W'": (34, 62, "signal"),
        "X": (24, 0, "signal"),
        "Y": (23, 0, "signal"),
    }[name]
    found = record(source)
    chosen = (abs(found.id) == code) & ((abs(found.status) == status) | (status == 0))
    return ak.to_numpy(found.m[chosen][:, 0])


def peak_row(name: str) -> Row:
    """Median minus the place of the peak [GeV]; 1 GeV, or for W' a part in a hundred, which is its width."""
    value, error = median(masses(name))
    bar = 35.0 if name == "W'" else 1.0
    return row(value - PEAKS[name], error, abs(value - PEAKS[name]) < bar + 3 * error, median=value)


def seen_row(name: str) -> Row:
    """Of the masses of the two jets, in units of the generated: within 10 %, of events that hold the resonance."""
    x = own(1)[0]
    values = {"W'": x[:, 0] * 1e3, "Y": x[:, 1] * 1e3, "X": (x[:, 1] + x[:, 2]) * 1e3}[name]
    value, error = median(values)
    return row(value / PEAKS[name], error / PEAKS[name], abs(value / PEAKS[name] - 1) < PER_CENT)


# Jets and missing momentum


@cache
def kinds() -> dict[str, Events]:
    """Jets of gluons, quarks and tops."""
    return {kind: events(sim.JetNetJets(jet=kind, beams=QUIET), 1500) for kind in "gqt"}


def jet_row(kind: str, column: int) -> Row:
    """Median mass or multiplicity; a quark's is below a gluon's, the top's mass is above."""
    values = {k: median(made.context.fields["jet"][:, column]) for k, made in kinds().items()}
    order = values["q"][0] < values["g"][0] and (column == 3 or values["g"][0] < values["t"][0])
    peak = column == 3 or 165 < values["t"][0] < 190
    return row(*values[kind], order and peak)


def missing_row(name: str) -> Row:
    """Resolution of a component of missing momentum [GeV]: half the central 68 % of what is missing minus the neutrinos."""
    made = events(simulator_class(name)(), 800)
    pt, phi = made.fields["neutrinos"][:, ::3], made.fields["neutrinos"][:, 2::3]
    met, angle = made.context.fields["met"].T
    off = met * np.cos(angle) - (pt * np.cos(phi)).sum(1)
    off = np.concatenate([off, met * np.sin(angle) - (pt * np.sin(phi)).sum(1)])
    value = float(np.subtract(*np.quantile(off, [0.84, 0.16])) / 2)
    return row(value, value / math.sqrt(len(off)), 5 < value < 30, bias=float(off.mean()), rms=float(off.std()))


@cache
def natures() -> list[Events]:
    """Z + jets of both showers."""
    return [events(sim.ZJets(beams=sim.Beams(14000.0, False, shower)), 1200) for shower in ("simple", "vincia")]


def nature_row(i: int) -> Row:
    """Kolmogorov-Smirnov distance between the showers, for an observable of Z + jets, generated, beside its floor."""
    columns = [one.fields["gen"][:, i] for one in natures()]
    found = stats.ks_2samp(*columns)
    return row(float(found.statistic), None, None, p=float(found.pvalue), floor=0.8687 * math.sqrt(2 / len(columns[0])))


# Speed


def speed_row(name: str) -> Row:
    """Events per second."""
    simulator = simulator_class(name.partition(",")[0])(**SPEED[name])
    n = max(20, 500 // SIZE["divide"])
    begun = time.perf_counter()
    simulator.generate(n, rng())
    return row(n / (time.perf_counter() - begun), None, None)


def workers_row() -> Row:
    """Time of one process over that of two, for 48 blocks of 500 events, which must be the same: about a minute."""
    simulator = sim.LHCOSignal()
    n = simulator.block * (48 if SIZE["divide"] == 1 else 1)
    seconds, made = [], []
    for workers in (1, 2):
        begun = time.perf_counter()
        made.append(simulator(n, seed=SEED, workers=workers).arrays().x)
        seconds.append(time.perf_counter() - begun)
    same = bool(np.array_equal(*made))
    ratio = seconds[0] / seconds[1]
    return row(ratio, None, same and ratio > 1.8, same=same, seconds_one=seconds[0])


def rows() -> Iterator[tuple[str, Callable[[], Row], Any]]:
    """Measure, how, and bar."""
    for i, name in enumerate(FEATURES):
        yield f"signal: median of {name}, ratio to the public sample", partial(feature_row, i), "0.9 to 1.1"
    for label, kind in ((0, "background"), (1, "signal")):
        for i, name in enumerate(FEATURES):
            yield f"{kind}: distance of {name} to the public sample", partial(distance_row, i, label), None
    yield "figure of both beside the public sample", figure_row, None
    for name in PEAKS:
        yield f"peak: {name}, off by [GeV]", partial(peak_row, name), "1 GeV; W' 35 GeV"
    for name in ("W'", "X", "Y"):
        yield f"seen: {name}, ratio to its mass", partial(seen_row, name), "0.9 to 1.1"
    for column, what in ((2, "mass [GeV]"), (3, "particles")):
        for kind in "qgt":
            yield f"jets: {kind}, median of {what}", partial(jet_row, kind, column), "q < g < t; top 165 to 190 GeV"
    for name in ("ttbar-dilepton", "ttbar-lepton-jets"):
        yield f"missing momentum: {name}, resolution of a component [GeV]", partial(missing_row, name), "5 to 30"
    for i, name in enumerate(("m", "M", "w", "ln rho", "zg", "tau21")):
        yield f"showers: distance between simple and VINCIA in {name}", partial(nature_row, i), None
    yield "weights: p-value of the biased spectrum against the natural one", spectrum_row, "above 0.01"
    yield "weights: share from the lower edge of the generated range", edge_row, "below 0.02"
    for name in SPEED:
        yield f"speed: {name}, events per second", partial(speed_row, name), None
    yield "speed: two workers to one", workers_row, 1.8


def main() -> None:
    """All rows, about half an hour on one core; `--only` chooses by pattern."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", default=["*"], help="patterns of rows, e.g. 'signal*' 'speed*'")
    options = made.parse_args()
    SIZE["divide"] = 40 if options.quick else 1
    sheet = Sheet(NAME, quick=options.quick, any_source=True)
    plan = list(rows())
    for measure, make, bar in plan:
        if any(fnmatch(measure, pattern) for pattern in options.only):
            sheet.measure(measure, make, seeds=[SEED], bar=bar)
    sheet.finish(measure for measure, _, _ in plan)


if __name__ == "__main__":
    main()
