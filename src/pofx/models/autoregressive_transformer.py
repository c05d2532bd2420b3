r"""Autoregressive transformer: one variable after the other, each from those before it (arXiv:2303.07376, arXiv:2305.10475).

.. math:: \log p(x|c) = \sum_i \log p(x_i | x_1 \dots x_{i-1}, c)

with mixtures of normal distributions for the columns of the line, of von Mises distributions for angles, and a probability per value for
whole numbers. The density is exact. A variable is drawn by inverting its distribution function, so events and standard normal noise belong
to each other one to one, and the keys and values of earlier variables are kept (:mod:`pofx.networks.causal`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.bijections.ordered import Condition
from pofx.bijections.preprocessing import Recipe
from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Capabilities, Family, Layout
from pofx.models.heads import Categorical, Head, NormalMixture, VonMisesMixture, without_far
from pofx.networks.causal import CausalTransformer
from pofx.networks.layers import Dense
from pofx.training.contract import Loss, Phase, Update
from pofx.training.noise import Noise

__all__ = ["AutoregressiveTransformer"]

VALUES = 4096
"""The most values that a discrete column may have."""


class TransformerBody(nn.Module):
    """The causal network, the embedding of each variable, and the layers that read its successor's parameters.

    ``slope`` holds linear regressions on earlier columns of the line, so that those need not be learnt through layers that saturate.
    """

    linear: Tensor

    def __init__(self, family: AutoregressiveTransformer, layout: Layout) -> None:
        super().__init__()
        self.field = layout.only
        self.heads = family.heads(layout)
        width, size = family.network.width, len(self.heads)
        self.network = family.network.build(size - 1, layout.context, layout.circular_context)
        activation = family.network.activation
        self.embed = nn.ModuleList([Dense((head.inputs, width, width), activation) for head in self.heads[:-1]])
        self.read = nn.ModuleList([_reader(head, width, activation) for head in self.heads])
        line = torch.tensor([isinstance(head, NormalMixture) for head in self.heads], dtype=torch.float32)
        self.register_buffer("linear", torch.tril(line[:, None] * line, -1), persistent=False)
        self.slope = nn.Parameter(torch.zeros(size, size)) if size > 1 else None

    def hidden(self, x: Tensor, context: Events | None) -> Tensor:
        """What is known before each variable, ``(n, d, width)``."""
        tokens = [self.token(i, x[:, i]) for i in range(len(self.heads) - 1)]
        empty = x.new_zeros(len(x), 0, self.network.width)
        return self.network(torch.stack(tokens, 1) if tokens else empty, context)

    def token(self, i: int, x: Tensor) -> Tensor:
        """A value of variable i as a token, ``(n, width)``."""
        return self.embed[i](self.heads[i].features(x))

    def shift(self, i: int, before: Tensor) -> Tensor | float:
        """The regression of variable i on those before it, ``(n, i)``."""
        if self.slope is None or i == 0:
            return 0.0
        return before @ (self.slope * self.linear)[i, :i]


@dataclass(frozen=True)
class AutoregressiveTransformer(Family):
    """A causal transformer over the columns, in their order; exact density, decode and encode.

    Parameters
    ----------
    network : the transformer.
    components : of the mixtures of every column that is not discrete.
    order : conditions that hold exactly in every event drawn, such as ``(("pt1", ">", "pt2"), ("pt2", ">", "pt3"))``: a column then lies
        between the ends that earlier columns set (:mod:`pofx.bijections.ordered`).

    Discrete columns have a probability for each of their values, and need both ends of their range declared.

    >>> import numpy as np, pofx
    >>> x = np.sort(np.random.default_rng(1).normal(size=(2000, 2)))
    >>> family = AutoregressiveTransformer(network=CausalTransformer(width=16, layers=1), order=(("x0", "<", "x1"),))
    >>> sample = family.fit(x, training=pofx.Training(max_steps=20, seed=1)).sample(100, seed=1)
    >>> bool((sample[:, 0] <= sample[:, 1]).all())
    True
    """

    name: ClassVar[str] = "autoregressive-transformer"
    capabilities: ClassVar[Capabilities] = Capabilities(
        encode=True, periodic=True, discrete=True, context=frozenset({"vector", "cloud"})
    )

    network: CausalTransformer = field(default_factory=CausalTransformer)
    components: int = 16
    order: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        check_at_least(self, 1, "components")
        if not isinstance(self.network, CausalTransformer):
            raise ConfigError(
                f"AutoregressiveTransformer: network must be a CausalTransformer; got {type(self.network).__name__}"
            )

    def preprocess_of(self, name: str, spec: EventSpec) -> str | Recipe:
        discrete = any(column.type == "discrete" for column in spec[name].columns)
        return Recipe(self.preprocess, self.order, discrete) if self.order or discrete else self.preprocess  # type: ignore[arg-type]

    def heads(self, layout: Layout) -> list[Head]:
        """The density of each column."""
        return [
            _categorical(column)
            if column.type == "discrete"
            else (VonMisesMixture if i in layout.circular_columns else NormalMixture)(self.components)
            for i, column in enumerate(layout.spec[layout.only].columns)
        ]

    def build(self, layout: Layout) -> nn.Module:
        return TransformerBody(self, layout)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return (Phase("likelihood", (Update("nll", self.loss),)),)

    def loss(self, body: nn.Module, events: Events, noise: Noise) -> Loss:
        """Negative log-likelihood in latent coordinates."""
        return Loss(-self.log_density(body, events))

    def log_density(self, body: Any, events: Events) -> Tensor:
        x, far = without_far(events.x)
        hidden = body.hidden(x, events.context)
        parts = [
            head.log_prob(body.read[i](hidden[:, i]), x[:, i] - body.shift(i, x[:, :i]))
            for i, head in enumerate(body.heads)
        ]
        return torch.stack(parts).sum(0).masked_fill(far, -math.inf)

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        z = noise["z"]
        hidden, cache = body.network.start(len(z), context)
        x = z[:, :0]
        for i, head in enumerate(body.heads):
            if i:
                hidden, cache = body.network.step(body.token(i - 1, x[:, i - 1]), cache)
            value = head.draw(body.read[i](hidden), z[:, i]) + body.shift(i, x)
            x = torch.cat((x, value[:, None]), 1)
        return {body.field: x}

    def encode(self, body: Any, events: Events) -> Mapping[str, Tensor]:
        x, hidden = events.x, body.hidden(events.x, events.context)
        parts = [
            head.noise(body.read[i](hidden[:, i]), x[:, i] - body.shift(i, x[:, :i]))
            for i, head in enumerate(body.heads)
        ]
        return {"z": torch.stack(parts, 1)}


def _reader(head: Head, width: int, activation: str) -> Dense:
    """Two layers from what is known to the parameters of the next variable, which start nearly the same for all events."""
    made = Dense((width, width, head.size), activation)
    last = made.layers[-1]
    with torch.no_grad():
        last.weight.mul_(0.1)  # type: ignore[operator]
        last.bias.copy_(head.start())  # type: ignore[operator]
    return made


def _categorical(column: Column) -> Categorical:
    if column.low is None or column.high is None:
        raise CapabilityError(
            f"AutoregressiveTransformer: discrete column {column.name!r} needs both ends of its range, to give each value a probability; "
            "declare low and high"
        )
    values = round(column.high) - round(column.low) + 1
    if values > VALUES:
        raise CapabilityError(
            f"AutoregressiveTransformer: discrete column {column.name!r} has {values} values, of at most {VALUES}; "
            "declare it real or bounded"
        )
    return Categorical(0, values)  # preprocessing counts from the lower end
