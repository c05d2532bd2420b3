"""What every network must do, whatever it is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CLOUD, CLOUDS, CONFIGS, IMAGE, VECTOR, Batch, batch_for, build, by_name, columns, shape_for
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, stack_module_state, vjp, vmap

from pofx.config import from_plain, to_plain
from pofx.data.events import Events
from pofx.data.spec import Field
from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.networks import NetworkShape, ResidualMLP, default_network, network_class, network_names

every = pytest.mark.parametrize("name", CONFIGS)
every_cloud = pytest.mark.parametrize("name", CLOUDS)
results = pytest.mark.parametrize("outputs", [None, 2], ids=["field", "vector"])


@every
@pytest.mark.parametrize(("context", "times"), [(None, 0), (None, 1), ("vector", 0), ("cloud", 0), ("both", 2)])
@results
def test_shape_of_the_result_and_a_gradient_for_every_parameter(
    name: str, context: str | None, times: int, outputs: int | None
) -> None:
    module, shape = by_name(name, context=context, times=times, outputs=outputs)
    batch = batch_for(shape)
    out = batch.run(module)
    assert out.shape == (batch.x.shape if outputs is None else (4, 2))
    assert out.isfinite().all()
    (out * torch.randn(out.shape, dtype=out.dtype)).sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad.abs() > 1e-9).any(), key


@every
def test_channels_of_the_result_may_differ_from_those_of_the_field(name: str) -> None:
    module, shape = by_name(name, channels=5)
    out = batch_for(shape).run(module)
    expected = list(shape.field.shape)
    expected[-1 if shape.field.kind == "cloud" else 0] = 5
    assert list(out.shape[1:]) == expected


@every
def test_fields_start_at_zero_unless_asked_otherwise(name: str) -> None:
    config, field = CONFIGS[name]
    shape = shape_for(field)
    batch = batch_for(shape)
    assert batch.run(config.build(shape).double()).abs().max() == 0.0
    for changes in ({"zero_start": False}, {"spectral_norm": True} if "weight" not in name else {"zero_start": False}):
        other = type(config)(**{**vars(config), **changes})
        assert batch.run(other.build(shape).double()).abs().max() > 0.0
    vector = shape_for(field, outputs=2)
    assert batch.run(config.build(vector).double()).abs().max() > 0.0


@every
@results
def test_an_event_does_not_depend_on_its_neighbours(name: str, outputs: int | None) -> None:
    module, shape = by_name(name, outputs=outputs)
    batch = batch_for(shape, 5)
    together = batch.run(module)
    alone = torch.cat([batch[i : i + 1].run(module) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=1e-10)


@every
def test_result_depends_on_time_and_on_every_field_of_the_context(name: str) -> None:
    module, shape = by_name(name)
    batch = batch_for(shape)
    out = batch.run(module)[-1]
    assert batch.context is not None
    assert batch.t is not None
    assert not torch.allclose(out, batch.replace(t=batch.t + 0.3).run(module)[-1])
    for field in batch.context.fields:
        shifted = {**batch.context.fields, field: batch.context.fields[field] + 0.5}
        changed = batch.replace(context=batch.context.replace(fields=shifted, masks={}))
        assert not torch.allclose(out, changed.run(module)[-1]), field


@every
def test_one_time_may_come_flat(name: str) -> None:
    module, shape = by_name(name)
    batch = batch_for(shape)
    assert batch.t is not None
    assert torch.equal(batch.run(module), batch.replace(t=batch.t[:, 0]).run(module))


def padded(batch: Batch, more: int) -> Batch:
    """The same events with more padding, which holds anything but numbers."""
    assert batch.mask is not None
    rubbish = torch.full((len(batch.x), more, batch.x.shape[2]), float("nan"), dtype=batch.x.dtype)
    mask = torch.cat((batch.mask, batch.mask.new_zeros(len(batch.x), more)), 1)
    return batch.replace(x=torch.cat((batch.x, rubbish), 1), mask=mask)


@every_cloud
@results
def test_padding_changes_nothing(name: str, outputs: int | None) -> None:
    module, shape = by_name(name, outputs=outputs)
    batch = batch_for(shape)
    short, long = batch.run(module), padded(batch, 3).run(module)
    if outputs is None:
        assert (long[:, short.shape[1] :] == 0.0).all()
        assert (short[~batch.mask] == 0.0).all()  # type: ignore[operator]
        long = long[:, : short.shape[1]]
    torch.testing.assert_close(short, long, atol=1e-10, rtol=1e-10)


@every_cloud
def test_no_mask_means_that_all_points_are_real(name: str) -> None:
    module, shape = by_name(name)
    batch = batch_for(shape)
    full = batch.replace(x=torch.randn_like(batch.x), mask=torch.ones_like(batch.mask))  # type: ignore[arg-type]
    torch.testing.assert_close(full.run(module), full.replace(mask=None).run(module), atol=1e-12, rtol=1e-12)


@every
@pytest.mark.parametrize("context", ["cloud", "both"])
def test_padding_and_order_of_the_context_change_nothing(name: str, context: str) -> None:
    module, shape = by_name(name, context=context)
    batch = batch_for(shape)
    assert batch.context is not None
    jet, mask = batch.context.fields["jet"], batch.context.masks["jet"]
    order = torch.randperm(jet.shape[1] + 2, generator=torch.Generator().manual_seed(3))
    jet = torch.cat((jet, torch.full_like(jet[:, :2], float("nan"))), 1)[:, order]
    mask = torch.cat((mask, torch.zeros_like(mask[:, :2])), 1)[:, order]
    other = batch.context.replace(fields={**batch.context.fields, "jet": jet}, masks={"jet": mask})
    torch.testing.assert_close(batch.run(module), batch.replace(context=other).run(module), atol=1e-10, rtol=1e-10)


@every_cloud
@results
def test_permuted_points_give_permuted_or_equal_results(name: str, outputs: int | None) -> None:
    module, shape = by_name(name, outputs=outputs)
    batch = batch_for(shape)
    order = torch.randperm(batch.x.shape[1], generator=torch.Generator().manual_seed(3))
    other = batch.replace(x=batch.x[:, order], mask=batch.mask[:, order]).run(module)  # type: ignore[index]
    expected = batch.run(module) if outputs else batch.run(module)[:, order]
    torch.testing.assert_close(other, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", [name for name in CLOUDS if name != "pointwise"])
@results
def test_the_number_of_points_is_seen(name: str, outputs: int | None) -> None:
    """Every point four times: means and softmaxes stay the same."""
    module, _ = by_name(name, context=None, times=0, outputs=outputs)
    x = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    few, many = module(x), module(x.repeat(1, 4, 1))
    change = (few - (many if outputs else many[:, :3])).abs()
    assert bool((change > 1e-6).all())


@every_cloud
@results
def test_empty_clouds_give_numbers_and_gradients(name: str, outputs: int | None) -> None:
    module, shape = by_name(name, outputs=outputs)
    batch = batch_for(shape)
    empty = batch.replace(x=torch.zeros_like(batch.x), mask=torch.zeros_like(batch.mask))  # type: ignore[arg-type]
    out = empty.run(module)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    assert batch.mask is not None
    none = batch.replace(x=batch.x[:, :0], mask=batch.mask[:, :0]).run(module)
    torch.testing.assert_close(none, out if outputs else out[:, :0], atol=1e-10, rtol=1e-10)


def one(module: nn.Module, batch: Batch) -> tuple[Any, tuple[Tensor, ...]]:
    """A function of tensors of one event, and these tensors with the events in front."""
    context = batch.context
    assert context is not None
    names, masks = list(context.fields), list(context.masks)
    arrays = [batch.x, batch.t, *context.fields.values(), *context.masks.values()]
    arrays += [] if batch.mask is None else [batch.mask]

    def function(weights: Any, *parts: Tensor) -> Tensor:
        x, t, *rest = (part[None] for part in parts)
        inner = Events(dict(zip(names, rest, strict=False)), dict(zip(masks, rest[len(names) :], strict=False)))
        mask = None if batch.mask is None else rest[-1]
        out: Tensor = functional_call(module, weights, (x, t, inner, mask))
        return out[0]

    return function, tuple(arrays)  # type: ignore[arg-type]


@every
def test_vectorised_over_events_and_over_weights(name: str) -> None:
    module, shape = by_name(name)
    batch = batch_for(shape)
    function, arrays = one(module, batch)
    weights = dict(module.named_parameters()) | dict(module.named_buffers())
    out = vmap(function, (None, *(0 for _ in arrays)))(weights, *arrays)
    torch.testing.assert_close(out, batch.run(module), atol=1e-10, rtol=1e-10)
    config, _ = CONFIGS[name]
    members = [build(config, shape, stir=stir) for stir in (0.1, 0.2)]
    stacked, buffers = stack_module_state(members)
    both = vmap(vmap(function, (None, *(0 for _ in arrays))), (0, *(None for _ in arrays)))(stacked | buffers, *arrays)
    for member, row in zip(members, both, strict=True):
        torch.testing.assert_close(row, batch.run(member), atol=1e-10, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # from within torch.func.jvp
@every
def test_derivatives_along_a_direction_and_their_gradient(name: str) -> None:
    """v.Jv, of which the exact divergence is a sum, by forward and by reverse mode against finite differences; it trains the weights."""
    module, shape = by_name(name)
    batch = batch_for(shape)[2:3]
    function, (x, *rest) = one(module, batch)
    weights = dict(module.named_parameters()) | dict(module.named_buffers())

    def flat(x: Tensor) -> Tensor:
        return function(weights, x, *(part[0] for part in rest))

    v = torch.randn(x[0].shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
    numeric = (v * (flat(x[0] + 1e-5 * v) - flat(x[0] - 1e-5 * v)) / 2e-5).sum()
    forward = (v * jvp(flat, (x[0],), (v,))[1]).sum()
    backward = (v * vjp(flat, x[0])[1](v)[0]).sum()
    torch.testing.assert_close(forward, numeric, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(backward, forward, atol=1e-10, rtol=1e-10)
    forward.backward()
    assert any(p.grad is not None and (p.grad.abs() > 0).any() for p in module.parameters())


def test_exact_trace_over_a_batch() -> None:
    """The divergence that ODE densities need: a vectorised Jacobian against one event at a time."""
    module, shape = by_name("residual-mlp")
    batch = batch_for(shape)
    function, arrays = one(module, batch)
    weights = dict(module.named_parameters()) | dict(module.named_buffers())
    jacobians = vmap(jacrev(lambda x, *rest: function(weights, x, *rest)))(*arrays)
    for row, jacobian in enumerate(jacobians):
        single = torch.autograd.functional.jacobian(
            lambda x, row=row: batch[row : row + 1].replace(x=x).run(module)[0], batch.x[row : row + 1]
        )
        torch.testing.assert_close(jacobian, single[:, 0])


@every
def test_gradient_penalty_by_double_backward(name: str) -> None:
    module, shape = by_name(name, outputs=1)
    batch = batch_for(shape)
    x = batch.x.requires_grad_(True)
    (slope,) = torch.autograd.grad(batch.run(module).sum(), x, create_graph=True)
    assert (slope[-1].abs() > 0).any()
    slope.square().sum().backward()
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert any((grad.abs() > 0).any() for grad in grads)


@every
def test_single_and_mixed_precision_agree_with_double(name: str) -> None:
    module, shape = by_name(name)
    batch = batch_for(shape)
    exact = batch.run(module)
    single = batch_for(shape, dtype=torch.float32)
    assert batch.context is not None
    context = batch.context.map(lambda a: a if a.dtype == torch.bool else a.float())
    single = Batch(batch.x.float(), None if batch.t is None else batch.t.float(), context, batch.mask)
    out = single.run(module.float())
    assert out.dtype == torch.float32
    scale = float(exact.detach().abs().max())
    torch.testing.assert_close(out.double(), exact, atol=1e-3 * scale, rtol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = single.run(module)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.double(), exact, atol=0.1 * scale, rtol=0.0)


@every
def test_settings_survive_the_card(name: str) -> None:
    config, _ = CONFIGS[name]
    assert from_plain(to_plain(config)) == config
    assert network_class(config.name) is type(config)
    assert config.kinds >= {CONFIGS[name][1].kind}


@every
def test_state_is_the_weights_alone(name: str) -> None:
    """Loading one module's state into another gives the same function: nothing else is remembered."""
    config, field = CONFIGS[name]
    shape = shape_for(field)
    module, other = build(config, shape), build(config, shape, stir=0.7)
    other.load_state_dict(module.state_dict())
    batch = batch_for(shape)
    assert torch.equal(batch.run(module), batch.run(other))


