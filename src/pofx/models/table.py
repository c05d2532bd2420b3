"""What every registered family can do, read from the code: the table of ``pofx list`` and of the documentation.

>>> print(capability_table("markdown").splitlines()[0])
| family | vector | grid | cloud | density | encode | context | periodic | discrete | teacher |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pofx.models.base import Capabilities
from pofx.registry import family_class, family_names

__all__ = ["COLUMNS", "KINDS", "capability_row", "capability_table", "summary_of"]

KINDS = ("vector", "grid", "cloud")
COLUMNS = ("family", *KINDS, "density", "encode", "context", "periodic", "discrete", "teacher")


def capability_row(name: str) -> dict[str, str]:
    """One family: ``"yes"`` or ``""`` per kind of field and ability, the density's quality, kinds of context.

    >>> capability_row("spline-flow")["density"]
    'exact'
    """
    can: Capabilities = family_class(name).capabilities
    able = {kind: kind in can.kinds for kind in KINDS} | {
        "encode": can.encode,
        "periodic": can.periodic,
        "discrete": can.discrete,
        "teacher": can.teacher,
    }
    words = {"family": name, "density": can.density, "context": ", ".join(k for k in KINDS if k in can.context)}
    return {column: words[column] if column in words else "yes" if able[column] else "" for column in COLUMNS}


def summary_of(name: str) -> str:
    """The first line of the family's docstring, without markup."""
    return re.sub(r":math:`([^`]*)`", r"\1", (family_class(name).__doc__ or "").strip().partition("\n")[0])


def capability_table(style: Literal["markdown", "text"] = "text", names: Iterable[str] | None = None) -> str:
    """The table of all families (or of some), as Markdown with links to their pages, or as aligned text with their summaries."""
    rows = [_row(name) for name in (family_names() if names is None else names)]
    if style == "markdown":
        linked = [{**row, "family": f"[`{row['family']}`]({row['family']}.md)"} for row, _ in rows]
        return "\n".join([_bar(COLUMNS), _bar(["---"] * len(COLUMNS)), *(_bar(row.values()) for row in linked)])
    lines = [(*COLUMNS, ""), *((*row.values(), note) for row, note in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _row(name: str) -> tuple[dict[str, str], str]:
    """The row of a family and its summary; a family that was registered from elsewhere and cannot be imported says so."""
    try:
        return capability_row(name), summary_of(name)
    except ImportError as error:
        return dict.fromkeys(COLUMNS, "") | {"family": name}, f"not available: {error}"


def _bar(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
