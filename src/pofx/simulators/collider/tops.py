"""Top-quark pairs with one or two leptons: what a detector sees, and the neutrinos that it does not.

Fields and columns are those of the public samples of nu-Flows (arXiv:2207.00664, one lepton) and nu2-Flows (arXiv:2307.02405, two), so
``pofx.write(..., format="nu-flows")`` and ``"nu2-flows"`` write them. W bosons decay to electrons and muons, not to taus; true neutrinos
are those of the W. Where there are two, the first is the neutrino, which belongs to the positive lepton, and the first lepton is the
positive one. The type of a lepton is 0 for an electron and 1 for a muon.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.data.numbers import Array
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.simulators.collider.base import ColliderSimulator
from pofx.simulators.collider.detector import ELECTRON, missing_momentum
from pofx.simulators.collider.generator import Batch
from pofx.simulators.collider.jets import cluster
from pofx.simulators.collider.particles import (
    NEUTRINOS,
    decay_products,
    flavour_hadrons,
    numbers,
    padded,
    visible,
)

__all__ = ["TopDilepton", "TopEvents", "TopLeptonJets"]

W, LEPTON_NUMBERS = 24, "11 13"
TYPE = Column("type", "", "discrete", 0.0, 1.0)


@dataclass(frozen=True)
class TopEvents(ColliderSimulator):
    """What the two channels have in common.

    Parameters
    ----------
    lepton_pt, jet_pt : least transverse momenta [GeV].
    reach : largest ``|eta|`` of leptons and jets.
    radius : of the jets.
    length : jets kept, hardest first.
    """

    leptons: ClassVar[int]
    least_jets: ClassVar[int]

    lepton_pt: float = 20.0
    jet_pt: float = 25.0
    reach: float = 2.5
    radius: float = 0.4
    length: int = 10

    def __post_init__(self) -> None:
        check_at_least(self, 1.0, "lepton_pt", "jet_pt")
        check_at_least(self, 0.1, "reach", "radius")
        check_at_least(self, self.least_jets, "length")

    def spec(self) -> EventSpec:
        return vector_spec(_columns(self.leptons), "neutrinos")

    def context_spec(self) -> EventSpec:
        energy = Column("energy", "GeV")
        jet = (*_momentum(), energy, Column("is_tagged", "", "discrete", 0.0, 1.0))
        return {
            **vector_spec([Column("MET", "GeV"), _phi("phi")], "met"),
            **vector_spec(_columns(self.leptons, energy, TYPE), "leptons"),
            **vector_spec(["njets", "nbjets"], "misc"),
            "jets": Field("cloud", (self.length, len(jet)), jet),
        }

    def select(self, batch: Batch, rng: np.random.Generator) -> Events:
        record = batch.particles
        seen = self.detector(visible(record, self.detector.reach), rng)
        leptons, rest = self.detector.leptons(seen, rng, self.lepton_pt)
        leptons = leptons[abs(leptons.eta) < self.reach]
        jets = cluster(rest, self.radius, self.jet_pt).momenta
        jets = jets[abs(jets.eta) < self.reach]
        tagged = self.detector.tagged(jets, flavour_hadrons(record, 5), flavour_hadrons(record, 4), rng)
        neutrinos = decay_products(record, (W,), NEUTRINOS)
        passed = self._passed(leptons, jets, neutrinos)
        context = self._context(leptons[passed], jets[passed], tagged[passed], missing_momentum(seen)[passed])
        return Events({"neutrinos": self._side_by_side(neutrinos[passed], "pt", "eta", "phi")}, context=context)

    def _passed(self, leptons: Any, jets: Any, neutrinos: Any) -> Array:
        """As many leptons and neutrinos as asked for, of opposite charge where there are two, and enough jets."""
        import awkward as ak

        right = (ak.num(leptons) == self.leptons) & (ak.num(neutrinos) == self.leptons)
        neutral = (self.leptons == 1) | (ak.sum(np.sign(leptons.id), axis=1) == 0)
        return ak.to_numpy(right & neutral & (ak.num(jets) >= self.least_jets))

    def _context(self, leptons: Any, jets: Any, tagged: Any, met: Array) -> Events:
        import awkward as ak

        kind = ak.where(abs(leptons.id) == ELECTRON, 0, 1)
        seen = self._side_by_side(ak.with_field(leptons, kind, "kind"), "pt", "eta", "phi", "E", "kind")
        cloud, mask = padded(ak.with_field(jets, tagged, "tagged"), self.length, "pt", "eta", "phi", "E", "tagged")
        counts = np.stack([ak.to_numpy(ak.num(jets)), ak.to_numpy(ak.sum(tagged, axis=1))], 1).astype(np.float64)
        return Events({"met": met, "leptons": seen, "misc": counts, "jets": cloud}, {"jets": mask})

    def _side_by_side(self, particles: Any, *names: str) -> Array:
        """Numbers of one or two particles; of two, the one whose PDG number says so first: l+ (negative), or neutrino (positive)."""
        import awkward as ak

        if self.leptons > 1:
            neutrino = abs(particles.id) % 2 == 0
            particles = particles[ak.argsort(ak.where(neutrino, -particles.id, particles.id), axis=1)]
        return np.concatenate([numbers(particles[:, i], *names) for i in range(self.leptons)], 1)

    @abstractmethod
    def decays(self) -> tuple[str, ...]:
        """Of the W bosons."""

    def process(self) -> tuple[str, ...]:
        return ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *self.decays())


@dataclass(frozen=True)
class TopDilepton(TopEvents):
    """Top pairs with two leptons: both neutrinos, given leptons, jets with tags and missing momentum."""

    name: ClassVar[str] = "ttbar-dilepton"
    leptons: ClassVar[int] = 2
    least_jets: ClassVar[int] = 2

    def decays(self) -> tuple[str, ...]:
        return ("24:onMode = off", f"24:onIfAny = {LEPTON_NUMBERS}")


@dataclass(frozen=True)
class TopLeptonJets(TopEvents):
    """Top pairs with one lepton: the neutrino, given the lepton, four or more jets with tags and missing momentum."""

    name: ClassVar[str] = "ttbar-lepton-jets"
    leptons: ClassVar[int] = 1
    least_jets: ClassVar[int] = 4

    def decays(self) -> tuple[str, ...]:
        """The positive W to leptons, the negative to quarks."""
        return ("24:onMode = off", f"24:onPosIfAny = {LEPTON_NUMBERS}", "24:onNegIfAny = 1 2 3 4 5")


def _phi(name: str) -> Column:
    return Column(name, "rad", "periodic", -math.pi, math.pi)


def _momentum(prefix: str = "") -> tuple[Column, ...]:
    return (Column(f"{prefix}pt", "GeV"), Column(f"{prefix}eta"), _phi(f"{prefix}phi"))


def _columns(count: int, *more: Column) -> list[Column]:
    """``pt eta phi ...`` of one; ``1_pt 1_eta 1_phi ... 2_pt ...`` of two."""
    if count == 1:
        return [*_momentum(), *more]
    every = [
        (*_momentum(f"{i}_"), *(Column(f"{i}_{c.name}", c.unit, c.type, c.low, c.high) for c in more)) for i in (1, 2)
    ]
    return [column for part in every for column in part]
