r"""Two hard jets: QCD, and the R&D sample of the LHC Olympics (doi:10.5281/zenodo.4536377), its signal and its background.

The signal is :math:`W' \to X Y`, :math:`X \to q \bar q'`, :math:`Y \to q \bar q`, of masses 3.5 TeV, 500 GeV and 100 GeV. With
``bosons="vector"`` X and Y couple and decay like W and Z, so they are polarised along their flight, and a jet of radius 1 mostly holds
the whole decay; with ``"scalar"`` they decay isotropically.

The public sample looks like ``"vector"``: with ``"scalar"`` more jets lose one of their quarks.
Like there, partons interact once per collision (``mpi=False``), a jet above 1.2 TeV
is asked for, and the features are those of arXiv:2109.00546: tau21 is :math:`\tau_2 / (10^{-5} + \tau_1)`, with :math:`\beta = 1`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.data.numbers import Array
from pofx.data.public.lhco import DIJETS, LABEL
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.simulators.collider.base import ColliderSimulator
from pofx.simulators.collider.generator import Batch, Beams, phase_space
from pofx.simulators.collider.jets import Jets, cluster, n_subjettiness
from pofx.simulators.collider.particles import numbers, padded, visible

__all__ = ["LHCOBackground", "LHCODijetEvents", "LHCOSignal", "QCDDijets", "hardest_two"]

POINT = (Column("deta"), Column("dphi", "rad"), Column("pt", "GeV", "bounded", low=0.0))


def hardest_two(jets: Jets, pt_min: float, reach: float) -> tuple[Jets, Array]:
    """The two hardest jets of events where there are two and the first passes both cuts, and a mask of those events."""
    import awkward as ak

    enough = ak.to_numpy(ak.num(jets.momenta)) >= 2
    lead = ak.firsts(jets.momenta)
    hard = ak.to_numpy(ak.fill_none((lead.pt > pt_min) & (abs(lead.eta) < reach), False))
    passed = enough & hard
    return jets[passed][:, :2], passed


@dataclass(frozen=True)
class LHCODijetEvents(ColliderSimulator):
    """Two jets of radius 1, the harder above 1.2 TeV: what signal and background have in common.

    Parameters
    ----------
    pt_min : of the harder jet [GeV].
    reach : its largest ``|eta|``.
    radius : of the jets.
    constituents : whether events also hold what is in the two jets, as clouds, hardest first: distance in eta and phi, pT [GeV].
    length : particles kept per jet.
    """

    is_signal: ClassVar[bool]

    beams: Beams = field(default_factory=lambda: Beams(mpi=False))
    pt_min: float = 1200.0
    reach: float = 2.5
    radius: float = 1.0
    constituents: bool = False
    length: int = 128

    def __post_init__(self) -> None:
        check_at_least(self, 20.0, "pt_min")
        check_at_least(self, 0.1, "reach", "radius")
        check_at_least(self, 1, "length")
        check_choice(self, "constituents", (True, False))

    def spec(self) -> EventSpec:
        cloud = Field("cloud", (self.length, 3), POINT)
        clouds = {"constituents_j1": cloud, "constituents_j2": cloud} if self.constituents else {}
        return {**vector_spec(DIJETS, "dijet"), **clouds}

    def context_spec(self) -> EventSpec:
        return {"label": LABEL}

    def select(self, batch: Batch, rng: np.random.Generator) -> Events:
        seen = self.detector(visible(batch.particles, self.detector.reach), rng)
        jets, passed = hardest_two(cluster(seen, self.radius, 20.0), self.pt_min, self.reach)
        jets = _lighter_first(jets)
        fields, masks = {"dijet": _features(jets, self.radius)}, {}
        if self.constituents:
            for i, name in enumerate(("constituents_j1", "constituents_j2")):
                fields[name], masks[name] = _points(jets, i, self.length)
        label = np.full((int(passed.sum()), 1), float(self.is_signal))
        return Events(fields, masks, Events({"label": label}), batch.weight[passed] if self.weighted else None)


@dataclass(frozen=True)
class LHCOSignal(LHCODijetEvents):
    """W' -> X Y -> 4 quarks like the signal of the LHC Olympics: mjj, masses and tau21 of two fat jets.

    Parameters
    ----------
    mass, mass_x, mass_y : of W', X and Y [GeV]; their widths are one hundredth.
    bosons : ``"vector"`` or ``"scalar"``, see above.
    """

    name: ClassVar[str] = "lhco-signal"
    is_signal: ClassVar[bool] = True

    mass: float = 3500.0
    mass_x: float = 500.0
    mass_y: float = 100.0
    bosons: str = "vector"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 20.0, "mass_x", "mass_y")
        check_at_least(self, 1.2 * (self.mass_x + self.mass_y), "mass")
        check_choice(self, "bosons", ("vector", "scalar"))

    def process(self) -> tuple[str, ...]:
        decay = _scalar_pair if self.bosons == "scalar" else _vector_pair
        wprime = _resonance(34, self.mass)
        return ("NewGaugeBoson:ffbar2Wprime = on", *wprime[:3], *decay(self.mass_x, self.mass_y))


@dataclass(frozen=True)
class LHCOBackground(LHCODijetEvents):
    """QCD dijets like the background of the LHC Olympics, with weights: a falling mjj at an affordable price.

    Parameters
    ----------
    pt_hat_min : lower end of the generated range [GeV]; well below the cut, because radiation may make a jet harder (from 1000 GeV on,
        6 % of the weight came from the lowest 5 %).
    bias : power of pT by which hard events are preferred; 0 gives the natural spectrum and weights of one.
    """

    name: ClassVar[str] = "lhco-background"
    is_signal: ClassVar[bool] = False
    weighted: ClassVar[bool] = True

    pt_hat_min: float = 800.0
    bias: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 10.0, "pt_hat_min")
        check_at_least(self, 0.0, "bias")

    def process(self) -> tuple[str, ...]:
        return ("HardQCD:all = on", *phase_space(self.pt_hat_min, bias=self.bias))


@dataclass(frozen=True)
class QCDDijets(ColliderSimulator):
    """QCD dijets: momenta of the two hardest jets and their invariant mass, with weights.

    Parameters
    ----------
    pt_min, reach, radius : of the hardest jet [GeV], largest ``|eta|``, of all.
    pt_hat_min, bias : of the generated range [GeV], and power of pT by which hard events are preferred.
    """

    name: ClassVar[str] = "qcd-dijets"
    weighted: ClassVar[bool] = True

    pt_min: float = 200.0
    reach: float = 2.5
    radius: float = 0.4
    pt_hat_min: float = 150.0
    bias: float = 4.0

    def __post_init__(self) -> None:
        check_at_least(self, 10.0, "pt_min", "pt_hat_min")
        check_at_least(self, 0.1, "reach", "radius")
        check_at_least(self, 0.0, "bias")

    def spec(self) -> EventSpec:
        phi = {"type": "periodic", "low": -np.pi, "high": np.pi}
        four: Any = (("pt", "GeV", {}), ("eta", "", {}), ("phi", "rad", phi), ("m", "GeV", {}))
        jets = [Column(f"{name}{i}", unit, **more) for i in (1, 2) for name, unit, more in four]
        return vector_spec([*jets, Column("mjj", "GeV")], "dijet")

    def process(self) -> tuple[str, ...]:
        return ("HardQCD:all = on", *phase_space(self.pt_hat_min, bias=self.bias))

    def select(self, batch: Batch, rng: np.random.Generator) -> Events:
        seen = self.detector(visible(batch.particles, self.detector.reach), rng)
        jets, passed = hardest_two(cluster(seen, self.radius, 20.0), self.pt_min, self.reach)
        both = [numbers(jets.momenta[:, i], "pt", "eta", "phi", "mass") for i in (0, 1)]
        return Events({"dijet": np.concatenate([*both, _mass(jets)[:, None]], 1)}, weight=batch.weight[passed])


def _mass(jets: Jets) -> Array:
    """Of both jets together [GeV]."""
    return np.asarray((jets.momenta[:, 0] + jets.momenta[:, 1]).mass)


def _lighter_first(jets: Jets) -> Jets:
    import awkward as ak

    return jets[ak.argsort(jets.momenta.mass, axis=1)]


def _features(jets: Jets, radius: float) -> Array:
    """mjj, lighter mass, difference of masses [TeV], tau21 of both."""
    tau = n_subjettiness(jets.flat(), radius)
    tau21 = (tau[:, 1] / (1e-5 + tau[:, 0])).reshape(-1, 2)
    light, heavy = (np.asarray(jets.momenta[:, i].mass) for i in (0, 1))
    return np.column_stack([_mass(jets) / 1e3, light / 1e3, (heavy - light) / 1e3, tau21])


def _points(jets: Jets, i: int, length: int) -> tuple[Array, Array]:
    """The hardest constituents of one of the jets, ``(n, length, 3)``, and the mask."""
    import awkward as ak

    inside, axis = jets.constituents[:, i], jets.momenta[:, i]
    inside = inside[ak.argsort(inside.pt, ascending=False)]
    made = ak.zip({"deta": inside.eta - axis.eta, "dphi": inside.deltaphi(axis), "pt": inside.pt})
    return padded(made, length, "deta", "dphi", "pt")


def _resonance(code: int, mass: float) -> tuple[str, ...]:
    """A narrow one."""
    width = (f"{code}:m0 = {mass!r}", f"{code}:mWidth = {mass / 100!r}", f"{code}:doForceWidth = on")
    return (*width, f"{code}:mMin = {0.9 * mass!r}", f"{code}:mMax = {1.1 * mass!r}", f"{code}:onMode = off")


def _vector_pair(mass_x: float, mass_y: float) -> tuple[str, ...]:
    """W and Z with other masses: their polarisation is Pythia's."""
    names = ("Wprime:coup2WZ = 1.", "34:onMode = off", "34:onIfAll = 23 24")
    return (*names, *_resonance(24, mass_x), "24:onIfAny = 1 3", *_resonance(23, mass_y), "23:onIfAny = 1 2 3 4 5")


def _scalar_pair(mass_x: float, mass_y: float) -> tuple[str, ...]:
    """Two particles of their own, of spin zero."""
    x = f"9000001:new = X+ X- 1 3 0 {mass_x} {mass_x / 100} {0.9 * mass_x} {1.1 * mass_x} 0."
    y = f"9000002:new = Y void 1 0 0 {mass_y} {mass_y / 100} {0.9 * mass_y} {1.1 * mass_y} 0."
    channels = (
        "9000001:addChannel = 1 1.0 100 2 -1",
        "9000002:addChannel = 1 0.5 100 1 -1",
        "9000002:addChannel = 1 0.5 100 2 -2",
    )
    resonances = ("9000001:isResonance = true", "9000002:isResonance = true")
    return (x, y, *resonances, *channels, "34:oneChannel = 1 1.0 100 9000001 9000002")
