"""Generators of unweighted events: quasi-elastic scattering in a Fermi gas, and pion production.

The signal is drawn from the densities that :mod:`~pofx.simulators.neutrino.nucleus` integrates in closed form: neutrino energies
from the flux, nucleons uniform in the Fermi sphere, Q^2 by acceptance and rejection of flux factor times d sigma / d Q^2 at the
energy that the neutrino has in the nucleon's rest frame, a uniform azimuth there, and a boost back. Pauli blocking is left to the
reader of the events, who knows the momentum of the ejected nucleon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pofx.simulators.neutrino import background, flux
from pofx.simulators.neutrino.cross_section import (
    MUON_MASS,
    NUCLEON_MASS,
    differential_cross_section,
    momentum_transfer_range,
)
from pofx.simulators.neutrino.nucleus import FERMI_MOMENTUM
from pofx.simulators.neutrino.parameters import NOMINAL, Parameters

__all__ = ["Background", "Signal", "generate_background", "generate_signal"]

Array = NDArray[np.float64]

BATCH = 50_000
PROPOSAL = 0.8
"""Q^2 is proposed with density 2 L^2 / (1 + Q^2 / L)^3 / L^3 with this L in GeV^2."""


class Signal(NamedTuple):
    """Quasi-elastic events, each ``(n,)``; GeV.

    energy : of the neutrino at the vertex, E - E_b.
    q2, x : Q^2 and (s - u) / M^2.
    momentum, cosine : of the muon.
    nucleon : momentum of the ejected nucleon.
    """

    energy: Array
    q2: Array
    x: Array
    momentum: Array
    cosine: Array
    nucleon: Array


class Background(NamedTuple):
    """Pion production, each ``(n,)``: neutrino energy, Q^2, muon momentum and cosine, pion momentum; GeV."""

    energy: Array
    q2: Array
    momentum: Array
    cosine: Array
    pion: Array


def generate_signal(n: int, seed: int, values: Parameters = NOMINAL) -> tuple[Signal, float]:
    """``n`` events, Pauli-blocked ones included, and their flux-averaged cross section in cm^2 per neutron, estimated from how many
    proposals were kept. The same seed gives the same events.

    >>> events, cross_section = generate_signal(1000, seed=1)
    >>> events.momentum.shape, bool((abs(events.cosine) <= 1).all())
    ((1000,), True)
    """
    bound = _bound(values)
    events, share = _collect(n, seed, lambda rng: _signal_batch(rng, values, bound))
    return Signal(*events), share * bound


def generate_background(n: int, seed: int, values: Parameters = NOMINAL) -> tuple[Background, float]:
    """``n`` events, and their flux-averaged cross section in cm^2 per nucleon, nominal absorption and normalisation apart."""
    events, share = _collect(n, seed, lambda rng: _background_batch(rng, values))
    return Background(*events), share * background.CROSS_SECTION


def _collect(
    n: int, seed: int, batch: Callable[[np.random.Generator], tuple[Array, ...]]
) -> tuple[tuple[Array, ...], float]:
    """Batches until there are ``n`` events; the share of proposals kept."""
    rng, parts, have = np.random.default_rng(seed), [], 0
    while have < n:
        parts.append(batch(rng))
        have += len(parts[-1][0])
    return tuple(np.concatenate(column)[:n] for column in zip(*parts, strict=True)), have / (len(parts) * BATCH)


def _flux(values: Parameters) -> flux.Flux:
    return flux.Flux(values.flux_normalisation, values.flux_peak, values.flux_tail)


def _signal_batch(rng: np.random.Generator, values: Parameters, bound: float) -> tuple[Array, ...]:
    energy = _flux(values).sample(BATCH, rng) - values.removal_energy
    nucleon = _sphere(rng, BATCH)
    u = rng.random(BATCH)
    q2 = PROPOSAL * (1 / np.sqrt(u) - 1)
    bound_energy = np.sqrt(NUCLEON_MASS**2 + (nucleon**2).sum(0))
    product = energy * (bound_energy - nucleon[2])
    kept = product > 0
    value = np.zeros(BATCH)
    rest = product[kept] / NUCLEON_MASS
    value[kept] = differential_cross_section(q2[kept], rest, values.axial_mass, False, values.enhancement)
    value[kept] *= product[kept] / (energy * bound_energy)[kept]
    kept = rng.random(BATCH) * bound < value / _proposal_density(q2)
    parts = (energy[kept], q2[kept], nucleon[:, kept], bound_energy[kept])
    return _outgoing(*parts, rng.uniform(0.0, 2 * np.pi, int(kept.sum())))


def _outgoing(energy: Array, q2: Array, nucleon: Array, bound_energy: Array, azimuth: Array) -> tuple[Array, ...]:
    """Muon and ejected nucleon in the laboratory, from what happened in the struck nucleon's rest frame."""
    beta = nucleon / bound_energy
    along = np.zeros_like(nucleon)
    along[2] = energy
    rest, direction = _boosted(energy, along, -beta)
    direction /= rest
    muon = rest - q2 / (2 * NUCLEON_MASS)
    size = np.sqrt(muon**2 - MUON_MASS**2)
    cosine = (2 * rest * muon - MUON_MASS**2 - q2) / (2 * rest * size)
    first, second = _perpendicular(direction)
    sine = np.sqrt(np.maximum(1 - cosine**2, 0.0))
    inside = size * (cosine * direction + sine * (np.cos(azimuth) * first + np.sin(azimuth) * second))
    _, vector = _boosted(muon, inside, beta)
    momentum = np.sqrt((vector**2).sum(0))
    ejected = np.sqrt(((along + nucleon - vector) ** 2).sum(0))
    x = (4 * NUCLEON_MASS * rest - q2 - MUON_MASS**2) / NUCLEON_MASS**2
    return energy, q2, x, momentum, np.clip(vector[2] / momentum, -1.0, 1.0), ejected


