r"""Message passing between all pairs of points, or between nearest neighbours (MPGAN, arXiv:2106.11535).

.. math::
    m_{ij} &= W_K a(\dots a(A h_i + B h_j + w\,|x_i - x_j|^2)) \\
    h'_i &= h_i + f_n(h_i, \mathrm{mean}_j\, m_{ij}, \mathrm{sum}_j\, m_{ij}, c)

The last linear map of a message commutes with the sum over j and is applied after it, within the first map of :math:`f_n`: the same
function at a lower cost. Neighbours are the k nearest real points in the chosen coordinates, the point itself included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_widths
from pofx.data.events import Events
from pofx.data.spec import Kind
from pofx.errors import ConfigError
from pofx.networks.base import NetworkConfig, NetworkShape
from pofx.networks.clouds import CloudNetwork
from pofx.networks.layers import ACTIVATIONS, Angles, Dense
from pofx.networks.pooling import SUM_SCALE, Points

__all__ = ["MessagePassing"]

_FAR = 1e30
"""Squared distance of padding: behind every real point."""


@dataclass(frozen=True)
class MessagePassing(NetworkConfig):
    """A graph network on a cloud.

    Parameters
    ----------
    width : of the points' features; layers : rounds of messages; edges : hidden widths of the message network.
    neighbours : how many nearest points send messages to each (0: all).
    coordinates : columns that distances are measured in (empty: all); angles count by their chord.
    embedding : width of the conditioning vector.

    >>> MessagePassing(neighbours=8, coordinates=(0, 1)).neighbours
    8
    """

    name: ClassVar[str] = "message-passing"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"cloud"})

    width: int = 32
    layers: int = 2
    edges: tuple[int, ...] = (32,)
    neighbours: int = 0
    coordinates: tuple[int, ...] = ()
    embedding: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width", "layers", "embedding")
        check_at_least(self, 0, "neighbours")
        check_widths(self, "edges")

    def _module(self, shape: NetworkShape) -> nn.Module:
        if any(not 0 <= i < shape.columns for i in self.coordinates):
            raise ConfigError(f"MessagePassing: coordinates must be in 0..{shape.columns - 1}; got {self.coordinates}")
        return _MessageNetwork(self, shape)


class _MessageNetwork(CloudNetwork):
    chosen: Tensor

    def __init__(self, config: MessagePassing, shape: NetworkShape) -> None:
        super().__init__(shape, config, config.width, config.embedding)
        chosen = config.coordinates or tuple(range(shape.columns))
        self.register_buffer("chosen", torch.tensor(chosen), persistent=False)
        self.place = Angles(len(chosen), [k for k, i in enumerate(chosen) if i in shape.circular])
        self.neighbours = config.neighbours
        self.first = nn.Linear(self.angles.width, config.width)
        self.layers = nn.ModuleList([_MessageLayer(config, self.condition.width) for _ in range(config.layers)])

    def body(self, x: Tensor, points: Points, c: Tensor | None, context: Events | None) -> Tensor:
        graph = _Graph(self.place(x.index_select(-1, self.chosen)), points, self.neighbours)
        h = self.first(self.angles(x))
        for layer in self.layers:
            h = layer(h, graph, c)
        return h


class _Graph:
    """Who sends messages to whom, how far apart they are, and which senders are real.

    ``distance`` of shape ``(n, L, K, 1)`` and ``real`` of shape ``(n, 1 or L, K, 1)`` (None: all), K = L or the number of neighbours.
    """

    def __init__(self, place: Tensor, points: Points, neighbours: int) -> None:
        between = (place[:, :, None, :] - place[:, None, :, :]).square().sum(-1)
        self.real = None if points.real is None else points.real[:, None]
        self.count, self.senders = points.count.clamp(min=1.0)[..., None], None
        if 0 < neighbours < place.shape[1]:
            self.senders = self._nearest(between, points, neighbours)
            between, self.count = between.gather(-1, self.senders), self.count.clamp(max=float(neighbours))
        self.distance = between[..., None]

    def _nearest(self, between: Tensor, points: Points, neighbours: int) -> Tensor:
        """Indices of the senders, ``(n, L, K)``; where there are too few real ones the rest is padding, of no weight."""
        hidden = between if points.mask is None else between.masked_fill(~points.mask[:, None, :], _FAR)
        senders = hidden.topk(neighbours, dim=-1, largest=False).indices
        if self.real is not None:
            self.real = self.real[..., 0].expand_as(between).gather(-1, senders)[..., None]
        return senders

    def sent(self, h: Tensor) -> Tensor:
        """What every point receives of ``(n, L, width)``, as ``(n, 1 or L, K, width)``."""
        if self.senders is None:
            return h[:, None, :, :]
        index = self.senders.flatten(1)[..., None].expand(-1, -1, h.shape[-1])
        return h.gather(1, index).unflatten(1, self.senders.shape[1:])

    def gather(self, messages: Tensor) -> Tensor:
        """Mean and scaled sum over senders, ``(n, L, K, width)`` to ``(n, L, 2 width)``."""
        total = messages.sum(2) if self.real is None else (messages * self.real).sum(2)
        return torch.cat((total / self.count, total * SUM_SCALE), -1)


class _MessageLayer(nn.Module):
    def __init__(self, config: MessagePassing, condition: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.receiver = nn.Linear(config.width, config.edges[0])
        self.sender = nn.Linear(config.width, config.edges[0], bias=False)
        self.distance = nn.Parameter(torch.randn(config.edges[0]))
        self.message = Dense(config.edges, config.activation, config.dropout) if len(config.edges) > 1 else None
        self.shared = nn.Linear(condition, config.width, bias=False) if condition else None
        self.node = nn.Linear(config.width + 2 * config.edges[-1], config.width)
        self.second, self.dropout = nn.Linear(config.width, config.width), nn.Dropout(config.dropout)

    def forward(self, h: Tensor, graph: _Graph, c: Tensor | None) -> Tensor:
        pair = self.receiver(h)[:, :, None, :] + graph.sent(self.sender(h))
        pair = self.activation(torch.addcmul(pair, graph.distance, self.distance))
        pair = pair if self.message is None else self.activation(self.message(pair))
        inner = self.node(torch.cat((h, graph.gather(pair)), -1))
        inner = inner if self.shared is None or c is None else inner + self.shared(c)[:, None, :]
        return h + self.second(self.dropout(self.activation(inner)))