GRAPHS = ("set-transformer-inducing",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in GRAPHS else [pytest.mark.slow]) for name in CONFIGS]
)
def test_graph_does_not_depend_on_the_data(name: str) -> None:
    """Exported once with any number of events, the graph gives what the module gives for another number."""
    module, shape = by_name(name, context="vector")

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor, t: Tensor, c: Tensor, mask: Tensor | None = None) -> Tensor:
            out: Tensor = self.inner(x, t, Events({"c": c}), mask)
            return out

    def arguments(batch: Batch) -> tuple[Tensor, ...]:
        assert batch.context is not None
        parts = (batch.x, batch.t, batch.context.fields["c"], batch.mask)
        return tuple(part for part in parts if part is not None)

    first, second = arguments(batch_for(shape, 4)), arguments(batch_for(shape, 7, seed=2))
    events = torch.export.Dim("events", min=2, max=4096)
    graph = torch.export.export(Flat(), first, dynamic_shapes=tuple({0: events} for _ in first), strict=False)
    torch.testing.assert_close(graph.module()(*second), Flat()(*second), atol=1e-10, rtol=1e-10)


@every
def test_spectral_norm_bounds_every_layer(name: str) -> None:
    config, field = CONFIGS[name]
    if name == "epic-weight-norm":
        with pytest.raises(ConfigError, match="one of weight_norm and spectral_norm"):
            type(config)(**{**vars(config), "spectral_norm": True})
        return
    torch.manual_seed(0)
    module = type(config)(**{**vars(config), "spectral_norm": True}).build(shape_for(field, outputs=1)).double()
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Linear, nn.Conv2d, nn.Conv3d))]
    weights = [[layer.weight for _ in range(30)][-1] for layer in layers]  # each look in training is a power iteration
    norms = torch.stack([torch.linalg.matrix_norm(weight.flatten(1), 2) for weight in weights])
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=0.1, rtol=0.0)
    batch = batch_for(shape_for(field, outputs=1))
    batch.run(module).sum().backward()
    module.eval()
    assert torch.equal(batch.run(module), batch.run(module))


