r"""p-values of model predictions, three ways: by chi2, by a Gaussian density, by a fitted density.

.. math:: \chi^2 = (m - x)^T C^{-1} (m - x), \qquad p_q(m) = P\left(\log q(X) \le \log q(m)\right),\ X \sim q

with central values x and covariance C of the universes. The Gaussian density gives the p-value of chi2 up to counting; it is there to show
that. Where no toy is as improbable as a prediction, an upper limit is given, and importance sampling where it works
(:mod:`~pofx.tasks.cross_section.importance`).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from pofx.errors import ConfigError, DataError, RangeWarning
from pofx.metrics.pvalues import PValue, tail_probability
from pofx.tasks.cross_section import coordinates as ranking
from pofx.tasks.cross_section.coordinates import Density
from pofx.tasks.cross_section.importance import FarTail, far_tail
from pofx.tasks.cross_section.published_measured import Measured, Spectrum, prediction_rows
from pofx.tasks.cross_section.universes import Universes
from pofx.training.noise import derive_seed

__all__ = ["LEVELS", "METHODS", "Verdict", "Verdicts", "predict"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
METHODS = ("chi2", "Gaussian", "density")
LEVELS = (0.05, 0.01, 0.0027)
"""p-values below which a prediction is called disfavoured; where methods disagree about one, the verdict changes."""
FEW = 10
"""Toys below which importance sampling is tried."""


@dataclass(frozen=True)
class Verdict:
    """What each method says of one prediction.

    Attributes
    ----------
    name : of the prediction.
    chi2, ndf : and ``p_chi2``, analytic.
    gaussian, density : p-values from toys of each density.
    score : what the density ranks the prediction by (its log-density in linear coordinates).
    far : the density's p-value by importance sampling, where few toys are as improbable; None elsewhere, or where it fails.
    outside : length of the deviation along empty directions of the covariance, in errors; chi2 does not see it.
    """

    name: str
    chi2: float
    ndf: int
    p_chi2: float
    gaussian: PValue
    density: PValue
    score: float
    far: FarTail | None = None
    outside: float = 0.0

    @property
    def z_chi2(self) -> float:
        """One-sided significance of chi2."""
        return -float(special.ndtri(self.p_chi2))

    @property
    def p_density(self) -> float:
        """The density's p-value: by importance sampling where there is one, else from toys, else the upper limit at 95 %."""
        if self.far is not None:
            return self.far.value
        return self.density.value if self.density.count else self.density.upper_limit()

    @property
    def limited(self) -> bool:
        """Whether only an upper limit on the density's p-value is known."""
        return self.far is None and self.density.count == 0

    @property
    def interval(self) -> tuple[float, float]:
        """68 % interval of the density's p-value; from zero to the upper limit at 95 % where only that is known."""
        if self.far is not None:
            return self.far.value - self.far.error, self.far.value + self.far.error
        return (0.0, self.density.upper_limit()) if self.limited else (self.density.low, self.density.high)

    @property
    def changes(self) -> tuple[float, ...]:
        """Levels on whose two sides chi2 and the density are, the density by more than its counting error."""
        low, high = self.interval
        return tuple(level for level in LEVELS if (high < level <= self.p_chi2) or (self.p_chi2 < level <= low))

    @property
    def open(self) -> tuple[float, ...]:
        """Levels that the interval of the density's p-value contains: more toys would decide."""
        low, high = self.interval
        return tuple(level for level in LEVELS if low < level <= high)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        far = (
            None
            if self.far is None
            else {"value": self.far.value, "error": self.far.error, "z": self.far.z, "effective": self.far.effective}
        )
        return {
            "prediction": self.name,
            "chi2": self.chi2,
            "ndf": self.ndf,
            "p_chi2": self.p_chi2,
            "z_chi2": self.z_chi2,
            "p_gaussian": _plain(self.gaussian),
            "p_density": _plain(self.density),
            "p_density_far_tail": far,
            "upper_limit": self.density.upper_limit() if self.limited else None,
            "score": self.score,
            "outside": self.outside,
            "changes_at": list(self.changes),
            "open_at": list(self.open),
        }


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on several predictions.

    Attributes
    ----------
    verdicts : in the order of the predictions.
    coordinates : the sentence that says what densities rank in.
    toys, seed : behind the p-values.
    notes : what else one has to know.
    """

    verdicts: tuple[Verdict, ...]
    coordinates: str
    toys: int
    seed: int
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def order(self, method: str) -> list[str]:
        """Names from the most to the least probable, by a method out of :data:`METHODS`."""
        if method not in METHODS:
            raise ConfigError(f"expected a method out of {', '.join(METHODS)}; got {method!r}")
        if method == "density":  # the p-value rises with the score, which has no counting error
            return [verdict.name for verdict in sorted(self.verdicts, key=lambda v: -v.score)]
        return [verdict.name for verdict in sorted(self.verdicts, key=lambda v: v.chi2)]

    @property
    def moved(self) -> tuple[str, ...]:
        """Predictions whose rank by the density is not that by chi2."""
        first, second = self.order("chi2"), self.order("density")
        return tuple(v.name for v in self.verdicts if first.index(v.name) != second.index(v.name))

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Head and rows of a table."""
        head = [
            "prediction",
            "chi2/ndf",
            "p of chi2",
            "Z",
            "p, Gaussian density",
            "p, density",
            "Z",
            "rank: chi2 → density",
            "verdict",
        ]
        first, second = self.order("chi2"), self.order("density")
        rows = []
        for v in self.verdicts:
            a, b = first.index(v.name) + 1, second.index(v.name) + 1
            changed, undecided = (", ".join(f"{level:g}" for level in levels) for levels in (v.changes, v.open))
            verdict = f"changes at p = {changed}" if changed else "same"
            verdict += f"; open at p = {undecided}" if undecided else ""
            place = f"{a} → {b}" + (" ▲" if b < a else " ▼" if b > a else "")
            rows.append(
                [
                    v.name,
                    f"{v.chi2:.1f}/{v.ndf}",
                    _small(v.p_chi2),
                    f"{v.z_chi2:.2f}",
                    str(v.gaussian),
                    _shown(v),
                    _z(v),
                    place,
                    verdict,
                ]
            )
        return head, rows

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "coordinates": self.coordinates,
            "toys": self.toys,
            "seed": self.seed,
            "order": {method: self.order(method) for method in METHODS},
            "moved": list(self.moved),
            "notes": list(self.notes),
            "predictions": [verdict.to_dict() for verdict in self.verdicts],
        }

    def __str__(self) -> str:
        head, rows = self.rows()
        widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
        lines = [
            "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        ]
        return "\n".join([*lines, f"({self.coordinates}; {self.toys} toys)", *self.notes])


def predict(
    predictions: Mapping[str, ArrayLike] | ArrayLike,
    *,
    density: Density,
    universes: Universes | tuple[ArrayLike, ArrayLike],
    toys: int = 100_000,
    seed: int = 0,
    far: bool = True,
    coordinates: str = "linear",
) -> Verdicts:
    """Judge predictions by chi2, by the Gaussian density and by a fitted density.

    Parameters
    ----------
    predictions : name -> ``(bins,)``, or rows ``(m, bins)``.
    density : a model of the universes, or a density in closed form with ``sample(n, seed=)`` and ``log_prob``.
    universes : they give central values and covariance; or these two themselves.
    toys : behind each p-value.
    seed : of the toys.
    far : try importance sampling where fewer than 10 toys are as improbable.
    coordinates : that the density ranks in, see :mod:`~pofx.tasks.cross_section.coordinates`.

    Raises
    ------
    ShapeError, NonFiniteError, ConfigError, DataError.

    >>> from pofx.simulators.densities import CorrelatedGaussian
    >>> truth = CorrelatedGaussian([1.0, 2.0], [[0.04, 0.0], [0.0, 0.01]])
    >>> found = predict({"near": [1.1, 2.0]}, density=truth, universes=(truth.mean, truth.covariance), toys=2000)
    >>> round(found.verdicts[0].chi2, 3), found.verdicts[0].changes
    (0.25, ())
    """
    ranking.check(coordinates)
    if toys < 100:
        raise ConfigError(f"toys: expected at least 100; got {toys}")
    measured, unit = _measured(universes)
    names, rows = prediction_rows(predictions, len(measured))
    spectrum = measured.spectrum()
    many = np.asarray(density.sample(toys, seed=derive_seed(seed, "toys")), np.float64)
    ranks = ranking.score(density, many, coordinates, spectrum)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RangeWarning)
        scores = ranking.score(density, rows, coordinates, spectrum)
    squares = spectrum.chi2(spectrum.throws(toys, np.random.default_rng(derive_seed(seed, "Gaussian"))))
    verdicts = []
    for name, row, value in zip(names, rows, scores, strict=True):
        p, chi2 = tail_probability(float(value), ranks), float(spectrum.chi2(row[None])[0])
        wanted = far and p.count < FEW and np.isfinite(value)
        tail = _far(density, float(value), coordinates, spectrum, ranks, seed) if wanted else None
        gaussian, outside = tail_probability(-chi2, -squares), float(spectrum.outside(row[None])[0])
        p_chi2 = float(stats.chi2.sf(chi2, spectrum.rank))
        verdicts.append(Verdict(name, chi2, spectrum.rank, p_chi2, gaussian, p, float(value), tail, outside))
    return Verdicts(
        tuple(verdicts),
        ranking.describe(coordinates, unit),
        toys,
        seed,
        (*_notes(universes, spectrum), *_outside(caught)),
    )


