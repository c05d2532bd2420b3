"""The command line, one function per verb: ``pofx --help``.

Results go to stdout, progress and errors to stderr; exit codes are in :mod:`pofx.cli_support`. What needs torch is imported by the
verb that needs it, so that ``pofx --help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from pofx import __version__, cli_support
from pofx.cli_compare import compare
from pofx.cli_run import runs
from pofx.cli_simulate import simulate
from pofx.cli_support import EXIT_INTERRUPT, check_new, grouped, splitted
from pofx.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from pofx.data import Dataset
    from pofx.models.base import Family
    from pofx.models.model import Model
    from pofx.training.settings import Training

__all__ = ["app", "main"]

app = typer.Typer(
    name="pofx",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn p(x) or p(x | c) from particle-physics data; sample it, score with it.",
)

app.add_typer(runs)
app.command()(simulate)
app.command()(compare)

Force = Annotated[bool, Option("--force", help="Overwrite files that exist.")]
ModelFile = Annotated[Path, Argument(metavar="MODEL", help="A saved model (.pofx).")]
DataFile = Annotated[Path, Argument(metavar="DATA", help="A table: .h5 .csv .npz .npy .parquet .root.")]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command ``pofx``: run and leave with an exit code, never with a traceback unless ``--debug`` asks for it."""
    given = sys.argv[1:] if arguments is None else arguments
    debug, verbose = "--debug" in given, "--verbose" in given or "-v" in given
    words = [word for word in given if word not in ("--debug", "--verbose", "-v")]
    command = typer.main.get_command(app)

    def run() -> Any:
        code = command.main(words, prog_name="pofx", standalone_mode=False)
        sys.stdout.flush()
        return code

    with cli_support.console(verbose or debug):
        code = cli_support.guarded(run, debug=debug)
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pofx {__version__}")
        raise typer.Exit


Version = Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Say on stderr what is going on.")]
Debug = Annotated[bool, Option("--debug", help="Show tracebacks of errors.")]


@app.callback(invoke_without_command=True)
def _common(context: typer.Context, version: Version = False, verbose: Verbose = False, debug: Debug = False) -> None:  # noqa: ARG001
    if context.invoked_subcommand is None:  # what the options mean is the business of main, wherever they stand
        typer.echo(context.get_help())


# ---------------------------------------------------------------------- options in groups


@dataclass(frozen=True)
class Reading:
    """Which part of a file is x, context and weight; options of every verb that reads data to learn from."""

    key: Annotated[list[str] | None, Option(help="Array, data set, group or tree in the file; may be repeated.")] = None
    columns: Annotated[list[str] | None, Option(help="Columns of x: names or patterns, 'pt,eta' 'bin*' '!bin3'.")] = (
        None
    )
    context: Annotated[list[str] | None, Option(help="Columns that x is conditioned on.")] = None
    weight: Annotated[str | None, Option(help="Column of event weights.")] = None
    column: Annotated[
        list[str] | None, Option(help="Declare a column, name:unit:type:low:high, e.g. 'phi:rad:periodic:-pi:pi'.")
    ] = None
    nan: Annotated[Literal["error", "drop"], Option(help="Rows with NaN or infinity.")] = "error"
    split: Annotated[str, Option(help="Fractions for training, validation and test.")] = "0.8,0.1,0.1"

    def read(self, path: Path) -> Dataset:
        """The data set in ``path``, split."""
        from pofx.data.reading import read

        declared = tuple(self.column or ())
        data = read(
            path,
            columns=splitted(self.columns),
            context=splitted(self.context),
            weight=self.weight,
            key=self.key,
            declare=declared,
            nan=self.nan,
        )
        return data.with_split(self._fractions())

    def _fractions(self) -> list[float]:
        try:
            first, second, third = (float(part) for part in self.split.split(","))
        except ValueError:
            raise ConfigError(f"--split: expected three numbers such as 0.8,0.1,0.1; got {self.split!r}") from None
        return [first, second, third]


