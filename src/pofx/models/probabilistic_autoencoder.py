r"""Probabilistic autoencoder: an autoencoder first, then a flow over its latent vectors (arXiv:2006.05479).

.. math:: p(x|c) = \int p(x | z)\, p_{\rm flow}(z | c)\, dz, \qquad z = g(x) \text{ in training},
          \qquad p(x|z) = N\bigl(m(z), s(z)\bigr)

The encoder g has no noise and no prior to obey, so nothing collapses and reconstructions are as sharp as the number of latent columns
allows; the flow learns the distribution of the codes afterwards. Samples decode the flow's. A third network learns how far around g(x) the
z lie that explain x: the proposal of the importance-weighted density (:mod:`pofx.models.importance`), which takes the place of the paper's
expansion about one point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.data.spec import vector_spec
from pofx.errors import ConfigError
from pofx.models.autoencoder import AutoencoderBody, encoder_of
from pofx.models.base import Layout
from pofx.models.field import count_estimate, count_updates
from pofx.models.flows import AutoregressiveFlow, CouplingFlow, FlowFamily, SplineFlow
from pofx.models.importance import Code, ImportanceFamily, normal_log_prob
from pofx.networks.embeddings import Conditioning
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["ProbabilisticAutoencoder"]

CODE, GIVEN = "(code)", "(given)"
"""Names of the flow's event and context."""

NARROW = -3.0
"""Log-width of the proposal before training, in units of the spread of the codes."""


