"""What every family must do, as functions of one case: a registered family in a tiny configuration, on one kind of field.

A new family gets a line in ``CONFIGS``; a family that declares a new kind of field gets a toy of that kind in ``TOYS``.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import pofx
from pofx import registry
from pofx.data import as_dataset
from pofx.data.events import Events
from pofx.data.spec import Axis, Column, Field, vector_spec
from pofx.errors import CapabilityError
from pofx.models.autoencoder import DecoderSettings
from pofx.models.base import Family
from pofx.models.fitting import prepare_fit
from pofx.models.flow_matching import FlowMatching
from pofx.models.flows import CouplingFlow, SplineFlow
from pofx.models.model import Model
from pofx.networks import CloudGenerator, EPiC, GridGenerator, ResidualMLP, UNet, VectorGenerator
from pofx.networks.causal import CausalTransformer
from pofx.networks.lattices import LatticeDecoder, LatticeEncoder
from pofx.networks.pointwise import Pointwise
from pofx.simulators import Conditional, CorrelatedGaussian
from pofx.solvers import RK4
from pofx.training import Training
from pofx.training.contract import Phase, Update
from pofx.training.noise import Noise

EVENTS = 3000
SPLIT = (0.96, 0.04, 0.0)
"""Of the events, for training and validation: the density of what is held out is part of every fit, and slow by an ODE."""
FEW = 10
"""Steps where it does not matter what has been learnt."""
QUICK = Training(
    max_epochs=None, max_steps=150, batch_size=256, learning_rate=5e-3, seed=1, device="cpu", progress=False
)

JOINT = CorrelatedGaussian([0.5, 1.0, -2.0], [[1.0, 0.9, -0.4], [0.9, 2.25, 0.3], [-0.4, 0.3, 1.0]])
"""Of (c, x0, x1): the closed form that every family with a density is compared with."""


@dataclass(frozen=True)
class Case:
    """One family, small and quick.

    Attributes
    ----------
    name : in the registry.
    config : keyword arguments of the family.
    gap : how far its density may be from a Gaussian truth, in nats per event; None for families without a density.
    kinds : what to change in the configuration for grids and clouds (smaller networks).
    steps : of training.
    side : cells along a side of the grid on which densities are integrated.
    events : fresh ones that the density is compared on.
    teacher : the case whose model is the teacher.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    gap: float | None = 0.05
    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    steps: int = 150
    side: int = 168
    events: int = 3000
    teacher: str | None = None

    @property
    def family(self) -> Family:
        return self.of("vector")

    def of(self, kind: str) -> Family:
        """The family for a kind of field."""
        return registry.family_class(self.name)(**{**self.config, **self.kinds.get(kind, {})})

    def fit(
        self,
        *data: Any,
        init: Model | None = None,
        kind: str = "vector",
        teacher: Model | None = None,
        **changes: Any,
    ) -> Model:
        """The family fitted, quickly, with the teacher of its case, which learns from the same events unless it is given."""
        training = QUICK.replace(**{"max_steps": self.steps, **changes})
        dataset = as_dataset(*data).with_split(SPLIT)
        if self.teacher and teacher is None:
            teacher = CASES[self.teacher].fit(dataset, kind=kind, **changes)
        return self.of(kind).fit(dataset, training=training, init=init, teacher=teacher)


