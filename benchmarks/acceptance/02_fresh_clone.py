"""A fresh clone: `make demo` and, in another clone, `make test`, each as the only command.

The clone is that of the last commit. Set-up (the virtual environment with everything in it) ends when the Makefile touches the mark of
its environment; the bars are for what comes after. PYTHON and TORCH_INDEX of the environment reach make; POFX_DATA does not. Nothing here
is random.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from common import ROOT, Row
from measuring import Sheet, parser

NAME = "02_fresh_clone"
DROPPED = ("POFX_DATA", "PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")
LIMIT = 3600.0
"""Seconds after which a command is given up."""


class Target(NamedTuple):
    """A target of the Makefile: the mark that ends the set-up, minutes allowed after it, and a file that must be there then."""

    name: str
    mark: str
    minutes: float
    result: str


TARGETS = (
    Target("demo", ".venv/.core", 5.0, "demo-output/report.html"),
    Target("test", ".venv/.dev", 10.0, "Makefile"),
)
QUICK = (Target("help", "Makefile", 1.0, "Makefile"),)


class Run(NamedTuple):
    """Minutes of the set-up and of the rest, exit status, last lines of the output, and whether the result is there."""

    setup: float
    rest: float
    status: int
    said: str
    result: bool


def run(target: Target) -> Run:
    """Clone, make, and look at the clock."""
    env = {key: value for key, value in os.environ.items() if key not in DROPPED}
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        begun = time.time()
        with (Path(folder) / "output").open("w+") as output:
            status = subprocess.run(
                ["make", target.name],
                cwd=clone,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                check=False,
            ).returncode
            ended = time.time()
            output.seek(0)
            text = output.read()
        mark = clone / target.mark
        ready = max(begun, mark.stat().st_mtime) if mark.exists() else ended
        print(text[-2000:], flush=True)
        return Run((ready - begun) / 60, (ended - ready) / 60, status, _summary(text), (clone / target.result).exists())


def _summary(text: str) -> str:
    """The line that pytest ends with, if it ran."""
    found = re.findall(r"^=+ (.*(?:passed|failed|error).*) =+$", text, re.MULTILINE)
    return found[-1] if found else ""


def setup_row(once: Callable[[], Run]) -> Row:
    """Without a bar: it depends on the network."""
    found = once()
    torch = os.environ.get("TORCH_INDEX", "the default")
    return {"value": found.setup, "error": None, "passed": None, "exit": found.status, "torch_index": torch}


def rest_row(target: Target, once: Callable[[], Run]) -> Row:
    """Within its minutes, without failing, and with a result."""
    found = once()
    passed = found.rest < target.minutes and found.status == 0 and found.result
    return {"value": found.rest, "error": None, "passed": passed, "exit": found.status, "pytest": found.said}


def main() -> None:
    """Two rows per target, of one run."""
    options = parser(__doc__).parse_args()
    sheet, expected = Sheet(NAME, quick=options.quick), []
    for target in QUICK if options.quick else TARGETS:
        runs: list[Run] = []

        def once(target: Target = target, runs: list[Run] = runs) -> Run:
            if not runs:
                runs.append(run(target))
            return runs[0]

        after, setup = f"make {target.name}, after set-up: minutes", f"make {target.name}, set-up: minutes"
        sheet.measure(setup, partial(setup_row, once), seeds=())
        sheet.measure(after, partial(rest_row, target, once), seeds=(), bar=target.minutes)
        expected += [setup, after]
    sheet.finish(expected)


if __name__ == "__main__":
    main()
