"""What all wrappers share: a family around a family, whose body holds K draws of the weights, each a body of the wrapped family.

The density is the mean of the draws' densities, and every event is drawn with the weights of one draw, which its noise chooses.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pofx.bijections.preprocessing import Recipe
from pofx.data.events import Events
from pofx.data.spec import EventSpec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Capabilities, Density, Family, Layout, NoiseShape
from pofx.models.fitted import Fitted
from pofx.training.contract import Phase, Source
from pofx.training.noise import derive_seed
from pofx.uncertainty.weights import Weights, swapped

if TYPE_CHECKING:
    from pofx.models.model import Model

__all__ = ["Draws", "DrawsBody", "Members", "Posterior", "data_phase", "draws_phase"]

MEMBER = "member"
"""Name of the noise that chooses the draw with which an event is made."""


class Draws(nn.Module):
    """A body with K draws of its weights.

    Buffers: ``size``, the number of events that the data are worth, :math:`(\\sum w)^2 / \\sum w^2`; ``seed``, that of the training.
    """

    size: Tensor
    seed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("size", torch.ones(()))
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def count(self) -> int:
        """How many draws there are."""

    @abstractmethod
    def active(self, k: int) -> AbstractContextManager[nn.Module]:
        """The wrapped family's body with the weights of draw k, inside the block."""

    @abstractmethod
    def part(self, k: int) -> nn.Module:
        """A copy of it that stays."""


