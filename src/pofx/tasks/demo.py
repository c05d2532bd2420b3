"""The demonstration: a cross-section measurement whose covariance matrix does not tell everything.

Toys of a T2K-like measurement (:func:`pofx.simulators.densities.t2k_like`, lognormal where events are few) are written to a file, read
back, and learnt. Predictions are then judged by chi2, by a Gaussian density and by the learnt density, each with its p-value: the
share of toys of that density that are less probable. Because the truth is known, so are the right p-value and the gap to it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from pofx.errors import ConfigError
from pofx.report.statistics import Mean, clopper_pearson, mean_error
from pofx.report.tables import Floats

if TYPE_CHECKING:
    from pofx.data.dataset import Dataset
    from pofx.models.model import Model
    from pofx.report.html import Report
    from pofx.simulators.densities import Lognormal

__all__ = ["SCALES", "PValue", "Scale", "predictions", "run", "tail_probability"]


@dataclass(frozen=True)
class Scale:
    """How large the demonstration is: toys to learn from, every how-many-th bin, epochs, toys per p-value, flow layers and widths."""

    toys: int
    step: int
    epochs: int
    trials: int
    layers: int
    hidden: tuple[int, ...]


SCALES = {
    "smoke": Scale(toys=3000, step=5, epochs=5, trials=4000, layers=1, hidden=(32, 32)),
    "cpu": Scale(toys=20_000, step=1, epochs=15, trials=40_000, layers=2, hidden=(64, 64)),
}


@dataclass(frozen=True)
class PValue:
    """Share of toys that are less probable than a prediction, with the central 68 % interval of Clopper and Pearson."""

    value: float
    low: float
    high: float
    trials: int

    def __str__(self) -> str:
        if self.value == 0.0:
            return f"< {self.high:.1g}"
        if self.value == 1.0:
            return f"> {self.low:.4f}"
        error = (self.high - self.low) / 2
        digits = max(4, math.ceil(-math.log10(error)))
        return f"{self.value:.{digits}f} ± {error:.{digits}f}"


def run(out: str | Path, scale: str = "cpu", seed: int = 1) -> dict[str, Any]:
    """Run the demonstration and write ``toys.h5``, ``toys.pofx``, ``table.json``, ``report.html`` and its figures into ``out``.

    Parameters
    ----------
    out : folder, made if it is missing.
    scale : ``"smoke"`` (seconds) or ``"cpu"`` (minutes).
    seed : of the toys, the training and the samples.

    Returns
    -------
    What ``table.json`` holds.
    """
    if scale not in SCALES:
        raise ConfigError(f"expected a scale out of {', '.join(SCALES)}; got {scale!r}")
    folder, size, start = Path(out), SCALES[scale], time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    truth = _truth(size)
    data = _toys(truth, size.toys, seed, folder / "toys.h5")
    flow, gaussian = _fit(data, size, seed)
    flow.save(folder / "toys.pofx")
    samples = flow.sample(size.trials, seed=seed + 1)
    judged = _judge(truth, flow, gaussian, samples, seed)
    table = {
        "scale": scale,
        "seed": seed,
        "bins": truth.dim,
        "toys": size.toys,
        "densities": _densities(truth, data, flow, gaussian),
        "predictions": judged,
        "training_seconds": flow.card["training"]["seconds"],
    }
    _report(
        folder / "report.html", truth, data, flow, samples, judged, f"pofx demo --out {folder.name} --scale {scale}"
    )
    table["seconds"] = time.perf_counter() - start
    (folder / "table.json").write_text(json.dumps(table, indent=1, default=asdict) + "\n", encoding="utf-8")
    _show(table, folder)
    return table


def predictions(truth: Lognormal) -> dict[str, Floats]:
    """Three models of the cross section, ``(1, bins)`` each: as measured, and with few-event bins at a quarter and at 250 %."""
    mean = truth.moments()[0]
    few = truth.logarithmic
    return {
        "nominal": mean[None],
        "few x 0.25": np.where(few, 0.25 * mean, mean)[None],
        "few x 2.5": np.where(few, 2.5 * mean, mean)[None],
    }


def tail_probability(log_density: float, toys: Floats) -> PValue:
    """The share of toys with a lower log-density, ``toys`` of shape ``(n,)``.

    >>> tail_probability(0.5, np.array([0.0, 1.0, 2.0, 3.0])).value
    0.25
    """
    count = int((toys < log_density).sum())
    low, high = clopper_pearson(count, len(toys))
    return PValue(count / len(toys), low, high, len(toys))


def _truth(size: Scale) -> Lognormal:
    from pofx.simulators.densities import t2k_like

    full = t2k_like()
    return full.marginal(range(0, full.dim, size.step))


def _toys(truth: Lognormal, n: int, seed: int, path: Path) -> Dataset:
    """Toys to a file and back: what a measurement hands out."""
    from pofx.data.reading import read
    from pofx.data.spec import Column
    from pofx.data.writing import write

    columns = [Column(f"bin{i:02d}", c.unit, c.type, c.low, c.high) for i, c in enumerate(truth.columns())]
    write(path, truth.sample(n, seed), columns=columns)
    return read(path)


def _fit(data: Dataset, size: Scale, seed: int) -> tuple[Model, Model]:
    from pofx.models.flows import SplineFlow
    from pofx.models.gaussian import Gaussian
    from pofx.training.settings import Training

    training = Training(max_epochs=size.epochs, max_minutes=2.5, learning_rate=5e-4, patience=5, seed=seed)
    flow = SplineFlow(layers=size.layers, hidden=size.hidden).fit(data, training=training)
    return flow, Gaussian().fit(data)


def _densities(truth: Lognormal, data: Dataset, flow: Model, gaussian: Model) -> dict[str, Mapping[str, Mean]]:
    """-log p of test toys per density, in nats, and its gap to the exact one."""
    events = data.test.arrays()
    exact = truth.log_prob(events.x)
    found = {"exact": exact, "flow": flow.log_prob_events(events), "Gaussian": gaussian.log_prob_events(events)}
    return {name: {"nll": mean_error(-logp), "gap": mean_error(exact - logp)} for name, logp in found.items()}


def _judge(truth: Lognormal, flow: Model, gaussian: Model, samples: Floats, seed: int) -> list[dict[str, Any]]:
    """Each prediction's chi2 and log-densities, with p-values out of toys of each density."""
    mean, covariance = truth.moments()
    n = len(samples)
    toys = {
        "exact": truth.log_prob(truth.sample(n, seed + 2)),
        "flow": flow.log_prob(samples),
        "Gaussian": gaussian.log_prob(gaussian.sample(n, seed=seed + 1)),
    }
    rows = []
    for name, x in predictions(truth).items():
        score = {"exact": truth.log_prob(x), "flow": flow.log_prob(x), "Gaussian": gaussian.log_prob(x)}
        chi2 = _chi2(x[0] - mean, covariance)
        rows.append(
            {
                "prediction": name,
                "chi2": chi2,
                "bins": truth.dim,
                "p_chi2": float(stats.chi2.sf(chi2, truth.dim)),
                "log_density": {kind: float(value[0]) for kind, value in score.items()},
                "p_value": {kind: tail_probability(float(value[0]), toys[kind]) for kind, value in score.items()},
            }
        )
    return rows


