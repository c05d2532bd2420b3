"""Spectra: one-dimensional histograms of truth and model with their ratio, and cross sections bin by bin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import MaxNLocator, NullLocator

from pofx.errors import ConfigError
from pofx.report.histograms import Binned, choose_edges, compare_binned, distance
from pofx.report.style import COLOURS, cells, scaled, style
from pofx.report.tables import Table, pair

__all__ = ["PER_PAGE", "spectra", "spectra_pages"]

PER_PAGE = 16
"""Columns in one figure."""


def spectra_pages(columns: int) -> int:
    """How many figures :func:`spectra` needs for so many columns."""
    return max(1, math.ceil(columns / PER_PAGE))


def spectra(
    truth: Any,
    samples: Any,
    columns: Sequence[str | int] | None = None,
    *,
    page: int = 0,
    labels: tuple[str, str] = ("truth", "model"),
    order: bool = True,
) -> Figure:
    """Histograms per column, the most discrepant first, each above its ratio model / truth.

    Points are the truth with statistical errors, the band is the model (scaled to the truth's total) with its own. Ratio points more
    than three standard errors from 1 are red. Each panel states chi2 over its degrees of freedom and the share of events outside its range.

    Parameters
    ----------
    truth : array ``(n, d)``, data set, events or :class:`~pofx.report.tables.Table`; its weights are used.
    samples : the same, or a fitted model.
    columns : which, by name or number; None is all.
    page : which :data:`PER_PAGE` of them, from 0.
    labels : what the two are called.
    order : most discrepant first (by Kolmogorov-Smirnov distance), or as given.

    >>> rng = np.random.default_rng(1)
    >>> figure = spectra(rng.normal(size=(500, 2)), rng.normal(size=(500, 2)))
    >>> len(figure.axes)
    4
    """
    real, model = pair(truth, samples, columns)
    pages = spectra_pages(len(real.columns))
    if not 0 <= page < pages:
        raise ConfigError(f"expected a page between 0 and {pages - 1}; got {page}")
    ranking = np.argsort(-distance(real, model), kind="stable") if order else np.arange(len(real.columns))
    chosen = ranking[page * PER_PAGE : (page + 1) * PER_PAGE]
    with style():
        return _draw_page(real, model, chosen, labels)


def _draw_page(real: Table, model: Table, chosen: np.ndarray[Any, Any], labels: tuple[str, str]) -> Figure:
    across = {1: 1, 2: 2, 4: 2}.get(len(chosen), 4 if len(chosen) > 6 else 3)
    down = math.ceil(len(chosen) / across)
    figure, grid = cells(down, across, (2.7 if across > 1 else 4.6, 2.1), gap=(0.62, 0.85))
    for place, column in enumerate(chosen):
        main = _panel(figure, grid[place // across, place % across], real, model, int(column))
    drawn = dict(zip(*reversed(main.get_legend_handles_labels()), strict=True))
    figure.legend([drawn["truth"], drawn["model"]], labels, ncols=2, loc="upper center", borderaxespad=0.1)
    return figure


def _panel(figure: Figure, place: SubplotSpec, real: Table, model: Table, number: int) -> Axes:
    column = real.columns[number]
    edges = choose_edges(column, real.values[:, number])
    binned = compare_binned(real, model, number, edges)
    scale = scaled(column, edges.values)
    inner = place.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.0)
    main, ratio = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
    drawn = scale(edges.values)
    _draw_main(main, binned, drawn)
    _draw_ratio(ratio, binned, drawn)
    for axes in (main, ratio):
        axes.set_xlim(float(drawn[0]), float(drawn[-1]))
        if edges.log:
            axes.set_xscale("log")
    main.tick_params(labelbottom=False, which="both")
    main.text(0.0, 1.03, _verdict(binned, real), fontsize=8, transform=main.transAxes, va="bottom")
    ratio.set_xlabel(scale.label)
    ratio.xaxis.set_label_coords(1.0, -0.38)
    for axes in (main, ratio):
        axes.yaxis.set_label_coords(-0.15, 1.0)
        if not edges.log:
            axes.xaxis.set_minor_locator(NullLocator())
    return main


def _draw_main(axes: Axes, binned: Binned, edges: np.ndarray[Any, Any]) -> None:
    _band(axes, edges, binned.model, binned.model_error)
    mplhep.histplot(
        np.where(binned.truth_error > 0, binned.truth, np.nan), edges, yerr=binned.truth_error, ax=axes,
        histtype="errorbar", color=COLOURS["truth"], label="truth", markersize=3.5, elinewidth=0.9, capsize=0,
    )  # fmt: skip
    axes.set_ylabel("events")
    if binned.orders > 2.5:
        smallest = min(counts[counts > 0].min() for counts in (binned.truth, binned.model) if (counts > 0).any())
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5 * smallest)
    else:
        axes.set_ylim(bottom=min(0.0, float(binned.truth.min()), float(binned.model.min())))
        axes.margins(y=0.12)


def _band(axes: Axes, edges: np.ndarray[Any, Any], middle: np.ndarray[Any, Any], error: np.ndarray[Any, Any]) -> None:
    """A line with a band of one standard error, in steps."""
    axes.stairs(middle, edges, color=COLOURS["model"], linewidth=1.1, label="model")
    axes.stairs(
        middle + error, edges, baseline=middle - error, fill=True, color=COLOURS["model"], alpha=0.35, linewidth=0
    )


def _draw_ratio(axes: Axes, binned: Binned, edges: np.ndarray[Any, Any]) -> None:
    """model / truth; the points carry the truth's error, the band the model's."""
    some = binned.truth > 0
    safe = np.where(some, binned.truth, 1.0)
    ratio = np.where(some, binned.model / safe, np.nan)
    error = np.where(some, np.abs(ratio) * binned.truth_error / safe, 0.0)
    band = np.where(some, binned.model_error / safe, 0.0)
    reach = float(np.clip(np.nanquantile(np.append(np.abs(ratio - 1) + error, 0.02), 0.9) * 1.4, 0.08, 0.95))
    axes.stairs(1 + band, edges, baseline=1 - band, fill=True, color=COLOURS["model"], alpha=0.35, linewidth=0)
    axes.axhline(1.0, color=COLOURS["model"], linewidth=0.8)
    centre = 0.5 * (edges[1:] + edges[:-1])
    far = np.abs(np.nan_to_num(binned.pulls)) > 3
    for which, colour in ((~far, COLOURS["truth"]), (far, COLOURS["warning"])):
        axes.errorbar(centre[which], ratio[which], error[which], fmt="o", markersize=2.5, elinewidth=0.8, color=colour)
    axes.set_ylim(1 - reach, 1 + reach)
    axes.yaxis.set_major_locator(MaxNLocator(4, prune="upper"))
    axes.set_ylabel("ratio")


def _verdict(binned: Binned, real: Table) -> str:
    """chi2 of the bins, the largest pull, and the shares outside the range for truth and model."""
    chi2, bins = binned.chi2
    pulls = binned.pulls[np.isfinite(binned.pulls)]
    text = (
        f"χ²/ndf {chi2:.0f}/{bins}, largest pull {pulls[np.argmax(np.abs(pulls))]:+.1f}"
        if bins
        else "no χ²: fewer than two bins with enough events"
    )
    share = [sum(outside) / real.weight.sum() for outside in (binned.outside_truth, binned.outside_model)]
    return text + f"\noutside {_percent(share[0])} (model {_percent(share[1])})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share else "0 %"
