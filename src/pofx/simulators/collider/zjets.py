r"""Jets beside a Z boson: six observables of the hardest one, as generated and as seen (the benchmark of OmniFold, arXiv:1911.09107).

The Z decays to neutrinos, so all that is seen is its recoil. Jets are anti-kT of radius 0.4; the observables are mass, multiplicity,
width, :math:`\ln \rho = \ln (m_{SD}^2 / p_T^2)`, :math:`z_g` (soft drop, :math:`z_{cut} = 0.1`, :math:`\beta = 0`) and
:math:`\tau_{21} = \tau_2 / w`. Where a groomed mass or a width is zero, on either side, :math:`\ln \rho` or
:math:`\tau_{21}` does not exist, and the event is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.data.numbers import Array
from pofx.data.public.omnifold import SIX
from pofx.data.spec import EventSpec, vector_spec
from pofx.simulators.collider.base import ColliderSimulator
from pofx.simulators.collider.generator import Batch, Beams, phase_space
from pofx.simulators.collider.jets import Jets, cluster, n_subjettiness, soft_drop, width
from pofx.simulators.collider.particles import NEUTRINOS, decay_products, visible

__all__ = ["ZJets", "six_observables"]

Z = 23


@dataclass(frozen=True)
class ZJets(ColliderSimulator):
    """Z + jets: six observables of the hardest jet, generated (x) and seen by the detector (context).

    ``ZJets(beams=Beams(14000.0, mpi=False, shower="vincia"))`` is a second nature, with another shower. Partons interact once per
    collision unless ``mpi=True``, with which VINCIA takes about a second per event.

    Parameters
    ----------
    z_pt : least transverse momentum of the Z [GeV].
    radius : of the jets.
    jet_pt : of the hardest jet, on both sides [GeV].
    """

    name: ClassVar[str] = "z-jets"

    beams: Beams = field(default_factory=lambda: Beams(energy=14000.0, mpi=False))
    z_pt: float = 200.0
    radius: float = 0.4
    jet_pt: float = 20.0

    def __post_init__(self) -> None:
        check_at_least(self, 10.0, "z_pt")
        check_at_least(self, 1.0, "jet_pt")
        check_at_least(self, 0.1, "radius")

    def spec(self) -> EventSpec:
        return vector_spec(SIX, "gen")

    def context_spec(self) -> EventSpec:
        return vector_spec(SIX, "sim")

    def process(self) -> tuple[str, ...]:
        """The Z may gain transverse momentum after the hard process: generated is from 80 % of the cut."""
        hard = ("WeakBosonAndParton:qqbar2gmZg = on", "WeakBosonAndParton:qg2gmZq = on", "WeakZ0:gmZmode = 2")
        return (*hard, "23:onMode = off", "23:onIfAny = 12 14 16", *phase_space(0.8 * self.z_pt))

    def select(self, batch: Batch, rng: np.random.Generator) -> Events:
        import awkward as ak

        neutrinos = decay_products(batch.particles, (Z,), NEUTRINOS)
        recoil = np.hypot(*(ak.to_numpy(ak.sum(p, axis=1)) for p in (neutrinos.px, neutrinos.py)))
        true = visible(batch.particles[recoil > self.z_pt], self.detector.reach)
        both = [cluster(particles, self.radius, self.jet_pt) for particles in (true, self.detector(true, rng))]
        there = np.logical_and(*(ak.to_numpy(ak.num(jets.momenta) > 0) for jets in both))
        gen, sim = (six_observables(jets[there][:, :1], self.radius) for jets in both)
        finite = np.isfinite(gen).all(1) & np.isfinite(sim).all(1)
        return Events({"gen": gen[finite]}, context=Events({"sim": sim[finite]}))


def six_observables(jets: Jets, radius: float) -> Array:
    """``(jets, 6)``: mass [GeV], multiplicity, width, ln(rho), zg, tau21; infinite or NaN where there is none."""
    import awkward as ak

    inside, axis = jets.flat(), ak.flatten(jets.momenta)
    if len(axis) == 0:
        return np.empty((0, 6))
    groomed = soft_drop(inside, radius)
    wide = width(inside, axis, radius)
    tau2: Any = n_subjettiness(inside, radius, (2,))[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        rho, tau21 = 2 * np.log(groomed.mass / np.asarray(axis.pt)), tau2 / wide
    mass = np.maximum(np.asarray(axis.mass), 0.0)
    return np.column_stack([mass, ak.to_numpy(ak.num(inside)), wide, rho, groomed.z, tau21])
