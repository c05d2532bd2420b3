"""Jets with their features and the score that a tagger gave them: from arrays or a file, checked, with a stated repair of saturated scores.

A score of exactly 0 or 1 has no logit. Taggers in single precision saturate: everything above 1 - 6e-8 is stored as 1. Such scores
are refused, unless ``saturated="clip"`` asks for what is then said in :attr:`Tagged.note`: they are moved to the outermost score that is
not saturated. More than :data:`MOST` of them are a lump of probability that no density has, and are refused in any case.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.data.dataset import Dataset
from pofx.data.numbers import as_floats, as_numpy
from pofx.data.patterns import listing
from pofx.data.reading import read
from pofx.data.spec import Column
from pofx.errors import ColumnError, ConfigError, DataError, NonFiniteError, PofxWarning, ShapeError

__all__ = ["MOST", "Floats", "Tagged", "feature_rows"]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Ranges = Mapping[str, tuple[float, float]]

MOST = 0.05
"""Share of saturated scores up to which they are repaired."""
REPAIRS = ("error", "clip")


@dataclass(frozen=True, eq=False)
class Tagged:
    """Jets and what a tagger says of them.

    Attributes
    ----------
    features : ``(n, d)``, finite.
    scores : ``(n,)`` in (0, 1).
    columns : of the features: names and units.
    score : how the tagger is called.
    label : ``(n,)``, True for what is to be tagged; None where nobody knows.
    weight : ``(n,)``, or None for ones.
    note : what was repaired.

    >>> jets = Tagged.of([[300.0], [500.0]], [0.1, 0.9], names=["pt"])
    >>> len(jets), jets.names, jets.note
    (2, ('pt',), '')
    """

    features: Floats
    scores: Floats
    columns: tuple[Column, ...]
    score: str = "score"
    label: Booleans | None = None
    weight: Floats | None = None
    note: str = ""

    @classmethod
    def of(
        cls,
        features: Any,
        scores: ArrayLike,
        *,
        names: Sequence[Column | str] | None = None,
        score: str = "score",
        label: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        saturated: str = "error",
    ) -> Tagged:
        """From arrays.

        Parameters
        ----------
        features : ``(n, d)``, or columns ``(n,)`` by name.
        names : of the features; ``feature0``, ... if they have none.
        label : ``(n,)`` of 0 and 1.
        saturated : ``"error"``, or ``"clip"`` for the repair of scores that are 0 or 1.

        Raises
        ------
        ShapeError, NonFiniteError, DataError, ColumnError : say what was expected and what came.
        """
        columns = _columns(features, names)
        rows = feature_rows(features, tuple(c.name for c in columns))
        found = _finite(scores, score)
        if found.shape != (len(rows),):
            raise ShapeError(f"{score}: expected shape ({len(rows)},), one score per jet; got {found.shape}")
        repaired, note = _inside(found, score, saturated)
        own = None if weight is None else _finite(weight, "weight")
        if own is not None and own.shape != found.shape:
            raise ShapeError(f"weight: expected shape {found.shape}; got {own.shape}")
        return cls(rows, repaired, columns, score, None if label is None else _label(label, len(rows)), own, note)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        features: Sequence[str],
        score: str,
        label: str | None = None,
        weight: str | None = None,
        key: str | Sequence[str] | None = None,
        saturated: str = "error",
    ) -> Tagged:
        """From a file of any format that :func:`pofx.read` knows; the label may be one of the features.

        >>> Tagged.read("jets.csv", features=["pt", "eta"], score="top_score")  # doctest: +SKIP
        """
        if not features:
            raise ConfigError("features: expected at least one column that the score may depend on; got none")
        apart = [] if label is None or label in features else [label]
        found = read(path, columns=[score, *apart], context=list(features), weight=weight, key=key)
        if len(found.spec) != 1 or found.context_spec is None or len(found.context_spec) != 1:
            raise ShapeError(f"{path}: expected score and features to be plain columns; got {', '.join(found.spec)}")
        events = found.arrays()
        columns = next(iter(found.context_spec.values())).columns
        if events.context is None:
            raise ColumnError(f"{path}: found no features")
        rows, values = np.asarray(events.context.x, np.float64), np.asarray(events.x, np.float64)
        marks = None
        if label is not None:
            marks = values[:, 1] if apart else rows[:, [c.name for c in columns].index(label)]
        return cls.of(
            rows, values[:, 0], names=columns, score=score, label=marks, weight=events.weight, saturated=saturated
        )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features."""
        return tuple(column.name for column in self.columns)

    def take(self, rows: ArrayLike) -> Tagged:
        """Some of the jets: their numbers, or one boolean each."""
        chosen = np.asarray(rows)
        pick = [None if part is None else part[chosen] for part in (self.label, self.weight)]
        return replace(self, features=self.features[chosen], scores=self.scores[chosen], label=pick[0], weight=pick[1])

    def within(self, ranges: Ranges) -> Booleans:
        """Which jets have all of these features between their ends, ``(n,)``."""
        inside = np.ones(len(self), dtype=bool)
        for name, (low, high) in ranges.items():
            if name not in self.names:
                raise ColumnError(f"no feature is called {name!r}; there are {listing(self.names)}")
            column = self.features[:, self.names.index(name)]
            inside &= (column >= low) & (column <= high)
        return inside

    def split(self, share: float, seed: int) -> tuple[Tagged, Tagged]:
        """A random share of the jets, and the rest."""
        order = np.random.default_rng(seed).permutation(len(self))
        first = round(share * len(self))
        return self.take(order[:first]), self.take(order[first:])

    def dataset(self) -> Dataset:
        """Scores given features, nine tenths of which train and one tenth validates."""
        data = Dataset.from_arrays(
            self.scores[:, None],
            self.features,
            self.weight,
            columns=(Column(self.score, "", "bounded", 0.0, 1.0),),
            context_columns=self.columns,
        )
        return data.with_split((0.9, 0.1, 0.0))


