"""How a training went: losses with their errors, learning rate, phases, and the step whose weights were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pofx.errors import DataError
from pofx.report.style import COLOURS, escaped, new_figure, style
from pofx.report.tables import Floats

__all__ = ["training_curves"]

Rows = Sequence[Mapping[str, Any]]


def training_curves(record: Any) -> Figure:
    """Training and validation loss per step, a panel per phase, with the learning rate on a second axis.

    The band is the standard error of the validation loss, the vertical line the step whose weights were kept.

    Parameters
    ----------
    record : :class:`pofx.training.record.Record`, or the dictionary of it in ``model.card["training"]``. DataError without epochs.
    """
    plain = record.to_dict() if hasattr(record, "to_dict") else dict(record)
    history = [row if isinstance(row, Mapping) else vars(row) for row in plain.get("history", ())]
    phases = [(name, list(rows)) for name, rows in groupby(history, key=lambda row: row["phase"])]
    if not phases:
        raise DataError("expected a training record with at least one epoch; this one has none")
    with style():
        figure = new_figure(max(7.5, 4.5 * len(phases)), 4.0)
        panels = figure.subplots(1, len(phases), squeeze=False)[0]
        for number, (axes, (name, rows)) in enumerate(zip(panels, phases, strict=True)):
            last = number == len(phases) - 1
            _draw_phase(axes, rows, plain.get("best_step") if last else None)
            if len(phases) > 1:
                axes.set_title(escaped(f"phase {name}"))
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(handles, labels, ncols=len(labels), loc="outside upper center")
        return figure


def _draw_phase(axes: Axes, rows: Rows, best: int | None) -> None:
    step, train, rate = (_column(rows, name) for name in ("step", "train_loss", "learning_rate"))
    value, error = _column(rows, "validation_loss"), _column(rows, "validation_error")
    alone = "o" if len(rows) == 1 else ""
    seen = np.isfinite(value)
    second = _rate_axis(axes, step, rate) if np.isfinite(rate).any() else None
    axes.plot(step, train, marker=alone, color=COLOURS["train"], label="training")
    if seen.any():
        band, middle = np.nan_to_num(error[seen]), value[seen]
        axes.plot(step[seen], middle, marker=alone, color=COLOURS["model"], label="validation ± standard error")
        axes.fill_between(step[seen], middle - band, middle + band, color=COLOURS["model"], alpha=0.25, linewidth=0)
    if best is not None:
        axes.axvline(best, color=COLOURS["good"], linestyle="--", linewidth=1.1, label=f"kept: step {best}")
    if second is not None:
        axes.plot([], [], color=COLOURS["baseline"], linestyle=":", label="learning rate (right axis)")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    _zoom(axes, np.concatenate([train, value[seen]]))


def _rate_axis(axes: Axes, step: Floats, rate: Floats) -> Axes:
    second = axes.twinx()
    second.plot(step, rate, color=COLOURS["baseline"], linestyle=":", linewidth=1.0)
    second.set_ylabel("learning rate", color=COLOURS["baseline"])
    second.tick_params(axis="y", colors=COLOURS["baseline"])
    second.set_ylim(bottom=0.0)
    axes.tick_params(right=False)
    axes.set_zorder(second.get_zorder() + 1)
    axes.patch.set_visible(False)
    return second


def _zoom(axes: Axes, losses: Floats) -> None:
    """Leave out the steep beginning where it would hide the rest."""
    finite = losses[np.isfinite(losses)]
    if len(finite) < 8:
        return
    low, most = float(finite.min()), float(np.quantile(finite, 0.9))
    if most > low and finite.max() - low > 4 * (most - low):
        axes.set_ylim(low - 0.08 * (most - low), most + 0.6 * (most - low))


def _column(rows: Rows, name: str) -> Floats:
    return np.array([np.nan if row.get(name) is None else float(row[name]) for row in rows])
