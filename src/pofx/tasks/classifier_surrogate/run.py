"""The whole analysis: jets and scores to a surrogate, beside its baselines, with its calibration, its band, and a report."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pofx.classifiers.polynomial import PolynomialClassifier
from pofx.config import check_choice
from pofx.errors import ConfigError, DataError, RangeWarning
from pofx.metrics.pvalues import Estimate
from pofx.tasks.classifier_surrogate.baselines import BinnedTagger, gaussian_logit
from pofx.tasks.classifier_surrogate.data import Floats, Tagged
from pofx.tasks.classifier_surrogate.metrics import (
    Judged,
    Known,
    Predictor,
    density_pulls,
    growth,
    judge,
    outside,
    quantile_test,
)
from pofx.tasks.classifier_surrogate.points import Scan, WorkingPoint, continuous, scan, working_points
from pofx.tasks.classifier_surrogate.surrogate import FAMILIES, Surrogate, bayesian_family, default_training, fit_tagged
from pofx.tasks.timing import Timed
from pofx.training.noise import derive_seed

if TYPE_CHECKING:
    from pofx.metrics.calibration_curves import CalibrationCurve

__all__ = ["SCALES", "Analysis", "Scale", "Settings", "run"]

FEWER = 8
"""The second surrogate is trained on this fraction of the jets."""
TESTED = 0.1
"""Share of the jets that are not trained on: see :func:`pofx.tasks.classifier_surrogate.metrics.judge`."""
LEAST, MOST = 200, 20_000
"""Jets of a file, at least, and jets to judge with, at most."""
MISTAG = 0.1
"""Share of background jets that pass the cut, where labels are known."""
ASKED = 1000
"""Jets that bands are compared with."""
BEYOND = 1400.0
"""Largest transverse momentum [GeV] of the toy's jets outside of those that are trained with."""


@dataclass(frozen=True)
class Scale:
    """How large the analysis is.

    Attributes
    ----------
    jets : of the toy, to train with.
    steps : of the training. draws : of the weights.
    family : see :func:`~pofx.tasks.classifier_surrogate.surrogate.bayesian_family`.
    quick : whether jets are told apart by low powers of their columns instead of a network.
    """

    jets: int
    steps: int
    draws: int
    family: str = "spline-flow"
    quick: bool = False


SCALES = {
    "smoke": Scale(jets=4000, steps=300, draws=12, quick=True),
    "cpu": Scale(jets=50_000, steps=4000, draws=30),
    "gpu": Scale(jets=1_000_000, steps=40_000, draws=50, family="flow-matching"),
}


@dataclass(frozen=True)
class Settings:
    """What is asked of an analysis, beside its data.

    Parameters
    ----------
    family : ``"spline-flow"`` or ``"flow-matching"`` (the paper's), with variational weights; None takes the scale's.
    train_range : feature -> (low, high): only jets inside are trained on, the others show what happens outside.
    cut : on the score, for efficiencies; by default where 10 % of the background passes, or half of all jets.
    command : quoted in the report.
    """

    family: str | None = None
    train_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    cut: float | None = None
    command: str | None = None

    def __post_init__(self) -> None:
        check_choice(self, "family", (None, *FAMILIES))
        if self.cut is not None and not 0 < self.cut < 1:
            raise ConfigError(f"cut: expected a score between 0 and 1; got {self.cut!r}")


@dataclass
class Analysis(Timed):
    """What was asked for and everything that was found."""

    train: Tagged
    test: Tagged
    beyond: Tagged | None
    size: Scale
    seed: int
    command: str
    cut: float = 0.5
    toy: Any = None
    surrogate: Surrogate | None = None
    fewer: Surrogate | None = None
    predictors: dict[str, Predictor] = field(default_factory=dict)
    judged: dict[str, Judged] = field(default_factory=dict)
    quantiles: CalibrationCurve | None = None
    pulls: Floats | None = None
    growths: dict[str, Estimate] = field(default_factory=dict)
    points: list[WorkingPoint] = field(default_factory=list)
    scan: Scan | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def fitted(self) -> Surrogate:
        """The surrogate."""
        if self.surrogate is None:
            raise ConfigError("expected a surrogate before it is used")
        return self.surrogate


