r"""Columns that lie between ends which other columns set: sorted momenta, a part below its whole.

A condition such as x_a > x_b bounds the column that comes later by the one that comes earlier. With l and h the largest lower and the
smallest upper end, declared ones included,

.. math:: z = \log\frac{x - l}{h - x}, \qquad z = \log(x - l) \quad\text{or}\quad z = -\log(h - x)

where only one end exists. The map is triangular, so its log-Jacobian is the sum of the logarithms of :math:`\partial z/\partial x`:
:math:`\log(h - l) - \log(x - l) - \log(h - x)`, :math:`-\log(x - l)` and :math:`-\log(h - x)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from pofx.bijections.fitted import Fitted, check_finite
from pofx.data.spec import Column
from pofx.errors import ConfigError, DataError

__all__ = ["Condition", "Ordered", "Span", "spans_of"]

Condition = tuple[str, str, str]
"""Two column names with ``">"`` or ``"<"`` between them."""

Ends = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Span:
    """The ends of one column: declared ones, and the columns (of smaller number) that it lies above and below."""

    column: int
    low: float | None = None
    above: tuple[int, ...] = ()
    high: float | None = None
    below: tuple[int, ...] = ()


class Ordered(Fitted):
    """Every column that a :class:`Span` names to the whole line; the others stay as they are.

    A value outside its span has density zero: a finite z, and a log-Jacobian of minus infinity. A value at an end, to rounding, is moved
    inside by a millionth of the smallest distance in the training data.

    >>> step = Ordered(2, [Span(1, low=0.0, below=(0,))])
    >>> step.inverse(torch.tensor([[4.0, 0.0]]))[0].tolist()
    [[4.0, 2.0]]
    """

    floor: Tensor

    def __init__(self, size: int, spans: Sequence[Span]) -> None:
        super().__init__(size)
        self.spans = tuple(sorted(spans, key=lambda span: span.column))
        self.register_buffer("floor", torch.full((len(self.spans),), 1e-12, dtype=torch.float64))

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        columns = list(x.unbind(1))
        slopes = [torch.zeros_like(column) for column in columns]
        ends = [_ends(span, columns) for span in self.spans]
        for i, (span, (low, high)) in enumerate(zip(self.spans, ends, strict=True)):
            at, floor = x[:, span.column], self.floor[i]
            parts = [None if low is None else at - low, None if high is None else high - at]
            logs = [torch.maximum(part, floor).log() for part in parts if part is not None]
            outside = torch.stack([part < 0 for part in parts if part is not None]).any(0)
            signs = [sign for sign, part in zip((1.0, -1.0), parts, strict=True) if part is not None]
            columns[span.column] = sum((s * log for s, log in zip(signs, logs, strict=True)), torch.zeros_like(at))
            slope = -sum(logs, torch.zeros_like(at))
            if low is not None and high is not None:
                slope = slope + torch.maximum(high - low, floor).log()
            slopes[span.column] = torch.where(outside, -math.inf, slope)
        return torch.stack(columns, 1), torch.stack(slopes, 1)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        columns = list(z.unbind(1))
        slopes = [torch.zeros_like(column) for column in columns]
        for span in self.spans:  # in order of columns: the ends are there
            low, high = _ends(span, columns)
            columns[span.column], slopes[span.column] = _between(z[:, span.column], low, high)
        return torch.stack(columns, 1), torch.stack(slopes, 1)

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Take the smallest distances to the ends; DataError where an event breaks a condition."""
        columns = list(check_finite(x).unbind(1))
        for i, span in enumerate(self.spans):
            low, high = _ends(span, columns)
            at = columns[span.column]
            distance = torch.stack([d for d in (_minus(at, low), _minus(high, at)) if d is not None])
            broken = (distance < 0).any(0)
            if bool(broken.any()):
                raise DataError(
                    f"column {span.column}: {int(broken.sum())} of {len(x)} events break its order; the first is event "
                    f"{int(broken.nonzero()[0])}, {x[broken][0].tolist()}"
                )
            smallest = torch.where(distance > 0, distance, math.inf).amin()
            self.floor[i] = (1e-6 * smallest if bool(smallest.isfinite()) else smallest.new_tensor(1e-12)).clamp(
                min=torch.finfo(torch.float64).tiny
            )
        return self.forward(x)[0]

    def config(self) -> dict[str, Any]:
        return {"size": self.size, "spans": [asdict(span) for span in self.spans]}

    @classmethod
    def from_config(cls, plain: dict[str, Any]) -> Self:
        spans = [Span(**{**s, "above": tuple(s["above"]), "below": tuple(s["below"])}) for s in plain["spans"]]
        return cls(plain["size"], spans)

    def describe(self) -> list[str]:
        words = ["x"] * self.size
        for span in self.spans:
            ends = [*(f"> x[{c}]" for c in span.above), *(f"< x[{c}]" for c in span.below)]
            words[span.column] = f"between its ends ({', '.join(ends)})"
        return words


