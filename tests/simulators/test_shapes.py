"""The shapes' densities integrate to one, and events fall where they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pofx.errors import CapabilityError, ShapeError
from pofx.simulators.shapes import SHAPES

SIDE, COARSE = 144, 24


@pytest.fixture(params=list(SHAPES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_ten_shapes_in_the_plane() -> None:
    assert len(SHAPES) == 10
    assert {shape.dim for shape in SHAPES.values()} == {2}


def test_density_and_events_agree(name: str) -> None:
    """Chi-squared over cells, and the integral over a square that holds nearly everything."""
    shape = SHAPES[name]
    x = shape.sample(20_000, seed=1)
    low, high = x.min(0) - 0.6, x.max(0) + 0.6
    edges = [np.linspace(low[i], high[i], SIDE + 1) for i in (0, 1)]
    middles = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(shape.log_prob(points)).reshape(SIDE, SIDE) * np.prod((high - low) / SIDE)
    assert mass.sum() == pytest.approx(1.0, abs=0.02 if name == "checkerboard" else 1e-3)
    step = SIDE // COARSE
    expected = len(x) * mass.reshape(COARSE, step, COARSE, step).sum((1, 3)) / mass.sum()
    seen = np.histogram2d(*x.T, bins=[edge[::step] for edge in edges])[0]
    large = expected > 20
    if name == "checkerboard":  # its edges are not those of the cells: events are counted by square
        assert np.isfinite(shape.log_prob(x)).all()
        counts = np.unique(np.floor(x).astype(int), axis=0, return_counts=True)[1]
        assert len(counts) == 8
        assert stats.chisquare(counts).pvalue > 1e-3
        return
    chi2 = ((seen - expected)[large] ** 2 / expected[large]).sum()
    assert stats.chi2.sf(chi2, large.sum() - 1) > 1e-4


def test_seeds(name: str) -> None:
    shape = SHAPES[name]
    np.testing.assert_array_equal(shape.sample(10, 1), shape.sample(10, 1))
    assert not np.array_equal(shape.sample(10, 1), shape.sample(10, 2))


def test_far_away_is_finite_or_impossible(name: str) -> None:
    found = SHAPES[name].log_prob([[40.0, -30.0], [0.0, 0.0]])
    assert not np.isnan(found).any()
    assert found[0] < -1000
    assert SHAPES[name].log_prob(np.zeros((0, 2))).shape == (0,)


def test_refusals() -> None:
    with pytest.raises(ShapeError):
        SHAPES["rings"].log_prob(np.zeros((3, 3)))
    with pytest.raises(CapabilityError):
        SHAPES["rings"].marginal([0])
