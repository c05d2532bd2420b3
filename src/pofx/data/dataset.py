"""The data set: events with named columns, contexts, weights and a reproducible split, in memory or streamed from a file.

Values are served as float32 or float64 as they are stored. Everything that makes data unusable (NaN, values outside the declared
range, no rows, weights that sum to nothing) is found when the data set is made; what only makes them unfit for training (constant
columns, fewer rows than columns) when ``fit`` asks for it through :func:`as_dataset`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pofx.data.arrays import Columns, field_store, weight_store
from pofx.data.events import Events
from pofx.data.fingerprint import fingerprint
from pofx.data.numbers import as_numpy
from pofx.data.patterns import Declarations, Patterns, listing
from pofx.data.recipe import Recipe, make_recipe, with_context, with_selection, with_weight
from pofx.data.rows import Rows, split_rows
from pofx.data.scan import Summary, scan, verify
from pofx.data.spec import EventSpec
from pofx.data.store import JoinedStore, MemoryStore, Part, Role, Store, mask_name, part_name
from pofx.data.stream import concat, in_order, rechunk, shuffled
from pofx.errors import ConfigError, DataError, ShapeError

__all__ = ["Dataset", "as_dataset", "check_trainable", "event_parts"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Events to learn from, to score or to compare.

    Made by :func:`pofx.read` from a file and by :meth:`from_arrays` from arrays. Parts of it (``train``, ``val``, ``test``,
    ``select``, ``take``) are data sets again and share its storage.

    Attributes
    ----------
    store, recipe, rows : where the rows come from, how events are made of them, which of them belong.
    fractions, seed : the split, (0.8, 0.1, 0.1) and 0 unless :meth:`with_split` says otherwise.
    dropped : how many rows were left out because of NaN (``nan="drop"``).

    >>> import numpy as np
    >>> data = Dataset.from_arrays(np.random.default_rng(0).normal(size=(1000, 2)), columns=["px", "py"])
    >>> len(data), len(data.train), len(data.val), len(data.test)
    (1000, 800, 100, 100)
    """

    store: Store = field(repr=False)
    recipe: Recipe = field(repr=False)
    rows: Rows = field(repr=False)
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    dropped: int = 0

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        context: Any = None,
        weight: Any = None,
        *,
        columns: Columns = None,
        context_columns: Columns = None,
        masks: Mapping[str, Any] | None = None,
        declare: Declarations = (),
        nan: Literal["error", "drop"] = "error",
    ) -> Dataset:
        """A data set out of arrays, which are not copied where their type allows it.

        Parameters
        ----------
        x : shape ``(n, d)`` or ``(n,)``, a tensor, a data frame, a dictionary of columns ``(n,)`` or of fields, or ``Events``.
        context : likewise, with the same n.
        weight : shape ``(n,)``, may be negative, of positive sum.
        columns, context_columns : names, columns, or an event spec (needed for grids and clouds).
        masks : name of a cloud field -> boolean ``(n, L)``, ``True`` = real point.
        declare : columns or ``"phi:rad:periodic:-pi:pi"`` texts; the name may be a pattern.
        nan : ``"error"``, or ``"drop"`` to leave out rows with NaN or infinity (counted in ``dropped``).

        >>> Dataset.from_arrays({"pt": [1.0, 2.0], "phi": [0.1, -3.0]}, declare="phi:rad:periodic:-pi:pi").names
        ('pt', 'phi')
        """
        stores: list[Store] = [field_store(x, columns, "x", masks)]
        if context is not None:
            stores.append(field_store(context, context_columns, "context"))
        if weight is not None:
            stores.append(weight_store(weight))
        store = JoinedStore(stores) if len(stores) > 1 else stores[0]
        return cls.from_store(store, make_recipe(store, declare=declare), nan)

    @classmethod
    def from_store(cls, store: Store, recipe: Recipe, nan: Literal["error", "drop"] = "error") -> Dataset:
        """The checked data set: one pass over the rows; where the store is in memory, the events are made once and for all."""
        if nan not in ("error", "drop"):
            raise ConfigError(f"nan: expected 'error' or 'drop'; got {nan!r}")
        data = cls(store, recipe, Rows(len(store)))
        found = data.summary
        verify(found, store.origin, nan, recipe.weight is not None)
        dropped = len(found.bad_rows)
        if dropped:
            logger.warning("%s: dropped %d of %d rows with NaN or infinity", store.origin, dropped, found.rows)
        data = replace(
            data, recipe=replace(recipe, wrap=found.wrap), rows=Rows(len(store), found.bad_rows), dropped=dropped
        )
        data = data._materialised() if store.in_memory else data
        if not dropped and not found.wrap:
            data.__dict__["summary"] = found
        return data

    def __len__(self) -> int:
        return self.rows.count

    def __repr__(self) -> str:
        context = f", context {', '.join(self.context_spec)}" if self.context_spec else ""
        what = ", ".join(f"{name} {form.kind} {form.shape}" for name, form in self.spec.items())
        return f"Dataset({len(self)} events: {what}{context}{', weighted' if self.weighted else ''}; {self.origin})"

    @property
    def origin(self) -> str:
        """Where the data came from, as errors call it."""
        return self.store.origin

    @property
    def spec(self) -> EventSpec:
        """The fields of an event."""
        return self.recipe.spec

    @property
    def context_spec(self) -> EventSpec | None:
        """The fields of the context, or None."""
        return self.recipe.context_spec

    @property
    def weighted(self) -> bool:
        """Whether the events carry weights."""
        return self.recipe.weight is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The column names of x, in order (of all fields)."""
        return tuple(name for form in self.spec.values() for name in form.names)

    @property
    def in_memory(self) -> bool:
        """Whether the events are held in memory (else they are read from the file as they are asked for)."""
        return self.store.in_memory

    @cached_property
    def summary(self) -> Summary:
        """Range, NaN count and declaration of every column over these events (one pass, the first time)."""
        return scan(in_order(self), self.spec, self.context_spec)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the content; see :mod:`pofx.data.fingerprint` for what it covers."""
        return fingerprint(self)

    # Splits

    def with_split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Dataset:
        """The same events with another split into train, val and test; the place of a row depends on the seed and row numbers only."""
        split_rows(Rows(0), tuple(fractions), seed)
        first, second, third = (float(f) for f in fractions)
        return replace(self, fractions=(first, second, third), seed=seed)

    @cached_property
    def _parts(self) -> tuple[Dataset, ...]:
        return tuple(replace(self, rows=rows) for rows in split_rows(self.rows, self.fractions, self.seed))

    @property
    def train(self) -> Dataset:
        """The events to train on."""
        return self._parts[0]

    @property
    def val(self) -> Dataset:
        """The events that decide when to stop."""
        return self._parts[1]

    @property
    def test(self) -> Dataset:
        """The events that no fit sees."""
        return self._parts[2]

    # Other parts

    def select(self, patterns: Patterns) -> Dataset:
        """Only these columns of x, by name or pattern (``"bin*"``, ``"!bin3"``), in this order."""
        return self._with(with_selection(self.recipe, self.store, patterns))

    def with_context(self, context: Any, columns: Columns = None) -> Dataset:
        """Columns of x (names or patterns) moved to the context, or an array of contexts put beside x."""
        if self.context_spec is not None:
            raise DataError(
                f"{self.origin}: context is given twice; the data have {listing(self.context_spec)} already"
            )
        if _is_patterns(context):
            return self._with(with_context(self.recipe, self.store, context))
        return self._beside(field_store(context, columns, "context"))

    def with_weight(self, weight: Any) -> Dataset:
        """A column of x (by name) made the weight, or an array of weights put beside x."""
        if self.weighted:
            raise DataError(f"{self.origin}: weight is given twice; the data have weights already")
        if isinstance(weight, str):
            return self._with(with_weight(self.recipe, self.store, weight))
        return self._beside(weight_store(weight))

    def take(self, positions: Any) -> Dataset:
        """The events at these positions (integers, may repeat, or booleans), in this order."""
        array = as_numpy(positions)
        if array.dtype.kind not in "biu" or array.ndim != 1:
            raise ShapeError(f"take: expected a list of integers or booleans; got {array.dtype} of shape {array.shape}")
        if array.dtype.kind == "b":
            if len(array) != len(self):
                raise ShapeError(f"take: expected {len(self)} booleans, one per event; got {len(array)}")
            array = np.nonzero(array)[0]
        if len(array) and (array.min() < -len(self) or array.max() >= len(self)):
            raise ShapeError(f"take: expected positions below {len(self)}; got {array.max()}")
        return replace(self, rows=self.rows.take(array))

    # Events

    def arrays(self) -> Events:
        """All events at once; ``index`` holds their row numbers."""
        if self.store.in_memory and self.rows.everything:
            return self.window(0, self.rows.total)
        if self.store.in_memory:
            return self.gather(self.rows.numbers)
        return concat([self.window(0, 0), *in_order(self)])

    def chunks(self, size: int) -> Iterator[Events]:
        """The events in order, ``size`` at a time."""
        return rechunk(in_order(self), _positive(size))

    def shuffled(
        self, size: int, seed: int = 0, epoch: int = 0, *, buffer: int | None = None, start: int = 0
    ) -> Iterator[Events]:
        """Every event once in a random order, ``size`` at a time; the order is a function of (seed, epoch, buffer).

        Files that are not in memory are read in contiguous blocks in random order and shuffled within a buffer of ``buffer`` events
        (default: at least 4 pieces, about 64 MB). ``start`` skips that many pieces without reading them.
        """
        return shuffled(self, _positive(size), (seed % 2**63, epoch), buffer, start)

    def window(self, start: int, stop: int) -> Events:
        """Those of rows start..stop of the store that belong (not for explicit rows)."""
        stop = min(stop, self.rows.total)
        events = self.recipe(self.store.rows(start, stop, self.recipe.needs))
        numbers = self.rows.within(start, stop)
        return (events if len(numbers) == stop - start else events[numbers - start]).replace(index=numbers)

    def gather(self, numbers: Any) -> Events:
        """The rows with these numbers, in this order."""
        if self.store.in_memory:
            raw = self.store.rows(0, len(self.store), self.recipe.needs)
            return self.recipe({name: array[numbers] for name, array in raw.items()}).replace(index=numbers)
        unique, back = np.unique(numbers, return_inverse=True)
        runs = np.split(unique, np.nonzero(np.diff(unique) > max(64, self.store.grain))[0] + 1)
        read = [self._run(run) for run in runs if len(run)] or [self.recipe(self.store.rows(0, 0, self.recipe.needs))]
        return concat(read)[back].replace(index=numbers)

    def _run(self, run: Any) -> Events:
        first, last = int(run[0]), int(run[-1])
        return self.recipe(self.store.rows(first, last + 1, self.recipe.needs))[run - first]

    # Construction

    def _with(self, recipe: Recipe) -> Dataset:
        if recipe.weight is self.recipe.weight:
            return replace(self, recipe=recipe)
        data = replace(self, recipe=recipe)
        verify(data.summary, self.origin, "error", True)
        return data

    def _beside(self, extra: MemoryStore) -> Dataset:
        """With more parts for the same events: one row of ``extra`` per event, or per row of the store."""
        if len(extra) != len(self):
            raise ShapeError(f"{extra.origin}: expected {len(self)} rows, one per event; got {len(extra)}")
        if not self.rows.everything:
            extra = _spread(extra, self.rows)
        store = JoinedStore([self.store, extra])
        added = make_recipe(store)
        recipe = replace(
            self.recipe, context=added.context or self.recipe.context, weight=added.weight or self.recipe.weight
        )
        data = replace(self, store=store, recipe=recipe)
        verify(data.summary, extra.origin, "error", data.weighted)
        return data

    def _materialised(self) -> Dataset:
        """The events of a store in memory made once and for all, as parts that need no further work."""
        raw = self.store.rows(0, len(self.store), self.recipe.needs)
        parts, arrays = event_parts(self.recipe(raw), self.spec, self.context_spec)
        store = MemoryStore(self.origin, tuple(parts), arrays)
        return replace(self, store=store, recipe=make_recipe(store))


