"""Tracks of muons, pions and protons in liquid argon, step by step, all at once.

In each step a particle loses energy gently (mean and variance of transfers below a cut, as a Gamma distribution), knocks on electrons
above it, and scatters. Stopped pions of positive charge decay to muons, and muons to electrons. Nuclei are not hit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pofx.data.numbers import Array
from pofx.simulators.lartpc import stopping
from pofx.simulators.lartpc.swarm import Box, Energy, Swarm, isotropic, turned

__all__ = ["MASSES", "Tracked", "daughters", "michel_energies", "track"]

MASSES: Mapping[str, float] = {
    "mu-": 105.6583755,
    "mu+": 105.6583755,
    "pi+": 139.57039,
    "pi-": 139.57039,
    "proton": 938.27208816,
}
"""In MeV."""
CUT = 0.5
"""Energy above which a knocked-on electron flies for itself, in MeV."""
SLOW = 0.05
"""Particles of a smaller beta gamma stop where they are: protons of 1.2 MeV, muons of 0.13 MeV."""
CAPTURED = {"mu-": 0.755, "pi-": 1.0}
"""Fraction of stopped particles that a nucleus takes, whose debris is not followed: 1 - 537 ns / 2197 ns for muons in argon."""


@dataclass(frozen=True)
class Tracked:
    """What tracks leave: energy, electrons that they knock on, and where they stop."""

    energy: Energy
    electrons: Swarm
    stopped: Swarm


def track(kind: str, swarm: Swarm, box: Box, step: float, type: int, rng: np.random.Generator) -> Tracked:
    """Follow particles of one kind until they stop or leave the box, in steps of at most ``step`` mm."""
    mass, left, electrons, stopped = MASSES[kind], [], [], []
    slowest = mass * (np.sqrt(1.0 + SLOW**2) - 1.0)
    while len(swarm):
        length = _lengths(swarm.energy, mass, step)
        halfway = np.maximum(swarm.energy - 0.5 * length * stopping.gentle_loss(swarm.energy, mass), 0.5 * swarm.energy)
        loss = _gentle(halfway, mass, length, rng)
        knocked, spent = _knock_on(swarm, mass, length, rng)
        loss = np.minimum(loss, np.maximum(swarm.energy - spent, 0.0))
        left.append(Energy.of(swarm.moved(0.5 * length), loss, type))
        electrons.append(knocked)
        swarm = replace(swarm.moved(length), energy=swarm.energy - loss - spent)
        theta = stopping.scattering_width(np.maximum(swarm.energy, slowest), mass, length) * rng.rayleigh(
            size=len(swarm)
        )
        swarm = replace(swarm, direction=turned(swarm.direction, np.minimum(theta, np.pi), rng))
        inside, slow = box.holds(swarm.position), swarm.energy <= slowest
        end = swarm[inside & slow]
        left.append(Energy.of(end, end.energy, type))
        stopped.append(end)
        swarm = swarm[inside & ~slow]
    nothing = Energy.of(Swarm.joined([]), np.zeros(0), type)
    return Tracked(Energy.joined([nothing, *left]), Swarm.joined(electrons), Swarm.joined(stopped))


def _lengths(energy: Array, mass: float, step: float) -> Array:
    """Shorter towards the end, where the loss per step would be large."""
    found: Array = np.minimum(step, np.maximum(0.1 * energy / stopping.gentle_loss(energy, mass), 0.02))
    return found


def _gentle(energy: Array, mass: float, length: Array, rng: np.random.Generator) -> Array:
    """Energy lost by small transfers: a Gamma distribution of the right mean and variance."""
    mean = length * stopping.gentle_loss(energy, mass, CUT)
    variance = length * stopping.straggling_variance(energy, mass, CUT)
    lost: Array = rng.gamma(mean**2 / variance) * variance / mean
    return lost


def _knock_on(swarm: Swarm, mass: float, length: Array, rng: np.random.Generator) -> tuple[Swarm, Array]:
    """Electrons of a step, and the energy that each particle spends on them. At most one per step; steps are short."""
    rate = length * stopping.knock_on_rate(swarm.energy, mass, CUT)
    rows = np.nonzero(rng.random(len(swarm)) < -np.expm1(-rate))[0]
    parents = swarm[rows]
    most = stopping.largest_transfer(parents.energy, mass)
    beta, _ = stopping.beta_gamma(parents.energy, mass)
    energy = _transfers(most, beta, rng)
    momentum, largest = (np.sqrt(e * (e + 2.0 * stopping.ELECTRON)) for e in (energy, most))
    cosine = np.minimum(energy / momentum * largest / most, 1.0)
    spent = np.zeros(len(swarm))
    spent[rows] = energy
    return replace(parents, energy=energy, direction=turned(parents.direction, np.arccos(cosine), rng)), spent


def _transfers(most: Array, beta: Array, rng: np.random.Generator) -> Array:
    """From (1 - beta^2 T / Tmax) / T^2 above the cut, by rejection."""
    found, todo = np.full(len(most), CUT), np.arange(len(most))
    while len(todo):
        u = rng.random((2, len(todo)))
        energy = 1.0 / (1.0 / CUT - u[0] * (1.0 / CUT - 1.0 / most[todo]))
        good = u[1] < 1.0 - beta[todo] * energy / most[todo]
        found[todo[good]] = energy[good]
        todo = todo[~good]
    return found


def michel_energies(n: int, rng: np.random.Generator) -> Array:
    r"""Kinetic energies [MeV] of electrons of stopped muons: density :math:`x^2 (3 - 2 x)` in x = E / 52.83 MeV."""
    grid = np.linspace(0.0, 1.0, 2001)
    x = np.interp(rng.random(n), 2.0 * grid**3 - grid**4, grid)
    return np.maximum(52.83 * x - stopping.ELECTRON, 0.0)


def daughters(kind: str, stopped: Swarm, rng: np.random.Generator) -> tuple[str, Swarm]:
    """The kind and the swarm of what stopped particles decay to: muons of pions (4.12 MeV), electrons of muons; else none."""
    if kind not in ("mu-", "mu+", "pi+"):
        return "e-", stopped[:0]
    parents = stopped[rng.random(len(stopped)) >= CAPTURED.get(kind, 0.0)]
    energy = np.full(len(parents), 4.12) if kind == "pi+" else michel_energies(len(parents), rng)
    name = {"pi+": "mu+", "mu+": "e+", "mu-": "e-"}[kind]
    return name, replace(parents, energy=energy, direction=isotropic(len(parents), rng))
