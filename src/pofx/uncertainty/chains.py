"""Markov chains over the weights of any family: AdamMCMC and stochastic-gradient Hamiltonian Monte Carlo."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from pofx.config import check_at_least, check_between
from pofx.data.events import Events
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Family, Layout
from pofx.training.contract import Loss, LossFunction, Phase, Source, Update
from pofx.training.noise import Noise, derive_seed
from pofx.uncertainty.base import DrawsBody, Posterior, data_phase
from pofx.uncertainty.inside import PartSource, inside, loss_inside
from pofx.uncertainty.kernels import AdamKernel, HamiltonianKernel, Kernel, Point
from pofx.uncertainty.weights import Weights, matching

__all__ = ["SGHMC", "AdamMCMC", "energy_of", "last_updates"]

VALIDATIONS = 20
"""Looks at the validation loss while a chain runs."""


def last_updates(family: Family, layout: Layout) -> Phase:
    """The last phase of a family that trains weights by gradients."""
    phases = [phase for phase in family.phases(layout) if phase.updates]
    if not phases:
        raise CapabilityError(
            f"{type(family).__name__} is not trained by gradients, so there is no likelihood of its weights; use Ensemble"
        )
    return phases[-1]


@dataclass
class Watch:
    """Whether an energy was seen to differ from step to step: by its noise, by dropout, or by events that are not the same ones.

    Events come in another order at every step, and with other noise where columns of whole numbers are made continuous.
    """

    random: bool = False
    first: list[Tensor] | None = None

    def see(self, events: Events) -> None:
        """Compare these events with those of the first evaluation."""
        assert events.index is not None
        if self.random:
            return
        rows = events[events.index.argsort()]
        parts = [rows] if rows.context is None else [rows, rows.context]
        now = [tensor for part in parts for tensor in (*part.fields.values(), *part.masks.values())]
        now += [tensor for tensor in (rows.index, rows.weight) if tensor is not None]
        self.first = self.first or now
        same = len(now) == len(self.first) and all(torch.equal(a, b) for a, b in zip(now, self.first, strict=True))
        self.random = not same


@dataclass(frozen=True)
class _WatchedNoise(Noise):
    watch: Watch = field(default_factory=Watch)

    def _uniform(self, name: str, size: int) -> Tensor:
        self.watch.random = True
        return super()._uniform(name, size)


def energy_of(
    loss: LossFunction, names: tuple[str, ...], prior: float, temperature: float, watch: Watch | None = None
) -> LossFunction:
    r"""The wrapped family's loss as :math:`U(\theta) = N L(\theta) / T + |\theta|^2 / 2 s^2`, with N what the events are worth."""
    inner, seen = loss_inside(loss, "inner"), watch or Watch()

    def energy(body: Any, events: Events, noise: Noise) -> Loss:
        seen.random |= any(isinstance(part, _DropoutNd) and part.p > 0 for part in body.inner.modules())
        seen.see(events)
        own = _WatchedNoise(noise.seed, noise.index, noise.step, noise.dtype, noise.scope, seen)
        found, scale = inner(body, events, own), body.size / temperature
        weights = torch.stack([body.inner.get_parameter(name).square().sum() for name in names]).sum()
        extra = 0.5 * weights / prior**2 + (0.0 if found.extra is None else scale * found.extra)
        return Loss(scale * found.per_event, extra, found.logs)

    return energy


