r"""Markov chains that leave :math:`\pi(\theta) \propto e^{-U(\theta)}` invariant, guided by the gradient of U: steps of AdamMCMC and SGHMC.

They know nothing of networks: a position is a tensor ``(chains, P)``, and an energy a function from positions to U ``(chains,)`` and its
gradient. The state of a chain is a dictionary of tensors, so that it is saved and resumed with everything else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pofx.config import check_at_least, check_between, check_choice
from pofx.errors import ConfigError

__all__ = ["AdamKernel", "Chain", "Energy", "HamiltonianKernel", "Kernel", "State", "run_chain"]

Point = tuple[Tensor, Tensor]
"""U ``(chains,)`` and its gradient ``(chains, P)``."""

Energy = Callable[[Tensor], Point]
State = dict[str, Tensor]


class Kernel(ABC):
    """One step of a Markov chain."""

    burn_in: int

    @abstractmethod
    def start(self, position: Tensor) -> State:
        """The state before the first step; ``"step"`` counts the steps."""

    @abstractmethod
    def step(self, position: Tensor, here: Point, energy: Energy, state: State, generator: torch.Generator) -> Tensor:
        """The next position, from this one and U and its gradient here; the state moves along."""


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64).to(like)


def _damped(square: Tensor) -> Tensor:
    """Roots, with a tenth of their mean added: a direction without a gradient is not one of boundless steps."""
    root = square.sqrt()
    return root + 0.1 * root.mean(1, keepdim=True) + 1e-30


@dataclass(frozen=True)
class AdamKernel(Kernel):
    r"""A Metropolis-Hastings step with a proposal along Adam's direction (arXiv:2312.14027), with a correct acceptance.

    .. math::
        \tau \sim N(\theta - u(\theta), \Sigma(\theta)), \quad u = \eta A \odot [(1 - \alpha)\, m + \alpha\, \nabla U(\theta)], \quad
        \Sigma = \sigma^2 S + \sigma_u^2\, u u^T

    with Adam's moments m, v of earlier gradients, :math:`\alpha = 1 - \beta_1`, :math:`A = 1/(\sqrt{v} + \epsilon)` with epsilon a tenth of
    the mean of :math:`\sqrt v`, and S = A over its mean (``noise="adam"``) or one (``"isotropic"``, as in the paper). A proposal is
    accepted with probability :math:`\min(1, e^{U(\theta) - U(\tau)}\, q(\theta | \tau) / q(\tau | \theta))`. Against the published code:
    the noise along u is one number per step, as the rank-one covariance says; the way back has the direction :math:`u(\tau)` of its own
    start; and the determinant enters with its factor 1/2, as it no longer cancels.

    The first half of ``burn_in`` is that. As m and v depend on where the chain has been, a chain that went on so would not converge to
    :math:`\pi`: afterwards v changes ever more slowly (a running mean; diminishing adaptation, doi:10.1239/jap/1183667414), and m, whose
    mean is zero in equilibrium, is left out, so that u is the gradient in Adam's scale. Sigma is tuned in both halves, and then stays.

    Parameters
    ----------
    sigma : :math:`\sigma`; where ``acceptance`` is given, only its first value.
    learning_rate : :math:`\eta`; None makes the current gradient's share of u the drift of Langevin
        dynamics, :math:`\sigma^2 S \nabla U / 2`.
    direction : :math:`\sigma_u`.
    betas : decays of the two moments.
    noise : ``"adam"`` or ``"isotropic"``.
    acceptance : rate that sigma is tuned to during ``burn_in`` (Robbins-Monro); None leaves sigma alone.
    burn_in : steps.
    """

    sigma: float = 0.02
    learning_rate: float | None = None
    direction: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    noise: str = "adam"
    acceptance: float | None = 0.5
    burn_in: int = 1000

    def __post_init__(self) -> None:
        check_at_least(self, 1e-12, "sigma")
        check_at_least(self, 0, "direction", "burn_in")
        check_choice(self, "noise", ("adam", "isotropic"))
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"AdamKernel: betas must be two numbers in [0, 1); got {self.betas!r}")
        if self.learning_rate is not None:
            check_at_least(self, 0, "learning_rate")
        if self.acceptance is not None:
            check_between(self, 0.05, 0.95, "acceptance")

    def start(self, position: Tensor) -> State:
        per_chain = position.new_zeros(len(position), 1)
        return {
            "step": torch.zeros((), dtype=torch.int64),
            "m": torch.zeros_like(position),
            "v": torch.zeros_like(position),
            "share": torch.full_like(per_chain, 1.0 - self.betas[0]),
            "log_sigma": per_chain + math.log(self.sigma),
            "accepted": per_chain.clone(),
        }

    def step(self, position: Tensor, here: Point, energy: Energy, state: State, generator: torch.Generator) -> Tensor:
        if int(state["step"]) == 0:
            state["m"].copy_(here[1])
            state["v"].copy_(here[1].square())
        scale, variance, rate = self._scales(state)
        u = self._direction(here[1], scale, rate, state)
        along = _normal(u[:, :1], generator)
        proposal = position - u + variance.sqrt() * _normal(position, generator) + self.direction * along * u
        there = energy(proposal)
        back = self._direction(there[1], scale, rate, state)
        moved = proposal - position
        ratio = here[0] - there[0] + self._log_q(-moved + back, back, variance) - self._log_q(moved + u, u, variance)
        chance = ratio.nan_to_num(nan=-math.inf).clamp(max=0.0).exp()[:, None]
        accept = _uniform(chance, generator) < chance
        self._adapt(state, torch.where(accept, there[1], here[1]), chance, accept)
        return torch.where(accept, proposal, position)

    def _scales(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """A; the diagonal of sigma^2 S; eta: functions of the past alone, the same for both ways."""
        scale = 1.0 / _damped(state["v"])
        relative = scale / scale.mean(1, keepdim=True)
        square = (2.0 * state["log_sigma"]).exp()
        variance = square * (relative if self.noise == "adam" else torch.ones_like(relative))
        langevin = square / (2.0 * state["share"] * scale.mean(1, keepdim=True))
        return scale, variance, langevin if self.learning_rate is None else torch.full_like(square, self.learning_rate)

    def _direction(self, gradient: Tensor, scale: Tensor, rate: Tensor, state: State) -> Tensor:
        return rate * scale * torch.lerp(state["m"], gradient, state["share"])

    def _log_q(self, residual: Tensor, u: Tensor, variance: Tensor) -> Tensor:
        """log N(residual; 0, Sigma) up to what is the same for both ways, by the Sherman-Morrison formula."""
        inverse = 1.0 / variance
        strength = self.direction**2 * (u.square() * inverse).sum(1)
        plain = (residual.square() * inverse).sum(1)
        along = self.direction**2 * (u * residual * inverse).sum(1).square() / (1.0 + strength)
        return -0.5 * (strength.log1p() + plain - along)

    def _adapt(self, state: State, gradient: Tensor, chance: Tensor, accept: Tensor) -> None:
        step, half = int(state["step"]), self.burn_in // 2
        late = max(step - half, 0)
        state["m"].lerp_(gradient, max(1.0 - self.betas[0], 1.0 / (step + 2)))
        state["v"].lerp_(
            gradient.square(), max(1.0 / (1.0 / (1.0 - self.betas[1]) + late), 0.0 if late else 1.0 / (step + 2))
        )
        if step < self.burn_in and self.acceptance is not None:
            since = step if step < half else late
            state["log_sigma"].add_((chance - self.acceptance) * (since + 1) ** -0.5)
        if step + 1 >= half:
            state["share"].fill_(1.0)
        state["accepted"].add_(accept.to(state["accepted"].dtype))
        state["step"].add_(1)


@dataclass(frozen=True)
class HamiltonianKernel(Kernel):
    r"""Stochastic-gradient Hamiltonian Monte Carlo (arXiv:1402.4102) as Langevin dynamics with momentum, of second order in the step.

    .. math::
        p \leftarrow p - h \nabla U(\theta), \quad \theta \leftarrow \theta + \tfrac{h}{2} M^{-1} p, \quad
        p \leftarrow e^{-\gamma h} p + \sqrt{1 - e^{-2 \gamma h}}\, M^{1/2} \xi, \quad \theta \leftarrow \theta + \tfrac{h}{2} M^{-1} p

    One gradient per step (the splitting BAOAB, doi:10.1093/amrx/abs010, whose positions are exact for a quadratic U, whatever h). There
    is no accept-or-reject, so other energies are sampled with an error of order h^2. Gradients of mini-batches add noise of variance
    h^2 V, estimated during ``burn_in``, to the momentum: the injected noise is less by
    :math:`(1 + e^{-2 \gamma h})\, h^2 V / 2`, such that momenta are right on average over the two drifts of a step (``subtract``).

    Parameters
    ----------
    step_size : h, in units of the inverse root of the mass's curvature; of the order of a tenth of the shortest period over 2 pi.
    friction : :math:`\gamma h`, what is forgotten of the momentum per step.
    precondition : M is the root mean square of gradients (over its mean) from the second half of ``burn_in`` on, and one before.
    subtract : take gradient noise, V, off the injected noise.
    burn_in : steps.
    """

    step_size: float = 0.01
    friction: float = 0.05
    precondition: bool = True
    subtract: bool = False
    burn_in: int = 1000

    def __post_init__(self) -> None:
        check_at_least(self, 1e-12, "step_size")
        check_between(self, 1e-6, 20.0, "friction")
        check_at_least(self, 0, "burn_in")

    def start(self, position: Tensor) -> State:
        return {
            "step": torch.zeros((), dtype=torch.int64),
            "momentum": torch.zeros_like(position),
            "m": torch.zeros_like(position),
            "v": torch.zeros_like(position),
        }

    def step(self, position: Tensor, here: Point, energy: Energy, state: State, generator: torch.Generator) -> Tensor:
        self._adapt(state, here[1])
        mass = self._mass(state)
        h, keep = self.step_size, math.exp(-self.friction)
        momentum = state["momentum"] - h * here[1]
        half = position + 0.5 * h * momentum / mass
        injected = (1.0 - keep**2) * mass
        if self.subtract:
            spread = (state["v"] - state["m"].square()).clamp(min=0.0)
            injected = (injected - 0.5 * (1.0 + keep**2) * h**2 * spread).clamp(min=0.0)
        momentum = keep * momentum + injected.sqrt() * _normal(position, generator)
        state["momentum"].copy_(momentum)
        return half + 0.5 * h * momentum / mass

    def _mass(self, state: State) -> Tensor:
        if not self.precondition or int(state["step"]) <= self.burn_in // 2:
            return torch.ones_like(state["v"])
        root = _damped(state["v"])
        return root / root.mean(1, keepdim=True)

    def _adapt(self, state: State, gradient: Tensor) -> None:
        """Moments of the gradient while burning in; afterwards they, and so mass and noise, are what they are."""
        step = int(state["step"])
        if step < max(self.burn_in, 1):
            gain = max(0.01, 1.0 / (step + 1))
            state["m"].lerp_(gradient, gain)
            state["v"].lerp_(gradient.square(), gain)
        state["step"].add_(1)


@dataclass(frozen=True)
class Chain:
    """Positions ``(kept, chains, P)`` after burn-in, and the share of accepted proposals (None where all are)."""

    positions: Tensor
    acceptance: float | None


def run_chain(
    kernel: Kernel, log_density: Callable[[Tensor], Tensor], start: Tensor, *, steps: int, seed: int, thin: int = 1
) -> Chain:
    """Run chains on a plain log-density.

    Parameters
    ----------
    kernel : with its ``burn_in``, after which positions are kept.
    log_density : ``(chains, P)`` to ``(chains,)``, differentiable, up to a constant.
    start : ``(chains, P)``.
    steps : after burn-in; every ``thin``-th position is kept.
    seed : of the noise.

    >>> chain = run_chain(AdamKernel(burn_in=200), lambda x: -0.5 * x.square().sum(1), torch.zeros(50, 3), steps=200, seed=1)
    >>> bool((chain.positions.var((0, 1)) - 1).abs().max() < 0.2)
    True
    """
    generator = torch.Generator().manual_seed(seed)

    def energy(position: Tensor) -> Point:
        with torch.enable_grad():
            at = position.detach().requires_grad_()
            value = -log_density(at)
            return value.detach(), torch.autograd.grad(value.sum(), at)[0]

    position, state, kept = start.clone(), kernel.start(start), []
    here = energy(position)
    for step in range(kernel.burn_in + steps):
        if step == kernel.burn_in and "accepted" in state:
            state["accepted"].zero_()
        position = kernel.step(position, here, energy, state, generator)
        here = energy(position)
        if step >= kernel.burn_in and (step - kernel.burn_in) % thin == 0:
            kept.append(position)
    rate = float(state["accepted"].mean()) / steps if "accepted" in state else None
    return Chain(torch.stack(kept), rate)
