"""`pofx.compare` of vectors, grids and clouds: columns by name, features, weights on either side, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import pofx
from pofx.data import Axis, Column, Field
from pofx.data.events import Events
from pofx.errors import CapabilityError, ColumnError, DataError, NonFiniteError, ShapeError
from pofx.metrics.compare import STATISTICS, compare
from pofx.metrics.samples import both_sides, side

QUICK: dict[str, Any] = {"replicas": 99, "statistics": ["energy", "ks", "wasserstein"]}


def table(n: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"pt": rng.exponential(30.0, n), "eta": rng.normal(shift, 1.0, n), "phi": rng.uniform(-3, 3, n)}


def numbers(found: Any) -> list[tuple[Any, ...]]:
    """Everything that a comparison says in numbers."""
    return [(one.value, one.error, one.floor, one.floor_error, one.p_value, one.events) for one in found]


# Vectors


def test_columns_are_matched_by_name() -> None:
    a, b = table(200, 1), table(200, 2)
    turned = {name: b[name] for name in ("phi", "pt", "eta")}
    found = compare(pofx.Dataset.from_arrays(a), pofx.Dataset.from_arrays(turned), **QUICK)
    assert found.columns == ("pt", "eta", "phi")
    assert numbers(found) == numbers(compare(*(np.stack(list(one.values()), 1) for one in (a, b)), **QUICK))


def test_a_column_that_differs_is_named_with_its_table() -> None:
    a = table(50, 1)
    b = {**a, "energy": a["pt"]}
    with pytest.raises(ColumnError, match="equal columns; only b has energy"):
        compare(a, b)
    c = {"pt": a["pt"], "eta": a["eta"], "theta": a["phi"]}
    with pytest.raises(ColumnError, match="only a has phi and only b has theta"):
        compare(a, pofx.Dataset.from_arrays(c))


def test_units_that_differ_are_refused() -> None:
    x = np.random.default_rng(1).normal(size=(50, 1))
    a, b = (pofx.Dataset.from_arrays(x, columns=[Column("pt", unit)]) for unit in ("GeV", "MeV"))
    with pytest.raises(ColumnError, match="'pt' is in GeV in a and in MeV in b"):
        compare(a, b)
    assert compare(a, pofx.Dataset.from_arrays(x, columns=["pt"]), **QUICK).columns == ("pt",)


def test_numbers_are_not_names() -> None:
    """Arrays out of files have columns called after the array: those are matched by place, and the other side's names taken."""
    a = {f"truth_{i}": column for i, column in enumerate(table(60, 1).values())}
    b = table(60, 2)
    assert compare(pofx.Dataset.from_arrays(a), np.stack(list(b.values()), 1), **QUICK).columns == tuple(a)
    assert compare(np.stack(list(b.values()), 1), pofx.Dataset.from_arrays(b), **QUICK).columns == tuple(b)
    with pytest.raises(ShapeError, match=r"a has 3 \(truth_0, truth_1, truth_2\) and b has 2 \(x0, x1\)"):
        compare(pofx.Dataset.from_arrays(a), np.zeros((60, 2)))


def test_contexts_count_as_columns() -> None:
    rng = np.random.default_rng(3)
    c = rng.normal(size=(2, 300, 1))
    a, b = (
        pofx.Dataset.from_arrays({"x": one[:, 0] * sign}, context={"c": one[:, 0]})
        for one, sign in zip(c, (1, -1), strict=True)
    )
    found = compare(a, b, statistics=["energy"])
    assert found.columns == ("x", "c")
    assert found.p_value == 0.005  # the marginal laws are the same, the joint one is not


# Grids


def grids(n: int, seed: int, width: float) -> np.ndarray:
    """Energies in 4 x 5 cells around the middle."""
    rng = np.random.default_rng(seed)
    place = np.stack([rng.normal(1.5, width, (n, 30)), rng.normal(2.0, width, (n, 30))], -1).round().astype(int)
    cells = np.zeros((n, 4, 5))
    inside = ((place >= 0) & (place < [4, 5])).all(-1)
    np.add.at(cells, (np.nonzero(inside)[0], *place[inside].T), rng.exponential(1.0, inside.sum()))
    return cells


def energy_and_width(x: np.ndarray | Events) -> dict[str, np.ndarray]:
    cells = x.x[:, 0] if isinstance(x, Events) else x
    along = cells.sum(1)
    mean = (along @ np.arange(5)) / along.sum(1)
    return {"energy": along.sum(1), "width": np.sqrt((along @ np.arange(5) ** 2) / along.sum(1) - mean**2)}


