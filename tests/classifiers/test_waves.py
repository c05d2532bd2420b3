"""Waves as inputs: a network sees fine structure that rectifiers do not, and stays quiet under the null."""

from __future__ import annotations

import numpy as np
import pytest

from pofx.classifiers import NetworkClassifier
from pofx.errors import ConfigError
from pofx.metrics import c2st
from pofx.simulators import SHAPES


def blurred(n: int, seed: int, width: float) -> np.ndarray:
    return SHAPES["checkerboard"].sample(n, seed) + width * np.random.default_rng(seed + 1000).normal(size=(n, 2))


@pytest.mark.slow
def test_a_blurred_chessboard_is_seen() -> None:
    """Blurred by 3 % of the board: a share of events falls on white squares, and the optimum is (1 + share) / 2."""
    board, judge = SHAPES["checkerboard"], NetworkClassifier(frequencies=64, epochs=20)
    x, y = board.sample(6000, 1), blurred(6000, 2, 0.12)
    optimum = 0.5 + 0.5 * np.isneginf(board.log_prob(blurred(100_000, 3, 0.12))).mean()
    found = c2st(x, y, judge=judge, splits=1)
    assert found.accuracy > 0.54
    assert found.accuracy < optimum + 3 * found.error
    assert c2st(x, board.sample(6000, 4), judge=judge, splits=1).p_value > 0.01


def test_refused() -> None:
    with pytest.raises(ConfigError, match="frequencies"):
        NetworkClassifier(frequencies=-1)
