"""Where Geant4's data sets are, and which physics they allow. Nothing is ever downloaded.

Looked for, in this order: the variables that Geant4 itself reads (``G4LEDATA`` and others); an official installation in
``GEANT4_DATA_DIR``, or where geant4-pybind keeps one (``~/.geant4_pybind``); a minimal directory of tables for electromagnetic physics,
named by ``POFX_GEANT4_DATA`` or found as ``geant4_em_data`` in ``POFX_DATA``.

Importing geant4-pybind without these variables makes it look for data and offer a download. So it is imported only in a child process whose
environment has them all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pofx.errors import ConfigError, MissingExtraError

__all__ = ["DATA_SETS", "Geant4Data", "find_data"]

DATA_SETS = {
    "G4LEDATA": "G4EMLOW",
    "G4ENSDFSTATEDATA": "G4ENSDFSTATE",
    "G4LEVELGAMMADATA": "PhotonEvaporation",
    "G4PARTICLEXSDATA": "G4PARTICLEXS",
    "G4SAIDXSDATA": "G4SAIDDATA",
    "G4RADIOACTIVEDATA": "RadioactiveDecay",
    "G4NEUTRONHPDATA": "G4NDL",
    "G4PIIDATA": "G4PII",
    "G4REALSURFACEDATA": "RealSurface",
    "G4ABLADATA": "G4ABLA",
    "G4INCLDATA": "G4INCL",
    "G4CHANNELINGDATA": "G4CHANNELING",
}
"""Variable and the beginning of the official folder's name."""

ELECTROMAGNETIC = {"G4LEDATA": "brem_SB", "G4ENSDFSTATEDATA": "ENSDFSTATE.dat"}
"""What standard electromagnetic physics reads, and what has to be there."""
HADRONIC = ("G4LEVELGAMMADATA", "G4PARTICLEXSDATA", "G4SAIDXSDATA")
"""What hadronic physics needs beside."""


@dataclass(frozen=True)
class Geant4Data:
    """Data sets that were found.

    Attributes
    ----------
    origin : where, for people.
    found : variable to folder.
    """

    origin: str
    found: Mapping[str, Path] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Variables without a folder."""
        return tuple(name for name in DATA_SETS if name not in self.found)

    @property
    def hadronic(self) -> bool:
        """Whether hadronic physics can run."""
        return all(name in self.found for name in HADRONIC)

    def text(self) -> str:
        """What was found, what is missing, which physics is off."""
        off = "" if self.hadronic else "; hadronic interactions are off: charged hadrons ionise, scatter and decay"
        return f"{self.origin}; missing: {', '.join(self.missing) or 'nothing'}{off}"

    def variables(self, empty: Path) -> dict[str, str]:
        """For the environment of a child process; what is missing points to an empty folder."""
        return {name: str(self.found.get(name, empty)) for name in DATA_SETS} | {"GEANT4_DATA_DIR": str(empty)}


def find_data(environment: Mapping[str, str] | None = None) -> Geant4Data:
    """The first place that has what electromagnetic physics needs.

    Parameters
    ----------
    environment : variables; this process's by default.

    Raises
    ------
    MissingExtraError : there is none; it says where was looked, and how to name one.
    ConfigError : a variable names a folder that is not there.
    """
    given = os.environ if environment is None else environment
    places = list(_places(given))
    for place in places:
        if _complete(place.found):
            return place
    looked = "; ".join(f"{place.origin}: {_lacks(place.found)}" for place in places) or "no variable names a folder"
    raise MissingExtraError(
        f"Geant4 needs its data sets for electromagnetic physics ({looked}). Set GEANT4_DATA_DIR to the folder of an official "
        "installation, or POFX_GEANT4_DATA to a folder with brem_SB/, epics2017/ and ensdf/ENSDFSTATE.dat; pofx downloads nothing"
    )


def _places(given: Mapping[str, str]) -> Iterator[Geant4Data]:
    single = {name: _folder(given, name) for name in DATA_SETS if given.get(name)}
    if single:
        yield Geant4Data("variables of Geant4", single)
    home = Path(given.get("HOME", "~")).expanduser() / ".geant4_pybind"
    official = [_folder(given, "GEANT4_DATA_DIR")] if given.get("GEANT4_DATA_DIR") else []
    for folder in [*official, *([home] if home.is_dir() else [])]:
        yield Geant4Data(f"an official installation, {folder}", _official(folder) | single)
    if given.get("POFX_GEANT4_DATA"):
        yield _minimal(_folder(given, "POFX_GEANT4_DATA"))
    bundled = Path(given.get("POFX_DATA", "")) / "geant4_em_data"
    if given.get("POFX_DATA") and bundled.is_dir():
        yield _minimal(bundled.resolve())


def _folder(given: Mapping[str, str], name: str) -> Path:
    folder = Path(given[name]).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{name} names {folder}, which is no folder")
    return folder.resolve()


def _official(folder: Path) -> dict[str, Path]:
    """The newest folder of each data set, by the numbers in its name."""

    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.name)]

    there = {name: [path for path in folder.glob(f"{start}*") if path.is_dir()] for name, start in DATA_SETS.items()}
    return {name: max(paths, key=version) for name, paths in there.items() if paths}


def _minimal(folder: Path) -> Geant4Data:
    there = {"G4LEDATA": folder, "G4ENSDFSTATEDATA": folder / "ensdf"}
    return Geant4Data("minimal tables of electromagnetic physics", {k: v for k, v in there.items() if v.is_dir()})


def _complete(found: Mapping[str, Path]) -> bool:
    return all(name in found and (found[name] / inside).exists() for name, inside in ELECTROMAGNETIC.items())


def _lacks(found: Mapping[str, Path]) -> str:
    lacking = [
        f"{name} ({inside})"
        for name, inside in ELECTROMAGNETIC.items()
        if name not in found or not (found[name] / inside).exists()
    ]
    return f"lacks {', '.join(lacking)}"
