"""The measurement: extraction closes, reweighting is exact, universes have the stated spread and are reproducible, M_A is recovered."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import interpolate, optimize, stats

from pofx.errors import ConfigError, ShapeError
from pofx.simulators import Experiment
from pofx.simulators.neutrino.binning import BINNING, Binning
from pofx.simulators.neutrino.extraction import Response, unfold
from pofx.simulators.neutrino.parameters import NOMINAL, PARAMETERS, SOURCES, Parameters, correlation, thrown
from pofx.simulators.neutrino.prediction import flux_averaged


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment(seed=1, events=16_000)


@pytest.fixture(scope="module")
def total(experiment: Experiment) -> np.ndarray:
    return experiment.universes(600, seed=1)


# ------------------------------------------------------------------------------------------------------------ extraction


def test_central_values_are_the_truth(experiment: Experiment) -> None:
    assert np.allclose(experiment.central, experiment.truth(), rtol=1e-10)


def test_the_right_simulation_finds_the_right_answer_whatever_nature_is(experiment: Experiment) -> None:
    for seed in range(3):
        values = thrown("total", np.random.default_rng(seed))
        found = experiment.extract(experiment.expected(values), values)
        reference = experiment.simulation.response(values).reference
        again = reference / experiment.response.reference * experiment.central
        assert np.allclose(found, again, rtol=1e-10)


def test_result_refers_to_the_nominal_flux(experiment: Experiment) -> None:
    values = NOMINAL._replace(flux_normalisation=1.2, flux_peak=0.65, flux_tail=0.2)
    assert np.allclose(experiment.extract(experiment.expected(values), values), experiment.central, rtol=1e-10)
    assert not np.allclose(experiment.extract(experiment.expected(values)), experiment.central, rtol=0.1)


def test_unfolding_converges_to_the_solution_of_the_linear_equations() -> None:
    rng = np.random.default_rng(4)
    matrix = 0.5 * np.eye(5) + 0.02 * rng.random((5, 5))
    truth, other, background = rng.uniform(50, 100, 5), rng.uniform(50, 100, 5), rng.uniform(1, 5, 5)
    response = Response(other, other, matrix * other[:, None], background)
    assert np.allclose(unfold(truth @ matrix + background, response, iterations=3000), truth, rtol=1e-6)
    assert (unfold(np.array([0.0, 0, 1, 2, 0]), response) >= 0).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"axial_mass": 1.3},
        {"removal_energy": 0.04},
        {"enhancement": 0.0},
        {"pauli": 1.1},
        {"pauli": 0.9},
        {"flux_peak": 0.63},
    ],
    ids=str,
)
def test_reweighted_cross_sections_agree_with_quadrature(experiment: Experiment, changed: dict[str, float]) -> None:
    signal, values = experiment.simulation.signal, NOMINAL._replace(**changed)
    found = experiment.simulation.response(values).truth / experiment.response.truth
    exact = flux_averaged(experiment.edges, values) / flux_averaged(experiment.edges)
    free = signal.nominal_weight > 0
    ratio = signal.weights(values)[0][free] / signal.nominal_weight[free]
    per_bin = [ratio[signal.true[free] == i] for i in range(len(BINNING))]
    size = np.array([len(part) for part in per_bin])
    if "pauli" in changed:  # whole events come or go: their number is Poisson
        kept, variance = np.abs(exact - 1) * size > 3, np.abs(exact - 1) / size
    else:
        kept, variance = size > 0, np.array([part.var() for part in per_bin]) / size
    assert kept.sum() >= 5
    assert stats.chi2.sf(((found - exact)[kept] ** 2 / variance[kept]).sum(), kept.sum()) > 0.01 / 6


# -------------------------------------------------------------------------------------------------------------- universes


def test_throws_have_the_stated_covariance() -> None:
    rng = np.random.default_rng(8)
    table = np.array([thrown("total", rng) for _ in range(4000)])
    logs = np.array([row.law == "log-normal" for row in PARAMETERS])
    nominal = np.array([row.nominal for row in PARAMETERS])
    sigma = np.array([row.sigma for row in PARAMETERS])
    z = np.where(logs, np.log(np.where(logs, table / np.where(logs, nominal, 1), 1)), table - nominal) / sigma
    assert np.abs(z.mean(0)).max() < 4 / np.sqrt(4000)
    assert np.abs(np.cov(z.T) - correlation()).max() < 6 / np.sqrt(4000)
    assert [row.name for row in PARAMETERS] == list(Parameters._fields)


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_varies_its_own_parameters_alone(source: str) -> None:
    values = thrown(source, np.random.default_rng(1))
    moved = {name for name, a, b in zip(Parameters._fields, values, NOMINAL, strict=True) if a != b}
    assert moved == {row.name for row in PARAMETERS if row.source == source}


def test_universes_do_not_depend_on_their_company(experiment: Experiment) -> None:
    many = experiment.universes(5, seed=3)
    assert (experiment.universes(3, seed=3) == many[:3]).all()
    assert (experiment.universes(5, seed=3) == many).all()
    assert (Experiment(seed=1, events=16_000).universes(2, seed=3) == many[:2]).all()
    assert (experiment.universes(5, seed=4) != many).any()
    assert (experiment.universes(5, seed=3, source="flux") != many).any()
    assert experiment.universes(0, seed=3).shape == (0, len(BINNING))


def test_statistical_universes_have_poisson_variance(experiment: Experiment) -> None:
    data, n = experiment.data, 1000
    step = 1e-3 * data
    jacobian = np.array(
        [(experiment.extract(data + e) - experiment.extract(data - e)) / (2 * e.sum()) for e in np.diag(step)]
    ).T
    expected = np.sqrt((jacobian**2 * data).sum(1))
    found = experiment.universes(n, seed=5, source="statistics")
    ratio = found.std(0, ddof=1) / expected
    full = data > 100
    assert np.abs(ratio[full] - 1).max() < 4.5 / np.sqrt(2 * n)
    assert np.abs(ratio[~full] - 1).max() < 0.15  # few events: the extraction is not linear
    assert np.abs((found.mean(0) / experiment.central - 1)[full]).max() < 0.02


def test_few_event_bins_are_positive_and_skewed_and_full_ones_nearly_gaussian(
    experiment: Experiment, total: np.ndarray
) -> None:
    relative, skewness = total.std(0) / experiment.central, stats.skew(total)
    assert (total > 0).all()
    assert 40 <= len(relative) <= 60
    assert (relative < 0.15).sum() > 15
    assert (relative > 0.4).sum() >= 5
    error = np.sqrt(6 / len(total))
    assert (skewness[relative > 0.4] > 3 * error).sum() >= 5
    assert np.median(np.abs(skewness[relative < 0.15])) < 0.35


def test_columns_and_predictions_fit_the_bins(experiment: Experiment) -> None:
    predictions = experiment.predictions()
    assert len(experiment.columns) == len(experiment.central) == len(experiment.edges) == len(BINNING)
    assert len({column.name for column in experiment.columns}) == len(BINNING)
    assert all(value.shape == experiment.central.shape and (value > 0).all() for value in predictions.values())
    assert (predictions["nominal"] == experiment.truth()).all()
    assert experiment.truth(axial_mass=None) == pytest.approx(predictions["nominal"])


# -------------------------------------------------------------------------------------------------------------------- fit


def test_axial_mass_is_recovered(experiment: Experiment, total: np.ndarray) -> None:
    n, p = total.shape
    inverse = np.linalg.inv(np.cov(total.T)) * (n - p - 2) / (n - 1)

    masses = np.linspace(0.7, 1.6, 19)
    model = interpolate.CubicSpline(masses, [experiment.truth(axial_mass=mass) for mass in masses])

    def best(y: np.ndarray) -> float:
        def chi2(mass: float) -> float:
            offset = y - model(mass)
            return float(offset @ inverse @ offset)

        return float(optimize.minimize_scalar(chi2, bounds=(0.7, 1.6), method="bounded", options={"xatol": 1e-4}).x)

    slope = model(1.0, 1)
    sigma = 1 / np.sqrt(slope @ inverse @ slope)
    assert 0.02 < sigma < 0.1
    assert best(experiment.central) == pytest.approx(1.0, abs=1e-3)
    other = experiment.extract(experiment.expected(NOMINAL._replace(axial_mass=1.2)))
    assert best(other) == pytest.approx(1.2, abs=0.5 * sigma)
    pulls = np.array([(best(y) - 1.0) / sigma for y in experiment.universes(60, seed=77)])
    assert abs(pulls.mean()) < 3 / np.sqrt(60)
    assert 0.7 < pulls.std(ddof=1) < 1.3


# ---------------------------------------------------------------------------------------------------------------- refusals


def test_refusals(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="source"):
        experiment.universes(1, seed=1, source="weather")
    with pytest.raises(ConfigError, match="not negative"):
        experiment.universes(1, seed=-1)
    with pytest.raises(ConfigError, match="exposure"):
        Experiment(exposure=0.0)
    with pytest.raises(ConfigError, match="20 per bin"):
        _ = Experiment(events=100).central
    with pytest.raises(ConfigError, match="depends on"):
        experiment.truth(momentum_scale=0.1)
    with pytest.raises(ShapeError, match="counts"):
        experiment.extract(np.ones(3))
    with pytest.raises(ConfigError, match="multiples"):
        Binning(((-1.0, 1.0, (0.0, 0.33)),))
    with pytest.raises(ConfigError, match="cover"):
        Binning(((-1.0, 0.5, (0.0, 0.3)),))
