r"""A small neutrino measurement: the double-differential cross section of muon neutrinos on carbon without pions, with its universes.

The data are the nominal expectation of a simulated experiment (Asimov data). A universe throws the uncertain parameters, reweights the
simulation, and extracts the cross section again from the same data with this other simulation, its response, background and flux, as
experiments do; for the statistics the data fluctuate as Poisson counts instead. Extraction:

.. math::

    \frac{d^2\sigma}{dp_\mu\,d\cos\theta_\mu} \Big|_t = \frac{x_t}{N \Phi_0\, N_{nucleons}\, \Delta p_t\, \Delta\cos\theta_t},

with x unfolded as in :mod:`~pofx.simulators.neutrino.extraction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.data.spec import Column
from pofx.errors import ConfigError, ShapeError
from pofx.simulators.neutrino.binning import BINNING
from pofx.simulators.neutrino.extraction import Response, unfold
from pofx.simulators.neutrino.flux import PER_EXPOSURE
from pofx.simulators.neutrino.parameters import NOMINAL, PARAMETERS, SOURCES, Parameter, Parameters, thrown
from pofx.simulators.neutrino.prediction import flux_averaged
from pofx.simulators.neutrino.simulation import Simulation, simulate

__all__ = ["Experiment"]

Array = NDArray[np.float64]

NUCLEONS = 5.5e29
"""In the target."""
UNIT = 1e-39
"""Of cross sections, in cm^2 / GeV per nucleon."""
THEORY = ("flux_peak", "flux_tail", "axial_mass", "removal_energy", "enhancement", "pauli")
"""Parameters that a true cross section depends on."""
MODELS: dict[str, dict[str, float]] = {
    "nominal": {},
    "M_A = 1.20 GeV": {"axial_mass": 1.2},
    "M_A = 1.35 GeV": {"axial_mass": 1.35},
    "no enhancement": {"enhancement": 0.0},
    "no enhancement, M_A = 1.20 GeV": {"enhancement": 0.0, "axial_mass": 1.2},
    "no enhancement, M_A = 1.35 GeV": {"enhancement": 0.0, "axial_mass": 1.35},
    "E_b = 10 MeV": {"removal_energy": 0.010},
    "E_b = 40 MeV": {"removal_energy": 0.040},
    "Pauli blocking at 0.8 p_F": {"pauli": 0.8},
    "harder flux": {"flux_peak": 0.63, "flux_tail": 0.17},
}


@dataclass(frozen=True)
class Experiment:
    """A measurement in bins of muon momentum and angle.

    Parameters
    ----------
    seed : of the simulated sample.
    events : simulated signal events that are kept; ConfigError below 20 per bin.
    exposure : of the data, in 10^21 protons on target (positive; ConfigError otherwise).

    >>> experiment = Experiment(events=1200)
    >>> experiment.columns[0]
    Column(name='p0.00-0.20_c-1.00-0.00', unit='1e-39 cm^2/GeV/nucleon', type='real', low=None, high=None)
    >>> bool(np.allclose(experiment.central, experiment.truth()))
    True
    >>> bool((experiment.universes(3, seed=1)[:2] == experiment.universes(2, seed=1)).all())
    True
    """

    seed: int = 1
    events: int = 40_000
    exposure: float = 0.4

    def __post_init__(self) -> None:
        if not self.exposure > 0:
            raise ConfigError(f"expected a positive exposure in 10^21 protons on target; got {self.exposure}")

    @property
    def edges(self) -> Array:
        """p_low, p_high (GeV), cos_low, cos_high, ``(bins, 4)``."""
        return BINNING.edges

    @property
    def columns(self) -> tuple[Column, ...]:
        """One declaration per bin, named after its edges."""
        unit = "1e-39 cm^2/GeV/nucleon"
        return tuple(Column(f"p{a:.2f}-{b:.2f}_c{low:.2f}-{high:.2f}", unit) for a, b, low, high in self.edges)

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Label and number of bins of each slice in cos theta, in order: for figures."""
        return tuple((f"{low:g} to {high:g}", len(p) - 1) for low, high, p in BINNING.slices)

    @property
    def sources(self) -> tuple[str, ...]:
        """Of uncertainty."""
        return SOURCES

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is uncertain: name, source, nominal, sigma, law, unit, meaning."""
        return PARAMETERS

    @cached_property
    def simulation(self) -> Simulation:
        """The nominal sample, which reweights itself."""
        return simulate(BINNING, self.events, PER_EXPOSURE * self.exposure * NUCLEONS, self.seed)

    @cached_property
    def response(self) -> Response:
        """Of the nominal simulation."""
        return self.simulation.response()

    @property
    def data(self) -> Array:
        """Nominal mean counts per measured bin, ``(bins,)``."""
        return self.response.expected

    @cached_property
    def central(self) -> Array:
        """The measured cross section, ``(bins,)`` in 1e-39 cm^2 / GeV per nucleon."""
        return self.extract(self.data)

    def expected(self, values: Parameters) -> Array:
        """Mean counts per measured bin if nature has other values, ``(bins,)``."""
        return self.simulation.response(values).expected

    def extract(self, counts: ArrayLike, values: Parameters = NOMINAL) -> Array:
        """The cross section that an analyser with a simulation of these values finds in some counts, both ``(bins,)``."""
        seen = np.asarray(counts, dtype=np.float64)
        if seen.shape != (len(BINNING),):
            raise ShapeError(f"expected counts of shape ({len(BINNING)},); got {seen.shape}")
        response = self.response if values == NOMINAL else self.simulation.response(values)
        model = response.reference / (PER_EXPOSURE * self.exposure * NUCLEONS * UNIT * BINNING.areas)
        result: Array = unfold(seen, response) / response.truth * model
        return result

    def truth(self, **changed: float | None) -> Array:
        """The flux-averaged cross section of a model, by quadrature: ``truth(axial_mass=1.2)``; ``(bins,)``, unit as ``central``.

        Parameters
        ----------
        changed : ``axial_mass``, ``removal_energy``, ``enhancement``, ``pauli``, ``flux_peak`` or ``flux_tail``; None is nominal.

        Raises
        ------
        ConfigError for another name, or an axial mass that is not positive.
        """
        given = {name: value for name, value in changed.items() if value is not None}
        if unknown := sorted(set(changed) - set(THEORY)):
            raise ConfigError(f"a cross section depends on {', '.join(THEORY)}; got {', '.join(unknown)}")
        return flux_averaged(self.edges, NOMINAL._replace(**given)) / UNIT

    def predictions(self) -> dict[str, Array]:
        """Several models to be judged, by name, ``(bins,)`` each."""
        return {name: self.truth(**changed) for name, changed in MODELS.items()}

    def throws(self, n: int, seed: int, source: str = "total") -> list[Parameters]:
        """The parameters of the first ``n`` universes of a seed and source."""
        return [values for values, _ in self._thrown(n, seed, source)]

    def universes(self, n: int, seed: int, source: str = "total", counts: ArrayLike | None = None) -> Array:
        """``n`` extractions of the cross section, ``(n, bins)``; each depends on its number, the seed and the source alone.

        Parameters
        ----------
        source : one of :attr:`sources`, or ``"total"``: all parameters thrown and the data fluctuated.
        counts : mean counts ``(bins,)``; by default the nominal ones.

        Raises
        ------
        ConfigError for an unknown source or a negative n or seed.
        """
        mean = self.data if counts is None else np.asarray(counts, dtype=np.float64)
        fluctuates = source in ("statistics", "total")
        rows = [
            self.extract(rng.poisson(mean) if fluctuates else mean, values)
            for values, rng in self._thrown(n, seed, source)
        ]
        return np.array(rows).reshape(n, len(BINNING))

    def _thrown(self, n: int, seed: int, source: str) -> Iterator[tuple[Parameters, np.random.Generator]]:
        names = (*SOURCES, "total")
        if source not in names:
            raise ConfigError(f"expected a source out of {', '.join(names)}; got {source!r}")
        if n < 0 or seed < 0:
            raise ConfigError(f"expected a number of universes and a seed that are not negative; got {n} and {seed}")
        for i in range(n):
            rng = np.random.default_rng([seed, names.index(source), i])
            yield thrown(source, rng), rng
