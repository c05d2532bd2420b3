"""Counter-based noise: the published numbers of Philox, and that nothing but (key, event, position) matters."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from pofx.training.noise import Noise, derive_seed, philox, uniforms

ONES = 0xFFFFFFFF

PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""Counter, key and words of Philox 4x32-10: the known answers that Random123 is delivered with."""


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]) -> None:
    found = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in found) == words


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1, derive_seed(3, "x")])
@pytest.mark.parametrize(("n", "size"), [(0, 3), (5, 0), (5, 1), (7, 2), (300, 5), (40, 64), (90_000, 3)])
def test_uniforms_are_words_of_philox(n: int, size: int, key: int) -> None:
    index = torch.randint(-(2**62), 2**62, (n,), generator=torch.Generator().manual_seed(1))
    found = uniforms(key, index, size)
    assert found.shape == (n, size)
    assert found.dtype == torch.float64
    low, high = (index & ONES)[:, None], ((index >> 32) & ONES)[:, None]
    blocks = torch.arange((size + 1) // 2).expand(n, -1)
    a, b, c, d = philox((low, high, blocks, torch.zeros_like(blocks)), (key & ONES, key >> 32))
    wanted = torch.stack((a * 2**21 + b // 2**11, c * 2**21 + d // 2**11), -1).flatten(1)[:, :size].double()
    assert torch.equal(found, (wanted + 0.5) / 2**53)


def test_an_event_keeps_its_numbers_in_any_batch() -> None:
    index = torch.arange(200_000)
    whole = uniforms(7, index, 4)
    assert torch.equal(uniforms(7, index[::3], 4), whole[::3])
    assert torch.equal(uniforms(7, index[:50], 2), whole[:50, :2])
    assert torch.equal(uniforms(torch.tensor([6, 7]), index[:50], 4)[1], whole[:50])


def test_numbers_are_uniform_and_normal() -> None:
    noise = Noise(3, torch.arange(20_000))
    assert stats.kstest(noise.uniform("u", 2).double().flatten(), "uniform").pvalue > 1e-3
    z = noise.normal("z", 3).double()
    assert stats.kstest(z.flatten(), "norm").pvalue > 1e-3
    assert torch.corrcoef(z.T).sub(torch.eye(3)).abs().max() < 5 / len(z) ** 0.5


def test_name_step_scope_and_seed_each_change_every_number() -> None:
    noise = Noise(1, torch.arange(100))
    others = (noise.at(1), noise.within("a"), Noise(2, torch.arange(100)))
    first = noise.normal("z", 2)
    assert all(not bool((other.normal("z", 2) == first).any()) for other in others)
    assert not bool((noise.normal("y", 2) == first).any())
    assert torch.equal(Noise(1, torch.arange(100)).normal("z", 2), first)
