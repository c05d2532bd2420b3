"""A collection of finished figures: each drawn once, kept as PNG and PDF, and closed."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pofx.report.style import style

__all__ = ["Figures", "Picture"]


@dataclass(frozen=True)
class Picture:
    """A drawn figure: ``png`` and ``pdf`` are the files' bytes, ``width`` is in inches."""

    name: str
    caption: str
    png: bytes
    pdf: bytes
    width: float

    @property
    def source(self) -> str:
        """The PNG as a ``data:`` URL."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


class Figures:
    """Figures by name, in the order they were added.

    >>> from matplotlib.figure import Figure
    >>> figures = Figures()
    >>> figures.add("an empty one", Figure(), "Nothing to see.").name
    'an-empty-one'
    """

    def __init__(self) -> None:
        self._pictures: dict[str, Picture] = {}

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self._pictures.values())

    def add(self, name: str, figure: Figure, caption: str = "") -> Picture:
        """Draw and close a figure. Its file name is made of ``name``, numbered if that is taken already."""
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "figure"
        free = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 10_000))) if n not in self._pictures)
        png = _drawn(figure, "png")
        with style():
            figure.set_layout_engine(None)  # the layout is found: looking for it again would draw all of it twice
        pdf = _drawn(figure, "pdf")
        picture = Picture(free, caption, png, pdf, float(figure.get_figwidth()))
        self._pictures[free] = picture
        _close(figure)
        return picture

    def write(self, folder: Path) -> list[Path]:
        """``NAME.png`` and ``NAME.pdf`` of every figure; returns the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for picture in self:
            for suffix, content in (("png", picture.png), ("pdf", picture.pdf)):
                paths.append(folder / f"{picture.name}.{suffix}")
                paths[-1].write_bytes(content)
        return paths


def _drawn(figure: Figure, kind: str) -> bytes:
    """The figure as a file without a date, so that the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=kind, metadata={"CreationDate": None} if kind == "pdf" else {"Software": None})
    return buffer.getvalue()


def _close(figure: Figure) -> None:
    """Free the figure, and its window if pyplot made one."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)
    figure.clear()
