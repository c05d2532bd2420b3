"""What several draws of the weights say about one quantity: its mean, its spread, and intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pofx.errors import ConfigError

__all__ = ["Band"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Band:
    """K values of a quantity, one per draw.

    Attributes
    ----------
    values : ``(K, ...)``.
    floor : the spread that the values would have if all draws were the same (from finite samples), of the shape of the mean; None where
        the quantity is computed without sampling.
    edges : of the bins, for histograms.

    >>> band = Band(np.array([[1.0, 2.0], [3.0, 2.0]]))
    >>> band.mean.tolist(), band.error.round(3).tolist()
    ([2.0, 2.0], [1.414, 0.0])
    """

    values: Array
    floor: Array | None = None
    edges: Array | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> Array:
        """Over the draws."""
        found: Array = self.values.mean(0)
        return found

    @property
    def error(self) -> Array:
        """Standard deviation over the draws, the uncertainty of the quantity; its own relative error is about 1/sqrt(2 (K - 1))."""
        if len(self.values) < 2:
            raise ConfigError("a band needs at least two draws of the weights; there is one")
        found: Array = self.values.std(0, ddof=1)
        return found

    @property
    def relative(self) -> Array:
        """Error over mean."""
        found: Array = self.error / np.abs(self.mean)
        return found

    def interval(self, level: float = 0.68) -> tuple[Array, Array]:
        """Central interval that holds this fraction of the draws: low and high."""
        if not 0 < level < 1:
            raise ConfigError(f"Band.interval: level must be between 0 and 1; got {level!r}")
        low, high = np.quantile(self.values, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        return low, high
