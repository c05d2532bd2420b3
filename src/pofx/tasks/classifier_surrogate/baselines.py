r"""What is done without a surrogate: efficiency maps in bins of the features, and a normal law of the logit.

An experiment's parametrisation of a tagger is a table: the share of jets above a cut in bins of momentum, pseudorapidity and flavour.
:class:`BinnedTagger` keeps the scores of each bin, so that it has such a table for every cut, with binomial errors, and can be compared as
a distribution. :func:`gaussian_logit` is the linear regression of the logit on the features, with one width for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pofx.config import check_at_least
from pofx.tasks.classifier_surrogate.data import Floats, Tagged, feature_rows
from pofx.tasks.classifier_surrogate.surrogate import Surrogate, fit_tagged

__all__ = ["BinnedTagger", "gaussian_logit"]

CELLS = 25
"""Of the score, with equally many training jets in each, out of which the density in a bin is made."""
JETS = 100
"""In a bin, if nobody says how many bins there are."""
FEW = 4
"""Values of a feature that has a bin for each of them, however many bins others have."""
LEVELS = 3
"""All features; those with few values; none."""


def gaussian_logit(data: Tagged) -> Surrogate:
    r""":math:`\mathrm{logit}\, s \sim N(a + B c, \sigma^2)`, by least squares.

    >>> rng = np.random.default_rng(1)
    >>> c = rng.normal(size=(2000, 1))
    >>> jets = Tagged.of(c, special.expit(c[:, 0] + 0.5 * rng.normal(size=2000)))
    >>> bool(abs(gaussian_logit(jets).cdf([[1.0]], special.expit(1.5))[0] - special.ndtr(1.0)) < 0.03)
    True
    """
    from pofx.models.gaussian import Gaussian

    return fit_tagged(data, family=Gaussian(preprocess="standardise"))


@dataclass(frozen=True)
class Bins:
    """Edges of one feature's bins, ``(b - 1,)`` between b bins; ``few`` where each of its values has a bin of its own."""

    edges: Floats
    few: bool

    def of(self, values: Floats) -> NDArray[np.intp]:
        """The bin of each value; those beyond the outermost edges are in the outermost bins."""
        return np.searchsorted(self.edges, values, side="right")

    def __len__(self) -> int:
        return len(self.edges) + 1


def _binned(values: Floats, count: int) -> Bins:
    """Between the values where there are few of them, else with equally many jets in each."""
    unique = np.unique(values)
    if len(unique) <= max(count, FEW):
        return Bins(0.5 * (unique[1:] + unique[:-1]), few=True)
    return Bins(np.unique(np.quantile(values, np.arange(1, count) / count)), few=False)


def _count(data: Tagged) -> int:
    """Bins per feature with about :data:`JETS` jets in each of all."""
    values = [len(np.unique(column)) for column in data.features.T]
    cells = len(data) / JETS / np.prod([v for v in values if v <= FEW])
    return int(np.clip(cells ** (1 / max(sum(v > FEW for v in values), 1)), 1, 10))


def _together(parts: Sequence[tuple[Bins, NDArray[np.intp]]]) -> NDArray[np.intp]:
    """One number for the bins of several features."""
    found = np.zeros(len(parts[0][1]), dtype=np.intp)
    for part, place in parts:
        found = found * len(part) + place
    return found


