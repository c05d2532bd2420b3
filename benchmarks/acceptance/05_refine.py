"""Refiners: DCTR closes known reweightings, and LASER cures what a coupling flow cannot do, unweighted.

DCTR rows. Generated and true events of a known ratio of densities; value: mean over the seeds of the difference between a moment of new,
reweighted events and its closed form, in units of the error that the numbers of events of both samples allow; a row passes if the mean
pull is within three over the root of the number of seeds, with the effective share of the weights beside its closed form.

LASER rows. Three rings and eight Gaussians, learnt by a coupling flow and refined. Value: accuracy of a classifier two-sample test (judge:
`JUDGE`) against events that nobody has seen, mean over the seeds; error: of that mean; passes at 0.55. The rows before refinement and with
a learnt pull-back have no bar; the floor is one half.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import torch
from common import Row
from measuring import Sheet, mean, parser

import pofx
from pofx.classifiers.network import NetworkClassifier
from pofx.metrics.c2st import c2st
from pofx.refine.reweighting import Reweighting, reweight

NAME = "05_refine"
SEEDS = (1, 2, 3)
BAR, PULL = 0.55, 3.0
JUDGE = NetworkClassifier(frequencies=64, epochs=20)
EVENTS, TESTED, EPOCHS = 10_000, 10_000, 15
SHIFT, RATE = 0.7, 0.7
DCTR = Reweighting(NetworkClassifier(hidden=(32, 32), epochs=15, dropout=0.0), folds=4)


def three_rings(n: int, seed: int) -> np.ndarray:
    """Radii 1, 2, 3 in equal shares, of width 0.1."""
    rng = np.random.default_rng((seed, 3))
    radius, angle = rng.integers(1, 4, n) + 0.1 * rng.normal(size=n), rng.uniform(0, 2 * math.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def eight_gaussians(n: int, seed: int) -> np.ndarray:
    """On a circle of radius 2, of width 0.2."""
    rng = np.random.default_rng((seed, 8))
    angle = 0.25 * math.pi * rng.integers(0, 8, n)
    return 2.0 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.2 * rng.normal(size=(n, 2))


TOYS: dict[str, Callable[[int, int], np.ndarray]] = {"three rings": three_rings, "eight Gaussians": eight_gaussians}


# DCTR


def two_gaussians(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal in two columns, and shifted in the first."""
    return rng.normal(size=(n, 2)), rng.normal([SHIFT, 0.0], 1.0, (n, 2))


def exponentials(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of mean 1, and of mean 0.7."""
    return rng.exponential(1.0, (n, 1)), rng.exponential(RATE, (n, 1))


KNOWN = {
    "two Gaussians": (two_gaussians, SHIFT, 1.0, math.exp(-(SHIFT**2))),
    "exponential": (exponentials, RATE, RATE, RATE * (2 - RATE)),
}
"""How to draw, the mean of the first column of the truth, its width, and E[w]^2 / E[w^2]."""


def closure(name: str) -> Row:
    """Pulls of the mean of the first column over the seeds."""
    draw, centre, width, share = KNOWN[name]
    pulls, shares, errors = [], [], []
    for seed in SEEDS:
        rng = np.random.default_rng((seed, len(name)))
        q, p = draw(EVENTS, rng)
        found = reweight(q, p, settings=DCTR, seed=seed)
        new = draw(EVENTS, rng)[0]
        w = found.weights(new)
        value = float(np.average(new[:, 0], weights=w))
        spread = float((w**2 * (new[:, 0] - value) ** 2).sum()) / float(w.sum()) ** 2
        # new events; true events in training; generated events in training
        pulls.append((value - centre) / math.sqrt(2 * spread + width**2 / EVENTS))
        shares.append(found.ess.share)
        errors.append(found.ess.share_error)
    pull = mean(pulls)
    passed = bool(abs(pull.value) * math.sqrt(len(SEEDS)) < PULL)
    extra = {"effective share": shares, "its error": errors, "its closed form": share, "pulls": pulls}
    return {"value": pull.value, "error": pull.error, "passed": passed, **extra}


# LASER


@cache
def flow(toy: str, seed: int) -> pofx.Model:
    """A coupling flow of default size."""
    training = pofx.Training(max_epochs=EPOCHS, seed=seed, device="cpu", progress=False)
    return pofx.CouplingFlow().fit(TOYS[toy](EVENTS, seed), training=training)


def judged(toy: str, draw: Callable[[str, int], tuple[np.ndarray, dict[str, float]]]) -> Row:
    """The accuracy over the seeds."""
    found, notes = [], []
    for seed in SEEDS:
        sample, note = draw(toy, seed)
        found.append(c2st(TOYS[toy](TESTED, 1000 + seed), sample, judge=JUDGE, splits=1, seed=seed))
        notes.append(note)
    value = float(np.mean([one.accuracy for one in found]))
    inner = math.sqrt(sum(one.error**2 for one in found)) / len(found)
    error = max(inner, mean([one.accuracy for one in found]).error)
    extra = {"accuracies": [one.accuracy for one in found], "floor": 0.5, "floor error": found[0].floor_error}
    return {"value": value, "error": error, **extra, "aucs": [one.auc for one in found], "notes": notes}


def before(toy: str, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """The flow's own sample."""
    return flow(toy, seed).sample(TESTED, seed=seed), {}


def after(toy: str, seed: int, **settings: object) -> tuple[np.ndarray, dict[str, float]]:
    """Refined, unweighted."""
    training = pofx.Training(seed=seed, device="cpu", progress=False)
    refiner = pofx.Laser(classifier=NetworkClassifier(frequencies=64, epochs=20, weight_decay=0.1), **settings)  # type: ignore[arg-type]
    refined = refiner.fit(TOYS[toy](EVENTS, seed), teacher=flow(toy, seed), training=training)
    return refined.sample(TESTED, seed=seed), refined.card["refined"]


def unbarred(toy: str) -> Row:
    """Before refinement, for comparison."""
    return {**judged(toy, before), "passed": None}


def refined(toy: str, pullback: str) -> Row:
    """After it."""
    row = judged(toy, partial(after, pullback=pullback))
    return {**row, "passed": row["value"] <= BAR if pullback == "decode" else None}


def rows() -> Iterator[tuple[str, Callable[[], Row], float | None]]:
    """Measure, how, and its bar."""
    for name in KNOWN:
        yield f"DCTR, {name}: pull of the mean", partial(closure, name), PULL
    for toy in TOYS:
        yield f"{toy}, coupling flow: C2ST", partial(unbarred, toy), None
        yield f"{toy}, LASER: C2ST", partial(refined, toy, "decode"), BAR
        yield f"{toy}, LASER with a learnt pull-back: C2ST", partial(refined, toy, "network"), None


def main() -> None:
    """All rows; about fifteen minutes on one core."""
    global EVENTS, TESTED, EPOCHS, SEEDS
    options = parser(__doc__)
    options.add_argument("--only", default="", help="rows whose name has this in it")
    chosen = options.parse_args()
    if chosen.quick:
        EVENTS, TESTED, EPOCHS, SEEDS = 600, 600, 2, (1, 2)
    sheet, plan = Sheet(NAME, quick=chosen.quick), list(rows())
    for measure, make, bar in plan:
        if chosen.only in measure:
            sheet.measure(measure, make, seeds=SEEDS, bar=bar)
    sheet.finish([measure for measure, _, _ in plan])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
