"""The README of a release folder: what it is, five lines to use it, what each file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pofx.tasks.cross_section.published_measured import UNTESTABLE, Measured

__all__ = ["readme"]

FILES = {
    "measurement.csv": "one row per bin: name, unit, edges where they are known, central value, error",
    "covariance.csv": "the covariance matrix, bins as named in the header",
    "smearing.csv": "the matrix that predictions are multiplied by, one row per bin of the measurement",
    "measurement.h5": "the same with all digits: `central`, `covariance`, `bins`, `units`, and `edges/`, `smearing` where there are any",
    "model.pofx": "the density p(x) of the measurement; `pofx.load` reads it and checks it against its own validation vectors",
    "predictions.csv": "example predictions, one row each",
    "validation.csv": "what they must give: log-density (nats, with its tolerance), chi2, p-value with its 68.27 % interval",
    "release.json": "what this is, and the sha256 of every file",
}


def readme(name: str, measured: Measured, card: Mapping[str, Any], files: Sequence[str]) -> str:
    """The text, for a folder called ``name`` with these files besides the README and the card."""
    parts = [
        f"# {measured.title or 'A cross-section measurement'}",
        _about(measured, card),
        "## Use\n\nFrom the folder that this folder is in, with pofx installed:",
        f"```python\n{_five_lines(name, measured)}\n```",
        f"On the command line: `pofx run cross-section --release {name} --predict {name}/predictions.csv`",
        _density(measured, card),
        "## Files\n\n" + "\n".join(f"- `{file}`: {FILES[file]}" for file in FILES if file in (*files, "release.json")),
        _terms(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _five_lines(name: str, measured: Measured) -> str:
    bins = len(measured) if measured.smearing is None else measured.smearing.shape[1]
    return "\n".join(
        [
            "from pofx.tasks.cross_section.release import open_release",
            f'release = open_release("{name}")  # verifies every file, and the density against validation.csv',
            f"print(release.columns[0].name, release.central[0], release.covariance.shape)  # {measured.names[0]}, ...",
            f'print(release.p_values("{name}/predictions.csv"))  # or {{"my model": an array of {bins} bins}}',
            "toys = release.toys(1000, seed=1)  # throws of the measurement, (1000, bins)",
        ]
    )


def _about(measured: Measured, card: Mapping[str, Any]) -> str:
    lines = [f"{len(measured)} bins{f', in {measured.unit}' if measured.unit else ''}."]
    lines += [f"By {', '.join(card['authors'])}."] if card["authors"] else []
    lines += [f"- {note}" for note in card["notes"]]
    if measured.smearing is not None:
        lines.append(
            "- Predictions are multiplied by the smearing matrix before they are compared (`p_values` does that)."
        )
    return "\n".join(lines)


def _density(measured: Measured, card: Mapping[str, Any]) -> str:
    if card["model"] is None:
        law = "p-values are bracketed between the Gaussian and the lognormal of the same mean and covariance."
        return f"## No density\n\n{UNTESTABLE} {law}"
    family, thrown = card["model"]["family"], f"{card['toys']} throws, seed {card['seed']}, in `validation.csv`"
    return (
        f"## Density\n\n`model.pofx` is the density of the {len(measured)} bins together ({family}). "
        f"p-values are shares of its throws that are at most as probable as a prediction ({thrown}), "
        "by the density per unit of the bins as they are here: other coordinates (logarithms, say) rank otherwise. "
        "A density has no marginals in closed form: for some of the bins alone, take those columns of `release.toys`."
    )


def _terms(card: Mapping[str, Any]) -> str:
    licence = f"Licence: {card['licence']}." if card["licence"] else "Licence: not stated."
    citation = f"Please cite: {card['citation']}" if card["citation"] else ""
    return "## Terms\n\n" + "\n\n".join(filter(None, [licence, citation]))
