"""Effective sizes and accept-reject against closed forms."""

import numpy as np
import pytest
from scipy import stats

from pofx.errors import ConfigError, DataError
from pofx.refine.weights import effective_size, maximum_weight, unweight


def shifted(n: int, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal numbers, and their weights to those of mean ``shift``: E[w]^2 / E[w^2] = exp(-shift^2)."""
    x = np.random.default_rng(seed).normal(size=n)
    return x, np.exp(shift * x - shift**2 / 2)


def test_effective_size_has_its_closed_form_and_its_error() -> None:
    found = [effective_size(shifted(4000, 0.5, seed)[1]) for seed in range(200)]
    pulls = np.array([(each.share - np.exp(-0.25)) / each.share_error for each in found])
    assert abs(pulls.mean()) < 0.35
    assert 0.8 < pulls.std() < 1.25
    assert found[0].value == pytest.approx(4000 * found[0].share)


def test_accepted_events_follow_the_target() -> None:
    rng = np.random.default_rng(1)
    u = rng.random(40_000)  # density 1 on [0, 1] to density 2u: the largest weight is 2, half are accepted
    found = unweight(2 * u, rng.random(len(u)), 2.0)
    assert stats.kstest(u[found.index], stats.beta(2, 1).cdf).pvalue > 0.01
    assert abs(found.efficiency - 0.5) < 4 * found.error
    assert found.overweight == 0.0
    assert (found.weight == 1.0).all()


def test_overweight_events_keep_the_sample_unbiased() -> None:
    x, w = shifted(100_000, 1.0, 2)
    maximum = maximum_weight(w, overweight=0.05)
    found = unweight(w, np.random.default_rng(3).random(len(w)), maximum)
    assert found.overweight == pytest.approx(0.05, abs=1e-12)
    taken = x[found.index]
    mean = (found.weight * taken).sum() / found.weight.sum()
    error = np.sqrt((found.weight**2 * (taken - mean) ** 2).sum()) / found.weight.sum()
    assert abs(mean - 1.0) < 4 * error
    assert taken.mean() < mean - 4 * error  # without their weights the sample is biased


def test_maximum_leaves_the_stated_share() -> None:
    w = np.random.default_rng(4).exponential(size=1000)
    for share in (0.0, 0.01, 0.3):
        maximum = maximum_weight(w, share)
        assert np.maximum(w - maximum, 0).sum() / w.sum() == pytest.approx(share, abs=1e-12)


def test_bad_weights_are_refused() -> None:
    with pytest.raises(DataError, match="positive sum"):
        effective_size([0.0, 0.0])
    with pytest.raises(DataError, match="event 1 has a negative"):
        unweight([2.0, -1.0], [0.5, 0.5], 1.0)
    with pytest.raises(ConfigError, match="positive weight"):
        unweight([1.0], [0.5], 0.0)
    with pytest.raises(ConfigError, match="below 1"):
        maximum_weight([1.0], 1.0)
