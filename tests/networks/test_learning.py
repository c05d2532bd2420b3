"""Tiny regressions that cannot be solved without the time, the context or the other points."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import CLOUDS, CONFIGS, Batch, batch_for, shape_for
from torch import Tensor, nn

from pofx.data.spec import vector_spec
from pofx.networks import NetworkConfig, NetworkShape, ResidualMLP

STEPS, EVENTS = 100, 32


def truth(batch: Batch) -> Tensor:
    """2 t + c_0 + the mean over real points of the jet's first column, ``(n,)``: variances 1/3, 1 and about 1/2."""
    assert batch.context is not None
    assert batch.t is not None
    jet, mask = batch.context.fields["jet"], batch.context.masks["jet"]
    mean = (jet[..., 0] * mask).sum(1) / mask.sum(1).clamp(min=1)
    return 2.0 * batch.t[:, 0] + batch.context.fields["c"][:, 0] + mean


def target(batch: Batch) -> Tensor:
    """The truth in every number of the result; zero at padding."""
    value = truth(batch).reshape(-1, *[1] * (batch.x.ndim - 1)).expand(batch.x.shape)
    return value if batch.mask is None else value * batch.mask[..., None]


def train(
    config: NetworkConfig, shape: NetworkShape, wanted: Callable[[Batch], Tensor], steps: int = STEPS
) -> tuple[nn.Module, float]:
    """Mean squared error on new events in units of the target's variance, after a few steps of Adam."""
    torch.manual_seed(0)
    module = config.build(shape)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1.0 - step / steps)
        batch = batch_for(shape, EVENTS, seed=step, dtype=torch.float32)
        loss = (batch.run(module) - wanted(batch)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    batch = batch_for(shape, 4 * EVENTS, seed=10_000, dtype=torch.float32)
    with torch.no_grad():
        error = (batch.run(module.eval()) - wanted(batch)).square().mean() / wanted(batch).var()
    return module, float(error)


QUICK = ("residual-mlp", "unet-2d", "epic")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in CONFIGS])
def test_time_and_context_are_used(name: str) -> None:
    """The smallest of the three parts is a sixth of the variance: a network that misses one leaves at least that."""
    config, field = CONFIGS[name]
    _, error = train(config, shape_for(field), target)
    assert error < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CLOUDS if name not in ("pointwise", "message-passing-near")])
def test_points_learn_of_each_other(name: str) -> None:
    """Every point shall say the mean of all: alone it knows a part in N of that, with its neighbours a few."""
    config, field = CONFIGS[name]

    def mean(batch: Batch) -> Tensor:
        assert batch.mask is not None
        count = batch.mask.sum(1, keepdim=True).clamp(min=1)
        return (batch.x.sum(1) / count)[:, None, :] * batch.mask[..., None]

    assert train(config, shape_for(field, context=None, times=0), mean, 3 * STEPS)[1] < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOUDS)
def test_number_of_points_is_learned(name: str) -> None:
    config, field = CONFIGS[name]

    def count(batch: Batch) -> Tensor:
        assert batch.mask is not None
        return batch.mask.sum(1, keepdim=True).float() / 3.0

    assert train(config, shape_for(field, context=None, times=0, outputs=1), count, 3 * STEPS)[1] < 0.02


def test_waves_see_fine_structure() -> None:
    """A chessboard of unit squares, which a plain network of this size does not learn in as many steps."""
    x = torch.rand(2000, 2, generator=torch.Generator().manual_seed(1)) * 4 - 2
    wanted = 1.0 - 2.0 * (x.floor().sum(1, keepdim=True) % 2)
    errors = []
    for waves in (0, 32):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            net = ResidualMLP(width=32, layers=1, waves=waves).build(NetworkShape(vector_spec(2)["x"], outputs=1))
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(150):
            optimiser.zero_grad()
            loss = (net(x) - wanted).square().mean()
            loss.backward()
            optimiser.step()
        errors.append(loss.item())
    assert errors[1] < 0.5 * errors[0]
