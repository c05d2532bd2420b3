"""ODE solvers: agreement with scipy's solve_ivp, orders, rows against torchdiffeq's at equal accuracy, densities in closed form.

scipy: largest difference over samples and numbers, forwards and back in time, at tolerance 1e-9 (scipy: 1e-11). Rows: those that the field
is given, on the batches of `benchmarks/solvers.py`; torchdiffeq's over ours at the largest error of any sample, the smallest ratio over our
tolerances from 1e-3 to 1e-8; mean and standard error over three seeds. Densities: largest error of a log-density over 500 events when the
network is the analytic velocity field of a Gaussian or a mixture, at tolerance 1e-7 (others beside it); exact trace.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from common import Row
from measuring import Sheet, mean, parser
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from pofx.solvers import RK4, DormandPrince, Euler, Heun, Midpoint, log_density_ode, rademacher, transport
from pofx.training.noise import Noise

solvers: Any = importlib.import_module("solvers")  # measuring says where

NAME = "04_solver"
SEEDS, SEED = (1, 2, 3), 1
AGREEMENT, RATIO, DENSITY = 1e-6, 2.0, 1e-4
ORDERS = {Euler: 1, Midpoint: 2, Heun: 2, RK4: 4, DormandPrince: 5}
OFF_ORDER = 0.2
Field = Callable[[Tensor, Tensor, Any], Tensor]


# Agreement with scipy


def lotka_volterra(_t: Tensor, x: Tensor, _rows: Any) -> Tensor:
    """Prey and predator."""
    a, b = x.unbind(1)
    return torch.stack([1.5 * a - a * b, -3.0 * b + a * b], 1)


def forced_pendulum(t: Tensor, x: Tensor, _rows: Any) -> Tensor:
    """q'' = -sin q - q' / 10 + cos(2 t): nonlinear, with time in it."""
    q, p = x.unbind(1)
    return torch.stack([p, -q.sin() - 0.1 * p + (2.0 * t).cos()], 1)


def scipy_problems(n: int) -> dict[str, tuple[Field, Tensor, float]]:
    """Field, states, end; all start at t = 0."""
    rng = np.random.default_rng(SEED)
    x = torch.from_numpy(rng.normal(size=(n, 2)))
    mu = torch.from_numpy(10.0 ** rng.uniform(-1.0, 1.0, n))

    def van_der_pol(_t: Tensor, x: Tensor, rows: Any) -> Tensor:
        q, p = x.unbind(1)
        return torch.stack([p, mu[rows] * (1.0 - q**2) * p - q], 1)

    return {
        "Lotka-Volterra": (lotka_volterra, 1.0 + x.abs(), 4.0),
        "van der Pol, mu 0.1 to 10": (van_der_pol, x, 3.0),
        "forced pendulum": (forced_pendulum, x, 5.0),
    }


def agreement(name: str, method: str, n: int) -> Row:
    """Largest difference at the end, and, from scipy's end back, at the start."""
    field, x, end = scipy_problems(n)[name]
    ends = torch.stack([_scipy(field, x[i], i, end, method) for i in range(n)])
    solver = DormandPrince(rtol=1e-9, atol=1e-9, max_steps=20_000)
    forth = solver.solve(field, x, 0.0, end).check()
    there = float((forth.x - ends).abs().max())
    value, row = there, {"forwards": there, "samples": n, "steps": float(forth.accepted.double().mean())}
    if not name.startswith("van der Pol"):  # its attractor cannot be followed back
        row["backwards"] = float((solver.solve(field, ends, end, 0.0).check().x - x).abs().max())
        value = max(there, row["backwards"])
    return {"value": value, "error": None, "passed": value <= AGREEMENT, **row}


def _scipy(field: Field, x: Tensor, i: int, end: float, method: str) -> Tensor:
    def right(t: float, y: Any) -> Any:
        return field(torch.tensor([t], dtype=torch.float64), torch.from_numpy(y)[None], torch.tensor([i]))[0].numpy()

    found = solve_ivp(right, (0.0, end), x.numpy(), method=method, rtol=1e-11, atol=1e-12)
    return torch.from_numpy(found.y[:, -1])


