"""``pofx run classifier-surrogate``: what a tagger would say of a jet, learnt from its features, with a band."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from pofx.cli_support import check_folder, command_line, grouped, splitted
from pofx.errors import ConfigError

if TYPE_CHECKING:
    from pofx.tasks.classifier_surrogate.data import Tagged

__all__ = ["classifier_surrogate", "summary"]


@dataclass(frozen=True)
class Jets:
    """Where the jets are; without a file a tagger is simulated whose smearing is known."""

    data: Annotated[Path | None, Option(help="Table of jets: .h5 .csv .npz .npy .parquet .root.")] = None
    features: Annotated[
        list[str] | None, Option(help="Columns that the score is learnt from, 'pt,eta'; may be repeated.")
    ] = None
    score: Annotated[str | None, Option(help="Column of the tagger's score, in (0, 1).")] = None
    label: Annotated[str | None, Option(help="Column of 0 and 1: is it signal? May be one of the features.")] = None
    weight: Annotated[str | None, Option(help="Column of weights.")] = None
    key: Annotated[list[str] | None, Option(help="Array, data set, group or tree in the file; may be repeated.")] = None
    saturated: Annotated[
        Literal["error", "clip"], Option(help="Scores of exactly 0 or 1: refuse, or move to the outermost other score.")
    ] = "error"

    def read(self) -> Tagged | None:
        """The jets of the file, or None where they are to be simulated."""
        if self.data is None:
            return None
        from pofx.tasks.classifier_surrogate.data import Tagged

        names = splitted(self.features)
        if names is None or self.score is None:
            raise ConfigError("--data: say which columns: --features pt,eta,... and --score NAME")
        return Tagged.read(
            self.data,
            features=names,
            score=self.score,
            label=self.label,
            weight=self.weight,
            key=self.key,
            saturated=self.saturated,
        )


@dataclass(frozen=True)
class Wanted:
    """What to make, how large, and where to write it."""

    out: Annotated[Path | None, Option("--out", "-o", help="Folder to write to.")] = None
    context_range: Annotated[
        list[str] | None,
        Option(help="Train only inside, NAME:LOW:HIGH; may be repeated. The rest shows what happens outside."),
    ] = None
    cut: Annotated[float | None, Option(help="On the score, for efficiencies.")] = None
    family: Annotated[
        Literal["spline-flow", "flow-matching"] | None, Option(help="With variational weights; by default the scale's.")
    ] = None
    scale: Annotated[
        Literal["smoke", "cpu", "gpu"], Option(help="smoke: seconds; cpu: minutes; gpu: the published size.")
    ] = "cpu"
    seed: Annotated[int, Option(help="Of everything random.")] = 1
    force: Annotated[bool, Option("--force", help="Write into a folder that has files already.")] = False

    def ranges(self) -> dict[str, tuple[float, float]]:
        """What ``--context-range`` says."""
        return dict(_range(text) for text in splitted(self.context_range) or ())


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, *ends = text.rsplit(":", 2)
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise ConfigError(f"--context-range: expected NAME:LOW:HIGH, such as pt:200:600; got {text!r}") from None
    if not (name and low < high):
        raise ConfigError(f"--context-range: expected a name and two rising numbers; got {text!r}")
    return name, (low, high)


@grouped
def classifier_surrogate(jets: Jets, wanted: Wanted) -> None:
    """What would the tagger say of this jet? Its scores, quantiles and efficiencies, with a Bayesian band."""
    if wanted.out is None:
        raise ConfigError("expected --out FOLDER, the folder to write to")
    ranges = wanted.ranges()
    if ranges and jets.data is None:
        raise ConfigError("--context-range: is for your own jets; expected --data FILE as well")
    check_folder(wanted.out, wanted.force)
    from pofx.tasks.classifier_surrogate.run import Settings, run

    settings = Settings(wanted.family, ranges, wanted.cut, command_line())
    table = run(wanted.out, jets.read(), scale=wanted.scale, seed=wanted.seed, settings=settings)
    typer.echo(summary(table, wanted.out))


def summary(table: dict[str, Any], out: Path) -> str:
    """What the terminal shows of an analysis."""
    sizes = table["jets"]
    lines = [f"{table['score']} given {', '.join(table['features'])}: {sizes['train']} jets, {sizes['test']} held out"]
    lines.append(f"{'':16}  {'C2ST':>15}  {'p':>7}  {'calibration p':>13}  {'-log p':>16}")
    for name, one in table["judged"].items():
        told, loss = one["c2st"], one["nll"]
        lines.append(
            f"{name:16}  {told['accuracy']:7.4f} ± {told['error']:.4f}  {told['p']:7.2g}  {one['calibration']['p']:13.2g}"
            f"  {loss[0]:7.4f} ± {loss[1]:.4f}"
        )
    lines += [
        f"band, {name}: {value:.2f} ± {error:.2f} times as wide" for name, (value, error) in table["growth"].items()
    ]
    for name, one in table["efficiencies"].items():
        counted, own = one["counted"], one["surrogate"]
        lines.append(
            f"score > {table['cut']:.4g}, {name}: {own[0]:.4f} ± {own[1]:.4f} (counted: {counted[0]:.4f} ± {counted[1]:.4f})"
        )
    files = f"{out / 'report.html'}: report; {out / 'surrogate.pofx'}: model; {table['total_seconds']:.0f} s"
    return "\n".join([*lines, files])
