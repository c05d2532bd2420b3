"""A family with a closed-form posterior: x = W c + b + s noise, with s known; and one that only has a noisy quadratic loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import pofx
from pofx.data.events import Events
from pofx.models.base import Capabilities, Family, Layout
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

NOISE = 0.5
EXACT = pofx.Training(
    max_epochs=None, max_steps=400, batch_size=10_000, learning_rate=0.05, precision="float64", device="cpu", seed=1,
    progress=False, ema=None, clip=None,
)  # fmt: skip


@dataclass(frozen=True)
class LinearGaussian(Family):
    """Linear regression with known noise."""

    name: ClassVar[str] = "linear-gaussian"
    capabilities: ClassVar[Capabilities] = Capabilities()

    preprocess: str = field(default="none", kw_only=True)

    def build(self, layout: Layout) -> nn.Module:
        return nn.Sequential(nn.Linear(layout.context_features, layout.features))

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("fit", (Update("nll", self.loss),)),)

    def loss(self, body: nn.Module, events: Events, noise: Noise) -> Loss:
        return Loss(-self.log_density(body, events))

    def log_density(self, body: nn.Module, events: Events) -> Tensor:
        residual = (events.x - body(events.context.x)) / NOISE
        return -0.5 * residual.square().sum(1) - residual.shape[1] * math.log(NOISE * math.sqrt(math.tau))

    def decode(self, body: nn.Module, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        return {"x": body(context.x) + NOISE * noise["z"]}


@dataclass(frozen=True)
class NoisyQuadratic(Family):
    """L = curvature |w|^2 / 2 + g w per event, with g normal: gradients with noise of known variance, for 200 weights."""

    name: ClassVar[str] = "noisy-quadratic"
    capabilities: ClassVar[Capabilities] = Capabilities(density="none", decode=False)

    curvature: float = 2.0
    preprocess: str = field(default="none", kw_only=True)

    def build(self, layout: Layout) -> nn.Module:
        return nn.Linear(1, 200, bias=False)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("fit", (Update("loss", self.loss),)),)

    def loss(self, body: Any, events: Events, noise: Noise) -> Loss:
        w = body.weight[:, 0]
        return Loss(0.5 * self.curvature * w.square().sum() + noise.normal("g", 200) @ w)


def data(n: int = 200, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Two correlated contexts, one event each."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(n, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    return c @ np.array([[1.0], [-0.5]]) + 0.3 + NOISE * rng.normal(size=(n, 1)), c


def posterior(model: pofx.Model, x: np.ndarray, c: np.ndarray, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision of (W, b), for the training split of the model's card, with standardised contexts."""
    split = pofx.Dataset.from_arrays(x, context=c).train.arrays()
    standard = model.fitted.context.to_latent(_tensors(split.context))[0]
    design = np.column_stack([next(iter(standard.values())).numpy(), np.ones(len(split))])
    precision = design.T @ design / NOISE**2 + np.eye(3) / prior**2
    return np.linalg.solve(precision, design.T @ np.asarray(split.x)[:, 0] / NOISE**2), precision


def _tensors(events: Events) -> Events:
    return events.map(lambda array: torch.as_tensor(np.ascontiguousarray(array)))
