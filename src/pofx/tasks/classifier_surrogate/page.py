"""The report and the table of a surrogate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pofx.metrics.calibration_curves import ALPHA, CalibrationCurve
from pofx.metrics.pvalues import Estimate
from pofx.report.calibration import calibration_curves
from pofx.report.html import Level, Report
from pofx.report.numbers import Merit, Value
from pofx.report.training import training_curves
from pofx.tasks.classifier_surrogate.figures import efficiency_scan, score_spectra
from pofx.tasks.classifier_surrogate.metrics import Judged

if TYPE_CHECKING:
    from pofx.tasks.classifier_surrogate.run import Analysis

__all__ = ["findings", "table", "write_report"]

SPECTRUM = 2000
"""Jets in the figure of the scores."""


def write_report(found: Analysis, path: Path) -> Path:
    """The page, and its figures as PDF and PNG beside it."""
    jets = f"{len(found.train)} jets to train with, {len(found.test)} to judge with"
    report = Report(f"Surrogate of {found.train.score}", f"pofx run classifier-surrogate: {jets}")
    for level, sentence in findings(found):
        report.finding(level, sentence)
    for section in (_reproduction, _calibration, _bands, _efficiencies):
        section(report, found)
    report.section("Training").figure("training", training_curves(found.fitted.model.card["training"]))
    report.section("Card").details("Everything that is saved with the model", found.fitted.model.card)
    facts = {f"seconds, {step}": seconds for step, seconds in found.seconds.items()}
    report.reproduce(found.command, {"analysis": found.seed}, **facts)
    return report.write(path)


def findings(found: Analysis) -> Iterator[tuple[Level, str]]:
    """Level and sentence of what matters most."""
    own = found.judged["surrogate"]
    told = f"{own.c2st.accuracy:.3f} ± {own.c2st.error:.3f} of the jets (0.5 is perfect; p = {own.c2st.p_value:.2g})"
    yield "good" if own.c2st.p_value > ALPHA else "warning", f"A classifier tells surrogate from tagger for {told}."
    quiet = own.calibration.p_value > ALPHA
    yield (
        "good" if quiet else "warning",
        f"Calibration: {own.calibration.diagnosis()} (p = {own.calibration.p_value:.2g}, {len(found.test)} jets).",
    )
    for name, value in found.growths.items():
        level: Level = "good" if value.value - 2 * value.error > 1 else "note"
        yield level, f"The band of {name} is {value} times as wide."
    if found.train.note:
        yield "note", f"{found.train.score}: {found.train.note}."


def _reproduction(report: Report, found: Analysis) -> None:
    report.section("Does it say what the tagger says?")
    head = ["", "C2ST", "p", "off the diagonal", "p", "-log p per jet", "AUC less the tagger's"]
    rows = [[name, *_row(one)] for name, one in found.judged.items()]
    c2st, curve = found.judged["surrogate"].c2st, found.judged["surrogate"].calibration
    caption = (
        "Jets that were not trained with. "
        f"Floors: C2ST {c2st.floor} ± {c2st.floor_error:.4f}, distance from the diagonal {curve.floor:.2g}. "
        "The error of the AUC is that of the number of jets. Where there is a row for the truth, it is what a perfect surrogate gets."
    )
    report.table(head, rows, caption)
    own = found.judged["surrogate"].separation
    if own is not None:
        facts = {"AUC of the tagger": _value(own.true), "AUC of the surrogate": _value(own.surrogate)}
        report.facts(facts | {"spread over the draws": own.posterior})
    some = found.test.take(np.arange(min(SPECTRUM, len(found.test))))
    report.figure(
        "scores", score_spectra(found.fitted, some), "Scores of held-out jets; the band is the spread over the draws."
    )


def _row(one: Judged) -> list[Any]:
    difference = None if one.separation is None else _value(one.separation.difference)
    return [
        Value(one.c2st.accuracy, one.c2st.error),
        f"{one.c2st.p_value:.2g}",
        Value(one.calibration.value, one.calibration.error),
        f"{one.calibration.p_value:.2g}",
        _value(one.nll),
        difference,
    ]


def _calibration(report: Report, found: Analysis) -> None:
    report.section("Is it calibrated?")
    curves = [_named(one.calibration, name) for name, one in found.judged.items()]
    report.figure(
        "calibration", calibration_curves(curves), "Distribution function at the true score, less the diagonal."
    )
    if found.quantiles is not None:
        report.text(f"Quantiles at 50 levels: {found.quantiles}")


def _named(curve: CalibrationCurve, name: str) -> CalibrationCurve:
    from dataclasses import replace

    return replace(curve, name=name)


def _bands(report: Report, found: Analysis) -> None:
    report.section("How sure is it?")
    report.text(
        "The band is the standard deviation over the draws of P(score < median | features). It should be wider with fewer jets to train "
        "with, and where there were none; for independent weights it may not be."
    )
    report.merits([Merit(name, _value(v), Value(1.0), "> 1", v.value > 1) for name, v in found.growths.items()])
    if found.pulls is not None:
        pulls = found.pulls
        report.text(
            f"Pulls of the density, (mean - truth) / band: mean {pulls.mean():.2f}, width {pulls.std():.2f} over {len(pulls)} jets. "
            "Those of one training belong together; a width needs several."
        )


def _efficiencies(report: Report, found: Analysis) -> None:
    report.section("Efficiencies")
    head = ["jets that pass", "number", "counted", "surrogate (error: band)", "pull", "table in bins"]
    rows = [[p.name, p.jets, _value(p.counted), _value(p.surrogate), round(p.pull, 2), p.binned] for p in found.points]
    report.table(head, rows, f"{found.train.score} > {found.cut:.4g}")
    if found.scan is not None:
        unit = next(column.unit for column in found.train.columns if column.name == found.scan.feature)
        text = (
            f"Efficiency along {found.scan.feature}, averaged over jets of which nothing else is changed; below, how unsure the "
            "surrogate is of such a jet: the error of P(score < median), which does not shrink where an efficiency comes near 0 or 1."
        )
        report.figure("efficiency", efficiency_scan(found.scan, found.cut, unit), text)


def _value(estimate: Estimate) -> Value:
    return Value(estimate.value, estimate.error)


# ---------------------------------------------------------------------------------------------- table


def table(found: Analysis) -> dict[str, Any]:
    """The numbers, JSON-able."""
    return {
        "score": found.train.score,
        "features": list(found.train.names),
        "jets": {
            "train": len(found.train),
            "test": len(found.test),
            "beyond": 0 if found.beyond is None else len(found.beyond),
        },
        "seed": found.seed,
        "note": found.train.note,
        "judged": {name: _plain(one) for name, one in found.judged.items()},
        "quantiles_p": None if found.quantiles is None else found.quantiles.p_value,
        "density_pulls": None if found.pulls is None else [float(found.pulls.mean()), float(found.pulls.std())],
        "growth": {name: list(value) for name, value in found.growths.items()},
        "cut": found.cut,
        "efficiencies": {
            p.name: {"counted": list(p.counted), "surrogate": list(p.surrogate), "bins": p.binned, "pull": p.pull}
            for p in found.points
        },
        "seconds": found.seconds,
    }


def _plain(one: Judged) -> dict[str, Any]:
    curve, s = one.calibration, one.separation
    return {
        "c2st": {
            "accuracy": one.c2st.accuracy,
            "error": one.c2st.error,
            "floor": one.c2st.floor,
            "p": one.c2st.p_value,
        },
        "calibration": {"off": curve.value, "error": curve.error, "floor": curve.floor, "p": curve.p_value},
        "nll": list(one.nll),
        "auc": None if s is None else {k: list(getattr(s, k)) for k in ("true", "surrogate", "difference")},
        "auc_posterior": None if s is None else s.posterior,
    }
