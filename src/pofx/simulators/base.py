"""What a simulator is: a frozen config that makes events of known fields, in blocks that are reproducible one by one.

Block k of a sample is a function of (settings, seed, k) alone. So a sample does not depend on the number of workers, its first events do
not depend on how many follow, and an interrupted run goes on where it stopped (:mod:`pofx.simulators.running`).
"""

from __future__ import annotations

import importlib
import importlib.util
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pofx.data.events import Events
from pofx.data.patterns import close
from pofx.data.spec import EventSpec
from pofx.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from pofx.data.dataset import Dataset

__all__ = ["Simulator", "simulator_class", "simulator_names", "simulators_text"]

_HOMES: dict[str, str] = {
    "qcd-dijets": "pofx.simulators.collider.dijets:QCDDijets",
    "lhco-signal": "pofx.simulators.collider.dijets:LHCOSignal",
    "lhco-background": "pofx.simulators.collider.dijets:LHCOBackground",
    "ttbar-dilepton": "pofx.simulators.collider.tops:TopDilepton",
    "ttbar-lepton-jets": "pofx.simulators.collider.tops:TopLeptonJets",
    "z-jets": "pofx.simulators.collider.zjets:ZJets",
    "jetnet-jets": "pofx.simulators.collider.jetnet:JetNetJets",
    "multijets": "pofx.simulators.collider.multijets:MultiJets",
    "shape": "pofx.simulators.catalogue:ShapeSimulator",
    "toy": "pofx.simulators.catalogue:ToySimulator",
    "random-field": "pofx.simulators.fields.maps:RandomField",
    "dust-map": "pofx.simulators.fields.dust:DustMap",
    "splitting-shower": "pofx.simulators.splitting.simulator:SplittingShower",
    "geant4-shower": "pofx.simulators.calorimeter.geant4:Geant4Shower",
    "gflash-shower": "pofx.simulators.calorimeter.gflash:GFlashShower",
    "lartpc-geant4": "pofx.simulators.lartpc.geant4:ChamberGeant4",
    "lartpc-walk": "pofx.simulators.lartpc.walk:ChamberWalk",
}
"""Simulators by name, ``module:Class``."""


@dataclass(frozen=True)
class Simulator(ABC):
    """A source of simulated events; calling it makes a data set.

    Attributes
    ----------
    name : by which ``pofx simulate`` knows it.
    block : events per block, part of what makes a sample reproducible: few where an event is expensive.
    modules : what has to be installed beyond pofx; ``pip install "pofx[sim]"`` does it.
    weighted : whether events carry weights.
    """

    name: ClassVar[str]
    block: ClassVar[int] = 1000
    modules: ClassVar[tuple[str, ...]] = ()
    weighted: ClassVar[bool] = False

    @abstractmethod
    def spec(self) -> EventSpec:
        """The fields of an event, with units."""

    def context_spec(self) -> EventSpec | None:
        """The fields of its context; None without one."""
        return None

    @abstractmethod
    def generate(self, n: int, rng: np.random.Generator) -> Events:
        """n events (numpy), with context, masks and weights where the specs have them."""

    def versions(self) -> Mapping[str, str]:
        """Of the generators behind it, for the card."""
        return {}

    def rng(self, seed: int, block: int) -> np.random.Generator:
        """The random numbers of one block."""
        entropy = (abs(int(seed)), int(seed < 0), zlib.crc32(self.name.encode()), block)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))

    def block_events(self, seed: int, block: int) -> Events:
        """A whole block."""
        return self.generate(self.block, self.rng(seed, block))

    def check_modules(self) -> None:
        """MissingExtraError, with the command that helps, unless everything needed is installed."""
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingExtraError(f'{self.name} needs {", ".join(missing)}: pip install "pofx[sim]"')

    def __call__(self, n: int, *, seed: int, workers: int = 1) -> Dataset:
        """A data set of n events in memory; the same for any number of workers."""
        from pofx.simulators.running import simulate

        return simulate(self, n, seed=seed, workers=workers)


def simulator_names() -> tuple[str, ...]:
    """All names."""
    return tuple(_HOMES)


def simulator_class(name: str) -> type[Simulator]:
    """The class of a name; ConfigError with the nearest names otherwise."""
    if name not in _HOMES:
        raise ConfigError(f"no simulator is called {name!r}; {close(name, _HOMES)}")
    module, _, attribute = _HOMES[name].partition(":")
    found: type[Simulator] = getattr(importlib.import_module(module), attribute)
    return found


def simulators_text() -> str:
    """All simulators with the first line of what they say of themselves."""
    names = simulator_names()
    if not names:
        return "no simulators in this version"
    width = max(map(len, names))
    about = {name: (simulator_class(name).__doc__ or "").strip().partition("\n")[0] for name in names}
    return "\n".join(f"{name.ljust(width)}  {about[name]}" for name in names)
