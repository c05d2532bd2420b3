"""A small data set of every public format, made here: what its files hold, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One format.

    Attributes
    ----------
    name : of the format; suffix : of its files.
    make : n and a random generator to the arrays of a file, as its authors store them.
    fields, context : shapes of an event's fields and of its context's.
    energies : arrays that must not be negative.
    """

    name: str
    suffix: str
    make: Callable[[int, np.random.Generator], Arrays]
    fields: dict[str, tuple[int, ...]]
    context: dict[str, tuple[int, ...]]
    energies: tuple[str, ...] = ()


def calogan(n: int, rng: np.random.Generator) -> Arrays:
    shapes = {"layer_0": (3, 96), "layer_1": (12, 12), "layer_2": (12, 6)}
    layers = {name: rng.exponential(10.0, (n, *shape)).astype(np.float32) for name, shape in shapes.items()}
    energy = rng.uniform(1, 100, (n, 1)).astype(np.float32)
    return {**layers, "energy": energy, "overflow": np.zeros((n, 3), np.float32)}


CASES = {
    case.name: case
    for case in (
        Case(
            "calogan",
            ".h5",
            calogan,
            {"layer_0": (1, 3, 96), "layer_1": (1, 12, 12), "layer_2": (1, 12, 6)},
            {"energy": (1,)},
            energies=("layer_0", "layer_1", "layer_2"),
        ),
    )
}
