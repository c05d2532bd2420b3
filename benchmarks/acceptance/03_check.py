"""The check of Gaussianity: uniform p-values on Gaussian data, its power for lognormal distortions, and why 500 universes in 50 bins fail.

Uniformity: 100 repetitions at each size, each p-value sample against the uniform law by Smirnov's two-sample test, because all
repetitions share one bootstrap null (400 replicas, 200 at 1e4); a row passes at p > 0.01/m, m being the number of such rows. Power: exp
of correlated Gaussian numbers with the given relative error in every bin, 20 repetitions, share with a global p-value below 1 %.

    python benchmarks/acceptance/03_check.py [--sizes 500 1000]
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import Row
from measuring import Sheet, mean, parser
from scipy import stats

from pofx.classifiers import NetworkClassifier
from pofx.metrics.c2st import c2st
from pofx.metrics.gaussianity import GaussianCheck, check_gaussian
from pofx.metrics.pvalues import clopper_pearson
from pofx.simulators.densities import CorrelatedGaussian, correlation_matrix

NAME = "03_check"
BINS = 50
REPLICAS = {500: 400, 1000: 400, 10_000: 200}
TESTED = ("global", "c2st", "mardia-skewness", "mardia-kurtosis", "henze-zirkler", "qq")
DISTORTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
SEED = 31
LIMIT = 0.01 / (len(REPLICAS) * len(TESTED))


@dataclass(frozen=True)
class Size:
    """Repetitions of the uniformity and of the power; bins; replicas instead of those above."""

    uniform: int = 100
    power: int = 20
    bins: int = BINS
    replicas: int | None = None


def checked(x: Any, n: int, seed: int, size: Size) -> GaussianCheck:
    """One check, with the shared null."""
    return check_gaussian(x, replicas=size.replicas or REPLICAS[n], seed=seed, cache=False, locate=False)


@functools.cache
def normal(n: int, size: Size) -> list[GaussianCheck]:
    """Checks of Gaussian data."""
    truth = CorrelatedGaussian(np.ones(size.bins), 0.04 * correlation_matrix(size.bins))
    return [checked(truth.sample(n, SEED + 1000 * n + k), n, k, size) for k in range(size.uniform)]


def uniformity(n: int, name: str, size: Size) -> Row:
    """Smirnov's p-value of the p-values."""
    found = normal(n, size)
    p = [check.global_p if name == "global" else check[name].p_value for check in found]
    replicas = found[0].replicas
    value = float(stats.ks_2samp(p, (np.arange(replicas) + 0.5) / replicas).pvalue)
    return {"value": value, "error": None, "passed": value > LIMIT, "below_5_percent": float(np.mean(np.less(p, 0.05)))}


def power(n: int, width: float, size: Size) -> Row:
    """Share of lognormal data sets with a global p-value below 1 %."""
    truth = CorrelatedGaussian(np.zeros(size.bins), width**2 * correlation_matrix(size.bins))
    found = [checked(np.exp(truth.sample(n, SEED + 2000 * n + k)), n, k, size) for k in range(size.power)]
    count = sum(check.global_p < 0.01 for check in found)
    low, high = clopper_pearson(count, size.power)
    smallest = {name: float(np.median([check[name].p_value for check in found])) for name in TESTED[1:]}
    share = count / size.power
    return {"value": share, "error": max(share - low, high - share), "passed": None, "median_p": smallest}


def fitted_elsewhere(judge: str, size: Size) -> Row:
    """A Gaussian fitted to 500 Gaussian universes in 50 bins, and judged on 500 others: accuracy of a classifier, held-out half."""
    truth = CorrelatedGaussian(np.ones(size.bins), 0.04 * correlation_matrix(size.bins))
    shares = []
    for k in range(size.power):
        first, second = truth.sample(500, SEED + 3000 + k), truth.sample(500, SEED + 4000 + k)
        fitted = CorrelatedGaussian(first.mean(0), np.cov(first.T))
        options = NetworkClassifier(hidden=(64, 64)) if judge == "network" else judge
        shares.append(
            c2st(
                second, fitted.sample(500, SEED + 5000 + k), judge=_judge(options), splits=1, whiten=True, seed=k
            ).accuracy
        )
    found = mean(shares)
    return {
        "value": found.value,
        "error": found.error,
        "passed": None,
        "spread": float(np.std(shares, ddof=1)),
        "published": 0.663,
    }


def _judge(options: Any) -> Any:
    from pofx.classifiers.polynomial import PolynomialClassifier

    return PolynomialClassifier() if options == "polynomial" else options


def main() -> None:
    """Rows per size."""
    made = parser(__doc__)
    made.add_argument("--sizes", nargs="+", type=int, choices=list(REPLICAS), default=list(REPLICAS))
    options = made.parse_args()
    size = Size(4, 2, 8, 30) if options.quick else Size()
    sheet, expected = Sheet(NAME, quick=options.quick), []
    for n in REPLICAS:
        rows = {
            f"uniform p-values, N = {n}, d = {BINS}: {name}": (LIMIT, functools.partial(uniformity, n, name, size))
            for name in TESTED
        }
        rows |= {
            f"power, N = {n}, relative errors {width:.0%}": (None, functools.partial(power, n, width, size))
            for width in DISTORTIONS
        }
        expected += rows
        for measure, (bar, make) in rows.items():
            if n in options.sizes:
                sheet.measure(measure, make, seeds=[SEED], bar=bar)
    for judge in ("network", "polynomial"):
        expected.append(f"Gaussian fitted to 500, judged on 500 others in 50 bins: accuracy, {judge}")
        sheet.measure(expected[-1], functools.partial(fitted_elsewhere, judge, size), seeds=[SEED])
    sheet.finish(expected)


if __name__ == "__main__":
    main()
