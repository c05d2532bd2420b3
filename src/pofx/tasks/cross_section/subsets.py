"""Densities of some of the bins, or of shapes alone: refitted on the chosen (or normalised) bins, and kept.

The density of a subset is an integral over the other bins, and that of a shape is one over the normalisation; neither has a closed form
for a flow, so the same family learns again from the chosen columns. Fits are kept in memory, and in a folder if one is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from pofx.artefact import load
from pofx.config import to_plain
from pofx.data import Dataset
from pofx.tasks.cross_section.universes import Universes
from pofx.training.settings import Training

if TYPE_CHECKING:
    from pofx.models.base import Family
    from pofx.models.model import Model

__all__ = ["chosen", "refit"]

_KEPT: dict[str, Any] = {}


def chosen(
    universes: Universes, bins: Sequence[int] | None = None, shape_only: bool = False, widths: ArrayLike | None = None
) -> Universes:
    """The universes of some of the bins, then of their shape."""
    found = universes if bins is None else universes.select(bins)
    return found.shape_only(widths) if shape_only else found


def refit(
    universes: Universes,
    family: Family | Callable[[Dataset], Model],
    *,
    bins: Sequence[int] | None = None,
    shape_only: bool = False,
    training: Training | None = None,
    cache: str | Path | None = None,
) -> tuple[Model, Universes]:
    """The density of a subset, or of a shape, and the universes that it was fitted to.

    Parameters
    ----------
    family : what learns; or a function from a data set to a model (a choice among families, for example), which is called each time
        the universes are new to this process and to the folder.
    bins, shape_only : see :func:`chosen`.
    training : how a family is trained.
    cache : folder for fitted models; a model of the same universes, bins, family and training is loaded from there.

    >>> import numpy as np, pofx
    >>> universes = Universes(np.random.default_rng(1).normal(1.0, 0.1, (500, 3)))
    >>> model, some = refit(universes, pofx.Gaussian(), bins=[0, 2])
    >>> model is refit(universes, pofx.Gaussian(), bins=[0, 2])[0], some.names
    (True, ('bin0', 'bin2'))
    """
    part = chosen(universes, bins, shape_only)
    key = _key(part, family, training)
    if key in _KEPT:
        return _KEPT[key], part
    path = None if cache is None else Path(cache) / f"{key}.pofx"
    if path is not None and path.exists():
        model = load(path)
    else:
        data = part.dataset()
        model = family(data) if callable(family) else family.fit(data, training=training)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save(path)
    _KEPT[key] = model
    return model, part


def _key(part: Universes, family: Any, training: Training | None) -> str:
    name = getattr(family, "__qualname__", repr(family)) if callable(family) else to_plain(family)
    settings = None if training is None else training.to_dict()
    text = json.dumps([part.fingerprint, list(part.names), name, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
