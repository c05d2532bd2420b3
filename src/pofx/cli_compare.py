"""``pofx compare``: two files, one answer to whether they hold the same."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from pofx.cli_support import check_new, splitted
from pofx.errors import CapabilityError, DataError

if TYPE_CHECKING:
    from pofx.metrics.compare import Comparison
    from pofx.report.html import Report

__all__ = ["compare"]

DataFile = Annotated[Path, Argument(help="A table: .h5 .csv .npz .npy .parquet .root.")]


def compare(  # noqa: PLR0913, PLR0917
    a: DataFile,
    b: DataFile,
    statistics: Annotated[
        list[str] | None, Option("--statistics", "-s", help="Names, such as 'ks,mmd'; all if none is given.")
    ] = None,
    columns: Annotated[list[str] | None, Option(help="Columns to compare: names or patterns.")] = None,
    key: Annotated[list[str] | None, Option(help="Array, data set, group or tree in the files.")] = None,
    weight: Annotated[str | None, Option(help="Column of event weights, in both files.")] = None,
    null: Annotated[
        Literal["auto", "permutation", "bootstrap"], Option(help="How p-values are made; see the documentation.")
    ] = "auto",
    replicas: Annotated[int, Option(help="Of the null, behind floors and p-values.")] = 199,
    seed: Annotated[int, Option(help="Of everything random.")] = 0,
    html: Annotated[Path | None, Option("--html", help="Write a report here.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    force: Annotated[bool, Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Compare two samples: distances and tests, each with its error, its floor (two samples of one law) and its p-value.

    The first is the truth, or the reference. Columns are matched by name where both files have names. The report (--html) also shows
    where the second has too many and too few events.
    """
    from pofx.data.reading import read
    from pofx.metrics.compare import compare as compared

    if html is not None:
        check_new(html, force)
    first, second = (read(path, columns=splitted(columns), weight=weight, key=key) for path in (a, b))
    found = compared(first, second, statistics=splitted(statistics), null=null, replicas=replicas, seed=seed)
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    if html is not None:
        report = _report(found, (str(a), str(b)))
        words = f"pofx compare {a} {b}" + _options(
            statistics=statistics, columns=columns, key=key, weight=weight, null=null
        )
        report.reproduce(f"{words} --seed {seed} --replicas {replicas}", {"compare": seed}).write(html)
        typer.echo(f"report: {html}", err=True)


def _report(found: Comparison, names: tuple[str, str]) -> Report:
    """With where the samples differ, unless these are clouds or have negative weights."""
    from pofx.metrics.weights import where
    from pofx.report.comparison import comparison_report

    try:
        place = where(*found.sides, seed=found.seed)
    except (CapabilityError, DataError) as error:
        return comparison_report(found, names).section("Where is it wrong?").text(f"Not told: {error}.")
    return comparison_report(found, names, place)


def _options(**given: object) -> str:
    """Those that were given, as words of the command line."""
    found = ""
    for name, value in given.items():
        words = value if isinstance(value, list) else [value]
        found += "".join(f" --{name} {shlex.quote(str(word))}" for word in words if word is not None and word != "auto")
    return found
