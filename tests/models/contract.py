"""What every family must do, as functions of one case: a registered family in a tiny configuration, on one kind of field.

A new family gets a line in ``CONFIGS``; a family that declares a new kind of field gets a toy of that kind in ``TOYS``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats

import pofx
from pofx import registry
from pofx.models.base import Family
from pofx.models.fitting import prepare_fit
from pofx.models.model import Model
from pofx.simulators import Conditional, CorrelatedGaussian
from pofx.training import Training
from pofx.training.contract import Phase, Update
from pofx.training.noise import Noise

EVENTS = 3000
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
    gap : how far its density may be from a Gaussian truth, in nats per event.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    gap: float = 0.05

    @property
    def family(self) -> Family:
        return registry.family_class(self.name)(**self.config)


FLOW = {"layers": 2, "hidden": (16,), "bins": 4}
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
    )
}


def vector_toy(n: int, seed: int, conditional: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Events (n, 2) of the Gaussian truth, with their context (n, 1) if wanted."""
    x, context = Conditional(JOINT).sample(n, seed)
    return x, context if conditional else None


def vector_truth(x: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    return JOINT.marginal([1, 2]).log_prob(x) if context is None else Conditional(JOINT).log_prob(x, context)


TOYS = {"vector": vector_toy}
TRUTHS = {"vector": vector_truth}


@functools.cache
def fitted(name: str, conditional: bool = False, precision: str = "float32") -> Model:
    """The fitted model of a case, made once per session."""
    x, context = vector_toy(EVENTS, 1, conditional)
    return CASES[name].family.fit(x, context, training=QUICK.replace(precision=precision))


def updates(family: Family, layout: Any) -> list[tuple[Phase, Update]]:
    return [(phase, update) for phase in family.phases(layout) for update in phase.updates]


# ---------------------------------------------------------------------------------------------- density


def check_closed_form(name: str, conditional: bool) -> None:
    """The learnt log-density is that of the Gaussian truth, and on average not above it."""
    x, context = vector_toy(3000, 2, conditional)
    gap = vector_truth(x, context) - fitted(name, conditional).log_prob(x, context)
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
    points, _, area = grid(168, 7.0)
    context = np.array([0.3]) if conditional else None
    density = np.exp(fitted(name, conditional).log_prob(points, context)) * area
    assert abs(density.sum() - 1) < 2e-3
    return density.reshape(168, 168)


def check_sample_agrees(name: str, conditional: bool) -> None:
    """Events drawn fall into coarse cells as the density says (chi-squared)."""
    cells = check_normalised(name, conditional).reshape(24, 7, 24, 7).sum((1, 3))
    context, n = (np.array([0.3]) if conditional else None), 8000
    sample = fitted(name, conditional).sample(n, context, seed=3)
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
    other = CASES[name].family.fit(scale * (x + shift), training=QUICK.replace(precision="float64"))
    inside = x[:500]
    moved = other.log_prob(scale * (inside + shift))
    np.testing.assert_allclose(moved, model.log_prob(inside) - 2 * math.log(scale), atol=1e-5, rtol=0)
    np.testing.assert_allclose(other.sample(50, seed=1) / scale - shift, model.sample(50, seed=1), atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------------------- what must not matter


def check_batch(name: str, conditional: bool) -> None:
    """No event's number depends on its neighbours: bit for bit."""
    model = fitted(name, conditional)
    x, context = vector_toy(EVENTS, 1, conditional)
    whole = model.log_prob(x[:1500], None if context is None else context[:1500])
    rows = np.random.default_rng(1).permutation(1500)[:137]
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


def check_duplicates_loss(name: str) -> None:
    """Losses: an event of weight k is the event k times, for the loss and for every gradient, at 1e-10 in float64."""
    model = fitted(name, True, "float64")
    body = model.fitted.body
    events = latent(model, 200)
    weight = torch.from_numpy(np.random.default_rng(7).integers(1, 4, 200))
    repeated = events[torch.arange(200).repeat_interleave(weight)]
    for _, update in updates(model.family, model.layout):
        values = []
        for batch, factor in ((events, weight.double()), (repeated, torch.ones(len(repeated), dtype=torch.float64))):
            loss = update.loss(body, batch, Noise(1, batch.index, dtype=torch.float64))
            total = (factor * loss.per_event).sum() / factor.sum()
            values.append((total, torch.autograd.grad(total, list(body.parameters()), allow_unused=True)))
        torch.testing.assert_close(values[0], values[1], atol=1e-10, rtol=1e-10)


def latent(model: Model, n: int) -> Any:
    """n events of the conditional toy as a loss sees them."""
    x, context = vector_toy(n, 6, True)
    events = pofx.Dataset.from_arrays(x, context).arrays()
    return model.fitted.prepare(events)[0].replace(index=torch.arange(n))


def check_saved(name: str, conditional: bool, path: Any) -> None:
    """A model read back is the same, bit for bit."""
    model = fitted(name, conditional)
    model.save(path)
    again = pofx.load(path)
    x, context = vector_toy(100, 1, conditional)
    np.testing.assert_array_equal(again.log_prob(x, context), model.log_prob(x, context))
    one = None if context is None else context[0]
    np.testing.assert_array_equal(again.sample(50, one, seed=2), model.sample(50, one, seed=2))
    assert again.family == model.family


# ---------------------------------------------------------------------------------------------- training


def check_gradients(name: str) -> None:
    """Every parameter belongs to an update, and its loss moves it."""
    model = fitted(name, True)
    body, events = model.fitted.body, latent(model, 200)
    reached: set[str] = set()
    for _, update in updates(model.family, model.layout):
        body.zero_grad()
        loss = update.loss(body, events, Noise(1, events.index))
        (loss.per_event.mean() + (0.0 if loss.extra is None else loss.extra)).backward()
        reached |= {n for n, p in body.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
        body.zero_grad(set_to_none=True)
    assert reached == {n for n, p in body.named_parameters() if p.requires_grad}


def check_precision(name: str, precision: str) -> None:
    """The body has the precision that was asked for (float64 for closed forms), and numbers are finite and nearly the same in float64."""
    model = fitted(name, False, precision)
    own = model.family.capabilities.precision
    assert model.card["precision"] == (own or precision)
    assert {t.dtype for t in model.fitted.body.parameters()} <= {getattr(torch, own or precision)}
    x, _ = vector_toy(200, 2, False)
    values = model.log_prob(x)
    assert values.dtype == np.float64
    double = Model(model.family, _double(model), model.layout, model.card).log_prob(x)
    np.testing.assert_allclose(values, double, atol=1e-3 if precision == "float32" else 1e-12, rtol=0)


def _double(model: Model) -> Any:
    return model.to("cpu").fitted.double()


def check_reproducible(name: str) -> None:
    """The same seed gives the same model."""
    x, _ = vector_toy(EVENTS, 1, False)
    again = CASES[name].family.fit(x, training=QUICK)
    np.testing.assert_array_equal(again.log_prob(x[:50]), fitted(name).log_prob(x[:50]))


def unfitted(name: str) -> Any:
    """The body of a case before training."""
    x, context = vector_toy(100, 1, True)
    return prepare_fit(CASES[name].family, x, context, None, training=QUICK)[2].body
