"""Annealed importance sampling within its own error: against exact partition functions of Boltzmann machines, and closed forms.

Value: mean over the seeds of (estimate - truth) in nats; error: the errors that the estimates state, divided by the root of the number of
seeds. A row passes if that mean pull is within three. The last rows take all pulls together: their mean must be within three errors of
zero, and their width within a quarter of one. Estimates of a logarithm are low by half their squared error; that is part of the pull.

Machines: random ones (weights of a normal distribution of this width, biases of width one half), and trained ones (persistent contrastive
divergence on bars and stripes, on mixtures of binary prototypes, and, with normal visible units, on eight normals on a circle).
"""

import functools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from common import Row
from measuring import Sheet, mean, parser
from torch import Tensor, nn

import pofx
from pofx.data.spec import Column, Field, vector_spec
from pofx.models.base import Layout
from pofx.models.energy_based import EnergyBasedModel
from pofx.models.rbm import RBM
from pofx.training.noise import derive_seed

NAME = "04_partition_function"
SEEDS = tuple(range(1, 9))
PULL, WIDTH = 3.0, 0.25
CHAINS, TEMPERATURES = 256, 500
SIZES, COUPLINGS = ((8, 6), (20, 12), (60, 14)), (0.1, 0.5, 1.0)


def binary_spec(d: int) -> dict[str, Field]:
    """d columns of two values."""
    return {"x": Field("vector", (d,), tuple(Column(f"v{i}", type="discrete", low=0, high=1) for i in range(d)))}


# Machines


def family(hidden: int) -> RBM:
    """The settings that are measured."""
    return RBM(hidden=hidden, temperatures=TEMPERATURES, chains=CHAINS, exact=0)


def random_machine(d: int, hidden: int, coupling: float, kind: str) -> tuple[RBM, Any]:
    """Weights of the given width."""
    machine = family(hidden)
    body: Any = machine.build(Layout(binary_spec(d) if kind == "Bernoulli" else vector_spec(d))).double()
    rng = np.random.default_rng(d)
    with torch.no_grad():
        body.weight.copy_(coupling * torch.from_numpy(rng.normal(size=(hidden, d))))
        body.visible.copy_(0.5 * torch.from_numpy(rng.normal(size=d)))
        body.hidden.copy_(0.5 * torch.from_numpy(rng.normal(size=hidden)))
    return machine, body


def bars_and_stripes(n: int) -> np.ndarray:
    """4 x 4 images whose rows, or whose columns, are of one colour."""
    rng = np.random.default_rng(1)
    lines = rng.integers(0, 2, (n, 1, 4)) * np.ones((1, 4, 1))
    return np.where(rng.random((n, 1, 1)) < 0.5, lines, lines.transpose(0, 2, 1)).reshape(n, 16)


def prototypes(n: int) -> np.ndarray:
    """Eight patterns of 40 numbers, of which each flips with probability 0.05."""
    rng = np.random.default_rng(2)
    patterns = rng.integers(0, 2, (8, 40))
    return (patterns[rng.integers(0, 8, n)] ^ (rng.random((n, 40)) < 0.05)) + 0.0


def eight_normals(n: int) -> np.ndarray:
    """On a circle of radius two, of width 0.2."""
    rng = np.random.default_rng(3)
    angle = 0.25 * math.pi * rng.integers(0, 8, n)
    return np.stack([2.0 * np.cos(angle), 2.0 * np.sin(angle)], 1) + 0.2 * rng.normal(size=(n, 2))


TRAINED: dict[str, tuple[Callable[[int], np.ndarray], int]] = {
    "bars and stripes": (bars_and_stripes, 12),
    "binary prototypes": (prototypes, 12),
    "eight normals": (eight_normals, 14),
}


def trained_machine(name: str, steps: int) -> tuple[RBM, Any]:
    """After training."""
    make, hidden = TRAINED[name]
    x = make(5000)
    columns = {} if name == "eight normals" else {"columns": binary_spec(x.shape[1])}
    training = pofx.Training(
        max_epochs=None, max_steps=steps, batch_size=256, learning_rate=1e-2, seed=1, device="cpu", progress=False
    )
    learner = RBM(hidden=hidden, exact=14)  # no estimate of Z in training
    model = learner.fit(pofx.Dataset.from_arrays(x, **columns), training=training)
    return family(hidden), model.fitted.body.double()


# Energies with a closed form


class Quadratic(nn.Module):
    """What makes x (A - 1) x / 2 on top of the base: together x A x / 2."""

    def __init__(self, d: int) -> None:
        super().__init__()
        rng = np.random.default_rng(d)
        axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
        self.values = 10.0 ** rng.uniform(-0.3, 1.5, d)
        self.a = torch.from_numpy(axes * self.values @ axes.T)
        self.log_z = -0.5 * float(np.log(self.values).sum())  # the base's energy has the normaliser of N(0, 1) in it

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return 0.5 * ((x @ self.a) * x - x * x).sum(1, keepdim=True)


