"""The whole analysis: universes to a check, a density, p-values, a fit of a theory parameter, a release and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.classifiers.polynomial import PolynomialClassifier
from pofx.config import check_choice
from pofx.errors import ConfigError
from pofx.metrics.pvalues import Coverage, coverage, tail_probabilities
from pofx.registry import family_class, family_names
from pofx.tasks.cross_section.check import SourceCheck, check
from pofx.tasks.cross_section.predict import Verdicts, predict
from pofx.tasks.cross_section.published_measured import prediction_rows
from pofx.tasks.cross_section.release import publish
from pofx.tasks.cross_section.release_files import read_predictions
from pofx.tasks.cross_section.subsets import chosen
from pofx.tasks.cross_section.theory import Chi2Cost, DensityCost, ParameterFit, fit_parameters, fit_smoothed
from pofx.tasks.cross_section.universes import Universes
from pofx.tasks.timing import Timed
from pofx.training.noise import derive_seed

if TYPE_CHECKING:
    from pofx.data.dataset import Dataset
    from pofx.metrics.c2st import C2ST
    from pofx.models.model import Model
    from pofx.models.selection import Selection

__all__ = ["SCALES", "Analysis", "Scale", "Settings", "Validation", "run"]

Floats = NDArray[np.float64]
Predictions = Mapping[str, ArrayLike] | str | Path
SPLIT = (0.75, 0.15, 0.10)
"""Of the universes: training, validation, test."""
PARAMETER = "axial mass [GeV]"
"""What is fitted to the simulated measurement."""


@dataclass(frozen=True)
class Scale:
    """How large the analysis is.

    Attributes
    ----------
    universes, by_source : how many are simulated with everything varied, and per source of uncertainty.
    checked, replicas : universes that a check looks at, and bootstrap replicas of its null.
    minutes : for choosing and training the density.
    toys : behind each p-value.
    step : every how-many-th bin of the simulated measurement is kept.
    """

    universes: int
    by_source: int
    checked: int
    replicas: int
    minutes: float
    toys: int
    step: int = 1


SCALES = {
    "smoke": Scale(universes=800, by_source=150, checked=150, replicas=40, minutes=0.08, toys=4000, step=6),
    "cpu": Scale(universes=10_000, by_source=1000, checked=1000, replicas=200, minutes=3.0, toys=100_000),
    "gpu": Scale(universes=100_000, by_source=10_000, checked=10_000, replicas=400, minutes=30.0, toys=1_000_000),
}


@dataclass(frozen=True)
class Validation:
    """A density beside the Gaussian, on universes that neither has seen.

    Attributes
    ----------
    gain : mean of log q - log N per universe, with its paired error, in nats.
    nll : density -> -log of it per universe, and its error.
    covered : density -> coverage of highest-density regions.
    p_values : density -> ``(n,)`` of the held-out universes.
    c2st : of held-out universes against as many of the density, and of the Gaussian.
    """

    gain: tuple[float, float]
    nll: Mapping[str, tuple[float, float]]
    covered: Mapping[str, Coverage]
    p_values: Mapping[str, Floats]
    c2st: Mapping[str, C2ST]


@dataclass
class Analysis(Timed):
    """What was asked for and everything that was found."""

    universes: Universes
    seed: int
    size: Scale
    command: str
    simulated: bool = False
    bins: list[int] = field(default_factory=list)
    checks: dict[str, SourceCheck] = field(default_factory=dict)
    selection: Selection | None = None
    models: dict[str, Model] = field(default_factory=dict)
    data: Dataset | None = None
    samples: Floats | None = None
    validation: Validation | None = None
    predictions: Mapping[str, Floats] = field(default_factory=dict)
    verdicts: Verdicts | None = None
    fits: dict[str, ParameterFit] = field(default_factory=dict)
    truth: float | None = None
    release: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def density(self) -> Model:
        """The density that was chosen."""
        return self.models["density"]


@dataclass(frozen=True)
class Settings:
    """What is asked of an analysis, beside its data.

    Parameters
    ----------
    model : ``"auto"`` or the name of a family.
    minutes : for choosing and training the density; by default what the scale says.
    bins : only these.
    shape_only : compare shapes, see :func:`~pofx.tasks.cross_section.subsets.chosen`.
    command : quoted in the report.
    """

    model: str = "auto"
    minutes: float | None = None
    bins: Sequence[int] | None = None
    shape_only: bool = False
    command: str | None = None

    def __post_init__(self) -> None:
        check_choice(self, "model", ("auto", *family_names()))


def run(
    out: str | Path,
    universes: Universes | str | Path | None = None,
    predictions: Predictions | None = None,
    *,
    scale: str = "cpu",
    seed: int = 1,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Run the analysis and write ``report.html``, its figures, ``table.json``, ``universes.h5`` and the folder ``release`` into ``out``.

    Parameters
    ----------
    out : folder, made if it is missing.
    universes : of the measurement, or their file; None simulates a small neutrino measurement (:mod:`pofx.simulators.neutrino`).
    predictions : of theoretical models, by name ``(bins,)``, or a table with one row per model; None takes those of the simulator, or the
        measured values times 0.9, 1 and 1.1.
    scale : ``"smoke"`` (seconds), ``"cpu"`` (minutes) or ``"gpu"``.
    seed : of everything random.
    settings : see :class:`Settings`.

    Returns
    -------
    What ``table.json`` holds.

    Raises
    ------
    ConfigError for an unknown scale or family; what reading, checking and fitting raise.

    >>> table = run("out", "universes.h5", "predictions.csv")  # doctest: +SKIP
    """
    if scale not in SCALES:
        raise ConfigError(f"expected a scale out of {', '.join(SCALES)}; got {scale!r}")
    asked, folder, size, begun = settings or Settings(), Path(out), SCALES[scale], time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    command = asked.command or f"pofx run cross-section --scale {scale} --seed {seed} --out {folder.name}"
    found = _prepared(universes, predictions, replace(asked, command=command), size, seed)
    found.universes.write(folder / "universes.h5")
    steps: dict[str, Callable[[], None]] = {
        "check": lambda: _check(found),
        "density": lambda: _fit(found, asked),
        "validation": lambda: _validate(found),
        "p-values": lambda: _judge(found),
        "theory": lambda: _fit_theory(found, asked),
        "release": lambda: _publish(found, folder / "release"),
        "report": lambda: _report(found, folder / "report.html"),
    }
    for name, step in steps.items():
        with found.timed(name):
            step()
    table = {**_table(found), "scale": scale, "total_seconds": round(time.perf_counter() - begun, 1)}
    (folder / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return table


# ---------------------------------------------------------------------------------------------- steps


def _prepared(
    universes: Universes | str | Path | None, predictions: Predictions | None, asked: Settings, size: Scale, seed: int
) -> Analysis:
    """Universes and predictions in the bins that were asked for; for simulated ones also the fit of the axial mass."""
    if universes is None:
        found = _simulated(size, seed, asked.command or "")
    else:
        whole = universes if isinstance(universes, Universes) else Universes.read(universes)
        found = Analysis(whole, seed, size, asked.command or "", bins=list(range(whole.bins)))
    given = found.predictions if predictions is None else _rows(predictions, found.universes)
    if not given:
        given = {f"measured x {factor}": factor * found.universes.central for factor in (1.0, 0.9, 1.1)}
    bins = list(range(found.universes.bins) if asked.bins is None else asked.bins)
    narrowed = found.universes.select(bins)
    names, rows = prediction_rows(given, found.universes.bins)
    rows = narrowed.shape_of(rows[:, bins]) if asked.shape_only else rows[:, bins]
    found.universes, found.bins = chosen(found.universes, bins, asked.shape_only), [found.bins[i] for i in bins]
    found.predictions = dict(zip(names, rows, strict=True))
    return found


def _simulated(size: Scale, seed: int, command: str) -> Analysis:
    from pofx.simulators.neutrino import Experiment

    begun = time.perf_counter()
    experiment = Experiment(seed=seed)
    bins = list(range(0, len(experiment.columns), size.step))
    counts = np.random.default_rng(derive_seed(seed, "data")).poisson(experiment.data)
    total = experiment.universes(size.universes, seed, counts=counts)
    sources = {name: experiment.universes(size.by_source, seed, name, counts) for name in experiment.sources}
    whole = Universes(
        total,
        experiment.extract(counts),
        experiment.columns,
        sources,
        "Simulated muon-neutrino cross section without pions",
    )
    found = Analysis(whole.select(bins), seed, size, command, simulated=True, bins=bins)
    found.predictions = {name: row[bins] for name, row in experiment.predictions().items()}
    found.seconds["simulation"] = round(time.perf_counter() - begun, 2)
    return found


def _rows(predictions: Predictions, universes: Universes) -> Mapping[str, Floats]:
    if isinstance(predictions, (str, Path)):
        return read_predictions(predictions, universes.names, universes.bins)
    return {name: np.asarray(row, np.float64) for name, row in predictions.items()}


def _check(found: Analysis) -> None:
    found.checks = check(found.universes, most=found.size.checked, replicas=found.size.replicas, seed=found.seed)


def _fit(found: Analysis, asked: Settings) -> None:
    from pofx.models.gaussian import Gaussian
    from pofx.models.selection import select
    from pofx.training.settings import Training

    found.data = found.universes.dataset(SPLIT, seed=found.seed)
    found.models["Gaussian"] = Gaussian().fit(found.data)
    minutes = found.size.minutes if asked.minutes is None else asked.minutes
    if asked.model == "auto":
        found.selection = select(found.data, seed=found.seed, minutes=minutes)
        found.models["density"] = found.selection.model
    else:
        training = Training(max_minutes=minutes, seed=found.seed)
        found.models["density"] = family_class(asked.model)().fit(found.data, training=training)


def _validate(found: Analysis) -> None:
    """The density and the Gaussian on the test universes."""
    from pofx.metrics.c2st import c2st

    if found.data is None:
        raise ConfigError("expected a density before its validation")
    test = np.asarray(found.data.test.arrays().x, np.float64)
    toys = {
        name: model.sample(found.size.toys, seed=derive_seed(found.seed, "validation"))
        for name, model in found.models.items()
    }
    found.samples = np.asarray(toys["density"][:50_000])
    logs = {name: model.log_prob(test) for name, model in found.models.items()}
    own = {name: model.log_prob(toys[name]) for name, model in found.models.items()}
    gain = logs["density"] - logs["Gaussian"]
    found.validation = Validation(
        _mean(gain),
        {name: _mean(-values) for name, values in logs.items()},
        {name: coverage(logs[name], own[name]) for name in logs},
        {name: tail_probabilities(logs[name], own[name]) for name in logs},
        {
            name: c2st(test, toys[name][: len(test)], judge=PolynomialClassifier(), whiten=True, seed=found.seed)
            for name in logs
        },
    )


def _judge(found: Analysis) -> None:
    found.verdicts = predict(
        found.predictions, density=found.density, universes=found.universes, toys=found.size.toys, seed=found.seed
    )


def _mean(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _fit_theory(found: Analysis, asked: Settings) -> None:
    """The axial mass of the simulated measurement by chi2 and by the density, from predictions interpolated between nine values."""
    if not found.simulated or asked.shape_only:
        return
    from scipy.interpolate import CubicSpline

    from pofx.simulators.neutrino import Experiment

    experiment, grid = Experiment(seed=found.seed), np.linspace(0.6, 1.8, 9)
    spline = CubicSpline(grid, np.stack([experiment.truth(axial_mass=float(m))[found.bins] for m in grid]))

    def prediction(axial_mass: float) -> Floats:
        return np.asarray(spline(axial_mass))

    options: dict[str, Any] = {"limits": {"axial_mass": (0.6, 1.8)}, "steps": {"axial_mass": 0.02}}
    start, positive = {"axial_mass": 1.0}, bool((found.universes.total > 0).all())
    found.fits["chi2"] = fit_parameters(Chi2Cost(found.universes, prediction), start, **options)
    for coordinates in ("linear", "log") if positive else ("linear",):
        cost = DensityCost(found.density, prediction, coordinates=coordinates)
        found.fits[f"density, {coordinates}"] = fit_smoothed(cost, start, **options)
    found.truth = next(p.nominal for p in experiment.parameters if p.name == "axial_mass")


def _publish(found: Analysis, folder: Path) -> None:
    found.release = publish(
        folder,
        model=found.density,
        universes_or_measured=found.universes,
        predictions=found.predictions,
        toys=found.size.toys,
        seed=found.seed,
        force=True,
        title=found.universes.title,
    )


def _report(found: Analysis, path: Path) -> None:
    from pofx.tasks.cross_section.page import write_report

    write_report(found, path)


def _table(found: Analysis) -> dict[str, Any]:
    from pofx.tasks.cross_section.page import table

    return table(found)
