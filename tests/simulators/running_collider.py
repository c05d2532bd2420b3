"""Collider simulators with small blocks, for tests of running them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pofx.simulators import Beams, JetNetJets, LHCOSignal, TopDilepton, TopLeptonJets


@dataclass(frozen=True)
class SmallSignal(LHCOSignal):
    """Blocks of five events."""

    name: ClassVar[str] = "test-lhco-signal"
    block: ClassVar[int] = 5


@dataclass(frozen=True)
class SmallDilepton(TopDilepton):
    """Blocks of 12 events without several interactions."""

    name: ClassVar[str] = "test-ttbar-dilepton"
    block: ClassVar[int] = 12
    beams: Beams = field(default_factory=lambda: Beams(mpi=False))


@dataclass(frozen=True)
class SmallLeptonJets(TopLeptonJets):
    """Blocks of 12 events without several interactions."""

    name: ClassVar[str] = "test-ttbar-lepton-jets"
    block: ClassVar[int] = 12
    beams: Beams = field(default_factory=lambda: Beams(mpi=False))


@dataclass(frozen=True)
class SmallJets(JetNetJets):
    """Blocks of 10 events without several interactions."""

    name: ClassVar[str] = "test-jetnet-jets"
    block: ClassVar[int] = 10
    beams: Beams = field(default_factory=lambda: Beams(mpi=False))
