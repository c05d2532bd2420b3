r"""Toys of anomaly searches with known likelihood ratios: that of SALAD, and one in the manner of the LHC Olympics.

SALAD (arXiv:2001.05001): :math:`m \sim U(0, 1)`, :math:`x \sim N(-0.5 + 2 m, 0.8^2)` in data, :math:`N(-0.4 + 2 m, 1.1^2)` in
simulation; signal
:math:`m \sim N(0.5, 0.1^2)` (in (0, 1)), :math:`x \sim N(1.5, 0.8^2)`; the signal region is (0.4, 0.6).

LHCO-like: dijet masses from :math:`p(m) \propto (1 - m / 13)^{p_1} / m^{p_2}` in TeV, above 2.2 TeV; given m, the lighter jet's mass
is lognormal, the difference of the masses is gamma distributed, both subjettiness ratios follow beta laws, all with parameters that
run with m; noise is standard normal. The signal is at 3.5 TeV with width 0.08, with jets of 0.1 and 0.5 TeV. The correlated variant
adds 0.1 m to both masses (arXiv:2001.04990).

The figure of merit of a score is its significance improvement, the largest :math:`\epsilon_S / \sqrt{\epsilon_B}`; that of the
likelihood ratio is the best there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import integrate

from pofx.config import check_at_least, check_between
from pofx.data.events import Events
from pofx.data.public.lhco import DIJETS, LABEL
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.errors import DataError
from pofx.simulators.task_toys.base import Array, Toy, log_beta, log_normal, log_truncated, rows_of, truncated

__all__ = ["DijetBump", "Improvement", "Salad", "improvement"]


class Improvement(NamedTuple):
    """The largest significance improvement, the background efficiency where it is reached, and its statistical error."""

    value: float
    background: float
    error: float


def improvement(signal: ArrayLike, background: ArrayLike, least: int = 25) -> Improvement:
    r"""Largest :math:`\epsilon_S / \sqrt{\epsilon_B}` over the cuts on a score that leave at least ``least`` background events.

    The error is that of the two counts at the chosen cut; that the best of many cuts was taken is not in it.

    >>> improvement([2.0] * 90 + [0.0] * 10, [2.0] * 30 + [0.0] * 970).value.__round__(3)
    5.196
    """
    s, b = (np.sort(np.asarray(score, np.float64))[::-1] for score in (signal, background))
    if len(s) < 1 or len(b) < least:
        raise DataError(
            f"improvement: expected signal, and {least} background events or more; got {len(s)} and {len(b)}"
        )
    count_b = np.searchsorted(-b, -b, side="right")[least - 1 :]
    cuts = b[least - 1 :]
    count_s = np.searchsorted(-s, -cuts, side="right")
    values = count_s / len(s) / np.sqrt(count_b / len(b))
    best = int(values.argmax())
    eff_s, eff_b = count_s[best] / len(s), count_b[best] / len(b)
    relative = (1 - eff_s) / max(count_s[best], 1) + 0.25 * (1 - eff_b) / count_b[best]
    return Improvement(float(values[best]), float(eff_b), float(values[best] * math.sqrt(relative)))


@dataclass(frozen=True)
class Salad(Toy):
    """Field ``x`` (m, x) of data with a signal in it; its label is the context.

    >>> toy = Salad()
    >>> float(toy.log_ratio([[0.5, 1.5]]).round(2)[0])
    2.16
    """

    signal_share: float = 0.01

    def __post_init__(self) -> None:
        check_between(self, 0.0, 1.0, "signal_share")

    def spec(self) -> EventSpec:
        return vector_spec([Column("m", "", "bounded", 0.0, 1.0), Column("x")], "x")

    def context_spec(self) -> EventSpec:
        return {"label": LABEL}

    def sample(self, n: int, seed: int) -> Events:
        rng = np.random.default_rng(seed)
        label = rng.random(n) < self.signal_share
        m = np.where(label, truncated(rng, np.full(n, 0.5), 0.1, 0.0, 1.0), rng.random(n))
        x = np.where(label, 1.5, -0.5 + 2 * m) + 0.8 * rng.standard_normal(n)
        return _labelled("x", np.stack([m, x], 1), label)

    def simulation(self, n: int, seed: int) -> Array:
        """Simulated background ``(n, 2)``, which differs from that of the data."""
        rng = np.random.default_rng((seed, 1))
        m = rng.random(n)
        return np.stack([m, -0.4 + 2 * m + 1.1 * rng.standard_normal(n)], 1)

    def log_background(self, x: ArrayLike) -> Array:
        """log p(m, x) of the background in data."""
        return self._uniform(x, -0.5, 0.8)

    def log_simulation(self, x: ArrayLike) -> Array:
        """log p(m, x) of the simulation."""
        return self._uniform(x, -0.4, 1.1)

    def log_signal(self, x: ArrayLike) -> Array:
        """log p(m, x) of the signal."""
        m, value = rows_of(x, 2, "x").T
        return log_truncated(m, 0.5, 0.1, 0.0, 1.0) + log_normal(value, 1.5, 0.8)

    def log_ratio(self, x: ArrayLike) -> Array:
        """log of signal over background density."""
        return self.log_signal(x) - self.log_background(x)

    def log_prob(self, x: ArrayLike) -> Array:
        """log p(m, x) of the data."""
        with np.errstate(divide="ignore"):
            shares = np.log([1.0 - self.signal_share, self.signal_share])
        return np.asarray(np.logaddexp(shares[0] + self.log_background(x), shares[1] + self.log_signal(x)))

    def best_improvement(self, low: float = 0.4, high: float = 0.6, cells: int = 2000) -> float:
        """The significance improvement that no score can exceed in a region of m; efficiencies within it, by quadrature."""
        m = low + (np.arange(cells // 4) + 0.5) / (cells // 4) * (high - low)
        grid = np.stack(np.meshgrid(m, -6.0 + 14.0 * (np.arange(cells) + 0.5) / cells, indexing="ij"), -1).reshape(
            -1, 2
        )
        order = np.argsort(-self.log_ratio(grid))
        kept = [np.exp(log(grid))[order].cumsum() for log in (self.log_signal, self.log_background)]
        return float((kept[0] / kept[0][-1] / np.sqrt(kept[1] / kept[1][-1]))[100:].max())

    @staticmethod
    def _uniform(x: ArrayLike, offset: float, width: float) -> Array:
        m, value = rows_of(x, 2, "x").T
        return np.where((m >= 0) & (m <= 1), log_normal(value, offset + 2 * m, width), -np.inf)


@dataclass(frozen=True)
class DijetBump(Toy):
    """Field ``dijet`` (mjj, lighter mass, mass difference [TeV], two tau21, then noise) with its label as context.

    Attributes
    ----------
    signal_share : of the events.
    correlation : what is added to both masses, times mjj.
    noise : columns without information.
    p1, p2, low : of the mass spectrum; low in TeV.

    >>> toy = DijetBump(noise=1)
    >>> events = toy.sample(4, seed=1)
    >>> events.x.shape, toy.log_ratio(events.x).shape
    ((4, 6), (4,))
    """

    signal_share: float = 0.01
    correlation: float = 0.0
    noise: int = 0
    p1: float = 11.0
    p2: float = 5.0
    low: float = 2.2

    energy: float = field(default=13.0, init=False)
    peak: tuple[float, float] = field(default=(3.5, 0.08), init=False)

    def __post_init__(self) -> None:
        check_between(self, 0.0, 1.0, "signal_share")
        check_at_least(self, 0, "noise")
        check_at_least(self, 1.5, "p1", "p2")
        check_between(self, 0.5, 3.0, "low")

    def spec(self) -> EventSpec:
        masses = [Column(c.name, c.unit, "bounded", self.low if i == 0 else 0.0) for i, c in enumerate(DIJETS[:3])]
        ratios = [Column(c.name, c.unit, "bounded", 0.0, 1.0) for c in DIJETS[3:]]
        return vector_spec([*masses, *ratios, *(Column(f"noise{i}") for i in range(self.noise))], "dijet")

    def context_spec(self) -> EventSpec:
        return {"label": LABEL}

    def sample(self, n: int, seed: int) -> Events:
        rng = np.random.default_rng(seed)
        label = rng.random(n) < self.signal_share
        m = np.where(
            label, truncated(rng, np.full(n, self.peak[0]), self.peak[1], self.low, self.energy), self._masses(n, rng)
        )
        light, gap = np.exp(_light(m)[0] + _light(m)[1] * rng.standard_normal(n)), rng.gamma(2.0, _gap(m))
        light = np.where(label, truncated(rng, np.full(n, 0.1), 0.035), light)
        gap = np.where(label, truncated(rng, np.full(n, 0.4), 0.1), gap)
        ratios = [np.where(label, rng.beta(4.0, 7.5, n), rng.beta(*_ratio(m, jet))) for jet in (0, 1)]
        moved = [light + self.correlation * m, gap + self.correlation * m]
        return _labelled("dijet", np.stack([m, *moved, *ratios, *rng.standard_normal((self.noise, n))], 1), label)

    def log_background(self, x: ArrayLike) -> Array:
        """log p of all columns."""
        m = self._rows(x)[:, 0]
        return self.log_mass(m) + self.log_background_given_mass(x)

    def log_mass(self, m: ArrayLike) -> Array:
        """log p(mjj) of the background."""
        m = np.asarray(m, np.float64)
        inside = (m >= self.low) & (m < self.energy)
        safe = np.where(inside, m, self.low)
        return np.where(
            inside, self.p1 * np.log1p(-safe / self.energy) - self.p2 * np.log(safe) - self._log_norm, -np.inf
        )

    def log_background_given_mass(self, x: ArrayLike) -> Array:
        """log p(features | mjj) of the background."""
        m, light, gap, ratios, noise = self._parts(x)
        mean, width = _light(m)
        inside = (light > 0) & (gap > 0)
        log_light, safe = np.log(np.where(inside, light, 1.0)), np.where(inside, gap, 1.0)
        masses = log_normal(log_light, mean, width) - log_light + np.log(safe) - safe / _gap(m) - 2 * np.log(_gap(m))
        found = masses + sum(log_beta(ratios[:, j], *_ratio(m, j)) for j in (0, 1)) + noise
        return np.where(inside, found, -np.inf)

    def log_signal(self, x: ArrayLike) -> Array:
        """log p of all columns of the signal."""
        m, light, gap, ratios, noise = self._parts(x)
        masses = log_truncated(light, 0.1, 0.035) + log_truncated(gap, 0.4, 0.1)
        taus = sum(log_beta(ratios[:, j], 4.0, 7.5) for j in (0, 1))
        return np.asarray(log_truncated(m, *self.peak, self.low, self.energy) + masses + taus + noise)

    def log_ratio(self, x: ArrayLike) -> Array:
        """log of signal over background density, all columns."""
        return self.log_signal(x) - self.log_background(x)

    def log_prob(self, x: ArrayLike) -> Array:
        """log p of the data, signal included."""
        with np.errstate(divide="ignore"):
            shares = np.log([1.0 - self.signal_share, self.signal_share])
        return np.asarray(np.logaddexp(shares[0] + self.log_background(x), shares[1] + self.log_signal(x)))

    def _masses(self, n: int, rng: np.random.Generator) -> Array:
        """By rejection from the power law."""
        kept, count, least = [np.zeros(0)], 0, self.low / self.energy
        while count < n:
            x = least * rng.random(2 * n + 10) ** (-1.0 / (self.p2 - 1.0))
            x = x[rng.random(len(x)) < np.maximum((1.0 - x) / (1.0 - least), 0.0) ** self.p1]
            kept.append(x)
            count += len(x)
        return self.energy * np.concatenate(kept)[:n]

    @cached_property
    def _log_norm(self) -> float:
        def density(u: float) -> float:
            m = self.low + (self.energy - self.low) * u**3
            return 3 * u**2 * (self.energy - self.low) * (1 - m / self.energy) ** self.p1 * m**-self.p2

        return math.log(integrate.quad(density, 0.0, 1.0, epsrel=1e-12)[0])

    def _rows(self, x: ArrayLike) -> Array:
        return rows_of(x, 5 + self.noise, "dijet")

    def _parts(self, x: ArrayLike) -> tuple[Array, Array, Array, Array, Array]:
        """mjj, the two masses as they were before the shift, the ratios, and the log density of the noise."""
        rows = self._rows(x)
        m = rows[:, 0]
        noise = log_normal(rows[:, 5:], 0.0, 1.0).sum(1)
        return m, rows[:, 1] - self.correlation * m, rows[:, 2] - self.correlation * m, rows[:, 3:5], noise


def _light(m: Array) -> tuple[Array, float]:
    """Mean and width of the logarithm of the lighter jet's mass."""
    return np.log(0.11) + 0.6 * np.log(np.maximum(m, 1e-9) / 3.5), 0.5


def _gap(m: Array) -> Array:
    """The scale of the mass difference."""
    return 0.06 * np.sqrt(np.maximum(m, 1e-9))


def _ratio(m: Array, jet: int) -> tuple[Array, Array]:
    """The beta law of a subjettiness ratio."""
    return 7.0 - 0.5 * np.minimum(m, 6.0) + jet, np.full_like(m, 4.0)


def _labelled(name: str, x: Array, label: ArrayLike) -> Events:
    column = np.asarray(label, np.float64)[:, None]
    return Events({name: x}, context=Events({"label": column}))
