"""Figures of a surrogate: the scores of each kind of jet, and an efficiency along a feature with its band."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import special

from pofx.report.style import COLOURS, escaped, new_figure, style
from pofx.tasks.classifier_surrogate.data import Floats, Tagged
from pofx.tasks.classifier_surrogate.points import Scan
from pofx.tasks.classifier_surrogate.surrogate import Surrogate

__all__ = ["efficiency_scan", "score_spectra"]

BINS = 40


def score_spectra(surrogate: Surrogate, jets: Tagged) -> Figure:
    """Logits of the scores, counted and by the surrogate, of each kind of jet, with the ratio; the band is the spread over the draws."""
    kinds = {"all jets": np.ones(len(jets), bool)}
    if jets.label is not None and jets.label.any() and not jets.label.all():
        kinds = {"background": ~jets.label, "signal": jets.label}
    with style():
        figure = new_figure(4.2 * len(kinds) + 0.4, 4.2)
        panels = figure.subplots(2, len(kinds), squeeze=False, sharex="col", height_ratios=(2.5, 1))
        for (top, bottom), (name, rows) in zip(panels.T, kinds.items(), strict=True):
            _spectrum(top, bottom, surrogate, jets.take(rows))
            top.set_title(name, loc="left")
            bottom.set_xlabel(f"logit of {escaped(jets.score)}")
        panels[0, 0].set_ylabel("density")
        panels[1, 0].set_ylabel("counted / surrogate")
        panels[0, 0].legend(fontsize=8)
        return figure


def _spectrum(top: Axes, bottom: Axes, surrogate: Surrogate, jets: Tagged) -> None:
    logits, bins = special.logit(jets.scores), int(np.clip(len(jets) / 25, 6, BINS))
    low, high = np.quantile(logits, [0.002, 0.998])
    edges = np.linspace(low, high, bins + 1)
    middle, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    w = np.ones(len(jets)) if jets.weight is None else jets.weight
    counts, squares = (np.histogram(logits, edges, weights=part)[0] for part in (w, w**2))
    counted, error = counts / w.sum() / width, np.sqrt(squares) / w.sum() / width
    shares = np.stack([surrogate.efficiency(jets.features, special.expit(edge), w).values for edge in edges], 1)
    drawn = -np.diff(shares, axis=1) / width
    mean, spread = drawn.mean(0), drawn.std(0, ddof=1) if len(drawn) > 1 else np.zeros(bins)
    seen = counts > 0
    for axes, unit in ((top, np.ones(bins)), (bottom, mean)):
        points, bars = (part[seen] / unit[seen] for part in (counted, error))
        axes.errorbar(middle[seen], points, bars, fmt="o", color=COLOURS["truth"], label="counted")
        axes.stairs(mean / unit, edges, color=COLOURS["model"], label="surrogate")
        _filled(axes, edges, (mean - spread) / unit, (mean + spread) / unit)
    bottom.set_ylim(0.0, 2.0)


def _filled(axes: Axes, edges: Floats, low: Floats, high: Floats) -> None:
    axes.stairs(high, edges, baseline=low, fill=True, color=COLOURS["model"], alpha=0.3, linewidth=0)


def efficiency_scan(found: Scan, cut: float, unit: str = "") -> Figure:
    """Efficiency along a feature with a 95 % band, and below it the spread at the median, also that with fewer training jets."""
    with style():
        figure = new_figure(5.6, 5.0)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        low, high = found.band.interval(0.95)
        top.fill_between(
            found.values, low, high, color=COLOURS["model"], alpha=0.3, linewidth=0, label="95 % of the draws"
        )
        top.plot(found.values, found.band.mean, color=COLOURS["model"], label="surrogate")
        top.plot(found.values, found.binned, color=COLOURS["baseline"], linestyle=":", label="table in bins")
        if found.truth is not None:
            top.plot(found.values, found.truth, color=COLOURS["truth"], linestyle="--", label="truth")
        bottom.plot(found.values, found.spread, color=COLOURS["model"], label="all training jets")
        bottom.plot(found.values, found.fewer, color=COLOURS["warning"], linestyle="--", label="an eighth of them")
        for axes in (top, bottom):
            for ends in ((found.values[0], found.inside[0]), (found.inside[1], found.values[-1])):
                axes.axvspan(*ends, color=COLOURS["train"], alpha=0.2, linewidth=0)
            axes.legend(fontsize=8)
        top.set_ylabel(f"P(score > {cut:.3g})")
        bottom.set_ylabel("spread")
        bottom.set_ylim(bottom=0.0)
        label = escaped(f"{found.feature} [{unit}]" if unit else found.feature)
        bottom.set_xlabel(f"{label}; grey: not trained with")
        bottom.set_xlim(found.values[0], found.values[-1])
        return figure
