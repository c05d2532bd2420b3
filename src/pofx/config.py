"""Frozen dataclasses to plain JSON and back: how families, networks and settings are written into a saved model.

A nested dataclass becomes ``{"type": "package.module:Class", ...fields}``. Reading one back imports that module, so only classes
below ``pofx.`` and those registered by the user's own code are accepted: a model file can never name something else to import.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pofx.errors import ConfigError
from pofx.registry import registered_modules

__all__ = ["check_at_least", "check_between", "check_choice", "check_widths", "from_plain", "to_plain"]


def to_plain(value: Any) -> Any:
    """Dictionaries, lists, strings and numbers that say the same as ``value``."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        return {
            "type": f"{kind.__module__}:{kind.__qualname__}",
            **{f.name: to_plain(getattr(value, f.name)) for f in fields(value) if f.init},
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(
        f"expected a configuration of dataclasses, numbers and strings; got {type(value).__name__}: {value!r}"
    )


def from_plain(plain: Any) -> Any:
    """The inverse of :func:`to_plain`; lists become tuples."""
    if isinstance(plain, Mapping):
        values = {key: from_plain(item) for key, item in plain.items() if key != "type"}
        return _class(plain["type"])(**values) if "type" in plain else values
    if isinstance(plain, list):
        return tuple(from_plain(item) for item in plain)
    return plain


def _class(path: str) -> Any:
    module, _, name = path.partition(":")
    if module.partition(".")[0] != "pofx" and module not in registered_modules():
        raise ConfigError(
            f"refusing to import {path!r}: not part of pofx and not registered with pofx.registry.register"
        )
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ConfigError(f"expected the name of a configuration class; got {path!r}")
    return found


def check_at_least(owner: object, least: float, *names: str) -> None:
    """Raise ConfigError unless each named attribute is a number and at least ``least``."""
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
            raise ConfigError(f"{type(owner).__name__}: {name} must be a number of at least {least}; got {value!r}")


def check_between(owner: object, low: float, high: float, *names: str) -> None:
    """Raise ConfigError unless each named attribute is a number in [low, high]."""
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ConfigError(
                f"{type(owner).__name__}: {name} must be a number between {low} and {high}; got {value!r}"
            )


def check_widths(owner: object, name: str) -> None:
    """Raise ConfigError unless the named attribute is a non-empty tuple of integers of at least 1."""
    value: Any = getattr(owner, name)
    if not isinstance(value, tuple) or not value or any(type(width) is not int or width < 1 for width in value):
        raise ConfigError(
            f"{type(owner).__name__}: {name} must be widths of at least 1, e.g. (128, 128); got {value!r}"
        )


def check_choice(owner: object, name: str, choices: tuple[Any, ...]) -> None:
    """Raise ConfigError unless the named attribute is one of the choices."""
    value = getattr(owner, name)
    if value not in choices:
        raise ConfigError(
            f"{type(owner).__name__}: {name} must be one of {', '.join(map(repr, choices))}; got {value!r}"
        )
