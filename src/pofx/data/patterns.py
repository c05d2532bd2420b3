"""Columns chosen by name or pattern (``bin*``, ``!bin3``), and declarations of their units, types and ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pofx.data.spec import Column, parse_column
from pofx.errors import ColumnError

__all__ = [
    "Declarations",
    "Patterns",
    "close",
    "declare_columns",
    "is_pattern",
    "listing",
    "match",
    "match_names",
    "parse_declarations",
]

Patterns = str | Sequence[str]
Declarations = Column | str | Iterable[Column | str]


def is_pattern(text: str) -> bool:
    """Whether the text selects by pattern instead of naming one column."""
    return any(sign in text for sign in "*?") or text.startswith("!")


def listing(names: Iterable[str], most: int = 12) -> str:
    """Names for an error message, shortened where there are many."""
    full = [str(name) for name in names]
    return ", ".join(full[:most]) + (f", ... ({len(full)} in all)" if len(full) > most else "")


def close(name: str, names: Iterable[str]) -> str:
    """A hint with the closest names, and otherwise with all of them."""
    full = list(names)
    near = get_close_matches(name, full, n=3, cutoff=0.6) or [n for n in full if n.lower() == name.lower()]
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"there are: {listing(full) or 'none'}"


def match(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that equal the pattern, or else that fit it (``*`` and ``?``), in their order."""
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def match_names(patterns: Patterns, names: Sequence[str], where: str) -> list[str]:
    """The chosen names in the order of the patterns; ``!pattern`` removes; a pattern without a match is an error.

    >>> match_names(["*", "!b"], ["a", "b", "c"], "example")
    ['a', 'c']
    """
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    odd = [pattern for pattern in wanted if type(pattern) is not str]
    if odd:
        raise ColumnError(f"{where}: expected names or patterns of columns; got {odd[0]!r}")
    if wanted and all(p.startswith("!") and p not in names for p in wanted):
        wanted = ["*", *wanted]
    chosen: dict[str, None] = {}
    for pattern in wanted:
        negative = pattern.startswith("!") and pattern not in names
        found = match(pattern[1:] if negative else pattern, names)
        if not found:
            raise ColumnError(f"{where}: no column matches {pattern!r}; {close(pattern.lstrip('!'), names)}")
        chosen = {n: None for n in chosen if n not in found} if negative else chosen | dict.fromkeys(found)
    return list(chosen)


def parse_declarations(declare: Declarations) -> list[Column]:
    """Columns from columns or from ``name:unit:type:low:high`` texts; the name may be a pattern."""
    if isinstance(declare, (str, Column)):
        declare = [declare]
    return [parse_column(item) if isinstance(item, str) else item for item in declare]


def declare_columns(columns: Sequence[Column], declare: Declarations, where: str) -> tuple[Column, ...]:
    """The columns with the declarations applied; an exact name beats a pattern, anything else said twice is an error."""
    names = [column.name for column in columns]
    exact: dict[str, Column] = {}
    loose: dict[str, Column] = {}
    for item in parse_declarations(declare):
        target = exact if item.name in names else loose
        found = match(item.name, names)
        if not found:
            raise ColumnError(f"{where}: declared column {item.name!r} matches none; {close(item.name, names)}")
        for name in found:
            if name in target:
                raise ColumnError(
                    f"{where}: column {name!r} is declared twice ({target[name].name!r} and {item.name!r})"
                )
            target[name] = item
    chosen = loose | exact
    return tuple(replace(chosen[c.name], name=c.name) if c.name in chosen else c for c in columns)
