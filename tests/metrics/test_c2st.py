"""The classifier two-sample test: known optimal accuracies, uniform p-values under the null, honest errors, invariances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats

import pofx
from pofx.classifiers import NetworkClassifier, TreeClassifier, balanced_weights
from pofx.data import Column, Field
from pofx.errors import CapabilityError, ConfigError, DataError, NonFiniteError, ShapeError
from pofx.metrics import C2ST, c2st
from pofx.simulators.densities import CorrelatedGaussian, Mixture

QUICK = {"network": NetworkClassifier(hidden=(16,), epochs=5), "trees": TreeClassifier(trees=20)}
SMALL = {"network": NetworkClassifier(hidden=(32, 32), epochs=15), "trees": TreeClassifier()}


@dataclass(frozen=True)
class Linear:
    """Fisher's linear discriminant: quick, and its test statistic under the null is a product of two labels' sums."""

    name: ClassVar[str] = "linear"

    def fit(self, x, label, weight=None, *, seed):
        w = balanced_weights(label, weight) / len(x)
        means = [2 * w[label == k] @ x[label == k] for k in (0, 1)]
        return Direction(means[1] - means[0], (means[0] + means[1]) / 2)


@dataclass(frozen=True)
class Direction:
    axis: np.ndarray
    centre: np.ndarray

    def logit(self, x):
        return (x - self.centre) @ self.axis


def shifted(n: int, m: int, d: int, shift: float, seed: int = 1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift * np.eye(d)[0]


@pytest.mark.parametrize(("judge", "shift"), [("network", 0.5), ("network", 2.0), ("trees", 1.0)])
def test_both_judges_come_near_the_optimum_and_not_beyond(judge, shift):
    found = c2st(*shifted(2000, 2000, 2, shift), judge=SMALL[judge], splits=2, seed=1)
    optimum, best_auc = stats.norm.cdf(shift / 2), stats.norm.cdf(shift / math.sqrt(2))
    assert optimum - 0.025 - 2 * found.error < found.accuracy < optimum + 3 * found.error
    assert best_auc - 0.03 - 2 * found.auc_error < found.auc < best_auc + 3 * found.auc_error
    assert found.p_value == 0.001
    assert (found.judge, found.events_train, found.events_test) == (SMALL[judge].name, (1000, 1000), (1000, 1000))


@pytest.mark.parametrize("judge", list(QUICK))
@pytest.mark.slow
def test_p_values_of_equal_samples_are_uniform(judge):
    found = [
        c2st(*shifted(100, 60, 3, 0.0, seed), judge=QUICK[judge], splits=1, permutations=199, seed=seed)
        for seed in range(60)
    ]
    assert stats.kstest([one.p_value for one in found], "uniform").pvalue > 0.01 / 2


@pytest.mark.parametrize(("shift", "sizes"), [(0.0, {}), (0.0, {"train": 30, "test": 40}), (1.0, {})])
def test_floor_and_errors_bound_the_scatter(shift, sizes):
    """150 repetitions of a linear judge: the scatter is known to 6 %."""
    found = [
        c2st(*shifted(120, 120, 4, shift, seed), judge=Linear(), permutations=1, seed=seed, **sizes)
        for seed in range(150)
    ]
    spread = np.std([one.accuracy for one in found])
    mean, error = np.mean([[one.accuracy, one.error] for one in found], axis=0)
    assert 0.95 < error / spread < 1.5
    assert np.mean([abs(one.accuracy - mean) < one.error for one in found]) > 0.62
    assert 0.9 < np.mean([one.auc_error for one in found]) / np.std([one.auc for one in found]) < 1.5
    if shift == 0:
        assert 0.95 < found[0].floor_error / spread < 1.3
        assert mean == pytest.approx(0.5, abs=4 * spread / math.sqrt(150))


def test_judges_that_differ_widen_the_error():
    """A judge that is blind in every other split: accuracies of 1/2 and 0.98."""

    class Moody(Linear):
        def fit(self, x, label, weight=None, *, seed):
            good = Linear().fit(x, label, weight, seed=seed)
            return good if seed % 2 else Direction(0 * good.axis, good.centre)

    found = c2st(*shifted(500, 500, 1, 4.0), judge=Moody(), splits=12, seed=1)
    values = [split.accuracy for split in found.splits]
    assert {round(value, 1) for value in values} == {0.5, 1.0}
    assert found.error > np.std(values) / math.sqrt(12)


def test_more_splits_are_never_worth_more_than_their_events():
    a, b = shifted(300, 300, 3, 0.0)
    floors = [c2st(a, b, judge=Linear(), splits=k).floor_error for k in (1, 2, 50)]
    single = 0.5 / math.sqrt(300)
    assert floors == pytest.approx([single * math.sqrt(1 / k + (1 - 1 / k) / 2) for k in (1, 2, 50)], rel=1e-9)


@pytest.mark.parametrize("judge", list(SMALL))
def test_unequal_sizes_leave_the_floor_at_one_half(judge):
    same = c2st(*shifted(2000, 300, 2, 0.0), judge=SMALL[judge], splits=2, seed=2)
    assert abs(same.accuracy - 0.5) < 4 * same.floor_error
    other = c2st(*shifted(2000, 300, 2, 2.0), judge=SMALL[judge], splits=2, seed=2)
    assert other.accuracy == pytest.approx(stats.norm.cdf(1.0), abs=0.03 + 2 * other.error)
    assert other.events_train == (1000, 150)


@pytest.mark.parametrize("judge", list(SMALL))
def test_weights_that_make_the_samples_equal(judge):
    """N(0.7, 1) weighted to N(0, 1); unweighted, the two differ."""
    a, b = shifted(1500, 1500, 2, 0.7)
    weight = np.exp(-0.7 * b[:, 0] + 0.7**2 / 2)
    equal = c2st(a, b, judge=SMALL[judge], splits=2, weight_b=weight, seed=1)
    assert abs(equal.accuracy - 0.5) < 4 * equal.floor_error
    assert equal.p_value > 0.01
    assert equal.floor_error > 1.1 * c2st(a, b, judge=Linear(), splits=2).floor_error
    assert c2st(a, b, judge=SMALL[judge], splits=1, seed=1).p_value == 0.001


def test_negative_weights():
    """Events that cancel, 1.3 N(0, 1) - 0.3 N(0, 0.3): against events of that very law, and against N(0, 1)."""
    rng = np.random.default_rng(3)
    b = np.r_[rng.normal(0, 1, 2600), rng.normal(0, 0.3, 600)][:, None]
    proposal = rng.normal(0, 1, 4000)
    kept = 1 - 0.3 / 1.3 * stats.norm.pdf(proposal, 0, 0.3) / stats.norm.pdf(proposal)
    options = {"judge": "trees", "splits": 1, "weight_b": np.repeat([1.0, -1.0], [2600, 600]), "seed": 1}
    same = c2st(proposal[rng.random(4000) < kept][:, None], b, **options)
    assert abs(same.auc - 0.5) < 4 * same.auc_error
    assert same.p_value > 0.01
    assert c2st(rng.normal(0, 1, (3000, 1)), b, **options).p_value < 0.01


@pytest.mark.parametrize("judge", list(SMALL))
def test_whitening_undoes_any_linear_map(judge):
    a, b = shifted(400, 400, 4, 1.0)
    b[:, 1] *= 1.5
    mixing = np.random.default_rng(5).normal(size=(4, 4)) @ np.diag([1e-6, 1.0, 1e3, 1e-39])
    options = {"judge": QUICK[judge], "splits": 1, "seed": 1}
    mapped = a @ mixing + mixing[0], b @ mixing + mixing[0]
    white = [c2st(*some, whiten=True, **options) for some in ((a, b), mapped)]
    assert white[1].accuracy == pytest.approx(white[0].accuracy, abs=1e-3)
    assert white[1].auc == pytest.approx(white[0].auc, abs=1e-3)
    plain = [c2st(*some, **options).auc for some in ((a, b), mapped)]
    assert abs(plain[0] - plain[1]) > 2e-3


def test_whitening_drops_what_depends_linearly_on_the_rest():
    a, b = shifted(300, 300, 2, 1.0)
    twice = [np.c_[x, x.sum(1), np.ones(300)] for x in (a, b)]
    found = [c2st(*some, judge=Linear(), splits=1, whiten=True) for some in ((a, b), twice)]
    assert found[1].auc == pytest.approx(found[0].auc, abs=1e-6)


def test_tensors_and_data_sets_are_arrays():
    a, b = shifted(200, 150, 3, 1.0)
    weight = np.random.default_rng(6).random(150) + 0.5
    expected = c2st(a, b, judge=Linear(), weight_b=weight)
    data = pofx.Dataset.from_arrays(a), pofx.Dataset.from_arrays(b, weight=weight)
    assert c2st(*data, judge=Linear()) == expected
    assert c2st(torch.tensor(a), torch.tensor(b), judge=Linear(), weight_b=torch.tensor(weight)) == expected
    joint = pofx.Dataset.from_arrays(a[:, :2], context=a[:, 2:]), pofx.Dataset.from_arrays(b[:, :2], context=b[:, 2:])
    assert c2st(*joint, judge=Linear(), weight_b=weight) == expected
    assert c2st(*data, judge=Linear(), weight_b=np.ones(150)) == c2st(a, b, judge=Linear())


def test_sizes_and_seeds():
    a, b = shifted(301, 207, 2, 1.0)
    found = c2st(a, b, judge=Linear(), train=100, test=50, splits=4)
    assert (found.events_train, found.events_test, len(found.splits)) == ((100, 100), (50, 50), 4)
    assert c2st(a, b, judge=Linear(), train=0.3, test=0.2).events_test == (60, 41)
    assert c2st(a, b, judge=Linear(), train=0.5, test=0.5).events_test == (150, 103)
    assert found == c2st(a, b, judge=Linear(), train=100, test=50, splits=4)
    assert found != c2st(a, b, judge=Linear(), train=100, test=50, splits=4, seed=1)
    one = c2st(a, b, judge=Linear(), train=100, test=50, splits=1)
    assert (one.splits[0], one.p_value) == (found.splits[0], found.p_value)
    assert c2st(a[:, 0], b[:, 0], judge=Linear()).accuracy > 0.5


def test_a_public_name_and_a_text():
    found = pofx.c2st(*shifted(100, 100, 1, 3.0), judge=Linear())
    assert isinstance(found, C2ST)
    assert str(found).startswith(f"C2ST (linear): accuracy {found.accuracy:.4f} ± {found.error:.4f} (floor 0.5 ±")
    assert found.floor == 0.5


def test_errors_are_typed():
    a, b = shifted(50, 50, 2, 0.0)
    cases = [
        (ShapeError, r"equal columns; a has 2 \(x0, x1\) and b has 1 \(x0\)", (a, b[:, :1]), {}),
        (ShapeError, r"weight_a: expected shape \(50,\)", (a, b), {"weight_a": np.ones(3)}),
        (ShapeError, r"b: expected shape \(n, d\); got \(5, 5, 2\)", (a, b.reshape(5, 5, 4)[..., :2]), {}),
        (NonFiniteError, "a: row 3, column 1 is nan", (np.where(np.arange(100).reshape(50, 2) == 7, np.nan, a), b), {}),
        (DataError, "b: expected at least 10 events to train on", (a, b[:15]), {}),
        (DataError, "a: expected at least .* of 50 in all; got 40 and 20", (a, b), {"train": 40, "test": 20}),
        (DataError, "weight_b: expected a positive sum", (a, b), {"weight_b": -np.ones(50)}),
        (ConfigError, r"train \+ test of at most 1", (a, b), {"train": 0.7, "test": 0.4}),
        (ConfigError, "test: expected a share between 0 and 1, or a number", (a, b), {"test": 1.5}),
        (ConfigError, "splits: expected at least 1; got 0", (a, b), {"splits": 0}),
        (ConfigError, "classifier out of 'network', 'trees'", (a, b), {"judge": "jury"}),
        (DataError, "columns that vary", (np.ones((50, 2)), np.ones((50, 2))), {"whiten": True}),
    ]
    for error, message, samples, options in cases:
        with pytest.raises(error, match=message):
            c2st(*samples, **options)


def test_clouds_beside_a_context_are_refused_with_advice():
    columns = tuple(Column(name) for name in ("pt", "eta"))
    spec, masks = {"jet": Field("cloud", (4, 2), columns)}, {"jet": np.ones((30, 4), bool)}
    jets = pofx.Dataset.from_arrays({"jet": np.zeros((30, 4, 2))}, np.zeros((30, 1)), columns=spec, masks=masks)
    with pytest.raises(
        CapabilityError, match="jet is a cloud of points beside other fields or a context: compute features"
    ):
        c2st(jets, jets)


def four_flat_clusters() -> tuple[Mixture, CorrelatedGaussian]:
    """A mixture of four Gaussians in 50 dimensions, each wide in six directions, and the Gaussian of its mean and covariance."""
    rng = np.random.default_rng(8)
    bases = [np.linalg.qr(rng.normal(size=(50, 6)))[0] for _ in range(4)]
    weights, means = np.array([0.4, 0.3, 0.2, 0.1]), 0.3 * rng.normal(size=(4, 50))
    covariances = np.stack([0.6 * np.eye(50) + 0.4 * 50 / 6 * basis @ basis.T for basis in bases])
    offset = means - weights @ means
    total = np.einsum("k,kij->ij", weights, covariances) + np.einsum("k,ki,kj->ij", weights, offset, offset)
    return Mixture(weights, means, covariances), CorrelatedGaussian(weights @ means, total)


@pytest.mark.slow
def test_a_strong_judge_of_fifty_dimensions():
    """Equal mean and covariance: the judge gets most of what the exact likelihood ratio has above one half, and no more than all."""
    laws = four_flat_clusters()
    a, b = (law.sample(20_000, seed) for law, seed in zip(laws, (1, 2), strict=True))
    ratio = [laws[0].log_prob(x) - laws[1].log_prob(x) for x in (a, b)]
    optimum = ((ratio[0] > 0).mean() + (ratio[1] < 0).mean()) / 2
    judge = NetworkClassifier(hidden=(500, 500))
    found = c2st(a, b, judge=judge, train=10_000, test=10_000, splits=1, whiten=True)
    assert 0.5 + 0.85 * (optimum - 0.5) < found.accuracy < optimum + 3 * found.error
