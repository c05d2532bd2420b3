"""Results of acceptance measurements: JSON files that say what was measured, how well, on which source, in what time.

A script `NN_name.py` collects rows and calls `record("NN_name", rows)`. A long one calls `save_partial` after each row
and starts from `load_partial`, so that an interrupted run goes on where it stopped, as long as the source is the same.
"""

import ast
import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE / "results"
REQUIRED = {"measure", "value", "error", "bar", "passed"}
TESTS = ("metrics", "classifiers")
PARTS = {
    "05_null": TESTS,
    "05_power": TESTS,
    "05_speed": TESTS,
    "05_calibration": ("metrics",),
    "05_mcmc": ("uncertainty",),
    "05_surrogate": ("tasks/classifier_surrogate", "uncertainty"),
    "06_collider": ("simulators/collider",),
    "06_formats": ("data",),
    "06_showers": ("simulators/calorimeter", "simulators/lartpc"),
    "06_truths": ("simulators",),
}
"""Packages of the library that a script measures (by the beginning of its name), where it is not all of it."""

Row = dict[str, Any]
_START = time.monotonic()
_EARLIER: dict[str, float] = {}  # seconds that interrupted runs had spent, by name


def record(name: str, rows: list[Row], *, path: Path | None = None, missing: Sequence[str] = ()) -> Path:
    """Write the rows of one script with their provenance, whole or not at all, and return the path.

    `missing` names rows that are still to be measured: such a result meets no bar, and the next run goes on from it.

    A row needs `measure`, `value`, `error`, `bar`, `passed` and `seed` or `seeds`; None where a number has no error or no
    bar. It may have more.
    """
    for row in rows:
        _check(name, row)
    path = path or RESULTS / f"{name}.json"
    to_come = {"missing": list(missing)} if missing else {}
    _write(path, {"name": name, "rows": rows, **to_come, **provenance(name)})
    if not missing:
        _partial(name).unlink(missing_ok=True)
    return path


def load_partial(name: str, *, any_source: bool = False, keep: Callable[[Row], bool] = bool) -> list[Row]:
    """The rows that an interrupted run saved and that `keep` wants; none if there was no such run, or the source has changed since.

    `any_source` takes the rows of an older source too, and those of a recorded result: for tables of many hours, whose rows say which
    commit they are of.
    """
    saved = saved_by_any(name, any_source=any_source)
    if not saved:
        return []
    _EARLIER[name] = max(one["seconds"] for one in saved)
    rows = {row["measure"]: row for one in saved for row in one["rows"] if keep(row)}
    return list(rows.values())


def saved_by_any(name: str, *, any_source: bool) -> list[dict[str, Any]]:
    """What is on the disk, later ones last: a recorded result if the source may be any, and what runs have saved since."""
    paths = [RESULTS / f"{name}.json", _partial(name)] if any_source else [_partial(name)]
    saved = [json.loads(path.read_text()) for path in paths if path.exists()]
    return [one for one in saved if any_source or one.get("source") == source_digest(name)]


@contextmanager
def alone(name: str) -> Iterator[None]:
    """No other process reads and writes the rows of this script meanwhile."""
    path = RESULTS / "partial" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def save_partial(name: str, rows: list[Row]) -> None:
    """Keep the rows so far; `record` removes them."""
    _write(_partial(name), {"rows": rows, "seconds": _seconds(name), "source": source_digest(name)})


def provenance(name: str) -> dict[str, Any]:
    """Source, machine and time of a result."""
    import torch

    return {
        "source": source_digest(name),
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--", ".", f":!{RESULTS.relative_to(ROOT)}")),
        "seconds": round(_seconds(name), 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def source_digest(name: str) -> str:
    """One hash for what is measured of the library, and the script: a result with another one was measured on another source.

    It is of the code alone: words in comments and docstrings change no number.
    """
    digest = hashlib.sha256()
    measured = sorted(path for part in _parts(name) for path in (ROOT / "src" / "pofx" / part).rglob("*.py"))
    for path in [*measured, HERE / f"{name}.py"]:
        if path.exists():
            digest.update(f"{path.relative_to(ROOT)}\n{_code(path.read_text())}".encode())
    return digest.hexdigest()[:16]


@functools.cache
def _code(text: str) -> str:
    """A module without its comments and docstrings, laid out anew."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _parts(name: str) -> tuple[str, ...]:
    return next((parts for begin, parts in PARTS.items() if name.startswith(begin)), ("",))


def _check(name: str, row: Row) -> None:
    missing = REQUIRED - row.keys()
    if not row.keys() & {"seed", "seeds"}:
        missing |= {"seed"}
    if missing:
        raise ValueError(f"{name}: the row {row.get('measure', row)!r} lacks {', '.join(sorted(missing))}")


def _seconds(name: str) -> float:
    return _EARLIER.get(name, 0.0) + time.monotonic() - _START


def _partial(name: str) -> Path:
    return RESULTS / "partial" / f"{name}.json"


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")
    scratch.replace(path)


def _plain(value: Any) -> Any:
    """What JSON can hold: numpy and torch numbers become Python's; not-a-number and infinities become words."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value


def git(*arguments: str) -> str | None:
    """What git says about the source; None where there is no repository."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
