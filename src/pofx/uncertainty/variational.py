"""Bayesian networks by variational inference: a normal distribution for every weight, learnt by the one training loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MethodType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pofx.config import check_at_least
from pofx.data.events import Events
from pofx.models.base import Layout
from pofx.training.contract import Loss, LossFunction, Phase, Update
from pofx.training.noise import Noise, derive_seed
from pofx.uncertainty.base import DrawsBody, Posterior, data_phase, draws_phase
from pofx.uncertainty.inside import inside
from pofx.uncertainty.weights import LINEAR, Weights, swapped

__all__ = ["Variational"]

SPEED = 8.0
"""Log-widths are this times their parameters: Adam's steps are as large for all, and widths have a long way to go."""


class _Normal(DrawsBody):
    r"""Means are the weights of ``inner``; widths are :math:`\sigma_0 e^{8 \rho}`.

    ``once``: per loss, linear layers that it calls once, with one row per event; found when it is first evaluated.
    """

    def __init__(self, inner: nn.Module, weights: Weights, count: int, width: float) -> None:
        super().__init__(inner, weights, count)
        self.width = width
        self.rho = nn.ParameterDict(
            {_key(name): nn.Parameter(torch.zeros(shape)) for name, shape in weights.shapes.items()}
        )
        self.once: dict[str, frozenset[str]] = {}

    def sigma(self, name: str) -> Tensor:
        """Widths of one weight."""
        return self.width * (SPEED * self.rho[_key(name)]).exp()

    def divergence(self, names: list[str], prior: float) -> Tensor:
        """KL(q || N(0, prior^2)) of these weights, in nats."""
        terms = []
        for name in names:
            mean, sigma = self.inner.get_parameter(name) / prior, self.sigma(name) / prior
            terms.append((0.5 * (sigma.square() + mean.square() - 1.0) - sigma.log()).sum())
        return torch.stack(terms).sum()

    def drawn(self, names: list[str], generator: torch.Generator) -> dict[str, Tensor]:
        """One draw of these weights."""
        return {name: self._draw(name, generator) for name in names}

    def _draw(self, name: str, generator: torch.Generator) -> Tensor:
        mean, sigma = self.inner.get_parameter(name), self.sigma(name)
        return mean + sigma * torch.randn(mean.shape, generator=generator, dtype=torch.float64).to(mean)

    @contextmanager
    def randomised(self, label: str, names: list[str], rows: int, generator: torch.Generator) -> Iterator[_Calls]:
        """``inner`` with random weights: local noise in the layers known for this loss, one draw for the batch of all other weights."""
        local = self.once.get(label, frozenset())
        calls = _Calls(self, names, rows, generator, local)
        shared = [name for name in names if name.rpartition(".")[0] not in local]
        with ExitStack() as stack:
            stack.enter_context(swapped(self.inner, self.drawn(shared, generator)))
            stack.enter_context(calls)
            yield calls


class _Calls:
    """Inside the block, linear layers with uncertain weights note how they are called, and the local ones add their noise."""

    def __init__(
        self, body: _Normal, names: list[str], rows: int, generator: torch.Generator, local: frozenset[str]
    ) -> None:
        self.body, self.rows, self.generator, self.local = body, rows, generator, local
        parts = dict(body.inner.named_modules())
        owners = {name.rpartition(".")[0] for name in names}
        self.layers = {owner: parts[owner] for owner in owners if type(parts[owner]) in LINEAR}
        self.uncertain = set(names)
        self.calls: dict[str, list[bool]] = {owner: [] for owner in self.layers}

    def __enter__(self) -> Self:
        for owner, layer in self.layers.items():
            layer.forward = MethodType(self._forward(owner, layer.forward), layer)
        return self

    def __exit__(self, *_: object) -> None:
        for layer in self.layers.values():
            del layer.forward

    def once(self) -> frozenset[str]:
        """Layers that were called once, with one row per event."""
        return frozenset(owner for owner, seen in self.calls.items() if seen == [True])

    def _forward(self, owner: str, plain: Any) -> Any:
        def forward(layer: Any, h: Tensor) -> Tensor:
            turned = not isinstance(layer, nn.Linear)
            self.calls[owner].append(h.ndim == 2 and h.shape[1 if turned else 0] == self.rows)
            out: Tensor = plain(h)
            return out + self._noise(owner, layer, h, turned, out) if owner in self.local else out

        return forward

    def _noise(self, owner: str, layer: Any, h: Tensor, turned: bool, out: Tensor) -> Tensor:
        """The spread of W h + b at independent weights for every event (local reparametrisation)."""
        variance = torch.zeros_like(out)
        if f"{owner}.weight" in self.uncertain:
            square = self.body.sigma(f"{owner}.weight").square()
            square = square * layer.mask if turned else square
            variance = square @ h.square() if turned else h.square() @ square.t()
        if f"{owner}.bias" in self.uncertain:
            square = self.body.sigma(f"{owner}.bias").square()
            variance = variance + (square[:, None] if turned else square)
        normal = torch.randn(out.shape, generator=self.generator, dtype=out.dtype).to(out)
        return (variance + 1e-30).sqrt() * normal


