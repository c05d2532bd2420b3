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
    widths: ArrayLike | None = None,
    training: Training | None = None,
    cache: str | Path | None = None,
) -> tuple[Model, Universes]:
    """The density of a subset, or of a shape, and the universes that it was fitted to.

    Parameters
    ----------
    family : what learns; or a function from a data set to a model (a choice among families, for example). A function of a module is known
        by its name there, and not called again for the same universes; any other callable is called each time.
    bins, shape_only, widths : see :func:`chosen`.
    training : how a family is trained.
    cache : folder for fitted models; a model of the same universes, bins, family and training is loaded from there.

    >>> import numpy as np, pofx
    >>> universes = Universes(np.random.default_rng(1).normal(1.0, 0.1, (500, 3)))
    >>> model, some = refit(universes, pofx.Gaussian(), bins=[0, 2])
    >>> model is refit(universes, pofx.Gaussian(), bins=[0, 2])[0], some.names
    (True, ('bin0', 'bin2'))
    """
    part = chosen(universes, bins, shape_only, widths)
    name = _name(family)
    if name is None:
        return _fit(part, family, training), part
    key = _key(part, name, training)
    path = None if cache is None else Path(cache) / f"{key}.pofx"
    if key not in _KEPT:
        _KEPT[key] = load(path) if path is not None and path.exists() else _fit(part, family, training)
    if path is not None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _KEPT[key].save(path)
    return _KEPT[key], part


def _fit(part: Universes, family: Any, training: Training | None) -> Model:
    data = part.dataset()
    model: Model = family(data) if callable(family) else family.fit(data, training=training)
    return model


def _name(family: Any) -> Any:
    """What a family or function is known by; None for what has no name of its own (lambdas, closures, partial applications)."""
    if not callable(family):
        return to_plain(family)
    name = getattr(family, "__qualname__", "<")
    return None if "<" in name or hasattr(family, "__self__") else f"{family.__module__}:{name}"


def _key(part: Universes, name: Any, training: Training | None) -> str:
    settings = None if training is None else training.to_dict()
    text = json.dumps([part.fingerprint, list(part.names), name, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
