"""Random fields: their spectra, one-point laws and densities against the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pofx.errors import CapabilityError, ConfigError, DataError, ShapeError
from pofx.simulators.fields import DustMap, GaussianField, Lattice, RandomField, Spectrum, power_spectrum
from pofx.simulators.fields.measured import Measured, binned

SMALL = Spectrum("power-law", 0.5, 1.0, 1.5)


def maps_of(simulator: RandomField | DustMap, n: int, seed: int) -> np.ndarray:
    return np.asarray(simulator.generate(n, np.random.default_rng(seed)).x)


def p_value(found: Measured, expected: np.ndarray, n: int) -> float:
    """Hotelling's: the mean of n spectra against what is expected, with their own covariance."""
    off, d = found.power - expected, len(expected)
    return float(stats.f.sf(off @ np.linalg.solve(found.covariance, off) * (n - d) / ((n - 1) * d), d, n - d))


@pytest.mark.parametrize(
    "simulator",
    [
        RandomField(law="gaussian", cells=32),
        RandomField(cells=32, spectrum=Spectrum(k=(70.0, 500.0, 3e3), power=(4e-9, 1.5e-9, 1e-10), form="table")),
        RandomField(cells=32, shift=0.02),
        RandomField(cells=9, length=1.0, spectrum=SMALL, shift=4.0),
        RandomField(law="gaussian", cells=12, dim=3, length=1.0, spectrum=SMALL),
        RandomField(cells=12, dim=3, length=1.0, spectrum=SMALL, shift=20.0),
    ],
)
def test_power_spectrum_is_the_chosen_one(simulator: RandomField) -> None:
    found = power_spectrum(maps_of(simulator, 1500, seed=1), simulator.length, bins=8)
    assert p_value(found, simulator.expected(8), 1500) > 0.01 / 6


def test_dust_spectrum() -> None:
    simulator = DustMap(cells=32, modulation=0.0)
    found = power_spectrum(maps_of(simulator, 1500, seed=1), simulator.length, bins=8)
    assert p_value(found, binned(simulator.lattice, simulator.power(), 8)[2], 1500) > 0.01
    with pytest.raises(CapabilityError, match="modulation=0"):
        DustMap().power()


def test_error_of_a_single_map() -> None:
    simulator = RandomField(law="gaussian", cells=32)
    maps = maps_of(simulator, 300, seed=2)
    pulls = [
        (found.power - simulator.expected(8)) / found.error
        for found in (power_spectrum(maps[i : i + 1], simulator.length, bins=8) for i in range(300))
    ]
    assert np.std(np.stack(pulls)[:, 3:]) == pytest.approx(1.0, abs=0.1)


def test_lognormal_one_point_law() -> None:
    """Cells of different maps are independent: Kolmogorov-Smirnov on one cell of each."""
    simulator = RandomField(cells=16)
    value = maps_of(simulator, 3000, seed=3)[:, 0, 4, 7]
    sigma = math.sqrt(simulator.gaussian.variance)
    scaled = np.log1p(value / simulator.shift) + 0.5 * sigma**2
    assert stats.kstest(scaled, stats.norm(0, sigma).cdf).pvalue > 0.01


def matrix(field: GaussianField) -> np.ndarray:
    """The covariance of all cells, from the correlation function."""
    n, correlation = field.lattice.cells, field.lattice.correlation(field.power)
    lag = (np.arange(n)[:, None] - np.arange(n)) % n
    return correlation[lag[:, None, :, None], lag[None, :, None, :]].reshape(n * n, n * n)


@pytest.mark.parametrize("cells", [5, 6])
def test_densities_against_the_full_covariance(cells: int) -> None:
    gauss = RandomField(law="gaussian", cells=cells, length=1.0, spectrum=SMALL)
    x = maps_of(gauss, 4, seed=4)
    truth = stats.multivariate_normal(np.zeros(cells**2), matrix(gauss.gaussian))
    np.testing.assert_allclose(gauss.log_prob(x), truth.logpdf(x.reshape(4, -1)), rtol=1e-9)
    lognormal = RandomField(cells=cells, length=1.0, spectrum=SMALL, shift=4.0)
    x = maps_of(lognormal, 4, seed=4)
    g = np.log1p(x / 4.0).reshape(4, -1)
    law = stats.multivariate_normal(np.full(cells**2, -0.5 * lognormal.gaussian.variance), matrix(lognormal.gaussian))
    wanted = law.logpdf(g) - np.log(4.0 + x).reshape(4, -1).sum(1)
    np.testing.assert_allclose(lognormal.log_prob(x), wanted, rtol=1e-9)
    assert lognormal.log_prob(np.full((1, cells, cells), -5.0)) == -np.inf


def test_dust_given_its_large_scales() -> None:
    """Mean, spread and density of the full map given the context."""
    simulator = DustMap(cells=6, length=4.0, modulation=0.7)
    events = simulator.generate(3, np.random.default_rng(5))
    full, large = (np.asarray(a)[:, 0].reshape(3, -1) for a in (events.x, events.context.x))
    covariance, a = matrix(simulator.parts[1]), simulator.amplitude(large)
    wanted = [
        stats.multivariate_normal(np.log(large[i]) - 0.5 * a[i] ** 2, a[i][:, None] * covariance * a[i]).logpdf(
            np.log(full[i])
        )
        - np.log(full[i]).sum()
        for i in range(3)
    ]
    np.testing.assert_allclose(simulator.log_prob(events.x, events.context.x), wanted, rtol=1e-8)
    events = DustMap(cells=16).generate(4000, np.random.default_rng(6))
    ratio = (events.x / events.context.x)[:, 0, 3, 8]
    assert abs(ratio.mean() - 1.0) < 4.0 * ratio.std() / math.sqrt(len(ratio))
    log = np.log(np.asarray(events.context.x)[:, 0, 3, 8])
    assert stats.kstest(log, stats.norm(-0.18, 0.6).cdf).pvalue > 0.01
    assert simulator.log_prob(-events.x[:1, :, :6, :6], events.context.x[:1, :, :6, :6]) == -np.inf


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="negative power at k"):
        RandomField(cells=16, dim=3, length=1.0, spectrum=Spectrum("power-law", 1.0, 1.0, 2.0), shift=1.0)(1, seed=1)
    with pytest.raises(ConfigError, match="a table needs"):
        Spectrum("table", k=(1.0, 1.0), power=(1.0, 2.0))
    with pytest.raises(ConfigError, match="dim must be one of 2, 3"):
        RandomField(dim=4)
    with pytest.raises(ConfigError, match="beam must be a number between"):
        DustMap(beam=30.0)
    with pytest.raises(ShapeError, match="expected maps of shape"):
        power_spectrum(np.zeros((4, 4)), 1.0)
    with pytest.raises(ShapeError, match="expected maps of shape"):
        RandomField(cells=8).log_prob(np.zeros((2, 4, 4)))
    with pytest.raises(DataError, match="positive power"):
        GaussianField(Lattice(8, 1.0), np.zeros((8, 5)))
