"""Simulators with closed-form truth, at large n: power spectra, splitting kernels, toys, integrals; events per second; two workers.

Rows with a p-value pass above 0.01 divided by their number in the group; integrals within four of their errors. `--only` chooses rows by
pattern.
"""

import math
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from typing import Any

import numpy as np
from common import Row
from measuring import Sheet, parser
from scipy import stats

from pofx.simulators.base import Simulator
from pofx.simulators.catalogue import ShapeSimulator, ToySimulator
from pofx.simulators.densities import LOG_TAU
from pofx.simulators.fields import DustMap, RandomField, Spectrum, power_spectrum
from pofx.simulators.fields.measured import binned
from pofx.simulators.inference_more import MORE_TASKS
from pofx.simulators.splitting import Coefficients, Dipole, Emissions, SplittingShower
from pofx.simulators.task_toys.amplification import AMPLIFICATION, quantile_error
from pofx.simulators.task_toys.anomaly import DijetBump, Salad, improvement
from pofx.simulators.task_toys.integrands import INTEGRANDS
from pofx.simulators.task_toys.matrix_element import MatrixElement
from pofx.simulators.task_toys.near_far import NearFar
from pofx.simulators.task_toys.unfolding import gaussian_pair, shifted_pair

NAME = "06_truths"
SEED = 1
SIZE = {"divide": 1}
SPEED_UP = 1.8
CHANGED = Coefficients(0.6, 1.8, 1.5, 1.6, 0.5, -1.5, 2.0, 1.0)
STEEP = Spectrum("power-law", 0.5, 1.0, 1.5)


