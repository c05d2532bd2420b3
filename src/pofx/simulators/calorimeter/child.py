"""The child process: ``python -P child.py FOLDER`` reads job.json and primaries.npz there and writes deposits.npz.

It imports nothing of pofx. A stack is one placed volume per slab, whose copy number is the layer of its readout; a readout's cells are
replicas inside. Energies are added up by Geant4's own scorers, and their maps are read once per event: nothing of Python runs in a step.
"""

from __future__ import annotations

# mypy: disable-error-code="misc"
import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

Job = dict[str, Any]


class Absent:
    """In place of Geant4 where this file is only looked at: to import Geant4 without its variables would make it look for data."""

    def __getattr__(self, name: str) -> type:
        return object


g4: Any = importlib.import_module("geant4_pybind") if __name__ == "__main__" else Absent()
KEPT: list[Any] = []
"""Geant4 owns what it is given, and Python must not collect it."""


def keep(thing: Any) -> Any:
    """The same, never collected."""
    KEPT.append(thing)
    return thing


class RefusedError(Exception):
    """What the user has to change."""


class Stack(g4.G4VUserDetectorConstruction):
    """The world, slabs in it, cells in slabs."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.cells: dict[int, list[Any]] = {}

    def Construct(self) -> Any:
        """The world's volume."""
        half, depth = 0.5 * self.job["width"] + 100.0, self.job["depth"]
        world = self.volume("world", keep(g4.G4Box("world", half, half, 0.5 * depth + 100.0)), "G4_Galactic")
        placed = keep(g4.G4PVPlacement(None, g4.G4ThreeVector(), world, "world", None, False, 0))
        made: dict[tuple[str, float, int], Any] = {}
        for slab in self.job["slabs"]:
            key = (slab["material"], slab["thickness"], slab["readout"])
            if key not in made:
                made[key] = self.slab(*key)
            z = slab["start"] + 0.5 * slab["thickness"] - 0.5 * depth
            place = g4.G4ThreeVector(0.0, 0.0, z)
            keep(g4.G4PVPlacement(None, place, made[key], "slab", world, False, max(slab["layer"], 0)))
        return placed

    def volume(self, name: str, solid: Any, material: str) -> Any:
        """A logical volume."""
        found = g4.G4NistManager.Instance().FindOrBuildMaterial(material)
        if found is None:
            raise RefusedError(f"Geant4 knows no material {material!r}")
        return keep(g4.G4LogicalVolume(solid, found, name))

    def slab(self, material: str, thickness: float, readout: int) -> Any:
        """A slab, with cells inside if it is read out."""
        width = self.job["width"]
        slab = self.volume("slab", self.solid(width, width, thickness), material)
        if readout >= 0:
            area, cell = self.area(material, thickness, self.job["readouts"][readout])
            keep(g4.G4PVPlacement(None, g4.G4ThreeVector(), area, "area", slab, False, 0))
            self.cells.setdefault(readout, []).append(cell)
        return slab

    def solid(self, x: float, y: float, z: float) -> Any:
        """A block or a cylinder of full widths."""
        if self.job["round"]:
            return keep(g4.G4Tubs("tube", 0.0, 0.5 * x, 0.5 * z, 0.0, 2 * math.pi))
        return keep(g4.G4Box("box", 0.5 * x, 0.5 * y, 0.5 * z))

    def area(self, material: str, thickness: float, readout: Job) -> tuple[Any, Any]:
        """The part of a slab that is read out, and its smallest cell."""
        (_, n, m), (x, y), dz = readout["shape"], readout["size"], 0.5 * thickness
        area = self.volume("area", self.solid(x, y, thickness), material)
        if self.job["round"]:
            turn, dr = 2 * math.pi / n, 0.5 * y / m
            sector = keep(g4.G4Tubs("sector", 0.0, 0.5 * y, dz, -0.5 * turn, turn))
            ring = keep(g4.G4Tubs("ring", 0.0, dr, dz, -0.5 * turn, turn))
            steps = ((sector, g4.kPhi, n, turn, -math.pi), (ring, g4.kRho, m, dr, 0.0))
        else:
            row = keep(g4.G4Box("row", 0.5 * x / n, 0.5 * y, dz))
            pad = keep(g4.G4Box("pad", 0.5 * x / n, 0.5 * y / m, dz))
            steps = ((row, g4.kXAxis, n, x / n, 0.0), (pad, g4.kYAxis, m, y / m, 0.0))
        mother = area
        for solid, axis, count, width, offset in steps:
            inner = self.volume("cell", solid, material)
            if count > 1:
                keep(g4.G4PVReplica("cell", inner, mother, axis, count, width, offset))
            else:  # Geant4 never leaves a single replica that goes all the way round
                keep(g4.G4PVPlacement(None, g4.G4ThreeVector(), inner, "cell", mother, False, 0))
            mother = inner
        return area, mother

    def ConstructSDandField(self) -> None:
        """One detector per readout, one scorer per group of particles."""
        for readout, cells in self.cells.items():
            detector = keep(g4.G4MultiFunctionalDetector(f"readout{readout}"))
            g4.G4SDManager.GetSDMpointer().AddNewDetector(detector)
            shape = self.job["readouts"][readout]["shape"]
            for number, group in enumerate(self.job["scorers"]):
                scorer = keep(g4.G4PSEnergyDeposit3D(f"scorer{number}", *shape, 3, 1, 0))
                if group:
                    scorer.SetFilter(self.filter(f"filter{readout}.{number}", group))
                detector.RegisterPrimitive(scorer)
            for cell in cells:
                self.SetSensitiveDetector(cell, detector)

    def filter(self, name: str, group: list[str]) -> Any:
        """Lets the particles of a group pass."""
        found = keep(g4.G4SDParticleFilter(name))
        for particle in group:
            found.add(particle)
        return found


