"""The body of a refined model: the body of the model that is refined, the ratio that corrects it, and chains in the space of its noise.

All noise of an event is one row of D standard normal numbers; uniform noise is their distribution function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from pofx.classifiers.network import TrainedClassifier
from pofx.data.events import Events
from pofx.models.base import Family, Layout, NoiseShape
from pofx.refine.crossfit import CrossFit
from pofx.solvers.hamiltonian import State, adapted, evaluate, hamiltonian_step

__all__ = ["LaserBody", "LogRatio", "context_rows", "event_rows", "join_noise", "split_noise"]

TARGET = 0.8
"""Share of proposals that the step is chosen for."""


def join_noise(noise: Mapping[str, Tensor], shapes: Mapping[str, NoiseShape]) -> Tensor:
    """Named noise as standard normal rows ``(n, D)``.

    >>> join_noise({"u": torch.tensor([0.5])}, {"u": NoiseShape("uniform", ())})
    tensor([[0.]])
    """
    rows = [noise[name].reshape(len(noise[name]), -1) for name in shapes]
    normal = [
        torch.special.ndtri(row) if shape.kind == "uniform" else row
        for row, shape in zip(rows, shapes.values(), strict=True)
    ]
    return torch.cat(normal, 1)


def split_noise(z: Tensor, shapes: Mapping[str, NoiseShape]) -> dict[str, Tensor]:
    """The inverse of :func:`join_noise`."""
    parts = z.split([math.prod(shape.shape) for shape in shapes.values()], 1)
    one = 1.0 - torch.finfo(z.dtype).eps / 2
    return {
        name: (torch.special.ndtr(part).clamp(1e-45, one) if shape.kind == "uniform" else part).reshape(
            -1, *shape.shape
        )
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def event_rows(fields: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Latent fields as rows for a classifier, angles as sine and cosine."""
    return _rows(fields, tuple(layout.spec), layout.circular)


def context_rows(context: Events | None, layout: Layout) -> Tensor | None:
    """The same for a latent context; None without one."""
    if context is None or not layout.context:
        return None
    return _rows(context.fields, tuple(layout.context), layout.circular_context)


def _rows(fields: Mapping[str, Tensor], names: Sequence[str], circular: Mapping[str, tuple[int, ...]]) -> Tensor:
    parts = []
    for name in names:
        rows = fields[name].reshape(len(fields[name]), -1)
        angles = list(circular.get(name, ()))
        lines = [k for k in range(rows.shape[1]) if k not in angles]
        parts += [rows[:, lines], rows[:, angles].sin(), rows[:, angles].cos()]
    return torch.cat(parts, 1)


def row_width(layout: Layout, *, noise: int | None = None) -> int:
    """Columns of a classifier's rows: those of the event, or ``noise``, beside those of the context."""
    event = sum(field.size for field in layout.spec.values()) + sum(map(len, layout.circular.values()))
    angles = sum(map(len, layout.circular_context.values()))
    return (event if noise is None else noise) + sum(f.size for f in (layout.context or {}).values()) + angles


class LogRatio(nn.Module):
    """The logarithm of an ensemble's ratio (:class:`~pofx.refine.crossfit.CrossFit` with temperatures), differentiable, clipped."""

    centre: Tensor
    scale: Tensor
    temperature: Tensor
    shift: Tensor

    def __init__(self, classifier: TrainedClassifier, width: int, members: int, clip: float) -> None:
        super().__init__()
        self.networks = nn.ModuleList([classifier.body(width) for _ in range(members)])
        self.register_buffer("centre", torch.zeros(members, width))
        self.register_buffer("scale", torch.ones(members, width))
        self.register_buffer("temperature", torch.ones(members))
        self.register_buffer("shift", torch.zeros(()))
        self.highest = math.log(clip)

    @torch.no_grad()
    def take(self, fitted: CrossFit, shift: float) -> None:
        """Hold these classifiers, and subtract this number."""
        for k, member in enumerate(fitted.members):
            one: Any = member.fitted
            self.networks[k].load_state_dict(one.body.state_dict())
            self.centre[k] = torch.as_tensor(one.centre)
            self.scale[k] = torch.as_tensor(one.scale)
            self.temperature[k] = member.temperature
        self.shift.fill_(shift)

    def forward(self, rows: Tensor) -> Tensor:
        """log w, ``(n,)``."""
        logits = torch.stack(
            [
                network((rows - self.centre[k]) / self.scale[k]) / self.temperature[k]
                for k, network in enumerate(self.networks)
            ]
        )
        value = logsigmoid(logits).logsumexp(0) - logsigmoid(-logits).logsumexp(0) - self.shift
        return value.clamp(max=self.highest)


