"""The detector closes on its own parametrisation; jets and what is in them against small calculations by hand."""

from __future__ import annotations

import math

import awkward as ak
import numpy as np
import pytest

from pofx.errors import ConfigError
from pofx.simulators.collider.detector import Calorimeter, Detector, Tracker, jet_flavour, missing_momentum
from pofx.simulators.collider.jets import cluster, n_subjettiness, soft_drop, width
from pofx.simulators.collider.particles import momenta

N = 4000
DETECTOR = Detector()


def particles(pt, eta, phi, code) -> ak.Array:
    """Massless, events x particles."""
    pt, eta, phi = (ak.Array(np.broadcast_to(x, np.shape(code)).astype(float)) for x in (pt, eta, phi))
    parts = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
    return momenta(*(ak.from_regular(part) for part in parts), id=ak.from_regular(ak.Array(code)))


def gun(code: int, pt: float, eta: float) -> ak.Array:
    """What is seen of one particle per event, flat."""
    rng = np.random.default_rng(5)
    phi = rng.uniform(-math.pi, math.pi, (N, 1))
    return ak.flatten(DETECTOR(particles(pt, eta, phi, np.full((N, 1), code)), rng))


def width_agrees(values: np.ndarray, sigma: float) -> None:
    """Standard deviation, with the error of one, within four."""
    assert abs(values.std() / sigma - 1) < 4 / math.sqrt(2 * len(values))


@pytest.mark.parametrize(
    ("code", "pt", "eta", "part"),
    [(22, 40.0, 0.5, "electromagnetic"), (130, 80.0, -1.0, "hadronic"), (22, 30.0, 4.0, "forward")],
)
def test_calorimeters(code: int, pt: float, eta: float, part: str) -> None:
    seen = gun(code, pt, eta)
    energy, cells = pt * math.cosh(eta), getattr(DETECTOR, part)
    assert len(seen) == N
    assert abs(np.mean(seen.E) - energy) < 4 * cells.sigma(energy) / math.sqrt(N)
    width_agrees(ak.to_numpy(seen.E), cells.sigma(energy))
    assert ak.max(abs(seen.eta - eta)) <= cells.cell
    assert set(seen.id) == {22 if part == "electromagnetic" else 130}


@pytest.mark.parametrize(("code", "pt", "eta"), [(211, 5.0, 0.5), (-321, 3.0, 2.0), (13, 60.0, 0.5), (-11, 50.0, 1.0)])
def test_tracks(code: int, pt: float, eta: float) -> None:
    """Soft hadrons and muons have the tracker's resolution, electrons the better one of two; those not found are calorimetric, or lost."""
    seen = gun(code, pt, eta)
    tracked = seen[abs(seen.id) == (abs(code) if abs(code) in (11, 13) else 211)]
    tracker = DETECTOR.tracker
    chance = float(tracker.probability(np.array(pt), np.array(eta), np.array(abs(code) < 20)))
    assert abs(len(tracked) / N - chance) < 4 * math.sqrt(chance * (1 - chance) / N)
    sigma = float(tracker.sigma(np.array(pt), np.array(eta)))
    if abs(code) == 11:
        energy = pt * math.cosh(eta)
        assert DETECTOR.electromagnetic.sigma(energy) / energy < sigma
        sigma = DETECTOR.electromagnetic.sigma(energy) / energy
    width_agrees(ak.to_numpy(tracked.pt), pt * sigma)
    np.testing.assert_allclose(tracked.eta, eta, atol=1e-9)
    assert np.sign(tracked.id[0]) == np.sign(code) or abs(code) > 20


def test_hard_hadrons_are_measured_by_the_calorimeter() -> None:
    """At 2 TeV a track is known to 30 %, a shower to 5.5 %."""
    seen = gun(211, 2000.0, 0.1)
    energy = 2000.0 * math.cosh(0.1)
    width_agrees(ak.to_numpy(seen[seen.id == 211].E), DETECTOR.hadronic.sigma(energy))


def test_a_cell_is_smeared_once() -> None:
    """Two photons in a cell, far apart from a third: two candidates, the first with the resolution of the sum."""
    rng = np.random.default_rng(1)
    photons = particles([20.0, 30.0, 40.0], [0.01, 0.01, 1.0], [0.01, 0.01, 2.0], np.full((N, 3), 22))
    seen = DETECTOR(photons, rng)
    assert ak.all(ak.num(seen) == 2)
    near = seen[np.abs(seen.eta) < 0.5]
    width_agrees(ak.to_numpy(ak.flatten(near.E)), DETECTOR.electromagnetic.sigma(50.0 * math.cosh(0.01)))


def test_nothing_is_seen_of_soft_far_and_lost() -> None:
    assert len(gun(22, 0.05, 0.0)) < N / 20  # noise alone rarely passes the threshold
    assert len(gun(22, 10.0, 5.5)) == 0
    assert len(gun(13, 5.0, 3.5)) == 0


