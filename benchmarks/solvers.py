"""ODE solvers side by side: Dormand-Prince with a step per sample (pofx) against a step per batch (torchdiffeq), at equal accuracy.

Both solve the same batches, in float64, over a range of tolerances. A field counts the rows that it is given (those that fill up blocks
included); the accuracy is the largest error of any sample, against a closed form or a much tighter solution. Rows of torchdiffeq at our
accuracy are read off its own curve of rows against accuracy. Prints a table and writes JSON.

    python benchmarks/solvers.py [--rounds 5] [--out benchmarks/results/solvers.json]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pofx.solvers import DormandPrince

SAMPLES = 256
TOLERANCES = tuple(10.0 ** (-k / 2) for k in range(6, 17))
"""Of pofx; torchdiffeq gets up to three decades more on the tight side, until it is as accurate."""
Rows = slice | Tensor
Field = Callable[[Tensor, Tensor, Rows], Tensor]


class Problem(NamedTuple):
    """A batch to integrate from t = 0 to ``end``; ``exact`` is the solution there."""

    field: Field
    x: Tensor
    end: float
    exact: Tensor


@dataclass
class Run:
    """One solution: rows evaluated, error, seconds."""

    tolerance: float
    rows: int
    error: float
    seconds: float


class Counter:
    """A field that counts rows."""

    def __init__(self, field: Field) -> None:
        self.field, self.rows = field, 0

    def __call__(self, t: Tensor, x: Tensor, rows: Rows) -> Tensor:
        self.rows += len(x)
        return self.field(t, x, rows)


# Problems


def relaxation(rate: Tensor, x: Tensor) -> Problem:
    """dx/dt = -a (x - cos t), a of its own for every sample; the closed form is known."""
    a, t = rate[:, None], 1.0
    slow = a * (a * math.cos(t) + math.sin(t)) / (a**2 + 1.0)
    exact = (x - a**2 / (a**2 + 1.0)) * (-a * t).exp() + slow
    return Problem(lambda t, x, rows: -a[rows] * (x - t.cos()[:, None]), x, t, exact)


def rates_spread(seed: int) -> Problem:
    """Rates from 1 to 1000, uniform in the logarithm."""
    rng = np.random.default_rng(seed)
    return relaxation(torch.from_numpy(10.0 ** rng.uniform(0.0, 3.0, SAMPLES)), _normal(rng, 2))


def few_stiff(seed: int) -> Problem:
    """A tenth of the samples relaxes 500 times faster than the others."""
    rng = np.random.default_rng(seed)
    stiff = torch.from_numpy(rng.permutation(SAMPLES) < SAMPLES // 10)
    return relaxation(torch.where(stiff, 500.0, 1.0).double(), _normal(rng, 2))


def van_der_pol(seed: int) -> Problem:
    """Oscillators with mu from 0.1 to 30, uniform in the logarithm, over three units of time."""
    rng = np.random.default_rng(seed)
    mu = torch.from_numpy(10.0 ** rng.uniform(-1.0, 1.5, SAMPLES))

    def field(_t: Tensor, x: Tensor, rows: Rows) -> Tensor:
        q, p = x.unbind(1)
        return torch.stack([p, mu[rows] * (1.0 - q**2) * p - q], 1)

    x = _normal(rng, 2)
    return Problem(field, x, 3.0, _tight(field, x, 3.0))


def mixture_flow(seed: int) -> Problem:
    """The probability flow of a mixture of narrow Gaussians from noise to data: what a generative model integrates. Hardly stiff."""
    rng = np.random.default_rng(seed)
    centres = torch.from_numpy(2.0 * rng.normal(size=(8, 2)))
    width = torch.from_numpy(10.0 ** rng.uniform(-2.0, -0.3, 8))

    def field(t: Tensor, x: Tensor, _rows: Rows) -> Tensor:
        u = 1.0 - t[:, None]  # time of pofx: 1 is noise
        variance = (1.0 - u) ** 2 * width**2 + u**2
        away = x[:, None] - (1.0 - u)[..., None] * centres
        posterior = (-0.5 * (away**2).sum(-1) / variance - variance.log()).softmax(1)
        each = -centres + ((u - (1.0 - u) * width**2) / variance)[..., None] * away
        return -(posterior[..., None] * each).sum(1)

    x = _normal(rng, 2)
    return Problem(field, x, 1.0, _tight(field, x, 1.0))


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "rates 1 to 1000": rates_spread,
    "a tenth is stiff": few_stiff,
    "van der Pol": van_der_pol,
    "mixture flow": mixture_flow,
}


def _normal(rng: np.random.Generator, d: int) -> Tensor:
    return torch.from_numpy(rng.normal(size=(SAMPLES, d)))


def _tight(field: Field, x: Tensor, end: float) -> Tensor:
    solver = DormandPrince(rtol=1e-12, atol=1e-13, max_steps=200_000)
    return solver.solve(field, x, 0.0, end).check().x


# Solvers


def pofx_run(problem: Problem, tolerance: float, block: int | None = 128) -> Run:
    """A step per sample."""
    solver = DormandPrince(rtol=tolerance, atol=tolerance, max_steps=100_000, block=block)
    return _run(problem, tolerance, lambda field: solver.solve(field, problem.x, 0.0, problem.end).check().x)


def torchdiffeq_run(problem: Problem, tolerance: float) -> Run:
    """The same method with a step for the whole batch, chosen from the root of the mean square over all its numbers."""
    from torchdiffeq import odeint

    times = torch.tensor([0.0, problem.end], dtype=torch.float64)
    n = len(problem.x)

    def solve(field: Field) -> Tensor:
        both = lambda t, x: field(t.expand(n), x, slice(None))  # noqa: E731
        return odeint(both, problem.x, times, rtol=tolerance, atol=tolerance, method="dopri5")[-1]

    return _run(problem, tolerance, solve)


def _run(problem: Problem, tolerance: float, solve: Callable[[Field], Tensor]) -> Run:
    field = Counter(problem.field)
    begun = time.perf_counter()
    with torch.no_grad():
        end = solve(field)
    seconds = time.perf_counter() - begun
    return Run(tolerance, field.rows, float((end - problem.exact).abs().max()), seconds)


def curves(problem: Problem, tolerances: tuple[float, ...] = TOLERANCES) -> dict[str, list[Run]]:
    """Rows and errors of both over the tolerances."""
    ours = [pofx_run(problem, tolerance) for tolerance in tolerances]
    theirs: list[Run] = []
    for tolerance in (*tolerances, *(tolerances[-1] * 10.0 ** (-k / 2) for k in range(1, 7))):
        theirs.append(torchdiffeq_run(problem, tolerance))
        if theirs[-1].error < min(run.error for run in ours):
            break
    return {"pofx": ours, "torchdiffeq": theirs}


def ratios(ours: list[Run], theirs: list[Run]) -> list[float]:
    """Their rows over ours at the errors that we achieve, where their curve reaches: the fewest rows that they need for it."""
    points = sorted((math.log(run.error), math.log(run.rows)) for run in theirs)
    errors, rows = np.array(points).T
    fewest = np.minimum.accumulate(rows)  # a smaller error does not cost them more than a larger one
    inside = [run for run in ours if errors[0] <= math.log(run.error) <= errors[-1]]
    return [math.exp(np.interp(math.log(run.error), errors, fewest)) / run.rows for run in inside]


# Speed


def timing(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds for 1024 events through a network whose context makes the field up to 30 times faster, at equal accuracy; interleaved."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 128), torch.nn.SiLU(), torch.nn.Linear(128, 128), torch.nn.SiLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(128, 7)).double()
    rng = np.random.default_rng(1)
    speed, x = torch.from_numpy(10.0 ** rng.uniform(0.0, 1.5, (1024, 1))), torch.from_numpy(rng.normal(size=(1024, 7)))
    field = lambda t, x, rows: speed[rows] * net(torch.cat([x, t[:, None]], 1))  # noqa: E731
    with torch.no_grad():
        problem = Problem(field, x, 1.0, _tight(field, x, 1.0))
    error = pofx_run(problem, 1e-5).error
    tighter = [10.0 ** (-k / 4) for k in range(16, 48)]
    equal = next(tolerance for tolerance in tighter if torchdiffeq_run(problem, tolerance).error <= error)
    runs: dict[str, Callable[[], Run]] = {
        "pofx": lambda: pofx_run(problem, 1e-5),
        "pofx, block=None": lambda: pofx_run(problem, 1e-5, None),
        "torchdiffeq": lambda: torchdiffeq_run(problem, equal),
    }
    found: dict[str, list[Run]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return {
        name: {**vars(each[0]), "seconds": statistics.median(run.seconds for run in each)}
        for name, each in found.items()
    }


def main() -> None:
    """Curves of all problems, ratios, speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/solvers.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "problems": {}}
    for name, make in PROBLEMS.items():
        found = curves(make(1))
        times = ratios(found["pofx"], found["torchdiffeq"])
        result["problems"][name] = {"ratios": times, **{k: [vars(run) for run in v] for k, v in found.items()}}
        for library, runs in found.items():
            for run in runs:
                print(
                    f"{name:18}{library:13}{run.tolerance:9.1e}{run.rows:10d} rows{run.error:10.1e}{run.seconds:8.2f} s"
                )
        print(f"  rows of torchdiffeq over ours at equal error: {min(times):.2f} to {max(times):.2f}", flush=True)
    result["speed"] = timing(options.rounds)
    for name, row in result["speed"].items():
        print(f"{name:18}{row['seconds']:8.3f} s{row['rows']:10d} rows{row['error']:10.1e}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
