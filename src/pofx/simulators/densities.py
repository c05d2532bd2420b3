r"""Dependent densities in closed form, of any dimension: what a learnt density is measured against.

Each draws (``sample``), scores (``log_prob``), knows its entropy :math:`H = -E \log p` where there is a formula, its column
declarations, and its marginals; :class:`Conditional` makes :math:`p(x | c) = p(x, c) / p(c)` out of any of them. Numpy in and out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from pofx.data.spec import Column
from pofx.errors import CapabilityError, DataError, ShapeError

__all__ = [
    "Conditional",
    "CorrelatedGaussian",
    "DependentBeta",
    "Lognormal",
    "Mixture",
    "MixtureBenchmark",
    "Truth",
    "VonMisesChain",
    "correlation_matrix",
    "t2k_like",
]

Array = NDArray[np.float64]
LOG_TAU = math.log(math.tau)


class Truth(ABC):
    """A density p(x) of ``dim`` columns."""

    dim: int
    unit: str = ""

    @abstractmethod
    def sample(self, n: int, seed: int) -> Array:
        """``n`` events, shape ``(n, dim)``; the same seed gives the same events."""

    @abstractmethod
    def log_prob(self, x: ArrayLike) -> Array:
        """log p(x) in nats, shape ``(n,)``, for ``x`` of shape ``(n, dim)``; ``-inf`` outside the support."""

    @abstractmethod
    def marginal(self, columns: Sequence[int]) -> Truth:
        """The density of some of the columns; CapabilityError where it has no closed form."""

    def entropy(self) -> float | None:
        """-E log p in nats, or None where there is no closed form (see :meth:`entropy_estimate`)."""
        return None

    def entropy_estimate(self, n: int = 100_000, seed: int = 0) -> tuple[float, float]:
        """-E log p from ``n`` events, with its standard error."""
        value = -self.log_prob(self.sample(n, seed))
        return float(value.mean()), float(value.std(ddof=1) / math.sqrt(n))

    def columns(self) -> tuple[Column, ...]:
        """The declarations that a data set of these events needs."""
        return tuple(Column(f"x{i}", self.unit) for i in range(self.dim))

    def _rows(self, x: ArrayLike) -> Array:
        rows = np.asarray(x, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ShapeError(f"expected x of shape (n, {self.dim}); got {rows.shape}")
        return rows


class CorrelatedGaussian(Truth):
    r"""Multivariate normal :math:`N(m, S)`, :math:`H = \frac{1}{2} \log|2 \pi e S|`.

    Parameters
    ----------
    mean : ``(d,)``.
    covariance : ``(d, d)``, positive definite (DataError otherwise).
    unit : of every column.

    >>> CorrelatedGaussian([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]]).sample(3, seed=1).shape
    (3, 2)
    """

    def __init__(self, mean: ArrayLike, covariance: ArrayLike, unit: str = "") -> None:
        self.mean = np.asarray(mean, dtype=np.float64)
        self.covariance = np.asarray(covariance, dtype=np.float64)
        self.dim, self.unit = len(self.mean), unit
        self.root = _root(self.covariance, self.dim, "covariance")

    def sample(self, n: int, seed: int) -> Array:
        return self.mean + np.random.default_rng(seed).standard_normal((n, self.dim)) @ self.root.T

    def log_prob(self, x: ArrayLike) -> Array:
        return _log_normal(self._rows(x) - self.mean, self.root)

    def marginal(self, columns: Sequence[int]) -> CorrelatedGaussian:
        return CorrelatedGaussian(self.mean[list(columns)], self.covariance[np.ix_(columns, columns)], self.unit)

    def entropy(self) -> float:
        return 0.5 * self.dim * (1 + LOG_TAU) + float(np.log(np.diag(self.root)).sum())


class Mixture(Truth):
    r"""Gaussian mixture :math:`\sum_k w_k N(m_k, S_k)`. No closed-form entropy.

    Parameters
    ----------
    weights : ``(K,)``, positive; divided by their sum.
    means, covariances : ``(K, d)`` and ``(K, d, d)``.

    >>> Mixture([1, 1], [[-2.0], [2.0]], [[[1.0]], [[1.0]]]).log_prob([[0.0]]).round(3).tolist()
    [-2.919]
    """

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> None:
        raw = np.asarray(weights, dtype=np.float64)
        self.means, self.covariances = np.asarray(means, dtype=np.float64), np.asarray(covariances, dtype=np.float64)
        if (
            raw.ndim != 1
            or not (raw > 0).all()
            or self.means.ndim != 2
            or not len(raw) == len(self.means) == len(self.covariances)
        ):
            raise ShapeError(
                f"expected positive weights (K,), means (K, d), covariances (K, d, d); got {raw}, {self.means.shape}"
            )
        self.weights = raw / raw.sum()
        self.dim = self.means.shape[1]
        self.roots = np.stack([_root(covariance, self.dim, "covariance") for covariance in self.covariances])

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        component = rng.choice(len(self.weights), n, p=self.weights)
        x = rng.standard_normal((n, self.dim))
        for k, root in enumerate(self.roots):
            x[component == k] = self.means[k] + x[component == k] @ root.T
        return x

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        parts = zip(self.weights, self.means, self.roots, strict=True)
        return _logsumexp([math.log(w) + _log_normal(rows - mean, root) for w, mean, root in parts])

    def marginal(self, columns: Sequence[int]) -> Mixture:
        chosen = list(columns)
        return Mixture(self.weights, self.means[:, chosen], self.covariances[:, chosen][:, :, chosen])


class MixtureBenchmark(Mixture):
    r"""The mixture of four rank-6 Gaussians in 50 dimensions, with a nuisance-like correlation, that density estimators are measured on.

    Correlation R with Cholesky factor L; weights .4, .3, .2, .1; for component k, with g = ``numpy.random.default_rng(k)``:
    :math:`V_k` = Q of the QR decomposition of a (50, 6) normal matrix, then :math:`m_k = 0.5 L g` with 50 normals drawn next, and
    :math:`S_k = L (0.02 + 0.98 \frac{50}{6} V_k V_k^T) L^T`.

    Parameters
    ----------
    correlation : ``(d, d)``; by default :func:`correlation_matrix` of 50 (d takes the place of 50).

    >>> MixtureBenchmark().dim
    50
    """

    def __init__(self, correlation: ArrayLike | None = None) -> None:
        matrix = correlation_matrix(50) if correlation is None else np.asarray(correlation, dtype=np.float64)
        root = _root(matrix, len(matrix), "correlation")
        means, covariances = zip(*[_benchmark_component(k, root) for k in range(4)], strict=True)
        super().__init__([0.4, 0.3, 0.2, 0.1], np.stack(means), np.stack(covariances))


def _benchmark_component(k: int, root: Array) -> tuple[Array, Array]:
    rng, d = np.random.default_rng(k), len(root)
    basis = np.linalg.qr(rng.standard_normal((d, 6)))[0]
    mean = 0.5 * root @ rng.standard_normal(d)
    inner = 0.02 * np.eye(d) + 0.98 * (d / 6) * basis @ basis.T
    return mean, root @ inner @ root.T


class Lognormal(Truth):
    r""":math:`x_i = e^{g_i}` for the columns that are logarithmic, :math:`x_i = g_i` for the others, with g multivariate normal.

    :math:`p(x) = N(g(x); \mu, S) \prod_{i \in log} x_i^{-1}` and :math:`H = H_g + \sum_{i \in log} \mu_i`.

    Parameters
    ----------
    location, scale : mean ``(d,)`` and covariance ``(d, d)`` of g.
    logarithmic : ``(d,)`` booleans; by default all.
    unit : of every column.

    >>> mean, covariance = Lognormal.from_moments([1.0, 2.0], [[0.1, 0.05], [0.05, 0.4]]).moments()
    >>> mean.tolist(), covariance.round(6).tolist()
    ([1.0, 2.0], [[0.1, 0.05], [0.05, 0.4]])
    """

    def __init__(
        self, location: ArrayLike, scale: ArrayLike, logarithmic: ArrayLike | None = None, unit: str = ""
    ) -> None:
        self.normal = CorrelatedGaussian(location, scale)
        self.dim, self.unit = self.normal.dim, unit
        self.logarithmic = np.ones(self.dim, bool) if logarithmic is None else np.asarray(logarithmic, bool)
        if self.logarithmic.shape != (self.dim,):
            raise ShapeError(f"expected {self.dim} booleans in logarithmic; got shape {self.logarithmic.shape}")

    @classmethod
    def from_moments(
        cls, mean: ArrayLike, covariance: ArrayLike, logarithmic: ArrayLike | None = None, unit: str = ""
    ) -> Self:
        r"""With exactly this mean m and covariance C of x.

        :math:`S_{ij} = \log(1 + C_{ij}/(m_i m_j))` for two logarithmic columns, :math:`C_{ij}/m_i` if only i is (Stein's lemma),
        :math:`C_{ij}` for none; :math:`\mu_i = \log m_i - S_{ii}/2` for logarithmic ones.

        Raises
        ------
        DataError if a logarithmic mean is not positive, if :math:`1 + C_{ij}/(m_i m_j) \le 0` somewhere (no such lognormal
        exists), or if S is not positive definite.
        """
        m, c = np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
        log = np.ones(len(m), bool) if logarithmic is None else np.asarray(logarithmic, bool)
        if not (m[log] > 0).all():
            raise DataError(
                f"expected positive means of lognormal columns; column {np.flatnonzero(log & (m <= 0))[0]} is not"
            )
        divisor = np.where(log, m, 1.0)
        ratio = c / divisor[:, None] / divisor
        both = log[:, None] & log
        if (bad := both & (ratio <= -1)).any():
            i, j = np.argwhere(bad)[0]
            raise DataError(
                f"no lognormal has this mean and covariance: expected 1 + cov/(mean mean) > 0; columns {i} and {j}: {1 + ratio[i, j]:.3g}"
            )
        scale = np.where(both, np.log1p(np.where(both, ratio, 0.0)), ratio)
        location = np.where(log, np.log(np.where(log, m, 1.0)) - 0.5 * np.diag(scale), m)
        return cls(location, scale, log, unit)

    def moments(self) -> tuple[Array, Array]:
        """Exact mean ``(d,)`` and covariance ``(d, d)`` of x."""
        location, scale, log = self.normal.mean, self.normal.covariance, self.logarithmic
        mean = np.where(log, np.exp(np.where(log, location + 0.5 * np.diag(scale), 0.0)), location)
        factor = np.where(log, mean, 1.0)
        both = log[:, None] & log
        return mean, factor[:, None] * factor * np.where(both, np.expm1(np.where(both, scale, 0.0)), scale)

    def sample(self, n: int, seed: int) -> Array:
        g = self.normal.sample(n, seed)
        return np.where(self.logarithmic, np.exp(np.where(self.logarithmic, g, 0.0)), g)

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        inside = (rows[:, self.logarithmic] > 0).all(1)
        logs = np.log(np.where(self.logarithmic & (rows > 0), rows, 1.0))
        g = np.where(self.logarithmic, logs, rows)
        return np.where(inside, self.normal.log_prob(g) - logs.sum(1), -np.inf)

    def marginal(self, columns: Sequence[int]) -> Lognormal:
        inner = self.normal.marginal(columns)
        return Lognormal(inner.mean, inner.covariance, self.logarithmic[list(columns)], self.unit)

    def entropy(self) -> float:
        return self.normal.entropy() + float(self.normal.mean[self.logarithmic].sum())

    def columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(f"x{i}", self.unit, "bounded", 0.0) if log else Column(f"x{i}", self.unit)
            for i, log in enumerate(self.logarithmic)
        )


class DependentBeta(Truth):
    r"""Beta marginals on [0, 1], made dependent by a Gaussian copula: :math:`x_i = F_i^{-1}(\Phi(z_i))`, :math:`z \sim N(0, R)`.

    :math:`\log p = \log N(z; 0, R) - \sum_i \log N(z_i; 0, 1) + \sum_i \log \mathrm{Beta}(x_i; a_i, b_i)`, and
    :math:`H = \sum_i H_i + \frac{1}{2} \log|R|`.

    Parameters
    ----------
    a, b : ``(d,)``, positive.
    correlation : ``(d, d)`` of the normal scores; by default :func:`correlation_matrix`.

    >>> DependentBeta([2.0, 3.0], [2.0, 1.0]).columns()[0].high
    1.0
    """

    def __init__(self, a: ArrayLike, b: ArrayLike, correlation: ArrayLike | None = None) -> None:
        self.a, self.b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        if self.a.ndim != 1 or self.a.shape != self.b.shape or not ((self.a > 0) & (self.b > 0)).all():
            raise ShapeError(f"expected positive a and b of shape (d,); got {self.a} and {self.b}")
        self.dim = len(self.a)
        self.correlation = correlation_matrix(self.dim) if correlation is None else np.asarray(correlation, np.float64)
        self.root = _root(self.correlation, self.dim, "correlation")

    def sample(self, n: int, seed: int) -> Array:
        z = np.random.default_rng(seed).standard_normal((n, self.dim)) @ self.root.T
        tail = special.ndtr(-np.abs(z))
        return np.where(z < 0, special.betaincinv(self.a, self.b, tail), special.betainccinv(self.a, self.b, tail))

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        inside = np.all((rows > 0) & (rows < 1), axis=1)
        safe = np.where(inside[:, None], rows, 0.5)
        below, above = special.betainc(self.a, self.b, safe), special.betaincc(self.a, self.b, safe)
        z = np.where(below < 0.5, special.ndtri(below), -special.ndtri(above))
        copula = _log_normal(z, self.root) + 0.5 * (z**2 + LOG_TAU).sum(1)
        marginals = (self.a - 1) * np.log(safe) + (self.b - 1) * np.log1p(-safe) - special.betaln(self.a, self.b)
        return np.where(inside, copula + marginals.sum(1), -np.inf)

    def marginal(self, columns: Sequence[int]) -> DependentBeta:
        chosen = list(columns)
        return DependentBeta(self.a[chosen], self.b[chosen], self.correlation[np.ix_(chosen, chosen)])

    def entropy(self) -> float:
        return float(np.sum(stats.beta.entropy(self.a, self.b)) + np.log(np.diag(self.root)).sum())

    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(f"x{i}", self.unit, "bounded", 0.0, 1.0) for i in range(self.dim))


class VonMisesChain(Truth):
    r"""Angles on [-pi, pi): :math:`x_1 \sim vM(m, \kappa_1)` and :math:`x_i | x_{i-1} \sim vM(x_{i-1} + s, \kappa)`.

    :math:`\log vM(x; m, \kappa) = \kappa \cos(x - m) - \log 2 \pi I_0(\kappa)`,
    :math:`H = \sum_i \log 2 \pi I_0(\kappa_i) - \kappa_i I_1(\kappa_i) / I_0(\kappa_i)`. Marginals of the leading columns are chains too.

    Parameters
    ----------
    dim : number of angles.
    start : concentration of the first angle.
    coupling : concentration of each further one about its predecessor.
    mean, shift : m and s above.

    >>> round(VonMisesChain(1, start=0.0).entropy(), 4)
    1.8379
    """

    def __init__(
        self, dim: int, start: float = 1.0, coupling: float = 4.0, mean: float = 2.5, shift: float = 0.7
    ) -> None:
        if dim < 1 or start < 0 or coupling < 0:
            raise DataError(f"expected dim >= 1 and concentrations >= 0; got {dim}, {start}, {coupling}")
        self.dim, self.start, self.coupling, self.mean, self.shift, self.unit = dim, start, coupling, mean, shift, "rad"

    def sample(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        x = np.empty((n, self.dim))
        for i in range(self.dim):
            centre = np.full(n, self.mean) if i == 0 else x[:, i - 1] + self.shift
            x[:, i] = _wrap(centre + rng.vonmises(0.0, self.start if i == 0 else self.coupling, n))
        return x

    def log_prob(self, x: ArrayLike) -> Array:
        rows = self._rows(x)
        inside = ((rows >= -math.pi) & (rows <= math.pi)).all(1)
        first = _log_von_mises(rows[:, 0] - self.mean, self.start)
        rest = _log_von_mises(rows[:, 1:] - rows[:, :-1] - self.shift, self.coupling).sum(1)
        return np.where(inside, first + rest, -np.inf)

    def marginal(self, columns: Sequence[int]) -> VonMisesChain:
        if list(columns) != list(range(len(columns))) or not columns:
            raise CapabilityError(
                f"only the leading columns of a chain have a closed-form marginal; got {list(columns)}"
            )
        return VonMisesChain(len(columns), self.start, self.coupling, self.mean, self.shift)

    def entropy(self) -> float:
        return _von_mises_entropy(self.start) + (self.dim - 1) * _von_mises_entropy(self.coupling)

    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(f"x{i}", self.unit, "periodic", -math.pi, math.pi) for i in range(self.dim))


class Conditional:
    r""":math:`p(x | c) = p(x, c) / p(c)` of any :class:`Truth`, its first columns being the context c.

    Parameters
    ----------
    joint : the density of (c, x).
    context : how many leading columns are context.

    >>> truth = Conditional(CorrelatedGaussian([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]]), context=1)
    >>> x, c = truth.sample(5, seed=1)
    >>> truth.log_prob(x, c).shape
    (5,)
    """

    def __init__(self, joint: Truth, context: int = 1) -> None:
        if not 0 < context < joint.dim:
            raise ShapeError(f"expected between 1 and {joint.dim - 1} context columns; got {context}")
        self.joint, self.context = joint, joint.marginal(range(context))
        self.dim, self.context_dim = joint.dim - context, context

    def sample(self, n: int, seed: int) -> tuple[Array, Array]:
        """``(x, c)`` of shapes ``(n, dim)`` and ``(n, context_dim)``."""
        both = self.joint.sample(n, seed)
        return both[:, self.context_dim :], both[:, : self.context_dim]

    def log_prob(self, x: ArrayLike, c: ArrayLike) -> Array:
        """log p(x | c), shape ``(n,)``, for n pairs."""
        both = np.concatenate([np.asarray(c, np.float64), np.asarray(x, np.float64)], 1)
        return self.joint.log_prob(both) - self.context.log_prob(both[:, : self.context_dim])

    def entropy(self) -> float | None:
        """-E log p(x | c) in nats over the joint density, or None without a closed form."""
        joint, context = self.joint.entropy(), self.context.entropy()
        return None if joint is None or context is None else joint - context

    def columns(self) -> tuple[Column, ...]:
        """Declarations of x."""
        return self.joint.columns()[self.context_dim :]

    def context_columns(self) -> tuple[Column, ...]:
        """Declarations of c."""
        return self.joint.columns()[: self.context_dim]


def correlation_matrix(dim: int, floor: float = 0.2, length: float = 6.0) -> Array:
    r""":math:`R_{ij} = f + (1 - f) e^{-|i - j| / l}`: a common error and one that neighbouring bins share.

    >>> correlation_matrix(2).round(4).tolist()
    [[1.0, 0.8772], [0.8772, 1.0]]
    """
    index = np.arange(dim)
    matrix: Array = floor + (1 - floor) * np.exp(-np.abs(index[:, None] - index) / length)
    return matrix


def t2k_like() -> Lognormal:
    r"""A toy of the universes of a T2K-like cross-section measurement: 58 bins of a falling spectrum, in cm^2.

    :math:`m_i = 5 \cdot 10^{-39} e^{-i/14}`, relative errors :math:`r_i = 0.1 \cdot 9^{i/57}` (10 % in the first bin, 90 % in the last),
    correlation :func:`correlation_matrix`. Bins with :math:`r_i > 0.3` have few events and are lognormal, the others Gaussian; mean
    and covariance of the whole are exact. An analytic stand-in, not a measurement: no number in it comes from data.

    >>> t2k_like().dim
    58
    """
    i = np.arange(58)
    mean, relative = 5e-39 * np.exp(-i / 14), 0.1 * 9.0 ** (i / 57)
    error = relative * mean
    return Lognormal.from_moments(mean, correlation_matrix(58) * error[:, None] * error, relative > 0.3, unit="cm^2")


def _root(matrix: Array, dim: int, what: str) -> Array:
    """Lower Cholesky factor, computed on the correlations so that any scale works."""
    if matrix.shape != (dim, dim):
        raise ShapeError(f"expected a {what} of shape ({dim}, {dim}); got {matrix.shape}")
    variance = np.diag(matrix)
    if not (variance > 0).all():
        raise DataError(
            f"expected positive variances; column {int(np.argmin(variance > 0))} of the {what} has {variance.min():.3g}"
        )
    sigma = np.sqrt(variance)
    unit = matrix / sigma[:, None] / sigma
    if not np.allclose(unit, unit.T, rtol=0.0, atol=1e-8):
        raise DataError(
            f"expected a symmetric {what}; entries differ by up to {np.abs(unit - unit.T).max():.3g} of a variance"
        )
    try:
        return sigma[:, None] * np.linalg.cholesky(unit)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(unit)[0]
        raise DataError(
            f"expected a positive-definite {what}; its smallest eigenvalue is {smallest:.3g} of a variance"
        ) from None


def _log_normal(offset: Array, root: Array) -> Array:
    """log N(offset; 0, root root^T) for rows of ``offset``."""
    sigma = np.linalg.norm(root, axis=1)
    white = np.linalg.solve(root / sigma[:, None], (offset / sigma).T)
    result: Array = -0.5 * ((white**2).sum(0) + len(root) * LOG_TAU) - np.log(np.diag(root)).sum()
    return result


def _logsumexp(parts: list[Array]) -> Array:
    result: Array = special.logsumexp(np.stack(parts), axis=0)
    return result


def _log_von_mises(angle: Array, kappa: float) -> Array:
    result: Array = kappa * (np.cos(angle) - 1) - LOG_TAU - math.log(special.i0e(kappa))
    return result


def _von_mises_entropy(kappa: float) -> float:
    return LOG_TAU + math.log(special.i0e(kappa)) + kappa * float(1 - special.i1e(kappa) / special.i0e(kappa))


def _wrap(angle: Array) -> Array:
    result: Array = np.mod(angle + math.pi, math.tau) - math.pi
    return np.where(result < math.pi, result, -math.pi)
