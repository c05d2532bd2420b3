r"""A cloud to one vector: sums over real points, which do not change with the order of points or with padding.

With m_j = 1 for real points and 0 for padding, the pooled vector holds the mean :math:`\sum_j m_j h_j / \max(N, 1)`, a sum
:math:`s\sum_j m_j h_j`, means weighted by a softmax of learnt scores, and log(1 + N) (arXiv:1703.06114, arXiv:2301.08128).
An empty cloud gives zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pofx.errors import ShapeError
from pofx.networks.layers import ACTIVATIONS, Angles

__all__ = ["SUM_SCALE", "CloudEncoder", "Points", "Pool"]

SUM_SCALE = 0.01
"""Factor of sums over points, so that a hundred points give numbers of order one."""


@dataclass(frozen=True)
class Points:
    """Which points of a cloud are real.

    ``mask`` of shape ``(n, L)`` (None: all), ``real`` the same as numbers ``(n, L, 1)``, ``count`` of shape ``(n, 1)``.
    """

    mask: Tensor | None
    real: Tensor | None
    count: Tensor

    @staticmethod
    def of(x: Tensor, mask: Tensor | None) -> Points:
        """For a cloud x of shape ``(n, L, F)``; ShapeError for a mask of another shape."""
        if mask is None:
            return Points(None, None, x.new_full((x.shape[0], 1), float(x.shape[1])))
        if mask.shape != x.shape[:2]:
            raise ShapeError(f"expected a mask of shape {tuple(x.shape[:2])}; got {tuple(mask.shape)}")
        real = mask.to(x.dtype)[..., None]
        return Points(mask, real, real.sum(1))

    def hide(self, h: Tensor) -> Tensor:
        """h with zeros at padding, whatever it held."""
        return h if self.mask is None else torch.where(self.mask[..., None], h, 0.0)

    def total(self, h: Tensor) -> Tensor:
        """Sum over real points, ``(n, L, width)`` to ``(n, width)``."""
        return (h if self.real is None else h * self.real).sum(1)

    def scores(self, logits: Tensor) -> Tensor:
        """Softmax of ``(n, L, heads)`` over the real points; zero at padding, and everywhere for an empty cloud."""
        if self.mask is None or self.real is None:
            return logits.softmax(1)
        return logits.masked_fill(~self.mask[..., None], _lowest(logits)).softmax(1) * self.real

    def bias(self) -> Tensor | None:
        """What to add to attention logits ``(n, heads, queries, L)`` so that padding is not seen; None where all points are real."""
        if self.real is None:
            return None
        return ((1.0 - self.real) * _lowest(self.real)).transpose(1, 2)[:, None]

    def some(self) -> Tensor:
        """1 for events with a real point, 0 for empty clouds, ``(n, 1, 1)``."""
        return self.count.clamp(max=1.0)[..., None]


def _lowest(like: Tensor) -> float:
    """A finite number whose exponential is zero; finite, so that an empty cloud gives no NaN."""
    return 0.5 * torch.finfo(like.dtype).min


class Pool(nn.Module):
    """Mean, scaled sum, attention-weighted means and log(1 + N) of a cloud: ``(n, L, width)`` to ``(n, self.width)``."""

    def __init__(self, width: int, heads: int = 0) -> None:
        super().__init__()
        self.width = (2 + heads) * width + 1
        self.attention = nn.Linear(width, heads, bias=False) if heads else None

    def forward(self, h: Tensor, points: Points) -> Tensor:
        total = points.total(h)
        parts = [total / points.count.clamp(min=1.0), total * SUM_SCALE, points.count.log1p()]
        if self.attention is not None:
            weights = points.scores(self.attention(h))
            parts.append(torch.matmul(weights.transpose(1, 2), h).flatten(1))
        return torch.cat(parts, -1)


class CloudEncoder(nn.Module):
    """A cloud ``(n, L, features)`` to a vector ``(n, width)``: rho(pool(phi(x_j))), DeepSets with attention pooling.

    Parameters
    ----------
    features : columns of a point; circular : those that are angles.
    width : of the result and of the hidden layers; heads : attention-weighted means beside mean and sum.
    """

    def __init__(
        self, features: int, width: int, circular: Sequence[int] = (), *, heads: int = 2, activation: str = "silu"
    ) -> None:
        super().__init__()
        self.angles, self.activation = Angles(features, circular), ACTIVATIONS[activation]
        self.first, self.second = nn.Linear(self.angles.width, width), nn.Linear(width, width)
        self.pool = Pool(width, heads)
        self.last = nn.Linear(self.pool.width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask`` of shape ``(n, L)``, True = real."""
        points = Points.of(x, mask)
        h = self.activation(self.second(self.activation(self.first(self.angles(points.hide(x))))))
        return self.last(self.pool(h, points))
