"""Columns between ends that other columns set: the exact Jacobian, the inverse, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pofx
from pofx.bijections.ordered import Ordered, Span, spans_of
from pofx.bijections.preprocessed import preprocessing_config, preprocessing_from_config
from pofx.bijections.preprocessing import Recipe, build_preprocessing
from pofx.data.spec import Column, Field
from pofx.errors import ConfigError, DataError

COLUMNS = (
    Column("phi", "rad", "periodic", 0.0, 6.0),
    Column("pt1", "GeV", "bounded", 1.0),
    Column("n", "", "discrete", 0, 3),
    Column("pt2", "GeV", "bounded", 1.0),
    Column("pt3", "GeV", "bounded", 0.0),
    Column("y", "", "bounded", 0.0, 9.0),
    Column("a"),
    Column("b"),
)
ORDER = (("pt1", ">", "pt2"), ("pt3", "<", "pt2"), ("a", "<", "b"))


def events(n: int = 50) -> torch.Tensor:
    rng = np.random.default_rng(1)
    low = rng.exponential(size=(n, 3))
    pt2 = 1.0 + low[:, 0]
    pt1, pt3 = pt2 + low[:, 1], pt2 * rng.uniform(size=n)
    a = rng.normal(size=n)
    x = [rng.uniform(0, 6, n), pt1, rng.integers(0, 4, n), pt2, pt3, rng.uniform(0, 9, n), a, a + low[:, 2]]
    return torch.from_numpy(np.stack(x, 1))


@pytest.mark.parametrize("method", ["auto", "standardise", "none"])
def test_the_jacobian_is_exact_and_the_inverse_inverts(method: str) -> None:
    x, form = events(), Field("vector", (len(COLUMNS),), COLUMNS)
    step = build_preprocessing(form, x, None, Recipe(method, ORDER, whole=True))
    z, log_jacobian = step(x)
    back, log_inverse = step.inverse(z)
    torch.testing.assert_close(back, x, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(log_inverse, -log_jacobian, atol=1e-9, rtol=1e-9)
    for i in range(5):
        rows = torch.autograd.functional.jacobian(lambda at: step(at[None])[0][0], x[i])
        assert float(torch.linalg.slogdet(rows)[1]) == pytest.approx(float(log_jacobian[i]), abs=1e-9)


@pytest.mark.parametrize("method", ["auto", "standardise", "none"])
def test_whole_numbers_stay_and_any_latent_point_is_in_order(method: str) -> None:
    x, form = events(), Field("vector", (len(COLUMNS),), COLUMNS)
    step = build_preprocessing(form, x, None, Recipe(method, ORDER, whole=True))
    assert torch.equal(step(x)[0][:, 2], x[:, 2])
    assert step.discrete_columns == ()
    z = 5.0 * torch.randn(2000, len(COLUMNS), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if method != "none":
        made = step.inverse(z)[0]
        assert bool((made[:, 1] >= made[:, 3]).all())
        assert bool((made[:, 3] >= made[:, 4]).all())
        assert bool((made[:, 3] >= 1.0).all())
        assert bool((made[:, 6] <= made[:, 7]).all())
        assert bool(((made[:, 5] >= 0.0) & (made[:, 5] <= 9.0)).all())


def test_structure_and_numbers_survive_json() -> None:
    x, form = events(), Field("vector", (len(COLUMNS),), COLUMNS)
    step = build_preprocessing(form, x, None, Recipe("auto", ORDER, whole=True))
    again = preprocessing_from_config(preprocessing_config(step))
    again.load_state_dict(step.state_dict())
    torch.testing.assert_close(again(x)[0], step(x)[0], atol=0, rtol=0)


def test_several_ends_count_as_the_nearest() -> None:
    """x3 between max(x0, 0) and min(x1, x2): a point's place is its share of that interval."""
    step = Ordered(4, [Span(3, low=0.0, above=(0,), below=(1, 2))])
    x = torch.tensor([[-1.0, 4.0, 8.0, 1.0], [2.0, 9.0, 4.0, 3.5]], dtype=torch.float64)
    share = step(x)[0][:, 3].sigmoid()
    torch.testing.assert_close(share, torch.tensor([0.25, 0.75], dtype=torch.float64), atol=1e-12, rtol=0)


def test_outside_has_density_zero_and_events_out_of_order_are_refused() -> None:
    step = Ordered(2, [Span(1, below=(0,))])
    z, log_jacobian = step(torch.tensor([[1.0, 0.5], [1.0, 1.5], [1.0, 1.0]], dtype=torch.float64))
    assert torch.isneginf(log_jacobian).tolist() == [False, True, False]
    assert bool(z.isfinite().all())
    with pytest.raises(DataError, match="1 of 2 events break its order; the first is event 1"):
        step.fit(torch.tensor([[1.0, 0.5], [1.0, 1.5]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((("pt1", ">", "pt9"),), "no column is called 'pt9'"),
        ((("pt1", "=", "pt2"),), "expected an order such as"),
        ((("pt1", ">", "phi"),), "periodic"),
        ((("n", ">", "pt1"),), "discrete"),
        ((("pt1", ">", "pt1"),), "with itself"),
        ((("a", ">", "pt3"),), None),
        ((("pt1", "<", "b"), ("a", ">", "b")), "not known to be larger"),
        ((("y", ">", "pt3"), ("pt2", "<", "y")), "not known to be larger"),
    ],
)
def test_orders_that_make_no_sense_are_refused(order: tuple, message: str | None) -> None:
    if message is None:  # a later real column above an earlier one needs no more
        assert spans_of(order, COLUMNS) == [Span(6, above=(4,))]
        return
    with pytest.raises(ConfigError, match=message):
        spans_of(order, COLUMNS)


def test_other_families_are_not_changed() -> None:
    x = events()[:, 6:]
    first = build_preprocessing(Field("vector", (2,), COLUMNS[6:]), x, None, "auto")
    second = build_preprocessing(Field("vector", (2,), COLUMNS[6:]), x, None, Recipe("auto"))
    assert preprocessing_config(first) == preprocessing_config(second)
    assert isinstance(pofx.SplineFlow().preprocess_of("x", {"x": Field("vector", (8,), COLUMNS)}), str)
