"""Trainings of one process of a team: ``torchrun --nproc-per-node 2 team_job.py FOLDER``; :func:`job` alone is what they must equal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_toys import Gaussian, fit, mlp, normal, quick, source, weights

from pofx.errors import DivergenceError
from pofx.training import Loss, Phase, Update, train


class Watching(torch.nn.Module):
    """A network with a running mean of what it has seen, which differs from process to process, and a sum, which does not."""

    summed = ("fresh",)

    def __init__(self) -> None:
        super().__init__()
        self.network = mlp(2, 8, 2)
        for name in ("seen", "fresh", "total"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen = 0.9 * self.seen + 0.1 * x.detach().mean()
            self.fresh += x.detach().square().sum()
        return self.network(x)


def take_in(net) -> None:
    """What a step has seen, as codebooks do it."""
    net.total.lerp_(net.fresh, 0.5)
    net.fresh.zero_()


def loss(net, events, noise):
    x = events.x + 0.1 * noise.normal("jitter", 2)
    penalty = sum(p.square().sum() for p in net.parameters())
    return Loss((net(x) - x.flip(1)).square().sum(1), extra=1e-3 * penalty, logs={"size": x.norm(dim=1)})


def job(folder: Path) -> dict[str, Any]:
    """Two phases with everything that a team shares: uneven shares, weights, accumulation, clipping, average, validation, checkpoint."""
    net = Watching()
    sgd = lambda named: torch.optim.SGD([p for _, p in named], lr=0.01, momentum=0.9)  # noqa: E731
    phases = [
        Phase("one", (Update("all", loss, after=take_in),)),
        Phase("two", (Update("last", loss, ("network.2.*",), optimiser=sgd),)),
    ]
    x, weight = normal(203).astype("f8"), np.linspace(-0.2, 2.2, 203)
    data = source(x, weight, val=normal(9000, 1).astype("f8"), batch_size=33)
    settings = quick(max_epochs=4, precision="float64", accumulate=2, clip=1.0, ema=0.9, checkpoint_every=3)
    settings = settings.replace(checkpoint=folder / "state", log_dir=folder, tensorboard=False)
    record = train(net, phases, data, settings)
    again = train(Watching(), phases, data, settings, resume="must")
    return {
        "weights": weights(net.network).tolist(),
        "state": weights(net).tolist(),
        "total": float(net.total),
        "validation": [row.validation_loss for row in record.history],
        "loss": [row.train_loss for row in record.history],
        "size": [next(iter(row.logs.values())) for row in record.history],
        "best_step": record.best_step,
        "again": [row.validation_loss for row in again.history],
        "divergence": divergence(),
        "lonely": lonely(),
    }


def lonely() -> list[float]:
    """More processes than events."""
    net = Gaussian()
    train(net, [fit()], source(normal(1)), quick(precision="float64"))
    return weights(net).tolist()


def divergence() -> str:
    """What the error says about an event that is not finite, which only one process works on."""
    x = normal(100)
    x[70] = np.nan
    try:
        train(Gaussian(), [fit()], source(x, batch_size=100), quick())
    except DivergenceError as error:
        return str(error)
    return ""


def timed() -> dict[str, int]:
    """A time budget: all processes must stop at the same step."""
    budget = quick(max_epochs=None, max_minutes=0.5 / 60)
    return train(Gaussian(), [fit()], source(normal(1000), val=normal(100, 1)), budget).phase_steps


if __name__ == "__main__":
    place, rank = Path(sys.argv[1]), os.environ["RANK"]
    (place / f"result-{rank}.json").write_text(json.dumps(job(place) | {"timed": timed()}))
