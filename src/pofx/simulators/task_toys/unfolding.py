r"""Toys of unfolding: linear Gaussian ones with the exact iterations of OmniFold, a flip, and a Gaussian one with losses and fakes.

Linear: :math:`z \sim N(m, S)`, :math:`x = A z + N(0, Q)`. Then, with :math:`K = S A^T (A S A^T + Q)^{-1}`,

.. math:: p(z | x) = N(m + K (x - A m),\ S - K A S)

and OmniFold (arXiv:1911.09107), of which one iteration is :math:`p_{k+1}(z) = \int p_k(z | x)\, p_{data}(x)\, dx` (Lucy and
Richardson), stays Gaussian: for data of mean a and covariance C,

.. math:: m_{k+1} = m_k + K_k (a - A m_k), \qquad S_{k+1} = S_k - K_k A S_k + K_k C K_k^T
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pofx.config import check_at_least, check_between
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.simulators.densities import CorrelatedGaussian
from pofx.simulators.task_toys.base import Array, Toy, log_normal, rows_of

__all__ = ["Flip", "LinearGaussian", "LossyGaussian", "gaussian_pair", "shifted_pair"]


class LinearGaussian(Toy):
    """Particle level ``gen`` given detector level ``sim``, both Gaussian.

    Parameters
    ----------
    mean, covariance : m ``(d,)`` and S ``(d, d)``.
    response, noise : A ``(k, d)`` and Q ``(k, k)``.

    >>> toy = LinearGaussian([0.0], [[1.0]], [[1.0]], [[1.0]])
    >>> toy.posterior([[2.0]])[0].tolist()
    [[1.0]]
    """

    def __init__(self, mean: ArrayLike, covariance: ArrayLike, response: ArrayLike, noise: ArrayLike) -> None:
        self.gen = CorrelatedGaussian(mean, covariance)
        self.response = np.asarray(response, np.float64)
        self.noise = CorrelatedGaussian(np.zeros(len(self.response)), noise)
        spread = self.response @ self.gen.covariance @ self.response.T + self.noise.covariance
        self.sim = CorrelatedGaussian(self.response @ self.gen.mean, spread)
        self.gain: Array = np.asarray(np.linalg.solve(spread, self.response @ self.gen.covariance).T, np.float64)

    def spec(self) -> EventSpec:
        return vector_spec(self.gen.dim, "gen")

    def context_spec(self) -> EventSpec:
        return vector_spec(self.sim.dim, "sim")

    def sample(self, n: int, seed: int) -> Events:
        gen = self.gen.sample(n, seed)
        sim = gen @ self.response.T + self.noise.sample(n, seed + 2**40)
        return Events({"gen": gen}, context=Events({"sim": sim}))

    def posterior(self, sim: ArrayLike) -> tuple[Array, Array]:
        """Means ``(n, d)`` of gen given sim, and their common covariance."""
        rows = rows_of(sim, self.sim.dim, "sim")
        return self.gen.mean + (rows - self.sim.mean) @ self.gain.T, self._posterior_covariance

    def log_prob(self, gen: ArrayLike, sim: ArrayLike) -> Array:
        """log p(gen | sim), ``(n,)``."""
        mean, covariance = self.posterior(sim)
        return CorrelatedGaussian(np.zeros(self.gen.dim), covariance).log_prob(rows_of(gen, self.gen.dim, "gen") - mean)

    def unfolded(self, data: CorrelatedGaussian, iterations: int) -> CorrelatedGaussian:
        """What OmniFold with perfect classifiers makes of the particle level, this toy being its simulation.

        ``data`` is the detector level of the data, such as ``other.sim``; the limit of many iterations is its maximum likelihood.
        """
        toy, noise = self, self.noise.covariance
        for _ in range(iterations):
            mean = toy.posterior(data.mean[None])[0][0]
            covariance = toy._posterior_covariance + toy.gain @ data.covariance @ toy.gain.T
            toy = LinearGaussian(mean, covariance, self.response, noise)
        return toy.gen

    @property
    def _posterior_covariance(self) -> Array:
        found: Array = self.gen.covariance - self.gain @ self.response @ self.gen.covariance
        return 0.5 * (found + found.T)


def gaussian_pair(smear: float = 2.0) -> tuple[LinearGaussian, LinearGaussian]:
    """Simulation N(0, 1) and data N(0.2, 0.9^2), smeared alike: the toy of AUSSIE, whose truth ratio is known."""
    noise = [[smear**2]]
    return LinearGaussian([0.0], [[1.0]], [[1.0]], noise), LinearGaussian([0.2], [[0.81]], [[1.0]], noise)


def shifted_pair(dim: int = 4, smear: float = 0.5) -> tuple[LinearGaussian, LinearGaussian]:
    """Simulation N(1, 1) and data N(0, 1) in ``dim`` independent columns, smeared alike: the test of the OmniFold package."""
    one, noise = np.eye(dim), smear**2 * np.eye(dim)
    return LinearGaussian(np.ones(dim), one, one, noise), LinearGaussian(np.zeros(dim), one, one, noise)


class Flip(Toy):
    r"""Two modes that the detector exchanges: :math:`z = -s\,(4 + N(0, 1))`, s = 1 or -1, and :math:`x = -z`.

    A conditional learner finds :math:`z = -x`; a map of least transport sends each mode to the nearest one, and is wrong everywhere.
    """

    def spec(self) -> EventSpec:
        return vector_spec(1, "gen")

    def context_spec(self) -> EventSpec:
        return vector_spec(1, "sim")

    def sample(self, n: int, seed: int) -> Events:
        rng = np.random.default_rng(seed)
        gen = -rng.choice([-1.0, 1.0], (n, 1)) * (4.0 + rng.standard_normal((n, 1)))
        return Events({"gen": gen}, context=Events({"sim": -gen}))

    def truth(self, sim: ArrayLike) -> Array:
        """gen given sim."""
        return -rows_of(sim, 1, "sim")

    def log_prob(self, gen: ArrayLike) -> Array:
        """log p(gen), which is also that of sim."""
        z = rows_of(gen, 1, "gen")[:, 0]
        return np.asarray(np.logaddexp(log_normal(z, 4.0, 1.0), log_normal(z, -4.0, 1.0)) - math.log(2.0))


@dataclass(frozen=True)
class LossyGaussian(Toy):
    r"""A Gaussian measured with smearing, losses, fakes and background: each level has a number and whether it is there.

    :math:`z \sim N(\mu, \sigma^2)`; the detector misses a share ``loss`` of the events, and of what it sees, a share ``fakes`` has no
    particle level (:math:`x \sim N(0, 2^2)`); otherwise :math:`x = z + N(0, s^2)`. Absent numbers are zero.

    >>> toy = LossyGaussian()
    >>> toy.matched([0.0]).round(3).tolist()
    [0.942]
    """

    mean: float = 0.0
    width: float = 1.0
    smear: float = 0.5
    loss: float = 0.1
    fakes: float = 0.1

    def __post_init__(self) -> None:
        check_at_least(self, 1e-6, "width", "smear")
        check_between(self, 0.0, 0.999, "loss", "fakes")

    def spec(self) -> EventSpec:
        return vector_spec([Column("z"), Column("there", "", "discrete", 0.0, 1.0)], "gen")

    def context_spec(self) -> EventSpec:
        return vector_spec([Column("x"), Column("there", "", "discrete", 0.0, 1.0)], "sim")

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of events: on both levels, lost, fake."""
        both = (1.0 - self.loss) * (1.0 - self.fakes)
        lost, fake = self.loss * (1.0 - self.fakes), (1.0 - self.loss) * self.fakes
        total = both + lost + fake
        return both / total, lost / total, fake / total

    def sample(self, n: int, seed: int) -> Events:
        rng = np.random.default_rng(seed)
        what = rng.choice(3, n, p=self.shares)
        g = rng.standard_normal((2, n))
        z = self.mean + self.width * g[0]
        x = np.where(what == 2, 2.0 * g[1], z + self.smear * g[1])
        gen, sim = (np.stack([np.where(what != k, v, 0.0), what != k], 1) for k, v in ((2, z), (1, x)))
        return Events({"gen": gen}, context=Events({"sim": sim}))

    def matched(self, x: ArrayLike) -> Array:
        """The probability that an event seen at x has a particle level."""
        x, (both, _, fake) = np.asarray(x, np.float64), self.shares
        signal = math.log(both) + log_normal(x, self.mean, math.hypot(self.width, self.smear))
        return np.asarray(special.expit(signal - math.log(fake) - log_normal(x, 0.0, 2.0))) if fake else np.ones_like(x)

    def log_prob(self, z: ArrayLike, x: ArrayLike) -> Array:
        """log p(z | x, on both levels)."""
        pull = self.width**2 / (self.width**2 + self.smear**2)
        mean = self.mean + pull * (np.asarray(x, np.float64) - self.mean)
        return log_normal(z, mean, self.smear * math.sqrt(pull))
