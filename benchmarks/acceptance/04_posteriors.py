"""Posteriors of three tasks of simulation-based inference, learnt from 10 000 simulations: as good as published neural posteriors?

Mean C2ST over ten observations of 10 000 exact draws from the posterior and 10 000 of the model, with the error of that mean; bars: NPE of
the benchmark (arXiv:2101.04653) at as many simulations. The judge is near to the benchmark's: two hidden layers of ten times the number
of parameters, columns standardised, no weight decay, tests of five splits of four to one. Exact draws and simulations have fixed seeds;
observations are simulated from draws of the prior. The floor is the same of two sets of exact draws.

    python benchmarks/acceptance/04_posteriors.py [--only 'slcp*' '*spline-flow']
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from common import RESULTS, Row
from learning import timed_fit
from measuring import Sheet, mean, parser

import pofx
from pofx.classifiers import NetworkClassifier
from pofx.data import Dataset
from pofx.metrics import c2st
from pofx.models.base import Family
from pofx.models.model import Model
from pofx.networks import CausalTransformer, ResidualMLP
from pofx.simulators.inference_tasks import TASKS
from pofx.training import Training

NAME = "04_posteriors"
SEED, SIMULATIONS_SEED, OBSERVED_SEED, EXACT_SEED, FLOOR_SEED = 1, 21, 22, 23, 24
SIMULATIONS, DRAWS, OBSERVATIONS = 10_000, 10_000, 10
NPE = {"two-moons": 0.606, "slcp": 0.901, "gaussian-mixture": 0.661}
TRAINING = Training(
    max_epochs=None, max_steps=3000, batch_size=256, learning_rate=1e-3, ema=0.995, seed=SEED, device="cpu", progress=False
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A family, its training, and another training for some tasks."""

    family: Family
    training: Training = TRAINING
    tasks: dict[str, Training] = field(default_factory=dict)


PLANS = {
    "spline-flow": Plan(pofx.SplineFlow(layers=3, hidden=(96, 96))),
    "flow-matching": Plan(
        pofx.FlowMatching(network=ResidualMLP(width=128, layers=3)),
        TRAINING.replace(max_steps=8000, learning_rate=2e-3),
        {"slcp": TRAINING.replace(learning_rate=2e-3, weight_decay=0.3)},
    ),
    "autoregressive-transformer": Plan(
        pofx.AutoregressiveTransformer(network=CausalTransformer(width=48, layers=2), components=16),
        TRAINING.replace(max_steps=4000, learning_rate=2e-3),
    ),
}


def digest(family: str | None, task: str) -> str:
    """A hash of the settings that a row depends on; of none for the floors."""
    text = "" if family is None else repr((PLANS[family].family, training_of(family, task)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def training_of(family: str, task: str) -> Training:
    """The training of a family for a task."""
    return PLANS[family].tasks.get(task, PLANS[family].training)


def simulations(task: str, n: int) -> Dataset:
    """Parameters as events, what was simulated as their context."""
    truth = TASKS[task]
    theta = truth.prior(n, SIMULATIONS_SEED)
    x = truth.simulate(theta, SIMULATIONS_SEED)
    return Dataset.from_arrays(theta, x, columns=truth.columns())


def observations(task: str, n: int) -> np.ndarray:
    """``(n, columns)``."""
    truth = TASKS[task]
    return np.asarray(truth.simulate(truth.prior(n, OBSERVED_SEED), OBSERVED_SEED))


@cache
def exact(task: str, number: int, draws: int, seed: int) -> np.ndarray:
    """Draws from the posterior of one observation; kept on disk."""
    path = RESULTS / "partial" / "posteriors" / f"{task}-{number}-{draws}-{seed}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False))
    theta = TASKS[task].posterior(observations(task, OBSERVATIONS)[number], draws, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, theta)
    return theta


def judged(a: np.ndarray, b: np.ndarray, quick: bool) -> float:
    """C2ST as in the benchmark, as nearly as our classifier is its."""
    width = 10 * a.shape[1]
    judge = NetworkClassifier(
        hidden=(width, width),
        epochs=2 if quick else 25,
        learning_rate=5e-3,
        dropout=0.0,
        weight_decay=0.0,
        batch_size=512,
    )
    return c2st(a, b, judge=judge, splits=1 if quick else 5, train=0.8, permutations=1, seed=SEED).accuracy


def over_observations(task: str, model: Model | None, quick: bool) -> Any:
    """C2ST of every observation; without a model that of two sets of exact draws."""
    count, draws = (2, 200) if quick else (OBSERVATIONS, DRAWS)
    seen, values = observations(task, OBSERVATIONS)[:count], []
    for number, x in enumerate(seen):
        found = exact(task, number, draws, FLOOR_SEED) if model is None else model.sample(draws, x, seed=SEED + number)
        values.append(judged(exact(task, number, draws, EXACT_SEED), found, quick))
    return mean(values), values


def measured(task: str, family: str, quick: bool) -> Row:
    """Learn, draw, judge."""
    plan = PLANS[family]
    training = training_of(family, task).replace(**({"max_steps": 3} if quick else {}))
    model, row = timed_fit(plan.family, simulations(task, 500 if quick else SIMULATIONS), training)
    found, values = over_observations(task, model, quick)
    passed = bool(found.value <= NPE[task])
    return {
        "value": found.value,
        "error": found.error,
        "passed": passed,
        "observations": values,
        **row,
        "settings": digest(family, task),
        "family": repr(model.family),
    }


def floor(task: str, quick: bool) -> Row:
    """What the judge says about equal laws."""
    found, values = over_observations(task, None, quick)
    return {
        "value": found.value,
        "error": found.error,
        "passed": None,
        "observations": values,
        "settings": digest(None, task),
    }


def planned() -> Iterator[tuple[str, Any, float | None, str]]:
    """Measure, how, bar, hash of the settings."""
    for task, bar in NPE.items():
        yield f"{task}, floor: C2ST", partial(floor, task), None, digest(None, task)
        for family in PLANS:
            yield f"{task}, {family}: C2ST", partial(measured, task, family), bar, digest(family, task)


def main() -> None:
    """One row per task and family, and the floors."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", default=["*"], help="patterns of rows")
    options = made.parse_args()
    torch.set_num_threads(1)
    current = {measure: settings for measure, *_, settings in planned()}

    def holds(row: Row) -> bool:
        return bool(row.get("settings") == current.get(row["measure"]))

    sheet = Sheet(NAME, quick=options.quick, any_source=True, keep=holds)
    for measure, make, bar, _ in planned():
        if any(fnmatch(measure, pattern) for pattern in options.only):
            sheet.measure(measure, partial(make, options.quick), seeds=[SEED], bar=bar)
    sheet.finish(current)


if __name__ == "__main__":
    main()
