"""Randomness as an input: counter-based noise keyed by (seed, event number, name, step).

Philox 4x32-10 (Salmon et al., SC'11, doi:10.1145/2063384.2063405): the key is a hash of (seed, name, step), the counter holds the
event number and the position within the event. A number therefore depends neither on the batch it is drawn in, nor on how many are
drawn beside it, nor on the device's own generator.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

__all__ = ["Noise", "derive_seed", "philox", "uniforms"]

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_FEW = 2**18
"""Numbers up to which numpy makes them on the CPU, several times faster than torch, whose threads win for more."""


def derive_seed(seed: int, *labels: str | int) -> int:
    """A 63-bit seed for a named purpose: the same arguments always give the same number, different ones unrelated numbers.

    >>> derive_seed(1, "order", 0) == derive_seed(1, "order", 0) != derive_seed(1, "order", 1)
    True
    """
    text = "\x1f".join([str(int(seed)), *[f"{type(label).__name__}:{label}" for label in labels]])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int | Tensor, int | Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox 4x32 with ten rounds: four int64 tensors that hold 32-bit words, to four more; keys may be tensors too."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = ((p1 >> 32) & _LOW) ^ b ^ k0, p1 & _LOW, ((p0 >> 32) & _LOW) ^ d ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return a, b, c, d


def uniforms(key: int | Tensor, index: Tensor, size: int) -> Tensor:
    """float64 in (0, 1) with 53 bits, shape ``(n, size)``: element (i, j) depends on (key, index[i], j) alone.

    A tensor of keys ``(K,)`` gives ``(K, n, size)``, in one go.

    >>> both = uniforms(torch.tensor([5, 6]), torch.arange(3), 2)
    >>> bool((both[1] == uniforms(6, torch.arange(3), 2)).all())
    True
    """
    many = isinstance(key, Tensor)
    if not isinstance(key, Tensor) and index.device.type == "cpu" and len(index) * size <= _FEW:
        return torch.from_numpy(_few_uniforms(key, index.numpy(), size))
    keys = key.to(index.device)[:, None, None] if isinstance(key, Tensor) else key
    blocks = torch.arange((size + 1) // 2, device=index.device)
    low, high = (index & _LOW)[:, None], ((index >> 32) & _LOW)[:, None]
    shape = (len(index), len(blocks))
    counter = (low.expand(shape), high.expand(shape), blocks.expand(shape), torch.zeros_like(blocks).expand(shape))
    a, b, c, d = philox(counter, (keys & _LOW, (keys >> 32) & _LOW))
    first, second = ((a << 21) | (b >> 11)), ((c << 21) | (d >> 11))
    words = torch.stack((first, second), -1).flatten(2 if many else 1)[..., :size]
    return (words.double() + 0.5) * 2.0**-53


def _few_uniforms(key: int, index: np.ndarray, size: int) -> np.ndarray:
    """:func:`uniforms` of one key, by numpy.

    Two words share an array, ``x`` the two that are multiplied and ``y`` the two others; instead of crossing over, they
    change places, and the constants with them.
    """
    events, low, half = index.view(np.uint64)[:, None], np.uint64(_LOW), np.uint64(32)
    keys = np.array([key & _LOW, (key >> 32) & _LOW], np.uint64)
    keys = ((keys + np.arange(_ROUNDS, dtype=np.uint64)[:, None] * np.array(_WEYL, np.uint64)) & low)[:, :, None, None]
    factors = np.array(_MULTIPLIERS, np.uint64)[:, None, None]
    x, y = (np.empty((2, len(index), (size + 1) // 2), np.uint64) for _ in range(2))
    x[0], x[1], y[0], y[1] = events & low, np.arange(x.shape[2], dtype=np.uint64), 0, events >> half
    for k in range(_ROUNDS):
        order = 1 - 2 * (k % 2)
        product = x * factors[::order]
        np.right_shift(product, half, out=x)
        x ^= y
        x ^= keys[k, ::-order]
        x &= low
        y = product[::-1]
    y = y & low
    words = np.stack(
        ((x[0] << np.uint64(21)) | (y[1] >> np.uint64(11)), (x[1] << np.uint64(21)) | (y[0] >> np.uint64(11))), -1
    )
    return (words.reshape(len(index), 2 * x.shape[2])[:, :size].astype(np.float64) + 0.5) * 2.0**-53


@dataclass(frozen=True)
class Noise:
    """The noise of one step for the events of one batch.

    Parameters
    ----------
    seed : the user's seed.
    index : event numbers, int64 of shape ``(n,)``.
    step : training step, or solver step; part of the key.
    dtype : of the numbers returned (they are made in float64).
    scope : a prefix of every name (an update's name, a stage's name).

    >>> noise = Noise(1, torch.arange(5))
    >>> bool((noise.normal("z", 3)[2:] == Noise(1, torch.arange(2, 5)).normal("z", 3)).all())
    True
    """

    seed: int
    index: Tensor
    step: int = 0
    dtype: torch.dtype = torch.float32
    scope: str = ""

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Uniform on the open interval (0, 1), shape ``(n, *shape)``."""
        return self._uniform(name, math.prod(shape)).to(self.dtype).reshape(-1, *shape).clamp(1e-45, self._one)

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal, shape ``(n, *shape)`` (Box-Muller)."""
        size = math.prod(shape)
        u = self._uniform(name, size + size % 2)
        radius, angle = (-2.0 * u[:, 0::2].log()).sqrt_(), (2.0 * math.pi) * u[:, 1::2]
        both = torch.stack((radius * angle.cos(), radius * angle.sin()), -1).flatten(1)
        return both[:, :size].to(self.dtype).reshape(-1, *shape)

    def at(self, step: int) -> Noise:
        """The noise of another step."""
        return replace(self, step=step)

    def within(self, scope: str) -> Noise:
        """The noise of a named part (an update, a stage)."""
        return replace(self, scope=f"{self.scope}/{scope}")

    @property
    def _one(self) -> float:
        return 1.0 - torch.finfo(self.dtype).eps / 2

    def _uniform(self, name: str, size: int) -> Tensor:
        """float64 in (0, 1), shape (n, size)."""
        return uniforms(derive_seed(self.seed, self.scope, name, self.step), self.index, size)
