r"""The multivariate normal: what a published mean and covariance matrix stand for, and the baseline that everything is measured against.

Context c and event x are jointly normal, :math:`v = (c, x) \sim N(m, L L^T)` with L lower triangular. The context comes first, so the
last d numbers of :math:`L^{-1} (v - m)` are standard normal given c: :math:`p(x | c)`, the linear regression of x on c, is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pofx.bijections.linear import EMPTY
from pofx.config import check_between, check_choice
from pofx.data.events import Events
from pofx.errors import DataError
from pofx.models.base import Capabilities, Family, Layout
from pofx.training.contract import Phase, Source

__all__ = ["Gaussian", "Joint", "JointNormal", "Moments", "Pieces", "Rows", "check_shrinkage", "moments", "shrunk"]

Pieces = Iterable[tuple[Tensor, Tensor]]
"""Rows ``(n, p)`` and weights ``(n,)``, piece by piece, as often as wished."""

CACHE = 2**30
"""Rows are kept in memory between passes if they take at most this many bytes; otherwise every pass reads the source again."""


@dataclass(frozen=True)
class Gaussian(Family):
    r"""Multivariate normal of weighted mean and covariance, :math:`p(x) = N(x; m, S)`; with a context the exact :math:`p(x | c)`.

    :math:`m = \sum_i w_i x_i / W` and :math:`S = \sum_i w_i (x_i - m)(x_i - m)^T / W` (maximum likelihood), in float64, in one pass.

    Parameters
    ----------
    shrinkage : what to do about a noisy or singular covariance. With correlations R: :math:`R \to (1 - s) R + s`, where s is a number
        in [0, 1], ``"ledoit-wolf"`` (doi:10.1016/S0047-259X(03)00096-4), ``"oas"`` (arXiv:0907.4698), or 0 for ``"none"``. For weighted
        events the number of events in these formulae is :math:`(\sum w)^2 / \sum w^2`.
    preprocess : see :class:`~pofx.models.base.Family`; ``"affine"`` keeps it a Gaussian in the user's own coordinates.

    Raises
    ------
    DataError, naming the empty directions, if the covariance is singular and not shrunk.

    >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> Gaussian().fit(x).sample(5, seed=1).shape
    (5, 2)
    """

    name: ClassVar[str] = "gaussian"
    capabilities: ClassVar[Capabilities] = Capabilities(encode=True, precision="float64", negative_weights=True)

    shrinkage: str | float = "none"
    preprocess: str = field(default="affine", kw_only=True)

    def __post_init__(self) -> None:
        check_shrinkage(self)

    @property
    def few_events(self) -> bool:
        """With shrinkage, a covariance of fewer events than columns is positive definite too."""
        return self.shrinkage not in ("none", 0)

    def build(self, layout: Layout) -> nn.Module:
        return JointNormal(Joint(layout))

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("estimate", estimate=self._estimate),)

    def log_density(self, body: Any, events: Events) -> Tensor:
        return body.log_density(*body.joint.split(events))

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        return {body.joint.field: body.decode(noise["z"], body.joint.context(context))}

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        return {"z": body.encode(*body.joint.split(events))}

    def _estimate(self, body: Any, source: Source, training: Any) -> None:
        rows = Rows(source, body.joint)
        found = moments(rows)
        body.set(found.mean, shrunk(found, rows, self.shrinkage, body.joint.names))


class Joint:
    """Events with their context as rows :math:`v = (c, x)`: how many columns of each, and what they are called.

    Circular columns of the context (angles) become their cosine and sine, so that nothing jumps where they wrap around.
    """

    def __init__(self, layout: Layout) -> None:
        self.field, self.features = layout.only, layout.features
        self._angles = layout.circular_context_columns
        self._lines = [i for i in range(layout.context_features) if i not in self._angles]
        self.contexts = len(self._lines) + 2 * len(self._angles)
        known = [name for part in (layout.context or {}).values() for name in part.names]
        turned = [f"{turn} {known[i]}" for turn in ("cos", "sin") for i in self._angles]
        self.names = [*(known[i] for i in self._lines), *turned, *layout.spec[layout.only].names]

    def context(self, events: Events | None) -> Tensor | None:
        """c, shape ``(n, contexts)``, or None."""
        if events is None or not self._angles:
            return None if events is None else events.x
        angles = events.x[:, list(self._angles)]
        return torch.cat([events.x[:, self._lines], angles.cos(), angles.sin()], 1)

    def split(self, events: Events) -> tuple[Tensor, Tensor | None]:
        """x and c."""
        return events.x, self.context(events.context)

    def rows(self, events: Events) -> Tensor:
        """v, shape ``(n, contexts + features)``."""
        x, context = self.split(events)
        return x if context is None else torch.cat([context, x], 1)


class JointNormal(nn.Module):
    """N(m, L L^T) of v = (c, x), as a density of x given c. Buffers: mean m, root L, and its inverse."""

    mean: Tensor
    root: Tensor
    inverse: Tensor

    def __init__(self, joint: Joint) -> None:
        super().__init__()
        self.joint, self.contexts = joint, joint.contexts
        size = joint.contexts + joint.features
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("root", torch.eye(size, dtype=torch.float64))
        self.register_buffer("inverse", torch.eye(size, dtype=torch.float64))

    def set(self, mean: Tensor, covariance: Tensor) -> None:
        """Take over a mean and a positive-definite covariance."""
        sigma = covariance.diagonal().sqrt()
        root = torch.linalg.cholesky(covariance / sigma[:, None] / sigma)
        eye = torch.eye(len(sigma), dtype=root.dtype, device=root.device)
        self.mean.copy_(mean)
        self.root.copy_(sigma[:, None] * root)
        self.inverse.copy_(torch.linalg.solve_triangular(root, eye, upper=False) / sigma)

    def encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Standard normal given c, shape ``(n, d)``."""
        rows = x if context is None else torch.cat([context, x], 1)
        return (rows - self.mean) @ self.inverse[self.contexts :].T

    def decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        """The inverse of :meth:`encode`."""
        c = self.contexts
        x = self.mean[c:] + z @ self.root[c:, c:].T
        return x if context is None else x + (context - self.mean[:c]) @ (self.root[c:, :c] @ self.inverse[:c, :c]).T

    def log_density(self, x: Tensor, context: Tensor | None) -> Tensor:
        """log p(x | c), shape ``(n,)``."""
        z = self.encode(x, context)
        return -0.5 * (z.square() + math.log(math.tau)).sum(1) + self.inverse.diagonal()[self.contexts :].log().sum()


