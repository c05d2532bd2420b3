"""Write the tables of `docs/families/comparison.md` from the results of `benchmarks/acceptance/04_shapes.py`, between its two marks.

python benchmarks/comparison.py
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "acceptance" / "results" / "04_shapes.json"
PAGE = ROOT / "docs" / "families" / "comparison.md"
BEGIN, END = "<!-- tables: made by benchmarks/comparison.py -->", "<!-- end of tables -->"
PLANE = (
    "two-moons", "rings", "checkerboard", "eight-gaussians", "twenty-five-gaussians",
    "spirals", "swiss-roll", "pinwheel", "banana", "sine-wave",
)  # fmt: skip
Rows = dict[tuple[str, str], dict[str, Any]]


def read(path: Path = RESULT) -> Rows:
    """Rows by family and set."""
    rows = json.loads(path.read_text())["rows"]
    return {tuple(row["measure"].removesuffix(": C2ST").split(", ")): row for row in rows}


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    cells = [list(head), *map(list, lines)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def link(family: str) -> str:
    """The family's page."""
    return f"[`{family}`]({family}.md)"


def by_set(rows: Rows, sets: Iterable[str], show: Callable[[dict[str, Any]], str]) -> str:
    """One line per family, one column per set."""
    kept = [name for name in sets if any(key[1] == name for key in rows)]
    families = list(dict.fromkeys(family for family, name in rows if name in kept))
    found = {f: [show(rows[f, name]) if (f, name) in rows else "" for name in kept] for f in families}
    lines = [[link(family), *cells] for family, cells in found.items() if any(cells)]
    return table(["family", *kept], lines)


def score(row: dict[str, Any]) -> str:
    """C2ST; bold where a bar is missed."""
    text = "refused" if row["value"] is None else f"{row['value']:.3f}"
    return f"**{text}**" if row["passed"] is False else text


def loss(row: dict[str, Any]) -> str:
    """Log-likelihood lost per event, with its error, and a mark for what is no exact density."""
    if row.get("nll_minus_truth") is None:
        return ""
    mark = {"exact": "", "estimate": "~", "bound": "≤ "}[row["density"]]
    return f"{mark}{row['nll_minus_truth']:.3f} ± {row['nll_error']:.3f}"


def cost(rows: Rows) -> str:
    """Medians over the shapes in the plane."""
    lines = []
    for family in dict.fromkeys(family for family, _ in rows):
        mine = [rows[family, name] for name in PLANE if rows.get((family, name), {}).get("value") is not None]
        if not mine:
            continue
        evaluations = [row["evaluations"] for row in mine if row.get("evaluations")]
        lines.append(
            [
                link(family),
                f"{statistics.median(60 * row.get('cpu_minutes', row['minutes']) for row in mine):.0f}",
                f"{statistics.median(row['microseconds_per_event'] for row in mine):.1f}",
                f"{statistics.median(evaluations):g}" if evaluations else "",
                f"{statistics.mean(row['value'] for row in mine):.3f}",
                f"{max(row['value'] for row in mine):.3f}",
            ]
        )
    head = ["family", "training, s", "sampling, µs per event", "evaluations", "mean C2ST", "worst C2ST"]
    return table(head, lines)


def floors(rows: Rows, sets: Iterable[str]) -> str:
    """The floor of each set."""
    found = {name: row for (_, name), row in rows.items() if row.get("floor") is not None}
    return ", ".join(
        f"{name} {found[name]['floor']:.3f} ± {found[name]['floor_error']:.3f}" for name in sets if name in found
    )


def tables(rows: Rows) -> str:
    """Everything between the marks."""
    others = sorted({name for _, name in rows} - set(PLANE))
    errors = [row["error"] for row in rows.values() if row["value"] is not None]
    beyond = ["### C2ST of the other sets", f"Floors: {floors(rows, others)}.", by_set(rows, others, score)]
    parts = [
        "### C2ST in the plane",
        f"0.5 is perfect, 1 is told apart always; errors are {min(errors):.3f} to {max(errors):.3f}. Bold: above its bar.",
        f"Floors: {floors(rows, PLANE)}.",
        by_set(rows, PLANE, score),
        *(beyond if others else []),
        "### Cost in the plane",
        "Medians over the ten shapes, on one core, not all of the same machine; a student's training is without its teacher's.",
        cost(rows),
        "### Log-likelihood lost",
        "The mean of $\\log p - \\log q$ in nats per event, where the truth p and the model's density q are there.",
        "A ~ marks estimates, ≤ what a bound leaves at most.",
        by_set(rows, [*PLANE, *others], loss),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Replace what is between the marks."""
    page = PAGE.read_text()
    if BEGIN not in page or END not in page:
        sys.exit(f"{PAGE}: expected the marks {BEGIN!r} and {END!r}")
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables(read())}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