FLOW = {"layers": 2, "hidden": (16,), "bins": 4}
MLP = ResidualMLP(width=24, layers=1, embedding=16)
GRID_NETWORK = UNet(channels=(4,), embedding=8, attention=False)
CLOUD_NETWORK = EPiC(width=12, layers=1, embedding=8)
COARSE = {"solver": RK4(steps=2), "density_solver": RK4(steps=1)}
FIELDS = {"grid": {"network": GRID_NETWORK, **COARSE}, "cloud": {"network": CLOUD_NETWORK, **COARSE}}
"""Small networks for grids and clouds, and a coarse solver, of families that move along an ODE."""
CODER = {"encoder": MLP, "decoder": DecoderSettings(network=VectorGenerator(MLP))}
COARSE_DECODER = DecoderSettings(network=VectorGenerator(MLP), floor=0.1)
CODERS = {
    "grid": {
        "encoder": GRID_NETWORK,
        "decoder": DecoderSettings(network=GridGenerator(channels=(4,), embedding=8)),
        "samples": 8,
    },
    "cloud": {
        "encoder": CLOUD_NETWORK,
        "decoder": DecoderSettings(
            network=CloudGenerator(replace(CLOUD_NETWORK, zero_start=False), queries="learned"), components=4
        ),
        "samples": 8,
    },
}
"""Small encoders and decoders of autoencoders."""
SMALL_PRIOR = CausalTransformer(width=16, layers=1, heads=2)
WALK = {"levels": 5, "leapfrogs": 2, "chains": 256, "context_chains": 8}
SHORT_WALK = {"levels": 3, "leapfrogs": 1, "chains": 32, "context_chains": 2}
"""Few steps of the walk of an energy-based model."""
STUDENT = {"network": MLP}
STUDENTS = {"grid": {"network": GRID_NETWORK}, "cloud": {"network": CLOUD_NETWORK}}
"""Networks of few-step students."""
CASES = {
    case.name: case
    for case in (
        Case("gaussian", gap=0.01),
        Case("gaussian-mixture", {"components": 2, "restarts": 2, "trial_iterations": 10}, gap=0.02),
        Case("gaussian-copula", {"knots": 12}, gap=0.03),
        Case("coupling-flow", FLOW),
        Case("autoregressive-flow", FLOW),
        Case("spline-flow", FLOW),
        Case("hybrid-flow", {**FLOW, "directions": 1}),
        Case(
            "chain",
            {"stages": (SplineFlow(**FLOW),)},
            kinds={kind: {"stages": (FlowMatching(**FIELDS[kind]),)} for kind in FIELDS},
        ),
        Case("mixture-density-network", {"components": 3, "hidden": (24, 24)}, gap=0.08),
        Case(
            "autoregressive-transformer",
            {"network": CausalTransformer(width=24, layers=1, heads=2), "components": 3},
            gap=0.08,
            side=96,
        ),
        Case(
            "gan",
            {"generator": VectorGenerator(MLP), "critic": MLP, "statistics": "deviation"},
            gap=None,
            steps=60,
            kinds={
                "grid": {"generator": GridGenerator(channels=(4, 6), embedding=8), "critic": GRID_NETWORK},
                "cloud": {
                    "generator": CloudGenerator(replace(CLOUD_NETWORK, zero_start=False)),
                    "critic": CLOUD_NETWORK,
                },
            },
        ),
        Case(
            "inverse-autoregressive-flow",
            {**FLOW, "experts": 2, "layers": 1},
            gap=0.08,
            steps=70,
            teacher="autoregressive-flow",
        ),
        Case(
            "flow-matching",
            {"network": MLP, "density_solver": RK4(steps=8)},
            gap=0.08,
            kinds=FIELDS,
            side=48,
            events=256,
        ),
        Case(
            "ddpm",
            {"network": MLP, "prediction": "velocity", "density_solver": RK4(steps=12)},
            gap=0.08,
            kinds=FIELDS,
            side=48,
            events=256,
        ),
        Case(
            "score-sde",
            {"network": MLP, "prediction": "velocity", "density_solver": RK4(steps=12)},
            gap=0.08,
            kinds=FIELDS,
            side=48,
            events=256,
        ),
        Case("edm", {"network": MLP, "density_solver": RK4(steps=12)}, gap=0.08, kinds=FIELDS, side=48, events=256),
        Case(
            "energy-based-model",
            {"network": MLP, "objective": "noise-contrastive", **WALK},
            kinds={
                "grid": {"network": GRID_NETWORK, "objective": "denoising", **SHORT_WALK},
                "cloud": {"network": CLOUD_NETWORK, "objective": "denoising", **SHORT_WALK},
            },
        ),
        Case("rbm", {"hidden": 4, "levels": 6, "polish": 2}, gap=0.15),
        Case("vae", {"latent": 2, "samples": 32, "warm_up": 60, **CODER}, gap=0.05, kinds=CODERS),
        Case(
            "hierarchical-vae",
            {"levels": 2, "latent": 1, "width": 64, "samples": 32, "warm_up": 100, **CODER},
            gap=0.08,
            steps=130,
            kinds=CODERS,
        ),
        Case(
            "probabilistic-autoencoder",
            {
                "latent": 2,
                "samples": 32,
                "flow": CouplingFlow(**FLOW),
                "embedding": 8,
                **CODER,
                "decoder": COARSE_DECODER,
            },
            gap=0.1,
            kinds=CODERS,
        ),
        Case(
            "vq-vae",
            {"codes": 8, "slots": 2, "prior": SMALL_PRIOR, "encoder": MLP, "decoder": CODER["decoder"]},
            gap=0.1,
            steps=60,
            kinds={
                "grid": {
                    "slots": None,
                    "encoder": LatticeEncoder(channels=(4, 6), embedding=8),
                    "decoder": DecoderSettings(network=LatticeDecoder(channels=(4, 6), embedding=8)),
                },
                "cloud": {"encoder": CODERS["cloud"]["encoder"], "decoder": CODERS["cloud"]["decoder"]},
            },
        ),
        Case(
            "bib-ae",
            {
                "encoder": MLP,
                "generator": VectorGenerator(MLP),
                "critic": MLP,
                "latent_critic": MLP,
                "latent": 2,
                "post_processor": Pointwise(widths=(8,), embedding=8),
            },
            gap=None,
            steps=25,
            kinds={
                "grid": {
                    "encoder": GRID_NETWORK,
                    "generator": GridGenerator(channels=(4, 6), embedding=8),
                    "critic": GRID_NETWORK,
                    "flow": CouplingFlow(**FLOW),
                },
            },
        ),
        Case("consistency", STUDENT, gap=None, kinds=STUDENTS, teacher="flow-matching"),
        Case("consistency-training", {**STUDENT, "steps": 2}, gap=None, kinds=STUDENTS),
        Case(
            "progressive-distillation",
            {**STUDENT, "first": 2},
            gap=None,
            kinds=STUDENTS,
            steps=60,
            teacher="flow-matching",
        ),
        Case("mean-flow", STUDENT, gap=None, kinds=STUDENTS),
        Case("shortcut", {**STUDENT, "steps": 2}, gap=None, kinds=STUDENTS),
        Case(
            "continuous-flow",
            {"network": MLP, "training_solver": RK4(steps=2), "density_solver": RK4(steps=6)},
            gap=0.08,
            steps=40,
            side=48,
            events=256,
        ),
    )
}


