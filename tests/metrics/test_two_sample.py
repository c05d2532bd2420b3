"""Statistics of two samples: against closed forms, scipy and duplicated events; p-values under the null."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from pofx.errors import CapabilityError, ConfigError, DataError, ShapeError
from pofx.metrics.binned import SeparationPower
from pofx.metrics.calibrated import CalibratedClassifier
from pofx.metrics.compare import STATISTICS, compare
from pofx.metrics.frechet import FrechetDistance, frechet
from pofx.metrics.kernels import MMD, EnergyDistance
from pofx.metrics.marginals import KolmogorovSmirnov, SlicedWasserstein, Wasserstein
from pofx.metrics.neighbours import Memorisation, PrecisionRecall
from pofx.metrics.samples import Side
from pofx.metrics.two_sample import Plan

QUICK = Plan(replicas=19)


def normal(n: int, d: int, shift: float, seed: int) -> Side:
    return Side(np.random.default_rng(seed).normal(shift, 1.0, (n, d)), np.ones(n))


def weighted(n: int, d: int, seed: int) -> Side:
    """Events of N(0.3, 1.2^2) whose weights make them those of N(0, 1)."""
    x = np.random.default_rng(seed).normal(0.3, 1.2, (n, d))
    return Side(x, np.exp(-0.5 * (x**2).sum(1) + 0.5 * (((x - 0.3) / 1.2) ** 2).sum(1)))


def test_one_column_is_scipy() -> None:
    a, b = normal(60, 1, 0.0, 1), normal(90, 1, 0.4, 2)
    x, y = a.x[:, 0], b.x[:, 0]
    assert KolmogorovSmirnov().measure(a, b, QUICK)[0].value == pytest.approx(stats.ks_2samp(x, y).statistic)
    found = Wasserstein(scale="none").measure(a, b, QUICK)[0]
    assert found.value == pytest.approx(stats.wasserstein_distance(x, y))
    energy = EnergyDistance(scale="none").measure(a, b, QUICK)[0].value
    inside = sum(cdist(s, s).sum() * (1 / (len(s) * (len(s) - 1)) - 1 / len(s) ** 2) for s in (a.x, b.x))
    assert energy + inside == pytest.approx(2 * stats.energy_distance(x, y) ** 2 / 2)


def test_kernels_are_the_double_sums() -> None:
    a, b = normal(40, 3, 0.0, 3), normal(30, 3, 0.5, 4)
    found = MMD(widths=(1.0, 2.0), width=1.0, scale="none").measure(a, b, QUICK)[0].value

    def mean(x: np.ndarray, y: np.ndarray, same: bool) -> float:
        k = sum(np.exp(-cdist(x, y, "sqeuclidean") / 2 / s**2) for s in (1.0, 2.0)) / 2
        return float((k.sum() - (len(x) if same else 0)) / (len(x) * (len(y) - same)))

    assert found == pytest.approx(mean(a.x, a.x, True) + mean(b.x, b.x, True) - 2 * mean(a.x, b.x, False))


def test_closed_forms_of_normal_laws() -> None:
    """A shift of 1 in two dimensions: MMD of one width, W1, energy distance in one, Frechet."""
    n, shift = 4000, 1.0
    a, b = normal(n, 2, 0.0, 5), normal(n, 2, 0.0, 6)
    b = b._replace(x=b.x + np.array([shift, 0.0]))
    rbf = MMD(widths=(1.0,), width=1.0, scale="none", most=1500).measure(a, b, QUICK)[0]
    truth = 2 * (1 / 3) * (1 - math.exp(-(shift**2) / 6))  # E k = (s^2 / (s^2 + 2))^(d/2) exp(-shift^2 / 2 (s^2 + 2))
    assert abs(rbf.value - truth) < 4 * rbf.error < 0.05
    moved = Wasserstein(scale="none").measure(a, b, QUICK)[0]
    assert moved.parts[0].value == pytest.approx(shift, abs=0.1)
    found = FrechetDistance(scale="none").measure(a, b, QUICK)[0]
    assert abs(found.value - shift**2) < 4 * found.error < 0.5
    sliced = SlicedWasserstein(directions=200, scale="none").measure(a, b, QUICK)[0]
    assert abs(sliced.value - shift * 2 / math.pi) < 0.1  # E |cos|
    one, two = (side._replace(x=side.x[:1500, :1], weight=np.ones(1500)) for side in (a, b))
    energy = EnergyDistance(scale="none").measure(one, two, QUICK)[0]
    away = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)  # E|N(shift, 2)|
    assert abs(energy.value - 2 * (away - 2 / math.sqrt(math.pi))) < 4 * energy.error


def test_frechet_is_the_matrix_formula() -> None:
    rng = np.random.default_rng(7)
    a, b = (m @ m.T for m in rng.normal(size=(2, 4, 4)))
    from scipy.linalg import sqrtm

    assert frechet(np.zeros(4), a, np.ones(4), b) == pytest.approx(4 + np.trace(a + b - 2 * sqrtm(a @ b).real))


def test_extrapolation_takes_the_bias_away() -> None:
    values = [
        [
            FrechetDistance(scale="none", extrapolate=e, samples=5).measure(
                normal(300, 6, 0, s), normal(300, 6, 0, s + 99), QUICK
            )[0]
            for e in (True, False)
        ]
        for s in range(12)
    ]
    fixed, biased = (np.array([pair[k].value for pair in values]) for k in (0, 1))
    assert abs(fixed.mean()) < 4 * fixed.std(ddof=1) / math.sqrt(12) < 0.3 * biased.mean()


def test_separation_of_known_histograms() -> None:
    a, b = np.repeat([0.5, 1.5], [300, 700]), np.repeat([0.5, 1.5, 2.5], [100, 200, 100])
    p, q = np.array([0.3, 0.7, 0.0]), np.array([0.25, 0.5, 0.25])
    found = SeparationPower(edges=(0.0, 1.0, 2.0, 3.0)).measure(
        *(Side(x[:, None], np.ones(len(x))) for x in (a, b)), QUICK
    )
    assert found[0].value == pytest.approx(0.5 * ((p - q) ** 2 / (p + q)).sum())


def test_auc_of_shifted_normal_laws() -> None:
    shift = 1.0
    a, b = normal(4000, 1, 0.0, 8), normal(4000, 1, shift, 9)
    accuracy, area, divergence = CalibratedClassifier("trees").measure(a, b, QUICK)
    assert abs(area.value - stats.norm.cdf(shift / math.sqrt(2))) < 4 * area.error < 0.06
    assert abs(accuracy.value - stats.norm.cdf(shift / 2)) < 4 * accuracy.error
    x = np.linspace(-8, 9, 20001)
    p, q = stats.norm.pdf(x), stats.norm.pdf(x - shift)
    truth = np.trapezoid(p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q)), x) / 2 / math.log(2)
    assert abs(divergence.value - truth) < 4 * divergence.error < 0.1


LINEAR = (MMD(scale="none", width=1.0), EnergyDistance(scale="none"), KolmogorovSmirnov(), Wasserstein(scale="none"))


@pytest.mark.parametrize("statistic", LINEAR, ids=lambda s: s.name)
def test_a_weight_of_two_is_the_event_twice(statistic) -> None:
    a, b = normal(30, 2, 0.0, 10), normal(40, 2, 0.3, 11)
    count = np.random.default_rng(12).integers(1, 4, 30)
    once = statistic.measure(a._replace(weight=count * 1.0), b, QUICK)[0]
    twice = statistic.measure(Side(np.repeat(a.x, count, axis=0), np.ones(count.sum())), b, QUICK)[0]
    tolerance = 1e-10 if not hasattr(statistic, "on") else 0.1  # without bias, no event meets its copy
    assert once.value == pytest.approx(twice.value, abs=tolerance)
    assert once.null == "bootstrap"
    assert twice.null == "permutation"


NULLS = [
    EnergyDistance(), KolmogorovSmirnov(), Wasserstein(), SlicedWasserstein(directions=5), SeparationPower(bins=8),
    FrechetDistance(extrapolate=False),
]  # fmt: skip


@pytest.mark.parametrize("statistic", NULLS, ids=lambda s: s.name)
@pytest.mark.parametrize("with_weights", [False, True])
def test_p_values_are_uniform_under_the_null(statistic, with_weights) -> None:
    """40 repetitions of 150 events here; 200 in the acceptance measurements."""
    found = []
    for seed in range(40):
        b = weighted(150, 2, seed + 1000) if with_weights else normal(100, 2, 0.0, seed + 1000)
        found.append(statistic.measure(normal(150, 2, 0.0, seed), b, Plan(replicas=39, seed=seed))[0].p_value)
    assert stats.kstest(found, "uniform").pvalue > 0.01 / 12


def test_look_elsewhere() -> None:
    a, b = normal(200, 10, 0.0, 13), normal(200, 10, 0.0, 14)
    b.x[:, 3] += 0.5
    parts = KolmogorovSmirnov().measure(a, b, Plan(columns=tuple("abcdefghij")))[0].parts
    assert min(parts, key=lambda part: part.global_p_value).name == "d"
    assert all(part.global_p_value >= part.p_value for part in parts)


def test_precision_and_recall_by_definition() -> None:
    a, b = normal(60, 2, 0.0, 15), normal(60, 2, 0.4, 16)
    precision, recall, density, coverage = PrecisionRecall(neighbours=3, scale="none").measure(a, b, QUICK)
    balls = np.sort(cdist(a.x, a.x), axis=1)[:, 3]
    other = np.sort(cdist(b.x, b.x), axis=1)[:, 3]
    inside = cdist(a.x, b.x)
    assert precision.value == pytest.approx((inside < balls[:, None]).any(0).mean())
    assert recall.value == pytest.approx((inside < other).any(1).mean())
    assert density.value == pytest.approx((inside < balls[:, None]).sum() / (3 * 60))
    assert coverage.value == pytest.approx((inside < balls[:, None]).any(1).mean())


def test_memory_is_found_and_honesty_is_not() -> None:
    training, new, honest = (normal(300, 3, 0.0, seed).x for seed in (17, 18, 19))
    copies = training + 0.05 * np.random.default_rng(20).normal(size=training.shape)
    found = [compare(new, made, statistics=[], training=training, seed=1)["memorisation"] for made in (honest, copies)]
    assert found[0].p_value > 0.01
    assert abs(found[0].value - 0.5) < 4 * found[0].floor_error
    assert found[1].value > 0.9
    assert found[1].p_value == 0.005


def test_one_table_with_names_seeds_and_grids() -> None:
    a, b = normal(80, 4, 0.0, 21).x, normal(80, 4, 0.0, 22).x
    names = ["energy", "ks", "prdc"]
    found = compare(a, b, statistics=names, replicas=19, seed=3)
    assert found.to_dict() == compare(a, b, statistics=names, replicas=19, seed=3).to_dict()
    grids = compare(a.reshape(80, 2, 2), b.reshape(80, 2, 2), statistics=names, replicas=19, seed=3)
    assert grids.to_dict() == found.to_dict()
    made = compare(a, b, statistics=["ks"], features=lambda x: x[:, :1], replicas=19)
    assert made.columns == ("feature0",)
    assert "all together: p <= " in str(found)


def test_errors_say_what_was_expected() -> None:
    a = normal(50, 2, 0.0, 23).x
    with pytest.raises(ShapeError, match="equal columns"):
        compare(a, a[:, :1])
    with pytest.raises(ConfigError, match="energy"):
        compare(a, a, statistics=["chi"])
    with pytest.raises(ConfigError, match="at least 19"):
        compare(a, a, replicas=5)
    with pytest.raises(DataError, match="positive sum"):
        compare(a, a, statistics=["ks"], weight_a=-np.ones(50))
    with pytest.raises(DataError, match="at least 10 events"):
        compare(a[:5], a, statistics=["ks"])
    with pytest.raises(DataError, match="weights of at least 0"):
        compare(a, a, statistics=["prdc"], weight_a=np.r_[-1.0, np.ones(49)])
    clouds = Side(np.zeros((20, 3, 2)), np.ones(20), np.ones((20, 3), bool))
    with pytest.raises(CapabilityError, match="features="):
        STATISTICS["ks"]().measure(clouds, clouds, QUICK)
    with pytest.raises(ShapeError, match="training"):
        Memorisation(np.zeros((5, 3))).measure(*[Side(a, np.ones(50))] * 2, QUICK)
