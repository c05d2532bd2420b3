"""What a network is built for, and what every network can be called with.

A family holds a frozen :class:`NetworkConfig` and builds it for a :class:`NetworkShape`, in latent coordinates: vectors ``(n, d)``, grids
``(n, channels, *cells)``, clouds ``(n, L, F)`` with a mask ``(n, L)``, True = real. Every module has one signature,

    ``module(x, t=None, context=None, mask=None)``

with ``t`` of shape ``(n,)`` or ``(n, times)`` and ``context`` an :class:`~pofx.data.events.Events` that brings its own masks. The result
has the shape of x, or ``(n, outputs)``. It depends on nothing but the event itself; padding changes nothing and is zero in the result;
clouds may have any length up to padding, zero included.

>>> import torch
>>> from pofx.data.events import Events
>>> from pofx.data.spec import vector_spec
>>> from pofx.networks import ResidualMLP
>>> velocity = ResidualMLP(width=32).build(NetworkShape(vector_spec(3)["x"], context=vector_spec(2, "c"), times=1))
>>> velocity(torch.randn(5, 3), torch.rand(5), Events({"c": torch.randn(5, 2)})).abs().sum().item()  # starts at zero
0.0
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from pofx.config import check_between, check_choice
from pofx.data.spec import EventSpec, Field, Kind
from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.networks.embeddings import Conditioning
from pofx.networks.layers import ACTIVATIONS, Angles

__all__ = ["FieldNetwork", "NetworkConfig", "NetworkShape", "default_network", "network_class", "network_names"]

_HOMES: dict[str, str] = {
    "residual-mlp": "pofx.networks.residual:ResidualMLP",
    "unet": "pofx.networks.unet:UNet",
    "patch-transformer": "pofx.networks.patches:PatchTransformer",
    "epic": "pofx.networks.epic:EPiC",
    "deep-sets": "pofx.networks.sets:DeepSets",
    "set-transformer": "pofx.networks.sets:SetTransformer",
    "message-passing": "pofx.networks.messages:MessagePassing",
    "pointwise": "pofx.networks.pointwise:Pointwise",
}

_DEFAULTS: dict[Kind, str] = {"vector": "residual-mlp", "grid": "unet", "cloud": "epic"}


@dataclass(frozen=True)
class NetworkShape:
    """What goes in and what comes out; ConfigError where the parts do not fit together.

    Parameters
    ----------
    field : kind and latent shape of the input; for a cloud the length is only the usual one, inputs may have another.
    outputs : None for a result shaped like the input (velocity, score, denoiser); k for one vector ``(n, k)`` per event (critic, encoder).
    channels : columns or channels of a result shaped like the input, where they differ from the field's.
    context : fields of the context: vectors, clouds, or both.
    times : how many numbers such as t (and a step size) condition the network.
    circular : latent columns (grids: channels) that are angles in [-pi, pi); they enter as cosine and sine.
    circular_context : the same per field of the context.
    """

    field: Field
    outputs: int | None = None
    channels: int | None = None
    context: EventSpec | None = None
    times: int = 0
    circular: tuple[int, ...] = ()
    circular_context: Mapping[str, tuple[int, ...]] = attribute(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outputs is not None and self.channels is not None:
            raise ConfigError(
                f"a network's result is a vector or shaped like its input; got outputs={self.outputs} and channels={self.channels}"
            )
        for name, least in (("outputs", 1), ("channels", 1), ("times", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError(f"NetworkShape: {name} must be an integer of at least {least}; got {value!r}")
        if any(not 0 <= i < self.columns for i in self.circular):
            raise ConfigError(f"NetworkShape: circular columns must be in 0..{self.columns - 1}; got {self.circular}")
        wrong = [name for name, part in (self.context or {}).items() if part.kind == "grid"]
        if wrong:
            raise CapabilityError(f"networks take vectors and clouds as context; {', '.join(wrong)} is a grid")

    @property
    def columns(self) -> int:
        """Columns of a vector, features of a cloud's points, channels of a grid."""
        return self.field.shape[-1] if self.field.kind == "cloud" else self.field.shape[0]

    @property
    def result(self) -> int:
        """Columns, features or channels of the result."""
        return self.outputs or self.channels or self.columns


