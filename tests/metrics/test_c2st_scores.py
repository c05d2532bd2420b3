"""What is made of scores: against scikit-learn, enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError
from pofx.metrics import permutation_p_value
from pofx.metrics.scores import accuracy, area, scored


def judged(n: int, m: int, shift: float, seed: int, digits: int | None = None):
    rng = np.random.default_rng(seed)
    score, label = np.r_[rng.normal(-shift / 2, 1, n), rng.normal(shift / 2, 1, m)], np.repeat([0, 1], [n, m])
    order = rng.permutation(n + m)
    return (score if digits is None else score.round(digits))[order], label[order], rng.gamma(2.0, 1.0, n + m)


@pytest.mark.parametrize("digits", [None, 0])
@pytest.mark.parametrize("weighted", [False, True])
def test_values_are_those_of_scikit_learn(digits, weighted):
    score, label, weight = judged(150, 70, 0.8, 1, digits)
    weight = weight if weighted else None
    found = scored(score, label, weight)
    assert area(found).value == pytest.approx(roc_auc_score(label, score, sample_weight=weight), rel=1e-12)
    decided = score != 0  # scikit-learn knows no half
    part = scored(score[decided], label[decided], None if weight is None else weight[decided])
    known = balanced_accuracy_score(
        label[decided], score[decided] > 0, sample_weight=None if weight is None else weight[decided]
    )
    assert accuracy(part).value == pytest.approx(known, rel=1e-12)


def test_a_score_of_zero_is_half_right():
    assert accuracy(scored([0.0, 0.0, 1.0], [0, 1, 1])).value == pytest.approx((0.5 + 0.75) / 2)


def test_an_event_of_weight_two_is_the_event_twice():
    score, label, _ = judged(60, 40, 0.5, 2, 1)
    weight = np.random.default_rng(2).integers(1, 5, 100)
    once, often = scored(score, label, weight), scored(*(np.repeat(a, weight) for a in (score, label)))
    for value in (accuracy, area):
        assert value(once).value == pytest.approx(value(often).value, rel=1e-12)


@pytest.mark.parametrize(("shift", "weighted"), [(0.0, False), (1.5, False), (1.0, True)])
def test_errors_are_the_scatter(shift, weighted):
    """Both errors against the standard deviation over 300 repetitions, which is known to 4 %."""
    found = []
    for seed in range(300):
        score, label, weight = judged(80, 50, shift, seed)
        events = scored(score, label, weight if weighted else None)
        found.append([accuracy(events), area(events)])
    values, variances = np.moveaxis(np.array(found), 2, 0)
    assert np.sqrt(variances.mean(0)) == pytest.approx(values.std(0), rel=0.15)


def test_perfect_separation_has_an_error():
    events = scored([-1.0, -2.0, 1.0, 2.0], [0, 0, 1, 1])
    assert (accuracy(events).value, area(events).value) == (1.0, 1.0)
    assert accuracy(events).variance > 0 < area(events).variance


def enumerated(score: np.ndarray, label: np.ndarray) -> float:
    """Share of all labellings with an AUC of at least that of the data."""
    rows = [np.isin(np.arange(len(score)), some) for some in itertools.combinations(range(len(score)), label.sum())]
    values = [np.sign(score[row, None] - score[~row]).sum() for row in [label == 1, *rows]]
    return float(np.mean(values[1:] >= values[0]))


@pytest.mark.parametrize("digits", [None, 0])
def test_permutations_approach_all_labellings(digits):
    score, label, _ = judged(6, 4, 1.0, 4, digits)
    expected = enumerated(score, label)
    found = permutation_p_value(score, label, 5000, seed=1)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 5000))
    if digits is None:
        exact = stats.mannwhitneyu(score[label == 1], score[label == 0], alternative="greater", method="exact")
        assert expected == pytest.approx(exact.pvalue)


def test_the_order_of_the_events_does_not_matter():
    score, label, weight = judged(40, 60, 0.3, 5)
    order = np.random.default_rng(6).permutation(100)
    for w in (None, weight):
        same = None if w is None else w[order]
        expected = permutation_p_value(score, label, 99, seed=3, weight=w)
        assert permutation_p_value(score[order], label[order], 99, seed=3, weight=same) == expected
    assert permutation_p_value(score, label, 99, seed=4) != permutation_p_value(score, label, 99, seed=5)


def test_equal_weights_are_no_weights():
    score, label, _ = judged(40, 60, 0.3, 7)
    assert permutation_p_value(score, label, 99, 1, np.full(100, 0.1)) == permutation_p_value(score, label, 99, 1)


@pytest.mark.parametrize("digits", [None, 0])
def test_p_values_of_equal_samples_are_uniform(digits):
    """With ties they may be too large, never too small."""
    p = np.array([permutation_p_value(*judged(30, 20, 0.0, seed, digits)[:2], 99, seed) for seed in range(300)])
    for level in (0.01, 0.05, 0.2, 0.5):
        assert stats.binomtest(int((p <= level).sum()), 300, level, "greater").pvalue > 0.01 / 8
    if digits is None:
        assert stats.kstest(p, "uniform").pvalue > 0.01


def test_p_values_of_equal_weighted_samples_are_uniform():
    """Many wide events whose weights make them the few narrow ones: laws of weights differ, and so do the sizes."""
    found, plain = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        few, many = rng.normal(0, 1, 40), rng.normal(0, 1.6, 240)
        weight = np.r_[np.ones(40), stats.norm.pdf(many) / stats.norm.pdf(many, 0, 1.6)]
        score, label = np.r_[few, many] ** 2, np.repeat([1, 0], [40, 240])
        found.append(permutation_p_value(score, label, 99, seed, weight))
        plain.append(permutation_p_value(-score, label, 99, seed))
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.median(plain) < 0.05  # without weights the samples differ


def test_errors_are_typed():
    with pytest.raises(ShapeError, match=r"scores and label of shape \(n,\)"):
        permutation_p_value([0.0, 1.0], [0, 1, 1])
    with pytest.raises(NonFiniteError, match="number 1 is NaN"):
        permutation_p_value([0.0, math.nan], [0, 1])
    with pytest.raises(DataError, match="both at least once"):
        permutation_p_value([0.0, 1.0], [1, 1])
    with pytest.raises(DataError, match="positive sum for each label"):
        permutation_p_value([0.0, 1.0], [0, 1], weight=[1.0, -1.0])
    with pytest.raises(ConfigError, match="at least 1; got 0"):
        permutation_p_value([0.0, 1.0], [0, 1], 0)
