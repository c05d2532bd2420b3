"""Surrogates of a toy tagger whose smearing is known (arXiv:2402.15558): reproduction, calibration, and where the band grows.

Independent data sets of 20 000 jets (of which 90 % train), the default family (a spline flow with variational weights), and beside it what
is done without one: a linear Gaussian of the logit, and efficiencies in bins. Values are means over the data sets, with errors from their
scatter.

- C2ST: accuracy less 1/2 between 10 000 jets with true scores and as many others, by the network (`floor` is its error if both have one
  law); AUC: area under the tagger's ROC curve from the surrogate's scores less that from its own, for the same 4000 jets; nll: -log p per
  jet less that of the truth, in nats, on 20 000 jets.
- calibration p: the smallest of the data sets' p-values times their number, of the distribution function at 2000 test jets (a tenth of
  those that were trained with), and of 50 quantiles at 500; the truth's own is the null.
- pulls at 500 jets: (mean - truth) / band of the density at their scores, and of P(score < true median); value: their root mean square
  about the common mean, its error by leaving out one data set at a time. coverage: the share of these jets whose true P(score > 0.5) is
  between the outer 16 % of the draws (a normal band: 0.68); pulls of it have tails, since the band of a probability near 0 or 1 is small.
- growth: the mean error of P(score < median | features) with an eighth of the jets, with the transverse momentum moved beyond the range by
  half of its width, and for true jets of twice the momentum, each over that of jets as they are trained with.
"""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from common import Row
from measuring import Mean, Sheet, mean, parser

from pofx.metrics.calibration import pit
from pofx.metrics.calibration_curves import CalibrationCurve
from pofx.simulators.task_toys.tagger import JET, Tagger
from pofx.tasks.classifier_surrogate.baselines import BinnedTagger, gaussian_logit
from pofx.tasks.classifier_surrogate.data import Tagged
from pofx.tasks.classifier_surrogate.metrics import (
    Known,
    density_pulls,
    growth,
    outside,
    quantile_test,
    separation,
    told_apart,
)
from pofx.tasks.classifier_surrogate.surrogate import Surrogate, bayesian_family, default_training, fit_tagged

NAME = "05_surrogate"
TOY, BEYOND = Tagger(), Tagger(800.0, 1400.0)
JETS, FEWER, SETS, STEPS = 20_000, 8, 6, 2000
CUT = 0.5


@dataclass(frozen=True)
class Size:
    """Jets that train, steps, data sets, and jets of the larger tests (smaller ones are a fifth of it)."""

    jets: int = JETS
    steps: int = STEPS
    sets: int = SETS
    tested: int = 20_000


QUICK = Size(jets=1200, steps=60, sets=2, tested=1500)


def jets_of(n: int, seed: int, toy: Tagger = TOY) -> Tagged:
    """Labelled jets."""
    events = toy.sample(n, seed)
    jets = events.context.x
    return Tagged.of(jets, events.x[:, 0], names=JET, label=jets[:, 3])


