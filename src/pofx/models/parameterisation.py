r"""The impact of parameterisation: one family learnt in several coordinates, compared by likelihood in the user's own.

A model of y = f(x) is a density of x,

.. math:: \log p(x) = \log p_f(f(x)) + \sum_i \log |f_i'(x_i)| ,

so that held-out log-likelihoods of all coordinates are in nats of the same measure, and their differences on the same events have a paired
error (:mod:`pofx.models.folds`). The coordinates, column by column, with the median m and the standard deviation s of the training events:

============== ======================================================================
``"x"``        x itself
``"log"``      log x, for positive columns
``"exp"``      exp(-(x - m) / s), which opens up the lower end and compresses the upper tail
``"rank"``     the normal number of the same rank (``preprocess="gaussianise"``)
============== ======================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.classifiers.base import as_rows, as_weight
from pofx.data import Dataset
from pofx.errors import ConfigError, DataError, PofxError
from pofx.models.base import Family
from pofx.models.folds import Gain, Split, average, paired, splits_of
from pofx.training.settings import Training

__all__ = ["COORDINATES", "Coordinate", "Parameterisation", "compare_coordinates"]

Floats = NDArray[np.float64]

COORDINATES = ("x", "log", "exp", "rank")


@dataclass(frozen=True)
class Coordinate:
    """What was found in one coordinate.

    Attributes
    ----------
    name : out of :data:`COORDINATES`.
    nll, error : mean negative log-density of held-out events, nats per event in the user's units, and its error.
    gain : mean paired difference of log-densities to the first coordinate, with its error; None where there is nothing to compare.
    refused : why the family could not be fitted in it, or None.
    """

    name: str
    nll: float | None = None
    error: float | None = None
    gain: Gain | None = None
    refused: str | None = None

    def __str__(self) -> str:
        if self.nll is None or self.gain is None:
            return f"{self.name}: {self.refused}"
        return f"{self.name}: -log p {self.nll:.3f} ± {self.error:.3f}, gain {self.gain.value:+.3f} ± {self.gain.error:.3f} nats"


@dataclass(frozen=True)
class Parameterisation:
    """The result of :func:`compare_coordinates`: all coordinates, and the recommended one.

    That is the first, unless another is better by more than two paired errors; of several, the best.
    """

    coordinates: tuple[Coordinate, ...]
    recommended: str

    def __str__(self) -> str:
        return "\n".join(f"{'*' if one.name == self.recommended else ' '} {one}" for one in self.coordinates)


def compare_coordinates(
    data: ArrayLike,
    family: Family,
    *,
    coordinates: Sequence[str] = COORDINATES,
    folds: int = 5,
    weight: ArrayLike | None = None,
    training: Training | None = None,
    seed: int = 0,
) -> Parameterisation:
    """Fit the family in each coordinate and compare by cross-validation.

    Parameters
    ----------
    data : ``(n, d)``, in the user's coordinates.
    family : with a density; its ``preprocess`` becomes ``"whiten"`` of each coordinate (``"gaussianise"`` for ``"rank"``).
    coordinates : names out of :data:`COORDINATES`; the first is what the others are compared to.
    folds : of the cross-validation.
    weight : ``(n,)``.
    training : how to train.
    seed : of the folds and of training.

    Raises
    ------
    ConfigError : unknown coordinates. DataError : the family could be fitted in none.

    >>> import pofx
    >>> x = np.random.default_rng(1).lognormal(size=(300, 1))
    >>> compare_coordinates(x, pofx.Gaussian(), coordinates=("x", "log")).recommended
    'log'
    """
    if not coordinates or not set(coordinates) <= set(COORDINATES):
        raise ConfigError(f"coordinates: expected names out of {', '.join(COORDINATES)}; got {tuple(coordinates)}")
    x = as_rows(data, "data")
    numbered = Dataset.from_arrays(np.arange(float(len(x))), weight=as_weight(weight, len(x), "weight"))
    splits = splits_of(numbered, folds, seed)
    settings = (training or Training()).replace(seed=seed)
    found: dict[str, list[Floats]] = {}
    refused: dict[str, str] = {}
    for name in coordinates:
        try:
            found[name] = [_held_out(x, split, name, family, settings) for split in splits]
        except PofxError as error:
            refused[name] = f"{type(error).__name__}: {error}"
    if not found:
        raise DataError("; ".join(f"{name}: {why}" for name, why in refused.items()))
    reference = next(iter(found))
    rows = tuple(_coordinate(name, found, reference, splits, refused.get(name)) for name in coordinates)
    return Parameterisation(rows, _recommended(rows, reference))


def _coordinate(
    name: str, found: dict[str, list[Floats]], reference: str, splits: Sequence[Split], refused: str | None
) -> Coordinate:
    if name not in found:
        return Coordinate(name, refused=refused)
    level = average(found[name], splits)
    return Coordinate(name, -level.value, level.error, paired(found[name], found[reference], splits))


def _recommended(rows: Sequence[Coordinate], reference: str) -> str:
    better = [
        (one.gain.value, one.name) for one in rows if one.gain is not None and one.gain.value > 2.0 * one.gain.error
    ]
    return max(better)[1] if better else reference


def _held_out(x: Floats, split: Split, name: str, family: Family, training: Training) -> Floats:
    """log p of the held-out events in the user's coordinates."""
    inside, outside = split.training(0.0).train.arrays(), split.held.arrays()
    rows, held = (np.asarray(part.x)[:, 0].astype(int) for part in (inside, outside))
    change = _Change(name, x[rows])
    y = change(x[rows])[0]
    learner: Any = replace(family, preprocess="gaussianise" if name == "rank" else "whiten")
    model = learner.fit(y, weight=inside.weight, training=training)
    place, log_jacobian = change(x[held])
    return np.asarray(model.log_prob(place)) + log_jacobian


class _Change:
    """y and the summed log|dy/dx| of one coordinate; where it has no value, DataError."""

    def __init__(self, name: str, x: Floats) -> None:
        self.name, self.middle, self.scale = name, np.median(x, axis=0), np.where(x.std(0) > 0, x.std(0), 1.0)

    def __call__(self, x: Floats) -> tuple[Floats, Floats]:
        if self.name == "log":
            if (x <= 0).any():
                raise DataError(
                    f"log: expected positive columns; column {int((x <= 0).any(0).argmax())} has other values"
                )
            return np.log(x), -np.log(x).sum(1)
        if self.name == "exp":
            z = (x - self.middle) / self.scale
            return np.exp(-z), -(z + np.log(self.scale)).sum(1)
        return x, np.zeros(len(x))