def _far(
    density: Density, value: float, coordinates: str, spectrum: Spectrum, counted: Floats, seed: int
) -> FarTail | None:
    def rank(x: Floats, logp: Floats) -> Floats:
        return ranking.ranked(x, logp, coordinates, spectrum)

    events = min(max(len(counted) // 2, 10_000), 100_000)
    try:
        return far_tail(density, value, rank, events=events, seed=derive_seed(seed, "far tail"), counted=counted)
    except DataError as error:
        logger.info("%s; an upper limit is given instead", error)
        return None


def _measured(universes: Universes | tuple[ArrayLike, ArrayLike]) -> tuple[Measured, str]:
    if isinstance(universes, Universes):
        return Measured(universes.central, universes.covariance, universes.columns), universes.unit
    central, covariance = universes
    return Measured(np.asarray(central, np.float64), np.asarray(covariance, np.float64)), ""


def _notes(universes: Universes | tuple[ArrayLike, ArrayLike], spectrum: Spectrum) -> tuple[str, ...]:
    notes: list[str] = []
    if spectrum.rank < len(spectrum.names):
        empty = "; ".join(str(direction) for direction in spectrum.empty())
        notes.append(f"The covariance has rank {spectrum.rank} of {len(spectrum.names)}; chi2 leaves out: {empty}.")
    if isinstance(universes, Universes):
        offset = float(spectrum.chi2(universes.mean[None])[0])
        expected = spectrum.rank / len(universes)
        if offset > 0.01 * spectrum.rank + 5 * expected:
            notes.append(
                f"The mean of the universes is not the central value: chi2 between them is {offset:.2f} ({expected:.2g} expected); "
                "chi2 is taken about the central values, the density is that of the universes."
            )
        notes += universes.notes
    return tuple(notes)


def _outside(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    """What the density warned of: predictions where it extrapolates."""
    return tuple(f"The density extrapolates: {w.message}." for w in caught if issubclass(w.category, RangeWarning))


def _plain(p: PValue) -> dict[str, float | int]:
    return {"value": p.value, "low": p.low, "high": p.high, "count": p.count, "trials": p.trials}


def _small(p: float) -> str:
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.1e}"


def _shown(v: Verdict) -> str:
    return str(v.density) if v.far is None else f"{v.far} *"


def _z(v: Verdict) -> str:
    if v.limited:
        return f"> {-float(special.ndtri(v.density.upper_limit())):.2f}"
    if v.far is not None:
        return f"{v.far.z:.2f} [{v.far.z - v.far.z_error:.2f}, {v.far.z + v.far.z_error:.2f}]"
    return f"{v.density.z:.2f} [{v.density.z_low:.2f}, {v.density.z_high:.2f}]"
