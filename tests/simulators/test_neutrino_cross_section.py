"""Quasi-elastic scattering against explicit Dirac traces, limits, quadrature and an average over the Fermi sphere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from pofx.errors import DataError
from pofx.simulators import differential_cross_section, total_cross_section
from pofx.simulators.neutrino import bound_cross_section
from pofx.simulators.neutrino import cross_section as xs
from pofx.simulators.neutrino.nucleus import FERMI_MOMENTUM, energy_breaks

M, MU = xs.NUCLEON_MASS, xs.MUON_MASS
METRIC = np.diag([1.0, -1.0, -1.0, -1.0])

# ------------------------------------------------------------------------------------ an oracle: traces of Dirac matrices


def gamma_matrices() -> tuple[np.ndarray, np.ndarray]:
    one, zero = np.eye(2), np.zeros((2, 2))
    pauli = [np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.array([[1, 0], [0, -1]])]
    rows = [np.block([[one, zero], [zero, -one]])] + [np.block([[zero, s], [-s, zero]]) for s in pauli]
    return np.array(rows), np.block([[zero, one], [one, zero]])


GAMMA, GAMMA5 = gamma_matrices()


def slash(p: np.ndarray) -> np.ndarray:
    return np.einsum("a,aij->ij", METRIC @ p, GAMMA)


def traced(after: np.ndarray, vertex: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Tr[after V^a before V-bar^b]."""
    conjugate = np.array([GAMMA[0] @ v.conj().T @ GAMMA[0] for v in vertex])
    return np.einsum("ij,ajk,kl,bli->ab", after, vertex, before, conjugate)


def dirac(q2: float, energy: float, axial_mass: float, antineutrino: bool, enhancement: float) -> float:
    """d sigma / d Q^2 from |amplitude|^2 = G^2 cos^2 / 2 L.W, averaged over nucleon spins, over 64 pi M^2 E^2."""
    electric, magnetic, axial = (float(f) for f in xs.form_factors(q2, axial_mass, enhancement))
    tau = q2 / (4 * M**2)
    f1, f2 = (electric + tau * magnetic) / (1 + tau), (magnetic - electric) / (1 + tau)
    pseudo = 2 * M**2 * axial / (xs.PION_MASS**2 + q2)
    muon = energy - q2 / (2 * M)
    size = math.sqrt(muon**2 - MU**2)
    cosine = (2 * energy * muon - MU**2 - q2) / (2 * energy * size)
    k, p = np.array([energy, 0, 0, energy]), np.array([M, 0, 0, 0])
    l = np.array([muon, size * math.sqrt(1 - cosine**2), 0, size * cosine])  # noqa: E741
    q = k - l
    weak = np.array([g @ (np.eye(4) - GAMMA5) for g in GAMMA])
    moment = np.array([-0.5 * (g @ slash(q) - slash(q) @ g) for g in GAMMA])
    current = (
        f1 * GAMMA + f2 / (2 * M) * moment + axial * GAMMA @ GAMMA5 + pseudo / M * np.einsum("a,ij->aij", q, GAMMA5)
    )
    hadrons = traced(slash(p + q) + M * np.eye(4), current, slash(p) + M * np.eye(4))
    mass = MU * np.eye(4)
    leptons = traced(slash(k), weak, slash(l) - mass) if antineutrino else traced(slash(l) + mass, weak, slash(k))
    contracted = np.einsum("ab,ac,bd,cd->", leptons, METRIC, METRIC, hadrons).real
    square = 0.5 * xs.FERMI_CONSTANT**2 * xs.COS2_CABIBBO * contracted / 2
    return square / (64 * math.pi * M**2 * energy**2) * xs.CM2


@pytest.mark.parametrize("antineutrino", [False, True])
@pytest.mark.parametrize(
    ("q2", "energy", "axial_mass", "a"), [(0.01, 0.2, 1.0, 0), (0.3, 1.0, 1.2, 1), (2.0, 3.0, 0.9, 0.5)]
)
def test_agrees_with_dirac_traces(q2: float, energy: float, axial_mass: float, a: float, antineutrino: bool) -> None:
    value = differential_cross_section(q2, energy, axial_mass, antineutrino, a)
    assert value == pytest.approx(dirac(q2, energy, axial_mass, antineutrino, a), rel=1e-10)


# ------------------------------------------------------------------------------------------------------ limits and ranges


def test_low_energy_limit_without_lepton_mass() -> None:
    energy, mass = 1e-4, 1e-9
    low, high = xs.momentum_transfer_range(energy, mass)
    found, _ = integrate.quad(
        lambda q2: float(differential_cross_section(q2, energy, lepton_mass=mass)), low, high, epsabs=0.0
    )
    expected = xs.FERMI_CONSTANT**2 * xs.COS2_CABIBBO * energy**2 / math.pi * (1 + 3 * xs.AXIAL_COUPLING**2) * xs.CM2
    assert found == pytest.approx(expected, rel=2e-3)


def test_threshold_opens_the_channel() -> None:
    edge = ((M + MU) ** 2 - M**2) / (2 * M)
    assert xs.threshold() == pytest.approx(edge, rel=1e-12)
    below, above = total_cross_section(np.array([0.999, 1.001]) * edge)
    assert below == 0.0 < above
    assert np.isnan(xs.momentum_transfer_range(0.999 * edge)).all()


