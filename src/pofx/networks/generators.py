"""From a latent vector (and a context) to a field: generators of GANs and decoders of autoencoders.

``module(z, t=None, context=None, mask=None, points=None)`` maps ``(n, latent)`` to vectors ``(n, d)``, grids ``(n, channels, *cells)`` or
clouds ``(n, L, F)``. Angles come out as plain numbers, to be wrapped by who uses them.

>>> import torch
>>> from pofx.data.spec import Axis, Column, Field
>>> image = Field("grid", (1, 6, 5), (Column("E"),), (Axis("phi", 6, periodic=True), Axis("z", 5)))
>>> GridGenerator().build(8, NetworkShape(image))(torch.randn(3, 8)).shape
torch.Size([3, 1, 6, 5])
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between, check_choice, check_widths
from pofx.data.events import Events
from pofx.data.spec import Column, Field, Kind, vector_spec
from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.networks.base import NetworkConfig, NetworkShape
from pofx.networks.convolutions import Levels, group_norm, pyramid
from pofx.networks.embeddings import Conditioning
from pofx.networks.epic import EPiC
from pofx.networks.layers import ACTIVATIONS
from pofx.networks.residual import ResidualMLP

__all__ = ["CloudGenerator", "GeneratorConfig", "GridGenerator", "VectorGenerator", "default_generator"]

LATENT = "(latent)"
"""Name under which a latent vector joins the context; brackets keep it apart from the user's names."""


@dataclass(frozen=True)
class GeneratorConfig(ABC):
    """The frozen settings of a generator; :meth:`build` takes the latent width and the shape of what comes out."""

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]]

    def build(self, latent: int, shape: NetworkShape) -> nn.Module:
        """The module ``(z, t, context, mask, points)``.

        CapabilityError for another kind of field, ConfigError for a shape that asks for ``outputs``.

        Parameters
        ----------
        latent : columns of z.
        shape : ``field`` is what comes out (with ``channels`` columns instead, if given); context and times as for networks.
        """
        if shape.field.kind not in self.kinds:
            raise CapabilityError(
                f"{self.name} makes {' and '.join(sorted(self.kinds))} fields; this one is a {shape.field.kind}"
            )
        if shape.outputs is not None or type(latent) is not int or latent < 1:
            raise ConfigError(
                f"a generator needs at least one latent column and makes a field; got latent={latent!r}, outputs={shape.outputs}"
            )
        return self._module(latent, shape)

    @abstractmethod
    def _module(self, latent: int, shape: NetworkShape) -> nn.Module:
        """The module for a shape that fits."""

    @property
    def point_noise(self) -> int:
        """Numbers of noise per point of a cloud that ``points`` takes, of shape ``(n, L, point_noise)``; 0 for none."""
        return 0


@dataclass(frozen=True)
class VectorGenerator(GeneratorConfig):
    """A vector by a network of vectors: its input is the latent vector.

    >>> VectorGenerator(ResidualMLP(width=64)).network.width
    64
    """

    name: ClassVar[str] = "vector-generator"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"vector"})

    network: NetworkConfig = attribute(default_factory=ResidualMLP)

    def _module(self, latent: int, shape: NetworkShape) -> nn.Module:
        source = replace(shape, field=_latent_field(latent), outputs=shape.result, channels=None, circular=())
        return _VectorGenerator(self.network.build(source))


