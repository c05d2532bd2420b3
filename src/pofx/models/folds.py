r"""Cross-validation of densities: splits, held-out log-densities, and paired differences with an error that can be believed.

Two densities are compared event by event, :math:`d_i = \log q_a(x_i) - \log q_b(x_i)` on events that neither has seen. The mean of d
has an error from the held-out events, and one from the training events, which the folds share; Nadeau and Bengio (Machine Learning 52
(2003) 239) estimate both together by

.. math:: \sigma^2 = \Big(\frac{1}{J} + \frac{n_2}{n_1}\Big) s^2

for J splits of :math:`n_1` training and :math:`n_2` held-out events, :math:`s^2` being the variance of the mean of one split. Here
:math:`s^2` comes from the spread of single events, or, if that is larger, from that of the splits (three or more). A mean that rests on a
single event is less than one such error from zero, one that rests on k equal events less than :math:`\sqrt{k}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pofx.data import Dataset
from pofx.data.rows import row_hash
from pofx.models.model import Model
from pofx.training.noise import derive_seed

__all__ = ["Gain", "Split", "fold_numbers", "held_out", "paired", "splits_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """Events to train on and events to score.

    ``data`` has these two as its training and test split: a family that needs validation events takes them from the former.
    """

    data: Dataset
    held: Dataset

    @cached_property
    def events(self) -> int:
        """How many there are to train on."""
        return len(self.training(0.0).train)

    @cached_property
    def weight(self) -> Floats:
        """Of the held-out events."""
        pieces = [
            np.ones(len(e)) if e.weight is None else np.asarray(e.weight, np.float64) for e in self.held.chunks(8192)
        ]
        return np.concatenate(pieces)

    def training(self, validation: float) -> Dataset:
        """The training events, this share of them for validation; never the held-out ones, unless as the test split."""
        held = self.data.fractions[2]
        part = validation * (1.0 - held)
        return self.data.with_split((1.0 - held - part, part, held), self.data.seed)


class Gain(NamedTuple):
    """Mean difference of log-densities in nats per event, and its error."""

    value: float
    error: float


def fold_numbers(data: Dataset, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of every event, ``(n,)``; a function of row numbers and seed, and the same for all copies of one row."""
    rows, which = np.unique(data.rows.numbers, return_inverse=True)
    rank = row_hash(rows, derive_seed(seed, "folds")).argsort().argsort()
    numbers: NDArray[np.int64] = (rank * folds // len(rows))[which]
    return numbers


def splits_of(data: Dataset, folds: int, seed: int) -> list[Split]:
    """K-fold cross-validation."""
    fold = fold_numbers(data, folds, seed)
    return [Split(data.take(fold != k).with_split((1, 0, 0), seed), data.take(fold == k)) for k in range(folds)]


def held_out(data: Dataset, share: float, seed: int, purpose: str) -> Split:
    """A single split, ``share`` of the events being held out; another purpose gives an independent one."""
    whole = data.with_split((1 - share, 0.0, share), derive_seed(seed, "held out", purpose))
    return Split(whole, whole.test)


def score(model: Model, split: Split) -> Floats:
    """log q of the held-out events."""
    return np.concatenate([model.log_prob_events(events) for events in split.held.chunks(8192)])


def average(values: Sequence[Floats], splits: Sequence[Split]) -> Gain:
    """Weighted mean over the events of several splits, and its error from their spread alone."""
    value, weight = np.concatenate(values), np.concatenate([split.weight for split in splits[: len(values)]])
    mean = float((weight * value).sum() / weight.sum())
    if not math.isfinite(mean):
        return Gain(mean, 0.0)
    return Gain(mean, math.sqrt(float((weight**2 * (value - mean) ** 2).sum())) / float(weight.sum()))


def paired(first: Sequence[Floats], second: Sequence[Floats], splits: Sequence[Split]) -> Gain:
    """Mean of first minus second over the splits that both have."""
    both = [(a, b) for a, b in zip(first, second, strict=False)]
    differences = [np.where(a == b, 0.0, _minus(a, b)) for a, b in both]
    found = average(differences, splits)
    if not math.isfinite(found.value):
        return found
    count, ratio = len(both), len(splits[0].held) / splits[0].events
    variance = found.error**2 * count
    if count > 2:
        means = [average([d], [split]).value for d, split in zip(differences, splits, strict=False)]
        variance = max(variance, float(np.var(means, ddof=1)))
    return Gain(found.value, math.sqrt((1 / count + ratio) * variance))


def _minus(a: Floats, b: Floats) -> Any:
    with np.errstate(invalid="ignore"):
        return a - b
