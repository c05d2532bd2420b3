r"""DDPM: a chain of small Gaussian steps, undone by a network that predicts the noise (arXiv:2006.11239).

.. math:: x_k = \sqrt{\bar\alpha_k}\, x_0 + \sqrt{1 - \bar\alpha_k}\, \epsilon, \qquad L = E\, \| \epsilon_\theta(x_k, k, c) - \epsilon \|^2

The angle of step k is :math:`\arccos \sqrt{\bar\alpha_k}`; the network is told its log signal-to-noise ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from pofx.config import check_choice
from pofx.errors import ConfigError
from pofx.models.diffusion import LAST_ANGLE, NoisePrediction
from pofx.models.diffusion_samplers import Ancestral
from pofx.solvers.base import check_count
from pofx.training.noise import Noise

__all__ = ["DDPM", "chain_angles"]


@lru_cache
def chain_angles(timesteps: int, schedule: str) -> Tensor:
    """Angles of steps 1 to ``timesteps``, float64, not falling: linear beta (scaled to 1000 steps), or cosine (arXiv:2102.09672).

    They end at :data:`~pofx.models.diffusion.LAST_ANGLE`, where the last steps of the cosine, and of short chains, stand still.

    >>> [round(float(a), 4) for a in chain_angles(1000, "linear")[[0, -1]]]
    [0.01, 1.5644]
    """
    if schedule == "linear":
        scale = 1000.0 / timesteps
        beta = torch.linspace(1e-4 * scale, 0.02 * scale, timesteps, dtype=torch.float64)
    else:
        k = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        level = ((k + 0.008) / 1.008 * math.pi / 2).cos().square()
        beta = 1.0 - level[1:] / level[:-1]
    log_kept = torch.log1p(-beta.clamp(max=0.999)).cumsum(0)
    return torch.atan2((-torch.expm1(log_kept)).sqrt(), (0.5 * log_kept).exp()).clamp(max=LAST_ANGLE)


@dataclass(frozen=True)
class DDPM(NoisePrediction):
    """Vectors, grids and clouds; exact density by the probability-flow ODE.

    Parameters
    ----------
    timesteps : of the chain in training; schedule : ``"linear"`` or ``"cosine"``.
    sampler : None, the ODE by ``solver``; or :class:`~pofx.models.diffusion_samplers.Ancestral`, with eta = 1 the paper's chain.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> family = DDPM(network=pofx.networks.ResidualMLP(width=16, layers=1), density_solver=pofx.solvers.Heun(steps=4))
    >>> model = family.fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "ddpm"

    timesteps: int = 1000
    schedule: str = "linear"
    sampler: Ancestral | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "timesteps", least=50)
        check_choice(self, "schedule", ("linear", "cosine"))
        if self.sampler is not None and self.sampler.steps > self.timesteps:
            raise ConfigError(f"DDPM: a chain of {self.timesteps} steps cannot be sampled in {self.sampler.steps}")

    @property
    def bounds(self) -> tuple[float, float]:
        angles = chain_angles(self.timesteps, self.schedule)
        return float(angles[0]), float(angles[-1])

    def chain(self, steps: int) -> Tensor:
        """Angles of ``steps`` of the chain's steps, evenly spread, the last one included."""
        angles = chain_angles(self.timesteps, self.schedule)
        return angles[(torch.arange(1, steps + 1, dtype=torch.float64) * self.timesteps / steps).round().long() - 1]

    def draw_angles(self, noise: Noise) -> Tensor:
        u = noise.uniform("step", 1)[:, 0]
        angles = chain_angles(self.timesteps, self.schedule).to(u)
        return angles[(u.double() * self.timesteps).long().clamp(max=self.timesteps - 1)]
