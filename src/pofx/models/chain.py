r"""A chain of stages, one family per field of an event: jet kinematics then constituents, layer energies then voxels.

.. math:: p(x_1, \ldots, x_K | c) = \prod_k p_k(x_k | x_1, \ldots, x_{k-1}, c)

Every stage is trained on true earlier fields and drawn given the drawn ones. Vectors among the earlier fields and the context become one
vector, so that families with vector contexts can be stages; whole numbers of an earlier stage are standardised in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.bijections.preprocessing import Recipe
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, Field
from pofx.data.store import mask_name
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Capabilities, Density, Family, Layout, NoiseShape
from pofx.training.contract import Loss, LossFunction, Phase, Source, Update
from pofx.training.noise import Noise

__all__ = ["Chain"]

GIVEN = "(given)"
"""Name of the vector that all vectors before a stage are joined in; brackets keep it apart from the user's names."""

WORST: tuple[Density, ...] = ("exact", "estimate", "bound", "none")


@dataclass(frozen=True)
class Chain(Family):
    """One family per field.

    Parameters
    ----------
    stages : families, each for one field.
    order : names of the fields in the order in which they are learnt and drawn; None means the order in which the data have them.

    >>> import numpy as np, pofx
    >>> rng = np.random.default_rng(1)
    >>> jet = rng.normal(size=(500, 2))
    >>> data = pofx.Dataset.from_arrays({"jet": jet, "tag": jet[:, :1] + rng.normal(size=(500, 1))})
    >>> model = Chain(stages=(pofx.Gaussian(), pofx.Gaussian())).fit(data)
    >>> sorted(model.sample(3, seed=1).fields)
    ['jet', 'tag']
    """

    name: ClassVar[str] = "chain"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=frozenset({"vector", "grid", "cloud"}), context=frozenset({"vector", "cloud"}), periodic=True
    )

    stages: tuple[Family, ...] = ()
    order: tuple[str, ...] | None = None
    preprocess: str = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        if not self.stages or not all(isinstance(stage, Family) for stage in self.stages):
            raise ConfigError(f"Chain: stages must be families, one per field; got {self.stages!r}")
        if any(stage.capabilities.teacher or isinstance(stage, Chain) for stage in self.stages):
            raise ConfigError("Chain: a stage can be neither a student nor a chain")

    # What each stage sees

    def _names(self, spec: EventSpec) -> tuple[str, ...]:
        names = tuple(spec) if self.order is None else self.order
        if sorted(names) != sorted(spec) or len(names) != len(self.stages):
            raise CapabilityError(
                f"Chain: expected one stage for each of the fields {', '.join(spec)}; got {len(self.stages)} stages"
                + ("" if self.order is None else f" and the order {', '.join(names)}")
            )
        return names

    def _stages(self, layout: Layout) -> list[_Stage]:
        names = self._names(layout.spec)
        return [_Stage(k, names[k], names[:k], family, layout) for k, family in enumerate(self.stages)]

    def preprocess_of(self, name: str, spec: EventSpec) -> str | Recipe:
        own = self.stages[self._names(spec).index(name)].preprocess_of(name, {name: spec[name]})
        if self.preprocess == "auto":
            return own
        return replace(own, method=self.preprocess) if isinstance(own, Recipe) else self.preprocess  # type: ignore[arg-type]

    @property
    def few_events(self) -> bool:
        return all(stage.few_events for stage in self.stages)

    def structure(self, layout: Layout, events: Events) -> Mapping[str, Any]:
        """What every stage finds, and the scales of the columns that preprocessing leaves as whole numbers."""
        found = self._scales(layout.spec, events)
        scales = {GIVEN: found} if found else {}
        stages = self._stages(replace(layout, extra=scales))
        return scales | {
            stage.field: dict(stage.family.structure(stage.layout, stage.events(events))) for stage in stages
        }

    def _scales(self, spec: EventSpec, events: Events) -> dict[str, list[list[float]]]:
        """Field -> mean and standard deviation of each column, (0, 1) for those that are standardised already."""
        found = {}
        for name, form in spec.items():
            recipe, discrete = self.preprocess_of(name, spec), [c.type == "discrete" for c in form.columns]
            if form.kind == "vector" and isinstance(recipe, Recipe) and recipe.whole and any(discrete):
                x = events.fields[name].double()
                moments = zip(discrete, x.mean(0).tolist(), x.std(0, correction=0).tolist(), strict=True)
                found[name] = [[mean, std or 1.0] if whole else [0.0, 1.0] for whole, mean, std in moments]
        return found

    def density_of(self, layout: Layout) -> Density:
        return max((stage.family.density_of(stage.layout) for stage in self._stages(layout)), key=WORST.index)

    def chunk(self, layout: Layout) -> int:
        return min(stage.family.chunk(stage.layout) for stage in self._stages(layout))

    def density_chunk(self, layout: Layout) -> int:
        return min(stage.family.density_chunk(stage.layout) for stage in self._stages(layout))

    # The contract

    def build(self, layout: Layout) -> nn.Module:
        return _ChainBody(self._stages(layout))

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return tuple(
            stage.phase(phase) for stage in self._stages(layout) for phase in stage.family.phases(stage.layout)
        )

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        return {
            stage.noise_name(name): shape
            for stage in self._stages(layout)
            for name, shape in stage.family.noise_shapes(stage.layout).items()
        }

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        made: dict[str, Tensor] = {}
        for stage, part in zip(body.plan, body.stages, strict=True):
            own = {name: noise[stage.noise_name(name)] for name in stage.family.noise_shapes(stage.layout)}
            made |= stage.family.decode(part, own, stage.given(_as_events(made), context))
        return made

    def log_density(self, body: Any, events: Events) -> Tensor:
        parts = [
            stage.family.log_density(part, stage.events(events))
            for stage, part in zip(body.plan, body.stages, strict=True)
        ]
        return torch.stack([part.double() for part in parts]).sum(0)

    def log_density_error(self, body: Any, events: Events) -> Tensor:
        parts = [
            stage.family.log_density_error(part, stage.events(events))
            for stage, part in zip(body.plan, body.stages, strict=True)
        ]
        return torch.stack([part.double() for part in parts]).square().sum(0).sqrt()


