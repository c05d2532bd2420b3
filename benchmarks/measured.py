"""Write tables of acceptance results into the documentation, between the marks of their pages.

python benchmarks/measured.py
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from comparison import table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "acceptance" / "results"
Row = dict[str, Any]
Rows = dict[str, Row]


def read(name: str) -> Rows:
    """Rows of a result by measure; none where it is not there."""
    path = RESULTS / f"{name}.json"
    return {row["measure"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


def number(row: Row, key: str = "value", error: str | None = "error") -> str:
    """A number with its error, as many digits as it has."""
    value, spread = row.get(key), row.get(error or "")
    if value is None:
        return ""
    return f"{value:.4g} ± {spread:.2g}" if spread else f"{value:.4g}"


def begun(rows: Rows, start: str) -> Iterator[tuple[str, Row]]:
    """The rest of the names of rows that begin so."""
    return ((measure.removeprefix(start), row) for measure, row in rows.items() if measure.startswith(start))


# Simulators


def speeds() -> str:
    """Events per second of one core."""
    lines = [[f"`{name.removesuffix(', events per second')}`", f"{row['value']:.3g}"] for name, row in
             begun(read("06_collider"), "speed: ") if "workers" not in name]  # fmt: skip
    lines += [[name, f"{row['value']:.3g}"] for name, row in begun(read("06_showers"), "speed, ")]
    lines += [[name.removesuffix(", events per second of one core"), f"{row['value']:.3g}"] for name, row in
              begun(read("06_truths"), "speed: ") if "workers" not in name]  # fmt: skip
    return table(["simulator", "events per second of one core"], lines)


def workers() -> str:
    """Two processes over one."""
    found = {**read("06_collider"), **read("06_showers"), **read("06_truths")}
    names = {
        "speed: two workers to one": "`lhco-signal`",
        "two workers, geant4 ild 10 GeV photon": "Geant4, ILD",
        "two workers, walk liquid argon": "`lartpc-walk`",
        "speed: splitting-shower, two workers to one": "`splitting-shower`",
    }
    return table(
        ["simulator", "speed of two workers over one"],
        [[name, number(found[key])] for key, name in names.items() if key in found],
    )


def olympics() -> str:
    """Features beside the public sample."""
    rows, lines = read("06_collider"), []
    for name, row in begun(rows, "signal: median of "):
        feature = name.split(",")[0]
        apart = [rows[f"{kind}: distance of {feature} to the public sample"] for kind in ("signal", "background")]
        lines.append(
            [feature, f"{row['ours']:.4g}", f"{row['public']:.4g}", number(row)]
            + [f"{one['value']:.3f} ({one['floor']:.3f})" for one in apart]
        )
    return table(
        [
            "feature",
            "signal's median",
            "public",
            "ratio",
            "signal: KS distance (floor)",
            "background: KS distance (floor)",
        ],
        lines,
    )


def peaks() -> str:
    """Where resonances are."""
    lines = [[name.removesuffix(", off by [GeV]"), f"{row['median']:.2f}", number(row)] for name, row in
             begun(read("06_collider"), "peak: ")]  # fmt: skip
    return table(["resonance", "median mass [GeV]", "off by [GeV]"], lines)


def jets() -> str:
    """Jets of quarks, gluons, tops."""
    rows = read("06_collider")
    lines = [
        [kind, *(number(rows[f"jets: {kind}, median of {what}"]) for what in ("mass [GeV]", "particles"))]
        for kind in "qgt"
        if f"jets: {kind}, median of particles" in rows
    ]
    return table(["jet of", "median mass [GeV]", "median number of particles"], lines)


def geant4() -> str:
    """Against showers on file and Geant4's reference."""
    rows, lines = read("06_showers"), []
    for name, row in rows.items():
        if "p_value" in row:
            lines.append([name, f"T²/ndf = {row['value']:.2f}", f"p = {row['p_value']:.2g}"])
    lines += [[name, number(row), f"{row['reference']:g}"] for name, row in rows.items() if name.startswith("TestEm2")]
    return table(["what", "value", "p-value or reference"], lines)


def gflash() -> str:
    """GFlash beside Geant4."""
    rows, lines = read("06_showers"), []
    for name, row in begun(rows, "gflash, "):
        geometry, what = name.split(", ")
        if what == "mean depth":
            profiles = [rows[f"gflash, {geometry}, {kind}"] for kind in ("longitudinal", "radial")]
            shown = [f"{number(one)} ({one['floor']:.2g})" for one in profiles]
            lines.append([geometry, number(row), f"{row['response_ratio']:.3f}", *shown])
    return table(
        [
            "calorimeter",
            "mean depth, GFlash − Geant4 [X0]",
            "response ratio",
            "longitudinal distance (floor)",
            "radial distance (floor)",
        ],
        lines,
    )


# Instruments


def power() -> str:
    """Share of repetitions that find a deformation, by size; the classifier is the judge of trees."""
    rows = read("05_power")
    cases = list(dict.fromkeys(measure.rpartition(": ")[0] for measure in rows))
    names = list(dict.fromkeys(measure.rpartition(": ")[2] for measure in rows))
    lines = [[case, *(f"{rows[f'{case}: {name}']['value']:.2f}" for name in names)] for case in cases]
    titles = {"classifier 0": "accuracy", "classifier 1": "AUC", "classifier 2": "JSD"}
    titles |= dict(zip((f"prdc {k}" for k in range(4)), ("precision", "recall", "density", "coverage"), strict=True))
    return table(["deformation, events", *(titles.get(name, name.removesuffix(" 0")) for name in names)], lines)


def bands() -> str:
    """Calibration of Bayesian flows."""
    rows, lines = read("05_bayesian_flow"), []
    for case in dict.fromkeys(measure.rpartition(": ")[0] for measure in rows):
        toy, method = case.split(", ")
        parts = [rows.get(f"{case}: {what}", {}) for what in ("pull mean", "pull width", "edges over middle")]
        lines.append([toy, method, *map(number, parts), f"{parts[0].get('cost', '')}"])
    return table(["toy", "method", "mean of pulls", "width of pulls", "band at edges over middle", "CPU s"], lines)


def ensembles() -> str:
    """One after the other over together."""
    rows, lines = read("05_ensembles"), []
    for case in dict.fromkeys(measure.partition(" members")[0].rpartition(", ")[0] for measure in rows):
        found = {
            k: row for measure, row in rows.items() if measure.startswith(case) for k in (5, 20) if f", {k} " in measure
        }
        lines.append([case, *(number(found.get(k, {})) for k in (5, 20))])
    return table(["family", "5 members", "20 members"], lines)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "simulators-measured": {
        "speeds": speeds,
        "workers": workers,
        "olympics": olympics,
        "peaks": peaks,
        "jets": jets,
        "geant4": geant4,
        "gflash": gflash,
    },
    "two-sample-tests": {"power": power},
    "uncertainty": {"bands": bands, "ensembles": ensembles},
}


def written(text: str, made: Iterable[tuple[str, str]]) -> str:
    """The page with these tables between their marks."""
    for name, content in made:
        begin, end = f"<!-- table: {name} -->", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            sys.exit(f"expected the marks {begin} and {end}")
        text = f"{text.partition(begin)[0]}{begin}\n\n{content}\n\n{end}{text.partition(end)[2]}"
    return text


def main() -> None:
    """All pages."""
    for page, tables in PAGES.items():
        path = ROOT / "docs" / f"{page}.md"
        made = [(name, make()) for name, make in tables.items()]
        path.write_text(written(path.read_text(), (one for one in made if one[1].count("\n") > 1)))
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