def test_grids_are_rows_of_cells_and_have_features() -> None:
    a, b = grids(150, 1, 0.6), grids(150, 2, 0.8)
    plain = compare(a, b, **QUICK)
    assert len(plain.columns) == 20
    assert numbers(plain) == numbers(compare(a.reshape(150, 20), b.reshape(150, 20), **QUICK))
    spec = {"voxels": Field("grid", (1, 4, 5), (Column("e", "MeV"),), (Axis("z", 4), Axis("phi", 5)))}
    sets = [pofx.Dataset.from_arrays(x[:, None], columns=spec) for x in (a, b)]
    assert numbers(compare(*sets, **QUICK)) == numbers(plain)
    found = compare(*sets, features=energy_and_width, **QUICK)
    assert found.columns == ("energy", "width")
    by_hand = [np.stack(list(energy_and_width(x).values()), 1) for x in (a, b)]
    assert numbers(found) == numbers(compare(*by_hand, **QUICK))
    assert numbers(found) == numbers(compare(a, b, features=energy_and_width, **QUICK))
    worst = min(found["KS"].parts, key=lambda part: part.global_p_value)
    assert worst.name == "width"


# Clouds


def jets(n: int, seed: int, mean: float = 12.0, length: int = 40) -> Events:
    """Constituents (pt, eta, phi), a Poisson number of them; what is not real is not a number."""
    rng = np.random.default_rng(seed)
    mask = np.arange(length) < np.clip(rng.poisson(mean, n), 1, length)[:, None]
    points = np.stack([rng.exponential(5.0, mask.shape), *rng.normal(0, 0.2, (2, *mask.shape))], -1)
    return Events({"jet": np.where(mask[..., None], points, np.nan)}, {"jet": mask})


def mass_and_multiplicity(events: Events) -> dict[str, np.ndarray]:
    """Of massless constituents: m^2 = E^2 - p^2."""
    pt, eta, phi = np.moveaxis(np.where(events.mask[..., None], events.x, 0.0), -1, 0)
    momenta = [(pt * along).sum(1) for along in (np.cosh(eta), np.cos(phi), np.sin(phi), np.sinh(eta))]
    square = momenta[0] ** 2 - sum(p**2 for p in momenta[1:])
    return {"mass": np.sqrt(np.maximum(square, 0.0)), "multiplicity": events.mask.sum(1)}


def test_clouds_by_their_features() -> None:
    a, b = jets(300, 1), jets(300, 2, 14.0)
    found = compare(a, b, features=mass_and_multiplicity, **QUICK)
    assert found.columns == ("mass", "multiplicity")
    counts = [one.masks["jet"].sum(1) for one in (a, b)]
    assert found["KS"].parts[1].value == pytest.approx(stats.ks_2samp(*counts).statistic)
    assert found["KS"].p_value == 0.01
    shorter = Events({"jet": b.x[:, :30]}, {"jet": b.mask[:, :30]})
    assert not b.mask[:, 30:].any()
    for one, two in zip(compare(a, shorter, features=mass_and_multiplicity, **QUICK), found, strict=True):
        assert (one.value, one.p_value) == pytest.approx((two.value, two.p_value))


def test_clouds_of_a_data_set_by_every_statistic() -> None:
    spec = {"jet": Field("cloud", (40, 3), (Column("pt", "GeV"), Column("eta"), Column("phi")))}
    sets = [
        pofx.Dataset.from_arrays({"jet": np.nan_to_num(one.x)}, columns=spec, masks=one.masks)
        for one in (jets(60, 3), jets(60, 4))
    ]
    found = compare(*sets, features=mass_and_multiplicity, replicas=19)
    assert len(found) >= len(STATISTICS)
    assert all(np.isfinite([one.value, one.error, one.floor, one.p_value]).all() for one in found)


def test_clouds_without_features_are_sets_or_refused() -> None:
    """That the default is the C2ST of sets is tested with the command line."""
    a, b = (
        Events({"x": np.nan_to_num(one.x[:, :8])}, {"x": one.mask[:, :8]})
        for one in (jets(80, 5, 3.0), jets(80, 6, 7.0))
    )
    with pytest.raises(CapabilityError, match="features="):
        compare(a, b, statistics=["ks"])
    with pytest.raises(ShapeError, match="a holds clouds of points and b holds rows"):
        compare(a, np.zeros((80, 3)))


# Weights