class Rows:
    """All training events as rows v and weights; ``transform`` changes the rows of each piece."""

    def __init__(self, source: Source, joint: Joint, transform: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
        self._source, self._joint, self._transform = source, joint, transform
        self._kept: list[tuple[Tensor, Tensor]] | None = None
        if source.size is not None and source.size * len(joint.names) * 8 <= CACHE:
            self._kept = list(self._pieces())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._pieces() if self._kept is None else iter(self._kept)

    def through(self, transform: Callable[[Tensor], Tensor]) -> Rows:
        """The same events, their rows changed by ``transform``."""
        return Rows(self._source, self._joint, transform)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """The first ``count`` rows and weights, or all if there are fewer."""
        taken: list[tuple[Tensor, Tensor]] = []
        for piece in self:
            taken.append(piece)
            if sum(len(rows) for rows, _ in taken) >= count:
                break
        return torch.cat([rows for rows, _ in taken])[:count], torch.cat([weight for _, weight in taken])[:count]

    def _pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        for events in self._source.sweep():
            rows = self._transform(self._joint.rows(events).double())
            weight = rows.new_ones(len(rows)) if events.weight is None else events.weight.double()
            yield rows, weight


class Moments(NamedTuple):
    """Weighted mean ``(p,)``, covariance ``(p, p)``, and the effective number of events."""

    mean: Tensor
    covariance: Tensor
    events: float


def moments(rows: Pieces) -> Moments:
    """One pass; sums are taken about the mean of the first piece, so that no digits are lost to a large common offset."""
    total, squares, origin = 0.0, 0.0, None
    for piece, weight in rows:
        if origin is None:
            origin = piece.mean(0)
            first, second = torch.zeros_like(origin), torch.zeros_like(origin).diag()
        offset = piece - origin
        first += weight @ offset
        second += (offset * weight[:, None]).T @ offset
        total, squares = total + float(weight.sum()), squares + float(weight.square().sum())
    if origin is None or not total > 0:
        raise DataError(f"expected events with a positive sum of weights; got {total:g}")
    shift = first / total
    covariance = second / total - shift[:, None] * shift
    return Moments(origin + shift, 0.5 * (covariance + covariance.T), total**2 / squares)


def shrunk(found: Moments, rows: Pieces, shrinkage: str | float, names: Sequence[str]) -> Tensor:
    """The covariance after shrinkage; DataError names what has no variance."""
    variance = found.covariance.diagonal()
    if not bool((variance > 0).all()):
        bad = [name for name, value in zip(names, variance.tolist(), strict=True) if not value > 0]
        raise DataError(f"expected columns that vary (with these weights); no variance in {', '.join(bad[:8])}")
    sigma = variance.sqrt()
    correlation = found.covariance / sigma[:, None] / sigma
    s = _intensity(correlation, found, rows, shrinkage)
    correlation = (1 - s) * correlation + s * torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device)
    _check_directions(correlation, sigma, found.events, names)
    return sigma[:, None] * correlation * sigma


