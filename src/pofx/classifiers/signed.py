"""Labelled events as a source for the training loop; negative weights are replaced by positive ones first.

Trees and cross-entropies need positive weights. E[w | x, label] has the same expectation with every function of x as the weights
themselves (:mod:`pofx.training.resampling`, arXiv:2007.11586), so the best classifier stays the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pofx.classifiers.base import Labelled, centre_scale
from pofx.data.events import Events
from pofx.training.noise import Noise, derive_seed
from pofx.training.resampling import learn_positive_weights
from pofx.training.settings import Training
from pofx.training.sources import DatasetSource, MemoryPart

__all__ = ["held_out", "labelled_source", "positive_weights"]

Marks = NDArray[np.bool_]


def positive_weights(events: Labelled, seed: int) -> Labelled:
    """The same events; if any weight is negative, each is replaced by max(E[w | x, label], 0), the sum of every label kept."""
    if (events.weight >= 0).all():
        return events
    order = np.random.default_rng(derive_seed(seed, "signed")).permutation(len(events.label))
    centre, scale = centre_scale(events.x, np.abs(events.weight))
    mixed = Labelled(((events.x - centre) / scale)[order], events.label[order], events.weight[order])
    hold = held_out(mixed, 0.1, derive_seed(seed, "signed", "validation"))
    source = labelled_source(mixed, hold, seed=seed)
    learnt = learn_positive_weights(source, Training(seed=seed, progress=False, device="cpu"))
    weight = np.empty(len(order))
    for rows, pieces in ((order[~hold], learnt.sweep()), (order[hold], learnt.validation())):
        weight[rows] = np.concatenate([np.asarray(piece.weight, dtype=np.float64) for piece in pieces])
    for marks in (events.label, ~events.label):
        weight[marks] *= events.weight[marks].sum() / weight[marks].sum()
    return events._replace(weight=weight)


def held_out(events: Labelled, share: float, seed: int) -> Marks:
    """Which events are for validation, ``(n,)``: this share of each label, but at least one event of it, and never all."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(events.label), dtype=bool)
    for rows in (np.flatnonzero(events.label), np.flatnonzero(~events.label)):
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        chosen[rng.permutation(rows)[:count]] = True
    return chosen


def labelled_source(
    events: Labelled,
    hold: Marks,
    *,
    batch_size: int | Literal["auto"] = "auto",
    seed: int,
) -> DatasetSource:
    """Fields ``"x"`` and ``"label"`` (``(n, 1)``); the events of ``hold`` are for validation."""
    train, val = (_part(events, rows) for rows in (~hold, hold))
    return DatasetSource(train, val, _tensors, batch_size=batch_size, seed=seed)


def _part(events: Labelled, rows: Marks) -> MemoryPart:
    fields = {"x": events.x[rows], "label": events.label[rows, None].astype(np.float64)}
    return MemoryPart(Events(fields, weight=events.weight[rows]))


def _tensors(events: Events, _noise: Noise) -> Events:
    return Events({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in events.fields.items()})
