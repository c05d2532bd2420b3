r"""More tasks of simulation-based inference with exact posteriors (arXiv:2101.04653).

- gaussian linear: :math:`\theta \sim N(0, 0.1)^{10}`, :math:`x \sim N(\theta, 0.1)`; the posterior is :math:`N(x / 2, 0.05)`;
- gaussian linear uniform: :math:`\theta \sim U(-1, 1)^{10}`, the same x; the posterior is a normal cut off at the edges, drawn by
  inversion;
- slcp distractors: slcp with 92 more numbers of x that know nothing of theta, all of them shuffled (the law of the distractors, Student's t
  with two degrees of freedom, and the order are our choice): the posterior is that of slcp;
- sir: contact and recovery rates of an epidemic, :math:`\beta \sim LogN(\ln 0.4, 0.5)`, :math:`\gamma \sim LogN(\ln 0.125, 0.2)`,
  :math:`\dot S = -\beta S I / N,\ \dot I = \beta S I / N - \gamma I,\ \dot R = \gamma I`, N = 10^6, one infected on the first of 160 days;
  x are ten counts, :math:`x_i \sim \mathrm{Binomial}(1000, I(t_i) / N)`; the posterior is drawn below a staircase over the plane of the
  logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from pofx.data.spec import Column
from pofx.errors import DataError
from pofx.simulators.densities import Array
from pofx.simulators.inference_tasks import InferenceTask, Slcp

__all__ = ["MORE_TASKS", "Epidemic", "GaussianLinear", "GaussianLinearUniform", "SlcpDistractors"]

LOG_TAU = math.log(math.tau)


class GaussianLinearUniform(InferenceTask):
    """Ten means seen with normal noise of variance 0.1, a uniform prior.

    >>> GaussianLinearUniform().posterior(np.zeros(10), 3, seed=1).shape
    (3, 10)
    """

    parameters, edge, variance = 10, 1.0, 0.1

    def simulate(self, theta: ArrayLike, seed: int) -> Array:
        rows = np.asarray(theta, dtype=np.float64)
        noise: Array = np.random.default_rng((seed, 2)).standard_normal(rows.shape)
        return rows + math.sqrt(self.variance) * noise

    def log_likelihood(self, x: ArrayLike, theta: ArrayLike) -> Array:
        square = ((np.asarray(x) - np.atleast_2d(np.asarray(theta, dtype=np.float64))) ** 2).sum(-1)
        return np.asarray(-0.5 * square / self.variance - 0.5 * self.parameters * (LOG_TAU + math.log(self.variance)))

    def _propose(self, x: Array, size: int, rng: np.random.Generator) -> Array:
        width = math.sqrt(self.variance)
        low, high = (special.ndtr((end - x) / width) for end in (-self.edge, self.edge))
        drawn = x + width * special.ndtri(low + rng.random((size, self.parameters)) * (high - low))
        return np.clip(drawn, -self.edge, self.edge)


class GaussianLinear(GaussianLinearUniform):
    """Ten means seen with normal noise of variance 0.1, a normal prior of the same variance.

    >>> GaussianLinear().posterior(np.ones(10), 2000, seed=1).mean().round(2).item()
    0.5
    """

    edge = math.inf

    def prior(self, n: int, seed: int) -> Array:
        noise: Array = np.random.default_rng((seed, 0)).standard_normal((n, self.parameters))
        return math.sqrt(self.variance) * noise

    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(f"theta{i + 1}") for i in range(self.parameters))

    def _propose(self, x: Array, size: int, rng: np.random.Generator) -> Array:
        noise = rng.standard_normal((size, self.parameters))
        return np.asarray(0.5 * x + math.sqrt(0.5 * self.variance) * noise)


class SlcpDistractors(Slcp):
    """Slcp among 92 numbers that mean nothing.

    >>> SlcpDistractors().simulate([[0.0, 0.0, 1.0, 1.0, 0.0]], seed=1).shape
    (1, 100)
    """

    columns_of_x = 100

    @property
    def order(self) -> NDArray[np.int64]:
        """Where each of the eight numbers of slcp, then each distractor, stands in x."""
        return np.random.default_rng(92).permutation(self.columns_of_x)

    def simulate(self, theta: ArrayLike, seed: int) -> Array:
        real = super().simulate(theta, seed)
        noise = np.random.default_rng((seed, 3)).standard_t(2.0, (len(real), self.columns_of_x - 8))
        x = np.empty((len(real), self.columns_of_x))
        x[:, self.order] = np.concatenate([real, noise], 1)
        return x

    def log_likelihood(self, x: ArrayLike, theta: ArrayLike) -> Array:
        rows = np.atleast_2d(np.asarray(x, dtype=np.float64))[:, self.order]
        rest: Array = stats.t.logpdf(rows[:, 8:], 2.0).sum(-1)
        return super().log_likelihood(rows[:, :8], theta) + rest

    def _propose(self, x: Array, size: int, rng: np.random.Generator) -> Array:
        return super()._propose(x[self.order[:8]], size, rng)


class Epidemic(InferenceTask):
    """Contact and recovery rate of an epidemic, from ten counts.

    >>> Epidemic().simulate([[0.4, 0.125]], seed=1).shape
    (1, 10)
    """

    parameters, edge = 2, math.inf
    population, days, seen, points = 1_000_000.0, 160, 1000, 10
    medians, widths = (0.4, 0.125), (0.5, 0.2)
    steps = 2
    """Of Runge and Kutta's fourth-order rule in a day."""
    cells = (64, 128, 256, 512)
    """Of the staircase, along either axis: as many as a curved posterior needs."""

    def prior(self, n: int, seed: int) -> Array:
        noise = np.random.default_rng((seed, 0)).standard_normal((n, 2))
        return np.asarray(np.array(self.medians) * np.exp(np.array(self.widths) * noise))

    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(name, "1/day", "bounded", 0.0) for name in ("beta", "gamma"))

    def simulate(self, theta: ArrayLike, seed: int) -> Array:
        infected = self.infected(theta)
        return np.random.default_rng((seed, 2)).binomial(self.seen, infected).astype(np.float64)

    def infected(self, theta: ArrayLike) -> Array:
        """The share of infected at the ten times, ``(n, 10)``."""
        beta, gamma = np.atleast_2d(np.asarray(theta, dtype=np.float64)).T
        state = np.stack([np.full_like(beta, 1.0 - 1.0 / self.population), np.full_like(beta, 1.0 / self.population)])
        every, h, found = self.days // self.points, 1.0 / self.steps, []
        for day in range(1, self.days + 1):
            for _ in range(self.steps):
                state = _stepped(state, beta, gamma, h)
            if day % every == 0:
                found.append(state[1])
        return np.clip(np.stack(found, 1), 0.0, 1.0)

    def log_likelihood(self, x: ArrayLike, theta: ArrayLike) -> Array:
        return np.asarray(stats.binom.logpmf(np.atleast_2d(x), self.seen, self.infected(theta))).sum(1)

    def _log_posterior(self, x: Array, logs: Array) -> Array:
        """Of the logarithms of beta and gamma, up to a constant."""
        pull = (logs - np.log(self.medians)) / np.array(self.widths)
        share = np.clip(self.infected(np.exp(logs)), 1e-300, 1.0 - 1e-16)
        return np.asarray((x * np.log(share) + (self.seen - x) * np.log1p(-share)).sum(1) - 0.5 * (pull**2).sum(1))

    def _propose(self, x: Array, size: int, rng: np.random.Generator) -> Array:
        for cells in self.cells:
            logs, ratio = self._below(x, size, cells, rng)
            over = float((ratio > 0).mean())
            if over <= 1e-3:
                return np.exp(logs[np.log(rng.random(size)) < ratio])
        raise DataError(f"posterior: {over:.2g} of the draws lie above a staircase of {cells}^2 cells")

    def _below(self, x: Array, size: int, cells: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws from a staircase, twice as high as the highest corner of each cell, and the logarithm of density over staircase."""
        edges, corners = self._staircase(x, cells)
        top = np.max([corners[i : i + cells, j : j + cells] for i in (0, 1) for j in (0, 1)], 0) + math.log(2.0)
        share = np.exp(top - top.max())
        cell = np.unravel_index(rng.choice(share.size, size, p=(share / share.sum()).ravel()), share.shape)
        logs = np.stack(
            [axis[k] + (axis[1] - axis[0]) * rng.random(size) for axis, k in zip(edges, cell, strict=True)], 1
        )
        return logs, self._log_posterior(x, logs) - top[cell]

    def _staircase(self, x: Array, cells: int) -> tuple[list[Array], Array]:
        """Equal cells over the box that holds all but e^-25 of the largest density, found from five widths of the prior."""
        spans = [(math.log(m) - 5 * w, math.log(m) + 5 * w) for m, w in zip(self.medians, self.widths, strict=True)]
        for _ in range(6):
            edges = [np.linspace(*span, cells + 1) for span in spans]
            grid = np.stack(np.meshgrid(*edges, indexing="ij"), -1).reshape(-1, 2)
            values = self._log_posterior(x, grid).reshape(cells + 1, cells + 1)
            inside = np.argwhere(values > values.max() - 25.0)
            low, high = (inside.min(0) - 1).clip(0), (inside.max(0) + 1).clip(max=cells)
            spans = [(axis[a], axis[b]) for axis, a, b in zip(edges, low, high, strict=True)]
        return edges, values


def _stepped(state: Array, beta: Array, gamma: Array, h: float) -> Array:
    """One step of the classical Runge-Kutta rule for the shares of susceptible and infected."""

    def slope(at: Array) -> Array:
        new = beta * at[0] * at[1]
        return np.stack([-new, new - gamma * at[1]])

    k1 = slope(state)
    k2 = slope(state + 0.5 * h * k1)
    k3 = slope(state + 0.5 * h * k2)
    k4 = slope(state + h * k3)
    return state + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


MORE_TASKS: Mapping[str, InferenceTask] = {
    "gaussian-linear": GaussianLinear(),
    "gaussian-linear-uniform": GaussianLinearUniform(),
    "slcp-distractors": SlcpDistractors(),
    "sir": Epidemic(),
}
"""By name."""
