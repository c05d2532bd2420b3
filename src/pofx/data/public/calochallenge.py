r"""CaloChallenge showers (arXiv:2410.21611): voxels in cylinders around the particle, in MeV, with the voxel geometry of the data set.

HDF5: ``incident_energies (n, 1)``, ``showers (n, voxels)``, both in MeV. A row of ``showers`` runs over layers, within a layer over the
angle :math:`\alpha`, within an angle over the radius r, which changes fastest. Every calorimeter layer of data set 1 has its own binning;
data sets 2 and 3 have one for all 45. The binning is public as XML, which :func:`read_binning` reads; that of the four is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np

from pofx.data.events import Events
from pofx.data.files import existing
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.public.base import Made, Piece, PublicFormat, not_negative
from pofx.data.spec import Axis, Column, EventSpec, Field, vector_spec
from pofx.errors import FormatError

__all__ = ["CaloChallenge2", "CaloChallenge3", "CaloChallengePhotons", "CaloChallengePions", "Layer", "read_binning"]


@dataclass(frozen=True)
class Layer:
    """One active layer: its number, edges in r [mm], and how many bins the angle has."""

    number: int
    edges: tuple[float, ...]
    angles: int

    @property
    def cells(self) -> tuple[int, int]:
        """Bins in the angle and in r."""
        return self.angles, len(self.edges) - 1

    @property
    def voxels(self) -> int:
        """How many there are."""
        return math.prod(self.cells)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The angle (periodic) and r."""
        turns = tuple(np.linspace(-math.pi, math.pi, self.angles + 1).tolist())
        return Axis("alpha", self.angles, turns, "rad", periodic=True), Axis("r", self.cells[1], self.edges, "mm")


def read_binning(path: str | Path) -> tuple[Layer, ...]:
    """The active layers of a ``binning_dataset_*.xml``; FormatError for another file.

    A layer whose only edge is 0 is inactive.
    """
    full = existing_xml(path)
    try:
        layers = ElementTree.parse(full).getroot().findall("./Bin/Layer")
        found = [
            Layer(int(e.attrib["id"]), tuple(map(float, e.attrib["r_edges"].split(","))), int(e.attrib["n_bin_alpha"]))
            for e in layers
        ]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise FormatError(
            f"{path}: expected the binning of a CaloChallenge data set; {type(error).__name__}: {error}"
        ) from None
    if not found:
        raise FormatError(
            f"{path}: expected the binning of a CaloChallenge data set, <Bins><Bin><Layer .../>; no layer is there"
        )
    return tuple(layer for layer in found if len(layer.edges) > 1)


def existing_xml(path: str | Path) -> Path:
    """The path of an XML file that is there."""
    full = Path(path)
    return full if full.is_file() else existing(path)


class _Ragged(PublicFormat):
    """Data set 1: one grid ``(1, alpha, r)`` per active layer; the incident energy is the context."""

    reference = "arXiv:2410.21611, doi:10.5281/zenodo.8099322"
    becomes, units = "a grid (angle, r) per layer; context `incident_energies`", "MeV, mm, rad"
    layers: ClassVar[tuple[Layer, ...]]

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        made, start = [], 0
        for layer in self.layers:
            form = Field("grid", (1, *layer.cells), (Column(f"layer_{layer.number}", "MeV"),), layer.axes)
            made.append(Piece(f"layer_{layer.number}", form, ("showers",), _voxels(start, form)))
            start += layer.voxels
        return (*made, _ENERGY)

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        rows = [events.fields[f"layer_{layer.number}"].reshape(len(events), -1) for layer in self.layers]
        return {"incident_energies": _energy(events), "showers": np.concatenate(rows, 1)}


