"""Sampling straight to a file, in bounded memory and on several processes: the same bits whatever their number.

Every event has a number, and its noise depends on the seed and that number alone. So workers draw ranges of events in any order, the
parent puts them back in order, and the writers of :mod:`pofx.data` take them as they would take the rows of a file.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pofx import registry
from pofx.artefact import load
from pofx.data.dataset import Dataset
from pofx.data.events import Events
from pofx.data.recipe import make_recipe
from pofx.data.rows import Rows
from pofx.data.spec import EventSpec
from pofx.data.store import Part, mask_name, part_name
from pofx.data.writing import write
from pofx.errors import ConfigError, PofxError
from pofx.models.base import CHUNK
from pofx.models.inputs import numpy_to_torch
from pofx.models.model import Model

__all__ = ["sample_to_file"]

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]


def sample_to_file(
    model: Model | str | Path,
    n: int | None,
    out: str | Path,
    *,
    seed: int,
    workers: int = 1,
    chunk: int = 65_536,
    context: Any = None,
) -> Path:
    """Draw events and write them; the file appears whole or not at all.

    Parameters
    ----------
    model : a model, or the file of one.
    n : events, per context row if the context has several; None means one event per context row.
    out : file to write, in the format of its extension (``.h5`` and ``.csv`` take any number of events).
    seed : the events are those of ``model.sample(n, context, seed=seed)``, row by row.
    workers : processes; 1 draws in this one. With more, a script needs the usual ``if __name__ == "__main__":``.
    chunk : events per piece of work, rounded up to a multiple of :data:`pofx.models.base.CHUNK`.
    context : None, ``(c,)`` or ``(m, c)``; contexts of several rows are written beside the events.

    Raises
    ------
    ConfigError : a number of workers or a chunk below 1.
    ArtefactError : the file is no intact model.
    PofxError : a worker died.

    >>> sample_to_file("toys.pofx", 10_000_000, "new.h5", seed=1, workers=8)  # doctest: +SKIP
    """
    if workers < 1 or chunk < 1:
        raise ConfigError(f"expected at least one worker and one event per chunk; got workers={workers}, chunk={chunk}")
    fitted = model if isinstance(model, Model) else load(model)
    rows, shape, _ = fitted.inputs.context_rows(context, n)
    arrays = None if rows is None else rows.map(lambda array: array.numpy())
    task = _Task(seed, shape, arrays, -(-chunk // CHUNK) * CHUNK)
    with _pieces(fitted, model, task, min(workers, max(1, -(-task.total // task.chunk)))) as restart:
        store = _Stream(fitted, task, restart)
        return write(out, Dataset(store, make_recipe(store), Rows(task.total)))


@dataclass(frozen=True)
class _Task:
    """What is drawn: the seed, ``(n,)`` or ``(m, n)`` or ``(m,)``, context rows, and how many events at a time."""

    seed: int
    shape: tuple[int, ...]
    context: Events | None
    chunk: int

    @property
    def total(self) -> int:
        """Events in all."""
        return math.prod(self.shape)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last + 1 of every piece."""
        return [(start, min(start + self.chunk, self.total)) for start in range(0, self.total, self.chunk)]

    def draw(self, model: Model, start: int, stop: int) -> dict[str, Array]:
        """Events number ``start`` to ``stop`` as arrays ``(stop - start, *event)``."""
        rows = None if self.context is None else numpy_to_torch(self.context)
        return {
            name: values.numpy() for name, values in model.sample_rows(start, stop, self.seed, rows, self.shape).items()
        }

    def context_of(self, start: int, stop: int) -> Events:
        """The context rows of these events."""
        assert self.context is not None
        repeat = self.shape[-1] if len(self.shape) == 2 or len(self.context) == 1 else 1
        return self.context[np.minimum(np.arange(start, stop) // max(repeat, 1), len(self.context) - 1)]


@dataclass
class _Stream:
    """A :class:`pofx.data.store.Store` whose rows are drawn when they are asked for.

    Rows ought to be asked for in order: going back (some formats store one field after the other) draws from the beginning again.
    """

    model: Model
    task: _Task
    restart: Callable[[], Iterator[dict[str, Array]]]
    in_memory: bool = False
    held: dict[str, Array] = field(default_factory=dict)
    first: int = 0

    def __post_init__(self) -> None:
        self.origin = "sample"
        self.pieces = self.restart()
        self.grain = self.task.chunk
        context = self.model.layout.context if self.task.context is not None else None
        self.parts = (*_parts(self.model.layout.spec, "x"), *_parts(context or {}, "context"))

    def __len__(self) -> int:
        return self.task.total

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Rows start..stop."""
        found = self._events(start, stop)
        if self.task.context is not None:
            context = self.task.context_of(start, stop)
            found |= {part_name(name, "context"): array for name, array in context.fields.items()}
            found |= {mask_name(part_name(name, "context")): mask for name, mask in context.masks.items()}
        return {key: found[key] for name in names for key in (name, mask_name(name)) if key in found}

    def _events(self, start: int, stop: int) -> dict[str, Array]:
        if stop <= start:
            return {name: value.numpy() for name, value in self.model.sample_rows(0, 0, 0, None, (0,)).items()}
        if start < self.first:
            self.pieces, self.held, self.first = self.restart(), {}, 0
        parts = [self.held] if self.held else []
        end = self.first + _length(self.held)
        while end < stop:
            parts.append(next(self.pieces))
            end += _length(parts[-1])
            logger.info("sampled %d of %d events", end, len(self))
        joined = (
            parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        )
        out = {name: array[start - self.first : stop - self.first] for name, array in joined.items()}
        self.held, self.first = {name: array[stop - self.first :] for name, array in joined.items()}, stop
        return out


def _length(arrays: Mapping[str, Array]) -> int:
    return len(next(iter(arrays.values()))) if arrays else 0


def _parts(spec: EventSpec, role: Any) -> list[Part]:
    return [Part(part_name(name, role), form, np.dtype(np.float64), name, role) for name, form in spec.items()]


# ---------------------------------------------------------------------- processes


@contextmanager
def _pieces(
    model: Model, given: Model | str | Path, task: _Task, workers: int
) -> Iterator[Callable[[], Iterator[dict[str, Array]]]]:
    """What starts to draw the pieces of a task in order, here or by workers; always on one thread each, so that sums come out alike."""
    if workers == 1:
        with _one_thread():
            yield lambda: (task.draw(model, *limits) for limits in task.ranges)
        return
    with tempfile.TemporaryDirectory(prefix="pofx-") as folder:
        path = Path(folder) / "model.pofx" if isinstance(given, Model) else Path(given)
        if isinstance(given, Model):
            model.save(path)
        families = {name: registry.family_path(name) for name in registry.family_names()}
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, spawn, initializer=_prepare, initargs=(str(path), families, task))
        try:
            yield lambda: _ordered(pool, task, 2 * workers)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ordered(pool: ProcessPoolExecutor, task: _Task, ahead: int) -> Iterator[dict[str, Array]]:
    """Results in order, with at most ``ahead`` pieces of work under way or waiting."""
    waiting: deque[Future[dict[str, Array]]] = deque()
    ranges = iter(task.ranges)
    try:
        while True:
            while len(waiting) < ahead and (limits := next(ranges, None)) is not None:
                waiting.append(pool.submit(_work, *limits))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise PofxError(
            "a sampling worker died (out of memory, or killed?); try fewer workers or smaller chunks, and if this is a script, put "
            "its code below if __name__ == '__main__':"
        ) from error


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_WORK: dict[str, Any] = {}
"""What a worker process works on; empty in every other process."""


def _prepare(path: str, families: Mapping[str, str], task: _Task) -> None:
    """First thing in a worker: Ctrl-C is the parent's business, families of the user's own are made known, the model is loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name, where in families.items():
        registry.register(name, where)
    _WORK.update(model=load(path), task=task)


def _work(start: int, stop: int) -> dict[str, Array]:
    task: _Task = _WORK["task"]
    return task.draw(_WORK["model"], start, stop)
