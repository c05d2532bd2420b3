"""The contract, for every registered family and every kind of field it declares."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace

import contract
import numpy as np
import pytest
import torch

import pofx
from pofx import registry
from pofx.config import from_plain, to_plain
from pofx.data.spec import vector_spec
from pofx.errors import ConfigError, DataError, NoDensityError, NonFiniteError, NotFittedError, RangeWarning, ShapeError

pytestmark = pytest.mark.filterwarnings("ignore::pofx.errors.RangeWarning")


def available(name: str) -> bool:
    return importlib.util.find_spec(registry.family_path(name).partition(":")[0]) is not None


NAMES = [name for name in registry.family_names() if available(name)]


FIELDS = [
    (name, kind) for name in NAMES for kind in sorted(registry.family_class(name).capabilities.kinds - {"vector"})
]
DENSITIES = [name for name in NAMES if contract.has_density(name)]
EXACT = [name for name in DENSITIES if registry.family_class(name).capabilities.density == "exact"]

with_density = pytest.mark.parametrize("name", DENSITIES)
with_exact_density = pytest.mark.parametrize("name", EXACT)
with_field = pytest.mark.parametrize(("name", "kind"), FIELDS)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "conditional"])
def conditional(request: pytest.FixtureRequest) -> bool:
    """The conditional model does what the other one does, and its context beside it."""
    return request.param


@pytest.fixture
def model(name: str) -> pofx.Model:
    return contract.fitted(name)


@pytest.fixture
def conditioned(name: str) -> pofx.Model:
    return contract.fitted(name, True)


def test_every_family_has_a_case_and_a_toy_for_each_kind(name: str) -> None:
    assert name in contract.CASES
    assert contract.CASES[name].family.name == name
    assert contract.CASES[name].family.capabilities.kinds <= set(contract.TOYS)


def test_config_is_frozen_and_survives_json(name: str) -> None:
    family = contract.CASES[name].family
    assert from_plain(to_plain(family)) == family
    with pytest.raises(AttributeError):
        family.preprocess = "none"


# Densities


@with_density
def test_closed_form(name: str, conditional: bool) -> None:
    contract.check_closed_form(name, conditional)


@with_exact_density
def test_integrates_to_one_and_sample_agrees(name: str, conditional: bool) -> None:
    contract.check_sample_agrees(name, conditional)


@with_exact_density
def test_one_column(name: str) -> None:
    x, _ = contract.vector_toy(2000, 1, False)
    model = contract.CASES[name].fit(x[:, :1], max_steps=30)
    points = np.linspace(-12, 14, 1001)
    assert np.exp(model.log_prob(points[:, None])).sum() * (points[1] - points[0]) == pytest.approx(1, abs=1e-3)
    assert model.sample(7, seed=1).shape == (7, 1)


@pytest.mark.parametrize(("scale", "shift"), [(1e-39, 0.0), pytest.param(1e6, 30.0, marks=pytest.mark.slow)])
def test_scale(name: str, scale: float, shift: float) -> None:
    contract.check_scale(name, scale, shift)


def test_encode_inverts_decode(conditioned: pofx.Model) -> None:
    if not conditioned.family.capabilities.encode:
        pytest.skip("declares no encode")
    x, context = contract.vector_toy(500, 2, True)
    noise = conditioned.encode(x, context)
    np.testing.assert_allclose(conditioned.decode(noise, context).detach(), x, atol=1e-3)


@with_exact_density
def test_density_error_is_zero_where_exact(model: pofx.Model) -> None:
    x, _ = contract.vector_toy(10, 2, False)
    if model.density == "exact":
        assert not model.log_prob_error(x).any()


# What must not matter


def test_batch_composition(name: str, conditional: bool) -> None:
    contract.check_batch(name, conditional)


def test_weights_are_duplicates(name: str) -> None:
    taught = contract.CASES[name].teacher is not None  # by a model of the same precision
    model = contract.fitted(name, True, "float64") if taught else contract.in_double(contract.fitted(name, True))
    contract.check_duplicates_loss(model, contract.latent(model, 200))
    phases = model.family.phases(model.layout)
    if any(phase.estimate for phase in phases) and not any(phase.updates for phase in phases):
        contract.check_duplicates_estimate(name)


def test_save_and_load(name: str, conditional: bool, tmp_path) -> None:
    contract.check_saved(name, conditional, tmp_path / "model.pofx")


def test_seeds(conditioned: pofx.Model) -> None:
    first, again, other = (conditioned.sample(20, [0.1], seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_same_seed_same_model(name: str) -> None:
    contract.check_reproducible(name)


# Training


def test_every_parameter_receives_gradient(name: str) -> None:
    model = contract.fitted(name, True)
    contract.check_gradients(model, contract.latent(model, 200))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_precision(name: str, precision: str) -> None:
    contract.check_precision(name, precision)


def test_state_dict_is_the_whole_state(name: str) -> None:
    fresh, trained = contract.unfitted(name), contract.fitted(name, True).fitted.body
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {k: v.shape for k, v in trained.state_dict().items()}


def test_warm_start(name: str) -> None:
    x, context = contract.vector_toy(1000, 1, True)
    first = contract.fitted(name, True)
    again = contract.CASES[name].fit(x, context, max_steps=1, init=first, teacher=contract.taught_by(name, True))
    if not contract.has_density(name):
        moved = again.sample(200, context[0], seed=1) - first.sample(200, context[0], seed=1)
        assert np.abs(moved).mean() < 0.3 * x.std()
        return
    some = x[:120], context[:120]
    assert np.mean(again.log_prob(*some)) > np.mean(first.log_prob(*some)) - 0.5


# Shapes and types


@pytest.mark.parametrize(
    ("n", "rows", "shape"),
    [
        (5, None, (5, 2)),
        (0, None, (0, 2)),
        (5, 0, (5, 2)),
        (5, 1, (1, 5, 2)),
        (5, 3, (3, 5, 2)),
        (None, 3, (3, 2)),
        (0, 3, (3, 0, 2)),
    ],
)
def test_sample_shapes(name: str, n: int | None, rows: int | None, shape: tuple[int, ...]) -> None:
    context = None if rows is None else np.full((rows, 1) if rows else (1,), 0.2)
    sample, weight = contract.fitted(name, rows is not None).sample(n, context, seed=1, weights=True)
    assert sample.shape == shape
    assert sample.dtype == np.float64
    assert weight.shape == shape[:-1]


def test_one_context_is_the_same_however_it_is_given(conditioned: pofx.Model) -> None:
    vector, row = conditioned.sample(6, [0.2], seed=1), conditioned.sample(6, [[0.2]], seed=1)
    np.testing.assert_array_equal(vector, row[0])


@with_density
def test_log_prob_shapes(conditioned: pofx.Model) -> None:
    context = np.array([[0.1], [0.2], [0.3]])
    x = conditioned.sample(4, context, seed=1)
    both = conditioned.log_prob(x, context)
    assert both.shape == (3, 4)
    np.testing.assert_array_equal(both[1], conditioned.log_prob(x[1], [0.2]))
    np.testing.assert_array_equal(both[:, 0], conditioned.log_prob(x[:, 0], context))
    assert conditioned.log_prob(x[0, 0], [0.1]) == both[0, 0]
    assert conditioned.log_prob(x[:0, 0], [0.1]).shape == (0,)


@with_density
def test_torch_in_torch_out_and_differentiable(conditioned: pofx.Model) -> None:
    x = torch.tensor([[1.0, -2.0], [0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    context = torch.tensor([[0.1], [0.3]])
    value = conditioned.log_prob(x, context)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.dtype == torch.float64
    assert bool(gradient.isfinite().all())
    step = 1e-2 * gradient.detach()
    rise = conditioned.log_prob(x.detach() + step, context) - conditioned.log_prob(x.detach() - step, context)
    torch.testing.assert_close(rise, 2 * (step * gradient).sum(1), rtol=0.1, atol=1e-3)
    assert isinstance(conditioned.sample(2, context, seed=1), torch.Tensor)
    assert isinstance(conditioned.sample(2, context.numpy(), seed=1), np.ndarray)


def test_decode_is_what_sample_draws_and_differentiable(conditioned: pofx.Model) -> None:
    noise = conditioned.noise(10, seed=4)
    np.testing.assert_allclose(
        conditioned.decode(noise, [0.2]).detach(), conditioned.sample(10, [0.2], seed=4), atol=1e-5
    )
    z = noise["z"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(conditioned.decode({**noise, "z": z}, [0.2]).sum(), z)
    assert bool((gradient != 0).any())


def test_the_field_may_have_any_name(name: str) -> None:
    x, context = contract.vector_toy(500, 1, True)
    forms = {"columns": vector_spec(["pt", "mass"], "jet"), "context_columns": vector_spec(["met"], "event")}
    data = pofx.Dataset.from_arrays({"jet": x}, {"event": context}, **forms)
    model = contract.CASES[name].fit(data, max_steps=2)
    assert model.sample(4, [0.2], seed=1).shape == (4, 2)
    if not contract.has_density(name):
        return
    assert model.log_prob({"jet": x[:4]}, context[:4]).shape == (4,)


# What must be refused


def test_config_is_not_a_model(name: str) -> None:
    family = contract.CASES[name].family
    for attribute in ("sample", "log_prob", "save"):
        with pytest.raises(NotFittedError, match=r"use the object that fit returned"):
            getattr(family, attribute)


def test_nan_is_refused(name: str, model: pofx.Model) -> None:
    if contract.has_density(name):
        with pytest.raises(NonFiniteError, match=r"NaN or infinit.*\(1, 0\)"):
            model.log_prob([[0.0, 0.0], [math.nan, 0.0]])
    with pytest.raises(NonFiniteError):
        contract.CASES[name].fit(np.array([[0.0, 1.0], [math.inf, 0.0]] * 20))


@with_density
def test_shapes_are_refused(model: pofx.Model, conditioned: pofx.Model) -> None:
    with pytest.raises(ShapeError, match=r"expected x of shape \(n, 2\).*got \(5, 3\)"):
        model.log_prob(np.zeros((5, 3)))
    with pytest.raises(ShapeError, match="without a context"):
        model.log_prob(np.zeros((5, 2)), np.zeros((5, 1)))
    with pytest.raises(ShapeError, match=r"expected a context of 1 columns .*got shape \(5, 2\)"):
        conditioned.log_prob(np.zeros((5, 2)), np.zeros((5, 2)))
    with pytest.raises(ShapeError, match="beside x"):
        conditioned.log_prob(np.zeros((5, 2)), np.zeros((4, 1)))


def test_wrong_samples_are_refused(model: pofx.Model, conditioned: pofx.Model) -> None:
    with pytest.raises(ShapeError, match=r"expected a context of 1 columns .*got none"):
        conditioned.sample(3, seed=1)
    with pytest.raises(ShapeError, match="without a context"):
        model.sample(3, [0.0], seed=1)
    with pytest.raises(ShapeError, match="number of events"):
        model.sample(-1, seed=1)


def test_a_density_that_is_not_declared_is_refused(name: str, model: pofx.Model) -> None:
    if contract.has_density(name):
        assert model.density in ("exact", "estimate", "bound")
        return
    assert model.density == "none"
    with pytest.raises(NoDensityError, match="has no density"):
        model.log_prob(np.zeros((5, 2)))


def test_unusable_data_are_refused(name: str) -> None:
    case, x = contract.CASES[name], contract.vector_toy(200, 1, False)[0]
    with pytest.raises(DataError):
        case.fit(np.zeros((0, 2)))
    with pytest.raises(DataError):
        case.fit(np.column_stack([x[:, 0], np.ones(200)]))
    with pytest.raises(DataError):
        case.fit(x, None, -np.ones(200))
    with pytest.raises(DataError):
        case.fit(x, np.zeros((7, 1)))


def test_unknown_preprocessing_is_refused(name: str) -> None:
    case = contract.CASES[name]
    if case.teacher:
        pytest.skip("lives in its teacher's coordinates")
    with pytest.raises(ConfigError):
        replace(case, config={**case.config, "preprocess": "magic"}).fit(contract.vector_toy(200, 1, False)[0])


@pytest.mark.filterwarnings("error::pofx.errors.RangeWarning")
def test_far_outside_warns(model: pofx.Model, conditioned: pofx.Model) -> None:
    inside = contract.vector_toy(contract.EVENTS, 1, False)[0].mean(0, keepdims=True)
    if model.density != "none":
        model.log_prob(inside)
        conditioned.log_prob(inside, [0.2])
        with pytest.warns(RangeWarning, match="x0"):
            model.log_prob(inside + np.array([100.0, 0.0]))
    with pytest.warns(RangeWarning, match="context"):
        conditioned.sample(3, [50.0], seed=1)


@with_density
def test_members(model: pofx.Model) -> None:
    x = contract.vector_toy(4, 2, False)[0]
    assert model.log_prob(x, members="all").shape == (model.family.count_members(model.fitted.body), 4)


# Grids and clouds


@with_field
def test_field_sample(name: str, kind: str, conditional: bool) -> None:
    contract.check_field_sample(name, kind, conditional)


@with_field
def test_field_types(name: str, kind: str) -> None:
    contract.check_field_types(name, kind)


@with_field
def test_field_decode(name: str, kind: str, conditional: bool) -> None:
    contract.check_field_decode(name, kind, conditional)


@with_field
def test_field_density(name: str, kind: str, conditional: bool) -> None:
    if contract.has_density(name):
        contract.check_field_density(name, kind, conditional)


@with_field
def test_field_gradients_and_weights(name: str, kind: str) -> None:
    model = contract.fitted_field(name, kind, True)
    contract.check_gradients(model, contract.latent(model, 60, kind))
    double = contract.in_double(model)
    contract.check_duplicates_loss(double, contract.latent(double, 60, kind))


@with_field
def test_field_saved(name: str, kind: str, conditional: bool, tmp_path) -> None:
    contract.check_field_saved(name, kind, conditional, tmp_path / "model.pofx")


@pytest.mark.parametrize("name", [name for name, kind in FIELDS if kind == "cloud"])
def test_clouds_have_as_many_points_as_the_data(name: str) -> None:
    contract.check_field_counts(name)
