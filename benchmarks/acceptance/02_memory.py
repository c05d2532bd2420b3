"""Peak memory of `pofx fit` on an HDF5 file of 5 GB: resident set size at its peak minus that after the imports.

Seed 1. The file (25 million events of 50 float32 columns) is made block by block in a temporary folder and removed afterwards. The
child is the entry point of the command `pofx`; it imports first what a fit needs, and notes its size. The parent reads the kernel's own
high-water mark from /proc (Linux only) until the child has ended.
"""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from common import Row
from measuring import Sheet, environment, parser

from pofx.simulators.densities import correlation_matrix

NAME = "02_memory"
SEED = 1
GIGABYTE = 1e9
BYTES, COLUMNS, BLOCK = 5 * GIGABYTE, 50, 1 << 17
STEPS = 300
BAR = 1.0
"""Gigabytes."""
FIT = ["--model", "spline-flow", "--set", "layers=2", "--set", "hidden=(64,64)", "--seed", str(SEED)]
CHILD = """
import sys
import h5py, torch
import pofx.cli, pofx.data.reading, pofx.models.fitting, pofx.models.flows, pofx.models.saving, pofx.training.loop
def size():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
open(sys.argv[1], "w").write(str(1024 * size()))
pofx.cli.main(sys.argv[2:])
"""


def write(path: Path, size: float) -> int:
    """A file of correlated normal events; how many."""
    root = np.linalg.cholesky(correlation_matrix(COLUMNS)).astype(np.float32)
    rng, events = np.random.default_rng(SEED), int(size / (4 * COLUMNS))
    with h5py.File(path, "w") as file:
        table = file.create_dataset("x", (events, COLUMNS), "f4", chunks=(8192, COLUMNS))
        for start in range(0, events, BLOCK):
            rows = min(BLOCK, events - start)
            table[start : start + rows] = rng.standard_normal((rows, COLUMNS), dtype=np.float32) @ root.T
    return events


def peak(child: subprocess.Popen[bytes]) -> int:
    """High-water mark of the resident set size in bytes, read until the child has ended."""
    highest = 0
    while child.poll() is None:
        try:
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        except FileNotFoundError:
            break
        highest = max([highest, *(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.02)
    return highest


def measured(size: float, steps: int) -> Row:
    """Write, fit, look."""
    with tempfile.TemporaryDirectory() as folder:
        data, note = Path(folder) / "large.h5", Path(folder) / "size"
        events = write(data, size)
        on_disk = data.stat().st_size / GIGABYTE
        words = ["fit", str(data), *FIT, "--steps", str(steps), "-o", str(Path(folder) / "model.pofx")]
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(note), *words], env=environment())
        highest = peak(child)
        status, imports = child.wait(), int(note.read_text())
    value = (highest - imports) / GIGABYTE
    sizes = {"peak": highest / GIGABYTE, "after_imports": imports / GIGABYTE, "file": on_disk}
    return {
        "value": value,
        "error": None,
        "passed": value < BAR and status == 0,
        "exit": status,
        "events": events,
        **sizes,
    }


def main() -> None:
    """One row."""
    options = parser(__doc__).parse_args()
    sheet, measure = Sheet(NAME, quick=options.quick), "pofx fit on 5 GB: peak minus imports, GB"
    size, steps = (2e6, 3) if options.quick else (BYTES, STEPS)
    sheet.measure(measure, partial(measured, size, steps), seeds=[SEED], bar=BAR)
    sheet.finish([measure])


if __name__ == "__main__":
    main()