def order(kind: Any) -> Row:
    """Measured order on dx/dt = x cos t, whose closed form is x exp(sin t): the logarithm of the ratio of errors when steps are halved."""
    x, end = torch.ones(1, 1, dtype=torch.float64), 2.0
    steps = {1: 4000, 2: 500, 4: 100, 5: 50}[ORDERS[kind]]
    solver = kind(rtol=1e9, atol=1e9, first_step=1e9) if kind is DormandPrince else kind(steps=steps)
    grids = [torch.linspace(0.0, end, k + 1, dtype=torch.float64) for k in (steps, 2 * steps)]
    ends = [solver.solve(lambda t, x, _: x * t.cos()[:, None], x, 0.0, end, grid=grid).x for grid in grids]
    errors = [abs(float(found) - math.exp(math.sin(end))) for found in ends]
    value = math.log2(errors[0] / errors[1])
    return {"value": value, "error": None, "passed": abs(value - ORDERS[kind]) <= OFF_ORDER, "errors": errors}


# Rows against torchdiffeq


def fewer_rows(problem: str, seeds: tuple[int, ...], tolerances: tuple[float, ...], bar: float | None) -> Row:
    """How many times more rows torchdiffeq evaluates for the accuracy that we achieve."""
    found = [solvers.curves(solvers.PROBLEMS[problem](seed), tolerances) for seed in seeds]
    ratios = [solvers.ratios(each["pofx"], each["torchdiffeq"]) for each in found]
    smallest = mean([min(each) for each in ratios])
    row = {"value": smallest.value, "error": smallest.error, "ratios": ratios, "samples": solvers.SAMPLES}
    curves = {library: [[run.tolerance, run.rows, run.error] for run in runs] for library, runs in found[0].items()}
    passed = None if bar is None else bool(smallest.value >= bar)
    return {**row, "passed": passed, "curves of the first seed: tolerance, rows, error": curves}


# Densities


class GaussianFlow:
    """E[e - x0 | x_t] on the straight path from N(mean, covariance) at t = 0 to N(0, 1) at t = 1."""

    def __init__(self, d: int) -> None:
        rng = np.random.default_rng(SEED)
        a = torch.from_numpy(rng.normal(size=(d, d))) / math.sqrt(d)
        self.mean = torch.from_numpy(rng.normal(size=d))
        self.law = MultivariateNormal(self.mean, a @ a.T + 0.1 * torch.eye(d, dtype=torch.float64))
        self.variance, self.axes = torch.linalg.eigh(self.law.covariance_matrix)
        self.log_prob = self.law.log_prob

    def __call__(self, t: Tensor, x: Tensor, rows: Any) -> Tensor:
        u = t[:, None]
        slope = (u - (1.0 - u) * self.variance) / ((1.0 - u) ** 2 * self.variance + u**2)
        return -self.mean + (slope * ((x - (1.0 - u) * self.mean) @ self.axes)) @ self.axes.T

    def sample(self, n: int) -> Tensor:
        """Events of the law."""
        z = torch.from_numpy(np.random.default_rng(SEED + 1).normal(size=(n, len(self.mean))))
        return self.mean + (z * self.variance.sqrt()) @ self.axes.T


