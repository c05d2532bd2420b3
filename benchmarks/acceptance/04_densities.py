"""KL(truth || learnt) per dimension of known densities, for every family that has a density of any sort.

Bar 0.02 nats per dimension for every exact density, and not less than zero but for its error: a "density" that beats the truth is none. A
family that cannot be the truth, by its construction, has no bar there but a reason; one that refuses angles says so; bounds and estimates
are shown with their gap. 5e4 events, one setting of the training per family; KL is the mean of log p - log q over fresh events, its error
that of the paired differences, and of the bound or estimate as if it were the same for all events. Seed 1 of the training, 11 of the
events, 12 of the fresh ones. Families with dear densities are measured in 2-D alone, the others also in 8-D.

    python benchmarks/acceptance/04_densities.py [--only 'spline-flow' '*transformer'] [--truth beta]
"""

import functools
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from typing import Any

from common import Row
from knowns import FRESH_SEED, TRUTHS, data_set, drawn
from learning import gap, timed_fit
from measuring import Sheet, parser

import pofx
from pofx import registry
from pofx.data.spec import vector_spec
from pofx.errors import CapabilityError
from pofx.models.base import Layout
from pofx.models.model import Model
from pofx.networks import ResidualMLP
from pofx.networks.causal import CausalTransformer
from pofx.solvers import RK4

NAME = "04_densities"
SEED = 1
EVENTS = 50_000
BAR = 0.02
"""Nats per dimension."""
PERIODIC = "von-mises"
ONE_NORMAL = "one normal distribution in latent coordinates"
ONE_COPULA = "the dependence of one normal distribution"
TRAINING = pofx.Training(
    max_epochs=None,
    max_steps=2000,
    batch_size=512,
    learning_rate=2e-3,
    warmup=0.1,
    ema=0.99,
    clip=5.0,
    seed=SEED,
    device="cpu",
    progress=False,
)


