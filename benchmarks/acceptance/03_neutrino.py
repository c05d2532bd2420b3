"""The neutrino measurement: its cross sections against the closed form, its events against its densities, its universes against a fit.

Cross sections are compared with a second writing of Llewellyn Smith's formula (Dirac and Pauli form factors, adaptive quadrature) and an
average over the Fermi sphere. Generated events have seed 11. The fits of the axial mass use 200 toys and the covariance of 5000 universes
(seed 21, Hartlap's factor), the truth of each axial mass by quadrature. "Universes" are extractions from fluctuated nominal data with a
varied simulation (seed 22). They divide by thrown efficiencies and fluxes, so that their mean is not the central value: the prediction is
scaled by the ratio of the two, bin by bin, as for the Gaussian of that mean and covariance; the pulls without that stand beside. In
"nature varied" the data come from a varied nature, of nominal signal model, and the nominal simulation extracts (seed 23); "nature at
1.2 GeV" does so with another axial mass and its own universes (seeds 24, 25), without a bar, as the extraction leans on a simulation at
1.0 GeV.

    python benchmarks/acceptance/03_neutrino.py
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from common import Row
from iminuit import Minuit
from measuring import Sheet, parser
from scipy import integrate, stats

from pofx.simulators import Experiment, differential_cross_section, total_cross_section
from pofx.simulators.neutrino import cross_section as xs
from pofx.simulators.neutrino.binning import BINNING
from pofx.simulators.neutrino.events import generate_signal
from pofx.simulators.neutrino.flux import Flux
from pofx.simulators.neutrino.nucleus import FERMI_MOMENTUM, bound_cross_section
from pofx.simulators.neutrino.parameters import NOMINAL
from pofx.simulators.neutrino.prediction import flux_averaged

NAME = "03_neutrino"
M, MU = xs.NUCLEON_MASS, xs.MUON_MASS
ENERGIES = (0.12, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
MASSES = (0.9, 1.0, 1.2, 1.35)
SIGNAL_MODEL = ("axial_mass", "removal_energy", "enhancement", "pauli")
NODES = 24


class Size(NamedTuple):
    """Generated events, universes behind the covariance, toys, cells per axis of a grid, simulated events of the measurement."""

    events: int = 1_000_000
    universes: int = 5000
    toys: int = 200
    cells: int = 3000
    simulated: int = 40_000


QUICK = Size(60_000, 250, 12, 700, 4000)

# --------------------------------------------------------------------------------------------------------- cross sections


def reference(q2: float, energy: float, axial_mass: float, antineutrino: bool) -> float:
    """d sigma / d Q^2 in cm^2 / GeV^2 as Llewellyn Smith wrote it, in F_1 and F_2, for the same inputs."""
    tau = q2 / (4 * M**2)

    def ratio(top: tuple[float, ...], bottom: tuple[float, ...]) -> float:
        return sum(c * tau**i for i, c in enumerate(top)) / sum(c * tau**i for i, c in enumerate(bottom))

    electric = ratio((1, -0.0578), (1, 11.1, 13.6, 33.0)) - ratio((0, 1.25, 1.30), (1, -9.86, 305.0, -758.0, 802.0))
    magnetic = 2.79284734 * ratio((1, 0.15), (1, 11.1, 19.6, 7.54)) + 1.91304273 * ratio(
        (1, 1.81), (1, 14.1, 20.7, 68.7)
    )
    f1, f2 = (electric + tau * magnetic) / (1 + tau), (magnetic - electric) / (1 + tau)
    fa = -1.2754 / (1 + q2 / axial_mass**2) ** 2
    fp = 2 * M**2 * fa / (0.13957039**2 + q2)
    massive = (f1 + f2) ** 2 + (fa + 2 * fp) ** 2 - (q2 / M**2 + 4) * fp**2
    a = (
        (MU**2 + q2)
        / M**2
        * (
            (1 + tau) * fa**2
            - (1 - tau) * f1**2
            + tau * (1 - tau) * f2**2
            + 4 * tau * f1 * f2
            - MU**2 / (4 * M**2) * massive
        )
    )
    b, c = q2 / M**2 * fa * (f1 + f2), 0.25 * (fa**2 + f1**2 + tau * f2**2)
    x = (4 * M * energy - q2 - MU**2) / M**2
    before = (M * 1.1663788e-5 * 0.97373 / energy) ** 2 / (8 * math.pi) * 3.893793721e-28
    return before * (a + (b if antineutrino else -b) * x + c * x**2)


def differential() -> Row:
    """Largest relative difference over energies, axial masses, both beams and 60 points in Q^2 each."""
    worst = 0.0
    for energy in ENERGIES:
        low, high = xs.momentum_transfer_range(energy)
        q2 = low + (high - low) * (np.arange(60) + 0.5) / 60
        for mass in MASSES:
            for other in (False, True):
                exact = np.array([reference(float(q), energy, mass, other) for q in q2])
                worst = max(worst, float(np.abs(differential_cross_section(q2, energy, mass, other) / exact - 1).max()))
    return {"value": worst, "error": None, "passed": bool(worst <= 1e-6)}


def total() -> Row:
    """Largest relative difference from adaptive quadrature of the other writing."""
    worst = 0.0
    for energy in ENERGIES:
        low, high = (float(end) for end in xs.momentum_transfer_range(energy))
        for mass in MASSES:
            for other in (False, True):
                exact, _ = integrate.quad(
                    reference, low, high, args=(energy, mass, other), epsabs=0.0, epsrel=1e-10, limit=400
                )
                worst = max(worst, abs(float(total_cross_section(energy, mass, other)) / exact - 1))
    sizes = {f"sigma({e} GeV) / cm^2": float(total_cross_section(e)) for e in (0.5, 1.0, 2.0)}
    return {"value": worst, "error": None, "passed": bool(worst <= 1e-6), **sizes}


def moving(energy: Any, nodes: int = 16) -> Any:
    """sigma on unblocked nucleons of the Fermi sphere at these vertex energies, with the nominal enhancement."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    size = FERMI_MOMENTUM * 0.5 * (x[:, None] + 1)
    bound, share = np.hypot(M, size), w[:, None] * w * 0.75 * (0.5 * (x[:, None] + 1)) ** 2
    product = np.asarray(energy)[..., None, None] * (bound - size * x)
    value = total_cross_section(product / M, enhancement=1.0) * product / (np.asarray(energy)[..., None, None] * bound)
    return (value * share).sum((-2, -1))