class Members(Draws):
    """Every draw is a body of its own."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def count(self) -> int:
        return len(self.members)

    def active(self, k: int) -> AbstractContextManager[nn.Module]:
        return nullcontext(self.members[k])

    def part(self, k: int) -> nn.Module:
        return copy.deepcopy(self.members[k])


class DrawsBody(Draws):
    """One body ``inner``, and K values of those of its weights that are uncertain: ``draws`` of shape ``(K, P)``, the first ``filled``."""

    draws: Tensor
    filled: Tensor
    seen: Tensor

    def __init__(self, inner: nn.Module, weights: Weights, count: int) -> None:
        super().__init__()
        self.inner, self.weights = inner, weights
        start = weights.flat(inner)
        self.register_buffer("draws", start.expand(count, -1).clone())
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def count(self) -> int:
        return max(int(self.filled), 1)

    @contextmanager
    def active(self, k: int) -> Iterator[nn.Module]:
        with swapped(self.inner, self.weights.split(self.draws[k])) as module:
            yield module

    def part(self, k: int) -> nn.Module:
        module = copy.deepcopy(self.inner)
        self.weights.put(self.draws[k], module)
        return module

    @torch.no_grad()
    def put(self, draws: Tensor) -> None:
        """Take over these draws ``(k, P)``, the only ones from now on."""
        self.draws[: len(draws)].copy_(draws)
        self.filled.fill_(len(draws))

    @torch.no_grad()
    def add(self, k: int) -> None:
        """Keep the weights as they are as draw number k."""
        if k < len(self.draws):
            self.draws[k].copy_(self.weights.flat(self.inner))
            self.filled.fill_(k + 1)


class _Selected(nn.Module):
    """A body with the weights of draw k: what :meth:`Posterior.member` returns."""

    def __init__(self, body: Draws, k: int) -> None:
        super().__init__()
        self.body, self.k = body, k


@dataclass(frozen=True)
class Posterior(Family):
    """A family around a family: what it is fitted with is in the subclasses, what it does with K draws of the weights is here.

    Parameters
    ----------
    family : any family, in its own configuration.
    preprocess : ``"auto"`` leaves it to the wrapped family.
    """

    family: Family
    preprocess: str = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.family, Family):
            raise ConfigError(f"{type(self).__name__}: expected a family, as in SplineFlow(); got {self.family!r}")
        if isinstance(self.family, Posterior):
            raise ConfigError(
                f"{type(self).__name__}: {type(self.family).__name__} is a distribution over weights already"
            )

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """Those of the wrapped family, but for ``encode``, which only one draw can do (``model.member(k).encode``)."""
        return replace(self.family.capabilities, encode=False)

    # What the wrapped family decides

    def preprocess_of(self, name: str, spec: EventSpec) -> str | Recipe:
        own = self.family.preprocess_of(name, spec)
        if self.preprocess == "auto":
            return own
        return replace(own, method=self.preprocess) if isinstance(own, Recipe) else self.preprocess  # type: ignore[arg-type]

    def structure(self, layout: Layout, events: Events) -> Mapping[str, Any]:
        return self.family.structure(layout, events)

    @property
    def few_events(self) -> bool:
        return self.family.few_events

    def density_of(self, layout: Layout) -> Density:
        return self.family.density_of(layout)

    def chunk(self, layout: Layout) -> int:
        return self.family.chunk(layout)

    def density_chunk(self, layout: Layout) -> int:
        return self.family.density_chunk(layout)

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        return {**self.family.noise_shapes(layout), MEMBER: NoiseShape("uniform", ())}

    # What K draws do

    def count_members(self, body: Any) -> int:
        return body.count()

    def member(self, body: Any, k: int) -> nn.Module:
        return _Selected(body, k)

    def log_density(self, body: Any, events: Events) -> Tensor:
        """Of one member; of the mixture of all, given the whole body."""
        if isinstance(body, _Selected):
            with body.body.active(body.k) as module:
                return self.family.log_density(module, events)
        return self._log_densities(body, events).logsumexp(0) - math.log(body.count())

    def _log_densities(self, body: Any, events: Events) -> Tensor:
        return torch.stack([self.log_density(self.member(body, k), events).double() for k in range(body.count())])

    def log_density_error(self, body: Any, events: Events) -> Tensor:
        """Of the mixture: relative errors of the draws, weighted by their densities, are independent."""
        shares = self._log_densities(body, events).softmax(0)
        errors = [torch.zeros(0)] * body.count()
        for k in range(body.count()):
            with body.active(k) as module:
                errors[k] = self.family.log_density_error(module, events).double()
        return (shares * torch.stack(errors)).square().sum(0).sqrt()

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        """Every event with the weights that its noise chooses; with those of one draw, given that draw alone."""
        own = {name: value for name, value in noise.items() if name != MEMBER}
        chosen = (noise[MEMBER].double() * body.count()).long().clamp(max=body.count() - 1)
        parts, rows = [], []
        for k in chosen.unique().tolist():
            index = (chosen == k).nonzero().squeeze(1)
            some = {name: value[index] for name, value in own.items()}
            with body.active(k) as module:
                parts.append(self.family.decode(module, some, None if context is None else context[index]))
            rows.append(index)
        back = torch.cat(rows).argsort()
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}

    def assemble(self, fitted: Fitted, layout: Layout, card: dict[str, Any]) -> Model:
        from pofx.uncertainty.model import BayesianModel

        return BayesianModel(self, fitted, layout, card)


def data_phase() -> Phase:
    """Note how many events the data are worth, and the seed."""

    def count(body: Any, source: Source, training: Any) -> None:
        body.seed.fill_(training.seed)
        body.size.fill_(_worth(source))

    return Phase("data", estimate=count)


def _worth(source: Source) -> float:
    if source.size is None:
        raise CapabilityError(
            "a distribution over weights is that given a finite set of events; these are made on the fly"
        )
    first = second = 0.0
    for events in source.sweep():
        if events.weight is None:
            return float(source.size)
        first, second = first + float(events.weight.sum()), second + float(events.weight.square().sum())
    return first**2 / second


def draws_phase(fill: Any) -> Phase:
    """At the end: ``fill(body, generator)`` gives the draws ``(K, P)``; the generator is a function of the seed."""

    def estimate(body: Any, _source: Source, training: Any) -> None:
        generator = torch.Generator().manual_seed(derive_seed(training.seed, "draws"))
        body.put(fill(body, generator))

    return Phase("draws", estimate=estimate)