@functools.cache
def surrogate(seed: int, size: Size, fewer: int = 1) -> tuple[Surrogate, float]:
    """Of one data set, or a part of it, and the CPU seconds that it took."""
    begun = time.process_time()
    jets = jets_of(size.jets, seed).take(np.arange(size.jets // fewer))
    training = default_training(size.steps, seed).replace(device="cpu", progress=False)
    return fit_tagged(jets, family=bayesian_family(), training=training), time.process_time() - begun


@functools.cache
def predictor(name: str, seed: int, size: Size) -> Any:
    """By its name."""
    if name == "truth":
        return Known(TOY)
    if name == "surrogate":
        return surrogate(seed, size)[0]
    jets = jets_of(size.jets, seed)
    return gaussian_logit(jets) if name == "Gaussian logit" else BinnedTagger(jets)


def per_set(name: str, size: Size, measure: Callable[[Any, int], float]) -> Mean:
    """Mean of a number over the data sets."""
    return mean([measure(predictor(name, seed, size), seed) for seed in range(1, size.sets + 1)])


# Reproduction


def c2st_row(name: str, size: Size) -> Row:
    """Accuracy less 1/2."""
    found = [
        told_apart(predictor(name, seed, size), jets_of(size.tested, 1000 + seed), seed=seed, splits=1)
        for seed in range(1, size.sets + 1)
    ]
    value = mean([one.accuracy - 0.5 for one in found])
    floor = float(np.sqrt(np.mean([one.floor_error**2 for one in found]) / len(found)))
    return row(value, value.value < 0.02 if name == "surrogate" else None, floor=floor)


def auc_row(name: str, size: Size) -> Row:
    """Difference of areas."""
    found = [
        separation(predictor(name, seed, size), jets_of(size.tested // 5, 1000 + seed), seed=seed).difference
        for seed in range(1, size.sets + 1)
    ]
    value, stated = mean([one.value for one in found]), float(np.mean([one.error for one in found]))
    passed = abs(value.value) - 2 * value.error < 0.005 if name == "surrogate" else None
    return row(value, passed, floor=stated / np.sqrt(len(found)))


def nll_row(name: str, size: Size) -> Row:
    """Less that of the truth."""

    def gap(one: Any, seed: int) -> float:
        jets = jets_of(size.tested, 2000 + seed)
        return float((TOY.log_prob(jets.scores, jets.features) - one.log_prob(jets.features, jets.scores)).mean())

    value = per_set(name, size, gap)
    return row(value, value.value < 0.02 if name == "surrogate" else None, floor=0.0)


# Calibration


def calibration_row(name: str, size: Size) -> Row:
    """Of the distribution function."""

    def curve(one: Any, seed: int) -> CalibrationCurve:
        jets = jets_of(size.jets // 10, 3000 + seed)
        return pit(one.cdf(jets.features, jets.scores))

    return together(name, size, curve)


def quantile_row(name: str, size: Size) -> Row:
    """Of 50 quantiles."""
    return together(name, size, lambda one, seed: quantile_test(one, jets_of(size.jets // 40, 4000 + seed)))


def together(name: str, size: Size, curve: Callable[[Any, int], CalibrationCurve]) -> Row:
    """The smallest p-value of the data sets, times their number."""
    found = [curve(predictor(name, seed, size), seed) for seed in range(1, size.sets + 1)]
    p = [one.p_value for one in found]
    value = min(1.0, len(p) * min(p))
    off = mean([one.value for one in found])
    return {
        "value": value,
        "error": None,
        "passed": value > 0.01 if name in ("truth", "surrogate") else None,
        "p": [round(one, 4) for one in p],
        "off the diagonal": [off.value, off.error, found[0].floor],
    }


# The band


def density_row(size: Size) -> Row:
    """Pulls of the density."""
    return width(np.array([_density(seed, size) for seed in range(1, size.sets + 1)]))


def _density(seed: int, size: Size) -> np.ndarray:
    return density_pulls(surrogate(seed, size)[0], jets_of(500, 5000 + seed), TOY.log_prob)[0]


def median_row(size: Size) -> Row:
    """Pulls of P(score < true median)."""
    pulls = []
    for seed in range(1, size.sets + 1):
        rows = jets_of(500, 5000 + seed).features
        band = surrogate(seed, size)[0].band(rows, TOY.quantile(0.5, rows))
        pulls.append((band.mean - 0.5) / band.error)
    return width(np.array(pulls))


def coverage_row(size: Size) -> Row:
    """Of each jet's efficiency; beside it the pulls whose size a fixed cut makes."""
    inside, pulls = [], []
    for seed in range(1, size.sets + 1):
        rows = jets_of(500, 5000 + seed).features
        band, truth = surrogate(seed, size)[0].band(rows, CUT), 1 - TOY.cdf(np.full(500, CUT), rows)
        low, high = band.interval(0.68)
        inside.append(float(((truth >= low) & (truth <= high)).mean()))
        pulls.append(np.abs(band.mean - truth) / band.error)
    value, sizes = mean(inside), np.concatenate(pulls)
    beyond = {f"pulls beyond {k}": float((sizes > k).mean()) for k in (2, 3)} | {"largest pull": float(sizes.max())}
    return row(value, value.value + 2 * value.error > 0.6, floor=0.68) | beyond


def width(pulls: np.ndarray) -> Row:
    """Root mean square about the common mean."""
    value = float(pulls.std())
    left = np.array([np.delete(pulls, i, 0).std() for i in range(len(pulls))])
    error = float(np.sqrt((len(left) - 1) * left.var()))
    bias = mean(pulls.mean(1))
    return {"value": value, "error": error, "passed": 0.7 <= value <= 1.4, "mean": [bias.value, bias.error]}


def growth_row(kind: str, size: Size) -> Row:
    """Ratio of bands."""
    found = [_growth(kind, seed, size) for seed in range(1, size.sets + 1)]
    value = mean(found)
    return row(value, value.value - 2 * value.error > 1, floor=1.0)


def _growth(kind: str, seed: int, size: Size) -> float:
    own, rows = surrogate(seed, size)[0], jets_of(500, 6000 + seed).features
    inside = own.median_band(rows)
    if kind == "an eighth of the jets":
        return growth(inside, surrogate(seed, size, FEWER)[0].median_band(rows)).value
    away = outside(own, rows, "pt") if kind == "pt moved outside" else jets_of(500, 7000 + seed, BEYOND).features
    return growth(inside, own.median_band(away)).value


def row(value: Mean, passed: bool | None, floor: float) -> Row:
    """With its floor."""
    return {"value": value.value, "error": value.error, "passed": passed, "floor": floor}


KINDS = ("an eighth of the jets", "pt moved outside", "jets outside")
NAMES = ("surrogate", "Gaussian logit", "bins")


def rows(size: Size) -> Iterator[tuple[str, float | None, Callable[[], Row]]]:
    """Name, bar, and how it is measured."""
    for name in NAMES:
        own = name == "surrogate"
        yield f"C2ST: {name}", 0.02 if own else None, partial(c2st_row, name, size)
        yield f"AUC: {name}", 0.005 if own else None, partial(auc_row, name, size)
        yield f"nll: {name}", 0.02 if own else None, partial(nll_row, name, size)
    for name in ("truth", *NAMES):
        bar = 0.01 if name in ("truth", "surrogate") else None
        yield f"calibration p: {name}", bar, partial(calibration_row, name, size)
    yield "quantile p: surrogate", 0.01, partial(quantile_row, "surrogate", size)
    yield "pull width: density", 1.4, partial(density_row, size)
    yield "pull width: median", 1.4, partial(median_row, size)
    yield "coverage: efficiency", 0.6, partial(coverage_row, size)
    for kind in KINDS:
        yield f"growth: {kind}", 1.0, partial(growth_row, kind, size)


def main() -> None:
    """Measure what is missing."""
    command = parser(__doc__)
    command.add_argument("--only", default="", help="rows whose name contains this")
    arguments = command.parse_args()
    size = QUICK if arguments.quick else Size()
    sheet, expected = Sheet(NAME, quick=arguments.quick), []
    for measure, bar, make in rows(size):
        expected.append(measure)
        if arguments.only in measure:
            sheet.measure(measure, make, seeds=range(1, size.sets + 1), bar=bar)
    sheet.finish(expected)


if __name__ == "__main__":
    import warnings

    from pofx.errors import RangeWarning

    warnings.simplefilter("ignore", RangeWarning)  # to go outside is the point
    main()
