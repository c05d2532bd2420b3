"""A stack of layers, particles in, energies of cells out; Geant4 runs in a child process of its own.

Geant4 has one run manager per process, keeps state between runs, and prints. A child per run makes a run a function of its input
alone, and a crash an error of one line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pofx.errors import ConfigError, PofxError
from pofx.simulators.calorimeter.deposits import Deposits, Primaries
from pofx.simulators.calorimeter.environment import Geant4Data, find_data
from pofx.simulators.calorimeter.geometry import Calorimeter
from pofx.simulators.calorimeter.materials import material

__all__ = ["Geant4Run", "simulate_stack", "versions"]

CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True)
class Geant4Run:
    """How Geant4 runs.

    Parameters
    ----------
    physics : ``"em"``: standard electromagnetic physics and decays; ``"hadronic"``: FTFP_BERT, which needs official data.
    cut : range below which no secondary is made [mm].
    scorers : groups of particles whose deposits are kept apart; an empty group is all particles.
    """

    physics: Literal["em", "hadronic"] = "em"
    cut: float = 0.7
    scorers: tuple[tuple[str, ...], ...] = ((),)


def simulate_stack(stack: Calorimeter, run: Geant4Run, primaries: Primaries, rng: np.random.Generator) -> Deposits:
    """Run Geant4 on events in a stack; energies are as deposited, without factor and threshold.

    Raises
    ------
    MissingExtraError : there are no data for Geant4.
    ConfigError : official data are missing for hadronic physics; particles or materials unknown to Geant4.
    PofxError : Geant4 failed; its last lines are in the message.
    """
    data = find_data()
    if run.physics == "hadronic" and not data.hadronic:
        raise ConfigError(f"hadronic physics needs Geant4's official data; found {data.text()}")
    with tempfile.TemporaryDirectory(prefix="pofx-geant4-") as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        (folder / "job.json").write_text(json.dumps(_job(stack, run, rng)))
        np.savez(
            folder / "primaries.npz", **{f.name: getattr(primaries, f.name) for f in dataclasses.fields(primaries)}
        )
        _execute(folder, data)
        with np.load(folder / "deposits.npz", allow_pickle=False) as file:
            return Deposits(**{f.name: file[f.name] for f in dataclasses.fields(Deposits)})


def _job(stack: Calorimeter, run: Geant4Run, rng: np.random.Generator) -> Mapping[str, object]:
    """What the child reads."""
    slabs = [{**dataclasses.asdict(slab), "material": material(slab.material).geant4} for slab in stack.slabs]
    return {
        "seeds": [int(seed) for seed in rng.integers(1, 2**31 - 1, 2)],
        "physics": run.physics,
        "cut": run.cut,
        "scorers": [list(group) for group in run.scorers],
        "round": stack.round,
        "width": stack.width,
        "depth": stack.depth,
        "slabs": slabs,
        "readouts": [{"shape": list(r.shape), "size": list(r.size)} for r in stack.readouts],
    }


def _execute(folder: Path, data: Geant4Data) -> None:
    """Run the child. ``-P`` keeps its own folder, with modules of ordinary names, off the path."""
    environment = {**os.environ, **data.variables(folder / "empty")}
    command = [sys.executable, "-P", str(CHILD), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    refused = folder / "refused.txt"
    if refused.exists():
        raise ConfigError(refused.read_text())
    if done.returncode != 0 or not (folder / "deposits.npz").exists():
        raise PofxError(f"Geant4 ended with code {done.returncode}: {_last(done.stderr) or _last(done.stdout)}")


def _last(text: str, lines: int = 6) -> str:
    found: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(found[-lines:])


def versions() -> dict[str, str]:
    """Of geant4-pybind and of the data, for cards."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = {"geant4-pybind": version("geant4-pybind")}
    except PackageNotFoundError:
        return {}
    return found | {"geant4 data": ", ".join(sorted({folder.name for folder in find_data().found.values()}))}
