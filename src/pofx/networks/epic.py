r"""EPiC: points that talk through one global vector, at a cost linear in their number (arXiv:2301.08128, arXiv:2310.00049).

Each layer first renews the global vector g from the pooled points, then every point from itself and g, with residual connections:

.. math::
    g' &= a(g + G_2\, a(G_1 [\mathrm{mean}_j p_j, \mathrm{sum}_j p_j, g, c])) \\
    p'_j &= a(p_j + P_2\, a(P_1 [p_j, g', c]))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.data.spec import Kind
from pofx.errors import ConfigError
from pofx.networks.base import NetworkConfig, NetworkShape
from pofx.networks.clouds import CloudNetwork
from pofx.networks.layers import ACTIVATIONS
from pofx.networks.pooling import SUM_SCALE, Points

__all__ = ["EPiC"]


@dataclass(frozen=True)
class EPiC(NetworkConfig):
    """The default for clouds: equivariant point-cloud layers.

    Parameters
    ----------
    width : of the points' features; latent : of the global vector; layers : how many EPiC layers.
    embedding : width of the conditioning vector.
    activation : smooth by default, where the paper has ``"leaky_relu"``: along a velocity with kinks, densities take far more steps.
    weight_norm : direction and length of every weight vector as separate parameters, as in the paper's GAN (arXiv:1602.07868).

    >>> EPiC(width=128, layers=6, latent=10).layers
    6
    """

    name: ClassVar[str] = "epic"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"cloud"})

    width: int = 64
    layers: int = 3
    latent: int = 16
    embedding: int = 64
    weight_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width", "layers", "latent", "embedding")
        if self.weight_norm and self.spectral_norm:
            raise ConfigError("EPiC: choose one of weight_norm and spectral_norm")

    def _module(self, shape: NetworkShape) -> nn.Module:
        network = _EPiCNetwork(self, shape)
        if self.weight_norm:
            for layer in network.layers.modules():
                if isinstance(layer, nn.Linear):
                    register_parametrization(layer, "weight", _WeightNorm())
        return network


class _EPiCNetwork(CloudNetwork):
    """The stack of layers between an embedding of every point and the head."""

    def __init__(self, config: EPiC, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.width, config.embedding)
        self.activation = ACTIVATIONS[config.activation]
        self.first = nn.Linear(self.angles.width, config.width)
        self.start = nn.Linear(2 * config.width + 1 + self.condition.width, config.latent)
        self.layers = nn.ModuleList([_EPiCLayer(config, self.condition.width) for _ in range(config.layers)])

    def body(self, x: Tensor, points: Points, c: Tensor | None, context: Events | None) -> Tensor:
        p = self.activation(self.first(self.angles(x)))
        g = self.activation(self.start(_join(*_sums(p, points), points.count.log1p(), c)))
        for layer in self.layers:
            p, g = layer(p, g, points, c)
        return p


class _EPiCLayer(nn.Module):
    """One exchange between points ``(n, L, width)`` and the global vector ``(n, latent)``."""

    def __init__(self, config: EPiC, condition: int) -> None:
        super().__init__()
        width, latent = config.width, config.latent
        self.activation, self.dropout = ACTIVATIONS[config.activation], nn.Dropout(config.dropout)
        self.gather, self.renew = nn.Linear(2 * width + latent + condition, width), nn.Linear(width, latent)
        self.point, self.spread = nn.Linear(width, width, bias=False), nn.Linear(latent + condition, width)
        self.second = nn.Linear(width, width)

    def forward(self, p: Tensor, g: Tensor, points: Points, c: Tensor | None) -> tuple[Tensor, Tensor]:
        act = self.activation
        g = act(g + self.renew(act(self.gather(_join(*_sums(p, points), g, c)))))
        inner = self.dropout(act(self.point(p) + self.spread(_join(g, c))[:, None, :]))
        return act(p + self.second(inner)), g


class _WeightNorm(nn.Module):
    """length * direction / |direction|, row by row."""

    def forward(self, length: Tensor, direction: Tensor) -> Tensor:
        return length * direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Length and direction of a weight."""
        return torch.linalg.vector_norm(weight, dim=1, keepdim=True), weight


def _sums(p: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    total = points.total(p)
    return total / points.count.clamp(min=1.0), total * SUM_SCALE


def _join(*parts: Tensor | None) -> Tensor:
    return torch.cat([part for part in parts if part is not None], -1)
