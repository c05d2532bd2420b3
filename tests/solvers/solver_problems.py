"""Problems with closed forms, and fields that count what they are asked."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

MATRIX = torch.tensor([[-0.5, 2.0, 0.3], [-2.0, -0.1, 0.0], [0.4, 0.0, -1.0]], dtype=torch.float64)


def states(n: int, *shape: int, seed: int = 1) -> Tensor:
    """Standard normal states in float64."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, *shape)))


def linear(t: Tensor, x: Tensor, rows: slice | Tensor) -> Tensor:
    """dx/dt = A x, solved by exp(A t)."""
    return x @ MATRIX.T


def linear_solution(x: Tensor, t: float) -> Tensor:
    return x @ torch.linalg.matrix_exp(MATRIX * t).T


def oscillator(t: Tensor, x: Tensor, rows: slice | Tensor) -> Tensor:
    """q'' = -q, solved by a rotation."""
    return torch.stack([x[:, 1], -x[:, 0]], 1)


def oscillator_solution(x: Tensor, t: float) -> Tensor:
    q, p = x.unbind(1)
    return torch.stack([q * math.cos(t) + p * math.sin(t), p * math.cos(t) - q * math.sin(t)], 1)


def waving(t: Tensor, x: Tensor, rows: slice | Tensor) -> Tensor:
    """dx/dt = x cos t, which depends on time."""
    return x * torch.cos(t).reshape(-1, *[1] * (x.ndim - 1))


def waving_solution(x: Tensor, t: float) -> Tensor:
    return x * math.exp(math.sin(t))


def lotka_volterra(t: Tensor, x: Tensor, rows: slice | Tensor) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    return torch.stack([1.5 * a - a * b, -3.0 * b + a * b], 1)


def van_der_pol(mu: Tensor) -> Callable[[Tensor, Tensor, slice | Tensor], Tensor]:
    """q'' = mu (1 - q^2) q' - q, with a mu of its own for every sample."""

    def field(t: Tensor, x: Tensor, rows: slice | Tensor) -> Tensor:
        q, p = x[:, 0], x[:, 1]
        return torch.stack([p, mu[rows] * (1.0 - q**2) * p - q], 1)

    return field


def scipy_solution(
    field: Callable[[Tensor, Tensor, slice | Tensor], Tensor], x: Tensor, t0: float, t1: float, method: str = "DOP853"
) -> Tensor:
    """The same problem by scipy, sample by sample, at tolerances far below those of the tests."""

    def single(i: int) -> Tensor:
        rows = torch.tensor([i])

        def right(t: float, y: np.ndarray) -> np.ndarray:
            at = torch.from_numpy(y).reshape(1, *x.shape[1:])
            return field(torch.tensor([t], dtype=torch.float64), at, rows).flatten().numpy()

        found = solve_ivp(right, (t0, t1), x[i].flatten().numpy(), method=method, rtol=1e-11, atol=1e-12)
        return torch.from_numpy(found.y[:, -1]).reshape(x.shape[1:])

    return torch.stack([single(i) for i in range(len(x))])


class Counted:
    """A field that counts the rows it is given, in all and per sample of the batch."""

    def __init__(self, field: Callable[[Tensor, Tensor, slice | Tensor], Tensor], n: int) -> None:
        self.field, self.calls, self.rows = field, 0, 0
        self.sizes: set[int] = set()
        self.each = torch.zeros(n, dtype=torch.int64)

    def __call__(self, t: Tensor, x: Tensor, rows: slice | Tensor) -> Tensor:
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        self.sizes.add(len(x))
        self.each += torch.bincount(torch.arange(len(self.each))[rows], minlength=len(self.each))
        return self.field(t, x, rows)
