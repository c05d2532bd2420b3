"""Students: how much faster than their teacher's cheapest good run, and how much worse.

A teacher is run with several solvers and numbers of steps; C2ST (a network that sees waves of the columns as the judge, 10 000 events a
side, error of its splits) says how good each run is. The reference is the run with the fewest evaluations whose C2ST is within its error
of the best one's. A student has a smaller network. One that distils a teacher has one evaluation; one that learns without a teacher is
that of the table of shapes, with two evaluations, trained for twice as many steps, and stands beside the same runs. Times are per event of
`sample`, on one thread, reference and student in turn on the same batch, the median over the turns; their ratio has the error of these.
Differences of C2ST are to the reference, on the same events of the truth; students and teachers draw with the same seeds. Bars: 20 times
faster, and a C2ST at most 0.03 larger.

    python benchmarks/acceptance/04_students.py [--set spirals 'two*']
"""

import hashlib
import importlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import RESULTS, Row
from measuring import Sheet, mean, parser

import pofx
from pofx import registry
from pofx.classifiers import NetworkClassifier
from pofx.models.base import Family
from pofx.models.model import Model
from pofx.networks import ResidualMLP
from pofx.simulators.shapes import SHAPES
from pofx.solvers import RK4, Euler, Heun, Solver
from pofx.training import Training

SETTINGS: Any = importlib.import_module("settings").SETTINGS  # measuring says where

NAME = "04_students"
SEED, TRUTH_SEED = 1, 101
FASTER, WORSE = 20.0, 0.03
CASES = (("eight-gaussians", "flow-matching"), ("spirals", "flow-matching"), ("two-moons", "edm"))
SOLVERS: tuple[Solver, ...] = (
    *(Euler(steps=n) for n in (8, 16, 24, 32)),
    *(Heun(steps=n) for n in (4, 8, 12)),
    *(RK4(steps=n) for n in (2, 4, 6, 12)),
)
LARGE, MEDIUM, SMALL = (ResidualMLP(width=width, layers=3, waves=32) for width in (256, 128, 96))
JUDGE = NetworkClassifier(frequencies=64, epochs=20)
"""It sees waves of the columns, without which it would be blind to sharp edges."""
TRAINING = Training(
    max_epochs=None,
    max_steps=1,
    batch_size=512,
    learning_rate=2e-3,
    seed=SEED,
    progress=False,
    device="cpu",
    validate_every=10,
)


class Sizes(NamedTuple):
    """Events and steps of a measurement."""

    train: int = 50_000
    judged: int = 10_000
    timed: int = 4096
    turns: int = 7
    teacher: int = 2500
    student: int = 3000


class Run(NamedTuple):
    """A way to draw events of a teacher."""

    solver: str
    evaluations: float
    c2st: float
    error: float


FULL, QUICK = Sizes(), Sizes(2000, 500, 256, 3, 20, 20)


