"""Particles as awkward arrays of four-momenta, and what their PDG numbers say of them.

A particle is a record with the behaviour ``Momentum4D`` of the vector library (``.pt``, ``.eta``, ``.phi``, ``.mass``, ``+``) and its
PDG number ``id``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pofx.data.numbers import Array

__all__ = ["CHARGED", "NEUTRINOS", "flavour_hadrons", "momenta", "numbers", "padded", "select", "visible"]

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
    p, code = record.p, abs(record.id)
    inside = np.abs(p.pz) < np.sinh(reach) * np.hypot(p.px, p.py)
    neutrino = (code == NEUTRINOS[0]) | (code == NEUTRINOS[1]) | (code == NEUTRINOS[2])
    return select(record, (record.status > 0) & inside & ~neutrino)


def flavour_hadrons(record: Any, flavour: int) -> Any:
    """Hadrons with a bottom (5) or charm (4) quark as their heaviest, in whatever state; the PDG number's digits say so."""
    code = abs(record.id)
    heaviest = np.maximum(code // 100 % 10, code // 1000 % 10)
    return select(record, (heaviest == flavour) & (code > 100) & (code < 1_000_000))


def numbers(particles: Any, *names: str) -> Array:
    """``(n, len(names))``: properties of one particle per event, such as ``pt``, ``eta``, ``phi``, ``E``."""
    return np.stack([np.asarray(getattr(particles, name), dtype=np.float64) for name in names], -1)


def padded(particles: Any, length: int, *names: str) -> tuple[Array, Array]:
    """The first ``length`` particles of every event, ``(n, length, len(names))``, zero where there are fewer, and the mask."""
    import awkward as ak

    mask = np.arange(length) < ak.to_numpy(ak.num(particles))[:, None]
    columns = [ak.fill_none(ak.pad_none(getattr(particles, name), length, clip=True), 0) for name in names]
    return np.stack([ak.to_numpy(column).astype(np.float64) for column in columns], -1), mask
