"""p-values of lognormal universes in 50 bins: chi2 and the Gaussian density against a flow, beside the exact ones.

``extreme``: exponentials of normal toys, T2K's correlation (that of :func:`correlation_matrix` where the release is not at hand) and widths
0.5 to 1.5. ``moderate``: lognormal in the original space, relative errors 10 to 90 % as in ``t2k_like``. Toys have seed 3100 + s, the
1e4 fresh events that get a p-value 4100 + s, samples behind them 5100 + s. chi2 takes mean and covariance of the toys and the chi2
distribution. Columns are declared plain real; preprocessing finds out by itself that logarithms help (the row says of how many columns it
took them). One row per kind, without a bar, has only whitening instead, so that the flow has to learn the exponential.

    python benchmarks/acceptance/03_lognormal_pvalues.py [--rows extreme moderate] [--seeds 1 2]
"""

import functools
import os
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from common import Row
from learning import gap, t2k_release, timed_fit
from measuring import Sheet, parser
from scipy import stats

import pofx
from pofx.errors import RangeWarning
from pofx.metrics.pvalues import Agreement, agreement, tail_probabilities
from pofx.models.model import Model
from pofx.simulators.densities import Lognormal, correlation_matrix

NAME = "03_lognormal_pvalues"
SEEDS = (1, 2, 3)
BINS = 50
BAR = 10.0
"""MSE of chi2 over that of the flow."""
FLOW = pofx.SplineFlow(layers=2, hidden=(128, 128), dropout=0.1)
TRAINING = pofx.Training(
    max_epochs=5, max_minutes=5.0, learning_rate=2e-3, weight_decay=0.5, ema=0.999, clip=5.0, progress=False
)
KINDS = ("extreme", "moderate")


@dataclass(frozen=True)
class Size:
    """How many toys, samples behind p-values, and events that get one."""

    toys: int = 100_000
    samples: int = 100_000
    events: int = 10_000
    steps: int | None = None


QUICK = Size(3000, 2000, 300, 5)


@functools.cache
def truth(kind: str) -> Lognormal:
    """One of the two lognormals."""
    i = np.arange(BINS)
    if kind == "extreme":
        correlation = t2k_release().correlation[:BINS, :BINS] if "POFX_DATA" in os.environ else correlation_matrix(BINS)
        width = 0.5 + i / (BINS - 1)
        return Lognormal(np.zeros(BINS), correlation * width[:, None] * width)
    mean, relative = 5 * np.exp(-i / 14), 0.1 * 9.0 ** (i / (BINS - 1))
    error = relative * mean
    return Lognormal.from_moments(mean, correlation_matrix(BINS) * error[:, None] * error)


def toys(kind: str, seed: int, size: Size) -> Any:
    """What is learnt from."""
    return truth(kind).sample(size.toys, 3100 + seed)


@functools.cache
def exact(kind: str, seed: int, size: Size) -> Any:
    """The true p-values of the fresh events."""
    known = truth(kind)
    many = known.log_prob(known.sample(size.samples, 5100 + seed))
    return tail_probabilities(known.log_prob(known.sample(size.events, 4100 + seed)), many)


@functools.cache
def by_chi2(kind: str, seed: int, size: Size) -> Any:
    """p-values ``(events,)`` from mean and covariance of the toys."""
    rows, x = toys(kind, seed, size), truth(kind).sample(size.events, 4100 + seed)
    offset = x - rows.mean(0)
    return stats.chi2.sf(np.einsum("ni,ij,nj->n", offset, np.linalg.inv(np.cov(rows.T)), offset), BINS)


def by_model(model: Model, kind: str, seed: int, size: Size) -> Any:
    """p-values ``(events,)`` of a learnt density."""
    x = truth(kind).sample(size.events, 4100 + seed)
    warnings.simplefilter("ignore", RangeWarning)  # toys from far tails
    return tail_probabilities(model.log_prob(x), model.log_prob(model.sample(size.samples, seed=5100 + seed)))