class CaloChallengePhotons(_Ragged):
    """Data set 1, photons: 368 voxels in five layers."""

    name, title = "calochallenge-1-photons", "showers of CaloChallenge data set 1 (photons)"
    keys: Mapping[str, tuple[int | None, ...]] = {"showers": (368,), "incident_energies": (1,)}  # type: ignore[misc]
    layers = (
        Layer(0, (0, 5, 10, 30, 50, 100, 200, 400, 600), 1),
        Layer(1, (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200), 10),
        Layer(2, (0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350, 400), 10),
        Layer(3, (0, 50, 100, 200, 400, 600), 1),
        Layer(12, (0, 100, 200, 400, 1000, 2000), 1),
    )


class CaloChallengePions(_Ragged):
    """Data set 1, charged pions: 533 voxels in seven layers."""

    name, title = "calochallenge-1-pions", "showers of CaloChallenge data set 1 (pions)"
    keys: Mapping[str, tuple[int | None, ...]] = {"showers": (533,), "incident_energies": (1,)}  # type: ignore[misc]
    layers = (
        Layer(0, (0, 5, 10, 30, 50, 100, 200, 400, 600), 1),
        Layer(1, (0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200), 10),
        Layer(2, (0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400), 10),
        Layer(3, (0, 50, 100, 200, 400, 600), 1),
        Layer(12, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 1000, 2000), 10),
        Layer(13, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 600, 1000, 2000), 10),
        Layer(14, (0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000), 1),
    )


class _Cylinder(PublicFormat):
    """Data sets 2 and 3: one grid ``(1, layer, alpha, r)`` of 45 layers; the incident energy is the context."""

    becomes, units = "grid `showers` (layer, angle, r); context `incident_energies`", "MeV, mm, rad"
    cells: ClassVar[tuple[int, int]]
    """Bins in alpha and r."""
    width: ClassVar[float]
    """Of a bin in r, in mm."""

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        alpha, r = Layer(0, tuple(round(self.width * k, 4) for k in range(self.cells[1] + 1)), self.cells[0]).axes
        form = Field("grid", (1, 45, *self.cells), (Column("voxels", "MeV"),), (Axis("layer", 45), alpha, r))
        return (Piece("showers", form, ("showers",), _voxels(0, form)), _ENERGY)

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        return {"incident_energies": _energy(events), "showers": events.fields["showers"].reshape(len(events), -1)}


class CaloChallenge2(_Cylinder):
    """Data set 2: electrons, 45 x 16 x 9 voxels."""

    name, title = "calochallenge-2", "showers of CaloChallenge data set 2"
    reference = "arXiv:2410.21611, doi:10.5281/zenodo.6366270"
    keys: Mapping[str, tuple[int | None, ...]] = {"showers": (6480,), "incident_energies": (1,)}  # type: ignore[misc]
    cells, width = (16, 9), 4.65


class CaloChallenge3(_Cylinder):
    """Data set 3: electrons, 45 x 50 x 18 voxels."""

    name, title = "calochallenge-3", "showers of CaloChallenge data set 3"
    reference = "arXiv:2410.21611, doi:10.5281/zenodo.6366323"
    keys: Mapping[str, tuple[int | None, ...]] = {"showers": (40500,), "incident_energies": (1,)}  # type: ignore[misc]
    cells, width = (50, 18), 2.325


_ENERGY = Piece(
    "incident_energies",
    vector_spec([Column("incident_energy", "MeV", "bounded", low=0.0)], "e")["e"],
    ("incident_energies",),
    lambda raw: Made(raw["incident_energies"]),
    "context",
)


def _voxels(start: int, form: Field) -> Callable[[Mapping[str, Array]], Made]:
    """The voxels from number ``start`` on, in the shape of a field."""

    def make(raw: Mapping[str, Array]) -> Made:
        rows = raw["showers"][:, start : start + form.size]
        return Made(not_negative(rows, "energies of voxels").reshape(len(rows), *form.shape))

    return make


def _energy(events: Events) -> Array:
    context = {} if events.context is None else events.context.fields
    energy: Array = context["incident_energies"].reshape(-1, 1)
    return energy
