"""Truths beside a model's own draws: what every test of calibration starts from, as arrays or out of a fitted conditional model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pofx.classifiers.base import as_weight
from pofx.data.numbers import as_floats, as_numpy
from pofx.errors import CapabilityError, ConfigError, DataError, NonFiniteError, RangeWarning, ShapeError
from pofx.metrics.calibration_bands import Floats

if TYPE_CHECKING:
    from pofx.models.model import Model

__all__ = ["CHUNK", "PosteriorDraws", "posterior_draws"]

CHUNK = 100_000
"""Draws that are made at once; what is drawn does not depend on it."""


@dataclass(frozen=True)
class PosteriorDraws:
    """n truths, and k draws of a model for each.

    Parameters
    ----------
    truth : ``(n, d)``; ``(n,)`` for a single quantity.
    draws : ``(n, k, d)``, or ``(n, k)``.
    log_truth, log_draws : the model's log-densities of the truths ``(n,)`` and of the draws ``(n, k)``; for the coverage of
        highest-density regions.
    weight : ``(n,)``, of the truths.
    names : of the d quantities.

    >>> rng = np.random.default_rng(1)
    >>> found = PosteriorDraws(rng.normal(size=10), rng.normal(size=(10, 5)))
    >>> found.truth.shape, found.draws.shape, found.names
    ((10, 1), (10, 5, 1), ('x1',))
    """

    truth: Floats
    draws: Floats
    log_truth: Floats | None = None
    log_draws: Floats | None = None
    weight: Floats | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        truth, draws = _numbers(self.truth, "truth"), _numbers(self.draws, "draws")
        truth = truth[:, None] if truth.ndim == 1 else truth
        draws = draws[..., None] if draws.ndim == 2 else draws
        n, d = truth.shape if truth.ndim == 2 else (-1, -1)
        if draws.ndim != 3 or not n or draws.shape[::2] != (n, d) or not draws.shape[1]:
            raise ShapeError(
                f"expected truth (n, d) and draws (n, k, d); got {self.truth.shape} and {self.draws.shape}"
            )
        names = tuple(self.names) or tuple(f"x{i + 1}" for i in range(d))
        if len(names) != d:
            raise ShapeError(f"names: expected {d}; got {len(names)}")
        known = [self.log_truth is None, self.log_draws is None]
        if known[0] != known[1]:
            raise DataError("expected log-densities of the truths and of the draws, or of neither; got one of them")
        found: dict[str, Any] = {"truth": truth, "draws": draws, "names": names}
        if not known[0]:
            found["log_truth"] = _log_densities(self.log_truth, "log_truth", (n,))
            found["log_draws"] = _log_densities(self.log_draws, "log_draws", draws.shape[:2])
        if self.weight is not None:
            found["weight"] = as_weight(self.weight, n, "weight")
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.truth)


def _numbers(values: ArrayLike, where: str) -> Floats:
    found = as_floats(as_numpy(values), where, np.float64)
    if not np.isfinite(found).all():
        raise NonFiniteError(f"{where}: event {np.argwhere(~np.isfinite(found))[0][0]} is not finite")
    return found


def _log_densities(values: Any, where: str, shape: tuple[int, ...]) -> Floats:
    """-inf is a density of zero."""
    found = as_floats(as_numpy(values), where, np.float64)
    if found.shape != shape:
        raise ShapeError(f"{where}: expected shape {shape}; got {found.shape}")
    if np.isnan(found).any():
        raise NonFiniteError(f"{where}: event {np.argwhere(np.isnan(found))[0][0]} is NaN")
    return found


def posterior_draws(
    model: Model, data: Any, *, draws: int = 200, seed: int = 0, density: bool | None = None
) -> PosteriorDraws:
    """The events of a test data set beside draws of the model for the same contexts.

    Parameters
    ----------
    model : with events of one vector field; without a context, all events face draws of one law.
    data : :class:`pofx.Dataset` (or what ``fit`` takes), with the model's columns, its context and, if any, weights.
    draws : per event.
    density : also take log-densities; None where the model has an exact or estimated one.

    >>> import pofx
    >>> rng = np.random.default_rng(1)
    >>> c = rng.normal(size=(500, 1))
    >>> data = pofx.Dataset.from_arrays(c + rng.normal(size=(500, 1)), context=c)
    >>> posterior_draws(pofx.Gaussian().fit(data), data, draws=10).draws.shape
    (500, 10, 1)
    """
    from pofx.data.dataset import as_dataset

    if draws < 1:
        raise ConfigError(f"draws: expected at least 1 per event; got {draws}")
    only = model.layout.only if len(model.layout.spec) == 1 else ""
    if not only or model.layout.spec[only].kind != "vector":
        raise CapabilityError(f"expected events of one vector field; got {', '.join(model.layout.spec)}")
    events = as_dataset(data, trainable=False).arrays()
    context = events.context if model.layout.context else None
    truth = np.asarray(events.fields[only], dtype=np.float64)
    found = _sampled(model, context, len(truth), draws, seed)
    wanted = model.density in ("exact", "estimate") if density is None else density
    with warnings.catch_warnings():  # draws may well lie outside the range of the training events
        warnings.simplefilter("ignore", RangeWarning)
        log_truth, log_draws = _logged(model, truth, found, context) if wanted else (None, None)
    names = tuple(column.name for column in model.layout.spec[only].columns)
    return PosteriorDraws(truth, found, log_truth, log_draws, events.weight, names)


def _steps(n: int, draws: int) -> list[slice]:
    rows = max(1, CHUNK // draws)
    return [slice(first, min(first + rows, n)) for first in range(0, n, rows)]


def _sampled(model: Model, context: Any, n: int, draws: int, seed: int) -> Floats:
    """``(n, draws, d)``; without a context the events' draws follow each other in one sample."""
    if context is None:
        return np.asarray(model.sample(n * draws, seed=seed), dtype=np.float64).reshape(n, draws, -1)
    parts = [
        model.sample_range(part.start * draws, part.stop * draws, seed=seed, n=draws, context=context)
        for part in _steps(n, draws)
    ]
    return np.concatenate(parts).astype(np.float64).reshape(n, draws, -1)


def _logged(model: Model, truth: Floats, drawn: Floats, context: Any) -> tuple[Floats, Floats]:
    draws = drawn.shape[1]
    found = []
    for part in _steps(len(truth), draws + 1):
        both = np.concatenate([truth[part, None], drawn[part]], axis=1)
        if context is None:
            flat = model.log_prob(both.reshape(-1, both.shape[-1]))
            found.append(np.asarray(flat).reshape(both.shape[:2]))
        else:
            found.append(np.asarray(model.log_prob(both, context[part])))
    logs = np.concatenate(found)
    return logs[:, 0], logs[:, 1:]
