r"""A tagger of top jets, smeared by a known law: p(score | features of the jet) in closed form.

Half of the jets are signal. Transverse momenta have :math:`1/p_T` uniform between their ends, pseudorapidity is uniform in (-2.5, 2.5);
masses are :math:`N(173, 18^2)` GeV of signal and :math:`\ln m \sim N(\ln 90, 0.5^2)` of background. With :math:`L = \ln(p_T / 400\
\mathrm{GeV})` and the bump :math:`b = e^{-(m - 173)^2 / (2 \cdot 25^2)}` the logit of the score is a mixture of two normal laws,

.. math:: \mathrm{logit}\, s \sim (1 - w)\, N(\mu, \sigma^2) + w\, N(0.3 \mu - 0.4, 1.7^2), \qquad w = 0.15 + 0.02\, \eta^2

.. math:: \mu_{\mathrm{signal}} = 1.2 + 1.2 L + 1.2\, b, \quad \mu_{\mathrm{background}} = -2.4 + 0.6 L + 1.6\, b, \quad
          \sigma = 0.8 + 0.08\, \eta^2.

The second part are jets whose decay products were partly lost; it makes the smearing wide-tailed and skew.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pofx.config import check_at_least, check_between
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.errors import ConfigError
from pofx.simulators.task_toys.base import Array, Toy, log_normal, rows_of

__all__ = ["Tagger"]

JET = (
    Column("pt", "GeV", "bounded", 0.0),
    Column("eta"),
    Column("mass", "GeV", "bounded", 0.0),
    Column("signal", "", "discrete", 0.0, 1.0),
)
LIMIT = 50.0
"""Logits between which quantiles are looked for."""


class Tagger(Toy):
    """Field ``tagger`` (score) given the context ``jet`` (pt, eta, mass, signal).

    Parameters
    ----------
    low, high : of the transverse momenta, in GeV.
    signal_share : of the jets.

    >>> tagger = Tagger()
    >>> jet = [[500.0, 0.3, 170.0, 1.0]]
    >>> middle = tagger.quantile([0.5], jet)
    >>> tagger.cdf(middle, jet).round(6).tolist()
    [0.5]
    """

    def __init__(self, low: float = 200.0, high: float = 800.0, signal_share: float = 0.5) -> None:
        self.low, self.high, self.signal_share = low, high, signal_share
        check_at_least(self, 1.0, "low", "high")
        check_between(self, 0.0, 1.0, "signal_share")
        if not low < high:
            raise ConfigError(f"Tagger: expected low below high; got {low} and {high}")

    def spec(self) -> EventSpec:
        return vector_spec((Column("score", "", "bounded", 0.0, 1.0),), "tagger")

    def context_spec(self) -> EventSpec:
        return vector_spec(JET, "jet")

    def sample(self, n: int, seed: int) -> Events:
        rng = np.random.default_rng(seed)
        jets = self._jets(n, rng)
        return Events({"tagger": self.scores(jets, rng)[:, None]}, context=Events({"jet": jets}))

    def scores(self, jets: ArrayLike, rng: np.random.Generator) -> Array:
        """One score per jet, ``(n,)``."""
        share, means, widths = _parts(rows_of(jets, len(JET), "jets"))
        lost = (rng.random(len(share)) < share).astype(np.intp)
        place = means[lost, np.arange(len(share))] + widths[lost, np.arange(len(share))] * rng.standard_normal(
            len(share)
        )
        return np.asarray(special.expit(place))

    def log_prob(self, scores: ArrayLike, jets: ArrayLike) -> Array:
        """log p(score | jet), ``(n,)``; ``-inf`` outside (0, 1)."""
        s = np.asarray(scores, np.float64)
        share, means, widths = _parts(rows_of(jets, len(JET), "jets"))
        inside = (s > 0) & (s < 1)
        s = np.where(inside, s, 0.5)
        logs = np.log([1 - share, share]) + log_normal(special.logit(s), means, widths)
        return np.where(inside, special.logsumexp(logs, axis=0) - np.log(s) - np.log1p(-s), -np.inf)

    def cdf(self, scores: ArrayLike, jets: ArrayLike) -> Array:
        """P(score' < score | jet), ``(n,)``; one minus it is the efficiency of a cut there."""
        s = np.clip(np.asarray(scores, np.float64), 0.0, 1.0)
        return _cdf(special.logit(s), *_parts(rows_of(jets, len(JET), "jets")))

    def quantile(self, levels: ArrayLike, jets: ArrayLike) -> Array:
        """Scores ``(n,)`` below which this probability lies, to rounding; levels ``(n,)`` or one number, in (0, 1)."""
        parts = _parts(rows_of(jets, len(JET), "jets"))
        wanted = np.broadcast_to(np.asarray(levels, np.float64), parts[0].shape)
        low, high = np.full(wanted.shape, -LIMIT), np.full(wanted.shape, LIMIT)
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = _cdf(middle, *parts) < wanted
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(special.expit(0.5 * (low + high)))

    def _jets(self, n: int, rng: np.random.Generator) -> Array:
        pt = 1.0 / (1.0 / self.low - rng.random(n) * (1.0 / self.low - 1.0 / self.high))
        eta, signal, normal = rng.uniform(-2.5, 2.5, n), rng.random(n) < self.signal_share, rng.standard_normal(n)
        mass = np.where(signal, np.abs(173.0 + 18.0 * normal), 90.0 * np.exp(0.5 * normal))
        return np.stack([pt, eta, mass, signal], 1)


def _parts(jets: Array) -> tuple[Array, Array, Array]:
    """Share of the second part ``(n,)``, means and widths of both ``(2, n)``."""
    pt, eta, mass, signal = jets.T
    rise, bump = np.log(pt / 400.0), np.exp(-0.5 * ((mass - 173.0) / 25.0) ** 2)
    mean = np.where(signal > 0.5, 1.2 + 1.2 * rise + 1.2 * bump, -2.4 + 0.6 * rise + 1.6 * bump)
    widths = np.stack([0.8 + 0.08 * eta**2, np.full_like(eta, 1.7)])
    return 0.15 + 0.02 * eta**2, np.stack([mean, 0.3 * mean - 0.4]), widths


def _cdf(logits: Array, share: Array, means: Array, widths: Array) -> Array:
    first, second = special.ndtr((logits - means) / widths)
    return np.asarray((1 - share) * first + share * second)
