r"""Is a conditional density calibrated? Ranks, probability integral transforms, regions, references, quantiles.

Each test maps a truth and draws of the model for the same context to a number that is uniform on [0, 1] if the model is the truth:

=============================  ==================================================================================================
:func:`sbc_ranks`              share of draws below the truth, quantity by quantity (arXiv:1804.06788)
:func:`pit`                    the model's distribution function at the truth, where it has one
:func:`expected_coverage`      share of draws that are more probable than the truth: the highest-density region that just contains it
                               (arXiv:2110.06581)
:func:`tarp`                   share of draws nearer to a random reference than the truth is (arXiv:2302.03026): the joint law, without
                               densities
:func:`quantile_calibration`   predicted quantiles of a regression
=============================  ==================================================================================================

All are necessary conditions: a model that returns the prior for every context passes the first three. TARP finds it if its references
depend on the context.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pofx.data.numbers import as_floats, as_numpy
from pofx.errors import CapabilityError, NonFiniteError, ShapeError
from pofx.metrics.calibration_bands import LEVEL, Floats, as_grid
from pofx.metrics.calibration_curves import Calibration, CalibrationCurve, curve
from pofx.metrics.calibration_draws import PosteriorDraws, posterior_draws

__all__ = [
    "Calibration",
    "CalibrationCurve",
    "PosteriorDraws",
    "check_calibration",
    "expected_coverage",
    "pit",
    "posterior_draws",
    "quantile_calibration",
    "sbc_ranks",
    "tarp",
]


def check_calibration(
    model: Any, data: Any = None, *, draws: int = 200, seed: int = 0, level: float = LEVEL
) -> Calibration:
    """All tests that need nothing but draws: ranks of every quantity, TARP, and expected coverage where there are densities.

    Parameters
    ----------
    model : a fitted model, with ``data`` its test set (:func:`posterior_draws`); or :class:`PosteriorDraws`.
    draws : per event: the finest step of a rank is 1/(draws + 1).
    level : of the simultaneous bands.

    >>> import pofx
    >>> rng = np.random.default_rng(1)
    >>> c = rng.normal(size=(500, 1))
    >>> data = pofx.Dataset.from_arrays(c + rng.normal(size=(500, 1)), context=c)
    >>> check_calibration(pofx.Gaussian().fit(data.train), data.test, draws=20).diagnosis()
    'no deviation found'
    """
    found = model if isinstance(model, PosteriorDraws) else posterior_draws(model, data, draws=draws, seed=seed)
    curves = [*sbc_ranks(found, level=level, seed=seed), tarp(found, level=level, seed=seed)]
    if found.log_draws is not None:
        curves.append(expected_coverage(found, level=level, seed=seed))
    return Calibration(tuple(curves))


def _rank(u: Floats, values: Floats, seed: int) -> Floats:
    """The rank of u ``(n,)`` among values ``(n, k)`` as (rank + 1/2)/(k + 1); ties take any of their places with equal chance."""
    below, equal = (values < u[:, None]).sum(1), (values == u[:, None]).sum(1)
    place = np.random.default_rng((seed, 2)).integers(0, equal + 1)
    return np.asarray((below + place + 0.5) / (values.shape[1] + 1))


def _places(k: int) -> Floats:
    """Between the ranks among k draws."""
    return np.asarray(np.arange(1, k + 1) / (k + 1))


def sbc_ranks(posterior: PosteriorDraws, *, level: float = LEVEL, seed: int = 0) -> Calibration:
    """Simulation-based calibration, quantity by quantity: ranks of the truth among its draws (arXiv:1804.06788).

    The draws of one event have to be independent of each other; thin those of a Markov chain.

    >>> rng = np.random.default_rng(1)
    >>> narrow = PosteriorDraws(rng.normal(size=500), 0.5 * rng.normal(size=(500, 50)))
    >>> sbc_ranks(narrow).diagnosis()
    'over-confident (x1)'
    """
    k = posterior.draws.shape[1]
    columns = enumerate(posterior.names)
    return Calibration(
        tuple(
            curve(
                name,
                _rank(posterior.truth[:, i], posterior.draws[..., i], seed),
                edges=_places(k),
                weight=posterior.weight,
                level=level,
                seed=seed,
            )
            for i, name in columns
        )
    )


def pit(
    u: ArrayLike, *, weight: ArrayLike | None = None, name: str = "PIT", level: float = LEVEL, seed: int = 0
) -> CalibrationCurve:
    """Probability integral transforms ``(n,)``: the predicted distribution function at the truth, P(X < x | c).

    >>> from scipy import stats
    >>> x = np.random.default_rng(1).normal(0.3, 1.0, 1000)
    >>> pit(stats.norm.cdf(x)).diagnosis()
    'biased low'
    """
    return curve(name, u, weight=weight, level=level, seed=seed)


def expected_coverage(posterior: PosteriorDraws, *, level: float = LEVEL, seed: int = 0) -> CalibrationCurve:
    """How often the highest-density region of probability z holds the truth: F(z) of the result (arXiv:2110.06581).

    Below z the model is over-confident (or biased), above it under-confident. CapabilityError without log-densities.

    >>> rng = np.random.default_rng(1)
    >>> x, y = rng.normal(size=500), 2 * rng.normal(size=(500, 50))
    >>> expected_coverage(PosteriorDraws(x, y, -(x**2) / 8, -(y**2) / 8)).diagnosis()
    'under-confident'
    """
    if posterior.log_truth is None or posterior.log_draws is None:
        raise CapabilityError("expected_coverage: expected log-densities of truths and draws; without them use tarp")
    u = _rank(-posterior.log_truth, -posterior.log_draws, seed)
    edges = _places(posterior.draws.shape[1])
    return curve("HPD", u, side="tail", edges=edges, weight=posterior.weight, level=level, seed=seed)


def tarp(
    posterior: PosteriorDraws, references: ArrayLike | None = None, *, level: float = LEVEL, seed: int = 0
) -> CalibrationCurve:
    """Tests of accuracy with random points: the share of draws nearer to a reference than the truth (arXiv:2302.03026).

    Distances are Euclidean after every quantity was divided by the standard deviation of all draws.

    Parameters
    ----------
    references : ``(n, d)``, which may depend on the context but not on the truth; None draws them uniformly over the range of all draws.

    >>> rng = np.random.default_rng(1)
    >>> wide = PosteriorDraws(rng.normal(size=(500, 3)), 2 * rng.normal(size=(500, 50, 3)))
    >>> tarp(wide).diagnosis()
    'under-confident'
    """
    n, k, d = posterior.draws.shape
    flat = posterior.draws.reshape(-1, d)
    scale = flat.std(0)
    scale[scale == 0] = 1.0
    if references is None:
        points = np.random.default_rng((seed, 3)).uniform(flat.min(0), flat.max(0), (n, d))
    else:
        points = as_floats(as_numpy(references), "references", np.float64)
        if points.shape != (n, d) or not np.isfinite(points).all():
            raise ShapeError(f"references: expected finite numbers of shape ({n}, {d}); got {points.shape}")
    away = (((posterior.draws - points[:, None]) / scale) ** 2).sum(-1)
    u = _rank((((posterior.truth - points) / scale) ** 2).sum(-1), away, seed)
    return curve("TARP", u, side="distance", edges=_places(k), weight=posterior.weight, level=level, seed=seed)


def quantile_calibration(
    truth: ArrayLike,
    quantiles: ArrayLike,
    levels: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    name: str = "quantiles",
    level: float = LEVEL,
    seed: int = 0,
) -> CalibrationCurve:
    """Predicted quantiles of a regression or a surrogate: how often is the truth below that of level z? F(z) of the result.

    Parameters
    ----------
    truth : ``(n,)``.
    quantiles : ``(n, k)`` predictions for each event; rows that are not ascending are sorted (doi:10.3982/ECTA7880).
    levels : ``(k,)`` ascending probabilities.

    Bias and width are those of normal scores in the middle of the intervals between levels, so few levels give coarse ones.

    >>> from scipy import stats
    >>> levels = np.arange(1, 50) / 50
    >>> truth = np.random.default_rng(1).normal(size=1000)
    >>> quantile_calibration(truth, np.tile(0.7 * stats.norm.ppf(levels), (1000, 1)), levels).diagnosis()
    'over-confident'
    """
    x, wanted = as_floats(as_numpy(truth), "truth", np.float64), as_grid(levels)
    predicted = as_floats(as_numpy(quantiles), "quantiles", np.float64)
    if x.ndim != 1 or predicted.shape != (len(x), len(wanted)):
        raise ShapeError(f"expected truth (n,) and quantiles (n, {len(wanted)}); got {x.shape} and {predicted.shape}")
    if not (np.isfinite(x).all() and np.isfinite(predicted).all()):
        raise NonFiniteError("truth, quantiles: expected finite numbers")
    ends = np.r_[0.0, wanted, 1.0]
    u = (0.5 * (ends[1:] + ends[:-1]))[(np.sort(predicted, axis=1) < x[:, None]).sum(1)]
    return curve(name, u, edges=wanted, weight=weight, level=level, seed=seed)