def students(sizes: Sizes) -> dict[str, tuple[Family, Training]]:
    """Families with their training: those of a teacher first."""
    steps, rounds = sizes.student, max(sizes.student // 2, 1)
    return {
        "consistency": (pofx.Consistency(network=SMALL, intervals=16), TRAINING.replace(max_steps=steps)),
        "progressive-distillation": (
            pofx.ProgressiveDistillation(network=MEDIUM, first=8),
            TRAINING.replace(max_steps=rounds),
        ),
        **{name: alone(name, sizes) for name in ("consistency-training", "mean-flow", "shortcut")},
    }


def alone(name: str, sizes: Sizes) -> tuple[Family, Training]:
    """A student without a teacher: that of the table of shapes with a smaller network, for twice as many steps."""
    setting = SETTINGS[name]
    twice = {phase: 2 * steps for phase, steps in setting.training.max_steps.items()}
    return replace(setting.family, network=SMALL), setting.training.replace(
        max_steps=sizes.student if sizes == QUICK else twice
    )


@cache
def events(shape: str, n: int, seed: int) -> Any:
    """Of the truth."""
    return SHAPES[shape].sample(n, seed=seed)


@cache
def teacher(shape: str, name: str, sizes: Sizes) -> Model:
    """A generous network; its model is kept on the disk."""
    path = kept(shape, name, sizes, ".pofx")
    if path.exists():
        return pofx.load(path)
    family = registry.family_class(name)(network=LARGE)
    model = family.fit(events(shape, sizes.train, SEED), training=TRAINING.replace(max_steps=sizes.teacher))
    model.save(path)
    return model


def kept(shape: str, name: str, sizes: Sizes, ending: str) -> Path:
    """Where something about a teacher is kept for the next run, by all that it depends on."""
    text = repr((LARGE, TRAINING, JUDGE, SOLVERS, sizes))
    path = RESULTS / "partial" / "students" / f"{shape}-{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def with_solver(model: Model, solver: Solver) -> Model:
    """The same weights, moved by another solver."""
    return Model(replace(model.family, solver=solver), model.fitted, model.layout, model.card)


def judged(model: Model, shape: str, sizes: Sizes) -> Any:
    """C2ST between fresh events of the truth and of the model."""
    return pofx.c2st(
        events(shape, sizes.judged, TRUTH_SEED), model.sample(sizes.judged, seed=SEED), judge=JUDGE, seed=SEED
    )


def evaluations(model: Model, solver: Solver) -> float:
    """Of the velocity, per event."""
    noise = model.noise(64, seed=SEED)["z"]
    body = model.fitted.body
    found = solver.solve(model.family.field(body, None, None), body.base(noise), 1.0, 0.0)  # type: ignore[attr-defined]
    return float(found.evaluations.double().mean())


@cache
def scan(shape: str, name: str, sizes: Sizes) -> tuple[Run, ...]:
    """All runs of a teacher, its own solver among them, by evaluations; kept on the disk."""
    path, model = kept(shape, name, sizes, ".json"), teacher(shape, name, sizes)
    if path.exists():
        return tuple(Run(*run) for run in json.loads(path.read_text()))
    own: Solver = model.family.solver  # type: ignore[attr-defined]
    found = []
    for solver in {repr(solver): solver for solver in (own, *(SOLVERS[::4] if sizes == QUICK else SOLVERS))}.values():
        with torch.no_grad():
            cost = evaluations(model, solver)
        score = judged(with_solver(model, solver), shape, sizes)
        found.append(Run(repr(solver), cost, score.accuracy, score.error))
    found.sort(key=lambda run: run.evaluations)
    path.write_text(json.dumps(found))
    return tuple(found)


def reference(runs: tuple[Run, ...]) -> Run:
    """The run with the fewest evaluations that is within its error of the best."""
    best = min(run.c2st for run in runs)
    return next(run for run in runs if run.c2st - run.error <= best)


def solver_of(model: Model, run: Run) -> Solver:
    """The solver of a run."""
    known = (*SOLVERS, model.family.solver)  # type: ignore[attr-defined]
    return next(solver for solver in known if repr(solver) == run.solver)


@cache
def student(shape: str, name: str, family: str, sizes: Sizes) -> tuple[Model, Row]:
    """A fitted student, and what its training took."""
    config, training = students(sizes)[family]
    known = teacher(shape, name, sizes) if config.capabilities.teacher else None
    begun = time.monotonic()
    model = config.fit(events(shape, sizes.train, SEED), training=training, teacher=known)
    return model, {"training_seconds": round(time.monotonic() - begun, 1), "steps": model.card["training"]["steps"]}


def seconds(model: Model, n: int) -> float:
    """Of drawing n events."""
    begun = time.perf_counter()
    model.sample(n, seed=SEED)
    return time.perf_counter() - begun


def teacher_row(shape: str, name: str, sizes: Sizes) -> Row:
    """C2ST of the reference run; all runs beside it."""
    runs = scan(shape, name, sizes)
    chosen = reference(runs)
    row = {"value": chosen.c2st, "error": chosen.error, "passed": None, "reference": chosen.solver}
    return {
        **row,
        "evaluations": chosen.evaluations,
        "runs: solver, evaluations, C2ST, error": [list(run) for run in runs],
    }


def time_row(shape: str, name: str, family: str, sizes: Sizes) -> Row:
    """The time of the reference run over the student's."""
    known, (model, trained) = teacher(shape, name, sizes), student(shape, name, family, sizes)
    slow = with_solver(known, solver_of(known, reference(scan(shape, name, sizes))))
    turns = [(seconds(slow, sizes.timed), seconds(model, sizes.timed)) for _ in range(sizes.turns + 1)][1:]
    ratios = np.array([first / second for first, second in turns])
    value, error = float(np.median(ratios)), 1.25 * mean(ratios).error
    microseconds = [1e6 * float(np.median(part)) / sizes.timed for part in zip(*turns, strict=True)]
    row = {"value": value, "error": error, "passed": bool(value >= FASTER), "microseconds_per_event": microseconds}
    return {**row, **trained, "threads": torch.get_num_threads()}


def quality_row(shape: str, name: str, family: str, sizes: Sizes) -> Row:
    """C2ST of the student minus that of the reference run."""
    chosen, found = reference(scan(shape, name, sizes)), judged(student(shape, name, family, sizes)[0], shape, sizes)
    value, error = found.accuracy - chosen.c2st, math.hypot(found.error, chosen.error)
    return {
        "value": value,
        "error": error,
        "passed": bool(value <= WORSE),
        "c2st": found.accuracy,
        "c2st_error": found.error,
    }


def rows(sizes: Sizes) -> Iterator[tuple[str, Callable[[], Row], float | None]]:
    """Measure, how, bar."""
    for shape, name in CASES[:1] if sizes == QUICK else CASES:
        yield f"{shape}, {name}: C2ST of the cheapest good run", partial(teacher_row, shape, name, sizes), None
        for family in students(sizes):
            for what, make, bar in (("times faster", time_row, FASTER), ("C2ST above it", quality_row, WORSE)):
                yield f"{shape}, {name}, {family}: {what}", partial(make, shape, name, family, sizes), bar


def main() -> None:
    """All rows; an hour and a half on one thread."""
    made = parser(__doc__)
    made.add_argument("--set", nargs="+", default=["*"], help="patterns of shapes")
    options = made.parse_args()
    torch.set_num_threads(1)
    sheet = Sheet(NAME, quick=options.quick, any_source=True)
    plan = list(rows(QUICK if options.quick else FULL))
    for measure, make, bar in plan:
        if not any(fnmatch(measure.partition(",")[0], pattern) for pattern in options.set):
            continue
        sheet.measure(measure, make, seeds=(SEED, TRUTH_SEED), bar=bar)
    sheet.finish(row[0] for row in plan)


if __name__ == "__main__":
    main()