def test_leptons_are_identified_and_isolated() -> None:
    """With the stated probability; not at all inside a jet; the others stay among the candidates."""
    rng = np.random.default_rng(2)
    pt, eta, phi = [50.0, 40.0, 30.0, 60.0], [0.0, 1.0, -1.0, -1.0], [0.0, 2.0, 1.0, 1.1]
    seen = particles(pt, eta, phi, np.broadcast_to([11, -13, 13, 211], (N, 4)))
    leptons, rest = DETECTOR.leptons(seen, rng)
    assert ak.all(ak.num(leptons) + ak.num(rest) == 4)
    for code, chance in ((11, 0.85), (-13, 0.95), (13, 0.0)):
        found = float(np.mean(ak.any(leptons.id == code, axis=1)))
        assert abs(found - chance) < 4 * math.sqrt(max(chance * (1 - chance), 0) / N) + 1e-12
    assert ak.all(leptons.pt[:, :-1] >= leptons.pt[:, 1:])


def test_tags() -> None:
    """Flavour by the hadrons nearby, bottom before charm; efficiency of the closed form."""
    jets = particles(60.0, [0.0, 1.5, -1.5], 0.0, np.zeros((N, 3), int))
    bottom = particles([40.0, 3.0], [0.2, -1.5], 0.1, np.full((N, 2), 511))
    charm = particles(30.0, [0.1, 1.4], 0.0, np.full((N, 2), 411))
    np.testing.assert_array_equal(jet_flavour(jets, bottom, charm)[0], [5, 4, 0])
    tagged = DETECTOR.tagged(jets, bottom, charm, np.random.default_rng(3))
    wanted = np.array([0.75 * math.tanh(1.2), 0.15 * math.tanh(1.2), 0.01])
    assert np.all(np.abs(np.mean(ak.to_numpy(tagged), 0) - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / N))


def test_missing_momentum_balances() -> None:
    met = missing_momentum(particles([30.0, 40.0], 0.3, [0.0, math.pi / 2], [[22, 22]]))
    np.testing.assert_allclose(met, [[50.0, math.atan2(-40, -30)]], rtol=1e-12)


def test_bad_settings() -> None:
    for make in (lambda: Calorimeter(-1.0, 0, 0, 0.1, 0), lambda: Tracker(efficiency=1.5), lambda: Detector(reach=7.0)):
        with pytest.raises(ConfigError):
            make()


def naive_anti_kt(pt: np.ndarray, y: np.ndarray, phi: np.ndarray, radius: float) -> list[float]:
    """Transverse momenta of jets of massless particles, by the definition."""
    four = [
        np.array([p * math.cos(f), p * math.sin(f), p * math.sinh(e), p * math.cosh(e)])
        for p, e, f in zip(pt, y, phi, strict=True)
    ]
    jets = []
    while four:
        kt = [math.hypot(v[0], v[1]) for v in four]
        rapidity = [0.5 * math.log((v[3] + v[2]) / (v[3] - v[2])) for v in four]
        angle = [math.atan2(v[1], v[0]) for v in four]
        distances = {(i, -1): kt[i] ** -2 for i in range(len(four))}
        for i in range(len(four)):
            for j in range(i):
                turn = (angle[i] - angle[j] + math.pi) % (2 * math.pi) - math.pi
                apart = (rapidity[i] - rapidity[j]) ** 2 + turn**2
                distances[i, j] = min(kt[i] ** -2, kt[j] ** -2) * apart / radius**2
        i, j = min(distances, key=distances.__getitem__)
        if j < 0:
            jets.append(kt[i])
            four.pop(i)
        else:
            four[j] = four[j] + four[i]
            four.pop(i)
    return sorted(jets, reverse=True)


def test_clustering_against_the_definition() -> None:
    rng = np.random.default_rng(4)
    shape = (6, 14)
    pt, eta, phi = rng.exponential(20.0, shape), rng.uniform(-2, 2, shape), rng.uniform(-3.1, 3.1, shape)
    jets = cluster(particles(pt, eta, phi, np.arange(84).reshape(shape)), 0.7, 1e-3)
    for i in range(6):
        np.testing.assert_allclose(jets.momenta[i].pt, naive_anti_kt(pt[i], eta[i], phi[i], 0.7), rtol=1e-9)
    assert sorted(ak.flatten(jets.constituents.id, axis=None)) == list(range(84))
    total = ak.sum(jets.constituents.px, axis=-1)
    np.testing.assert_allclose(ak.flatten(total), ak.flatten(jets.momenta.px), rtol=1e-9, atol=1e-9)


def test_two_prongs() -> None:
    """A jet of two particles of z = 0.2 (and one of 0.05), 0.4 apart: all by hand."""
    for soft, passes in ((0.2, True), (0.05, False)):
        jet = particles([100 * (1 - soft), 100 * soft], [0.0, 0.4], 0.0, [[1, 2]])
        groomed = soft_drop(jet, 0.8)
        assert groomed.z[0] == pytest.approx(soft if passes else 0.0)
        assert groomed.opening[0] == pytest.approx(0.4 if passes else 0.0)
        mass = 100 * math.sqrt(2 * soft * (1 - soft) * (math.cosh(0.4) - 1))
        assert groomed.mass[0] == pytest.approx(mass if passes else 0.0, abs=1e-4)
        tau = n_subjettiness(jet, 0.8, axes="WTA_KT_Axes")[0]
        np.testing.assert_allclose(tau, [soft * 0.4 / 0.8, 0.0], atol=1e-9)
    axis = ak.flatten(particles(1.0, [0.1], 0.0, [[0]]))
    assert width(jet, axis, 0.8)[0] == pytest.approx((0.95 * 0.1 + 0.05 * 0.3) / 0.8)
