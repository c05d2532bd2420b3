"""Causal transformer: who sees whom, the cache against one pass, contexts as sets, a density of whole numbers that sums to one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from pofx.config import from_plain, to_plain
from pofx.data.events import Events
from pofx.data.spec import Axis, Column, Field, vector_spec
from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.networks.causal import CausalNetwork, CausalTransformer, TokenModel, choose

CONFIG = CausalTransformer(width=16, layers=2, heads=2)
SPEC = vector_spec(2, "c") | {"seen": Field("cloud", (4, 2), (Column("u"), Column("phi")))}
ANGLES = {"seen": (1,)}
LENGTH, N = 5, 3


def context(dtype: torch.dtype = torch.float64) -> Events:
    generator = torch.Generator().manual_seed(2)
    fields = {"c": torch.randn(N, 2, generator=generator), "seen": torch.randn(N, 4, 2, generator=generator)}
    mask = torch.tensor([[True, True, False, True], [False] * 4, [True] * 4])
    return Events({name: value.to(dtype) for name, value in fields.items()}, masks={"seen": mask})


def network(conditional: bool, dtype: torch.dtype = torch.float64) -> CausalNetwork:
    torch.manual_seed(1)
    made = CONFIG.build(LENGTH, *((SPEC, ANGLES) if conditional else ()))
    torch.nn.init.normal_(made.places)
    return made.to(dtype).eval()


def tokens(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(N, LENGTH, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_token_is_seen_by_what_follows_it_alone(conditional: bool) -> None:
    net, given = network(conditional), context() if conditional else None
    jacobian = torch.autograd.functional.jacobian(lambda y: net(y, given).sin().sum((0, 2)), tokens()).abs().sum((1, 3))
    assert jacobian.shape == (LENGTH + 1, LENGTH)
    for row in range(LENGTH + 1):
        assert (jacobian[row, row:] == 0).all()
        assert (jacobian[row, :row] > 1e-6).all()


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_cache_gives_what_one_pass_gives(conditional: bool, dtype: torch.dtype, close: float) -> None:
    net, given, y = network(conditional, dtype), context(dtype) if conditional else None, tokens(dtype)
    hidden, cache = net.start(N, given)
    rows = [hidden]
    for i in range(LENGTH):
        hidden, cache = net.step(y[:, i], cache)
        rows.append(hidden)
    torch.testing.assert_close(torch.stack(rows, 1), net(y, given), atol=close, rtol=close)


def test_gradients_flow_through_the_cache() -> None:
    net, y = network(False), tokens().requires_grad_(True)
    _, cache = net.start(N)
    for i in range(LENGTH):
        hidden, cache = net.step(y[:, i], cache)
    (stepwise,) = torch.autograd.grad(hidden.sin().sum(), y)
    (whole,) = torch.autograd.grad(net(y)[:, -1].sin().sum(), y)
    torch.testing.assert_close(stepwise, whole, atol=1e-12, rtol=1e-12)


def test_a_context_cloud_is_a_set_and_its_padding_is_not_seen() -> None:
    net, y, given = network(True), tokens(), context()
    order = torch.tensor([2, 0, 3, 1])
    turned = given.replace(
        fields=given.fields | {"seen": given.fields["seen"][:, order]}, masks={"seen": given.masks["seen"][:, order]}
    )
    torch.testing.assert_close(net(y, turned), net(y, given), atol=1e-12, rtol=1e-12)
    mask = given.masks["seen"]
    junk = given.replace(fields=given.fields | {"seen": torch.where(mask[..., None], given.fields["seen"], 1e6)})
    torch.testing.assert_close(net(y, junk), net(y, given), atol=0, rtol=0)
    other = given.replace(fields=given.fields | {"seen": given.fields["seen"] + 1.0})
    moved = (net(y, other) - net(y, given)).abs().sum((1, 2))
    assert moved[1] == 0  # the empty cloud
    assert (moved[[0, 2]] > 0).all()


def test_context_tokens_see_each_other_in_both_directions() -> None:
    """The second block's keys of every token of the prefix depend on every point, whichever comes first."""
    net, given = network(True), context()

    def keys(points: Tensor) -> Tensor:
        _, cache = net.start(N, given.replace(fields=given.fields | {"seen": points}))
        return cache.seen[1][0][2].sin().sum((0, 2))

    jacobian = torch.autograd.functional.jacobian(keys, given.fields["seen"])[:, 2].abs().sum(-1)
    assert jacobian.shape == (6, 4)  # the vector, four points and the start token
    assert (jacobian > 1e-6).all()


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(1)
    net = CausalTransformer(width=16, layers=1, dropout=0.5).build(LENGTH)
    y = tokens(torch.float32)
    assert not torch.equal(net(y), net(y))
    net.eval()
    assert torch.equal(net(y), net(y))


def test_config_survives_json_and_says_what_is_wrong() -> None:
    assert from_plain(to_plain(CONFIG)) == CONFIG
    for wrong in ({"width": 10, "heads": 4}, {"layers": 0}, {"dropout": 1.0}, {"activation": "step"}):
        with pytest.raises(ConfigError):
            CausalTransformer(**wrong)
    with pytest.raises(CapabilityError, match="grid"):
        CONFIG.build(2, {"g": Field("grid", (1, 4), (Column("e"),), (Axis("z", 4),))})


def test_wrong_shapes_are_told() -> None:
    net = network(True)
    with pytest.raises(ShapeError, match="at most 5 tokens"):
        net(torch.zeros(N, 6, 16, dtype=torch.float64), context())
    with pytest.raises(ShapeError, match="width 16"):
        net(torch.zeros(N, 2, 8, dtype=torch.float64), context())
    with pytest.raises(ShapeError, match="context=None"):
        net(tokens())


@pytest.fixture
def codes() -> TokenModel:
    torch.manual_seed(4)
    made = TokenModel(CONFIG, length=3, values=4, context=vector_spec(1, "c")).double()
    torch.nn.init.normal_(made.head.weight, std=0.5)
    return made


def test_a_density_of_whole_numbers_sums_to_one_and_is_drawn_from(codes: TokenModel) -> None:
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    given = Events({"c": torch.full((1, 1), 0.7, dtype=torch.float64)})
    shares = codes.log_prob(every, Events({"c": given.x.expand(64, 1)})).exp().detach()
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-12)
    n = 20_000
    u = torch.rand(n, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        drawn = codes.draw(u, Events({"c": given.x.expand(n, 1)}))
    counts = torch.bincount((drawn * torch.tensor([16, 4, 1])).sum(1), minlength=64)
    assert stats.chisquare(counts.numpy(), n * shares.numpy()).pvalue > 1e-3


def test_learns_a_rule_of_whole_numbers() -> None:
    """The third number is the sum of the first two modulo 3: the entropy is that of two fair dice, 2 log 3."""
    torch.manual_seed(6)
    model = TokenModel(CausalTransformer(width=32, layers=2), length=3, values=3)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    first = torch.randint(3, (512, 2), generator=torch.Generator().manual_seed(7))
    data = torch.cat((first, first.sum(1, keepdim=True) % 3), 1)
    for _ in range(150):
        optimiser.zero_grad()
        loss = -model.log_prob(data).mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) == pytest.approx(2 * math.log(3), abs=0.02)


def test_choice_never_leaves_the_range() -> None:
    logits = torch.tensor([[0.0, -100.0, 0.0]]).expand(3, 3)
    assert choose(logits, torch.tensor([1e-9, 0.5001, 1.0])).tolist() == [0, 2, 2]
