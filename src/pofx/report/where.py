"""Where a sample is wrong: the distributions of a classifier's weights, and where the events of their tails lie (arXiv:2305.16774)."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pofx.classifiers.base import Floats, balanced_weights
from pofx.metrics.weights import TAILS, Region, Tail, Where
from pofx.report.histograms import Edges, choose_edges, compare_binned, distance
from pofx.report.html import Report
from pofx.report.numbers import Value
from pofx.report.style import COLOURS, cells, new_figure, scaled, style
from pofx.report.tables import Table

__all__ = ["add_where", "tail_columns", "weight_distributions"]

BINS = 40
MOST_COLUMNS = 6
"""Columns that are shown of each tail: those in which it differs most from all events."""
MOST_REGIONS = 8
"""Boxes that are listed of each tail."""
COLOUR: dict[Tail, str] = {"missing": COLOURS["warning"], "too many": COLOURS["baseline"]}
MEANING: dict[Tail, str] = {
    "missing": "Large weights: events of which the generated sample has too few.",
    "too many": "Small weights: events of which the generated sample has too many.",
}

# Sections of the report


def add_where(report: Report, found: Where) -> Report:
    """Sections about the weights and either tail, and a finding where the samples differ.

    >>> from pofx.metrics.weights import where
    >>> rng = np.random.default_rng(1)
    >>> found = where(rng.normal(size=(200, 2)), rng.normal(size=(200, 2)), tail=0.1)
    >>> "Where is it wrong?" in add_where(Report("Toys"), found).html()
    True
    """
    if found.p_value <= 0.05 and found.regions:
        worst = found.regions[0]
        shares = f"{_percent(worst.truth)} of the truth, {_percent(worst.generated)} of the generated events"
        report.finding("warning", f"Most wrong where {worst.box}: {shares}.")
    report.section("Where is it wrong?").text(_summary(found))
    caption = (
        "Both samples; the tails are shaded. Dashed: the generated events times their weights; where it falls short of the truth, the "
        "generated sample has no events that could be weighted."
    )
    report.figure("weights", weight_distributions(found), caption)
    for tail in TAILS:
        _tail(report, found, tail)
    return report


def _summary(found: Where) -> str:
    verdict = (
        "" if found.p_value <= 0.05 else "So the classifier tells no difference, and the tails are those of noise. "
    )
    return (
        "The weight of an event is the ratio of the densities, truth over generated, by a classifier that has not seen the event. "
        f"The p-value of equal samples is {found.p_value:.2g}; reweighted, the generated sample would be worth "
        f"{found.effective_share:.1%} of its events. {verdict}"
        "Clusters are boxes in the columns, found without looking at which events are true, in events that their "
        f"judges have not seen: the pull of a cluster found in noise is a normal number, and there are {len(found.regions)} of them."
    )


def _percent(share: tuple[float, float]) -> str:
    return f"({Value(100 * share[0], 100 * share[1])}) %"


def _tail(report: Report, found: Where, tail: Tail) -> None:
    report.section(f"Tail of the weights: {tail}").text(MEANING[tail])
    inside, everything = _tail_and_all(found, tail)
    if not inside.weight.sum() > 0:
        return
    caption = "Events of this tail (points) beside all events (area); between the dashed lines lies the cluster of the largest pull."
    report.figure(f"tail {tail}", tail_columns(found, tail), caption)
    regions = [region for region in found.regions if region.tail == tail][:MOST_REGIONS]
    if not regions:
        report.text("In no box is this tail twice as frequent as on average.")
        return
    head = ("cluster", "share of the tail", "share of the truth", "share of the generated", "pull")
    report.table(head, [_row(region) for region in regions], "Pull: difference of the shares over its error.")
    chosen = [everything.columns[i] for i in _ranking(inside, everything)[:MOST_COLUMNS]]
    names = [f"{column.name} [{column.unit}]" if column.unit else column.name for column in chosen]
    rows = [[region.box, *(_place(region, column.name) for column in chosen)] for region in regions if region.centre]
    report.table(
        ("cluster", *names), rows, "Mean of the tail's events in a cluster, and in brackets their standard deviation."
    )


def _row(region: Region) -> list[object]:
    return [region.box, *(Value(*one) for one in (region.share, region.truth, region.generated)), f"{region.pull:+.1f}"]


def _place(region: Region, name: str) -> str:
    return f"{Value(*region.centre[name])} ({Value(*region.spread[name])})"


def _tail_and_all(found: Where, tail: Tail) -> tuple[Table, Table]:
    """Events of the tail, and all; of each, both samples with half of the weight."""
    second = np.repeat([False, True], [len(side.x) for side in found.sides])
    weight = balanced_weights(second, np.concatenate([side.weight for side in found.sides]))
    everything = Table(np.concatenate([side.x for side in found.sides]), found.columns, weight)
    return everything.rows(np.concatenate(found.beyond(tail))), everything


def _ranking(inside: Table, everything: Table) -> list[int]:
    """Columns, that in which the tail differs most from all events first."""
    return [int(i) for i in np.argsort(-distance(everything, inside), kind="stable")]


# Figures


def weight_distributions(found: Where) -> Figure:
    """Weights of true and of generated events on logarithmic axes with errors, both tails marked, and the generated ones reweighted.

    >>> from pofx.metrics.weights import where
    >>> x = np.random.default_rng(1).normal(size=(400, 1))
    >>> len(weight_distributions(where(x[:200], x[200:])).axes)
    1
    """
    both = zip((found.log_weight_truth, found.log_weight_generated), found.sides, strict=True)
    truth, generated = (Table(log_w[:, None], (), side.weight) for log_w, side in both)
    values = np.concatenate([truth.values, generated.values])
    low, high = float(values.min()), float(values.max())
    room = 0.02 * (high - low) + 1e-6
    edges = Edges(np.linspace(low - room, high + room, BINS + 1))
    with style():
        figure = new_figure(6.4, 3.8)
        axes = figure.subplots()
        _draw_weights(axes, truth, generated, edges)
        _mark_tails(axes, found, np.exp(edges.values))
        axes.set(xscale="log", yscale="log", xlabel="weight (truth / generated)", ylabel="share of events")
        _label_few_decades(axes, high - low)
        axes.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return figure


def _label_few_decades(axes: Axes, width: float) -> None:
    """Numbers at 1, 2 and 5 where the axis has few powers of ten; ``width`` is that of log w."""
    if width < 3 * math.log(10):
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if width > 0.7 else [k / 10 for k in range(10, 100)])
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda w, _: f"{w:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_weights(axes: Axes, truth: Table, generated: Table, edges: Edges) -> None:
    ratio = np.exp(generated.values[:, 0] - generated.values.max())
    weighted = Table(generated.values, (), generated.weight * ratio)
    plain, corrected = (compare_binned(truth, one, 0, edges) for one in (generated, weighted))
    w, total = np.exp(edges.values), truth.weight.sum()
    share, error = plain.model / total, plain.model_error / total
    axes.stairs(share, w, color=COLOURS["model"], label="generated")
    axes.stairs(share + error, w, baseline=share - error, fill=True, color=COLOURS["model"], alpha=0.35, linewidth=0)
    axes.stairs(corrected.model / total, w, color=COLOURS["good"], linestyle="--", label="generated, reweighted")
    some, middle = plain.truth > 0, np.sqrt(w[1:] * w[:-1])
    axes.errorbar(
        middle[some], plain.truth[some] / total, plain.truth_error[some] / total, fmt="o", color=COLOURS["truth"], label="truth"
    )  # fmt: skip
    filled = np.concatenate([plain.truth[some] / total, share[share > 0]])
    axes.set_ylim(0.3 * filled.min(), 3.0 * filled.max())


def _mark_tails(axes: Axes, found: Where, w: Floats) -> None:
    low, high = (math.exp(edge) for edge in found.thresholds)
    axes.set_xlim(w[0], w[-1])
    spans: tuple[tuple[Tail, float, float, float], ...] = (("too many", w[0], low, 0.0), ("missing", high, w[-1], 1.0))
    for tail, start, stop, place in spans:
        axes.axvspan(start, stop, color=COLOUR[tail], alpha=0.15, linewidth=0)
        axes.text(
            place,
            1.01,
            tail,
            color=COLOUR[tail],
            ha="right" if place else "left",
            va="bottom",
            transform=axes.transAxes,
        )


def tail_columns(found: Where, tail: Tail) -> Figure:
    """Columns in which the events of a tail differ most from all events: histograms of both, the tail's with errors.

    >>> from pofx.metrics.weights import where
    >>> x = np.random.default_rng(1).normal(size=(400, 3))
    >>> len(tail_columns(where(x[:200], x[200:]), "missing").axes)
    3
    """
    inside, everything = _tail_and_all(found, tail)
    chosen = _ranking(inside, everything)[:MOST_COLUMNS]
    limits = next((region.limits for region in found.regions if region.tail == tail), {})
    across = min(len(chosen), 3)
    with style():
        figure, grid = cells(math.ceil(len(chosen) / across), across, (2.6, 1.9), gap=(0.62, 0.75))
        for place, number in enumerate(chosen):
            axes = figure.add_subplot(grid[place // across, place % across])
            _draw_column(axes, inside, everything, number, tail)
            for limit in limits.get(everything.columns[number].name, ()):
                _mark(axes, limit, everything, number)
        figure.legend(*axes.get_legend_handles_labels(), ncols=2, loc="upper center", borderaxespad=0.1)
        return figure


def _draw_column(axes: Axes, inside: Table, everything: Table, number: int, tail: Tail) -> None:
    column, values = everything.columns[number], everything.values[:, number]
    edges = choose_edges(column, values)
    binned = compare_binned(everything, inside, number, edges)
    scale, total = scaled(column, values), everything.weight.sum()
    drawn = scale(edges.values)
    middle = np.sqrt(drawn[1:] * drawn[:-1]) if edges.log else 0.5 * (drawn[1:] + drawn[:-1])
    axes.stairs(binned.truth / total, drawn, fill=True, color=COLOURS["train"], alpha=0.5, label="all events")
    some = binned.model > 0
    axes.errorbar(
        middle[some], binned.model[some] / total, binned.model_error[some] / total, fmt="o", color=COLOUR[tail], label=f"tail: {tail}"
    )  # fmt: skip
    axes.set(xlabel=scale.label, ylabel="share of events", xlim=(drawn[0], drawn[-1]))
    axes.set_ylim(bottom=0.0)
    if edges.log:
        axes.set_xscale("log")
    else:
        axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        axes.locator_params(axis="x", nbins=5)


def _mark(axes: Axes, limit: float, everything: Table, number: int) -> None:
    """A dashed line at the end of a box, if it has one here."""
    low, high = axes.get_xlim()
    place = float(scaled(everything.columns[number], everything.values[:, number])([limit])[0])
    if low < place < high:
        axes.axvline(place, color=COLOURS["truth"], linestyle="--", linewidth=0.9)