def check_shrinkage(owner: Any) -> None:
    """Raise ConfigError unless ``owner.shrinkage`` is a known name or a number in [0, 1]."""
    if isinstance(owner.shrinkage, str):
        check_choice(owner, "shrinkage", ("none", "ledoit-wolf", "oas"))
    else:
        check_between(owner, 0.0, 1.0, "shrinkage")


def _intensity(correlation: Tensor, found: Moments, rows: Pieces, shrinkage: str | float) -> float:
    """How far to shrink, in [0, 1]."""
    size, squares = len(correlation), float(correlation.square().sum())
    if not isinstance(shrinkage, str):
        return float(shrinkage)
    if shrinkage == "none" or squares <= size:
        return 0.0
    if shrinkage == "oas":
        spread = squares / size**2
        return min(1.0, (spread + 1) / ((found.events + 1) * (spread - 1 / size)))
    noise = (_fourth_moment(found, rows) - squares) / found.events
    return min(1.0, max(0.0, noise / (squares - size)))


def _fourth_moment(found: Moments, rows: Pieces) -> float:
    """Weighted mean of |u|^4 of the standardised rows u; a second pass."""
    sigma, top, bottom = found.covariance.diagonal().sqrt(), 0.0, 0.0
    for piece, weight in rows:
        top += float(weight @ ((piece - found.mean) / sigma).square().sum(1).square())
        bottom += float(weight.sum())
    return top / bottom


def _check_directions(correlation: Tensor, sigma: Tensor, events: float, names: Sequence[str]) -> None:
    values, vectors = torch.linalg.eigh(correlation)
    empty = [_words(vectors[:, i] / sigma, sigma, names) for i in range(len(values)) if not values[i] > EMPTY]
    if empty:
        shown = "; ".join(empty[:5]) + (f"; and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise DataError(
            f"the covariance of {events:.0f} events is singular: {len(empty)} of {len(names)} directions have no variance ({shown}). "
            "Drop redundant columns, give more events, or shrink it, e.g. shrinkage='oas'"
        )


def _words(vector: Tensor, sigma: Tensor, names: Sequence[str]) -> str:
    """A linear combination of columns: its terms of the largest spread, the first coefficient being one."""
    order = (vector * sigma).abs().argsort(descending=True)[:4].tolist()
    scaled = vector / vector[order[0]]
    large = [
        i for i in order if abs(float(vector[i] * sigma[i])) > 1e-3 * abs(float(vector[order[0]] * sigma[order[0]]))
    ]
    return " ".join(f"{float(scaled[i]):+.3g}*{names[i]}" for i in large)
