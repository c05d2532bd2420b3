"""Some weights of a module as one flat vector, and a module that computes with other weights for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from pofx.errors import CapabilityError, ConfigError
from pofx.networks.masked import MaskedLinear

__all__ = ["LINEAR", "Weights", "last_layer", "matching", "swapped"]

LINEAR = (nn.Linear, MaskedLinear)


class Weights:
    """The trainable parameters of a module whose names match patterns: their names and shapes, not their values.

    Parameters
    ----------
    module : where they are.
    patterns : globs over ``module.named_parameters()``.

    >>> Weights(nn.Linear(2, 3), ("b*",)).names
    ('bias',)
    """

    def __init__(self, module: nn.Module, patterns: Sequence[str] = ("*",)) -> None:
        shapes = {name: p.shape for name, p in module.named_parameters() if p.requires_grad}
        if not shapes:
            raise CapabilityError(
                "a distribution over weights needs trainable weights, and this family has none; use Ensemble(family, bootstrap=True)"
            )
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in shapes):
                some = ", ".join(list(shapes)[:8])
                raise ConfigError(f"layers: the pattern {pattern!r} matches no trainable weight; there are {some}")
        self.shapes = {name: shape for name, shape in shapes.items() if any(fnmatchcase(name, p) for p in patterns)}

    @property
    def names(self) -> tuple[str, ...]:
        """In the module's order."""
        return tuple(self.shapes)

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return sum(prod(shape) for shape in self.shapes.values())

    def flat(self, module: nn.Module) -> Tensor:
        """Their values in a module, ``(size,)``."""
        return self.join({name: module.get_parameter(name).detach() for name in self.shapes})

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named tensors as one vector ``(size,)``."""
        return torch.cat([tensors[name].reshape(-1) for name in self.shapes])

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """One vector ``(size,)`` as named tensors (views)."""
        pieces = flat.split([prod(shape) for shape in self.shapes.values()])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    @torch.no_grad()
    def put(self, flat: Tensor, module: nn.Module) -> None:
        """Write the values into a module."""
        for name, tensor in self.split(flat).items():
            module.get_parameter(name).copy_(tensor)


@contextmanager
def swapped(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """The module, computing with these tensors in place of the parameters and buffers of these names, wherever those are shared.

    Derivatives go through to the tensors.

    >>> layer = nn.Linear(1, 1)
    >>> with swapped(layer, {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([1.0])}):
    ...     float(layer(torch.tensor([[3.0]])))
    7.0
    """
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    new = {id(own[name]): tensor for name, tensor in tensors.items()}
    places: list[tuple[dict[str, Any], str, Tensor]] = [
        (held, name, tensor)
        for owner in module.modules()
        for held in cast("tuple[dict[str, Any], ...]", (owner._parameters, owner._buffers))
        for name, tensor in held.items()
        if id(tensor) in new
    ]
    try:
        for held, name, tensor in places:
            held[name] = new[id(tensor)]
        yield module
    finally:
        for held, name, tensor in places:
            held[name] = tensor


def matching(names: Sequence[str], patterns: Sequence[str], owner: str) -> tuple[str, ...]:
    """The names that match any of the patterns; ConfigError if there is none."""
    found = tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
    if not found:
        raise ConfigError(
            f"{owner}: of the weights chosen by layers=, none is moved by the update of {', '.join(patterns)}"
        )
    return found


def last_layer(module: nn.Module) -> tuple[str, ...]:
    """Patterns of the weight and bias of the last linear layer, in the order of the module."""
    names = [name for name, part in module.named_modules() if isinstance(part, LINEAR)]
    if not names:
        raise CapabilityError(
            "this family has no linear layer whose weights could vary; name some by layers=, or use Ensemble"
        )
    return tuple(f"{names[-1]}.{name}" for name, _ in module.get_submodule(names[-1]).named_parameters(recurse=False))
