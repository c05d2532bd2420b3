"""Figures of an inference: how far predictions are excluded, whether a density covers, and the profile of a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pofx.errors import DataError, ShapeError
from pofx.report.style import COLOURS, escaped, new_figure, shortened, style
from pofx.report.tables import Floats

__all__ = ["Significance", "calibration", "profiles", "significances"]

MARKERS = ("o", "s", "D", "^", "v")
ROLES = ("baseline", "train", "model", "good", "warning")
LINES = ("--", ":", "-", "-.", "-")


class Significance(NamedTuple):
    """A significance in standard deviations with its interval; ``limit`` says that the value is a lower limit."""

    value: float
    low: float
    high: float
    limit: bool = False


def significances(rows: Mapping[str, Mapping[str, Significance]], thresholds: Sequence[float] = (2.0, 3.0)) -> Figure:
    """One line per prediction, one marker per method; an arrow points to the right where only a limit is known.

    Parameters
    ----------
    rows : prediction -> method -> :class:`Significance`; every prediction has the same methods.
    thresholds : vertical lines, in standard deviations.

    >>> rows = {"nominal": {"chi2": Significance(0.3, 0.3, 0.3), "density": Significance(2.0, 1.9, 2.1)}}
    >>> len(significances(rows).axes)
    1
    """
    if not rows:
        raise DataError("expected at least one prediction; got none")
    methods = list(next(iter(rows.values())))
    with style():
        figure = new_figure(7.2, 1.4 + 0.42 * len(rows))
        axes = figure.subplots()
        for k, method in enumerate(methods):
            place = np.arange(len(rows), dtype=np.float64) + 0.22 * (k - (len(methods) - 1) / 2)
            _points(axes, place, [row[method] for row in rows.values()], k, method)
        for threshold in thresholds:
            axes.axvline(threshold, color=COLOURS["truth"], linewidth=0.7, linestyle=":")
        axes.set_yticks(range(len(rows)), [escaped(shortened(name, 34)) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("significance against the prediction [standard deviations, one-sided]")
        axes.tick_params(axis="y", which="both", length=0)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def _points(axes: Axes, place: Floats, found: Sequence[Significance], k: int, method: str) -> None:
    value = np.array([one.value for one in found])
    below = np.array([max(one.value - one.low, 0.0) for one in found])
    above = np.array([max(one.high - one.value, 0.0) if not one.limit else 0.25 for one in found])
    colour, marker = COLOURS[ROLES[k % len(ROLES)]], MARKERS[k % len(MARKERS)]
    axes.errorbar(value, place, xerr=[below, above], fmt=marker, color=colour, label=escaped(method), markersize=4.5)
    limits = [i for i, one in enumerate(found) if one.limit]
    axes.plot(value[limits] + 0.25, place[limits], ">", color=colour, markersize=5)


def calibration(
    level: ArrayLike, covered: Mapping[str, tuple[ArrayLike, ArrayLike]], p_values: Mapping[str, ArrayLike]
) -> Figure:
    """Coverage of highest-density regions, and the p-values of held-out events, which are uniform if a density is right.

    Parameters
    ----------
    level : ``(k,)`` probabilities of the regions.
    covered : density -> shares of held-out events inside and their errors, ``(k,)`` each.
    p_values : density -> ``(n,)`` of the held-out events.

    >>> level = np.array([0.5, 0.9])
    >>> figure = calibration(level, {"model": (level, 0.01 * level)}, {"model": np.linspace(0, 1, 100)})
    >>> len(figure.axes)
    2
    """
    nominal = np.asarray(level, float)
    with style():
        figure = new_figure(9.6, 3.8)
        left, right = figure.subplots(1, 2)
        for k, (name, (share, error)) in enumerate(covered.items()):
            values, errors = np.asarray(share, float), np.asarray(error, float)
            if values.shape != nominal.shape or errors.shape != nominal.shape:
                raise ShapeError(
                    f"{name}: expected shares and errors of shape {nominal.shape}; got {values.shape}, {errors.shape}"
                )
            left.errorbar(
                nominal + 0.004 * k,
                values - nominal,
                errors,
                fmt=MARKERS[k],
                color=COLOURS[ROLES[2 * k % 5]],
                label=escaped(name),
            )
        left.axhline(0.0, color=COLOURS["truth"], linewidth=0.8)
        left.set_xlabel("probability of the highest-density region")
        left.set_ylabel("share of held-out events inside − nominal")
        left.legend()
        _uniformity(right, {name: np.asarray(values, float) for name, values in p_values.items()})
        return figure


def _uniformity(axes: Axes, p_values: Mapping[str, Floats]) -> None:
    edges = np.linspace(0.0, 1.0, 21)
    for k, (name, values) in enumerate(p_values.items()):
        expected = len(values) / 20
        axes.stairs(
            np.histogram(values, edges)[0] / expected,
            edges,
            color=COLOURS[ROLES[2 * k % 5]],
            linestyle=LINES[2 * k % 5],
            label=escaped(name),
            linewidth=1.5,
        )
    if p_values:
        error = np.sqrt(20 / max(len(values) for values in p_values.values()))
        axes.axhspan(1 - error, 1 + error, color=COLOURS["train"], alpha=0.3, linewidth=0)
    axes.axhline(1.0, color=COLOURS["truth"], linewidth=0.8)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("p-value of a held-out event")
    axes.set_ylabel("events / expected")
    axes.legend()


def profiles(name: str, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], truth: float | None = None) -> Figure:
    """Profiles of a cost above its minimum; the levels 1 and 4 stand for one and two standard deviations.

    Parameters
    ----------
    name : of the parameter, with its unit.
    curves : method -> values of the parameter and of the cost minus its minimum.
    truth : the value that the data were made with.

    >>> x = np.linspace(0.8, 1.2, 9)
    >>> len(profiles("axial mass [GeV]", {"chi2": (x, 25 * (x - 1) ** 2)}).axes)
    1
    """
    with style():
        figure = new_figure(5.6, 3.8)
        axes = figure.subplots()
        for k, (method, (x, cost)) in enumerate(curves.items()):
            axes.plot(
                np.asarray(x, float),
                np.asarray(cost, float),
                LINES[2 * k % 5],
                color=COLOURS[ROLES[2 * k % 5]],
                label=escaped(method),
            )
        for height in (1.0, 4.0):
            axes.axhline(height, color=COLOURS["truth"], linewidth=0.7, linestyle=":")
        if truth is not None:
            axes.axvline(truth, color=COLOURS["truth"], linewidth=1.0, label="truth")
        axes.set_ylim(0.0, 9.0)
        axes.set_xlabel(escaped(name))
        axes.set_ylabel("cost − minimum")
        axes.legend()
        return figure
