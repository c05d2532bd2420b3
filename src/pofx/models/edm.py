r"""EDM: a denoiser with a preconditioned network over log-normal noise levels (arXiv:2206.00364).

.. math:: D(x; \sigma) = c_{skip}\, x + c_{out}\, F_\theta(c_{in}\, x, \tfrac14 \ln \sigma), \qquad
          L = E\, \lambda(\sigma) \| D(x_0 + \sigma \epsilon; \sigma) - x_0 \|^2, \quad \lambda = c_{out}^{-2}

The state of pofx is :math:`y = x_\sigma / \sqrt{1 + \sigma^2}` at :math:`t = (2/\pi) \arctan \sigma`, in which the velocity is finite from
sigma = 0 to infinity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pofx.errors import ConfigError
from pofx.models.diffusion import Diffusion, Velocity, expand
from pofx.models.diffusion_samplers import KarrasHeun
from pofx.training.noise import Noise

__all__ = ["EDM"]


@dataclass(frozen=True)
class EDM(Diffusion):
    """Vectors, grids and clouds; exact density by the probability-flow ODE.

    Parameters
    ----------
    sampler : None, the ODE in t by ``solver``; or :class:`~pofx.models.diffusion_samplers.KarrasHeun`, with or without churn.
    sigma_data : width of an event's numbers in latent coordinates.
    log_mean, log_width : of the noise levels in training, P_mean and P_std.
    sigma_min, sigma_max : noise levels that the network is asked at.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> family = EDM(network=pofx.networks.ResidualMLP(width=16, layers=1), density_solver=pofx.solvers.Heun(steps=4))
    >>> model = family.fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "edm"

    sampler: KarrasHeun | None = None
    sigma_data: float = 1.0
    log_mean: float = -1.2
    log_width: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.sigma_data > 0 and self.log_width > 0 and 0 < self.sigma_min < self.sigma_max):
            raise ConfigError("EDM: expected sigma_data > 0, log_width > 0 and 0 < sigma_min < sigma_max")

    @property
    def bounds(self) -> tuple[float, float]:
        return math.atan(self.sigma_min), math.atan(self.sigma_max)

    def draw_angles(self, noise: Noise) -> Tensor:
        return (self.log_mean + self.log_width * noise.normal("sigma", 1)[:, 0]).exp().atan()

    def weight(self, angle: Tensor) -> Tensor:
        """lambda(sigma) of the denoiser's error, for that of v: D - x0 is sin(angle) times the error of v."""
        return self._square(angle) / self.sigma_data**2

    def inner(self, angle: Tensor, y: Tensor, ask: Velocity) -> Tensor:
        square = self._square(angle)
        skip = angle.sin() * angle.cos() * (1.0 - self.sigma_data**2) / square
        answer = ask(0.25 * angle.tan().log(), y / expand(square.sqrt(), y))
        return expand(skip, y) * y - expand(self.sigma_data / square.sqrt(), y) * answer

    def _square(self, angle: Tensor) -> Tensor:
        """The mean square of y where events have the width sigma_data."""
        return angle.sin().square() + self.sigma_data**2 * angle.cos().square()
