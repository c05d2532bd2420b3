"""`make demo` after set-up: simulation of universes by source, check, density, p-values, fit, release, report, under ten minutes.

The command of the Makefile runs in a process of its own with an empty cache folder, so that the null of the check is made as well.

    python benchmarks/acceptance/03_demo.py
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from common import Row
from measuring import Sheet, environment, parser

NAME = "03_demo"
BAR = 10.0
WRITTEN = (
    "report.html",
    "table.json",
    "universes.h5",
    "release/model.pofx",
    "release/validation.csv",
    "report-figures",
)


def demonstrated(scale: str) -> Row:
    """Minutes of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        out, begun = Path(folder) / "demo-output", time.monotonic()
        command = [sys.executable, "-m", "pofx.cli", "run", "cross-section", "--out", str(out), "--scale", scale]
        done = subprocess.run(
            command, env=environment(POFX_CACHE=f"{folder}/cache"), capture_output=True, text=True, check=False
        )
        minutes = (time.monotonic() - begun) / 60
        missing = [name for name in WRITTEN if not (out / name).exists()]
        table = json.loads((out / "table.json").read_text()) if not missing else {}
    return {
        "value": minutes,
        "error": None,
        "passed": done.returncode == 0 and not missing and minutes < BAR,
        "missing": missing,
        "stderr": done.stderr[-500:],
        "seconds_by_step": table.get("seconds"),
        "density": table.get("density", {}).get("chosen"),
        "fits": table.get("fits"),
    }


def main() -> None:
    """One row."""
    options = parser(__doc__).parse_args()
    sheet, measure = Sheet(NAME, quick=options.quick), "pofx run cross-section after set-up, minutes"
    sheet.measure(measure, partial(demonstrated, "smoke" if options.quick else "cpu"), seeds=[1], bar=BAR)
    sheet.finish([measure])


if __name__ == "__main__":
    main()
