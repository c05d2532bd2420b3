"""Run the acceptance measurements of one issue and print their table.

usage: python benchmarks/acceptance/run.py --issue NN [--bar name] [--force]

Every script `NN_name.py` beside this file runs as its own process, unless `results/NN_name.json` was measured on the
current source. The exit status is 1 if a script failed or a bar was missed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import HERE, RESULTS, source_digest
from rich.console import Console
from rich.table import Table

VERDICT = {True: "[green]pass", False: "[red]FAIL", None: "-"}


def scripts(issue: int, bar: str | None) -> list[Path]:
    """The scripts of an issue, or the one called `bar`."""
    found = sorted(HERE.glob(f"{issue:02d}_*.py"))
    chosen = [path for path in found if bar in (None, path.stem, path.stem.partition("_")[2])]
    if not chosen:
        names = ", ".join(path.stem.partition("_")[2] for path in found) or "none"
        sys.exit(f"no script {issue:02d}_{bar or '*'}.py beside run.py; bars: {names}")
    return chosen


def result(script: Path) -> dict[str, Any] | None:
    """What the script has recorded on the current source, if it has."""
    path = RESULTS / f"{script.stem}.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    current = content.get("source") == source_digest(script.stem) and not content.get("missing")
    return content if current else None


def measure(script: Path, *, force: bool) -> dict[str, Any] | None:
    """The script's result: the recorded one, or that of a new run; None if the run failed or recorded nothing."""
    kept = None if force else result(script)
    if kept:
        print(f"{script.stem}: measured on {kept['date']} on this source", flush=True)
        return kept
    if force:
        (RESULTS / f"{script.stem}.json").unlink(missing_ok=True)
    print(f"{script.stem}: running", flush=True)
    status = subprocess.run([sys.executable, str(script)], check=False).returncode
    new = result(script)  # None as well if the script recorded nothing, for the old result is of another source
    if status or not new:
        print(f"{script.stem}: " + (f"exit status {status}" if status else "recorded no whole result"), flush=True)
        return None
    return new


def number(value: object) -> str:
    """Four significant digits; words and nothing as they are."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(results: dict[str, dict[str, Any] | None]) -> Table:
    """One line per row of every script."""
    out = Table("script", "measure", "value", "error", "bar", "", "seed", "seconds")
    for name, content in results.items():
        if content is None:
            out.add_row(name, "no result", "", "", "", "[red]FAIL", "", "")
            continue
        for row in content["rows"]:
            cells = [number(row[key]) for key in ("value", "error", "bar")]
            seed = str(row.get("seed", row.get("seeds")))
            out.add_row(name, row["measure"], *cells, VERDICT[row["passed"]], seed, number(content["seconds"]))
    return out


def main() -> int:
    """Parse, measure, print; 0 if all bars are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--issue", type=int, required=True)
    parser.add_argument("--bar", help="name of one script, without its number")
    parser.add_argument("--force", action="store_true", help="measure again what is recorded")
    options = parser.parse_args()
    results = {script.stem: measure(script, force=options.force) for script in scripts(options.issue, options.bar)}
    Console().print(table(results))
    met = sum(
        content is not None and all(row["passed"] is not False for row in content["rows"])
        for content in results.values()
    )
    print(f"{met} of {len(results)} scripts meet their bars")
    return 0 if met == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
