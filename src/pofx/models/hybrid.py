r"""A flow only where it is needed: exactly Gaussian in the directions that are, a spline flow in the others.

Whitened events are rotated, :math:`(f, g) = R L^{-1} (x - m)`, so that the m rows f are the directions in which projection pursuit finds
the training events not Gaussian (:mod:`pofx.models.pursuit`), and

.. math:: p(x) = |\det L|^{-1} \, N(g; 0, 1) \; q(f | g)

with q an autoregressive spline flow, given g or independent of it. With a context c, L and m are those of the linear regression on c, the
directions include those whose mean or width depends on c in any other way, and q knows c. Where nothing is significant, as with few
events, the model is the Gaussian. Flows on the non-Gaussian parameters alone, conditional on the Gaussian ones: gunflows
(github.com/GunFlows/gunflows, there chosen by hand); non-Gaussian component analysis: JMLR 7 (2006) 247.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.bijections.base import Bijection, Chain
from pofx.bijections.coupling import Coupling
from pofx.bijections.elements import Elements
from pofx.config import check_at_least, check_between
from pofx.data.events import Events
from pofx.data.spec import vector_spec
from pofx.errors import ConfigError
from pofx.models.base import Capabilities, Layout
from pofx.models.flows import SplineFlow
from pofx.models.gaussian import Joint, JointNormal, Moments, moments, shrunk
from pofx.models.pursuit import find_directions
from pofx.networks.dense import CouplingNetwork
from pofx.training.contract import Phase

__all__ = ["HybridBody", "HybridFlow"]

WHITE = 1e-6
"""Latent events whose moments are this close to those of N(0, 1) are taken as they are."""


@dataclass(frozen=True)
class HybridFlow(SplineFlow):
    r"""Standard normal in the directions that are Gaussian, :class:`~pofx.models.flows.SplineFlow` in the others.

    What was found is in ``model.layout.extra`` and in the card: ``directions`` (rows, in whitened coordinates), their ``negentropy`` in
    nats and ``p_values``. A source that makes its own events shows nothing beforehand: all directions then get the flow.

    Parameters
    ----------
    directions : how many get a flow; ``"auto"``, those that are significantly not Gaussian.
    level : p-value for ``"auto"``.
    conditional : whether the flow is given the Gaussian directions.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 3))
    >>> pofx.HybridFlow().fit(x).layout.extra["directions"]
    []
    """

    name: ClassVar[str] = "hybrid-flow"
    capabilities: ClassVar[Capabilities] = Capabilities(encode=True)

    directions: int | str = "auto"
    level: float = 0.01
    conditional: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.0, 1.0, "level")
        if isinstance(self.directions, str) and self.directions != "auto":
            raise ConfigError(f"HybridFlow.directions: expected 'auto' or a number; got {self.directions!r}")
        if not isinstance(self.directions, str):
            check_at_least(self, 0, "directions")

    def structure(self, layout: Layout, events: Events) -> Mapping[str, Any]:
        joint = Joint(layout)
        rows = joint.rows(events)
        weight = rows.new_ones(len(rows)) if events.weight is None else events.weight
        found = moments([(rows, weight)])
        shrunk(found, [], "none", joint.names)
        normal = JointNormal(joint)
        normal.set(found.mean, found.covariance)
        x, context = joint.split(events)
        count = None if isinstance(self.directions, str) else self.directions
        free = find_directions(normal.encode(x, context), weight, context, count=count, level=self.level)
        return {
            "directions": free.rows.tolist(),
            "negentropy": list(free.negentropy),
            "p_values": None if free.p_values is None else list(free.p_values),
            "rejected": free.rejected,
            "moments": _moments(found, joint),
        }

    def build(self, layout: Layout) -> nn.Module:
        free, given = self._free(layout), Joint(layout).contexts
        given += layout.features - free if self.conditional else 0
        inner = Layout(vector_spec(max(free, 1)), vector_spec(given) if given else None)
        flow = Chain(*[self.layer(k, inner) for k in range(self.layers)] if free else [])
        return HybridBody(Joint(layout), layout.extra, free, flow, self.conditional)

    def layer(self, k: int, layout: Layout) -> Bijection:
        """As in a spline flow; one variable alone has none before it, and its network is an ordinary one."""
        if layout.features > 1:
            return super().layer(k, layout)
        elements = Elements(1, self._element(), (), self.bins)
        network = CouplingNetwork(
            0,
            sum(elements.sizes),
            self.hidden,
            context=layout.context_features,
            activation=self.activation,
            dropout=self.dropout,
        )
        return Coupling(network, elements, [0], [])

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        (phase,) = super().phases(layout)
        return (phase if self._free(layout) else replace(phase, updates=()),)

    def log_density(self, body: Any, events: Events) -> Tensor:
        x, context = body.joint.split(events)
        z, log_jacobian = body.to_normal(x, context)
        return -0.5 * (z.square() + math.log(math.tau)).sum(1) + log_jacobian

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        return {body.joint.field: body.from_normal(noise["z"], body.joint.context(context))}

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        return {"z": body.to_normal(*body.joint.split(events))[0]}

    def _free(self, layout: Layout) -> int:
        """How many directions have a flow: what was found; without events to look at, all or as many as were asked for."""
        if "directions" in layout.extra:
            return len(layout.extra["directions"])
        return layout.features if isinstance(self.directions, str) else min(self.directions, layout.features)


class HybridBody(nn.Module):
    """Linear regression and whitening, a rotation whose first ``free`` rows have a flow, and that flow."""

    rotation: Tensor

    def __init__(self, joint: Joint, extra: Mapping[str, Any], free: int, flow: Bijection, conditional: bool) -> None:
        super().__init__()
        self.joint, self.free, self.flow, self.conditional = joint, free, flow, conditional
        normal = JointNormal(joint)
        if extra.get("moments"):
            mean, covariance = (
                torch.tensor(extra["moments"][name], dtype=torch.float64) for name in Moments._fields[:2]
            )
            normal.set(mean, covariance)
        self.normal = normal
        self.register_buffer("rotation", _rotation(extra.get("directions", []), joint.features))

    def to_normal(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Standard normal noise ``(n, d)`` and the log-Jacobian ``(n,)``."""
        turned = self.normal.encode(x, context) @ self.rotation.T
        constant = self.normal.inverse.diagonal()[self.joint.contexts :].log().sum()
        if not self.free:
            return turned, constant.expand(len(x))
        free, gaussian = turned[:, : self.free], turned[:, self.free :]
        z, log_jacobian = self.flow(free, self._given(gaussian, context))
        return torch.cat([z, gaussian], 1), log_jacobian + constant

    def from_normal(self, z: Tensor, context: Tensor | None) -> Tensor:
        """The inverse."""
        if self.free:
            free, gaussian = z[:, : self.free], z[:, self.free :]
            z = torch.cat([self.flow.inverse(free, self._given(gaussian, context))[0], gaussian], 1)
        return self.normal.decode(z @ self.rotation, context)

    def _given(self, gaussian: Tensor, context: Tensor | None) -> Tensor | None:
        """What the flow is conditioned on, or None."""
        parts = [gaussian] if self.conditional and gaussian.shape[1] else []
        parts += [] if context is None else [context]
        return torch.cat(parts, 1) if parts else None


def _rotation(directions: Sequence[Sequence[float]], size: int) -> Tensor:
    """An orthogonal matrix that begins with these rows, in float64."""
    if not directions:
        return torch.eye(size, dtype=torch.float64)
    rows = torch.tensor(directions, dtype=torch.float64)
    return torch.cat([rows, torch.linalg.qr(rows.T, mode="complete").Q[:, len(rows) :].T])


def _moments(found: Moments, joint: Joint) -> dict[str, Any] | None:
    """Mean and covariance as lists; None if they are those of N(0, 1) without a context, as after whitening."""
    size = len(found.mean)
    off = max(
        float(found.mean.abs().max()), float((found.covariance - torch.eye(size, dtype=torch.float64)).abs().max())
    )
    if not joint.contexts and off < WHITE:
        return None
    return {"mean": found.mean.tolist(), "covariance": found.covariance.tolist()}
