"""Generated events follow the densities they are said to be drawn from, and reweighted ones those of other parameters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from pofx.simulators.neutrino import Flux, detector, differential_cross_section, total_cross_section
from pofx.simulators.neutrino import background as pions
from pofx.simulators.neutrino import cross_section as xs
from pofx.simulators.neutrino.binning import BINNING
from pofx.simulators.neutrino.events import Signal, generate_background, generate_signal
from pofx.simulators.neutrino.nucleus import FERMI_MOMENTUM, bound_cross_section
from pofx.simulators.neutrino.parameters import NOMINAL
from pofx.simulators.neutrino.prediction import flux_averaged
from pofx.simulators.neutrino.reweighting import FluxTerms, Muons, Structure

M, MU = xs.NUCLEON_MASS, xs.MUON_MASS
EVENTS = 150_000


@pytest.fixture(scope="module")
def signal() -> Signal:
    return generate_signal(EVENTS, seed=3)[0]


def chi2_p(counts: np.ndarray, expected: np.ndarray) -> float:
    scaled = expected / expected.sum() * counts.sum()
    kept = scaled > 8
    scaled = np.append(scaled[kept], scaled[~kept].sum() + 1e-9)
    found = np.append(counts[kept], counts[~kept].sum())
    return float(stats.chi2.sf(((found - scaled) ** 2 / scaled).sum(), len(scaled) - 1))


def moving(energy: np.ndarray, q2: np.ndarray, nodes: int = 6) -> np.ndarray:
    """d sigma / d Q^2 averaged over the unblocked sphere at (energy, q2), with the nominal transverse enhancement."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    size = FERMI_MOMENTUM * 0.5 * (x + 1)
    share = w[:, None] * w * 0.75 * (0.5 * (x[:, None] + 1)) ** 2
    bound = np.hypot(M, size)[:, None]
    product = energy[..., None, None] * (bound - size[:, None] * x)
    value = differential_cross_section(q2[..., None, None], product / M, enhancement=1.0)
    return np.einsum("...ij,...ij,ij->...", value, product / (energy[..., None, None] * bound), share)


def test_energies_and_momentum_transfers(signal: Signal) -> None:
    energy, q2 = np.linspace(0.12, 6.0, 211), np.linspace(0.0, 3.0, 101)
    e_mid, q_mid = 0.5 * (energy[1:] + energy[:-1]), 0.5 * (q2[1:] + q2[:-1])
    density = moving(e_mid[:, None], q_mid[None]) * Flux().shape(e_mid + NOMINAL.removal_energy)[:, None]
    counts = np.histogram2d(signal.energy, signal.q2, [energy, q2])[0]
    for axis, group in ((1, 6), (0, 4)):
        found, expected = (
            np.add.reduceat(h.sum(axis), np.arange(0, len(h.sum(axis)), group)) for h in (counts, density)
        )
        assert chi2_p(found[1:], expected[1:]) > 0.01 / 4  # the first cells straddle the threshold


def test_generated_cross_section_is_the_flux_average() -> None:
    _, found = generate_signal(100_000, seed=4)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    size = FERMI_MOMENTUM * 0.5 * (nodes[:, None] + 1)
    share = weights[:, None] * weights * 0.75 * (0.5 * (nodes[:, None] + 1)) ** 2
    energy, bound = np.geomspace(0.08, 20.0, 160), np.hypot(M, size)
    product = energy[:, None, None] * (bound - size * nodes)
    value = total_cross_section(product / M, 1.0, False, 1.0) * product / (energy[:, None, None] * bound) * share
    expected = np.trapezoid(value.sum((1, 2)) * Flux().shape(energy + NOMINAL.removal_energy), energy)
    assert found == pytest.approx(expected, rel=4 / np.sqrt(100_000))


def test_muons_of_free_nucleons_follow_the_closed_form(signal: Signal) -> None:
    free = signal.nucleon > FERMI_MOMENTUM
    found = BINNING.find(signal.momentum[free], np.arccos(signal.cosine[free]))
    counts = np.bincount(found, minlength=len(BINNING) + 1)[:-1]
    assert chi2_p(counts, flux_averaged(BINNING.edges) * BINNING.areas) > 0.01 / 4


def test_blocked_share_is_that_of_the_closed_form(signal: Signal) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(300)
    p, c = 0.5 * (nodes + 1) * 1.0, nodes
    energy = 0.7
    near = np.abs(signal.energy - energy) < 0.02
    rates = [
        float(weights @ bound_cross_section(p[:, None], c, energy, enhancement=1.0, pauli=k) @ weights)
        for k in (0.0, 1.0)
    ]
    share = (signal.nucleon[near] > FERMI_MOMENTUM).mean()
    assert share == pytest.approx(rates[1] / rates[0], abs=4 * np.sqrt(0.25 / near.sum()))


