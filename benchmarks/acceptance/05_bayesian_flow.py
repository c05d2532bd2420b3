"""Bands of Bayesian flows on two ramps and a ring (arXiv:2104.04543): are they as wide as the density is wrong, and where are they widest?

30 data sets of each toy, of 1250 events (2500 on the ring) that all train, a spline flow of one layer (two on the ring), and its density
at ten points, at equal steps between the 5 and the 95 % quantile of the direction in which the toy varies, spread over the flat direction.
Pulls are (mean density - truth) / band. Value and error: their mean, their root mean square about it, and the relative band at the
outermost two points over that at the middle two, all with errors from the scatter of the data sets. Bars: mean within 0.3, width from
0.7 to 1.4, ratio above 1 by two errors. `cost` is the CPU time of one data set in seconds.
"""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from common import Row
from measuring import Mean, Sheet, mean, parser

import pofx
from pofx.models.base import Family
from pofx.simulators.ramps import RAMPS
from pofx.uncertainty import BayesianModel

NAME = "05_bayesian_flow"
EVENTS = {"wedge-ramp": 1250, "kicker-ramp": 1250, "gaussian-ring": 2500}
POINTS, SETS = 10, 30
FLAT = (0.1 + 0.618 * np.arange(POINTS)) % 0.9 + 0.05
RAMP = pofx.SplineFlow(layers=1, hidden=(16,), bins=5)
RING = pofx.SplineFlow(layers=2, hidden=(16, 16), bins=6)
LAST = ("*last*",)
"""A ring asks for more than a ramp: with one layer its density is wrong, whatever the data. Chains of all weights of two layers mix slowly:
those of the last linear maps alone are sampled, at a temperature that stands for the error of the features as well."""


@dataclass(frozen=True)
class Method:
    """A wrapper and the steps of its family's own training."""

    wrapper: Family
    steps: int


def methods(toy: str, quick: bool) -> dict[str, Method]:
    """What is compared; settings were chosen on other data sets (seeds above 100)."""
    ring = toy == "gaussian-ring"
    flow = RING if ring else RAMP
    if quick:
        return {
            "ensemble": Method(pofx.Ensemble(flow, members=3), 15),
            "variational": Method(pofx.Variational(flow), 60),
            "AdamMCMC": Method(pofx.AdamMCMC(flow, steps=120), 15),
            "SGHMC": Method(pofx.SGHMC(flow, steps=120, step_size=0.003), 15),
        }
    if ring:
        chain = {"layers": LAST, "burn_in": 0.3, "temperature": 1.5}
        return {
            "ensemble": Method(pofx.Ensemble(flow, members=20), 600),
            "variational": Method(pofx.Variational(flow, temperature=0.2), 4000),
            "AdamMCMC": Method(pofx.AdamMCMC(flow, steps=6000, **chain), 1500),
            "SGHMC": Method(pofx.SGHMC(flow, steps=5000, step_size=0.0014, batch=1250, **chain), 1500),
        }
    return {
        "ensemble": Method(pofx.Ensemble(flow, members=20), 400),
        "variational": Method(pofx.Variational(flow, temperature=0.25), 1500),
        "AdamMCMC": Method(pofx.AdamMCMC(flow, steps=3000, burn_in=0.3), 300),
        "SGHMC": Method(pofx.SGHMC(flow, steps=3000, step_size=0.003), 300),
    }


@dataclass(frozen=True)
class Bands:
    """Pulls and relative bands ``(sets, points)``, and the CPU seconds of a data set."""

    pulls: np.ndarray
    relative: np.ndarray
    cost: float


def fitted(toy: str, method: Method, seed: int) -> BayesianModel:
    """One data set's model."""
    truth = RAMPS[toy]
    data = pofx.Dataset.from_arrays(truth.sample(EVENTS[toy], seed), columns=truth.columns()).with_split(
        (1.0, 0.0, 0.0)
    )
    training = pofx.Training(
        max_epochs=None,
        max_steps=method.steps,
        learning_rate=5e-3,
        batch_size=256,
        seed=seed,
        device="cpu",
        progress=False,
    )
    return method.wrapper.fit(data, training=training)


@functools.cache
def bands(toy: str, name: str, sets: int, quick: bool) -> Bands:
    """All data sets of a toy by one method."""
    truth, method = RAMPS[toy], methods(toy, quick)[name]
    points = truth.points(truth.quantiles(np.linspace(0.05, 0.95, POINTS)), FLAT)
    exact = np.exp(truth.log_prob(points))
    pulls, relative = [], []
    begun = time.process_time()
    for seed in range(1, sets + 1):
        band = fitted(toy, method, seed).density_band(points)
        pulls.append((band.mean - exact) / band.error)
        relative.append(band.relative)
    return Bands(np.array(pulls), np.array(relative), (time.process_time() - begun) / sets)


def pull_mean(found: Bands) -> Row:
    """Of all pulls; those of one data set are not independent, data sets are."""
    value = mean(found.pulls.mean(1))
    return _row(value, abs(value.value) < 0.3, found)


def pull_width(found: Bands) -> Row:
    """Root mean square about the common mean; its error by leaving out one data set at a time."""
    value = float(found.pulls.std())
    left = np.array([np.delete(found.pulls, i, 0).std() for i in range(len(found.pulls))])
    error = float(np.sqrt((len(left) - 1) * left.var()))
    return _row(Mean(value, error), 0.7 <= value <= 1.4, found)


def edges(found: Bands) -> Row:
    """Relative band at the outermost two points over that at the middle two."""
    middle = POINTS // 2
    value = mean(found.relative[:, [0, -1]].mean(1) / found.relative[:, middle - 1 : middle + 1].mean(1))
    return _row(value, value.value - 2 * value.error > 1, found)


def _row(value: Mean, passed: bool, found: Bands) -> Row:
    profile = [round(float(v), 4) for v in np.median(found.relative, 0)]
    return {
        "value": value.value,
        "error": value.error,
        "passed": passed,
        "cost": round(found.cost, 1),
        "relative band": profile,
    }


MEASURES = {"pull mean": (pull_mean, 0.3), "pull width": (pull_width, 1.4), "edges over middle": (edges, 1.0)}


def rows(quick: bool) -> Iterator[tuple[str, str, str]]:
    """Toy, method, measure."""
    for toy in RAMPS:
        for name in methods(toy, quick):
            yield from ((toy, name, measure) for measure in MEASURES)


def main() -> None:
    """Measure what is missing."""
    command = parser(__doc__)
    command.add_argument("--only", default="", help="rows whose name contains this")
    arguments = command.parse_args()
    sets = 3 if arguments.quick else SETS
    sheet, expected = Sheet(NAME, quick=arguments.quick, any_source=True), []
    for toy, name, measure in rows(arguments.quick):
        expected.append(f"{toy}, {name}: {measure}")
        if arguments.only in expected[-1]:
            make, bar = MEASURES[measure]
            sheet.measure(
                expected[-1],
                partial(_measured, make, toy, name, sets, arguments.quick),
                seeds=range(1, sets + 1),
                bar=bar,
            )
    sheet.finish(expected)


def _measured(make, toy: str, name: str, sets: int, quick: bool) -> Row:
    return make(bands(toy, name, sets, quick))


if __name__ == "__main__":
    main()
