"""What a toy of a task is: fields with declarations, often a context, a sample for a seed, and a truth in closed form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pofx.data.events import Events
from pofx.data.spec import EventSpec
from pofx.errors import ShapeError

__all__ = ["Array", "Toy", "log_beta", "log_normal", "log_truncated", "rows_of", "truncated"]

Array = NDArray[np.float64]
LOG_ROOT_TAU = 0.5 * math.log(math.tau)


class Toy(ABC):
    """Simulated events of a task; each toy has its truth as methods of its own."""

    @abstractmethod
    def spec(self) -> EventSpec:
        """The fields of an event."""

    def context_spec(self) -> EventSpec | None:
        """The fields of its context; None without one."""
        return None

    @abstractmethod
    def sample(self, n: int, seed: int) -> Events:
        """n events; the same seed gives the same events."""


def rows_of(values: ArrayLike, width: int, what: str) -> Array:
    """``values`` as ``(n, width)``; ShapeError otherwise."""
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ShapeError(f"{what}: expected shape (n, {width}); got {rows.shape}")
    return rows


def log_normal(x: ArrayLike, mean: ArrayLike, width: ArrayLike) -> Array:
    """log N(x; mean, width^2)."""
    pull = (np.asarray(x) - mean) / np.asarray(width, np.float64)
    return np.asarray(-0.5 * pull**2 - np.log(width) - LOG_ROOT_TAU)


def log_beta(x: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """log of a beta density, ``-inf`` outside (0, 1)."""
    x = np.asarray(x, np.float64)
    inside = (x > 0) & (x < 1)
    safe = np.where(inside, x, 0.5)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    value = (a - 1) * np.log(safe) + (b - 1) * np.log1p(-safe) - special.betaln(a, b)
    return np.where(inside, value, -np.inf)


def truncated(
    rng: np.random.Generator, mean: ArrayLike, width: ArrayLike, low: float = 0.0, high: float = math.inf
) -> Array:
    """Normal numbers between low and high, by inversion, in the shape of mean and width together."""
    mean, width = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(width, np.float64))
    ends = special.ndtr((low - mean) / width), special.ndtr((high - mean) / width)
    found: Array = mean + width * special.ndtri(ends[0] + rng.random(mean.shape) * (ends[1] - ends[0]))
    return np.clip(found, low, high)


def log_truncated(x: ArrayLike, mean: ArrayLike, width: ArrayLike, low: float = 0.0, high: float = math.inf) -> Array:
    """The log density of :func:`truncated`, ``-inf`` outside."""
    x, mean, width = (np.asarray(value, np.float64) for value in (x, mean, width))
    mass = special.ndtr((high - mean) / width) - special.ndtr((low - mean) / width)
    return np.where((x >= low) & (x <= high), log_normal(x, mean, width) - np.log(mass), -np.inf)