@dataclass(frozen=True)
class Schooling:
    """How to train: the settings of :class:`pofx.Training` that have an option of their own, and ``--training`` for the others."""

    epochs: Annotated[int | None, Option(help="At most so many passes over the data.")] = None
    steps: Annotated[int | None, Option(help="At most so many optimiser steps.")] = None
    minutes: Annotated[float | None, Option(help="At most so much time.")] = None
    batch_size: Annotated[int | None, Option(help="Events per step.")] = None
    learning_rate: Annotated[float | None, Option(help="Peak learning rate.")] = None
    patience: Annotated[int | None, Option(help="Epochs without improvement before training ends.")] = None
    seed: Annotated[int, Option(help="Of everything random.")] = 0
    checkpoint: Annotated[
        Path | None, Option(help="Keep the state of the training here, and go on from it if it exists.")
    ] = None
    resume: Annotated[bool, Option("--resume", help="Insist on going on from an existing checkpoint.")] = False
    log_dir: Annotated[Path | None, Option(help="Folder for training.csv and TensorBoard.")] = None
    training: Annotated[
        list[str] | None, Option(help="Any other setting of pofx.Training, key=value; may be repeated.")
    ] = None

    def settings(self) -> Training:
        """The settings as an object."""
        from pofx.training.settings import Training

        if self.resume and self.checkpoint is None:
            raise ConfigError("--resume: say which training to go on with: --checkpoint FILE")
        own: dict[str, Any] = {
            "max_epochs": self.epochs,
            "max_steps": self.steps,
            "max_minutes": self.minutes,
            "batch_size": self.batch_size,
        }
        own |= {
            "learning_rate": self.learning_rate,
            "patience": self.patience,
            "checkpoint": self.checkpoint,
            "log_dir": self.log_dir,
        }
        chosen = Training().replace(seed=self.seed, **{name: value for name, value in own.items() if value is not None})
        if self.epochs is None and (self.steps is not None or self.minutes is not None):
            chosen = chosen.replace(max_epochs=None)
        made: Training = cli_support.settings(chosen, self.training or (), "--training")
        return made


@dataclass(frozen=True)
class Choice:
    """Which family, with which settings."""

    model: Annotated[str, Option("--model", "-m", help="Family: see pofx list.")] = "spline-flow"
    set: Annotated[
        list[str] | None, Option("--set", help="Setting of the family, key=value, e.g. layers=6; may be repeated.")
    ] = None
    teacher: Annotated[Path | None, Option(help="A saved model that a student learns from.")] = None

    def family(self) -> Family:
        """The config."""
        from pofx.registry import family_class

        try:
            plain = family_class(self.model)()
        except ImportError as error:
            raise MissingExtraError(f"the family {self.model!r} cannot be imported here: {error}") from error
        made: Family = cli_support.settings(plain, self.set or (), "--set")
        return made


@dataclass(frozen=True)
class Output:
    """What ``fit`` writes."""

    out: Annotated[
        Path | None, Option("--out", "-o", help="File of the model; DATA's name with .pofx, here, by default.")
    ] = None
    report: Annotated[Path | None, Option(help="Also write an HTML report here.")] = None
    force: Force = False

    def checked(self, data: Path) -> Path:
        """The file of the model, after all files were found fit to be written."""
        out = Path(f"{data.stem}.pofx") if self.out is None else self.out
        for target in (out, self.report):
            if target is not None:
                check_new(target, self.force)
        return out


# ---------------------------------------------------------------------- verbs


@app.command()
@grouped
def fit(
    data: DataFile,
    choice: Choice,
    output: Output,
    reading: Reading,
    schooling: Schooling,
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what the training would take.")] = False,
) -> int:
    """Learn a density from a table."""
    from pofx.artefact import load

    family, training = choice.family(), schooling.settings()
    if dry_run:
        typer.echo(_cost(family, reading.read(data), training))
        return 0
    out = output.checked(data)
    dataset = reading.read(data)
    teacher = None if choice.teacher is None else load(choice.teacher)
    fitted = family.fit(dataset, training=training, teacher=teacher, resume="must" if schooling.resume else "auto")
    fitted.save(out)
    typer.echo(_summary(fitted, out))
    if output.report is not None:
        _write_report(fitted, dataset, output.report)
    return EXIT_INTERRUPT if fitted.card["training"]["stopped_by"] == "interrupt" else 0


