"""What happens to those who set nothing: small data sets, large ones, weights that would run away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_toys import Gaussian, fit, nll, normal, source, weights

import pofx
from pofx.simulators import CorrelatedGaussian
from pofx.training import Loss, Phase, Training, Update, train
from pofx.training.order import batch_size_for

QUIET = Training(progress=False, device="cpu")


def test_batch_size_follows_the_number_of_events():
    sizes = [batch_size_for(n, "auto") for n in (1, 7, 8, 160, 1000, 3000, 5000, 100_000, 10_000_000)]
    assert sizes == [1, 7, 8, 16, 128, 256, 512, 512, 512]
    assert batch_size_for(300, 1024) == 300
    assert source(normal(160), batch_size="auto").steps_per_epoch == 10
    assert source(normal(160), batch_size=160).rebatched("auto").steps_per_epoch == 10


def test_defaults_average_and_clip():
    """The same as when they are written out, and another training than without them."""
    data, nets = source(normal(160), val=normal(40, 1), batch_size="auto"), [Gaussian() for _ in range(3)]
    short = QUIET.replace(max_epochs=5)
    for net, settings in zip(
        nets,
        (short, short.replace(ema=0.999, clip=5.0, warmup=0.1, batch_size="auto"), short.replace(ema=None)),
        strict=True,
    ):
        train(net, [fit()], data, settings)
    assert torch.equal(weights(nets[0]), weights(nets[1]))
    assert not torch.equal(weights(nets[0]), weights(nets[2]))


def test_one_wild_event_does_no_harm():
    x = normal(1000)
    x[17] = 1e4
    wild = lambda net, events, noise: Loss(nll(net, events, noise).per_event)  # noqa: E731
    net = Gaussian()
    record = train(
        net, [Phase("fit", (Update("u", wild),))], source(x, val=normal(200, 1)), QUIET.replace(max_epochs=3)
    )
    assert max(row.gradient_norm for row in record.history) > 1000
    assert weights(net).abs().max() < 1


TRUTH = CorrelatedGaussian([0.5, -1.0], [[1.0, 0.6], [0.6, 2.0]])


@pytest.mark.parametrize(
    "family",
    [
        pofx.SplineFlow(layers=1, hidden=(16,)),
        pofx.SplineFlow(),
        pofx.CouplingFlow(),
    ],
)
@pytest.mark.slow
def test_two_hundred_events_are_not_learnt_by_heart(family):
    """Fresh events are as likely as for the truth, but for what so few events cannot tell (five numbers of a Gaussian: 0.016 nats)."""
    model = family.fit(TRUTH.sample(200, 1), training=QUIET)
    fresh = TRUTH.sample(4000, 2)
    gap = TRUTH.log_prob(fresh) - model.log_prob(fresh)
    assert np.isfinite(gap).all()
    assert gap.mean() < 0.25
    assert model.card["training"]["best_step"] is not None
