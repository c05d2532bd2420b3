"""ROOT trees: JetClass (arXiv:2202.03772, doi:10.5281/zenodo.6619768), NanoAOD, and showers in EDM4hep.

Branches with a varying number of values per event become clouds; the largest number of points is found in one pass over one branch per
cloud, or given by ``ReadOptions(points=...)``. Columns are called as the branches are. Branches that are no numbers are left out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.options import Request
from pofx.data.public.base import Made, Piece, PublicFormat, Reader, context_of, inner_type
from pofx.data.public.ragged import Ragged, cloud, longest, points_of
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.data.store import Role
from pofx.errors import CapabilityError

__all__ = ["EDM4hep", "JetClass", "NanoAOD"]

GEV = ("px", "py", "pz", "energy", "pt", "mass", "sdmass")


class _Tree(PublicFormat):
    """Clouds of jagged branches, whose sizes the content tells."""

    container = "root"
    sizes: Mapping[str, int] = {}

    @abstractmethod
    def clouds(self, stored: Mapping[str, Stored]) -> dict[str, tuple[str, ...]]:
        """Name of a cloud -> its branches."""

    def settled(self, stored: Mapping[str, Stored], request: Request, read: Reader) -> Self:
        found = type(self)()
        rows = next(iter(stored.values())).shape[0]
        found.sizes = {
            name: request.options.points or longest(read, branches[0], rows)
            for name, branches in self.clouds(stored).items()
        }
        return found

    def cloud_piece(self, name: str, branches: Sequence[str], stored: Mapping[str, Stored]) -> Piece:
        """Points with one feature per branch."""
        most = self.sizes.get(name, 1)
        form = Field("cloud", (most, len(branches)), tuple(_column(branch) for branch in branches))
        kind = _floats(inner_type(stored[branch]) for branch in branches)

        def make(raw: Mapping[str, Any]) -> Made:
            return cloud([raw[branch] for branch in branches], branches, most, kind)

        return Piece(name, form, tuple(branches), make)


class JetClass(_Tree):
    """A cloud of constituents; the jet's features and the ten labels are the context."""

    name, title, reference = "jetclass", "jets of JetClass", "arXiv:2202.03772, doi:10.5281/zenodo.6619768"
    becomes, units, trees = "cloud `particles`; context `jet`, `label`", "GeV", ("tree",)
    parts: ClassVar = tuple(
        f"part_{name}"
        for name in (
            *("px", "py", "pz", "energy", "deta", "dphi", "d0val", "d0err", "dzval", "dzerr", "charge"),
            *("isChargedHadron", "isNeutralHadron", "isPhoton", "isElectron", "isMuon"),
        )
    )
    jet: ClassVar = tuple(
        f"jet_{name}" for name in ("pt", "eta", "phi", "energy", "nparticles", "sdmass", "tau1", "tau2", "tau3", "tau4")
    )
    labels: ClassVar = tuple(
        f"label_{name}" for name in ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
    )
    keys: ClassVar = dict.fromkeys((*parts, *jet, *labels), ())

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        flat = [
            f"{name} has a varying number of values"
            for name in self.parts
            if name in stored and not _jagged(stored[name])
        ]
        return super().misfits(stored) + flat

    def clouds(self, stored: Mapping[str, Stored]) -> dict[str, tuple[str, ...]]:
        return {"particles": self.parts}

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        return (
            self.cloud_piece("particles", self.parts, stored),
            _flat("jet", self.jet, stored, "context"),
            _flat("label", self.labels, stored, "context"),
        )

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Any]:
        context = context_of(events)
        flat = {name: context["jet"][:, i] for i, name in enumerate(self.jet)}
        flat |= {name: context["label"][:, i].astype(np.int32) for i, name in enumerate(self.labels)}
        return _points(events, "particles", self.parts) | flat