def _chi2(offset: Floats, covariance: Floats) -> float:
    """Computed on correlations, so that cross sections of 1e-39 cm^2 do no harm."""
    sigma = np.sqrt(np.diag(covariance))
    unit = offset / sigma
    return float(unit @ np.linalg.solve(covariance / sigma[:, None] / sigma, unit))


def _report(
    path: Path,
    truth: Lognormal,
    data: Dataset,
    flow: Model,
    samples: Floats,
    judged: list[dict[str, Any]],
    command: str,
) -> None:
    from pofx.report.bins import bin_spectrum
    from pofx.report.density import density_report

    mean, covariance = truth.moments()

    def measurement(report: Report) -> None:
        figure = bin_spectrum(mean, np.sqrt(np.diag(covariance)), samples, data.test, unit=truth.unit)
        report.section("Measurement").figure(
            "bins", figure, "The measurement bin by bin: nominal values, toys, and the learnt density."
        )

    def verdicts(report: Report) -> None:
        head = [
            "prediction",
            f"chi2 ({truth.dim} bins)",
            "p of chi2",
            "p, Gaussian density",
            "p, learnt density",
            "p, exact density",
        ]
        rows = [
            [r["prediction"], r["chi2"], r["p_chi2"], *(str(r["p_value"][k]) for k in ("Gaussian", "flow", "exact"))]
            for r in judged
        ]
        report.section("Predictions").table(head, rows, _CAPTION)

    density_report(
        flow, data, path, samples=samples, exact=truth, extra_sections=(measurement, verdicts), command=command
    )


_CAPTION = (
    "p-values are shares of toys that are less probable than the prediction, with 68 % intervals of Clopper and Pearson. "
    "chi2 and the Gaussian know mean and covariance alone; where events are few, they misjudge both directions."
)


def _show(table: Mapping[str, Any], folder: Path) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console()
    grid = Grid(title="densities, nats per toy", title_justify="left", box=SIMPLE)
    for title in ("density", "−log p of test toys", "gap to exact"):
        grid.add_column(title)
    for name, row in table["densities"].items():
        grid.add_row(name, *(f"{m.value:.2f} ± {m.error:.2f}" for m in (row["nll"], row["gap"])))
    console.print(grid)
    grid = Grid(title="p-values of predictions", title_justify="left", box=SIMPLE)
    for title in ("prediction", "chi2", "p, Gaussian", "p, learnt", "p, exact"):
        grid.add_column(title, no_wrap=True)
    for row in table["predictions"]:
        chosen = (str(row["p_value"][kind]) for kind in ("Gaussian", "flow", "exact"))
        grid.add_row(row["prediction"], f"{row['chi2']:.1f}/{row['bins']}", *chosen)
    console.print(grid)
    names = ", ".join(f"{folder / name}" for name in ("report.html", "table.json", "toys.pofx", "toys.h5"))
    console.print(f"written in {math.ceil(table['seconds'])} s: {names}", soft_wrap=True)
