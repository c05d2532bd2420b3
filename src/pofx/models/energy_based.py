r"""Energy-based models: a density up to its normaliser, by a network that gives one number per event.

.. math:: p(x|c) = \frac{e^{-E(x, c)}}{Z(c)}, \qquad E(x, c) = -\log p_1(x) + f_\theta(x, c)

with the base p_1 a standard normal (uniform on the circle for angles) in latent coordinates. Three ways to learn f without Z:

- **denoising** score matching at all noise levels (Vincent, Neural Computation 23 (2011) 1661; arXiv:1907.05600, 2011.13456):
  :math:`L = E \| w(t) \nabla_x E_t(x_t, c) - e \|^2` over numbers, for :math:`x_t = (x + r(t) e) / \sqrt{1 + r(t)^2}` of width w;
- **noise-contrastive** estimation (Gutmann, Hyvarinen, AISTATS 2010): tell events from the base, with log Z as a parameter;
- **persistent** contrastive divergence (Tieleman, ICML 2008; arXiv:1903.08689): the likelihood's gradient
  :math:`\nabla E(\text{data}) - \nabla E(\text{model})`, with chains that go on from step to step.

Samples walk from the base to the data by Hamiltonian dynamics with acceptance, level by level. The weights of such walks estimate Z
(:mod:`pofx.models.annealing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pofx.config import check_at_least, check_between, check_choice
from pofx.data.events import Events
from pofx.errors import CapabilityError
from pofx.models.annealing import LogMean, condition_numbers, log_mean_exp, per_condition
from pofx.models.base import CHUNK, Capabilities, Family, Layout, NoiseShape
from pofx.models.energy_body import EnergyBody, Given, keyed
from pofx.models.field import count_estimate, count_updates, field_noise, mean_event
from pofx.models.ode import KINDS
from pofx.networks.base import NetworkConfig
from pofx.networks.messages import MessagePassing
from pofx.solvers.hamiltonian import adapted, evaluate
from pofx.training.contract import Loss, Phase, Source, Update
from pofx.training.noise import Noise

__all__ = ["EnergyBasedModel"]

OBJECTIVES = ("denoising", "noise-contrastive", "persistent")
PILOTS, ROUNDS = 128, 8
"""Chains and moves per level that find the steps."""
WALKS = 256
"""Walks that are evaluated together: more of them need much memory for large grids."""


@dataclass(frozen=True)
class EnergyBasedModel(Family):
    """Vectors, grids and clouds; the density is an estimate, because Z is one.

    The error of log Z is ``log_prob_error``. It is common to all events (of the same context and number of points): it does not shrink in
    the mean over events, and cancels in ratios. Steps and Z are found in a second phase of training; Z of a context, or of a number of
    points, when a density is asked for.

    Parameters
    ----------
    network : of the kind of field, with a smooth activation; None for the default (residual MLP, U-Net, EPiC). Not ``MessagePassing``,
        whose squared distances may outgrow the base.
    objective : ``"denoising"``; ``"noise-contrastive"``, sharp in few dimensions, blind in many; ``"persistent"``, for vectors and grids
        without a context, whose chains would belong to other contexts.
    smallest : width of the noise that stays in the data, in units of its spread, for ``"denoising"``.
    levels, moves, leapfrogs : of the walk: levels between base and data, moves per level, leapfrogs per move.
    chains : walks behind log Z, where there is one Z; context_chains : those behind each Z of a context or a number of points.
    persistent : chains that ``"persistent"`` keeps; refresh : the share of them that starts anew from the base at each step.

    >>> import numpy as np, pofx
    >>> from pofx.networks import ResidualMLP
    >>> x = np.random.default_rng(1).normal(size=(2000, 2))
    >>> model = EnergyBasedModel(network=ResidualMLP(width=32, layers=1), levels=8, chains=64).fit(
    ...     x, training=pofx.Training(max_steps=20, seed=1)
    ... )
    >>> model.sample(3, seed=1).shape, model.density
    ((3, 2), 'estimate')
    """

    name: ClassVar[str] = "energy-based-model"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=KINDS, density="estimate", periodic=True, context=frozenset({"vector", "cloud"})
    )

    network: NetworkConfig | None = None
    objective: str = "denoising"
    smallest: float = 0.02
    levels: int = 40
    moves: int = 1
    leapfrogs: int = 3
    chains: int = 1024
    context_chains: int = 32
    persistent: int = 512
    refresh: float = 0.01

    def __post_init__(self) -> None:
        check_choice(self, "objective", OBJECTIVES)
        check_between(self, 1e-4, 1.0, "smallest")
        check_between(self, 0.0, 1.0, "refresh")
        check_at_least(self, 1, "levels", "moves", "leapfrogs", "persistent")
        check_at_least(self, 2, "chains", "context_chains")

    def build(self, layout: Layout) -> nn.Module:
        persistent = self.objective == "persistent"
        if persistent and (layout.context or layout.spec[layout.only].kind == "cloud"):
            raise CapabilityError(
                "EnergyBasedModel: objective='persistent' is for vectors and grids without a context; "
                "use 'denoising' or 'noise-contrastive'"
            )
        if isinstance(self.network, MessagePassing):
            raise CapabilityError(
                "EnergyBasedModel: message passing grows with the squared distance of points, so that exp(-E) may have no integral; "
                "use EPiC, DeepSets or SetTransformer"
            )
        smallest = self.smallest if self.objective == "denoising" else None
        body = EnergyBody(layout, self.network, self.levels, smallest, self.persistent if persistent else 0)
        if self.objective == "noise-contrastive":
            body.log_z = nn.Parameter(torch.zeros(()))
        return body

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        loss = {"denoising": self.denoising, "noise-contrastive": self.contrast, "persistent": self.likelihood}
        energy = Update(
            "energy",
            loss[self.objective],
            parameters=("network.*", *(("log_z",) if self.objective == "noise-contrastive" else ())),
            after=self.move_chains if self.objective == "persistent" else None,
        )
        keep = "last" if self.objective == "persistent" else "best"
        learn = Phase(self.objective, (energy, *count_updates(layout)), estimate=count_estimate(layout), keep=keep)
        return learn, Phase("normalise", estimate=self._normalise)

    # Losses

    def denoising(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The mean squared error of the score, in units of one over the noise, over the numbers of an event."""
        x, t = events.x, noise.uniform("t", 1)[:, 0]
        place, width, target = body.perturbed(x, t, noise.normal("e", *x.shape[1:]))
        if events.mask is not None:
            place = torch.where(events.mask[..., None], place, 0.0)
        given = Given(events.context, events.mask)
        slope = evaluate(lambda y: body.energy(y, t, given), place).gradient
        return Loss(mean_event((width * slope - target).square(), events.mask))

    def contrast(self, body: Any, events: Events, noise: Noise) -> Loss:
        """Logistic regression between every event and one draw from the base."""
        other = body.start(noise.normal("e", *events.x.shape[1:]), events.mask)
        given = Given(events.context, events.mask)
        real, false = (-body.tilt(x, 0.0, given) - body.log_z for x in (events.x, other))
        return Loss(softplus(-real) + softplus(false), logs={"log_z": body.log_z.detach()})

    def likelihood(self, body: Any, events: Events, _noise: Noise) -> Loss:
        """The energy of events less the mean energy of the chains."""
        given = Given(None, None)
        model = body.energy(body.chains, 0.0, given)
        real = body.energy(events.x, 0.0, given)
        return Loss(real - model.mean(), logs={"real": real.detach(), "model": model.detach()})

    def move_chains(self, body: Any) -> None:
        """The chains of ``"persistent"`` one step of training further; some start anew."""
        index = torch.arange(len(body.chains), device=body.chains.device)
        noise = Noise(0, index, int(body.moves), body.chains.dtype, "chains")
        fresh = noise.uniform("fresh", 1)[:, 0] < self.refresh
        start = body.base(noise.normal("base", *body.form.shape))
        x = torch.where(fresh.reshape(-1, *[1] * (start.ndim - 1)), start, body.chains)
        state, given = evaluate(lambda y: body.energy(y, 0.0, Given(None, None)), x), Given(None, None)
        for j in range(self.moves):
            draw = keyed(noise.within("move"), *body.form.shape)(int(body.moves) * self.moves + j)
            state, taken = body.move(state, 0.0, body.log_step.exp(), draw, given, self.leapfrogs)
            body.log_step.copy_(adapted(body.log_step, taken, 0.75, 0.05))
        body.chains.copy_(state.x)
        body.moves.add_(1)

    # Sampling

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        total = self.levels * self.moves
        momenta = NoiseShape("normal", (total, *layout.spec[layout.only].shape))
        return field_noise(layout) | {"momentum": momenta, "accept": NoiseShape("uniform", (total,))}

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        mask = body.mask(noise, context)
        x, _ = body.walk(
            body.start(noise["z"], mask),
            lambda k: (noise["momentum"][:, k], noise["accept"][:, k]),
            Given(context, mask),
            self.moves,
            self.leapfrogs,
        )
        return body.result(x, mask)

    # Densities

    def density_chunk(self, layout: Layout) -> int:
        """Fewer where many a Z is asked for."""
        vector = layout.spec[layout.only].kind == "vector"
        if layout.context:
            return CHUNK // 4 if vector else CHUNK // 32
        return CHUNK if vector else CHUNK // 16

    def log_density(self, body: Any, events: Events) -> Tensor:
        energy = body.energy(events.x, 0.0, Given(events.context, events.mask))
        return body.log_count(events) - energy - self._log_z(body, events).value

    def log_density_error(self, body: Any, events: Events) -> Tensor:
        return self._log_z(body, events).error

    def _log_z(self, body: Any, events: Events) -> LogMean:
        """log Z of every event, ``(n,)``: the one there is, or one for each context and number of points."""
        if body.single:
            value, error = (b.expand(len(events)) for b in (body.normaliser, body.normaliser_error))
            return LogMean(value, error, torch.zeros_like(error))
        size = 64 if body.kind == "vector" else 8
        return per_condition(events, size, lambda part: self._annealed(body, part, self.context_chains, 0))

    def annealed_log_partition(self, body: Any, *, chains: int, seed: int = 0) -> LogMean:
        """log Z of a body without context by annealed importance sampling with so many walks, and its error; each ``()``."""
        nothing = Events({body.field: body.log_steps.new_zeros(1, *body.form.shape)})
        return LogMean(*(part[0] for part in self._annealed(body, nothing, chains, seed)))

    def _annealed(self, body: Any, events: Events, chains: int, seed: int) -> LogMean:
        """log Z of every row by ``chains`` walks each, of noise that the row's condition decides; differentiable in the context."""
        rows = torch.arange(len(events), device=events.x.device).repeat_interleave(chains)
        key = condition_numbers(events)[rows] + torch.arange(chains, device=rows.device).repeat(len(events))
        pieces = zip(rows.split(WALKS), key.split(WALKS), strict=True)
        log_weight = torch.cat(
            [
                self._walked(body, events, row, Noise(seed, number, dtype=events.x.dtype, scope="normaliser"))
                for row, number in pieces
            ]
        )
        return log_mean_exp(log_weight.reshape(len(events), chains))

    def _walked(self, body: Any, events: Events, rows: Tensor, noise: Noise) -> Tensor:
        """The logarithm of the weight of one walk for each of the rows."""
        context, mask = events.context, events.mask
        given = Given(None if context is None else context[rows], None if mask is None else mask[rows])
        with torch.no_grad():
            start = body.start(noise.normal("z", *body.form.shape), given.mask)
            x, log_weight = body.walk(start, keyed(noise, *body.form.shape), given, self.moves, self.leapfrogs)
        if not _needs_gradient(context):
            return torch.as_tensor(log_weight)
        energy = body.energy(x, 0.0, given)
        return torch.as_tensor(log_weight - (energy - energy.detach()))

    @torch.no_grad()
    def _normalise(self, body: Any, source: Source, _training: Any) -> None:
        """Steps of the walk, and the one log Z where there is one."""
        training = body.training
        body.eval()
        like = body.log_steps
        pilots = _pilots(body, source)
        noise = Noise(0, torch.arange(PILOTS, device=like.device), dtype=like.dtype, scope="tune")
        given = Given(pilots.context, pilots.mask)
        start = body.start(noise.normal("z", *body.form.shape), given.mask)
        body.tune(start, keyed(noise, *body.form.shape), given, ROUNDS, self.leapfrogs)
        if body.single:
            found = self.annealed_log_partition(body, chains=self.chains)
            body.normaliser.copy_(found.value)
            body.normaliser_error.copy_(found.error)
        body.train(training)


def _pilots(body: Any, source: Source) -> Events:
    """Conditions to find the steps with: the first training events, over and over if there are few."""
    if body.single:
        return Events({body.field: body.log_steps.new_zeros(PILOTS, *body.form.shape)})
    first = next(iter(source.sweep()))
    return first[torch.arange(PILOTS, device=first.x.device) % len(first)]


def _needs_gradient(context: Events | None) -> bool:
    return torch.is_grad_enabled() and context is not None and any(f.requires_grad for f in context.fields.values())
