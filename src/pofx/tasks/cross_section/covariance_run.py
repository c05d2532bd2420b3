"""A published mean and covariance, judged: what they determine, the bracket of p-values, a report and a release folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pofx.errors import ShapeError
from pofx.report.bins import bin_spectrum
from pofx.report.html import Report
from pofx.tasks.cross_section.covariance import Brackets, Findings, Measured, analyse, bracket
from pofx.tasks.cross_section.release import publish
from pofx.tasks.cross_section.release_files import read_predictions

__all__ = ["run_measured"]


def run_measured(
    out: str | Path,
    measured: Measured,
    predictions: Mapping[str, ArrayLike] | str | Path | None = None,
    *,
    toys: int = 100_000,
    seed: int = 1,
    command: str = "pofx run cross-section --measured FILE --out OUT",
) -> dict[str, Any]:
    """Write ``report.html``, ``table.json`` and the folder ``release`` into ``out``; returns what the table holds.

    Parameters
    ----------
    measured : mean and covariance; a smearing matrix multiplies the predictions.
    predictions : by name ``(bins,)`` (true bins where there is a smearing matrix), or a table in a file; None takes 0.9, 1 and 1.1
        times the central values.
    toys, seed : of throws.
    command : quoted in the report.

    >>> table = run_measured("out", Measured.read("release.root", mean="data", covariance="cov"))  # doctest: +SKIP
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    given = _given(measured, predictions)
    found = analyse(measured, toys=toys, seed=seed)
    judged = bracket(measured, given, toys=toys, seed=seed)
    publish(folder / "release", universes_or_measured=measured, predictions=given, toys=toys, seed=seed, force=True)
    _page(found, judged, command).write(folder / "report.html")
    head, rows = judged.table()
    table = {
        "title": measured.title,
        "bins": len(measured),
        "rank": found.spectrum.rank,
        "condition": found.spectrum.condition,
        "below_zero": [found.below_zero.value, found.below_zero.low, found.below_zero.high],
        "statements": list(found.statements),
        "predictions": [dict(zip(head, row, strict=True)) for row in rows],
        "notes": list(judged.notes),
    }
    (folder / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return table


def _given(measured: Measured, predictions: Mapping[str, ArrayLike] | str | Path | None) -> Mapping[str, ArrayLike]:
    bins = len(measured) if measured.smearing is None else measured.smearing.shape[1]
    if predictions is None:
        if bins != len(measured):
            raise ShapeError(
                f"predictions: expected {bins} true bins, which the measurement does not give; name predictions of one's own"
            )
        return {f"measured x {factor}": factor * measured.central for factor in (0.9, 1.0, 1.1)}
    if isinstance(predictions, (str, Path)):
        return read_predictions(predictions, measured.names if bins == len(measured) else None, bins)
    return predictions


def _page(found: Findings, judged: Brackets, command: str) -> Report:
    measured = found.measured
    report = Report(
        measured.title or "Published measurement",
        f"pofx run cross-section: {len(measured)} bins, mean and covariance only",
    )
    for sentence in found.statements:
        report.finding("note", sentence)
    section = report.section("Measurement")
    errors = measured.errors
    figure = bin_spectrum(measured.central, errors, unit=measured.unit, labels=("measured", "errors", ""))
    section.figure("bins", figure, "Measured values with one and two standard deviations.")
    rows = [
        [name, float(x), float(e), f"{r:.1%}", f"{below:.2%}"]
        for name, x, e, r, below in zip(
            measured.names, measured.central, errors, found.relative_errors, found.exact_by_bin, strict=True
        )
    ]
    section.table(
        ["bin", "value", "error", "relative error", "Gaussian throws below zero"],
        rows,
        f"unit: {measured.unit or 'none given'}",
    )
    head, cells = judged.table()
    report.section("Predictions").table(
        head,
        cells,
        f"{found.toys} throws of each law; errors of 68 % (Clopper and Pearson). The truth may lie outside the bracket too.",
    )
    for note in judged.notes:
        report.text(note)
    values = np.array2string(found.spectrum.values[::-1], precision=4, threshold=400)
    report.details("Eigenvalues of the correlation", values)
    report.reproduce(command, {"throws": found.seed})
    return report