@app.command()
def sample(
    model: ModelFile,
    out: Annotated[Path, Option("--out", "-o", help="File to write: .h5 .csv .npz .npy .parquet .root.")],
    n: Annotated[int | None, Option("-n", help="Events (per row of --context; one each by default).")] = None,
    seed: Annotated[int, Option(help="The same seed gives the same events.")] = 0,
    workers: Annotated[int, Option(help="Processes.")] = 1,
    context: Annotated[Path | None, Option(help="Table of contexts, one row each.")] = None,
    key: Annotated[list[str] | None, Option(help="Array or tree in the file of contexts.")] = None,
    force: Force = False,
) -> None:
    """Draw events from a model."""
    from pofx.artefact import load
    from pofx.models.parallel import sample_to_file

    check_new(out, force)
    if n is None and context is None:
        raise ConfigError("expected -n, the number of events (it may be left out only beside --context)")
    if n is not None and n < 0:
        raise ConfigError(f"-n: expected a number of events of at least 0; got {n}")
    fitted = load(model)
    rows = None
    if context is not None:
        from pofx.cli_tables import contexts_for

        rows = contexts_for(fitted, context, key)
    sample_to_file(fitted, n, out, seed=seed, workers=workers, context=rows)
    drawn = f"{n} events" if rows is None else f"{1 if n is None else n} events for each of {len(rows)} contexts"
    typer.echo(f"{out}: {drawn}")


@app.command()
def logprob(
    model: ModelFile,
    data: DataFile,
    out: Annotated[
        Path | None, Option("--out", "-o", help="Write log p of every event: .csv .h5 .npz .npy .parquet .root.")
    ] = None,
    key: Annotated[
        list[str] | None, Option(help="Array, data set, group or tree in the file; may be repeated.")
    ] = None,
    weight: Annotated[str | None, Option(help="Column of event weights, for the mean.")] = None,
    nan: Annotated[Literal["error", "drop"], Option(help="Rows with NaN or infinity.")] = "error",
    force: Force = False,
) -> None:
    """Score events: mean log p with its error, and log p of every event."""
    from pofx.artefact import load
    from pofx.cli_tables import events_for, score

    if out is not None:
        check_new(out, force)
    fitted = load(model)
    typer.echo(score(fitted, events_for(fitted, data, key, weight, nan), out))


@app.command()
def info(
    file: Annotated[Path, Argument(metavar="FILE", help="A data file or a saved model.")],
    key: Annotated[
        list[str] | None, Option(help="Array, data set, group or tree in the file; may be repeated.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Of a model: the whole card.")] = False,
) -> None:
    """Describe a data file or a saved model."""
    from pofx.artefact import is_artefact, read_card

    if is_artefact(file):
        from pofx.cli_tables import card_text

        card = read_card(file)
        typer.echo(json.dumps(card, indent=2, ensure_ascii=False) if as_json else card_text(card, file))
        return
    from pofx.data.info import describe

    typer.echo(str(describe(file, key=key)))


@app.command("list")
def list_families() -> None:
    """List the families of models and what each can do."""
    from pofx.models.table import capability_table

    typer.echo(capability_table())


@app.command()
@grouped
def report(
    model: ModelFile,
    data: DataFile,
    out: Annotated[Path, Option("--out", "-o", help="HTML file to write.")],
    reading: Reading,
    force: Force = False,
) -> None:
    """Compare a model with data in an HTML report."""
    from pofx.artefact import load

    check_new(out, force)
    fitted = load(model)
    _write_report(fitted, reading.read(data), out)


# ---------------------------------------------------------------------- steps


def _cost(family: Family, data: Dataset, training: Training) -> str:
    from pofx.models.fitting import prepare_fit
    from pofx.training.cost import estimate_cost

    _, source, fitted, layout = prepare_fit(family, data, None, None, training=training)
    cost = estimate_cost(fitted.body, family.phases(layout), source, training)
    return (
        f"{cost.parameters} parameters, {cost.memory_bytes / 1e6:.1f} MB, {cost.seconds_per_step:.3g} s per step, "
        f"{cost.seconds_per_epoch:.3g} s per epoch, {cost.total:.3g} s in all at most"
    )


def _summary(model: Model, path: Path) -> str:
    record, found = model.card["training"], model.card.get("metrics", {}).get("nll", {})
    lines = [
        f"{path}: {model.family.name}, {model.card['parameters']} parameters, {record['steps']} steps in {record['seconds']:.1f} s"
    ]
    lines += [
        f"  {name}: -log p = {m['value']:.4f} +- {m['error']:.4f} nats per event ({m['events']} events)"
        for name, m in found.items()
    ]
    return "\n".join(lines)


def _write_report(model: Model, data: Dataset, path: Path) -> None:
    from pofx.report import density_report

    density_report(model, data, path)
    typer.echo(f"{path}: report")


if __name__ == "__main__":
    main()
