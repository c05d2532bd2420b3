"""One module per file format, each with ``open_store(path, request)``, ``inspect(path)`` and ``write(path, data, layout, compress)``.

Their libraries are imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["module_for"]


def module_for(name: str) -> ModuleType:
    """The module of a format, by the name that :data:`pofx.data.files.FORMATS` gives it."""
    return import_module(f"pofx.data.formats.{name}")