def feature_rows(features: Any, names: Sequence[str]) -> Floats:
    """``(n, d)`` numbers out of an array or columns by name, in the order of ``names``; ``(d,)`` is one jet, or one feature of many."""
    if _by_name(features):
        missing = [name for name in names if name not in features]
        if missing:
            raise ColumnError(f"features: expected {listing(names)}; there is no {listing(missing)}")
        return np.stack([_finite(features[name], name) for name in names], 1)
    rows = _finite(features, "features")
    if rows.ndim == 1:
        rows = rows[:, None] if len(names) == 1 else rows[None]
    if rows.ndim != 2 or rows.shape[1] != len(names) or not len(rows):
        raise ShapeError(f"features: expected shape (n, {len(names)}) for {listing(names)}; got {rows.shape}")
    return rows


def _by_name(features: Any) -> bool:
    return isinstance(features, Mapping) or hasattr(features, "columns")


def _columns(features: Any, names: Sequence[Column | str] | None) -> tuple[Column, ...]:
    if names is None and _by_name(features):
        names = [str(name) for name in getattr(features, "columns", features)]
    if names is None:
        shape = np.shape(features)
        names = [f"feature{i}" for i in range(shape[1] if len(shape) == 2 else 1)]
    return tuple(name if isinstance(name, Column) else Column(name) for name in names)


def _finite(values: Any, where: str) -> Floats:
    found: Floats = as_floats(as_numpy(values), where, np.float64).astype(np.float64)
    if not np.isfinite(found).all():
        first = np.argwhere(~np.isfinite(found))[0]
        raise NonFiniteError(f"{where}: expected finite numbers; row {first[0]} has {found[tuple(first)]}")
    return found


def _label(label: ArrayLike, n: int) -> Booleans:
    found = np.asarray(as_numpy(label))
    if found.shape != (n,) or not np.isin(found, (0, 1)).all():
        shown = np.unique(found)[:4].tolist()
        raise DataError(f"label: expected {n} numbers 0 or 1, one per jet; got shape {found.shape}, values {shown}")
    return found.astype(bool)


def _inside(scores: Floats, name: str, saturated: str) -> tuple[Floats, str]:
    """Scores in (0, 1), and what was done about those that are not."""
    if saturated not in REPAIRS:
        raise ConfigError(f"saturated: expected one of {', '.join(REPAIRS)}; got {saturated!r}")
    if scores.min() < 0 or scores.max() > 1:
        raise DataError(
            f"{name}: expected scores in (0, 1), such as a sigmoid gives; got {scores.min():.4g} to {scores.max():.4g}"
        )
    ends = (scores == 0) | (scores == 1)
    if not ends.any():
        return scores, ""
    told = f"{int(ends.sum())} of {len(scores)} scores are exactly 0 or 1"
    if ends.mean() > MOST:
        raise DataError(
            f"{name}: {told}, more than {MOST:.0%}: a lump that no density has; store logits or double precision"
        )
    if saturated == "error":
        raise DataError(f"{name}: {told}, which have no logit; store logits, or ask for saturated='clip'")
    low, high = scores[~ends].min(), scores[~ends].max()
    note = f"{told}; they were moved to the outermost other scores, {low:.3g} and {high:.8g}"
    warnings.warn(f"{name}: {note}", PofxWarning, stacklevel=3)
    return np.clip(scores, low, high), note