def moved(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Events of N(0.4, 1) and the weights that make them those of N(0, 1)."""
    x = np.random.default_rng(seed).normal(0.4, 1.0, (n, 2))
    return x, np.exp(-0.4 * x.sum(1) + 0.4**2)


def test_weights_undo_a_shift_on_either_side() -> None:
    a, (b, w) = np.random.default_rng(1).normal(size=(800, 2)), moved(800, 2)
    assert compare(a, b, **QUICK).p_value == 0.03  # 3 x 1/100
    right, left = compare(a, b, weight_b=w, **QUICK), compare(b, a, weight_a=w, **QUICK)
    assert min(one.p_value for one in right) > 0.05
    assert [one.null for one in right] == ["bootstrap"] * 3
    assert [one.value for one in left] == pytest.approx([one.value for one in right])


def test_a_data_set_brings_its_weights_unless_others_are_given() -> None:
    a, (b, w) = np.random.default_rng(3).normal(size=(100, 2)), moved(100, 4)
    data = pofx.Dataset.from_arrays(b, weight=w)
    assert numbers(compare(a, data, **QUICK)) == numbers(compare(a, b, weight_b=w, **QUICK))
    assert numbers(compare(a, data, weight_b=np.ones(100), **QUICK)) == numbers(compare(a, b, **QUICK))


def test_the_null_follows_from_the_weights() -> None:
    """Equal weights are no weights; samples that were weighted in one way are permuted where the user says so."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 300, 2))
    equal = compare(a, b, weight_a=np.full(300, 2.0), weight_b=np.full(300, 0.5), **QUICK)
    assert numbers(equal) == numbers(compare(a, b, **QUICK))
    both = {"weight_a": rng.uniform(0.5, 1.5, 300), "weight_b": rng.uniform(0.5, 1.5, 300)}
    assert {one.null for one in compare(a, b, **both, **QUICK)} == {"bootstrap"}
    found = compare(a, b, **both, null="permutation", **QUICK)
    assert {one.null for one in found} == {"permutation"}
    assert min(one.p_value for one in found) > 0.01


def test_negative_weights_by_every_statistic_that_can() -> None:
    """An event of weight -1 beside its copy of weight +1 is no event."""
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 120, 2))
    w = np.r_[np.ones(120), np.ones(30), -np.ones(30)]
    found = compare(a, np.r_[b, np.tile(rng.normal(2.0, 1.0, (30, 2)), (2, 1))], weight_b=w, replicas=19)
    assert {one.name.split(" (")[0] for one in found}.isdisjoint({"precision", "recall", "density", "coverage"})
    assert all(np.isfinite([one.value, one.floor, one.p_value]).all() for one in found)
    assert found["KS"].value == pytest.approx(compare(a, b, statistics=["ks"], replicas=19)["KS"].value)


# What is refused


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"b": np.zeros((0, 2))}, DataError, "b: expected at least 10 events; got 0"),
        ({"b": np.zeros((40, 0))}, ShapeError, "a has 2 .* and b has 0"),
        ({"b": np.r_[np.zeros((3, 2)), [[0.0, np.nan]], np.zeros((40, 2))]}, NonFiniteError, "b: row 3, column 1 is nan"),
        ({"b": [["x", "y"]] * 40}, DataError, "b holds text"),
        ({"weight_a": -np.ones(40)}, DataError, "weight_a: expected a positive sum; got -40"),
        ({"weight_b": np.zeros(40)}, DataError, "weight_b: expected a positive sum; got 0"),
        ({"weight_b": np.ones(3)}, ShapeError, r"weight_b: expected shape \(40,\); got \(3,\)"),
        ({"weight_b": np.r_[np.nan, np.ones(39)]}, NonFiniteError, "weight_b: event 0"),
        ({"weight_a": np.r_[-1.0, np.ones(39)], "statistics": ["prdc"]}, DataError, "weights of at least 0"),
        ({"features": lambda x: {"one": x[:, 0], "two": x[:5, 1]}}, ShapeError, "features of a: expected columns of one length"),
        ({"features": lambda x: x[:, :1] * np.nan}, NonFiniteError, "features of a: row 0, column 0 is nan"),
        ({"features": lambda x: x[:7]}, DataError, "at least 10 events; got 7"),
        ({"training": np.zeros((40, 3))}, ShapeError, r"training has 3"),
    ],
)  # fmt: skip
def test_wrong_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    a, b = np.random.default_rng(7).normal(size=(2, 40, 2))
    with pytest.raises(error, match=words):
        compare(**{"a": a, "b": b, "statistics": ["ks"], "replicas": 19} | change)


def test_features_have_to_agree_between_the_sides() -> None:
    a, b = np.random.default_rng(8).normal(size=(40, 2)), np.random.default_rng(9).normal(size=(40, 3))
    with pytest.raises(ColumnError, match="only a has two and only b has three"):
        compare(a, b, features=lambda x: {"one": x[:, 0], ("two" if x.shape[1] == 2 else "three"): x[:, 1]})


def test_a_side_is_a_sample_too() -> None:
    """What a comparison keeps can be compared again."""
    a, b = table(60, 10), table(60, 11)
    found = compare(a, b, **QUICK)
    assert numbers(compare(*found.sides, **QUICK)) == numbers(found)
    assert [column.name for column in both_sides(*found.sides)[0].named] == list(a)
    assert [column.name for column in side(np.zeros((5, 2)), None, "a").named] == ["x0", "x1"]
