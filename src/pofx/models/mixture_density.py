r"""Mixture density network: a mixture of normal distributions whose parameters a network computes from the context (Bishop 1994).

.. math:: p(x|c) = \sum_k \pi_k(c)\, N\big(x; \mu_k(c), (A_k(c)^\top A_k(c))^{-1}\big)

with A lower triangular and positive on its diagonal (the Cholesky factor of the inverse covariance; Williams, Neural Computation 8, 1996),
so that :math:`\log N = \sum_i \log A_{ii} - |A (x - \mu)|^2/2 - (d/2) \log 2\pi` needs neither an inverse nor a determinant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pofx.config import check_at_least, check_between, check_choice, check_widths
from pofx.data.events import Events
from pofx.models.base import Capabilities, Family, Layout, NoiseShape
from pofx.models.heads import without_far
from pofx.networks.causal import choose
from pofx.networks.embeddings import Conditioning
from pofx.networks.layers import ACTIVATIONS, Dense
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["Components", "MixtureDensityNetwork"]

NARROWEST = math.log(1e-4)
"""Smallest logarithm of a component's width, in units of standardised data."""


class Components(NamedTuple):
    """A mixture per event.

    Logarithms of shares ``(n, K)``, means ``(n, K, d)``, Cholesky factors of the inverse covariances ``(n, K, d, d)``.

    >>> two = Components(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[[0.0], [2.0]]]), torch.ones(1, 2, 1, 1))
    >>> torch.round(two.log_prob(torch.tensor([[1.0]])), decimals=4)
    tensor([-1.4189])
    """

    log_share: Tensor
    mean: Tensor
    factor: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """``(n,)`` of x ``(n, d)``."""
        x, far = without_far(x)
        white = (self.factor @ (x[:, None] - self.mean)[..., None])[..., 0]
        size = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        parts = self.log_share + size - 0.5 * white.square().sum(-1)
        found = torch.logsumexp(parts, -1) - 0.5 * x.shape[1] * math.log(2.0 * math.pi)
        return found.masked_fill(far, -math.inf)

    def draw(self, u: Tensor, z: Tensor) -> Tensor:
        """x ``(n, d)``: the component by uniform noise ``(n,)``, the place in it by normal noise ``(n, d)``."""
        chosen = choose(self.log_share, u)[:, None, None]
        d = z.shape[1]
        mean = self.mean.gather(1, chosen.expand(-1, 1, d))[:, 0]
        factor = self.factor.gather(1, chosen[..., None].expand(-1, 1, d, d))[:, 0]
        return mean + torch.linalg.solve_triangular(factor, z[..., None], upper=False)[..., 0]


class MixtureBody(nn.Module):
    """The network from a context to the parameters of the mixture; without a context it sees a learnt vector instead."""

    rows: Tensor
    columns: Tensor

    def __init__(self, family: MixtureDensityNetwork, layout: Layout) -> None:
        super().__init__()
        self.field, self.components, self.features = layout.only, family.components, layout.features
        rows, columns = torch.tril_indices(self.features, self.features, -1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        start, width = self._start(), family.hidden[0]
        self.condition = self.constant = None
        if layout.context:
            self.condition = Conditioning(0, layout.context, layout.circular_context, width, family.activation)
        else:
            self.constant = nn.Parameter(torch.randn(width))
        self.dense = Dense((width, *family.hidden, len(start)), family.activation, family.dropout)
        last = self.dense.layers[-1]
        with torch.no_grad():
            last.weight.mul_(0.1)  # type: ignore[operator]
            last.bias.copy_(start)  # type: ignore[operator]

    def mixture(self, like: Tensor, context: Events | None) -> Components:
        """The mixture of each event; ``like`` ``(n, ...)`` says how many there are, and in which precision."""
        if self.constant is None:
            parameters = self.dense(self.condition(like, None, context))  # type: ignore[misc]
        else:
            parameters = self.dense(self.constant[None]).expand(len(like), -1)
        k, d = self.components, self.features
        share, mean, width, below = parameters.split([k, k * d, k * d, k * d * (d - 1) // 2], -1)
        return Components(share.log_softmax(-1), mean.unflatten(-1, (k, d)), self._factor(width, below))

    def _factor(self, width: Tensor, below: Tensor) -> Tensor:
        """Lower triangular ``(n, K, d, d)``; its rows are divided by widths that cannot become zero."""
        k, d = self.components, self.features
        inverse = torch.exp(-(NARROWEST + F.softplus(width.unflatten(-1, (k, d)) - NARROWEST)))
        unit = torch.eye(d, dtype=width.dtype, device=width.device).expand(len(width), k, d, d)
        if d > 1:
            place = self.rows * d + self.columns
            unit = unit.flatten(-2).index_copy(-1, place, below.unflatten(-1, (k, -1))).unflatten(-1, (d, d))
        return inverse[..., None] * unit

    def _start(self) -> Tensor:
        """Equal shares, means spread as normal data are, widths of a half (of one for a single component)."""
        k, d = self.components, self.features
        mean = torch.randn(k, d) if k > 1 else torch.zeros(k, d)
        width = torch.full((k * d,), math.log(0.5) if k > 1 else 0.0)
        return torch.cat((torch.zeros(k), mean.flatten(), width, torch.zeros(k * d * (d - 1) // 2)))


@dataclass(frozen=True)
class MixtureDensityNetwork(Family):
    """A conditional mixture with full covariances, learnt by maximum likelihood; exact density.

    Without a context it is a mixture of normal distributions fitted by gradients (:class:`pofx.GaussianMixture` does that by EM).

    Parameters
    ----------
    components : of the mixture.
    hidden : widths of the network's layers, the first that of the embedded context.
    activation, dropout : of the network.

    >>> import numpy as np, pofx
    >>> rng = np.random.default_rng(1)
    >>> c = rng.uniform(size=(2000, 1))
    >>> x = np.hstack([c, 1 - c]) + 0.1 * rng.normal(size=(2000, 2))
    >>> model = MixtureDensityNetwork(components=2).fit(x, c, training=pofx.Training(max_steps=20, seed=1))
    >>> model.sample(3, [0.5], seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "mixture-density-network"
    capabilities: ClassVar[Capabilities] = Capabilities(context=frozenset({"vector", "cloud"}))

    components: int = 8
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "components")
        check_widths(self, "hidden")
        check_choice(self, "activation", tuple(ACTIVATIONS))
        check_between(self, 0.0, 0.9, "dropout")

    def build(self, layout: Layout) -> nn.Module:
        return MixtureBody(self, layout)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("likelihood", (Update("nll", self.loss),)),)

    def loss(self, body: nn.Module, events: Events, noise: Noise) -> Loss:
        """Negative log-likelihood in latent coordinates."""
        return Loss(-self.log_density(body, events))

    def log_density(self, body: Any, events: Events) -> Tensor:
        found: Components = body.mixture(events.x, events.context)
        return found.log_prob(events.x)

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        return {"z": NoiseShape("normal", (layout.features,)), "component": NoiseShape("uniform", (1,))}

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        z = noise["z"]
        return {body.field: body.mixture(z, context).draw(noise["component"][:, 0], z)}
