r"""Normalising flows: invertible layers from data to a simple base, exact density and exact samples.

.. math:: \log p(x|c) = \log p_0(f(x; c)) + \log|\det \partial f/\partial x|

Coupling layers (arXiv:1605.08803) with rational-quadratic splines (arXiv:1906.04032) are fast both ways; masked autoregressive layers
(arXiv:1705.07057) are more flexible per parameter, and are here fast both ways too. Periodic columns use circular splines
(arXiv:2002.02428) and a uniform base, so densities are continuous across the seam.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.bijections.autoregressive import MaskedAutoregressive
from pofx.bijections.base import Bijection, Chain
from pofx.bijections.coupling import Coupling
from pofx.bijections.elements import SHIFT, AffineElement, AffineSpline, Element, Elements
from pofx.bijections.linear import LU
from pofx.bijections.splines import RationalQuadratic
from pofx.config import check_at_least, check_between, check_choice, check_widths
from pofx.data.events import Events
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Capabilities, Family, Layout
from pofx.networks.dense import CouplingNetwork
from pofx.networks.experts import ExpertNetwork
from pofx.networks.masked import ACTIVATIONS, MaskedNetwork
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["AutoregressiveFlow", "CouplingFlow", "FlowFamily", "SplineFlow"]


class FlowBody(nn.Module):
    """The flow between latent events and the base: standard normal, or uniform on the circle for circular columns."""

    angles: Tensor

    def __init__(self, flow: Bijection, layout: Layout) -> None:
        super().__init__()
        self.flow, self.field = flow, layout.only
        self.context_angles = layout.circular_context_columns
        self.context_lines = tuple(i for i in range(layout.context_features) if i not in self.context_angles)
        angles = torch.zeros(layout.features, dtype=torch.bool)
        angles[list(layout.circular_columns)] = True
        self.register_buffer("angles", angles, persistent=False)

    def context(self, events: Events | None) -> Tensor | None:
        """The context as network inputs: angles as cosine and sine."""
        if events is None:
            return None
        rows: Tensor = events.x
        if not self.context_angles:
            return rows
        turned = rows[:, self.context_angles]
        return torch.cat((rows[:, self.context_lines], turned.cos(), turned.sin()), -1)

    def log_base(self, z: Tensor) -> Tensor:
        """log density of the base, ``(n,)``."""
        normal = -0.5 * z * z - 0.5 * math.log(2.0 * math.pi)
        return torch.where(self.angles, -math.log(2.0 * math.pi), normal).sum(-1)

    def from_normal(self, e: Tensor) -> Tensor:
        """Standard normal noise to the base: angles by the normal's distribution function."""
        if not bool(self.angles.any()):
            return e
        return torch.where(self.angles, math.pi * torch.erf(e / math.sqrt(2.0)), e)

    def to_normal(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`from_normal`."""
        inner = (z / math.pi).clamp(-1.0 + 1e-7, 1.0 - 1e-7)
        return torch.where(self.angles, math.sqrt(2.0) * torch.erfinv(inner), z)


@dataclass(frozen=True)
class FlowFamily(Family):
    """What all flows share: maximum likelihood, exact density, decode and encode.

    Parameters
    ----------
    layers : how many invertible layers.
    hidden : widths of each layer's network.
    element : ``"spline"`` (rational-quadratic), ``"affine"``, or ``"affine-spline"``, one after the other.
    bins, bound : of the splines: bins inside [-bound, bound], the identity outside (in units of standardised data).
    activation, dropout : of the networks.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(encode=True, periodic=True)

    layers: int = 4
    hidden: tuple[int, ...] = (128, 128)
    element: str = "spline"
    bins: int = 8
    bound: float = 5.0
    activation: str = "silu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "layers", "bins")
        check_at_least(self, 1e-3, "bound")
        check_between(self, 0.0, 0.9, "dropout")
        check_choice(self, "element", ("spline", "affine", "affine-spline"))
        check_widths(self, "hidden")
        check_choice(self, "activation", tuple(ACTIVATIONS))

    @abstractmethod
    def layer(self, k: int, layout: Layout) -> Bijection:
        """Layer number k."""

    def build(self, layout: Layout) -> nn.Module:
        return FlowBody(Chain(*(self.layer(k, layout) for k in range(self.layers))), layout)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("likelihood", (Update("nll", self.loss),)),)

    def loss(self, body: nn.Module, events: Events, noise: Noise) -> Loss:
        """Negative log-likelihood in latent coordinates."""
        return Loss(-self.log_density(body, events))

    def log_density(self, body: Any, events: Events) -> Tensor:
        z, log_jacobian = body.flow(events.x, body.context(events.context))
        return body.log_base(z) + log_jacobian

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        return {body.field: body.flow.inverse(body.from_normal(noise["z"]), body.context(context))[0]}

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        return {"z": body.to_normal(body.flow(events.x, body.context(events.context))[0])}

    def _element(self) -> Element:
        spline = RationalQuadratic(self.bins, self.bound)
        elements: dict[str, Element] = {
            "spline": spline,
            "affine": AffineElement(),
            "affine-spline": AffineSpline(spline),
        }
        return elements[self.element]


