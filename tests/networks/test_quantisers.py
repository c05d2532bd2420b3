"""Quantisers against sums by hand, and lattices of vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pofx.data.events import Events
from pofx.data.spec import Axis, Column, Field, vector_spec
from pofx.errors import ConfigError
from pofx.networks.base import NetworkShape
from pofx.networks.lattices import LatticeDecoder, LatticeEncoder
from pofx.networks.quantisers import FiniteScalarQuantiser, VectorQuantiser


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Fixed levels


@pytest.mark.parametrize("levels", [(2,), (3, 2), (8, 5, 5), (4, 7, 2)])
def test_codes_and_levels_are_a_bijection(levels: tuple[int, ...]) -> None:
    quantiser = FiniteScalarQuantiser(levels).double()
    codes = torch.arange(math.prod(levels))
    values = quantiser.values(codes)
    assert torch.equal(quantiser.codes((values * (quantiser.levels // 2)).round()), codes)
    assert len({tuple(row) for row in values.tolist()}) == len(codes)
    for column, count in enumerate(levels):
        assert len(values[:, column].unique()) == count
        assert float(values[:, column].min()) >= -1.0
        assert float(values[:, column].max()) <= 1.0


@pytest.mark.parametrize("levels", [(2, 2), (8, 5), (3, 4)])
def test_every_code_is_reached_and_rounding_is_less_than_half_a_level(levels: tuple[int, ...]) -> None:
    quantiser = FiniteScalarQuantiser(levels).double()
    z = 12.0 * (uniform(20_000, 1, 2) - 0.5)
    found = quantiser(z)
    assert len(found.codes.unique()) == math.prod(levels)
    apart = found.values * (quantiser.levels // 2) - quantiser.squashed(z)
    assert float(apart.abs().max()) <= 0.5
    torch.testing.assert_close(found.values, quantiser.values(found.codes))
    assert not found.distance.any()


def test_the_gradient_of_levels_is_that_of_the_squashing() -> None:
    quantiser = FiniteScalarQuantiser((5, 8)).double()
    z = normal(50, 3, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(quantiser(z).values.sum(), z)
    half = torch.tensor([2.0, 3.5], dtype=torch.float64) * 1.001
    shift = torch.tensor([0.0, math.atanh(0.5 / float(half[1]))], dtype=torch.float64)
    wanted = half * (1.0 - torch.tanh(z.detach() + shift) ** 2) / torch.tensor([2.0, 4.0])
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("levels", [(), (1,), (3, 2.5)])
def test_wrong_levels_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="levels"):
        FiniteScalarQuantiser(levels)


# A codebook


def test_the_nearest_vector_and_a_gradient_that_passes_straight_on() -> None:
    quantiser = VectorQuantiser(7, 3).double()
    z = normal(40, 2, 3).requires_grad_()
    found = quantiser(z)
    apart = (z[:, :, None] - quantiser.book).square().sum(-1)
    assert torch.equal(found.codes, apart.argmin(-1))
    torch.testing.assert_close(found.values, quantiser.book[found.codes])
    (straight,) = torch.autograd.grad((found.values * normal(40, 2, 3, seed=2)).sum(), z, retain_graph=True)
    torch.testing.assert_close(straight, normal(40, 2, 3, seed=2))
    torch.testing.assert_close(found.distance, apart.amin(-1).sum(1) / 6)
    (pull,) = torch.autograd.grad(found.distance.sum(), z)
    torch.testing.assert_close(pull, 2 * (z - quantiser.book[found.codes]).detach() / 6)


def by_hand(z: Tensor, codes: Tensor, w: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sum of weights and of weighted vectors of every code."""
    count, total = torch.zeros(size).double(), torch.zeros(size, z.shape[-1]).double()
    for event in range(len(z)):
        for slot in range(z.shape[1]):
            count[codes[event, slot]] += w[event]
            total[codes[event, slot]] += w[event] * z[event, slot]
    return count, total


def test_without_memory_the_book_moves_as_in_k_means() -> None:
    quantiser = VectorQuantiser(4, 2, decay=0.0, revive=0.0).double()
    z, w = normal(200, 2, 2), 1.0 + uniform(200)
    for _ in range(15):
        codes = quantiser.nearest(z)
        quantiser.observe(z, codes, w, uniform(200, 2))
        quantiser.move()
        count, total = by_hand(z, codes, w, 4)
        used = count > 0
        torch.testing.assert_close(quantiser.book[used], total[used] / count[used, None])
    assert bool(used.all())
    again = quantiser.nearest(z)
    spread = lambda c: float((z - quantiser.book[c]).square().sum())  # noqa: E731
    assert spread(again) <= spread(codes)