def vector_toy(n: int, seed: int, conditional: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Events (n, 2) of the Gaussian truth, with their context (n, 1) if wanted."""
    x, context = Conditional(JOINT).sample(n, seed)
    return x, context if conditional else None


def vector_truth(x: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    return JOINT.marginal([1, 2]).log_prob(x) if context is None else Conditional(JOINT).log_prob(x, context)


ROWS, COLUMNS = 4, 4
GRID = {
    "x": Field("grid", (1, ROWS, COLUMNS), (Column("energy"),), (Axis("phi", ROWS, periodic=True), Axis("z", COLUMNS)))
}
POINTS = np.array([0.0, 0.2, 0.3, 0.5])
"""Shares of clouds with 0, 1, 2 and 3 points."""
CLOUD = {"x": Field("cloud", (len(POINTS) - 1, 2), (Column("a"), Column("b")))}


def grid_toy(n: int, seed: int, conditional: bool) -> pofx.Dataset:
    """Images of a common level and noise of a quarter; the context is the level."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=(n, 1))
    x = 3.0 + level[:, :, None, None] + 0.5 * rng.normal(size=(n, 1, ROWS, COLUMNS))
    return pofx.Dataset.from_arrays({"x": x}, level if conditional else None, columns=GRID)


def cloud_toy(n: int, seed: int, conditional: bool) -> pofx.Dataset:
    """Normal points about a common centre; the context is a cloud (the centre, seen three times) and a vector (the number of points)."""
    rng = np.random.default_rng(seed)
    count = rng.choice(len(POINTS), size=n, p=POINTS)
    centre = rng.normal(size=(n, 1, 2))
    mask = np.arange(len(POINTS) - 1) < count[:, None]
    x = np.where(mask[..., None], 10.0 + centre + 0.5 * rng.normal(size=(n, len(POINTS) - 1, 2)), np.float64(777.0))
    if not conditional:
        return pofx.Dataset.from_arrays({"x": x}, columns=CLOUD, masks={"x": mask})
    seen = centre + 0.1 * rng.normal(size=(n, 3, 2))
    given = {"count": count[:, None] + 0.0, "seen": seen}
    spec = vector_spec(1, "count") | {"seen": Field("cloud", (3, 2), (Column("u"), Column("v")))}
    return pofx.Dataset.from_arrays({"x": x}, given, columns=CLOUD, context_columns=spec, masks={"x": mask})


TOYS = {"vector": vector_toy, "grid": grid_toy, "cloud": cloud_toy}

TYPED = (
    Column("energy", "GeV", "bounded", 0.0),
    Column("phi", "rad", "periodic", 0.0, 2.0 * math.pi),
    Column("charge", "", "discrete", -1.0, 1.0),
)


def typed_toy(kind: str, n: int, seed: int, periodic: bool) -> pofx.Dataset:
    """Independent energies, angles (only if ``periodic``) and charges (of clouds), in every cell or at every point."""
    rng = np.random.default_rng(seed)
    x = np.stack([np.exp(rng.normal(size=(n, 12))), rng.vonmises(3.0, 2.0, (n, 12)) % (2.0 * math.pi)], 1)
    x = np.concatenate([x, rng.integers(-1, 2, (n, 1, 12))], 1)
    kept = [0, *[1] * periodic, *[2] * (kind == "cloud")]
    x, columns = x[:, kept], tuple(TYPED[i] for i in kept)
    if kind == "grid":
        form = Field("grid", (len(columns), 4, 3), columns, (Axis("u", 4, periodic=True), Axis("v", 3)))
        return pofx.Dataset.from_arrays({"x": x.reshape(n, -1, 4, 3)}, columns={"x": form})
    mask = np.arange(3) < rng.integers(0, 4, n)[:, None]
    x = np.where(mask[..., None], x[:, :, :3].transpose(0, 2, 1), -777.0)
    form = Field("cloud", (3, len(columns)), columns)
    return pofx.Dataset.from_arrays({"x": x}, columns={"x": form}, masks={"x": mask})


def fitted(name: str, conditional: bool = False, precision: str = "float32", steps: int | None = None) -> Model:
    """The fitted model of a case, made once per run of the tests however it is asked for.

    Only the conditional model in float32 learns by default: the others, of which nothing learnt is asked, stop after ``FEW`` steps.
    """
    few = not conditional or precision == "float64"
    return _fitted(name, conditional, precision, steps or (FEW if few else CASES[name].steps))


@functools.cache
def _fitted(name: str, conditional: bool, precision: str, steps: int) -> Model:
    x, context = vector_toy(EVENTS, 1, conditional)
    teacher = taught_by(name, conditional, precision, steps)
    return CASES[name].fit(x, context, precision=precision, teacher=teacher, max_steps=steps)


def taught_by(
    name: str, conditional: bool = False, precision: str = "float32", steps: int | None = None
) -> Model | None:
    """The fitted teacher of a case, for events of the same toy; where the case learns, so did its teacher."""
    teacher = CASES[name].teacher
    if teacher is None:
        return None
    return fitted(teacher, conditional, precision, CASES[teacher].steps if steps == CASES[name].steps else steps)


def learnt(name: str, conditional: bool) -> Model:
    """The model of a case after all its steps."""
    return fitted(name, conditional, steps=CASES[name].steps)


@functools.cache
def fitted_field(name: str, kind: str, conditional: bool = False) -> Model:
    """The model of a case on grids or clouds, after few steps."""
    return CASES[name].fit(TOYS[kind](600, 1, conditional), kind=kind, max_steps=12, batch_size=64)


def updates(family: Family, layout: Any) -> list[tuple[Phase, Update]]:
    return [(phase, update) for phase in family.phases(layout) for update in phase.updates]


# ---------------------------------------------------------------------------------------------- densities of vectors


def check_closed_form(name: str, conditional: bool) -> None:
    """The learnt log-density is that of the Gaussian truth, and on average not above it."""
    x, context = vector_toy(CASES[name].events, 2, conditional)
    gap = vector_truth(x, context) - learnt(name, conditional).log_prob(x, context)
    error = gap.std() / math.sqrt(len(gap))
    assert -5 * error < gap.mean() < CASES[name].gap + 3 * error


def grid(side: int, reach: float = 8.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Cell centres of a square grid about the events: points (side^2, 2), the edges' relative positions, and the area of a cell."""
    truth = JOINT.marginal([1, 2])
    sigma = np.sqrt(np.diag(truth.covariance))
    edges = np.linspace(-reach, reach, side + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    mesh = np.stack(np.meshgrid(centres, centres, indexing="ij"), -1).reshape(-1, 2)
    return truth.mean + sigma * mesh, edges, float(np.prod(sigma) * (edges[1] - edges[0]) ** 2)


def check_normalised(name: str, conditional: bool) -> np.ndarray:
    """The density integrates to one over the plane; returns the probability of each cell."""
    side = CASES[name].side
    points, _, area = grid(side, 7.0)
    context = np.array([0.3]) if conditional else None
    density = np.exp(learnt(name, conditional).log_prob(points, context)) * area
    assert abs(density.sum() - 1) < 2e-3
    return density.reshape(side, side)


def check_sample_agrees(name: str, conditional: bool) -> None:
    """Events drawn fall into coarse cells as the density says (chi-squared)."""
    side = CASES[name].side // 24
    cells = check_normalised(name, conditional).reshape(24, side, 24, side).sum((1, 3))
    context, n = (np.array([0.3]) if conditional else None), 4000
    sample = learnt(name, conditional).sample(n, context, seed=3)
    truth = JOINT.marginal([1, 2])
    edges = grid(24, 7.0)[1]
    unit = (sample - truth.mean) / np.sqrt(np.diag(truth.covariance))
    counts = np.histogram2d(*unit.T, bins=[edges, edges])[0]
    expected = n * cells / cells.sum()
    large = expected > 5
    seen, wanted = np.append(counts[large], n - counts[large].sum()), np.append(expected[large], expected[~large].sum())
    assert stats.chisquare(seen, wanted).pvalue > 1e-3


def check_scale(name: str, scale: float, shift: float) -> None:
    """Events in another unit and of another origin: the density changes by the constant, samples scale."""
    model = fitted(name, False, "float64")
    x, _ = vector_toy(EVENTS, 1, False)
    other = CASES[name].fit(scale * (x + shift), precision="float64", max_steps=FEW)
    inside = x[:50]
    if has_density(name):
        moved = other.log_prob(scale * (inside + shift))
        np.testing.assert_allclose(moved, model.log_prob(inside) - 2 * math.log(scale), atol=1e-5, rtol=0)
    np.testing.assert_allclose(other.sample(50, seed=1) / scale - shift, model.sample(50, seed=1), atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------------------- what must not matter


def check_batch(name: str, conditional: bool) -> None:
    """No event's number depends on its neighbours: bit for bit."""
    model = fitted(name, conditional)
    x, context = vector_toy(EVENTS, 1, conditional)
    if has_density(name):
        n = model.family.density_chunk(model.layout) + 90
        whole = model.log_prob(x[:n], None if context is None else context[:n])
        rows = np.random.default_rng(1).permutation(n)[:137]
        part = model.log_prob(x[rows], None if context is None else context[rows])
        np.testing.assert_array_equal(part, whole[rows])
    one = None if context is None else context[0]
    sample = model.sample(1100, one, seed=5)
    np.testing.assert_array_equal(model.sample(17, one, seed=5), sample[:17])
    np.testing.assert_array_equal(model.sample_range(1020, 1030, seed=5, context=one), sample[1020:1030])


def check_duplicates_estimate(name: str) -> None:
    """Closed forms and EM: an event of weight k is the event k times."""
    x, _ = vector_toy(400, 6, False)
    weight = np.random.default_rng(7).integers(1, 4, 400)
    family = CASES[name].family
    weighted = pofx.Dataset.from_arrays(x, weight=weight.astype(float)).with_split((1, 0, 0))
    repeated = pofx.Dataset.from_arrays(np.repeat(x, weight, axis=0)).with_split((1, 0, 0))
    first, second = (family.fit(data, training=QUICK).log_prob(x[:100]) for data in (weighted, repeated))
    np.testing.assert_allclose(first, second, atol=1e-10, rtol=0)


def check_duplicates_loss(model: Model, events: Any) -> None:
    """Losses: an event of weight k is the event k times, for the loss and for every gradient, at 1e-10 in float64."""
    body = model.fitted.body
    moved = [parameter for parameter in body.parameters() if parameter.requires_grad]
    weight = torch.from_numpy(np.random.default_rng(7).integers(1, 4, len(events)))
    repeated = events[torch.arange(len(events)).repeat_interleave(weight)]
    for _, update in updates(model.family, model.layout):
        values = []
        for batch, factor in ((events, weight.double()), (repeated, torch.ones(len(repeated), dtype=torch.float64))):
            weighted = batch.replace(weight=factor)  # for losses that compare events of a batch with one another
            loss = update.loss(body, weighted, Noise(1, batch.index, dtype=torch.float64))
            total = (factor * loss.per_event).sum() / factor.sum()
            values.append((total, torch.autograd.grad(total, moved, allow_unused=True)))
        torch.testing.assert_close(values[0], values[1], atol=1e-10, rtol=1e-10)


def latent(model: Model, n: int, kind: str = "vector") -> Any:
    """n events of the conditional toy as a loss sees them."""
    events = as_dataset(*(vector_toy(n, 6, True) if kind == "vector" else (TOYS[kind](n, 6, True),))).arrays()
    return model.fitted.prepare(events)[0].replace(index=torch.arange(n))


def check_saved(name: str, conditional: bool, path: Any) -> None:
    """A model read back is the same, bit for bit."""
    model = fitted(name, conditional)
    model.save(path)
    again = pofx.load(path)
    x, context = vector_toy(20, 1, conditional)
    if has_density(name):
        np.testing.assert_array_equal(again.log_prob(x, context), model.log_prob(x, context))
    one = None if context is None else context[0]
    np.testing.assert_array_equal(again.sample(50, one, seed=2), model.sample(50, one, seed=2))
    assert again.family == model.family


# ---------------------------------------------------------------------------------------------- training


def check_gradients(model: Model, events: Any) -> None:
    """Every parameter belongs to an update, and its loss moves it (away from where networks start: with zeros in their last layer)."""
    body = copy.deepcopy(model.fitted.body)
    generator = torch.Generator().manual_seed(1)
    for parameter in body.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter)
    reached: set[str] = set()
    for _, update in updates(model.family, model.layout):
        body.zero_grad()
        loss = update.loss(body, events, Noise(1, events.index))
        (loss.per_event.mean() + (0.0 if loss.extra is None else loss.extra)).backward()
        reached |= {n for n, p in body.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
        body.zero_grad(set_to_none=True)
    assert {n for n, p in body.named_parameters() if p.requires_grad} - reached == set()


def check_precision(name: str, precision: str) -> None:
    """The body has the precision that was asked for (float64 for closed forms), and numbers are finite and nearly the same in float64."""
    model = fitted(name, False, precision)
    own = model.family.capabilities.precision
    assert model.card["precision"] == (own or precision)
    assert {t.dtype for t in model.fitted.body.parameters()} <= {getattr(torch, own or precision)}
    x, _ = vector_toy(200, 2, False)
    double_model = in_double(model)
    if not has_density(name):
        noise = model.noise(100, seed=1)
        exact = double_model.decode({key: value.double() for key, value in noise.items()})
        spread = (model.decode(noise).detach().double() - exact.detach()).abs().median()
        assert float(spread) < (1e-3 if precision == "float32" else 1e-12)
        return
    values = model.log_prob(x)
    assert values.dtype == np.float64
    double = double_model.log_prob(x)
    np.testing.assert_allclose(values, double, atol=1e-3 if precision == "float32" else 1e-12, rtol=0)


def in_double(model: Model) -> Model:
    """The same model with its numbers in float64."""
    return Model(model.family, model.to("cpu").fitted.double(), model.layout, model.card)


def check_reproducible(name: str) -> None:
    """The same seed gives the same model."""
    x, _ = vector_toy(EVENTS, 1, False)
    first, again = fitted(name), CASES[name].fit(x, max_steps=FEW, teacher=taught_by(name))
    np.testing.assert_array_equal(again.sample(50, seed=1), first.sample(50, seed=1))
    if has_density(name):
        np.testing.assert_array_equal(again.log_prob(x[:50]), first.log_prob(x[:50]))


def unfitted(name: str) -> Any:
    """The body of a case before training."""
    x, context = vector_toy(100, 1, True)
    return prepare_fit(CASES[name].family, x, context, None, training=QUICK, teacher=taught_by(name, True))[2].body


def has_density(name: str) -> bool:
    """Whether the family declares a density of any sort."""
    return registry.family_class(name).capabilities.density != "none"


# ---------------------------------------------------------------------------------------------- grids and clouds


def rows_of(data: pofx.Dataset, n: int) -> Events:
    """The first n events, with their contexts."""
    return data.arrays()[:n]


def check_field_sample(name: str, kind: str, conditional: bool) -> None:
    """Shapes, masks and units are those of the data; the same seed gives the same events, whatever is drawn beside them."""
    model, data = fitted_field(name, kind, conditional), TOYS[kind](70, 3, conditional)
    context = rows_of(data, 70).context
    many = model.sample(None if conditional else 70, context, seed=5)
    few = model.sample(None if conditional else 7, None if context is None else context[:7], seed=5)
    form = model.layout.spec["x"]
    if kind == "grid":
        assert many.shape == (70, *form.shape)
        np.testing.assert_array_equal(many[:7], few)
        assert not np.array_equal(many, model.sample(None if conditional else 70, context, seed=6))
        return
    assert many.x.shape == (70, *form.shape)
    assert many.mask.dtype == bool
    assert not many.x[~many.mask].any()
    np.testing.assert_array_equal(many.x[:7], few.x)
    np.testing.assert_array_equal(many.mask[:7], few.mask)
    again = model.sample(40, context[0], seed=6) if conditional else model.sample(40, seed=6)
    assert again.x.shape == (40, *form.shape)
    assert 8.0 < many.x[many.mask].mean() < 12.0


def check_field_counts(name: str) -> None:
    """Clouds have as many points as those of the data."""
    sample = fitted_field(name, "cloud").sample(1000, seed=1)
    seen = np.bincount(sample.mask.sum(1), minlength=len(POINTS))
    data = rows_of(TOYS["cloud"](600, 1, False), 600)
    shares = np.bincount(data.mask.sum(1), minlength=len(POINTS)) / 600
    assert np.abs(seen / 1000 - shares).max() < 0.06


def check_field_saved(name: str, kind: str, conditional: bool, path: Any) -> None:
    """A model of grids or clouds read back is the same, bit for bit."""
    model = fitted_field(name, kind, conditional)
    model.save(path)
    again = pofx.load(path)
    context = rows_of(TOYS[kind](5, 3, conditional), 5).context
    first, second = (m.sample(None if conditional else 5, context, seed=2) for m in (model, again))
    np.testing.assert_array_equal(*((first, second) if kind == "grid" else (first.x, second.x)))


def check_field_density(name: str, kind: str, conditional: bool) -> None:
    """Finite, of one event at a time, in the units of the data, and blind to what is in padded points."""
    model, events = fitted_field(name, kind, conditional), rows_of(TOYS[kind](5, 3, conditional), 5)
    values = model.log_prob(events)
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(model.log_prob(events[3:4]), values[3:4])
    if kind == "cloud":
        other = np.where(events.mask[..., None], events.x, -55.0)
        np.testing.assert_array_equal(model.log_prob(events.replace(fields={"x": other})), values)


def check_field_types(name: str, kind: str) -> None:
    """Declared types of columns of grids and clouds: samples keep to them, densities are finite inside and zero outside."""
    case, periodic = CASES[name], registry.family_class(name).capabilities.periodic
    if not periodic:
        with pytest.raises(CapabilityError, match="periodic"):
            case.fit(typed_toy(kind, 100, 1, True), kind=kind, max_steps=2)
    data = typed_toy(kind, 300, 1, periodic)
    model = case.fit(data, kind=kind, max_steps=4, batch_size=64)
    made = model.sample(60, seed=1)
    values = made.x[made.mask] if kind == "cloud" else np.moveaxis(made, 1, -1).reshape(-1, made.shape[1])
    assert (values[:, 0] >= 0.0).all()
    if kind == "cloud":
        assert set(np.unique(values[:, -1])) <= {-1.0, 0.0, 1.0}
    if periodic:
        assert values[:, 1].min() >= 0.0
        assert values[:, 1].max() < 2.0 * math.pi
    if model.density == "none":
        return
    some = next(iter(data.chunks(8)))
    log_p = model.log_prob(some)
    assert np.isfinite(log_p).all()
    wrong = some.x.copy()
    wrong[(slice(None), 0, 0) if kind == "cloud" else (slice(None), 0)] = -1.0
    found = model.log_prob(some.replace(fields={"x": wrong}))
    hit = some.mask[:, 0] if kind == "cloud" else np.ones(8, bool)
    assert np.isneginf(found[hit]).all()
    np.testing.assert_array_equal(found[~hit], log_p[~hit])


def check_field_decode(name: str, kind: str, conditional: bool) -> None:
    """``decode`` of the noise that ``sample`` uses gives the sample, and gradients."""
    model = fitted_field(name, kind, conditional)
    context = rows_of(TOYS[kind](6, 3, conditional), 6).context
    noise = model.noise(6, seed=4)
    noise = {key: value.clone().requires_grad_(key == "z") for key, value in noise.items()}
    made, drawn = model.decode(noise, context), model.sample(None if conditional else 6, context, seed=4)
    made, drawn = (made, drawn) if kind == "grid" else (made.x, drawn.x)
    np.testing.assert_allclose(made.detach(), drawn, atol=1e-4)
    (gradient,) = torch.autograd.grad(made.sum(), noise["z"])
    assert bool((gradient != 0).any())
