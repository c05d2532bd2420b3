r"""The detector: what of a particle is seen, and how well. A parametrisation after general-purpose detectors, of none in particular.

==================== ==================================================================================================
tracks               charged, ``|eta| < 2.5``, found with probability 0.95 (0.85 beyond ``|eta| = 1.5``) above
                     ``p_T`` = 1 GeV, 0.74 times that between 0.2 and 1 GeV; leptons above 10 GeV with 0.99.
                     :math:`\sigma(p_T) / p_T = a \oplus b\, p_T`, a = 0.01, b = 1.5e-4 / GeV, twice that beyond 1.5. Directions exact.
electromagnetic      photons, and electrons whose track is lost: :math:`\sigma_E = 0.07 \sqrt{E} \oplus 0.007 E \oplus 0.2`
                     [GeV], cells of 0.02 x 0.02, ``|eta| < 3``
hadronic             neutral hadrons, charged ones whose track is lost: :math:`1.0 \sqrt E \oplus 0.05 E`, cells of 0.087 x 0.087
forward              all beyond ``|eta| = 3`` (to 5): :math:`2.0 \sqrt E \oplus 0.10 E`, cells of 0.175 x 0.175
particle flow        a charged hadron with a track is measured by whichever of track and calorimeter is the sharper, an
                     electron likewise; a muon by its track alone. Directions are the track's. A muon whose track is lost is not seen.
leptons              of those isolated (``p_T`` of all else within 0.3 below 0.15 ``p_T``), electrons are identified with
                     0.85, muons with 0.95; the others count as charged hadrons
b tags               a jet with a bottom hadron within 0.4 is tagged with :math:`0.75 \tanh(p_T / 50)`, with charm
                     :math:`0.15 \tanh(p_T / 50)`, any other with 0.01
missing momentum     minus the sum of all that is seen
==================== ==================================================================================================

The energy of a cell is the sum over its particles, smeared once; below the threshold it is not seen; its direction is uniform within the
cell. All candidates are massless. The numbers are the defaults of :class:`Detector` and can be changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pofx.config import check_at_least, check_between
from pofx.data.numbers import Array
from pofx.simulators.collider.particles import CHARGED, momenta

__all__ = ["BTagging", "Calorimeter", "Detector", "Tracker", "missing_momentum"]

ELECTRON, MUON, PHOTON = 11, 13, 22
PION, NEUTRAL = 211, 130
LEPTONS = (ELECTRON, MUON)


@dataclass(frozen=True)
class Calorimeter:
    r"""Energies in cells, :math:`\sigma_E = s \sqrt{E} \oplus c E \oplus n`.

    Parameters
    ----------
    stochastic, constant, noise : s [:math:`\sqrt{\mathrm{GeV}}`], c, n [GeV].
    cell : width in eta and in phi.
    threshold : energy below which a cell is not read [GeV].

    >>> float(Calorimeter(0.1, 0.0, 0.0, 0.02, 0.5).sigma(100.0))
    1.0
    """

    stochastic: float
    constant: float
    noise: float
    cell: float
    threshold: float

    def __post_init__(self) -> None:
        check_at_least(self, 0.0, "stochastic", "constant", "noise", "threshold")
        check_between(self, 1e-4, 1.0, "cell")

    def sigma(self, energy: Any) -> Any:
        """Resolution [GeV] at an energy [GeV]."""
        return np.sqrt(self.stochastic**2 * energy + (self.constant * energy) ** 2 + self.noise**2)

    def measure(self, true: Flat, code: int, rng: np.random.Generator) -> Flat:
        """What the cells read of these particles; ``code`` is what the candidates are called."""
        rows = math.ceil(10.0 / self.cell)
        around = math.ceil(2 * math.pi / self.cell)
        i = np.floor((true.eta + 5.0) / self.cell).astype(np.int64)
        j = np.floor((true.phi % (2 * math.pi)) / (2 * math.pi) * around).astype(np.int64)
        keys, place = np.unique((true.event * (rows + 1) + i) * (around + 1) + j, return_inverse=True)
        total = np.bincount(place, weights=true.energy, minlength=len(keys))
        read = total + self.sigma(total) * rng.standard_normal(len(keys))
        shift = rng.random((2, len(keys)))
        rest, column = np.divmod(keys, around + 1)
        of, row = np.divmod(rest, rows + 1)
        found_eta = (row + shift[0]) * self.cell - 5.0
        found_phi = (column + shift[1]) * (2 * math.pi / around)
        kept = read > self.threshold
        return Flat(of, found_eta, found_phi, read, np.full(len(keys), code))[kept]


@dataclass(frozen=True)
class Tracker:
    r"""Tracks of charged particles, :math:`\sigma(p_T) / p_T = a \oplus b\, p_T`.

    Parameters
    ----------
    reach : largest ``|eta|``.
    barrel : ``|eta|`` beyond which efficiency is lower and resolution twice as large.
    efficiency, endcap_efficiency : above 1 GeV, in the two parts.
    soft : by how much it is less between ``threshold`` and 1 GeV.
    lepton_efficiency : of electrons and muons above 10 GeV.
    threshold : smallest transverse momentum [GeV].
    scattering, curvature : a, and b [1/GeV].

    >>> round(float(Tracker().sigma(np.array(100.0), np.array(0.0))), 4)
    0.018
    """

    reach: float = 2.5
    barrel: float = 1.5
    efficiency: float = 0.95
    endcap_efficiency: float = 0.85
    soft: float = 0.74
    lepton_efficiency: float = 0.99
    threshold: float = 0.2
    scattering: float = 0.01
    curvature: float = 1.5e-4

    def __post_init__(self) -> None:
        check_between(self, 0.0, 1.0, "efficiency", "endcap_efficiency", "soft", "lepton_efficiency")
        check_at_least(self, 0.0, "reach", "barrel", "threshold", "scattering", "curvature")

    def sigma(self, pt: Array, eta: Array) -> Array:
        """Relative resolution of the transverse momentum."""
        return np.hypot(self.scattering, self.curvature * pt) * np.where(np.abs(eta) < self.barrel, 1.0, 2.0)

    def probability(self, pt: Array, eta: Array, lepton: Array) -> Array:
        """Of finding a charged particle."""
        hadron = np.where(np.abs(eta) < self.barrel, self.efficiency, self.endcap_efficiency)
        hadron = hadron * np.where(pt < 1.0, self.soft, 1.0)
        found = np.where(lepton & (pt > 10.0), self.lepton_efficiency, hadron)
        return np.where((np.abs(eta) < self.reach) & (pt > self.threshold), found, 0.0)


@dataclass(frozen=True)
class BTagging:
    """Probability of a tag, ``top * tanh(pT / 50 GeV)`` for bottom and charm, constant for light jets."""

    bottom: float = 0.75
    charm: float = 0.15
    light: float = 0.01

    def __post_init__(self) -> None:
        check_between(self, 0.0, 1.0, "bottom", "charm", "light")

    def probability(self, pt: Any, flavour: Any) -> Any:
        """Of jets with these transverse momenta [GeV] and flavours (5, 4, 0)."""
        rise = np.tanh(pt / 50.0)
        return (flavour == 5) * self.bottom * rise + (flavour == 4) * self.charm * rise + (flavour == 0) * self.light


@dataclass(frozen=True)
class Flat:
    """Massless candidates of all events in one row: event, direction, energy [GeV], PDG number of the kind."""

    event: Array
    eta: Array
    phi: Array
    energy: Array
    code: Array

    def __getitem__(self, rows: Array) -> Flat:
        """Those candidates."""
        return Flat(self.event[rows], self.eta[rows], self.phi[rows], self.energy[rows], self.code[rows])


@dataclass(frozen=True)
class Detector:
    """See the table on top of :mod:`pofx.simulators.collider.detector`; ``Detector()(particles, rng)`` gives what is seen of them.

    Parameters
    ----------
    tracker, electromagnetic, hadronic, forward : its parts.
    tags : of jets.
    forward_from, reach : ``|eta|`` where the forward calorimeter begins and ends.
    electron_efficiency, muon_efficiency : of identifying an isolated one.
    isolation, isolation_radius : largest ``pT`` of all else within this radius, as a part of its own.
    """

    tracker: Tracker = Tracker()
    electromagnetic: Calorimeter = Calorimeter(0.07, 0.007, 0.2, 0.02, 0.5)
    hadronic: Calorimeter = Calorimeter(1.0, 0.05, 0.0, 0.087, 1.0)
    forward: Calorimeter = Calorimeter(2.0, 0.10, 0.0, 0.175, 2.0)
    tags: BTagging = BTagging()
    forward_from: float = 3.0
    reach: float = 5.0
    electron_efficiency: float = 0.85
    muon_efficiency: float = 0.95
    isolation: float = 0.15
    isolation_radius: float = 0.3

    def __post_init__(self) -> None:
        check_between(self, 0.0, 1.0, "electron_efficiency", "muon_efficiency")
        check_between(self, 0.0, 5.0, "forward_from", "reach")
        check_at_least(self, 0.0, "isolation", "isolation_radius")

    def __call__(self, particles: Any, rng: np.random.Generator) -> Any:
        """Candidates of every event, with ``id`` 11 and 13 (tracks of leptons, negative for antiparticles), 22, 130 and 211.

        Parameters
        ----------
        particles : awkward, events x particles, momenta with ``id``: stable and not neutrinos.
        """
        import awkward as ak

        n = len(particles)
        flat = ak.flatten(particles)
        event = np.repeat(np.arange(n), ak.to_numpy(ak.num(particles)))
        eta, pt, phi, energy = (ak.to_numpy(getattr(flat, name)) for name in ("eta", "pt", "phi", "E"))
        code = ak.to_numpy(flat.id)
        inside = np.abs(eta) < self.reach
        seen = self._candidates(Flat(event, eta, phi, energy, code)[inside], pt[inside], rng)
        order = np.argsort(seen.event, kind="stable")
        return _jagged(seen[order], n)

    def _candidates(self, true: Flat, pt: Array, rng: np.random.Generator) -> Flat:
        kind = np.abs(true.code)
        chance = np.where(np.isin(kind, CHARGED), self.tracker.probability(pt, true.eta, np.isin(kind, LEPTONS)), 0.0)
        tracked = rng.random(len(pt)) < chance
        forward = np.abs(true.eta) > self.forward_from
        showers = (kind == PHOTON) | (kind == ELECTRON)
        left = ~tracked & (kind != MUON)
        parts = (
            self._tracks(true[tracked], pt[tracked], rng),
            self.electromagnetic.measure(true[left & ~forward & showers], PHOTON, rng),
            self.hadronic.measure(true[left & ~forward & ~showers], NEUTRAL, rng),
            self.forward.measure(true[left & forward], NEUTRAL, rng),
        )
        columns = ("event", "eta", "phi", "energy", "code")
        return Flat(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))

    def _tracks(self, true: Flat, pt: Array, rng: np.random.Generator) -> Flat:
        """Relative resolutions of track and calorimeter: the sharper one counts."""
        kind = np.abs(true.code)
        track = self.tracker.sigma(pt, true.eta)
        cells = (self.electromagnetic, self.hadronic)
        calorimeter = np.where(kind == ELECTRON, *(part.sigma(true.energy) for part in cells)) / true.energy
        best = np.where(kind == MUON, track, np.minimum(track, calorimeter))
        scale = np.maximum(1.0 + best * rng.standard_normal(len(pt)), 0.01)
        code = np.where(np.isin(kind, LEPTONS), true.code, PION)
        return Flat(true.event, true.eta, true.phi, pt * np.cosh(true.eta) * scale, code)

    def leptons(self, candidates: Any, rng: np.random.Generator, pt_min: float = 20.0) -> tuple[Any, Any]:
        """Identified, isolated electrons and muons, hardest first, and all other candidates."""
        import awkward as ak

        code = abs(candidates.id)
        wanted = ((code == ELECTRON) | (code == MUON)) & (candidates.pt > pt_min)
        near = ak.cartesian({"a": candidates[wanted], "b": candidates}, nested=True)
        around = ak.sum(near.b.pt * (near.a.deltaR(near.b) < self.isolation_radius), axis=-1) - candidates[wanted].pt
        efficiency = ak.where(code[wanted] == ELECTRON, self.electron_efficiency, self.muon_efficiency)
        passed = _random(efficiency, rng) < efficiency * (around < self.isolation * candidates[wanted].pt)
        chosen = ak.local_index(candidates)[wanted][passed]
        taken = ak.any(ak.local_index(candidates)[:, :, None] == chosen[:, None, :], axis=-1)
        found = candidates[chosen]
        return found[ak.argsort(found.pt, ascending=False)], candidates[~taken]

    def tagged(self, jets: Any, bottom: Any, charm: Any, rng: np.random.Generator) -> Any:
        """Whether each jet is tagged, given the true hadrons with bottom and charm."""
        flavour = jet_flavour(jets, bottom, charm)
        return _random(flavour, rng) < self.tags.probability(jets.pt, flavour)


def jet_flavour(jets: Any, bottom: Any, charm: Any, radius: float = 0.4, pt_min: float = 5.0) -> Any:
    """5 where a hadron with bottom, of more than 5 GeV, is within the radius; else 4 with charm; else 0."""
    import awkward as ak

    has = [_near(jets, hadrons[hadrons.pt > pt_min], radius) for hadrons in (bottom, charm)]
    return ak.where(has[0], 5, ak.where(has[1], 4, 0))


def missing_momentum(candidates: Any) -> Array:
    """``(n, 2)``: size [GeV] and azimuth of minus the sum of transverse momenta."""
    import awkward as ak

    x, y = (-ak.to_numpy(ak.sum(p, axis=1)) for p in (candidates.px, candidates.py))
    return np.stack([np.hypot(x, y), np.arctan2(y, x)], 1)


def _near(jets: Any, others: Any, radius: float) -> Any:
    import awkward as ak

    pairs = ak.cartesian({"a": jets, "b": others}, nested=True)
    return ak.any(pairs.a.deltaR(pairs.b) < radius, axis=-1)


def _random(like: Any, rng: np.random.Generator) -> Any:
    """Uniform numbers, one per entry of a jagged array."""
    import awkward as ak

    counts = ak.num(like)
    return ak.unflatten(rng.random(int(ak.sum(counts))), counts)


def _jagged(flat: Flat, n: int) -> Any:
    import awkward as ak

    pt = flat.energy / np.cosh(flat.eta)
    columns = (pt * np.cos(flat.phi), pt * np.sin(flat.phi), pt * np.sinh(flat.eta), flat.energy, flat.code)
    counts = np.bincount(flat.event, minlength=n)
    px, py, pz, energy, code = (ak.unflatten(column, counts) for column in columns)
    return momenta(px, py, pz, energy, id=code)
