"""``pofx run``: whole analyses, one command per task; each writes a report, figures, a table and a model into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from pofx.cli_support import check_folder, command_line, grouped, splitted
from pofx.cli_surrogate import classifier_surrogate
from pofx.errors import ConfigError

if TYPE_CHECKING:
    from pofx.tasks.cross_section.covariance import Measured
    from pofx.tasks.cross_section.universes import Universes

__all__ = ["runs", "summary"]

TOYS = {"smoke": 4000, "cpu": 100_000, "gpu": 1_000_000}
"""Throws behind a p-value of a published mean and covariance."""

runs = typer.Typer(name="run", no_args_is_help=True, help="Run a whole analysis on your data, or on simulated ones.")
runs.command("classifier-surrogate")(classifier_surrogate)


@dataclass(frozen=True)
class Universe:
    """Where the universes are; without a file they are simulated."""

    data: Annotated[
        Path | None,
        Option(
            help="File of universes: arrays 'total', 'central' and one per source, or one table. .h5 .npz .root .csv"
        ),
    ] = None
    total: Annotated[str | None, Option(help="Array or tree of the universes with everything varied.")] = None
    central: Annotated[str | None, Option(help="Array of the measured values.")] = None
    source: Annotated[
        list[str] | None, Option(help="Universes of one uncertainty source, NAME=ARRAY; may be repeated.")
    ] = None
    bins: Annotated[str | None, Option(help="Only these bins: '0-19,25'.")] = None
    shape_only: Annotated[
        bool, Option("--shape-only", help="Compare shapes: universes and predictions are normalised.")
    ] = False

    def read(self) -> Universes | None:
        """The universes of the file, or None where they are to be simulated."""
        from pofx.tasks.cross_section.universes import Universes

        if self.data is None:
            return None
        return Universes.read(self.data, total=self.total, central=self.central, sources=self._sources())

    def chosen(self) -> list[int] | None:
        """The bins that ``--bins`` names."""
        if self.bins is None:
            return None
        try:
            pairs = [part.partition("-") for part in splitted([self.bins]) or ()]
            return [i for low, _, high in pairs for i in range(int(low), int(high or low) + 1)]
        except ValueError:
            raise ConfigError(f"--bins: expected numbers and ranges such as 0-19,25; got {self.bins!r}") from None

    def _sources(self) -> dict[str, str] | None:
        if self.source is None:
            return None
        pairs = [item.partition("=") for item in self.source]
        for name, sign, key in pairs:
            if not (name and sign and key):
                raise ConfigError(f"--source: expected NAME=ARRAY; got {name + sign + key!r}")
        return {name: key for name, _, key in pairs}


@dataclass(frozen=True)
class Published:
    """A measurement that others have published: a release folder, or a mean with its covariance."""

    release: Annotated[Path | None, Option(help="Release folder that pofx wrote: only judge predictions with it.")] = (
        None
    )
    measured: Annotated[
        Path | None, Option(help="File of a published mean and covariance (.root .h5 .csv): no universes.")
    ] = None
    mean: Annotated[list[str] | None, Option(help="Histogram or array of the mean; may be repeated.")] = None
    covariance: Annotated[list[str] | None, Option(help="Covariance matrix; several are added.")] = None
    smearing: Annotated[str | None, Option(help="Matrix that predictions are multiplied by.")] = None
    scale_by: Annotated[float, Option(help="Factor on the mean (its square on the covariance).")] = 1.0
    unit: Annotated[str, Option(help="Of the mean, after the factor.")] = ""

    def read(self) -> Measured:
        """Mean and covariance of the file."""
        from pofx.tasks.cross_section.covariance import Measured

        if self.measured is None:
            raise ConfigError("--measured: expected a file")
        return Measured.read(
            self.measured,
            mean=self.mean,
            covariance=self.covariance,
            smearing=self.smearing,
            scale=self.scale_by,
            unit=self.unit,
            title=self.measured.stem,
        )


@dataclass(frozen=True)
class Asked:
    """What to make, how large, and where to write it."""

    out: Annotated[Path | None, Option("--out", "-o", help="Folder to write to.")] = None
    predict: Annotated[
        Path | None, Option(help="Predictions to judge: a table with one row per model, one column per bin.")
    ] = None
    model: Annotated[str, Option("--model", "-m", help="auto, or a family: see pofx list.")] = "auto"
    minutes: Annotated[float | None, Option(help="Time for choosing and training the density.")] = None
    scale: Annotated[
        Literal["smoke", "cpu", "gpu"], Option(help="smoke: seconds; cpu: minutes; gpu: the published size.")
    ] = "cpu"
    seed: Annotated[int, Option(help="Of everything random.")] = 1
    force: Annotated[bool, Option("--force", help="Write into a folder that has files already.")] = False


@runs.command("cross-section")
@grouped
def cross_section(universe: Universe, published: Published, asked: Asked) -> None:
    """Is a Gaussian covariance good enough? If not: a density, p-values, a fit, a release."""
    if published.release is not None:
        _judge_release(published.release, asked)
        return
    out, command = asked.out, command_line()
    if out is None:
        raise ConfigError("expected --out FOLDER, the folder to write to")
    check_folder(out, asked.force)
    if published.measured is not None:
        from pofx.tasks.cross_section.covariance_run import run_measured

        table = run_measured(
            out, published.read(), asked.predict, toys=TOYS[asked.scale], seed=asked.seed, command=command
        )
        typer.echo("\n".join([*table["statements"], *table["notes"], f"{out / 'report.html'}: report"]))
        return
    from pofx.tasks.cross_section.run import Settings, run

    settings = Settings(asked.model, asked.minutes, universe.chosen(), universe.shape_only, command)
    table = run(out, universe.read(), asked.predict, scale=asked.scale, seed=asked.seed, settings=settings)
    typer.echo(summary(table, out))


def summary(table: dict[str, Any], out: Path) -> str:
    """What the terminal shows of an analysis."""
    gain, error = table["density"]["gain_over_gaussian"]
    total = table["check"]["total"]
    lines = [
        f"{table['title']}: {table['universes']} universes of {table['bins']} bins",
        f"Gaussian? global p = {total['global_p']:.3g} ({total['events']} universes, {total['replicas']} replicas)",
        f"density: {table['density']['chosen']}, {gain:.2f} ± {error:.2f} nats per universe above the Gaussian",
        f"{'prediction':34}  {'chi2/ndf':>12}  {'p, chi2':>9}  {'p, density':>10}",
    ]
    for row in table["predictions"]["predictions"]:
        far, p = row["p_density_far_tail"], row["p_density"]["value"]
        shown = f"{far['value']:.2e}" if far else f"{p:.4f}" if p else f"< {row['upper_limit']:.1e}"
        flag = "  verdict changes" if row["changes_at"] else ""
        name, chi2 = row["prediction"][:34], f"{row['chi2']:.1f}/{row['ndf']}"
        lines.append(f"{name:34}  {chi2:>12}  {row['p_chi2']:9.2g}  {shown:>10}{flag}")
    for name, fit in table["fits"].items():
        values = ", ".join(f"{key} = {value:.3f} ± {fit['errors'][key]:.3f}" for key, value in fit["values"].items())
        lines.append(f"fit by {name}: {values}")
    return "\n".join(
        [*lines, f"{out / 'report.html'}: report; {out / 'release'}: release; {table['total_seconds']:.0f} s"]
    )


def _judge_release(folder: Path, asked: Asked) -> None:
    from pofx.tasks.cross_section.release import open_release

    if asked.predict is None:
        raise ConfigError("--release: say which predictions to judge: --predict FILE")
    text = str(open_release(folder).p_values(asked.predict, seed=asked.seed))
    typer.echo(text)
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "verdicts.txt").write_text(text + "\n", encoding="utf-8")
