"""Generators: shapes, dependence on all inputs, and the invariances of what they make."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import CLOUD, IMAGE, VECTOR, VOXELS, batch_for, grid, shape_for
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pofx.config import from_plain, to_plain
from pofx.data.spec import Field
from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.networks import (
    CloudGenerator,
    EPiC,
    GeneratorConfig,
    GridGenerator,
    ResidualMLP,
    SetTransformer,
    VectorGenerator,
    default_generator,
)

LATENT = 4
EPIC = EPiC(width=8, layers=2, latent=4, embedding=8, zero_start=False)
ATTENTION = SetTransformer(width=8, layers=1, heads=2, embedding=8, zero_start=False)

CONFIGS: dict[str, tuple[GeneratorConfig, Field]] = {
    "vector": (VectorGenerator(ResidualMLP(width=8, layers=2, embedding=8)), VECTOR),
    "image": (GridGenerator(channels=(4, 8), embedding=8), IMAGE),
    "voxels": (GridGenerator(channels=(4, 4, 8), embedding=8, blocks=2), VOXELS),
    "odd": (GridGenerator(channels=(4, 8), embedding=8), grid(1, 7, 6, periodic=(1, 2))),
    "cloud-noise": (CloudGenerator(EPIC, features=3), CLOUD),
    "cloud-learned": (CloudGenerator(EPIC, features=5, queries="learned"), CLOUD),
    "cloud-attention": (CloudGenerator(ATTENTION, features=3), CLOUD),
}

every = pytest.mark.parametrize("name", CONFIGS)


class Case:
    """A built generator and its inputs for some events."""

    def __init__(self, name: str, n: int = 4, **more: object) -> None:
        self.config, field = CONFIGS[name]
        self.shape = shape_for(field, **more)  # type: ignore[arg-type]
        torch.manual_seed(0)
        self.module: nn.Module = self.config.build(LATENT, self.shape).double().eval()
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        self.batch = batch_for(self.shape, n)
        self.z = torch.randn(n, LATENT, dtype=torch.float64)
        noise = (n, CLOUD.shape[0], self.config.point_noise)
        self.points = torch.randn(*noise, dtype=torch.float64) if self.config.point_noise else None

    def run(self, **changes: Tensor | None) -> Tensor:
        values = {"z": self.z, "t": self.batch.t, "mask": self.batch.mask, "points": self.points, **changes}
        out: Tensor = self.module(values["z"], values["t"], self.batch.context, values["mask"], values["points"])
        return out


@every
@pytest.mark.parametrize("context", [None, "both"])
@pytest.mark.parametrize("times", [0, 1])
def test_shape_and_a_gradient_for_every_parameter(name: str, context: str | None, times: int) -> None:
    case = Case(name, context=context, times=times)
    out = case.run()
    assert out.shape == (4, *case.shape.field.shape)
    (out * torch.randn_like(out)).sum().backward()
    for key, parameter in case.module.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad.abs() > 1e-9).any(), key
    assert Case(name, channels=5).run().shape[-1 if case.shape.field.kind == "cloud" else 1] == 5


@every
def test_every_input_counts_and_events_are_independent(name: str) -> None:
    case = Case(name)
    out = case.run()
    assert not torch.allclose(out[-1], case.run(z=case.z + 0.1)[-1])
    other = case.z.clone()
    other[0] += 1.0
    changed = case.run(z=other)
    torch.testing.assert_close(changed[1:], out[1:])
    assert out.std() > 1e-3


@pytest.mark.parametrize("name", ["cloud-noise", "cloud-attention"])
def test_order_of_the_noise_is_order_of_the_points_and_padding_is_silent(name: str) -> None:
    case = Case(name)
    assert case.points is not None
    assert case.batch.mask is not None
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    out = case.run()
    torch.testing.assert_close(case.run(points=case.points[:, order], mask=case.batch.mask[:, order]), out[:, order])
    assert (out[~case.batch.mask] == 0.0).all()
    longer = torch.cat((case.points, torch.randn(4, 2, 3, dtype=torch.float64)), 1)
    mask = torch.cat((case.batch.mask, torch.zeros(4, 2).bool()), 1)
    torch.testing.assert_close(case.run(points=longer, mask=mask)[:, :6], out)
    with pytest.raises(ShapeError, match="noise for every point"):
        case.run(points=None)


def test_learned_points_are_cut_to_the_mask() -> None:
    case = Case("cloud-learned")
    mask = torch.ones(4, 6).bool()
    mask[:, 3:] = False
    torch.testing.assert_close(case.run(mask=mask[:, :3]), case.run(mask=mask)[:, :3])
    assert case.run(mask=None).shape == (4, 6, 3)


@every
def test_vectorised_over_weights(name: str) -> None:
    cases = [Case(name), Case(name)]
    with torch.no_grad():
        for parameter in cases[1].module.parameters():
            parameter.mul_(1.1)
    stacked, buffers = stack_module_state([case.module for case in cases])
    case = cases[0]

    def function(weights: dict[str, Tensor]) -> Tensor:
        inputs = (case.z, case.batch.t, case.batch.context, case.batch.mask, case.points)
        out: Tensor = functional_call(case.module, weights, inputs)
        return out

    both = vmap(function)(stacked | buffers)
    torch.testing.assert_close(both[0], case.run())
    case.module = cases[1].module
    torch.testing.assert_close(both[1], case.run())


@every
def test_settings_survive_the_card(name: str) -> None:
    config, _ = CONFIGS[name]
    assert from_plain(to_plain(config)) == config


def test_defaults_and_misuse() -> None:
    for field in (VECTOR, IMAGE, CLOUD):
        config = default_generator(field.kind)
        assert field.kind in config.kinds
        assert config.point_noise == (8 if field.kind == "cloud" else 0)
    with pytest.raises(CapabilityError, match="makes vector fields; this one is a grid"):
        VectorGenerator().build(3, shape_for(IMAGE))
    with pytest.raises(ConfigError, match="at least one latent column"):
        VectorGenerator().build(0, shape_for(VECTOR))
    with pytest.raises(ConfigError, match="queries"):
        CloudGenerator(queries="none")
    with pytest.raises(CapabilityError, match="is for"):
        replace(CloudGenerator(), network=ResidualMLP()).build(3, shape_for(CLOUD))