class Wells(nn.Module):
    """Two normals of width 0.2 at a distance of 3 in d dimensions, times exp(5)."""

    log_z = 5.0

    def __init__(self, d: int) -> None:
        super().__init__()
        self.d = d

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        away = torch.stack([x - 1.5 / math.sqrt(self.d), x + 1.5 / math.sqrt(self.d)], -1).square().sum(1) / 0.08
        log_normal = (-away).logsumexp(-1) - math.log(2.0) - 0.5 * self.d * math.log(2.0 * math.pi * 0.04)
        base = -0.5 * x.square().sum(1) - 0.5 * self.d * math.log(2.0 * math.pi)
        return -(log_normal + self.log_z - base)[:, None]


ENERGIES: dict[str, tuple[Callable[[int], Any], int]] = {
    "normal in 2 dimensions": (Quadratic, 2),
    "normal in 10 dimensions": (Quadratic, 10),
    "normal in 30 dimensions": (Quadratic, 30),
    "two wells in 2 dimensions": (Wells, 2),
}


def energy_model(name: str) -> tuple[EnergyBasedModel, Any]:
    """The closed form in the network's place, and the steps that the walk chooses."""
    make, d = ENERGIES[name]
    walker = EnergyBasedModel(objective="persistent", chains=CHAINS, levels=100)
    body: Any = walker.build(Layout(vector_spec(d))).double()
    body.network = make(d)
    walker._normalise(body, None, None)  # type: ignore[arg-type]
    return walker, body


# Rows


def compared(estimate: Callable[[int], Any], truth: float, name: str, seeds: tuple[int, ...]) -> Row:
    """Differences, errors and pulls over the seeds; no two rows have noise in common, so that all pulls are independent."""
    found = [estimate(derive_seed(seed, name)) for seed in seeds]
    off = np.array([float(each.value) - truth for each in found])
    errors = np.array([float(each.error) for each in found])
    pull = mean(off / errors)
    value, error = float(off.mean()), float(np.sqrt((errors**2).sum()) / len(seeds))
    passed = bool(abs(pull.value) * math.sqrt(len(seeds)) < PULL)
    extra = {
        "stated error of one estimate": float(errors.mean()),
        "effective": float(np.mean([float(each.effective) for each in found])),
    }
    return {"value": value, "error": error, "passed": passed, "truth": truth, "pulls": (off / errors).tolist(), **extra}


def machine_row(make: Callable[[], tuple[RBM, Any]], name: str, seeds: tuple[int, ...]) -> Row:
    """A Boltzmann machine against the sum over its states."""
    machine, body = make()
    with torch.no_grad():
        truth = float(machine.exact_log_partition(body))
        return compared(lambda seed: machine.annealed_log_partition(body, chains=CHAINS, seed=seed), truth, name, seeds)


def energy_row(name: str, seeds: tuple[int, ...]) -> Row:
    """An energy with a closed form."""
    walker, body = energy_model(name)
    with torch.no_grad():
        truth = body.network.log_z
        return compared(lambda seed: walker.annealed_log_partition(body, chains=CHAINS, seed=seed), truth, name, seeds)


def together(sheet: Sheet, what: str) -> Row:
    """The mean or the width of the pulls of all rows."""
    pulls = np.array([pull for row in sheet.rows for pull in row.get("pulls", ())])
    n, width = len(pulls), float(pulls.std(ddof=1))
    if what == "mean":
        error = width / math.sqrt(n)
        return {
            "value": float(pulls.mean()),
            "error": error,
            "passed": bool(abs(pulls.mean()) < PULL * error),
            "estimates": n,
        }
    spread = float(np.sqrt(((pulls - pulls.mean()) ** 4).mean() - pulls.var() ** 2) / (2.0 * width * math.sqrt(n)))
    return {"value": width, "error": spread, "passed": bool(abs(width - 1.0) < WIDTH), "estimates": n}


def rows(quick: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Measure and how."""
    seeds = SEEDS[:3] if quick else SEEDS
    for kind in ("Bernoulli", "normal"):
        for d, hidden in SIZES:
            for coupling in COUPLINGS:
                width = coupling if kind == "Bernoulli" else coupling / math.sqrt(d)
                name = f"{kind} machine, {d} visible, {hidden} hidden, random weights of width {width:.3g}: off by"
                yield name, partial(machine_row, functools.partial(random_machine, d, hidden, width, kind), name, seeds)
    for name in TRAINED:
        yield (
            f"trained on {name}: off by",
            partial(machine_row, partial(trained_machine, name, 60 if quick else 3000), name, seeds),
        )
    for name in ENERGIES:
        yield f"energy-based model, {name}: off by", partial(energy_row, name, seeds)


def main() -> None:
    """All rows; some minutes on one core."""
    global CHAINS, TEMPERATURES
    options = parser(__doc__).parse_args()
    if options.quick:
        CHAINS, TEMPERATURES = 32, 50
    sheet = Sheet(NAME, quick=options.quick)
    plan = list(rows(options.quick))
    for measure, make in plan:
        sheet.measure(measure, make, seeds=SEEDS, bar=PULL)
    all_rows = [measure for measure, _ in plan]
    for what, bar in (("mean", PULL), ("width", WIDTH)):
        sheet.measure(f"{what} of all pulls", partial(together, sheet, what), seeds=SEEDS, bar=bar)
        all_rows.append(f"{what} of all pulls")
    sheet.finish(all_rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
