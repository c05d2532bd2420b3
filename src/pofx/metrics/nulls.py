"""What statistics of normality give on normal data: a parametric bootstrap that depends on the numbers of rows and columns alone.

The statistics see data whitened by their own fit, so the mean and covariance of the normal law drop out, and one null serves every data
set of that size. It is computed once, kept in memory, and as npz in a cache folder (``POFX_CACHE``, else ``XDG_CACHE_HOME/pofx``, else
``~/.cache/pofx``).
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pofx.classifiers.base import Classifier
from pofx.config import to_plain
from pofx.data.files import atomic
from pofx.errors import ConfigError
from pofx.metrics.gaussian_statistics import henze_zirkler_of, mardia_of, radial, whitened
from pofx.metrics.scores import accuracy, area, scored

__all__ = ["STATISTICS", "Null", "cache_folder", "gaussian_null", "statistics"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
VERSION = 1
"""Of the statistics: a cache of another one is not used."""
STATISTICS = ("c2st", "mardia-skewness", "mardia-kurtosis", "henze-zirkler", "qq", "c2st-accuracy")
LEVELS = np.linspace(0.0, 1.0, 101)
"""Quantiles of the squared radius that the band of the QQ plot is made of."""


@dataclass(frozen=True, eq=False)
class Null:
    """Bootstrap values.

    Attributes
    ----------
    values : ``(replicas, statistics)`` in the order of :data:`STATISTICS`.
    quantiles : ``(replicas, levels)`` of the squared radius, at :data:`LEVELS`.
    """

    values: Floats
    quantiles: Floats

    def __len__(self) -> int:
        return len(self.values)


def statistics(x: Floats, judge: Classifier, seed: int) -> tuple[Floats, Floats]:
    """Values ``(statistics,)`` and quantiles of the squared radius ``(levels,)`` of one data set ``(n, d)``.

    The classifier tells half of the whitened rows from as many standard normal ones, and is judged on the other half.
    """
    z = whitened(x)
    auc, share = _c2st(z, judge, seed)
    skewness, kurtosis = mardia_of(z)
    values = np.array([auc, skewness, kurtosis, henze_zirkler_of(z), radial(z), share])
    return values, np.quantile((z**2).sum(1), LEVELS)


def _c2st(z: Floats, judge: Classifier, seed: int) -> tuple[float, float]:
    """Area under the curve, and accuracy, on the held-out half."""
    rng, n = np.random.default_rng([seed, 1]), len(z)
    half, order = n // 2, rng.permutation(n)
    normal = rng.standard_normal(z.shape)
    label = np.repeat([1, 0], half)
    fitted = judge.fit(np.concatenate([z[order[:half]], normal[:half]]), label, seed=seed)
    rest = np.repeat([1, 0], n - half)
    scores = scored(fitted.logit(np.concatenate([z[order[half:]], normal[half:]])), rest)
    return float(area(scores).value), float(accuracy(scores).value)


def gaussian_null(n: int, d: int, judge: Classifier, replicas: int, cache: bool | Path = True) -> Null:
    """The null for ``n`` rows of ``d`` columns.

    Parameters
    ----------
    judge : classifier of the two-sample test.
    replicas : bootstrap data sets; replica k has the seed (version, n, d, k), so that more replicas extend fewer.
    cache : True for the usual folder, a path for another one, False for memory alone.

    Raises
    ------
    ConfigError if the judge cannot name its null: it has to be a frozen dataclass of numbers and strings.

    >>> from pofx.classifiers.polynomial import PolynomialClassifier
    >>> gaussian_null(30, 2, PolynomialClassifier(), 20, cache=False).values.shape
    (20, 6)
    """
    _settings(judge)
    folder = None if cache is False else cache_folder() if cache is True else Path(cache)
    frozen: Any = judge
    return _null(n, d, frozen, replicas, folder)


def cache_folder() -> Path:
    """Where nulls are kept."""
    if os.environ.get("POFX_CACHE"):
        return Path(os.environ["POFX_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pofx"


@functools.lru_cache(maxsize=64)
def _null(n: int, d: int, judge: Any, replicas: int, folder: Path | None) -> Null:
    path = None if folder is None else folder / f"gaussian-null-{_name(n, d, judge, replicas)}.npz"
    if path is not None and path.exists():
        try:
            return _read(path, replicas)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged (%s) and is made again", path, error)
    made = [_replica(n, d, judge, k) for k in range(replicas)]
    null = Null(np.stack([values for values, _ in made]), np.stack([quantiles for _, quantiles in made]))
    if path is not None:
        _write(path, null)
    return null


def _replica(n: int, d: int, judge: Classifier, k: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng([VERSION, n, d, k])
    return statistics(rng.standard_normal((n, d)), judge, int(rng.integers(2**31)))


def _name(n: int, d: int, judge: Any, replicas: int) -> str:
    return f"v{VERSION}-{n}-{d}-{replicas}-{hashlib.sha256(_settings(judge).encode()).hexdigest()[:12]}"


def _settings(judge: Any) -> str:
    """What a null depends on beside its size: the judge, and the pofx that trains it."""
    from pofx import __version__

    try:
        hash(judge)
    except TypeError:
        raise ConfigError(f"judge: expected a frozen configuration; got {judge!r}") from None
    return json.dumps([__version__, to_plain(judge)], sort_keys=True)


def _read(path: Path, replicas: int) -> Null:
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
        null = Null(file["values"], file["quantiles"])
    if null.values.shape != (replicas, len(STATISTICS)) or null.quantiles.shape != (replicas, len(LEVELS)):
        raise ValueError(f"shapes {null.values.shape} and {null.quantiles.shape}")
    if not (np.isfinite(null.values).all() and np.isfinite(null.quantiles).all()):
        raise ValueError("numbers that are not finite")
    return null


def _write(path: Path, null: Null) -> None:
    """A folder that cannot be written costs time, not the result."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as scratch, scratch.open("wb") as file:
            np.savez(file, values=null.values, quantiles=null.quantiles)
    except OSError as error:
        logger.warning("the null is not kept: %s", error)
