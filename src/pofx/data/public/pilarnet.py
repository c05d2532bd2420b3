"""PILArNet-M (arXiv:2502.02558): ionisation in liquid argon as clouds of voxels.

HDF5 of rows of any length: ``point``, eight numbers per voxel, of which x, y, z [voxels] and the energy are read, and ``cluster``, five
numbers per cluster, which are not. Files that are written hold zeros for what is not read, and one cluster of unknown kind (-1) per event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.options import Request
from pofx.data.public.base import Made, Piece, PublicFormat, Reader, RowError, inner_type
from pofx.data.public.ragged import Ragged, cloud, longest, points_of
from pofx.data.spec import Column, EventSpec, Field

__all__ = ["PILArNet"]

NAMES = ("x", "y", "z", "e")
WIDTH, CLUSTER = 8, 5


class PILArNet(PublicFormat):
    """A cloud of up to as many voxels as the largest event has (one pass finds it), or as ``ReadOptions(points=...)`` says."""

    name, title, reference = "pilarnet-m", "events of PILArNet-M", "arXiv:2502.02558"
    becomes, units = "cloud `points` (x, y, z, e)", "voxels; energy as stored"
    keys: ClassVar = {"point": (), "cluster": ()}
    most: int = 1

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        wrong = super().misfits(stored)
        odd = [name for name in self.keys if name in stored and stored[name].dtype.kind != "O"]
        return wrong + [f"{name} has rows of any length; got {stored[name].dtype}" for name in odd]

    def settled(self, stored: Mapping[str, Stored], request: Request, read: Reader) -> Self:
        found = type(self)()
        self.check(stored, "the file")
        found.most = request.options.points or longest(read, "point", stored["point"].shape[0], WIDTH)
        return found

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        form = Field("cloud", (self.most, 4), tuple(Column(name) for name in NAMES))
        kind = np.result_type(inner_type(stored["point"]), np.float32)

        def make(raw: Mapping[str, Any]) -> Made:
            rows = raw["point"].records(WIDTH, "point")
            if (rows.flat[:, 3] < 0).any():
                first = int(np.argmax(rows.flat[:, 3] < 0))
                raise RowError(f"energies must not be negative; got {rows.flat[first, 3]:.6g}", int(rows.owner[first]))
            return cloud([Ragged(rows.flat[:, i], rows.counts) for i in range(4)], NAMES, self.most, kind)

        return (Piece("points", form, ("point",), make),)

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Any]:
        values = events.fields["points"]
        real = points_of(values, events.masks.get("points", np.ones(values.shape[:2], bool)))
        point = np.zeros((len(real.flat), WIDTH), np.float32)
        point[:, :4] = real.flat
        cluster = np.full((len(events), CLUSTER), -1, np.float32)
        cluster[:, 0] = real.counts
        ones = np.full(len(events), CLUSTER)
        return {"point": Ragged(point.reshape(-1), real.counts * WIDTH), "cluster": Ragged(cluster.reshape(-1), ones)}