@every
def test_dropout_acts_in_training_only(name: str) -> None:
    config, field = CONFIGS[name]
    module = build(type(config)(**{**vars(config), "dropout": 0.5}), shape_for(field))
    batch = batch_for(shape_for(field))
    assert torch.equal(batch.run(module), batch.run(module))
    module.train()
    assert not torch.equal(batch.run(module), batch.run(module))


@pytest.mark.parametrize("name", ["residual-mlp", "unet-2d", "patches-2d", *CLOUDS])
def test_angles_enter_as_points_of_the_circle(name: str) -> None:
    config, field = CONFIGS[name]
    shape = shape_for(field, circular=(1,), circular_context={"c": (0,), "jet": (1,)})
    module, batch = build(config, shape), batch_for(shape)
    assert batch.context is not None
    turned, (c, jet) = batch.x.clone(), batch.context.fields.values()
    place = (slice(None), slice(None), 1) if field.kind == "cloud" else (slice(None), 1)
    turned[place] += 2.0 * torch.pi
    fields = {
        "c": c + 2.0 * torch.pi * torch.tensor([1.0, 0.0], dtype=c.dtype),
        "jet": jet + 2.0 * torch.pi * torch.tensor([0.0, -1.0], dtype=c.dtype),
    }
    same = batch.replace(x=turned, context=batch.context.replace(fields=fields))
    torch.testing.assert_close(same.run(module), batch.run(module), atol=1e-9, rtol=1e-9)
    assert not torch.allclose(batch.replace(x=batch.x + 1.0).run(module), batch.run(module))