def nucleus(size: Size) -> Row:
    """The closed form in (p, cos theta), summed over a grid, against the average over the sphere."""
    worst = 0.0
    for energy in (0.3, 0.7, 1.5):
        top, c = energy + 0.1, (np.arange(size.cells) + 0.5) / size.cells * 2 - 1
        p = (np.arange(size.cells) + 0.5) / size.cells * top
        rows = [
            bound_cross_section(part[:, None], c, energy, enhancement=1.0, pauli=0.0).sum()
            for part in np.array_split(p, 30)
        ]
        found = sum(rows) * top / size.cells * 2 / size.cells
        worst = max(worst, abs(found / float(moving(energy)) - 1))
    return {"value": worst, "error": None, "passed": bool(worst <= 1e-4)}


# ----------------------------------------------------------------------------------------------------------------- events


def generated_total(size: Size) -> Row:
    """Flux-averaged cross section out of the generator's acceptance over that by quadrature, minus one."""
    _, found = generate_signal(size.events, seed=11)
    energy = np.geomspace(0.08, 25.0, 400)
    exact = np.trapezoid(moving(energy, 8) * Flux().shape(energy + NOMINAL.removal_energy), energy)
    error = 1 / math.sqrt(size.events)  # of the number of events, an upper limit
    return {"value": found / exact - 1, "error": error, "passed": bool(abs(found / exact - 1) <= 3 * error)}


def generated_bins(size: Size) -> Row:
    """chi2 p-value of generated muons of unblocked nucleons in the bins of the measurement, against quadrature."""
    events, _ = generate_signal(size.events, seed=11)
    free = events.nucleon > FERMI_MOMENTUM
    counts = np.bincount(
        BINNING.find(events.momentum[free], np.arccos(events.cosine[free])), minlength=len(BINNING) + 1
    )[:-1]
    expected = flux_averaged(BINNING.edges) * BINNING.areas
    expected *= counts.sum() / expected.sum()
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    p = float(stats.chi2.sf(chi2, len(counts) - 1))
    return {"value": p, "error": None, "chi2": chi2, "bins": len(counts), "passed": p >= 0.01}


def closure(size: Size) -> Row:
    """Largest relative difference between the extraction from nominal data and the truth."""
    experiment = measurement(size)
    worst = float(np.abs(experiment.central / experiment.truth() - 1).max())
    return {"value": worst, "error": None, "passed": bool(worst <= 1e-6)}


# ------------------------------------------------------------------------------------------------------------------- fits


@functools.cache
def measurement(size: Size) -> Experiment:
    return Experiment(seed=1, events=size.simulated)


@functools.cache
def model(size: Size) -> Any:
    """Chebyshev coefficients of the truth as a function of the axial mass from 0.5 to 2 GeV, good to 1e-8."""
    points = 1.25 + 0.75 * np.polynomial.chebyshev.chebpts1(NODES)
    rows = [measurement(size).truth(axial_mass=float(mass)) for mass in points]
    matrix = np.polynomial.chebyshev.chebvander((points - 1.25) / 0.75, NODES - 1)
    return np.linalg.solve(matrix, np.array(rows))


def truth(mass: float, size: Size) -> Any:
    return np.polynomial.chebyshev.chebval((mass - 1.25) / 0.75, model(size))


