"""The one training loop: what to learn comes as phases of updates, events come from a source, settings from :class:`Training`.

- :mod:`~pofx.training.contract`: :class:`Phase`, :class:`Update`, :class:`Loss`, :class:`Source`;
- :mod:`~pofx.training.settings`: :class:`Training`;     - :mod:`~pofx.training.sources`: data sets, teachers, integrands;
- :mod:`~pofx.training.loop`: :func:`train`;             - :mod:`~pofx.training.cost`: :func:`estimate_cost`;
- :mod:`~pofx.training.resampling`: negative weights;    - :mod:`~pofx.training.team`: several processes, by ``torchrun``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pofx.training.contract import Loss, Phase, Source, Update
    from pofx.training.cost import estimate_cost
    from pofx.training.loop import train
    from pofx.training.noise import Noise, derive_seed
    from pofx.training.record import Cost, Epoch, Record
    from pofx.training.settings import Training
    from pofx.training.sources import DatasetSource, FunctionSource, TeacherSource

_HOMES = {
    "contract": ("Loss", "Phase", "Source", "Update"),
    "cost": ("estimate_cost",),
    "loop": ("train",),
    "noise": ("Noise", "derive_seed"),
    "record": ("Cost", "Epoch", "Record"),
    "settings": ("Training",),
    "sources": ("DatasetSource", "FunctionSource", "TeacherSource"),
}

__all__ = [
    "Cost",
    "DatasetSource",
    "Epoch",
    "FunctionSource",
    "Loss",
    "Noise",
    "Phase",
    "Record",
    "Source",
    "TeacherSource",
    "Training",
    "Update",
    "derive_seed",
    "estimate_cost",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import on first use: settings do not need torch."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
