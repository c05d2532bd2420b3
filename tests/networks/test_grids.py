"""Networks on grids: periodic axes, odd and small sizes, coordinates, patches."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import Batch, batch_for, build, grid, shape_for
from torch.nn import functional as F

from pofx.data.spec import Axis
from pofx.errors import CapabilityError, ConfigError
from pofx.networks import NetworkConfig, PatchTransformer, UNet
from pofx.networks.convolutions import GridConv, Levels, axis_fraction, coordinate_channels, enlarge, halved, pyramid
from pofx.networks.patches import _Patches

UNETS: dict[str, tuple[UNet, tuple[int, ...], tuple[int, ...]]] = {
    "2-d": (UNet(channels=(4, 8), heads=2, embedding=8, coordinates="none"), (8, 12), (0, 1)),
    "2-d three levels": (UNet(channels=(4, 4, 8), heads=2, embedding=8, coordinates="none"), (8, 16), (0, 1)),
    "3-d one periodic axis": (UNet(channels=(4, 8), heads=2, embedding=8, coordinates="open"), (5, 8, 3), (1,)),
    "odd periodic axis": (UNet(channels=(4, 8), heads=2, embedding=8, coordinates="open"), (7, 6), (0,)),
}


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("outputs", [None, 2], ids=["field", "vector"])
def test_turning_a_periodic_axis_turns_the_result(name: str, outputs: int | None) -> None:
    config, cells, periodic = UNETS[name]
    shape = shape_for(grid(*cells, periodic=periodic), outputs=outputs)
    module, batch = build(config, shape), batch_for(shape)
    out = batch.run(module)
    coarse = pyramid(shape.field.axes, len(config.channels))[-1]
    for axis in periodic:
        step = cells[axis] // coarse[axis]
        turned = batch.replace(x=batch.x.roll(step, 2 + axis)).run(module)
        expected = out.roll(step, 2 + axis) if outputs is None else out
        torch.testing.assert_close(turned, expected, atol=1e-10, rtol=1e-10)


def test_turning_an_open_axis_or_with_coordinates_does_not() -> None:
    for coordinates, periodic, axis in (("none", (1,), 0), ("all", (0, 1), 1)):
        config = UNet(channels=(4, 8), heads=2, embedding=8, coordinates=coordinates)
        shape = shape_for(grid(8, 8, periodic=periodic))
        module, batch = build(config, shape), batch_for(shape)
        turned = batch.replace(x=batch.x.roll(2, 2 + axis)).run(module)
        assert not torch.allclose(turned, batch.run(module).roll(2, 2 + axis))


@pytest.mark.parametrize("cells", [(5, 7), (3, 4, 9), (1, 1), (2, 3), (1, 6), (45, 2), (9,), (1, 1, 1)])
@pytest.mark.parametrize("outputs", [None, 3], ids=["field", "vector"])
def test_grids_of_any_size(cells: tuple[int, ...], outputs: int | None) -> None:
    configs: list[NetworkConfig] = [
        UNet(channels=(4, 4, 8), heads=2, embedding=8),
        PatchTransformer(width=8, layers=1, heads=2, embedding=8),
    ]
    axes = range(len(cells))
    for config, periodic in itertools.product(configs, [(), (0,), tuple(axes)]):
        shape = shape_for(grid(*cells, periodic=periodic), outputs=outputs)
        out = batch_for(shape).run(build(config, shape))
        assert out.shape == ((4, 2, *cells) if outputs is None else (4, 3))
        assert out.isfinite().all()


def test_every_cell_reaches_every_other() -> None:
    shape = shape_for(grid(5, 7, channels=1), context=None, times=0)
    for config in (UNet(channels=(4, 8), heads=2), PatchTransformer(width=8, layers=1, heads=2)):
        module = build(config, shape)
        jacobian = torch.autograd.functional.jacobian(module, batch_for(shape, 1).x).reshape(35, 35)
        assert (jacobian.abs() > 0).all()


def test_periodic_convolution_equals_the_padded_one() -> None:
    """Against torch's own circular padding, on one axis, then zeros on the other."""
    torch.manual_seed(1)
    conv = GridConv(2, 3, (6, 5), (True, False)).double()
    x = torch.randn(4, 2, 6, 5, dtype=torch.float64)
    inner = conv.convolution
    wrapped = F.pad(F.pad(x, (0, 0, 1, 1), mode="circular"), (1, 1, 0, 0))
    torch.testing.assert_close(conv(x), F.conv2d(wrapped, inner.weight, inner.bias))  # type: ignore[arg-type]


def test_levels_of_a_pyramid() -> None:
    axes = (Axis("z", 45), Axis("phi", 16, periodic=True), Axis("r", 9))
    assert pyramid(axes, 4) == ((45, 16, 9), (23, 8, 5), (12, 4, 3), (6, 2, 3))
    assert halved((7, 6, 3), (True, True, True)) == (7, 3, 3)
    with pytest.raises(CapabilityError, match="one to three axes"):
        pyramid((*axes, Axis("t", 3)), 2)


