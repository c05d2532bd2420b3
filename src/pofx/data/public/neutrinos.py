"""Top-quark pairs with neutrinos: nu-Flows (arXiv:2207.00664, one lepton) and nu2-Flows (arXiv:2307.02405, two leptons).

HDF5, group ``delphes``, of compound types: ``MET (MET, phi)``, ``leptons`` and ``jets`` of (pt, eta, phi, energy, ...), counts ``njets``
and ``nbjets``, and ``truth_neutrinos (pt, eta, phi)`` or two ``neutrinos (pdgid, pt, eta, phi)`` per event, of which ``pdgid`` is not
read and written as zeros. Momenta and energies in GeV.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.public.base import Made, Piece, PublicFormat, context_of
from pofx.data.spec import Column, EventSpec, Field, vector_spec

__all__ = ["NuFlows", "NuTwoFlows"]

MOMENTUM = ("pt", "eta", "phi")
UNITS = dict.fromkeys(("pt", "energy", "MET", "px", "py", "pz", "mass"), "GeV")


class NuFlows(PublicFormat):
    """A vector of the neutrino; missing momentum, lepton, counts and the cloud of jets are the context."""

    name, title, reference = "nu-flows", "top pairs of nu-Flows", "arXiv:2207.00664, doi:10.5281/zenodo.6782987"
    becomes, units = "vector `neutrinos`; context `met`, `leptons`, `misc`, cloud `jets`", "GeV, rad"
    truth: ClassVar = "truth_neutrinos"
    members: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "MET": ("MET", "phi"),
        "leptons": (*MOMENTUM, "energy", "type"),
        "jets": (*MOMENTUM, "energy", "is_tagged"),
        "truth_neutrinos": MOMENTUM,
    }
    keys: ClassVar = {f"delphes/{name}": () for name in (*members, "njets", "nbjets")}

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        wrong = [f"{key} is missing" for key in self.keys if key not in stored]
        for name, members in self.members.items():
            array = stored.get(f"delphes/{name}")
            if array is not None and not set(members) <= set(array.dtype.names or ()):
                wrong.append(f"delphes/{name} has members {', '.join(members)}; got {array.dtype}")
            elif array is not None and len(array.shape) not in (
                (1,) if name == "MET" else (2,) if name == "jets" else (1, 2)
            ):
                wrong.append(f"delphes/{name} is one, or a row of them, per event; got shape {array.shape}")
        return wrong + [
            f"delphes/{name} (n); got shape {stored[f'delphes/{name}'].shape}"
            for name in ("njets", "nbjets")
            if f"delphes/{name}" in stored and stored[f"delphes/{name}"].shape[1:] not in ((), (1,))
        ]

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        jets = stored["delphes/jets"]
        members = tuple(jets.dtype.names or ())
        cloud = Field("cloud", (jets.shape[1], len(members)), tuple(_column(name) for name in members))
        return (
            _vector("neutrinos", stored, self.truth, "x", leave=("pdgid",)),
            _vector("met", stored, "MET"),
            _vector("leptons", stored, "leptons"),
            Piece("misc", vector_spec(["njets", "nbjets"], "misc")["misc"], _COUNTS, _misc, "context"),
            Piece("jets", cloud, ("delphes/jets", "delphes/njets"), _jets(members), "context"),
        )

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        context, masks = context_of(events), {} if events.context is None else events.context.masks
        jets = context["jets"]
        jets = np.where(masks["jets"][..., None], jets, 0) if "jets" in masks else jets
        found = {
            "MET": _compound(context["met"], self.members["MET"]),
            "leptons": _compound(context["leptons"], self.members["leptons"]),
            "jets": _records(jets, self.members["jets"]),
            self.truth: _compound(events.fields["neutrinos"], self.members[self.truth]),
            "njets": context["misc"][:, 0].astype(np.int64),
            "nbjets": context["misc"][:, 1].astype(np.int64),
        }
        return {f"delphes/{name}": array for name, array in found.items()}


class NuTwoFlows(NuFlows):
    """A vector of both neutrinos; missing momentum, leptons, counts and the cloud of jets are the context."""

    name, title, reference = "nu2-flows", "top pairs of nu2-Flows", "arXiv:2307.02405, doi:10.5281/zenodo.8113516"
    truth: ClassVar = "neutrinos"
    members: ClassVar = {
        **{name: own for name, own in NuFlows.members.items() if name != "truth_neutrinos"},
        "neutrinos": ("pdgid", *MOMENTUM),
    }
    keys: ClassVar = {f"delphes/{name}": () for name in (*members, "njets", "nbjets")}


_COUNTS = ("delphes/njets", "delphes/nbjets")


def _misc(raw: Mapping[str, Array]) -> Made:
    return Made(np.stack([raw[name].reshape(-1) for name in _COUNTS], 1))


def _column(name: str, prefix: str = "") -> Column:
    if name == "phi":
        return Column(prefix + name, "rad", "periodic", -math.pi, math.pi)
    return Column(prefix + name, UNITS.get(name, ""))


def _vector(
    field: str, stored: Mapping[str, Stored], name: str, role: Any = "context", leave: Sequence[str] = ()
) -> Piece:
    """Members of one or several records side by side: ``pt eta phi`` of one, ``1_pt 1_eta 1_phi 2_pt ...`` of several."""
    array = stored[f"delphes/{name}"]
    members = tuple(member for member in array.dtype.names or () if member not in leave)
    count = array.shape[1] if len(array.shape) > 1 else 1
    columns = [_column(m, f"{i + 1}_" if count > 1 else "") for i in range(count) for m in members]

    def make(raw: Mapping[str, Array]) -> Made:
        rows = raw[f"delphes/{name}"].reshape(-1, count)
        return Made(_plain(rows, members).reshape(len(rows), count * len(members)))

    return Piece(field, vector_spec(columns, field)[field], (f"delphes/{name}",), make, role)


def _plain(rows: Array, members: Sequence[str]) -> Array:
    """Records ``(n, k)`` as numbers ``(n, k, members)``."""
    return np.stack([rows[member] for member in members], -1)


def _jets(members: Sequence[str]) -> Callable[[Mapping[str, Array]], Made]:
    def make(raw: Mapping[str, Array]) -> Made:
        points = _plain(raw["delphes/jets"], members)
        return Made(points, np.arange(points.shape[1]) < raw["delphes/njets"].reshape(-1, 1))

    return make


def _compound(values: Array, members: Sequence[str]) -> Array:
    """Numbers side by side back into records, ``(n,)`` of one and ``(n, k)`` of several; members that are not there are zero."""
    own = [member for member in members if member != "pdgid"]
    made = _records(values.reshape(len(values), -1, len(own)), own, members)
    return made[:, 0] if made.shape[1] == 1 else made


def _records(values: Array, own: Sequence[str], members: Sequence[str] | None = None) -> Array:
    made = np.zeros(values.shape[:2], [(member, np.float32) for member in members or own])
    for i, member in enumerate(own):
        made[member] = values[..., i]
    return made
