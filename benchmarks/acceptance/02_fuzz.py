"""Wrong input to the command line: ten thousand fuzzed files, damaged models, odd options. Nothing but typed errors may come out.

In process, through the entry point of `pofx`, every data file goes to `info`, `logprob`, `fit --dry-run` and `pofx.read`; damaged models
(and whole ones whose card was edited) go to `info`, `logprob` and `pofx.load`; odd options to every verb but `demo`, and to no training.
An outcome is a failure if the exit code is neither 0 nor 2 (70 is an internal error), if there is not exactly one line of error beside a
2 and none beside a 0, if a traceback or an untyped exception appears, or if a model with changed bytes is loaded without complaint. Some
of each kind go through real processes. A block of inputs runs in a worker of its own, so that a crash of a library is a failed row and
not the end. Seeds: files (0, i) as in tests/fuzzing.py, models (2, i), options (3, i), cards (4, i).

    python benchmarks/acceptance/02_fuzz.py [--only 'files*']
"""

import contextlib
import importlib
import io
import logging
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Row
from measuring import Sheet, environment, parser

import pofx
from pofx import cli
from pofx.artefact import read_artefact, write_artefact
from pofx.errors import ArtefactError, PofxError

fuzzing: Any = importlib.import_module("fuzzing")  # tests: measuring says where

NAME = "02_fuzz"
INPUTS = {"files": 10_000, "models": 1000, "cards": 1000, "options": 2000}
BLOCK = 1000
PROCESSES = {"files": 30, "models": 5, "cards": 5, "options": 10}
"""How many of each kind also go through real processes: 50."""
SEEDS = {"files": 0, "models": 2, "cards": 4, "options": 3}


class Outcome(NamedTuple):
    """What was done, how it ended in a word, and whether that is a failure."""

    what: str
    end: str
    failed: bool


@dataclass
class Tally:
    """Outcomes counted, failures described, the slowest input."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    inputs: int = 0
    slowest: tuple[float, str] = (0.0, "")

    def add(self, name: str, trials: Iterable[Callable[[], Outcome]]) -> None:
        """Count what happens to one input."""
        self.inputs += 1
        begun = time.monotonic()
        for what, end, failed in (trial() for trial in trials):
            self.counts[f"{what}: {end.partition(':')[0]}"] += 1
            if failed:
                self.failures.append(f"{name}: {what}: {end}")
        self.slowest = max(self.slowest, (round(time.monotonic() - begun, 2), name))

    def row(self) -> Row:
        """The number of failures, which must be zero."""
        number, counts = len(self.failures), dict(sorted(self.counts.items()))
        found = {"value": number, "error": None, "passed": not number, "inputs": self.inputs, "outcomes": counts}
        return {**found, "failures": self.failures[:20], "slowest": self.slowest}


# One command


def command(words: list[str]) -> Outcome:
    """The entry point of `pofx` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), -1
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        try:
            cli.main(words)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else -1
        except BaseException as error:  # noqa: BLE001 (whatever escapes is what we look for)
            return Outcome(words[0], f"{type(error).__name__} escaped: {error}", True)
    return judged(words[0], code, err.getvalue())


def process(words: list[str]) -> Outcome:
    """The same in a process of its own."""
    call = [sys.executable, "-m", "pofx.cli", *words]
    done = subprocess.run(call, capture_output=True, text=True, errors="replace", check=False, env=environment())
    return judged(f"{words[0]} in a process", done.returncode, done.stderr)


def judged(what: str, code: int, stderr: str) -> Outcome:
    """Exit code and stderr as an outcome."""
    odd = [line for line in stderr.splitlines() if not line.startswith("pofx: ")]
    errors = sum(line.startswith("pofx: error: ") for line in stderr.splitlines())
    if code not in (0, 2) or "Traceback" in stderr or errors != (code == 2):
        return Outcome(what, f"exit {code}: {stderr.strip()[-300:]}", True)
    return Outcome(what, f"exit {code}" + (", a library spoke too" if odd else ""), False)


