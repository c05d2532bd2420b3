"""Efficiencies of a cut, as a user of a tagger asks for them: for each kind of jet, and along one feature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pofx.metrics.pvalues import Estimate
from pofx.tasks.classifier_surrogate.baselines import BinnedTagger
from pofx.tasks.classifier_surrogate.data import Floats, Tagged
from pofx.tasks.classifier_surrogate.surrogate import Surrogate
from pofx.uncertainty.band import Band

__all__ = ["Scan", "WorkingPoint", "continuous", "scan", "working_points"]


@dataclass(frozen=True)
class WorkingPoint:
    """Share of jets of one kind that pass a cut: counted, by the surrogate (error: its posterior), by the table in bins.

    ``pull`` is (surrogate - counted) / error of both.
    """

    name: str
    jets: int
    counted: Estimate
    surrogate: Estimate
    binned: float

    @property
    def pull(self) -> float:
        """Of the surrogate."""
        return (self.surrogate.value - self.counted.value) / float(np.hypot(self.surrogate.error, self.counted.error))


@dataclass(frozen=True)
class Scan:
    """Efficiency along one feature, averaged over some jets of which only this feature is changed.

    Attributes
    ----------
    values : of the feature, ``(g,)``; ``inside``: its ends among the training jets.
    band : of the surrogate's efficiency, ``(K, g)``. binned : of the table, ``(g,)``. truth : where it is known.
    spread, fewer : mean error of P(score < median | features) ``(g,)``, of the surrogate and of that with fewer jets.
    """

    feature: str
    values: Floats
    inside: tuple[float, float]
    band: Band
    binned: Floats
    truth: Floats | None
    spread: Floats
    fewer: Floats


def continuous(jets: Tagged) -> list[str]:
    """Features that have more than ten values."""
    return [name for name, column in zip(jets.names, jets.features.T, strict=True) if len(np.unique(column)) > 10]


def working_points(surrogate: Surrogate, table: BinnedTagger, jets: Tagged, cut: float) -> list[WorkingPoint]:
    """Of all jets and, where they are labelled, of signal and background."""
    kinds: dict[str, NDArray[np.bool_]] = {"all jets": np.ones(len(jets), bool)}
    if jets.label is not None:
        kinds |= {"signal": jets.label, "background": ~jets.label}
    return [_point(surrogate, table, name, jets.take(rows), cut) for name, rows in kinds.items() if rows.any()]


def _point(surrogate: Surrogate, table: BinnedTagger, name: str, jets: Tagged, cut: float) -> WorkingPoint:
    weight = np.ones(len(jets)) if jets.weight is None else jets.weight
    share, n = float(weight[jets.scores > cut].sum() / weight.sum()), float(weight.sum() ** 2 / (weight @ weight))
    smooth = (share * n + 0.5) / (n + 1)
    band = surrogate.efficiency(jets.features, cut, jets.weight)
    binned = float(table.efficiency(jets.features, cut)[0] @ weight / weight.sum())
    counted = Estimate(share, float(np.sqrt(smooth * (1 - smooth) / n)))
    return WorkingPoint(name, len(jets), counted, Estimate(float(band.mean), float(band.error)), binned)


def scan(
    surrogates: tuple[Surrogate, Surrogate],
    table: BinnedTagger,
    jets: Tagged,
    feature: str,
    cut: float,
    truth: Callable[[Floats, Floats], Floats] | None = None,
    points: int = 31,
) -> Scan:
    """Along one feature, to beyond its range on both sides; of signal jets, where labels are known, at most 100.

    Parameters
    ----------
    surrogates : of all jets, and of fewer.
    truth : ``truth(scores, features)`` is P(score' < score | features), if known.
    """
    kept = jets if jets.label is None or not jets.label.any() else jets.take(jets.label)
    rows, (low, high) = kept.features[:100], surrogates[0].trained_range[feature]
    width = high - low
    least = low - 0.25 * width if low <= 0 else max(low - 0.25 * width, 0.5 * low)
    values = np.linspace(least, high + 0.75 * width, points)
    moved = np.repeat(rows[None], points, 0)
    moved[:, :, jets.names.index(feature)] = values[:, None]
    flat = moved.reshape(-1, rows.shape[1])

    def averaged(found: Floats) -> Floats:
        return np.asarray(found.reshape(*found.shape[:-1], points, len(rows)).mean(-1))

    spreads = [averaged(one.spread(flat)) for one in surrogates]
    known = None if truth is None else averaged(1 - truth(np.full(len(flat), cut), flat))
    band, binned = Band(averaged(surrogates[0].band(flat, cut).values)), averaged(table.efficiency(flat, cut)[0])
    return Scan(feature, values, (low, high), band, binned, known, *spreads)