class _VectorGenerator(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        z: Tensor,
        t: Tensor | None = None,
        context: Events | None = None,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Tensor:
        """``(n, latent)`` to ``(n, d)``."""
        return self.network(z, t, context)


@dataclass(frozen=True)
class GridGenerator(GeneratorConfig):
    """A grid by the rising half of a U-Net: the coarsest cells from the latent vector, then up level by level.

    The latent vector, time and context also scale and shift the channels of every block.

    Parameters
    ----------
    channels : per level, the finest first; blocks : residual blocks per level.
    embedding : width of the conditioning vector; activation, dropout : as for networks.

    >>> GridGenerator(channels=(8, 16)).point_noise
    0
    """

    name: ClassVar[str] = "grid-generator"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"grid"})

    channels: tuple[int, ...] = (16, 24, 32)
    blocks: int = 1
    embedding: int = 64
    activation: str = attribute(default="silu", kw_only=True)
    dropout: float = attribute(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        check_widths(self, "channels")
        check_at_least(self, 1, "blocks", "embedding")
        check_choice(self, "activation", tuple(ACTIVATIONS))
        check_between(self, 0.0, 0.9, "dropout")

    def _module(self, latent: int, shape: NetworkShape) -> nn.Module:
        return _GridGenerator(self, latent, shape)


class _GridGenerator(nn.Module):
    mixed_precision = True

    def __init__(self, config: GridGenerator, latent: int, shape: NetworkShape) -> None:
        super().__init__()
        self.condition = _condition(config.embedding, latent, shape, config.activation)
        axes, channels = shape.field.axes, config.channels
        levels = Levels(
            cells=pyramid(axes, len(channels)),
            periodic=tuple(axis.periodic for axis in axes),
            condition=config.embedding,
            identity=False,
            activation=config.activation,
            dropout=config.dropout,
        )
        self.start = (channels[-1], *levels.cells[-1])
        self.first = nn.Linear(latent, math.prod(self.start))
        self.stages = nn.ModuleList([_Stage(config, levels, k) for k in reversed(range(len(channels)))])
        self.norm, self.activation = group_norm(channels[0]), ACTIVATIONS[config.activation]
        self.last = levels.conv(channels[0], shape.result)

    def forward(
        self,
        z: Tensor,
        t: Tensor | None = None,
        context: Events | None = None,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Tensor:
        """``(n, latent)`` to ``(n, channels, *cells)``."""
        c = self.condition(z, t, with_latent(z, context))
        h = self.first(z).unflatten(1, self.start)
        for stage in self.stages:
            h = stage(h, c)
        return self.last(self.activation(self.norm(h)))


class _Stage(nn.Module):
    """Residual blocks at one level, and a transposed convolution to the next finer one."""

    def __init__(self, config: GridGenerator, levels: Levels, level: int) -> None:
        super().__init__()
        here = config.channels[level]
        self.blocks = nn.ModuleList([levels.block(here, here, level) for _ in range(config.blocks)])
        self.leave = levels.up(here, config.channels[level - 1], level) if level else None

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(h, c)
        return h if self.leave is None else self.leave(h)


@dataclass(frozen=True)
class CloudGenerator(GeneratorConfig):
    """A cloud by a network of clouds that refines per-point noise, or learnt points, given the latent vector (arXiv:2301.08128).

    Parameters
    ----------
    network : of clouds; it is conditioned on the latent vector, time and context.
    features : numbers that a point starts from.
    queries : ``"noise"``: these are noise, given as ``points`` of shape ``(n, L, features)``, and any number of points can be made;
        ``"learned"``: they are parameters, one set per point up to the field's length, and the latent vector alone decides.

    >>> CloudGenerator(queries="noise", features=3).point_noise
    3
    """

    name: ClassVar[str] = "cloud-generator"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"cloud"})

    network: NetworkConfig = attribute(default_factory=partial(EPiC, zero_start=False))
    features: int = 8
    queries: str = "noise"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "features")
        check_choice(self, "queries", ("noise", "learned"))

    @property
    def point_noise(self) -> int:
        return self.features if self.queries == "noise" else 0

    def _module(self, latent: int, shape: NetworkShape) -> nn.Module:
        columns = tuple(Column(f"{LATENT}{i}") for i in range(self.features))
        source = replace(
            shape,
            field=Field("cloud", (shape.field.shape[0], self.features), columns),
            channels=shape.result,
            context={LATENT: _latent_field(latent), **(shape.context or {})},
            circular=(),
        )
        return _CloudGenerator(self, shape.field.shape[0], self.network.build(source))


class _CloudGenerator(nn.Module):
    def __init__(self, config: CloudGenerator, length: int, network: nn.Module) -> None:
        super().__init__()
        self.network, self.features = network, config.features
        self.queries = nn.Parameter(torch.randn(length, config.features)) if config.queries == "learned" else None

    def forward(
        self,
        z: Tensor,
        t: Tensor | None = None,
        context: Events | None = None,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Tensor:
        """``(n, latent)``, and ``points`` where noise is asked for, to ``(n, L, columns)``; zero where the mask says padding."""
        if self.queries is not None:
            length = len(self.queries) if mask is None else mask.shape[1]
            start = self.queries[:length].expand(z.shape[0], -1, -1)
        elif points is None:
            raise ShapeError(
                f"this generator needs noise for every point, shape (n, L, {self.features}); got points=None"
            )
        else:
            start = points
        return self.network(start, t, with_latent(z, context), mask)


def default_generator(kind: Kind) -> GeneratorConfig:
    """The recommended generator of a kind of field.

    >>> default_generator("cloud").name
    'cloud-generator'
    """
    return {"vector": VectorGenerator, "grid": GridGenerator, "cloud": CloudGenerator}[kind]()


def with_latent(z: Tensor, context: Events | None) -> Events:
    """The context with the latent vector as one more field."""
    if context is None:
        return Events({LATENT: z})
    return context.replace(fields={LATENT: z, **context.fields})


def _latent_field(latent: int) -> Field:
    return vector_spec(latent, LATENT)[LATENT]


def _condition(width: int, latent: int, shape: NetworkShape, activation: str) -> Conditioning:
    spec = {LATENT: _latent_field(latent), **(shape.context or {})}
    return Conditioning(shape.times, spec, shape.circular_context, width, activation)
