"""Flows: Jacobians, inverses, the seam of periodic columns, configuration errors, and equality of tracked and quiet decoding."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pofx
import pofx.errors
from pofx.data.events import Events
from pofx.data.spec import vector_spec
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Layout
from pofx.models.flows import AutoregressiveFlow, CouplingFlow, FlowFamily, SplineFlow

FLOWS: dict[str, FlowFamily] = {
    "coupling-spline": CouplingFlow(layers=3, hidden=(24, 24)),
    "coupling-affine": CouplingFlow(layers=3, hidden=(24, 24), element="affine"),
    "autoregressive-affine": AutoregressiveFlow(layers=3, hidden=(24, 24)),
    "autoregressive-spline": AutoregressiveFlow(layers=2, hidden=(24, 30), element="spline"),
    "spline": SplineFlow(layers=2, hidden=(24, 24)),
    "gated": SplineFlow(layers=2, hidden=(24, 24), residual=True, gated=True),
    "affine-spline": AutoregressiveFlow(layers=2, hidden=(24, 24), element="affine-spline"),
    "coupling-lu": CouplingFlow(layers=3, hidden=(24, 24), mixing="lu"),
    "coupling-affine-spline": CouplingFlow(layers=3, hidden=(24, 24), element="affine-spline"),
}


def untrained(family: FlowFamily, features: int, context: int, circular: tuple[int, ...]) -> Any:
    layout = Layout(vector_spec(features), vector_spec(context, "c") if context else None, {"x": circular})
    torch.manual_seed(3)
    body = family.build(layout).double().eval()
    for parameter in body.parameters():
        parameter.data += 0.08 * torch.randn_like(parameter)
    return body


def batch(n: int, features: int, context: int, circular: tuple[int, ...]) -> Events:
    g = torch.Generator().manual_seed(4)
    x = torch.randn(n, features, generator=g, dtype=torch.float64)
    x[:, list(circular)] = (2.0 * torch.rand(n, len(circular), generator=g, dtype=torch.float64) - 1.0) * math.pi
    c = Events({"c": torch.randn(n, context, generator=g, dtype=torch.float64)}) if context else None
    return Events({"x": x}, context=c)


def apart(a: Tensor, b: Tensor, circular: tuple[int, ...]) -> float:
    d = (a - b).detach().abs()
    d[:, list(circular)] = torch.minimum(d[:, list(circular)], 2.0 * math.pi - d[:, list(circular)])
    return float(d.max())


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(
    ("features", "context", "circular"),
    [(1, 0, ()), (2, 1, ()), (5, 0, ()), (5, 2, (1, 3)), (3, 0, (0, 1, 2)), (11, 1, (4,))],
)
def test_jacobian_and_inverse(name: str, features: int, context: int, circular: tuple[int, ...]) -> None:
    if circular and name == "coupling-lu":
        with pytest.raises(CapabilityError, match="would mix angles"):
            untrained(FLOWS[name], features, context, circular)
        return
    body, events = untrained(FLOWS[name], features, context, circular), batch(6, features, context, circular)
    c = body.context(events.context)
    z, log_jacobian = (part.detach() for part in body.flow(events.x, c))
    one = None if c is None else c[:1]
    jacobian = torch.autograd.functional.jacobian(lambda v: body.flow(v, one)[0][0], events.x[:1])[:, 0]
    assert torch.linalg.slogdet(jacobian)[1] == pytest.approx(float(log_jacobian[0]), abs=1e-10)
    with torch.no_grad():
        x, log_inverse = body.flow.inverse(z, c)
    tracked, log_tracked = (part.detach() for part in body.flow.inverse(z, c))
    assert apart(x, events.x, circular) < 1e-9
    torch.testing.assert_close(log_inverse, -log_jacobian, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(tracked, x, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(log_tracked, log_inverse, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", FLOWS)
def test_decode_is_differentiable(name: str) -> None:
    body = untrained(FLOWS[name], 4, 0, ())
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    family = FLOWS[name]
    assert torch.autograd.gradcheck(lambda v: family.decode(body, {"z": v}, None)["x"], (z,), atol=1e-6)


@pytest.mark.parametrize("name", sorted(FLOWS.keys() - {"coupling-lu"}))
def test_encode_and_decode_are_inverse_with_angles(name: str) -> None:
    family, circular = FLOWS[name], (1,)
    body, events = untrained(family, 3, 0, circular), batch(50, 3, 0, circular)
    again = family.decode(body, family.encode(body, events), None)["x"]
    assert apart(again, events.x, circular) < 1e-6


def test_density_is_continuous_across_the_seam() -> None:
    body, events = untrained(FLOWS["spline"], 3, 0, (1,)), batch(20, 3, 0, (1,))
    left, right = events.x.clone(), events.x.clone()
    left[:, 1], right[:, 1] = -math.pi, math.pi - 1e-9
    a, b = (FLOWS["spline"].log_density(body, Events({"x": x})) for x in (left, right))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0.0)


def test_starts_at_the_base_density() -> None:
    for family in FLOWS.values():
        body = family.build(Layout(vector_spec(3))).double()
        x = torch.randn(10, 3, dtype=torch.float64)
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
        torch.testing.assert_close(family.log_density(body, Events({"x": x})), expected, msg=family.name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "layers must be a number of at least 1"),
        ({"bins": 0}, "bins"),
        ({"bound": -1.0}, "bound"),
        ({"element": "cubic"}, "element must be one of 'spline', 'affine', 'affine-spline'"),
        ({"activation": "step"}, "activation must be one of"),
        ({"dropout": 1.5}, "dropout must be a number between"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (0,)}, "hidden"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplineFlow(**settings)


def test_learns_a_periodic_density() -> None:
    """A von Mises column and a normal one that depends on it: KL to the truth below 0.02 nats."""
    g = np.random.default_rng(5)
    phi = g.vonmises(2.0, 2.0, 20_000)
    y = np.cos(phi) + 0.5 * g.normal(size=20_000)
    data = pofx.Dataset.from_arrays(
        np.stack([phi, y], 1), columns=[pofx.Column("phi", "rad", "periodic", -math.pi, math.pi), pofx.Column("y")]
    )
    model = pofx.SplineFlow(layers=2, hidden=(32, 32)).fit(
        data, training=pofx.Training(max_epochs=None, max_steps=150, learning_rate=1.5e-2, seed=1)
    )
    t = np.stack([g.vonmises(2.0, 2.0, 20_000), np.zeros(20_000)], 1)
    t[:, 1] = np.cos(t[:, 0]) + 0.5 * g.normal(size=20_000)
    truth = (
        2.0 * np.cos(t[:, 0] - 2.0)
        - math.log(2.0 * math.pi * np.i0(2.0))
        - 2.0 * (t[:, 1] - np.cos(t[:, 0])) ** 2
        - math.log(0.5 * math.sqrt(2.0 * math.pi))
    )
    difference = truth - model.log_prob(t)
    assert difference.mean() < 0.02 + 3.0 * difference.std() / math.sqrt(20_000)


def test_a_discrete_density_does_not_depend_on_the_other_rows_and_sums_to_one() -> None:
    g = np.random.default_rng(6)
    counts = g.poisson(3.0, 4000).astype(float)
    data = pofx.Dataset.from_arrays(counts[:, None], columns=[pofx.Column("n", "", "discrete", 0, 40)])
    model = pofx.SplineFlow(layers=1, hidden=(16, 16)).fit(data, training=pofx.Training(max_epochs=10, seed=1))
    assert model.density == "estimate"
    n = np.arange(41.0)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pofx.errors.RangeWarning)
        together, alone = model.log_prob(n), np.concatenate([model.log_prob(n[i : i + 1]) for i in range(41)])
        error = model.log_prob_error(n[:8])
    np.testing.assert_array_equal(together, alone)
    assert np.exp(together).sum() == pytest.approx(1.0, abs=0.03)
    assert (error > 0).all()
    assert np.exp(together[3]) == pytest.approx(np.exp(-3.0) * 27.0 / 6.0, rel=0.15)
