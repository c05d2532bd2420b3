r"""Samplers of diffusion models in the scaled state y of :mod:`pofx.models.diffusion`; all their noise is an input.

A sampler has ``noise_shapes(*shape)``, and ``sample(family, v, z, noise)`` that turns standard normal z into events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pofx.config import check_at_least, check_choice
from pofx.models.diffusion import Velocity, expand
from pofx.solvers.base import check_count

__all__ = ["Ancestral", "KarrasHeun", "karras_sigmas"]


@dataclass(frozen=True)
class Ancestral:
    r"""The ancestral chain of DDPM (``eta=1``) and DDIM (``eta=0``), arXiv:2010.02502, equation 12.

    Parameters
    ----------
    steps : of the chain, evenly spread over those of training.
    eta : share of the ancestral chain's noise.
    variance : of a step's noise with eta = 1, arXiv:2006.11239, section 3.2: ``"large"``, :math:`\beta`, right for normal events of width
        one; or ``"small"``, :math:`\tilde\beta`, right for events that are all the same, which makes samples too narrow. The paper's code
        has the large one for CIFAR10 and the small one for 256 x 256 images.

    >>> Ancestral(steps=10).noise_shapes(2)
    {'ancestral': (10, 2)}
    """

    steps: int = 100
    eta: float = 1.0
    variance: str = "large"

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_at_least(self, 0.0, "eta")
        check_choice(self, "variance", ("large", "small"))

    def noise_shapes(self, *shape: int) -> dict[str, tuple[int, ...]]:
        """Of the noise of every step."""
        return {"ancestral": (self.steps, *shape)}

    def sample(self, family: Any, v: Velocity, z: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Down the angles of the family's chain; the last step is the denoised event."""
        angles = torch.cat((family.chain(self.steps).flip(0), torch.zeros(1, dtype=torch.float64)))
        y = z
        for k, (now, then) in enumerate(pairwise(angles.tolist())):
            slope = v(y.new_full((len(y),), now), y)
            event, e = math.cos(now) * y - math.sin(now) * slope, math.sin(now) * y + math.cos(now) * slope
            ratio = (math.cos(now) / math.cos(then)) ** 2
            spread = min(self.eta * math.sin(then) / math.sin(now) * math.sqrt(max(1.0 - ratio, 0.0)), math.sin(then))
            rest = math.sqrt(max(math.sin(then) ** 2 - spread**2, 0.0))
            if self.variance == "large" and then > 0.0:
                spread = self.eta * math.sqrt(max(1.0 - ratio, 0.0))
            y = math.cos(then) * event + rest * e + spread * noise["ancestral"][:, k]
        return y


def karras_sigmas(steps: int, low: float, high: float, rho: float) -> Tensor:
    """Noise levels from high to low, then zero, ``(steps + 1,)`` float64 (arXiv:2206.00364, equation 5).

    >>> karras_sigmas(3, 1.0, 4.0, 1.0).tolist()
    [4.0, 2.5, 1.0, 0.0]
    """
    share = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
    sigmas = (high ** (1 / rho) + share * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat((sigmas, sigmas.new_zeros(1)))


@dataclass(frozen=True)
class KarrasHeun:
    """Heun's method over noise levels, with churn: noise added before each step and taken away by it (arXiv:2206.00364, algorithm 2).

    Parameters
    ----------
    steps : noise levels; 2 steps - 1 evaluations.
    churn : S_churn; 0 is deterministic. low, high : S_min, S_max, between which noise is added. inflation : S_noise.
    rho : spacing of the noise levels.
    """

    steps: int = 18
    churn: float = 0.0
    low: float = 0.05
    high: float = 50.0
    inflation: float = 1.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_count(self, "steps", least=2)
        check_at_least(self, 0.0, "churn", "low", "high", "inflation")
        check_at_least(self, 1.0, "rho")

    def noise_shapes(self, *shape: int) -> dict[str, tuple[int, ...]]:
        """Of the noise that churns; none without."""
        return {"churn": (self.steps, *shape)} if self.churn else {}

    def sample(self, family: Any, v: Velocity, z: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """In the unscaled state x = y sqrt(1 + sigma^2), as in the paper; dx/dsigma is the predicted noise."""
        low, high = (math.tan(angle) for angle in family.bounds)
        sigmas = karras_sigmas(self.steps, low, high, self.rho).tolist()
        x = z * math.sqrt(1.0 + sigmas[0] ** 2)
        for k, (level, then) in enumerate(pairwise(sigmas)):
            now = level
            if self.churn and self.low <= now <= self.high:
                raised = now * (1.0 + min(self.churn / self.steps, math.sqrt(2.0) - 1.0))
                x = x + math.sqrt(raised**2 - now**2) * self.inflation * noise["churn"][:, k]
                now = raised
            slope = _noise(v, x, now)
            end = x + (then - now) * slope
            x = end if then == 0.0 else x + 0.5 * (then - now) * (slope + _noise(v, end, then))
        return x


def _noise(v: Velocity, x: Tensor, sigma: float) -> Tensor:
    """The predicted noise (x - denoised) / sigma."""
    angle = x.new_full((len(x),), math.atan(sigma))
    y = x / math.sqrt(1.0 + sigma**2)
    return expand(angle.sin(), x) * y + expand(angle.cos(), x) * v(angle, y)
