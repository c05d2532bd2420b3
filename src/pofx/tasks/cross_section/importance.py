r"""p-values far below one over the number of toys, by adaptive importance sampling.

With a proposal g that reaches the tail and weights w = q/g,

.. math:: p = P_q(s(X) \le t) = E_g\left[ w(X)\, 1\{s(X) \le t\} \right], \qquad g = \sum_k \pi_k g_k .

The laws :math:`g_k` are those of :mod:`~pofx.tasks.cross_section.proposals`; one is always q itself (defensive mixture: Hesterberg,
Technometrics 37 (1995) 185). The first round takes broadened copies of q. Then laws are fitted to the weighted events of the tail, or of as
much of the way to it as enough events have come, and so are the shares :math:`\pi_k` (cross-entropy method: Rubinstein, Methodol. Comput.
Appl. Probab. 1 (1999) 127). Fresh events make the estimate, so the rounds before cannot bias it.

A valley of low density between two peaks is part of the tail. Broader noise does not go there; the bins' own coordinates do. They are
searched for densities in closed form, and for models that encode and have at most 16 bins; in more bins a valley may be overlooked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from pofx.errors import DataError
from pofx.metrics.pvalues import tail_probability
from pofx.tasks.cross_section.coordinates import Density
from pofx.tasks.cross_section.proposals import DEGREES, Law, Points, Sampler, Score, shared

__all__ = ["FarTail", "far_tail"]

Floats = NDArray[np.float64]
LEAST = 100.0
"""Effective events in the tail below which an estimate is refused."""
ENOUGH = 40.0
"""Effective events that laws are fitted to."""
ROUNDS = 10
"""At most."""
OWN = 0.1
"""Least share of the density itself."""
APART = 5.0
"""Errors by which the proposal may differ from plain counting where both work."""


@dataclass(frozen=True)
class FarTail:
    """An estimate by importance sampling.

    Attributes
    ----------
    value, error : the p-value and its standard error.
    effective : effective number of proposed events in the tail, (sum w)^2 / sum w^2.
    events : proposed in all.
    laws : of the proposal: shares and coordinates.
    pull : (proposal - counting) / error for the hundred least probable plain toys, if the proposal reaches them too; else None.
    """

    value: float
    error: float
    effective: float
    events: int
    laws: tuple[str, ...] = ()
    pull: float | None = None

    @property
    def z(self) -> float:
        """One-sided significance in standard deviations of a normal law."""
        return -float(special.ndtri(self.value))

    @property
    def z_error(self) -> float:
        """Of the significance, to first order: error / phi(z)."""
        return self.error * math.sqrt(math.tau) * math.exp(0.5 * self.z**2)

    def __str__(self) -> str:
        return f"({self.value:.2e} ± {self.error:.0e})"


def far_tail(
    density: Density,
    threshold: float,
    score: Score | None = None,
    *,
    events: int = 50_000,
    seed: int = 0,
    counted: Floats | None = None,
) -> FarTail:
    """P(score(X) <= threshold) for X of a density, however small.

    Parameters
    ----------
    density : a :class:`pofx.Model`, or anything with ``sample(n, seed=)`` and ``log_prob``.
    threshold : of the score.
    score : of events ``(n, bins)`` and their log-densities ``(n,)``; the log-density by default.
    events : behind the estimate; each round before it takes a fifth of that.
    seed : of the proposal.
    counted : scores of plain toys of the density, with which the proposal has to agree where both count.

    Raises
    ------
    DataError if fewer than 100 effective events fall into the tail, or if the proposal and ``counted`` differ by five errors: then nothing
    is known but an upper limit from plain toys.

    >>> from scipy import stats
    >>> from pofx.simulators.densities import CorrelatedGaussian
    >>> truth = CorrelatedGaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    >>> found = far_tail(truth, float(truth.log_prob([[6.0, 0.0]])[0]), events=20_000)
    >>> bool(abs(found.value - stats.chi2.sf(36.0, 2)) < 5 * found.error)
    True
    """
    sampler = Sampler(density, score or (lambda _, logp: logp), seed)
    laws = _adapted(sampler, threshold, max(events // 5, 4000))
    points = sampler.draw(laws, events, "estimate")
    value, error, effective = _estimate(points, threshold)
    if effective < LEAST:
        raise DataError(
            f"importance sampling: expected at least {LEAST:.0f} effective events in the tail; got {effective:.1f} of {events}"
        )
    names = tuple(f"{law.share:.2f} {law.frame.name}" for law in laws)
    return FarTail(value, error, effective, events, names, _pull(points, threshold, counted))


def _adapted(sampler: Sampler, threshold: float, n: int) -> list[Law]:
    """Rounds of proposals, each fitted to the tail, or as near to it as enough events of the round before have come."""
    start = laws = sampler.start()
    arrived = False
    for k in range(ROUNDS):
        points = sampler.draw(laws, n, f"round {k}")
        level = _level(points, threshold)
        weight = points.weights(level)
        kept = _reshared(laws, points.ratios, weight)
        if arrived and level == threshold:
            return kept
        arrived = level == threshold
        fitted = [law for name in points.coordinates for law in _fitted(sampler.frames[name], points, name, weight)]
        known = kept if arrived else start
        laws = shared(
            [*known, *fitted], np.array([law.share for law in known] + [1 / max(len(fitted), 1)] * len(fitted))
        )
    if not arrived:
        raise DataError(f"importance sampling: {ROUNDS} rounds of proposals did not reach scores of {threshold:.6g}")
    return laws


def _level(points: Points, threshold: float) -> float:
    """The threshold, or the lowest score below which there are enough effective events."""
    order = np.argsort(points.score)
    weight = np.exp(points.log_weight[order])
    effective = np.cumsum(weight) ** 2 / np.maximum(np.cumsum(weight**2), 1e-300)
    enough = np.flatnonzero(effective >= ENOUGH)
    place = int(enough[0]) if len(enough) else len(order) // 10
    return max(threshold, float(points.score[order][place]))


def _fitted(frame: Any, points: Points, name: str, weight: Floats) -> list[Law]:
    """A normal law with the weighted moments of the tail, and one a fifth wider (Student-t in the bins)."""
    used = weight > 0
    if not frame.size or used.sum() < 3:
        return []
    share = weight[used] / weight.sum()
    mean, root = _moments(points.coordinates[name][used], share, 1.0 / float((share**2).sum()))
    return [Law(frame, mean, root), Law(frame, mean, 1.2 * root, math.inf if frame.normal else DEGREES)]


def _moments(v: Floats, share: Floats, events: float) -> tuple[Floats, Floats]:
    """Mean (shrunk to zero) and root of the covariance (shrunk to a multiple of one, OAS: arXiv:0907.4698) of weighted rows."""
    d = v.shape[1]
    mean = share @ v
    square, noise = float(mean @ mean), float(share @ ((v - mean) ** 2).sum(1)) / events
    mean = mean * max(0.0, 1.0 - noise / max(square, 1e-300))
    offset = v - mean
    covariance = (share[:, None] * offset).T @ offset
    trace, squares = float(np.trace(covariance)), float((covariance**2).sum())
    spread = (events + 1 - 2 / d) * (squares - trace**2 / d)
    pull = min(1.0, ((1 - 2 / d) * squares + trace**2) / spread) if spread > 0 else 1.0
    middle = trace / d * np.eye(d)
    return mean, linalg.cholesky((1 - pull) * covariance + (pull + 1e-9) * middle, lower=True)


def _reshared(laws: list[Law], ratios: Floats, weight: Floats) -> list[Law]:
    """The laws that matter, with the shares that the tail asks for: a few steps of expectation maximisation."""
    share, used = np.array([law.share for law in laws]), weight > 0
    if not used.any():
        return laws
    part = weight[used] / weight[used].sum()
    for _ in range(20):
        terms = ratios[:, used] + np.log(np.maximum(share, 1e-300))[:, None]
        share = np.exp(terms - special.logsumexp(terms, axis=0)) @ part
    keep = share > 0.01
    keep[0], share[0] = True, max(share[0], OWN)
    return shared([law for law, good in zip(laws, keep, strict=True) if good], share[keep])


def _estimate(points: Points, threshold: float) -> tuple[float, float, float]:
    """The probability of the tail, its error, and the effective number of events in it."""
    weight = points.weights(threshold)
    total, square = float(weight.sum()), float((weight**2).sum())
    error = float(weight.std(ddof=1)) / math.sqrt(len(weight))
    return total / len(weight), error, total**2 / square if square > 0 else 0.0


def _pull(points: Points, threshold: float, counted: Floats | None) -> float | None:
    """The proposal against counting for the hundred least probable toys; DataError if they disagree."""
    if counted is None or len(counted) < 200:
        return None
    level = float(np.partition(counted, 99)[99])
    value, error, effective = _estimate(points, level)
    if level < threshold or not math.isfinite(level) or effective < LEAST / 4:
        return None
    toys = tail_probability(level, counted)
    pull = (value - toys.value) / math.hypot(error, (toys.high - toys.low) / 2)
    if abs(pull) > APART:
        raise DataError(f"importance sampling: the proposal finds {value:.3g} where plain toys count {toys}")
    return float(pull)