@functools.cache
def gaussian(axial_mass: float, seed: int, size: Size) -> tuple[Any, Any]:
    """Mean and inverse covariance, unbiased for its finite number (Hartlap et al. 2007), of universes of data at this axial mass."""
    counts = measurement(size).expected(NOMINAL._replace(axial_mass=axial_mass))
    rows = measurement(size).universes(size.universes, seed, counts=counts)
    n, bins = rows.shape
    return rows.mean(0), np.linalg.inv(np.cov(rows.T)) * (n - bins - 2) / (n - 1)


def fitted(y: Any, matrix: Any, factor: Any, size: Size) -> tuple[float, float, float]:
    """Best axial mass, its error, and chi2, for predictions that are scaled by a factor."""

    def chi2(mass: float) -> float:
        offset = y - factor * truth(mass, size)
        return float(offset @ matrix @ offset)

    minuit = Minuit(chi2, mass=1.0)
    minuit.errordef = Minuit.LEAST_SQUARES
    minuit.limits["mass"] = (0.52, 1.98)
    minuit.migrad()
    minuit.hesse()
    return float(minuit.values["mass"]), float(minuit.errors["mass"]), float(minuit.fval or math.nan)


def nature(axial_mass: float, seed: int, size: Size) -> Any:
    """Extractions by the nominal simulation from a nature whose nuisance parameters are thrown."""
    experiment, rows = measurement(size), []
    signal = {name: getattr(NOMINAL, name) for name in SIGNAL_MODEL} | {"axial_mass": axial_mass}
    for i, values in enumerate(experiment.throws(size.toys, seed)):
        counts = np.random.default_rng([seed, i]).poisson(experiment.expected(values._replace(**signal)))
        rows.append(experiment.extract(counts))
    return np.array(rows)


@functools.cache
def pulls(kind: str, size: Size) -> tuple[Any, Row]:
    """Of all toys of a kind, and what else the fits say."""
    mass = 1.2 if kind.endswith("1.2 GeV") else 1.0
    centre, matrix = gaussian(mass, 21 if mass == 1.0 else 25, size)
    plain = np.ones(len(BINNING))
    more: Row = {}
    if kind == "universes":
        toys, factor = measurement(size).universes(size.toys, seed=22), centre / measurement(size).central
        shifted = np.array([fitted(y, matrix, plain, size) for y in toys])
        more["mean of pulls around the central values"] = float(((shifted[:, 0] - mass) / shifted[:, 1]).mean())
    else:
        toys, factor = nature(mass, 23 if mass == 1.0 else 24, size), plain
    found = np.array([fitted(y, matrix, factor, size) for y in toys])
    more |= {
        "input": mass,
        "mean axial mass": float(found[:, 0].mean()),
        "mean error": float(found[:, 1].mean()),
        "mean chi2": float(found[:, 2].mean()),
        "degrees of freedom": len(BINNING) - 1,
        "toys": len(toys),
    }
    return (found[:, 0] - mass) / found[:, 1], more


def pull_mean(kind: str, bar: float | None, size: Size) -> Row:
    z, more = pulls(kind, size)
    value = float(z.mean())
    met = None if bar is None else abs(value) <= bar
    return {"value": value, "error": float(z.std(ddof=1) / math.sqrt(len(z))), "passed": met, **more}


def pull_width(kind: str, barred: bool, size: Size) -> Row:
    z, more = pulls(kind, size)
    value = float(z.std(ddof=1))
    error = value / math.sqrt(2 * (len(z) - 1))
    return {"value": value, "error": error, "passed": abs(value - 1) <= 3 * error if barred else None, **more}


def main() -> None:
    """One row per quantity."""
    options = parser(__doc__).parse_args()
    size = QUICK if options.quick else Size()
    sheet, names = Sheet(NAME, quick=options.quick), []

    def row(measure: str, make: Any, *arguments: Any, seeds: tuple[int, ...] = (), bar: float | None = None) -> None:
        names.append(measure)
        sheet.measure(measure, functools.partial(make, *arguments), seeds=seeds, bar=bar)

    row("differential cross section: largest relative difference", differential, bar=1e-6)
    row("total cross section: largest relative difference", total, bar=1e-6)
    row("Fermi gas in (p, cos theta) summed: largest relative difference", nucleus, size, bar=1e-4)
    row("generated cross section over quadrature minus 1, bar 3 sigma", generated_total, size, seeds=(11,))
    row("generated muons against quadrature: p-value of chi2", generated_bins, size, seeds=(11,), bar=0.01)
    row("extraction from nominal data: largest relative difference from the truth", closure, size, seeds=(1,), bar=1e-6)
    mean_bar = 3 / math.sqrt(size.toys)
    for kind, seeds, barred in (
        ("universes", (1, 21, 22), True),
        ("nature varied", (1, 21, 23), True),
        ("nature at 1.2 GeV", (1, 24, 25), False),
    ):
        bar = mean_bar if barred else None
        row(f"axial mass, {kind}: mean of pulls", pull_mean, kind, bar, size, seeds=seeds, bar=bar)
        row(f"axial mass, {kind}: width of pulls, bar 3 errors from 1", pull_width, kind, barred, size, seeds=seeds)
    sheet.finish(names)


if __name__ == "__main__":
    main()
