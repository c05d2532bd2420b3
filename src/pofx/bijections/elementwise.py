r"""Fixed maps that act on each column by itself: standardise, logarithm, logit, angle, dequantise.

Each is :math:`z_j = f_j(x_j)` with log-Jacobian :math:`\sum_j \log|f_j'(x_j)|`. Their numbers are fitted on the training split or
declared, never trained. They are kept and computed in float64 whatever the dtype of the module or of the input (so that a column of
magnitude 1e-42 works), and the result has the dtype of the input.

A value outside a declared range has density exactly zero: its z is clamped (finite) and its log-Jacobian is ``-inf``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pofx.bijections.base import Bijection
from pofx.bijections.fitted import Fitted, check_finite, event_shares, weighted_moments
from pofx.errors import ConfigError, ShapeError

__all__ = ["Affine", "Dequantise", "Log", "Logit", "PerColumn", "Periodic", "Standardise"]

ROUNDING = 2.0**-23
"""Relative float32 rounding: how far beyond a declared end a value may lie and still count as lying on it."""


class Affine(Fitted):
    r"""Declared scale and shift: :math:`z = a x + b`, log-Jacobian :math:`\sum_j \log|a_j|`.

    >>> Affine([2.0], [1.0])(torch.tensor([[3.0]]))[0].item()
    7.0
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Sequence[float], shift: Sequence[float]) -> None:
        super().__init__(len(scale))
        if len(scale) != len(shift) or not all(math.isfinite(a) and a != 0 for a in scale):
            raise ConfigError(
                f"Affine needs as many shifts as finite, non-zero scales; got scale={scale}, shift={shift}"
            )
        self._buffer("scale", scale)
        self._buffer("shift", shift)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.scale + self.shift, self.scale.abs().log().expand_as(x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return (z - self.shift) / self.scale, -self.scale.abs().log().expand_as(z)

    def config(self) -> dict[str, Any]:
        return {"scale": self.scale.tolist(), "shift": self.shift.tolist()}

    def describe(self) -> list[str]:
        return [f"{a:g} x + {b:g}" for a, b in zip(self.scale.tolist(), self.shift.tolist(), strict=True)]


class Standardise(Fitted):
    r"""Zero weighted mean and unit weighted variance: :math:`z = (x - m)/s`, log-Jacobian :math:`-\sum_j \log s_j`.

    >>> Standardise(1).fit(torch.tensor([[1.0], [3.0]])).flatten().tolist()
    [-1.0, 1.0]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._buffer("mean", 0.0)
        self._buffer("std", 1.0)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.std, -self.std.log().expand_as(x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z * self.std + self.mean, self.std.log().expand_as(z)

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Take mean and standard deviation from ``x``; :class:`DataError` names columns that do not vary."""
        self.mean, self.std = weighted_moments(x, weight)
        return self.forward(x)[0]


class Log(Fitted):
    r"""Half-bounded columns: :math:`z = \log(x - l)` for :math:`x > l`, or :math:`z = -\log(h - x)` for :math:`x < h`.

    Each column has exactly one end, the other is None; a plain number stands for one column. At the end itself (to float32 rounding)
    the distance is replaced by ``floor``, a millionth of the smallest distance in the training data, so z stays finite. Beyond the
    end the log-Jacobian is ``-inf``.

    >>> Log(low=1.0)(torch.tensor([[2.0]]))[0].item()
    0.0
    """

    end: Tensor
    sign: Tensor
    floor: Tensor

    def __init__(
        self, low: Sequence[float | None] | float | None = None, high: Sequence[float | None] | float | None = None
    ) -> None:
        lows, highs = _both_ends(low, high)
        super().__init__(len(lows))
        if any((a is None) == (b is None) for a, b in zip(lows, highs, strict=True)):
            raise ConfigError(f"Log needs exactly one end per column; got low={low}, high={high}")
        self.low, self.high = lows, highs
        self._buffer("end", [a if a is not None else b for a, b in zip(lows, highs, strict=True)])
        self._buffer("sign", [1.0 if a is not None else -1.0 for a in lows])
        self._buffer("floor", torch.finfo(torch.float64).tiny)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        distance = self.sign * (x - self.end)
        log_distance = torch.maximum(distance, self.floor).log()
        inside = distance >= -ROUNDING * self.end.abs()
        return self.sign * log_distance, _zero_outside(-log_distance, inside)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_distance = (self.sign * z).clamp(max=700.0)
        return self.end + self.sign * log_distance.exp(), log_distance

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Set ``floor`` from the smallest distance to the end."""
        distance = self.sign * (check_finite(x) - self.end)
        smallest = torch.where(distance > 0, distance, math.inf).amin(0)
        self.floor = torch.where(smallest.isfinite(), 1e-6 * smallest, 1.0).clamp(min=torch.finfo(torch.float64).tiny)
        return self.forward(x)[0]

    def config(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def describe(self) -> list[str]:
        return [
            f"log(x - {a:g})" if a is not None else f"-log({b:g} - x)" for a, b in zip(self.low, self.high, strict=True)
        ]


class Logit(Fitted):
    r"""Columns in :math:`[l, h]`: :math:`z = \log\frac{x - l}{h - x}`, :math:`\log f' = \log\frac{h - l}{(x - l)(h - x)}`.

    Values exactly at an end (to float32 rounding) are moved inside by ``gap * (h - l)``, with ``gap = 1e-10``, or less where the
    training data come closer (a millionth of their smallest distance): z stays finite, within about +-23. Beyond the ends the
    log-Jacobian is ``-inf``.

    >>> Logit(0.0, 1.0)(torch.tensor([[0.5]]))[0].item()
    0.0
    """

    low: Tensor
    high: Tensor
    gap_low: Tensor
    gap_high: Tensor

    def __init__(self, low: Sequence[float] | float, high: Sequence[float] | float) -> None:
        lows, highs = _declared_range("Logit", low, high)
        super().__init__(len(lows))
        self._buffer("low", lows)
        self._buffer("high", highs)
        self._buffer("gap_low", 1e-10)
        self._buffer("gap_high", 1e-10)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        above, below = (x - self.low) / width, (self.high - x) / width
        left = torch.maximum(above, self.gap_low).clamp(max=1.0).log()
        right = torch.maximum(below, self.gap_high).clamp(max=1.0).log()
        inside = (above >= -self._slack(self.low)) & (below >= -self._slack(self.high))
        return left - right, _zero_outside(-left - right - width.log(), inside)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        x = torch.where(z < 0, self.low + width * z.sigmoid(), self.high - width * (-z).sigmoid())
        log_slope = torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z) + width.log()
        return torch.minimum(torch.maximum(x, self.low), self.high), log_slope

    def _slack(self, end: Tensor) -> Tensor:
        return (ROUNDING * end.abs() / (self.high - self.low)).clamp(max=1e-6)

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Narrow the gaps where the training data come closer to the ends than they are wide."""
        x, width = check_finite(x), self.high - self.low
        for name, distance in (("gap_low", (x - self.low) / width), ("gap_high", (self.high - x) / width)):
            smallest = torch.where(distance > 0, distance, 1.0).amin(0)
            setattr(self, name, (1e-6 * smallest).clamp(min=torch.finfo(torch.float64).tiny, max=1e-10))
        return self.forward(x)[0]

    def config(self) -> dict[str, Any]:
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    def describe(self) -> list[str]:
        return [f"logit(x; {a:g}, {b:g})" for a, b in zip(self.low.tolist(), self.high.tolist(), strict=True)]


class Periodic(Fitted):
    r"""Periodic columns to an angle in :math:`[-\pi, \pi)`: :math:`z = 2\pi\,\mathrm{frac}((x - l)/(h - l) - c) - \pi`.

    ``fit`` rotates so that the cut (where z jumps from pi to -pi) lies in the emptiest region, if there is one with less than half of the
    average density (``rotate=False`` keeps the cut at ``low``). Values outside ``[low, high)`` mean the same point one period away, and
    ``inverse`` always answers within the range. Log-Jacobian :math:`\log 2\pi/(h - l)`.

    >>> Periodic(0.0, 1.0)(torch.tensor([[1.5]]))[0].item()
    0.0
    """

    low: Tensor
    high: Tensor
    cut: Tensor
    _tau: Tensor

    def __init__(self, low: Sequence[float] | float, high: Sequence[float] | float, rotate: bool = True) -> None:
        lows, highs = _declared_range("Periodic", low, high)
        super().__init__(len(lows))
        self.rotate = rotate
        self._buffer("low", lows)
        self._buffer("high", highs)
        self._buffer("cut", 0.0)
        # a tensor because the ONNX exporter rounds a Python number to float32
        self.register_buffer("_tau", torch.tensor(math.tau, dtype=torch.float64), persistent=False)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        turn = _fraction((x - self.low) / width - self.cut)
        return self._tau * (turn - 0.5), (self._tau / width).log().expand_as(x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        x = self.low + width * _fraction(z / self._tau + 0.5 + self.cut)
        return torch.where(x < self.high, x, self.low), (width / self._tau).log().expand_as(z)

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Put the cut into the emptiest of 64 cells (smoothed over three), if it is empty enough to matter."""
        x = check_finite(x)
        share = event_shares(x, weight)
        if self.rotate:
            cell = (_fraction((x - self.low) / (self.high - self.low)) * 64).long().clamp(max=63)
            density = x.new_zeros(64, self.size).scatter_add_(0, cell, share[:, None].expand_as(x))
            smooth = (density.roll(1, 0) + density + density.roll(-1, 0)) / 3
            lowest, where = smooth.min(0)
            self.cut = torch.where(lowest < 0.5 / 64, (where + 0.5) / 64, 0.0)
        return self.forward(x)[0]

    def config(self) -> dict[str, Any]:
        return {"low": self.low.tolist(), "high": self.high.tolist(), "rotate": self.rotate}

    def describe(self) -> list[str]:
        return [f"angle(x; {a:g}, {b:g})" for a, b in zip(self.low.tolist(), self.high.tolist(), strict=True)]


class Dequantise(Fitted):
    r"""Integers to real numbers: :math:`z = k + u`, :math:`u \in [0, 1)`, and :math:`k = \lfloor z \rfloor` back; log-Jacobian 0.

    With ``noise``, uniform numbers of the shape of ``x``, the density of z integrates to the probability of k over ``[k, k + 1)``:
    :math:`E_u \log p(k + u) \le \log P(k)`. Without it u = 0.5, which makes the map deterministic (scoring, export). ``fit`` answers
    with seeded uniform noise added, so that what is fitted next sees spread-out values. Declared ends clamp the inverse.

    >>> Dequantise(1).inverse(torch.tensor([[3.7]]))[0].item()
    3.0
    """

    _low: Tensor
    _high: Tensor

    def __init__(
        self, size: int, low: Sequence[float | None] | None = None, high: Sequence[float | None] | None = None
    ) -> None:
        super().__init__(size)
        self.low, self.high = list(low or [None] * size), list(high or [None] * size)
        self.register_buffer("_low", _bounds(self.low, -math.inf), persistent=False)
        self.register_buffer("_high", _bounds(self.high, math.inf), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(k + noise, 0)``; ``noise`` has the shape of ``x`` and lies in [0, 1), 0.5 if absent."""
        z, log_jacobian = super().forward(x, context)
        return (z, log_jacobian) if noise is None else (z - 0.5 + noise, log_jacobian)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.floor(x + 0.5) + 0.5, torch.zeros_like(x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.minimum(torch.maximum(z.floor(), self._low), self._high), torch.zeros_like(z)

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        return self.forward(check_finite(x), noise=noise)[0]

    def config(self) -> dict[str, Any]:
        return {"size": self.size, "low": self.low, "high": self.high}


class PerColumn(Bijection):
    """Different bijections for different columns; columns that none of them names stay as they are.

    Parameters
    ----------
    parts : pairs (column numbers, bijection of that many columns); no column twice.
    size : number of columns; by default the largest number named, plus one.

    >>> PerColumn([([1], Log(low=0.0))])(torch.tensor([[5.0, 1.0]]))[0].tolist()
    [[5.0, 0.0]]
    """

    gather: Tensor
    scatter: Tensor

    def __init__(self, parts: Sequence[tuple[Sequence[int], Bijection]], size: int | None = None) -> None:
        super().__init__()
        self.columns = [list(columns) for columns, _ in parts]
        named = [column for columns in self.columns for column in columns]
        self.size = max(named, default=-1) + 1 if size is None else size
        if len(set(named)) < len(named) or not all(0 <= column < self.size for column in named):
            raise ConfigError(f"PerColumn needs distinct columns out of 0..{self.size - 1}; got {self.columns}")
        self.steps = torch.nn.ModuleList(step for _, step in parts)
        rest = sorted(set(range(self.size)) - set(named))
        self.sizes = [len(columns) for columns in self.columns] + [len(rest)] * bool(rest)
        order = torch.tensor(named + rest, dtype=torch.int64)
        self.register_buffer("gather", order, persistent=False)
        self.register_buffer("scatter", order.argsort(), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As every bijection; ``noise`` (n, size) goes to the parts that are :class:`Dequantise`."""
        results = []
        for i, (step, piece) in enumerate(zip(self.steps, self._split(x), strict=False)):
            extra = {"noise": self._split(noise)[i]} if noise is not None and isinstance(step, Dequantise) else {}
            results.append(step(piece, context, **extra))
        return self._merge(results, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pairs = zip(self.steps, self._split(z), strict=False)
        return self._merge([step.inverse(piece, context) for step, piece in pairs], z)  # type: ignore[operator]

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Fit each part on its own columns."""
        pairs = zip(self.steps, self._split(x), strict=False)
        return self._merge([(step.fit(piece, weight), x.new_zeros(len(x))) for step, piece in pairs], x)[0]  # type: ignore[operator]

    def _split(self, x: Tensor) -> list[Tensor]:
        if x.ndim != 2 or x.shape[1] != self.size:
            raise ShapeError(f"PerColumn was built for (n, {self.size}); got shape {tuple(x.shape)}")
        return list(x.index_select(1, self.gather).split(self.sizes, 1))

    def _merge(self, results: list[tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
        pieces = [value for value, _ in results] + self._split(x)[len(results) :]
        total = torch.stack([log_jacobian for _, log_jacobian in results]).sum(0) if results else x.new_zeros(len(x))
        return torch.cat(pieces, 1).index_select(1, self.scatter), total


def _zero_outside(log_slope: Tensor, inside: Tensor) -> Tensor:
    return torch.where(inside, log_slope, -math.inf)


def _fraction(turn: Tensor) -> Tensor:
    """Fractional part in [0, 1), also where rounding gives 1."""
    part = turn - turn.detach().floor()
    return torch.where(part < 1, part, torch.zeros_like(part))


def _as_list(value: Sequence[Any] | float | None, size: int) -> list[Any]:
    return list(value) if isinstance(value, Sequence) else [value] * size


def _both_ends(low: Any, high: Any) -> tuple[list[Any], list[Any]]:
    size = next((len(end) for end in (low, high) if isinstance(end, Sequence)), 1)
    lows, highs = _as_list(low, size), _as_list(high, size)
    if len(lows) != len(highs):
        raise ConfigError(f"low and high need the same length; got {len(lows)} and {len(highs)}")
    return lows, highs


def _declared_range(name: str, low: Any, high: Any) -> tuple[list[float], list[float]]:
    lows, highs = _both_ends(low, high)
    if not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(lows, highs, strict=True)):
        raise ConfigError(f"{name} needs finite low < high; got low={low}, high={high}")
    return lows, highs


def _bounds(ends: Sequence[float | None], absent: float) -> Tensor:
    return torch.tensor([absent if end is None else end for end in ends], dtype=torch.float64)
