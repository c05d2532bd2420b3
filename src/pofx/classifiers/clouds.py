"""A classifier of clouds of points, to which their order means nothing and their number something.

A cloud is a row as everywhere among classifiers: its points one after the other, then its mask as ones and zeros. Whatever is in padded
points is never seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pofx.classifiers.base import Floats, Labelled, centre_scale
from pofx.classifiers.network import TrainedClassifier
from pofx.config import check_at_least
from pofx.data.spec import Column, Field
from pofx.errors import ShapeError
from pofx.networks.base import NetworkConfig, NetworkShape
from pofx.networks.sets import DeepSets

__all__ = ["CloudClassifier", "cloud_rows"]


def cloud_rows(x: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Clouds ``(n, L, F)`` with masks ``(n, L)`` as rows ``(n, L (F + 1))``; padding becomes zero.

    >>> cloud_rows(np.array([[[1.0, 2.0], [9.0, 9.0]]]), np.array([[True, False]])).tolist()
    [[1.0, 2.0, 0.0, 0.0, 1.0, 0.0]]
    """
    real = np.where(mask[..., None], x, 0.0)
    return np.concatenate([real.reshape(len(x), -1), mask.astype(np.float64)], axis=1)


@dataclass(frozen=True, kw_only=True)
class CloudClassifier(TrainedClassifier):
    """A permutation-invariant network of points, on rows of :func:`cloud_rows`.

    Parameters
    ----------
    features : numbers per point; :func:`pofx.c2st` sets it.
    network : of clouds: :class:`~pofx.networks.DeepSets`, EPiC, a set transformer, message passing.

    The other settings are those of :class:`~pofx.classifiers.network.TrainedClassifier`.

    >>> rng = np.random.default_rng(1)
    >>> x, mask = rng.normal(size=(200, 4, 1)), np.arange(4) < np.repeat([2, 4], 100)[:, None]
    >>> made = CloudClassifier(epochs=5, network=DeepSets(width=8, layers=1))
    >>> scores = made.fit(cloud_rows(x, mask), np.repeat([0, 1], 100), seed=1).logit(cloud_rows(x, mask))
    >>> bool(scores[:100].mean() < scores[100:].mean())
    True
    """

    features: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    network: NetworkConfig = field(default_factory=lambda: DeepSets(width=64, layers=3))

    def __post_init__(self) -> None:
        check_at_least(self, 1, "features")
        super().__post_init__()

    def body(self, inputs: int) -> nn.Module:
        return _CloudBody(self.network, self._points(inputs), self.features)

    def centre_scale(self, events: Labelled) -> tuple[Floats, Floats]:
        """Mean and spread of every feature over real points; the mask stays as it is."""
        n, points = len(events.x), self._points(events.x.shape[1])
        clouds, mask = events.x[:, :-points].reshape(n, points, -1), events.x[:, -points:]
        weight = mask * events.weight[:, None]
        if not weight.sum() > 0:
            return np.zeros(events.x.shape[1]), np.ones(events.x.shape[1])
        real = weight > 0
        centre, scale = centre_scale(clouds[real], weight[real])
        return _for_rows(centre, points, 0.0), _for_rows(scale, points, 1.0)

    def _points(self, inputs: int) -> int:
        if inputs % (self.features + 1):
            raise ShapeError(
                f"expected rows of L * {self.features + 1} numbers (points, then their mask); got {inputs}"
            )
        return inputs // (self.features + 1)


def _for_rows(feature: Floats, points: int, mask: float) -> Floats:
    """A number for every entry of a row, given those of the features and of the mask."""
    return np.concatenate([np.tile(feature, points), np.full(points, mask)])


class _CloudBody(nn.Module):
    """Rows to clouds to one number, ``(n,)``."""

    def __init__(self, network: NetworkConfig, points: int, features: int) -> None:
        super().__init__()
        self.points, self.features = points, features
        columns = tuple(Column(f"x{i}") for i in range(features))
        self.network = network.build(NetworkShape(Field("cloud", (points, features), columns), outputs=1))

    def forward(self, rows: Tensor) -> Tensor:
        mask = rows[:, -self.points :] > 0.5
        x = rows[:, : -self.points].reshape(-1, self.points, self.features)
        found: Tensor = self.network(torch.where(mask[..., None], x, 0.0), mask=mask)
        return found.squeeze(1)
