r"""The contract of every invertible map: preprocessing and flow layers are the same thing.

Forward goes from data to latent, :math:`z = f(x; c)`, and returns :math:`(z, \log|\det \partial z/\partial x|)`; inverse goes back and
returns :math:`(x, \log|\det \partial x/\partial z|)`. The log-Jacobian has one number per event, shape ``(n,)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["Bijection", "Chain", "Inverse"]


class Bijection(nn.Module, ABC):
    """An invertible map of ``x`` (shape ``(n, d)`` for vectors), optionally conditioned on ``context`` (shape ``(n, c)``).

    All fitted numbers are buffers and all trained numbers parameters, so a ``state_dict`` is the whole state. No data-dependent
    shapes, no boolean indexing: every bijection must export to ONNX.
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to latent: ``(z, log|dz/dx|)`` with shapes ``(n, d)`` and ``(n,)``."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent to data: ``(x, log|dx/dz|)`` with shapes ``(n, d)`` and ``(n,)``."""

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Set the buffers from data ``(n, d)`` (training split only) and return the transformed data; by default nothing to fit."""
        return self.forward(x)[0]


class Chain(Bijection):
    """Bijections one after the other: ``forward`` runs them in order, ``inverse`` in reverse; log-Jacobians add up."""

    def __init__(self, *steps: Bijection) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for step in self.steps:
            x, log_jacobian = step(x, context)
            total = total + log_jacobian
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for step in reversed(self.steps):
            z, log_jacobian = step.inverse(z, context)  # type: ignore[operator]
            total = total + log_jacobian
        return z, total

    def fit(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Fit each step on the output of the one before."""
        for step in self.steps:
            x = step.fit(x, weight)  # type: ignore[operator]
        return x


class Inverse(Bijection):
    """The same map the other way round (turns an autoregressive flow into an inverse-autoregressive one)."""

    def __init__(self, inner: Bijection) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner(z, context)
