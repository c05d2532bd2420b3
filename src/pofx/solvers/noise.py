"""What SDE samplers draw from: noise keyed by event and step, or noise given as tensors.

:class:`pofx.training.noise.Noise` is such a source; this layer only says what it needs of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pofx.errors import ShapeError

__all__ = ["GivenNoise", "NoiseSource"]


class NoiseSource(Protocol):
    """Random numbers for the n events of a batch: the same numbers for the same event, step and name."""

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal, ``(n, *shape)``."""

    def at(self, step: int) -> NoiseSource:
        """The noise of a step."""


@dataclass(frozen=True)
class GivenNoise:
    """Normal noise as an input: name to ``(n, steps, *shape)``, what a sampler's ``noise_shapes`` asks for.

    >>> import torch
    >>> GivenNoise({"predictor": torch.zeros(5, 10, 2)}).at(3).normal("predictor", 2).shape
    torch.Size([5, 2])
    """

    values: Mapping[str, Tensor]
    step: int = 0

    def normal(self, name: str, *shape: int) -> Tensor:
        """The numbers of this step, ``(n, *shape)``."""
        if name not in self.values:
            raise ShapeError(f"expected noise called {name!r}; got {', '.join(self.values) or 'none'}")
        value = self.values[name]
        if value.shape[2:] != shape or self.step >= value.shape[1]:
            wanted = ", ".join(map(str, shape))
            raise ShapeError(
                f"expected noise {name!r} of shape (n, more than {self.step} steps, {wanted}); got {tuple(value.shape)}"
            )
        return value[:, self.step]

    def at(self, step: int) -> GivenNoise:
        """The noise of a step."""
        return GivenNoise(self.values, step)
