"""The mixture in 50 dimensions: p-values and two-sample tests of every density against the truth, after at most 30 minutes on 2 cores.

Toys have seed 3000 + s, fresh events 4000 + s, samples that make p-values 5000 + s (truth) and 6000 + s (models). p-values are those of
1e4 fresh truth events, each from 1e5 samples of its density; chi2 uses mean and covariance of the toys and the chi2 distribution. The judge
of the two-sample tests sees whitened inputs: a network of 2 x 500, 1e4 training and 1e4 test events per side, mean of 3 splits; beside it,
without a bar, the same with 5e4, and the accuracy of the exact likelihood ratio between truth and model, which no judge can exceed.

    python benchmarks/acceptance/03_mixture50.py [--rows spline-flow chi2] [--seeds 1 2]
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from common import RESULTS, Row, git
from learning import gap, timed_fit
from measuring import Sheet, parser
from scipy import stats

import pofx
from pofx.classifiers import NetworkClassifier
from pofx.metrics.c2st import c2st
from pofx.metrics.pvalues import agreement, tail_probabilities
from pofx.models.base import Family
from pofx.models.model import Model
from pofx.simulators.densities import MixtureBenchmark

NAME = "03_mixture50"
SEEDS = (1, 2, 3)
SPLIT = (0.95, 0.05, 0.0)
MINUTES = 30.0
AUTO_MINUTES = 5.0
"""That auto may take: a mixture is found long before."""
JUDGE = NetworkClassifier(hidden=(500, 500))
BARS = {"r": 0.99, "r2": 0.98, "c2st": 0.55}
"""Of spline-flow, for every seed."""


@dataclass(frozen=True)
class Size:
    """How many toys, samples behind p-values, events that get one, and events per side of the two judges."""

    toys: int = 100_000
    samples: int = 100_000
    events: int = 10_000
    judged: tuple[int, ...] = (10_000, 50_000)
    steps: int | None = None


QUICK = Size(4000, 2000, 300, (500, 1000), 4)


class Setting(NamedTuple):
    """One density: how it is learnt, for which seeds, with or without bars."""

    family: Family | None
    training: pofx.Training
    seeds: tuple[int, ...] = SEEDS
    barred: bool = False


PLAIN = pofx.Training(progress=False)
LONG = pofx.Training(
    max_epochs=60, max_minutes=29.0, learning_rate=2e-3, weight_decay=0.5, ema=0.999, clip=5.0, progress=False
)
SHORT = LONG.replace(max_epochs=8, max_minutes=2.5)
SETTINGS = {
    "chi2": Setting(None, PLAIN),
    "gaussian": Setting(pofx.Gaussian(), PLAIN),
    "coupling-flow": Setting(pofx.CouplingFlow(layers=8, hidden=(256, 256)), SHORT, (1,)),
    "autoregressive-flow": Setting(pofx.AutoregressiveFlow(layers=5, hidden=(256, 256)), SHORT, (1,)),
    "spline-flow": Setting(pofx.SplineFlow(layers=2, hidden=(256, 256, 256), dropout=0.15), LONG, SEEDS, True),
    "auto": Setting(None, PLAIN, (1,)),
}
TRUTH = MixtureBenchmark()


class Chi2(NamedTuple):
    """Mean and covariance of the toys."""

    mean: Any
    inverse: Any

    def p_values(self, x: Any) -> Any:
        """From the chi2 distribution, ``(n,)``."""
        offset = x - self.mean
        return stats.chi2.sf(np.einsum("ni,ij,nj->n", offset, self.inverse, offset), len(self.mean))


@functools.cache
def toys(seed: int, size: Size) -> Any:
    return TRUTH.sample(size.toys, 3000 + seed)


@functools.cache
def fresh(seed: int, size: Size) -> Any:
    return TRUTH.sample(size.events, 4000 + seed)


@functools.cache
def exact(seed: int, size: Size) -> Any:
    """The true p-values of the fresh events."""
    many = TRUTH.log_prob(TRUTH.sample(size.samples, 5000 + seed))
    return tail_probabilities(TRUTH.log_prob(fresh(seed, size)), many)


@functools.cache
def learnt(name: str, seed: int, size: Size) -> tuple[Model, Row]:
    """The model and what its training took; kept beside the rows, so that an interrupted run need not train again."""
    kept = RESULTS / "partial" / f"{NAME}-{name}-{seed}.pofx"
    if size != QUICK and kept.exists() and asked(model := pofx.load(kept), name):
        return model, model.card["measured"]
    model, row = fitted(name, seed, size)
    if size != QUICK:
        model.card["measured"] = row
        kept.parent.mkdir(parents=True, exist_ok=True)
        model.save(kept)
    return model, row


def asked(model: Model, name: str) -> bool:
    """Whether a kept model was made by the setting as it is now."""
    setting = SETTINGS[name]
    return setting.family is None or (
        model.family == setting.family and model.card["measured"]["training"] == setting.training.to_dict()
    )


def fitted(name: str, seed: int, size: Size) -> tuple[Model, Row]:
    setting = SETTINGS[name]
    data = pofx.Dataset.from_arrays(toys(seed, size)).with_split(SPLIT)
    if setting.family is None:
        from pofx.models.selection import select

        found = select(data, seed=seed, minutes=0.5 if size == QUICK else AUTO_MINUTES)
        return found.model, {"chosen": found.chosen, "scores": [str(score) for score in found.scores]}
    training = setting.training.replace(seed=seed)
    model, row = timed_fit(setting.family, data, training.replace(max_steps=size.steps) if size.steps else training)
    return model, {**row, "training": setting.training.to_dict(), "commit": git("rev-parse", "HEAD")}


def p_values(name: str, seed: int, size: Size) -> Row:
    """How far the density's p-values agree with the true ones; the value is R^2."""
    x = fresh(seed, size)
    if name == "chi2":
        rows = toys(seed, size)
        mine, took = Chi2(rows.mean(0), np.linalg.inv(np.cov(rows.T))).p_values(x), {}
    else:
        model, took = learnt(name, seed, size)
        sampled = model.log_prob(model.sample(size.samples, seed=6000 + seed))
        mine = tail_probabilities(model.log_prob(x), sampled)
        took = {**took, **{f"gap_{key}": value for key, value in gap(TRUTH.log_prob(x), model, x).items()}}
    found = agreement(mine, exact(seed, size), seed=seed)
    barred = SETTINGS[name].barred
    met = found.r.value >= BARS["r"] and found.r2.value >= BARS["r2"] and took.get("minutes", 0.0) <= MINUTES
    return {
        "value": found.r2.value,
        "error": found.r2.error,
        "r": list(found.r),
        "mse": list(found.mse),
        "passed": met if barred else None,
        **took,
    }


