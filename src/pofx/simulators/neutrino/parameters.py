"""Everything that is uncertain in the measurement: nominal values, sizes, correlations, and how universes are thrown.

A *normal* parameter is thrown as nominal + sigma z, a *log-normal* one, which has to stay positive, as nominal exp(sigma z), z being
standard normal. Sizes are of the order that T2K and MiniBooNE quote (arXiv:2002.09323, arXiv:1002.2680), rounded: an illustration,
not anybody's error budget.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOMINAL", "PARAMETERS", "SOURCES", "Parameter", "Parameters", "correlation", "thrown"]

Array = NDArray[np.float64]

SOURCES = ("flux", "interaction", "reinteraction", "detector", "statistics")
"""Of uncertainty; ``"statistics"`` has no parameter, but Poisson counts."""


class Parameters(NamedTuple):
    """One value of each parameter; the defaults are nominal. Units are in :data:`PARAMETERS`."""

    flux_normalisation: float = 1.0
    flux_peak: float = 0.6
    flux_tail: float = 0.12
    axial_mass: float = 1.0
    removal_energy: float = 0.025
    enhancement: float = 1.0
    pauli: float = 1.0
    background_normalisation: float = 1.0
    background_mass: float = 1.0
    proton_reinteraction: float = 1.0
    pion_absorption: float = 1.0
    momentum_scale: float = 0.0
    momentum_resolution: float = 1.0
    angular_resolution: float = 1.0
    efficiency: float = 1.0
    efficiency_threshold: float = 0.2
    efficiency_side: float = 0.3


NOMINAL = Parameters()


class Parameter(NamedTuple):
    """A row of the table: to which source it belongs, sigma, whether it is thrown normal or log-normal, unit and meaning."""

    name: str
    source: str
    sigma: float
    law: Literal["normal", "log-normal"]
    unit: str
    meaning: str

    @property
    def nominal(self) -> float:
        """The value in the nominal simulation."""
        return float(getattr(NOMINAL, self.name))


PARAMETERS = (
    Parameter("flux_normalisation", "flux", 0.07, "log-normal", "", "N: integrated flux over the nominal one"),
    Parameter("flux_peak", "flux", 0.01, "normal", "GeV", "E_peak: where the peak of the flux is"),
    Parameter("flux_tail", "flux", 0.07, "log-normal", "", "t: share of the high-energy tail"),
    Parameter("axial_mass", "interaction", 0.1, "normal", "GeV", "M_A of the simulated signal"),
    Parameter("removal_energy", "interaction", 0.008, "normal", "GeV", "E_b of the simulated signal"),
    Parameter("enhancement", "interaction", 0.4, "log-normal", "", "a: transverse enhancement over the published one"),
    Parameter("pauli", "interaction", 0.03, "normal", "", "kappa: momentum below which nucleons are blocked over p_F"),
    Parameter("background_normalisation", "interaction", 0.2, "log-normal", "", "pion production over the nominal one"),
    Parameter("background_mass", "interaction", 0.1, "normal", "GeV", "dipole mass of pion production"),
    Parameter(
        "proton_reinteraction", "reinteraction", 0.3, "log-normal", "", "proton rescattering strength over nominal"
    ),
    Parameter("pion_absorption", "reinteraction", 0.25, "log-normal", "", "pion absorption strength over nominal"),
    Parameter("momentum_scale", "detector", 0.01, "normal", "", "relative shift of measured momenta"),
    Parameter("momentum_resolution", "detector", 0.1, "log-normal", "", "momentum resolution over nominal"),
    Parameter("angular_resolution", "detector", 0.1, "log-normal", "", "angular resolution over nominal"),
    Parameter("efficiency", "detector", 0.02, "log-normal", "", "efficiency over nominal"),
    Parameter(
        "efficiency_threshold", "detector", 0.015, "normal", "GeV", "momentum at which half of the muons are found"
    ),
    Parameter("efficiency_side", "detector", 0.15, "log-normal", "", "efficiency of backward muons over forward ones"),
)
"""One row per field of :class:`Parameters`, in that order."""

_CORRELATIONS = {
    ("flux_normalisation", "flux_peak"): -0.3,
    ("flux_normalisation", "flux_tail"): 0.4,
}


def correlation() -> Array:
    """Of the z of all parameters, ``(p, p)``; flux parameters are correlated, the others are not."""
    names = [parameter.name for parameter in PARAMETERS]
    matrix = np.eye(len(names))
    for (one, other), value in _CORRELATIONS.items():
        i, j = names.index(one), names.index(other)
        matrix[i, j] = matrix[j, i] = value
    return matrix


_ROOT = np.linalg.cholesky(correlation())


def thrown(source: str, rng: np.random.Generator) -> Parameters:
    """One throw of the parameters of a source, the others nominal; ``"total"`` throws all.

    >>> thrown("statistics", np.random.default_rng(1)) == NOMINAL
    True
    """
    z = _ROOT @ rng.standard_normal(len(PARAMETERS))
    return Parameters(
        *(_value(row, z[i]) if source in (row.source, "total") else row.nominal for i, row in enumerate(PARAMETERS))
    )


def _value(row: Parameter, z: float) -> float:
    return row.nominal + row.sigma * z if row.law == "normal" else row.nominal * math.exp(row.sigma * z)