def event_parts(events: Events, spec: EventSpec, context_spec: EventSpec | None) -> tuple[list[Part], dict[str, Any]]:
    """Parts and arrays of events: fields under their names, the context's under ``context.<name>``, the weight as ``weight``."""
    parts: list[Part] = []
    arrays: dict[str, Any] = {}
    groups: list[tuple[Role, Events, EventSpec]] = [("x", events, spec)]
    if events.context is not None and context_spec is not None:
        groups.append(("context", events.context, context_spec))
    for role, source, forms in groups:
        for name, form in forms.items():
            stored = part_name(name, role)
            parts.append(Part(stored, form, source.fields[name].dtype, name, role))
            arrays[stored] = source.fields[name]
            if name in source.masks:
                arrays[mask_name(stored)] = source.masks[name]
    extra = None if events.weight is None else weight_store(events.weight)
    return (parts, arrays) if extra is None else ([*parts, *extra.parts], arrays | dict(extra.arrays))


def _spread(extra: MemoryStore, rows: Rows) -> MemoryStore:
    """Rows of ``extra`` moved to the row numbers they belong to (zero elsewhere, where nothing looks)."""
    arrays = {}
    for name, array in extra.arrays.items():
        arrays[name] = np.zeros((rows.total, *array.shape[1:]), array.dtype)
        arrays[name][rows.numbers] = array
    return MemoryStore(extra.origin, extra.parts, arrays)


