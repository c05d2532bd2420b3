"""Corner plots: every pair of a few columns as regions of highest density, marginals on the diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from pofx.errors import ColumnError
from pofx.report.histograms import Edges, choose_edges
from pofx.report.style import COLOURS, cells, scaled, style
from pofx.report.tables import Floats, Table, pair

__all__ = ["MOST", "corner"]

MOST = 6
"""The largest number of columns."""

SHARES = (0.95, 0.68)


def corner(
    truth: Any,
    samples: Any,
    columns: Sequence[str | int] | None = None,
    *,
    labels: tuple[str, str] = ("truth", "model"),
) -> Figure:
    """Contours that hold 68 and 95 % of the events (regions of highest density), and marginal densities.

    Truth is black (grey areas), the model blue (dashed lines). The same bins and the same smoothing (one bin) apply to both.

    Parameters
    ----------
    truth, samples : as for :func:`pofx.report.spectra`.
    columns : at most 6; None takes all if there are no more (ColumnError otherwise).
    labels : what the two are called.

    >>> rng = np.random.default_rng(1)
    >>> len(corner(rng.normal(size=(500, 3)), rng.normal(size=(500, 3))).axes)
    6
    """
    real, model = pair(truth, samples, columns)
    d = len(real.columns)
    if d > MOST:
        raise ColumnError(f"expected at most {MOST} columns for a corner plot; got {d}: choose some with columns=")
    with style():
        size = 1.75 if d > 2 else 2.3
        figure, grid = cells(d, d, (size, size), gap=(0.16, 0.16), left=0.75, bottom=0.7)
        edges = [choose_edges(column, real.values[:, i], 36) for i, column in enumerate(real.columns)]
        for row in range(d):
            for column in range(row + 1):
                axes = figure.add_subplot(grid[row, column])
                _draw(axes, real, model, (row, column), edges)
                _label(axes, real, (row, column), edges)
        _legend(figure, labels)
        return figure


def _draw(axes: Axes, real: Table, model: Table, place: tuple[int, int], edges: Sequence[Edges]) -> None:
    row, column = place
    for table, role in ((real, "truth"), (model, "model")):
        if row == column:
            _marginal(axes, table, column, edges[column], COLOURS[role], role == "truth")
        else:
            _contours(axes, table, (column, row), (edges[column], edges[row]), role == "truth")


def _unit_of(table: Table, number: int, edges: Edges) -> Floats:
    return scaled(table.columns[number], edges.values)(edges.values)


def _marginal(axes: Axes, table: Table, number: int, edges: Edges, colour: str, filled: bool) -> None:
    counts = np.histogram(table.values[:, number], edges.values, weights=table.weight)[0] / table.weight.sum()
    drawn = _unit_of(table, number, edges)
    axes.stairs(counts, drawn, color=colour, linewidth=1.2)
    if filled:
        axes.stairs(counts, drawn, fill=True, color="0.85", linewidth=0)


def _contours(axes: Axes, table: Table, numbers: tuple[int, int], edges: tuple[Edges, Edges], filled: bool) -> None:
    sides: list[Any] = [edges[0].values, edges[1].values]
    x, y = (table.values[:, number] for number in numbers)
    counts = np.histogram2d(x, y, bins=sides, weights=table.weight)[0]
    density = ndimage.gaussian_filter(np.maximum(counts, 0.0), 1.0, mode="constant")
    levels = highest_density_levels(density, SHARES)
    if not levels:
        return
    x, y = (_centres(_unit_of(table, number, e), e.log) for number, e in zip(numbers, edges, strict=True))
    if filled:
        axes.contourf(x, y, density.T, levels=[*levels, 2 * density.max()], colors=["0.88", "0.72"][-len(levels) :])
    colour, lines = (COLOURS["truth"], "solid") if filled else (COLOURS["model"], "dashed")
    axes.contour(x, y, density.T, levels=levels, colors=[colour], linestyles=lines, linewidths=1.0 if filled else 1.3)


def highest_density_levels(density: Floats, shares: Sequence[float]) -> list[float]:
    """The densities above which these shares (falling) of the total lie: increasing, without those that enclose nothing.

    >>> highest_density_levels(np.array([[1.0, 2.0], [3.0, 4.0]]), [0.7])
    [3.0]
    """
    ordered = np.sort(density, axis=None)[::-1]
    if not ordered[0] > 0:
        return []
    held = np.cumsum(ordered) / ordered.sum()
    levels = [float(ordered[min(int(np.searchsorted(held, share)), len(ordered) - 1)]) for share in shares]
    return sorted({level for level in levels if 0 < level < ordered[0]})


def _centres(edges: Floats, log: bool) -> Floats:
    return np.sqrt(edges[1:] * edges[:-1]) if log else 0.5 * (edges[1:] + edges[:-1])


def _label(axes: Axes, real: Table, place: tuple[int, int], edges: Sequence[Edges]) -> None:
    row, column = place
    last = len(real.columns) - 1
    _axis(axes, "x", real, column, edges[column], row == last)
    if row != column:
        _axis(axes, "y", real, row, edges[row], column == 0)
    else:
        axes.set_yticks([])
        axes.set_ylim(bottom=0.0)


def _axis(axes: Axes, which: Literal["x", "y"], real: Table, number: int, edges: Edges, labelled: bool) -> None:
    drawn = _unit_of(real, number, edges)
    axis = getattr(axes, f"{which}axis")
    getattr(axes, f"set_{which}lim")(drawn[0], drawn[-1])
    if edges.log:
        getattr(axes, f"set_{which}scale")("log")
    else:
        axis.set_major_locator(MaxNLocator(3, prune="both"))
    axes.tick_params(axis=which, **{f"label{'bottom' if which == 'x' else 'left'}": labelled}, which="both")
    if labelled:
        getattr(axes, f"set_{which}label")(scaled(real.columns[number], edges.values).label, fontsize=9)


def _legend(figure: Figure, labels: tuple[str, str]) -> None:
    entries = [
        Line2D([], [], color=COLOURS["truth"], label=f"{labels[0]} 68, 95 %"),
        Line2D([], [], color=COLOURS["model"], linestyle="dashed", label=f"{labels[1]} 68, 95 %"),
    ]
    figure.legend(handles=entries, ncols=1 if len(figure.axes) == 1 else 2, loc="upper center", borderaxespad=0.3)
