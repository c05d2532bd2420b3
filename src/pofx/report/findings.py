"""What a density report says in words: what is good, what to note, what to worry about.

A comparison of many numbers is judged by the probability that the largest of so many pulls is as large by chance; correlations among
the comparisons make that probability too large, so a warning is never too early.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from pofx.report.numbers import Value
from pofx.report.statistics import QUANTITIES, expected_largest, global_p_value
from pofx.report.study import Study

__all__ = ["Finding", "findings"]

Finding = tuple[Literal["good", "note", "warning"], str]


def findings(study: Study) -> list[Finding]:
    """Sentences about a study, in no particular order."""
    found = [*_about_data(study), *_about_training(study), *_about_columns(study), *_about_correlations(study)]
    return [*found, *_about_density(study)] if study.has_density else found


def _about_data(study: Study) -> Iterator[Finding]:
    if study.part != "test":
        where = (
            "the validation events, which chose the weights"
            if study.part == "val"
            else "all events, the training events among them"
        )
        yield "warning", f"There are no test events: everything is measured on {where}."
    if study.truth.effective < 500:
        yield (
            "note",
            f"Only {study.truth.effective:.0f} (effective) held-out events: all comparisons have large errors.",
        )
    known, mine = (study.model.card.get("data") or {}).get("sha256"), study.dataset.fingerprint
    if known is not None and known != mine:
        yield "note", "These are not the data that the model was trained on (their fingerprints differ)."
    if study.outside:
        names = ", ".join(f"{name} ({count})" for name, count in list(study.outside.items())[:6])
        yield "warning", f"Generated events lie outside the declared range of {names}."


def _about_training(study: Study) -> Iterator[Finding]:
    stopped = study.record.get("stopped_by")
    if stopped == "interrupt":
        yield "warning", "Training was interrupted."
    if study.record.get("skipped_steps"):
        yield "warning", f"{study.record['skipped_steps']} training steps were skipped because a number was not finite."
    rows = [row for row in study.history if row["validation_loss"] is not None]
    if len(rows) < 5 or len({row["phase"] for row in rows}) > 1:
        return
    loss = np.array([row["validation_loss"] for row in rows])
    best = int(np.argmin(loss))
    noise = float(rows[best]["validation_error"] or 0.0)
    if loss[-1] - loss[best] > max(0.5 * noise, 1e-12) and best < 0.9 * len(rows):
        rise, where = loss[-1] - loss[best], rows[best]["step"]
        kept = study.record.get("best_step")
        what = (
            "the untrained weights, which are better still, were kept"
            if kept == 0
            else f"the weights of step {kept} were kept"
        )
        text = f"The validation loss rose by {rise:.3g} after step {where}; {what}. "
        yield "note", text + "More data, a smaller network or weight decay would help against overtraining."
    elif stopped in ("epochs", "steps", "minutes") and best > 0.9 * len(rows):
        tail = float(loss[max(0, int(0.8 * len(rows)) - 1)] - loss[best])
        if tail > 0.5 * noise > 0:
            text = f"Training ended at its limit of {stopped} while the validation loss still fell"
            yield "note", f"{text} ({tail:.3g} in the last fifth): longer training may help."


def _about_columns(study: Study) -> Iterator[Finding]:
    pulls, value = study.differences.pulls, study.differences.value
    i, j = (int(k) for k in np.unravel_index(np.argmax(np.abs(pulls)), pulls.shape))
    expected, spread = expected_largest(pulls.size)
    chance = global_p_value(float(pulls[i, j]), pulls.size)
    where = f"{study.truth.columns[i].name}, {QUANTITIES[j]}: {value[i, j]:+.3f} standard deviations of the data"
    text = f"largest pull {abs(pulls[i, j]):.1f} ({expected:.1f} ± {spread:.1f} expected of {pulls.size} comparisons; {where})"
    if chance > 0.05:
        yield "good", f"The columns' means, widths and quantiles agree with the held-out events: {text}."
    else:
        yield (
            _level(chance),
            f"A column differs from the held-out events more than chance allows (global p = {chance:.1g}): {text}.",
        )


def _about_correlations(study: Study) -> Iterator[Finding]:
    if study.correlation_pulls is None:
        return
    largest, count = float(np.abs(study.correlation_pulls).max()), len(study.correlation_pulls)
    expected, spread = expected_largest(count)
    chance = global_p_value(largest, count)
    text = f"largest pull {largest:.1f} ({expected:.1f} ± {spread:.1f} expected of {count})"
    if chance > 0.05:
        yield "good", f"The correlations agree with the held-out events: {text}."
    else:
        yield (
            _level(chance),
            f"A correlation differs from the held-out events more than chance allows (global p = {chance:.1g}): {text}.",
        )


def _about_density(study: Study) -> Iterator[Finding]:
    if study.nll.lost:
        yield (
            "warning",
            f"{study.nll.lost} held-out events have no density (log p = −∞): they lie outside a declared range.",
        )
    gain = study.over_baseline
    if gain is not None and math.isfinite(gain.value):
        text = f"{Value(abs(gain.value), gain.error)} nats per event (paired error)"
        if gain.value > 3 * gain.error:
            yield "good", f"Held-out events are more probable than under a Gaussian, by {text}."
        elif gain.value < -3 * gain.error:
            yield (
                "warning",
                f"Held-out events are less probable than under a Gaussian, by {text}: use the Gaussian, or train longer.",
            )
        else:
            yield (
                "note",
                f"Not distinguishable from a Gaussian on the held-out events: {Value(gain.value, gain.error)} nats per event.",
            )
    if study.agreement > 0.05:
        yield (
            "good",
            f"Held-out and generated events have the same distribution of log p (Kolmogorov-Smirnov p = {study.agreement:.2g}).",
        )
    else:
        yield (
            _level(study.agreement),
            f"log p is distributed differently over held-out and generated events (Kolmogorov-Smirnov p = {study.agreement:.1g}).",
        )


def _level(chance: float) -> Literal["note", "warning"]:
    return "warning" if chance < 1e-3 else "note"
