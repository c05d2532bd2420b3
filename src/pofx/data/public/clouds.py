"""Clouds of points in HDF5: CaloClouds showers (arXiv:2305.04847, 2309.05704, 2511.01460) and JetNet jets (arXiv:2106.11535).

CaloClouds: ``events (n, 4, L)`` or ``(n, L, 4)`` of x [mm], layer (or y [mm]), z [mm], energy [GeV], ``energy (n, 1)`` [GeV].
Padding, of energy zero, stands at the front. JetNet: ``particle_features (n, L, 4)`` of relative eta, phi, pT and a mask,
``jet_features (n, 4)`` of pT [GeV], eta, mass [GeV], number of particles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.public.base import Made, Piece, PublicFormat, not_negative
from pofx.data.spec import Column, EventSpec, Field, vector_spec

__all__ = ["CaloClouds", "JetNet", "packed"]

POINT = (Column("x", "mm"), Column("y"), Column("z", "mm"), Column("e", "GeV"))


class CaloClouds(PublicFormat):
    """A cloud of up to L points; the particle's energy is the context.

    Real points, those of energy above zero, come first, in their order.
    """

    name, title, reference = "caloclouds", "showers as clouds of points (CaloClouds)", "arXiv:2305.04847"
    becomes, units = "cloud `points` (x, y, z, e); context `energy`", "mm, GeV"
    keys: Mapping[str, tuple[int | None, ...]] = {"events": (None, None), "energy": (1,)}  # type: ignore[misc]

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        wrong = super().misfits(stored)
        if not wrong and 4 not in stored["events"].shape[1:]:
            wrong = [f"events (n, 4, *) or (n, *, 4); got shape {stored['events'].shape}"]
        return wrong

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        shape = stored["events"].shape[1:]
        last = shape[1] == 4
        form = Field("cloud", (shape[0] if last else shape[1], 4), POINT)
        energy = vector_spec([Column("energy", "GeV", "bounded", low=0.0)], "energy")["energy"]
        return (
            Piece("points", form, ("events",), _points(last)),
            Piece("energy", energy, ("energy",), lambda raw: Made(raw["energy"]), "context"),
        )

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        """As ``(n, 4, L)``, padding at the front."""
        mask = _real(events, "points")
        front, _ = packed(np.where(mask[..., None], events.fields["points"], 0), ~mask)
        context = {} if events.context is None else events.context.fields
        return {"events": np.ascontiguousarray(front.swapaxes(1, 2)), "energy": context["energy"].reshape(-1, 1)}


def _points(last: bool) -> Callable[[Mapping[str, Array]], Made]:
    def make(raw: Mapping[str, Array]) -> Made:
        points = raw["events"] if last else raw["events"].swapaxes(1, 2)
        not_negative(points[..., 3], "energies of points")
        return Made(*packed(points, (points[..., 3] > 0) | np.isnan(points).any(-1)))

    return make


class JetNet(PublicFormat):
    """A cloud of up to L particles; the jet's features are the context."""

    name, title, reference = "jetnet", "jets of JetNet", "arXiv:2106.11535, doi:10.5281/zenodo.6975118"
    becomes, units = "cloud `particles` (eta_rel, phi_rel, pt_rel); context `jet`", "relative; jet GeV"
    keys: Mapping[str, tuple[int | None, ...]] = {"particle_features": (None, 4), "jet_features": (4,)}  # type: ignore[misc]

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        columns = (Column("eta_rel"), Column("phi_rel", "rad"), Column("pt_rel"))
        form = Field("cloud", (stored["particle_features"].shape[1], 3), columns)
        jet = vector_spec([Column("pt", "GeV"), Column("eta"), Column("mass", "GeV"), Column("particles")], "jet")[
            "jet"
        ]
        return (
            Piece("particles", form, ("particle_features",), _particles),
            Piece("jet", jet, ("jet_features",), lambda raw: Made(raw["jet_features"]), "context"),
        )

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        mask = _real(events, "particles")
        particles = np.where(mask[..., None], events.fields["particles"], 0)
        context = {} if events.context is None else events.context.fields
        features = np.concatenate([particles, mask[..., None].astype(particles.dtype)], -1)
        return {"particle_features": features, "jet_features": context["jet"]}


def _particles(raw: Mapping[str, Array]) -> Made:
    features = raw["particle_features"]
    return Made(*packed(features[..., :3], features[..., 3] > 0.5))


def _real(events: Events, name: str) -> Array:
    """The mask of a cloud; without one all points are real."""
    mask: Array = events.masks.get(name, np.ones(events.fields[name].shape[:2], bool))
    return mask


def packed(points: Array, first: Array) -> tuple[Array, Array]:
    """Points with those of ``first`` at the front, each group in its order, and ``first`` in the same order."""
    order = np.argsort(~first, axis=1, kind="stable")
    return np.take_along_axis(points, order[..., None], 1), np.take_along_axis(first, order, 1)
