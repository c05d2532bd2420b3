r"""Time and context as network inputs: one vector per event, and tokens for networks that attend.

.. math:: c = a(W a(E_t(t) + \sum_f E_f(c_f))), \qquad E_t(t) = V (t, \cos 2\pi f_k t, \sin 2\pi f_k t)_k

with a linear map per vector field of the context and a permutation-invariant encoder per cloud.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.data.spec import EventSpec
from pofx.errors import ShapeError
from pofx.networks.layers import ACTIVATIONS, Angles
from pofx.networks.pooling import CloudEncoder, Points

__all__ = ["Conditioning", "ContextEmbedding", "ContextTokens", "TimeEmbedding"]

_NO_ANGLES: Mapping[str, tuple[int, ...]] = {}


class TimeEmbedding(nn.Module):
    """Numbers such as t as ``(n, width)``: themselves and their Fourier features, then a linear map (arXiv:2006.10739).

    Parameters
    ----------
    times : how many numbers.
    frequencies : per number, from a quarter of a period per unit of time to ``fastest`` periods, in geometric progression.

    >>> TimeEmbedding(2, 16)(torch.rand(5, 2)).shape
    torch.Size([5, 16])
    """

    rates: Tensor

    def __init__(self, times: int, width: int, *, frequencies: int = 8, fastest: float = 2.0) -> None:
        super().__init__()
        self.times = times
        rates = 2.0 * math.pi * torch.logspace(math.log2(0.25), math.log2(fastest), frequencies, base=2.0)
        self.register_buffer("rates", rates, persistent=False)
        self.linear = nn.Linear(times * (2 * frequencies + 1), width)

    def forward(self, t: Tensor) -> Tensor:
        """``t`` of shape ``(n,)`` (one number) or ``(n, times)``."""
        columns = t[..., None] if t.ndim < 2 else t
        if columns.shape[-1] != self.times:
            raise ShapeError(f"expected {self.times} time(s) per event; got a t of shape {tuple(t.shape)}")
        phases = columns[..., None] * self.rates
        return self.linear(torch.cat((columns, phases.cos().flatten(-2), phases.sin().flatten(-2)), -1))


class ContextEmbedding(nn.Module):
    """A context of vectors, clouds or both as ``(n, width)``: the sum of one embedding per field.

    Parameters
    ----------
    spec : the fields; circular : field -> columns that are angles.

    >>> from pofx.data.spec import vector_spec
    >>> ContextEmbedding(vector_spec(3, "c"), 16)(Events({"c": torch.zeros(5, 3)})).shape
    torch.Size([5, 16])
    """

    def __init__(
        self,
        spec: EventSpec,
        width: int,
        circular: Mapping[str, tuple[int, ...]] = _NO_ANGLES,
        *,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.names = tuple(spec)
        self.parts = nn.ModuleList(
            [
                _LinearAngles(field.shape[0], width, circular.get(name, ()))
                if field.kind == "vector"
                else CloudEncoder(field.shape[-1], width, circular.get(name, ()), activation=activation)
                for name, field in spec.items()
            ]
        )

    def forward(self, context: Events) -> Tensor:
        """The context's clouds bring their masks; ShapeError where a field is missing."""
        embedded = [
            part(_field(context, name), context.masks.get(name))
            for name, part in zip(self.names, self.parts, strict=True)
        ]
        return sum(embedded[1:], embedded[0])


class ContextTokens(nn.Module):
    """A context as tokens ``(n, T, width)`` with the :class:`~pofx.networks.pooling.Points` that says which are real.

    Every point of a cloud is a token; so is every vector field.
    """

    def __init__(self, spec: EventSpec, width: int, circular: Mapping[str, tuple[int, ...]] = _NO_ANGLES) -> None:
        super().__init__()
        self.names = tuple(spec)
        self.vectors = {name for name, field in spec.items() if field.kind == "vector"}
        self.parts = nn.ModuleList(
            [_LinearAngles(field.shape[-1], width, circular.get(name, ())) for name, field in spec.items()]
        )

    def forward(self, context: Events) -> tuple[Tensor, Points]:
        tokens, masks = [], []
        for name, part in zip(self.names, self.parts, strict=True):
            value, mask = _field(context, name), context.masks.get(name)
            value = value[:, None, :] if name in self.vectors else value
            tokens.append(part(Points.of(value, mask).hide(value)))
            masks.append(value.new_ones(value.shape[:2], dtype=torch.bool) if mask is None else mask)
        joined = torch.cat(tokens, 1)
        return joined, Points.of(joined, torch.cat(masks, 1) if context.masks else None)


class Conditioning(nn.Module):
    """Times and context as one vector ``(n, width)``, the condition of all layers; ``width`` is 0, and the vector None, without any.

    Parameters
    ----------
    times : how many; spec : of the context (None without one); circular : context field -> columns that are angles.
    """

    def __init__(
        self,
        times: int,
        spec: EventSpec | None,
        circular: Mapping[str, tuple[int, ...]],
        width: int,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.width = width if times or spec else 0
        self.time = TimeEmbedding(times, width) if times else None
        self.context = ContextEmbedding(spec, width, circular, activation=activation) if spec else None
        self.linear = nn.Linear(width, width) if self.width else None
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, t: Tensor | None, context: Events | None) -> Tensor | None:
        """``x`` says how many events and which precision; ShapeError where a time or context is missing."""
        if self.linear is None:
            return None
        parts = []
        if self.time is not None:
            if t is None:
                raise ShapeError(f"this network is conditioned on {self.time.times} time(s); got t=None")
            parts.append(self.time(t.to(x.dtype)))
        if self.context is not None:
            if context is None:
                raise ShapeError(f"this network is conditioned on {', '.join(self.context.names)}; got context=None")
            parts.append(self.context(context))
        h = self.activation(sum(parts[1:], parts[0]))
        return self.activation(self.linear(h)).expand(x.shape[0], -1)


class _LinearAngles(nn.Module):
    """A linear map of columns of which some are angles."""

    def __init__(self, columns: int, width: int, circular: tuple[int, ...]) -> None:
        super().__init__()
        self.angles = Angles(columns, circular)
        self.linear = nn.Linear(self.angles.width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.linear(self.angles(x))


def _field(context: Events, name: str) -> Tensor:
    if name not in context.fields:
        raise ShapeError(f"expected a context with the field {name!r}; got {', '.join(context.fields)}")
    return context.fields[name]
