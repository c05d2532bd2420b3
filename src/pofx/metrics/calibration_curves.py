r"""What a test of calibration returns: a distribution function with its band, how far it is off, and in which direction.

Every test turns a truth and the model's own draws into a number u in [0, 1] that is uniform if the model is right. Beside the test of
uniformity (:mod:`pofx.metrics.calibration_bands`) stand mean b and standard deviation s of the normal scores :math:`\Phi^{-1}(u)`. For a
normal posterior whose mean is off by :math:`\delta` of its widths, and whose width is f times the right one, u has the scores

.. math:: \Phi^{-1}(u) = b + s \xi, \qquad s = 1/f, \quad \xi \sim N(0, 1),

with :math:`b = -\delta` where u is a rank: they are the pulls of the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pofx.classifiers.base import as_weight
from pofx.errors import DataError
from pofx.metrics.calibration_bands import LEVEL, POINTS, Band, Floats, Integers, as_uniform, uniformity
from pofx.metrics.pvalues import Estimate

__all__ = ["ALPHA", "Calibration", "CalibrationCurve", "Side", "curve"]

ALPHA = 0.01
"""A p-value below it is a finding."""
STRONG = 3.0
"""Standard errors from which a pull enters the diagnosis."""
BOOTSTRAP = 200
SHAPE = "of the wrong shape"

Side = Literal["two", "tail", "distance"]
"""What u means: the share of draws below the truth; of more probable draws; of draws nearer to a reference."""
_WORDS: dict[Side, tuple[tuple[str, str], tuple[str, str]]] = {
    "two": (("biased low", "biased high"), ("over-confident", "under-confident")),
    "tail": (("over-confident or biased", "under-confident"), (SHAPE, SHAPE)),
    "distance": (("over-confident or biased", "under-confident"), ("over-confident or biased", "under-confident")),
}
"""Of either side: the model where the scores are too high, too low; too wide, too narrow."""


@dataclass(frozen=True)
class CalibrationCurve:
    """One test of calibration.

    Attributes
    ----------
    name : the quantity or the test.
    side : what u means (:data:`Side`).
    events : number of truths.
    band : distribution function of u on a grid, simultaneous band and p-value.
    value, error : mean over the grid of \\|F(z) - z\\|, with its bootstrap error. floor : its expectation for a calibrated model.
    bias : mean of the normal scores of u, 0 if calibrated.
    width : their standard deviation, 1 if calibrated.
    """

    name: str
    side: Side
    events: int
    band: Band
    value: float
    error: float
    floor: float
    bias: Estimate
    width: Estimate

    @property
    def p_value(self) -> float:
        """Of a calibrated model."""
        return self.band.p_value

    @property
    def pulls(self) -> tuple[float, float]:
        """Of bias and width, in their errors."""
        return self.bias.value / self.bias.error, (self.width.value - 1.0) / self.width.error

    def diagnosis(self, alpha: float = ALPHA) -> str:
        """In words, the strongest first: an ``"over-confident"`` model is too narrow, one ``"biased low"`` lies below the truth."""
        if self.p_value >= alpha:
            return "no deviation found"
        pulls = np.array(self.pulls)
        words = [_WORDS[self.side][k][int(pulls[k] < 0)] for k in (0, 1)]
        named = [words[k] for k in np.argsort(-np.abs(pulls)) if abs(pulls[k]) >= STRONG]
        return " and ".join(w for w in dict.fromkeys(named) if w != SHAPE) or SHAPE

    def __str__(self) -> str:
        found = f"{self.name}: {self.diagnosis()} (p = {self.p_value:.2g}, {self.band.method}, {self.events} events)"
        off = f"off by {Estimate(self.value, self.error)} (calibrated: {self.floor:.2g})"
        return f"{found}; {off}; scores: mean {self.bias}, width {self.width}"


@dataclass(frozen=True)
class Calibration:
    """Several tests of one model: iterate, or take one by its name."""

    curves: tuple[CalibrationCurve, ...]

    @property
    def p_value(self) -> float:
        """The smallest one times the number of tests (Bonferroni), at most 1."""
        return min(1.0, len(self.curves) * min(c.p_value for c in self.curves))

    def diagnosis(self, alpha: float = ALPHA) -> str:
        """Of the test that finds most, where the tests together find anything."""
        worst = min(self.curves, key=lambda c: (c.p_value, -max(map(abs, c.pulls))))
        found = worst.diagnosis(alpha / len(self.curves))
        return found if found == "no deviation found" else f"{found} ({worst.name})"

    def __iter__(self) -> Iterator[CalibrationCurve]:
        return iter(self.curves)

    def __len__(self) -> int:
        return len(self.curves)

    def __getitem__(self, name: str) -> CalibrationCurve:
        found = [c for c in self.curves if c.name == name]
        if not found:
            raise DataError(f"expected one of {', '.join(c.name for c in self.curves)}; got {name!r}")
        return found[0]

    def __str__(self) -> str:
        return "\n".join([f"{self.diagnosis()}; p = {self.p_value:.2g} over all tests", *map(str, self.curves)])


def curve(
    name: str,
    u: ArrayLike,
    *,
    side: Side = "two",
    edges: Floats | None = None,
    weight: ArrayLike | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> CalibrationCurve:
    """Test numbers ``(n,)`` that are uniform if the model is right.

    Parameters
    ----------
    edges : ``(k,)`` ascending in (0, 1), if u can only be in the middle between two of them: j/(k + 1) for ranks among k draws.

    >>> found = curve("x", (np.arange(500) + 0.5) / 500)
    >>> found.diagnosis(), round(found.width.value, 1)
    ('no deviation found', 1.0)
    """
    numbers = as_uniform(u, name)
    if len(numbers) < 2:
        raise DataError(f"{name}: expected at least two events; got {len(numbers)}")
    weights = as_weight(weight, len(numbers), "weight")
    band = uniformity(numbers, weight, grid=None if edges is None else _thinned(edges), level=level, seed=seed)
    share = weights / weights.sum()
    value, error, floor = _distance(numbers, share, band.z, seed)
    bias, width = _scores(numbers, share, edges)
    return CalibrationCurve(name, side, len(numbers), band, value, error, floor, bias, width)


def _thinned(edges: Floats) -> Floats:
    """At most 49 of them."""
    places = np.linspace(0, len(edges) + 1, min(len(edges) + 1, POINTS) + 1)[1:-1]
    return np.asarray(edges[np.rint(places).astype(int) - 1])


def _distance(u: Floats, share: Floats, z: Floats, seed: int) -> tuple[float, float, float]:
    """Mean of the absolute differences, its bootstrap error, and what a calibrated model has."""
    cells = np.searchsorted(z, u, side="right")
    sums = _resampled(cells, share, len(z) + 1, np.random.default_rng((seed, 1)))
    found = np.abs(sums.cumsum(1)[:, :-1] / sums.sum(1, keepdims=True) - z).mean(1)
    ecdf = np.cumsum(np.bincount(cells, share, minlength=len(z) + 1))[:-1]
    floor = float(np.sqrt(2 / np.pi * z * (1 - z) * (share @ share)).mean())
    return float(np.abs(ecdf - z).mean()), float(np.std(found, ddof=1)), floor


def _resampled(cells: Integers, share: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Weight in each cell, ``(BOOTSTRAP, count)``, of events drawn with replacement."""
    n = len(cells)
    if np.ptp(share) == 0:
        return rng.multinomial(n, np.bincount(cells, minlength=count) / n, BOOTSTRAP).astype(np.float64)
    rows = [rng.integers(0, n, n) for _ in range(BOOTSTRAP)]
    return np.stack([np.bincount(cells[row], share[row], minlength=count) for row in rows])


def _scores(u: Floats, share: Floats, edges: Floats | None) -> tuple[Estimate, Estimate]:
    """Mean and width of the normal scores; numbers between edges are measured by what uniform ones would have."""
    events = 1.0 / float(share @ share)
    score = special.ndtri(np.clip(u, 1e-12, 1 - 1e-12))
    if edges is not None:
        ends = np.r_[0.0, edges, 1.0]
        atoms, chance = special.ndtri(0.5 * (ends[1:] + ends[:-1])), np.diff(ends)
        middle = chance @ atoms
        score = (score - middle) / np.sqrt(chance @ (atoms - middle) ** 2)
    mean = float(share @ score)
    square = (score - mean) ** 2
    variance = float(share @ square)
    if not variance > 0:
        return Estimate(mean, float(events**-0.5)), Estimate(0.0, float((2 * events) ** -0.5))
    fourth = max(float(share @ (square - variance) ** 2), 0.0)
    width = Estimate(float(np.sqrt(variance)), 0.5 * float(np.sqrt(fourth / events / variance)))
    return Estimate(mean, float(np.sqrt(variance / events))), width
