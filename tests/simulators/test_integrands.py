"""Integrands against quadrature and Monte Carlo, and against the values that others quote."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from pofx.errors import ConfigError, ShapeError
from pofx.simulators.task_toys import drell_yan as dy
from pofx.simulators.task_toys.integrands import GENZ, INTEGRANDS, breit_wigners, camel, genz


@pytest.mark.parametrize("name", INTEGRANDS)
def test_monte_carlo(name: str) -> None:
    """Within four errors where plain Monte Carlo has one that is worth something."""
    integrand = INTEGRANDS[name]
    value, error = integrand.estimate(20_000 if integrand.dim > 4 else 60_000, seed=1)
    assert abs(value - integrand.integral) < 4 * error
    if name not in ("camel-8", "camel-16", "plus-minus", "breit-wigners", "drell-yan-zprime", "genz-oscillatory"):
        assert error < 0.12 * abs(integrand.integral)


@pytest.mark.parametrize("name", ["camel-line", "camel-cut"])
def test_line(name: str) -> None:
    f = INTEGRANDS[name]
    wanted = integrate.quad(lambda x: float(f([[x]])[0]), 0, 8, points=[2, 2.5, 4.8, 5, 5.2], epsabs=1e-12, limit=200)[
        0
    ]
    assert f.integral == pytest.approx(wanted, rel=1e-9)


def test_published_values() -> None:
    np.testing.assert_allclose(
        [camel(d).integral for d in (2, 4, 8, 16)], [0.981660, 0.963657, 0.928635, 0.862363], atol=5e-7
    )
    assert INTEGRANDS["entangled-circles"].integral == pytest.approx(0.01368477, abs=2e-8)


@pytest.mark.parametrize("name", ["ring-line", "entangled-circles"])
def test_plane_by_midpoints(name: str) -> None:
    f, n = INTEGRANDS[name], 1000
    u = (np.arange(n) + 0.5) / n
    rows = (float(f.on_cube(np.stack([np.full(n, a), u], 1)).sum()) for a in u)
    assert sum(rows) / n**2 == pytest.approx(f.integral, rel=1e-3)


@pytest.mark.parametrize("family", GENZ)
def test_genz_in_two_dimensions(family: str) -> None:
    f = genz(family, 2)
    u = [0.3 + 0.4 / 2, 0.3 + 0.4]
    nodes, weights = np.polynomial.legendre.leggauss(60)
    points = [np.concatenate([0.5 * e * (nodes + 1), e + 0.5 * (1 - e) * (nodes + 1)]) for e in u]
    shares = [np.concatenate([0.5 * e * weights, 0.5 * (1 - e) * weights]) for e in u]
    grid = np.stack(np.meshgrid(*points, indexing="ij"), -1).reshape(-1, 2)
    assert np.outer(*shares).ravel() @ f(grid) == pytest.approx(f.integral, rel=1e-9)


def test_breit_wigners_on_a_line() -> None:
    f = breit_wigners(1)
    wanted = integrate.quad(
        lambda s: float(f([[s]])[0]), 0, 1, points=[0.1, 0.15, 0.16, 0.17], epsabs=1e-10, limit=400
    )[0]
    assert f.integral == pytest.approx(wanted, rel=1e-7)


@pytest.mark.parametrize("zprime", [False, True])
def test_drell_yan_by_nested_quadrature(zprime: bool) -> None:
    """Over the logarithm of tau between the resonances, and rapidity, with cosine and phi by the mean of a polynomial."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    edges = dy._edges(dy.RESONANCES)
    u = 1.0 - np.log((edges / dy.ENERGY) ** 2) / dy.LOG_LEAST
    half = 0.5 * np.diff(u)[:, None]
    first, share = (u[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()
    rest, flat = 0.5 * (nodes + 1), 0.5 * weights
    total = 0.0
    for y, wy in zip(rest, flat, strict=True):
        for c, wc in ((0.5 - 0.5 / math.sqrt(3), 0.5), (0.5 + 0.5 / math.sqrt(3), 0.5)):  # exact for quadratics
            at = np.stack([first, np.full_like(first, y), np.full_like(first, c), np.zeros_like(first)], 1)
            total += wy * wc * float(share @ dy.drell_yan(at, zprime))
    assert total == pytest.approx(dy.drell_yan_integral(zprime), rel=1e-6)


def test_photon_alone_has_the_textbook_cross_section() -> None:
    """4 pi alpha^2 Q^2 / 9 s far below the Z, where only the photon counts."""
    s = np.array([0.5**2])
    same, other = dy._amplitudes(s, False)
    found = dy.ALPHA**2 / (48 * s) * math.tau * (8 / 3) * (same + other)
    wanted = 4 * math.pi * dy.ALPHA**2 / (9 * s) * (4 / 9 + 1 / 9)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_refusals() -> None:
    with pytest.raises(ShapeError, match=r"points of shape \(n, 2\)"):
        INTEGRANDS["camel-2"](np.zeros((3, 4)))
    with pytest.raises(ConfigError, match="genz: expected one of"):
        genz("smooth")
    assert INTEGRANDS["camel-2"]([[2.0, 0.5]]) == 0
