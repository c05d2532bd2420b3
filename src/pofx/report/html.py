"""A report as one HTML file that needs nothing else: styles and images are inside, PDFs of the figures lie beside it.

Text that comes from a user (names, units, paths) is escaped; the page is well-formed XML and has no script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal, Self

from matplotlib.figure import Figure

from pofx.report.figures import Figures, Picture
from pofx.report.numbers import Merit, Value, show
from pofx.report.page import CSS

__all__ = ["Report"]

FOLD = 20
"""Rows above which a table is folded away."""

Level = Literal["good", "note", "warning"]


class Report:
    """A page of sections; every method but ``write`` adds to the last section and returns the report.

    Parameters
    ----------
    title : of the page.
    subtitle : a line under it.

    >>> report = Report("Toys").section("Numbers").table(["what", "value"], [["mean", Value(1.0, 0.1)]])
    >>> "1.00 ± 0.10" in report.html()
    True
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self.figures = Figures()
        self._sections: list[tuple[str, list[str]]] = []
        self._findings: list[tuple[Level, str]] = []

    def section(self, title: str) -> Self:
        """Begin a section."""
        self._sections.append((title, []))
        return self

    def text(self, paragraph: str) -> Self:
        """A paragraph of plain text."""
        return self._add(f"<p>{_safe(paragraph)}</p>")

    def finding(self, level: Level, sentence: str) -> Self:
        """A sentence for the box at the top: what is good, what to note, what to worry about."""
        self._findings.append((level, sentence))
        return self

    def figure(self, name: str, figure: Figure, caption: str = "") -> Self:
        """A figure, which is drawn now and closed; ``name`` becomes the name of its PDF."""
        return self._add(self.figures.add(name, figure, caption))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> Self:
        """A table; cells are text, numbers, :class:`~pofx.report.numbers.Value` or None. A long one is folded away behind its caption."""
        if len(rows) <= FOLD:
            return self._add(_table(head, rows, caption))
        summary = f"{caption} {len(rows)} rows.".strip()
        return self._add(f"<details><summary>{_safe(summary)}</summary>{_table(head, rows, '')}</details>")

    def facts(self, facts: Mapping[str, Any], caption: str = "") -> Self:
        """A table of two columns: what, and how much."""
        return self._add(_table((), list(facts.items()), caption, "facts"))

    def merits(self, merits: Sequence[Merit], caption: str = "") -> Self:
        """Figures of merit with value ± error, floor and bar."""
        rows = [
            (
                m.name,
                m.value,
                m.floor,
                m.bar or None,
                "" if m.passed is None else "pass" if m.passed else "FAIL",
                m.note,
            )
            for m in merits
        ]
        keep = [i for i in range(6) if i < 3 or any(row[i] not in (None, "") for row in rows)]
        head = ("quantity", "value", "floor", "bar", "", "note")
        return self._add(_table([head[i] for i in keep], [[row[i] for i in keep] for row in rows], caption))

    def details(self, title: str, content: Any) -> Self:
        """A block that opens on click: text as it is, anything else as JSON (a model's card, for example)."""
        text = content if isinstance(content, str) else json.dumps(content, indent=1, default=str, ensure_ascii=False)
        return self._add(f"<details><summary>{_safe(title)}</summary><pre>{_safe(text)}</pre></details>")

    def reproduce(self, command: str, seeds: Mapping[str, Any] | None = None, **facts: Any) -> Self:
        """The section that says how this was made: the command, the seeds, versions and whatever else is given."""
        self.section("Reproduction")._add(f"<pre>{_safe(command)}</pre>")
        named = {f"seed: {name}": value for name, value in (seeds or {}).items()}
        return self.facts({**named, **facts, **{f"version: {name}": text for name, text in versions().items()}})

    def write(self, path: str | Path) -> Path:
        """Write the page, and its figures as PDF and PNG into the folder ``STEM-figures`` beside it; returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = f"{path.stem}-figures"
        if len(self.figures):
            self.figures.write(path.parent / folder)
        path.write_text(self.html(folder), encoding="utf-8")
        return path

    def html(self, folder: str = "figures") -> str:
        """The page as text; links to PDFs point into ``folder``."""
        body = [f"<h1>{_safe(self.title)}</h1>"]
        if self.subtitle:
            body.append(f'<p class="subtitle">{_safe(self.subtitle)}</p>')
        body += [_findings(self._findings), self._contents()]
        for number, (title, blocks) in enumerate(self._sections, 1):
            inner = "\n".join(_figure(b, folder) if isinstance(b, Picture) else b for b in blocks)
            body.append(f'<section id="s{number}"><h2>{number}. {_safe(title)}</h2>\n{inner}</section>')
        head = f'<meta charset="utf-8"/><meta name="viewport" content="width=device-width"/><title>{_safe(self.title)}</title>'
        text = "\n".join(part for part in body if part)
        return f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{CSS}</style></head>\n<body>{text}</body></html>\n'

    def _contents(self) -> str:
        entries = "".join(
            f'<li><a href="#s{i}">{_safe(title)}</a></li>' for i, (title, _) in enumerate(self._sections, 1)
        )
        return f"<nav><ol>{entries}</ol></nav>" if len(self._sections) > 1 else ""

    def _add(self, block: str | Picture) -> Self:
        if not self._sections:
            self.section("Summary")
        self._sections[-1][1].append(block)  # type: ignore[arg-type]
        return self


def versions() -> dict[str, str]:
    """Versions of Python, pofx and what it computes with."""
    import platform
    from importlib import metadata

    from pofx import __version__

    found = {"python": platform.python_version(), "pofx": __version__}
    for name in ("torch", "numpy", "scipy", "matplotlib"):
        found[name] = metadata.version(name)
    return found


def _safe(text: Any) -> str:
    """Escaped, without characters that XML does not allow."""
    return escape("".join(c for c in show(text) if c in "\n\t" or ((c.isprintable() or c.isspace()) and c >= " ")))


def _findings(findings: Sequence[tuple[Level, str]]) -> str:
    marks = {"good": "✓", "note": "i", "warning": "!"}
    order = sorted(findings, key=lambda f: ("warning", "note", "good").index(f[0]))
    items = "".join(f'<li class="{level}"><b>{marks[level]}</b> {_safe(text)}</li>' for level, text in order)
    return f'<ul class="findings">{items}</ul>' if items else ""


def _figure(picture: Picture, folder: str) -> str:
    link = escape(f"{folder}/{picture.name}.pdf".replace("%", "%25").replace(" ", "%20").replace("#", "%23"))
    image = f'<img src="{picture.source}" alt="{_safe(picture.caption or picture.name)}" style="width:{picture.width * 76:.0f}px"/>'
    return f'<figure id="{picture.name}">{image}<figcaption>{_safe(picture.caption)} <a href="{link}">PDF</a></figcaption></figure>'


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], caption: str, kind: str = "") -> str:
    top = "".join(f"<th>{_safe(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    note = f"<caption>{_safe(caption)}</caption>" if caption else ""
    title = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="scroll"><table class="{kind}">{note}{title}<tbody>{body}</tbody></table></div>'


def _cell(item: Any) -> str:
    number = isinstance(item, (int, float, Value)) and not isinstance(item, bool)
    kind = "number" if number else {"pass": "good", "FAIL": "warning"}.get(item if isinstance(item, str) else "", "")
    return f'<td class="{kind}">{_safe(item)}</td>' if kind else f"<td>{_safe(item)}</td>"