@dataclass(frozen=True)
class Plan:
    """How a family is measured.

    Attributes
    ----------
    config : keyword arguments of the family.
    training : changes to :data:`TRAINING`.
    dimensions, fresh : of the truths, and how many fresh events.
    cannot : truth -> why the family cannot be it.
    teacher : the family whose model is the teacher.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    dimensions: tuple[int, ...] = (2,)
    fresh: int = 10_000
    cannot: Mapping[str, str] = field(default_factory=dict)
    teacher: str | None = None


BOTH = (2, 8)
TYPED = {"preprocess": "standardise"}
"""Of families that take every column as real unless told to look at its declared type."""
FLOW = {"layers": 2, "hidden": (64, 64)}
MLP = ResidualMLP(width=64, layers=2)
ODE = {"network": MLP, "density_solver": RK4(steps=40)}
"""Of families that move along an ODE; the error of the fixed steps is part of what is measured."""

PLANS = {
    "gaussian": Plan(TYPED, {}, BOTH, cannot={"mixture": ONE_NORMAL, "beta": ONE_NORMAL}),
    "gaussian-mixture": Plan(TYPED, {}, BOTH),
    "gaussian-copula": Plan({}, {}, BOTH, cannot={"mixture": ONE_COPULA}),
    "coupling-flow": Plan({"layers": 8, "hidden": (64, 64)}, {"max_steps": 5000}, BOTH),
    "autoregressive-flow": Plan({"layers": 4, "hidden": (64, 64)}, {"max_steps": 5000}, BOTH),
    "spline-flow": Plan(FLOW, {}, BOTH),
    "hybrid-flow": Plan({**FLOW, "directions": 4}),
    "chain": Plan({"stages": (pofx.SplineFlow(**FLOW),)}),
    "inverse-autoregressive-flow": Plan(FLOW, teacher="spline-flow"),
    "continuous-flow": Plan(ODE, {"max_steps": {"flow-matching": 5000, "likelihood": 300}}, fresh=4000),
    "flow-matching": Plan(ODE, {"max_steps": 5000}, fresh=4000),
    "autoregressive-transformer": Plan(
        {"network": CausalTransformer(width=48, layers=2), "components": 12}, {"max_steps": 1200}, BOTH
    ),
    "mixture-density-network": Plan({}, {}, BOTH),
    "vq-vae": Plan({}, {"max_steps": {"autoencoder": 1500, "prior": 500}}, fresh=4000),
    **{name: Plan({}, {"max_steps": 5000}, fresh=2000) for name in ("ddpm", "score-sde", "edm")},
}
"""Families that are not named here are measured in 2-D as they come."""
OTHERS = Plan(training={"max_steps": 3000}, fresh=1000)


def available() -> Iterator[str]:
    """Registered families that are there and have a density of any sort."""
    for name in registry.family_names():
        module = registry.family_path(name).partition(":")[0]
        if importlib.util.find_spec(module) and registry.family_class(name).capabilities.density != "none":
            yield name


def plan_of(name: str) -> Plan:
    """The plan of a family."""
    return PLANS.get(name, OTHERS)


@functools.lru_cache(maxsize=1)
def fitted(name: str, truth: str, d: int, quick: bool) -> tuple[Model, Row]:
    """The model of a family, and what its training took."""
    plan = plan_of(name)
    family = registry.family_class(name)(**plan.config)
    training = TRAINING.replace(**{**plan.training, **({"max_steps": 3} if quick else {})})
    data = data_set(TRUTHS[truth], d, False, 2000 if quick else EVENTS)
    if plan.teacher is None:
        return timed_fit(family, data, training)
    teacher, _ = fitted.__wrapped__(plan.teacher, truth, d, quick)
    return timed_fit(family, data, training, teacher)


def measured(name: str, truth: str, d: int, quick: bool) -> Row:
    """Train, and compare with the truth; a refusal that the family declares is no failure."""
    plan, can = plan_of(name), registry.family_class(name).capabilities
    try:
        model, row = fitted(name, truth, d, quick)
    except CapabilityError as error:
        if can.density == "exact" and not (truth == PERIODIC and not can.periodic):
            raise
        return {"value": None, "error": None, "bar": None, "passed": None, "declared": str(error)}
    fresh = drawn(TRUTHS[truth], d, False, 200 if quick else plan.fresh, FRESH_SEED)
    found = gap(fresh.log_prob, model, fresh.x)
    value, error = found["value"] / d, found["error"] / d
    possible = value >= -5.0 * error  # a divergence is never negative: what claims to be one is no density
    passed = possible and value <= BAR if bar_of(name, truth, d) is not None else None
    reason = {"reason": plan.cannot[truth]} if truth in plan.cannot else {}
    about = {"density": model.density, "family": repr(model.family), **reason}
    return {**found, **row, **about, "value": value, "error": error, "passed": passed}


def bar_of(name: str, truth: str, d: int) -> float | None:
    """The bar of exact densities, but for truths that the family cannot be."""
    plan = plan_of(name)
    exact = registry.family_class(name)(**plan.config).density_of(Layout(vector_spec(d))) == "exact"
    return BAR if exact and truth not in plan.cannot else None


def planned() -> Iterator[tuple[str, str, str, int]]:
    """Measure, family, truth, dimension."""
    for name in available():
        for truth in TRUTHS:
            for d in plan_of(name).dimensions:
                yield f"{name}, {truth}, {d}-D: KL per dimension", name, truth, d


def main() -> None:
    """One row per family, truth and dimension."""
    made = parser(__doc__)
    made.add_argument(
        "--only", nargs="+", default=["*"], help="patterns of families, e.g. 'spline-flow' '*transformer'"
    )
    made.add_argument("--truth", nargs="+", default=["*"], help="patterns of truths, e.g. beta")
    options = made.parse_args()
    sheet = Sheet(NAME, quick=options.quick, any_source=True)
    for measure, name, truth, d in planned():
        if any(fnmatch(name, p) for p in options.only) and any(fnmatch(truth, p) for p in options.truth):
            sheet.measure(
                measure, partial(measured, name, truth, d, options.quick), seeds=[SEED], bar=bar_of(name, truth, d)
            )
    sheet.finish(measure for measure, *_ in planned())


if __name__ == "__main__":
    main()
