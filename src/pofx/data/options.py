"""Settings of the readers: those the user sees, and the request that a format module receives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pofx.data.patterns import Patterns

__all__ = ["ReadOptions", "Request"]


@dataclass(frozen=True)
class ReadOptions:
    """Rarely needed settings of :func:`pofx.read`.

    Attributes
    ----------
    stream : True reads rows from the file as they are needed, False loads everything; None decides by ``memory``.
    memory : bytes up to which a table is loaded (256 MiB).
    clouds : ROOT only: name of a cloud field -> jagged branches (names or patterns) that become its features.
    points : the largest number of points kept per cloud (default: the largest in the file); the first ones are kept.
    header : CSV only: whether the first line holds names; None finds out.
    format : name of a public format (:mod:`pofx.data.public`) that the file must have; None recognises it, ``"none"`` takes arrays as
        they are.
    delimiter : CSV only: ``","``, ``";"``, a tab, or ``" "`` for any white space; None finds out.
    """

    stream: bool | None = None
    memory: int = 256 << 20
    clouds: Mapping[str, Patterns] = field(default_factory=dict)
    points: int | None = None
    header: bool | None = None
    delimiter: str | None = None
    format: str | None = None

    def in_memory(self, size: int) -> bool:
        """Whether a table of so many bytes is loaded whole."""
        return size <= self.memory if self.stream is None else not self.stream


@dataclass(frozen=True)
class Request:
    """What a format module is asked for beyond the path: keys, and the names that the user mentioned."""

    key: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    options: ReadOptions = field(default_factory=ReadOptions)

    @staticmethod
    def of(
        key: str | Sequence[str] | None, named: frozenset[str] = frozenset(), options: ReadOptions | None = None
    ) -> Request:
        """A request from what the user gave."""
        return Request((key,) if isinstance(key, str) else tuple(key or ()), named, options or ReadOptions())
