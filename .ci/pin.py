"""Write constraints.txt: the exact versions that all extras resolve to today. The pin of torch is kept: edit it by hand.

usage: python3.11 .ci/pin.py (with the oldest Python that pofx supports, so that every newer one can install the pins)
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "constraints.txt"
EXTRAS = "test,docs,dev,bench,export,tensorboard,scale,sim"
BINARY = "pythia8mc,fastjet,geant4-pybind"  # nobody should compile these
CUDA = r"triton|nvidia-|cuda-"  # what only one build of torch brings
HEADER = """\
# Exact versions of everything that the extras bring in, for Python 3.11 and newer. `make constraints` writes this file.
# torch is installed first and alone, so that TORCH_INDEX chooses between its CPU and CUDA builds; the pin keeps it.
"""


def resolve(*requirements: str) -> list[dict[str, str]]:
    """Metadata of all that pip would install; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        options = ["--quiet", "--dry-run", "--ignore-installed", "--only-binary", BINARY, "--report", str(report)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *requirements], check=True, cwd=ROOT)
        return [item["metadata"] for item in json.loads(report.read_text())["install"]]


def pins(packages: list[dict[str, str]]) -> dict[str, str]:
    """Normalised name to public version (`2.13.0`, not `2.13.0+cpu`)."""
    versions = {re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"].partition("+")[0] for item in packages}
    return {name: version for name, version in sorted(versions.items()) if not re.match(rf"pofx$|{CUDA}", name)}


def main() -> None:
    """Resolve everything beside the pinned torch and write the file."""
    torch = next(line for line in FILE.read_text().split() if line.startswith("torch=="))
    lines = [f"{name}=={version}\n" for name, version in pins(resolve(torch, f".[{EXTRAS}]")).items()]
    FILE.write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