@pytest.mark.parametrize("cells", [(5, 8), (9, 4)])
def test_enlarging_fills_the_finer_grid(cells: tuple[int, int]) -> None:
    coarse = halved(cells, (False, False))
    h = torch.arange(coarse[0] * coarse[1], dtype=torch.float64).reshape(1, 1, *coarse)
    fine = enlarge(h, cells)
    rows, columns = torch.arange(cells[0]) // 2, torch.arange(cells[1]) // 2
    assert torch.equal(fine[0, 0], h[0, 0][rows][:, columns])
    levels = Levels(cells=(cells, coarse), periodic=(False, False))
    assert levels.up(1, 3, 1).double()(h).shape == (1, 3, *cells)


def test_coordinates_come_from_the_edges() -> None:
    axis = Axis("r", 2, edges=(0.0, 2.0, 8.0))
    torch.testing.assert_close(axis_fraction(axis), torch.tensor([0.125, 0.625]))
    axes = (axis, Axis("phi", 4, periodic=True))
    found = coordinate_channels(axes)
    assert found.shape == (3, 2, 4)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([-0.75, 0.25]))
    torch.testing.assert_close(found[1] ** 2 + found[2] ** 2, torch.ones(2, 4))
    assert coordinate_channels(axes, "open").shape == (1, 2, 4)
    assert coordinate_channels(axes, "none").shape == (0, 2, 4)


@pytest.mark.parametrize(("cells", "sizes"), [((6, 4), (2, 4)), ((3, 4, 9), (1, 2, 3)), ((8,), (4,))])
def test_patches_hold_their_own_cells_and_join_again(cells: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    patches = _Patches([Axis(f"a{i}", n) for i, n in enumerate(cells)], sizes)
    x = torch.randn(3, 2, *cells)
    tokens = patches.split(x)
    assert torch.equal(patches.join(tokens), x)
    first = x[(slice(None), slice(None), *(slice(0, k) for k in sizes))]
    assert torch.equal(tokens[:, 0], first.reshape(3, -1))
    last = x[(slice(None), slice(None), *(slice(-k, None) for k in sizes))]
    assert torch.equal(tokens[:, -1], last.reshape(3, -1))


def test_patch_sizes() -> None:
    axes = grid(45, 16, 9).axes
    assert PatchTransformer(patch=4).sizes(axes) == (3, 4, 3)
    assert PatchTransformer(patch=(3, 4, 1)).sizes(axes) == (3, 4, 1)
    with pytest.raises(ConfigError, match="must divide the grid"):
        PatchTransformer(patch=(2, 4, 3)).sizes(axes)
    with pytest.raises(ConfigError, match="causal must be an axis"):
        PatchTransformer(causal=3).sizes(axes)
    with pytest.raises(ConfigError, match="multiple of heads"):
        PatchTransformer(width=10, heads=4)
    with pytest.raises(ConfigError, match="multiple of heads"):
        UNet(channels=(8, 10), heads=4)


def test_places_of_patches_respect_the_seam() -> None:
    """Neighbours across the seam of a periodic axis are as near as any others; the ends of an open axis are not."""
    config = PatchTransformer(patch=1, width=8, heads=2, layers=1)
    ring = build(config, shape_for(grid(8, periodic=(0,))))
    gaps = (ring.places - ring.places.roll(1, 0)).norm(dim=-1)  # type: ignore[union-attr,operator]
    torch.testing.assert_close(gaps, gaps[:1].expand(8), atol=1e-5, rtol=0.0)
    line = build(config, shape_for(grid(8))).places
    distance = torch.cdist(line, line)  # type: ignore[arg-type]
    assert distance[0, -1] > 1.3 * distance[0, 1]
    assert (distance + 9.0 * torch.eye(8) > 0.1).all()


def test_causal_patches_do_not_see_later_layers() -> None:
    config = PatchTransformer(patch=(1, 2), width=8, layers=2, heads=2, embedding=8, causal=0)
    shape = shape_for(grid(4, 4, channels=1), context=None, times=0)
    module = build(config, shape)
    jacobian = torch.autograd.functional.jacobian(module, batch_for(shape, 1).x)[0, 0, :, :, 0, 0]
    seen = (jacobian.abs() > 0).any(1).any(-1)
    assert torch.equal(seen, torch.ones(4, 4, dtype=torch.bool).tril())


def test_a_batch_in_any_memory_format() -> None:
    shape = shape_for(grid(6, 8))
    module, batch = build(UNet(channels=(4, 8), heads=2, embedding=8), shape), batch_for(shape)
    other = Batch(batch.x.to(memory_format=torch.channels_last), batch.t, batch.context)
    torch.testing.assert_close(batch.run(module), other.run(module), atol=1e-12, rtol=1e-12)
