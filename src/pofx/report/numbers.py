"""Numbers as a report shows them: a value with its error, rounded to what the error says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Merit", "Value", "show"]


@dataclass(frozen=True)
class Value:
    """A number with its standard error (None where it has none) and unit.

    >>> str(Value(12.3456, 0.0321)), str(Value(1.5e-39, 2e-41, "cm^2")), str(Value(3.0))
    ('12.346 ± 0.032', '(1.500 ± 0.020)e-39 cm^2', '3')
    """

    value: float
    error: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        return f"{_rounded(self.value, self.error)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Merit:
    """A figure of merit: its value, its floor (what two samples of the truth give), and the bar it was measured against.

    ``passed`` is None where there is no bar.
    """

    name: str
    value: Value
    floor: Value | None = None
    bar: str = ""
    passed: bool | None = None
    note: str = ""


def show(item: Any) -> str:
    """Text of a table cell: strings as they are, numbers with four digits, None as a dash.

    >>> show(0.123456), show(None), show(7), show(True)
    ('0.1235', '–', '7', 'yes')
    """
    if item is None:
        return "–"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.4g}"
    return str(item)


def _rounded(value: float, error: float | None) -> str:
    if error is None or not math.isfinite(error) or not math.isfinite(value):
        return f"{value:.5g}" if error is None else f"{value:.5g} ± {error:.2g}"
    if error <= 0:
        return f"{value:.6g} ± 0"
    size = max(abs(value), error)
    power = math.floor(math.log10(size))
    if -4 <= power < 6:
        digits = max(0, 1 - math.floor(math.log10(error)))
        return f"{value:.{digits}f} ± {error:.{digits}f}"
    unit = 10.0**power
    digits = max(0, 1 - math.floor(math.log10(error / unit)))
    return f"({value / unit:.{digits}f} ± {error / unit:.{digits}f})e{power}"