def _is_patterns(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, str) for v in value)
    )


def _positive(size: int) -> int:
    if size < 1:
        raise ConfigError(f"expected a positive number of events per piece; got {size}")
    return int(size)


def as_dataset(data: Any, context: Any = None, weight: Any = None, *, trainable: bool = True) -> Dataset:
    """What ``fit`` makes of what the user gave: a data set, a path, an array, a tensor, a data frame or a dictionary.

    ``context`` and ``weight`` are arrays, or names of columns of the data. Giving either twice is an error, and so are data that
    :func:`check_trainable` refuses, unless ``trainable`` is False.
    """
    if isinstance(data, (str, os.PathLike)):
        data = _read(data, context, weight)
        context, weight = (None if _is_patterns(context) else context, None if isinstance(weight, str) else weight)
    data = data if isinstance(data, Dataset) else Dataset.from_arrays(data)
    if context is not None:
        data = data.with_context(context)
    data = data if weight is None else data.with_weight(weight)
    return check_trainable(data) if trainable else data


def _read(path: Any, context: Any, weight: Any) -> Dataset:
    from pofx.data.reading import read

    return read(
        path, context=context if _is_patterns(context) else None, weight=weight if isinstance(weight, str) else None
    )


def check_trainable(data: Dataset, *, few_rows: bool = False) -> Dataset:
    """The data, if they can be trained on: no constant column, more rows than columns (unless ``few_rows`` are enough, as for a shrunk
    covariance); else a ``DataError`` that says what to do."""
    constant = data.summary.constant
    if constant:
        drop = ", ".join(repr(f"!{name}") for name in constant[:12])
        raise DataError(
            f"{data.origin}: {len(constant)} constant column(s), which have no density: {listing(constant)}; "
            f"leave them out with columns=[{drop}{', ...' if len(constant) > 12 else ''}] or data.select([...])"
        )
    width = sum(form.size for form in data.spec.values() if form.kind == "vector")
    if len(data) <= (1 if few_rows else width):
        raise DataError(f"{data.origin}: expected more rows than columns; got {len(data)} rows of {width} columns")
    return data
