"""The two-sample test of clouds: order and padding mean nothing, nulls are quiet, differences of points and of numbers are seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import pofx
from pofx.classifiers import CloudClassifier
from pofx.classifiers.clouds import cloud_rows
from pofx.data import Column, Field
from pofx.data.events import Events
from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.metrics import c2st
from pofx.networks import DeepSets
from pofx.simulators import PointCloud

JUDGE = CloudClassifier(network=DeepSets(width=16, layers=2), epochs=12, learning_rate=5e-3)


def clouds(n: int, seed: int, shift: float = 0.0, share: float = 0.5, length: int = 6) -> Events:
    """Normal points around ``shift``; each of up to six is there with this probability."""
    rng = np.random.default_rng(seed)
    mask = rng.random((n, length)) < share
    return Events({"x": np.where(mask[..., None], shift + rng.normal(size=(n, length, 2)), 99.0)}, {"x": mask})


def test_null_is_quiet() -> None:
    p_values = [c2st(clouds(300, 2 * k), clouds(300, 2 * k + 1), judge=JUDGE, splits=1).p_value for k in range(4)]
    assert min(p_values) > 0.01 / 4


def test_a_shift_is_seen_as_well_as_can_be() -> None:
    """Points shifted by s along both axes, always six of them: the optimum is Phi(sqrt(6 * 2) s / 2)."""
    found = c2st(clouds(1500, 1, 0.0, 1.0), clouds(1500, 2, 0.3, 1.0), judge=JUDGE, splits=2)
    optimum = stats.norm.cdf(np.sqrt(12) * 0.3 / 2)
    assert optimum - 0.04 < found.accuracy < optimum + 3 * found.error
    assert found.p_value == 0.001


def test_the_number_of_points_alone_is_seen() -> None:
    """Two binomial laws of the number of points: the optimum by their sum."""
    found = c2st(clouds(1500, 3, share=0.4), clouds(1500, 4, share=0.6), judge=JUDGE, splits=2)
    counts = np.arange(7)
    optimum = 0.5 * np.maximum(stats.binom.pmf(counts, 6, 0.4), stats.binom.pmf(counts, 6, 0.6)).sum()
    assert optimum - 0.03 < found.accuracy < optimum + 3 * found.error


def test_dependence_of_points_is_seen() -> None:
    """Points of different clouds mixed up: the same intensity and numbers, no common direction."""
    toy = PointCloud()
    first, second = toy.sample(600, 1), toy.sample(600, 2)
    points = np.array(second.x)
    for column in range(points.shape[1]):
        rows = np.flatnonzero(second.mask[:, column])
        points[rows, column] = points[np.roll(rows, column + 1), column]
    found = c2st(first, Events({"x": points}, second.masks), judge=JUDGE, splits=1)
    assert found.accuracy > 0.8


def test_padding_length_and_weights_do_not_matter() -> None:
    a, b = clouds(200, 5), clouds(200, 6, 0.2)
    quick = CloudClassifier(network=DeepSets(width=8, layers=1), epochs=2)
    plain = c2st(a, b, judge=quick, splits=1, train=100)
    filled = Events({"x": np.where(a.mask[..., None], a.x, -5.0)}, a.masks)
    assert c2st(filled, b, judge=quick, splits=1, train=100) == plain
    spec = {"x": Field("cloud", (6, 2), (Column("a"), Column("b")))}
    data = pofx.Dataset.from_arrays({"x": np.where(a.mask[..., None], a.x, 0.0)}, columns=spec, masks=a.masks)
    assert c2st(data, b, judge=quick, splits=1, train=100) == plain
    assert c2st(a, b, judge=quick, splits=1, train=100, weight_b=np.full(200, 2.0)).accuracy == plain.accuracy
    longer = c2st(a, clouds(200, 7, length=8), judge=quick, splits=1, train=100)
    assert longer.events_test == (100, 100)


def test_order_of_points_means_nothing_to_the_judge() -> None:
    a, b = clouds(100, 8), clouds(100, 9, 1.0)
    rows = [cloud_rows(some.x, some.mask) for some in (a, b)]
    fitted = CloudClassifier(features=2, network=DeepSets(width=8, layers=1), epochs=2).fit(
        np.concatenate(rows), np.repeat([0, 1], 100), seed=1
    )
    turned = cloud_rows(a.x[:, ::-1], a.mask[:, ::-1])
    np.testing.assert_allclose(fitted.logit(turned), fitted.logit(rows[0]), atol=1e-12)


def test_refusals() -> None:
    a = clouds(50, 1)
    with pytest.raises(CapabilityError, match="CloudClassifier"):
        c2st(a, a, judge="trees")
    with pytest.raises(ConfigError, match="whiten"):
        c2st(a, a, whiten=True)
    with pytest.raises(ShapeError, match="equal columns"):
        c2st(a, np.zeros((50, 2)))
    with pytest.raises(ShapeError, match="points, then their mask"):
        CloudClassifier(features=2).fit(np.zeros((10, 4)), np.repeat([0, 1], 5), seed=1)
    beside = Events({"x": a.x, "y": np.zeros((50, 1))}, a.masks)
    with pytest.raises(CapabilityError, match="beside other fields"):
        c2st(beside, beside)
