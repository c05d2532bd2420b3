"""Cross sections bin by bin: a measurement with its errors, the toys of it, and what a model makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, MultipleLocator
from numpy.typing import ArrayLike, NDArray

from pofx.data.spec import Column
from pofx.errors import DataError, NonFiniteError, ShapeError
from pofx.report.style import COLOURS, Scaled, escaped, new_figure, scaled, shortened, style
from pofx.report.tables import Floats, as_table

__all__ = ["bin_spectrum"]

Numbers = NDArray[np.int64]

PER_ROW = 60
"""Bins side by side before a new row begins."""

_LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)


def bin_spectrum(
    mean: ArrayLike,
    errors: ArrayLike,
    samples: Any = None,
    toys: Any = None,
    *,
    name: str = "cross section",
    unit: str = "",
    groups: Sequence[tuple[str, int]] = (),
    labels: tuple[str, str, str] = ("nominal", "toys", "model"),
) -> Figure:
    """Value per bin: 68 and 95 % bands of the model's samples, the same quantiles of the toys as bars, and the nominal values.

    Each row of bins has a second panel relative to the nominal value. The value axis is logarithmic where bins differ by more than
    a factor of 30.

    Parameters
    ----------
    mean, errors : ``(bins,)`` nominal values and standard errors.
    samples : ``(n, bins)`` of the model; None draws no bands.
    toys : ``(m, bins)`` of the measurement; None draws the errors instead.
    name, unit : what is measured.
    groups : (label, number of bins) of neighbouring bins that belong together, in order.
    labels : what nominal, toys and model are called.

    >>> rng = np.random.default_rng(1)
    >>> toys = rng.lognormal(size=(100, 12))
    >>> len(bin_spectrum(toys.mean(0), toys.std(0), toys).axes)
    2
    """
    nominal, error = _numbers(mean, "mean"), _numbers(errors, "errors")
    if error.shape != nominal.shape:
        raise ShapeError(f"expected as many errors as values ({len(nominal)}); got {len(error)}")
    bands = _quantiles(samples, nominal)
    bars = nominal + np.outer([-2, -1, 0, 1, 2], error) if toys is None else _quantiles(toys, nominal)
    log = _is_log(nominal)
    scale = scaled(Column(name, unit), nominal)
    with style():
        rows = math.ceil(len(nominal) / PER_ROW)
        figure = new_figure(max(6.0, min(12.5, 2.5 + 0.18 * len(nominal))), 4.3 * rows + 0.4)
        grid = figure.add_gridspec(2 * rows, 1, height_ratios=(2.2, 1.3) * rows)
        for row in range(rows):
            chosen = np.array_split(np.arange(len(nominal), dtype=np.int64), rows)[row]
            main, relative = figure.add_subplot(grid[2 * row]), figure.add_subplot(grid[2 * row + 1])
            _draw_row(main, chosen, nominal, bars, bands, scale, log)
            _draw_row(relative, chosen, nominal, bars, bands, nominal, False)
            _finish(main, relative, chosen, scale, groups)
        _legend(figure, labels, toys is None, bands is not None)
        return figure


def _numbers(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values, float)
    if array.ndim != 1 or not len(array):
        raise ShapeError(f"expected {what} of shape (bins,); got {array.shape}")
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{what} is NaN or infinite in bin {int(np.argmin(np.isfinite(array)))}")
    return array


def _quantiles(samples: Any, nominal: Floats) -> Floats | None:
    """``(5, bins)``: the ends of the 95 and 68 % intervals and the median."""
    if samples is None:
        return None
    table = as_table(samples)
    if len(table.columns) != len(nominal):
        raise ShapeError(f"expected samples of {len(nominal)} bins; got {len(table.columns)}")
    if np.ptp(table.weight) == 0:
        return np.asarray(np.quantile(table.values, _LEVELS, axis=0))
    if (table.weight < 0).any():
        raise DataError("expected weights that are not negative, as quantiles need; some are")
    weighted: Any = np.quantile(table.values, _LEVELS, axis=0, weights=table.weight, method="inverted_cdf")
    return np.asarray(weighted)


def _is_log(nominal: Floats) -> bool:
    return bool((nominal > 0).all() and nominal.max() > 30 * nominal.min())


def _draw_row(
    axes: Axes,
    chosen: Numbers,
    nominal: Floats,
    bars: Floats | None,
    bands: Floats | None,
    scale: Scaled | Floats,
    log: bool,
) -> None:
    """Bands, bars and points of these bins; ``scale`` is a unit, or the values to divide by."""
    edges = np.append(chosen, chosen[-1] + 1) + 0.5
    centre = chosen + 1.0

    def shown(values: Floats) -> Floats:
        part = values[..., chosen]
        if isinstance(scale, Scaled):
            return scale(part)
        return part / np.where(scale[chosen] == 0, np.nan, scale[chosen])

    if bands is not None:
        low2, low, middle, high, high2 = shown(bands)
        for below, above, alpha in ((low2, high2, 0.22), (low, high, 0.4)):
            axes.stairs(above, edges, baseline=below, fill=True, color=COLOURS["model"], alpha=alpha, linewidth=0)
        axes.stairs(middle, edges, color=COLOURS["model"], linewidth=1.0, baseline=None)
    if bars is not None:
        low2, low, _, high, high2 = shown(bars)
        axes.vlines(centre, low2, high2, color=COLOURS["truth"], linewidth=0.7)
        axes.vlines(centre, low, high, color=COLOURS["truth"], linewidth=1.8)
    axes.plot(
        centre,
        shown(nominal),
        "o",
        color=COLOURS["truth"],
        markersize=3.0,
        markerfacecolor="white",
        markeredgewidth=0.9,
    )
    if log:
        axes.set_yscale("log")
        lowest = min(float(shown(part).min()) for part in (nominal, *(q[0] for q in (bars, bands) if q is not None)))
        axes.set_ylim(bottom=0.8 * max(lowest, 0.1 * float(shown(nominal).min())))
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(14, integer=True))
    axes.xaxis.set_minor_locator(MultipleLocator(1))


def _finish(main: Axes, relative: Axes, chosen: Numbers, scale: Scaled, groups: Sequence[tuple[str, int]]) -> None:
    main.set_ylabel(scale.label)
    main.tick_params(labelbottom=False)
    relative.axhline(1.0, color=COLOURS["truth"], linewidth=0.6)
    relative.set_ylabel("relative to nominal")
    relative.set_xlabel("bin")
    low, high = relative.get_ylim()
    relative.set_ylim(max(low, -1.0), min(high, 5.0))
    start = 0
    for label, count in groups:
        first, last = max(start, int(chosen[0])), min(start + count, int(chosen[-1]) + 1)
        if first < last:
            _mark_group(main, relative, first, last, label)
        start += count


def _mark_group(main: Axes, relative: Axes, first: int, last: int, label: str) -> None:
    for axes in (main, relative):
        axes.axvline(first + 0.5, color="0.6", linewidth=0.7, linestyle=":")
    text = escaped(shortened(label, max(4, 2 * (last - first))))
    main.annotate(
        text,
        ((first + last + 1) / 2, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=7.5,
    )


def _legend(figure: Figure, labels: tuple[str, str, str], errors: bool, bands: bool) -> None:
    nominal, toys, model = labels
    entries: list[Any] = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS["truth"], markerfacecolor="white", label=nominal),
        Line2D([], [], color=COLOURS["truth"], linewidth=1.8, label="errors 1σ, 2σ" if errors else f"{toys} 68, 95 %"),
    ]
    if bands:
        entries.append(Patch(color=COLOURS["model"], alpha=0.5, label=f"{model} 68, 95 %"))
    figure.legend(handles=entries, ncols=len(entries), loc="outside upper center")
