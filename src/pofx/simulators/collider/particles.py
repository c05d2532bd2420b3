"""Particles as awkward arrays of four-momenta, and what their PDG numbers say of them.

A particle is a record with the behaviour ``Momentum4D`` of the vector library (``.pt``, ``.eta``, ``.phi``, ``.mass``, ``+``) and its
PDG number ``id``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pofx.data.numbers import Array

__all__ = [
    "CHARGED",
    "NEUTRINOS",
    "decay_products",
    "flavour_hadrons",
    "momenta",
    "numbers",
    "padded",
    "select",
    "visible",
]

NEUTRINOS = (12, 14, 16)
CHARGED = (11, 13, 15, 211, 321, 2212, 3112, 3222, 3312, 3334)
"""Absolute PDG numbers of charged particles that fly more than 10 mm / c."""


def momenta(px: Any, py: Any, pz: Any, e: Any, **fields: Any) -> Any:
    """Momenta, and further numbers per particle."""
    import vector

    return vector.zip({"px": px, "py": py, "pz": pz, "E": e, **fields})


def select(record: Any, mask: Any) -> Any:
    """Particles of Pythia's record where ``mask`` holds, as momenta with their ``id``."""
    kept = record[mask]
    return momenta(kept.p.px, kept.p.py, kept.p.pz, kept.p.e, id=kept.id)


def visible(record: Any, reach: float = 5.0) -> Any:
    """Stable particles that a detector could see: no neutrinos, and ``|eta|`` below ``reach``."""
    stable = record[record.status > 0]
    inside = np.abs(stable.p.pz) < np.sinh(reach) * np.hypot(stable.p.px, stable.p.py)
    return select(stable, inside & ~_among(stable.id, NEUTRINOS))


def flavour_hadrons(record: Any, flavour: int) -> Any:
    """Hadrons with a bottom (5) or charm (4) quark as their heaviest, in whatever state; the PDG number's digits say so."""
    code = abs(record.id)
    heaviest = np.maximum(code // 100 % 10, code // 1000 % 10)
    return select(record, (heaviest == flavour) & (code > 100) & (code < 1_000_000))


def decay_products(record: Any, parents: tuple[int, ...], codes: tuple[int, ...]) -> Any:
    """Stable particles with one of these absolute PDG numbers that come from one of these parents, with copies in between or without.

    Copies are what a shower makes of a particle that emits or recoils; a neutrino from a tau of a W is not a product of the W.
    """
    import awkward as ak

    chosen = _among(record.id, codes) & (record.status > 0)
    own, at = record.id[chosen], ak.local_index(record.id)[chosen]
    while True:
        mother = record.mother1[at]
        copy = record.id[mother] == own
        if not ak.any(copy):
            break
        at = ak.where(copy, mother, at)
    return select(record, chosen)[_among(record.id[record.mother1[at]], parents)]


def numbers(particles: Any, *names: str) -> Array:
    """``(n, len(names))``: properties of one particle per event, such as ``pt``, ``eta``, ``phi``, ``E``."""
    return np.stack([np.asarray(getattr(particles, name), dtype=np.float64) for name in names], -1)


def padded(particles: Any, length: int, *names: str) -> tuple[Array, Array]:
    """The first ``length`` particles of every event, ``(n, length, len(names))``, zero where there are fewer, and the mask."""
    import awkward as ak

    mask = np.arange(length) < ak.to_numpy(ak.num(particles))[:, None]
    columns = [ak.fill_none(ak.pad_none(getattr(particles, name), length, clip=True), 0) for name in names]
    return np.stack([ak.to_numpy(column).astype(np.float64) for column in columns], -1), mask


def _among(ids: Any, codes: tuple[int, ...]) -> Any:
    """Where the absolute PDG number is one of these."""
    code = abs(ids)
    found = code == codes[0]
    for wanted in codes[1:]:
        found = found | (code == wanted)
    return found
