r"""Electrons, positrons and photons in liquid argon: a cascade in Rossi's approximation B, step by step, all at once.

Electrons lose energy by collisions, scatter, and radiate photons with the spectrum of complete screening,
:math:`dN/dk = (4/3 - 4/3\, y + y^2) / (k X_0)`, y = k / E. Photons make pairs, with the cross section of Bethe and Heitler (without
screening up to where complete screening takes over) and an even split of energy, or scatter from electrons (Klein and Nishina). Stopped
positrons annihilate. There is no photo-effect: photons below 0.1 MeV end where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pofx.data.numbers import Array
from pofx.simulators.lartpc import stopping
from pofx.simulators.lartpc.stopping import ELECTRON, X0
from pofx.simulators.lartpc.swarm import Box, Energy, Swarm, isotropic, turned

__all__ = ["cascade", "compton_rate", "pair_rate", "radiated", "scattered_photons"]

LOWEST = 0.1
"""Electrons and photons of less energy end where they are, in MeV."""
THOMSON = 6.6524587e-25
"""Cross section of Thomson in cm2."""
ELECTRONS = 0.1 * stopping.DENSITY * stopping.Z / stopping.ATOMIC * 6.02214076e23
"""Electrons per cm2 and mm."""


def cascade(light: Mapping[str, Swarm], box: Box, step: float, type: int, rng: np.random.Generator) -> Energy:
    """Energy that e-, e+ and gamma leave in a box; steps of electrons are at most ``step`` mm."""
    electrons, positrons, photons = (light[kind] for kind in ("e-", "e+", "gamma"))
    left = [Energy.of(electrons[:0], np.zeros(0), type)]
    while len(electrons) or len(positrons) or len(photons):
        shining = [photons]
        for charged, positive in ((electrons, False), (positrons, True)):
            energy, radiation, stopped = _electrons(charged, box, step, type, rng)
            left.append(energy)
            shining.append(radiation)
            if positive:
                shining.extend(_annihilated(stopped, rng))
        energy, electrons, positrons, photons = _photons(Swarm.joined(shining), box, type, rng)
        left.append(energy)
    return Energy.joined(left)


# Electrons


def _electrons(swarm: Swarm, box: Box, step: float, type: int, rng: np.random.Generator) -> tuple[Energy, Swarm, Swarm]:
    """Follow electrons until they stop or leave: energy, photons, and where they stopped."""
    left, photons, stopped = [Energy.of(swarm[:0], np.zeros(0), type)], [], []
    while len(swarm):
        slow = swarm.energy <= LOWEST
        left.append(Energy.of(swarm[slow], swarm.energy[slow], type))
        stopped.append(swarm[slow])
        swarm = swarm[~slow]
        rate = stopping.electron_loss(swarm.energy)
        length = np.minimum(step, np.maximum(0.3 * swarm.energy / rate, 0.02))
        light, spent, soft = _radiate(swarm, length, rng)
        photons.append(light)
        lost = np.minimum(length * rate + soft, swarm.energy - spent)
        left.append(Energy.of(swarm.moved(0.5 * length), lost, type))
        theta = stopping.scattering_width(swarm.energy, ELECTRON, length) * rng.rayleigh(size=len(swarm))
        swarm = replace(swarm.moved(length), energy=swarm.energy - spent - lost)
        swarm = replace(swarm, direction=turned(swarm.direction, np.minimum(theta, np.pi), rng))
        swarm = swarm[box.holds(swarm.position)]
    return Energy.joined(left), Swarm.joined(photons), Swarm.joined(stopped)


def radiated(energy: Array) -> tuple[Array, Array]:
    """Photons above the lowest energy per radiation length, and energy [MeV] per radiation length below it."""
    y = np.minimum(LOWEST / energy, 1.0)
    hard = -4.0 / 3.0 * np.log(y) - 4.0 / 3.0 * (1.0 - y) + 0.5 * (1.0 - y**2)
    return np.maximum(hard, 0.0), energy * (4.0 / 3.0 * y - 2.0 / 3.0 * y**2 + y**3 / 3.0)


def _radiate(swarm: Swarm, length: Array, rng: np.random.Generator) -> tuple[Swarm, Array, Array]:
    """Photons of a step (at most one, as steps are short), what each electron spends on them, and what it radiates softly."""
    hard, soft = radiated(swarm.energy)
    rows = np.nonzero(rng.random(len(swarm)) < -np.expm1(-hard * length / X0))[0]
    spent = np.zeros(len(swarm))
    spent[rows] = _photon_energies(swarm.energy[rows], rng)
    return replace(swarm[rows], energy=spent[rows]), spent, soft * length / X0


def _photon_energies(energy: Array, rng: np.random.Generator) -> Array:
    """From 1 / k (4/3 - 4/3 y + y^2) above the lowest energy, by rejection."""
    found, todo = np.array(energy), np.arange(len(energy))
    while len(todo):
        u, v = rng.random((2, len(todo)))
        k = LOWEST * (energy[todo] / LOWEST) ** u
        y = k / energy[todo]
        good = v * 4.0 / 3.0 < 4.0 / 3.0 - 4.0 / 3.0 * y + y**2
        found[todo[good]] = k[good]
        todo = todo[~good]
    return found


def _annihilated(stopped: Swarm, rng: np.random.Generator) -> list[Swarm]:
    """Two photons back to back."""
    one = replace(stopped, energy=np.full(len(stopped), ELECTRON), direction=isotropic(len(stopped), rng))
    return [one, replace(one, direction=-one.direction)]


# Photons


def pair_rate(energy: Array) -> Array:
    """Pairs per mm."""
    screened = 28.0 / 9.0 * np.log(183.0 * stopping.Z ** (-1.0 / 3.0)) - 2.0 / 27.0
    bare = 28.0 / 9.0 * np.log(2.0 * energy / ELECTRON) - 218.0 / 27.0
    found: Array = 7.0 / 9.0 / X0 * np.clip(bare / screened, 0.0, 1.0)
    return found


def compton_rate(energy: Array) -> Array:
    """Compton scatterings per mm (Klein and Nishina)."""
    k = energy / ELECTRON
    log = np.log1p(2.0 * k)
    first = (1.0 + k) / k**2 * (2.0 * (1.0 + k) / (1.0 + 2.0 * k) - log / k)
    found: Array = ELECTRONS * 0.75 * THOMSON * (first + log / (2.0 * k) - (1.0 + 3.0 * k) / (1.0 + 2.0 * k) ** 2)
    return found


def _photons(swarm: Swarm, box: Box, type: int, rng: np.random.Generator) -> tuple[Energy, Swarm, Swarm, Swarm]:
    """One interaction of every photon: energy, electrons, positrons, photons."""
    faint = swarm.energy <= LOWEST
    left, swarm = Energy.of(swarm[faint], swarm.energy[faint], type), swarm[~faint]
    pair, compton = pair_rate(swarm.energy), compton_rate(swarm.energy)
    swarm = swarm.moved(rng.exponential(size=len(swarm)) / (pair + compton))
    makes = rng.random(len(swarm)) * (pair + compton) < pair
    inside = box.holds(swarm.position)
    electrons, positrons = _pairs(swarm[inside & makes], rng)
    recoils, photons = _compton(swarm[inside & ~makes], rng)
    return left, Swarm.joined([electrons, recoils]), positrons, photons


def _pairs(swarm: Swarm, rng: np.random.Generator) -> tuple[Swarm, Swarm]:
    """Electrons and positrons, in the photon's direction; every split of the energy is as likely."""
    share, energy = rng.random(len(swarm)), np.maximum(swarm.energy - 2.0 * ELECTRON, 0.0)
    return replace(swarm, energy=share * energy), replace(swarm, energy=(1.0 - share) * energy)


