"""CaloGAN showers (arXiv:1705.02355, doi:10.17632/pvn3xc3wy5.1): three layers of cells in MeV, the particle's energy in GeV.

HDF5: ``layer_0 (n, 3, 96)``, ``layer_1 (n, 12, 12)``, ``layer_2 (n, 12, 6)`` [MeV], ``energy (n, 1)`` [GeV], ``overflow (n, 3)`` [MeV].
The cube is 480 mm wide; cells of layer 0 are 160 mm x 5 mm, of layer 1 40 mm x 40 mm, of layer 2 40 mm x 80 mm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.public.base import Made, Piece, PublicFormat, not_negative
from pofx.data.spec import Axis, Column, EventSpec, Field, vector_spec

__all__ = ["CaloGAN"]

LAYERS = {"layer_0": (3, 96), "layer_1": (12, 12), "layer_2": (12, 6)}
HALF = 240.0
"""Half of the calorimeter's width in mm."""


class CaloGAN(PublicFormat):
    """Events of three grids; the particle's energy is the context. ``overflow`` is not read, and written as zeros."""

    name, title, reference = "calogan", "CaloGAN showers", "arXiv:1705.02355"
    becomes, units = "grids `layer_0`, `layer_1`, `layer_2`; context `energy`", "cells MeV, energy GeV"
    keys: Mapping[str, tuple[int | None, ...]] = {**LAYERS, "energy": (1,)}  # type: ignore[misc]

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        energy = vector_spec([Column("energy", "GeV", "bounded", low=0.0)], "energy")["energy"]
        return (
            *(Piece(name, _grid(name, cells), (name,), _cells(name)) for name, cells in LAYERS.items()),
            Piece("energy", energy, ("energy",), lambda raw: Made(raw["energy"]), "context"),
        )

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        context = {} if events.context is None else events.context.fields
        layers = {name: np.asarray(events.fields[name], np.float32)[:, 0] for name in LAYERS}
        energy = np.asarray(context["energy"], np.float32).reshape(-1, 1)
        return {**layers, "energy": energy, "overflow": np.zeros((len(events), 3), np.float32)}


def _grid(name: str, cells: tuple[int, int]) -> Field:
    def axis(label: str, count: int) -> Axis:
        return Axis(label, count, tuple(np.linspace(-HALF, HALF, count + 1).tolist()), "mm")

    return Field("grid", (1, *cells), (Column(name, "MeV"),), (axis("x", cells[0]), axis("y", cells[1])))


def _cells(name: str) -> Callable[[Mapping[str, Array]], Made]:
    return lambda raw: Made(not_negative(raw[name], "energies of cells")[:, None])
