"""Both classifiers against exact log-density ratios; weights of either sign; what a score may depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pofx.classifiers import (
    Classifier,
    FittedClassifier,
    NetworkClassifier,
    TreeClassifier,
    balanced_weights,
    classifier,
)
from pofx.errors import ConfigError, DataError, NonFiniteError, ShapeError

BOTH = {"network": NetworkClassifier(hidden=(32, 32), epochs=10), "trees": TreeClassifier(trees=60)}
QUICK = {"network": NetworkClassifier(hidden=(16,), epochs=3), "trees": TreeClassifier(trees=10)}
LABEL = np.repeat([0, 1], 2000)


def samples(shift: float = 1.0, seed: int = 1) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(4000, 2))
    x[2000:, 0] += shift
    return x


@pytest.mark.parametrize("name", list(BOTH))
def test_the_logit_is_the_log_density_ratio(name):
    fitted = BOTH[name].fit(samples(), LABEL, seed=1)
    x = samples(seed=2)[::7]
    exact = x[:, 0] - 0.5
    found = fitted.logit(x)
    assert isinstance(fitted, FittedClassifier)
    assert np.corrcoef(found, exact)[0, 1] > 0.93
    assert np.abs(found - exact).mean() < 0.35
    assert found.dtype == np.float64


@pytest.mark.parametrize("name", list(BOTH))
def test_weights_move_the_density(name):
    """N(1, 1) with weights that make it N(0, 1): nothing is left to tell; a label of ten times the weight shifts the logit by log 10."""
    x = samples()
    weight = np.r_[np.ones(2000), np.exp(-x[2000:, 0] + 0.5)]
    grid = np.random.default_rng(3).normal(size=(500, 2))
    assert np.abs(BOTH[name].fit(x, LABEL, weight, seed=1).logit(grid)).mean() < 0.3
    heavy = BOTH[name].fit(samples(0.0), LABEL, np.where(LABEL == 1, 10.0, 1.0), seed=1).logit(grid)
    assert heavy.mean() == pytest.approx(math.log(10), abs=0.1)


@pytest.mark.parametrize("name", list(BOTH))
def test_negative_weights_are_those_of_a_difference(name):
    """p(x|1) = 1.3 N(0, 1) - 0.3 N(0, 0.5) from events of weight 1 and -1, p(x|0) = N(0, 1)."""
    rng = np.random.default_rng(4)
    x = np.r_[rng.normal(0, 1, 4000), rng.normal(0, 1, 5200), rng.normal(0, 0.5, 1200)][:, None]
    label = np.repeat([0, 1], [4000, 6400])
    weight = balanced_weights(label, np.repeat([1.0, 1.0, -1.0], [4000, 5200, 1200]))
    at = np.array([[0.0], [0.3], [1.0], [1.5]])
    exact = np.log(1.3 - 0.3 * stats.norm.pdf(at, 0, 0.5) / stats.norm.pdf(at)).ravel()
    found = BOTH[name].fit(x, label, weight, seed=1).logit(at)
    assert found == pytest.approx(exact, abs=0.25)
    wrong = BOTH[name].fit(x, label, np.abs(weight), seed=1).logit(at)
    assert found[0] < -0.1 < 0.3 < wrong[0]


@pytest.mark.parametrize("name", list(QUICK))
def test_a_score_depends_on_its_event_alone(name):
    fitted = QUICK[name].fit(samples(), LABEL, seed=1)
    x = samples(seed=5)[:2500]
    found, order = fitted.logit(x), np.random.default_rng(1).permutation(2500)
    assert np.array_equal(fitted.logit(x[order]), found[order])
    assert np.array_equal(np.concatenate([fitted.logit(x[:1]), fitted.logit(x[1:1500]), fitted.logit(x[1500:])]), found)
    assert np.array_equal(fitted.logit(torch.tensor(x)), found)
    assert fitted.logit(x[:0]).shape == (0,)


@pytest.mark.parametrize("name", list(QUICK))
def test_the_seed_alone_decides(name):
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fits = [QUICK[name].fit(samples(0.3), LABEL, seed=seed).logit(samples()[::50]) for seed in (1, 1, 2)]
    assert np.array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numbers, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", list(QUICK))
def test_units_do_not_matter(name):
    """Cross sections of 1e-39 cm^2, a large offset, a constant column."""
    x = samples()
    small = np.c_[1e-39 * x[:, 0], 1e6 + x[:, 1], np.full(4000, 3.0)]
    one = QUICK[name].fit(np.c_[x, np.zeros(4000)], LABEL, seed=1).logit(np.c_[x, np.zeros(4000)][::9])
    other = QUICK[name].fit(small, LABEL, seed=1).logit(small[::9])
    assert other == pytest.approx(one, abs=1e-3)


def test_the_share_for_validation_is_of_each_label():
    from pofx.classifiers.base import labelled
    from pofx.classifiers.signed import held_out

    label = np.repeat([0, 1], [1000, 30])
    hold = held_out(labelled(np.zeros(1030), label), 0.1, 1)
    assert (hold[:1000].sum(), hold[1000:].sum()) == (100, 3)
    few = held_out(labelled(np.zeros(4), [0, 0, 1, 1]), 0.9, 1)
    assert (few[:2].sum(), few[2:].sum()) == (1, 1)


def test_names_and_configs():
    assert classifier("network") == NetworkClassifier()
    assert classifier("trees") == TreeClassifier()
    assert classifier(QUICK["trees"]) is QUICK["trees"]
    assert all(isinstance(config, Classifier) for config in QUICK.values())
    for wrong in ("tree", TreeClassifier, 3, None):
        with pytest.raises(ConfigError, match="classifier out of 'network', 'trees', or a config"):
            classifier(wrong)


@pytest.mark.parametrize(
    "settings",
    [{"hidden": ()}, {"epochs": 0}, {"dropout": 1.0}, {"validation": 0.0}, {"activation": "step"}, {"learning_rate": 0},
     {"batch_size": 0}, {"patience": 0}, {"weight_decay": -1}, {"device": "abacus"}],
)  # fmt: skip
def test_settings_of_the_network(settings):
    with pytest.raises(ConfigError, match=next(iter(settings)) if "epochs" not in settings else "epochs"):
        NetworkClassifier(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"trees": 0},
        {"leaves": 1},
        {"bins": 300},
        {"learning_rate": 0.0},
        {"penalty": -1},
        {"validation": 1},
        {"patience": 0},
    ],
)
def test_settings_of_the_trees(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TreeClassifier(**settings)


@pytest.mark.parametrize("name", list(QUICK))
def test_errors_are_typed(name):
    config, x = QUICK[name], samples()
    with pytest.raises(ShapeError, match=r"label: expected shape \(4000,\); got \(10,\)"):
        config.fit(x, LABEL[:10], seed=1)
    with pytest.raises(DataError, match="expected 0 and 1; got"):
        config.fit(x, LABEL + 1, seed=1)
    with pytest.raises(DataError, match="at least two events of each label; got 4000 of 0 and 0 of 1"):
        config.fit(x, np.zeros(4000), seed=1)
    with pytest.raises(DataError, match="positive sum for each label"):
        config.fit(x, LABEL, np.where(LABEL == 1, -1.0, 1.0), seed=1)
    with pytest.raises(NonFiniteError, match="weight: event 5"):
        config.fit(x, LABEL, np.where(np.arange(4000) == 5, np.inf, 1.0), seed=1)
    fitted = config.fit(x, LABEL, seed=1)
    with pytest.raises(ShapeError, match=r"x: expected shape \(n, 2\); got \(5, 3\)"):
        fitted.logit(np.zeros((5, 3)))
    with pytest.raises(NonFiniteError, match="x: row 0, column 1 is inf"):
        fitted.logit([[0.0, np.inf]])
