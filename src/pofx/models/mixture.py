r"""Gaussian mixtures by weighted expectation maximisation, with exact conditionals.

Context c and event x are jointly a mixture, :math:`v = (c, x) \sim \sum_k w_k N(m_k, S_k)`, so that

.. math:: p(x | c) = \sum_k w_k(c) \, p_k(x | c), \qquad w_k(c) = \frac{w_k \, p_k(c)}{\sum_l w_l \, p_l(c)}

Every component is kept as the triangular root :math:`S_k = L_k L_k^T` and its inverse; all sums of densities are sums of exponentials.
Dempster, Laird, Rubin (1977), doi:10.1111/j.2517-6161.1977.tb01600.x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

import torch
from sklearn.cluster import kmeans_plusplus
from torch import Tensor, nn

from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.errors import DataError
from pofx.models.base import Capabilities, Family, Layout, NoiseShape
from pofx.models.gaussian import Joint, Moments, Pieces, Rows, moments, shrunk
from pofx.training.contract import Phase, Source
from pofx.training.noise import derive_seed

__all__ = ["Components", "GaussianMixture", "MixtureBody", "expectation_maximisation"]

TRIAL_EVENTS = 20_000
"""Restarts and numbers of components are compared on at most this many events; the best then sees all of them."""

PULL = 0.01
"""Share of all events that every component starts with besides its own."""


@dataclass(frozen=True)
class GaussianMixture(Family):
    r"""Mixture of multivariate normals, :math:`p(x) = \sum_k w_k N(x; m_k, S_k)`; with a context the exact :math:`p(x | c)`.

    Parameters
    ----------
    components : how many, or ``"bic"``: as many as the Bayesian information criterion :math:`-2 \log L + p \log n` prefers, up to
        ``most`` (doi:10.1214/aos/1176344136). A component that loses its events is dropped.
    covariance : ``"full"`` or ``"diagonal"``.
    restarts : starting points, seeded by k-means++ among whitened events; the best after ``trial_iterations`` goes on.
    tolerance : stop when an iteration gains less than this many nats per event.
    max_iterations : at most so many.
    trial_iterations : iterations of every restart.
    regularise : this share of each column's variance is added to every component's.
    most : see ``components``.
    preprocess : see :class:`~pofx.models.base.Family`; ``"affine"`` keeps it a mixture in the user's own coordinates.

    >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> GaussianMixture(components=2).fit(x).sample(5, seed=1).shape
    (5, 2)
    """

    name: ClassVar[str] = "gaussian-mixture"
    capabilities: ClassVar[Capabilities] = Capabilities(precision="float64")

    components: int | str = 4
    covariance: str = "full"
    restarts: int = 4
    tolerance: float = 1e-6
    max_iterations: int = 500
    trial_iterations: int = 30
    regularise: float = 1e-6
    most: int = 10
    preprocess: str = field(default="affine", kw_only=True)

    def __post_init__(self) -> None:
        if self.components != "bic":
            check_at_least(self, 1, "components")
        check_choice(self, "covariance", ("full", "diagonal"))
        check_at_least(self, 1, "restarts", "max_iterations", "trial_iterations", "most")
        check_at_least(self, 0.0, "tolerance", "regularise")

    @property
    def size(self) -> int:
        """How many components the body has room for."""
        return self.most if isinstance(self.components, str) else self.components

    def build(self, layout: Layout) -> nn.Module:
        return MixtureBody(Joint(layout), self.size)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("estimate", estimate=self._estimate),)

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        return {"z": NoiseShape("normal", (layout.features,)), "component": NoiseShape("uniform", (1,))}

    def log_density(self, body: Any, events: Events) -> Tensor:
        return body.log_density(*body.joint.split(events))

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        return {body.joint.field: body.decode(noise["z"], noise["component"], body.joint.context(context))}

    def _estimate(self, body: Any, source: Source, training: Any) -> None:
        rows = Rows(source, body.joint)
        total = moments(rows)
        shrunk(total, rows, "none", body.joint.names)
        body.set(_Estimator(self, rows, total, training.seed).fit())


class MixtureBody(nn.Module):
    """Buffers: log weights (-inf where there is no component), means, roots and their inverses; the heaviest component comes first."""

    log_weight: Tensor
    mean: Tensor
    root: Tensor
    inverse: Tensor

    def __init__(self, joint: Joint, size: int) -> None:
        super().__init__()
        self.joint, self.contexts = joint, joint.contexts
        width = joint.contexts + joint.features
        self.register_buffer("log_weight", torch.full((size,), -math.log(size), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, width, dtype=torch.float64))
        self.register_buffer("root", torch.eye(width, dtype=torch.float64).repeat(size, 1, 1))
        self.register_buffer("inverse", torch.eye(width, dtype=torch.float64).repeat(size, 1, 1))

    @property
    def components(self) -> int:
        """How many components are in use."""
        return int(self.log_weight.isfinite().sum())

    def set(self, found: Components) -> None:
        """Take over what was found, at most as many components as there is room for."""
        order = found.weight.argsort(descending=True)
        used = len(order)
        root, inverse = _factors(found.covariance[order])
        self.log_weight.fill_(-math.inf)
        self.log_weight[:used] = (found.weight[order] / found.weight.sum()).log()
        for buffer, value in ((self.mean, found.mean[order]), (self.root, root), (self.inverse, inverse)):
            buffer[:used] = value

    def log_density(self, x: Tensor, context: Tensor | None) -> Tensor:
        """log p(x | c), shape ``(n,)``."""
        rows = x if context is None else torch.cat([context, x], 1)
        terms = _log_normal(rows, self.mean, self.inverse)
        joint = (self.log_weight + terms.sum(-1)).logsumexp(1)
        return joint if context is None else joint - self._log_context(terms[..., : self.contexts]).logsumexp(1)

    def decode(self, z: Tensor, component: Tensor, context: Tensor | None) -> Tensor:
        """The component by the uniform number (n, 1), the place within it by the normal ones (n, d)."""
        c = self.contexts
        x = self.mean[:, c:] + torch.einsum("ni,kji->nkj", z, self.root[:, c:, c:])
        share = self.log_weight.softmax(0).expand(len(z), -1)
        if context is not None:
            white = torch.einsum("nki,kji->nkj", context[:, None] - self.mean[:, :c], self.inverse[:, :c, :c])
            x = x + torch.einsum("nki,kji->nkj", white, self.root[:, c:, :c])
            share = self._log_context(_terms(white, self.inverse[:, :c, :c])).softmax(1)
        last = self.log_weight.isfinite().sum() - 1
        chosen = (component > share.cumsum(1)).sum(1).minimum(last)
        return x.gather(1, chosen[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)

    def _log_context(self, terms: Tensor) -> Tensor:
        return self.log_weight + terms.sum(-1)


class Components(NamedTuple):
    """Weights ``(K,)``, means ``(K, p)`` and covariances ``(K, p, p)`` of a mixture."""

    weight: Tensor
    mean: Tensor
    covariance: Tensor


@dataclass
class _Estimator:
    """Restarts and the number of components on a sample of events, then the final run on all of them."""

    family: GaussianMixture
    rows: Rows
    total: Moments
    seed: int

    def fit(self) -> Components:
        """The best mixture found."""
        sample = [self.rows.first(TRIAL_EVENTS)]
        count = self.family.components
        start = self._best_by_bic(sample) if isinstance(count, str) else self._best_trial(sample, count)[0]
        return self._run(start, self.rows, self.family.max_iterations)[0]

    def _best_by_bic(self, sample: Pieces) -> Components:
        """From one component upwards, until two in a row were no better. EM stops at a hundredth of what a component has to gain."""
        events = moments(sample).events
        price = math.log(events) / events
        tolerance = max(self.family.tolerance, 0.005 * self._free(1) * price)
        best, lowest, worse = _one(self.total), math.inf, 0
        for count in range(1, self.family.most + 1):
            start = self._best_trial(sample, count)[0]
            found, likelihood = self._run(start, sample, self.family.max_iterations, tolerance)
            value = self._free(len(found.weight)) * price - 2 * likelihood
            best, lowest, worse = (found, value, 0) if value < lowest else (best, lowest, worse + 1)
            if worse == 2:
                break
        return best

    def _best_trial(self, sample: Pieces, count: int) -> tuple[Components, float]:
        if count == 1:
            return _one(self.total), math.nan
        return max((self._trial(sample, count, number) for number in range(self.family.restarts)), key=itemgetter(1))

    def _trial(self, sample: Pieces, count: int, number: int) -> tuple[Components, float]:
        seed = derive_seed(self.seed, "mixture", count, number)
        rows, weight = next(iter(sample))
        start = _start(rows, weight, self.total, count, number, seed)
        start = start._replace(covariance=start.covariance + self._floor.diag())
        return self._run(start, sample, self.family.trial_iterations)

    def _run(
        self, start: Components, rows: Pieces, iterations: int, tolerance: float | None = None
    ) -> tuple[Components, float]:
        found, trace = expectation_maximisation(
            start,
            rows,
            floor=self._floor,
            events=self.total.events,
            diagonal=self.family.covariance == "diagonal",
            tolerance=self.family.tolerance if tolerance is None else tolerance,
            iterations=iterations,
        )
        return found, trace[-1]

    @property
    def _floor(self) -> Tensor:
        """What is added to the variances of every component."""
        return self.family.regularise * self.total.covariance.diagonal()

    def _free(self, components: int) -> int:
        """How many numbers the components have."""
        width = len(self.total.mean)
        spread = width if self.family.covariance == "diagonal" else width * (width + 1) // 2
        return components * (1 + width + spread) - 1


def expectation_maximisation(
    start: Components, rows: Pieces, *, floor: Tensor, events: float, diagonal: bool, tolerance: float, iterations: int
) -> tuple[Components, list[float]]:
    """Weighted EM.

    Parameters
    ----------
    start : where to begin.
    rows : an iterable, as often as wished, of pieces: rows ``(n, p)`` and weights ``(n,)``.
    floor : ``(p,)``, added to the variances of every component.
    events : the effective number of events; a component with too few of them for its covariance is dropped.
    diagonal : without correlations.
    tolerance, iterations : when to stop.

    Returns
    -------
    The mixture, and the mean log-likelihood before every iteration and after the last one.
    """
    found, trace, before = start, [], 0
    for _ in range(iterations + 1):
        proposal, likelihood = _iterate(found, rows, floor, events, diagonal)
        trace.append(likelihood)
        # a component that is dropped leaves its events behind: no likelihood to compare with
        same = len(proposal.weight) == len(found.weight) == before
        if len(trace) > iterations or (same and trace[-1] - trace[-2] < tolerance):
            break
        found, before = proposal, len(found.weight)
    return found, trace


def _iterate(found: Components, rows: Pieces, floor: Tensor, events: float, diagonal: bool) -> tuple[Components, float]:
    """One pass: the likelihood of ``found`` and the mixture after one step of EM."""
    _, inverse = _factors(found.covariance)
    log_weight = found.weight.log()
    mass, first, second = (
        torch.zeros_like(found.weight),
        torch.zeros_like(found.mean),
        torch.zeros_like(found.covariance),
    )
    total, likelihood = 0.0, 0.0
    for piece, weight in rows:
        terms = log_weight + _log_normal(piece, found.mean, inverse).sum(-1)
        log_density = terms.logsumexp(1)
        share = (terms - log_density[:, None]).exp() * weight[:, None]
        for k in range(len(mass)):
            offset = piece - found.mean[k]
            weighted = offset * share[:, k, None]
            first[k] += weighted.sum(0)
            second[k] += weighted.T @ offset
        mass += share.sum(0)
        total, likelihood = total + float(weight.sum()), likelihood + float(weight @ log_density)
    return _maximise(
        found, Components(mass / total, first / total, second / total), floor, events, diagonal
    ), likelihood / total


def _maximise(found: Components, sums: Components, floor: Tensor, events: float, diagonal: bool) -> Components:
    """Weights, means and covariances from responsibility-weighted sums about the old means; components that broke down are left out."""
    eye = torch.eye(len(floor), dtype=floor.dtype, device=floor.device)
    least = 2.0 if diagonal else len(floor) + 1.0
    alive = sums.weight * events > min(least, 0.5 * events / len(sums.weight))
    mass = torch.where(alive, sums.weight, 1.0)
    shift = sums.mean / mass[:, None]
    covariance = sums.covariance / mass[:, None, None] - shift[:, :, None] * shift[:, None, :] + floor.diag()
    covariance = covariance * eye if diagonal else 0.5 * (covariance + covariance.mT)
    alive &= (covariance.diagonal(dim1=1, dim2=2) > 0).all(1)
    alive &= torch.linalg.cholesky_ex(covariance).info == 0
    if not bool(alive.any()):
        raise DataError(
            "no component of the mixture keeps a positive covariance: more events, fewer components, or a larger regularise"
        )
    weight = sums.weight[alive]
    return Components(weight / weight.sum(), (found.mean + shift)[alive], covariance[alive])


def _one(total: Moments) -> Components:
    return Components(total.mean.new_ones(1), total.mean[None], total.covariance[None])


def _start(rows: Tensor, weight: Tensor, total: Moments, components: int, trial: int, seed: int) -> Components:
    """Rows shared out among components, each with the moments of its rows, pulled a little towards those of all.

    Even trials share out by the nearest of centres drawn by k-means++, which finds components that lie apart; odd ones by the direction
    (of random ones) that a row lies farthest along, which finds components that differ in shape. Both look at whitened rows.
    """
    _, inverse = _factors(total.covariance[None])
    white, weight = (rows - total.mean) @ inverse[0].T, weight.clamp(min=0.0)
    owner = _nearest(white, weight, components, seed) if trial % 2 == 0 else _farthest(white, components, seed)
    share = torch.nn.functional.one_hot(owner, components).to(rows) * (weight / weight.sum())[:, None]
    mass = share.sum(0) + PULL
    mean = (share.T @ rows + PULL * total.mean) / mass[:, None]
    spread = torch.stack([((rows - mean[k]) * share[:, k, None]).T @ (rows - mean[k]) for k in range(components)])
    return Components(mass / mass.sum(), mean, (spread + PULL * total.covariance) / mass[:, None, None])


def _nearest(white: Tensor, weight: Tensor, components: int, seed: int) -> Tensor:
    points, weights = white.cpu().numpy(), weight.cpu().numpy()
    centres, _ = kmeans_plusplus(points, components, sample_weight=weights, random_state=seed % 2**32)
    return torch.cdist(white, torch.as_tensor(centres).to(white)).argmin(1)


def _farthest(white: Tensor, components: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(white.shape[1], components, generator=generator, dtype=torch.float64)
    return (white @ (directions / directions.norm(dim=0)).to(white)).abs().argmax(1)


def _factors(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Triangular roots (K, p, p) and their inverses."""
    sigma = covariance.diagonal(dim1=1, dim2=2).sqrt()
    root = torch.linalg.cholesky(covariance / sigma[:, :, None] / sigma[:, None, :])
    eye = torch.eye(root.shape[1], dtype=root.dtype, device=root.device).expand_as(root)
    return sigma[:, :, None] * root, torch.linalg.solve_triangular(root, eye, upper=False) / sigma[:, None, :]


def _log_normal(rows: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """Terms (n, K, p) of the log-densities; the sum of the first c of them is the log-density of the first c columns."""
    return _terms(torch.stack([(rows - m) @ w.T for m, w in zip(mean, inverse, strict=True)], 1), inverse)


def _terms(white: Tensor, inverse: Tensor) -> Tensor:
    return -0.5 * (white.square() + math.log(math.tau)) + inverse.diagonal(dim1=1, dim2=2).log()