class BinnedTagger:
    """The scores of the training jets in bins of all features together.

    A bin with fewer than ``least`` jets takes those of all jets with the same values of the features that have few values (flavour, say);
    if they are still too few, those of all jets. :attr:`lonely` is how many bins do.

    Parameters
    ----------
    bins : per feature that has more than so many values; None takes as many as leave about 100 jets per bin, at most 10.
    least : jets in a bin.

    >>> rng = np.random.default_rng(1)
    >>> pt = rng.uniform(0, 1, (4000, 1))
    >>> table = BinnedTagger(Tagged.of(pt, np.clip(pt[:, 0] * rng.uniform(0, 1, 4000), 1e-9, 1)), bins=4)
    >>> (table.efficiency([[0.5], [0.9]], 0.4)[0].round(1)).tolist()
    [0.4, 0.6]
    """

    def __init__(self, data: Tagged, bins: int | None = None, least: int = 20) -> None:
        self.bins, self.least, self.names, self.score = bins or _count(data), least, data.names, data.score
        check_at_least(self, 1, "bins", "least")
        self._bins: Sequence[Bins] = [_binned(column, self.bins) for column in data.features.T]
        order = np.argsort(data.scores, kind="stable")
        weight = np.ones(len(data)) if data.weight is None else data.weight
        self._held: dict[tuple[int, int], tuple[Floats, Floats]] = {}
        for level, keys in enumerate(self._keys(data.features)):
            found, counts = np.unique(keys, return_counts=True)
            for k in found[counts >= least].tolist() if level < LEVELS - 1 else [0]:
                rows = order[keys[order] == k]
                self._held[level, k] = data.scores[rows], weight[rows]
        total = int(np.prod([len(part) for part in self._bins]))
        self.lonely = total - sum(level == 0 for level, _ in self._held)
        inner = np.quantile(special.logit(data.scores), np.arange(1, CELLS) / CELLS)
        self._cells = np.r_[0.0, special.expit(np.unique(inner)), 1.0]

    def _keys(self, rows: Floats) -> list[NDArray[np.intp]]:
        """The bin of each row ``(n,)``, the bin of its features with few values alone, and zero."""
        parts = [(part, part.of(column)) for part, column in zip(self._bins, rows.T, strict=True)]
        few = [p for p in parts if p[0].few]
        whole = np.zeros(len(rows), np.intp)
        return [_together(parts), _together(few) if few else whole, whole]

    def _groups(self, rows: Floats) -> list[tuple[NDArray[np.intp], Floats, Floats]]:
        """For each set of training jets that is asked for: the rows that ask, its scores in ascending order, their weights."""
        asking: dict[tuple[int, int], list[int]] = {}
        for row, keys in enumerate(zip(*(k.tolist() for k in self._keys(rows)), strict=True)):
            asking.setdefault(next(key for key in enumerate(keys) if key in self._held), []).append(row)
        return [(np.array(who), *self._held[key]) for key, who in asking.items()]

    def sample(self, features: Any, *, seed: int) -> Floats:
        """Scores ``(m,)`` of training jets in the same bin."""
        rows = feature_rows(features, self.names)
        u, found = np.random.default_rng(seed).random(len(rows)), np.zeros(len(rows))
        for asking, scores, weight in self._groups(rows):
            total = np.cumsum(weight)
            found[asking] = scores[np.minimum(np.searchsorted(total, u[asking] * total[-1]), len(scores) - 1)]
        return found

    def cdf(self, features: Any, scores: ArrayLike) -> Floats:
        """P(score' < score | bin), ``(m,)``, strictly between 0 and 1: half a jet is added to either side."""
        rows = feature_rows(features, self.names)
        given, found = np.broadcast_to(np.asarray(scores, np.float64), (len(rows),)), np.zeros(len(rows))
        for asking, known, weight in self._groups(rows):
            total = np.r_[0.0, np.cumsum(weight)]
            one = total[-1] / len(known)
            found[asking] = (total[np.searchsorted(known, given[asking])] + 0.5 * one) / (total[-1] + one)
        return found

    def log_prob(self, features: Any, scores: ArrayLike) -> Floats:
        """log of a histogram's density in :data:`CELLS` cells of the score, one jet spread over all of them; ``-inf`` outside (0, 1)."""
        rows = feature_rows(features, self.names)
        given, found = np.broadcast_to(np.asarray(scores, np.float64), (len(rows),)), np.full(len(rows), -np.inf)
        width = np.diff(self._cells)
        inside = (given > 0) & (given < 1)
        place = np.clip(np.searchsorted(self._cells, given, side="right") - 1, 0, len(width) - 1)
        for asking, known, weight in self._groups(rows):
            counts = np.histogram(known, self._cells, weights=weight)[0] + weight.mean() / len(width)
            found[asking] = np.log(counts / counts.sum() / width)[place[asking]]
        return np.where(inside, found, -np.inf)

    def efficiency(self, features: Any, cut: float) -> tuple[Floats, Floats]:
        """P(score > cut | bin) of each jet's bin ``(m,)``, and its binomial error (with half a jet more on either side)."""
        rows = feature_rows(features, self.names)
        value, error = np.zeros(len(rows)), np.zeros(len(rows))
        for asking, known, weight in self._groups(rows):
            share, n = float(weight[known > cut].sum() / weight.sum()), float(weight.sum() ** 2 / (weight @ weight))
            smooth = (share * n + 0.5) / (n + 1)
            value[asking], error[asking] = share, np.sqrt(smooth * (1 - smooth) / n)
        return value, error