def _background_batch(rng: np.random.Generator, values: Parameters) -> tuple[Array, ...]:
    energy = _flux(values).sample(BATCH, rng)
    mass = background.sample_mass(BATCH, rng)
    q2 = background.sample_q2(BATCH, rng, values.background_mass)
    low, high = momentum_transfer_range(energy, hadron_mass=mass)
    kept = (q2 >= low) & (q2 <= high)
    energy, mass, q2 = energy[kept], mass[kept], q2[kept]
    muon = energy - (mass**2 + q2 - NUCLEON_MASS**2) / (2 * NUCLEON_MASS)
    momentum = np.sqrt(muon**2 - MUON_MASS**2)
    cosine = np.clip((2 * energy * muon - MUON_MASS**2 - q2) / (2 * energy * momentum), -1.0, 1.0)
    pion = background.pion_momentum(mass, energy + NUCLEON_MASS - muon, rng.uniform(-1.0, 1.0, len(q2)))
    return energy, q2, momentum, cosine, pion


def _proposal_density(q2: Array) -> Array:
    result: Array = 2 / PROPOSAL / (1 + q2 / PROPOSAL) ** 3
    return result


def _bound(values: Parameters) -> float:
    """Above flux factor times d sigma / d Q^2 over the proposal's density, for every energy and Q^2."""
    energy, q2 = np.geomspace(0.09, 60.0, 300)[:, None], np.geomspace(1e-4, 20.0, 600)
    value = differential_cross_section(q2, energy, values.axial_mass, False, values.enhancement)
    fastest = FERMI_MOMENTUM / np.hypot(NUCLEON_MASS, FERMI_MOMENTUM)
    return 1.02 * (1 + fastest) * float((value / _proposal_density(q2)).max())


def _sphere(rng: np.random.Generator, n: int) -> Array:
    """Momenta uniform in the Fermi sphere, ``(3, n)``."""
    size, cosine, angle = FERMI_MOMENTUM * np.cbrt(rng.random(n)), rng.uniform(-1, 1, n), rng.uniform(0, 2 * np.pi, n)
    sine = np.sqrt(1 - cosine**2)
    return size * np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine])


def _boosted(energy: Array, vector: Array, beta: Array) -> tuple[Array, Array]:
    """Four-momenta as seen after a boost by ``beta``, ``(3, n)``."""
    square = (beta**2).sum(0)
    gamma = 1 / np.sqrt(1 - square)
    along = (beta * vector).sum(0)
    scale = gamma**2 / (1 + gamma) * along + gamma * energy
    return gamma * (energy + along), vector + scale * beta


def _perpendicular(direction: Array) -> tuple[Array, Array]:
    """Two unit vectors at right angles to each direction and to each other, ``(3, n)``."""
    other = np.where(np.abs(direction[2]) < 0.9, np.array([[0.0], [0.0], [1.0]]), np.array([[1.0], [0.0], [0.0]]))
    first = np.cross(direction, other, axis=0)
    first /= np.sqrt((first**2).sum(0))
    return first, np.cross(direction, first, axis=0)