def test_muon_kinematics_give_back_the_momentum_transfer(signal: Signal) -> None:
    muon = np.hypot(signal.momentum, MU)
    q2 = 2 * signal.energy * (muon - signal.momentum * signal.cosine) - MU**2
    assert np.allclose(q2, signal.q2, atol=1e-9)


def test_background_share_and_q2_are_those_of_the_closed_form() -> None:
    events, cross_section = generate_background(60_000, seed=5)
    share = cross_section / pions.CROSS_SECTION
    e, w = (np.arange(800) + 0.5) / 800 * 15.0, (np.arange(300) + 0.5) / 300 * 0.515 + 1.085
    low, high = (np.nan_to_num(end) for end in xs.momentum_transfer_range(e[:, None], hadron_mass=w))
    weight = Flux().shape(e)[:, None] * pions.mass_density(w) * 15.0 / 800 * 0.515 / 300
    inside = (1 + low) ** -3 - (1 + high) ** -3
    expected = float((weight * inside).sum())
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / (60_000 / expected)) + 1e-3)
    edges = np.linspace(0, 2, 21)
    parts = [(1 + np.clip(a, low, high)) ** -3 - (1 + np.clip(b, low, high)) ** -3 for a, b in pairwise(edges)]
    rates = np.array([(weight * part).sum() for part in parts])
    assert chi2_p(np.histogram(events.q2, edges)[0], rates) > 0.01 / 4
    assert ((events.pion > 0) & (events.pion < 10)).all()


def test_densities_of_pion_production_integrate_to_one() -> None:
    q2, mass = np.linspace(0, 400, 2_000_001), np.linspace(*pions.MASSES, 20_001)
    assert np.trapezoid(pions.q2_density(q2, 0.9), q2) == pytest.approx(1, abs=1e-6)
    assert np.trapezoid(pions.mass_density(mass), mass) == pytest.approx(1, abs=1e-6)


def test_weights_are_the_exact_densities(signal: Signal) -> None:
    one = Signal(*(column[:500] for column in signal))
    values = NOMINAL._replace(flux_normalisation=1.1, flux_peak=0.63, flux_tail=0.2)
    flux = FluxTerms.of(one.energy).shape(values, removal_energy=0.04)
    assert np.allclose(flux, 1.1 * Flux(1.0, 0.63, 0.2).shape(one.energy + 0.04), rtol=1e-12)
    value = Structure.of(one.q2, one.x).value(axial_mass=1.3, enhancement=0.4)
    assert np.allclose(value, xs.invariant(one.q2, one.x, xs.form_factors(one.q2, 1.3, 0.4)), rtol=1e-9)
    assert FluxTerms.of(np.array([0.01])).shape(NOMINAL, removal_energy=-0.02) == 0.0


def test_measured_muons() -> None:
    n = 200_000
    muons = Muons.of(np.full(n, 0.5), np.full(n, 0.5), np.random.default_rng(2))
    resolution = np.hypot(0.06, 0.02)
    measured = detector.measured_momentum(muons.momentum, muons.spread, scale=0.02, resolution=1.5) / 0.5
    assert measured.mean() == pytest.approx(1.02, abs=5 * 1.5 * resolution / np.sqrt(n))
    assert measured.std() == pytest.approx(1.02 * 1.5 * resolution, rel=5 / np.sqrt(2 * n))
    angle = detector.measured_angle(muons.angle, muons.deviate, resolution=2.0)
    assert angle.std() == pytest.approx(0.06, rel=5 / np.sqrt(2 * n))
    assert (detector.measured_angle(np.zeros(9), np.linspace(-1, 1, 9)) >= 0).all()


def test_efficiency_is_its_formula() -> None:
    p, c = np.array([0.1, 0.2, 0.5, 2.0]), np.array([-0.9, 0.3, 0.5, 0.99])
    found = detector.efficiency(detector.threshold_factor(p), detector.side_share(c), 1.01, 0.22, 0.4)
    turn_on, share = (1 / (1 + np.exp(-u)) for u in ((p - 0.22) / 0.05, (c - 0.3) / 0.15))
    assert np.allclose(found, 0.7 * 1.01 * turn_on * (0.4 + 0.6 * share), rtol=1e-12)


def test_bins_are_found_as_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    p, c = rng.uniform(0, 7, 5000), rng.uniform(-1, 1, 5000)
    inside = (p[:, None] >= BINNING.edges[:, 0]) & (p[:, None] < BINNING.edges[:, 1])
    inside &= (c[:, None] > BINNING.edges[:, 2]) & (c[:, None] <= BINNING.edges[:, 3])
    expected = np.where(inside.any(1), inside.argmax(1), len(BINNING))
    assert (BINNING.find(p, np.arccos(c)) == expected).all()
