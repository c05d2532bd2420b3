"""GFlash against its own equations, written anew or integrated, and against conservation of energy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from pofx.errors import ConfigError
from pofx.simulators.calorimeter import CALORIMETERS, Calorimeter, GFlashShower, Module, Readout
from pofx.simulators.calorimeter.gflash import segments, visible_fraction
from pofx.simulators.calorimeter.parametrisation import (
    Medium,
    Radial,
    Shape,
    cumulative,
    draw_shapes,
    fluctuations,
    mean_logs,
    medium_of,
    radial,
    sample_radius,
    spot_count,
    spot_shape,
)

PBWO4 = medium_of(CALORIMETERS["pbwo4"])
CALOGAN = medium_of(CALORIMETERS["calogan"])
DEEP = Calorimeter(
    "deep",
    (Module(80, "PbWO4", 4.452),),
    (Readout("cells", tuple(4.452 * k for k in range(81)), (1, 1), (4000.0, 4000.0)),),
    4000.0,
    unit="GeV",
)
"""Eighty layers of half a radiation length: nothing gets out."""


def energies(n: int, value: float) -> np.ndarray:
    return np.full(n, value)


# Longitudinal


@pytest.mark.parametrize("energy", [1.0, 10.0, 100.0])
def test_means_and_widths_as_published(energy: float) -> None:
    """Equations of hep-ex/0001020, section 3, in numbers."""
    log_y = math.log(1000 * energy / PBWO4.material.critical)
    z = PBWO4.z
    depth, alpha = (float(v[0]) for v in mean_logs(PBWO4, energies(1, energy)))
    assert depth == pytest.approx(math.log(log_y - 0.812))
    assert alpha == pytest.approx(math.log(0.81 + (0.458 + 2.26 / z) * log_y))
    sigma_depth, sigma_alpha, rho = (float(v[0]) for v in fluctuations(PBWO4, energies(1, energy)))
    assert sigma_depth == pytest.approx(1 / (-1.4 + 1.26 * log_y))
    assert sigma_alpha == pytest.approx(1 / (-0.58 + 0.86 * log_y))
    assert rho == pytest.approx(0.705 - 0.023 * log_y)


def test_a_sampling_calorimeter_is_shallower() -> None:
    homogeneous = replace(CALOGAN, frequency=0.0)
    for value in (1.0, 20.0):
        thin, full = mean_logs(CALOGAN, energies(1, value)), mean_logs(homogeneous, energies(1, value))
        shift = [float(np.exp(a[0]) - np.exp(b[0])) for a, b in zip(thin, full, strict=True)]
        assert shift[0] == pytest.approx(-0.55 / CALOGAN.frequency - 0.69 * (1 - CALOGAN.e_mip))
        assert shift[1] == pytest.approx(-0.476 / CALOGAN.frequency)
    assert CALOGAN.frequency == pytest.approx(15.59 / 6.0, rel=2e-3)
    assert CALOGAN.e_mip == pytest.approx(1 / (1 + 0.007 * (82 - 18)))


def test_logarithms_are_correlated_normals() -> None:
    shape = draw_shapes(PBWO4, energies(20_000, 10.0), np.random.default_rng(1))
    logs = np.log([shape.depth, shape.alpha])
    means = [float(v[0]) for v in mean_logs(PBWO4, energies(1, 10.0))]
    *sigma, rho = (float(v[0]) for v in fluctuations(PBWO4, energies(1, 10.0)))
    for values, centre, width in zip(logs, means, sigma, strict=True):
        assert stats.kstest(values, "norm", (centre, width)).pvalue > 0.003
    assert np.arctanh(np.corrcoef(logs)[0, 1]) == pytest.approx(np.arctanh(rho), abs=4 / math.sqrt(20_000))


def test_the_profile_integrates_its_density() -> None:
    shape = Shape(energies(1, 10.0), np.array([3.7]), np.array([6.2]), np.array([3.7]))
    beta = (3.7 - 1) / 6.2
    for t in (1.0, 6.2, 20.0):
        density = lambda s: beta * (beta * s) ** 2.7 * math.exp(-beta * s) / math.gamma(3.7)  # noqa: E731
        assert cumulative(shape, np.array([[t]]))[0, 0] == pytest.approx(integrate.quad(density, 0, t)[0], rel=1e-8)


def test_layers_hold_the_mean_of_the_gamma_distributions() -> None:
    """Energies of layers against the profile averaged over independent draws of its two parameters."""
    simulator = GFlashShower(geometry=DEEP, low=10.0, high=10.0)
    layers = np.concatenate([simulator.block_events(1, k).fields["cells"] for k in range(5)])[:, 0, :, 0, 0] / 10.0
    depth, alpha = (float(v[0]) for v in mean_logs(PBWO4, energies(1, 10.0)))
    sigma_depth, sigma_alpha, rho = (float(v[0]) for v in fluctuations(PBWO4, energies(1, 10.0)))
    off = rho * sigma_depth * sigma_alpha
    draws = np.random.default_rng(8).multivariate_normal(
        [depth, alpha], [[sigma_depth**2, off], [off, sigma_alpha**2]], 20_000
    )
    t, a = np.exp(draws).T
    edges = 0.5 * np.arange(81) * 4.452 / (0.5 * PBWO4.material.x0_mm)
    wanted = np.diff(stats.gamma.cdf(edges[:, None], a, scale=t / (a - 1)).mean(1))
    error = layers.std(0) / math.sqrt(len(layers))
    pulls = (layers.mean(0) - wanted)[3:40] / error[3:40]
    assert np.abs(pulls).max() < 4
    assert layers.sum(1) == pytest.approx(np.ones(500), abs=2e-3)


def test_photons_begin_deeper() -> None:
    """By 9/7 of a radiation length on average, with a deviation of as much."""
    depth = np.arange(80) * 4.452 + 2.226
    mean = {}
    for particle in ("e-", "gamma"):
        simulator = GFlashShower(geometry=DEEP, particle=particle, low=10.0, high=10.0)  # type: ignore[arg-type]
        cells = np.concatenate([simulator.block_events(2, k).fields["cells"] for k in range(5)])[:, 0, :, 0, 0]
        mean[particle] = (cells * depth).sum(1) / cells.sum(1) / PBWO4.material.x0_mm
    error = math.sqrt(sum(m.var() / 500 for m in mean.values()))
    assert mean["gamma"].mean() - mean["e-"].mean() == pytest.approx(9 / 7, abs=4 * error)


# Radial


def test_radii_follow_core_and_tail() -> None:
    n = 20_000
    one = Radial(energies(n, 0.3), energies(n, 1.9), energies(n, 0.8))
    radii = sample_radius(one, np.random.default_rng(3))

    def distribution(r: np.ndarray) -> np.ndarray:
        return 0.8 * r**2 / (r**2 + 0.3**2) + 0.2 * r**2 / (r**2 + 1.9**2)

    assert stats.kstest(radii, distribution).pvalue > 0.01


def test_core_and_tail_as_published() -> None:
    """The equations in numbers, at the depth of the maximum."""
    shape = Shape(energies(1, 10.0), np.array([4.0]), np.array([6.0]), np.array([4.5]))
    t, z, log_e = 9.0, PBWO4.z, math.log(10.0)
    tau = t / 6.0 * 3.0 / 4.0 * 4.5 / 3.5
    found = radial(PBWO4, shape, np.array([[t]]))
    falling = (0.401 + 0.00187 * z - tau) / (1.313 - 0.0686 * log_e)
    assert found.core[0, 0] == pytest.approx(0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * z) * tau)
    grown = math.exp(-2.59 * (tau - 0.645)) + math.exp((0.3585 + 0.0412 * log_e) * (tau - 0.645))
    assert found.tail[0, 0] == pytest.approx((0.659 - 0.00309 * z) * grown)
    assert found.fraction[0, 0] == pytest.approx((2.632 - 0.00094 * z) * math.exp(falling - math.exp(falling)))
    lack, rate = 1 - CALOGAN.e_mip, 1 / CALOGAN.frequency
    bare, full = (radial(m, shape, np.array([[t]])) for m in (replace(CALOGAN, frequency=0.0), CALOGAN))
    assert full.core[0, 0] - bare.core[0, 0] == pytest.approx(-0.0203 * lack + 0.0397 * rate * math.exp(-tau))
    assert full.tail[0, 0] - bare.tail[0, 0] == pytest.approx(-0.14 * lack - 0.495 * rate * math.exp(-tau))
    shift = lack * (0.348 - 0.642 * rate * math.exp(-((tau - 1) ** 2)))
    assert full.fraction[0, 0] == pytest.approx(min(bare.fraction[0, 0] + shift, 1.0))


def test_spots() -> None:
    assert spot_count(PBWO4, energies(1, 10.0), 0.11)[0] == pytest.approx(93 * math.log(PBWO4.z) * 10**0.876)
    assert spot_count(CALOGAN, energies(1, 10.0), 0.2)[0] == pytest.approx(10.3 / 0.2 * 10**0.959)
    shape = Shape(energies(1, 10.0), np.array([4.0]), np.array([6.0]), np.array([4.0]))
    assert spot_shape(PBWO4, shape).alpha[0] == pytest.approx(4 * (0.639 + 0.00334 * PBWO4.z))
    assert spot_shape(CALOGAN, shape).depth[0] == pytest.approx(6 * (0.813 + 0.0019 * CALOGAN.z))


# Cells


def test_absorbers_take_their_share() -> None:
    """The mean of what silicon sees is the fraction that is asked for, and its width that of the sampling term."""
    readout = replace(CALORIMETERS["calochallenge-2"].readouts[0], size=(3000.0, 3000.0))
    stack = replace(
        CALORIMETERS["calochallenge-2"], factor=1.0, threshold=0.0, unit="GeV", width=3000.0, readouts=(readout,)
    )
    simulator = GFlashShower(geometry=stack, low=5.0, high=5.0, resolution=0.2, fraction=0.04)
    seen = np.concatenate([simulator.block_events(4, k).fields["showers"].sum((1, 2, 3, 4)) for k in range(8)]) / 5.0
    assert seen.mean() == pytest.approx(0.04, abs=4 * float(seen.std()) / math.sqrt(800) + 2e-4)
    assert seen.std() / seen.mean() == pytest.approx(0.2 / math.sqrt(5.0), rel=4 / math.sqrt(1600))


def test_visible_fraction_of_a_homogeneous_layer() -> None:
    assert visible_fraction(Module(1, "PbWO4", 10.0)) == 1.0
    both = Module(1, "Si", 1.0, "Si", 1.0)
    assert visible_fraction(both) == pytest.approx(0.5)


@pytest.mark.parametrize("stack", CALORIMETERS.values(), ids=lambda stack: stack.name)
def test_segments_fill_the_depth(stack: Calorimeter) -> None:
    cut = segments(stack)
    assert cut.z[0] == 0.0
    assert cut.z[-1] == pytest.approx(stack.depth)
    assert (np.diff(cut.z) > 0).all()
    assert np.diff(cut.t).max() <= 0.25 + 1e-9
    wanted = sum(slab.thickness / Medium(medium).material.x0_mm for slab, medium in matter(stack))
    assert cut.t[-1] == pytest.approx(wanted)


def matter(stack: Calorimeter) -> list[tuple[object, object]]:
    from pofx.simulators.calorimeter.materials import material

    return [(slab, material(slab.material)) for slab in stack.slabs]


def test_inclined_showers_lean() -> None:
    """The centre of gravity of a layer lies where the axis crosses it."""
    angle = 30.0
    simulator = GFlashShower(geometry="pbwo4", low=10.0, high=10.0, angle=(angle, angle), position=(-20.0, 0.0))
    events = simulator.block_events(1, 0)
    assert events.context is not None
    x0, y0, theta, azimuth = events.context.fields["incidence"].T
    assert theta == pytest.approx(np.radians(energies(100, angle)))
    cells = events.fields["showers"][:, 0, 5]  # from 50 mm to 60 mm
    centres = 10.0 * np.arange(16) - 75.0
    total = cells.sum((1, 2))
    for axis, start, part in ((2, x0, np.cos(azimuth)), (1, y0, np.sin(azimuth))):
        found = (cells.sum(axis) * centres).sum(1) / total
        assert np.mean(found - start - 55.0 * math.tan(math.radians(angle)) * part) == pytest.approx(0.0, abs=1.5)


def test_events_are_a_function_of_settings_and_seed() -> None:
    simulator = GFlashShower(geometry="ild", output="points", spread=10.0, low=1.0, high=2.0)
    one, two = simulator(150, seed=4), simulator(250, seed=4)
    for name, array in one.arrays().fields.items():
        assert (array == two.arrays().fields[name][:150]).all()
    other = replace(simulator, spectrum="log-uniform").block_events(4, 0)
    assert not (other.fields["points"] == one.arrays().fields["points"][:100]).all()


def test_spectra() -> None:
    for spectrum, law in (("uniform", stats.uniform(1, 99)), ("log-uniform", stats.loguniform(1, 100))):
        simulator = GFlashShower(low=1.0, high=100.0, spectrum=spectrum)  # type: ignore[arg-type]
        assert stats.kstest(simulator._energies(5000, np.random.default_rng(1)), law.cdf).pvalue > 0.005
    with pytest.raises(ConfigError, match="high must be a number of at least 5"):
        GFlashShower(low=5.0, high=1.0)