def spans_of(order: Sequence[Condition], columns: Sequence[Column]) -> list[Span]:
    """The spans that conditions on named columns mean.

    ConfigError for an unknown name or sign, for columns that are periodic or discrete, and where a column's lower end is not known to lie
    below its upper end.

    >>> spans_of([("pt1", ">", "pt2")], [Column("pt1"), Column("pt2", "", "bounded", 0.0)])
    Traceback (most recent call last):
    ...
    pofx.errors.ConfigError: column 'pt2' lies above 0.0 and below 'pt1', which is not known to be larger: declare a range for it
    """
    place = {column.name: i for i, column in enumerate(columns)}
    less = {_pair(condition, place, columns) for condition in order}
    spans = []
    for i in sorted({max(pair) for pair in less}):
        above = tuple(sorted(a for a, b in less if b == i and a < i))
        below = tuple(sorted(b for a, b in less if a == i and b < i))
        spans.append(Span(i, columns[i].low, above, columns[i].high, below))
        _check_ends(spans[-1], less, columns)
    return spans


def _pair(condition: Condition, place: Mapping[str, int], columns: Sequence[Column]) -> tuple[int, int]:
    """The numbers of the smaller and of the larger column."""
    if condition[1] not in ("<", ">"):
        raise ConfigError(f"expected an order such as ('pt1', '>', 'pt2'); got {condition!r}")
    for name in (condition[0], condition[2]):
        if name not in place:
            raise ConfigError(f"order: no column is called {name!r} (there are {', '.join(place)})")
        if columns[place[name]].type in ("periodic", "discrete"):
            raise ConfigError(
                f"order: column {name!r} is {columns[place[name]].type}; only real and bounded columns have an order"
            )
    first, second = place[condition[0]], place[condition[2]]
    if first == second:
        raise ConfigError(f"order: {condition!r} compares a column with itself")
    return (first, second) if condition[1] == "<" else (second, first)


def _check_ends(span: Span, less: set[tuple[int, int]], columns: Sequence[Column]) -> None:
    """Raise ConfigError unless every lower end is below every upper one by what holds before this column is set."""
    of = {column.name: column for column in columns}
    earlier = {(columns[a].name, columns[b].name) for a, b in less if max(a, b) < span.column}
    lows: list[str | float] = [*(columns[i].name for i in span.above), *([] if span.low is None else [span.low])]
    highs: list[str | float] = [*(columns[i].name for i in span.below), *([] if span.high is None else [span.high])]
    for low in lows:
        for high in highs:
            if not _known(low, high, earlier, of):
                raise ConfigError(
                    f"column {columns[span.column].name!r} lies above {low!r} and below {high!r}, which is not known to be larger: "
                    "declare a range for it"
                )


def _known(low: str | float, high: str | float, less: set[tuple[str, str]], of: Mapping[str, Column]) -> bool:
    """Whether low < high follows from conditions and declared ranges; a name is a column."""
    if not isinstance(low, str) and not isinstance(high, str):
        return low <= high
    if not isinstance(high, str):  # from the column up: its declared end, or a column above it
        end = of[str(low)].high
        steps = [pair for pair in less if pair[0] == low]
        return (end is not None and end <= high) or any(_known(pair[1], high, less - {pair}, of) for pair in steps)
    end = of[high].low
    if not isinstance(low, str) and end is not None and low <= end:
        return True
    steps = [pair for pair in less if pair[1] == high]
    return any(pair[0] == low or _known(low, pair[0], less - {pair}, of) for pair in steps)


def _ends(span: Span, columns: Sequence[Tensor]) -> Ends:
    like = columns[span.column]
    lows = [columns[c] for c in span.above] + ([] if span.low is None else [torch.full_like(like, span.low)])
    highs = [columns[c] for c in span.below] + ([] if span.high is None else [torch.full_like(like, span.high)])
    return (
        torch.stack(lows).amax(0) if lows else None,
        torch.stack(highs).amin(0) if highs else None,
    )


def _minus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a - b


def _between(z: Tensor, low: Tensor | None, high: Tensor | None) -> tuple[Tensor, Tensor]:
    """The value between its ends, and the logarithm of its slope."""
    if low is not None and high is not None:
        width = high - low
        x = torch.where(z < 0, low + width * z.sigmoid(), high - width * (-z).sigmoid())
        slope = torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z) + width.log()
        return torch.minimum(torch.maximum(x, low), high), slope
    if low is not None:
        exponent = z.clamp(max=700.0)
        return low + exponent.exp(), exponent
    exponent = (-z).clamp(max=700.0)
    return (z if high is None else high) - exponent.exp(), exponent
