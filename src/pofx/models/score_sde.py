r"""Score matching for stochastic differential equations (arXiv:2011.13456).

.. math:: dx = f(s)\, x\, ds + g(s)\, dW, \qquad x_s = \alpha(s)\, x_0 + \sigma(s)\, \epsilon, \qquad
          L = E\, \| \sigma(s)\, s_\theta(x_s, s) + \epsilon \|^2

with :math:`s \in (0, 1)` the paper's own time: ``"vp"`` :math:`\alpha = e^{-B/2}, \sigma^2 = 1 - e^{-B}, B = \int \beta`;
``"sub-vp"`` the same with :math:`\sigma = 1 - e^{-B}`; ``"ve"`` :math:`\alpha = 1`, sigma geometric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pofx.config import check_choice
from pofx.errors import ConfigError
from pofx.models.diffusion import LAST_ANGLE, NoisePrediction, Velocity, expand
from pofx.solvers import EulerMaruyama, GivenNoise, PredictorCorrector, ScoreProcess
from pofx.solvers.base import Rows
from pofx.training.noise import Noise

__all__ = ["ReverseSDE", "ScoreSDE"]


@dataclass(frozen=True)
class ReverseSDE:
    """The reverse-time SDE over the paper's time, then the denoised event.

    Parameters
    ----------
    solver : :class:`~pofx.solvers.EulerMaruyama` or :class:`~pofx.solvers.PredictorCorrector` with its steps.
    """

    solver: EulerMaruyama | PredictorCorrector = field(default_factory=lambda: EulerMaruyama(steps=200))

    def noise_shapes(self, *shape: int) -> dict[str, tuple[int, ...]]:
        """Of the noise of every step."""
        return self.solver.noise_shapes(*shape)

    def sample(self, family: Any, v: Velocity, z: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """From s = 1 to the family's smallest time."""
        process, last = family.process(v), family.smallest
        one = z.new_ones(len(z), dtype=torch.float64)
        mean, spread = family.kernel(one)
        start = z * expand((mean**2 + spread**2).sqrt().to(z.dtype), z)
        source, rows = GivenNoise(noise), slice(None)
        grid = family.sde_grid(self.solver.steps)
        if isinstance(self.solver, PredictorCorrector):
            x = self.solver.solve(process, start, 1.0, last, noise=source, grid=grid).x
        else:
            x = self.solver.solve(process.reverse_drift, process.diffusion, start, 1.0, last, noise=source, grid=grid).x
        end = z.new_full((len(z),), last)
        mean, spread = family.kernel(end)
        return (x + expand(spread**2, x) * process.score(end, x, rows)) / expand(mean, x)


@dataclass(frozen=True)
class ScoreSDE(NoisePrediction):
    """Vectors, grids and clouds; exact density by the probability-flow ODE.

    Parameters
    ----------
    sde : ``"vp"``, ``"sub-vp"`` or ``"ve"``.
    sampler : None, the probability-flow ODE by ``solver``; or :class:`ReverseSDE`.
    beta_min, beta_max : of vp and sub-vp; sigma_min, sigma_max : of ve, in latent coordinates.
    smallest : time s at which training and SDE samplers end.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> small = pofx.networks.ResidualMLP(width=16, layers=1)
    >>> family = ScoreSDE(sde="ve", network=small, density_solver=pofx.solvers.Heun(steps=4))
    >>> model = family.fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "score-sde"

    sde: str = "vp"
    sampler: ReverseSDE | None = None
    beta_min: float = 0.1
    beta_max: float = 20.0
    sigma_min: float = 0.01
    sigma_max: float = 100.0
    smallest: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "sde", ("vp", "sub-vp", "ve"))
        if not (0 < self.beta_min <= self.beta_max and 0 < self.sigma_min < self.sigma_max and 0 < self.smallest < 0.5):
            raise ConfigError(
                "ScoreSDE: expected 0 < beta_min <= beta_max, 0 < sigma_min < sigma_max and 0 < smallest < 0.5"
            )

    def kernel(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of the perturbation kernel at times s."""
        if self.sde == "ve":
            return torch.ones_like(s), self.sigma_min * (self.sigma_max / self.sigma_min) ** s
        total = self.beta_min * s + 0.5 * (self.beta_max - self.beta_min) * s**2
        variance = -torch.expm1(-total)
        return (-0.5 * total).exp(), variance if self.sde == "sub-vp" else variance.sqrt()

    def angle(self, s: Tensor) -> Tensor:
        """The angle that training has at times s, at most :data:`~pofx.models.diffusion.LAST_ANGLE`."""
        mean, spread = self.kernel(s)
        return torch.atan2(spread, mean).clamp(max=LAST_ANGLE)

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = self.angle(torch.tensor([self.smallest, 1.0], dtype=torch.float64)).tolist()
        return low, high

    def draw_angles(self, noise: Noise) -> Tensor:
        u = noise.uniform("s", 1)[:, 0]
        return self.angle(self.smallest + (1.0 - self.smallest) * u)

    def sde_grid(self, steps: int) -> Tensor:
        """Times of an SDE sampler's steps: even, as in the paper."""
        return torch.linspace(1.0, self.smallest, steps + 1, dtype=torch.float64)

    def process(self, v: Velocity) -> ScoreProcess:
        """The SDE in the paper's own state and time, with the model's score."""

        def score(s: Tensor, x: Tensor, _rows: Rows) -> Tensor:
            mean, spread = self.kernel(s)
            angle = torch.atan2(spread, mean)
            y = x / expand((mean**2 + spread**2).sqrt(), x)
            e = expand(angle.sin(), x) * y + expand(angle.cos(), x) * v(angle, y)
            return -e / expand(spread, x)

        return ScoreProcess(self._drift, self._diffusion, score, lambda s: self.kernel(s)[1])

    def _drift(self, s: Tensor, x: Tensor, rows: Rows) -> Tensor:
        return torch.zeros_like(x) if self.sde == "ve" else -0.5 * expand(self._beta(s), x) * x

    def _diffusion(self, s: Tensor, x: Tensor, rows: Rows) -> Tensor:
        if self.sde == "ve":
            return self.kernel(s)[1] * math.sqrt(2.0 * math.log(self.sigma_max / self.sigma_min))
        if self.sde == "vp":
            return self._beta(s).sqrt()
        total = self.beta_min * s + 0.5 * (self.beta_max - self.beta_min) * s**2
        return (-self._beta(s) * torch.expm1(-2.0 * total)).sqrt()

    def _beta(self, s: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * s
