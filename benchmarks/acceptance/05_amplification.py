"""Amplification on the three published toys (arXiv:2008.06545): how many true events per training event a generated sample is worth.

Camel back (100 training events), ring (100), shell in five dimensions (500); 20 independent trainings each. The truth is a closed form, and
quantiles are boxes of equal probability in its natural coordinates (the line; radius and angles). Value: the factor of the mean
quantile error; error: half its 68 % band. Families: a parametric fit (two normals; mean and width of the radius), a GAN, a spline flow.

- training events, resampled: the control; the mean quantile error is within three of its errors of 1/training + 1/generated events.
- parametric fit: the band lies above 1. GAN, spline flow: above 1 at the largest number of quantiles of each toy.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from common import Row
from measuring import Sheet, parser
from sklearn.mixture import GaussianMixture

import pofx
from pofx.metrics.amplification import Amplification, AmplificationCurve, amplification, average_amplification
from pofx.simulators.task_toys.amplification import AMPLIFICATION

NAME = "05_amplification"
EXPERIMENTS = 20
STEPS = {"GAN": 1500, "spline flow": 500}


class Case(NamedTuple):
    """Training events, generated events, quantiles per axis."""

    training: int
    generated: int
    quantiles: tuple[int, ...]


CASES = {
    "camel": Case(100, 10_000, (5, 10, 20, 50, 100)),
    "ring": Case(100, 10_000, (3, 5, 7, 10)),
    "shell": Case(500, 50_000, (2, 3, 4)),
}
FAMILIES = ("training events, resampled", "parametric fit", "GAN", "spline flow")


def resampled(x: np.ndarray, n: int, seed: int, _: int) -> np.ndarray:
    """Training events, drawn with replacement."""
    return np.asarray(np.random.default_rng((seed, 1)).choice(x, n))


def parametric(x: np.ndarray, n: int, seed: int, _: int) -> np.ndarray:
    """Two normals on the line; elsewhere a normal radius and no direction."""
    rng, d = np.random.default_rng((seed, 2)), x.shape[1]
    if d == 1:
        fit = GaussianMixture(2, random_state=seed, means_init=[[-4.0], [4.0]]).fit(x)
        which = rng.choice(2, n, p=fit.weights_)
        return np.asarray(fit.means_[which] + np.sqrt(fit.covariances_[which, 0]) * rng.normal(size=(n, 1)))
    radius = np.linalg.norm(x, axis=1)
    direction = rng.normal(size=(n, d))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.asarray(direction * rng.normal(radius.mean(), radius.std(ddof=1), (n, 1)))


def learnt(family: Any, x: np.ndarray, n: int, seed: int, steps: int) -> np.ndarray:
    """Of a family that is trained on 90 % of the events and stops on the others."""
    training = pofx.Training(max_epochs=None, max_steps=steps, seed=seed, device="cpu", progress=False)
    return np.asarray(family.fit(x, training=training).sample(n, seed=seed))


MAKERS: dict[str, Callable[[np.ndarray, int, int, int], np.ndarray]] = {
    "training events, resampled": resampled,
    "parametric fit": parametric,
    "GAN": functools.partial(learnt, pofx.GAN()),
    "spline flow": functools.partial(learnt, pofx.SplineFlow(layers=3)),
}


def experiment(toy: str, family: str, seed: int, steps: int) -> AmplificationCurve:
    """One training on new events."""
    truth, case = AMPLIFICATION[toy], CASES[toy]
    x = np.asarray(truth.sample(case.training, (seed + 1) * 1000 + case.training))
    generated = MAKERS[family](x, case.generated, seed, steps)
    return amplification(generated, truth, case.training, quantiles=case.quantiles)


@functools.cache
def curve(
    toy: str, family: str, experiments: int, steps: int
) -> tuple[AmplificationCurve, tuple[AmplificationCurve, ...]]:
    """The mean and every experiment."""
    found = tuple(experiment(toy, family, seed, steps) for seed in range(experiments))
    return average_amplification(found), found


def row(toy: str, family: str, per_axis: int, experiments: int, steps: int) -> Row:
    """One point of a curve."""
    mean, every = curve(toy, family, experiments, steps)
    point = mean[per_axis]
    one_by_one = [each[per_axis].value for each in every]
    extra = {"quantiles": point.quantiles, "low": point.low, "high": point.high, "limit": point.limit}
    return {
        "value": point.value,
        "error": 0.5 * (point.high - point.low) if math.isfinite(point.high) else None,
        "passed": passed(toy, family, point),
        **extra,
        "experiments": experiments,
        "16, 50, 84 % of single experiments": np.quantile(one_by_one, [0.16, 0.5, 0.84]),
    }


def passed(toy: str, family: str, point: Amplification) -> bool | None:
    """By the bars of the text above; None where there is none."""
    if family == FAMILIES[0]:
        expected = point.scale * (1 / point.training_size + 1 / point.generated)
        return abs(point.mse - expected) < 3 * point.mse_error
    if family == FAMILIES[1] or point.per_axis == CASES[toy].quantiles[-1]:
        return point.low > 1.0
    return None


def rows(quick: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Measure and how."""
    for toy, case in CASES.items():
        for family in FAMILIES:
            steps = 10 if quick else STEPS.get(family, 0)
            for per_axis in case.quantiles:
                name = f"{toy}, {family}: {per_axis ** (5 if toy == 'shell' else 2 if toy == 'ring' else 1)} quantiles"
                yield name, functools.partial(row, toy, family, per_axis, 3 if quick else EXPERIMENTS, steps)


def main() -> None:
    """All rows, or those of one toy and family; under half an hour on one core."""
    made = parser(__doc__)
    made.add_argument("--toy", choices=list(CASES), help="only this toy's rows")
    made.add_argument("--family", choices=FAMILIES, help="only this family's rows")
    options = made.parse_args()
    sheet, plan = Sheet(NAME, quick=options.quick, any_source=True), list(rows(options.quick))
    for measure, make in plan:
        toy, family = measure.split(": ")[0].split(", ", 1)
        if options.toy in (None, toy) and options.family in (None, family):
            sheet.measure(measure, make, seeds=range(EXPERIMENTS), bar=1.0)
    sheet.finish(measure for measure, _ in plan)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
