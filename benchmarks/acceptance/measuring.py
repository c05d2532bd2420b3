"""What the scripts of this folder share: a sheet of rows that survives an interruption, a number with its error, a clean environment.

A script is run as `python benchmarks/acceptance/NN_name.py`, with `--quick` for a rehearsal of seconds whose numbers mean nothing and are
kept apart. A script may be asked for some of its rows only; they are kept, and the result is written when all rows are there.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESULTS, ROOT, Row, alone, git, load_partial, record, save_partial, saved_by_any

from pofx.errors import PofxError

QUICK = "rehearsal: these numbers mean nothing"
sys.path[1:1] = [str(ROOT / "benchmarks"), str(ROOT / "tests"), str(ROOT / "tests" / "training")]


class Mean(NamedTuple):
    """A mean and its standard error."""

    value: float
    error: float


def mean(values: Any) -> Mean:
    """Of independent numbers; of differences on the same events it is the paired one."""
    numbers = np.asarray(values, dtype=np.float64)
    return Mean(float(numbers.mean()), float(numbers.std(ddof=1) / math.sqrt(len(numbers))))


def parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a script."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--quick", action="store_true", help="a rehearsal of seconds, whose result is kept apart")
    return made


class Sheet:
    """The rows of one script: those of an interrupted run, and new ones as they are measured.

    A row that pofx refuses to measure (a `PofxError`) is a failed one; any other exception ends the script. With `any_source`, rows of an
    older source are kept, and every row says of which commit it is. Several processes may measure different rows at the same time.

    `keep` says which of the rows on the disk still hold; those of other settings do not.
    """

    def __init__(self, name: str, *, quick: bool, any_source: bool = False, keep: Callable[[Row], bool] = bool) -> None:
        self.name, self.quick, self.any_source, self.keep = name, quick, any_source, keep
        self.rows: list[Row] = [] if quick else load_partial(name, any_source=any_source, keep=keep)

    def measure(self, measure: str, make: Callable[[], Row], *, seeds: Iterable[int], bar: float | None = None) -> None:
        """Add the row unless it is there. `make` gives at least value, error and passed."""
        if any(row["measure"] == measure for row in self.rows):
            print(f"{measure}: measured before", flush=True)
            return
        begun = time.monotonic()
        try:
            made = make()
        except PofxError as error:
            made = {"value": None, "error": None, "passed": False, "refused": f"{type(error).__name__}: {error}"}
        seconds = round(time.monotonic() - begun, 1)
        row = {"measure": measure, "bar": bar, "seeds": list(seeds), "seconds": seconds, **made}
        row |= {"commit": git("rev-parse", "--short", "HEAD")} if self.any_source else {}
        self.rows.append(row)
        print(_line(row), flush=True)
        if not self.quick:
            with alone(self.name):
                self._add_others()
                save_partial(self.name, self.rows)

    def finish(self, expected: Iterable[str]) -> None:
        """Write the result if every expected row is there (in that order); a long table also before, with the names of what is missing."""
        with alone(self.name):
            self._finish(list(expected))

    def _finish(self, order: list[str]) -> None:
        if self.any_source and not self.quick:
            self._add_others()
            self.rows = [row for row in self.rows if row["measure"] in order]
        missing = [measure for measure in order if measure not in {row["measure"] for row in self.rows}]
        if missing:
            print(f"{self.name}: {len(missing)} of {len(order)} rows to come: {', '.join(missing[:8])}", flush=True)
            if not self.any_source or self.quick:
                return
        rows = sorted(self.rows, key=lambda row: order.index(row["measure"]))
        if self.quick:
            path = RESULTS / "partial" / f"quick_{self.name}.json"
            record(f"{self.name}-quick", [{**row, "note": QUICK} for row in rows], path=path)
        else:
            path = record(self.name, rows, missing=missing)
        print(f"{path.name}: {sum(row['passed'] is not False for row in rows)} of {len(rows)} rows pass", flush=True)

    def _add_others(self) -> None:
        """Rows that another process has saved meanwhile."""
        known = {row["measure"] for row in self.rows}
        for saved in reversed(saved_by_any(self.name, any_source=self.any_source)):
            new = [row for row in saved["rows"] if row["measure"] not in known and self.keep(row)]
            self.rows += new
            known |= {row["measure"] for row in new}


def environment(**extra: str) -> dict[str, str]:
    """Of a child process: this one's, with this source of pofx first."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **extra}


def public_data() -> Path:
    """The folder of public data; ends the script where there is none."""
    folder = Path(os.environ.get("POFX_DATA", "nowhere")).expanduser()
    if not folder.is_dir():
        sys.exit("needs the public data: set POFX_DATA to their folder")
    return folder.resolve()


def _line(row: Row) -> str:
    numbers = " ".join(
        f"{key}={row[key]:.4g}" for key in ("value", "error", "bar") if isinstance(row[key], int | float)
    )
    verdict = {True: "pass", False: "FAIL", None: ""}[row["passed"]]
    return f"{row['measure']}: {numbers} {verdict} ({row['seconds']} s)" + (
        f" {row['refused']}" if "refused" in row else ""
    )
