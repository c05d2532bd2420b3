r"""A toy of the matrix element method with a phase: p(reconstructed | alpha) by one-dimensional quadratures.

Hard process :math:`h = (p_a, p_b, \eta, \phi)`, [GeV, GeV, 1, rad]:

.. math:: \frac{d\sigma}{dh}(\alpha) = \frac{e^{-(p_a - 30)/50}}{50}\, \frac{e^{-(p_b - 30)/30}}{30}\, N(\eta; 0, 1.5^2)\,
          \frac{1 + c(p_b) \cos(\phi - 2 \alpha)}{2 \pi}, \qquad c(p_b) = 0.9 \tanh(p_b / 60)

for both momenta above 30. It is accepted with :math:`\epsilon = S((p_a - 40)/5)\, S(6.25 - \eta^2)\, (1 + 0.3 \cos\phi)/1.3`, S the
logistic function. The detector smears: momenta by 10 %, eta by 0.05, phi by 0.3 (on the circle); in 20 % of the events the two jets
are exchanged:
:math:`p_a \leftrightarrow p_b`, :math:`\phi \to \phi + \pi`. Then

.. math:: p(r | \alpha) = \frac{1}{\sigma_{fid}(\alpha)} \int dh\, \frac{d\sigma}{dh}\, \epsilon(h)\, r(r | h)

is a sum over exchanges and over the harmonics of phi of products of integrals over one variable each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.simulators.task_toys.base import Array, Toy, log_normal, rows_of

__all__ = ["MatrixElement"]

LEAST, FALL, RESOLUTION = 30.0, (50.0, 30.0), 0.10
ETA, ETA_SMEAR, PHI_SMEAR = 1.5, 0.05, 0.3
SWAPPED, LOBE = 0.2, 0.3
COLUMNS = (Column("pa", "GeV", "bounded", 0.0), Column("pb", "GeV", "bounded", 0.0), Column("eta"))
PHI = Column("phi", "rad", "periodic", -math.pi, math.pi)
NODES = np.polynomial.legendre.leggauss(80)
ROWS = 1024
"""Events whose integrands are held at once."""


class MatrixElement(Toy):
    """Field ``reco`` (pa, pb, eta, phi); contexts ``alpha`` (uniform in (0, pi)) and ``hard``, what it was made of.

    >>> toy = MatrixElement()
    >>> events = toy.sample(3, seed=1)
    >>> toy.log_prob(events.x, 0.3).shape
    (3,)
    """

    def spec(self) -> EventSpec:
        return vector_spec([*COLUMNS, PHI], "reco")

    def context_spec(self) -> EventSpec:
        hard = vector_spec([*(Column(f"hard_{c.name}", c.unit, c.type, c.low) for c in COLUMNS), _named(PHI)], "hard")
        return {**vector_spec([Column("alpha", "rad", "periodic", 0.0, math.pi)], "alpha"), **hard}

    def sample(self, n: int, seed: int) -> Events:
        alpha = math.pi * np.random.default_rng((seed, 1)).random(n)
        return self.sample_at(alpha, seed)

    def sample_at(self, alpha: ArrayLike, seed: int) -> Events:
        """One accepted event for each phase."""
        rng, alpha = np.random.default_rng(seed), np.asarray(alpha, np.float64)
        hard, missing = np.zeros((len(alpha), 4)), np.arange(len(alpha))
        while len(missing):
            drawn = _hard(len(missing), rng)
            density = 1.0 + _contrast(drawn[:, 1]) * np.cos(drawn[:, 3] - 2 * alpha[missing])
            taken = 2.0 * rng.random(len(missing)) < density * self.acceptance(drawn)
            hard[missing[taken]], missing = drawn[taken], missing[~taken]
        context = Events({"alpha": alpha[:, None], "hard": hard})
        return Events({"reco": self.smeared(hard, rng)}, context=context)

    def smeared(self, hard: Array, rng: np.random.Generator) -> Array:
        """What the detector makes of hard events."""
        n = len(hard)
        scale = np.array([RESOLUTION, RESOLUTION, ETA_SMEAR, PHI_SMEAR])
        size = np.stack([hard[:, 0], hard[:, 1], np.ones(n), np.ones(n)], 1)
        reco = hard + scale * size * rng.standard_normal((n, 4))
        swap = rng.random(n) < SWAPPED
        reco[swap] = reco[swap][:, [1, 0, 2, 3]] + [0.0, 0.0, 0.0, math.pi]
        reco[:, 3] = np.mod(reco[:, 3] + math.pi, math.tau) - math.pi
        return reco

    def log_hard(self, hard: ArrayLike, alpha: ArrayLike) -> Array:
        """log of d sigma / dh, normalised to one; ``-inf`` below 30 GeV."""
        pa, pb, eta, phi = rows_of(hard, 4, "hard").T
        falling = sum(-(p - LEAST) / fall - math.log(fall) for p, fall in zip((pa, pb), FALL, strict=True))
        angle = np.log1p(_contrast(pb) * np.cos(phi - 2 * np.asarray(alpha))) - math.log(math.tau)
        return np.where((pa >= LEAST) & (pb >= LEAST), falling + log_normal(eta, 0.0, ETA) + angle, -np.inf)

    def acceptance(self, hard: ArrayLike) -> Array:
        """The probability that a hard event is kept."""
        pa, _, eta, phi = rows_of(hard, 4, "hard").T
        return np.asarray(_kept_p(pa) * _kept_eta(eta) * (1 + LOBE * np.cos(phi)) / (1 + LOBE))

    def log_transfer(self, reco: ArrayLike, hard: ArrayLike) -> Array:
        """log r(reco | hard)."""
        r, h = rows_of(reco, 4, "reco"), rows_of(hard, 4, "hard")
        parts = [
            math.log(share) + _log_smeared(r[:, order], h, shift)
            for share, order, shift in ((1 - SWAPPED, [0, 1, 2, 3], 0.0), (SWAPPED, [1, 0, 2, 3], math.pi))
        ]
        return np.asarray(np.logaddexp(*parts))

    def fiducial(self, alpha: ArrayLike) -> Array:
        """sigma_fid(alpha), the share of accepted events."""
        kept_a, kept_eta, mean_c = self._constants
        return np.asarray(kept_a * kept_eta * (1 + 0.5 * LOBE * mean_c * np.cos(2 * np.asarray(alpha))) / (1 + LOBE))

    def log_prob(self, reco: ArrayLike, alpha: ArrayLike) -> Array:
        """log p(reco | alpha), ``(n,)``, of accepted events."""
        rows, phase = rows_of(reco, 4, "reco"), np.asarray(alpha, np.float64)
        phases = np.broadcast_to(phase, len(rows))
        parts = [self._log_prob(rows[k : k + ROWS], phases[k : k + ROWS]) for k in range(0, len(rows), ROWS)]
        return np.concatenate([np.zeros(0), *parts])

    def _log_prob(self, reco: Array, alpha: Array) -> Array:
        pa, pb, eta, phi = reco.T
        total = (1 - SWAPPED) * _momenta(pa, pb, phi, alpha) + SWAPPED * _momenta(pb, pa, phi - math.pi, alpha)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(total) + np.log(_eta_integral(eta)) - np.log(self.fiducial(alpha)))

    @cached_property
    def _constants(self) -> tuple[float, float, float]:
        """Acceptance in pa and in eta, and the mean contrast."""
        kept_a = _average(lambda u: _kept_p(LEAST + FALL[0] * u))
        mean_c = _average(lambda u: _contrast(LEAST + FALL[1] * u))
        u, w = 6.0 * ETA * NODES[0], 6.0 * ETA * NODES[1]
        return kept_a, float(w @ (np.exp(log_normal(u, 0.0, ETA)) * _kept_eta(u))), mean_c


def _hard(n: int, rng: np.random.Generator) -> Array:
    """Before the phase: phi uniform."""
    pa, pb = (LEAST + rng.exponential(fall, n) for fall in FALL)
    return np.stack([pa, pb, ETA * rng.standard_normal(n), math.pi * (2 * rng.random(n) - 1)], 1)


def _contrast(pb: Array) -> Array:
    return np.asarray(0.9 * np.tanh(pb / 60.0))


def _kept_p(pa: Array) -> Array:
    return np.asarray(special.expit((pa - 40.0) / 5.0))


def _kept_eta(eta: Array) -> Array:
    return np.asarray(special.expit(6.25 - eta**2))


def _log_smeared(r: Array, h: Array, shift: float) -> Array:
    """log of the smearing without exchange."""
    momenta = sum(log_normal(r[:, i], h[:, i], RESOLUTION * h[:, i]) for i in (0, 1))
    turns = math.tau * np.arange(-2, 3)[:, None]
    away = np.mod(r[:, 3] - h[:, 3] - shift + math.pi, math.tau) - math.pi
    angle: Array = special.logsumexp(log_normal(away + turns, 0.0, PHI_SMEAR), axis=0)
    return np.asarray(momenta + log_normal(r[:, 2], h[:, 2], ETA_SMEAR) + angle)


def _momenta(pa: Array, pb: Array, phi: Array, alpha: Array) -> Array:
    """The integral over hard momenta and angle for reconstructed ones that belong together; harmonics n of phi fade by exp(-(0.3 n)^2
    / 2)."""
    fade = [math.exp(-0.5 * (n * PHI_SMEAR) ** 2) for n in (1, 2)]
    plain = 1 + LOBE * fade[0] * np.cos(phi)
    mixed = np.cos(2 * alpha) + fade[1] * np.cos(2 * phi - 2 * alpha)
    tilted = fade[0] * np.cos(phi - 2 * alpha) + 0.5 * LOBE * mixed
    first = _momentum_integral(pa, FALL[0], _kept_p)
    flat, weighted = (_momentum_integral(pb, FALL[1], weight) for weight in (np.ones_like, _contrast))
    return first * (flat * plain + weighted * tilted) / (math.tau * (1 + LOBE))


def _momentum_integral(r: Array, fall: float, weight: Callable[[Array], Array]) -> Array:
    """Of a falling spectrum times a weight times the smearing, over the pull u: p = r / (1 + 0.1 u)."""
    r = np.asarray(r, np.float64)
    top = np.clip((r / LEAST - 1.0) / RESOLUTION, -8.0, 8.0)
    half = 0.5 * (top + 8.0)[:, None]
    u = -8.0 + half * (NODES[0] + 1.0)
    p = np.maximum(r, 1e-9)[:, None] / (1.0 + RESOLUTION * u)
    inside = (
        np.exp(-(p - LEAST) / fall - 0.5 * u**2) / (fall * math.sqrt(math.tau)) * weight(p) / (1.0 + RESOLUTION * u)
    )
    return np.asarray((half * inside) @ NODES[1])


def _eta_integral(eta: Array) -> Array:
    u = 8.0 * NODES[0]
    hard = eta[:, None] + ETA_SMEAR * u
    inside = np.exp(log_normal(hard, 0.0, ETA) + log_normal(u, 0.0, 1.0)) * _kept_eta(hard)
    return np.asarray(8.0 * inside @ NODES[1])


def _average(value: Callable[[Array], Array]) -> float:
    """Of a function of an exponentially distributed number."""
    u, w = 20.0 * (NODES[0] + 1.0), 20.0 * NODES[1]
    return float(w @ (np.exp(-u) * value(u)))


def _named(column: Column) -> Column:
    return Column(f"hard_{column.name}", column.unit, column.type, column.low, column.high)
