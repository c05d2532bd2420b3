r"""Three tasks of simulation-based inference with known likelihoods, and exact draws from their posteriors (arXiv:2101.04653).

- two moons: :math:`\theta \sim U(-1, 1)^2`,
  :math:`x = (r \cos a + 1/4,\ r \sin a) + (-|\theta_1 + \theta_2|,\ \theta_2 - \theta_1)/\sqrt 2`,
  :math:`a \sim U(-\pi/2, \pi/2)`, :math:`r \sim N(0.1, 0.01^2)`;
- gaussian mixture: :math:`\theta \sim U(-10, 10)^2`, :math:`x \sim \frac{1}{2} N(\theta, 1) + \frac{1}{2} N(\theta, 0.1^2)`;
- slcp: :math:`\theta \sim U(-3, 3)^5`, x four draws of :math:`N((\theta_1, \theta_2), S)` with standard deviations
  :math:`\theta_3^2, \theta_4^2`, correlation :math:`\tanh \theta_5`, and :math:`10^{-6}` added to both variances.

Posteriors are drawn by rejection, without Markov chains. In the first two, noise is drawn and the simulator is solved for theta: it is
linear with unit Jacobian on each of its branches. In the third, with mean :math:`\bar x` and scatter A of the four draws,

.. math:: p(\theta_3, \theta_4, \theta_5 | x) \propto |S|^{-3/2} e^{-\mathrm{tr}(S^{-1} A)/2}\, P_{box}, \qquad
          \theta_1, \theta_2 | S, x \sim N(\bar x, S/4)

up to the box of the prior: the three are drawn below a staircase over a fine grid, the two then normally, and what leaves the box is thrown
away; signs of theta 3 and 4 are free.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pofx.data.spec import Column
from pofx.errors import DataError
from pofx.simulators.densities import Array

__all__ = ["TASKS", "InferenceTask", "NoisyPoint", "Slcp", "TwoMoonsTask"]

ROUNDS = 400
"""Of rejection at most; each proposes four times as many draws as are wanted, and at least a thousand."""


class InferenceTask(ABC):
    """A uniform prior on a cube, a simulator, its likelihood, and draws from the posterior."""

    parameters: int
    edge: float
    """The prior is uniform on [-edge, edge] in every parameter."""

    def prior(self, n: int, seed: int) -> Array:
        """Parameters ``(n, parameters)``."""
        return np.random.default_rng((seed, 0)).uniform(-self.edge, self.edge, (n, self.parameters))

    @abstractmethod
    def simulate(self, theta: ArrayLike, seed: int) -> Array:
        """One x, ``(n, columns)``, for each row of parameters."""

    @abstractmethod
    def log_likelihood(self, x: ArrayLike, theta: ArrayLike) -> Array:
        """log p(x | theta), ``(n,)``; either may be a single row."""

    @abstractmethod
    def _propose(self, x: Array, size: int, rng: np.random.Generator) -> Array:
        """At most ``size`` draws whose law is the posterior once those outside the prior's cube are left out."""

    def posterior(self, x: ArrayLike, n: int, seed: int) -> Array:
        """``n`` independent parameters given x, ``(columns,)``; DataError if this x is all but impossible."""
        seen, rng, found, count = np.asarray(x, dtype=np.float64), np.random.default_rng((seed, 1)), [], 0
        for _ in range(ROUNDS):
            theta = self._propose(seen, max(4 * n, 1000), rng)
            theta = theta[(np.abs(theta) <= self.edge).all(1)]
            found.append(theta)
            count += len(theta)
            if count >= n:
                return np.concatenate(found)[:n]
        raise DataError(f"posterior: {count} of {n} draws were possible after {ROUNDS} rounds; x is {seen.tolist()}")

    def columns(self) -> tuple[Column, ...]:
        """The parameters, with the range of the prior."""
        return tuple(Column(f"theta{i + 1}", "", "bounded", -self.edge, self.edge) for i in range(self.parameters))


