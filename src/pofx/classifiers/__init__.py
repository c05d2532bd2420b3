"""Classifiers as estimators of density ratios: a network in the one training loop, and boosted trees.

- :mod:`~pofx.classifiers.base`: the contract;    - :mod:`~pofx.classifiers.clouds`: :class:`CloudClassifier`;
- :mod:`~pofx.classifiers.network`: :class:`NetworkClassifier`;     - :mod:`~pofx.classifiers.trees`: :class:`TreeClassifier`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pofx.classifiers.base import Classifier, FittedClassifier, balanced_weights
from pofx.errors import ConfigError

if TYPE_CHECKING:
    from pofx.classifiers.clouds import CloudClassifier
    from pofx.classifiers.network import NetworkClassifier
    from pofx.classifiers.trees import TreeClassifier

_HOMES = {"CloudClassifier": "clouds", "NetworkClassifier": "network", "TreeClassifier": "trees"}
_NAMES = {"network": "NetworkClassifier", "trees": "TreeClassifier"}

__all__ = [
    "Classifier",
    "CloudClassifier",
    "FittedClassifier",
    "NetworkClassifier",
    "TreeClassifier",
    "balanced_weights",
    "classifier",
]


def classifier(chosen: str | Classifier) -> Classifier:
    """A config by name (``"network"`` or ``"trees"``, with default settings), or the config itself.

    >>> classifier("trees").name
    'trees'
    """
    if isinstance(chosen, str) and chosen in _NAMES:
        made: Classifier = __getattr__(_NAMES[chosen])()
        return made
    if isinstance(chosen, (str, type)) or not callable(getattr(chosen, "fit", None)):
        names = ", ".join(map(repr, _NAMES))
        raise ConfigError(f"expected a classifier out of {names}, or a config such as TreeClassifier(); got {chosen!r}")
    return chosen


def __getattr__(name: str) -> Any:
    """Import on first use: the contract does not need torch."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
