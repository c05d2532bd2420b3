r"""Jets of one kind as clouds of particles, in the conventions of JetNet (arXiv:2106.11535).

The hardest jets of gluon, quark and top-quark pairs with transverse momenta about 1 TeV, anti-kT of radius 0.8, without detector:
relative coordinates :math:`\eta^{rel} = \eta - \eta_J`, :math:`\phi^{rel} = \phi - \phi_J`, :math:`p_T^{rel} = p_T / p_{T,J}` of
the 30 hardest particles. Quarks are light; tops decay to quarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.errors import ConfigError
from pofx.simulators.collider.base import ColliderSimulator
from pofx.simulators.collider.generator import Batch, phase_space
from pofx.simulators.collider.jets import cluster
from pofx.simulators.collider.particles import numbers, padded, visible

__all__ = ["JetNetJets"]

PROCESSES = {
    "g": ("HardQCD:gg2gg = on", "HardQCD:qqbar2gg = on"),
    "q": ("HardQCD:qq2qq = on", "HardQCD:gg2qqbar = on", "HardQCD:qqbar2qqbarNew = on", "HardQCD:nQuarkNew = 3"),
    "t": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onMode = off", "24:onIfAny = 1 2 3 4 5"),
}
PARTICLE = (Column("eta_rel"), Column("phi_rel", "rad"), Column("pt_rel"))
JET = (Column("pt", "GeV"), Column("eta"), Column("mass", "GeV"), Column("particles"))


@dataclass(frozen=True)
class JetNetJets(ColliderSimulator):
    """Gluon, quark or top jets of about 1 TeV as clouds of 30 particles; the jet's features are the context.

    Parameters
    ----------
    jet : ``"g"``, ``"q"`` or ``"t"``.
    length : particles kept, hardest first; the jet's number of particles counts all of them.
    radius : of the jet.
    pt_low, pt_high : of the jet [GeV].
    """

    name: ClassVar[str] = "jetnet-jets"

    jet: str = "g"
    length: int = 30
    radius: float = 0.8
    pt_low: float = 800.0
    pt_high: float = 1600.0

    def __post_init__(self) -> None:
        check_choice(self, "jet", tuple(PROCESSES))
        check_at_least(self, 1, "length")
        check_at_least(self, 0.1, "radius")
        check_at_least(self, 20.0, "pt_low")
        if not self.pt_high > 1.1 * self.pt_low:
            raise ConfigError(f"JetNetJets: pt_high must be above 1.1 pt_low; got {self.pt_low} and {self.pt_high}")

    def spec(self) -> EventSpec:
        return {"particles": Field("cloud", (self.length, 3), PARTICLE)}

    def context_spec(self) -> EventSpec:
        return vector_spec(JET, "jet")

    def process(self) -> tuple[str, ...]:
        return (*PROCESSES[self.jet], *phase_space(0.95 * self.pt_low, self.pt_high))

    def select(self, batch: Batch, rng: np.random.Generator) -> Events:
        import awkward as ak

        jets = cluster(visible(batch.particles), self.radius, 0.5 * self.pt_low)
        lead = ak.firsts(jets.momenta)
        inside = (lead.pt > self.pt_low) & (lead.pt < self.pt_high) & (abs(lead.eta) < 2.5)
        jets = jets[ak.to_numpy(ak.fill_none(inside, False))]
        axis, within = jets.momenta[:, 0], jets.constituents[:, 0]
        cloud, mask = padded(_relative(within, axis), self.length, "eta_rel", "phi_rel", "pt_rel")
        context = np.column_stack([numbers(axis, "pt", "eta", "mass"), ak.to_numpy(ak.num(within))])
        return Events({"particles": cloud}, {"particles": mask}, Events({"jet": context}))


def _relative(particles: Any, axis: Any) -> Any:
    """Coordinates relative to the jet, hardest first."""
    import awkward as ak

    ordered = particles[ak.argsort(particles.pt, ascending=False)]
    eta, phi = ordered.eta - axis.eta, ordered.deltaphi(axis)
    return ak.zip({"eta_rel": eta, "phi_rel": phi, "pt_rel": ordered.pt / axis.pt})