def _key(name: str) -> str:
    return name.replace(".", "/")


@dataclass(frozen=True)
class Variational(Posterior):
    r"""Every chosen weight is normal and independent, :math:`q(w) = \prod_i N(\mu_i, \sigma_i^2)` (Bayesian flows: arXiv:2104.04543).

    .. math:: L = E_q[L_{\text{family}}] + \frac{T}{N}\, \mathrm{KL}(q \,\|\, N(0, s^2))

    with N what the events are worth, :math:`(\sum w)^2 / \sum w^2`. In linear layers (masked ones too) that a loss calls once, with one
    row per event, every event has weights of its own, drawn as noise on the layer's output (local reparametrisation, arXiv:1506.02557),
    which makes gradients quiet; other weights are drawn once per batch. The weights at the end of training are kept: the divergence, and no
    validation loss, says when the fit is good enough. ``Variational(FlowMatching())`` is Bayesian flow matching.

    Mean-field widths are those of one weight given all others, and so too small where weights are correlated; a network with many more
    weights than the data can tell about is pulled to the prior. Check calibration.

    Parameters
    ----------
    family : any family that is trained by gradients.
    layers : patterns of the weights that are uncertain; all others are learnt as ever.
    draws : from q, after training.
    prior, temperature : s and T (T = 1 is the evidence lower bound for losses that are negative log-likelihoods).
    width : :math:`\sigma` at the beginning.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(200, 1))
    >>> family = pofx.SplineFlow(layers=1, hidden=(8,), bins=4)
    >>> model = Variational(family, draws=4).fit(x, training=pofx.Training(max_steps=20, seed=1))
    >>> model.density_band([[0.0]]).values.shape
    (4, 1)
    """

    name: ClassVar[str] = "variational"

    layers: tuple[str, ...] = ("*",)
    draws: int = 30
    prior: float = 1.0
    temperature: float = 1.0
    width: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "draws")
        check_at_least(self, 1e-12, "prior", "width")
        check_at_least(self, 0.0, "temperature")

    def build(self, layout: Layout) -> nn.Module:
        inner = self.family.build(layout)
        return _Normal(inner, Weights(inner, self.layers), self.draws, self.width)

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        names = Weights(self.family.build(layout), self.layers).names
        own = [self._phase(inside(phase, "inner"), phase, names) for phase in self.family.phases(layout)]
        return (data_phase(), *own, draws_phase(self._draw))

    def _phase(self, phase: Phase, plain: Phase, names: tuple[str, ...]) -> Phase:
        pairs = zip(phase.updates, plain.updates, strict=True)
        updates = tuple(self._update(update, own, names) for update, own in pairs)
        return replace(phase, updates=updates, keep="last" if updates else phase.keep)

    def _update(self, update: Update, plain: Update, names: tuple[str, ...]) -> Update:
        own = [name for name in names if any(fnmatchcase(name, pattern) for pattern in plain.parameters)]
        rho = tuple(f"rho.{_key(name)}" for name in own)
        return replace(update, loss=self._loss(update.name, plain.loss, own, names), parameters=update.parameters + rho)

    def _loss(self, label: str, loss: LossFunction, own: list[str], names: tuple[str, ...]) -> LossFunction:
        """E_q of the family's loss by one draw, with the divergence of the weights that this update moves."""
        drawn = list(names)

        def of_weights(body: Any, events: Events, noise: Noise) -> Loss:
            assert events.index is not None
            key = derive_seed(noise.seed, noise.scope, "weights", noise.step, int(events.index[0]))
            if label not in body.once:  # how the loss uses its layers is not known before it is evaluated
                with (
                    torch.no_grad(),
                    body.randomised(label, drawn, len(events), torch.Generator().manual_seed(key)) as calls,
                ):
                    loss(body.inner, events, noise)
                body.once[label] = calls.once()
            with body.randomised(label, drawn, len(events), torch.Generator().manual_seed(key)):
                found = loss(body.inner, events, noise)
            if not own:
                return found
            divergence = body.divergence(own, self.prior) / body.size
            extra = self.temperature * divergence + (0.0 if found.extra is None else found.extra)
            return replace(found, extra=extra, logs={**found.logs, "divergence per event": divergence})

        return of_weights

    def _draw(self, body: Any, generator: torch.Generator) -> Tensor:
        names = list(body.weights.names)
        return torch.stack([body.weights.join(body.drawn(names, generator)).detach() for _ in range(self.draws)])