@dataclass(frozen=True)
class CouplingFlow(FlowFamily):
    """Coupling layers on changing halves of the columns; one network evaluation per layer in both directions (arXiv:1906.04032).

    Parameters
    ----------
    mixing : ``"permutation"`` (random halves) or ``"lu"``, a trained linear map before each layer (arXiv:1807.03039); not on angles.

    >>> CouplingFlow(layers=6, hidden=(64, 64)).name
    'coupling-flow'
    """

    name: ClassVar[str] = "coupling-flow"

    layers: int = 8
    mixing: str = "permutation"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "mixing", ("permutation", "lu"))

    def layer(self, k: int, layout: Layout) -> Bijection:
        coupling = self._coupling(k, layout)
        if self.mixing == "permutation":
            return coupling
        if layout.circular_columns:
            raise CapabilityError(
                "CouplingFlow: mixing='lu' would mix angles with other columns; use mixing='permutation'"
            )
        return Chain(LU(layout.features), coupling)

    def _coupling(self, k: int, layout: Layout) -> Bijection:
        passive, active = _halves(k, layout.features)
        elements = Elements(len(active), self._element(), _within(active, layout.circular_columns), self.bins)
        network = CouplingNetwork(
            len(passive),
            sum(elements.sizes),
            self.hidden,
            context=_context_inputs(layout),
            activation=self.activation,
            dropout=self.dropout,
            circular=_within(passive, layout.circular_columns),
        )
        return Coupling(network, elements, active, passive)


@dataclass(frozen=True)
class AutoregressiveFlow(FlowFamily):
    """Masked autoregressive layers, each in another order of the columns (arXiv:1705.07057).

    Sampling costs about as much as one density evaluation, because each hidden unit is evaluated once.

    Parameters
    ----------
    residual, gated : the form of the networks (see :class:`pofx.networks.masked.MaskedNetwork`).
    experts : linear maps of the earlier columns that gates choose among for each shift (:mod:`pofx.networks.experts`); 0 for none.
    """

    name: ClassVar[str] = "autoregressive-flow"

    element: str = "affine"
    residual: bool = False
    gated: bool = False
    experts: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "experts")
        if self.experts and self.element == "spline":
            raise ConfigError(
                f"{type(self).__name__}: experts={self.experts} act on a shift; expected element='affine' or 'affine-spline', got 'spline'"
            )

    def layer(self, k: int, layout: Layout) -> Bijection:
        order = _order(k, layout.features)
        circular = _within(order, layout.circular_columns)
        elements = Elements(layout.features, self._element(), circular, self.bins)
        return MaskedAutoregressive(self._network(elements.sizes, circular, _context_inputs(layout)), elements, order)

    def _network(self, sizes: Sequence[int], circular: tuple[int, ...], context: int) -> nn.Module:
        options: dict[str, Any] = {
            "context": context,
            "activation": self.activation,
            "dropout": self.dropout,
            "residual": self.residual,
            "gated": self.gated,
            "circular": circular,
        }
        sees = context > 0 or len(sizes) - len(circular) > 1
        if not (self.experts and sees and len(circular) < len(sizes)):
            return MaskedNetwork(sizes, self.hidden, **options)
        return ExpertNetwork(sizes, SHIFT, self.experts, self.hidden, **options)


@dataclass(frozen=True)
class SplineFlow(AutoregressiveFlow):
    """The recommended default: masked autoregressive layers, each a shift and scale followed by a rational-quadratic spline.

    Shifts choose among linear maps of the earlier columns, and gated residual networks hold more of them that switch on and off: narrow
    conditional densities around regression lines, typical of correlated measurements, are then learnt from few events.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(2000, 2))
    >>> model = pofx.SplineFlow(layers=2).fit(x, training=pofx.Training(max_epochs=2, seed=1))
    >>> model.sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "spline-flow"

    layers: int = 2
    element: str = "affine-spline"
    residual: bool = True
    gated: bool = True
    experts: int = 6


def _context_inputs(layout: Layout) -> int:
    return layout.context_features + len(layout.circular_context_columns)


def _within(columns: list[int], chosen: tuple[int, ...]) -> tuple[int, ...]:
    """Positions in ``columns`` of the chosen ones."""
    return tuple(i for i, column in enumerate(columns) if column in chosen)


def _order(k: int, features: int) -> list[int]:
    """Columns in order, in reverse, then in fixed random orders and their reverses."""
    generator = torch.Generator().manual_seed(k // 2)
    order = list(range(features)) if k < 2 else torch.randperm(features, generator=generator).tolist()
    return order[::-1] if k % 2 else order


def _halves(k: int, features: int) -> tuple[list[int], list[int]]:
    """Passive and active columns: two halves of a fixed random order, swapped in every second layer; one column is always active."""
    generator = torch.Generator().manual_seed(k // 2)
    order: list[int] = torch.randperm(features, generator=generator).tolist()
    first, second = sorted(order[: features // 2]), sorted(order[features // 2 :])
    return (first, second) if k % 2 == 0 or not first else (second, first)
