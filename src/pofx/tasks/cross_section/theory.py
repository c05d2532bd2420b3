r"""Theory parameters from a published density: -2 log q(m(theta)) in place of chi2.

.. math:: \chi^2(\theta) = (m(\theta) - x)^T C^{-1} (m(\theta) - x), \qquad L(\theta) = -2 \log q(m(\theta))

Both are cost functions for iminuit, with the parameters named as the prediction function names its arguments; one standard deviation is
where the cost has risen by 1. For a Gaussian density the two differ by a constant.

The maximum of a density depends on its coordinates. Where uncertainties multiply (a flux, an efficiency), universes spread in proportion
to what was measured, and a density per unit of the cross section, like a covariance of the measured values, prefers predictions that
are too low (Peelle's puzzle); the density per unit of its logarithm does not. ``coordinates="log"`` adds :math:`-2 \sum_i \log m_i`.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from iminuit import Minuit
from numpy.typing import ArrayLike, NDArray
from scipy.stats import qmc

from pofx.errors import ConfigError, DataError, RangeWarning, ShapeError
from pofx.tasks.cross_section.coordinates import Density
from pofx.tasks.cross_section.published_measured import Measured
from pofx.tasks.cross_section.universes import Universes

__all__ = ["Chi2Cost", "Cost", "DensityCost", "ParameterFit", "compare_fits", "fit_parameters", "fit_smoothed"]

Floats = NDArray[np.float64]
Prediction = Callable[..., ArrayLike]
FORBIDDEN = 1e6
"""Added to the cost where the density is zero, so that a minimiser turns back."""


class Cost:
    """A cost of parameters, which iminuit takes as it is.

    Parameters
    ----------
    prediction : from the parameters, one after the other, to cross sections ``(bins,)``.
    names : of the parameters; by default the names of the prediction's arguments.
    """

    errordef = 1.0

    def __init__(self, prediction: Prediction, names: Sequence[str] | None = None) -> None:
        self.prediction = prediction
        self.names = tuple(names) if names is not None else _arguments(prediction)
        self.bins = 0

    @property
    def _parameters(self) -> dict[str, tuple[float, float] | None]:
        """What iminuit asks for the names."""
        return dict.fromkeys(self.names)

    def predicted(self, values: Sequence[float]) -> Floats:
        """Cross sections ``(bins,)`` for these parameters; ShapeError if they are of another measurement."""
        if len(values) != len(self.names):
            raise ShapeError(f"expected {len(self.names)} parameters ({', '.join(self.names)}); got {len(values)}")
        row = np.asarray(self.prediction(*values), np.float64)
        if row.shape != (self.bins,):
            raise ShapeError(
                f"the prediction has shape {row.shape}; expected ({self.bins},), one cross section per bin"
            )
        return row

    def __call__(self, *values: float) -> float:
        """The cost."""
        raise NotImplementedError


class Chi2Cost(Cost):
    """chi2 with the central values and the covariance of a measurement.

    >>> cost = Chi2Cost(([1.0, 1.0], [[0.01, 0.0], [0.0, 0.01]]), lambda scale: [scale, scale])
    >>> round(cost(1.1), 6)
    2.0
    """

    def __init__(
        self,
        measured: Universes | Measured | tuple[ArrayLike, ArrayLike],
        prediction: Prediction,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(prediction, names)
        self.spectrum = _measured(measured).spectrum()
        self.bins = len(self.spectrum.central)

    def __call__(self, *values: float) -> float:
        return float(self.spectrum.chi2(self.predicted(values)[None])[0])


class DensityCost(Cost):
    """-2 log q of the prediction.

    Parameters
    ----------
    density : of the measurement: a model, a release's model, or a truth in closed form.
    coordinates : ``"linear"`` or ``"log"``, in which the density is taken.
    bins : of the measurement; found from the density if it knows.

    >>> from pofx.simulators.densities import CorrelatedGaussian
    >>> truth = CorrelatedGaussian([1.0, 1.0], [[0.01, 0.0], [0.0, 0.01]])
    >>> cost = DensityCost(truth, lambda scale: [scale, scale])
    >>> round(cost(1.1) - cost(1.0), 6)
    2.0
    """

    def __init__(
        self,
        density: Density,
        prediction: Prediction,
        names: Sequence[str] | None = None,
        *,
        coordinates: str = "linear",
        bins: int | None = None,
    ) -> None:
        super().__init__(prediction, names)
        if coordinates not in ("linear", "log"):
            raise ConfigError(f"coordinates: expected 'linear' or 'log'; got {coordinates!r}")
        self.density, self.coordinates, self.bins = density, coordinates, _bins(density) if bins is None else bins

    def __call__(self, *values: float) -> float:
        row = self.predicted(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RangeWarning)  # a minimiser looks everywhere
            logp = float(np.asarray(self.density.log_prob(row[None]))[0])
        if self.coordinates == "log":
            logp = logp + float(np.log(row).sum()) if (row > 0).all() else -math.inf
        if math.isnan(logp):
            raise DataError(f"the density of the prediction at {dict(zip(self.names, values, strict=True))} is NaN")
        return -2.0 * logp if math.isfinite(logp) else FORBIDDEN


@dataclass(frozen=True, eq=False)
class ParameterFit:
    """A minimised cost.

    Attributes
    ----------
    names : of the parameters.
    values, errors : at the minimum, and from the second derivatives there.
    minos : parameter -> (lower, upper) errors where the profile has risen by 1; None where it does not on that side.
    covariance : ``(p, p)`` of the second derivatives.
    cost : at the minimum.
    valid : whether the minimiser calls it a minimum.
    smoothed : values and errors are those of a quadratic surface through the cost around its minimum, not of the minimum itself.
    """

    names: tuple[str, ...]
    values: dict[str, float]
    errors: dict[str, float]
    minos: dict[str, tuple[float, float] | None]
    covariance: Floats
    cost: float
    valid: bool
    _minuit: Minuit
    smoothed: bool = False

    def profile(self, name: str, points: int = 31, reach: float = 3.0) -> tuple[Floats, Floats]:
        """Values of a parameter within ``reach`` errors, and the cost above its minimum, minimised in all others."""
        self._known(name)
        low, high = (self.values[name] + sign * reach * self.errors[name] for sign in (-1, 1))
        least, most = self._minuit.limits[name]
        x, cost, _ = self._minuit.mnprofile(name, size=points, bound=(max(low, least), min(high, most)))
        return np.asarray(x), np.asarray(cost) - self.cost

    def contour(self, first: str, second: str, level: float = 0.6827, points: int = 40) -> Floats:
        """Points ``(k, 2)`` on the contour that holds two parameters with this probability."""
        self._known(first)
        self._known(second)
        return np.asarray(self._minuit.mncontour(first, second, cl=level, size=points))

    def interval(self, name: str) -> tuple[float, float]:
        """The 68 % interval: from the profile where it closes, else from the second derivatives."""
        self._known(name)
        low, high = self.minos[name] or (-self.errors[name], self.errors[name])
        return self.values[name] + low, self.values[name] + high

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "values": self.values,
            "errors": self.errors,
            "minos": {name: None if pair is None else list(pair) for name, pair in self.minos.items()},
            "cost": self.cost,
            "valid": self.valid,
        }

    def _known(self, name: str) -> None:
        if name not in self.names:
            raise ConfigError(f"no parameter is called {name!r}; there are {', '.join(self.names)}")


def fit_parameters(
    cost: Cost,
    start: Mapping[str, float],
    *,
    limits: Mapping[str, tuple[float | None, float | None]] | None = None,
    steps: Mapping[str, float] | None = None,
    minos: bool = True,
) -> ParameterFit:
    """Minimise a cost.

    Parameters
    ----------
    start : parameter -> value.
    limits : parameter -> (lowest, highest), None for an open end.
    steps : parameter -> first step; by default 1 % of the start.
    minos : find asymmetric errors from the profiles.

    A flow computes in float32, so its log-density is a number with about six digits; second derivatives are taken with steps that stand
    clear of that (minuit is told the precision of the cost).

    Raises
    ------
    ConfigError for unknown or missing parameters.

    >>> cost = Chi2Cost(([1.0, 1.0], [[0.01, 0.0], [0.0, 0.01]]), lambda scale: [scale, scale])
    >>> found = fit_parameters(cost, {"scale": 2.0})
    >>> round(found.values["scale"], 4), round(found.errors["scale"], 4)
    (1.0, 0.0707)
    """
    if set(start) != set(cost.names):
        raise ConfigError(f"start: expected values of {', '.join(cost.names)}; got {', '.join(start) or 'none'}")
    minuit = Minuit(cost, *(start[name] for name in cost.names), name=list(cost.names))
    minuit.print_level = 0
    if isinstance(cost, DensityCost) and _single(cost.density):
        minuit.precision = 1e-6
    for name in cost.names:
        minuit.errors[name] = (steps or {}).get(name, 0.01 * abs(start[name]) or 0.01)
    for name, pair in (limits or {}).items():
        if name not in cost.names:
            raise ConfigError(f"limits: no parameter is called {name!r}; there are {', '.join(cost.names)}")
        minuit.limits[name] = pair
    minuit.strategy = 1
    minuit.migrad(ncall=10_000)
    if not minuit.valid:
        minuit.simplex()
        minuit.migrad(ncall=10_000)
    minuit.hesse()
    return _result(minuit, cost, minos)


def fit_smoothed(
    cost: Cost,
    start: Mapping[str, float],
    *,
    limits: Mapping[str, tuple[float | None, float | None]] | None = None,
    steps: Mapping[str, float] | None = None,
    points: int = 60,
) -> ParameterFit:
    """The minimum of a quadratic surface through a cost that is rough on a small scale, as that of a learnt density may be.

    The log-density of a flow or a copula has ripples of a few tenths along any curve; second derivatives at the minimum are those of a
    ripple. The surface is fitted, by least squares, to points within two standard deviations, which are found in two rounds.

    Parameters
    ----------
    start, limits, steps : as for :func:`fit_parameters`, whose minimum is where the first round begins.
    points : per round and parameter.

    Raises
    ------
    ConfigError for unknown or missing parameters; DataError if the cost does not rise around its minimum.

    >>> cost = Chi2Cost(([1.0, 1.0], [[0.01, 0.0], [0.0, 0.01]]), lambda scale: [scale, scale])
    >>> found = fit_smoothed(cost, {"scale": 2.0})
    >>> round(found.values["scale"], 4), round(found.errors["scale"], 4)
    (1.0, 0.0707)
    """
    found = fit_parameters(cost, start, limits=limits, steps=steps, minos=False)
    size = len(cost.names)
    ends = np.array(
        [[-np.inf if end is None else end for end in (limits or {}).get(name, (None, None))] for name in cost.names]
    )
    ends[:, 1] = np.where(ends[:, 1] == -np.inf, np.inf, ends[:, 1])
    centre = np.array([found.values[name] for name in cost.names])
    root = np.diag([_reach(cost, centre, k, (steps or {}).get(name), ends) for k, name in enumerate(cost.names)])
    unit = 2 * qmc.Sobol(size, seed=0, scramble=True).random(1 << math.ceil(math.log2(points * size))) - 1
    for _ in range(2):
        x = np.clip(centre + unit @ root.T, ends[:, 0], ends[:, 1])
        least, centre, covariance = _surface(x, np.array([cost(*map(float, row)) for row in x]), cost.names)
        root = 2 * np.linalg.cholesky(covariance)
    errors = dict(zip(cost.names, np.sqrt(np.diag(covariance)).tolist(), strict=True))
    values = dict(zip(cost.names, centre.tolist(), strict=True))
    inside = bool(((centre > ends[:, 0]) & (centre < ends[:, 1])).all())
    none = dict.fromkeys(cost.names)
    return ParameterFit(cost.names, values, errors, none, covariance, least, inside, found._minuit, smoothed=True)


def _reach(cost: Cost, centre: Floats, k: int, step: float | None, ends: Floats) -> float:
    """How far one parameter goes until the cost has risen by about 4, on average of both sides."""
    width = step or 0.01 * abs(centre[k]) or 0.01
    here = cost(*map(float, centre))
    for _ in range(60):
        sides = [np.clip(centre[k] + sign * width, ends[k, 0], ends[k, 1]) for sign in (-1, 1)]
        if np.mean([cost(*map(float, [*centre[:k], side, *centre[k + 1 :]])) - here for side in sides]) >= 4:
            return float(width)
        width *= 1.3
    raise DataError(f"the cost does not depend on {cost.names[k]} around its minimum")


def _surface(x: Floats, values: Floats, names: Sequence[str]) -> tuple[float, Floats, Floats]:
    """Least value, its place, and the covariance 2 H^-1 of the quadratic surface through points ``(n, p)``."""
    middle, scale = x.mean(0), x.std(0)
    u = (x - middle) / scale
    i, j = np.triu_indices(u.shape[1])
    design = np.concatenate([np.ones((len(u), 1)), u, u[:, i] * u[:, j]], axis=1)
    found = np.linalg.lstsq(design, values, rcond=None)[0]
    gradient, bend = found[1 : 1 + u.shape[1]], np.zeros((u.shape[1], u.shape[1]))
    bend[i, j] = found[1 + u.shape[1] :]
    hessian = bend + bend.T
    if not np.linalg.eigvalsh(hessian)[0] > 0:
        raise DataError(f"the cost has no minimum in {', '.join(names)} near where the minimiser stopped")
    shift = -np.linalg.solve(hessian, gradient)
    least = float(found[0] + 0.5 * gradient @ shift)
    return least, np.asarray(middle + scale * shift), np.asarray(2 * np.linalg.inv(hessian) * scale[:, None] * scale)


def compare_fits(
    fits: Mapping[str, ParameterFit], truth: Mapping[str, float] | None = None
) -> tuple[list[str], list[list[Any]]]:
    """Head and rows of a table: one row per method and parameter, with the deviation from the truth where it is known."""
    head = ["method", "parameter", "value", "error (second derivatives)", "68 % interval", "cost", "valid"]
    head += ["pull"] if truth else []
    rows = []
    for method, fit in fits.items():
        for name in fit.names:
            low, high = fit.interval(name)
            row = [
                method,
                name,
                f"{fit.values[name]:.4f}",
                f"{fit.errors[name]:.4f}",
                f"[{low:.4f}, {high:.4f}]",
                f"{fit.cost:.2f}",
                fit.valid,
            ]
            if truth and name in truth:
                side = high - fit.values[name] if truth[name] > fit.values[name] else fit.values[name] - low
                row.append(f"{(fit.values[name] - truth[name]) / side:+.2f}")
            rows.append(row)
    return head, rows


def _result(minuit: Minuit, cost: Cost, minos: bool) -> ParameterFit:
    errors: dict[str, tuple[float, float] | None] = dict.fromkeys(cost.names)
    if minos and minuit.valid:
        try:
            minuit.minos()
        except RuntimeError:  # a new minimum was found on the way: the errors stay those of the second derivatives
            minuit.migrad(ncall=10_000)
        for name in cost.names:
            found = minuit.merrors.get(name)
            errors[name] = (found.lower, found.upper) if found is not None and found.is_valid else None
    size = len(cost.names)
    covariance = np.full((size, size), np.nan) if minuit.covariance is None else np.asarray(minuit.covariance)
    values, hesse = (dict(zip(cost.names, map(float, given), strict=True)) for given in (minuit.values, minuit.errors))
    return ParameterFit(
        cost.names, values, hesse, errors, covariance, float(minuit.fval or 0.0), bool(minuit.valid), minuit
    )


def _arguments(prediction: Prediction) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(prediction).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in found) or not found:
        raise ConfigError("the prediction does not name its arguments: give names=")
    return tuple(p.name for p in found if p.kind in kinds)


def _measured(measured: Universes | Measured | tuple[ArrayLike, ArrayLike]) -> Measured:
    if isinstance(measured, Universes):
        return Measured(measured.central, measured.covariance, measured.columns)
    if isinstance(measured, Measured):
        return measured
    central, covariance = measured
    return Measured(np.asarray(central, np.float64), np.asarray(covariance, np.float64))


def _bins(density: Any) -> int:
    if hasattr(density, "layout"):
        return int(density.layout.features)
    if hasattr(density, "dim"):
        return int(density.dim)
    raise ConfigError("this density does not say how many bins it has: give bins=")


def _single(density: Any) -> bool:
    return hasattr(density, "card") and density.card.get("precision") == "float32"
