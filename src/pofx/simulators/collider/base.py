"""What the collider simulators share: batches of Pythia's events are selected until there are enough."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pofx.data.events import Events
from pofx.data.stream import concat
from pofx.errors import ConfigError
from pofx.simulators.base import Simulator
from pofx.simulators.collider.detector import Detector
from pofx.simulators.collider.generator import Batch, Beams

__all__ = ["ColliderSimulator"]

LARGEST, TRIES = 200, 20_000


@dataclass(frozen=True)
class ColliderSimulator(Simulator):
    """Events of proton collisions.

    Parameters
    ----------
    beams : energy, underlying event, shower.
    detector : how it is seen.
    """

    block: ClassVar[int] = 500
    modules: ClassVar[tuple[str, ...]] = ("pythia8mc", "fastjet")

    beams: Beams = field(default_factory=Beams)
    detector: Detector = field(default_factory=Detector)

    @abstractmethod
    def process(self) -> tuple[str, ...]:
        """Pythia's settings of the hard process, its phase space and decays."""

    @abstractmethod
    def select(self, batch: Batch, rng: np.random.Generator) -> Events:
        """Those of the generated events that pass the cuts."""

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        """The first n events that pass.

        Raises
        ------
        MissingExtraError : Pythia or fastjet is not installed.
        ConfigError : a setting that Pythia refuses, or cuts that none of 20 000 events passes.
        """
        self.check_modules()
        sizes = _Sizes(n)
        found: list[Events] = []
        for batch in self.beams.batches(self.process(), rng, sizes):
            events = self.select(batch, rng)
            sizes.tell(len(batch.weight), len(events), self.name)
            found.append(events)
        return concat(found)[:n]

    def versions(self) -> Mapping[str, str]:
        from importlib.metadata import version

        return {name: version(name) for name in ("pythia8mc", "fastjet")}


class _Sizes(Iterator[int]):
    """Sizes of batches: as many events as are likely still needed, until there are enough."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.made, self.passed = wanted, 0, 0

    def __next__(self) -> int:
        left = self.wanted - self.passed
        if left <= 0:
            raise StopIteration
        rate = max(self.passed, 0.5) / self.made if self.made else 1.0
        return int(min(1.1 * left / rate + 2, LARGEST))

    def tell(self, made: int, passed: int, name: str) -> None:
        """What came of the last batch."""
        self.made, self.passed = self.made + made, self.passed + passed
        if self.made >= TRIES and not self.passed:
            raise ConfigError(f"{name}: none of {self.made} generated events passed the cuts")