class MixtureFlow:
    """The same for eight round Gaussians of different widths, down to a fiftieth of their distances."""

    def __init__(self, d: int) -> None:
        rng = np.random.default_rng(SEED)
        self.centres = torch.from_numpy(rng.normal(size=(8, d)))
        self.width = torch.from_numpy(10.0 ** rng.uniform(-1.7, -0.3, 8))

    def _parts(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        variance = (1.0 - t)[:, None] ** 2 * self.width**2 + t[:, None] ** 2
        away = x[:, None] - (1.0 - t)[:, None, None] * self.centres
        log_parts = -0.5 * (away**2).sum(-1) / variance - 0.5 * x.shape[1] * (2.0 * math.pi * variance).log()
        return variance, away, log_parts - math.log(8.0)

    def log_prob(self, x: Tensor) -> Tensor:
        """In closed form."""
        return self._parts(x.new_zeros(len(x)), x)[2].logsumexp(1)

    def __call__(self, t: Tensor, x: Tensor, rows: Any) -> Tensor:
        variance, away, log_parts = self._parts(t, x)
        slope = (t[:, None] - (1.0 - t)[:, None] * self.width**2) / variance
        return (log_parts.softmax(1)[..., None] * (slope[..., None] * away - self.centres)).sum(1)

    def sample(self, n: int) -> Tensor:
        """Events of the mixture."""
        rng = np.random.default_rng(SEED + 1)
        which = rng.integers(8, size=n)
        z = torch.from_numpy(rng.normal(size=(n, self.centres.shape[1])))
        return self.centres[which] + self.width[which, None] * z


FLOWS: dict[str, Callable[[], Any]] = {
    "Gaussian in 2 dimensions": partial(GaussianFlow, 2),
    "Gaussian in 50 dimensions": partial(GaussianFlow, 50),
    "mixture in 2 dimensions": partial(MixtureFlow, 2),
    "mixture in 10 dimensions": partial(MixtureFlow, 10),
}


def base(z: Tensor) -> Tensor:
    """Standard normal."""
    return Normal(0.0, 1.0).log_prob(z).sum(1)


def density(name: str, n: int) -> Row:
    """Largest error of a log-density."""
    flow = FLOWS[name]()
    x = flow.sample(n)
    truth, errors = flow.log_prob(x), {}
    for tolerance in (1e-5, 1e-6, 1e-7):
        found = log_density_ode(flow, x, base, solver=DormandPrince(rtol=tolerance, atol=tolerance))
        errors[f"{tolerance:g}"] = float((found.log_prob - truth).abs().max())
    evaluations = float(found.solution.evaluations.double().mean())
    row = {"value": errors["1e-07"], "error": None, "passed": errors["1e-07"] <= DENSITY, "events": n}
    return {**row, "evaluations": evaluations, "by_tolerance": errors}


def hutchinson(n: int) -> Row:
    """Mean of (estimate - closed form) with its error, 16 probes per event: zero within three errors."""
    flow = FLOWS["mixture in 10 dimensions"]()
    x = flow.sample(n)
    probes = rademacher(Noise(SEED, torch.arange(n), dtype=torch.float64), 16, 10)
    solver = DormandPrince(rtol=1e-6, atol=1e-6)
    moved = transport(flow, x, 0.0, 1.0, solver=solver, trace="hutchinson", probes=probes)
    off = base(moved.x) + moved.log_jacobian - flow.log_prob(x)
    found = mean(off.numpy())
    width = float((off / moved.error).square().mean().sqrt())
    passed = abs(found.value) <= 3.0 * found.error
    return {"value": found.value, "error": found.error, "passed": passed, "root_mean_square_pull": width}


def rows(quick: bool) -> Iterator[tuple[str, Callable[[], Row], float | None, tuple[int, ...]]]:
    """Measure, how, bar, seeds."""
    n, events, seeds = (2, 20, SEEDS[:2]) if quick else (32, 500, SEEDS)
    for method in ("RK45", "DOP853"):
        for name in scipy_problems(1):
            yield (
                f"{name}: difference from solve_ivp ({method})",
                partial(agreement, name, method, n),
                AGREEMENT,
                (SEED,),
            )
    for kind, wanted in ORDERS.items():
        yield f"{kind.__name__}: measured order (within {OFF_ORDER})", partial(order, kind), wanted, (SEED,)
    tolerances = solvers.TOLERANCES[::5] if quick else solvers.TOLERANCES
    for problem in solvers.PROBLEMS:
        bar = None if problem == "mixture flow" else RATIO  # it is not a mix of stiff and easy samples
        row = partial(fewer_rows, problem, seeds, tolerances, bar)
        yield f"{problem}: rows of torchdiffeq over ours at equal accuracy", row, bar, seeds
    for name in FLOWS:
        yield f"{name}: largest error of a log-density", partial(density, name, events), DENSITY, (SEED,)
    yield "mixture in 10 dimensions: bias of Hutchinson's estimate", partial(hutchinson, 4 * events), None, (SEED,)


def main() -> None:
    """All rows; a few minutes on one core."""
    options = parser(__doc__).parse_args()
    if options.quick:
        solvers.SAMPLES = 128
    sheet = Sheet(NAME, quick=options.quick)
    plan = list(rows(options.quick))
    for measure, make, bar, seeds in plan:
        sheet.measure(measure, make, seeds=seeds, bar=bar)
    sheet.finish(row[0] for row in plan)


if __name__ == "__main__":
    main()
