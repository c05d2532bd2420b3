r"""What autoencoders of vectors, grids and clouds share: encoder, decoder, and the likelihood of a reconstruction.

A family over :class:`AutoencoderFamily` has the settings; its body is an :class:`AutoencoderBody`:

- ``body.encoder(x, t, context, mask)`` gives ``(n, outputs)`` numbers per event, by any network of the field's kind;
- ``body.decoder(z, t, context, mask)`` gives an :class:`~pofx.models.observation.Observation`, the distribution p(x | z, c), which has

  - ``log_prob(x, mask)``, ``(n,)``: minus the reconstruction loss in nats, angles and padding taken care of;
  - ``sample(noise)``, with the noise that :func:`decoder_noise` names: the event, for ``body.result(x, mask)``;
  - ``noise(x, mask)``, the inverse of ``sample`` at the same z; ``mean``, for what needs no noise (vectors and grids).

``t`` holds what else conditions both, ``(n, times)``, each number of order one (None if ``times`` is 0). A decoder of clouds adds the
number of points itself, which ``body.count`` (:class:`~pofx.models.field.Multiplicity`) draws: use ``count_updates``, ``count_estimate``
and ``body.log_count`` of :mod:`pofx.models.field` as other families do. Discrete codes, critics and priors are the family's own.

>>> from pofx.models.base import Layout
>>> from pofx.data.spec import vector_spec
>>> form = vector_spec(3)["x"]
>>> decoder = Decoder(Layout({"x": form}), 5, DecoderSettings())
>>> decoder(torch.zeros(7, 5)).log_prob(torch.zeros(7, 3)).shape
torch.Size([7])
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.data.spec import Column, Field, Kind
from pofx.errors import ConfigError
from pofx.models.base import Capabilities, Family, Layout, NoiseShape
from pofx.models.field import FieldBody, network_shape
from pofx.models.observation import Numbers, Observation, PointMixture, observation_noise
from pofx.networks.base import NetworkConfig, NetworkShape, default_network
from pofx.networks.generators import CloudGenerator, GeneratorConfig, default_generator

__all__ = ["AutoencoderBody", "AutoencoderFamily", "Decoder", "DecoderSettings", "decoder_noise", "encoder_of"]

WIDEST = 5.0
"""Largest log-width of the noise, in latent units, so that what is drawn is finite whatever a network says."""

KINDS: frozenset[Kind] = frozenset({"vector", "grid", "cloud"})


@dataclass(frozen=True)
class DecoderSettings:
    """How a decoder is built.

    Parameters
    ----------
    network : makes the field (for clouds: the components of the mixture, so that it must need no noise); None for the default.
    noise : ``"heteroscedastic"``, a width per number that depends on z; ``"homoscedastic"``, one per column.
    floor : smallest width, in latent units (of order one for the whole sample).
    components : of the mixture that the points of a cloud come from.

    >>> DecoderSettings(noise="homoscedastic").floor
    0.01
    """

    network: GeneratorConfig | None = None
    noise: str = "heteroscedastic"
    floor: float = 0.01
    components: int = 16

    def __post_init__(self) -> None:
        check_choice(self, "noise", ("heteroscedastic", "homoscedastic"))
        check_at_least(self, 1e-6, "floor")
        check_at_least(self, 1, "components")


def encoder_of(layout: Layout, network: NetworkConfig | None, outputs: int, times: int = 0) -> nn.Module:
    """A network of the layout's only field that gives ``(n, outputs)``; None for the default of its kind."""
    kind = layout.spec[layout.only].kind
    return (network or default_network(kind)).build(network_shape(layout, outputs=outputs, times=times))


def decoder_noise(layout: Layout) -> dict[str, NoiseShape]:
    """The noise of p(x | z) and, for clouds, of the number of points."""
    form = layout.spec[layout.only]
    noise = observation_noise(form)
    return noise | ({"count": NoiseShape("uniform", (1,))} if form.kind == "cloud" else {})