def guarded(what: str, function: Callable[[], Any], *, must_fail: type[PofxError] | None = None) -> Outcome:
    """A call of the library: typed errors are fine; with `must_fail`, nothing else is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function()
    except PofxError as error:
        return Outcome(what, type(error).__name__, must_fail is not None and not isinstance(error, must_fail))
    except BaseException as error:  # noqa: BLE001
        return Outcome(what, f"{type(error).__name__} escaped: {error}", True)
    return Outcome(what, "no complaint", must_fail is not None)


# Data files


@cache
def good(kind: str) -> bytes:
    """A table, and models of it: a spline flow and, with a context, a Gaussian."""
    x = np.random.default_rng(0).normal(size=(200, 3))
    quick = pofx.Training(max_steps=2, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"good.{'csv' if kind == 'table' else 'pofx'}"
        if kind == "table":
            pofx.write(path, x, columns=["a", "b", "c"])
        elif kind == "flow":
            pofx.SplineFlow(layers=1, hidden=(4, 4)).fit(
                pofx.Dataset.from_arrays(x, columns=["a", "b", "c"]), training=quick
            ).save(path)
        else:
            pofx.Gaussian().fit(
                pofx.Dataset.from_arrays(x[:, 1:], x[:, :1], columns=["b", "c"], context_columns=["a"])
            ).save(path)
        return path.read_bytes()


def flags(arguments: dict[str, Any]) -> list[str]:
    """Arguments of `pofx.read` as options of `pofx fit`."""
    names = {"declare": "--column"}
    words = []
    for name, value in arguments.items():
        for item in value if isinstance(value, list) else [value]:
            words += [names.get(name, f"--{name}"), str(item)]
    return words


def file_words(case: Any, path: Path, folder: Path) -> list[list[str]]:
    """What a data file is put through."""
    key = [word for name in ("key",) if name in case.arguments for word in flags({name: case.arguments[name]})]
    fit = ["fit", str(path), "-m", "gaussian", "--dry-run", *flags(case.arguments)]
    return [["info", str(path), *key], fit, ["logprob", str(folder / "flow.pofx"), str(path), *key]]


def files(first: int, last: int, folder: Path, run: Callable[[list[str]], Outcome], tally: Tally) -> None:
    """Fuzzed data files number first to last."""
    for number, case in enumerate(islice(fuzzing.cases(last, SEEDS["files"]), first, last), first):
        path = case.write(folder)
        reading = partial(guarded, "pofx.read", partial(pofx.read, path, **case.arguments))
        commands = [partial(run, words) for words in file_words(case, path, folder)]
        tally.add(f"{number} {case.what} ({case.name})", [*commands, reading])
        path.unlink(missing_ok=True)


# Models


def damaged(rng: np.random.Generator) -> tuple[str, bytes]:
    """What was done to a model, and its bytes."""
    data = bytearray(good(str(rng.choice(["flow", "gaussian"]))))
    kind = str(rng.choice(["bytes changed", "cut off", "longer"]))
    if kind == "bytes changed":
        for place in rng.integers(0, len(data), size=int(rng.integers(1, 6))):
            data[int(place)] ^= int(rng.integers(1, 256))
    elif kind == "cut off":
        del data[int(rng.integers(0, len(data))) :]
    else:
        data += rng.bytes(int(rng.integers(1, 100)))
    return kind, bytes(data)


def edited(rng: np.random.Generator, path: Path) -> None:
    """Write a model whose card says something else somewhere, with checksums that fit."""
    path.write_bytes(good(str(rng.choice(["flow", "gaussian"]))))
    whole = read_artefact(path)
    card = {key: value for key, value in whole.card.items() if key != "validation"}
    holder, key = descend(rng, card)
    odd = [None, -1, 0, 10**9, 1.5, "", "nonsense", [], {}, True, [1, 2, 3], {"type": "SplineFlow"}]
    holder[key] = odd[int(rng.integers(len(odd)))]
    write_artefact(path, {**card, "validation": whole.card["validation"]}, whole.weights, whole.validation)


def descend(rng: np.random.Generator, holder: Any) -> tuple[Any, Any]:
    """A random place in nested dicts and lists: what holds it, and under which key."""
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(holder[key], dict | list) or not holder[key] or rng.random() < 0.3:
            return holder, key
        holder = holder[key]


def models(first: int, last: int, folder: Path, run: Callable[[list[str]], Outcome], tally: Tally) -> None:
    """Damaged models number first to last; loading must refuse them all."""
    path = folder / "damaged.pofx"
    for number in range(first, last):
        kind, data = damaged(np.random.default_rng((SEEDS["models"], number)))
        path.write_bytes(data)
        loading = partial(guarded, f"pofx.load, {kind}", partial(pofx.load, path), must_fail=ArtefactError)
        tally.add(f"{number} {kind}", [*looks(path, folder, run), loading])


def cards(first: int, last: int, folder: Path, run: Callable[[list[str]], Outcome], tally: Tally) -> None:
    """Models number first to last with a card edited by hand; loading may refuse them."""
    path = folder / "edited.pofx"
    for number in range(first, last):
        edited(np.random.default_rng((SEEDS["cards"], number)), path)
        tally.add(f"{number}", [*looks(path, folder, run), partial(guarded, "pofx.load", partial(pofx.load, path))])


def looks(path: Path, folder: Path, run: Callable[[list[str]], Outcome]) -> list[Callable[[], Outcome]]:
    """What the command line does with a model."""
    return [partial(run, ["info", str(path)]), partial(run, ["logprob", str(path), str(folder / "table.csv")])]


# Options


VALUES = [
    *shlex.split(
        "-1 0 1 2 nan inf 1e308 abc [] (1, (0,) none true \u03c6 -- = . a a,b * !a [ a:GeV a:1:bounded:1:0 a:rad:periodic:-pi:pi"
    ),
    *shlex.split(
        "0.5,0.5 1,1,1 layers=0 layers=x hidden=(0,) bins=-1 nothing=1 batch_size=0 learning_rate=-1 max_epochs=none seed=1.5"
    ),
    *shlex.split(
        "table.csv flow.pofx missing.h5 new.h5 nowhere/new.h5 spline-flow gaussian-mixture gaussian-copula cpu drop '' ' '"
    ),
]
READ = shlex.split("--key --columns --context --weight --column --nan --split")
FIT = shlex.split(
    "-m -o --set --training --report --epochs --steps --minutes --batch-size --learning-rate --patience --seed --checkpoint --log-dir"
)
VERBS = {
    "fit": [*FIT, *READ, "--resume", "--force"],
    "sample": shlex.split("-o -n --seed --workers --context --key --force"),
    "logprob": shlex.split("-o --key --weight --nan --force"),
    "info": ["--key", "--json"],
    "report": ["-o", *READ],
    "list": ["--force", "-o"],
    "nonsense": ["-o", "--help"],
}
SWITCHES = ("--force", "--resume", "--json", "--help", "-v")
RIGHT = {
    "fit": ["table.csv"],
    "sample": ["flow.pofx", "-n", "3", "-o", "new.csv"],
    "logprob": ["flow.pofx", "table.csv"],
    "info": ["gaussian.pofx"],
    "report": ["flow.pofx", "table.csv"],
}
PLACES = ["table.csv", "flow.pofx", "gaussian.pofx", "missing.h5", "."]


def odd_words(rng: np.random.Generator) -> list[str]:
    """A command that is wrong more often than not; never one that trains."""
    verb = str(rng.choice(list(VERBS)))
    words = [
        verb,
        *(RIGHT.get(verb, []) if rng.random() < 0.7 else rng.choice(PLACES, size=int(rng.integers(0, 3))).tolist()),
    ]
    for option in rng.choice([*VERBS[verb], "--no-such-option", "-v"], size=int(rng.integers(0, 4))):
        words += [str(option)] if option in SWITCHES else [str(option), str(rng.choice(VALUES))]
    return [*words, "-m", "gaussian", "--dry-run"] if verb == "fit" else words


def options(first: int, last: int, folder: Path, run: Callable[[list[str]], Outcome], tally: Tally) -> None:
    """Commands number first to last, in a folder of their own."""
    with contextlib.chdir(folder):
        for number in range(first, last):
            words = odd_words(np.random.default_rng((SEEDS["options"], number)))
            tally.add(f"{number} pofx {' '.join(words)}", [partial(run, words)])


# Rows

KINDS = {"files": files, "models": models, "cards": cards, "options": options}


def block(kind: str, first: int, last: int, apart: bool) -> Tally:
    """Inputs number first to last, in this process or (apart) each in its own."""
    tally = Tally()
    logging.getLogger("pofx").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("table.csv", "flow.pofx", "gaussian.pofx"):
            (folder / name).write_bytes(good(name.split(".")[0]))
        KINDS[kind](first, last, folder, process if apart else command, tally)
    tally.failures = [text.replace(place, "") for text in tally.failures]
    return tally


def measured(kind: str, first: int, last: int, apart: bool) -> Row:
    """A block in a worker."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(block, kind, first, last, apart).result().row()
        except BrokenProcessPool:
            return {
                "value": None,
                "error": None,
                "passed": False,
                "failures": ["the process crashed"],
                "inputs": last - first,
            }


def planned(quick: bool) -> Iterator[tuple[str, str, int, int, bool]]:
    """Measure, kind, first, last, whether in processes of their own."""
    for kind, total in INPUTS.items():
        for first in range(0, total, BLOCK):
            last = min(first + BLOCK, total)
            yield f"{kind} {first}-{last - 1}: failures", kind, first, (first + 24 if quick else last), False
        yield f"{kind} in processes: failures", kind, 0, (1 if quick else PROCESSES[kind]), True


def main() -> None:
    """Blocks of files, of models, of options."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", default=["*"], help="patterns of rows, e.g. 'files*'")
    given = made.parse_args()
    sheet, plan = Sheet(NAME, quick=given.quick), list(planned(given.quick))
    if given.quick:
        plan = [row for row in plan if row[2] == 0]
    for measure, kind, first, last, apart in plan:
        if any(fnmatch(measure, pattern) for pattern in given.only):
            sheet.measure(measure, partial(measured, kind, first, last, apart), seeds=[SEEDS[kind]], bar=0)
    sheet.finish(measure for measure, *_ in plan)


if __name__ == "__main__":
    main()
