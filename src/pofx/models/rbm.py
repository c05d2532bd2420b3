r"""Restricted Boltzmann machine: an energy that is linear in binary hidden units, which can therefore be summed over, and drawn at once.

.. math:: p(v|c) = \frac{f(v, c)}{Z(c)}, \qquad \log f = A_b(v) + \sum_j \log\big(1 + e^{a_j + W_j v'}\big)

for binary columns (Smolensky 1986; Hinton, Neural Computation 14 (2002) 1771) and for real ones (Gaussian-Bernoulli; Cho, Ilin,
Raiko 2011); see :mod:`pofx.models.boltzmann`. Learnt by persistent contrastive divergence (Tieleman, ICML 2008): the likelihood's gradient

.. math:: \nabla \log f(\text{data}) - E_{model} \nabla \log f

with the second mean over chains that go on from step to step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pofx.config import check_at_least, check_between
from pofx.data.events import Events
from pofx.data.spec import EventSpec
from pofx.errors import CapabilityError, DataError
from pofx.models.annealing import LogMean, anneal, condition_numbers, log_mean_exp, per_condition
from pofx.models.base import CHUNK, Capabilities, Density, Family, Layout, NoiseShape
from pofx.models.boltzmann import Bernoulli, Biases, Machine, Normal, is_binary, lowest
from pofx.training.contract import Loss, Phase, Source, Update
from pofx.training.noise import Noise

__all__ = ["RBM"]


@dataclass(frozen=True)
class RBM(Family):
    """Vectors of binary columns (discrete, two values), or of real ones; probabilities, or densities, up to an estimated Z.

    Z is summed exactly where one side has at most ``exact`` units, and ``density`` is ``"exact"`` then. Otherwise it is an estimate by
    annealed importance sampling, after training; with a context, when a density is asked for. Its error, ``log_prob_error``, is common to
    all events of a context: it does not shrink in the mean over events, and cancels in ratios.

    A context adds to the biases. Chains would belong to other contexts, so that then every chain starts at its event: contrastive
    divergence of ``sweeps`` sweeps (Hinton 2002), whose gradient is biased.

    Parameters
    ----------
    hidden : units H. Of real columns, the density is a mixture of 2^H normals with shared parameters.
    sweeps : of Gibbs sampling per step of training.
    persistent : chains.
    levels : inverse temperatures between the base and the machine, for samples; polish : sweeps of the machine itself at the end.
    temperatures, chains : levels and walks behind log Z; context_chains : walks behind the Z of a context.
    exact : units of the smaller side up to which Z is summed.
    smallest : least width of a real column given the hidden units, in units of its spread.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(2000, 2))
    >>> model = RBM(hidden=4).fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.sample(3, seed=1).shape, model.density
    ((3, 2), 'exact')
    """

    name: ClassVar[str] = "rbm"
    capabilities: ClassVar[Capabilities] = Capabilities(
        density="estimate", discrete=True, context=frozenset({"vector", "cloud"})
    )

    hidden: int = 64
    sweeps: int = 1
    persistent: int = 512
    levels: int = 50
    polish: int = 10
    temperatures: int = 1000
    chains: int = 512
    context_chains: int = 32
    exact: int = 12
    smallest: float = 0.05

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden", "sweeps", "persistent", "levels", "temperatures")
        check_at_least(self, 2, "chains", "context_chains")
        check_at_least(self, 0, "polish")
        check_between(self, 0, 20, "exact")
        check_between(self, 1e-4, 0.9, "smallest")

    def preprocess_of(self, name: str, spec: EventSpec) -> str:
        """Binary columns stay as they are."""
        return "none" if all(column.type == "discrete" for column in spec[name].columns) else self.preprocess

    def build(self, layout: Layout) -> nn.Module:
        if is_binary(layout):
            return Bernoulli(layout, self.hidden, self.persistent)
        return Normal(layout, self.hidden, self.persistent, self.smallest)

    def structure(self, layout: Layout, events: Events) -> Mapping[str, Any]:
        """No facts, but a look at the values of binary columns."""
        if is_binary(layout):
            v = events.x - lowest(layout).to(events.x)
            wrong = ((v != 0) & (v != 1)).nonzero()
            if len(wrong):
                row, column = wrong[0].tolist()
                name = layout.spec[layout.only].names[column]
                raise DataError(
                    f"column {name!r}: an RBM takes discrete columns of two values, such as 0 and 1; got {events.x[row, column]:g}"
                )
        return {}

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        chained = not layout.context
        learn = Update(
            "machine", self.likelihood if chained else self.divergence, after=self.move_chains if chained else None
        )
        first = Phase("persistent", (learn,), estimate=self._rates if is_binary(layout) else None, keep="last")
        exact = self.density_of(layout) == "exact"
        return (first,) if exact or layout.context else (first, Phase("normalise", estimate=self._normalise))

    def density_of(self, layout: Layout) -> Density:
        units = min(self.hidden, layout.features) if is_binary(layout) else self.hidden
        return "exact" if units <= self.exact else "estimate"

    # Losses

    def likelihood(self, body: Any, events: Events, _noise: Noise) -> Loss:
        """The free energy of events less the mean free energy of the chains."""
        biases = body.biases(None)
        real, model = -body.log_f(_visible(body, events), biases), -body.log_f(body.chains, biases)
        return Loss(real - model.mean(), logs={"real": real.detach(), "model": model.detach()})

    def divergence(self, body: Any, events: Events, noise: Noise) -> Loss:
        """The free energy of events less that of what a few sweeps make of them."""
        biases, v = body.biases(events.context), _visible(body, events)
        with torch.no_grad():
            other = self._sweeps(body, v, biases, noise)
        return Loss(body.log_f(other, biases) - body.log_f(v, biases))

    def move_chains(self, body: Any) -> None:
        """The persistent chains, one step of training further."""
        index = torch.arange(len(body.chains), device=body.chains.device)
        noise = Noise(0, index, int(body.moves), body.chains.dtype, "chains")
        body.chains.copy_(self._sweeps(body, body.chains, body.biases(None), noise))
        body.moves.add_(1)

    def _sweeps(self, body: Any, v: Tensor, biases: Biases, noise: Noise) -> Tensor:
        for k in range(self.sweeps):
            v = body.sweep(v, biases, noise.uniform(f"hidden/{k}", self.hidden), _drawn(body, noise, f"visible/{k}"))
        return v

    # Sampling

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        kind, d, total = "uniform" if is_binary(layout) else "normal", layout.features, self.levels + self.polish
        return {
            "z": NoiseShape(kind, (d,)),  # type: ignore[arg-type]
            "start": NoiseShape(kind, (d,)),  # type: ignore[arg-type]
            "visible": NoiseShape(kind, (total - 1, d)),  # type: ignore[arg-type]
            "hidden": NoiseShape("uniform", (total, self.hidden)),
        }

    def chunk(self, layout: Layout) -> int:
        return CHUNK // 4

    def density_chunk(self, layout: Layout) -> int:
        return CHUNK

    def decode(self, body: Any, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        """Sweeps from the base through all temperatures; the last one draws v with the noise ``"z"``."""
        biases = body.biases(context)
        visible = torch.cat((noise["visible"], noise["z"][:, None]), 1)
        v = body.start(noise["start"])
        for k in range(visible.shape[1]):
            v = body.sweep(v, biases, noise["hidden"][:, k], visible[:, k], min(1.0, (k + 1) / self.levels))
        return {body.field: v + body.low}

    # Densities

    def log_density(self, body: Any, events: Events) -> Tensor:
        v = _visible(body, events)
        value = body.log_f(v, body.biases(events.context)) - self._log_z(body, events).value
        return torch.where(body.possible(v), value, -torch.inf)

    def log_density_error(self, body: Any, events: Events) -> Tensor:
        return self._log_z(body, events).error

    def exact_log_partition(self, body: Any, context: Events | None = None) -> Tensor:
        """log Z by the sum over all states of the smaller side, ``()`` or one per context, ``(n,)``: an oracle for small machines."""
        if body.smaller_side > 24:
            raise CapabilityError(
                f"RBM: the sum over 2^{body.smaller_side} states is too long; log_prob has an estimate"
            )
        found: Tensor = body.log_partition(body.biases(context))
        return found

    def annealed_log_partition(self, body: Any, *, chains: int, seed: int = 0) -> LogMean:
        """log Z of a machine without context by annealed importance sampling with so many walks, and its error; each ``()``."""
        return LogMean(*(part[0] for part in self._annealed(body, _nothing(body), chains, seed)))

    def _log_z(self, body: Any, events: Events) -> LogMean:
        """log Z of every event, ``(n,)``."""
        exact = body.smaller_side <= self.exact
        if events.context is not None:
            one = self._exact if exact else self._by_context
            return per_condition(events, 32, lambda part: one(body, part))
        kept = LogMean(body.normaliser, body.normaliser_error, torch.zeros_like(body.normaliser))
        found = self._exact(body, _nothing(body)) if exact else kept
        return LogMean(*(part.expand(len(events)) for part in found))

    def _exact(self, body: Any, events: Events) -> LogMean:
        value = body.log_partition(body.biases(events.context)).expand(len(events))
        return LogMean(value, torch.zeros_like(value), torch.full_like(value, torch.inf))

    def _by_context(self, body: Any, events: Events) -> LogMean:
        return self._annealed(body, events, self.context_chains, 0)

    def _annealed(self, body: Any, events: Events, chains: int, seed: int) -> LogMean:
        """log Z of every row by ``chains`` walks each, of noise that the row's context decides; differentiable in the context."""
        rows = torch.arange(len(events), device=events.x.device).repeat_interleave(chains)
        key = condition_numbers(events)[rows] + torch.arange(chains, device=rows.device).repeat(len(events))
        noise = Noise(seed, key, dtype=events.x.dtype, scope="normaliser")
        biases = body.biases(events.context).repeat(chains)

        def advance(k: int, v: Tensor) -> tuple[Tensor, Tensor]:
            beta, draw = k / self.temperatures, noise.at(k)
            gain = body.log_f(v, biases, beta) - body.log_f(v, biases, (k - 1) / self.temperatures)
            return gain, body.sweep(v, biases, draw.uniform("hidden", body.units), _drawn(body, draw, "visible"), beta)

        with torch.no_grad():
            v, log_weight = anneal(body.start(_drawn(body, noise, "start")), self.temperatures, advance)
        total = torch.as_tensor(log_weight).reshape(len(events), chains)
        if torch.is_grad_enabled():
            value = body.log_f(v, biases).reshape_as(total)
            total = total + (value - value.detach())
        found = log_mean_exp(total)
        return found._replace(value=found.value + body.log_z_base())

    def _rates(self, body: Any, source: Source, _training: Any) -> None:
        """The base of binary columns: their weighted rates, which the biases start from."""
        ones, total = torch.zeros_like(body.base), 0.5
        for events in source.sweep():
            weight = events.x.new_ones(len(events)) if events.weight is None else events.weight
            ones += weight @ _visible(body, events)
            total += float(weight.sum())
        rate = ((ones + 0.25) / total).clamp(1e-6, 1.0 - 1e-6)
        body.base.copy_(torch.logit(rate))
        with torch.no_grad():
            body.visible.copy_(body.base)

    @torch.no_grad()
    def _normalise(self, body: Any, _source: Source, _training: Any) -> None:
        found = self.annealed_log_partition(body, chains=self.chains)
        body.normaliser.copy_(found.value)
        body.normaliser_error.copy_(found.error)


def _visible(body: Machine, events: Events) -> Tensor:
    return events.x - body.low


def _nothing(body: Machine) -> Events:
    return Events({body.field: body.weight.new_zeros(1, body.columns)})


def _drawn(body: Machine, noise: Noise, name: str) -> Tensor:
    """Noise for the visible units, ``(n, d)``."""
    draw = noise.normal if body.noise_kind == "normal" else noise.uniform
    return draw(name, body.columns)