class Decoder(nn.Module):
    """Latent vectors to the distribution of an event, p(x | z, c).

    Parameters
    ----------
    layout : of the event and its context.
    latent : columns of z.
    settings : see :class:`DecoderSettings`.
    times : further numbers that condition the network.
    """

    angles: Tensor

    def __init__(self, layout: Layout, latent: int, settings: DecoderSettings, times: int = 0) -> None:
        super().__init__()
        self.form, self.settings = layout.spec[layout.only], settings
        self.cloud = self.form.kind == "cloud"
        columns = self.form.shape[-1] if self.cloud else self.form.shape[0]
        wide = settings.noise == "heteroscedastic"
        shape = network_shape(layout, times=times + self.cloud, channels=self.cloud + (1 + wide) * columns)
        config = _generator(settings, self.form)
        self.network = config.build(latent, _of_components(shape, settings) if self.cloud else shape)
        self.log_scale = None if wide else nn.Parameter(torch.zeros(columns))
        self.register_buffer("angles", _angles(layout, columns), persistent=False)
        self.circular = bool(layout.circular_columns)

    def forward(
        self, z: Tensor, t: Tensor | None = None, context: Events | None = None, mask: Tensor | None = None
    ) -> Observation:
        """The distribution given z ``(n, latent)``; the mask ``(n, L)`` of a cloud says how many points there are."""
        out = self.network(z, self._conditions(z, t, mask), context)
        if not self.cloud:
            mean, log_scale = self._split(out, 1)
            return Numbers(mean, log_scale, self._shaped(self.angles) if self.circular else None)
        mean, log_scale = self._split(out[..., 1:], -1)
        return PointMixture(out[..., 0].log_softmax(1), mean, log_scale, self.angles if self.circular else None)

    def _conditions(self, z: Tensor, t: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if not self.cloud:
            return t
        full = z.new_ones(len(z), 1) if mask is None else mask.to(z.dtype).mean(1, keepdim=True)
        return full if t is None else torch.cat((t, full), 1)

    def _split(self, out: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Mean and log-scale."""
        if self.log_scale is None:
            mean, raw = out.chunk(2, dim)
        else:
            mean, raw = out, (self.log_scale if dim == -1 else self._shaped(self.log_scale)).expand_as(out)
        lowest = raw.new_tensor(2.0 * math.log(self.settings.floor))
        return mean, 0.5 * torch.logaddexp(2.0 * raw.clamp(max=WIDEST), lowest)

    def _shaped(self, columns: Tensor) -> Tensor:
        """One number per column, to be broadcast against vectors or grids."""
        return columns.reshape(-1, *[1] * (len(self.form.shape) - 1))


def _generator(settings: DecoderSettings, form: Field) -> GeneratorConfig:
    config = settings.network
    if config is None:
        return CloudGenerator(queries="learned") if form.kind == "cloud" else default_generator(form.kind)
    if config.point_noise:
        raise ConfigError(
            "a decoder of clouds makes the components of a mixture out of z alone: expected CloudGenerator(queries='learned'); "
            "got queries='noise'"
        )
    return config


def _of_components(shape: NetworkShape, settings: DecoderSettings) -> NetworkShape:
    """The components of a mixture, as the points of a cloud."""
    columns = tuple(Column(f"({i})") for i in range(shape.columns))
    form = Field("cloud", (settings.components, shape.columns), columns)
    return NetworkShape(
        form,
        channels=shape.channels,
        context=shape.context,
        times=shape.times,
        circular_context=shape.circular_context,
    )


def _angles(layout: Layout, columns: int) -> Tensor:
    angles = torch.zeros(columns, dtype=torch.bool)
    angles[list(layout.circular_columns)] = True
    return angles


class AutoencoderBody(FieldBody):
    """Encoder and decoder of a layout.

    Parameters
    ----------
    layout, family : what it is for, and the settings.
    outputs : numbers of the encoder per event.
    inputs : columns of what the decoder takes.
    times : further numbers that condition both.
    """

    def __init__(self, layout: Layout, family: AutoencoderFamily, *, outputs: int, inputs: int, times: int = 0) -> None:
        super().__init__(layout)
        self.latent = family.latent_columns(layout)
        self.encoder = encoder_of(layout, family.encoder, outputs, times)
        self.decoder = Decoder(layout, inputs, family.decoder, times)


@dataclass(frozen=True)
class AutoencoderFamily(Family):
    """The settings of families with an encoder and a decoder.

    Parameters
    ----------
    latent : columns of z; None for the family's choice.
    encoder : a network of the field's kind; None for the default.
    decoder : see :class:`DecoderSettings`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=KINDS, density="bound", encode=True, periodic=True, context=frozenset({"vector", "cloud"})
    )

    latent: int | None = None
    encoder: NetworkConfig | None = None
    decoder: DecoderSettings = field(default_factory=DecoderSettings)

    def __post_init__(self) -> None:
        if self.latent is not None and (type(self.latent) is not int or self.latent < 1):
            raise ConfigError(
                f"{type(self).__name__}: latent must be an integer of at least 1, or None; got {self.latent!r}"
            )

    def latent_columns(self, layout: Layout) -> int:
        """Columns of z."""
        return self.latent or min(16, max(4, layout.spec[layout.only].size))

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        return {"z": NoiseShape("normal", (self.latent_columns(layout),)), **decoder_noise(layout)}
