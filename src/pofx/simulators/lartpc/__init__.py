"""Liquid-argon time projection chambers: tracks and showers in three dimensions, by Geant4 and by random walks."""

from __future__ import annotations

from pofx.simulators.lartpc.events import PARTICLES, TYPES, ChamberSimulator
from pofx.simulators.lartpc.geant4 import ChamberGeant4
from pofx.simulators.lartpc.walk import ChamberWalk

__all__ = ["PARTICLES", "TYPES", "ChamberGeant4", "ChamberSimulator", "ChamberWalk"]
