"""The report of a comparison of two samples: a table of statistics against their floors, columns one by one, spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pofx.errors import DataError
from pofx.metrics.compare import Comparison
from pofx.metrics.two_sample import TwoSample
from pofx.metrics.weights import Where
from pofx.report.html import Report
from pofx.report.numbers import Value
from pofx.report.spectra import spectra
from pofx.report.style import COLOURS, escaped, new_figure, shortened, style
from pofx.report.tables import Table
from pofx.report.where import add_where

__all__ = ["comparison_report", "pulls"]

MOST_COLUMNS = 12
"""Columns whose spectra are drawn: those of the smallest p-values."""


def comparison_report(found: Comparison, names: tuple[str, str] = ("a", "b"), where: Where | None = None) -> Report:
    """A page about two samples.

    Parameters
    ----------
    found : what :func:`pofx.compare` says of them; of rows of numbers the spectra are drawn.
    names : of the samples; the first is taken as the truth.
    where : what :func:`pofx.metrics.weights.where` says of them (``where(*found.sides)``): adds where they differ.

    >>> from pofx.metrics.compare import compare
    >>> rng = np.random.default_rng(1)
    >>> found = compare(rng.normal(size=(100, 1)), rng.normal(size=(100, 1)), statistics=["ks"])
    >>> "KS distance" in comparison_report(found).html()
    True
    """
    report = Report("Are they the same?", f"{names[0]} ({found.events[0]} events) and {names[1]} ({found.events[1]})")
    _finding(report, found)
    head = ("statistic", "value", "floor", "p-value", "events", "null", "note")
    caption = "Floor: mean and standard deviation between two samples of one law."
    report.section("Statistics").table(head, [_row(one) for one in found], caption)
    if any(_has_floor(one) for one in found):
        report.figure(
            "pulls", pulls(found), "Distance of every value from its floor, in the floor's standard deviations."
        )
    for one in found:
        if one.parts:
            rows = sorted(([p.name, p.value, p.p_value, p.global_p_value] for p in one.parts), key=lambda row: row[2:])
            report.section(f"Columns: {one.name}").table(("column", "value", "local p-value", "global p-value"), rows)
    if where is not None:
        add_where(report, where)
    return _spectra(report, found)


def _finding(report: Report, found: Comparison) -> None:
    chance = found.p_value
    if chance is None:
        return
    count = sum(one.p_value is not None for one in found)
    text = f"the smallest of {count} p-values, times {count}, is {chance:.2g}"
    if chance > 0.05:
        report.finding("good", f"No statistic tells the samples apart: {text}.")
    else:
        worst = min((one for one in found if one.p_value is not None), key=lambda one: one.p_value or 0.0)
        report.finding("warning", f"The samples differ: {text} ({worst.name}).")


def _row(one: TwoSample) -> list[Any]:
    floor = None if one.floor is None else Value(one.floor, one.floor_error)
    events = " + ".join(map(str, one.events))
    return [one.name, Value(one.value, one.error), floor, one.p_value, events, one.null, one.note]


def _has_floor(one: TwoSample) -> bool:
    return one.floor is not None and bool(one.floor_error)


def pulls(found: Comparison) -> Figure:
    """(value - floor) / floor's standard deviation of every statistic.

    >>> one = TwoSample("x", 1.0, 0.1, 0.5, 0.1, 0.01, (10, 10), "permutation")
    >>> len(pulls(Comparison((one,), ("x0",), (10, 10), 0)).axes)
    1
    """
    known = [one for one in found if _has_floor(one)]
    if not known:
        raise DataError("expected at least one statistic with a floor; got none")
    distance = np.array([(one.value - (one.floor or 0.0)) / (one.floor_error or 1.0) for one in known])
    error = np.array([one.error / (one.floor_error or 1.0) for one in known])
    with style():
        figure = new_figure(6.8, 1.0 + 0.32 * len(known))
        axes = figure.subplots()
        axes.axvspan(-2, 2, color=COLOURS["train"], alpha=0.2, linewidth=0)
        axes.axvspan(-1, 1, color=COLOURS["train"], alpha=0.3, linewidth=0)
        axes.errorbar(distance, np.arange(len(known)), xerr=error, fmt="o", color=COLOURS["model"])
        if np.abs(distance).max() > 30:
            axes.set_xscale("symlog", linthresh=5.0)
        axes.set_yticks(range(len(known)), [escaped(shortened(one.name, 40)) for one in known])
        axes.set_ylim(len(known) - 0.5, -0.5)
        axes.set_xlabel("(value − floor) / standard deviation of the floor")
        return figure


def _spectra(report: Report, found: Comparison) -> Report:
    if not found.sides or found.sides[0].mask is not None:
        return report
    columns = found.sides[0].named
    a, b = (Table(side.x, columns, side.weight) for side in found.sides)
    parts = next((one.parts for one in found if one.parts), ())
    worst = sorted(range(len(columns)), key=lambda j: parts[j].p_value if parts else 0.0)[:MOST_COLUMNS]
    caption = "Columns of both samples" + (
        f", the {MOST_COLUMNS} of the smallest p-values." if len(columns) > MOST_COLUMNS and parts else "."
    )
    return report.section("Spectra").figure(
        "spectra", spectra(a, b, columns=sorted(worst), labels=("truth", "generated")), caption
    )