class Gun(g4.G4VUserPrimaryGeneratorAction):
    """Fires the particles of each event."""

    def __init__(self, job: Job, primaries: dict[str, Any]) -> None:
        super().__init__()
        self.gun, self.front, self.primaries = keep(g4.G4ParticleGun(1)), -0.5 * job["depth"], primaries
        self.starts = np.searchsorted(primaries["event"], np.arange(int(primaries["event"][-1]) + 2))
        table = g4.G4ParticleTable.GetParticleTable()
        self.kinds = {kind: table.FindParticle(kind) for kind in sorted(set(primaries["kind"].tolist()))}
        unknown = [kind for kind, found in self.kinds.items() if found is None]
        if unknown:
            raise RefusedError(f"Geant4 knows no particle {', '.join(unknown)}")

    def GeneratePrimaries(self, event: Any) -> None:
        """One vertex per particle."""
        number = event.GetEventID()
        for i in range(self.starts[number], self.starts[number + 1]):
            x, y, z = self.primaries["position"][i].tolist()
            self.gun.SetParticleDefinition(self.kinds[str(self.primaries["kind"][i])])
            self.gun.SetParticleEnergy(1000.0 * float(self.primaries["energy"][i]))
            self.gun.SetParticlePosition(g4.G4ThreeVector(x, y, z + self.front))
            self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(*self.primaries["direction"][i].tolist()))
            self.gun.GeneratePrimaryVertex(event)


class Reader(g4.G4UserEventAction):
    """Reads the scorers after each event."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.rows: list[Any] = []
        readouts = sorted({slab["readout"] for slab in job["slabs"]} - {-1})
        self.names = [(r, s, f"readout{r}/scorer{s}") for r in readouts for s in range(len(job["scorers"]))]

    def EndOfEventAction(self, event: Any) -> None:
        """Keep what is not empty, in the order of cells."""
        hits = event.GetHCofThisEvent()
        for readout, scorer, name in self.names:
            found = dict(hits.GetHC(g4.G4SDManager.GetSDMpointer().GetCollectionID(name)))
            cells = np.fromiter(found.keys(), np.int64, len(found))
            energies = np.fromiter(found.values(), np.float64, len(found))
            order = np.argsort(cells, kind="stable")
            self.rows.append((event.GetEventID(), readout, scorer, cells[order], 0.001 * energies[order]))

    def arrays(self) -> dict[str, Any]:
        """Of all events."""
        counts = [len(row[3]) for row in self.rows]
        event, readout, scorer = (np.repeat(np.array([row[i] for row in self.rows]), counts) for i in range(3))
        cell, energy = (np.concatenate([row[i] for row in self.rows]) for i in (3, 4))
        seen = energy > 0
        named = {"event": event, "readout": readout, "scorer": scorer, "cell": cell, "energy": energy}
        return {name: array[seen] for name, array in named.items()}


class Actions(g4.G4VUserActionInitialization):
    """Gun and reader."""

    def __init__(self, job: Job, primaries: dict[str, Any]) -> None:
        super().__init__()
        self.job, self.primaries = job, primaries
        self.reader: Any = None

    def Build(self) -> None:
        """Called when Geant4 has its physics, before which no action may be made."""
        self.reader = keep(Reader(self.job))
        self.SetUserAction(keep(Gun(self.job, self.primaries)))
        self.SetUserAction(self.reader)


class Electromagnetic(g4.G4VModularPhysicsList):
    """Standard electromagnetic physics and decays."""

    def __init__(self) -> None:
        super().__init__()
        self.RegisterPhysics(keep(g4.G4EmStandardPhysics()))
        self.RegisterPhysics(keep(g4.G4DecayPhysics()))


def run(folder: Path) -> None:
    """All events of a job."""
    job = json.loads((folder / "job.json").read_text())
    with np.load(folder / "primaries.npz", allow_pickle=False) as file:
        primaries = {name: file[name] for name in file.files}
    manager, stack = keep(g4.G4RunManager()), keep(Stack(job))
    actions = keep(Actions(job, primaries))
    manager.SetUserInitialization(stack)
    manager.SetUserInitialization(keep(Electromagnetic() if job["physics"] == "em" else g4.FTFP_BERT()))
    manager.SetUserInitialization(actions)
    commands = g4.G4UImanager.GetUIpointer()
    commands.ApplyCommand("/process/em/verbose 0")
    manager.Initialize()
    commands.ApplyCommand(f"/run/setCut {job['cut']} mm")
    commands.ApplyCommand("/random/setSeeds {} {}".format(*job["seeds"]))
    manager.BeamOn(int(primaries["event"][-1]) + 1)
    np.savez(folder / "written.npz", **actions.reader.arrays())
    (folder / "written.npz").replace(folder / "deposits.npz")


def main(folder: Path) -> int:
    """The exit code."""
    try:
        run(folder)
    except RefusedError as error:
        (folder / "refused.txt").write_text(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
