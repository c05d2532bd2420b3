"""Where is it wrong: a hole is named, noise is not."""

from __future__ import annotations

import numpy as np
import pytest

from pofx.classifiers import TreeClassifier
from pofx.data.events import Events
from pofx.errors import CapabilityError, ColumnError, ConfigError, DataError
from pofx.metrics.weights import where

QUICK = TreeClassifier(trees=10, learning_rate=0.3)


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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.slow
def test_noise_has_no_regions(weighted: bool) -> None:
    """Boxes are found without a look at which events are true: pulls of boxes found in noise are normal numbers, of either tail."""
    pulls, chances = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(400, 2)), rng.normal(size=(600, 2))
        weights = rng.uniform(0.2, 1.8, (2, 600)) if weighted else np.ones((2, 600))
        found = where(a, b, judge=QUICK, weight_truth=weights[0, :400], weight_generated=weights[1], seed=seed)
        pulls += [region.pull * (1 if region.tail == "missing" else -1) for region in found.regions]
        chances.append(found.p_value)
        assert found.effective_share > 0.9
    assert abs(np.mean(pulls)) < 4 / len(pulls) ** 0.5
    assert 0.5 < np.std(pulls) < 1.5
    assert min(chances) > 0.01 / 6


def test_settings_are_checked() -> None:
    x = np.random.default_rng(1).normal(size=(50, 2))
    with pytest.raises(ConfigError, match="a tail between"):
        where(x, x, tail=0.7)
    with pytest.raises(DataError, match="at least 0"):
        where(x, x, weight_truth=np.r_[-1.0, np.ones(49)])


def test_a_cluster_is_the_box_it_is() -> None:
    """Uniform events with a box missing from the sample: the cluster's centre, spread and shares are those of the box."""
    rng = np.random.default_rng(2)
    truth, made = rng.uniform(size=(6000, 2)), rng.uniform(size=(8000, 2))
    made = made[~((made[:, 0] > 0.8) & (made[:, 1] < 0.5))]
    found = where(truth, made, tail=0.04, depth=2, seed=2)
    region = found.regions[0]
    assert region.tail == "missing"
    assert region.share.value > 0.9
    for name, centre, width in (("x0", 0.9, 0.2), ("x1", 0.25, 0.5)):
        assert abs(region.centre[name].value - centre) < 4 * region.centre[name].error + 0.01
        assert abs(region.spread[name].value - width / 12**0.5) < 4 * region.spread[name].error + 0.01
    assert abs(region.truth.value - 0.1) < 4 * region.truth.error


def test_the_tails_are_the_shares_that_were_asked_for() -> None:
    truth, made = np.random.default_rng(3).normal(size=(2, 400, 2))
    found = where(truth, made + 0.5, tail=0.1, seed=3)
    for tail, inside in (
        ("missing", lambda w: w >= found.thresholds[1]),
        ("too many", lambda w: w <= found.thresholds[0]),
    ):
        first, second = found.beyond(tail)
        assert (first == inside(found.log_weight_truth)).all()
        assert (second == inside(found.log_weight_generated)).all()
        assert first.sum() + second.sum() == pytest.approx(80, abs=8)
    assert found.beyond("missing")[0].sum() > found.beyond("missing")[1].sum()


def test_weights_of_events_count() -> None:
    """Truth that is weighted to the law of the sample differs from it nowhere."""
    rng = np.random.default_rng(4)
    truth, made = rng.normal(0.5, 1.0, (3000, 1)), rng.normal(size=(3000, 1))
    weight = np.exp(-0.5 * truth[:, 0] + 0.125)
    plain, corrected = (where(truth, made, weight_truth=w, seed=4) for w in (None, weight))
    assert plain.p_value == 0.001
    assert corrected.p_value > 0.01
    assert max(abs(region.pull) for region in corrected.regions) < 4.5


def test_columns_by_name_and_features_of_clouds() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(600, 2))
    a, b = {"p": x[:, 0], "q": x[:, 1] + 3}, {"q": rng.normal(3, 1, 600), "p": rng.normal(0, 2, 600)}
    found = where(a, b, seed=5)
    assert [column.name for column in found.columns] == ["p", "q"]
    assert "p" in found.regions[0].limits
    assert found.p_value == 0.001
    mask = rng.random((200, 4)) < 0.5
    clouds = Events({"x": rng.normal(size=(200, 4, 2))}, {"x": mask})
    with pytest.raises(CapabilityError, match="features="):
        where(clouds, clouds)
    assert where(clouds, clouds, features=lambda e: {"count": e.mask.sum(1)}, seed=5).p_value > 0.01
    with pytest.raises(ColumnError, match="only generated has r"):
        where(a, {**b, "r": b["p"]})


def test_weights_are_the_ratio_of_densities_on_average() -> None:
    """Two normal laws 0.5 apart along both columns: among events of one weight, the mean of the true ratio is that weight."""
    rng = np.random.default_rng(6)
    truth, made = rng.normal(0.5, 1.0, (3000, 2)), rng.normal(size=(3000, 2))
    found = np.exp(where(truth, made, seed=6).log_weight_generated)
    true = np.exp(0.5 * made.sum(1) - 0.25)
    parts = np.argsort(found).reshape(6, -1)
    assert true[parts].mean(1) == pytest.approx(found[parts].mean(1), rel=0.15)


@pytest.mark.slow
def test_pulls_of_noise_have_width_one() -> None:
    pulls: list[float] = []
    for seed in range(100, 180):
        rng = np.random.default_rng(seed)
        pulls += [
            region.pull for region in where(rng.normal(size=(400, 3)), rng.normal(size=(600, 3)), seed=seed).regions
        ]
    assert abs(np.std(pulls) - 1.0) < 4 / (2 * len(pulls)) ** 0.5
