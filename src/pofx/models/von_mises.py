r"""The von Mises distribution as noise on a circle: density, and the map from standard normal noise to an angle and back.

.. math:: p(\delta) = \frac{e^{\kappa (\cos\delta - 1)}}{2\pi\, e^{-\kappa} I_0(\kappa)}, \qquad
          \mathrm{erf}(\epsilon / \sqrt 2) = \frac{1}{\pi\, e^{-\kappa} I_0(\kappa)} \int_0^{\delta} e^{\kappa (\cos t - 1)}\, dt

with the concentration :math:`\kappa = 1/\sigma^2`: a narrow peak is a normal one of width sigma, and a wide one is uniform. The map is
monotone; bisection and a last Newton step, which carries the gradients, invert it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["von_mises_angle", "von_mises_log_prob", "von_mises_normal", "von_mises_share"]

NODES = 32
"""Of the Gauss-Legendre rule for the distribution function."""

BISECTIONS = 31
NEGLIGIBLE = 40.0
"""The density is not integrated where it is exp(-40) of its peak."""


def von_mises_log_prob(delta: Tensor, log_scale: Tensor) -> Tensor:
    """log p of the angle delta from the mean, element by element, with sigma = exp(log_scale).

    >>> torch.round(von_mises_log_prob(torch.zeros(1), torch.tensor([9.0])) + math.log(2 * math.pi), decimals=4)
    tensor([0.])
    """
    concentration = torch.exp(-2.0 * log_scale)
    return _exponent(delta, concentration) - math.log(2.0 * math.pi) - torch.special.i0e(concentration).log()


def von_mises_angle(e: Tensor, log_scale: Tensor) -> Tensor:
    """The angle in [-pi, pi] that standard normal noise e stands for; increasing in e, and differentiable in both arguments.

    >>> von_mises_angle(torch.tensor([-1.0, 0.0, 1.0]), torch.full((3,), -5.0)) / math.exp(-5.0)
    tensor([-1.0000,  0.0000,  1.0000])
    """
    noise, concentration = e.double(), torch.exp(-2.0 * log_scale.double())
    wanted = torch.special.erf(noise / math.sqrt(2.0))
    with torch.no_grad():
        high = _reach(concentration).expand_as(wanted)
        low = -high
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            below = von_mises_share(middle, concentration) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        start = 0.5 * (low + high)
        slope = _exponent(start, concentration).exp() / (math.pi * torch.special.i0e(concentration))
    found = start - (von_mises_share(start, concentration) - wanted) / slope.clamp(min=1e-30)
    return found.clamp(-math.pi, math.pi).to(e.dtype)


def von_mises_normal(delta: Tensor, log_scale: Tensor) -> Tensor:
    """The inverse of :func:`von_mises_angle`."""
    share = von_mises_share(delta.double(), torch.exp(-2.0 * log_scale.double()))
    return (math.sqrt(2.0) * torch.special.erfinv(share.clamp(-1.0 + 1e-15, 1.0 - 1e-15))).to(delta.dtype)


def _exponent(delta: Tensor, concentration: Tensor) -> Tensor:
    """kappa (cos(delta) - 1), without cancellation."""
    return -2.0 * concentration * torch.sin(0.5 * delta).square()


def _reach(concentration: Tensor) -> Tensor:
    """The angle beyond which the density is negligible."""
    return 2.0 * torch.asin((0.5 * NEGLIGIBLE / concentration).clamp(max=1.0).sqrt())


def von_mises_share(delta: Tensor, concentration: Tensor) -> Tensor:
    """The probability of an angle between -delta and delta, with the sign of delta, which is in [-pi, pi]."""
    nodes, weights = (torch.from_numpy(a).to(delta) for a in np.polynomial.legendre.leggauss(NODES))
    reach = _reach(concentration.detach())
    half = 0.5 * torch.minimum(torch.maximum(delta, -reach), reach)
    heights = _exponent(half[..., None] * (1.0 + nodes), concentration[..., None]).exp()
    return half * (heights * weights).sum(-1) / (math.pi * torch.special.i0e(concentration))
