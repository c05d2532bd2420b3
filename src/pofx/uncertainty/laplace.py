"""Laplace's approximation for the weights of one layer: a normal posterior of the curvature of the loss at the trained weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least
from pofx.errors import ConfigError
from pofx.models.base import Layout
from pofx.training.contract import LossFunction, Phase, Source, Update
from pofx.training.evaluate import batch_loss
from pofx.training.noise import Noise, derive_seed
from pofx.uncertainty.base import DrawsBody, Posterior, data_phase
from pofx.uncertainty.chains import last_updates
from pofx.uncertainty.inside import inside
from pofx.uncertainty.weights import Weights, last_layer

__all__ = ["Laplace"]

LARGEST = 5000
"""Weights of which a full covariance is made."""


@dataclass(frozen=True)
class Laplace(Posterior):
    r"""Weights of the last layer :math:`\sim N(\hat w, (N H / T + 1/s^2)^{-1})`, H the Hessian of the loss (arXiv:2106.14806).

    H comes from central differences of the gradient over all training events, in float64, so that any loss will do: twice as many passes
    over the data as there are weights. Eigenvalues below zero (a minimum that is none) count as zero, so there the prior alone acts. The
    centre is the trained weights, not the maximum of the posterior: weight decay, averaging and early stopping have their say.

    Parameters
    ----------
    family : any family that is trained by gradients.
    layers : patterns of the weights that vary; None means the last linear layer, and the other layers stay as they are. At most 5000.
    draws : from the normal distribution.
    prior, temperature : s and T, as in :class:`~pofx.uncertainty.chains.AdamMCMC`.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(100, 1))
    >>> family = pofx.SplineFlow(layers=1, hidden=(4,), bins=3)
    >>> model = Laplace(family, draws=4).fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.density_band([[0.0]]).values.shape
    (4, 1)
    """

    name: ClassVar[str] = "laplace"

    layers: tuple[str, ...] | None = None
    draws: int = 30
    prior: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "draws")
        check_at_least(self, 1e-12, "prior", "temperature")

    def build(self, layout: Layout) -> nn.Module:
        inner = self.family.build(layout)
        weights = Weights(inner, last_layer(inner) if self.layers is None else self.layers)
        if weights.size > LARGEST:
            raise ConfigError(
                f"Laplace: a covariance of {weights.size} weights is too large (at most {LARGEST}): name fewer layers"
            )
        return DrawsBody(inner, weights, self.draws)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        own, last = self.family.phases(layout), last_updates(self.family, layout)

        def curvature(body: Any, source: Source, training: Any) -> None:
            loss = next(update.loss for update in last.updates if _moves(update, body.weights))
            hessian = _hessian(body, loss, source, training.seed) * (float(body.size) / self.temperature)
            generator = torch.Generator().manual_seed(derive_seed(training.seed, "draws"))
            body.put(self._draw(body.weights.flat(body.inner).double(), hessian, generator))

        return (data_phase(), *(inside(phase, "inner") for phase in own), Phase("curvature", estimate=curvature))

    def _draw(self, mean: Tensor, hessian: Tensor, generator: torch.Generator) -> Tensor:
        values, vectors = torch.linalg.eigh(hessian)
        widths = (values.clamp(min=0.0) + self.prior**-2).rsqrt()
        normal = torch.randn(self.draws, len(mean), generator=generator, dtype=torch.float64).to(mean)
        return mean + (normal * widths) @ vectors.T


def _moves(update: Update, weights: Weights) -> bool:
    return any(fnmatchcase(name, pattern) for name in weights.names for pattern in update.parameters)


def _hessian(body: DrawsBody, loss: LossFunction, source: Source, seed: int, step: float = 1e-4) -> Tensor:
    """Of the mean loss in the chosen weights, ``(P, P)``, at fixed noise."""
    module = copy.deepcopy(body.inner).double().eval()
    batches = [events.map(lambda a: a.double() if a.is_floating_point() else a) for events in source.sweep()]
    centre = body.weights.flat(module)
    rows = []
    for i in range(len(centre)):
        shift = torch.zeros_like(centre)
        shift[i] = step * max(1.0, abs(float(centre[i])))
        ends = [_gradient(module, body.weights, centre + sign * shift, loss, batches, seed) for sign in (1.0, -1.0)]
        rows.append((ends[0] - ends[1]) / (2.0 * shift[i]))
    full = torch.stack(rows)
    return 0.5 * (full + full.T)


def _gradient(
    module: nn.Module, weights: Weights, at: Tensor, loss: LossFunction, batches: list[Any], seed: int
) -> Tensor:
    weights.put(at, module)
    parameters = [module.get_parameter(name) for name in weights.names]
    events = sum(len(batch) for batch in batches)
    total = torch.zeros_like(at)
    for batch in batches:
        noise = Noise(seed, batch.index, 0, torch.float64, "curvature")
        with torch.enable_grad():
            value = batch_loss(loss(module, batch, noise), batch) * (len(batch) / events)
        found = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        total += torch.cat([gradient.reshape(-1) for gradient in found])
    return total
