"""Times, contexts and pools: closed forms and what they must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from cases import CONTEXTS, columns
from torch.nn import functional as F

from pofx.data.events import Events
from pofx.data.spec import Field
from pofx.errors import ShapeError
from pofx.networks.attention import Attention
from pofx.networks.embeddings import Conditioning, ContextEmbedding, ContextTokens, TimeEmbedding
from pofx.networks.layers import Angles, Film
from pofx.networks.pooling import CloudEncoder, Points, Pool


def test_time_features_are_sines_and_cosines() -> None:
    module = TimeEmbedding(1, 5, frequencies=2, fastest=4.0)
    torch.testing.assert_close(module.rates, 2.0 * math.pi * torch.tensor([0.25, 4.0]))
    t = torch.tensor([0.1, 0.7])
    features = torch.stack(
        [
            t,
            *((2.0 * math.pi * f * t).cos() for f in (0.25, 4.0)),
            *((2.0 * math.pi * f * t).sin() for f in (0.25, 4.0)),
        ],
        -1,
    )
    torch.testing.assert_close(module(t), module.linear(features))
    torch.testing.assert_close(module(t), module(t[:, None]))


def test_times_are_told_apart() -> None:
    torch.manual_seed(1)
    module = TimeEmbedding(2, 64)
    t = torch.rand(200, 2)
    assert torch.pdist(module(t)).min() > 0.01
    assert not torch.allclose(module(t), module(t.flip(1)))
    with pytest.raises(ShapeError, match=r"2 time\(s\)"):
        module(t[:, :1])


def test_condition_is_absent_without_time_and_context() -> None:
    none = Conditioning(0, None, {}, 8)
    assert none.width == 0
    assert none(torch.zeros(3, 2), None, None) is None
    assert sum(p.numel() for p in none.parameters()) == 0


def test_context_embedding_adds_its_fields() -> None:
    torch.manual_seed(1)
    module = ContextEmbedding(CONTEXTS["both"], 8)
    c, jet = torch.randn(3, 2), torch.randn(3, 5, 2)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0] * 5, [1] * 5]).bool()
    out = module(Events({"c": c, "jet": jet}, {"jet": mask}))
    torch.testing.assert_close(out, module.parts[0](c) + module.parts[1](jet, mask))
    named = module(Events({"jet": jet, "c": c}, {"jet": mask}))  # order of the fields does not matter
    assert torch.equal(out, named)


def test_tokens_are_points_and_vectors() -> None:
    module = ContextTokens(CONTEXTS["both"], 8)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0] * 5]).bool()
    context = Events({"c": torch.randn(2, 2), "jet": torch.randn(2, 5, 2)}, {"jet": mask})
    tokens, points = module(context)
    assert tokens.shape == (2, 6, 8)
    assert points.mask is not None
    assert torch.equal(points.mask, torch.cat((torch.ones(2, 1).bool(), mask), 1))
    bare, all_real = module(Events(context.fields))
    assert all_real.mask is None
    assert bare.shape == tokens.shape


def test_pool_is_mean_sum_count_and_a_weighted_mean() -> None:
    torch.manual_seed(1)
    pool = Pool(3, heads=1).double()
    h = torch.randn(3, 4, 3, dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    out = pool(h, Points.of(h, mask))
    kept = h[0][mask[0]]
    assert pool.attention is not None
    weights = pool.attention(kept).softmax(0)
    expected = torch.cat((kept.mean(0), 0.01 * kept.sum(0), torch.tensor([math.log(3.0)]), (weights * kept).sum(0)))
    torch.testing.assert_close(out[0], expected)
    assert out[1].abs().max() == 0.0
    torch.testing.assert_close(out[2], pool(h[2:], Points.of(h[2:], None))[0])


def test_encoder_counts_points() -> None:
    """Clouds that differ only in how often each point occurs are told apart: the mean alone would not."""
    torch.manual_seed(1)
    module = CloudEncoder(2, 8)
    once = torch.randn(1, 3, 2)
    assert not torch.allclose(module(once), module(once.repeat(1, 2, 1)), atol=1e-3)


def test_attention_equals_the_fused_kernel() -> None:
    torch.manual_seed(1)
    module = Attention(8, 2).double()
    h, memory = torch.randn(3, 4, 8, dtype=torch.float64), torch.randn(3, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 1], [1] * 5]).bool()
    q = module.query(h).unflatten(-1, (2, 4)).transpose(1, 2)
    k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in module.keys(memory).chunk(2, -1))
    fused = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
    expected = module.out(fused.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(h, memory, Points.of(memory, mask).bias()), expected)


def test_angles_and_film() -> None:
    x = torch.randn(4, 3, 5)
    torch.testing.assert_close(
        Angles(3, (0, 2), dim=1)(x),
        torch.stack((x[:, 1], x[:, 0].cos(), x[:, 2].cos(), x[:, 0].sin(), x[:, 2].sin()), 1),
    )
    c = torch.randn(4, 2)
    for dim, width in ((-1, 5), (1, 3)):
        film = Film(2, width, dim=dim)
        scale, shift = film.linear(c).chunk(2, -1)
        expand = (lambda a: a[:, None, :]) if dim == -1 else (lambda a: a[:, :, None])
        torch.testing.assert_close(film(x, c), x * (1.0 + expand(scale)) + expand(shift))


def test_context_cloud_may_be_longer_than_its_spec() -> None:
    module = ContextEmbedding({"jet": Field("cloud", (5, 2), columns(2))}, 8)
    assert module(Events({"jet": torch.randn(3, 9, 2)})).shape == (3, 8)