@dataclass(frozen=True)
class _Sampler(Posterior):
    """What both chains share: the family's own training first, then the chain, whose positions are the draws."""

    layers: tuple[str, ...] = ("*",)
    draws: int = 30
    steps: int = 4000
    burn_in: float = 0.5
    prior: float = 1.0
    temperature: float = 1.0
    batch: int | Literal["all"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "draws")
        check_at_least(self, 1e-12, "prior", "temperature")
        check_between(self, 0.0, 0.99, "burn_in")
        if self.kept < self.draws:
            raise ConfigError(
                f"{type(self).__name__}: steps={self.steps} less burn-in leave {self.kept} positions, fewer than draws={self.draws}"
            )
        if self.batch != "all":
            check_at_least(self, 1, "batch")

    @property
    def kept(self) -> int:
        """Steps after burn-in."""
        return self.steps - round(self.burn_in * self.steps)

    @property
    def advice(self) -> str:
        """What to change if the chain diverges."""
        return ""

    @abstractmethod
    def kernel(self) -> Kernel:
        """The step of the chain."""

    def build(self, layout: Layout) -> nn.Module:
        inner = self.family.build(layout)
        return DrawsBody(inner, Weights(inner, self.layers), self.draws)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        own = self.family.phases(layout)
        return (data_phase(), *(inside(phase, "inner") for phase in own), self._chain(layout))

    def _chain(self, layout: Layout) -> Phase:
        last = last_updates(self.family, layout)
        names = Weights(self.family.build(layout), self.layers).names
        updates = [self._update(update, names) for update in last.updates]
        updates[-1] = replace(updates[-1], after=self._record)
        return Phase(
            "chain",
            tuple(updates),
            monitor=loss_inside(last.monitor or last.updates[0].loss, "inner"),
            keep="last",
            source=self._source,
            training={
                "max_epochs": None,
                "max_steps": self.steps,
                "clip": None,
                "ema": None,
                "batch_size": max(layout.events, 1) if self.batch == "all" else self.batch,
            },
        )

    def _source(self, body: nn.Module, source: Source) -> Source:
        return PartSource(source, body, "inner", epoch=max(self.steps // VALIDATIONS, 1))

    def _update(self, update: Update, names: tuple[str, ...]) -> Update:
        """An update of the family as one that samples the weights it moves."""
        own = matching(names, update.parameters, self.name)
        watch = Watch(random=self.batch != "all")
        return Update(
            update.name,
            energy_of(update.loss, own, self.prior, self.temperature, watch),
            tuple(f"inner.{name}" for name in own),
            every=update.every,
            repeat=update.repeat,
            optimiser=lambda named: ChainOptimiser(named, self.kernel(), watch),
            advice=self.advice,
        )

    def _record(self, body: Any) -> None:
        body.seen.add_(1)
        late, thin = int(body.seen) - (self.steps - self.kept), self.kept // self.draws
        if late > 0 and late % thin == 0:
            body.add(late // thin - 1)


@dataclass(frozen=True)
class AdamMCMC(_Sampler):
    r"""Metropolis-Hastings along Adam's direction, :class:`~pofx.uncertainty.kernels.AdamKernel` (arXiv:2312.14027).

    The family is trained as ever; from there the chain samples :math:`e^{-N L / T}` times a normal prior, with L the loss per event. For a
    family whose loss is the negative log-likelihood and T = 1 this is the posterior of the weights; for others (flow matching, diffusion)
    it is a Gibbs posterior, whose width T sets.

    Parameters
    ----------
    family : any family that is trained by gradients of one loss.
    layers : patterns of the weights that vary; the others stay as they were trained.
    draws : positions of the chain that are kept, evenly spread over the steps after burn-in.
    steps, burn_in : of the chain, and the share of them that is not kept.
    prior : standard deviation s of the normal prior of the weights.
    temperature : T; 1/T is the paper's lambda.
    batch : events per step. ``"all"`` makes the acceptance exact; with fewer it is that of the batch, and the chain is too wide.
    sigma, direction, betas, noise, acceptance, learning_rate : of the kernel. Energies of
        10^5 events need ``Training(precision="float64")``.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(200, 1))
    >>> family = pofx.SplineFlow(layers=1, hidden=(8,), bins=4)
    >>> model = AdamMCMC(family, steps=40, draws=4).fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.density_band([[0.0]]).values.shape
    (4, 1)
    """

    name: ClassVar[str] = "adam-mcmc"

    sigma: float = 0.01
    direction: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    noise: str = "adam"
    acceptance: float | None = 0.5
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kernel()

    def kernel(self) -> AdamKernel:
        return AdamKernel(
            self.sigma,
            self.learning_rate,
            self.direction,
            self.betas,
            self.noise,
            self.acceptance,
            self.steps - self.kept,
        )

    def _chain(self, layout: Layout) -> Phase:
        if len(last_updates(self.family, layout).updates) > 1:
            raise CapabilityError(
                f"AdamMCMC needs one loss for all weights; {type(self.family).__name__} trains on several: use SGHMC or Ensemble"
            )
        return super()._chain(layout)


@dataclass(frozen=True)
class SGHMC(_Sampler):
    r"""Stochastic-gradient Hamiltonian Monte Carlo, :class:`~pofx.uncertainty.kernels.HamiltonianKernel` (arXiv:1402.4102).

    See :class:`AdamMCMC` for what is sampled and the common parameters. There is no accept-or-reject: mini-batches are fine, and the error
    is of second order in ``step_size``. Where a family trains several losses (a GAN), each has a chain given the other's weights, which is
    the Bayesian GAN of arXiv:1705.09558, and not a posterior of a joint likelihood.

    Parameters
    ----------
    step_size, friction, precondition, subtract : of the kernel.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(200, 1))
    >>> family = pofx.SplineFlow(layers=1, hidden=(8,), bins=4)
    >>> model = SGHMC(family, steps=40, draws=4).fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.density_band([[0.0]]).values.shape
    (4, 1)
    """

    name: ClassVar[str] = "sghmc"

    step_size: float = 0.01
    friction: float = 0.05
    precondition: bool = True
    subtract: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kernel()

    @property
    def advice(self) -> str:
        return f"a chain with a step_size below {self.step_size:g} is more stable"

    def kernel(self) -> HamiltonianKernel:
        return HamiltonianKernel(
            self.step_size, self.friction, self.precondition, self.subtract, self.steps - self.kept
        )


class ChainOptimiser(Optimizer):
    """A kernel in the place of an optimiser: the loss is U, and a step moves the parameters to the chain's next position.

    Where U is not random, its value and gradient at the position that a step ends at are those that the next one begins with.
    """

    def __init__(self, named: list[tuple[str, nn.Parameter]], kernel: Kernel, watch: Watch | None = None) -> None:
        self._list, self._kernel, self._watch = [p for _, p in named], kernel, watch or Watch(random=True)
        super().__init__(self._list, {})
        self.state[self._list[0]].update(kernel.start(self._position()))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One step of the chain; every evaluation of U is on the same batch with the same noise."""
        state, position = self.state[self._list[0]], self._position()
        known = "here" in state
        here = (state.pop("here"), state.pop("here gradient")) if known else self._evaluate(closure)
        key = state.setdefault("key", torch.tensor(derive_seed(torch.initial_seed(), "chain")))
        generator = torch.Generator().manual_seed(derive_seed(int(key), int(state["step"])))
        points = [(position, here)]

        def energy(at: Tensor) -> Point:
            self._move(at)
            points.append((at, self._evaluate(closure)))
            return points[-1][1]

        end = self._kernel.step(position, here, energy, state, generator)
        self._move(end)
        for at, (value, gradient) in points if not self._watch.random else []:
            if torch.equal(at, end):
                state["here"], state["here gradient"] = value, gradient
        return here[0].squeeze()

    def _position(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self._list])[None]

    def _move(self, position: Tensor) -> None:
        pieces = position[0].split([p.numel() for p in self._list])
        for p, piece in zip(self._list, pieces, strict=True):
            p.copy_(piece.reshape(p.shape))

    def _evaluate(self, closure: Callable[[], Tensor]) -> Point:
        value = closure().detach().reshape(1)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._list]
        return value, torch.cat([g.reshape(-1) for g in gradients])[None].clone()
