"""Events of many jets from QCD: what data-driven templates of backgrounds are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.simulators.collider.base import ColliderSimulator
from pofx.simulators.collider.generator import Batch, phase_space
from pofx.simulators.collider.jets import cluster
from pofx.simulators.collider.particles import padded, visible

__all__ = ["MultiJets"]


@dataclass(frozen=True)
class MultiJets(ColliderSimulator):
    """QCD events with several jets: number of jets, sum of their pT, pT and mass of the hardest, with weights.

    Parameters
    ----------
    jets : least number, and how many are written.
    pt_min, reach, radius : of all jets [GeV], largest ``|eta|``.
    lead_pt : of the hardest jet [GeV].
    pt_hat_min, bias : of the generated range [GeV], and power of pT by which hard events are preferred.
    """

    name: ClassVar[str] = "multijets"
    weighted: ClassVar[bool] = True

    jets: int = 4
    pt_min: float = 40.0
    reach: float = 2.5
    radius: float = 0.4
    lead_pt: float = 200.0
    pt_hat_min: float = 120.0
    bias: float = 4.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "jets")
        check_at_least(self, 10.0, "pt_min", "pt_hat_min", "lead_pt")
        check_at_least(self, 0.1, "reach", "radius")
        check_at_least(self, 0.0, "bias")

    def spec(self) -> EventSpec:
        each = [Column(f"{name}{i + 1}", "GeV") for name in ("pt", "m") for i in range(self.jets)]
        return vector_spec([Column("njets"), Column("ht", "GeV"), *each], "jets")

    def process(self) -> tuple[str, ...]:
        return ("HardQCD:all = on", *phase_space(self.pt_hat_min, bias=self.bias))

    def select(self, batch: Batch, rng: np.random.Generator) -> Events:
        import awkward as ak

        seen = self.detector(visible(batch.particles, self.detector.reach), rng)
        found = cluster(seen, self.radius, self.pt_min).momenta
        found = found[abs(found.eta) < self.reach]
        hard = ak.fill_none(ak.firsts(found.pt) > self.lead_pt, False)
        passed = ak.to_numpy(hard & (ak.num(found) >= self.jets))
        kept = found[passed]
        leading = padded(kept, self.jets, "pt", "mass")[0]
        total = [ak.to_numpy(ak.num(kept)), ak.to_numpy(ak.sum(kept.pt, axis=1))]
        x = np.column_stack([*total, leading[..., 0], np.maximum(leading[..., 1], 0.0)])
        return Events({"jets": x}, weight=batch.weight[passed])
