"""`import pofx` in fresh processes: how long it takes, and that it brings no torch; and `pofx --help`.

The time is that of the whole process, interpreter included; `import_seconds` is the import alone, and `cpu_seconds` what a process
costs whatever else runs on the machine. Nothing here is random.
"""

import resource
import statistics
import subprocess
import sys
import time

from common import Row
from measuring import Sheet, environment, parser

NAME = "02_import"
BAR = 0.5
IMPORT = "import sys, time; begun = time.perf_counter(); import pofx; print(time.perf_counter() - begun, 'torch' in sys.modules)"


def fresh(arguments: list[str]) -> tuple[float, str]:
    """Seconds and output of a process of its own."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment())
    return time.perf_counter() - begun, done.stdout


def repeated(arguments: list[str], times: int) -> tuple[Row, list[str]]:
    """Median seconds, with half the distance between the quartiles as its error; and the outputs."""
    before = _cpu_seconds()
    runs = [fresh(arguments) for _ in range(times)]
    seconds = [round(s, 4) for s, _ in runs]
    low, middle, high = statistics.quantiles(seconds, n=4)
    cpu = (_cpu_seconds() - before) / times
    return {"value": middle, "error": (high - low) / 2, "all": seconds, "cpu_seconds": cpu}, [out for _, out in runs]


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def importing(times: int) -> Row:
    """`import pofx`."""
    row, outputs = repeated(["-c", IMPORT], times)
    inside = statistics.median(float(out.split()[0]) for out in outputs)
    torch = any(out.split()[1] == "True" for out in outputs)
    return {**row, "passed": row["value"] < BAR and not torch, "torch": torch, "import_seconds": inside}


def helping(times: int) -> Row:
    """`pofx --help`."""
    row, outputs = repeated(["-m", "pofx.cli", "--help"], times)
    return {**row, "passed": all("fit" in out for out in outputs)}


def main() -> None:
    """Both rows."""
    options = parser(__doc__).parse_args()
    times = 3 if options.quick else 10
    sheet = Sheet(NAME, quick=options.quick)
    fresh(["-c", IMPORT])  # compiles what has to be
    sheet.measure("import pofx: seconds", lambda: importing(times), seeds=(), bar=BAR)
    sheet.measure("pofx --help: seconds", lambda: helping(times), seeds=())
    sheet.finish(["import pofx: seconds", "pofx --help: seconds"])


if __name__ == "__main__":
    main()
