"""Figures of the check of Gaussianity: distances against normal data, p-values by source of uncertainty, what carries a deviation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pofx.errors import DataError
from pofx.metrics.gaussianity import Culprit, GaussianCheck, Quantiles
from pofx.report.style import COLOURS, escaped, new_figure, shortened, style

__all__ = ["culprit_bars", "mahalanobis_qq", "p_values_by_source"]


ACROSS = 3
"""Panels in a row."""


def mahalanobis_qq(found: Mapping[str, Quantiles]) -> Figure:
    """Quantiles of the squared Mahalanobis distance against their median on normal data, divided by it, with the bands of normal data.

    Parameters
    ----------
    found : name -> quantiles, one panel each.

    >>> level = np.linspace(0, 1, 11)
    >>> one = Quantiles(level, level, level, level, level, level, level)
    >>> len(mahalanobis_qq({"total": one}).axes)
    1
    """
    if not found:
        raise DataError("expected at least one set of quantiles; got none")
    with style():
        across, down = min(len(found), ACROSS), -(-len(found) // ACROSS)
        figure = new_figure(3.4 * across, 2.7 * down + 0.2)
        panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
        for axes, (name, quantiles) in zip(panels, found.items(), strict=False):
            _panel(axes, quantiles)
            axes.set_title(escaped(shortened(name)), loc="left")
        for axes in panels[len(found) :]:
            axes.set_visible(False)
        panels[0].set_ylim(*_range(found.values()))
        panels[0].legend(fontsize=8)
        figure.supxlabel("squared Mahalanobis distance expected of normal data", fontsize=10)
        figure.supylabel("observed / expected", fontsize=10)
        return figure


def _panel(axes: Axes, q: Quantiles) -> None:
    expected, grey = np.maximum(q.median, 1e-300), COLOURS["train"]
    for low, high, alpha, label in ((q.low95, q.high95, 0.3, "95 %"), (q.low68, q.high68, 0.5, "68 %")):
        band = f"normal, {label}"
        axes.fill_between(q.median, low / expected, high / expected, color=grey, alpha=alpha, linewidth=0, label=band)
    axes.plot(q.median, q.observed / expected, "o", color=COLOURS["model"], markersize=2.5, label="universes")
    axes.axhline(1.0, color=COLOURS["truth"], linewidth=0.8)


def _range(found: Iterable[Quantiles]) -> tuple[float, float]:
    """Of the common vertical axis: all points and bands, from 0 to 4 at most."""
    shown = [np.array([q.observed, q.low95, q.high95])[:, q.median > 0] / q.median[q.median > 0] for q in found]
    spread = 1.05 * max([0.05, *(float(np.abs(ratios - 1).max(initial=0.0)) for ratios in shown)])
    return 1 - min(spread, 1.0), 1 + min(spread, 3.0)


def p_values_by_source(checks: Mapping[str, GaussianCheck]) -> Figure:
    """A table of colours: p-value of every statistic for every source of uncertainty; dark is small.

    >>> rng = np.random.default_rng(1)
    >>> from pofx.metrics.gaussianity import check_gaussian
    >>> check = check_gaussian(rng.normal(size=(50, 2)), replicas=20, cache=False)
    >>> len(p_values_by_source({"total": check}).axes)
    2
    """
    if not checks:
        raise DataError("expected at least one check; got none")
    names = [s.name for s in next(iter(checks.values())).statistics if s.name != "c2st-accuracy"]
    p = np.array([[check.global_p, *(check[name].p_value for name in names)] for check in checks.values()])
    with style():
        figure = new_figure(1.9 + 1.05 * (len(names) + 1), 1.5 + 0.42 * len(checks))
        axes = figure.subplots()
        image = axes.imshow(np.log10(p), cmap="viridis", vmin=-3.0, vmax=0.0, aspect="auto")
        for (row, column), value in np.ndenumerate(p):
            smallest = list(checks.values())[row].smallest
            text = f"≤ {value:.2g}" if value <= smallest * 1.001 else f"{value:.2g}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=8.5, color="white" if value < 0.08 else "black"
            )
        axes.set_xticks(range(len(names) + 1), ["global", *names], rotation=20, ha="right")
        axes.set_yticks(range(len(checks)), [escaped(shortened(name)) for name in checks])
        axes.tick_params(which="both", length=0)
        bar = figure.colorbar(image, ax=axes, ticks=[-3, -2, -1, 0])
        bar.ax.set_yticklabels(["0.001", "0.01", "0.1", "1"])
        bar.set_label("p-value")
        return figure


def culprit_bars(culprits: Sequence[Culprit], most: int = 15) -> Figure:
    """The largest deviations, in standard deviations on normal data; those with p < 0.05 among all of their kind are filled.

    >>> len(culprit_bars([Culprit(("a",), "skewness", 0.3, 4.0, 0.01)]).axes)
    1
    """
    shown = list(culprits)[:most]
    if not shown:
        raise DataError("expected at least one bin or pair; got none")
    with style():
        figure = new_figure(6.4, 0.9 + 0.26 * len(shown))
        axes = figure.subplots()
        for row, culprit in enumerate(shown):
            strong = culprit.p_value < 0.05
            axes.barh(
                row,
                culprit.pull,
                color=COLOURS["model"] if strong else "white",
                edgecolor=COLOURS["model"],
                height=0.65,
            )
        axes.axvline(0.0, color=COLOURS["truth"], linewidth=0.8)
        labels = [f"{' × '.join(shortened(name, 24) for name in c.names)} ({c.what})" for c in shown]
        axes.set_yticks(range(len(shown)), [escaped(label) for label in labels])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.tick_params(axis="y", which="both", length=0)
        axes.set_xlabel("deviation [standard deviations on normal data]")
        return figure