def test_neighbours_alone_send_messages() -> None:
    """A far point changes the result of a point only if it is among its nearest ones (brute force)."""
    module, _ = by_name("message-passing-near", context=None, times=0)
    x = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [5, 5, 0], [5.1, 5, 0], [9, 9, 0]], dtype=torch.float64)[None]
    jacobian = torch.autograd.functional.jacobian(lambda x: module(x)[0].sum(-1), x)[:, 0].abs().sum(-1)
    seen = jacobian > 0
    expected = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2), torch.ones(1, 1)).bool()
    expected[4, 3] = True  # the nearest point of the lonely one ...
    expected[4, 2] = True  # ... has heard of its own neighbour in the first round
    assert torch.equal(seen, expected)


def test_points_of_the_pointwise_network_are_independent() -> None:
    module, _ = by_name("pointwise", context=None, times=0)
    x = torch.randn(1, 6, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: module(x)[0].sum(-1), x)[:, 0].abs().sum(-1)
    assert torch.equal(jacobian > 0, torch.eye(6, dtype=torch.bool))


@pytest.mark.parametrize("name", [name for name in CLOUDS if name != "pointwise"])
def test_points_of_other_networks_talk(name: str) -> None:
    module, _ = by_name(name, context=None, times=0)
    x = torch.randn(1, 3, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: module(x)[0].sum(-1), x)[:, 0].abs().sum(-1)
    assert (jacobian > 0).sum() > 3


