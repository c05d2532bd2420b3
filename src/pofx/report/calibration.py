"""Figures of calibration and amplification: distribution functions with their bands, and factors against the number of quantiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pofx.errors import DataError
from pofx.metrics.amplification import AmplificationCurve
from pofx.metrics.calibration_curves import CalibrationCurve
from pofx.report.style import COLOURS, escaped, new_figure, shortened, style

__all__ = ["amplification_curves", "calibration_curves"]

ACROSS = 3
"""Panels in a row."""
MARKERS = ("o", "s", "^", "D", "v")


def calibration_curves(found: Iterable[CalibrationCurve]) -> Figure:
    """Distribution function less the diagonal, one panel per test, with the simultaneous band: a calibrated model stays inside everywhere.

    >>> from pofx.metrics.calibration import pit
    >>> len(calibration_curves([pit(np.linspace(0.01, 0.99, 50))]).axes)
    1
    """
    curves = list(found)
    if not curves:
        raise DataError("expected at least one test of calibration; got none")
    with style():
        across, down = min(len(curves), ACROSS), -(-len(curves) // ACROSS)
        figure = new_figure(3.2 * across + 0.4, 2.6 * down + 0.3)
        panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
        for axes, curve in zip(panels, curves, strict=False):
            _difference(axes, curve)
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        panels[0].legend(fontsize=8)
        figure.supxlabel("level z", fontsize=10)
        figure.supylabel("F(z) - z", fontsize=10)
        return figure


def _difference(axes: Axes, curve: CalibrationCurve) -> None:
    band = curve.band
    z, low, high = (np.r_[0.0, values, 0.0] for values in (band.z, band.low - band.z, band.high - band.z))
    z[-1] = 1.0
    name = f"calibrated, {band.level:.0%}"
    axes.fill_between(z, low, high, color=COLOURS["train"], alpha=0.4, linewidth=0, label=name)
    axes.plot(z, np.r_[0.0, band.ecdf - band.z, 0.0], color=COLOURS["model"], label="observed")
    axes.axhline(0.0, color=COLOURS["truth"], linewidth=0.8)
    axes.set_title(f"{escaped(shortened(curve.name, 16))}: {curve.diagnosis()}", loc="left", fontsize=8.5)


def amplification_curves(found: Mapping[str, AmplificationCurve]) -> Figure:
    """Amplification factor against the number of quantiles, name by name; where a factor has no upper end, an arrow.

    >>> from pofx.metrics.amplification import amplification
    >>> x = np.random.default_rng(1).normal(size=2000)
    >>> len(amplification_curves({"truth": amplification(x[:500], x[500:], 100, quantiles=(5, 10))}).axes)
    1
    """
    if not found:
        raise DataError("expected at least one curve; got none")
    with style():
        figure = new_figure(5.2, 3.4)
        axes = figure.subplots()
        colours = [COLOURS[role] for role in ("model", "baseline", "good", "train", "warning")]
        for place, (name, curve) in enumerate(found.items()):
            points = [point for point in curve if np.isfinite(point.value)]
            values = np.array([point.value for point in points])
            up = np.array([p.high - p.value if np.isfinite(p.high) else 0.0 for p in points])
            down = np.array([p.value - p.low for p in points])
            quantiles = np.array([p.quantiles for p in points]) * 1.03 ** (place - len(found) / 2)
            axes.errorbar(
                quantiles, values, [down, up], fmt=MARKERS[place % 5], color=colours[place % 5], label=escaped(name),
                lolims=[not np.isfinite(p.high) for p in points], linestyle="-", linewidth=0.8,
            )  # fmt: skip
        axes.axhline(1.0, color=COLOURS["truth"], linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="number of quantiles", ylabel="true events per training event")
        axes.legend(fontsize=8)
        return figure
