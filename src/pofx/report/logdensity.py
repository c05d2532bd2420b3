"""Log-densities: do held-out and generated events have the same ones, and are they those of the truth, where it is known?

If the model is right, log p(x) is distributed alike over events it never saw and over events it made. Against a known truth,
E[log p_truth - log p_model] over true events is the Kullback-Leibler divergence, the expected loss from using the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pofx.errors import DataError, NonFiniteError, ShapeError
from pofx.report.style import COLOURS, new_figure, style
from pofx.report.tables import Floats

__all__ = ["log_density"]

_DOTS = 4000


def log_density(truth_logp: ArrayLike, sample_logp: ArrayLike, exact: ArrayLike | None = None) -> Figure:
    """Distributions of log p for held-out and generated events; beside it, model against exact, where that is known.

    Parameters
    ----------
    truth_logp : ``(n,)`` the model's log p of held-out events; -inf is allowed and counted, NaN is not.
    sample_logp : ``(m,)`` the model's log p of its own events.
    exact : ``(n,)`` the true log p of the held-out events; adds two panels.

    >>> rng = np.random.default_rng(1)
    >>> len(log_density(rng.normal(size=200), rng.normal(size=200), exact=rng.normal(size=200)).axes)
    3
    """
    truth, sample = _numbers(truth_logp, "truth_logp"), _numbers(sample_logp, "sample_logp")
    known = None if exact is None else _numbers(exact, "exact")
    if known is not None and known.shape != truth.shape:
        raise ShapeError(f"expected as many exact values as held-out events ({len(truth)}); got {len(known)}")
    with style():
        figure = new_figure(5.6 if known is None else 13.0, 4.0)
        panels = figure.subplots(1, 1 if known is None else 3, squeeze=False)[0]
        _distributions(panels[0], truth, sample)
        if known is not None:
            _scatter(panels[1], known, truth)
            _gap(panels[2], known, truth)
        return figure


def _numbers(values: Any, what: str) -> Floats:
    array = np.asarray(values, float)
    if array.ndim != 1:
        raise ShapeError(f"expected {what} of shape (n,); got {array.shape}")
    if np.isnan(array).any() or np.isposinf(array).any():
        raise NonFiniteError(f"{what} is NaN or +infinite at {int(np.argmax(np.isnan(array) | np.isposinf(array)))}")
    if not np.isfinite(array).any():
        raise DataError(f"expected at least one finite value in {what}; got {len(array)} values")
    return array


def _distributions(axes: Axes, truth: Floats, sample: Floats) -> None:
    inside, generated = truth[np.isfinite(truth)], sample[np.isfinite(sample)]
    low, high = np.quantile(np.concatenate([inside, generated]), [0.001, 0.999])
    room = 0.05 * (high - low) or 0.5
    edges = np.linspace(low - room, high + room, int(np.clip(2 * len(inside) ** (1 / 3), 8, 40)) + 1)
    width = edges[1] - edges[0]
    made = np.histogram(generated, edges)[0]
    norm = len(sample) * width
    axes.stairs(made / norm, edges, color=COLOURS["model"], label="generated")
    axes.stairs(
        (made + np.sqrt(made)) / norm,
        edges,
        baseline=(made - np.sqrt(made)) / norm,
        fill=True,
        color=COLOURS["model"],
        alpha=0.3,
        linewidth=0,
    )
    seen = np.histogram(inside, edges)[0]
    some = seen > 0
    centre = 0.5 * (edges[1:] + edges[:-1])
    norm = len(truth) * width
    axes.errorbar(
        centre[some],
        seen[some] / norm,
        np.sqrt(seen[some]) / norm,
        fmt="o",
        color=COLOURS["truth"],
        label="held out",
        elinewidth=0.9,
    )
    axes.set_xlabel("log p(x) of the model [nats]")
    axes.set_ylabel("density")
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="upper left")
    axes.set_title(
        f"mean {_mean(inside)} held out\nmean {_mean(generated)} generated" + _lost(truth, sample),
        fontsize=8.5,
        loc="left",
    )


def _mean(values: Floats) -> str:
    return f"{values.mean():.2f} ± {values.std() / math.sqrt(len(values)):.2f}"


def _lost(truth: Floats, sample: Floats) -> str:
    """How many events have no density at all."""
    count = int(np.isneginf(truth).sum()), int(np.isneginf(sample).sum())
    return f"\nlog p = −∞ for {count[0]} held out, {count[1]} generated" if any(count) else ""


def _scatter(axes: Axes, exact: Floats, model: Floats) -> None:
    both = np.isfinite(exact) & np.isfinite(model)
    x, y = exact[both], model[both]
    dots = slice(None, None, max(1, len(x) // _DOTS))
    axes.plot(x[dots], y[dots], ".", color=COLOURS["model"], markersize=2.5, alpha=0.4, rasterized=True)
    ends = np.quantile(x, [0.0, 1.0])
    axes.plot(ends, ends, color=COLOURS["truth"], linewidth=0.9, label="equal")
    axes.set_xlabel("exact log p(x) [nats]")
    axes.set_ylabel("log p(x) of the model [nats]")
    spread = float(np.std(x) * np.std(y))
    r = float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread > 0 else math.nan
    axes.set_title(
        f"held-out events: r = {r:.4f}\nRMS difference {math.sqrt(float(np.mean((y - x) ** 2))):.2f} nats",
        fontsize=8.5,
        loc="left",
    )
    axes.legend(loc="upper left")


def _gap(axes: Axes, exact: Floats, model: Floats) -> None:
    both = np.isfinite(exact) & np.isfinite(model)
    gap = (exact - model)[both]
    low, high = np.quantile(gap, [0.002, 0.998])
    room = 0.05 * (high - low) or 0.5
    axes.hist(
        np.clip(gap, low, high),
        bins=np.linspace(low - room, high + room, 41).tolist(),
        color=COLOURS["model"],
        alpha=0.5,
    )
    axes.axvline(0.0, color=COLOURS["truth"], linewidth=0.9)
    axes.axvline(gap.mean(), color=COLOURS["baseline"], linestyle="--", label="mean")
    axes.set_xlabel("exact − model [nats]")
    axes.set_ylabel("events")
    axes.set_title(
        f"mean gap (KL divergence)\n{gap.mean():.3f} ± {gap.std() / math.sqrt(len(gap)):.3f} nats",
        fontsize=8.5,
        loc="left",
    )
    axes.legend(loc="upper right")
