"""What all networks of clouds share: padding is cleared on the way in and out, and the result is a cloud or, pooled, a vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pofx.data.events import Events
from pofx.networks.base import FieldNetwork, NetworkConfig, NetworkShape
from pofx.networks.layers import Dense, zeroed
from pofx.networks.pooling import Points, Pool

__all__ = ["CloudNetwork"]


class CloudNetwork(FieldNetwork, ABC):
    """``body`` turns points into features of ``width`` numbers; the head turns these into a cloud or a vector.

    Parameters
    ----------
    shape, config : what the network is for and its settings.
    width : of the features that ``body`` returns.
    embedding : width of the conditioning vector.
    heads : attention-weighted means that a pooled result sees beside mean and sum.
    """

    def __init__(
        self, shape: NetworkShape, config: NetworkConfig, width: int, embedding: int, *, heads: int = 0
    ) -> None:
        super().__init__(shape, config, embedding)
        self.pool = None if shape.outputs is None else Pool(width, heads)
        self.last: nn.Module = (
            zeroed(nn.Linear(width, shape.result), config.starts_at_zero(shape))
            if self.pool is None
            else Dense((self.pool.width, 2 * width, shape.result), config.activation, config.dropout)
        )

    @abstractmethod
    def body(self, x: Tensor, points: Points, c: Tensor | None, context: Events | None) -> Tensor:
        """Features ``(n, L, width)`` of the points x, whose padding is zero; what they hold at padding does not matter."""

    def forward(
        self, x: Tensor, t: Tensor | None = None, context: Events | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``(n, L, F)`` to a cloud ``(n, L, columns)`` or a vector ``(n, outputs)``."""
        self.check(x)
        points = Points.of(x, mask)
        h = self.body(points.hide(x), points, self.condition(x, t, context), context)
        return points.hide(self.last(h)) if self.pool is None else self.last(self.pool(h, points))