def many(n: int, least: int = 200) -> int:
    """As many as this, fewer in a rehearsal."""
    return max(n // SIZE["divide"], least)


def rng() -> np.random.Generator:
    """The random numbers of a row."""
    return np.random.default_rng(SEED)


def p_row(p: float, group: int, **more: Any) -> Row:
    """A p-value among those of its group."""
    return {"value": float(p), "error": None, "passed": bool(p > 0.01 / group), **more}


def pulls_row(pulls: np.ndarray, group: int, **more: Any) -> Row:
    """The chi2 of independent pulls."""
    chi2 = float((np.asarray(pulls) ** 2).sum())
    return p_row(float(stats.chi2.sf(chi2, len(pulls))), group, chi2=chi2, ndf=len(pulls), **more)


# Fields

FIELDS: dict[str, tuple[RandomField | DustMap, int]] = {
    "Gaussian, 64^2": (RandomField(law="gaussian"), 4000),
    "lognormal, 64^2": (RandomField(), 4000),
    "lognormal, 64^2, shift 0.015": (RandomField(shift=0.015), 4000),
    "lognormal, 256^2": (RandomField(cells=256), 600),
    "lognormal, table": (
        RandomField(spectrum=Spectrum("table", k=(70.0, 500.0, 3e3), power=(4e-9, 1.5e-9, 1e-10))),
        4000,
    ),
    "Gaussian, 32^3": (RandomField(law="gaussian", cells=32, dim=3, length=1.0, spectrum=STEEP), 600),
    "lognormal, 32^3": (RandomField(cells=32, dim=3, length=1.0, spectrum=STEEP, shift=60.0), 600),
    "dust, 64^2": (DustMap(modulation=0.0), 4000),
}


def spectrum_row(name: str) -> Row:
    """Hotelling's test of the mean of the maps' spectra against the chosen one, in 16 bins."""
    simulator, n = FIELDS[name]
    n = many(n, 40)
    maps = simulator.generate(n, rng()).x
    power = simulator.power if isinstance(simulator, RandomField) else simulator.power()
    found = power_spectrum(maps, simulator.length)
    expected = binned(simulator.lattice, power, 16)[2]
    off, d = found.power - expected, len(expected)
    scaled = off @ np.linalg.solve(found.covariance, off) * (n - d) / ((n - 1) * d)
    p = float(stats.f.sf(scaled, d, n - d))
    return p_row(
        p,
        len(FIELDS),
        largest_relative=float(np.abs(off / expected).max()),
        largest_pull=float(np.abs(off / found.error).max()),
    )


# Shower


def splittings(start: Any, coefficients: Coefficients, n: int, limit: int | None) -> np.ndarray:
    """event, t, z, q2 and channel of all splittings, in blocks."""
    simulator, tables = SplittingShower(start=start, coefficients=coefficients), []
    random = rng()
    for begin in range(0, n, 5000):
        shower, seen = simulator.evolution(np.tile(coefficients.array(), (min(5000, n - begin), 1))), Emissions()
        shower.run(random, seen, limit)
        tables.append(seen.table())
    return np.concatenate(tables)


def sudakov_row(start: Any, coefficients: Coefficients) -> Row:
    """First splittings: shares between scales against differences of Sudakov's factor, chi2."""
    n = many(400_000, 2000)
    t = splittings(start, coefficients, n, 1)[:, 1]
    dipole, ends = Dipole(start, 91.188**2, coefficients), 2 if start == "quark" else 4
    scales = np.geomspace(1.0, 900.0, 16)
    below = np.array([dipole.no_emission(scale, ends) for scale in scales])
    expected = n * np.diff([0.0, *below, 1.0])
    seen = np.histogram(t, [0.0, *scales, np.inf])[0] + np.array([n - len(t)] + [0] * len(scales))
    keep = expected > 5
    test = stats.chisquare([*seen[keep], seen[~keep].sum() + 1e-9], [*expected[keep], expected[~keep].sum() + 1e-9])
    return p_row(float(test.pvalue), 4, no_emission=float(1 - len(t) / n), sudakov=float(below[0]))


def kernel_row(channel: Any, start: Any, coefficients: Coefficients) -> Row:
    """z of all splittings at their own scales: Kolmogorov and Smirnov."""
    table = splittings(start, coefficients, many(60_000, 300), None)
    chosen = table[table[:, 4] == ("qq", "gg", "gq").index(channel)]
    dipole = Dipole("quark" if channel == "qq" else "gluon", 1.0, coefficients)
    u = np.concatenate(
        [
            dipole.cumulative(part[:, 1] / part[:, 3], part[:, 2], channel)
            for part in np.array_split(chosen, len(chosen) // 5000 + 1)
        ]
    )
    found = stats.kstest(u, "uniform")
    return p_row(float(found.pvalue), 8, splittings=len(u), distance=float(found.statistic))


# Toys


def near_far() -> list[np.ndarray]:
    """The four laws of the far detector, as uniform numbers."""
    events = NearFar().sample(many(200_000), SEED)
    s, e, lepton, hadrons = events.x.T
    l_n, h_n, _, c = events.context.x.T
    y, logit = h_n / (l_n + h_n), np.log(s) - np.log1p(-s)
    score = 0.7 * stats.norm.cdf(logit, 2.5 - 2 * y, 0.6) + 0.3 * stats.norm.cdf(logit, -0.5 - 2 * y, 0.9)
    ratio = np.log(hadrons / h_n)
    jet = 0.8 * stats.norm.cdf(ratio, math.log(0.9), 0.2) + 0.2 * stats.norm.cdf(ratio, math.log(0.5), 0.35)
    seen = stats.norm.cdf(np.log(lepton / l_n), -0.02 * (1 - c), 0.05 + 0.10 * (1 - c))
    return [score, stats.norm.cdf(np.log(e / (lepton + hadrons)), 0, 0.01), seen, jet]


def unfolding() -> list[np.ndarray]:
    """Pulls of gen given sim, of both pairs."""
    found = []
    for toy in (*gaussian_pair(), *shifted_pair()):
        events = toy.sample(many(200_000), SEED)
        mean, covariance = toy.posterior(events.context.x)
        white = np.linalg.solve(np.linalg.cholesky(covariance), (events.x - mean).T)
        found += list(stats.norm.cdf(white))
    return found


def dijets() -> list[np.ndarray]:
    """Features of the background given mjj."""
    x = DijetBump(signal_share=0.0, correlation=0.1).sample(many(200_000), SEED).x
    m = x[:, 0]
    light = (np.log(x[:, 1] - 0.1 * m) - math.log(0.11) - 0.6 * np.log(m / 3.5)) / 0.5
    gap = (x[:, 2] - 0.1 * m) / (0.06 * np.sqrt(m))
    ratios = [stats.beta.cdf(x[:, 3 + j], 7.0 - 0.5 * np.minimum(m, 6.0) + j, 4.0) for j in (0, 1)]
    return [stats.norm.cdf(light), stats.gamma.cdf(gap, 2.0), *ratios]


def linear_posteriors() -> list[np.ndarray]:
    """Theta of the linear tasks given x, one parameter each."""
    task = MORE_TASKS["gaussian-linear"]
    theta = task.prior(many(200_000), SEED)
    x = task.simulate(theta, SEED)
    return list(stats.norm.cdf(theta, 0.5 * x, math.sqrt(0.05)).T)


UNIFORM: dict[str, Callable[[], list[np.ndarray]]] = {
    "near-far": near_far,
    "unfolding-gaussian and unfolding-shifted": unfolding,
    "dijet-bump-correlated": dijets,
    "task-gaussian-linear": linear_posteriors,
    **{
        name: partial(lambda truth: list(truth.uniform(truth.sample(many(200_000), SEED)).T), truth)
        for name, truth in AMPLIFICATION.items()
    },
}


def uniform_row(name: str) -> Row:
    """Smallest p of the columns, times their number."""
    p = [float(stats.kstest(u, "uniform").pvalue) for u in UNIFORM[name]()]
    return p_row(min(1.0, min(p) * len(p)), len(UNIFORM), columns=len(p))


def ratio_row(name: str) -> Row:
    """The mean of q(x) / p(x) over events of p, minus one, for two densities of a toy that both integrate to one."""
    n = many(100_000)
    if name == "matrix-element":
        toy = MatrixElement()
        reco = toy.sample_at(np.full(n, 0.4), SEED).x
        ratio = np.exp(toy.log_prob(reco, 1.5) - toy.log_prob(reco, 0.4))
    else:
        toy = Salad(0.5) if name == "salad" else DijetBump(0.5)
        x = toy.sample(n, SEED).x
        ratio = np.exp(toy.log_signal(x) - toy.log_prob(x))
    error = float(ratio.std() / math.sqrt(n))
    off = float(ratio.mean()) - 1.0
    return {"value": off, "error": error, "passed": abs(off) < 4 * error}


def improvement_row() -> Row:
    """The best significance improvement of SALAD by cuts on the ratio of samples, minus that by quadrature."""
    samples = [
        Salad(share).sample(many(n), SEED + k).x for k, (share, n) in enumerate(((1.0, 1_000_000), (0.0, 4_000_000)))
    ]
    kept = [x[(x[:, 0] > 0.4) & (x[:, 0] < 0.6)] for x in samples]
    found = improvement(*map(Salad().log_ratio, kept), least=1000 if SIZE["divide"] == 1 else 100)
    off = found.value - Salad().best_improvement()
    return {"value": off, "error": found.error, "passed": abs(off) < 4 * found.error}


def quantile_row(name: str) -> Row:
    """The mean error in quantiles of samples of 1000 true events over its floor, minus one."""
    truth, samples = AMPLIFICATION[name], many(1000, 20)
    per_axis = {1: 100, 2: 10, 5: 3}[truth.dim]
    errors = [quantile_error(truth.uniform(truth.sample(1000, SEED + k)), per_axis) for k in range(samples)]
    ratio = np.array([error.value for error in errors]) / errors[0].floor
    off, error = float(ratio.mean()) - 1.0, float(ratio.std() / math.sqrt(samples))
    return {"value": off, "error": error, "passed": abs(off) < 4 * error}


def entropy_row() -> Row:
    """-log p of a Gaussian field per cell against its closed form: half of log(2 pi e), and the mean logarithm of the power."""
    simulator = RandomField(law="gaussian")
    n, cells = many(2000, 50), 64**2
    found = -simulator.log_prob(simulator.generate(n, rng()).x) / cells
    log_root = float((simulator.lattice.multiplicity * np.log(simulator.gaussian.root)).sum())
    truth = 0.5 * (LOG_TAU + 1.0) + log_root / cells
    off, error = float(found.mean()) - truth, float(found.std() / math.sqrt(n))
    return {"value": off, "error": error, "passed": abs(off) < 4 * error}


def ranks_row(name: str) -> Row:
    """Ranks of true parameters among draws of their posterior: chi2 over all parameters, smallest p times their number."""
    task, n = MORE_TASKS[name], many(400, 20)
    theta = task.prior(n, SEED)
    x = task.simulate(theta, SEED)
    ranks = np.array([(task.posterior(x[k], 99, k) < theta[k]).sum(0) for k in range(n)])
    p = [stats.chisquare(np.histogram(column, bins=10, range=(-0.5, 99.5))[0]).pvalue for column in ranks.T]
    return p_row(min(1.0, float(min(p)) * len(p)), 2)


def integral_row(name: str) -> Row:
    """Plain Monte Carlo minus truth."""
    integrand = INTEGRANDS[name]
    parts = [integrand.estimate(many(200_000), SEED + k) for k in range(20)]
    off = float(np.mean([value for value, _ in parts])) - integrand.integral
    error = math.sqrt(sum(e**2 for _, e in parts)) / len(parts)
    return {"value": off, "error": error, "passed": abs(off) < 4 * error, "integral": integrand.integral}


# Speed

FAST: dict[str, Simulator] = {
    "random-field 64^2": RandomField(),
    "random-field 256^2": RandomField(cells=256),
    "random-field 32^3": FIELDS["lognormal, 32^3"][0],
    "dust-map 64^2": DustMap(),
    "splitting-shower quark": SplittingShower(),
    "splitting-shower gluon": SplittingShower(start="gluon"),
    "shape spirals": ShapeSimulator("spirals"),
    "toy near-far": ToySimulator(),
    "toy dijet-bump": ToySimulator("dijet-bump"),
    "toy matrix-element": ToySimulator("matrix-element"),
    "toy task-sir": ToySimulator("task-sir"),
}


def speed_row(name: str) -> Row:
    """Events per second of processor time, one thread: whole blocks for five seconds."""
    simulator, events, seconds, block = FAST[name], 0, 0.0, 0
    simulator.block_events(SEED, 0)
    while seconds < 5.0 / SIZE["divide"]:
        begun = time.process_time()
        simulator.block_events(SEED, block)
        seconds, events, block = seconds + time.process_time() - begun, events + simulator.block, block + 1
    return {"value": events / seconds, "error": None, "passed": None}


def workers_row() -> Row:
    """Time of one process over that of two for half a million gluon jets, the better of two runs each; the events must be the same."""
    simulator = SplittingShower(start="gluon", cutoff=0.7, points=16)
    times: dict[int, list[float]] = {1: [], 2: []}
    made = []
    for workers in (1, 2, 1, 2):
        begun = time.perf_counter()
        data = simulator(many(500_000, simulator.block * 2), seed=SEED, workers=workers)
        times[workers].append(time.perf_counter() - begun)
        made.append(data.arrays().x[-1000:])
    same, ratio = all(np.array_equal(made[0], other) for other in made), min(times[1]) / min(times[2])
    seconds = [min(times[1]), min(times[2])]
    return {
        "value": ratio,
        "error": None,
        "passed": bool(same and ratio > SPEED_UP),
        "same": same,
        "seconds_one_two": seconds,
    }


def rows() -> Iterator[tuple[str, Callable[[], Row], Any]]:
    """Measure, how, and bar."""
    for name in FIELDS:
        yield f"spectrum: {name}, p-value", partial(spectrum_row, name), 0.01 / len(FIELDS)
    yield "density of a Gaussian field, entropy per cell, off by", entropy_row, None
    for start in ("quark", "gluon"):
        for label, coefficients in (("QCD", Coefficients()), ("changed", CHANGED)):
            yield (
                f"shower: first splitting of a {start}, {label}, p-value",
                partial(sudakov_row, start, coefficients),
                0.01 / 4,
            )
            channels = ("qq",) if start == "quark" else ("qq", "gg", "gq")
            for channel in channels:
                yield (
                    f"shower: z of P_{channel} in {start} jets, {label}, p-value",
                    partial(kernel_row, channel, start, coefficients),
                    0.01 / 8,
                )
    for name in UNIFORM:
        yield f"toy: {name}, p-value", partial(uniform_row, name), 0.01 / len(UNIFORM)
    for name in ("salad", "dijet-bump", "matrix-element"):
        yield f"toy: {name}, mean density ratio less one", partial(ratio_row, name), None
    yield "toy: salad, best improvement of samples less that of quadrature", improvement_row, None
    for name in AMPLIFICATION:
        yield f"toy: {name}, error in quantiles over its floor less one", partial(quantile_row, name), None
    for name in ("gaussian-linear-uniform", "sir"):
        yield f"toy: task-{name}, ranks in the posterior, p-value", partial(ranks_row, name), 0.01 / 2
    for name in INTEGRANDS:
        yield f"integral: {name}, Monte Carlo less truth", partial(integral_row, name), None
    for name in FAST:
        yield f"speed: {name}, events per second of one core", partial(speed_row, name), None
    yield "speed: splitting-shower, two workers to one", workers_row, SPEED_UP


def main() -> None:
    """All rows, about twenty minutes on one core."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", default=["*"], help="patterns of rows, e.g. 'spectrum*' 'speed*'")
    options = made.parse_args()
    SIZE["divide"] = 50 if options.quick else 1
    sheet, plan = Sheet(NAME, quick=options.quick, any_source=True), list(rows())
    for measure, make, bar in plan:
        if any(fnmatch(measure, pattern) for pattern in options.only):
            sheet.measure(measure, make, seeds=[SEED], bar=bar)
    sheet.finish(measure for measure, _, _ in plan)


if __name__ == "__main__":
    main()
