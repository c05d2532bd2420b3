"""How pofx figures look: mplhep's style at document size, one fixed colour per role, labels that carry the unit.

Nothing is changed globally: figures are made and saved inside :func:`style`, a context manager. Colours are those of Okabe and Ito,
told apart by colour-blind readers; truth, model and baseline differ in shape as well (points, band, dashed line).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.mathtext import MathTextParser
from numpy.typing import ArrayLike

from pofx.data.spec import Column

__all__ = ["COLOURS", "Scaled", "cells", "escaped", "new_figure", "scaled", "shortened", "style"]

COLOURS = {
    "truth": "#1f1f1f",
    "model": "#0072b2",
    "baseline": "#d55e00",
    "train": "#999999",
    "good": "#009e73",
    "warning": "#cc3311",
}
"""Colour of each role, the same in every figure."""

_SIZES: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.family": ["TeX Gyre Heros", "DejaVu Sans"],
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "axes.formatter.limits": (-3, 4),
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "errorbar.capsize": 0,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
}
_SIZES |= {f"{axis}tick.{size}.size": length for axis in "xy" for size, length in (("major", 4.5), ("minor", 2.5))}
_SIZES |= {f"{axis}tick.{size}.width": width for axis in "xy" for size, width in (("major", 0.8), ("minor", 0.6))}
_SIZES |= {"xtick.major.pad": 4, "ytick.major.pad": 4, "ytick.minor.visible": False}
_STYLE: dict[Any, Any] = {**mplhep.style.ROOT, **_SIZES}
_MATH = MathTextParser("path")


@contextmanager
def style() -> Iterator[None]:
    """The settings that pofx figures are made and saved with; what was set before is back afterwards.

    >>> import matplotlib
    >>> before = matplotlib.rcParams["font.size"]
    >>> with style():
    ...     inside = matplotlib.rcParams["font.size"]
    >>> inside, matplotlib.rcParams["font.size"] == before
    (10.0, True)
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield


def new_figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """An empty figure of this size in inches that belongs to no window and needs no closing."""
    return Figure(figsize=(width, height), layout=layout)


def cells(
    down: int, across: int, size: tuple[float, float], gap: tuple[float, float], left: float = 0.0, bottom: float = 0.55
) -> tuple[Figure, GridSpec]:
    """A figure of equal cells with fixed margins, laid out at once where constrained layout takes seconds.

    All in inches: ``size`` of a cell, ``gap`` between them, the margins ``left`` (0 takes the gap) and ``bottom``.
    """
    top, right, left = 0.7, 0.12, left or gap[0]
    width = across * (size[0] + gap[0]) - gap[0] + left + right
    height = down * (size[1] + gap[1]) - gap[1] + bottom + top
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        down, across, left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height,
        wspace=gap[0] / size[0], hspace=gap[1] / size[1],
    )  # fmt: skip
    return figure, grid


def shortened(text: str, most: int = 32) -> str:
    """At most ``most`` characters, the middle left out.

    >>> shortened("a_rather_long_name_of_a_column", 13)
    'a_rath…column'
    """
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def escaped(text: str) -> str:
    """Text that matplotlib can draw: mathematics between dollars stays where it is valid, other dollars are shown as they are."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    try:
        _MATH.parse(plain, 72)
    except ValueError:
        return plain.replace("$", r"\$")
    return plain


def _unit(text: str) -> str:
    """``cm^2/GeV`` with its powers raised."""
    return text if "$" in text else re.sub(r"\^\{?([+-]?\d+)\}?", r"$^{\1}$", text)


@dataclass(frozen=True)
class Scaled:
    """Values are to be divided by ``10**exponent`` before they are drawn; ``label`` says so, with the unit."""

    exponent: int
    label: str

    def __call__(self, values: ArrayLike) -> np.ndarray[Any, np.dtype[np.float64]]:
        """``values / 10**exponent``."""
        return np.asarray(values, float) / 10.0**self.exponent


def scaled(column: Column, values: ArrayLike, *, what: str | None = None) -> Scaled:
    """The power of ten and the axis label for a column.

    Parameters
    ----------
    column : its name (unless ``what`` is given) and unit make the label.
    values : anything of the size of what will be drawn; values between 0.001 and 10000 are drawn as they are.

    >>> scaled(Column("sigma", "cm^2"), [2e-39, 5e-39]).label
    'sigma [$10^{-39}$ cm$^{2}$]'
    """
    largest = float(np.max(np.abs(np.asarray(values, float)), initial=0.0))
    exponent = math.floor(math.log10(largest)) if largest > 0 and not 1e-3 <= largest < 1e4 else 0
    factor = f"$10^{{{exponent}}}$" if exponent else ""
    unit = " ".join(part for part in (factor, _unit(column.unit)) if part)
    name = shortened(what or column.name)
    return Scaled(exponent, escaped(f"{name} [{unit}]" if unit else name))
