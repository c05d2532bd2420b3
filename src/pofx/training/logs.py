"""What can be watched while training runs: a CSV file, TensorBoard, and a bar on a terminal."""

from __future__ import annotations

import csv
import importlib.util
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pofx.errors import MissingExtraError
from pofx.training.record import Epoch
from pofx.training.settings import Training

__all__ = ["Bar", "Logs"]


class Logs:
    """Files in ``training.log_dir``; does nothing without one."""

    def __init__(self, training: Training) -> None:
        self._folder = None if training.log_dir is None else Path(training.log_dir)
        self._columns: list[str] = []
        self._board = None if self._folder is None else _tensorboard(training, self._folder)

    def write(self, history: Sequence[Epoch]) -> None:
        """The latest row of the history to ``training.csv`` and TensorBoard."""
        if self._folder is None or not history:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        row = _flat(history[-1])
        if set(row) <= set(self._columns):
            self._rows([row], "a")
        else:
            self._rewrite([_flat(epoch) for epoch in history])
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, float) and math.isfinite(value):
                    self._board.add_scalar(f"{history[-1].phase}/{name}", value, history[-1].step)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        """The whole file: at the beginning (a resumed run leaves no row twice), and when a phase brings new columns."""
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        self._rows([dict(zip(self._columns, self._columns, strict=True)), *rows], "w")

    def _rows(self, rows: list[dict[str, Any]], mode: str) -> None:
        assert self._folder is not None
        with (self._folder / "training.csv").open(mode, newline="") as file:
            csv.DictWriter(file, self._columns).writerows(rows)

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _flat(epoch: Epoch) -> dict[str, Any]:
    row = asdict(epoch)
    groups = {name: row.pop(name) for name in ("losses", "logs")}
    return row | {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


def _tensorboard(training: Training, folder: Path) -> Any:
    there = importlib.util.find_spec("tensorboard") is not None
    if training.tensorboard is True and not there:
        raise MissingExtraError("TensorBoard was asked for and is not installed: pip install 'pofx[tensorboard]'")
    if training.tensorboard is False or not there:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


class Bar:
    """A progress bar with the time that is left, on a terminal or where it is asked for."""

    def __init__(self, training: Training) -> None:
        on = sys.stderr.isatty() if training.progress == "auto" else training.progress
        self._bar = _rich_bar() if on else None
        self._task: Any = None
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, phase: str, step: int, total: int) -> None:
        """A phase begins or goes on."""
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(phase, total=total, completed=step, loss="")

    def move(self, step: int) -> None:
        """So many steps are done; at most ten times a second."""
        if self._bar is not None and (now := time.perf_counter()) >= self._next:
            self._next = now + 0.1
            self._bar.update(self._task, completed=step)

    def show(self, epoch: Epoch) -> None:
        """The losses of the epoch that just ended."""
        if self._bar is not None:
            validation = "" if epoch.validation_loss is None else f", validation {epoch.validation_loss:.4g}"
            self._bar.update(self._task, loss=f"loss {epoch.train_loss:.4g}{validation}")


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    ]
    return Progress(*columns, TextColumn("{task.fields[loss]}"), console=Console(stderr=True), transient=True)
