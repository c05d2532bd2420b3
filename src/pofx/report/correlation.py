r"""Correlation matrices of truth and model side by side, and their difference in units of its statistical error.

With standardised u, the influence of an event on :math:`\rho_{ij}` is :math:`u_i u_j - \rho_{ij} (u_i^2 + u_j^2) / 2`, so that
:math:`\mathrm{var}\,\rho_{ij} = \sum w^2 (u_i u_j - \rho_{ij} (u_i^2 + u_j^2)/2)^2 / (\sum w)^2` for any distribution with fourth moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pofx.errors import DataError
from pofx.report.statistics import expected_largest
from pofx.report.style import escaped, new_figure, shortened, style
from pofx.report.tables import Floats, Table, pair

__all__ = ["correlation", "correlation_errors", "correlation_pulls"]


def correlation(
    truth: Any, samples: Any, names: Sequence[str | int] | None = None, *, labels: tuple[str, str] = ("truth", "model")
) -> Figure:
    """Correlation matrices of truth and model, and (model - truth) / error.

    If both have the same correlations, the third matrix has RMS 1 and its largest entry is about what its title says is expected.

    Parameters
    ----------
    truth, samples : as for :func:`pofx.report.spectra`.
    names : which columns; None is all. Constant columns are left out.
    labels : what the two are called.

    >>> rng = np.random.default_rng(1)
    >>> figure = correlation(rng.normal(size=(500, 3)), rng.normal(size=(500, 3)))
    """
    real, model = (_varying(table) for table in _same(*pair(truth, samples, names)))
    first, second, pulls = correlation_pulls(real, model)
    with style():
        figure = new_figure(12.0, 4.2, layout="compressed")
        left, middle, right = figure.subplots(1, 3)
        for axes, matrix, label in ((left, first, labels[0]), (middle, second, labels[1])):
            image = _matrix(axes, matrix, 1.0, real.names, "{:.2f}")
            axes.set_title(f"{label}: correlation")
        figure.colorbar(image, ax=[left, middle], label="correlation", fraction=0.046, pad=0.01)
        image = _matrix(right, pulls, max(4.0, float(np.abs(pulls).max())), real.names, "{:+.1f}")
        figure.colorbar(image, ax=right, label=f"({labels[1]} − {labels[0]}) / error", fraction=0.05, pad=0.02)
        right.set_title(_summary(pulls), fontsize=8.5)
        return figure


def correlation_pulls(real: Table, model: Table) -> tuple[Floats, Floats, Floats]:
    """Both correlation matrices and (model - truth) / error, ``(d, d)`` each; the diagonal of the last is 0."""
    (first, e1), (second, e2) = correlation_errors(real), correlation_errors(model)
    error = np.hypot(e1, e2)
    return first, second, np.divide(second - first, error, out=np.zeros_like(error), where=error > 1e-12)


def correlation_errors(table: Table) -> tuple[Floats, Floats]:
    """The weighted correlation matrix and the standard error of its entries, ``(d, d)`` each; no column may be constant."""
    w = table.weight / table.weight.sum()
    offset = table.values - w @ table.values
    spread = np.abs(offset).max(0)
    u = offset / spread
    u = u / np.sqrt(np.maximum(w @ u**2, 1e-300))
    rho = np.clip((u * w[:, None]).T @ u, -1.0, 1.0)
    v = u * w[:, None]
    second = (v**2).T @ u**2
    mixed = (v * u**2 * w[:, None]).T @ u
    fourth = np.diag(second)
    variance = second + rho**2 / 4 * (fourth[:, None] + fourth + 2 * second) - rho * (mixed + mixed.T)
    np.fill_diagonal(variance, 0.0)
    return rho, np.sqrt(np.maximum(variance, 0.0))


def _same(real: Table, model: Table) -> tuple[Table, Table]:
    """Both without the columns that are constant in either."""
    keep = [i for i in range(len(real.columns)) if np.ptp(real.values[:, i]) > 0 and np.ptp(model.values[:, i]) > 0]
    if len(keep) < 2:
        raise DataError(f"expected at least two columns that are not constant; got {len(keep)}")
    return real.take(keep), model.take(keep)


def _varying(table: Table) -> Table:
    if len(table) < 4:
        raise DataError(f"expected at least four events for correlations; got {len(table)}")
    return table


def _matrix(axes: Axes, matrix: Floats, largest: float, names: Sequence[str], form: str) -> Any:
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    axes.minorticks_off()
    axes.tick_params(top=False, right=False, length=2, direction="out")
    d = len(matrix)
    if d <= 16:
        short = [escaped(shortened(name, 14)) for name in names]
        axes.set_xticks(range(d), short, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(d), short, fontsize=8)
    else:
        axes.set_xlabel("column")
        axes.set_ylabel("column")
    if d <= 8:
        for i, j in np.ndindex(d, d):
            colour = "white" if abs(matrix[i, j]) > 0.6 * largest else "black"
            axes.text(j, i, form.format(matrix[i, j]), ha="center", va="center", fontsize=7, color=colour)
    return image


def _summary(pulls: Floats) -> str:
    values = pulls[np.triu_indices(len(pulls), 1)]
    largest, spread = expected_largest(len(values))
    rms = float(np.sqrt((values**2).mean()))
    return (
        f"difference / error: RMS {rms:.2f} (1 expected)\n"
        f"largest {np.abs(values).max():.1f} ({largest:.1f} ± {spread:.1f} expected of {len(values)})"
    )
