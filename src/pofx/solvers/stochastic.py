r"""SDE samplers whose noise is an input: Euler-Maruyama, and predictor-corrector.

Euler-Maruyama takes :math:`x \leftarrow x + f(t, x)\, h + g(t, x) \sqrt{|h|}\, z` for :math:`dx = f\, dt + g\, dW` in the sense of Ito,
with strong order 1/2 and weak order 1 (Kloeden, Platen, *Numerical Solution of Stochastic Differential Equations*, chapter 9). A step of
negative h integrates a reverse-time SDE.

The predictor-corrector sampler (arXiv:2011.13456, algorithm 1) takes one such step of the reverse-time SDE
:math:`dx = [f - g^2 s]\, dt + g\, d\bar{W}`, s the score :math:`\nabla \log p_t`, then steps of Langevin dynamics at the new time,

.. math:: x \leftarrow x + \epsilon\, s(t, x) + \sqrt{2 \epsilon}\, z , \qquad \epsilon = 2\, (r \|z\| / \|s\|)^2 ,

with r the signal-to-noise ratio of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pofx.config import check_at_least, check_choice
from pofx.errors import ConfigError, ShapeError
from pofx.solvers.base import (
    Rows,
    Solution,
    Times,
    VelocityField,
    check_count,
    check_end,
    check_state,
    column,
    evaluate,
    flat,
    is_traced,
    time_grid,
)
from pofx.solvers.noise import NoiseSource

__all__ = ["EulerMaruyama", "PredictorCorrector", "ScoreProcess"]

_ALL = slice(None)


@dataclass(frozen=True)
class ScoreProcess:
    r"""A diffusion from data to noise, :math:`dx = f(t, x)\, dt + g(t)\, dW`, and the score of its states.

    Attributes
    ----------
    drift : f; diffusion : g, ``(m,)``, a function of time alone; score : :math:`\nabla \log p_t(x)`. All are called as
        ``(t, x, rows)``.
    spread : width :math:`\sigma(t)` of the perturbation kernel :math:`p(x_t | x_0)`, ``(m,)`` to ``(m,)``.
    """

    drift: VelocityField
    diffusion: VelocityField
    score: VelocityField
    spread: Callable[[Tensor], Tensor]

    def reverse_drift(self, t: Tensor, x: Tensor, rows: Rows) -> Tensor:
        r"""Drift of the SDE that runs back, :math:`f - g^2 s` (Anderson 1982)."""
        return self.drift(t, x, rows) - column(self.diffusion(t, x, rows) ** 2, x) * self.score(t, x, rows)

    def probability_flow(self, t: Tensor, x: Tensor, rows: Rows) -> Tensor:
        r"""Velocity of the ODE with the same densities at all times, :math:`f - g^2 s / 2`: a field for the ODE solvers."""
        return self.drift(t, x, rows) - column(0.5 * self.diffusion(t, x, rows) ** 2, x) * self.score(t, x, rows)


@dataclass(frozen=True)
class EulerMaruyama:
    """Fixed steps of an SDE with diagonal noise.

    Parameters
    ----------
    steps : how many; a grid given to ``solve`` overrides it.
    noiseless_end : leave the noise out of the last step, as samplers do whose last step is a denoising one.

    >>> import torch
    >>> from pofx.solvers import GivenNoise
    >>> noise = GivenNoise({"predictor": torch.full((1, 4, 1), 2.0)})
    >>> drift, diffusion = lambda t, x, rows: -x, lambda t, x, rows: torch.ones_like(t)
    >>> EulerMaruyama(steps=1).solve(drift, diffusion, torch.ones(1, 1), 0.0, 0.25, noise=noise).x.item()
    1.75
    """

    steps: int
    noiseless_end: bool = False

    def __post_init__(self) -> None:
        check_count(self, "steps")

    def noise_shapes(self, *shape: int) -> dict[str, tuple[int, ...]]:
        """Shapes per event of the noise that :class:`pofx.solvers.GivenNoise` must hold for events of the given shape."""
        return {"predictor": (self.steps, *shape)}

    def solve(
        self,
        drift: VelocityField,
        diffusion: VelocityField,
        x: Tensor,
        t0: Times,
        t1: Times,
        *,
        noise: NoiseSource,
        grid: Tensor | Sequence[float] | None = None,
    ) -> Solution:
        """Integrate ``x``, ``(n, *shape)``, from t0 to t1, differentiably in x and what drift and diffusion hold.

        Parameters
        ----------
        drift : f, of the shape of x.
        diffusion : g, of shape ``(n,)`` or of the shape of x (each number with noise of its own).
        noise : of these n events; step k takes ``noise.at(k).normal("predictor", *shape)``. ``at`` replaces the source's own step: give
            the sampler a scope of its own.
        grid : times of the steps, ``(k + 1,)`` or ``(n, k + 1)``.

        Raises
        ------
        SolverError, ShapeError, ConfigError
            As for :meth:`pofx.solvers.Solver.solve`.
        """
        check_state(x)
        times = time_grid(x, t0, t1, grid, self.steps)
        last = len(times) - 2
        for k, (start, stop) in enumerate(pairwise(times)):
            quiet = self.noiseless_end and k == last
            x = _predict(self, drift, diffusion, x, (start, stop), None if quiet else noise.at(k))
        check_end(x, times[-1], _ALL, self)
        return _solution(self, x, times, len(times) - 1)


@dataclass(frozen=True)
class PredictorCorrector:
    r"""The predictor-corrector sampler of score models (arXiv:2011.13456), from noise to data.

    Parameters
    ----------
    steps : predictor steps; a grid given to ``solve`` overrides it.
    corrections : Langevin steps after each predictor step.
    snr : the signal-to-noise ratio r of a Langevin step.
    score_norm : what :math:`\|s\|` is in the size of a Langevin step; :math:`\|z\|` is the root of the number of dimensions, not
        counting padding, which has neither score nor noise. (The paper averages both over a batch, which makes samples depend on each
        other.) ``"spread"``: the expected norm of the kernel's score,
        :math:`\sqrt{d} / \sigma(t)`, so that :math:`\epsilon = 2 r^2 \sigma(t)^2`. ``"score"``: the norm at the sample itself, as in
        the paper's algorithms 4 and 5; for many dimensions, where it hardly fluctuates. In few the step would depend on the
        state, and Langevin dynamics would no longer leave the density alone.
    noiseless_end : end with a predictor step without noise and without corrections.
    """

    steps: int
    corrections: int = 1
    snr: float = 0.16
    score_norm: str = "spread"
    noiseless_end: bool = False

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_count(self, "corrections", least=0)
        check_at_least(self, 0.0, "snr")
        check_choice(self, "score_norm", ("spread", "score"))

    def noise_shapes(self, *shape: int) -> dict[str, tuple[int, ...]]:
        """Shapes per event of the noise that :class:`pofx.solvers.GivenNoise` must hold for events of the given shape."""
        return {"predictor": (self.steps, *shape), "corrector": (self.steps, self.corrections, *shape)}

    def solve(
        self,
        process: ScoreProcess,
        x: Tensor,
        t0: Times,
        t1: Times,
        *,
        noise: NoiseSource,
        grid: Tensor | Sequence[float] | None = None,
    ) -> Solution:
        """Integrate ``x``, ``(n, *shape)``, from t0 back to t1 < t0, where the score is still finite.

        Step k takes ``normal("predictor", *shape)`` and ``normal("corrector", corrections, *shape)`` from ``noise.at(k)``; the rest as
        for :meth:`EulerMaruyama.solve`. Evaluations count those of the score.
        """
        check_state(x)
        times = time_grid(x, t0, t1, grid, self.steps)
        if not is_traced() and bool((times[-1] >= times[0]).any()):
            raise ConfigError("expected times that go back, from noise (t0) to data (t1 < t0)")
        last, evaluations = len(times) - 2, 0
        for k, (start, stop) in enumerate(pairwise(times)):
            drawn = None if self.noiseless_end and k == last else noise.at(k)
            x = _predict(self, process.reverse_drift, process.diffusion, x, (start, stop), drawn)
            evaluations += 1
            if drawn is not None and self.corrections:
                x = self._correct(process, x, stop, drawn)
                evaluations += self.corrections
        check_end(x, times[-1], _ALL, self)
        return _solution(self, x, times, evaluations)

    def _correct(self, process: ScoreProcess, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        """Langevin steps at one time."""
        for z in noise.normal("corrector", self.corrections, *x.shape[1:]).to(x.dtype).unbind(1):
            score = evaluate(process.score, t, x, _ALL, self)
            epsilon = 2.0 * (self.snr * self._ratio(process, t, score, z)) ** 2
            x = x + column(epsilon, x) * score + column((2.0 * epsilon).sqrt(), x) * z
        return x

    def _ratio(self, process: ScoreProcess, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
        """The norm of the noise over that of the score, ``(n,)``."""
        if self.score_norm == "spread":
            return process.spread(t.to(score.dtype))
        norm = flat(score).norm(dim=1).clamp(min=torch.finfo(score.dtype).tiny)
        real = (flat(score) != 0.0) | (flat(z) != 0.0)
        return real.sum(1).to(norm.dtype).sqrt() / norm


def _predict(
    owner: object,
    drift: VelocityField,
    diffusion: VelocityField,
    x: Tensor,
    times: tuple[Tensor, Tensor],
    noise: NoiseSource | None,
) -> Tensor:
    """One step of Euler-Maruyama; of Euler without noise."""
    start, stop = times
    moved = x + column(stop - start, x) * evaluate(drift, start, x, _ALL, owner)
    if noise is None:
        return moved
    z = noise.normal("predictor", *x.shape[1:]).to(x.dtype)
    return moved + _strength(diffusion, start, x) * column((stop - start).abs().sqrt(), x) * z


def _strength(diffusion: VelocityField, t: Tensor, x: Tensor) -> Tensor:
    """g, to be multiplied with x."""
    g = diffusion(t.to(x.dtype), x, _ALL)
    if g.shape not in (x.shape, x.shape[:1]):
        raise ShapeError(f"expected a diffusion of shape ({x.shape[0]},) or {tuple(x.shape)}; got {tuple(g.shape)}")
    return g if g.shape == x.shape else column(g, x)


def _solution(owner: object, x: Tensor, times: Tensor, evaluations: int) -> Solution:
    counts = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    return Solution(
        x=x,
        t=times[-1],
        status=counts,
        evaluations=counts + evaluations,
        accepted=counts + (len(times) - 1),
        rejected=counts,
        solver=repr(owner),
    )