@dataclass(frozen=True)
class NetworkConfig(ABC):
    """The frozen settings of a network: what a family's ``network=`` holds and a saved model's card records.

    Settings out of range raise ConfigError.

    Parameters
    ----------
    activation : a name out of :data:`pofx.networks.layers.ACTIVATIONS`.
    dropout : rate inside the network; off in ``eval`` mode.
    zero_start : a result shaped like the input starts at zero, because the last layer (and the last layer of residual branches that a
        condition gates) does. Right for velocities, scores and denoisers; switch it off for generators.
    spectral_norm : every linear and convolutional layer is divided by its largest singular value (arXiv:1802.05957), for critics;
        nothing starts at zero then.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]]

    activation: str = attribute(default="silu", kw_only=True)
    dropout: float = attribute(default=0.0, kw_only=True)
    zero_start: bool = attribute(default=True, kw_only=True)
    spectral_norm: bool = attribute(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_choice(self, "activation", tuple(ACTIVATIONS))
        check_between(self, 0.0, 0.9, "dropout")

    def build(self, shape: NetworkShape) -> nn.Module:
        """The module for this shape, ``module(x, t=None, context=None, mask=None)``, with weights from torch's generator.

        CapabilityError for a kind of field that this network does not take.
        """
        if shape.field.kind not in self.kinds:
            fitting = ", ".join(network_names(shape.field.kind))
            raise CapabilityError(
                f"{self.name} is for {' and '.join(sorted(self.kinds))} fields; this one is a {shape.field.kind} "
                f"(networks for it: {fitting})"
            )
        module = self._module(shape)
        return normalise_spectra(module) if self.spectral_norm else module

    @abstractmethod
    def _module(self, shape: NetworkShape) -> nn.Module:
        """The module, before spectral normalisation."""

    def starts_at_zero(self, shape: NetworkShape) -> bool:
        """Whether the network's result is zero before training."""
        return self.zero_start and shape.outputs is None and not self.spectral_norm


class FieldNetwork(nn.Module):
    """What every network begins with: the check of its input, angles as cosine and sine, the condition (``condition.width`` 0 without)."""

    mixed_precision = True  # as a whole: nothing in a network needs more than its weights' products do

    def __init__(self, shape: NetworkShape, config: NetworkConfig, embedding: int) -> None:
        super().__init__()
        self.shape = shape
        self.angles = Angles(shape.columns, shape.circular, dim=1 if shape.field.kind == "grid" else -1)
        self.condition = Conditioning(shape.times, shape.context, shape.circular_context, embedding, config.activation)

    def check(self, x: Tensor) -> None:
        """Raise ShapeError unless x is a batch of this network's field; a cloud's length is free."""
        start = 1 if self.shape.field.kind == "cloud" else 0
        if x.ndim != 1 + len(self.shape.field.shape) or x.shape[1 + start :] != self.shape.field.shape[start:]:
            raise ShapeError(
                f"expected a {self.shape.field.kind} of shape (n, {', '.join(map(str, self.shape.field.shape))}); got {tuple(x.shape)}"
            )


def normalise_spectra(module: nn.Module) -> nn.Module:
    """Spectral normalisation of every linear and convolutional layer, in place; returns the module."""
    for layer in list(module.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            parametrizations.spectral_norm(layer)
    return module


def network_names(kind: Kind | None = None) -> tuple[str, ...]:
    """Names of all networks, or of those that take a kind of field.

    >>> network_names("grid")
    ('residual-mlp', 'unet', 'patch-transformer')
    """
    return tuple(name for name in _HOMES if kind is None or kind in network_class(name).kinds)


def network_class(name: str) -> type[NetworkConfig]:
    """The config class of a name; ConfigError for an unknown one."""
    if name not in _HOMES:
        raise ConfigError(f"no network is called {name!r} (known: {', '.join(_HOMES)})")
    module, _, attribute = _HOMES[name].partition(":")
    found: type[NetworkConfig] = getattr(importlib.import_module(module), attribute)
    return found


def default_network(kind: Kind) -> NetworkConfig:
    """The recommended network: a residual MLP for vectors, a U-Net for grids, EPiC for clouds.

    >>> default_network("cloud").name
    'epic'
    """
    return network_class(_DEFAULTS[kind])()