def test_defaults_and_names() -> None:
    assert [default_network(kind).name for kind in ("vector", "grid", "cloud")] == ["residual-mlp", "unet", "epic"]
    assert len(network_names()) == 8
    assert network_names("vector") == ("residual-mlp",)
    with pytest.raises(ConfigError, match="no network is called"):
        network_class("perceptron")


def test_sizes_of_the_defaults() -> None:
    """Weights of the defaults: for two CPU cores."""
    from cases import grid

    fields = {"vector": Field("vector", (50,), columns(50)), "grid": grid(16, 16, channels=1), "cloud": CLOUD}
    most = {"vector": 550_000, "grid": 150_000, "cloud": 150_000}
    for kind, field in fields.items():
        module = default_network(field.kind).build(shape_for(field))
        assert sum(p.numel() for p in module.parameters()) < most[kind]


def test_misuse_is_a_typed_error() -> None:
    shape = NetworkShape(VECTOR, times=1, context={"c": VECTOR})
    module = ResidualMLP(width=8).build(shape)
    x = torch.zeros(2, 3)
    with pytest.raises(ShapeError, match=r"expected a vector of shape \(n, 3\)"):
        module(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="got t=None"):
        module(x)
    with pytest.raises(ShapeError, match="got context=None"):
        module(x, torch.zeros(2))
    with pytest.raises(ShapeError, match="with the field 'c'"):
        module(x, torch.zeros(2), Events({"d": x}))
    with pytest.raises(ShapeError, match="1 time"):
        module(x, torch.zeros(2, 2), Events({"c": x}))
    with pytest.raises(CapabilityError, match=r"networks for it: residual-mlp, unet"):
        default_network("cloud").build(NetworkShape(IMAGE))
    with pytest.raises(CapabilityError, match="is a grid"):
        NetworkShape(VECTOR, context={"map": IMAGE})
    with pytest.raises(ConfigError, match="outputs=2 and channels=2"):
        NetworkShape(VECTOR, outputs=2, channels=2)
    with pytest.raises(ConfigError, match="circular"):
        NetworkShape(VECTOR, circular=(3,))
    with pytest.raises(ConfigError, match="times"):
        NetworkShape(VECTOR, times=-1)
    with pytest.raises(ConfigError, match="activation"):
        ResidualMLP(activation="step")
    with pytest.raises(ShapeError, match="mask of shape"):
        default_network("cloud").build(NetworkShape(CLOUD))(torch.zeros(2, 6, 3), mask=torch.ones(2, 5).bool())
