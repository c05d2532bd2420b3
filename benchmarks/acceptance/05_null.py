"""Null p-values of every two-sample statistic are uniform: 200 repetitions, without weights and with weights of another law.

Side a are 200 events of N(0, 1) in three columns; side b are 150 of the same law, or 300 of N(0.2, 1.1^2) with weights that make them so.
The value is the p-value of a Kolmogorov-Smirnov test of the 200 p-values, spread over their steps, against the uniform law; the bar is
0.01 / m for m rows.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from common import Row
from measuring import Sheet, parser
from scipy import stats

from pofx.metrics.calibrated import CalibratedClassifier
from pofx.metrics.compare import STATISTICS
from pofx.metrics.frechet import FrechetDistance
from pofx.metrics.neighbours import Memorisation
from pofx.metrics.samples import Side
from pofx.metrics.two_sample import Plan, Statistic

NAME = "05_null"
REPETITIONS, REPLICAS = 200, 99
QUANTITIES = {"classifier": 3, "prdc": 4}
Make = Callable[[np.random.Generator], Statistic]


def statistics() -> dict[str, Make]:
    """How each is made for a repetition; the memorisation test needs training events."""
    chosen: dict[str, Make] = {name: lambda _, kind=kind: kind() for name, kind in STATISTICS.items()}
    chosen["classifier"] = lambda _: CalibratedClassifier("trees")
    chosen["frechet"] = lambda _: FrechetDistance(extrapolate=False)
    chosen["memorisation"] = lambda rng: Memorisation(rng.normal(size=(200, 3)))
    return chosen


def sides(rng: np.random.Generator, weighted: bool) -> tuple[Side, Side]:
    """Two samples of one law."""
    a = Side(rng.normal(size=(200, 3)), np.ones(200))
    if not weighted:
        return a, Side(rng.normal(size=(150, 3)), np.ones(150))
    x = rng.normal(0.2, 1.1, (300, 3))
    return a, Side(x, np.exp(-0.5 * (x**2).sum(1) + 0.5 * (((x - 0.2) / 1.1) ** 2).sum(1)))


@cache
def p_values(name: str, weighted: bool, repetitions: int) -> np.ndarray:
    """Of all repetitions and quantities of one statistic, ``(repetitions, quantities)``."""
    found = []
    for seed in range(repetitions):
        rng = np.random.default_rng([seed, weighted])
        statistic = statistics()[name](rng)
        made = statistic.measure(*sides(rng, weighted), Plan(replicas=REPLICAS, seed=seed))
        found.append([one.p_value for one in made])
    return np.array(found)


def measured(name: str, quantity: int, weighted: bool, repetitions: int, bar: float) -> Row:
    """Their uniformity."""
    found = p_values(name, weighted, repetitions)[:, quantity]
    p = found - np.random.default_rng(0).uniform(0, 1 / (REPLICAS + 1), repetitions)
    test = stats.kstest(p, "uniform")
    below = float((found <= 0.05).mean())
    return {"value": float(test.pvalue), "error": None, "passed": bool(test.pvalue > bar), "below_0.05": below}


def main() -> None:
    """One row per quantity, with and without weights."""
    options = parser(__doc__).parse_args()
    sheet = Sheet(NAME, quick=options.quick)
    plan = [(n, k, w) for n in statistics() for k in range(QUANTITIES.get(n, 1)) for w in (False, True)]
    repetitions, bar, expected = 5 if options.quick else REPETITIONS, 0.01 / len(plan), []
    for name, quantity, weighted in plan:
        expected.append(f"{name} {quantity}, {'weights' if weighted else 'no weights'}")
        make = partial(measured, name, quantity, weighted, repetitions, bar)
        sheet.measure(expected[-1], make, seeds=range(repetitions), bar=bar)
    sheet.finish(expected)


if __name__ == "__main__":
    main()
