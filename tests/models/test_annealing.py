"""Annealed importance sampling: closed forms, the error it states, and what must not change an estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pofx.data.events import Events
from pofx.models.annealing import LogMean, anneal, condition_numbers, log_mean_exp, per_condition
from pofx.training.noise import Noise

WIDTHS = torch.tensor([0.5, 0.8, 1.4], dtype=torch.float64)
TRUTH = float(WIDTHS.log().sum() + 1.5 * math.log(2.0 * math.pi))


def log_f(x: Tensor, beta: float) -> Tensor:
    """Between N(0, 1) and exp(-x^2 / 2 s^2), both without their normalisers."""
    return -0.5 * (x.square() * ((1.0 - beta) + beta / WIDTHS**2)).sum(1)


def gaussian(chains: int, levels: int, seed: int, rho: float = 0.5) -> LogMean:
    """log Z by autoregressive moves that leave every level alone; they mix slowly for rho near one."""
    noise = Noise(seed, torch.arange(chains), dtype=torch.float64)

    def advance(k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        beta = k / levels
        gain = log_f(x, beta) - log_f(x, (k - 1) / levels)
        spread = ((1.0 - beta) + beta / WIDTHS**2).rsqrt()
        return gain, rho * x + math.sqrt(1.0 - rho**2) * spread * noise.at(k).normal("move", 3)

    _, log_weight = anneal(noise.normal("start", 3), levels, advance)
    return log_mean_exp(torch.as_tensor(log_weight))


def pulls(levels: int, seeds: int, rho: float = 0.5) -> np.ndarray:
    found = [gaussian(400, levels, seed, rho) for seed in range(seeds)]
    base = 1.5 * math.log(2.0 * math.pi)
    return np.array([float(each.value + base - TRUTH) / float(each.error) for each in found])


@pytest.mark.parametrize(("levels", "rho"), [(1, 0.5), (8, 0.5), (8, 0.95)], ids=["importance", "annealed", "slow"])
def test_pulls_of_a_gaussian_have_width_one(levels: int, rho: float) -> None:
    """Without intermediate levels, with them, and with moves that hardly mix: the error knows."""
    found = pulls(levels, 80, rho)
    assert abs(found.mean()) < 3.5 / math.sqrt(80)
    assert 0.75 < found.std(ddof=1) < 1.25


def test_more_levels_make_the_error_small() -> None:
    errors = [float(gaussian(400, levels, 1).error) for levels in (1, 8, 64)]
    assert errors[0] > 2.0 * errors[1] > 4.0 * errors[2]


def test_the_mean_weight_is_unbiased_whatever_the_moves() -> None:
    """E[w] = Z_K / Z_0 even with moves that do not mix at all."""
    ratio = math.exp(TRUTH - 1.5 * math.log(2.0 * math.pi))
    weights = np.array([math.exp(float(gaussian(400, 4, seed, 0.999).value)) for seed in range(60)])
    assert abs(weights.mean() - ratio) < 3.0 * weights.std(ddof=1) / math.sqrt(60)


def test_log_mean_exp_of_given_weights() -> None:
    w = np.random.default_rng(1).exponential(size=(3, 50)) * np.array([[1.0], [1e-100], [1e100]])
    found = log_mean_exp(torch.from_numpy(np.log(w)))
    np.testing.assert_allclose(found.value, np.log(w.mean(1)), rtol=1e-12)
    np.testing.assert_allclose(found.error, w.std(1, ddof=1) / w.mean(1) / math.sqrt(50), rtol=1e-9)
    scaled = w / w.mean(1, keepdims=True)
    np.testing.assert_allclose(found.effective, 50**2 / (scaled**2).sum(1), rtol=1e-9)


def clouds(masks: list[list[bool]], context: list[float], filler: float = 0.0) -> Events:
    mask = torch.tensor(masks)
    seen = torch.tensor([[[c], [filler]] for c in context], dtype=torch.float64)
    given = Events({"seen": seen}, {"seen": torch.tensor([[True, False]] * len(context))})
    return Events({"x": torch.zeros(*mask.shape, 2, dtype=torch.float64)}, {"x": mask}, context=given)


def test_a_condition_is_its_context_and_its_number_of_points() -> None:
    """Padding and the places of the points do not enter; contexts and numbers do."""
    one = condition_numbers(clouds([[True, False, True]] * 2, [0.3, 0.4]))
    same = condition_numbers(clouds([[False, True, True]] * 2, [0.3, 0.4], filler=99.0))
    other = condition_numbers(clouds([[True, True, True]] * 2, [0.3, 0.4]))
    assert torch.equal(one, same)
    assert len({*one.tolist(), *other.tolist()}) == 4


def test_each_condition_is_estimated_once_in_pieces_of_one_size() -> None:
    asked: list[Tensor] = []

    def estimate(part: Events) -> LogMean:
        assert part.context is not None
        asked.append(part.context.x[:, 0])
        return LogMean(part.context.x[:, 0], 0.1 * part.context.x[:, 0], torch.ones(len(part)))

    context = torch.tensor([[3.0], [1.0], [3.0], [2.0], [1.0]], dtype=torch.float64)
    events = Events({"x": torch.zeros(5, 2)}, context=Events({"c": context}))
    found = per_condition(events, 2, estimate)
    assert torch.equal(found.value, context[:, 0])
    assert torch.equal(found.error, 0.1 * context[:, 0])
    assert [len(part) for part in asked] == [2, 2]
    assert sorted(set(torch.cat(asked).tolist())) == [1.0, 2.0, 3.0]
