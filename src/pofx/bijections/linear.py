r"""Linear maps that mix columns: whitening (fitted), LU (trained), permutation (fixed)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pofx.bijections.base import Bijection
from pofx.bijections.fitted import Fitted, check_finite, event_shares, weighted_moments
from pofx.errors import ConfigError, DataError, ShapeError

__all__ = ["LU", "Permutation", "Whitening"]

EMPTY = 1e-12
"""A direction is empty when its share of the variance of standardised columns is below this (float32 rounding leaves about 1e-14)."""


class Whitening(Fitted):
    r"""Decorrelate and standardise: :math:`z = W (x - m)` with :math:`W C W^T = 1`, C the weighted covariance.

    With :math:`C = S R S` (S the standard deviations, R the correlations): ``"cholesky"`` has :math:`R = L L^T, W = (S L)^{-1}`, lower
    triangular, so column j of z depends on columns up to j of x; ``"pca"`` has :math:`R = V \Lambda V^T, W = \Lambda^{-1/2} V^T S^{-1}`,
    largest variance first. Log-Jacobian :math:`\log|\det W|`. :class:`DataError` names the empty directions of a singular covariance.

    >>> x = torch.tensor([[0.0, 0.0], [2.0, 2.0], [0.0, 2.0], [2.0, 1.0]])
    >>> torch.cov(Whitening(2).fit(x).T, correction=0).round(decimals=6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    mean: Tensor
    matrix: Tensor
    unmix: Tensor
    log_slope: Tensor

    def __init__(
        self, size: int, method: Literal["cholesky", "pca"] = "cholesky", names: Sequence[str] | None = None
    ) -> None:
        super().__init__(size)
        if method not in ("cholesky", "pca"):
            raise ConfigError(f"whitening is 'cholesky' or 'pca'; got {method!r}")
        self.method, self.names = method, list(names or (f"column {i}" for i in range(size)))
        self._buffer("mean", 0.0)
        self._buffer("log_slope", 0.0)
        self.register_buffer("matrix", torch.eye(size, dtype=torch.float64))
        self.register_buffer("unmix", torch.eye(size, dtype=torch.float64))

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.mean) @ self.matrix.T, self.log_slope.expand_as(x)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z @ self.unmix.T + self.mean, -self.log_slope.expand_as(z)

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Take mean and covariance from ``x`` (n, d)."""
        data = check_finite(x)
        self.mean, std = weighted_moments(data, weight)
        unit = (data - self.mean) / std
        values, vectors = torch.linalg.eigh((unit * event_shares(data, weight)[:, None]).T @ unit)
        if bool(values[0] < EMPTY):
            raise DataError(self._empty_message(values, vectors / std[:, None], len(data)))
        root, inverse = _roots(self.method, values, vectors)
        self.unmix, self.matrix = (std[:, None] * root).contiguous(), (inverse / std).contiguous()
        spread = root.diagonal() if self.method == "cholesky" else values.flip(0).sqrt()
        self.log_slope = -spread.log() - std.log()
        return self.forward(x)[0]

    def config(self) -> dict[str, Any]:
        return {"size": self.size, "method": self.method}

    def describe(self) -> list[str]:
        return ["whitened" if self.method == "cholesky" else "whitened (pca)"] * self.size

    def _empty_message(self, values: Tensor, vectors: Tensor, events: int) -> str:
        empty = [_combination(vectors[:, i], self.names) for i in range(len(values)) if values[i] < EMPTY]
        shown = "; ".join(empty[:5]) + (f"; and {len(empty) - 5} more" if len(empty) > 5 else "")
        return (
            f"the covariance of {events} events is singular: {len(empty)} of {self.size} directions have no variance ({shown}). "
            "Drop redundant columns, give more events, or use method='standardise'"
        )


def _roots(method: str, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """A square root of the correlation matrix V diag(values) V^T, and its inverse."""
    if method == "cholesky":
        root = torch.linalg.cholesky((vectors * values) @ vectors.T)
        return root, torch.linalg.solve_triangular(root, torch.eye(len(root)).to(root), upper=False)
    values, vectors = values.flip(0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
    return vectors * values.sqrt(), (vectors / values.sqrt()).T


def _combination(vector: Tensor, names: Sequence[str]) -> str:
    """The largest terms of a linear combination of columns, in words, largest coefficient one."""
    scaled = vector / vector[vector.abs().argmax()]
    order = scaled.abs().argsort(descending=True)[:4].tolist()
    return " ".join(f"{scaled[i].item():+.3g}*{names[i]}" for i in order if abs(scaled[i].item()) > 1e-3)


class LU(Bijection):
    r"""A trained invertible matrix :math:`z = P L U x` (L unit lower, U upper triangular, P a fixed permutation).

    Log-Jacobian :math:`\sum_j \log|u_{jj}|`, with :math:`|u_{jj}| = e^{a_j}` so that it cannot become singular; starts at the identity
    followed by P. Glow, arXiv:1807.03039.

    >>> LU(3)(torch.ones(2, 3))[1].tolist()
    [0.0, 0.0]
    """

    order: Tensor
    undo: Tensor

    def __init__(self, size: int, seed: int | None = None) -> None:
        super().__init__()
        self.size = size
        order = torch.arange(size) if seed is None else _indices(size, "random", seed)
        self.register_buffer("order", order)
        self.register_buffer("undo", order.argsort())
        self.lower = nn.Parameter(torch.zeros(size, size))
        self.upper = nn.Parameter(torch.zeros(size, size))
        self.log_diagonal = nn.Parameter(torch.zeros(size))

    def _triangles(self) -> tuple[Tensor, Tensor]:
        eye = torch.eye(self.size, dtype=self.lower.dtype, device=self.lower.device)
        return self.lower.tril(-1) + eye, self.upper.triu(1) + self.log_diagonal.exp().diag()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self._triangles()
        z = (x @ (lower @ upper).T).index_select(1, self.order)
        return z, self.log_diagonal.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self._triangles()
        y = _solve(lower, z.index_select(1, self.undo), upper=False)
        return _solve(upper, y, upper=True), -self.log_diagonal.sum().expand(z.shape[0])


def _solve(matrix: Tensor, y: Tensor, *, upper: bool) -> Tensor:
    """Rows x with ``matrix @ x = y``; when exporting, where ONNX has no triangular solve, by matrix products alone."""
    if torch.compiler.is_exporting():
        return y @ _triangular_inverse(matrix).T
    return torch.linalg.solve_triangular(matrix, y.T, upper=upper).T


def _triangular_inverse(matrix: Tensor) -> Tensor:
    r"""Exact inverse of D (1 - N), N nilpotent: :math:`(1 + N)(1 + N^2)(1 + N^4) \ldots D^{-1}`."""
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    scale = matrix.diagonal()
    power = eye - matrix / scale[:, None]
    inverse = eye + power
    for _ in range((len(matrix) - 1).bit_length()):
        power = power @ power
        inverse = inverse + inverse @ power
    return inverse / scale


class Permutation(Bijection):
    """A fixed order of the columns, ``z[:, j] = x[:, order[j]]``: random from a seed, or reversed; log-Jacobian 0.

    >>> Permutation(3, "reverse")(torch.tensor([[1.0, 2.0, 3.0]]))[0].tolist()
    [[3.0, 2.0, 1.0]]
    """

    order: Tensor
    undo: Tensor

    def __init__(
        self, size: int, order: Literal["random", "reverse"] | Sequence[int] = "random", seed: int = 0
    ) -> None:
        super().__init__()
        self.size = size
        indices = _indices(size, order, seed)
        if sorted(indices.tolist()) != list(range(size)):
            raise ConfigError(f"Permutation needs every column of 0..{size - 1} once; got {order}")
        self.register_buffer("order", indices)
        self.register_buffer("undo", indices.argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._take(x, self.order)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._take(z, self.undo)

    def _take(self, x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[1] != self.size:
            raise ShapeError(f"Permutation was built for (n, {self.size}); got shape {tuple(x.shape)}")
        return x.index_select(1, order), x.new_zeros(x.shape[0])


def _indices(size: int, order: str | Sequence[int], seed: int) -> Tensor:
    if order == "random":
        return torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    if order == "reverse":
        return torch.arange(size - 1, -1, -1)
    if isinstance(order, str):
        raise ConfigError(f"Permutation order is 'random', 'reverse' or a list of columns; got {order!r}")
    return torch.tensor(list(order), dtype=torch.int64)
