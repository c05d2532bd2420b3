"""Public formats: seconds to read, filter and split a million LHC Olympics events, and memory while 10 GB of JetNet stream.

Seed 1. Both files are made in a temporary folder and removed afterwards. The JetNet file has 10 GB of particle features in compressed
chunks of repeated jets, so that it is small on disk; the child goes through all events in pieces of 1000, and the parent reads the
kernel's high-water mark of its resident set (Linux only), minus its size after the imports.
"""

import importlib
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from common import Row
from measuring import Sheet, environment, parser

import pofx
from pofx.data.public.lhco import NEEDED, dijets, pandas_extras, regions

memory: Any = importlib.import_module("02_memory")

NAME = "06_formats"
SEED, EVENTS, BYTES = 1, 1_000_000, 10e9
SECONDS, GIGABYTES = 5.0, 1.0
CHUNK = 4096
CHILD = """
import sys
import h5py, pofx.data.reading, pofx.data.public.clouds
def size():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
open(sys.argv[1], "w").write(str(1024 * size()))
data = pofx.data.reading.read(sys.argv[2])
assert sum(len(events) for events in data.chunks(1000)) == int(sys.argv[3])
"""


def lhco(events: int) -> Row:
    """Read, derive, filter, split."""
    rng = np.random.default_rng(SEED)
    values = np.abs(rng.normal(0, 1500, (events, len(NEEDED) + 1)))
    values[:, -1] = rng.random(events) < 0.01
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.features.h5"
        extras = pandas_extras("df", np.array([*NEEDED, "label"], "S"), events)
        with h5py.File(path, "w") as file:
            for name, array in {"df/block0_values": values, **extras.arrays}.items():
                file[name] = array
        begun, worked = time.monotonic(), time.process_time()
        signal, sideband = regions(dijets(pofx.read(path)))
        parts = [len(part) for data in (signal, sideband) for part in (data.train, data.val, data.test)]
        seconds, worked = time.monotonic() - begun, time.process_time() - worked
    passed = seconds < SECONDS and sum(parts) == events
    return {"value": seconds, "error": None, "passed": passed, "cpu": worked, "events": events, "parts": parts}


def jetnet(path: Path, size: float) -> int:
    """A file of so many bytes of particle features, compressed; how many jets."""
    rng, events = np.random.default_rng(SEED), int(size / (150 * 4 * 4)) // CHUNK * CHUNK
    jets = rng.normal(size=(1, 150, 4)).astype(np.float32).repeat(CHUNK, 0)
    jets[..., 3] = 1
    features = rng.uniform(1, 9, (1, 4)).astype(np.float32).repeat(CHUNK, 0)
    with h5py.File(path, "w") as file:
        for name, block in (("particle_features", jets), ("jet_features", features)):
            shape = (events, *block.shape[1:])
            made = file.create_dataset(name, shape, "f4", chunks=(256, *shape[1:]), compression="lzf")
            for start in range(0, events, CHUNK):
                made[start : start + CHUNK] = block
    return events


def streamed(size: float) -> Row:
    """Write, stream, look."""
    with tempfile.TemporaryDirectory() as folder:
        data, note = Path(folder) / "jets.hdf5", Path(folder) / "size"
        events = jetnet(data, size)
        on_disk = data.stat().st_size / 1e9
        words = [sys.executable, "-c", CHILD, str(note), str(data), str(events)]
        child = subprocess.Popen(words, env=environment())
        highest = memory.peak(child)
        status, imports = child.wait(), int(note.read_text())
    value = (highest - imports) / 1e9
    row = {"value": value, "error": None, "passed": value < GIGABYTES and status == 0, "exit": status, "events": events}
    return {**row, "logical": events * 150 * 16 / 1e9, "on_disk": on_disk}


def main() -> None:
    """Two rows."""
    options = parser(__doc__).parse_args()
    sheet = Sheet(NAME, quick=options.quick)
    events, size = (20_000, 40e6) if options.quick else (EVENTS, BYTES)
    rows = (
        ("LHC Olympics, a million events read, filtered on mjj and split: seconds", partial(lhco, events), SECONDS),
        ("JetNet, 10 GB streamed: peak minus imports, GB", partial(streamed, size), GIGABYTES),
    )
    for measure, make, bar in rows:
        sheet.measure(measure, make, seeds=[SEED], bar=bar)
    sheet.finish(row[0] for row in rows)


if __name__ == "__main__":
    main()
