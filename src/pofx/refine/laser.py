r"""LASER: a model is refined in the space of its noise, and gives unweighted events (arXiv:2106.00792).

A classifier between true events and those of a model x = g(z), z ~ N(0, 1), gives weights w(x). Pulled back to the noise,

.. math:: \bar w(z, c) = w(g(z, c), c), \qquad p(z | c) \propto \bar w(z, c)\, e^{-z^2 / 2} ,

and what z of this law decodes to follows w(x) q(x), the truth if the classifier is right. A smooth, invertible g cannot tear the noise
apart: between separate modes it leaves bridges. Where the bridges come from, the weight is zero.

Noise is an input in pofx, *all* of it; so g is a function, and the pull-back exact, also for models whose map from noise to events is not
invertible. ``pullback="network"`` learns it instead by a second classifier, between noise of weight w and noise, as in the
paper (and in the second step of OmniFold, arXiv:1911.09107): chains then need no decoding. Refined noise is drawn by

- Hamiltonian dynamics with acceptance (:mod:`pofx.solvers.hamiltonian`) in :math:`E(z) = z^2 / 2 - \log \bar w(z)`. Every event is a chain
  of its own. It begins at one of K draws of the prior, chosen in proportion to their weights, which crosses the gaps that no chain
  crosses; or
- a flow in the latent space: any family, trained on noise of weight w.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pofx.classifiers.base import Floats, Labelled, balanced_weights
from pofx.classifiers.network import NetworkClassifier
from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.data.spec import vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Capabilities, Density, Family, Layout, NoiseShape
from pofx.models.fitted import Fitted
from pofx.models.model import Model
from pofx.refine.crossfit import CrossFit, cross_fit
from pofx.refine.laser_body import LaserBody, LogRatio, context_rows, event_rows, join_noise, row_width
from pofx.refine.weights import effective_size
from pofx.training.contract import Phase, Source
from pofx.training.loop import train
from pofx.training.noise import Noise, derive_seed
from pofx.training.settings import Training
from pofx.training.sources import DatasetSource, MemoryPart

__all__ = ["Laser"]

PILOTS, ROUNDS = 256, 30
"""Chains and moves that find the step."""

FLOW = "flow."
"""Prefix of the noise of the flow that draws noise."""


@dataclass(frozen=True)
class Laser(Family):
    """A refiner, which is a family around a family: ``Laser().fit(data, teacher=model)`` refines a fitted model,
    ``Laser(family).fit(data)`` fits one first.

    What comes out is a :class:`pofx.Model` like any other: its events are unweighted, its samples reproducible, its file holds everything.
    ``card["refined"]`` has the effective share of the weights before and the acceptance of the chains. Vectors and grids, with or without a
    context; there is no density.

    Parameters
    ----------
    family : of the model; None takes the teacher's.
    classifier : of the ensemble that gives the weights; it sees latent coordinates.
    folds : its members, each trained without one fold.
    clip : largest weight, in units of the mean.
    pullback : ``"decode"`` (exact) or ``"network"`` (learnt; faster to draw from where decoding is slow).
    flow : a family that draws the noise, in place of chains; trained with the settings that ``fit`` is given.
    candidates : draws of the prior, out of which a chain begins at one.
    moves, leapfrogs : of each chain.

    >>> import numpy as np, pofx
    >>> rng = np.random.default_rng(1)
    >>> x = rng.choice([-2.0, 2.0], (600, 1)) + 0.3 * rng.normal(size=(600, 1))
    >>> settings = NetworkClassifier(hidden=(16,), epochs=3)
    >>> model = Laser(pofx.Gaussian(), classifier=settings, folds=2, moves=1).fit(x, training=pofx.Training(seed=1))
    >>> model.sample(3, seed=1).shape
    (3, 1)
    """

    name: ClassVar[str] = "laser"

    family: Family | None = None
    classifier: NetworkClassifier = field(default_factory=lambda: NetworkClassifier(frequencies=64, weight_decay=0.1))
    folds: int = 3
    clip: float = 100.0
    pullback: str = "decode"
    flow: Family | None = None
    candidates: int = 16
    moves: int = 5
    leapfrogs: int = 3

    def __post_init__(self) -> None:
        check_at_least(self, 2, "folds")
        check_at_least(self, 1, "clip", "candidates", "leapfrogs")
        check_at_least(self, 0, "moves")
        check_choice(self, "pullback", ("decode", "network"))
        if not isinstance(self.classifier, NetworkClassifier):
            raise ConfigError(
                f"Laser: classifier: expected a NetworkClassifier, which has gradients; got {self.classifier!r}"
            )

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """Those of the family, without density and clouds."""
        if self.family is None:
            return Capabilities(density="none", teacher=True)
        own = self.family.capabilities
        if not own.decode:
            raise CapabilityError(f"Laser: {type(self.family).__name__} cannot decode noise")
        return replace(
            own,
            kinds=own.kinds - {"cloud"},
            context=own.context - {"cloud"},
            density="none",
            encode=False,
            teacher=True,
            negative_weights=False,
        )

    def fit(
        self,
        data: Any,
        context: Any = None,
        weight: Any = None,
        *,
        training: Training | None = None,
        init: Model | None = None,
        teacher: Model | None = None,
        resume: str = "auto",
    ) -> Model:
        """See :meth:`pofx.models.base.Family.fit`; ``teacher`` is the model to refine. Only training events are looked at."""
        if teacher is None:
            if self.family is None:
                raise CapabilityError(
                    "Laser refines a model: give fit(..., teacher=model), or a family, as in Laser(CouplingFlow())"
                )
            teacher = self.family.fit(data, context, weight, training=training)
        if self.family is not None and self.family != teacher.family:
            raise ConfigError(f"Laser: the teacher is a fitted {teacher.family!r}; expected {self.family!r}")
        whole = replace(self, family=teacher.family)
        return Family.fit(whole, data, context, weight, training=training, init=init, teacher=teacher, resume=resume)

    # What the family decides

    @property
    def inner(self) -> Family:
        """The family of the model that is refined."""
        if self.family is None:
            raise CapabilityError("Laser: expected a family; fit(..., teacher=model) takes the teacher's")
        return self.family

    def structure(self, layout: Layout, events: Events) -> Mapping[str, Any]:
        return dict(layout.teacher.layout.extra)

    def density_of(self, layout: Layout) -> Density:
        return "none"

    def chunk(self, layout: Layout) -> int:
        return self.inner.chunk(_inner_layout(layout))

    def build(self, layout: Layout) -> nn.Module:
        layout, numbers = _inner_layout(layout), self._numbers(layout)
        on_noise = self.pullback == "network"
        width = row_width(layout, noise=numbers if on_noise else None)
        ratio = LogRatio(self.classifier, width, self.folds, self.clip)
        flow = None if self.flow is None else self.flow.build(self._flow_layout(layout))
        return LaserBody(self.inner, layout, ratio, on_noise=on_noise, flow=flow)

    def _numbers(self, layout: Layout) -> int:
        """D: numbers of noise per event."""
        shapes = self.inner.noise_shapes(_inner_layout(layout))
        return sum(math.prod(shape.shape) for shape in shapes.values())

    def _flow_layout(self, layout: Layout) -> Layout:
        """Noise as events; the context stays."""
        return replace(_inner_layout(layout), spec=vector_spec(self._numbers(layout)), circular={}, extra={})

    # Sampling

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        if self.flow is not None:
            shapes = self.flow.noise_shapes(self._flow_layout(layout))
            return {f"{FLOW}{name}": shape for name, shape in shapes.items()}
        d = self._numbers(layout)
        start = {"z": NoiseShape("normal", (self.candidates, d)), "choice": NoiseShape("uniform", ())}
        if self.moves == 0:
            return start
        momenta = NoiseShape("normal", (self.moves, d))
        return start | {"momentum": momenta, "accept": NoiseShape("uniform", (self.moves,))}

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        if self.flow is not None:
            own = {name.removeprefix(FLOW): value for name, value in noise.items()}
            z = next(iter(self.flow.decode(body.flow, own, context).values()))
        else:
            z = body.walk(body.start(noise["z"], noise["choice"], context), noise, context, self.leapfrogs)
        return body.decode(z, context)

    # Fitting

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        teacher = layout.teacher

        def refine(body: Any, source: Source, training: Training) -> None:
            body.inner.load_state_dict(teacher.fitted.body.state_dict())
            body.eval()
            _Refinement(self, body, layout, source, training).run()

        return (Phase("refine", estimate=refine),)

    def assemble(self, fitted: Fitted, layout: Layout, card: dict[str, Any]) -> Model:
        body: Any = fitted.body
        share, error = (round(float(number), 6) for number in body.share)
        card["refined"] = {
            "effective share": share,
            "error": error,
            "acceptance": None if self.flow is not None else round(float(body.acceptance), 4),
        }
        return super().assemble(fitted, layout, card)


def _inner_layout(layout: Layout) -> Layout:
    return replace(layout, teacher=None)


class _Refinement:
    """Weights, their pull-back, and the sampler, in this order."""

    def __init__(self, family: Laser, body: Any, layout: Layout, source: Source, training: Training) -> None:
        self.family, self.body, self.layout = family, body, layout
        self.seed, self.training = derive_seed(training.seed, "laser"), training
        self.events = [*source.sweep(), *source.validation()]

    def run(self) -> None:
        """Fill the body."""
        z, given, log_w = self._weights()
        weight = np.minimum(np.exp(log_w), self.family.clip)
        size = effective_size(weight)
        self.body.share.copy_(torch.tensor([size.share, size.share_error]))
        if self.family.pullback == "network":
            self._pull_back(z, given, weight)
        if self.family.flow is None:
            self._tune()
        else:
            self._train_flow(z, weight)

    @torch.no_grad()
    def _weights(self) -> tuple[Floats, Floats | None, Floats]:
        """Noise of as many events as there are true ones, rows of their contexts, and log w of each by who has not seen it."""
        real, made, noise, given, weights = [], [], [], [], []
        start = 0
        for events in self.events:
            z = join_noise(self._noise("z", self.body.shapes, start, len(events)), self.body.shapes)
            real.append(self._numpy(event_rows(events.fields, self.layout)))
            made.append(self._numpy(event_rows(self.body.decode(z, events.context), self.layout)))
            noise.append(self._numpy(z))
            rows = context_rows(events.context, self.layout)
            given += [] if rows is None else [self._numpy(rows)]
            weights.append(np.ones(len(events)) if events.weight is None else self._numpy(events.weight))
            start += len(events)
        beside, weight = (np.concatenate(given) if given else None), np.concatenate(weights)
        rows_made, rows_real = _beside(np.concatenate(made), beside), _beside(np.concatenate(real), beside)
        fitted, shift, log_w = self._fit(rows_made, rows_real, weight, weight, "events")
        if self.family.pullback == "decode":
            self.body.ratio.take(fitted, shift)
        return np.concatenate(noise), beside, log_w

    def _fit(
        self, zero: Floats, one: Floats, w_zero: Floats, w_one: Floats, name: str
    ) -> tuple[CrossFit, float, Floats]:
        """An ensemble between two samples, the logarithm of its mean ratio, and log-ratios of the first sample with mean ratio one."""
        label = np.repeat([False, True], [len(zero), len(one)])
        weight = balanced_weights(label, np.concatenate([w_zero, w_one]))
        events, seed = Labelled(np.concatenate([zero, one]), label, weight), derive_seed(self.seed, name)
        fitted = cross_fit(events, self.family.classifier, self.family.folds, "temperature", seed)
        log_w = fitted.unseen[: len(zero)]
        shift = math.log(float(w_zero @ np.exp(log_w) / w_zero.sum()))
        return fitted, shift, log_w - shift

    def _pull_back(self, z: Floats, given: Floats | None, weight: Floats) -> None:
        """A second ensemble, between noise of weight w and other noise."""
        shapes = self.body.shapes
        other = self._numpy(join_noise(self._noise("other", shapes, 0, len(z)), shapes))
        fitted, shift, _ = self._fit(_beside(other, given), _beside(z, given), np.ones(len(z)), weight, "noise")
        self.body.ratio.take(fitted, shift)

    @torch.no_grad()
    def _tune(self) -> None:
        if self.family.moves == 0:
            return
        first = self.events[0]
        context = None if first.context is None else first.context[torch.arange(PILOTS) % len(first)]
        shapes = self.family.noise_shapes(self.layout)
        begin = self._noise("pilots", {name: shapes[name] for name in ("z", "choice")}, 0, PILOTS)
        d = shapes["z"].shape[1]

        def draw(step: int) -> tuple[Tensor, Tensor]:
            one = {"p": NoiseShape("normal", (d,)), "u": NoiseShape("uniform", ())}
            drawn = self._noise(f"move {step}", one, 0, PILOTS)
            return drawn["p"], drawn["u"]

        z = self.body.start(begin["z"], begin["choice"], context)
        self.body.tune(z, draw, context, self.family.leapfrogs, ROUNDS)

    def _train_flow(self, z: Floats, weight: Floats) -> None:
        """The flow, on noise with weights."""
        flow: Any = self.family.flow
        context = None if self.events[0].context is None else _joined([events.context for events in self.events])
        order = np.random.default_rng(derive_seed(self.seed, "split")).permutation(len(z))
        cut = max(1, len(z) // 10)
        parts = [
            _part(z[rows], weight[rows], None if context is None else context[torch.from_numpy(rows)])
            for rows in (order[cut:], order[:cut])
        ]
        source = DatasetSource(
            parts[0], parts[1], _to(self.body.log_step), batch_size=self.training.batch_size, seed=self.seed
        )
        phases = flow.phases(self.family._flow_layout(self.layout))
        train(self.body.flow, phases, source, self.training.replace(checkpoint=None, log_dir=None))
        self.body.eval()

    def _noise(self, name: str, shapes: Mapping[str, NoiseShape], start: int, n: int) -> dict[str, Tensor]:
        like = self.body.log_step
        index = torch.arange(start, start + n, device=like.device)
        noise = Noise(self.seed, index, dtype=like.dtype, scope=name)
        return {
            key: (noise.normal if shape.kind == "normal" else noise.uniform)(key, *shape.shape)
            for key, shape in shapes.items()
        }

    @staticmethod
    def _numpy(tensor: Tensor) -> Floats:
        return np.asarray(tensor.detach().cpu().double().numpy())


def _beside(rows: Floats, given: Floats | None) -> Floats:
    return rows if given is None else np.concatenate([rows, given], axis=1)


def _joined(contexts: list[Any]) -> Events:
    fields = {name: torch.cat([context.fields[name] for context in contexts]).cpu() for name in contexts[0].fields}
    return Events(fields)


def _part(z: Floats, weight: Floats, context: Events | None) -> MemoryPart:
    """Noise with weights."""
    given = None if context is None else context.map(lambda tensor: tensor.numpy())
    return MemoryPart(Events({next(iter(vector_spec(1))): z}, weight=weight, context=given))


def _to(like: Tensor) -> Any:
    """Arrays to tensors of this type, where it is."""

    def prepare(events: Events, _noise: Noise) -> Events:
        return events.map(lambda array: torch.as_tensor(np.ascontiguousarray(array)).to(like.device, like.dtype))

    return prepare
