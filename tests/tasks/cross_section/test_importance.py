"""The far tail against closed forms, quadrature and brute force."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate, optimize, stats

import pofx
from pofx.errors import DataError
from pofx.simulators.densities import CorrelatedGaussian, Lognormal, Mixture, correlation_matrix
from pofx.tasks.cross_section.importance import FarTail, far_tail

pytestmark = pytest.mark.filterwarnings("ignore::pofx.errors.RangeWarning")
GAUSSIAN = CorrelatedGaussian([2.0, 3.0, 4.0], 0.09 * correlation_matrix(3))
WIDTH = np.linspace(0.5, 1.2, 8)
LOGNORMAL = Lognormal(np.zeros(8), correlation_matrix(8) * WIDTH[:, None] * WIDTH)
GAUSSIAN_MODEL = pofx.Gaussian().fit(GAUSSIAN.sample(4000, 1))
LOGNORMAL_MODEL = pofx.GaussianMixture(components=1, preprocess="auto").fit(LOGNORMAL.sample(20_000, 1))


def peak(density: object) -> float:
    """The largest log-density of a Gaussian."""
    if density is GAUSSIAN:
        return float(GAUSSIAN.log_prob(GAUSSIAN.mean[None])[0])
    import torch

    return float(GAUSSIAN_MODEL.log_prob(GAUSSIAN_MODEL.decode(torch.zeros(1, 3, dtype=torch.float64)).numpy())[0])


@pytest.mark.parametrize("density", [GAUSSIAN, GAUSSIAN_MODEL], ids=["closed form", "model"])
@pytest.mark.parametrize("p", [1e-2, 1e-6, 1e-12, 1e-16])
def test_gaussian_tail_is_that_of_chi2(density: object, p: float) -> None:
    found = far_tail(density, peak(density) - 0.5 * stats.chi2.isf(p, 3), events=20_000, seed=1)  # type: ignore[arg-type]
    assert abs(found.value - p) < 4 * found.error
    assert found.error < 0.1 * p
    assert found.z == pytest.approx(-stats.norm.ppf(found.value))
    assert found.z_error == pytest.approx(-stats.norm.ppf(found.value - found.error) - found.z, rel=0.1)


def test_errors_are_honest() -> None:
    """Pulls of independent estimates follow a normal law."""
    threshold = peak(GAUSSIAN) - 0.5 * stats.chi2.isf(1e-7, 3)
    found = [far_tail(GAUSSIAN, threshold, events=10_000, seed=seed) for seed in range(8)]
    pulls = np.array([(one.value - 1e-7) / one.error for one in found])
    assert stats.chi2.sf((pulls**2).sum(), len(pulls)) > 0.01


@pytest.mark.parametrize("sigmas", [4.0, 7.0])
def test_lognormal_tail_is_the_integral(sigmas: float) -> None:
    """One bin: the tail is what lies left of one point and right of another."""
    truth, known = Lognormal([0.2], [[1.0]]), stats.lognorm(1.0, scale=np.exp(0.2))
    threshold = float(truth.log_prob([[np.exp(0.2 + sigmas)]])[0])
    left = optimize.brentq(lambda y: known.logpdf(np.exp(y)) - threshold, -40.0, 0.2 - 1.0)
    wanted = known.cdf(np.exp(left)) + known.sf(np.exp(0.2 + sigmas))
    found = far_tail(truth, threshold, events=20_000, seed=1)
    assert abs(found.value - wanted) < 4 * found.error
    assert found.error < 0.1 * wanted


@pytest.mark.parametrize("density", [LOGNORMAL, LOGNORMAL_MODEL], ids=["closed form", "model"])
def test_lognormal_tail_is_that_of_brute_force(density: object) -> None:
    """Eight bins: the linear density falls in one direction of the logarithms, where broader noise alone hardly goes."""
    logs = score(density)
    threshold = float(np.quantile(logs, 1e-3))
    count = int((logs <= threshold).sum())
    found = far_tail(density, threshold, events=20_000, seed=1, counted=logs[:20_000])  # type: ignore[arg-type]
    assert abs(found.value - count / len(logs)) < 4 * np.hypot(found.error, np.sqrt(count) / len(logs))
    assert found.error < 0.05 * found.value
    assert found.pull is not None
    assert abs(found.pull) < 4
    deep = far_tail(density, threshold - 30.0, events=20_000, seed=1)  # type: ignore[arg-type]
    assert deep.value < 1e-6
    assert deep.error < 0.1 * deep.value


def score(density: object) -> np.ndarray:
    many = density.sample(150_000, seed=2)  # type: ignore[attr-defined]
    return np.asarray(density.log_prob(many))  # type: ignore[attr-defined]


def test_score_in_other_coordinates_is_chi2_of_the_logs() -> None:
    """log q + sum log x of a lognormal is the density of the logarithms: a Gaussian."""
    top = float(LOGNORMAL.normal.log_prob(LOGNORMAL.normal.mean[None])[0])
    found = far_tail(
        LOGNORMAL,
        top - 0.5 * stats.chi2.isf(1e-8, 8),
        lambda x, logp: logp + np.log(x).sum(1),
        events=20_000,
        seed=1,
    )
    assert abs(found.value - 1e-8) < 4 * found.error


def test_valley_between_peaks_belongs_to_the_tail() -> None:
    truth = Mixture([0.6, 0.4], [[-6.0], [6.0]], [[[1.0]], [[0.49]]])
    threshold = float(truth.log_prob([[-0.2]])[0]) + 0.5

    def tail(x: float) -> float:
        logp = float(truth.log_prob([[x]])[0])
        return np.exp(logp) * (logp <= threshold)

    edges = np.linspace(-16.0, 14.0, 3001)
    above = truth.log_prob(edges[:, None]) > threshold
    cuts = [
        optimize.brentq(lambda x: truth.log_prob([[x]])[0] - threshold, edges[i], edges[i + 1])
        for i in np.flatnonzero(above[1:] != above[:-1])
    ]
    assert len(cuts) == 4  # two outer tails and the valley
    spans = [(-16.0, cuts[0]), (cuts[1], cuts[2]), (cuts[3], 14.0)]
    parts = [integrate.quad(tail, a, b, epsabs=0, epsrel=1e-6)[0] for a, b in spans]
    assert parts[1] > 0.1 * sum(parts)
    found = far_tail(truth, threshold, events=20_000, seed=1)
    assert abs(found.value - sum(parts)) < 4 * found.error
    assert found.error < 0.05 * found.value


def test_flow_is_searched_in_noise_and_bins() -> None:
    """An untrained flow is the Gaussian of its training events, in single precision."""
    flow = pofx.SplineFlow(layers=1, hidden=(8,), experts=0).fit(
        GAUSSIAN.sample(2000, 1), training=pofx.Training(max_steps=1, max_epochs=None, progress=False)
    )
    import torch

    top = float(flow.log_prob(flow.decode(torch.zeros(1, 3)).detach().numpy())[0])
    found = far_tail(flow, top - 0.5 * stats.chi2.isf(1e-9, 3), events=10_000, seed=1)
    assert found.value == pytest.approx(1e-9, rel=0.3)
    assert {law.split()[1] for law in found.laws} == {"noise", "bins"}


def test_same_seed_same_estimate() -> None:
    threshold = peak(GAUSSIAN_MODEL) - 20.0
    one, two, other = (far_tail(GAUSSIAN_MODEL, threshold, events=10_000, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert one.value != other.value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: far_tail(GAUSSIAN, -1e9, events=2000), "did not reach|effective events"),
        (lambda: far_tail(GAUSSIAN, peak(GAUSSIAN) - 15.0, events=150), "at least 100 effective events"),
        # toys of a density with broader errors: where they count, the proposal must not agree
        (lambda: far_tail(GAUSSIAN, peak(GAUSSIAN) - 9.0, events=20_000, counted=wrong()), "where plain toys count"),
    ],
)
def test_refusals(make: Callable[[], FarTail], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()


def wrong() -> np.ndarray:
    broad = CorrelatedGaussian(GAUSSIAN.mean, 1.3 * GAUSSIAN.covariance)
    return GAUSSIAN.log_prob(broad.sample(5000, 1))
