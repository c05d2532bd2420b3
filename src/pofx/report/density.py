"""The report of a fitted density: how it was trained, how far its samples and log-densities agree with events it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pofx.report.corner import MOST, corner
from pofx.report.correlation import correlation
from pofx.report.findings import findings
from pofx.report.html import Report
from pofx.report.logdensity import log_density
from pofx.report.numbers import Merit, Value
from pofx.report.spectra import PER_PAGE, spectra, spectra_pages
from pofx.report.statistics import QUANTITIES, non_gaussianity
from pofx.report.study import Study
from pofx.report.training import training_curves

if TYPE_CHECKING:
    from pofx.data.dataset import Dataset
    from pofx.models.model import Model

__all__ = ["density_report"]

MOST_PAGES = 4
"""Figures of spectra: the most discrepant columns."""

MOST_ROWS = 150
"""Rows of the tables that have one per column."""

LABELS = ("held out", "model")


def density_report(
    model: Model,
    dataset: Dataset,
    path: str | Path,
    *,
    seed: int = 1,
    samples: Any = None,
    exact: Any = None,
    extra_sections: Sequence[Callable[[Report], Any]] = (),
    command: str | None = None,
) -> Path:
    """Write an HTML report of a fitted model beside data, with the figures as PDF and PNG in ``STEM-figures``; returns the path.

    Parameters
    ----------
    model : what ``fit`` or ``load`` returned.
    dataset : the data; what is compared are its test events (at most 50000), and a Gaussian is fitted to its training events.
    path : of the HTML file; its folder is made.
    seed : of the samples and of the bootstrap.
    samples : ``(m, d)`` events of the model drawn already; None draws some.
    exact : the true log-density where it is known, a function of ``(n, d)`` or an object with ``log_prob``.
    extra_sections : each is called with the :class:`~pofx.report.html.Report` and adds to it, after the log-densities.
    command : what makes this report again, to be quoted in it.

    >>> import tempfile, pofx
    >>> data = pofx.Dataset.from_arrays(np.random.default_rng(1).normal(size=(500, 1)))
    >>> density_report(pofx.Gaussian().fit(data), data, tempfile.mkdtemp() + "/report.html").name
    'report.html'
    """
    study = Study(model, dataset, seed, samples, getattr(exact, "log_prob", exact))
    report = Report(f"{type(model.family).__name__}: p(x) of {len(study.truth.columns)} columns", _subtitle(study))
    for level, sentence in findings(study):
        report.finding(level, sentence)
    for section in (
        _summary,
        _data,
        _training,
        _spectra,
        _differences,
        _dependence,
        _densities,
        *map(_plain, extra_sections),
    ):
        section(report, study)
    report.section("Card").details("Everything that is saved with the model", _short_card(model.card))
    command = command or f"pofx report MODEL.pofx DATA -o {Path(path).name}"
    report.reproduce(
        command, {"training": study.record.get("seed"), "samples and bootstrap": seed}, data=dataset.fingerprint
    )
    return report.write(path)


def _plain(section: Callable[[Report], Any]) -> Callable[[Report, Study], Any]:
    return lambda report, _study: section(report)


def _subtitle(study: Study) -> str:
    return f"pofx report: {len(study.truth)} held-out events ({study.part}), {len(study.samples)} events of the model"


def _summary(report: Report, study: Study) -> None:
    report.section("Summary")
    if study.has_density:
        report.merits(list(_merits(study)), "Nats per event; densities are in the units of the columns.")
    card, record = study.model.card, study.record
    report.facts(
        {
            "family": repr(study.model.family),
            "density": study.model.density,
            "parameters": card.get("parameters"),
            "training events": (card.get("data") or {}).get("train"),
            "training time": f"{record.get('seconds', 0.0):.1f} s, {record.get('steps', 0)} steps",
            "ended by": record.get("stopped_by"),
            "created": card.get("created"),
        }
    )


def _merits(study: Study) -> Any:
    floor = None if study.exact is None else _value(-study.exact, study)
    validation = study.model.card.get("metrics", {}).get("nll", {}).get("validation")
    if validation:
        yield Merit("−log p, validation", Value(validation["value"], validation["error"]))
    yield Merit(
        f"−log p, {study.part}",
        Value(study.nll.value, study.nll.error),
        floor,
        note="floor: the exact density" if floor else "",
    )
    if study.baseline is not None and study.over_baseline is not None:
        yield Merit("−log p, Gaussian baseline", _value(-study.baseline, study), floor)
        yield Merit(
            "gain over the Gaussian", Value(study.over_baseline.value, study.over_baseline.error), note="paired error"
        )
    if study.gap is not None:
        yield Merit(
            "gap to the exact density",
            Value(study.gap.value, study.gap.error),
            Value(0.0),
            note="Kullback-Leibler divergence, paired error",
        )


def _value(values: Any, study: Study) -> Value:
    from pofx.report.statistics import mean_error

    mean = mean_error(values, study.truth.weight)
    return Value(mean.value, mean.error)


def _data(report: Report, study: Study) -> None:
    splits = {name: len(getattr(study.dataset, name)) for name in ("train", "val", "test")}
    facts = {"events": len(study.dataset), **{f"events, {name}": n for name, n in splits.items()}}
    report.section("Data").facts(
        {**facts, "weights": study.dataset.weighted, "effective held-out events": round(study.truth.effective)}
    )
    columns, values = study.truth.columns[:MOST_ROWS], study.truth.values
    rows = [
        [
            c.name,
            c.unit,
            c.type,
            c.low,
            c.high,
            *map(float, (values[:, i].min(), values[:, i].max(), values[:, i].mean(), values[:, i].std())),
        ]
        for i, c in enumerate(columns)
    ]
    head = ["column", "unit", "type", "low", "high", "smallest", "largest", "mean", "std"]
    report.table(head, rows, f"Held-out events. {_left_out(study)}")


def _left_out(study: Study) -> str:
    more = len(study.truth.columns) - MOST_ROWS
    return f"{more} more columns are not listed." if more > 0 else ""


def _training(report: Report, study: Study) -> None:
    if study.history:
        caption = "Loss in latent coordinates (a constant away from −log p in the units of the columns)."
        report.section("Training").figure("training", training_curves(study.record), caption)


def _spectra(report: Report, study: Study) -> None:
    report.section("Spectra").text(
        "One histogram per column, the most discrepant first: points are held-out events, the band is the model, scaled to the same total; "
        "below, model / held out. Red points are more than three standard errors away."
    )
    pages = spectra_pages(len(study.truth.columns))
    for page in range(min(pages, MOST_PAGES)):
        figure = spectra(study.truth, study.samples, page=page, labels=LABELS)
        report.figure(f"spectra {page + 1}", figure, f"Spectra, page {page + 1} of {pages}.")
    if pages > MOST_PAGES:
        report.text(f"The {len(study.truth.columns) - MOST_PAGES * PER_PAGE} columns that agree best are not shown.")


def _differences(report: Report, study: Study) -> None:
    found = study.differences
    order = np.argsort(-np.abs(found.pulls).max(1), kind="stable")[:MOST_ROWS]
    rows = [
        [
            study.truth.columns[i].name,
            *(
                f"{found.value[i, j]:+.3f} ± {found.error[i, j]:.3f} ({found.floor[i, j]:.3f})"
                for j in range(len(QUANTITIES))
            ),
        ]
        for i in order
    ]
    caption = (
        "model − held out in standard deviations of the held-out events, the largest pull first: value ± bootstrap error "
        "(floor: the difference between two halves of the held-out events, scaled to the sizes compared)."
    )
    report.section("Columns").table(["column", *QUANTITIES], rows, f"{caption} {_left_out(study)}")


def _dependence(report: Report, study: Study) -> None:
    report.section("Dependence")
    if study.correlation_pulls is not None:
        caption = "Correlation matrices, and their difference in units of its statistical error."
        report.figure("correlation", correlation(study.truth, study.samples, study.varying, labels=LABELS), caption)
    if len(study.varying) > 1:
        chosen = _least_gaussian(study)
        caption = "Regions that hold 68 and 95 % of the events, for the columns that are least like a normal law."
        report.figure("corner", corner(study.truth, study.samples, chosen, labels=LABELS), caption)
    else:
        report.text("A single column has no dependence to show.")


def _least_gaussian(study: Study) -> list[int]:
    score = non_gaussianity(study.truth.take(study.varying))
    return sorted(study.varying[i] for i in np.argsort(-score, kind="stable")[: min(MOST, 5)])


def _densities(report: Report, study: Study) -> None:
    if not study.has_density or not np.isfinite(study.logp).any():
        return
    caption = "If the model is right, its log p is distributed alike over held-out and over generated events."
    if study.exact is not None:
        caption += " Right: beside the exact density of the held-out events."
    report.section("Log-density").figure(
        "log density", log_density(study.logp, study.sample_logp, study.exact), caption
    )


def _short_card(card: dict[str, Any]) -> dict[str, Any]:
    """The card without the history, which the figure shows."""
    training = {name: value for name, value in (card.get("training") or {}).items() if name != "history"}
    return {**card, "training": training}
