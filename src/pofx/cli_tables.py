"""What the command line reads for a fitted model and what it says: events and contexts found by column name, scores, cards, families."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.events import Events
from pofx.data.reading import read
from pofx.data.spec import EventSpec
from pofx.data.writing import write
from pofx.errors import ArtefactError, ColumnError, ShapeError

if TYPE_CHECKING:
    from pofx.models.model import Model

__all__ = ["card_text", "contexts_for", "events_for", "score"]

logger = logging.getLogger(__name__)

Keys = Sequence[str] | None


def events_for(model: Model, path: Path, key: Keys, weight: str | None, nan: Literal["error", "drop"]) -> Dataset:
    """The events of a file that a model can score: its columns by name, in whatever order the file has them.

    A file whose columns are only numbered (``x_0, x_1, ...``) is taken by position. Periodic columns are wrapped.
    """
    names, contexts = _names(model.layout.spec), _names(model.layout.context or {})
    forms = [*model.layout.spec.values(), *(model.layout.context or {}).values()]
    angles = [column for form in forms for column in form.columns if column.type == "periodic"]
    try:
        return read(path, columns=names, context=contexts or None, weight=weight, key=key, declare=angles, nan=nan)
    except ColumnError as error:
        if contexts:
            raise
        return _by_position(path, key, len(names), error, weight=weight, nan=nan)


def contexts_for(model: Model, path: Path, key: Keys) -> Any:
    """The contexts of a file as an array ``(m, c)``."""
    names = _names(model.layout.context or {})
    if not names:
        raise ShapeError("--context: this model was fitted without a context")
    try:
        return _array(read(path, columns=names, key=key).arrays())
    except ColumnError as error:
        try:
            context = read(path, context=names, key=key).arrays().context
        except ColumnError:
            context = _by_position(path, key, len(names), error).arrays()
        assert context is not None
        return _array(context)


def _by_position(path: Path, key: Keys, width: int, error: ColumnError, **options: Any) -> Dataset:
    data = read(path, key=key, **options)
    if len(data.names) != width or not all(re.search(r"\d$", name) for name in data.names):
        raise error
    logger.warning("%s: the columns are numbered, not named as the model's; taken in their order", path)
    return data


def _names(spec: EventSpec) -> list[str]:
    return [name for form in spec.values() for name in form.names]


def _array(events: Events) -> Any:
    return np.asarray(events.x, dtype=np.float64)


# ---------------------------------------------------------------------- scores


def score(model: Model, data: Dataset, out: Path | None) -> str:
    """Score all events, write one number each, and say their mean with its standard error."""
    parts = [(_log_prob(model, events), events.weight) for events in data.chunks(1 << 16)]
    values = np.concatenate([value for value, _ in parts]) if parts else np.zeros(0)
    weight = (
        np.concatenate([np.ones(len(v)) if w is None else np.asarray(w, dtype=np.float64) for v, w in parts])
        if parts
        else values
    )
    if out is not None:
        write(out, {"log_prob": values})
    inside = np.isfinite(values)
    lost = len(values) - int(inside.sum())
    note = f"; {lost} events outside the declared ranges have log p = -inf and are left out of the mean" if lost else ""
    return f"mean log p = {_mean(values[inside], weight[inside])} nats per event ({len(values)} events{note})"


def _log_prob(model: Model, events: Events) -> Any:
    x = events.x if len(events.fields) == 1 else dict(events.fields)
    return model.log_prob(x, None if events.context is None else events.context.x)


def _mean(values: Any, weight: Any) -> str:
    total = float(weight.sum())
    if total == 0.0:
        return "undefined"
    mean = float((weight * values).sum()) / total
    error = float(np.sqrt((weight**2 * (values - mean) ** 2).sum())) / abs(total)
    return f"{mean:.6g} +- {error:.2g}"


# ---------------------------------------------------------------------- cards and families


def card_text(card: Mapping[str, Any], path: Path) -> str:
    """A card for people; ArtefactError if somebody wrote something else into it."""
    try:
        return _card_text(card, path)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: the card is not one of pofx: {type(error).__name__}: {error}") from error


def _card_text(card: Mapping[str, Any], path: Path) -> str:
    rows = {
        "family": f"{card.get('family')} {_plain(card.get('config', {}))}",
        "saved by": f"pofx {card.get('pofx')} on {card.get('created')} (format {card.get('format')})",
        "parameters": f"{card.get('parameters')} in {card.get('precision')}",
        "weights sha256": card.get("sha256"),
        "data": _plain(card.get("data") or {}),
        "training": _training(card.get("training") or {}),
        "licence": card.get("licence"),
        "citation": card.get("citation"),
    }
    lines = [
        f"{path}: model of pofx",
        *(f"  {name:<15} {value}" for name, value in rows.items() if value),
        *_metrics(card.get("metrics") or {}),
    ]
    for role, spec, ranges in (("x", card.get("spec"), "x"), ("context", card.get("context"), "context")):
        for name, form in (spec or {}).items():
            lines += ["", f"  {role} {name!r}: {form['kind']} {tuple(form['shape'])}"]
            lines += _columns(
                form["columns"], (card.get("ranges") or {}).get(f"{ranges}:{name}"), _steps(card, role, name)
            )
    return "\n".join(lines)


def _plain(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items() if key != "type")


def _training(record: Mapping[str, Any]) -> str:
    if not record:
        return ""
    ended = f"stopped by {record.get('stopped_by')}, seed {record.get('seed')}"
    return f"{record.get('steps')} steps, {record.get('seconds', 0.0):.1f} s, {ended}"


def _metrics(metrics: Mapping[str, Any]) -> list[str]:
    found = metrics.get("nll") or {}
    return [
        f"  {f'-log p, {name}':<15} {m['value']:.6g} +- {m['error']:.2g} ({m['events']} events)"
        for name, m in found.items()
    ]


def _steps(card: Mapping[str, Any], role: str, name: str) -> Sequence[str]:
    return (card.get("coordinates") or {}).get("events" if role == "x" else "context", {}).get(name, [])


def _columns(columns: Sequence[Mapping[str, Any]], known: Mapping[str, Any] | None, steps: Sequence[str]) -> list[str]:
    rows = [["column", "unit", "type", "trained from", "to", "latent"]]
    for i, column in enumerate(columns):
        ends = ["", ""] if known is None else [f"{known[end][i]:.6g}" for end in ("low", "high")]
        rows.append([column["name"], column["unit"], column["type"], *ends, steps[i] if i < len(steps) else ""])
    return list(_aligned(rows))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
