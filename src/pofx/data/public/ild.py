"""Showers in the highly granular ILD calorimeter: voxels ("Getting High", arXiv:2005.05334; L2LFlows, arXiv:2302.11594, 2405.20407).

HDF5, "Getting High": ``30x30/energy (n, 1)`` [GeV], ``30x30/layers (n, 30, 30, 30)`` [MeV], axes (layer, x, z) of cells of 5.088 mm.
The convolutional L2LFlows repack every set as ``HxW/energy`` [GeV] and ``HxW/layers`` [GeV]. For 30 x 30 both have the same names, and
a file that could be either is taken for the former; say ``format="convl2lflow"`` for the latter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.public.base import Made, Piece, PublicFormat, not_negative
from pofx.data.spec import Axis, Column, EventSpec, Field, vector_spec

__all__ = ["ConvL2LFlow", "GettingHigh"]

CELL = 5.088333
"""Width of a cell in mm."""


class GettingHigh(PublicFormat):
    """One grid ``(1, layer, x, z)`` in MeV; the photon's energy is the context."""

    name, title, reference = "getting-high", "ILD showers of Getting High", "arXiv:2005.05334"
    becomes, units = "grid `layers` (layer, x, z); context `energy`", "cells MeV, energy GeV, mm"
    keys: Mapping[str, tuple[int | None, ...]] = {"30x30/layers": (30, 30, 30), "30x30/energy": (1,)}  # type: ignore[misc]

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        edges = tuple((CELL * (np.arange(31) - 15)).tolist())
        across = (Axis("x", 30, edges, "mm"), Axis("z", 30, edges, "mm"))
        form = Field("grid", (1, 30, 30, 30), (Column("cells", "MeV"),), (Axis("layer", 30), *across))
        return (Piece("layers", form, ("30x30/layers",), _cells("30x30/layers")), _energy("30x30/energy"))

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        return {"30x30/layers": events.fields["layers"][:, 0], "30x30/energy": _given(events)}


class ConvL2LFlow(PublicFormat):
    """One grid ``(1, layer, H, W)`` in GeV of any size; the energy is the context."""

    name, title, reference = "convl2lflow", "showers in the layout of convolutional L2LFlows", "arXiv:2405.20407"
    becomes, units = "grid `layers` (layer, row, column); context `energy`", "GeV"
    keys: Mapping[str, tuple[int | None, ...]] = {"HxW/layers": (None, None, None), "HxW/energy": (1,)}  # type: ignore[misc]

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        name = self._group(stored)
        inside = {
            f"HxW/{part}": stored[f"{name}/{part}"] for part in ("layers", "energy") if f"{name}/{part}" in stored
        }
        return super().misfits(inside)

    def bound(self, stored: Mapping[str, Stored]) -> tuple[str, ...]:
        name = self._group(stored)
        return (f"{name}/layers", f"{name}/energy")

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        layers, energy = self.bound(stored)
        shape = stored[layers].shape[1:]
        axes = tuple(Axis(label, cells) for label, cells in zip(("layer", "row", "column"), shape, strict=True))
        form = Field("grid", (1, *shape), (Column("cells", "GeV"),), axes)
        return (Piece("layers", form, (layers,), _cells(layers)), _energy(energy))

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        name = "x".join(str(cells) for cells in spec["layers"].shape[2:])
        return {f"{name}/layers": events.fields["layers"][:, 0], f"{name}/energy": _given(events)}

    @staticmethod
    def _group(stored: Mapping[str, Stored]) -> str:
        """``HxW`` of the first group of that form."""
        return next((m[1] for m in (re.fullmatch(r"(\d+x\d+)/layers", name) for name in stored) if m), "HxW")


def _cells(name: str) -> Callable[[Mapping[str, Array]], Made]:
    return lambda raw: Made(not_negative(raw[name], "energies of cells")[:, None])


def _energy(name: str) -> Piece:
    form = vector_spec([Column("energy", "GeV", "bounded", low=0.0)], "energy")["energy"]
    return Piece("energy", form, (name,), lambda raw: Made(raw[name]), "context")


def _given(events: Events) -> Array:
    context = {} if events.context is None else events.context.fields
    energy: Array = context["energy"].reshape(-1, 1)
    return energy
