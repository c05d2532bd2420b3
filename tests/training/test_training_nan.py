"""Numbers that are not finite: found at once, named, and nothing is spoilt by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from training_toys import fit, mlp, normal, quick, source, weights

from pofx.errors import DivergenceError
from pofx.training import Loss, train
from pofx.training.placement import Placement


class Root(nn.Module):
    def forward(self, x):
        return x.sqrt()


def squares(net, events, noise):
    return Loss(net(events.x).square().sum(1))


def spoilt(rows, value=np.nan):
    x = normal(300)
    x[rows] = value
    return x


def test_loss_names_update_step_event_and_layer():
    x = np.abs(normal(300)) + 1
    x[[17, 230]] = -1
    net = nn.Sequential(nn.Identity(), Root(), nn.Linear(2, 1))
    with pytest.raises(DivergenceError) as caught:
        train(net, [fit(squares)], source(x, batch_size=300), quick())
    assert (
        str(caught.value)
        == "phase 'fit', update 'nll', step 0; the loss is not finite for event 17, 230; first layer '1'"
    )


def test_gradient_names_event_and_layer():
    x = np.abs(normal(300)) + 1
    x[42] = 0  # the square root is finite there, its slope is not
    net = nn.Sequential(nn.Linear(2, 2), Root(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[0].bias.zero_()
    with pytest.raises(
        DivergenceError, match=r"the loss is finite, but not its gradient for event 42; first layer '0'; parameter '0\."
    ):
        train(net, [fit(squares)], source(x, batch_size=300), quick())


def test_a_gradient_too_long_for_a_number_is_named():
    def large(net, events, noise):
        return Loss(net(events.x)[:, 0] * 1e25)  # its square overflows, it does not

    with pytest.raises(DivergenceError, match=r"the loss has grown to -?\d.*e\+2\d, and the norm of its gradient"):
        train(mlp(2, 4, 1), [fit(large)], source(normal(30)), quick())


def test_inputs_are_named():
    with pytest.raises(
        DivergenceError, match=r"field 'x' came in with NaN or infinity for event 5; .* for event 5; first layer '0'"
    ):
        train(mlp(2, 4, 1), [fit(squares)], source(spoilt([5]), batch_size=300), quick())


def test_loss_itself_and_extra():
    log = lambda net, events, noise: Loss((net(events.x)[:, 0] * 0 - 1).log())  # noqa: E731
    with pytest.raises(DivergenceError, match="the outputs of all layers are finite: it is in the loss itself"):
        train(mlp(2, 4, 1), [fit(log)], source(normal(30)), quick())
    extra = lambda net, events, noise: Loss(net(events.x)[:, 0], extra=net[0].weight.sum() * torch.inf)  # noqa: E731
    with pytest.raises(DivergenceError, match="extra term"):
        train(mlp(2, 4, 1), [fit(extra)], source(normal(30)), quick())


def test_weights_are_untouched_by_the_bad_step():
    net = mlp(2, 4, 1)
    before = weights(net)
    with pytest.raises(DivergenceError):
        train(net, [fit(squares)], source(spoilt([5]), batch_size=300), quick())
    assert torch.equal(weights(net), before)


def test_skip_counts_and_goes_on():
    net = mlp(2, 4, 1)
    record = train(net, [fit(squares)], source(spoilt([5]), batch_size=100), quick(nan_policy="skip", max_epochs=4))
    assert (record.steps, record.skipped_steps) == (12, 4)
    assert weights(net).isfinite().all()
    assert all(np.isfinite(row.train_loss) for row in record.history)


def test_too_many_in_a_row():
    with pytest.raises(
        DivergenceError,
        match=r"more than 3 updates skipped in a row; phase 'fit', update 'nll', step 3; .* for event 5",
    ):
        train(
            mlp(2, 4, 1),
            [fit(squares)],
            source(spoilt([5]), batch_size=300),
            quick(nan_policy="skip", max_skips=3, max_epochs=20),
        )


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_blocks_of_an_asynchronous_device_find_the_same(monkeypatch, policy):
    """As on a GPU, where numbers are looked at once per block of steps."""

    def run():
        x = spoilt([77])
        net = nn.Sequential(mlp(2, 4), nn.Dropout(0.3), mlp(4, 1))
        settings = quick(nan_policy=policy, max_epochs=8, ema=0.9)
        try:
            train(net, [fit(squares)], source(x, batch_size=10, val=normal(50)), settings)
        except DivergenceError as error:
            return str(error), weights(net)
        return "", weights(net)

    message, expected = run()
    monkeypatch.setattr(Placement, "asynchronous", True)
    assert run()[0] == message
    assert torch.equal(run()[1], expected)
