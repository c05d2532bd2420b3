"""``pofx simulate``: from nothing to a file of events."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from pofx import cli_support
from pofx.cli_support import check_new
from pofx.errors import ConfigError

__all__ = ["simulate"]


def simulate(
    name: Annotated[str | None, Argument(metavar="NAME", help="Of the simulator; without it, all are listed.")] = None,
    n: Annotated[int | None, Option("-n", help="Events.")] = None,
    out: Annotated[
        Path | None, Option("--out", "-o", help="File to write: .h5 or .npz; tables also .csv .parquet .root.")
    ] = None,
    seed: Annotated[int, Option(help="The same seed gives the same events.")] = 0,
    workers: Annotated[int, Option(help="Processes; the events do not depend on them.")] = 1,
    set: Annotated[
        list[str] | None, Option("--set", help="Setting of the simulator, key=value; may be repeated.")
    ] = None,
    force: Annotated[bool, Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Simulate events. An interrupted run goes on where it stopped when it is started again."""
    from pofx.simulators.base import simulator_class, simulators_text
    from pofx.simulators.running import simulate_to_file

    if name is None:
        typer.echo(simulators_text())
        return
    simulator = cli_support.settings(simulator_class(name)(), set or (), "--set")
    if n is None or out is None:
        raise ConfigError("expected -n, the number of events, and -o, the file to write")
    check_new(out, force)
    with _bar(name, n) as progress:
        path = simulate_to_file(simulator, n, out, seed=seed, workers=workers, progress=progress)
    typer.echo(f"{path}: {n} events")


@contextmanager
def _bar(name: str, n: int) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar with the time that is left, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=n)
        yield lambda done, _: bar.update(task, completed=done)
