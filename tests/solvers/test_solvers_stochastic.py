"""SDE samplers against closed forms: moments, strong order, reverse-time processes, steps by hand, noise as an input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from scipy.stats import chi2, kstest, norm
from solver_problems import states
from torch import Tensor

from pofx.config import from_plain, to_plain
from pofx.errors import ConfigError, ShapeError, SolverError
from pofx.solvers import DormandPrince, EulerMaruyama, GivenNoise, PredictorCorrector, ScoreProcess
from pofx.training.noise import Noise

THETA, SIGMA = 1.5, 0.8


def pull(t: Tensor, x: Tensor, rows: Any) -> Tensor:
    """Drift of the Ornstein-Uhlenbeck process."""
    return -THETA * x


def constant(t: Tensor, x: Tensor, rows: Any) -> Tensor:
    return torch.full_like(t, SIGMA)


def noise_of(n: int, seed: int = 1) -> Noise:
    return Noise(seed, torch.arange(n), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 8, 40])
def test_ornstein_uhlenbeck_moments(steps: int) -> None:
    """Mean and variance of the discrete process in closed form, over 2 x 20000 numbers; p > 0.01 / 12 each."""
    n, t = 20_000, 1.0
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64).expand(n, 2)
    found = EulerMaruyama(steps).solve(pull, constant, x, 0.0, t, noise=noise_of(n)).x
    h = t / steps
    keep = (1.0 - THETA * h) ** 2
    variance = SIGMA**2 * h * sum(keep**k for k in range(steps))
    for i in range(2):
        z = float(found[:, i].mean() - x[0, i] * (1.0 - THETA * h) ** steps) / math.sqrt(variance / n)
        assert 2.0 * norm.sf(abs(z)) > 0.01 / 12
        tail = chi2.cdf(float(found[:, i].var()) * (n - 1) / variance, n - 1)
        assert 2.0 * min(tail, 1.0 - tail) > 0.01 / 12


def test_weak_order_is_one() -> None:
    """Moments converge to those of the process itself: a bias that halves with the step, seen with the same final noise law."""
    exact = SIGMA**2 * (1.0 - math.exp(-2.0 * THETA)) / (2.0 * THETA)
    n, biases = 100_000, []
    for steps in (4, 8):
        found = EulerMaruyama(steps).solve(pull, constant, torch.zeros(n, 1).double(), 0.0, 1.0, noise=noise_of(n)).x
        biases.append(float(found.var()) - exact)
    error = exact * math.sqrt(2.0 / n)
    assert biases[1] > 4.0 * error
    assert biases[0] / biases[1] == pytest.approx(2.4, abs=0.4)  # 2 to leading order; 2.39 in closed form


@dataclass(frozen=True)
class Brownian:
    """Increments of one Brownian path, seen with fewer steps: sums of ``every`` neighbours, scaled to unit variance."""

    fine: Tensor
    every: int
    step: int = 0

    def normal(self, name: str, *shape: int) -> Tensor:
        first = self.step * self.every
        return self.fine[:, first : first + self.every].sum(1) / math.sqrt(self.every)

    def at(self, step: int) -> Brownian:
        return Brownian(self.fine, self.every, step)


def test_strong_order_is_one_half() -> None:
    """Geometric Brownian motion, whose noise depends on the state, along the same paths with steps of four lengths."""
    n, fine, mu, sigma = 4000, 256, 0.5, 1.0
    z = noise_of(n).normal("path", fine, 1)
    x = torch.ones(n, 1, dtype=torch.float64)
    exact = ((mu - sigma**2 / 2.0) + sigma * z.sum(1) / math.sqrt(fine)).exp()
    errors = []
    for steps in (8, 16, 32, 64):
        found = EulerMaruyama(steps).solve(
            lambda t, x, rows: mu * x, lambda t, x, rows: sigma * x, x, 0.0, 1.0, noise=Brownian(z, fine // steps)
        )
        errors.append(float((found.x - exact).abs().mean()))
    slope = math.log2(errors[0] / errors[-1]) / 3.0
    assert slope == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (5, 2, 2)])
def test_a_step_by_hand_for_any_shape(shape: tuple[int, ...]) -> None:
    """Both solvers on a grid of two steps, back in time, against the equations written out."""
    x, z = states(6, *shape), states(6, 2, *shape, seed=2)
    w = states(6, 2, 1, *shape, seed=3)
    noise = GivenNoise({"predictor": z, "corrector": w})
    process = ScoreProcess(
        drift=lambda t, x, rows: -x * t.reshape(-1, *[1] * len(shape)),
        diffusion=lambda t, x, rows: 1.0 + t,
        score=lambda t, x, rows: -x.sin(),
        spread=lambda t: 0.5 + t,
    )
    grid = [1.0, 0.6, 0.1]
    for kind in ("spread", "score"):
        y = x
        for k, (t, s) in enumerate(((1.0, 0.6), (0.6, 0.1))):
            y = y + (s - t) * (-y * t - (1.0 + t) ** 2 * -y.sin()) + (1.0 + t) * math.sqrt(t - s) * z[:, k]
            score = -y.sin()
            size = score.flatten(1).norm(dim=1).reshape(-1, *[1] * len(shape))
            ratio = 0.5 + s + 0.0 * size if kind == "spread" else math.sqrt(math.prod(shape)) / size
            epsilon = 2.0 * (0.2 * ratio) ** 2
            y = y + epsilon * score + (2.0 * epsilon).sqrt() * w[:, k, 0]
        found = PredictorCorrector(steps=2, snr=0.2, score_norm=kind).solve(
            process, x, 1.0, 0.1, noise=noise, grid=grid
        )
        assert (found.x - y).abs().max() < 1e-12
        assert found.evaluations.tolist() == [4] * 6
    plain = EulerMaruyama(steps=2).solve(process.reverse_drift, process.diffusion, x, 1.0, 0.1, noise=noise, grid=grid)
    other = PredictorCorrector(steps=2, corrections=0).solve(process, x, 1.0, 0.1, noise=noise, grid=grid)
    assert torch.equal(plain.x, other.x)


class Clusters:
    """Data at -2 and 2 with widths 0.1 and 0.4; noise is added with sigma(t) = 0.02 (400)^t (variance exploding)."""

    low, high = 0.02, 8.0
    centres = torch.tensor([-2.0, 2.0], dtype=torch.float64)
    widths = torch.tensor([0.1, 0.4], dtype=torch.float64)
    shares = torch.tensor([0.7, 0.3], dtype=torch.float64)

    def spread(self, t: Tensor) -> Tensor:
        return self.low * (self.high / self.low) ** t

    def score(self, t: Tensor, x: Tensor, rows: Any) -> Tensor:
        variance = self.widths**2 + self.spread(t)[:, None] ** 2
        away = self.centres - x
        posterior = (self.shares.log() - 0.5 * variance.log() - 0.5 * away**2 / variance).softmax(1)
        return (posterior * away / variance).sum(1, keepdim=True)

    def diffusion(self, t: Tensor, x: Tensor, rows: Any) -> Tensor:
        return self.spread(t) * math.sqrt(2.0 * math.log(self.high / self.low))

    def process(self) -> ScoreProcess:
        return ScoreProcess(lambda t, x, rows: torch.zeros_like(x), self.diffusion, self.score, self.spread)

    def cdf(self, x: Any, sigma: float) -> Any:
        parts = zip(self.centres, self.widths, self.shares, strict=True)
        return sum(float(s) * norm.cdf(x, float(c), math.hypot(float(w), sigma)) for c, w, s in parts)

    def start(self, n: int) -> Tensor:
        """The law at t = 1, exactly."""
        noise = noise_of(n, seed=5)
        which = (noise.uniform("which", 1) > 0.7).long()
        return self.centres[which] + (self.widths[which] ** 2 + self.high**2).sqrt() * noise.normal("start", 1)


def test_reverse_time_sampler_draws_the_data() -> None:
    """300 steps of Euler-Maruyama back to t = 0 give the law there; p > 0.01 / 2. So does the probability flow."""
    law, n = Clusters(), 4000
    process, x = law.process(), law.start(4000)
    found = EulerMaruyama(300).solve(process.reverse_drift, process.diffusion, x, 1.0, 0.0, noise=noise_of(n)).x
    assert kstest(found[:, 0].numpy(), lambda v: law.cdf(v, law.low)).pvalue > 0.01 / 2
    flow = DormandPrince(rtol=1e-4, atol=1e-5).solve(process.probability_flow, x, 1.0, 0.0).check().x
    assert kstest(flow[:, 0].numpy(), lambda v: law.cdf(v, law.low)).pvalue > 0.01 / 2


def test_corrector_repairs_few_predictor_steps() -> None:
    """With 8 predictor steps the law is wrong; corrections bring it closer, and closer the more there are."""
    law, n = Clusters(), 4000
    away = []
    for corrections in (0, 2, 5):
        sampler = PredictorCorrector(steps=8, corrections=corrections, snr=0.3)
        found = sampler.solve(law.process(), law.start(n), 1.0, 0.0, noise=noise_of(n)).x
        away.append(kstest(found[:, 0].numpy(), lambda v: law.cdf(v, law.low)).statistic)
    assert away[0] > 4.0 * 1.63 / math.sqrt(n)  # beyond p = 0.01 four times over
    assert away[1] < 0.85 * away[0]
    assert away[2] < 0.85 * away[1]


def test_langevin_step_leaves_the_law_alone() -> None:
    """Corrections alone, at a width that varies little over the density: the law stays (up to the step's bias, far below)."""
    law, n = Clusters(), 4000
    still = ScoreProcess(
        lambda t, x, rows: torch.zeros_like(x), lambda t, x, rows: 0.0 * t, law.score, lambda t: torch.full_like(t, 0.1)
    )
    which = (noise_of(n, 7).uniform("which", 1) > 0.7).long()
    x = law.centres[which] + (law.widths[which] ** 2 + law.spread(torch.zeros(1)) ** 2).sqrt() * noise_of(n, 7).normal(
        "x", 1
    )
    sampler = PredictorCorrector(steps=30, corrections=2, snr=0.1)
    found = sampler.solve(still, x.double(), 1e-9, 0.0, noise=noise_of(n)).x
    assert (found - x).abs().mean() > 0.05
    assert kstest(found[:, 0].numpy(), lambda v: law.cdf(v, law.low)).pvalue > 0.01


def test_padding_does_not_lengthen_langevin_steps_and_a_score_of_zero_counts() -> None:
    """Two numbers, one of them with a score of exactly zero, alone and beside 28 that have neither score nor noise."""
    found = []
    for size in (2, 30):
        first = torch.arange(size) == 0
        process = ScoreProcess(
            lambda t, x, rows: 0.0 * x,
            lambda t, x, rows: 0.0 * t,
            lambda t, x, rows, first=first: torch.where(first, -x, 0.0),
            lambda t: 1.0 + t,
        )
        x, w = torch.zeros(5, size).double(), torch.zeros(5, 3, 1, size).double()
        x[:, :2], w[..., :2] = states(5, 2), states(5, 3, 1, 2, seed=2)
        noise = GivenNoise({"predictor": torch.zeros_like(w[:, :, 0]), "corrector": w})
        found.append(PredictorCorrector(steps=3, score_norm="score").solve(process, x, 1.0, 0.1, noise=noise).x)
    assert (found[1][:, :2] - found[0]).abs().max() < 1e-10
    assert not bool(found[1][:, 2:].any())
    epsilon = 2.0 * (0.16 * math.sqrt(2.0) / x[:, 0].abs()) ** 2  # of the first step
    y = x[:, :2] + epsilon[:, None] * torch.stack([-x[:, 0], 0.0 * x[:, 0]], 1)
    y = y + (2.0 * epsilon).sqrt()[:, None] * w[:, 0, 0, :2]
    one = GivenNoise({"predictor": torch.zeros_like(w[:, :1, 0]), "corrector": w[:, :1]})
    end = PredictorCorrector(steps=1, score_norm="score").solve(process, x, 1.0, 0.1, noise=one).x
    assert (end[:, :2] - y).abs().max() < 1e-12


def test_noise_belongs_to_event_and_step() -> None:
    """Bit for bit the same in any batch, from keyed noise and from the same noise given."""
    law, n = Clusters(), 50
    sampler, x = PredictorCorrector(steps=6, corrections=2), law.start(50)

    def solve(index: Tensor) -> Tensor:
        noise = Noise(9, index, dtype=torch.float64, scope="sampler")
        return sampler.solve(law.process(), x[index], 1.0, 0.0, noise=noise).x

    whole = solve(torch.arange(n))
    assert torch.equal(solve(torch.arange(20, 27)), whole[20:27])
    assert torch.equal(solve(torch.arange(n - 1, -1, -1)), whole.flip(0))
    keyed = Noise(9, torch.arange(n), dtype=torch.float64, scope="sampler")
    shapes = sampler.noise_shapes(1)
    given = {name: torch.stack([keyed.at(k).normal(name, *shapes[name][1:]) for k in range(6)], 1) for name in shapes}
    assert all(given[name].shape == (n, *shapes[name]) for name in shapes)
    assert torch.equal(sampler.solve(law.process(), x, 1.0, 0.0, noise=GivenNoise(given)).x, whole)


def test_noiseless_end() -> None:
    """The last step is the drift's alone."""
    x, noise = states(4, 2), noise_of(4)
    ends = EulerMaruyama(steps=1, noiseless_end=True).solve(pull, constant, x, 0.0, 0.1, noise=noise)
    assert (ends.x - (1.0 - 0.1 * THETA) * x).abs().max() < 1e-15
    law = Clusters()
    quiet = PredictorCorrector(steps=3, noiseless_end=True).solve(law.process(), law.start(4), 1.0, 0.0, noise=noise)
    assert quiet.evaluations.tolist() == [5] * 4


def test_gradients_by_drift_and_start() -> None:
    """The discrete Ornstein-Uhlenbeck process is linear in x0, with a derivative by theta that differences confirm."""
    theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    x = states(5, 2).requires_grad_()

    def end(rate: Tensor) -> Tensor:
        return EulerMaruyama(10).solve(lambda t, x, rows: -rate * x, constant, x, 0.0, 1.0, noise=noise_of(5)).x.sum()

    by_x, by_theta = torch.autograd.grad(end(theta), [x, theta])
    assert (by_x - (1.0 - 0.1 * THETA) ** 10).abs().max() < 1e-12
    with torch.no_grad():
        difference = (end(theta + 1e-5) - end(theta - 1e-5)) / 2e-5
    assert float(by_theta) == pytest.approx(float(difference), rel=1e-7)


def test_what_is_refused() -> None:
    x, law, noise = states(3, 1), Clusters(), noise_of(3)
    for wrong in ({"steps": 0}, {"steps": 2, "corrections": -1}, {"steps": 2, "corrections": 0.5}):
        with pytest.raises(ConfigError):
            PredictorCorrector(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="score_norm"):
        PredictorCorrector(steps=2, score_norm="batch")
    with pytest.raises(ConfigError, match="times that go back"):
        PredictorCorrector(steps=2).solve(law.process(), x, 0.0, 1.0, noise=noise)
    with pytest.raises(ShapeError, match="diffusion of shape"):
        EulerMaruyama(2).solve(pull, lambda t, x, rows: torch.ones(2), x, 0.0, 1.0, noise=noise)
    bad = lambda t, x, rows: torch.where((torch.arange(3) == 1) & (t > 0.4), torch.nan, 0.0)[:, None]  # noqa: E731
    with pytest.raises(SolverError, match=r"EulerMaruyama: the field is nan at t = 0\.5 for sample 1"):
        EulerMaruyama(2).solve(bad, constant, x, 0.0, 1.0, noise=noise)
    with pytest.raises(SolverError, match="state is nan"):
        EulerMaruyama(1).solve(pull, lambda t, x, rows: t * torch.nan, x, 0.0, 1.0, noise=noise)
    for values in ({}, {"predictor": torch.zeros(3, 1, 1)}, {"predictor": torch.zeros(3, 2, 4)}):
        with pytest.raises(ShapeError, match="predictor"):
            EulerMaruyama(2).solve(pull, constant, x, 0.0, 1.0, noise=GivenNoise(values))


@pytest.mark.parametrize("sampler", [EulerMaruyama(3, noiseless_end=True), PredictorCorrector(4, 2, snr=0.1)])
def test_settings_survive_a_saved_model(sampler: Any) -> None:
    assert from_plain(to_plain(sampler)) == sampler