def judged(name: str, seed: int, events: int, size: Size) -> Row:
    """C2ST between fresh truth and the density's samples; the exact optimum beside it."""
    truth = TRUTH.sample(2 * events, 7000 + seed)
    sample, optimum = generated(name, seed, 2 * events, size)
    found = c2st(truth, sample, judge=JUDGE, train=events, test=events, splits=3, whiten=True, seed=seed)
    bar = name in SETTINGS and SETTINGS[name].barred and events == size.judged[0]
    return {
        "value": found.accuracy,
        "error": found.error,
        "auc": found.auc,
        "p_value": found.p_value,
        "floor": found.floor,
        "floor_error": found.floor_error,
        "passed": found.accuracy <= BARS["c2st"] if bar else None,
        **optimum(truth, sample),
    }


def generated(name: str, seed: int, n: int, size: Size) -> tuple[Any, Any]:
    """Events of the density, and the accuracy of the best possible judge (None where it is not computed)."""
    if name == "truth":
        return TRUTH.sample(n, 8000 + seed), lambda *_: {"optimum": 0.5}
    model, _ = learnt(name, seed, size)

    def optimum(truth: Any, sample: Any) -> Row:
        right = np.concatenate(
            [TRUTH.log_prob(truth) > model.log_prob(truth), TRUTH.log_prob(sample) < model.log_prob(sample)]
        )
        return {"optimum": float(right.mean()), "optimum_error": float(right.std() / np.sqrt(len(right)))}

    return model.sample(n, seed=9000 + seed), optimum


def sizes_of(name: str, seed: int, size: Size) -> tuple[int, ...]:
    """How many events the judges get: both numbers for the first seed of what carries bars."""
    if name == "chi2":
        return ()
    return size.judged if seed == SEEDS[0] and SETTINGS[name].barred else size.judged[:1]


def main() -> None:
    """One row per density, seed and quantity."""
    made = parser(__doc__)
    made.add_argument("--rows", nargs="+", choices=[*SETTINGS, "truth"], default=[*SETTINGS, "truth"])
    made.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS))
    options = made.parse_args()
    sheet, size = Sheet(NAME, quick=options.quick), QUICK if options.quick else Size()
    expected: list[str] = []

    def row(wanted: bool, measure: str, seed: int, bar: float | None, make: Any) -> None:
        expected.append(measure)
        if wanted and seed in options.seeds:
            sheet.measure(measure, make, seeds=[seed], bar=bar)

    for name, setting in SETTINGS.items():
        for seed in setting.seeds:
            wanted, barred = name in options.rows, setting.barred
            row(
                wanted,
                f"{name}, seed {seed}: R2 of p-values",
                seed,
                BARS["r2"] if barred else None,
                functools.partial(p_values, name, seed, size),
            )
            for events in sizes_of(name, seed, size):
                bar = BARS["c2st"] if barred and events == size.judged[0] else None
                row(
                    wanted,
                    f"{name}, seed {seed}: C2ST, {events} events",
                    seed,
                    bar,
                    functools.partial(judged, name, seed, events, size),
                )
    for events in size.judged[:1]:
        row(
            "truth" in options.rows,
            f"truth: C2ST, {events} events",
            1,
            None,
            functools.partial(judged, "truth", 1, events, size),
        )
    sheet.finish(expected)


if __name__ == "__main__":
    main()
