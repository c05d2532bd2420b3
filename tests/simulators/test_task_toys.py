"""Toys of the tasks: densities integrate to one, samples follow them, closed forms agree with quadrature."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from pofx.errors import ConfigError, DataError, ShapeError
from pofx.simulators.densities import CorrelatedGaussian
from pofx.simulators.shapes import SHAPES
from pofx.simulators.task_toys.amplification import AMPLIFICATION, quantile_error
from pofx.simulators.task_toys.anomaly import DijetBump, Salad, improvement
from pofx.simulators.task_toys.matrix_element import MatrixElement
from pofx.simulators.task_toys.near_far import ENERGY, HIGH, LOW, NearFar, survival
from pofx.simulators.task_toys.symmetry import SYMMETRIC, TurnedShape, symmetry_defect
from pofx.simulators.task_toys.templates import Multijets
from pofx.simulators.task_toys.unfolding import Flip, LinearGaussian, LossyGaussian, gaussian_pair, shifted_pair


def one_within(values: np.ndarray, pulls: float = 4.0) -> None:
    """A mean that should be one."""
    assert abs(values.mean() - 1.0) < pulls * values.std() / math.sqrt(len(values))


def gauss(low: float, high: float, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return low + 0.5 * (high - low) * (nodes + 1), 0.5 * (high - low) * weights


# ------------------------------------------------------------------ near and far detector


def test_near_far_density_is_normalised() -> None:
    """A product of one-dimensional laws: each integrates to one with the others held."""
    near = np.array([[2.0, 0.7, 0.3, 0.0]])
    base = np.array([0.6, 2.7, 1.9, 0.8])
    total = 1.0
    reference = float(np.exp(NearFar().log_prob(base[None], near))[0])
    # energy given (lepton, hadrons), then lepton with energy marginalised, and so on: conditionals by ratios
    for i, (low, high) in ((1, (2.3, 3.1)), (0, (1e-9, 1 - 1e-9))):
        x, w = gauss(low, high)
        rows = np.tile(base, (len(x), 1))
        rows[:, i] = x
        total *= float(w @ np.exp(NearFar().log_prob(rows, np.tile(near, (len(x), 1))))) / reference
    x, w = gauss(0.01, 6.0)
    for i in (2, 3):  # keep energy at the same pull
        rows = np.tile(base, (len(x), 1))
        rows[:, i] = x
        rows[:, 1] = (rows[:, 2] + rows[:, 3]) * base[1] / (base[2] + base[3])
        values = np.exp(NearFar().log_prob(rows, np.tile(near, (len(x), 1)))) * rows[:, 1] / base[1]
        total *= float(w @ values) / reference
    assert total * reference == pytest.approx(1.0, rel=1e-6)


def test_near_far_samples_follow_the_density() -> None:
    """log p of samples has the mean that a mixture of the closed marginals implies: reweighting one context to another."""
    near = np.tile([2.0, 0.7, 0.3, 1.0], (40_000, 1))
    other = np.tile([2.1, 0.75, 0.3, 1.0], (40_000, 1))
    from pofx.simulators.task_toys.near_far import _far

    far = _far(near, np.random.default_rng(1))
    one_within(np.exp(NearFar().log_prob(far, other) - NearFar().log_prob(far, near)))
    pulls = np.log(far[:, 1] / (far[:, 2] + far[:, 3])) / 0.01
    assert stats.kstest(pulls, "norm").pvalue > 0.01
    marginal = stats.norm(math.log(2.0), 0.05)
    assert stats.kstest(np.log(far[:, 2]), marginal.cdf).pvalue > 0.01


def test_near_far_fluxes() -> None:
    toy = NearFar()
    _, energy = toy.sample_with_energy(20_000, 1)
    truth = lambda e: (ENERGY.cdf(e) - ENERGY.cdf(LOW)) / (ENERGY.cdf(HIGH) - ENERGY.cdf(LOW))  # noqa: E731
    assert stats.kstest(energy, truth).pvalue > 0.01
    _, far = NearFar("far").sample_with_energy(20_000, 2)
    edges = np.linspace(LOW, HIGH, 26)
    e, w = gauss(0.0, 1.0, 20)
    fine = edges[:-1, None] + np.diff(edges)[:, None] * e
    expected = (ENERGY.pdf(fine) * survival(fine)) @ w
    counts = np.histogram(far, edges)[0]
    assert stats.chisquare(counts, expected / expected.sum() * 20_000).pvalue > 0.01
    assert toy.log_prob([[1.5, 1, 1, 1]], [[1, 1, 0.1, 1]]) == -np.inf
    with pytest.raises(ConfigError, match="flux must be one of"):
        NearFar("muon")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="far: expected shape"):
        toy.log_prob(np.zeros((2, 3)), np.zeros((2, 4)))


# ------------------------------------------------------------------ unfolding


def test_linear_gaussian_posterior_is_the_joint_over_the_marginal() -> None:
    toy = LinearGaussian([0.5, -1.0], [[1.0, 0.3], [0.3, 2.0]], [[1.0, 0.5]], [[0.7]])
    events = toy.sample(5, 1)
    z, x = events.x, events.context.x
    like = CorrelatedGaussian([0.0], [[0.7]]).log_prob(x - z @ toy.response.T)
    np.testing.assert_allclose(toy.log_prob(z, x), toy.gen.log_prob(z) + like - toy.sim.log_prob(x), rtol=1e-9)
    big = toy.sample(40_000, 2)
    joint = np.cov(np.concatenate([big.x, big.context.x], 1).T)
    np.testing.assert_allclose(joint[:2, 2:], toy.gen.covariance @ toy.response.T, atol=0.06)


def test_omnifold_iterations_by_weights() -> None:
    """The closed form of one and two iterations, against the reweighting that it stands for, on a grid."""
    simulation, data = gaussian_pair(smear=1.0)
    z, x = np.linspace(-6, 6, 601), np.linspace(-8, 8, 801)
    response = np.exp(-0.5 * (x[:, None] - z) ** 2)
    response /= response.sum(0)
    seen = np.exp(data.sim.log_prob(x[:, None]))
    p = np.exp(simulation.gen.log_prob(z[:, None]))
    for k in (1, 2):
        folded = response @ p
        p = p * (response.T @ (seen / folded)) * (folded.sum() / seen.sum())
        found = simulation.unfolded(data.sim, k)
        p_closed = np.exp(found.log_prob(z[:, None]))
        np.testing.assert_allclose(p / p.sum(), p_closed / p_closed.sum(), atol=1e-6)


def test_omnifold_converges_to_the_truth() -> None:
    simulation, data = shifted_pair(2)
    found = simulation.unfolded(data.sim, 400)
    np.testing.assert_allclose(found.mean, data.gen.mean, atol=1e-6)
    np.testing.assert_allclose(found.covariance, data.gen.covariance, atol=1e-6)


def test_flip_and_losses() -> None:
    events = Flip().sample(5000, 1)
    np.testing.assert_array_equal(Flip().truth(events.context.x), events.x)
    z, w = gauss(-12, 12)
    assert w @ np.exp(Flip().log_prob(z[:, None])) == pytest.approx(1.0)
    assert stats.kstest(np.abs(events.x[:, 0]), stats.norm(4, 1).cdf).pvalue > 0.01
    toy = LossyGaussian(mean=0.3)
    events = toy.sample(40_000, 2)
    there, seen = events.x[:, 1] == 1, events.context.x[:, 1] == 1
    assert abs((~seen)[there].mean() - toy.loss) < 4 * math.sqrt(0.09 / there.sum())
    assert abs((~there)[seen].mean() - toy.fakes) < 4 * math.sqrt(0.09 / seen.sum())
    x = events.context.x[seen, 0]
    for low, high in ((-3.0, -1.0), (-1.0, 0.5), (0.5, 3.0)):
        inside = (x > low) & (x < high)
        share, chance = there[seen][inside].mean(), toy.matched(x[inside]).mean()
        assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / inside.sum())
    both = there & seen
    pull = toy.width**2 / (toy.width**2 + toy.smear**2)
    z, x = events.x[both, 0], events.context.x[both, 0]
    scaled = (z - toy.mean - pull * (x - toy.mean)) / (toy.smear * math.sqrt(pull))
    assert stats.kstest(scaled, "norm").pvalue > 0.01


# ------------------------------------------------------------------ anomalies


def test_salad() -> None:
    toy = Salad(signal_share=0.3)
    m, wm = gauss(0, 1, 200)
    x, wx = gauss(-7, 8, 200)
    grid = np.stack(np.meshgrid(m, x, indexing="ij"), -1).reshape(-1, 2)
    for log in (toy.log_background, toy.log_simulation, toy.log_signal, toy.log_prob):
        assert np.outer(wm, wx).ravel() @ np.exp(log(grid)) == pytest.approx(1.0, abs=1e-8)
    events = toy.sample(20_000, 1)
    label, values = events.context.x[:, 0] == 1, events.x
    assert stats.kstest(values[label, 1], stats.norm(1.5, 0.8).cdf).pvalue > 0.01
    assert stats.kstest((values[~label, 1] + 0.5 - 2 * values[~label, 0]) / 0.8, "norm").pvalue > 0.01
    one_within(np.exp(toy.log_signal(values) - toy.log_prob(values)))
    simulated = toy.simulation(20_000, 1)
    assert stats.kstest((simulated[:, 1] + 0.4 - 2 * simulated[:, 0]) / 1.1, "norm").pvalue > 0.01


def test_best_improvement_of_salad() -> None:
    """By quadrature, and by cuts on the ratio of samples."""
    kept = [
        x[(x[:, 0] > 0.4) & (x[:, 0] < 0.6)] for x in (Salad(1.0).sample(60_000, 1).x, Salad(0.0).sample(300_000, 2).x)
    ]
    found = improvement(*map(Salad().log_ratio, kept), least=200)
    assert abs(found.value - Salad().best_improvement(cells=800)) < 4 * found.error + 0.01
    with pytest.raises(DataError, match="25 background events"):
        improvement([1.0], [1.0])


@pytest.mark.parametrize("correlation", [0.0, 0.1])
def test_dijet_bump(correlation: float) -> None:
    toy = DijetBump(signal_share=0.5, correlation=correlation, noise=1)
    events = toy.sample(20_000, 1)
    x = events.x
    one_within(np.exp(toy.log_signal(x) - toy.log_prob(x)))
    one_within(np.exp(toy.log_background(x) - toy.log_prob(x)))
    m, w = gauss(toy.low, toy.energy, 400)
    assert w @ np.exp(toy.log_mass(m)) == pytest.approx(1.0, rel=1e-9)
    background = x[events.context.x[:, 0] == 0]
    edges = np.append(np.linspace(2.2, 4.0, 19), 13.0)
    expected = [integrate.quad(lambda m: math.exp(float(toy.log_mass(m))), a, b)[0] for a, b in pairwise(edges)]
    counts = np.histogram(background[:, 0], edges)[0]
    assert stats.chisquare(counts, np.array(expected) * len(background)).pvalue > 0.01
    m = background[:, 0]
    light = np.log(background[:, 1] - correlation * m)
    assert stats.kstest((light - np.log(0.11) - 0.6 * np.log(m / 3.5)) / 0.5, "norm").pvalue > 0.01
    gap = (background[:, 2] - correlation * m) / (0.06 * np.sqrt(m))
    assert stats.kstest(gap, stats.gamma(2.0).cdf).pvalue > 0.01
    assert stats.kstest(stats.beta.cdf(background[:, 4], 8.0 - 0.5 * np.minimum(m, 6), 4.0), "uniform").pvalue > 0.01
    assert toy.log_background(x * [0.1, 1, 1, 1, 1, 1]).max() == -np.inf


# ------------------------------------------------------------------ matrix elements


def test_matrix_element_against_four_dimensional_integration() -> None:
    """p(reco | alpha) as the average of transfer and acceptance over hard events that are drawn near the reconstructed one."""
    toy, rng, n = MatrixElement(), np.random.default_rng(1), 60_000
    reco, alpha = toy.sample(4, 7).x, 0.9
    for r in reco:
        swap = rng.random(n) < 0.5
        centre = np.where(swap[:, None], r[[1, 0]], r[:2])
        momenta = np.maximum(centre * (1 + 0.12 * rng.standard_t(4, (n, 2))), 1.0)
        eta, phi = r[2] + 0.06 * rng.standard_t(4, n), math.pi * (2 * rng.random(n) - 1)
        density = 0.5 * sum(
            np.prod([stats.t.pdf((momenta[:, i] / c - 1) / 0.12, 4) / (0.12 * c) for i, c in enumerate(pair)], axis=0)
            for pair in (r[:2], r[[1, 0]])
        )
        density = density * stats.t.pdf((eta - r[2]) / 0.06, 4) / 0.06 / math.tau
        hard = np.stack([*momenta.T, eta, phi], 1)
        value = (
            np.exp(toy.log_hard(hard, alpha) + toy.log_transfer(np.tile(r, (n, 1)), hard))
            * toy.acceptance(hard)
            / density
        )
        value = value / toy.fiducial(alpha)
        wanted = float(np.exp(toy.log_prob(r[None], alpha))[0])
        assert abs(value.mean() - wanted) < 4 * value.std() / math.sqrt(n)
        assert value.std() / math.sqrt(n) < 0.05 * wanted


def test_matrix_element_samples_follow_the_density() -> None:
    toy, n = MatrixElement(), 8000
    events = toy.sample_at(np.full(n, 0.4), 1)
    at, other = (toy.log_prob(events.x, a) for a in (0.4, 1.5))
    one_within(np.exp(other - at))
    hard = events.context.fields["hard"]
    assert (hard[:, :2] >= 30).all()
    accepted = toy.acceptance(MatrixElement().sample_at(np.full(10, 0.1), 1).context.fields["hard"])
    assert ((accepted > 0) & (accepted <= 1)).all()
    # sigma_fid by plain integration over hard events of the flat angle
    rng = np.random.default_rng(2)
    flat = np.stack(
        [30 + rng.exponential(50, 200_000), 30 + rng.exponential(30, 200_000), 1.5 * rng.standard_normal(200_000)], 1
    )
    flat = np.concatenate([flat, math.pi * (2 * rng.random((200_000, 1)) - 1)], 1)
    weight = toy.acceptance(flat) * (1 + 0.9 * np.tanh(flat[:, 1] / 60) * np.cos(flat[:, 3] - 0.8))
    one_within(weight / toy.fiducial(0.4))


# ------------------------------------------------------------------ amplification, symmetries, templates


@pytest.mark.parametrize("name", AMPLIFICATION)
def test_maps_to_the_unit_cube(name: str) -> None:
    truth = AMPLIFICATION[name]
    u = truth.uniform(truth.sample(20_000, 1))
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 0.01 / 8
    assert np.abs(np.corrcoef(u.T) - np.eye(u.shape[1])).max() < 4.5 / math.sqrt(20_000) if u.shape[1] > 1 else True
    per_axis = {1: 50, 2: 8, 5: 3}[u.shape[1]]
    errors = [quantile_error(u[k : k + 200], per_axis) for k in range(0, 20_000, 200)]
    values = np.array([error.value for error in errors])
    assert abs(values.mean() - errors[0].floor) < 4 * errors[0].spread / 10
    assert values.std() == pytest.approx(errors[0].spread, rel=0.35)
    with pytest.raises(ShapeError, match="numbers in"):
        quantile_error([[2.0]], 4)


def test_symmetries() -> None:
    turn = np.array([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    assert symmetry_defect(SYMMETRIC["rotations"], turn) == pytest.approx(0.0, abs=1e-12)
    assert symmetry_defect(SYMMETRIC["axes"], np.diag([-1.0, 1.0])) == pytest.approx(0.0, abs=1e-12)
    defect = symmetry_defect(SYMMETRIC["axes"], turn, [0.1, 0.0])
    x = SYMMETRIC["axes"].sample(100_000, 1)
    mapped = x @ turn.T + [0.1, 0.0]
    there = CorrelatedGaussian([0.1, 0.0], turn @ SYMMETRIC["axes"].covariance @ turn.T)
    gap = there.log_prob(mapped) - SYMMETRIC["axes"].log_prob(mapped)
    assert abs(gap.mean() - defect) < 4 * gap.std() / math.sqrt(len(gap))


def test_turned_shape() -> None:
    toy = TurnedShape("checkerboard", turns=1.0)
    events = toy.sample(2000, 1)
    angle = events.context.x
    straight = toy.morphed(events.x, angle, np.zeros_like(angle))
    np.testing.assert_allclose(straight, SHAPES["checkerboard"].sample(2000, 1), atol=1e-12)
    assert (np.isfinite(toy.log_prob(events.x, angle))).mean() > 0.99  # but for edges
    with pytest.raises(ConfigError, match="shape must be one of"):
        TurnedShape("hexagon")


def test_multijets() -> None:
    toy = Multijets()
    events = toy.sample(20_000, 1)
    context = events.context.x
    mean = -2.0 + 0.15 * np.log(context[:, 0] / 100) - 0.05 * context[:, 2] + 0.1 * context[:, 1] ** 2
    assert stats.kstest((np.log(events.x[:, 0] / context[:, 0]) - mean) / 0.4, "norm").pvalue > 0.01
    three = context[context[:, 2] == 3]
    assert stats.kstest(three[:, 0] / 100, stats.pareto(4.5).cdf).pvalue > 0.01
    m, w = gauss(-3.0, 10.0)
    values = np.exp(toy.log_prob(np.exp(m)[:, None], np.tile(context[:1], (len(m), 1))))
    assert (w * np.exp(m)) @ values == pytest.approx(1.0, rel=1e-8)
    total = sum(np.exp(toy.log_context([[150.0, 0.0, n]]))[0] for n in range(2, 12))
    extra = [stats.poisson.pmf(k, 1.2) * stats.pareto.pdf(1.5, 4 + 0.5 * k) for k in range(10)]
    assert total == pytest.approx(sum(extra) / 100 / math.sqrt(math.tau))
