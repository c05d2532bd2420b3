"""Fits of theory parameters: against closed forms, and where chi2 is biased."""

from __future__ import annotations

import numpy as np
import pytest

import pofx
from pofx.errors import ConfigError, ShapeError
from pofx.simulators.densities import CorrelatedGaussian
from pofx.simulators.peelle import Peelle, PeelleUniverses
from pofx.tasks.cross_section.theory import Chi2Cost, DensityCost, compare_fits, fit_parameters, fit_smoothed

X = np.linspace(0.0, 1.0, 6)
COVARIANCE = 0.01 * np.eye(6) + 0.02
DATA = 1.0 + 0.5 * X + np.array([0.1, -0.05, 0.02, 0.0, -0.1, 0.07])
DESIGN = np.stack([np.ones(6), X], 1)


def line(offset: float, slope: float) -> np.ndarray:
    return offset + slope * X


def solution() -> tuple[np.ndarray, np.ndarray]:
    """The linear fit in closed form."""
    weight = np.linalg.inv(COVARIANCE)
    covariance = np.linalg.inv(DESIGN.T @ weight @ DESIGN)
    return covariance @ DESIGN.T @ weight @ DATA, covariance


@pytest.mark.parametrize("kind", ["chi2", "density"])
def test_linear_fit_is_the_closed_form(kind: str) -> None:
    truth = CorrelatedGaussian(DATA, COVARIANCE)
    cost = Chi2Cost((DATA, COVARIANCE), line) if kind == "chi2" else DensityCost(truth, line)
    found = fit_parameters(cost, {"offset": 0.5, "slope": 0.0})
    value, covariance = solution()
    assert found.valid
    np.testing.assert_allclose(list(found.values.values()), value, atol=1e-4)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-2, atol=1e-6)
    low, high = found.interval("slope")
    np.testing.assert_allclose([high - value[1], value[1] - low], covariance[1, 1] ** 0.5, rtol=1e-2)


def test_profile_and_contour_are_those_of_a_parabola() -> None:
    found = fit_parameters(Chi2Cost((DATA, COVARIANCE), line), {"offset": 0.5, "slope": 0.0})
    value, covariance = solution()
    x, rise = found.profile("offset", points=7)
    np.testing.assert_allclose(rise, (x - value[0]) ** 2 / covariance[0, 0], rtol=0.02, atol=1e-3)
    points = found.contour("offset", "slope", points=12) - value
    level = np.einsum("ni,ij,nj->n", points, np.linalg.inv(covariance), points)
    np.testing.assert_allclose(level, 2.2957, rtol=0.03)  # 68.27 % of a chi2 with two degrees of freedom


def test_flow_density_can_be_minimised() -> None:
    """Single precision: second derivatives must not drown in rounding."""
    truth = CorrelatedGaussian(DATA, COVARIANCE)
    model = pofx.SplineFlow(layers=1, hidden=(16,), experts=0).fit(
        truth.sample(3000, 1), training=pofx.Training(max_steps=1, max_epochs=None, progress=False)
    )
    found = fit_parameters(DensityCost(model, line), {"offset": 0.8, "slope": 0.3})
    value, covariance = solution()
    assert found.valid
    np.testing.assert_allclose(found.values["offset"], value[0], atol=0.2 * covariance[0, 0] ** 0.5)
    np.testing.assert_allclose(found.errors["slope"], covariance[1, 1] ** 0.5, rtol=0.2)


def test_peelle_biases_chi2_and_the_linear_density_but_not_the_logarithmic_one() -> None:
    """A common value of eight bins; the factor multiplies what was measured, so the logarithm is the right coordinate."""
    values: dict[str, list[float]] = {"chi2": [], "linear": [], "log": []}

    def common(value: float) -> np.ndarray:
        return np.full(8, value)

    for x in Peelle(np.full(8, 1.0), 0.25, 0.15).sample(40, seed=1):
        published = PeelleUniverses(x, 0.25, 0.15)
        costs = {"chi2": Chi2Cost((x, published.covariance), common)}
        costs |= {name: DensityCost(published, common, coordinates=name) for name in ("linear", "log")}
        for name, cost in costs.items():
            found = fit_parameters(cost, {"value": 1.0}, limits={"value": (0.05, 5.0)}, minos=False)
            values[name].append(found.values["value"] / x.mean() - 1)
    bias = {name: np.mean(found) for name, found in values.items()}
    error = {name: np.std(found) / np.sqrt(40) for name, found in values.items()}
    assert bias["chi2"] < -0.1
    assert bias["linear"] < -0.1
    assert abs(bias["log"]) < 0.03 + 3 * error["log"]  # to first order s^2 / x^2 = 0.02 remain


def test_ripples_do_not_make_the_error() -> None:
    """A parabola with ripples of 0.3: the smoothed fit gives the parabola's minimum and error, the second derivative does not."""
    value, covariance = solution()

    class Rippled(Chi2Cost):
        def __call__(self, *values: float) -> float:
            return super().__call__(*values) + 0.3 * float(np.sin(400 * values[0]) + np.sin(530 * values[1] + 1.0))

    found = fit_smoothed(Rippled((DATA, COVARIANCE), line), {"offset": 0.9, "slope": 0.4})
    sigma = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(list(found.values.values()), value, atol=0.15 * sigma.min())
    np.testing.assert_allclose(list(found.errors.values()), sigma, rtol=0.1)
    assert found.smoothed
    rough = fit_parameters(Rippled((DATA, COVARIANCE), line), {"offset": 0.9, "slope": 0.4}, minos=False)
    assert rough.errors["offset"] < 0.5 * sigma[0]


def test_table_has_pulls() -> None:
    found = fit_parameters(Chi2Cost((DATA, COVARIANCE), line), {"offset": 0.5, "slope": 0.0})
    head, rows = compare_fits({"chi2": found}, {"offset": 1.0, "slope": 0.5})
    assert len(rows) == 2
    assert all(len(row) == len(head) for row in rows)


def test_bad_input() -> None:
    cost = Chi2Cost((DATA, COVARIANCE), line)
    with pytest.raises(ConfigError, match="expected values of offset, slope"):
        fit_parameters(cost, {"offset": 1.0})
    with pytest.raises(ConfigError, match="no parameter is called 'tilt'"):
        fit_parameters(cost, {"offset": 1.0, "slope": 0.0}, limits={"tilt": (0, 1)})
    with pytest.raises(ShapeError, match=r"expected \(6,\)"):
        Chi2Cost((DATA, COVARIANCE), lambda a: [a])(1.0)
    with pytest.raises(ConfigError, match="'linear' or 'log'"):
        DensityCost(CorrelatedGaussian(DATA, COVARIANCE), line, coordinates="square")
    with pytest.raises(ConfigError, match="give names="):
        Chi2Cost((DATA, COVARIANCE), lambda *a: a)