class LaserBody(nn.Module):
    """Inner body, ratio, chains.

    Parameters
    ----------
    family, layout : of the model that is refined.
    ratio : of the events that noise decodes to (``on_noise`` False), or of the noise itself.
    flow, flow_layout : a family that draws the noise, in place of chains, and what it is built for.

    Buffers: ``log_step`` of the leapfrogs; ``acceptance``; ``share``, the effective share of the weighted sample and its error.
    """

    log_step: Tensor
    acceptance: Tensor
    share: Tensor

    def __init__(
        self, family: Family, layout: Layout, ratio: LogRatio, *, on_noise: bool, flow: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.family, self.layout, self.on_noise = family, layout, on_noise
        self.inner = family.build(layout)
        self.ratio, self.flow = ratio, flow
        self.register_buffer("log_step", torch.tensor(math.log(0.3)))
        self.register_buffer("acceptance", torch.ones(()))
        self.register_buffer("share", torch.ones(2))

    @property
    def shapes(self) -> Mapping[str, NoiseShape]:
        """Noise of the inner family."""
        return self.family.noise_shapes(self.layout)

    def decode(self, z: Tensor, context: Events | None) -> Mapping[str, Tensor]:
        """Rows of noise ``(n, D)`` to latent fields, by the model that is refined."""
        return self.family.decode(self.inner, split_noise(z, self.shapes), context)

    def log_weight(self, z: Tensor, context: Events | None) -> Tensor:
        """log w at rows of noise, ``(n,)``."""
        rows = z if self.on_noise else event_rows(self.decode(z, context), self.layout)
        given = context_rows(context, self.layout)
        value: Tensor = self.ratio(rows if given is None else torch.cat([rows, given], 1))
        return value

    def energy(self, context: Events | None) -> Callable[[Tensor], Tensor]:
        r""":math:`E(z) = z^2 / 2 - \log w(z)`."""
        return lambda z: 0.5 * z.square().sum(1) - self.log_weight(z, context)

    def start(self, candidates: Tensor, choice: Tensor, context: Events | None) -> Tensor:
        """One of K candidates ``(n, K, D)``, chosen in proportion to its weight by a uniform number, ``(n,)``."""
        log_w = torch.stack([self.log_weight(candidates[:, k], context) for k in range(candidates.shape[1])], 1)
        reached = torch.softmax(log_w.detach().double(), 1).cumsum(1)
        chosen = (reached < choice.double()[:, None]).sum(1).clamp(max=candidates.shape[1] - 1)
        return candidates[torch.arange(len(chosen), device=chosen.device), chosen]

    def walk(self, z: Tensor, noise: Mapping[str, Tensor], context: Events | None, leapfrogs: int) -> Tensor:
        """As many moves as there are momenta ``(n, S, D)``; none where there are no momenta."""
        if "momentum" not in noise:
            return z
        energy, step = self.energy(context), self.log_step.exp()
        state = evaluate(energy, z)
        for k in range(noise["momentum"].shape[1]):
            draw = noise["momentum"][:, k], noise["accept"][:, k]
            state, _ = hamiltonian_step(energy, state, step, *draw, leapfrogs=leapfrogs)
        return state.x

    @torch.no_grad()
    def tune(
        self,
        z: Tensor,
        draw: Callable[[int], tuple[Tensor, Tensor]],
        context: Events | None,
        leapfrogs: int,
        rounds: int,
    ) -> None:
        """The step with which the target share of proposals is accepted, found on pilot chains that begin at z."""
        energy = self.energy(context)
        state: State = evaluate(energy, z)
        for j in range(rounds):
            state, taken = hamiltonian_step(energy, state, self.log_step.exp(), *draw(j), leapfrogs=leapfrogs)
            self.log_step.copy_(adapted(self.log_step, taken, TARGET, 2.0 / (1.0 + 0.5 * j)).clamp(max=0.7))
            self.acceptance.copy_(taken.mean())
