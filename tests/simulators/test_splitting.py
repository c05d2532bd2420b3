"""The shower with adjustable kernels: Sudakov's factor, z at every scale, kinematics, colour."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy import integrate, stats

from pofx.errors import ConfigError
from pofx.simulators.splitting import Coefficients, Dipole, Emissions, Evolution, SplittingShower, kernel
from pofx.simulators.splitting.kernels import Coupling

CHANGED = Coefficients(0.6, 1.8, 1.5, 1.6, 0.5, -1.5, 2.0, 1.0)
CHANNELS: tuple[Literal["qq", "gg", "gq"], ...] = ("qq", "gg", "gq")


def showered(simulator: SplittingShower, n: int, seed: int, limit: int | None = None) -> tuple[Evolution, np.ndarray]:
    shower, seen = simulator.evolution(np.tile(simulator.coefficients.array(), (n, 1))), Emissions()
    shower.run(np.random.default_rng(seed), seen, limit)
    return shower, seen.table()


def test_kernels_of_altarelli_and_parisi() -> None:
    z = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(kernel("qq", z), 4 / 3 * (1 + z**2) / (1 - z))
    np.testing.assert_allclose(kernel("gg", z), 6 * (z / (1 - z) + (1 - z) / z + z * (1 - z)))
    np.testing.assert_allclose(kernel("gq", z), 0.5 * (z**2 + (1 - z) ** 2))
    part = kernel("qq", z, 0.3, Coefficients(d_qq=0, f_qq=0, c_qq=1))
    np.testing.assert_allclose(part, 4 / 3 * 0.3 * z * (1 - z))
    assert (kernel("gq", z, 1.0, Coefficients(f_gq=0, c_gq=-1)) == 0).all()


@pytest.mark.parametrize("kind", ["quark", "gluon"])
def test_rates_against_quadrature(kind: Literal["quark", "gluon"]) -> None:
    """The oracle itself, against adaptive integration in z and t."""
    dipole = Dipole(kind, 400.0, CHANGED, Coupling(0.15))
    end = 0.5 * (1 + np.sqrt(1 - 4 * 9.0 / 400.0))
    wanted = integrate.quad(lambda z: float(dipole.density(9.0, z)), 1 - end, end)[0]
    rate = wanted * float(Coupling(0.15)(9.0)) / (2 * np.pi)
    assert dipole.rate(9.0)[0] == pytest.approx(rate, rel=1e-7)
    exponent = integrate.quad(lambda u: float(dipole.rate(np.exp(u))[0]), np.log(4.0), np.log(100.0))[0]
    assert dipole.no_emission(4.0) == pytest.approx(np.exp(-2 * exponent), rel=1e-6)


@pytest.mark.parametrize("start", ["quark", "gluon"])
@pytest.mark.parametrize("coefficients", [Coefficients(), CHANGED])
def test_first_splitting(start: Literal["quark", "gluon"], coefficients: Coefficients) -> None:
    """No emission down to a scale: Sudakov's factor. Where and how the first one happens: uniform in the cumulative distributions."""
    simulator, n = SplittingShower(start=start, coefficients=coefficients), 10_000
    _, table = showered(simulator, n, seed=1, limit=1)
    dipole, ends = Dipole(start, simulator.energy**2, coefficients), 2 if start == "quark" else 4
    for low in (1.0, 10.0, 100.0, 800.0):
        wanted = n * dipole.no_emission(low, ends)
        assert abs(n - (table[:, 1] > low).sum() - wanted) < 4 * np.sqrt(wanted * (1 - wanted / n)) + 1
    for i, channel in enumerate(CHANNELS):
        t, z = table[table[:, 4] == i, 1:3].T
        if len(t):
            assert stats.kstest(dipole.cumulative(t, z, channel), "uniform").pvalue > 0.01 / 6


def test_z_of_all_splittings() -> None:
    """Every splitting of every dipole, at its own scale: only t / q2 matters."""
    simulator = SplittingShower(start="gluon", coefficients=CHANGED, cutoff=0.8)
    _, table = showered(simulator, 1500, seed=2)
    dipoles = {"qq": Dipole("quark", 1.0, CHANGED), "gg": Dipole("gluon", 1.0, CHANGED)}
    for i, channel in enumerate(CHANNELS):
        chosen = table[table[:, 4] == i]
        dipole = dipoles["qq" if channel == "qq" else "gg"]
        u = dipole.cumulative(chosen[:, 1] / chosen[:, 3], chosen[:, 2], channel)
        assert len(u) > 300
        assert stats.kstest(u, "uniform").pvalue > 0.01 / 3


def test_momenta_and_colour() -> None:
    simulator = SplittingShower(start="gluon")
    shower, table = showered(simulator, 400, seed=3)
    p, count = shower.momenta, shower.count
    assert shower.momenta.shape[1] > 8  # arrays have grown
    assert count.sum() == 2 * 400 + len(table)
    np.testing.assert_allclose(p.sum(1), np.tile([0, 0, 0, simulator.energy], (400, 1)), atol=1e-9)
    assert np.abs(p[..., 3] ** 2 - (p[..., :3] ** 2).sum(-1)).max() < 1e-7
    assert (shower.kinds.sum(1) == 0).all()  # as many quarks as antiquarks
    for event in range(400):
        links, kinds = shower.links[event], shower.kinds[event]
        for i in range(count[event]):
            assert [links[i, 0] >= 0, links[i, 1] >= 0] == [kinds[i] >= 0, kinds[i] <= 0]
            assert links[i, 0] < 0 or links[links[i, 0], 1] == i
    by_event = np.split(
        table[np.argsort(table[:, 0], kind="stable"), 1], np.cumsum(np.bincount(table[:, 0].astype(int)))[:-1]
    )
    assert all((np.diff(scales) < 0).all() for scales in by_event)


def test_azimuth_is_uniform() -> None:
    shower, _ = showered(SplittingShower(), 4000, seed=4, limit=1)
    p = shower.momenta[shower.count == 3, 2]
    assert stats.kstest(np.arctan2(p[:, 1], p[:, 0]), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01


def test_jets() -> None:
    whole = SplittingShower(jet="event", prior=True)(300, seed=5).arrays()
    half = SplittingShower(prior=True)(300, seed=5).arrays()
    np.testing.assert_array_equal(whole.context.x, half.context.x)
    assert ((whole.mask & (whole.x[..., 2] > 0)).sum(1) == half.mask.sum(1)).all()
    np.testing.assert_allclose(whole.x.sum(1), 0.0, atol=1e-9)
    energies = np.linalg.norm(whole.x, axis=-1)
    np.testing.assert_allclose(energies.sum(1), 91.188)
    assert (np.diff(energies, axis=1) <= 1e-9).all()
    few = SplittingShower(jet="event", prior=True, points=3)(300, seed=5).arrays()
    np.testing.assert_array_equal(few.x, whole.x[:, :3])


def test_refusals() -> None:
    for settings, words in (
        ({"cutoff": 50.0}, "energy > 2 cutoff"),
        ({"cutoff": 0.1}, "coupling exceeds 1"),
        ({"start": "photon"}, "start must be one of"),
        ({"points": 1}, "points must be a number of at least 2"),
    ):
        with pytest.raises(ConfigError, match=words):
            SplittingShower(**settings)
    with pytest.raises(ConfigError, match="d_qq"):
        Coefficients(d_qq=-1.0)