@dataclass(frozen=True)
class ProbabilisticAutoencoder(ImportanceFamily):
    """Autoencoder, then a flow on its codes; vectors, grids and clouds, density by an importance-weighted bound.

    Parameters
    ----------
    flow : of the codes: any of the flows.
    embedding : width of the vector that the flow sees of context and number of points.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> model = ProbabilisticAutoencoder(latent=2).fit(x, training=pofx.Training(max_steps=3, seed=1))
    >>> model.sample(3, seed=1).shape
    (3, 2)
    """

    name: ClassVar[str] = "probabilistic-autoencoder"

    flow: FlowFamily = field(default_factory=SplineFlow)
    embedding: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        flow: object = self.flow
        if not isinstance(flow, (CouplingFlow, AutoregressiveFlow)) or flow.capabilities.teacher:
            raise ConfigError(
                f"ProbabilisticAutoencoder: flow must be a coupling, autoregressive or spline flow; got {flow!r}"
            )

    def latent_columns(self, layout: Layout) -> int:
        return self.latent or min(16, layout.spec[layout.only].size)

    def build(self, layout: Layout) -> nn.Module:
        return _Body(layout, self)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        first = Update("reconstruction", self.reconstruction, parameters=("encoder.*", "decoder.*"))
        scale = Update("codes", self.codes, parameters=("codes.*",))
        given = ("condition.*",) if _given(layout) else ()
        second = Update("flow", self.likelihood, parameters=("prior.*", *given))
        third = Update("proposal", self.proposal, parameters=("spread.*",))
        counts = count_updates(layout)
        return (
            Phase("autoencoder", (first, scale, *counts), estimate=count_estimate(layout)),
            Phase("flow", (second, third)),
        )

    # Losses

    def reconstruction(self, body: Any, events: Events, noise: Noise) -> Loss:
        """-log p(x | z = g(x)), divided by the numbers of an event."""
        z = body.encoder(events.x, None, events.context, events.mask)
        return Loss(
            -body.decoder(z, None, events.context, events.mask).log_prob(events.x, events.mask) / body.form.size
        )

    def codes(self, body: Any, events: Events, noise: Noise) -> Loss:
        """What makes the codes' mean and width known: -log N of the codes, which are not moved."""
        with torch.no_grad():
            z = body.encoder(events.x, None, events.context, events.mask)
        return Loss(-normal_log_prob(z, body.codes.mean, body.codes.log_scale.expand_as(z)) / body.latent)

    def likelihood(self, body: Any, events: Events, noise: Noise) -> Loss:
        """-log p of the codes under the flow, per column."""
        with torch.no_grad():
            code = body.codes(body.encoder(events.x, None, events.context, events.mask))
        given = body.given(events.context, events.mask, events.x)
        return Loss(-self.flow.log_density(body.prior, Events({CODE: code}, context=given)) / body.latent)

    def proposal(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Minus the bound with one sample, which is largest where q is nearest to the posterior."""
        features = body.read(events.x, None, events.context, events.mask)
        code = body.infer(events, features, noise.normal("z", body.latent), None)
        seen = body.decoder(code.state, None, events.context, events.mask)
        return Loss(-(seen.log_prob(events.x, events.mask) + code.log_ratio()) / body.form.size)

    # Noise to events and back

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        mask = body.mask(noise, context)
        code = self.flow.decode(body.prior, {"z": noise["z"]}, body.given(context, mask, noise["z"]))[CODE]
        return body.result(body.decoder(body.codes.back(code), None, context, mask).sample(noise), mask)

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        """The flow's noise of g(x), and the noise of the decoder that is left."""
        mask, context = events.mask, events.context
        z = body.encoder(events.x, None, context, mask)
        inner = Events({CODE: body.codes(z)}, context=body.given(context, mask, z))
        noise = dict(self.flow.encode(body.prior, inner)) | body.decoder(z, None, context, mask).noise(events.x, mask)
        return noise if body.count is None else noise | {"count": body.count.middle(events)}


def _given(layout: Layout) -> bool:
    """Whether the flow is conditioned on anything."""
    return bool(layout.context) or layout.spec[layout.only].kind == "cloud"


class _Codes(nn.Module):
    """Codes in units of their mean and width, which is what the flow sees."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.mean, self.log_scale = nn.Parameter(torch.zeros(latent)), nn.Parameter(torch.zeros(latent))

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.mean) * torch.exp(-self.log_scale)

    def back(self, code: Tensor) -> Tensor:
        """The inverse."""
        return self.mean + self.log_scale.exp() * code


class _Body(AutoencoderBody):
    """Encoder, decoder, the scale of the codes, the flow, and the width of the proposal."""

    def __init__(self, layout: Layout, family: ProbabilisticAutoencoder) -> None:
        latent, width = family.latent_columns(layout), family.embedding
        super().__init__(layout, family, outputs=latent, inputs=latent)
        self.family, self.codes = family.flow, _Codes(latent)
        self.spread = encoder_of(layout, family.encoder, latent)
        self.condition = Conditioning(int(self.kind == "cloud"), layout.context, layout.circular_context, width)
        context = vector_spec(width, GIVEN) if _given(layout) else None
        self.prior = family.flow.build(Layout(vector_spec(latent, CODE), context))

    def given(self, context: Events | None, mask: Tensor | None, like: Tensor) -> Events | None:
        """What the flow is conditioned on."""
        if not self.condition.width:
            return None
        share = None
        if self.kind == "cloud":
            share = like.new_ones(len(like), 1) if mask is None else mask.to(like.dtype).mean(1, keepdim=True)
        return Events({GIVEN: self.condition(like, share, context)})

    def read(self, x: Tensor, t: Tensor | None, context: Events | None, mask: Tensor | None) -> Tensor:
        """Code of g(x) and log-width of the proposal."""
        code = self.codes(self.encoder(x, None, context, mask))
        return torch.cat((code, NARROW + self.spread(x, None, context, mask)), 1)

    def infer(self, events: Events, features: Tensor, e: Tensor, t: Tensor | None) -> Code:
        """The code that standard normal e ``(n, latent)`` gives."""
        mean, log_scale = features.chunk(2, 1)
        code = mean + log_scale.exp() * e
        inner = Events({CODE: code}, context=self.given(events.context, events.mask, code))
        return Code(code, self.family.log_density(self.prior, inner), mean, log_scale, self.codes.back(code))