def described(found: Agreement) -> Row:
    """r, MSE and R^2 with their errors; the value is the MSE."""
    return {
        "value": found.mse.value,
        "error": found.mse.error,
        "r": list(found.r),
        "r2": list(found.r2),
        "passed": None,
    }


def of_chi2(kind: str, seed: int, size: Size) -> Row:
    """MSE of chi2."""
    return described(agreement(by_chi2(kind, seed, size), exact(kind, seed, size), seed=seed))


def of_gaussian(kind: str, seed: int, size: Size) -> Row:
    """MSE of the Gaussian density."""
    model = pofx.Gaussian().fit(toys(kind, seed, size))
    return described(agreement(by_model(model, kind, seed, size), exact(kind, seed, size), seed=seed))


def of_flow(kind: str, seed: int, size: Size, *, plain: bool = False) -> Row:
    """MSE of chi2 over that of the flow, with a bootstrap error over the events."""
    known = truth(kind)
    data = pofx.Dataset.from_arrays(toys(kind, seed, size)).with_split((0.95, 0.05, 0.0))
    training = TRAINING.replace(seed=seed, max_steps=size.steps)
    family = replace(FLOW, preprocess="whiten") if plain else FLOW
    model, row = timed_fit(family, data, training)
    p, wanted, chi2 = by_model(model, kind, seed, size), exact(kind, seed, size), by_chi2(kind, seed, size)
    found = agreement(p, wanted, seed=seed)
    ratio, error = mse_ratio(chi2 - wanted, p - wanted, seed)
    x = known.sample(min(size.events, 10_000), 4100 + seed)
    away = {f"gap_{key}": value for key, value in gap(known.log_prob(x), model, x).items()}
    met = None if plain else ratio >= BAR
    about = {"mse": list(found.mse), "logarithms": logarithms(model), "preprocess": family.preprocess}
    return {**described(found), **about, "value": ratio, "error": error, "passed": met, **row, **away}


def logarithms(model: Model) -> int:
    """How many columns preprocessing takes the logarithm of."""
    return sum("log" in words for words in model.card["coordinates"]["events"]["x"])


def mse_ratio(first: Any, second: Any, seed: int) -> tuple[float, float]:
    """mean(first^2) / mean(second^2) and its bootstrap error."""
    a, b = first**2, second**2
    weight = np.random.default_rng(seed).multinomial(len(a), np.full(len(a), 1 / len(a)), 200)
    return float(a.mean() / b.mean()), float(((weight @ a) / (weight @ b)).std(ddof=1))


def main() -> None:
    """Rows per kind and seed."""
    made = parser(__doc__)
    made.add_argument("--rows", nargs="+", choices=KINDS, default=list(KINDS))
    made.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS))
    options = made.parse_args()
    sheet, size = Sheet(NAME, quick=options.quick), QUICK if options.quick else Size()
    expected = []
    for kind in KINDS:
        for seed in SEEDS:
            rows: dict[str, tuple[float | None, Any]] = {
                f"{kind}, seed {seed}: MSE of p-values, chi2": (None, of_chi2),
                f"{kind}, seed {seed}: MSE of p-values, Gaussian density": (None, of_gaussian),
                f"{kind}, seed {seed}: MSE of chi2 / MSE of the flow": (BAR, of_flow),
            }
            if seed == SEEDS[0]:
                rows[f"{kind}, seed {seed}: the same, whitened without logarithms"] = (
                    None,
                    functools.partial(of_flow, plain=True),
                )
            expected += rows
            for measure, (bar, make) in rows.items():
                if kind in options.rows and seed in options.seeds:
                    sheet.measure(measure, functools.partial(make, kind, seed, size), seeds=[seed], bar=bar)
    sheet.finish(expected)


if __name__ == "__main__":
    main()
