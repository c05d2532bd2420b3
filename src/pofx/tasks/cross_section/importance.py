r"""p-values far below one over the number of toys, by importance sampling.

With a proposal g that reaches the tail and weights w = q/g,

.. math:: p = P_q(s(X) \le t) = E_g\left[ w(X)\, 1\{s(X) \le t\} \right].

For a model with ``decode``, g is the model itself with its normal noise scaled by s, a mixture over scales :math:`s_j` that includes 1;
the Jacobian cancels, so that :math:`w = N(z; 0, 1) / \sum_j \pi_j N(z; 0, s_j^2)` needs the noise alone. For another density, g is a
mixture of the density itself and Student-t laws of the mean and covariance of its toys, of several widths. Scales are tried with a
pilot sample, and those are kept that put events into the tail (defensive mixtures: Hesterberg, Technometrics 37 (1995) 185).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pofx.errors import DataError, RangeWarning
from pofx.tasks.cross_section.coordinates import Density
from pofx.training.noise import derive_seed

__all__ = ["FarTail", "far_tail"]

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]
RATIO = 1.15
"""Between neighbouring scales."""
LARGEST = 12.0
"""Largest scale."""
LEAST = 100.0
"""Effective events in the tail below which an estimate is refused."""
DEGREES = 5
"""Of freedom of the Student-t proposals."""


@dataclass(frozen=True)
class FarTail:
    """An estimate by importance sampling.

    Attributes
    ----------
    value, error : the p-value and its standard error.
    effective : effective number of proposed events in the tail, (sum w)^2 / sum w^2.
    events : proposed in all.
    scales : of the proposal.
    """

    value: float
    error: float
    effective: float
    events: int
    scales: tuple[float, ...]

    @property
    def z(self) -> float:
        """One-sided significance."""
        return -float(special.ndtri(self.value))

    def __str__(self) -> str:
        return f"({self.value:.2e} ± {self.error:.0e})"


def far_tail(
    density: Density, threshold: float, score: Score | None = None, *, events: int = 50_000, seed: int = 0
) -> FarTail:
    """P(score(X) <= threshold) for X of a density, however small.

    Parameters
    ----------
    density : a :class:`pofx.Model` with ``decode``, or anything with ``sample(n, seed=)`` and ``log_prob``.
    threshold : of the score.
    score : of events ``(n, bins)``; the log-density by default.
    events : proposed in all, of which a tenth is the pilot.
    seed : of the proposal.

    Raises
    ------
    DataError if fewer than 100 effective events fall into the tail: then nothing is known but an upper limit from plain toys.

    >>> from pofx.simulators.densities import CorrelatedGaussian
    >>> truth = CorrelatedGaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    >>> found = far_tail(truth, float(truth.log_prob([[6.0, 0.0]])[0]), events=20_000)
    >>> bool(abs(found.value - stats.chi2.sf(36.0, 2)) < 5 * found.error)
    True
    """
    proposal = _Decoded(density) if _decodes(density) else _Student(density, seed)
    given = score or (lambda x: np.asarray(density.log_prob(x), np.float64))

    def rank(x: Floats) -> Floats:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RangeWarning)  # the far tail lies outside the trained range on purpose
            return given(x)

    scales = _useful(proposal, rank, threshold, max(events // 10, 1000), derive_seed(seed, "pilot"))
    x, log_weight = proposal.draw(scales, events, derive_seed(seed, "proposal"))
    inside = rank(x) <= threshold
    weight = np.where(inside, np.exp(log_weight), 0.0)
    total = float(weight.sum())
    effective = total**2 / float((weight**2).sum()) if total > 0 else 0.0
    if effective < LEAST:
        raise DataError(
            f"importance sampling: expected at least {LEAST:.0f} effective events in the tail; got {effective:.1f} of {events}"
        )
    return FarTail(
        total / events, float(weight.std(ddof=1)) / math.sqrt(events), effective, events, tuple(map(float, scales))
    )


class _Decoded:
    """A model whose noise is scaled."""

    def __init__(self, model: Any) -> None:
        self.model = model
        shapes = model.family.noise_shapes(model.layout)
        self.normal = [name for name, shape in shapes.items() if shape.kind == "normal"]

    def draw(self, scales: Floats, n: int, seed: int) -> tuple[Floats, Floats]:
        """Events and the logarithms of their weights."""
        which = _components(scales, n, seed)
        parts = [self._block(scales, which[start : start + 8192], seed, start) for start in range(0, n, 8192)]
        return np.concatenate([x for x, _ in parts]), np.concatenate([w for _, w in parts])

    def _block(self, scales: Floats, which: NDArray[np.intp], seed: int, start: int) -> tuple[Floats, Floats]:
        import torch

        noise = self.model.noise(len(which), seed=seed, start=start)
        factor = torch.as_tensor(scales[which])
        square, count = np.zeros(len(which)), 0
        for name in self.normal:
            z = noise[name]
            z = z * factor.to(z).reshape(-1, *[1] * (z.ndim - 1))
            noise[name] = z
            flat = z.double().flatten(1)
            square, count = square + flat.square().sum(1).cpu().numpy(), count + flat.shape[1]
        with torch.no_grad():
            x = self.model.decode(noise)
        terms = -0.5 * square[:, None] / scales**2 - count * np.log(scales)
        mixture = special.logsumexp(terms, axis=1) - math.log(len(scales))
        return np.asarray(x.double().cpu().numpy()), -0.5 * square - mixture


class _Student:
    """The density itself (scale 1), and Student-t laws of its moments times each further scale."""

    def __init__(self, density: Density, seed: int) -> None:
        self.density = density
        toys = np.asarray(density.sample(20_000, seed=derive_seed(seed, "moments")), np.float64)
        self.mean, covariance = toys.mean(0), np.atleast_2d(np.cov(toys.T))
        self.law = stats.multivariate_t(np.zeros(len(self.mean)), covariance, df=DEGREES)

    def draw(self, scales: Floats, n: int, seed: int) -> tuple[Floats, Floats]:
        """Events and the logarithms of their weights."""
        which, rng = _components(scales, n, seed), np.random.default_rng(derive_seed(seed, "events"))
        own = which == int(np.argmin(np.abs(scales - 1.0)))
        x = self.mean + scales[which, None] * self.law.rvs(n, random_state=rng).reshape(n, -1)
        x[own] = self.density.sample(int(own.sum()), seed=derive_seed(seed, "own"))
        logq = np.asarray(self.density.log_prob(x), np.float64)
        terms = [
            logq if abs(s - 1) < 1e-12 else self.law.logpdf((x - self.mean) / s) - len(self.mean) * math.log(s)
            for s in scales
        ]
        return x, logq - (special.logsumexp(np.stack(terms), axis=0) - math.log(len(scales)))


def _useful(proposal: _Decoded | _Student, rank: Score, threshold: float, events: int, seed: int) -> Floats:
    """The scale 1, and those around the one whose events reach the tail with the largest weights."""
    grid: Floats = RATIO ** np.arange(1 + math.ceil(math.log(LARGEST) / math.log(RATIO)), dtype=np.float64)
    x, log_weight = proposal.draw(grid, events * 4, seed)
    inside = rank(x) <= threshold
    if not inside.any():
        raise DataError(
            f"importance sampling: none of {len(x)} proposed events is as improbable; scales up to {grid[-1]:.3g}"
        )
    weight = np.where(inside, np.exp(log_weight - log_weight[inside].max()), 0.0)
    which = _components(grid, len(x), seed)
    shares = np.array([weight[which == k].sum() for k in range(len(grid))])
    chosen = (shares > 0.02 * shares.max()) | (grid == 1.0)
    return np.asarray(grid[chosen])


def _components(scales: Floats, n: int, seed: int) -> NDArray[np.intp]:
    """Which scale each event gets."""
    return np.random.default_rng(derive_seed(seed, "scales")).integers(len(scales), size=n)


def _decodes(density: Any) -> bool:
    family = getattr(density, "family", None)
    return bool(family is not None and family.capabilities.decode)
