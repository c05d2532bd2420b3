"""kill -9 at chosen moments of a training, resume, and compare with a training that was left alone, bit for bit.

A spline flow on the 50-dimensional mixture (1e5 toys, through `Family.fit` with a checkpoint), killed once per row, and at all five
moments in one training; then the loop's own test (two phases, dropout, momentum, EMA, accumulation) killed at random moments. The value
is the number of results that differ: of weights and buffers, of the history of the training, and of the best step. Seed 1.
"""

import importlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import Row
from measuring import Sheet, environment, parser

kill: Any = importlib.import_module("kill")  # tests/training: measuring says where

NAME = "02_resume"
SEED = 1
EPOCHS = 3
REAL = {"toys": 100_000, "every": 50, "width": 128}
QUICK = {"toys": 3000, "every": 2, "width": 8}
MOMENTS = ("start", "first checkpoint", "mid epoch", "validation", "near the end")
TOY_KILLS, LONGEST = 5, 4.0
"""How often the loop's own test is killed, each time within so many seconds of its first checkpoint."""


def train(folder: Path, settings: dict[str, int]) -> None:
    """The child: train, say in the file `moment` where the training is, and write down what came out."""
    import pofx
    from pofx.simulators.densities import MixtureBenchmark

    _announce(folder)
    training = pofx.Training(
        max_epochs=EPOCHS, learning_rate=1e-3, ema=0.999, clip=5.0, seed=SEED, progress=False,
        checkpoint=folder / "state", checkpoint_every=settings["every"],
    )  # fmt: skip
    family = pofx.SplineFlow(layers=3, hidden=(settings["width"],) * 2, dropout=0.1)
    model = family.fit(MixtureBenchmark().sample(settings["toys"], 1000 + SEED), training=training)
    record = model.card["training"]
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in record["history"]]
    result = {"weights": kill.digest(model.fitted), "history": history, "best_step": record["best_step"]}
    (folder / "result.json").write_text(json.dumps(result))


def _announce(folder: Path) -> None:
    """Write the moments as they come, by looking over the shoulder of the training."""
    from pofx.training import loop
    from pofx.training.stage import Stage

    begun: list[int] = []

    def validating(*arguments: Any, original: Any = loop.measure) -> Any:
        if begun:  # not of the initial weights
            _say(folder, "validation")
        return original(*arguments)

    def advancing(stage: Stage, steps: int, original: Any = Stage.advance) -> None:
        last = EPOCHS * stage.epoch_steps - 1
        words = {1: "start", 3 * stage.epoch_steps // 2: "mid epoch", last: "near the end"}
        begun[:] = [stage.step]
        if stage.step in words:
            _say(folder, words[stage.step])
        original(stage, steps)

    loop.measure = validating
    Stage.advance = advancing  # type: ignore[method-assign]


def _say(folder: Path, word: str) -> None:
    with (folder / "moment").open("a") as file:
        file.write(f"{word}\n")


def launch(folder: Path, settings: dict[str, int]) -> subprocess.Popen[bytes]:
    """A child of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "moment").unlink(missing_ok=True)
    words = [f"{key}={value}" for key, value in settings.items()]
    return subprocess.Popen([sys.executable, __file__, "--child", str(folder), *words], env=environment())


def kill_at(folder: Path, moment: str, settings: dict[str, int]) -> dict[str, Any]:
    """Start or resume the training, and kill it with SIGKILL as soon as the moment has come; what was on the disk then."""
    child, killed = launch(folder, settings), False
    while child.poll() is None and not killed:
        if _has_come(folder, moment):
            child.kill()
            killed = child.wait() == -signal.SIGKILL
        time.sleep(0.0005)
    return {"moment": moment, "killed": killed, "files": sorted(path.name for path in folder.glob("state*"))}


def _has_come(folder: Path, moment: str) -> bool:
    """A checkpoint is being written while its temporary file is there; of everything else the child speaks."""
    if moment == "first checkpoint":
        return (folder / "state.tmp").exists()
    said = folder / "moment"
    return said.exists() and moment in said.read_text().splitlines()


def finished(folder: Path, settings: dict[str, int]) -> dict[str, Any]:
    """Run to the end, from wherever the training stands."""
    status = launch(folder, settings).wait()
    if status:
        raise RuntimeError(f"the training ended with exit status {status}")
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def killed_row(home: Path, moments: Sequence[str], settings: dict[str, int]) -> Row:
    """Kill one training at all these moments, let it end, and compare."""
    alone = home / "alone"
    undisturbed = alone / "result.json"
    expected = json.loads(undisturbed.read_text()) if undisturbed.exists() else finished(alone, settings)
    folder = home / "-".join(moments).replace(" ", "_")
    kills = [kill_at(folder, moment, settings) for moment in moments]
    return {**compared(expected, finished(folder, settings), all(k["killed"] for k in kills)), "kills": kills}


def toy_row(home: Path, kind: str, quick: bool) -> Row:
    """The test of the loop, on data in memory or out of a file."""
    moments = kill.random_moments(1 if quick else TOY_KILLS, 0.5 if quick else LONGEST, SEED)
    pause = 0.002 if quick else 0.02
    found = kill.compare_after_kills(home / "toy", moments, kind, pause=pause)
    return {**compared(found["alone"], found["killed"], found["kills"] == len(moments)), "kills": found["kills"]}


def compared(alone: dict[str, Any], other: dict[str, Any], killed: bool) -> Row:
    """How many of the results differ; passed if none does and every kill hit a living process."""
    differ = [key for key in alone if alone[key] != other[key]]
    return {
        "value": len(differ),
        "error": None,
        "passed": not differ and killed,
        "differ": differ,
        "weights": other["weights"],
    }


def main() -> None:
    """One row per moment, one with all of them, two of the loop's test."""
    made = parser(__doc__)
    made.add_argument("--child", nargs="+", metavar=("FOLDER", "KEY=VALUE"), help="used by the script itself")
    options = made.parse_args()
    if options.child:
        train(
            Path(options.child[0]), {key: int(value) for key, _, value in (a.partition("=") for a in options.child[1:])}
        )
        return
    settings = QUICK if options.quick else REAL
    plan = {f"spline-flow, killed at: {moment}": (moment,) for moment in MOMENTS}
    plan["spline-flow, killed at all five in turn"] = MOMENTS
    sheet = Sheet(NAME, quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for measure, moments in plan.items():
            sheet.measure(measure, partial(killed_row, home, moments, settings), seeds=[SEED], bar=0)
        toys = {f"the loop's test, {kind}, killed at random": kind for kind in ("memory", "file")}
        for measure, kind in toys.items():
            sheet.measure(measure, partial(toy_row, home, kind, options.quick), seeds=[SEED], bar=0)
    sheet.finish([*plan, *toys])


if __name__ == "__main__":
    main()
