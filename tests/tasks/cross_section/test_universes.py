"""Universes: files, subsets, shapes, and sums over sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pofx
from pofx.data.spec import Column
from pofx.errors import ColumnError, ConfigError, DataError, NonFiniteError, PofxError, ShapeError
from pofx.tasks.cross_section.subsets import refit
from pofx.tasks.cross_section.universes import Universes

RNG = np.random.default_rng(1)
TOTAL = RNG.normal(2.0, 0.2, (300, 4))
COLUMNS = (*(Column(f"p{i}", "1e-38 cm2") for i in range(3)), Column("p3", "1e-38 cm2", "bounded", 0.0))


def made() -> Universes:
    return Universes(
        TOTAL, [2.0, 2.1, 1.9, 2.0], COLUMNS, {"flux": TOTAL[:50], "detector": TOTAL[50:90]}, "toy", ("a note",)
    )


def test_written_universes_come_back(tmp_path: Path) -> None:
    first = made()
    again = Universes.read(first.write(tmp_path / "u.h5"))
    for name in ("total", "central"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert again.columns == first.columns
    assert again.title == "toy"
    assert again.notes == ("a note",)
    assert again.sources.keys() == first.sources.keys()
    np.testing.assert_array_equal(again.sources["flux"], TOTAL[:50])


def test_npz_with_other_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "u.npz", throws=TOTAL, data=TOTAL[0], f=TOTAL[:9])
    found = Universes.read(
        tmp_path / "u.npz", total="throws", central="data", sources={"flux": "f"}, columns=["a", "b", "c", "d"]
    )
    assert found.names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(found.central, TOTAL[0])
    with pytest.raises(ColumnError, match="no array is called 'nothing'; there are throws, data, f"):
        Universes.read(tmp_path / "u.npz", total="nothing")


def test_any_table_is_a_total(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "u.csv", TOTAL, delimiter=",", header="a,b,c,d", comments="")
    found = Universes.read(tmp_path / "u.csv")
    assert found.names == ("a", "b", "c", "d")
    np.testing.assert_allclose(found.central, TOTAL.mean(0))


def test_sum_over_sources_adds_covariances() -> None:
    rng = np.random.default_rng(2)
    sources = {"a": 1 + 0.3 * rng.normal(size=(4000, 2)), "b": 1 + rng.normal(size=(4000, 1)) * [0.1, 0.4]}
    found = Universes.combine(sources, [1.0, 1.0], 20_000, seed=3)
    np.testing.assert_allclose(found.covariance, np.cov(sources["a"].T) + np.cov(sources["b"].T), atol=0.006)
    assert "independent deviations of a, b" in found.notes[0]


def test_sources_alone_make_a_total(tmp_path: Path) -> None:
    np.savez(tmp_path / "u.npz", central=TOTAL[0], **{"sources/flux": TOTAL, "sources/stat": TOTAL[::-1]})
    assert len(Universes.read(tmp_path / "u.npz")) == 300


def test_shapes_are_normalised_and_scale_free() -> None:
    width = np.array([1.0, 2.0, 1.0, 0.5])
    shape = made().shape_only(width)
    np.testing.assert_allclose(shape.total, (TOTAL / (TOTAL @ width)[:, None])[:, :3])
    scaled = Universes(7.0 * TOTAL, columns=COLUMNS).shape_only(width)
    np.testing.assert_allclose(scaled.total, shape.total)
    np.testing.assert_allclose(made().shape_of(3.0 * TOTAL[:2], width), shape.total[:2])
    assert "last bin, p3" in shape.notes[-1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Universes(TOTAL[0]), ShapeError, "expected shape \\(universes, bins\\)"),
        (lambda: Universes(TOTAL, [1.0]), ShapeError, "central: expected shape \\(4,\\)"),
        (lambda: Universes(np.where(TOTAL > 2, np.nan, TOTAL)), NonFiniteError, "total"),
        (lambda: Universes(TOTAL, columns=COLUMNS[:2]), ColumnError, "expected 4 columns"),
        (lambda: Universes(TOTAL, sources={"flux": TOTAL[:, :2]}), ShapeError, "'flux': expected 4 bins; got 2"),
        (lambda: made().select([0, 0]), ConfigError, "distinct bins"),
        (lambda: made().select([4]), ConfigError, "between 0 and 3"),
        (lambda: Universes(TOTAL - 2).shape_only(), DataError, "positive sum"),
        (lambda: made().shape_only([1.0]), ShapeError, "4 positive numbers"),
    ],
)
def test_bad_input_is_named(make: object, error: type[PofxError], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_refits_are_kept(tmp_path: Path) -> None:
    universes = made()
    first, part = refit(universes, pofx.Gaussian(), bins=[1, 3], cache=tmp_path)
    assert part.names == ("p1", "p3")
    np.testing.assert_allclose(
        first.log_prob(part.total[:5]), pofx.Gaussian().fit(part.dataset()).log_prob(part.total[:5])
    )
    assert len(list(tmp_path.glob("*.pofx"))) == 1
    assert refit(universes, pofx.Gaussian(), bins=[1, 3])[0] is first
    other, _ = refit(universes, pofx.Gaussian(), bins=[1, 3], shape_only=True, cache=tmp_path)
    assert other.layout.features == 1
    assert len(list(tmp_path.glob("*.pofx"))) == 2


def narrow(data: pofx.Dataset) -> pofx.Model:
    return pofx.Gaussian().fit(data)


def test_functions_are_known_by_name_or_called_each_time(tmp_path: Path) -> None:
    universes = made()
    first, _ = refit(universes, narrow)
    assert refit(universes, narrow)[0] is first
    refit(universes, narrow, cache=tmp_path)  # kept in memory, written all the same
    assert len(list(tmp_path.glob("*.pofx"))) == 1
    families = [pofx.Gaussian(), pofx.GaussianCopula()]
    models = [refit(universes, lambda data, family=family: family.fit(data))[0] for family in families]
    assert [model.family for model in models] == families


def test_widths_of_shapes_reach_the_fit() -> None:
    width = [1.0, 2.0, 1.0, 0.5]
    _, part = refit(made(), pofx.Gaussian(), shape_only=True, widths=width)
    np.testing.assert_array_equal(part.total, made().shape_only(width).total)


def test_the_bin_that_a_shape_leaves_out_does_not_matter() -> None:
    """The others determine it linearly: chi2 is the same, and so are differences of the log-density of a Gaussian."""
    turned, found = np.array([2, 0, 3, 1]), []
    for order in (np.arange(4), turned):
        shape = Universes(TOTAL[:, order]).shape_only()
        offset = shape.total[:20] - shape.mean
        density = pofx.Gaussian().fit(shape.total)
        logp = density.log_prob(shape.total[:20])
        found.append((np.einsum("ni,ij,nj->n", offset, np.linalg.inv(shape.covariance), offset), logp - logp[0]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-8)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-6)
