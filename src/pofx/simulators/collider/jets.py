r"""Jets by fastjet (arXiv:1111.6097): anti-kT clustering, soft drop, N-subjettiness, width; jagged arrays, no loop over particles.

N-subjettiness (arXiv:1011.2268): :math:`\tau_N = \sum_i p_{Ti} \min_a \Delta R_{ia}^\beta / \sum_i p_{Ti} R^\beta`, by default about axes
that one pass of minimisation finds from exclusive kT ones. Soft drop (arXiv:1402.2657): the jet is clustered again with
Cambridge/Aachen, and undone until
:math:`z = \min(p_{T1}, p_{T2}) / (p_{T1} + p_{T2}) > z_{cut} (\Delta R / R)^\beta`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from pofx.data.numbers import Array
from pofx.simulators.collider.particles import momenta

__all__ = ["Groomed", "Jets", "cluster", "in_jets", "n_subjettiness", "soft_drop", "width"]


@dataclass(frozen=True)
class Jets:
    """Jets of events, hardest first.

    Attributes
    ----------
    momenta : awkward, events x jets.
    constituents : awkward, events x jets x particles, with the fields of the particles that were clustered.
    """

    momenta: Any
    constituents: Any

    def __getitem__(self, what: Any) -> Jets:
        """Events (a slice, a mask per event) or jets (a mask per jet, ``[:, :2]``)."""
        return Jets(self.momenta[what], self.constituents[what])

    def flat(self) -> Any:
        """Constituents, jets x particles: what the functions of substructure take."""
        import awkward as ak

        return ak.to_packed(ak.flatten(self.constituents, axis=1))


class Groomed(NamedTuple):
    """What soft drop leaves, ``(jets,)`` each: mass and pT [GeV], z and opening of the first splitting kept (0 where there is none)."""

    mass: Array
    pt: Array
    z: Array
    opening: Array


def cluster(particles: Any, radius: float, pt_min: float) -> Jets:
    """Anti-kT jets (arXiv:0802.1189) of more than ``pt_min`` [GeV], sum of four-momenta.

    >>> from pofx.simulators.collider.particles import momenta
    >>> near = momenta([[10.0, 5.0, 0.0]], [[0.0, 0.0, 7.0]], [[0.0, 0.1, 0.0]], [[10.0, 5.1, 7.0]])
    >>> cluster(near, 0.4, 1.0).momenta.pt.tolist()
    [[15.0, 7.0]]
    """
    import awkward as ak

    fastjet = _fastjet()
    packed = ak.to_packed(particles)
    found = fastjet.ClusterSequence(packed, fastjet.JetDefinition(fastjet.antikt_algorithm, radius))
    index = found.constituent_index(pt_min)
    jets = found.inclusive_jets(pt_min)
    made = momenta(jets.px, jets.py, jets.pz, jets.E)
    flat = packed[ak.flatten(index, axis=2)]
    inside = ak.unflatten(flat, ak.flatten(ak.num(index, axis=2)), axis=1)
    order = ak.argsort(made.pt, ascending=False)
    return Jets(made[order], inside[order])


def in_jets(jets: Jets, values: Array) -> Any:
    """Numbers of flat jets as events x jets."""
    import awkward as ak

    return ak.unflatten(values, ak.num(jets.momenta))


def n_subjettiness(
    constituents: Any, radius: float, orders: tuple[int, ...] = (1, 2), beta: float = 1.0, axes: str = "OnePass_KT_Axes"
) -> Array:
    """``(jets, len(orders))``; zero for jets of no more particles than axes."""
    return np.asarray(
        _one_jet(constituents).njettiness("NormalizedMeasure", axes, njets=list(orders), beta=beta, R0=radius)
    )


def soft_drop(constituents: Any, radius: float, z_cut: float = 0.1, beta: float = 0.0) -> Groomed:
    """The groomed jets; every jet needs at least one particle."""
    found = _one_jet(constituents).exclusive_jets_softdrop_grooming(njets=1, beta=beta, symmetry_cut=z_cut, R0=radius)
    values = (found.msoftdrop, found.ptsoftdrop, found.symmetrysoftdrop, found.deltaRsoftdrop)
    return Groomed(*(np.maximum(np.asarray(value), 0.0) for value in values))


def width(constituents: Any, axis: Any, radius: float) -> Array:
    r"""``(jets,)``: :math:`\sum_i p_{Ti} \Delta R_i / (R \sum_i p_{Ti})` about the jet's axis (flat, one per jet)."""
    import awkward as ak

    pt = constituents.pt
    return np.asarray(ak.sum(pt * constituents.deltaR(axis), axis=1) / ak.sum(pt, axis=1)) / radius


def _one_jet(constituents: Any) -> Any:
    """A Cambridge/Aachen tree over all constituents of each jet."""
    import awkward as ak

    fastjet = _fastjet()
    return fastjet.ClusterSequence(
        ak.to_packed(constituents), fastjet.JetDefinition(fastjet.cambridge_algorithm, 1000.0)
    )


@cache
def _fastjet() -> Any:
    """The module, without its banner."""
    import fastjet
    import fastjet._swig

    fastjet._swig.ClusterSequence.set_fastjet_banner_stream(None)
    return fastjet
