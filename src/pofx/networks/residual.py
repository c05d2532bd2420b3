r"""Residual multilayer perceptron: the network for vectors, and for small grids taken as vectors.

.. math:: h \leftarrow h + W_2\, a(\mathrm{film}(W_1\, a(h), c))

with the condition c of time and context as scale and shift inside every block (arXiv:1603.05027, arXiv:1709.07871).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.data.spec import Kind
from pofx.networks.base import FieldNetwork, NetworkConfig, NetworkShape
from pofx.networks.layers import ACTIVATIONS, Film, Waves, zeroed

__all__ = ["ResidualMLP"]


@dataclass(frozen=True)
class ResidualMLP(NetworkConfig):
    """The default for vectors.

    Parameters
    ----------
    width : of the hidden layers; layers : residual blocks, of two linear maps each.
    embedding : width of the conditioning vector.
    norm : a layer norm at the start of every block.
    waves : how many waves of random direction enter beside the input, as sine and cosine; few columns with fine structure, which a plain
        network learns slowly, need them (arXiv:2006.10739). fastest : standard deviation of their wave numbers, in latent units.

    >>> ResidualMLP(width=1024, layers=8).name
    'residual-mlp'
    """

    name: ClassVar[str] = "residual-mlp"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"vector", "grid"})

    width: int = 256
    layers: int = 3
    embedding: int = 64
    norm: bool = False
    waves: int = 0
    fastest: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width", "layers", "embedding")
        check_at_least(self, 0, "waves")
        check_at_least(self, 1e-3, "fastest")

    def _module(self, shape: NetworkShape) -> nn.Module:
        return _ResidualNetwork(self, shape)


class _ResidualNetwork(FieldNetwork):
    """Flatten, a linear map, residual blocks, a linear map, and the shape of the result."""

    def __init__(self, config: ResidualMLP, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.embedding)
        cells = shape.field.shape[1:]
        self.result = (shape.result, *cells) if shape.outputs is None else (shape.result,)
        inputs = self.angles.width * math.prod(cells)
        self.waves = Waves(inputs, config.waves, scale=config.fastest) if config.waves else nn.Identity()
        self.first = nn.Linear(inputs + 2 * config.waves, config.width)
        self.blocks = nn.ModuleList([_Block(config, self.condition.width) for _ in range(config.layers)])
        self.activation = ACTIVATIONS[config.activation]
        self.last = zeroed(nn.Linear(config.width, math.prod(self.result)), config.starts_at_zero(shape))

    def forward(
        self, x: Tensor, t: Tensor | None = None, context: Events | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``(n, d)`` or ``(n, channels, *cells)`` to the same with the result's columns, or to ``(n, outputs)``."""
        self.check(x)
        c = self.condition(x, t, context)
        h = self.first(self.waves(self.angles(x).flatten(1)))
        for block in self.blocks:
            h = block(h, c)
        out = self.last(self.activation(h))
        return out.unflatten(1, self.result) if len(self.result) > 1 else out


class _Block(nn.Module):
    """h + W2 a(film(W1 a(h), c))."""

    def __init__(self, config: ResidualMLP, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width) if config.norm else None
        self.activation, self.dropout = ACTIVATIONS[config.activation], nn.Dropout(config.dropout)
        self.first, self.second = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        self.film = Film(condition, config.width) if condition else None

    def forward(self, h: Tensor, c: Tensor | None) -> Tensor:
        inner = self.first(self.activation(h if self.norm is None else self.norm(h)))
        inner = inner if self.film is None or c is None else self.film(inner, c)
        return h + self.second(self.dropout(self.activation(inner)))