def scattered_photons(energy: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Energies and cosines of Compton-scattered photons, by rejection from Klein and Nishina."""
    share, cosine, todo = np.ones(len(energy)), np.ones(len(energy)), np.arange(len(energy))
    while len(todo):
        k = energy[todo] / ELECTRON
        u, v = rng.random((2, len(todo)))
        e = (1.0 + 2.0 * k) ** -u  # the ratio of energies, from 1 / e
        c = 1.0 - (1.0 / e - 1.0) / k
        good = v * 2.0 < e * (e + 1.0 / e - (1.0 - c**2))
        share[todo[good]], cosine[todo[good]] = e[good], c[good]
        todo = todo[~good]
    return share * energy, cosine


def _compton(swarm: Swarm, rng: np.random.Generator) -> tuple[Swarm, Swarm]:
    """Electrons that recoil, and photons."""
    energy, cosine = scattered_photons(swarm.energy, rng)
    direction = turned(swarm.direction, np.arccos(np.clip(cosine, -1.0, 1.0)), rng)
    recoil = swarm.energy[:, None] * swarm.direction - energy[:, None] * direction
    recoil /= np.maximum(np.linalg.norm(recoil, axis=1, keepdims=True), 1e-12)
    return replace(swarm, energy=swarm.energy - energy, direction=recoil), replace(
        swarm, energy=energy, direction=direction
    )