def test_running_means_forget_by_their_decay() -> None:
    quantiser = VectorQuantiser(3, 2, decay=0.9, revive=0.0).double()
    count, total = torch.tensor([2.0, 3.0, 4.0]).double(), normal(3, 2, seed=5)
    quantiser.count.copy_(count)
    quantiser.total.copy_(total)
    for step in range(3):
        z, w = normal(30, 1, 2, seed=step), uniform(30, seed=step)
        codes = quantiser.nearest(z)
        quantiser.observe(z, codes, w, uniform(30, 1))
        quantiser.move()
        n, m = by_hand(z, codes, w, 3)
        count, total = 0.9 * count + 0.1 * n, 0.9 * total + 0.1 * m
        torch.testing.assert_close(quantiser.book, total / count[:, None])
    before = quantiser.book.clone()
    quantiser.move()  # nothing was seen
    assert torch.equal(quantiser.book, before)


def test_a_weight_of_two_moves_the_book_as_the_event_twice() -> None:
    z, w = normal(50, 2, 2), torch.from_numpy(np.random.default_rng(1).integers(1, 4, 50))
    found = []
    for events, weight in ((z, w.double()), (z.repeat_interleave(w, 0), None)):
        torch.manual_seed(1)
        quantiser = VectorQuantiser(5, 2, decay=0.5).double()
        quantiser.count.fill_(10.0)
        quantiser.total.copy_(10.0 * quantiser.book)
        quantiser.observe(events, quantiser.nearest(events), weight, uniform(len(events), 2))
        quantiser.move()
        found.append(quantiser.book)
    torch.testing.assert_close(*found, atol=1e-12, rtol=0)


def test_what_is_not_finite_is_not_observed() -> None:
    """A step may be skipped because of it, and the book goes on."""
    torch.manual_seed(1)
    quantiser = VectorQuantiser(4, 2, decay=0.5).double()
    z = normal(30, 2, 2)
    bad = z.clone()
    bad[0, 0, 0], bad[1, 1, 1] = math.nan, math.inf
    quantiser.observe(bad, quantiser.nearest(bad), None, uniform(30, 2))
    quantiser.move()
    assert bool(quantiser.book.isfinite().all())
    assert float(quantiser.count.sum()) > 0


def test_dead_codes_take_the_place_of_events_by_their_weight() -> None:
    z = torch.arange(5.0).double()[:, None, None]
    w = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).double()
    chosen = torch.zeros(5)
    for trial in range(2000):
        quantiser = VectorQuantiser(1, 1).double()
        quantiser.observe(z, quantiser.nearest(z), w, uniform(5, 1, seed=trial))
        chosen[int(quantiser.spare[0, 0])] += 1
    assert chosen[0] == 0
    assert stats.chisquare(chosen[1:], 2000 * w[1:] / w.sum()).pvalue > 1e-3
    quantiser = VectorQuantiser(3, 1, decay=0.5, revive=0.1).double()
    quantiser.book.copy_(torch.tensor([[1.0], [3.0], [500.0]]))
    quantiser.count.copy_(torch.tensor([5.0, 5.0, 0.1]))
    quantiser.total.copy_(quantiser.book * quantiser.count[:, None])
    quantiser.observe(z, quantiser.nearest(z), None, uniform(5, 1))
    quantiser.move()
    assert float(quantiser.book[2, 0]) in z.flatten().tolist()
    assert float(quantiser.count[2]) == pytest.approx(float((3.75 + 3.75 + 0.05) / 3), rel=0.1)


# Lattices

GRID = Field("grid", (2, 8, 5), (Column("a"), Column("b")), (Axis("phi", 8, periodic=True), Axis("z", 5)))


def test_a_vector_of_the_lattice_moves_only_what_is_near() -> None:
    decoder = LatticeDecoder(channels=(4, 4), embedding=8).build(12 * 3, NetworkShape(GRID)).double().eval()
    for module in decoder.modules():
        if isinstance(module, torch.nn.GroupNorm):  # normalisation is over all cells
            module.forward = lambda h: h  # type: ignore[method-assign]
    z = normal(1, 12, 3)
    other = z.clone()
    other[0, 0] += 1.0  # the corner phi = 0, z = 0
    moved = (decoder(z.flatten(1)) - decoder(other.flatten(1))).abs().amax((0, 1)) > 1e-9
    assert bool(moved[0, 0])
    assert bool(moved[7, 0])  # across the seam


def test_encoder_and_decoder_of_a_lattice_with_context() -> None:
    context = vector_spec(1, "c")
    encoder = LatticeEncoder(channels=(4, 6), embedding=8).build(NetworkShape(GRID, outputs=24, context=context))
    decoder = LatticeDecoder(channels=(4, 6), embedding=8).build(24, NetworkShape(GRID, channels=3, context=context))
    given = Events({"c": torch.randn(3, 1)})
    z = encoder(torch.randn(3, 2, 8, 5), None, given)
    assert z.shape == (3, 24)
    assert decoder(z, None, given).shape == (3, 3, 8, 5)
    with pytest.raises(ConfigError, match="12 cells"):
        LatticeEncoder(channels=(4, 6)).build(NetworkShape(GRID, outputs=25))
