r"""Vector-quantised autoencoder: an event as a few whole numbers, and a transformer for these (arXiv:1711.00937).

.. math:: p(x|c) = \sum_k p(k|c)\, p(x | k, c), \qquad k(x) = \text{quantised encoder of } x, \qquad p(k|c) = \prod_i p(k_i | k_{<i}, c)

First encoder, codes and decoder learn :math:`-\log p(x | k(x), c)`, with a gradient that passes straight through the quantiser; then, with
these held fixed, the prior learns p(k|c) of the codes. The quantiser is a codebook with running means, or has fixed levels
(arXiv:2309.15505); see :mod:`pofx.networks.quantisers`. The noise of the decoder is learnt too, so that there is a density of events.

Because the encoder has no noise, one term of the sum is a bound, :math:`\log p(x) \ge \log p(k(x)) + \log p(x | k(x))`; where there are
few enough sequences of codes, all are summed, and the density is exact. Then prior and decoder learn that sum: noise that fits the one
term alone is cut off where the next code begins, and the sum has ripples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.data.spec import EventSpec, vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.autoencoder import AutoencoderBody, AutoencoderFamily, decoder_noise
from pofx.models.base import Density, Layout, NoiseShape
from pofx.models.field import count_estimate, count_updates
from pofx.models.model import Model
from pofx.networks.causal import CausalTransformer, TokenModel
from pofx.networks.lattices import LatticeDecoder, LatticeEncoder, lattice_cells
from pofx.networks.quantisers import FiniteScalarQuantiser, VectorQuantiser
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["VQVAE", "tokens"]

POINTS = "(points)"
"""Name under which the number of points of a cloud joins the context of the prior."""

TOGETHER = 1 << 20
"""Terms of the sum over codes that are looked at together."""
SUMMED, ALONE = 1024, 32
"""Terms of the sum per event of a batch in training, on average, and where each of them is a pass of the decoder."""


@dataclass(frozen=True)
class VQVAE(AutoencoderFamily):
    """Autoencoder with discrete codes, then an autoregressive prior on them; vectors, grids and clouds, density by a bound or exact.

    Vectors and clouds are a few codes in a row; grids are a lattice of codes, each with its place (:mod:`pofx.networks.lattices`), unless
    ``encoder`` is another network. A code of a cloud belongs to the whole cloud, and the prior knows the number of points.

    Parameters
    ----------
    quantiser : ``"vq"``, a codebook; ``"fsq"``, fixed levels.
    slots : codes per event; None for the family's choice (vectors: one per column, from 2 to 16; grids: the cells of the lattice).
    codes : K of the codebook; latent : columns of its vectors, None for 4.
    levels : of the columns of a vector, for ``"fsq"``; there are as many codes as combinations.
    commitment : weight of the squared distance of the encoder from its codes; decay, revive : of the codebook.
    prior : the transformer.
    exact : sequences of codes up to which the density sums over all; with a context, or for clouds, where every event has its own decoder,
        a sixteenth of it.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> model = VQVAE(codes=8).fit(x, training=pofx.Training(max_steps=5, seed=1))
    >>> model.sample(3, seed=1).shape, model.density
    ((3, 2), 'exact')
    """

    name: ClassVar[str] = "vq-vae"

    quantiser: str = "vq"
    slots: int | None = None
    codes: int = 64
    levels: tuple[int, ...] = (8, 8)
    commitment: float = 1.0
    decay: float = 0.99
    revive: float = 0.03
    prior: CausalTransformer = field(default_factory=lambda: CausalTransformer(width=64, layers=2))
    exact: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "quantiser", ("vq", "fsq"))
        check_at_least(self, 0, "commitment", "exact")
        check_at_least(self, 2, "codes")
        check_between(self, 0.0, 0.99999, "decay")
        check_between(self, 0.0, 0.5, "revive")
        if self.slots is not None and (type(self.slots) is not int or self.slots < 1):
            raise ConfigError(f"VQVAE: slots must be an integer of at least 1, or None; got {self.slots!r}")
        if self.quantiser == "fsq" and self.latent not in (None, len(self.levels)):
            raise ConfigError(
                f"VQVAE: with quantiser='fsq' a code has {len(self.levels)} columns, one per level; got latent={self.latent}"
            )

    # What it is made of

    def build(self, layout: Layout) -> nn.Module:
        return _Body(layout, self._settled(layout))

    def latent_columns(self, layout: Layout) -> int:
        """Columns of the vector of one code."""
        return len(self.levels) if self.quantiser == "fsq" else self.latent or 4

    def slot_count(self, layout: Layout) -> int:
        """Codes per event."""
        form, encoder = layout.spec[layout.only], self._settled(layout).encoder
        if isinstance(encoder, LatticeEncoder):
            cells = math.prod(lattice_cells(form.axes, len(encoder.channels)))
            if self.slots not in (None, cells):
                raise ConfigError(
                    f"VQVAE: the lattice of this grid has {cells} cells, each with its code; got slots={self.slots}"
                )
            return cells
        return self.slots or (8 if form.kind == "cloud" else min(16, max(2, form.size)))

    def code_count(self) -> int:
        """Values of a code."""
        return math.prod(self.levels) if self.quantiser == "fsq" else self.codes

    def _settled(self, layout: Layout) -> VQVAE:
        """With the networks of lattices where the field is a grid and nothing else is asked for."""
        if layout.spec[layout.only].kind != "grid" or self.encoder is not None:
            return self
        network = self.decoder.network
        channels = network.channels if isinstance(network, LatticeDecoder) else LatticeEncoder().channels
        decoder = self.decoder if network is not None else replace(self.decoder, network=LatticeDecoder(channels))
        return replace(self, encoder=LatticeEncoder(channels), decoder=decoder)

    # Training

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        first = Update("codes", self.reconstruction, parameters=("encoder.*", "decoder.*"), after=_move)
        second = Update("prior", self.likelihood, parameters=("prior.*",))
        if self._summed(layout):
            second = Update("density", self.likelihood_of_all, parameters=("prior.*", "decoder.*"))
        return (
            Phase(
                "autoencoder",
                (first, *count_updates(layout)),
                estimate=count_estimate(layout),
                monitor=self.reconstruction_alone,
                training={"ema": None},  # averaged networks would not fit the codebook, which is not averaged
            ),
            Phase("prior", (second,)),
        )

    def reconstruction(self, body: Any, events: Events, noise: Noise) -> Loss:
        """-log p(x | k(x)), divided by the numbers of an event, and the distance of the encoder from its codes."""
        z = body.read(events)
        found = body.quantiser(z)
        if body.training and isinstance(body.quantiser, VectorQuantiser):
            body.quantiser.observe(z, found.codes, events.weight, noise.uniform("spare", body.slots))
        lost = -body.seen(found.values, events.context, events.mask).log_prob(events.x, events.mask) / body.form.size
        return Loss(lost + self.commitment * found.distance, logs={"reconstruction": lost, "distance": found.distance})

    def reconstruction_alone(self, body: Any, events: Events, noise: Noise) -> Loss:
        """What is kept is what reconstructs best, however far the encoder is from its codes."""
        return Loss(self.reconstruction(body, events, noise).logs["reconstruction"])

    def likelihood(self, body: Any, events: Events, noise: Noise) -> Loss:
        """-log p(k(x)) per code."""
        codes = body.codes(events)
        return Loss(-body.prior.log_prob(codes, body.given(events.context, events.mask, events.x)) / body.slots)

    def likelihood_of_all(self, body: Any, events: Events, noise: Noise) -> Loss:
        """-log p(x), the sum over all sequences, divided by the numbers of an event.

        Where there are very many terms, some events of a batch, drawn by their noise, stand for all.
        """
        share = (ALONE if body.alone else SUMMED) / len(body.every)
        if share >= 1.0:
            return Loss(-body.log_sum(events) / body.form.size)
        u = noise.uniform("kept", 1)[:, 0]
        rows = (u < share).nonzero()[:, 0] if bool((u < share).any()) else u.argmin()[None]
        lost = -body.log_sum(events[rows]) / (share * body.form.size)
        return Loss(lost.new_zeros(len(events)).index_put((rows,), lost))

    # Noise to events and back

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        """``z``, the decoder's noise, and uniform numbers that choose the codes."""
        noise = decoder_noise(layout)
        return {"z": noise.pop("e"), "codes": NoiseShape("uniform", (self.slot_count(layout),)), **noise}

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        mask = body.mask(noise, context)
        codes = body.prior.draw(noise["codes"], body.given(context, mask, noise["z"]))
        seen = body.seen(body.quantiser.values(codes), context, mask)
        return body.result(seen.sample({**noise, "e": noise["z"]}), mask)

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        """The middle of what chooses the codes of the events, and the noise of the decoder that is left."""
        codes = body.codes(events)
        shares = body.prior.log_shares(codes, body.given(events.context, events.mask, events.x)).double().exp()
        at = codes[..., None]
        middle = (shares.cumsum(-1).gather(-1, at) - 0.5 * shares.gather(-1, at))[..., 0]
        seen = body.seen(body.quantiser.values(codes), events.context, events.mask)
        rest = dict(seen.noise(events.x, events.mask))
        noise = {"z": rest.pop("e"), "codes": middle.to(events.x.dtype), **rest}
        return noise if body.count is None else noise | {"count": body.count.middle(events)}

    # Density

    def density_of(self, layout: Layout) -> Density:
        return "exact" if self._summed(layout) else "bound"

    def density_chunk(self, layout: Layout) -> int:
        if not self._summed(layout):
            return self.chunk(layout)
        alone = layout.context or layout.spec[layout.only].kind == "cloud"
        terms = self.code_count() ** self.slot_count(layout) * layout.spec[layout.only].size * (16 if alone else 1)
        return max(1, min(self.chunk(layout), 1 << max(0, (TOGETHER // terms).bit_length() - 1)))

    def _summed(self, layout: Layout) -> bool:
        """Whether the density is the sum over all sequences."""
        alone = bool(layout.context) or layout.spec[layout.only].kind == "cloud"
        return self.code_count() ** self.slot_count(layout) <= self.exact // (16 if alone else 1)

    def log_density(self, body: Any, events: Events) -> Tensor:
        found: Tensor = body.log_sum(events) if body.summed else body.log_term(events, body.codes(events))
        return found + body.log_count(events)


@torch.no_grad()
def tokens(model: Model, x: Any, context: Any = None) -> Tensor:
    """The codes of events, int64 ``(n, slots)``, each below ``model.family.code_count()``.

    Parameters
    ----------
    model : a fitted :class:`VQVAE`; CapabilityError for another.
    x, context : as :meth:`pofx.Model.encode` takes them.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> model = VQVAE(codes=8).fit(x, training=pofx.Training(max_steps=5, seed=1))
    >>> tokens(model, x).shape
    torch.Size([500, 2])
    """
    if not isinstance(model.family, VQVAE):
        raise CapabilityError(f"tokens are those of a VQVAE; got a {type(model.family).__name__}")
    events, _, _ = model.inputs.events(x, context)
    body: Any = model.fitted.body
    parts = [body.codes(model.fitted.prepare(part)[0]) for part in events.split(model.family.chunk(model.layout))]
    return torch.cat(parts) if parts else torch.zeros(0, body.slots, dtype=torch.int64)


def _move(body: Any) -> None:
    """Move the codebook, after a step."""
    if isinstance(body.quantiser, VectorQuantiser):
        body.quantiser.move()


class _Body(AutoencoderBody):
    """Encoder, quantiser, decoder and prior."""

    every: Tensor

    def __init__(self, layout: Layout, family: VQVAE) -> None:
        slots, width = family.slot_count(layout), family.latent_columns(layout)
        super().__init__(layout, family, outputs=slots * width, inputs=slots * width)
        self.slots, self.width, self.summed = slots, width, family._summed(layout)
        self.quantiser: VectorQuantiser | FiniteScalarQuantiser = (
            FiniteScalarQuantiser(family.levels)
            if family.quantiser == "fsq"
            else VectorQuantiser(family.codes, width, family.decay, family.revive)
        )
        given = self._prior_context(layout)
        self.prior = TokenModel(family.prior, self.slots, family.code_count(), given, layout.circular_context)
        every = _sequences(family.code_count(), self.slots) if self.summed else torch.zeros(0, self.slots).long()
        self.register_buffer("every", every, persistent=False)
        self.alone = bool(layout.context) or self.kind == "cloud"

    def _prior_context(self, layout: Layout) -> EventSpec | None:
        points = vector_spec(1, POINTS) if self.kind == "cloud" else {}
        return {**points, **(layout.context or {})} or None

    def given(self, context: Events | None, mask: Tensor | None, like: Tensor) -> Events | None:
        """What the prior is conditioned on: the context, and of a cloud the share of points that are real."""
        if self.kind != "cloud":
            return context
        full = like.new_ones(len(like), 1) if mask is None else mask.to(like.dtype).mean(1, keepdim=True)
        return Events({POINTS: full}) if context is None else context.replace(fields={POINTS: full, **context.fields})

    def read(self, events: Events) -> Tensor:
        """The encoder's vectors ``(n, slots, width)``."""
        found: Tensor = self.encoder(events.x, None, events.context, events.mask)
        return found.unflatten(1, (self.slots, self.width))

    @torch.no_grad()
    def codes(self, events: Events) -> Tensor:
        """k(x), ``(n, slots)``."""
        return self.quantiser(self.read(events)).codes

    def seen(self, values: Tensor, context: Events | None, mask: Tensor | None) -> Any:
        """p(x | k) for the vectors of codes."""
        return self.decoder(values.flatten(1), None, context, mask)

    def log_term(self, events: Events, codes: Tensor) -> Tensor:
        """log p(k) + log p(x | k), ``(n,)``."""
        seen = self.seen(self.quantiser.values(codes), events.context, events.mask)
        prior = self.prior.log_prob(codes, self.given(events.context, events.mask, events.x))
        return seen.log_prob(events.x, events.mask) + prior

    def log_sum(self, events: Events) -> Tensor:
        """log of the sum over all sequences, ``(n,)``."""
        n, m = len(events), len(self.every)
        values = self.quantiser.values(self.every)
        if self.alone:
            rows = torch.arange(n, device=events.x.device).repeat_interleave(m)
            many = events[rows]
            inner = self.seen(values.repeat(n, 1, 1), many.context, many.mask).log_prob(many.x, many.mask)
        else:
            seen = self.seen(values, None, None)
            mean, log_scale = (part.expand(n, *part.shape).flatten(0, 1) for part in (seen.mean, seen.log_scale))
            x = events.x[:, None].expand(n, m, *events.x.shape[1:]).flatten(0, 1)
            inner = replace(seen, mean=mean, log_scale=log_scale).log_prob(x)
        return (inner.reshape(n, m) + self.log_every(events)).logsumexp(1)

    def log_every(self, events: Events) -> Tensor:
        """log p(k) of all sequences, ``(n, m)``, or ``(1, m)`` where it is the same for all events."""
        some = events if self.alone else events[:1]
        start = self.every[:: self.prior.values]  # every beginning once: the last place is known for all its codes
        n, b = len(some), len(start)
        rows = torch.arange(n, device=start.device).repeat_interleave(b)
        given = self.given(some.context, some.mask, some.x)
        shares = self.prior.log_shares(start.repeat(n, 1), None if given is None else given[rows])
        before = shares[:, :-1].gather(2, start.repeat(n, 1)[:, :-1, None])[..., 0].sum(1)
        return (before[:, None] + shares[:, -1]).reshape(n, -1)


def _sequences(values: int, slots: int) -> Tensor:
    """All sequences of codes, ``(values ** slots, slots)``."""
    return torch.cartesian_prod(*[torch.arange(values)] * slots).reshape(-1, slots)
