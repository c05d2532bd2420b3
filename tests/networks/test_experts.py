"""Linear experts: who sees whom, one pass against variable by variable, nothing added before training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pofx.networks.experts import ExpertNetwork
from pofx.networks.masked import MaskedNetwork

CASES = [
    {"sizes": [3, 3, 3, 3]},
    {"sizes": [3, 3, 3, 3], "context": 2},
    {"sizes": [3, 5, 3, 3], "circular": (1,)},
    {"sizes": [5, 3, 3], "circular": (0,), "context": 1},
]


def network(sizes: list[int], trained: bool = True, **options: object) -> ExpertNetwork:
    torch.manual_seed(1)
    made = ExpertNetwork(sizes, 1, 4, (16, 16), residual=True, gated=True, **options).double()
    if trained:
        torch.nn.init.normal_(made.network.last.weight, std=0.3)
    return made


@pytest.mark.parametrize("case", CASES)
def test_output_sees_earlier_variables_and_the_context_alone(case: dict[str, object]) -> None:
    net, n = network(**case), 3
    x = torch.randn(net.features, n, dtype=torch.float64)
    context = torch.randn(n, int(case.get("context", 0)), dtype=torch.float64) if "context" in case else None
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x, context).sum(1), x).abs().sum(-1)
    owner = [i for i, size in enumerate(net.sizes) for _ in range(size)]
    for row, i in zip(jacobian, owner, strict=True):
        assert (row[i:] == 0).all()
        assert i == 0 or (row[:i] > 0).all()


@pytest.mark.parametrize("case", CASES)
def test_sequence_gives_the_same_parameters(case: dict[str, object]) -> None:
    net, n = network(**case), 5
    x = torch.randn(net.features, n, dtype=torch.float64)
    context = torch.randn(n, int(case.get("context", 0)), dtype=torch.float64) if "context" in case else None
    seen: list[Tensor] = []

    def choose(i: int, raw: Tensor) -> Tensor:
        seen.append(raw)
        return x[i]

    torch.testing.assert_close(net.sequence(n, context, choose), x)
    torch.testing.assert_close(torch.cat(seen), net(x, context), atol=1e-12, rtol=0)


def test_shift_is_the_formula() -> None:
    net = network([3, 3, 3])
    x = torch.randn(3, 7, dtype=torch.float64)
    raw = net.network(x).reshape(3, 7, 7)
    wanted = raw[:, 1].clone()
    for i in range(3):
        gate = raw[i, 3:].softmax(0)
        for k in range(4):
            wanted[i] += gate[k] * sum(net.maps[k, i, j] * x[j] for j in range(i))
    out = net(x).reshape(3, 3, 7)
    torch.testing.assert_close(out[:, 1], wanted)
    torch.testing.assert_close(out[:, 0], raw[:, 0])
    torch.testing.assert_close(out[:, 2], raw[:, 2])


def test_before_training_the_experts_cancel() -> None:
    net = network([3, 3, 3], trained=False, context=2)
    x, context = torch.randn(3, 9, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64)
    assert net(x, context).abs().max() < 1e-6  # the weights are made in float32
    assert isinstance(net.network, MaskedNetwork)