class NanoAOD(_Tree):
    """A cloud per collection (``Jet``, ``Muon``, ...), a vector per object of one entry (``MET``, ``HLT``, ...), and ``event``."""

    name, title, reference = "nanoaod", "events of NanoAOD", "CMS NanoAOD"
    becomes, units = "a cloud per collection, a vector per object, `event`", "GeV, rad"
    trees = ("Events", "Runs", "LuminosityBlocks")
    keys: ClassVar = {"run": (), "luminosityBlock": (), "event": ()}

    def recognises(self, stored: Mapping[str, Stored]) -> bool:
        return super().recognises(stored) and bool(self.clouds(stored))

    def clouds(self, stored: Mapping[str, Stored]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, array in stored.items():
            prefix = name.partition("_")[0]
            if f"n{prefix}" in stored and _jagged(array):
                found[prefix] = (*found.get(prefix, ()), name)
        return found

    def singles(self, stored: Mapping[str, Stored]) -> dict[str, tuple[str, ...]]:
        """Name of a vector -> its branches, without the counters of collections."""
        clouds = self.clouds(stored)
        found: dict[str, tuple[str, ...]] = {}
        for name, array in stored.items():
            prefix, _, rest = name.partition("_")
            if name.removeprefix("n") not in clouds and array.dtype.kind in "fiub":
                group = prefix if rest and prefix not in (*clouds, "event") else "event"
                found[group] = (*found.get(group, ()), name)
        return found

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        clouds = (self.cloud_piece(name, own, stored) for name, own in self.clouds(stored).items())
        return (*clouds, *(_flat(name, own, stored, "x") for name, own in self.singles(stored).items()))

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, form in spec.items():
            if form.kind == "cloud":
                found |= _points(events, name, form.names)
            else:
                found |= {column: events.fields[name][:, i] for i, column in enumerate(form.names)}
        return found


class EDM4hep(_Tree):
    """One cloud of all hits of simulated calorimeters, ``(x, y, z, energy)``; read only.

    Collections with energies, positions and contributions, one after the other in the order of the file.
    """

    name, title, reference = "edm4hep", "showers in EDM4hep", "edm4hep (podio)"
    becomes, units, trees = "cloud `hits` (x, y, z, energy)", "mm, GeV", ("events", "podio_metadata")
    keys: ClassVar = {"C/C.energy, C/C.position.x, C/C.contributions_begin of a collection C": ()}
    members: ClassVar = ("position.x", "position.y", "position.z", "energy")

    def collections(self, stored: Mapping[str, Stored]) -> list[str]:
        """Those of calorimeter hits."""
        wanted = (*self.members, "contributions_begin")
        outer = dict.fromkeys(name.partition("/")[0] for name in stored if "/" in name)
        return [c for c in outer if all(_jagged(stored.get(f"{c}/{c}.{member}")) for member in wanted)]

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        return [] if self.collections(stored) else [f"{name} is missing" for name in self.keys]

    def bound(self, stored: Mapping[str, Stored]) -> tuple[str, ...]:
        return tuple(f"{c}/{c}.{member}" for c in self.collections(stored) for member in self.members)

    def clouds(self, stored: Mapping[str, Stored]) -> dict[str, tuple[str, ...]]:
        return {"hits": self.bound(stored)}

    def settled(self, stored: Mapping[str, Stored], request: Request, read: Reader) -> Self:
        found, rows = type(self)(), next(iter(stored.values())).shape[0]
        energies = [f"{c}/{c}.energy" for c in self.collections(stored)]
        found.sizes = {"hits": request.options.points or max(1, sum(longest(read, name, rows) for name in energies))}
        return found

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        units = ("mm", "mm", "mm", "GeV")
        columns = tuple(Column(m.removeprefix("position."), u) for m, u in zip(self.members, units, strict=True))
        most, collections = self.sizes.get("hits", 1), self.collections(stored)

        def make(raw: Mapping[str, Any]) -> Made:
            features = [_joined([raw[f"{c}/{c}.{member}"] for c in collections]) for member in self.members]
            return cloud(features, self.members, most, np.dtype(np.float32))

        return (Piece("hits", Field("cloud", (most, 4), columns), self.bound(stored), make),)

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Any]:
        raise CapabilityError("files in EDM4hep are read, not written: they hold classes of podio")


def _joined(parts: Sequence[Ragged]) -> Ragged:
    """Row by row one after the other."""
    order = np.argsort(np.concatenate([part.owner for part in parts]), kind="stable")
    return Ragged(np.concatenate([part.flat for part in parts])[order], np.sum([part.counts for part in parts], axis=0))


def _jagged(array: Stored | None) -> bool:
    """Whether it has a varying number of numbers per event."""
    return array is not None and array.dtype.kind == "O" and inner_type(array).kind in "fiub"


def _floats(kinds: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    """Single precision where it holds all of these types."""
    return np.result_type(np.float32, *kinds)


def _column(branch: str) -> Column:
    return Column(branch, "GeV" if branch.rpartition("_")[2] in GEV else "")


def _flat(name: str, branches: Sequence[str], stored: Mapping[str, Stored], role: Role) -> Piece:
    kind = _floats(stored[branch].dtype for branch in branches)

    def make(raw: Mapping[str, Any]) -> Made:
        return Made(np.stack([raw[branch].astype(kind) for branch in branches], 1))

    return Piece(name, vector_spec([_column(b) for b in branches], name)[name], tuple(branches), make, role)


def _points(events: Events, name: str, branches: Sequence[str]) -> dict[str, Any]:
    """The columns of a cloud as jagged branches."""
    values = events.fields[name]
    real = points_of(values, events.masks.get(name, np.ones(values.shape[:2], bool)))
    return {branch: Ragged(real.flat[:, i], real.counts) for i, branch in enumerate(branches)}
