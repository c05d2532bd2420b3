"""Where is it wrong: a hole is named, noise is not."""

from __future__ import annotations

import numpy as np
import pytest

from pofx.errors import ConfigError, DataError
from pofx.metrics.weights import where


def test_a_hole_is_found_where_it_is() -> None:
    rng = np.random.default_rng(1)
    truth, made = rng.uniform(size=(3000, 3)), rng.uniform(size=(4000, 3))
    made = made[~((made[:, 0] > 0.7) & (made[:, 2] < 0.4))]
    found = where(truth, made, seed=1)
    region = found.regions[0]
    assert (region.tail, found.p_value) == ("missing", 0.001)
    assert region.limits["x0"][0] == pytest.approx(0.7, abs=0.05)
    assert region.limits["x2"][1] == pytest.approx(0.4, abs=0.05)
    assert abs(region.truth.value - 0.12) < 4 * region.truth.error
    assert region.generated.value < 0.02


def test_noise_has_no_regions() -> None:
    """Counted in events that the trees have not seen: pulls of boxes found in noise are normal ones."""
    pulls, chances = [], []
    for seed in range(12):
        a, b = np.random.default_rng(seed).normal(size=(2, 600, 2))
        found = where(a, b, seed=seed)
        pulls += [region.pull for region in found.regions]
        chances.append(found.p_value)
    assert np.abs(pulls).max() < 4.5
    assert min(chances) > 0.01 / 12


def test_settings_are_checked() -> None:
    x = np.random.default_rng(1).normal(size=(50, 2))
    with pytest.raises(ConfigError, match="a tail between"):
        where(x, x, tail=0.7)
    with pytest.raises(DataError, match="at least 0"):
        where(x, x, weight_truth=np.r_[-1.0, np.ones(49)])