class TwoMoonsTask(InferenceTask):
    """Two crescents, one for either sign of theta 1 + theta 2.

    >>> task = TwoMoonsTask()
    >>> task.posterior([0.0, 0.0], 5, seed=1).shape
    (5, 2)
    """

    parameters, edge = 2, 1.0

    def simulate(self, theta: ArrayLike, seed: int) -> Array:
        rows, rng = np.asarray(theta, dtype=np.float64), np.random.default_rng((seed, 2))
        found: Array = self._noise(len(rows), rng) + self._shift(rows)
        return found

    def log_likelihood(self, x: ArrayLike, theta: ArrayLike) -> Array:
        offset = np.asarray(x) - self._shift(np.atleast_2d(np.asarray(theta, dtype=np.float64))) - [0.25, 0.0]
        r = np.linalg.norm(offset, axis=-1)
        inner = -0.5 * ((r - 0.1) / 0.01) ** 2 - math.log(0.01 * math.sqrt(math.tau)) - math.log(math.pi)
        found: Array = np.where(offset[..., 0] > 0, inner - np.log(r.clip(1e-300)), -np.inf)
        return found

    def _propose(self, x: Array, size: int, rng: np.random.Generator) -> Array:
        u, v = (x - self._noise(size, rng)).T * math.sqrt(2)
        sum_ = np.where(rng.random(size) < 0.5, -u, u)
        theta: Array = 0.5 * np.stack([sum_ - v, sum_ + v], 1)
        return theta[u <= 0]

    @staticmethod
    def _noise(n: int, rng: np.random.Generator) -> Array:
        a, r = rng.uniform(-math.pi / 2, math.pi / 2, n), 0.1 + 0.01 * rng.standard_normal(n)
        return np.stack([r * np.cos(a) + 0.25, r * np.sin(a)], 1)

    @staticmethod
    def _shift(theta: Array) -> Array:
        return np.stack([-np.abs(theta[:, 0] + theta[:, 1]), theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2)


class NoisyPoint(InferenceTask):
    """A point seen well or badly.

    >>> NoisyPoint().log_likelihood([0.0, 0.0], [[0.0, 0.0]]).round(3).tolist()
    [2.084]
    """

    parameters, edge = 2, 10.0
    widths = (1.0, 0.1)

    def simulate(self, theta: ArrayLike, seed: int) -> Array:
        rows, rng = np.asarray(theta, dtype=np.float64), np.random.default_rng((seed, 2))
        return rows + self._noise(len(rows), rng)

    def log_likelihood(self, x: ArrayLike, theta: ArrayLike) -> Array:
        square = ((np.asarray(x) - np.atleast_2d(np.asarray(theta, dtype=np.float64))) ** 2).sum(-1)
        parts = [-0.5 * square / w**2 - math.log(2 * math.tau * w**2) for w in self.widths]
        found: Array = special.logsumexp(parts, axis=0)
        return found

    def _propose(self, x: Array, size: int, rng: np.random.Generator) -> Array:
        return x - self._noise(size, rng)

    def _noise(self, n: int, rng: np.random.Generator) -> Array:
        return rng.choice(self.widths, (n, 1)) * rng.standard_normal((n, 2))


class Slcp(InferenceTask):
    """Simple likelihood, complex posterior: four modes in a cube of five parameters.

    >>> Slcp().simulate([[0.0, 0.0, 1.0, 1.0, 0.0]], seed=1).shape
    (1, 8)
    """

    parameters, edge = 5, 3.0
    cells = 48
    """Of the staircase, along every axis."""
    safety = 2.0
    """What the largest density at the corners of a cell is multiplied by."""

    def simulate(self, theta: ArrayLike, seed: int) -> Array:
        rows, rng = np.asarray(theta, dtype=np.float64), np.random.default_rng((seed, 2))
        a, b, c = self._covariance(rows[:, 2:])
        z = rng.standard_normal((len(rows), 4, 2))
        first = np.sqrt(a)[:, None] * z[..., 0]
        second = (c / np.sqrt(a))[:, None] * z[..., 0] + np.sqrt(b - c**2 / a)[:, None] * z[..., 1]
        points: Array = rows[:, None, :2] + np.stack([first, second], -1)
        return points.reshape(len(rows), 8)

    def log_likelihood(self, x: ArrayLike, theta: ArrayLike) -> Array:
        rows = np.atleast_2d(np.asarray(theta, dtype=np.float64))
        points = np.asarray(x, dtype=np.float64).reshape(-1, 4, 2) - rows[:, None, :2]
        scatter = np.einsum("nki,nkj->nij", points, points)
        return self._log_scatter(scatter, rows[:, 2:], 4) - 4 * math.log(math.tau)

    @staticmethod
    def _covariance(shape: Array) -> tuple[Array, Array, Array]:
        """Variances and covariance of rows of theta 3, 4, 5."""
        first, second = shape[:, 0] ** 2, shape[:, 1] ** 2
        return first**2 + 1e-6, second**2 + 1e-6, np.tanh(shape[:, 2]) * first * second

    def _log_scatter(self, scatter: Array, shape: Array, power: float) -> Array:
        """-power/2 log|S| - tr(S^-1 A)/2."""
        a, b, c = self._covariance(shape)
        determinant = a * b - c**2
        trace = b * scatter[..., 0, 0] - 2 * c * scatter[..., 0, 1] + a * scatter[..., 1, 1]
        found: Array = -0.5 * (power * np.log(determinant) + trace / determinant)
        return found

    def _propose(self, x: Array, size: int, rng: np.random.Generator) -> Array:
        points = x.reshape(4, 2)
        scatter = (points - points.mean(0)).T @ (points - points.mean(0))
        shape = self._draw_shape(scatter, size, rng)
        a, b, c = (part / 4 for part in self._covariance(shape))
        z = rng.standard_normal((len(shape), 2))
        mean = np.stack([np.sqrt(a) * z[:, 0], c / np.sqrt(a) * z[:, 0] + np.sqrt(b - c**2 / a) * z[:, 1]], 1)
        signs = rng.choice([-1.0, 1.0], (len(shape), 2))
        return np.concatenate([points.mean(0) + mean, shape[:, :2] * signs, shape[:, 2:]], 1)

    def _draw_shape(self, scatter: Array, size: int, rng: np.random.Generator) -> Array:
        """Theta 3 and 4 (their sizes) and 5, below the staircase."""
        edges = self._edges(scatter)
        corners = self._on_grid(scatter, edges)
        top = np.max(
            [corners[tuple(slice(k, k + self.cells) for k in shift)] for shift in product((0, 1), repeat=3)], 0
        )
        low, width = [axis[:-1] for axis in edges], [np.diff(axis) for axis in edges]
        volume = width[0][:, None, None] * width[1][:, None] * width[2]
        log_top = top + math.log(self.safety)
        share = np.exp(log_top - log_top.max()) * volume
        cell = np.unravel_index(rng.choice(share.size, size, p=(share / share.sum()).ravel()), share.shape)
        shape = np.stack([low[k][cell[k]] + width[k][cell[k]] * rng.random(size) for k in range(3)], 1)
        ratio = self._log_scatter(scatter, shape, 3) - log_top[cell]
        if (over := float((ratio > 0).mean())) > 1e-3:
            raise DataError(f"posterior: {over:.2g} of the draws lie above the staircase; make its cells finer")
        return shape[np.log(rng.random(size)) < ratio]

    def _edges(self, scatter: Array) -> list[Array]:
        """Edges of cells over the box that holds all but e^-25 of the largest density; found in four steps from the whole prior."""
        floor = 1e-3
        edges = [np.geomspace(floor, self.edge, self.cells + 1)] * 2 + [
            np.linspace(-self.edge, self.edge, self.cells + 1)
        ]
        for _ in range(4):
            values = self._on_grid(scatter, edges)
            inside = np.argwhere(values > values.max() - 25.0)
            low, high = (inside.min(0) - 1).clip(0), (inside.max(0) + 1).clip(max=self.cells)
            spans = [(axis[a], axis[b]) for axis, a, b in zip(edges, low, high, strict=True)]
            edges = [np.geomspace(*span, self.cells + 1) for span in spans[:2]] + [
                np.linspace(*spans[2], self.cells + 1)
            ]
        return edges

    def _on_grid(self, scatter: Array, edges: list[Array]) -> Array:
        grid = np.stack(np.meshgrid(*edges, indexing="ij"), -1)
        return self._log_scatter(scatter, grid.reshape(-1, 3), 3).reshape(grid.shape[:-1])


TASKS: Mapping[str, InferenceTask] = {"two-moons": TwoMoonsTask(), "slcp": Slcp(), "gaussian-mixture": NoisyPoint()}
"""The tasks by name."""
