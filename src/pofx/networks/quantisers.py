r"""Vectors to whole numbers and back, with a gradient: the bottleneck of discrete autoencoders.

Both take z of shape ``(n, slots, width)`` and give a :class:`Quantised`: the code of every slot, and the vector that stands for it, through
which gradients pass straight on to z.

- :class:`VectorQuantiser` (arXiv:1711.00937): the nearest of K vectors e_k. These follow the z that they stand for by a running mean,
  with weights w and decay g (appendix A.1),

  .. math:: N_k \leftarrow g N_k + (1 - g) \sum_{z \to k} w, \quad m_k \leftarrow g\, m_k + (1 - g) \sum_{z \to k} w z,
            \quad e_k = m_k / N_k

  which for g = 0 is a step of k-means. A code that hardly any z is near is put in the place of some z.
- :class:`FiniteScalarQuantiser` (arXiv:2309.15505): every column of z is squashed and rounded to one of L levels. There is nothing to
  learn, and no code that could die.

>>> quantiser = FiniteScalarQuantiser((3, 2))
>>> quantiser.values(torch.arange(6)).tolist()
[[-1.0, -1.0], [0.0, -1.0], [1.0, -1.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pofx.errors import ConfigError

__all__ = ["FiniteScalarQuantiser", "Quantised", "VectorQuantiser"]

_MARGIN = 1e-3
"""By how much the squashed range exceeds the outermost levels, so that they are reached."""


class Quantised(NamedTuple):
    """``codes`` ``(n, slots)``, their vectors ``values`` ``(n, slots, width)``, how far z is from them ``distance`` ``(n,)``.

    ``distance`` is the mean square over an event, with a gradient in z alone: the commitment loss.
    """

    codes: Tensor
    values: Tensor
    distance: Tensor


class VectorQuantiser(nn.Module):
    """The nearest of K vectors, which follow what is near to them.

    In training, :meth:`observe` collects what a batch shows and :meth:`move` takes it in; all of it is in buffers.

    Parameters
    ----------
    size, width : K, and the columns of a vector.
    decay : g, of the running means.
    revive : a code is dead, and is put elsewhere, whose N_k is at most this share of the mean of all; all are so before the first step.

    >>> quantiser = VectorQuantiser(5, 2)
    >>> quantiser(torch.zeros(3, 4, 2)).codes.shape
    torch.Size([3, 4])
    """

    summed = ("seen_count", "seen_total")
    """Added up over the processes that train together."""

    book: Tensor
    count: Tensor
    total: Tensor
    seen_count: Tensor
    seen_total: Tensor
    spare: Tensor

    def __init__(self, size: int, width: int, decay: float = 0.99, revive: float = 0.03) -> None:
        super().__init__()
        self.size, self.width, self.decay, self.revive = size, width, decay, revive
        book = torch.randn(size, width)
        self.register_buffer("book", book)
        self.register_buffer("count", torch.zeros(size))
        self.register_buffer("total", torch.zeros(size, width))
        self.register_buffer("seen_count", torch.zeros(size))
        self.register_buffer("seen_total", torch.zeros(size, width))
        self.register_buffer("spare", book.clone())

    def forward(self, z: Tensor) -> Quantised:
        """Codes and vectors of ``(n, slots, width)``."""
        codes = self.nearest(z)
        near = self.values(codes)
        return Quantised(codes, z + (near - z).detach(), (z - near).square().flatten(1).mean(1))

    def nearest(self, z: Tensor) -> Tensor:
        """The code of every vector ``(..., width)``, int64; the first of several that are equally near."""
        square = self.book.square().sum(1) - 2.0 * z.detach() @ self.book.T
        return square.argmin(-1)

    def values(self, codes: Tensor) -> Tensor:
        """The vectors ``(..., width)`` of codes."""
        return self.book[codes]

    @torch.no_grad()
    def observe(self, z: Tensor, codes: Tensor, weight: Tensor | None, u: Tensor) -> None:
        """Add what a batch shows: z ``(n, slots, width)``, their codes, the events' weights ``(n,)``; z that are not finite do not count.

        ``u``, uniform ``(n, slots)``, chooses the z that dead codes may take the place of: by weight, without repetition
        (Efraimidis and Spirakis 2006).
        """
        flat, which = z.detach().flatten(0, 1).to(self.total), codes.flatten()
        w = flat.new_ones(len(flat)) if weight is None else weight.to(flat).repeat_interleave(codes.shape[1])
        good = flat.isfinite().all(1) & w.isfinite()
        flat, w = torch.where(good[:, None], flat, 0.0), torch.where(good, w, 0.0)
        self.seen_count.index_add_(0, which, w)
        self.seen_total.index_add_(0, which, w[:, None] * flat)
        order = (u.flatten().to(flat).log() / w.clamp(min=1e-12)).topk(min(self.size, len(flat))).indices
        self.spare.copy_(flat[order.repeat(-(-self.size // len(order)))[: self.size]])

    @torch.no_grad()
    def move(self) -> None:
        """Move the vectors to where what was observed wants them, and put dead ones elsewhere; forget it."""
        if not bool(self.seen_count.sum() > 0):
            return
        self.count.lerp_(self.seen_count, 1.0 - self.decay)
        self.total.lerp_(self.seen_total, 1.0 - self.decay)
        self.seen_count.zero_()
        self.seen_total.zero_()
        mean = self.count.mean()
        dead = self.count <= self.revive * mean
        self.count.copy_(torch.where(dead, mean, self.count))
        self.total.copy_(torch.where(dead[:, None], mean * self.spare, self.total))
        self.book.copy_(self.total / self.count[:, None])


class FiniteScalarQuantiser(nn.Module):
    r"""Every column rounded to one of its levels; the code counts all combinations.

    Column i becomes :math:`h \tanh(z + s) - o`, which is rounded, with h = (L - 1) / 2, and with o = 1/2 and tanh(s) = o / h where L is
    even, 0 where it is odd; values are divided by the integer part of L / 2.

    Parameters
    ----------
    levels : L of every column, at least 2; ConfigError otherwise.
    """

    levels: Tensor
    basis: Tensor
    reach: Tensor
    offset: Tensor
    shift: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or any(type(level) is not int or level < 2 for level in levels):
            raise ConfigError(f"levels must be integers of at least 2, one per column; got {tuple(levels)!r}")
        self.size, self.width = math.prod(levels), len(levels)
        count = torch.tensor(levels, dtype=torch.int64)
        half = 0.5 * (count - 1).double() * (1.0 + _MARGIN)
        offset = torch.where(count % 2 == 0, 0.5, 0.0).double()
        self.register_buffer("levels", count, persistent=False)
        self.register_buffer("basis", F.pad(count.cumprod(0)[:-1], (1, 0), value=1), persistent=False)
        self.register_buffer("reach", half.float(), persistent=False)
        self.register_buffer("offset", offset.float(), persistent=False)
        self.register_buffer("shift", torch.atanh(offset / half).float(), persistent=False)

    def forward(self, z: Tensor) -> Quantised:
        """Codes and vectors of ``(n, slots, width)``; the distance is zero, because nothing has to be drawn to the levels."""
        inner = self.squashed(z)
        rounded = inner.detach().round()
        return Quantised(self.codes(rounded), self._scaled(inner + (rounded - inner.detach())), z.new_zeros(len(z)))

    def squashed(self, z: Tensor) -> Tensor:
        """z before it is rounded, in units of the distance of levels."""
        return self.reach * torch.tanh(z + self.shift) - self.offset

    def codes(self, rounded: Tensor) -> Tensor:
        """The code of whole numbers ``(..., width)`` from -[L/2] on."""
        return ((rounded.long() + self.levels // 2) * self.basis).sum(-1)

    def values(self, codes: Tensor) -> Tensor:
        """The vectors ``(..., width)`` of codes, each number in [-1, 1]."""
        level = codes[..., None] // self.basis % self.levels - self.levels // 2
        return self._scaled(level.to(self.reach.dtype))

    def _scaled(self, level: Tensor) -> Tensor:
        return level / (self.levels // 2)
