r"""Amplification without held-out truth: from samples of several draws of a model's weights (arXiv:2408.00838, 2509.08048).

If the draws are a calibrated posterior of the density, the variance of a cell's probability :math:`p_j` over them is the squared error
to expect of the model there. A multinomial sample of n true events has :math:`p_j (1 - p_j)/n`, so the model is worth

.. math:: n_j = \frac{\bar p_j (1 - \bar p_j)}{\mathrm{Var}\, p_j}, \qquad n = \frac{1 - \sum_j \bar p_j^2}{\sum_j \mathrm{Var}\, p_j}

true events in one cell, and in all: what arXiv:2509.08048 calls averaging amplification. Of the observed variance of the shares, the
binomial one of the draws' finite samples is subtracted. A posterior that is over-confident claims too much: check it first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pofx.errors import DataError, ShapeError
from pofx.metrics.amplification import QUANTILES, Amplification, AmplificationCurve, check_sizes
from pofx.metrics.quantile_cells import Floats, KnownTruth, cube_cells, events_of, quantile_cells

__all__ = ["BayesianAmplification", "bayesian_amplification"]


@dataclass(frozen=True)
class BayesianAmplification(AmplificationCurve):
    """The curve, and ``cells``: for every number of quantiles the true events that each cell is worth, ``(quantiles,)``; infinite where the
    draws agree within their noise."""

    cells: tuple[Floats, ...] = ()


def bayesian_amplification(
    draws: Any,
    training_size: int,
    *,
    quantiles: Sequence[int] = QUANTILES,
    truth: KnownTruth | None = None,
    events: int = 10_000,
    seed: int = 0,
) -> BayesianAmplification:
    """What a model is worth by its own uncertainty, with errors from leaving out one draw at a time.

    Parameters
    ----------
    draws : samples of K draws of the weights, each ``(n_k, d)`` and with noise of its own; or a model of :mod:`pofx.uncertainty`, of which
        ``events`` are drawn for each.
    quantiles : per axis, of the draws together; or of a known map to the unit cube, ``truth``.

    >>> rng = np.random.default_rng(1)
    >>> means = rng.normal(0.0, 0.1, 50)  # the posterior of a mean after 100 events of N(0, 1)
    >>> found = bayesian_amplification([rng.normal(mean, 1.0, 5_000) for mean in means], 100, quantiles=(10,))
    >>> found[10].low < 11.2 < found[10].high
    True
    """
    samples = _samples(draws, events, seed)
    check_sizes(training_size, quantiles)
    pool = np.concatenate(samples)
    points, cells = [], []
    for per_axis in quantiles:
        cell = quantile_cells(pool, per_axis) if truth is None else cube_cells(truth, per_axis)
        count = per_axis ** (pool.shape[1] if truth is None else np.shape(truth.uniform(pool[:1]))[1])
        shares = np.stack([np.bincount(cell(x), minlength=count) / len(x) for x in samples])
        noise = np.array([1 / len(x) for x in samples])
        point, each = _point(shares, noise, per_axis, training_size)
        points.append(point)
        cells.append(each)
    return BayesianAmplification(tuple(points), tuple(cells))


def _samples(draws: Any, events: int, seed: int) -> list[Floats]:
    if hasattr(draws, "member"):
        from pofx.training.noise import derive_seed

        count = int(draws.draws)
        draws = [draws.sample(events, seed=derive_seed(seed, f"amplification {k}"), draw=k) for k in range(count)]
    found = [events_of(x, f"draw {k}") for k, x in enumerate(draws)]
    if len(found) < 3:
        raise DataError(f"expected samples of at least three draws of the weights; got {len(found)}")
    if len({x.shape[1] for x in found}) > 1:
        raise ShapeError(f"expected draws of as many columns; got {sorted({x.shape[1] for x in found})}")
    return found


def _variance(shares: Floats, noise: Floats) -> Floats:
    """Of the probabilities, ``(j,)``: that of the shares less the binomial one, which is p (1 - p)/(n - 1) in each draw."""
    binomial = shares * (1 - shares) * (noise / (1 - noise))[:, None]
    return np.asarray(shares.var(0, ddof=1) - binomial.mean(0))


def _point(shares: Floats, noise: Floats, per_axis: int, size: int) -> tuple[Amplification, Floats]:
    k, count = shares.shape
    mean, variance = shares.mean(0), _variance(shares, noise)
    left_out = np.array([_variance(np.delete(shares, i, 0), np.delete(noise, i)).sum() for i in range(k)])
    error = math.sqrt((k - 1) * float(left_out.var()))
    scale = 1 - float(mean @ mean)
    with np.errstate(divide="ignore"):
        each = np.where(variance > 0, mean * (1 - mean) / np.maximum(variance, 1e-300), math.inf)
    return Amplification(count, per_axis, float(variance.sum()), error, scale, size, math.inf, 1), np.asarray(each)
