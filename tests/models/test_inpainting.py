"""Missing parts of events: with the analytic field of a correlated normal law the conditional law has a closed form."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pofx
from pofx.data.spec import Axis, Column, vector_spec
from pofx.data.spec import Field as DataField
from pofx.errors import CapabilityError, ConfigError, DataError, ShapeError
from pofx.models.base import Layout
from pofx.models.inpainting import inpaint, repaint
from pofx.networks import ResidualMLP
from pofx.solvers import RK4
from pofx.training.noise import Noise

QUICK = pofx.Training(max_steps=3, seed=1)
SMALL = ResidualMLP(width=16, layers=1)
RHO = 0.8
LAYOUT = Layout({"x": vector_spec(2)["x"]})
MISSING = torch.tensor([False, True])


class Field(nn.Module):
    """The velocity of the path a x0 + s e for a normal pair of variance 1 and correlation RHO, as the network of v or of velocities."""

    def __init__(self, linear: bool) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, y: Tensor, label: Tensor, context: object = None, mask: object = None) -> Tensor:
        if self.linear:
            a, s, da, ds = 1.0 - label, label, -torch.ones_like(label), torch.ones_like(label)
        else:
            angle = (4.0 * label).exp().atan()
            a, s = angle.cos(), angle.sin()
            da, ds = -s, a
        total, other = a**2 + s**2, a**2 * RHO
        scale = (total**2 - other**2)[:, None]
        away = (total[:, None] * y - other[:, None] * y.flip(1)) / scale
        event = a[:, None] * (away + RHO * away.flip(1))
        return da[:, None] * event + ds[:, None] * s[:, None] * away


FAMILIES: dict[str, Any] = {
    "flow-matching": pofx.FlowMatching(network=SMALL),
    "score-sde": pofx.ScoreSDE(network=SMALL, prediction="velocity"),
}


def drawn(name: str, steps: int, repeats: int, n: int = 2000) -> Tensor:
    """The second number, the first of which is 1.5."""
    family = FAMILIES[name]
    body = family.build(LAYOUT).double()
    body.network = Field(linear=name == "flow-matching")
    known = torch.tensor([1.5, math.nan], dtype=torch.float64).nan_to_num().expand(n, 2)
    noise = Noise(1, torch.arange(n), dtype=torch.float64)
    x = repaint(family, body, known, MISSING.expand(n, 2), noise, steps=steps, repeats=repeats)
    assert bool((x[:, 0] == 1.5).all())
    return x[:, 1]


def moments(name: str, steps: int, repeats: int) -> tuple[float, float]:
    """Mean and variance of the second number, by a recursion of mean and covariance through the kernels of the method."""
    t, one, truth = np.linspace(1.0, 0.0, steps + 1) ** 2, np.eye(2), np.array([[1.0, RHO], [RHO, 1.0]])
    half = 0.5 * math.pi * t
    levels = zip(*((1.0 - t, t) if name == "flow-matching" else (np.cos(half), np.sin(half))), strict=True)
    mean, covariance = np.zeros(2), one
    for k, ((a, s), (b, r)) in enumerate(pairwise(levels)):
        event = a * truth @ np.linalg.inv(a**2 * truth + s**2 * one)  # E[x0|y] = event @ y
        known = r**2 * (
            1.0 - (a * r / (b * s)) ** 2
        )  # the variance of y at the next level given y and x0, whose mean is
        rest = math.sqrt(r**2 - known) / s  # rest * y + gain * x0
        gain = b - a * rest
        move = gain * event + rest * one
        added = known + gain**2 * s**2 / (a**2 + s**2) if r else 0.0
        turns = repeats if a > 1e-6 and k < steps - 1 else 1
        for turn in range(turns):
            mean, covariance = move @ mean, move @ covariance @ move.T + added * one
            mean[0], covariance = 1.5 * b, np.diag([r**2, covariance[1, 1]])
            if turn < turns - 1:
                ratio = a / b
                mean, covariance = ratio * mean, ratio**2 * covariance + (s**2 - (ratio * r) ** 2) * one
    return mean[1], covariance[1, 1]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("repeats", [1, 10])
def test_the_law_is_what_moments_propagate_to(name: str, repeats: int) -> None:
    """Within four standard errors."""
    x, (mean, variance) = drawn(name, 50, repeats), moments(name, 50, repeats)
    assert float(x.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / len(x)))
    assert float(x.var()) == pytest.approx(variance, abs=4 * variance * math.sqrt(2 / len(x)))


@pytest.mark.parametrize("name", FAMILIES)
def test_repeats_take_no_width_away(name: str) -> None:
    """The truth is N(1.2, 0.36), to which the law comes closer with more repeats: the recursion says so, and a sample."""
    near = [moments(name, 50, repeats) for repeats in (10, 40, 160)]
    for (mean, variance), limit in zip(near, (0.06, 0.015, 0.004), strict=True):
        assert 0.0 < 1.5 * RHO - mean < limit
        assert 0.0 < variance - (1.0 - RHO**2) < 0.3 * limit
    x = drawn(name, 20, 40)
    assert float(x.mean()) == pytest.approx(1.5 * RHO, abs=0.05)
    assert float(x.var()) == pytest.approx(1.0 - RHO**2, abs=0.035)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.slow
def test_resampling_repairs_what_replacement_misses(name: str) -> None:
    """The truth is N(1.2, 0.36): without repeats the mean is more than 0.4 short of it; with ten, the variance is within 0.04."""
    plain, repaired = drawn(name, 20, 1), drawn(name, 50, 10)
    assert float(plain.mean()) < 0.8
    assert float(repaired.mean()) == pytest.approx(1.5 * RHO, abs=0.1)
    assert float(repaired.var()) == pytest.approx(1.0 - RHO**2, abs=0.04)


def columns(n: int = 100) -> np.ndarray:
    return np.random.default_rng(1).multivariate_normal([1.0, -2.0, 0.0], np.diag([1.0, 4.0, 9.0]) + 0.5, n)


def fit(family: Any, x: np.ndarray, **more: Any) -> pofx.Model:
    model: pofx.Model = family.fit(x, training=QUICK, **more)
    return model


@pytest.mark.parametrize("kind", [pofx.EDM, pofx.DDPM, pofx.ScoreSDE, pofx.FlowMatching])
def test_known_parts_stay_and_no_event_depends_on_its_neighbours(kind: Any) -> None:
    x = columns()
    model = fit(kind(network=SMALL, preprocess="standardise", density_solver=RK4(steps=2)), x)
    known, missing = x[:4].copy(), np.random.default_rng(2).random((4, 3)) < 0.5
    known[missing] = np.nan
    found = inpaint(model, known, missing, n=3, seed=1, steps=4, repeats=2)
    assert found.shape == (4, 3, 3)
    assert np.isfinite(found).all()
    for row in range(4):
        assert (found[row][:, ~missing[row]] == known[row, ~missing[row]]).all()
        assert np.unique(found[row][:, missing[row]], axis=0).shape == (3, missing[row].sum()) or not missing[row].any()
    np.testing.assert_array_equal(inpaint(model, known[:2], missing[:2], n=3, seed=1, steps=4, repeats=2), found[:2])
    assert inpaint(model, known, missing, n=None, seed=1, steps=4, repeats=2).shape == (4, 3)


def test_contexts_and_grids() -> None:
    x = columns()
    model = fit(
        pofx.EDM(network=SMALL, preprocess="standardise", density_solver=RK4(steps=2)), x[:, :2], context=x[:, 2:]
    )
    mask = [True, False]
    found = inpaint(model, x[:3, :2], mask, x[:3, 2:], n=2, seed=1, steps=3, repeats=2)
    assert found.shape == (3, 2, 2)
    np.testing.assert_array_equal(
        inpaint(model, x[:3, :2], mask, x[0, 2:], n=2, seed=1, steps=3, repeats=2)[0], found[0]
    )
    with pytest.raises(ShapeError):
        inpaint(model, x[:3, :2], mask, x[:2, 2:], seed=1)
    spec = {"x": DataField("grid", (1, 4, 4), (Column("energy"),), (Axis("row", 4), Axis("column", 4)))}
    images = np.random.default_rng(1).normal(size=(60, 1, 4, 4))
    grid = fit(
        pofx.EDM(network=SMALL, density_solver=RK4(steps=2)), pofx.Dataset.from_arrays({"x": images}, columns=spec)
    )
    hole = np.zeros((1, 4, 4), dtype=bool)
    hole[0, 1:3, 1:3] = True
    filled = inpaint(grid, images[:2], hole, n=None, seed=1, steps=3, repeats=2)
    assert (filled[:, ~hole] == images[:2][:, ~hole]).all()
    assert (filled[:, hole] != images[:2][:, hole]).all()


def test_refusals() -> None:
    x = columns()
    mixed = fit(pofx.EDM(network=SMALL, density_solver=RK4(steps=2)), x)
    with pytest.raises(CapabilityError, match="preprocess='standardise'"):
        inpaint(mixed, x[:2], [True, True, False], seed=1)
    with pytest.raises(CapabilityError, match="a path from events to noise"):
        inpaint(fit(pofx.Gaussian(), x), x[:2], [False, True, True], seed=1)
    model = fit(pofx.FlowMatching(network=SMALL, preprocess="standardise", density_solver=RK4(steps=2)), x)
    for wrong in ({"missing": [False, True]}, {"missing": [0, 1, 1]}, {"known": x[0]}):
        with pytest.raises(ShapeError):
            inpaint(**({"model": model, "known": x[:2], "missing": [False, True, True], "seed": 1} | wrong))
    with pytest.raises(ConfigError, match="repeats"):
        inpaint(model, x[:2], [False, True, True], seed=1, repeats=0)
    with pytest.raises(DataError, match="NaN"):
        inpaint(model, [[math.nan, 1.0, 1.0]], [False, True, True], seed=1)
