"""What every shower simulator takes and makes: particles that start, energies of cells; voxels and clouds made of these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pofx.data.numbers import Array
from pofx.simulators.calorimeter.geometry import Calorimeter

__all__ = ["Deposits", "Primaries", "clouds", "collected", "voxels"]

TINY = float(np.finfo(np.float32).tiny)
"""Energies below it are none."""


@dataclass(frozen=True)
class Primaries:
    """Particles that start: one row each, of all events one after the other.

    Attributes
    ----------
    event : number of the event, ascending, ``(p,)``.
    kind : Geant4's names, ``(p,)``.
    energy : kinetic, in GeV, ``(p,)``.
    position, direction : in mm, the stack's front at z = 0; unit vectors; ``(p, 3)``.
    """

    event: Array
    kind: Array
    energy: Array
    position: Array
    direction: Array


@dataclass(frozen=True)
class Deposits:
    """Energies of cells that are not empty: one row for each and each scorer.

    Attributes
    ----------
    event, readout, cell : numbers; ``cell`` counts layer, then cells as in the readout's shape.
    energy : in GeV.
    scorer : which group of particles deposited it.
    """

    event: Array
    readout: Array
    cell: Array
    energy: Array
    scorer: Array


def collected(stack: Calorimeter, event: Array, readout: Array, cell: Array, energy: Array) -> Deposits:
    """Spots of energy [GeV], several in a cell perhaps, added up."""
    starts = np.cumsum([0, *(one.volume for one in stack.readouts)])
    place, which = np.unique(event * starts[-1] + starts[readout] + cell, return_inverse=True)
    total = np.bincount(which, energy, len(place))
    event, inside = np.divmod(place, starts[-1])
    number = np.searchsorted(starts, inside, side="right") - 1
    return Deposits(event, number, inside - starts[number], total, np.zeros_like(event))


def voxels(stack: Calorimeter, deposits: Deposits, n: int) -> dict[str, Array]:
    """One grid per readout, ``(n, 1, layers, cells, cells)`` (one layer: ``(n, 1, cells, cells)``), float32, in the stack's unit."""
    found = {}
    for number, readout in enumerate(stack.readouts):
        here = deposits.readout == number
        energy = deposits.energy[here] * stack.per_gev
        grid = np.zeros((n, readout.volume), np.float32)
        grid[deposits.event[here], deposits.cell[here]] = np.where(energy < stack.threshold, 0.0, energy)
        found[readout.name] = grid.reshape(n, 1, *readout.grid)
    return found


def clouds(stack: Calorimeter, deposits: Deposits, n: int, most: int) -> tuple[Array, Array]:
    """Points ``(n, most, 4)``, float32, (x [mm], layer, y [mm], energy [GeV]) at centres of cells, and their mask ``(n, most)``.

    Layers are counted through all readouts. Points are in order of falling energy; of longer events the first ``most`` are kept.
    """
    energy = deposits.energy * stack.factor
    keep = energy * (1000.0 if stack.unit == "MeV" else 1.0) >= max(stack.threshold, TINY)
    event, energy = deposits.event[keep], energy[keep]
    points = np.column_stack([_places(stack, deposits.readout[keep], deposits.cell[keep]), energy])
    order = np.lexsort((points[:, 0], points[:, 2], points[:, 1], -energy, event))
    event, points = event[order], points[order]
    rank = np.arange(len(event)) - np.searchsorted(event, event)
    first = rank < most
    values, mask = np.zeros((n, most, 4), np.float32), np.zeros((n, most), bool)
    values[event[first], rank[first]], mask[event[first], rank[first]] = points[first], True
    return values, mask


def _places(stack: Calorimeter, readout: Array, cell: Array) -> Array:
    """(x, layer, y) of cells, ``(p, 3)``."""
    found, before = np.zeros((len(cell), 3)), 0
    for number, one in enumerate(stack.readouts):
        here = readout == number
        layer, across = np.divmod(cell[here], one.cells[0] * one.cells[1])
        x, y = one.centres()[across].T
        found[here] = np.column_stack([x, layer + before, y])
        before += one.shape[0]
    return found
