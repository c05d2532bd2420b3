"""C2ST under the null: p-values of two samples of one law are uniform, for six sizes and dimensions, both judges, 200 repetitions each.

Columns are normal and lognormal in turn, so that the judges see skewed ones. A p-value is that of the first split, so one split is made.
The value is the p-value of a Kolmogorov-Smirnov test of the 200 against the uniform law, which itself is uniform: it has no error,
and the bar is 0.01 / 6. Beside it: how many p-values are at most 0.05 (with the 68 % interval), the mean accuracy, and the standard
deviation of the accuracies over the floor's. Repetition i has seed 1000 i + row.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from common import Row
from measuring import Sheet, mean, parser
from scipy import stats

from pofx.metrics import c2st, clopper_pearson

NAME = "03_c2st_null"
REPETITIONS = 200
BAR = 0.01 / 6


class Setting(NamedTuple):
    """Events per side, columns, and who judges."""

    events: int
    columns: int
    judge: str


SETTINGS = [
    Setting(200, 2, "network"),
    Setting(1000, 2, "trees"),
    Setting(500, 10, "trees"),
    Setting(2000, 10, "network"),
    Setting(1000, 50, "trees"),
    Setting(5000, 50, "network"),
]


def sample(setting: Setting, seed: int) -> np.ndarray:
    """Normal and lognormal columns in turn."""
    x = np.random.default_rng(seed).normal(size=(setting.events, setting.columns))
    x[:, 1::2] = np.exp(x[:, 1::2])
    return x


def measured(setting: Setting, row: int, repetitions: int) -> Row:
    """All repetitions of one setting."""
    found = []
    for seed in range(row, 1000 * repetitions, 1000):
        a, b = sample(setting, 2 * seed), sample(setting, 2 * seed + 1)
        found.append(c2st(a, b, judge=setting.judge, splits=1, whiten=bool(row % 2), seed=seed))
    p = np.array([one.p_value for one in found])
    accuracy = [one.accuracy for one in found]
    test, below = stats.kstest(p, "uniform"), int((p <= 0.05).sum())
    return {
        "value": float(test.pvalue),
        "error": None,
        "passed": bool(test.pvalue > BAR),
        "distance": float(test.statistic),
        "below_0.05": below / len(p),
        "below_0.05_interval": clopper_pearson(below, len(p)),
        "accuracy": list(mean(accuracy)),
        "scatter_over_floor": float(np.std(accuracy, ddof=1) / np.mean([one.floor_error for one in found])),
        "scatter_over_floor_error": 1 / math.sqrt(2 * (len(p) - 1)),
        "whitened": bool(row % 2),
        "repetitions": len(p),
    }


def main() -> None:
    """One row per setting."""
    options = parser(__doc__).parse_args()
    sheet = Sheet(NAME, quick=options.quick)
    repetitions = 5 if options.quick else REPETITIONS
    expected = []
    for row, setting in enumerate(SETTINGS):
        expected.append(f"{setting.judge}, {setting.events} events per side, {setting.columns} columns")
        seeds = range(row, 1000 * repetitions, 1000)
        sheet.measure(expected[-1], partial(measured, setting, row, repetitions), seeds=seeds, bar=BAR)
    sheet.finish(expected)


if __name__ == "__main__":
    main()
