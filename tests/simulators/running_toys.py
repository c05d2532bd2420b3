"""Simulators for tests of running one: quick, with everything an event can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.simulators.base import Simulator


@dataclass(frozen=True)
class Jets(Simulator):
    """Clouds of up to three points given a vector, with weights."""

    name: ClassVar[str] = "toy-jets"
    block: ClassVar[int] = 10
    weighted: ClassVar[bool] = True

    width: float = 1.0

    def spec(self) -> EventSpec:
        return {"points": Field("cloud", (3, 2), (Column("a", "GeV"), Column("b")))}

    def context_spec(self) -> EventSpec:
        return vector_spec([Column("energy", "GeV")], "jet")

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        mask = np.arange(3) < rng.integers(0, 4, (n, 1))
        points = np.where(mask[..., None], self.width * rng.normal(size=(n, 3, 2)), 0.0)
        context = Events({"jet": rng.exponential(size=(n, 1))})
        return Events({"points": points}, {"points": mask}, context, rng.exponential(size=n))


@dataclass(frozen=True)
class Broken(Jets):
    """Makes one event too few."""

    name: ClassVar[str] = "toy-broken"

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        return super().generate(n - 1, rng)


@dataclass(frozen=True)
class Failing(Jets):
    """Fails in one block, once a file says so no longer."""

    name: ClassVar[str] = "toy-failing"
    flag: str = ""

    def block_events(self, seed: int, block: int) -> Events:
        from pathlib import Path

        if block == 2 and Path(self.flag).exists():
            raise RuntimeError("the detector is switched off")
        return super().block_events(seed, block)


@dataclass(frozen=True)
class Absent(Jets):
    """Needs what nobody has."""

    name: ClassVar[str] = "toy-absent"
    modules: ClassVar[tuple[str, ...]] = ("no_such_generator",)
