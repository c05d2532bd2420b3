"""Jet images of LAGAN (arXiv:1701.05927, doi:10.5281/zenodo.268592): 25 x 25 pixels, boosted W bosons and QCD jets.

HDF5: ``image (n, 25, 25)``, ``signal (n,)``, which is 1 for a W boson. Other arrays of the file are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.public.base import Made, Piece, PublicFormat, context_of
from pofx.data.spec import Axis, Column, EventSpec, Field, vector_spec

__all__ = ["LAGAN"]

PIXELS = 25


class LAGAN(PublicFormat):
    """One grid ``(1, 25, 25)``; the class is the context."""

    name, title, reference = "lagan", "jet images of LAGAN", "arXiv:1701.05927"
    becomes, units = "grid `image`; context `signal`", "as stored"
    keys: ClassVar = {"image": (PIXELS, PIXELS), "signal": ()}

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        axes = (Axis("row", PIXELS), Axis("column", PIXELS))
        form = Field("grid", (1, PIXELS, PIXELS), (Column("image"),), axes)
        signal = vector_spec([Column("signal", "", "discrete", 0.0, 1.0)], "signal")["signal"]
        return (
            Piece("image", form, ("image",), lambda raw: Made(raw["image"][:, None])),
            Piece("signal", signal, ("signal",), lambda raw: Made(raw["signal"][:, None]), "context"),
        )

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        return {"image": events.fields["image"][:, 0], "signal": context_of(events)["signal"].reshape(-1)}
