"""Every family on ten shapes in the plane, on three toys of 5, 20 and 50 columns, on images and on clouds: how well a judge tells it.

C2ST: mean accuracy of three judges on halves of 10 000 fresh events of the truth and 10 000 of the model, with its error; the floor is the
same of two samples of the truth. In the plane the judge sees waves of the columns, without which it would be blind to sharp edges. 50 000
events to learn from, settings of `benchmarks/settings.py`, seed 1 of the training, 11 of the events, 12 and 13 of the fresh ones, 7 of
the samples. Beside it: minutes of training (and of the teacher's), microseconds per event of sampling, evaluations of the network per
event, and the mean of log p - log q over fresh events, where there is a density. Bars hold in the plane, and by kind of family: 0.55 for
flows, flow matching, EDM and the transformer, 0.60 for students, 0.70 for GANs; five minutes of training for all. With one thread the time
of the processor is what the clock would show if nothing else ran on the machine; the five minutes are of that, and sampling is timed by it.

    python benchmarks/acceptance/04_shapes.py [--only 'spline-flow' '*gan'] [--set spirals 'copula*'] [--workers 2]
"""

import argparse
import hashlib
import importlib
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache, partial
from typing import Any

import torch
from common import RESULTS, Row
from learning import gap, timed_fit
from measuring import Sheet, environment, parser

import pofx
from pofx import registry
from pofx.classifiers import NetworkClassifier
from pofx.errors import PofxError, RangeWarning
from pofx.metrics import c2st
from pofx.models.model import Model
from pofx.networks.base import FieldNetwork
from pofx.simulators import SHAPES, TOYS, data_set

SETTINGS: Any = importlib.import_module("settings").SETTINGS  # measuring says where

NAME = "04_shapes"
SEED, EVENTS_SEED, FRESH_SEED, FLOOR_SEED, SAMPLE_SEED = 1, 11, 12, 13, 7
EVENTS, JUDGED, SPLITS = 50_000, 10_000, 3
MINUTES = 5.0
BARS = {"exact": 0.55, "student": 0.60, "gan": 0.70, "other": None}
SETS: dict[str, Any] = {**SHAPES, **TOYS}
DENSITY_NUMBERS = 10_000
DENSITY_EVENTS = {"grid": 64, "cloud": 128}
"""At most: with many numbers per event a density takes long, and one event says much."""
JUDGE = NetworkClassifier(frequencies=64, epochs=20)
"""In the plane."""
MODELS = RESULTS / "partial" / "models"


def kind_of(name: str) -> str:
    """The kind of field of a set."""
    return str(getattr(SETS[name], "kind", "vector"))


def most_densities(name: str) -> int:
    """Events whose density is asked for, at most."""
    return DENSITY_EVENTS.get(kind_of(name)) or DENSITY_NUMBERS // SETS[name].dim


def sizes(quick: bool) -> tuple[int, int]:
    """Events to learn from, and to be judged."""
    return (600, 200) if quick else (EVENTS, JUDGED)


# Models


def fitted(family: str, name: str, quick: bool) -> tuple[Model, Row]:
    """The model, and what its training took, with its teacher's."""
    setting, teacher, row = SETTINGS[family], None, {}
    if setting.teacher is not None:
        teacher, taught = kept(setting.teacher, name, quick)
        row = {"teacher": setting.teacher, "teacher_minutes": taught["minutes"]}
    config, training = setting.of(name, kind_of(name))
    training = training.replace(max_steps=3) if quick else training
    model, took = timed_fit(config, data_set(SETS[name], sizes(quick)[0], EVENTS_SEED), training, teacher)
    return model, {**took, **row}


