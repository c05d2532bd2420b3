"""Running a simulator: blocks on several processes, kept as they are made, put together in order, with a card.

While it runs, blocks are files in a folder beside the output, ``NAME.blocks``. A run that was interrupted finds them there and goes on,
if settings and seed are the same. The output appears whole or not at all.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pofx.config import to_plain
from pofx.data.dataset import Dataset, event_parts
from pofx.data.events import Events
from pofx.data.layout import Layout
from pofx.data.numbers import Array
from pofx.data.recipe import make_recipe
from pofx.data.store import MemoryStore, Part, mask_name
from pofx.data.writing import write
from pofx.errors import ConfigError, DataError, PofxError
from pofx.simulators.base import Simulator

__all__ = ["card_of", "read_card", "simulate", "simulate_to_file"]

logger = logging.getLogger(__name__)

CARD = "card.json"
Progress = Callable[[int, int], None]
"""Called with the events that are there and the events in all."""


def simulate(simulator: Simulator, n: int, *, seed: int, workers: int = 1, progress: Progress | None = None) -> Dataset:
    """n events in memory.

    Raises
    ------
    ConfigError : n or workers below 1.
    MissingExtraError : a generator is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="pofx-") as folder:
        _run(simulator, n, seed, workers, Path(folder), progress)
        store = _Blocks(simulator, n, Path(folder))
        arrays = store.rows(0, n, [part.name for part in store.parts])
    whole = MemoryStore(store.origin, store.parts, arrays)
    return Dataset.from_store(whole, make_recipe(whole))


def simulate_to_file(
    simulator: Simulator,
    n: int,
    out: str | Path,
    *,
    seed: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """n events to a file, and a card beside it (``NAME.card.json``): settings, seed, versions.

    Parameters
    ----------
    out : grids and clouds need ``.h5`` or ``.npz``.
    workers : processes. With more than one, a script needs the usual ``if __name__ == "__main__":``.
    progress : called with (events there, events in all).

    Raises
    ------
    ConfigError : n or workers below 1; blocks of another run in the way.
    MissingExtraError, PofxError : a generator is not installed; a worker died.
    """
    target = Path(out).expanduser()
    folder = target.with_name(f"{target.name}.blocks")
    card = card_of(simulator, n, seed)
    with _kept(folder, card):
        _run(simulator, n, seed, workers, folder, progress)
        store = _Blocks(simulator, n, folder)
        write(target, Dataset.from_store(store, make_recipe(store)))
    target.with_name(f"{target.name}.card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return target


def card_of(simulator: Simulator, n: int, seed: int) -> dict[str, Any]:
    """What a sample is a function of."""
    from pofx import __version__

    versions = {"pofx": __version__, "numpy": np.__version__, **simulator.versions()}
    return {
        "simulator": simulator.name,
        "settings": to_plain(simulator),
        "seed": seed,
        "events": n,
        "versions": versions,
    }


def read_card(path: str | Path) -> dict[str, Any] | None:
    """The card beside a simulated file, if there is one."""
    found = Path(path).with_name(f"{Path(path).name}.card.json")
    if not found.is_file():
        return None
    try:
        card: dict[str, Any] = json.loads(found.read_text())
    except ValueError as error:
        raise DataError(f"{found}: not a card: {error}") from None
    return card


@contextmanager
def _kept(folder: Path, card: dict[str, Any]) -> Iterator[None]:
    """The folder of blocks: gone when the output is there, kept when anything goes wrong."""
    same = {key: value for key, value in card.items() if key != "events"}  # more events are more blocks
    if folder.exists():
        there = json.loads((folder / CARD).read_text()) if (folder / CARD).is_file() else None
        if there != same:
            raise ConfigError(
                f"{folder}: holds blocks of another run (other settings, seed or versions); remove the folder to start afresh"
            )
        logger.info("%s: going on with the blocks that are there", folder)
    folder.mkdir(exist_ok=True)
    (folder / CARD).write_text(json.dumps(same))
    yield
    shutil.rmtree(folder)


def _run(simulator: Simulator, n: int, seed: int, workers: int, folder: Path, progress: Progress | None) -> None:
    """Make the blocks that are missing."""
    if n < 1 or workers < 1:
        raise ConfigError(f"expected at least one event and one worker; got n={n}, workers={workers}")
    simulator.check_modules()
    count = -(-n // simulator.block)
    missing = [k for k in range(count) if not _file(folder, k).exists()]
    done = count - len(missing)
    for _ in _made(simulator, seed, missing, folder, min(workers, max(len(missing), 1))):
        done += 1
        logger.info("simulated %d of %d events", min(done * simulator.block, n), n)
        if progress is not None:
            progress(min(done * simulator.block, n), n)


def _made(simulator: Simulator, seed: int, blocks: Sequence[int], folder: Path, workers: int) -> Iterator[int]:
    """Numbers of blocks as they are done."""
    if workers == 1:
        for k in blocks:
            _make(simulator, seed, k, folder)
            yield k
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts)
    try:
        futures = {pool.submit(_make, simulator, seed, k, folder): k for k in blocks}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except BrokenProcessPool as error:
        raise PofxError(
            "a worker died (out of memory, or killed?); what was simulated is kept: try again with fewer workers, and if this is a "
            "script, put its code below if __name__ == '__main__':"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make(simulator: Simulator, seed: int, block: int, folder: Path) -> None:
    """One block to its file, whole or not at all."""
    events = simulator.block_events(seed, block)
    _check(simulator, events)
    arrays = event_parts(events, simulator.spec(), simulator.context_spec())[1]
    temporary = folder / f"{block}.part"
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(_file(folder, block))


def _check(simulator: Simulator, events: Events) -> None:
    """A simulator that breaks its own contract is found out before it fills a disk."""
    spec, context = simulator.spec(), simulator.context_spec() or {}
    found = {name: array.shape for name, array in events.fields.items()}
    found |= {name: array.shape for name, array in (events.context.fields.items() if events.context else ())}
    wanted = {name: (simulator.block, *form.shape) for name, form in {**spec, **context}.items()}
    weights = events.weight is not None
    if found != wanted or weights != simulator.weighted:
        raise DataError(
            f"{simulator.name}: expected fields {wanted}, weights: {simulator.weighted}; generated {found}, weights: {weights}"
        )


def _file(folder: Path, block: int) -> Path:
    return folder / f"{block}.npz"


class _Blocks:
    """The first n events of blocks on disk, as a :class:`~pofx.data.store.Store`."""

    in_memory = False

    def __init__(self, simulator: Simulator, n: int, folder: Path) -> None:
        self.origin, self.grain, self._n, self._folder = simulator.name, simulator.block, n, folder
        with np.load(_file(folder, 0), allow_pickle=False) as file:
            types = {name: file[name].dtype for name in file.files}
        layout = Layout(simulator.spec(), simulator.context_spec(), simulator.weighted)
        self.parts = tuple(Part(name, form, types[name], group, role) for name, form, group, role in layout.fields())

    def __len__(self) -> int:
        return self._n

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Array]:
        """Rows start..stop of the named parts, with masks."""
        pieces: list[dict[str, Array]] = []
        for k in range(start // self.grain, -(-stop // self.grain)):
            keep = slice(max(start - k * self.grain, 0), stop - k * self.grain)
            with np.load(_file(self._folder, k), allow_pickle=False) as file:
                wanted = [key for name in names for key in (name, mask_name(name)) if key in file.files]
                pieces.append({key: file[key][keep] for key in wanted})
        if not pieces:
            return {key: array[:0] for key, array in self.rows(0, 1, names).items()}
        return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