@pytest.mark.parametrize("energy", [0.115, 0.5, 3.0])
def test_range_is_that_of_forward_and_backward_muons(energy: float) -> None:
    s = M**2 + 2 * M * energy
    gamma, beta_gamma = (energy + M) / math.sqrt(s), energy / math.sqrt(s)
    inner = (s + MU**2 - M**2) / (2 * math.sqrt(s))
    size = math.sqrt(inner**2 - MU**2)
    muons = [gamma * inner + sign * beta_gamma * size for sign in (1, -1)]
    assert [float(q) for q in xs.momentum_transfer_range(energy)] == pytest.approx(
        [2 * M * (energy - muon) for muon in muons], rel=1e-9
    )


@pytest.mark.parametrize("antineutrino", [False, True])
@pytest.mark.parametrize("energy", [0.13, 1.0, 10.0])
def test_total_is_the_integral_and_density_is_positive(energy: float, antineutrino: bool) -> None:
    low, high = xs.momentum_transfer_range(energy)
    found, _ = integrate.quad(
        lambda q2: float(differential_cross_section(q2, energy, 1.1, antineutrino)), low, high, epsabs=0.0, epsrel=1e-10
    )
    assert total_cross_section(energy, 1.1, antineutrino) == pytest.approx(found, rel=1e-9)
    inside = np.linspace(low, high, 1001)[1:-1]
    assert (differential_cross_section(inside, energy, 1.1, antineutrino) > 0).all()
    assert (differential_cross_section([0.99 * low, 1.01 * high], energy) == 0).all()


def test_size_and_order_of_neutrinos_and_antineutrinos() -> None:
    energy = np.array([1.0, 2.0])
    neutrino, other = total_cross_section(energy), total_cross_section(energy, antineutrino=True)
    assert ((neutrino > 0.85e-38) & (neutrino < 1.1e-38)).all()
    assert (other < neutrino).all()
    assert total_cross_section(300.0, antineutrino=True) == pytest.approx(total_cross_section(300.0), rel=0.01)
    assert (total_cross_section(energy, 1.2) > neutrino).all()


def test_refuses_impossible_energies_and_masses() -> None:
    with pytest.raises(DataError, match="positive"):
        differential_cross_section(0.1, -1.0)
    with pytest.raises(DataError, match="positive"):
        differential_cross_section(0.1, 1.0, 0.0)


# --------------------------------------------------------------------------------------------------------------- nucleus


def fermi_average(energy: float) -> float:
    """sigma averaged over nucleons of the sphere, each with its flux factor k.p / (E E_p): an invariant needs no more."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    size, share = FERMI_MOMENTUM * 0.5 * (nodes[:, None] + 1), 1.5 * (0.5 * (nodes[:, None] + 1)) ** 2
    bound = np.hypot(M, size)
    product = energy * (bound - size * nodes)
    value = share * product / (energy * bound) * total_cross_section(product / M)
    return float(np.einsum("ij,i,j->", value, weights, weights) / 2)


def integrated(energy: float, pauli: float, side: int = 700) -> float:
    p, c = (np.arange(side) + 0.5) / side * (energy + 0.1), (np.arange(side) + 0.5) / side * 2 - 1
    return float(bound_cross_section(p[:, None], c, energy, pauli=pauli).mean() * 2 * (energy + 0.1))


def test_unblocked_fermi_gas_is_the_average_over_moving_nucleons() -> None:
    assert integrated(0.8, pauli=0.0) == pytest.approx(fermi_average(0.8), rel=2e-4)


def test_pauli_blocking_removes_more_the_larger_kappa() -> None:
    values = [integrated(0.5, pauli, side=300) for pauli in (0.0, 0.8, 1.0, 1.1)]
    assert values == sorted(values, reverse=True)
    assert values[2] < 0.95 * values[0]


@pytest.mark.parametrize("pauli", [0.8, 1.0, 1.1])
@pytest.mark.parametrize(
    ("momentum", "cosine"), [(0.5, 0.9), (0.3, -0.5), (1.0, 0.99), (0.1, 0.5), (0.45, -0.95), (0.6, -0.9)]
)
def test_breaks_enclose_the_support_and_part_it_smoothly(momentum: float, cosine: float, pauli: float) -> None:
    breaks = energy_breaks(momentum, cosine, 10.0, pauli)
    assert (np.diff(breaks) >= 0).all()
    energies = np.linspace(0.05, 10.0, 200_001)
    step = energies[1] - energies[0]
    inside = energies[bound_cross_section(momentum, cosine, energies, pauli=pauli) > 0]
    if len(inside) == 0:
        assert breaks[-1] - breaks[0] < step
        return
    assert inside[0] == pytest.approx(breaks[0], abs=2 * step)
    assert inside[-1] == pytest.approx(breaks[-1], abs=2 * step)

    def quadrature(nodes: int) -> float:
        x, w = np.polynomial.legendre.leggauss(nodes)
        e = breaks[:-1, None] + np.diff(breaks)[:, None] * 0.5 * (x + 1)
        return float((bound_cross_section(momentum, cosine, e, pauli=pauli) @ w * 0.5 * np.diff(breaks)).sum())

    assert quadrature(16) == pytest.approx(quadrature(24), rel=1e-6)
