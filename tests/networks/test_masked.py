"""Masked networks: who sees whom, the block-triangular product, and the one-pass sequence against the full evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pofx.errors import ConfigError
from pofx.networks.masked import MaskedLinear, MaskedNetwork

SHAPES = {
    "plain": {"hidden": (30, 40)},
    "residual": {"hidden": (32, 32, 32), "residual": True},
    "gated": {"hidden": (24, 24), "residual": True, "gated": True},
    "narrow": {"hidden": (3, 3)},
}


def network(
    shape: str, context: int = 0, circular: tuple[int, ...] = (), sizes: tuple[int, ...] = (3, 2, 4, 3, 1)
) -> MaskedNetwork:
    torch.manual_seed(0)
    net = MaskedNetwork(sizes, context=context, circular=circular, activation="silu", **SHAPES[shape]).double()  # type: ignore[arg-type]
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return net


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("circular", [(), (0, 3)])
def test_output_i_depends_on_earlier_inputs_alone(shape: str, circular: tuple[int, ...]) -> None:
    net = network(shape, circular=circular)
    x = torch.randn(5, 1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v)[:, 0], x)[:, :, 0]
    rows = torch.tensor([i for i, size in enumerate(net.sizes) for _ in range(size)])
    seen = jacobian.abs() > 0
    assert not seen[rows[:, None] <= torch.arange(5)].any()
    if shape != "narrow":
        assert seen[rows[:, None] > torch.arange(5)].all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("circular", [(), (1, 4)])
@pytest.mark.parametrize("track", [False, True], ids=["quiet", "tracked"])
def test_sequence_gives_the_parameters_of_the_full_evaluation(
    shape: str, context: int, circular: tuple[int, ...], track: bool
) -> None:
    sizes = (2, 1, 3, 2, 2, 1, 1, 2, 3, 1, 2)  # more variables than one run
    net = network(shape, context, circular, sizes)
    x = torch.randn(len(sizes), 6, dtype=torch.float64)
    c = torch.randn(6, context, dtype=torch.float64) if context else None
    given: list[Tensor] = []

    def choose(i: int, raw: Tensor) -> Tensor:
        given.append(raw)
        return x[i]

    with torch.set_grad_enabled(track):
        out = net.sequence(6, c, choose)
    assert torch.equal(out.detach(), x)
    torch.testing.assert_close(torch.cat(given), net(x, c), atol=1e-12, rtol=1e-12)


def test_block_product_equals_the_masked_product_with_gradients() -> None:
    torch.manual_seed(1)
    layer = MaskedLinear([1, 1, 2, 3, 3, 4], [0, 1, 1, 2, 3, 3, 4, 5]).double()
    h = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 9, dtype=torch.float64)
    (layer(h) * weight).sum().backward()
    ours = [h.grad.clone(), layer.weight.grad.clone(), layer.bias.grad.clone()]
    h.grad = layer.weight.grad = layer.bias.grad = None
    plain = (layer.weight * layer.mask) @ h + layer.bias[:, None]
    (plain * weight).sum().backward()
    for a, b in zip(ours, [h.grad, layer.weight.grad, layer.bias.grad], strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(layer(h), plain)


def test_every_weight_that_counts_receives_a_gradient() -> None:
    net = network("gated", context=2)
    (net(torch.randn(5, 64, dtype=torch.float64), torch.randn(64, 2, dtype=torch.float64)) ** 2).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.abs() > 0).any(), name


def test_dropout_is_silent_in_eval() -> None:
    net = MaskedNetwork((2, 2, 2), (16, 16), dropout=0.5)
    for parameter in net.parameters():
        parameter.data += 0.3
    x = torch.randn(3, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_bad_shapes_are_typed_errors() -> None:
    with pytest.raises(ConfigError, match="activation must be one of"):
        MaskedNetwork((1, 1), activation="step")
    with pytest.raises(ConfigError, match="equal width"):
        MaskedNetwork((1, 1), (8, 16), residual=True)


def test_one_variable() -> None:
    assert network("plain", sizes=(3,))(torch.zeros(1, 4, dtype=torch.float64)).shape == (3, 4)
