r"""The coordinates in which a density ranks predictions.

A p-value P(log q(X) <= log q(x*)) depends on the coordinates: under y = g(x) densities change by the Jacobian, and other events become the
least probable ones. For a Gaussian in its own coordinates the ranking is that of chi2. What is chosen is said in every verdict.

===============  ===================================================================================
``"linear"``     log q(x), the density per unit of the cross section: what chi2 ranks by
``"log"``        log q(x) + sum_i log x_i, the density per unit of log x; for positive cross sections
``"ratio"``      log q(x) - log N(x; m, C), relative to the Gaussian of the same moments: independent of any change of coordinates
===============  ===================================================================================
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pofx.config import check_choice
from pofx.errors import DataError
from pofx.tasks.cross_section.published_measured import Spectrum

__all__ = ["COORDINATES", "Density", "describe", "ranked", "score"]

Floats = NDArray[np.float64]
COORDINATES = ("linear", "log", "ratio")


class Density(Protocol):
    """A fitted model, or a truth in closed form."""

    def sample(self, n: int, /, *, seed: int) -> Any:
        """``(n, bins)``."""

    def log_prob(self, x: Any, /) -> Any:
        """``(n,)``."""


class _Choice:
    def __init__(self, coordinates: str) -> None:
        self.coordinates = coordinates


def check(coordinates: str) -> None:
    """ConfigError unless it is one of :data:`COORDINATES`."""
    check_choice(_Choice(coordinates), "coordinates", COORDINATES)


def describe(coordinates: str, unit: str) -> str:
    """The sentence that verdicts and reports quote.

    >>> describe("linear", "1e-38 cm2")
    'densities rank in the linear cross section, in 1e-38 cm2'
    """
    check(coordinates)
    per = f", in {unit}" if unit else ""
    return {
        "linear": f"densities rank in the linear cross section{per}",
        "log": "densities rank in the logarithm of the cross section of every bin",
        "ratio": "densities rank relative to the Gaussian of the same mean and covariance, whatever the coordinates",
    }[coordinates]


def score(density: Density, x: Floats, coordinates: str, spectrum: Spectrum) -> Floats:
    """What events ``x``, ``(n, bins)``, are ranked by, ``(n,)``: lower is less probable; see :func:`ranked`."""
    return ranked(x, np.asarray(density.log_prob(x), np.float64), coordinates, spectrum)


def ranked(x: Floats, logp: Floats, coordinates: str, spectrum: Spectrum) -> Floats:
    """The score of events ``x``, ``(n, bins)``, whose log-densities ``(n,)`` are known.

    Parameters
    ----------
    spectrum : of the measurement, whose Gaussian ``"ratio"`` divides by.

    Raises
    ------
    DataError for ``"log"`` where a value is not positive and the density there is not zero.
    """
    if coordinates == "linear":
        return logp
    if coordinates == "ratio":
        return logp + 0.5 * spectrum.chi2(x)
    outside = ~(x > 0).all(1)
    if (outside & np.isfinite(logp)).any():
        raise DataError(
            "log coordinates: expected positive cross sections; the density allows others (declare the columns bounded below by zero)"
        )
    return np.where(outside, -np.inf, logp + np.log(np.where(x > 0, x, 1.0)).sum(1))