class _ChainBody(nn.Module):
    """The bodies of all stages; ``plan`` says what each of them sees."""

    def __init__(self, plan: list[_Stage]) -> None:
        super().__init__()
        self.plan = plan
        self.stages = nn.ModuleList([stage.family.build(stage.layout) for stage in plan])


@dataclass(frozen=True)
class _Stage:
    """Stage number k: its field, the fields before it, its family, and the layout of the whole event."""

    k: int
    field: str
    before: tuple[str, ...]
    family: Family
    whole: Layout

    def __post_init__(self) -> None:
        can, family = self.family.capabilities, type(self.family).__name__
        form, context = self.whole.spec[self.field], self.context
        if form.kind not in can.kinds:
            raise CapabilityError(
                f"Chain: {family} takes fields of kind {', '.join(sorted(can.kinds))}; {self.field!r} is a {form.kind}"
            )
        for name, part in context.items():
            if part.kind not in can.context:
                raise CapabilityError(
                    f"Chain: {family} takes contexts of kind {', '.join(sorted(can.context))}; {name!r}, which {self.field!r} comes "
                    f"after, is a {part.kind}"
                )
        if self.whole.circular.get(self.field) and not can.periodic:
            raise CapabilityError(f"Chain: {family} cannot keep the periodic columns of {self.field!r} periodic")

    @property
    def layout(self) -> Layout:
        """What the family builds for."""
        circular = self._joined()[1]
        return replace(
            self.whole,
            spec={self.field: self.whole.spec[self.field]},
            context=self.context or None,
            circular={self.field: tuple(self.whole.circular.get(self.field, ()))},
            circular_context={GIVEN: tuple(circular)} if circular else {},
            teacher=None,
            extra=self.whole.extra.get(self.field, {}),
        )

    @property
    def context(self) -> dict[str, Field]:
        """What the field is conditioned on: all vectors joined into one, and the clouds."""
        columns, _, rest = self._joined()
        joined = {GIVEN: Field("vector", (len(columns),), tuple(columns))} if columns else {}
        return joined | rest

    def _joined(self) -> tuple[list[Column], list[int], dict[str, Field]]:
        """Columns of all vectors before this stage, which of them are angles, and the other fields."""
        columns: list[Column] = []
        circular: list[int] = []
        rest: dict[str, Field] = {}
        for role, name, form, angles in self._sources():
            if form.kind == "vector":
                circular += [len(columns) + i for i in angles]
                columns += [Column(f"{role}{name}/{i}") for i in range(form.shape[0])]
            else:
                rest[f"{role}{name}"] = form
        return columns, circular, rest

    def _sources(self) -> Iterator[tuple[str, str, Field, tuple[int, ...]]]:
        for name, form in (self.whole.context or {}).items():
            yield "context.", name, form, tuple(self.whole.circular_context.get(name, ()))
        for name in self.before:
            yield "", name, self.whole.spec[name], tuple(self.whole.circular.get(name, ()))

    def events(self, events: Events) -> Events:
        """The stage's own field, with what it is conditioned on as context."""
        masks = {self.field: events.masks[self.field]} if self.field in events.masks else {}
        return Events(
            {self.field: events.fields[self.field]},
            masks,
            self.given(events, events.context),
            events.weight,
            events.index,
        )

    def given(self, events: Events | None, context: Events | None) -> Events | None:
        """The stage's context, of earlier fields and the context of all."""
        scales = self.whole.extra.get(GIVEN, {})
        vectors, fields, masks = [], {}, {}
        for role, name, form, _ in self._sources():
            source = context if role else events
            if source is None:
                continue
            if form.kind == "vector":
                value = source.fields[name]
                if not role and name in scales:
                    mean, std = value.new_tensor(scales[name]).unbind(1)
                    value = (value - mean) / std
                vectors.append(value)
                continue
            fields[f"{role}{name}"] = source.fields[name]
            if name in source.masks:
                masks[f"{role}{name}"] = source.masks[name]
        if vectors:
            fields = {GIVEN: torch.cat(vectors, 1), **fields}
        return Events(fields, masks) if fields else None

    def noise_name(self, name: str) -> str:
        """Noise of the first stage keeps its names."""
        return name if self.k == 0 else f"{self.field}.{name}"

    def phase(self, phase: Phase) -> Phase:
        """A phase of the stage's family as one of the chain."""
        estimate, planned, source = phase.estimate, phase.planned, phase.source
        return replace(
            phase,
            name=f"{self.field}/{phase.name}",
            updates=tuple(self._update(update) for update in phase.updates),
            estimate=None if estimate is None else self._estimate(estimate),
            planned=None if planned is None else self._planned(planned),
            monitor=None if phase.monitor is None else self._loss(phase.monitor),
            source=None if source is None else self._refuse_source(),
        )

    def _refuse_source(self) -> Any:
        raise CapabilityError(
            f"Chain: {type(self.family).__name__} makes its own training events and cannot be a stage"
        )

    def _update(self, update: Update) -> Update:
        after = update.after
        return replace(
            update,
            loss=self._loss(update.loss),
            parameters=tuple(f"stages.{self.k}.{pattern}" for pattern in update.parameters),
            after=None if after is None else self._after(after),
        )

    def _estimate(self, estimate: Callable[[nn.Module, Source, Any], None]) -> Callable[[Any, Source, Any], None]:
        def of_chain(body: Any, source: Source, training: Any) -> None:
            estimate(body.stages[self.k], _StageSource(self, body, source), training)

        return of_chain

    def _planned(self, planned: Callable[[nn.Module, int], None]) -> Callable[[Any, int], None]:
        def of_chain(body: Any, steps: int) -> None:
            planned(body.stages[self.k], steps)

        return of_chain

    def _after(self, after: Callable[[nn.Module], None]) -> Callable[[Any], None]:
        def of_chain(body: Any) -> None:
            after(body.stages[self.k])

        return of_chain

    def _loss(self, loss: LossFunction) -> LossFunction:
        def of_chain(body: Any, events: Events, noise: Noise) -> Loss:
            return loss(body.stages[self.k], self.events(events), noise.within(self.field))

        return of_chain


@dataclass(frozen=True)
class _StageSource:
    """A source whose events are those of one stage."""

    stage: _Stage
    body: Any
    source: Source

    @property
    def size(self) -> int | None:
        return self.source.size

    @property
    def steps_per_epoch(self) -> int:
        return self.source.steps_per_epoch

    def next(self, module: nn.Module, step: int) -> Events:
        return self.stage.events(self.source.next(self.body, step))

    def sweep(self) -> Iterator[Events]:
        return map(self.stage.events, self.source.sweep())

    def validation(self) -> Iterator[Events]:
        return map(self.stage.events, self.source.validation())

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.source.load_state_dict(state)


def _as_events(made: Mapping[str, Tensor]) -> Events | None:
    """Decoded fields and masks as events."""
    fields = {name: value for name, value in made.items() if value.dtype != torch.bool}
    masks = {name: made[mask_name(name)] for name in fields if mask_name(name) in made}
    return Events(fields, masks) if fields else None
