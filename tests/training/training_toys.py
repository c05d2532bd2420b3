"""Small modules, losses and data parts for the tests of the training loop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from pofx.data.events import Events
from pofx.training import DatasetSource, Loss, Noise, Phase, Training, Update


class Part:
    """A data set of one field, in memory or not."""

    def __init__(self, x: np.ndarray, weight: np.ndarray | None = None, *, in_memory: bool = True) -> None:
        self.x, self.weight, self.in_memory = x, weight, in_memory

    def __len__(self) -> int:
        return len(self.x)

    def arrays(self) -> Events:
        return Events({"x": self.x}, weight=self.weight, index=np.arange(len(self.x)))

    def chunks(self, size: int) -> Iterator[Events]:
        return self.arrays().split(size)

    def shuffled(self, size: int, *, seed: int, epoch: int = 0, start: int = 0) -> Iterator[Events]:
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        return self.arrays()[order[start * size :]].split(size)


def to_tensors(events: Events, noise: Noise) -> Events:
    return Events({"x": torch.from_numpy(np.asarray(events.x))})


def source(x, weight=None, val=None, batch_size=128, seed=0, in_memory=True) -> DatasetSource:
    part = None if val is None else Part(val)
    return DatasetSource(Part(x, weight, in_memory=in_memory), part, to_tensors, batch_size=batch_size, seed=seed)


class Gaussian(nn.Module):
    def __init__(self, d: int = 2) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(d))
        self.log_std = nn.Parameter(torch.zeros(d))


def nll(net: Gaussian, events: Events, noise: Noise) -> Loss:
    return Loss((((events.x - net.mean) * torch.exp(-net.log_std)) ** 2 / 2 + net.log_std).sum(1))


def mlp(*sizes: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def fit(update=nll, **settings) -> Phase:
    return Phase("fit", (Update("nll", update),), training=settings)


def quick(**settings) -> Training:
    """A short training without the defaults that blur a closed form (average, clipping)."""
    plain = {"max_epochs": 5, "batch_size": 128, "ema": None, "clip": None, "warmup": 0.3}
    return Training(**{**plain, "progress": False, "device": "cpu", **settings})


def normal(n: int, seed: int = 0, d: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(np.arange(d), 1.0 + np.arange(d), (n, d)).astype("f4")


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([t.detach().double().flatten() for t in module.state_dict().values()])