def run(
    out: str | Path,
    data: Tagged | None = None,
    *,
    scale: str = "cpu",
    seed: int = 1,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Run the analysis and write ``report.html``, its figures, ``table.json`` and the model ``surrogate.pofx`` into ``out``.

    Parameters
    ----------
    out : folder, made if it is missing.
    data : jets with their scores (:meth:`Tagged.read`, :meth:`Tagged.of`); None takes the toy, whose truth is known
        (:class:`pofx.simulators.task_toys.tagger.Tagger`).
    scale : ``"smoke"`` (seconds), ``"cpu"`` (minutes) or ``"gpu"``.
    seed : of everything random.
    settings : see :class:`Settings`.

    Returns
    -------
    What ``table.json`` holds.

    Raises
    ------
    ConfigError for an unknown scale; DataError for too few jets, or none inside the range to train on; what fitting raises.

    >>> table = run("out", Tagged.read("jets.csv", features=["pt", "eta"], score="top"))  # doctest: +SKIP
    """
    if scale not in SCALES:
        raise ConfigError(f"expected a scale out of {', '.join(SCALES)}; got {scale!r}")
    asked, folder, begun = settings or Settings(), Path(out), time.perf_counter()
    command = asked.command or f"pofx run classifier-surrogate --scale {scale} --seed {seed} --out {folder.name}"
    found = _simulated(SCALES[scale], seed, command) if data is None else _given(data, SCALES[scale], seed, asked)
    found.command, found.cut = command, _cut(found.train) if asked.cut is None else asked.cut
    folder.mkdir(parents=True, exist_ok=True)
    steps: dict[str, Callable[[], None]] = {
        "surrogate": lambda: _fit(found, asked.family or found.size.family),
        "judgement": lambda: _judge(found),
        "bands": lambda: _compare_bands(found),
        "efficiencies": lambda: _efficiencies(found),
        "model": lambda: found.fitted.save(folder / "surrogate.pofx"),
        "report": lambda: _report(found, folder / "report.html"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)  # to go outside the range is the point
        for name, step in steps.items():
            with found.timed(name):
                step()
    from pofx.tasks.classifier_surrogate.page import table

    result = {**table(found), "scale": scale, "total_seconds": round(time.perf_counter() - begun, 1)}
    (folder / "table.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


# ---------------------------------------------------------------------------------------------- steps


def _simulated(size: Scale, seed: int, command: str) -> Analysis:
    from pofx.simulators.task_toys.tagger import Tagger

    toy, beyond = Tagger(), Tagger(low=Tagger().high, high=BEYOND)
    tested = min(max(round(TESTED * size.jets), LEAST), MOST)
    parts = [
        _of_toy(one, n, derive_seed(seed, name))
        for one, n, name in ((toy, size.jets, "train"), (toy, tested, "test"), (beyond, tested, "beyond"))
    ]
    return Analysis(parts[0], parts[1], parts[2], size, seed, command, toy=toy)


def _of_toy(toy: Any, n: int, seed: int) -> Tagged:
    events = toy.sample(n, seed)
    jets = events.context.x
    columns = next(iter(toy.context_spec().values())).columns
    return Tagged.of(jets, events.x[:, 0], names=columns, label=jets[:, -1])


def _given(data: Tagged, size: Scale, seed: int, asked: Settings) -> Analysis:
    inside = data.within(asked.train_range)
    if inside.sum() < LEAST:
        where = f" inside {dict(asked.train_range)}" if asked.train_range else ""
        raise DataError(f"expected at least {LEAST} jets{where} to train and to test with; got {int(inside.sum())}")
    test, train = data.take(inside).split(min(TESTED, MOST / inside.sum()), derive_seed(seed, "split"))
    beyond = data.take(~inside) if (~inside).sum() >= LEAST else None
    return Analysis(train, test, beyond, size, seed, "")


def _cut(jets: Tagged) -> float:
    if jets.label is None or jets.label.all():
        return float(np.median(jets.scores))
    return float(np.quantile(jets.scores[~jets.label], 1 - MISTAG))


def _fit(found: Analysis, name: str) -> None:
    family, size = bayesian_family(name, found.size.draws), found.size
    few = found.train.split(1 / FEWER, derive_seed(found.seed, "fewer"))[0]
    parts = [
        fit_tagged(jets, family=family, training=default_training(size.steps, derive_seed(found.seed, label), name))
        for jets, label in ((found.train, "fit"), (few, "fit fewer"))
    ]
    found.surrogate, found.fewer = parts
    found.predictors = {
        "surrogate": parts[0],
        "Gaussian logit": gaussian_logit(found.train),
        "bins": BinnedTagger(found.train),
    }


def _judge(found: Analysis) -> None:
    """On held-out jets; with the toy's density also what the truth would score, and the pulls of the band."""
    told: Any = PolynomialClassifier() if found.size.quick else "network"
    known = {} if found.toy is None else {"truth": Known(found.toy)}
    for name, one in {**found.predictors, **known}.items():
        found.judged[name] = judge(one, found.test, seed=found.seed, classifier=told)
    found.quantiles = quantile_test(
        found.fitted, found.test.take(np.arange(min(ASKED, len(found.test)))), seed=found.seed
    )
    if found.toy is not None:
        found.pulls = density_pulls(found.fitted, found.test, found.toy.log_prob)[0]


def _compare_bands(found: Analysis) -> None:
    """How much the band grows with fewer jets, and for each feature beyond those that were trained with."""
    if found.fewer is None:
        return
    rows = found.test.features[:ASKED]
    inside = found.fitted.median_band(rows)
    found.growths[f"{FEWER} times fewer jets"] = growth(inside, found.fewer.median_band(rows))
    if found.beyond is not None:
        away = found.fitted.median_band(found.beyond.features[:ASKED])
        found.growths["jets outside the range"] = growth(inside, away)
    for name in continuous(found.train):
        moved = found.fitted.median_band(outside(found.fitted, rows, name))
        found.growths[f"{name} outside the range"] = growth(inside, moved)


def _efficiencies(found: Analysis) -> None:
    table = found.predictors["bins"]
    if found.fewer is None or not isinstance(table, BinnedTagger):
        return
    found.points = working_points(found.fitted, table, found.test, found.cut)
    names = continuous(found.train)
    if names:
        truth = None if found.toy is None else found.toy.cdf
        found.scan = scan((found.fitted, found.fewer), table, found.test, names[0], found.cut, truth)


def _report(found: Analysis, path: Path) -> None:
    from pofx.tasks.classifier_surrogate.page import write_report

    write_report(found, path)
