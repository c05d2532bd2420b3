r"""Toys beyond the plane, with their densities: a shell, a mixture, a copula, images, clouds of points.

>>> TOYS["shell"].sample(2, seed=1).shape, TOYS["grid-field"].sample(2, seed=1).shape
((2, 5), (2, 1, 16, 16))
>>> TOYS["point-cloud"].sample(3, seed=1).mask.sum(1).tolist()
[12, 16, 9]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from pofx.config import check_at_least
from pofx.data.dataset import Dataset
from pofx.data.events import Events
from pofx.data.spec import Axis, Column, EventSpec, Field
from pofx.errors import CapabilityError, ShapeError
from pofx.simulators.densities import LOG_TAU, Array, Mixture, Truth, correlation_matrix

__all__ = ["TOYS", "CopulaToy", "GridField", "PointCloud", "Shell", "data_set", "mixture_toy"]


class Shell(Truth):
    r"""A thin spherical shell: direction uniform, radius normal; what amplification of samples is studied with (arXiv:2008.06545).

    .. math:: p(x) = \frac{N(r; R, w^2) + N(-r; R, w^2)}{S_d\, r^{d - 1}}, \qquad S_d = \frac{2 \pi^{d/2}}{\Gamma(d/2)}

    Parameters
    ----------
    dim, radius, width : d, R and w.

    >>> Shell(3).sample(4, seed=1).shape
    (4, 3)
    """

    def __init__(self, dim: int = 5, radius: float = 1.0, width: float = 0.1) -> None:
        self.dim, self.radius, self.width = dim, radius, width
        check_at_least(self, 1, "dim")
        check_at_least(self, 1e-12, "radius", "width")

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        direction = rng.standard_normal((n, self.dim))
        r = self.radius + self.width * rng.standard_normal(n)
        scaled: Array = direction * (r / np.linalg.norm(direction, axis=1))[:, None]
        return scaled

    def log_prob(self, x: ArrayLike) -> Array:
        r = np.linalg.norm(self._rows(x), axis=1).clip(1e-300)
        radial = np.logaddexp(*(stats.norm.logpdf(sign * r, self.radius, self.width) for sign in (1, -1)))
        surface = math.log(2) + 0.5 * self.dim * math.log(math.pi) - math.lgamma(0.5 * self.dim)
        found: Array = radial - surface - (self.dim - 1) * np.log(r)
        return found

    def marginal(self, columns: Sequence[int]) -> Truth:
        raise CapabilityError("Shell has no marginals in closed form")


def mixture_toy(dim: int = 20, components: int = 5) -> Mixture:
    r"""Gaussians with weights 1, 2, ..., means :math:`0.6\, g`, covariances :math:`A A^T / d + 0.2`; g and A are standard normal, seed d.

    >>> mixture_toy().dim
    20
    """
    rng = np.random.default_rng(dim)
    means = 0.6 * rng.standard_normal((components, dim))
    roots = rng.standard_normal((components, dim, dim))
    covariances = roots @ roots.transpose(0, 2, 1) / dim + 0.2 * np.eye(dim)
    return Mixture(np.arange(1.0, components + 1), means, covariances)


MARGINALS = (
    stats.norm(0.0, 2.0),
    stats.lognorm(0.5),
    stats.gamma(3.0),
    stats.beta(2.0, 5.0),
    stats.expon(),
    stats.t(5.0),
    stats.weibull_min(1.8),
    stats.logistic(1.0, 0.5),
    stats.gumbel_r(),
    stats.uniform(-1.0, 2.0),
)
"""The ten laws that the columns of :class:`CopulaToy` have in turn."""


class CopulaToy(Truth):
    r"""Columns of ten different laws, tied by a t-copula: correlated, and large or small together.

    .. math:: x_i = F_i^{-1}(T_\nu(z_i)), \quad z = g / \sqrt{\chi^2_\nu / \nu}, \quad g \sim N(0, R), \qquad
              \log p = \log t_{\nu, R}(z) - \sum_i \log t_\nu(z_i) + \sum_i \log f_i(x_i)

    Parameters
    ----------
    dim : columns; column i has law i modulo ten of ``MARGINALS``.
    freedom : nu.
    correlation : R ``(d, d)``; by default :func:`correlation_matrix`.

    >>> [column.type for column in CopulaToy(4).columns()]
    ['real', 'bounded', 'bounded', 'bounded']
    """

    def __init__(self, dim: int = 50, freedom: float = 4.0, correlation: ArrayLike | None = None) -> None:
        self.dim, self.freedom = dim, freedom
        self.laws: Sequence[Any] = [MARGINALS[i % len(MARGINALS)] for i in range(dim)]
        self.correlation = correlation_matrix(dim) if correlation is None else np.asarray(correlation, np.float64)
        self.root = np.linalg.cholesky(self.correlation)

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((n, self.dim)) @ self.root.T
        z /= np.sqrt(rng.chisquare(self.freedom, (n, 1)) / self.freedom)
        tail = special.stdtr(self.freedom, -np.abs(z))
        below = [np.where(z[:, i] < 0, law.ppf(tail[:, i]), law.isf(tail[:, i])) for i, law in enumerate(self.laws)]
        return np.stack(below, 1)

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        marginal = np.stack([law.logpdf(rows[:, i]) for i, law in enumerate(self.laws)], 1)
        inside = np.isfinite(marginal).all(1)
        z = np.stack([self._score(law, rows[:, i]) for i, law in enumerate(self.laws)], 1)
        z = np.where(inside[:, None] & np.isfinite(z), z, 0.0)
        found: Array = self._log_joint(z) - stats.t.logpdf(z, self.freedom).sum(1) + marginal.sum(1)
        return np.where(inside, found, -np.inf)

    def marginal(self, columns: Sequence[int]) -> CopulaToy:
        chosen = list(columns)
        made = CopulaToy(len(chosen), self.freedom, self.correlation[np.ix_(chosen, chosen)])
        made.laws = [self.laws[i] for i in chosen]
        return made

    def columns(self) -> tuple[Column, ...]:
        return tuple(_column(f"x{i}", *law.support()) for i, law in enumerate(self.laws))

    def _score(self, law: Any, x: Array) -> Array:
        """z of a column: the t-quantile of its distribution function, by the nearer tail."""
        below, above = law.cdf(x), law.sf(x)
        score: Array = special.stdtrit(self.freedom, np.minimum(below, above))
        return np.where(below < above, score, -score)

    def _log_joint(self, z: Array) -> Array:
        nu, d = self.freedom, self.dim
        square = (np.linalg.solve(self.root, z.T) ** 2).sum(0)
        norm = math.lgamma(0.5 * (nu + d)) - math.lgamma(0.5 * nu) - 0.5 * d * math.log(nu * math.pi)
        found: Array = norm - np.log(np.diag(self.root)).sum() - 0.5 * (nu + d) * np.log1p(square / nu)
        return found


def _column(name: str, low: float, high: float) -> Column:
    ends = [float(end) if math.isfinite(end) else None for end in (low, high)]
    return Column(name) if ends == [None, None] else Column(name, "", "bounded", *ends)


class GridField:
    r"""Images of a lognormal random field, periodic along the first axis, with a falling profile along the second.

    .. math:: x_{ij} = e^{m_j + \sigma g_{ij}}, \qquad \langle g_{ij} g_{kl} \rangle = c_{|i - k|}\, e^{-|j - l| / \ell_z}, \qquad
              c_d = \frac{q^d + q^{n - d}}{1 + q^n}, \quad q = e^{-1/\ell_\phi}

    so that the power spectrum of g along phi is :math:`P(k) = \frac{1 - q^n}{1 + q^n} \frac{1 - q^2}{1 - 2 q \cos(2 \pi k / n) + q^2}`, and
    :math:`m_j = -2 j / n`.

    Parameters
    ----------
    side : n, cells along either axis.
    sigma, length, depth : standard deviation of log x, :math:`\ell_\phi` and :math:`\ell_z` in cells.

    >>> GridField(4).log_prob(np.ones((2, 1, 4, 4))).shape
    (2,)
    """

    kind = "grid"

    def __init__(self, side: int = 16, sigma: float = 0.7, length: float = 2.5, depth: float = 4.0) -> None:
        self.side, self.sigma, self.length, self.depth = side, sigma, length, depth
        check_at_least(self, 2, "side")
        check_at_least(self, 1e-6, "sigma", "length", "depth")
        lag = np.abs(np.arange(side)[:, None] - np.arange(side))
        q = math.exp(-1 / length)
        self.around, self.along = (q**lag + q ** (side - lag)) / (1 + q**side), np.exp(-lag / depth)
        self.roots = np.linalg.cholesky(self.around), np.linalg.cholesky(self.along)
        self.profile = -2.0 * np.arange(side) / side

    def sample(self, n: int, seed: int) -> Array:
        """``(n, 1, side, side)``, positive."""
        z = np.random.default_rng(seed).standard_normal((n, 1, self.side, self.side))
        x: Array = np.exp(self.profile + self.sigma * (self.roots[0] @ z @ self.roots[1].T))
        return x

    def log_prob(self, x: ArrayLike) -> Array:
        """log p(x), ``(n,)``; ``-inf`` where a cell is not positive."""
        images = np.asarray(x, dtype=np.float64)
        if images.ndim != 4 or images.shape[1:] != (1, self.side, self.side):
            raise ShapeError(f"expected images of shape (n, 1, {self.side}, {self.side}); got {images.shape}")
        inside = (images > 0).all((1, 2, 3))
        logs = np.log(np.where(images > 0, images, 1.0))[:, 0]
        left = np.linalg.solve(self.roots[0], (logs - self.profile) / self.sigma)
        white = np.linalg.solve(self.roots[1], left.transpose(0, 2, 1))
        determinant = self.side * sum(np.log(np.diag(root)).sum() for root in self.roots)
        cells = self.side**2 * (0.5 * LOG_TAU + math.log(self.sigma))
        found: Array = -0.5 * (white**2).sum((1, 2)) - determinant - cells - logs.sum((1, 2))
        return np.where(inside, found, -np.inf)

    def spectrum(self) -> Array:
        """P(k) of g along phi, ``(side,)``: the mean square of its Fourier coefficients, divided by ``side``."""
        q, k = math.exp(-1 / self.length), np.arange(self.side)
        ratio = (1 - q**self.side) / (1 + q**self.side)
        found: Array = ratio * (1 - q**2) / (1 - 2 * q * np.cos(math.tau * k / self.side) + q**2)
        return found

    def spec(self) -> EventSpec:
        """One grid of one channel."""
        axes = Axis("phi", self.side, periodic=True), Axis("z", self.side)
        column = Column("energy", "", "bounded", 0.0)
        return {"x": Field("grid", (1, self.side, self.side), (column,), axes)}


class PointCloud:
    r"""Clouds of 2 to 30 points in the plane: a prong in one of three directions, and a halo.

    .. math:: N - 2 \sim \mathrm{Binomial}(28, 0.35), \qquad
              p(x_1 ... x_N | N) = \frac{1}{3} \sum_{k=1}^{3} \prod_{i=1}^{N} f_{kN}(x_i), \qquad
              f_{kN} = \tfrac{1}{2} N(d_k, w_N^2) + \tfrac{1}{2} N(0, 1)

    with the prong at :math:`d_k`, of length 2.5 at angle :math:`2 \pi k / 3`, and its width :math:`w_N = 0.1 + 0.01 N`: points of a cloud
    depend on each other by the direction, and on their number by the width. The density is that of points in the order they come in.

    >>> cloud = PointCloud().sample(5, seed=1)
    >>> cloud.x.shape, cloud.mask.shape, PointCloud().log_prob(cloud).shape
    ((5, 30, 2), (5, 30), (5,))
    """

    kind = "cloud"
    least, most, chance, prong, directions = 2, 30, 0.35, 2.5, 3

    def centres(self) -> Array:
        """Of the prongs, ``(3, 2)``."""
        angle = math.tau * np.arange(self.directions) / self.directions
        return self.prong * np.stack([np.cos(angle), np.sin(angle)], 1)

    def width(self, count: ArrayLike) -> Array:
        """Of the prong in clouds of this many points."""
        return 0.1 + 0.01 * np.asarray(count, dtype=np.float64)

    def log_counts(self, count: ArrayLike) -> Array:
        """log p(N)."""
        found: Array = stats.binom.logpmf(np.asarray(count) - self.least, self.most - self.least, self.chance)
        return found

    def sample(self, n: int, seed: int) -> Events:
        """Field ``"x"``, ``(n, 30, 2)``, with its mask; padding is zero."""
        rng = np.random.default_rng(seed)
        count = self.least + rng.binomial(self.most - self.least, self.chance, n)
        mask = np.arange(self.most) < count[:, None]
        centre = self.centres()[rng.integers(self.directions, size=n)][:, None]
        core = rng.random((n, self.most, 1)) < 0.5
        z = rng.standard_normal((n, self.most, 2))
        x = np.where(core, centre + self.width(count)[:, None, None] * z, z)
        return Events({"x": np.where(mask[..., None], x, 0.0)}, {"x": mask})

    def log_prob(self, events: Events) -> Array:
        """log p(N) + log p(x_1, ..., x_N | N), ``(n,)``."""
        mask = np.asarray(events.masks["x"])
        count = mask.sum(1)
        by_point = self._log_points(np.asarray(events.x, dtype=np.float64), self.width(count)[:, None])
        by_direction = np.where(mask, by_point, 0.0).sum(-1) - math.log(self.directions)
        found: Array = special.logsumexp(by_direction, axis=0) + self.log_counts(count)
        return found

    def intensity(self, x: ArrayLike) -> Array:
        """The expected number of points per area at ``x``, ``(m, 2)``."""
        points, counts = np.asarray(x, dtype=np.float64), np.arange(self.least, self.most + 1)
        densities = np.exp(self._log_points(points[None], self.width(counts)[:, None])).mean(0)
        found: Array = (np.exp(self.log_counts(counts)) * counts) @ densities
        return found

    def _log_points(self, x: Array, width: Array) -> Array:
        """log f_k of points ``(..., 2)`` for every direction: ``(3, ...)``."""
        apart = ((x - self.centres().reshape(-1, *[1] * (x.ndim - 1), 2)) ** 2).sum(-1)
        core = -0.5 * apart / width**2 - 2 * np.log(width)
        found: Array = np.logaddexp(core, -0.5 * (x**2).sum(-1)) - math.log(2) - LOG_TAU
        return found

    def spec(self) -> EventSpec:
        """One cloud of two features."""
        return {"x": Field("cloud", (self.most, 2), (Column("a"), Column("b")))}


def data_set(truth: Any, n: int, seed: int) -> Dataset:
    """``n`` events of a truth with the declarations of its columns, whatever its kind.

    >>> data_set(TOYS["point-cloud"], 10, seed=1).spec["x"].kind
    'cloud'
    """
    events = truth.sample(n, seed)
    if isinstance(truth, Truth):
        return Dataset.from_arrays(events, columns=truth.columns())
    masks = events.masks if isinstance(events, Events) else None
    fields = events.fields if isinstance(events, Events) else {"x": events}
    return Dataset.from_arrays(dict(fields), columns=truth.spec(), masks=masks)


TOYS: Mapping[str, Any] = {
    "shell": Shell(),
    "mixture-20": mixture_toy(),
    "copula-50": CopulaToy(),
    "grid-field": GridField(),
    "point-cloud": PointCloud(),
}
"""The toys by name."""
