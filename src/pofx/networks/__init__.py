"""Networks for vectors, grids and clouds with one call signature, ``module(x, t=None, context=None, mask=None)``.

- :mod:`~pofx.networks.base`: :class:`NetworkShape`, :class:`NetworkConfig`, :func:`default_network`;
- vectors: :mod:`~pofx.networks.residual`;     - grids: :mod:`~pofx.networks.unet`, :mod:`~pofx.networks.patches`;
- clouds: :mod:`~pofx.networks.epic`, :mod:`~pofx.networks.sets`, :mod:`~pofx.networks.messages`, :mod:`~pofx.networks.pointwise`;
- :mod:`~pofx.networks.causal`: sequences, each token from those before it;
- :mod:`~pofx.networks.generators`: fields from latent vectors;     - :mod:`~pofx.networks.embeddings`: time and context;
- :mod:`~pofx.networks.masked`, :mod:`~pofx.networks.dense`: what flows are made of.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pofx.networks.base import NetworkConfig, NetworkShape, default_network, network_class, network_names
    from pofx.networks.causal import CausalTransformer
    from pofx.networks.epic import EPiC
    from pofx.networks.generators import (
        CloudGenerator,
        GeneratorConfig,
        GridGenerator,
        VectorGenerator,
        default_generator,
    )
    from pofx.networks.messages import MessagePassing
    from pofx.networks.patches import PatchTransformer
    from pofx.networks.pointwise import Pointwise
    from pofx.networks.residual import ResidualMLP
    from pofx.networks.sets import DeepSets, SetTransformer
    from pofx.networks.unet import UNet

_HOMES = {
    "base": ("NetworkConfig", "NetworkShape", "default_network", "network_class", "network_names"),
    "causal": ("CausalTransformer",),
    "epic": ("EPiC",),
    "generators": ("CloudGenerator", "GeneratorConfig", "GridGenerator", "VectorGenerator", "default_generator"),
    "messages": ("MessagePassing",),
    "patches": ("PatchTransformer",),
    "pointwise": ("Pointwise",),
    "residual": ("ResidualMLP",),
    "sets": ("DeepSets", "SetTransformer"),
    "unet": ("UNet",),
}

__all__ = [
    "CausalTransformer",
    "CloudGenerator",
    "DeepSets",
    "EPiC",
    "GeneratorConfig",
    "GridGenerator",
    "MessagePassing",
    "NetworkConfig",
    "NetworkShape",
    "PatchTransformer",
    "Pointwise",
    "ResidualMLP",
    "SetTransformer",
    "UNet",
    "VectorGenerator",
    "default_generator",
    "default_network",
    "network_class",
    "network_names",
]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
