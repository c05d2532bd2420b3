"""Power of two-sample statistics at a level of 5 %: six deformations of five normal columns, three sizes, beside scipy and accuracy.

The value is the share of repetitions with p <= 0.05, with its binomial error. scipy's KS: the smallest p-value of the columns times five.
Plain accuracy: of the classifier (the row "classifier 0"). There is no bar.
"""

import math
from functools import cache, partial

import numpy as np
from common import Row
from measuring import Sheet, parser
from scipy import stats

from pofx.metrics.calibrated import CalibratedClassifier
from pofx.metrics.compare import STATISTICS
from pofx.metrics.frechet import FrechetDistance
from pofx.metrics.samples import Side
from pofx.metrics.two_sample import Plan

NAME = "05_power"
SIZES, REPETITIONS, D = (300, 1000, 3000), 30, 5
DEFORMATIONS = ("shift", "width", "correlation", "tail cut", "extra mode", "contamination")


def deformed(name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Events of the second sample."""
    x = rng.normal(size=(2 * n, D))
    if name == "shift":
        x[:, 0] += 0.15
    elif name == "width":
        x[:, 0] *= 1.15
    elif name == "correlation":
        x[:, 1] = 0.3 * x[:, 0] + math.sqrt(1 - 0.09) * x[:, 1]
    elif name == "tail cut":
        x = x[np.abs(x[:, 0]) < 1.8]
    elif name == "extra mode":
        x[rng.random(2 * n) < 0.03, :2] += 3.0
    elif name == "contamination":
        rows = rng.random(2 * n) < 0.01
        x[rows] = rng.uniform(-6, 6, (int(rows.sum()), D))
    return x[:n]


def p_values(a: np.ndarray, b: np.ndarray, kind: str, seed: int) -> list[float]:
    """Of all quantities of one statistic of two samples."""
    if kind == "scipy KS":
        return [min(1.0, D * min(stats.ks_2samp(a[:, j], b[:, j]).pvalue for j in range(D)))]
    special = {"classifier": CalibratedClassifier("trees"), "frechet": FrechetDistance(extrapolate=False)}
    statistic = special.get(kind) or STATISTICS[kind]()
    sides = (Side(x, np.ones(len(x))) for x in (a, b))
    return [float(one.p_value) for one in statistic.measure(*sides, Plan(replicas=39, seed=seed))]


@cache
def found(kind: str, deformation: str, n: int, repetitions: int) -> np.ndarray:
    """Whether each quantity finds it, ``(repetitions, quantities)``."""
    made = []
    for seed in range(repetitions):
        rng = np.random.default_rng([seed, n, DEFORMATIONS.index(deformation)])
        made.append(p_values(rng.normal(size=(n, D)), deformed(deformation, n, rng), kind, seed))
    return np.array(made) <= 0.05


def measured(name: str, deformation: str, n: int, repetitions: int) -> Row:
    """How often it is found."""
    kind, _, quantity = name.rpartition(" ") if name != "scipy KS" else (name, "", "0")
    hits = found(kind, deformation, n, repetitions)[:, int(quantity)]
    smooth = (hits.sum() + 0.5) / (repetitions + 1)
    return {
        "value": float(hits.mean()),
        "error": math.sqrt(smooth * (1 - smooth) / repetitions),
        "passed": None,
    }


def main() -> None:
    """One row per statistic, deformation and size."""
    options = parser(__doc__).parse_args()
    sheet, expected, repetitions = Sheet(NAME, quick=options.quick), [], 2 if options.quick else REPETITIONS
    counts = {"classifier": 3, "prdc": 4}
    names = ["scipy KS", *(f"{name} {k}" for name in STATISTICS for k in range(counts.get(name, 1)))]
    for deformation in DEFORMATIONS:
        for n in SIZES[:1] if options.quick else SIZES:
            for name in names:
                expected.append(f"{deformation}, {n} events: {name}")
                make = partial(measured, name, deformation, n, repetitions)
                sheet.measure(expected[-1], make, seeds=range(repetitions))
    sheet.finish(expected)


if __name__ == "__main__":
    main()
