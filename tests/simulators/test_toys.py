"""Toys in many columns, images and clouds: densities against their samples, quadrature, scipy and known statistics."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats

from pofx.data.events import Events
from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.simulators import TOYS, CopulaToy, GridField, PointCloud, Shell, data_set, mixture_toy

EVENTS = 20_000


def importance(truth: object, proposal: object, n: int = EVENTS) -> tuple[float, float]:
    """The integral of a density, with its error, by draws from another density."""
    x = proposal.sample(n, 5)
    ratio = np.exp(truth.log_prob(x) - proposal.log_prob(x))
    return float(ratio.mean()), float(ratio.std() / math.sqrt(n))


@pytest.mark.parametrize("name", TOYS)
def test_seeds_and_data_sets(name: str) -> None:
    first, again, other = (data_set(TOYS[name], 20, seed).arrays() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    assert np.isfinite(TOYS[name].log_prob(TOYS[name].sample(20, 1))).all()


# The shell


def test_shell_in_three_dimensions_integrates_to_one() -> None:
    side = 120
    line = (np.arange(side) + 0.5) / side * 3.2 - 1.6
    grid = np.stack(np.meshgrid(line, line, line), -1).reshape(-1, 3)
    assert np.exp(Shell(3).log_prob(grid)).sum() * (3.2 / side) ** 3 == pytest.approx(1, abs=1e-3)


def test_shell_radius_and_entropy() -> None:
    """Radius and direction are independent: the entropy is that of the radius plus that of the sphere."""
    shell = TOYS["shell"]
    x = shell.sample(EVENTS, 1)
    r = np.linalg.norm(x, axis=1)
    assert stats.kstest(r, stats.norm(1.0, 0.1).cdf).pvalue > 1e-3
    assert stats.kstest((x / r[:, None])[:, 0] * math.sqrt(5), _cosine(5)).pvalue > 1e-3
    surface = math.log(2 * math.pi**2.5 / math.gamma(2.5))
    radial = stats.norm(1.0, 0.1).expect(lambda value: 4 * math.log(value), lb=0.2) + stats.norm.entropy(0.0, 0.1)
    value, error = shell.entropy_estimate(EVENTS, 2)
    assert abs(value - surface - radial) < 4.5 * error
    with pytest.raises(CapabilityError, match="marginals"):
        shell.marginal([0])
    with pytest.raises(ConfigError, match="width"):
        Shell(3, width=-1.0)


def _cosine(d: int) -> object:
    """The law of sqrt(d) times one coordinate on the sphere: its square over d is beta distributed."""
    return lambda t: 0.5 + 0.5 * np.sign(t) * stats.beta(0.5, 0.5 * (d - 1)).cdf(np.minimum(t**2 / d, 1.0))


# The mixture


def test_mixture_is_that_of_its_parameters() -> None:
    toy = mixture_toy()
    assert toy.dim == 20
    assert toy.weights.tolist() == pytest.approx([1 / 15, 2 / 15, 3 / 15, 4 / 15, 5 / 15])
    x = toy.sample(EVENTS, 1)
    mean = toy.weights @ toy.means
    assert (np.abs(x.mean(0) - mean) < 4.5 * x.std(0) / math.sqrt(EVENTS)).all()
    one = stats.multivariate_normal(toy.means[2], toy.covariances[2]).logpdf(toy.means[2])
    assert toy.log_prob(toy.means[2:3])[0] >= one + math.log(toy.weights[2])


# The copula


def test_copula_in_two_columns_integrates_to_one() -> None:
    """In the plane of distribution functions, where the marginals drop out; ends are integrable singularities."""
    toy = CopulaToy(4).marginal([1, 3])
    v = (np.arange(500) + 0.5) / 500
    u, weight = v**2 * (3 - 2 * v), 6 * v * (1 - v) / 500
    x = np.stack(np.meshgrid(*(law.ppf(u) for law in toy.laws), indexing="ij"), -1).reshape(-1, 2)
    marginal = sum(law.logpdf(x[:, i]) for i, law in enumerate(toy.laws))
    copula = np.exp(toy.log_prob(x) - marginal).reshape(500, 500)
    assert weight @ copula @ weight == pytest.approx(1, abs=5e-3)


def test_copula_marginals_and_dependence() -> None:
    toy = TOYS["copula-50"]
    x = toy.sample(5000, 1)
    p_values = [stats.kstest(x[:, i], law.cdf).pvalue for i, law in enumerate(toy.laws)]
    assert min(p_values) > 1e-3 / 50
    tau = stats.kendalltau(x[:, 0], x[:, 7])[0]
    assert tau == pytest.approx(2 / math.pi * math.asin(toy.correlation[0, 7]), abs=0.04)
    assert importance(toy.marginal([0, 2]), _Independent(toy.marginal([0, 2])))[0] == pytest.approx(1, abs=0.05)


class _Independent:
    """The same marginals without dependence."""

    def __init__(self, toy: CopulaToy) -> None:
        self.laws = toy.laws

    def sample(self, n: int, seed: int) -> np.ndarray:
        return np.stack([law.rvs(n, random_state=seed + i) for i, law in enumerate(self.laws)], 1)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        return sum(law.logpdf(x[:, i]) for i, law in enumerate(self.laws))


def test_copula_of_normal_tails_is_scipys_t() -> None:
    """With t marginals of its own freedom, the copula is the multivariate t."""
    toy = CopulaToy(3)
    toy.laws = [stats.t(4.0)] * 3
    x = np.random.default_rng(1).standard_normal((20, 3)) * 3
    reference = stats.multivariate_t(np.zeros(3), toy.correlation, df=4.0)
    np.testing.assert_allclose(toy.log_prob(x), reference.logpdf(x), rtol=1e-8)


def test_copula_outside_its_support() -> None:
    toy = CopulaToy(4)
    inside = toy.sample(1, 1)
    outside = inside.copy()
    outside[0, 3] = 1.5
    assert np.isneginf(toy.log_prob(outside)).all()
    assert toy.columns()[3].high == 1.0


# Images


def test_images_have_the_density_of_a_lognormal() -> None:
    toy = GridField(4)
    covariance = toy.sigma**2 * np.kron(toy.around, toy.along)
    x = toy.sample(10, 1)
    logs = np.log(x).reshape(10, -1)
    expected = stats.multivariate_normal(np.tile(toy.profile, 4), covariance).logpdf(logs) - logs.sum(1)
    np.testing.assert_allclose(toy.log_prob(x), expected)
    assert np.isneginf(toy.log_prob(-x)).all()
    with pytest.raises(ShapeError, match="images"):
        toy.log_prob(x[:, 0])


def test_images_have_the_power_spectrum() -> None:
    toy = TOYS["grid-field"]
    g = (np.log(toy.sample(4000, 2)) - toy.profile)[:, 0] / toy.sigma
    power = np.abs(np.fft.fft(g, axis=1)) ** 2 / toy.side
    mean, error = power.mean((0, 2)), power.mean(2).std(0) / math.sqrt(4000)
    assert (np.abs(mean - toy.spectrum()) < 4.5 * error).all()
    assert toy.spectrum().mean() == pytest.approx(1)
    shifted = np.mean(g * np.roll(g, 3, axis=1), axis=(0, 2))
    assert np.ptp(shifted) < 0.15  # no seam


# Clouds


def test_number_of_points_and_intensity() -> None:
    toy = TOYS["point-cloud"]
    cloud = toy.sample(EVENTS, 1)
    count = cloud.mask.sum(1)
    assert count.min() >= 2
    assert np.exp(toy.log_counts(np.arange(2, 31))).sum() == pytest.approx(1)
    assert stats.norm.sf(abs(count.mean() - 11.8) / (count.std() / math.sqrt(EVENTS))) > 1e-4
    line = np.linspace(-6, 6, 241)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    total = toy.intensity(grid) * (line[1] - line[0]) ** 2
    assert total.sum() == pytest.approx(11.8, rel=1e-4)
    inside = (grid[:, 0] > 2.0) & (grid[:, 0] < 3.0)
    points = cloud.x[cloud.mask]
    found = ((points[:, 0] > 2.025) & (points[:, 0] < 2.975)).sum() / EVENTS
    assert found == pytest.approx(total[inside].sum(), rel=0.03)


def test_density_of_two_points_integrates_to_one() -> None:
    """By draws from wider densities around the same centres, given that there are two points: an integral over four numbers."""
    toy = PointCloud()
    rng = np.random.default_rng(3)
    centre = np.concatenate([np.zeros((3, 2)), toy.centres()])
    scale = np.repeat([1.0, 0.3], 3)
    pick = rng.integers(6, size=(EVENTS * 4, 2))
    x = centre[pick] + scale[pick][..., None] * rng.standard_normal((EVENTS * 4, 2, 2))
    parts = stats.norm.logpdf(x[:, :, None] - centre, scale=scale[:, None]).sum(-1)
    proposal = (special.logsumexp(parts, axis=-1) - math.log(6)).sum(1)
    density = toy.log_prob(Events({"x": x}, {"x": np.ones((len(x), 2), bool)})) - toy.log_counts(2)
    ratio = np.exp(density - proposal)
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(len(x))


def test_density_of_clouds_knows_neither_order_nor_padding() -> None:
    toy = PointCloud()
    cloud = toy.sample(50, 4)
    values = toy.log_prob(cloud)
    filled = np.where(cloud.mask[..., None], cloud.x, 777.0)
    np.testing.assert_array_equal(toy.log_prob(Events({"x": filled}, cloud.masks)), values)
    turned = Events({"x": cloud.x[:, ::-1]}, {"x": cloud.mask[:, ::-1]})
    np.testing.assert_allclose(toy.log_prob(turned), values)


def test_points_of_a_cloud_share_the_direction() -> None:
    """Shares of clouds whose outer points lie in each of the three sectors."""
    toy = PointCloud()
    cloud = toy.sample(6000, 5)
    outer = cloud.mask & (np.linalg.norm(cloud.x, axis=-1) > 2.2)
    sector = np.argmin(((cloud.x[..., None, :] - toy.centres()) ** 2).sum(-1), -1)
    pairs = [(sector[:, i] == sector[:, j])[outer[:, i] & outer[:, j]] for i, j in itertools.combinations(range(4), 2)]
    assert np.concatenate(pairs).mean() > 0.8