def kept(family: str, name: str, quick: bool) -> tuple[Model, Row]:
    """The same, from the disk if it is there: teachers are fitted once."""
    path = MODELS / f"{'quick-' if quick else ''}{family}-{name}-{digest(family, name)}.pofx"
    if path.exists():
        model = pofx.load(path)
        return model, {"minutes": round(model.card["training"]["seconds"] / 60, 3)}
    model, row = fitted(family, name, quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model, row


def digest(family: str, name: str) -> str:
    """A hash of all settings that a row depends on, those of its teacher with them."""
    setting = SETTINGS[family]
    text = repr(setting.of(name, kind_of(name))) + (digest(setting.teacher, name) if setting.teacher else "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Judging


def judged(a: Any, b: Any, name: str, quick: bool) -> Any:
    """C2ST of two samples of one set; images are flattened."""
    if kind_of(name) == "grid":
        a, b = (some.reshape(len(some), -1) for some in (a, b))
    judge: Any = JUDGE if kind_of(name) == "vector" and SETS[name].dim == 2 else "network"
    if quick and kind_of(name) != "cloud":
        judge = NetworkClassifier(epochs=2)
    return c2st(a, b, judge=judge, splits=1 if quick else SPLITS, seed=SEED)


@cache
def floor(name: str, quick: bool) -> tuple[float, float]:
    """C2ST of two samples of the truth, with its error."""
    n = sizes(quick)[1]
    found = judged(SETS[name].sample(n, FRESH_SEED), SETS[name].sample(n, FLOOR_SEED), name, quick)
    return found.accuracy, found.error


@contextmanager
def counted(model: Model) -> Iterator[list[int]]:
    """Rows that enter networks of fields, those inside of others not counted again."""
    rows, inside = [0], [0]

    def enter(_module: Any, given: Any) -> None:
        rows[0] += len(given[0]) if not inside[0] and given else 0
        inside[0] += 1

    def leave(_module: Any, _given: Any, _result: Any) -> None:
        inside[0] -= 1

    networks = [module for module in model.fitted.body.modules() if isinstance(module, FieldNetwork)]
    handles = [
        handle
        for one in networks
        for handle in (one.register_forward_pre_hook(enter), one.register_forward_hook(leave))
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def evaluations(model: Model) -> float | None:
    """Of networks per event; None for families without such networks, whose sampling is one pass."""
    n = model.family.chunk(model.layout)
    with counted(model) as rows:
        model.sample(n, seed=SAMPLE_SEED)
    return rows[0] / n or None


def density(model: Model, name: str, n: int) -> Row:
    """Mean of log p - log q over fresh events, in nats per event, where there is a density."""
    if model.density == "none":
        return {"density": "none", "nll_minus_truth": None}
    truth = SETS[name]
    x = truth.sample(n, FRESH_SEED)
    try:
        found = gap(truth.log_prob(x), model, x)
    except PofxError as error:
        return {"density": model.density, "nll_minus_truth": None, "density_refused": str(error)}
    return {
        "density": model.density,
        "nll_minus_truth": found["value"],
        "nll_error": found["error"],
        "density_events": n,
    }


def measured(family: str, name: str, quick: bool) -> Row:
    """Train, sample, judge."""
    teaches = any(setting.teacher == family for setting in SETTINGS.values())
    model, row = (kept if teaches else fitted)(family, name, quick)
    n, setting = sizes(quick)[1], SETTINGS[family]
    dear = 20 if quick else min(setting.density_events, most_densities(name))
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        made = model.sample(n, seed=SAMPLE_SEED)
    seconds = time.process_time() - begun
    found = judged(SETS[name].sample(n, FRESH_SEED), made, name, quick)
    base, base_error = floor(name, quick)
    bar = bar_of(family, name)
    good = bar is None or bool(found.accuracy <= bar)
    passed = False if not good or row.get("cpu_minutes", row["minutes"]) > MINUTES else (None if bar is None else True)
    return {
        "value": found.accuracy, "error": found.error, "passed": passed,
        "floor": base, "floor_error": base_error, "auc": found.auc, "p_value": found.p_value, "judge": found.judge,
        "microseconds_per_event": round(1e6 * seconds / n, 2), "evaluations": evaluations(model),
        **density(model, name, dear), **row, "settings": digest(family, name),
        "family": repr(model.family), "class": setting.bar,
    }  # fmt: skip


# The table


def bar_of(family: str, name: str) -> float | None:
    """Bars hold on the ten shapes."""
    return BARS[SETTINGS[family].bar] if name in SHAPES else None


def title(family: str, name: str) -> str:
    """What a row is called."""
    return f"{family}, {name}: C2ST"


def planned() -> Iterator[tuple[str, str]]:
    """Families and sets: teachers first, and every set whose kind the family declares."""
    order = sorted(SETTINGS, key=lambda family: SETTINGS[family].teacher is not None)
    for family in order:
        for name in SETS:
            if kind_of(name) in registry.family_class(SETTINGS[family].family.name).capabilities.kinds:
                yield family, name


def chosen(options: argparse.Namespace) -> list[tuple[str, str]]:
    """The rows that are asked for, of this worker's share."""
    kept = [
        row
        for row in planned()
        if any(fnmatch(row[0], pattern) for pattern in options.only)
        and any(fnmatch(row[1], pattern) for pattern in options.set)
    ]
    number, of = options.share
    names = list(dict.fromkeys(name for _, name in kept))
    return [row for row in kept if names.index(row[1]) % of == number]


def spread(options: argparse.Namespace) -> None:
    """The rows shared among processes, by sets, so that teachers are where their students are."""
    again = [sys.executable, __file__, "--only", *options.only, "--set", *options.set]
    again += ["--quick"] if options.quick else []
    running = [
        subprocess.Popen([*again, "--share", str(k), str(options.workers)], env=environment())
        for k in range(options.workers)
    ]
    if any(one.wait() for one in running):
        sys.exit("a worker failed")


def arguments() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", default=["*"], help="patterns of families")
    made.add_argument("--set", nargs="+", default=["*"], help="patterns of sets")
    made.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    made.add_argument("--share", nargs=2, type=int, default=[0, 1], help=argparse.SUPPRESS)
    return made.parse_args()


def main() -> None:
    """One row per family and set."""
    options = arguments()
    if options.workers > 1:
        spread(options)
    torch.set_num_threads(1)
    current = {title(*row): digest(*row) for row in planned()}

    def holds(row: Row) -> bool:
        return "refused" not in row and bool(row.get("settings") == current.get(row["measure"]))

    sheet = Sheet(NAME, quick=options.quick, any_source=True, keep=holds)
    for family, name in [] if options.workers > 1 and options.quick else chosen(options):
        make = partial(measured, family, name, options.quick)
        sheet.measure(title(family, name), make, seeds=[SEED], bar=bar_of(family, name))
    sheet.finish(current)


if __name__ == "__main__":
    main()
