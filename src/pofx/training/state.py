"""One training state in one file: tensors as safetensors, everything else as JSON in its header; written atomically, never pickled.

A new state goes to a temporary file, is flushed to the disk, and then takes the old one's name in a single rename, so that at every
moment there is a whole state under ``path`` (and the one before it under ``path + ".previous"``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pofx.errors import TrainingError

__all__ = ["clone", "differences", "find_state", "read_state", "tensors_in", "write_state"]

FORMAT = 1
_KEY = "pofx-training"

Tree = Any
"""Nested dicts, lists and tuples of tensors and JSON-able values."""


def write_state(path: Path, state: Tree) -> None:
    """Replace the state at ``path``; the old one stays beside it as ``.previous``."""
    tensors: dict[str, Tensor] = {}
    header = json.dumps({"format": FORMAT, "state": _pack(state, "state", tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".tmp")
    save_file(tensors, fresh, metadata={_KEY: header})
    _flush(fresh)
    if path.exists():
        _keep(path)
    fresh.replace(path)
    _flush(path.parent)


def find_state(path: Path) -> Tree | None:
    """The state at ``path``, or the previous one where that is damaged; None where there is neither."""
    candidates = [p for p in (path, _previous(path)) if p.exists()]
    for number, candidate in enumerate(candidates):
        try:
            return read_state(candidate)
        except TrainingError:
            if number == len(candidates) - 1:
                raise
    return None


def read_state(path: Path) -> Tree:
    """The state in a file that :func:`write_state` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        content = json.loads(header or "null")
    except (SafetensorError, OSError, ValueError) as error:
        raise TrainingError(f"{path} is no training state, or is damaged: {error}") from error
    if content is None or content.get("format") != FORMAT:
        raise TrainingError(
            f"{path}: expected a training state of format {FORMAT}; got {content and content.get('format')}"
        )
    return _unpack(content["state"], tensors)


def clone(tree: Tree) -> Tree:
    """The same tree with copies of its tensors."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: clone(value) for key, value in tree.items()}
    return type(tree)(map(clone, tree)) if isinstance(tree, list | tuple) else tree


def tensors_in(tree: Tree) -> Iterator[Tensor]:
    """All tensors of a tree."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_in(value)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What differs between two nested dicts, one line each."""
    for key in [*saved, *(key for key in now if key not in saved)]:
        name, old, new = f"{where}{key}", saved.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{name}.")
        elif old != new:
            yield f"{name}: the checkpoint has {old!r}, this training {new!r}"


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _keep(path: Path) -> None:
    """Give the old state its second name without taking away the first."""
    link = path.with_name(path.name + ".link")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        return
    link.replace(_previous(path))


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(tree: Tree, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON-able image of a tree; tensors go aside under the path where they stood."""
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, Tensor):
        while path in tensors:
            path += "'"
        tensors[path] = tree.detach().to("cpu", copy=True).contiguous()
        return {"tensor": path, "shape": list(tree.shape)}
    if isinstance(tree, Mapping):
        items = [
            [_pack(key, f"{path}.key", tensors), _pack(value, f"{path}.{key}", tensors)] for key, value in tree.items()
        ]
        return {"dict": items}
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_pack(value, f"{path}.{number}", tensors) for number, value in enumerate(tree)]}
    if isinstance(tree, np.generic):
        return _pack(tree.item(), path, tensors)
    if isinstance(tree, np.ndarray):
        return {"array": _pack(torch.from_numpy(np.ascontiguousarray(tree)), path, tensors)}
    raise TrainingError(
        f"{path}: a training state holds tensors, arrays and JSON values; got {type(tree).__name__}, which takes pickle"
    )


def _unpack(image: Any, tensors: Mapping[str, Tensor]) -> Tree:
    if not isinstance(image, dict):
        return image
    (kind, content), *_ = image.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpack(key, tensors): _unpack(value, tensors) for key, value in content}
    if kind == "array":
        return _unpack(content, tensors).numpy()
    items = [_unpack(value, tensors) for value in content]
    return items if kind == "list" else tuple(items)
