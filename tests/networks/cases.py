"""Every network, tiny, on a field of every kind that it takes, with a condition of every sort: what the tests run over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.data.spec import Axis, Column, Field, vector_spec
from pofx.networks import (
    DeepSets,
    EPiC,
    MessagePassing,
    NetworkConfig,
    NetworkShape,
    PatchTransformer,
    Pointwise,
    ResidualMLP,
    SetTransformer,
    UNet,
)


def columns(count: int, start: str = "x") -> tuple[Column, ...]:
    return tuple(Column(f"{start}{i}") for i in range(count))


def grid(*cells: int, channels: int = 2, periodic: tuple[int, ...] = ()) -> Field:
    axes = tuple(Axis(f"a{i}", n, periodic=i in periodic) for i, n in enumerate(cells))
    return Field("grid", (channels, *cells), columns(channels), axes)


VECTOR = vector_spec(3)["x"]
CLOUD = Field("cloud", (6, 3), columns(3))
IMAGE = grid(5, 8, periodic=(1,))
VOXELS = grid(3, 4, 9, channels=1, periodic=(1,))

CONFIGS: dict[str, tuple[NetworkConfig, Field]] = {
    "residual-mlp": (ResidualMLP(width=16, layers=2, embedding=8), VECTOR),
    "residual-mlp-norm": (ResidualMLP(width=16, layers=2, embedding=8, norm=True), VECTOR),
    "residual-mlp-grid": (ResidualMLP(width=16, layers=2, embedding=8), IMAGE),
    "unet-2d": (UNet(channels=(4, 8), heads=2, embedding=8), IMAGE),
    "unet-3d": (UNet(channels=(4, 8), heads=2, embedding=8, blocks=2, attention=False), VOXELS),
    "patches-2d": (PatchTransformer(width=16, layers=2, heads=2, embedding=8), IMAGE),
    "patches-3d": (PatchTransformer(patch=(1, 4, 3), width=16, layers=2, heads=2, embedding=8, causal=0), VOXELS),
    "epic": (EPiC(width=16, layers=2, latent=4, embedding=8), CLOUD),
    "epic-weight-norm": (EPiC(width=16, layers=2, latent=4, embedding=8, weight_norm=True), CLOUD),
    "deep-sets": (DeepSets(width=16, layers=2, embedding=8), CLOUD),
    "set-transformer": (SetTransformer(width=16, layers=2, heads=2, embedding=8), CLOUD),
    "set-transformer-inducing": (SetTransformer(width=16, layers=2, heads=2, embedding=8, inducing=3), CLOUD),
    "message-passing": (MessagePassing(width=8, edges=(8, 8), embedding=8), CLOUD),
    "message-passing-near": (MessagePassing(width=8, edges=(8,), embedding=8, neighbours=2, coordinates=(0, 1)), CLOUD),
    "pointwise": (Pointwise(widths=(16, 8), embedding=8), CLOUD),
}

CLOUDS = [name for name, (_, field) in CONFIGS.items() if field.kind == "cloud"]

CONTEXTS: dict[str, dict[str, Field]] = {
    "vector": vector_spec(2, "c"),
    "cloud": {"jet": Field("cloud", (5, 2), columns(2))},
    "both": {**vector_spec(2, "c"), "jet": Field("cloud", (5, 2), columns(2))},
}


@dataclass(frozen=True)
class Batch:
    """Arguments of a network."""

    x: Tensor
    t: Tensor | None = None
    context: Events | None = None
    mask: Tensor | None = None

    def run(self, module: nn.Module) -> Tensor:
        out: Tensor = module(self.x, self.t, self.context, self.mask)
        return out

    def __getitem__(self, rows: Any) -> Batch:
        return Batch(*(None if part is None else part[rows] for part in (self.x, self.t, self.context, self.mask)))

    def replace(self, **changes: Any) -> Batch:
        return replace(self, **changes)


def shape_for(field: Field, *, times: int = 1, context: str | None = "both", **more: Any) -> NetworkShape:
    return NetworkShape(field, times=times, context=None if context is None else CONTEXTS[context], **more)


def batch_for(shape: NetworkShape, n: int = 4, seed: int = 1, dtype: torch.dtype = torch.float64) -> Batch:
    """Random inputs; clouds have from no real point to all of them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype)

    def cloud(field: Field) -> tuple[Tensor, Tensor]:
        mask = torch.arange(field.shape[0]) < torch.arange(n)[:, None] * field.shape[0] // max(n - 1, 1)
        return normal(n, *field.shape) * mask[..., None], mask

    mask, context = None, None
    x = normal(n, *shape.field.shape)
    if shape.field.kind == "cloud":
        x, mask = cloud(shape.field)
    if shape.context:
        fields, masks = {}, {}
        for name, field in shape.context.items():
            if field.kind == "cloud":
                fields[name], masks[name] = cloud(field)
                fields[name], masks[name] = fields[name].flip(0), masks[name].flip(0)
            else:
                fields[name] = normal(n, *field.shape)
        context = Events(fields, masks)
    t = torch.rand(n, shape.times, generator=generator, dtype=dtype) if shape.times else None
    return Batch(x, t, context, mask)


def build(
    config: NetworkConfig, shape: NetworkShape, *, stir: float = 0.3, dtype: torch.dtype = torch.float64
) -> nn.Module:
    """The module in eval mode, its weights moved away from their start: at zero nothing would depend on anything."""
    torch.manual_seed(0)
    module = config.build(shape).to(dtype).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(stir * torch.randn_like(parameter))
    return module


def by_name(name: str, **more: Any) -> tuple[nn.Module, NetworkShape]:
    """One of :data:`CONFIGS`, built and stirred, with its shape."""
    config, field = CONFIGS[name]
    shape = shape_for(field, **more)
    return build(config, shape), shape
