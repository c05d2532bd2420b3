"""Tables of HEPData: bins, errors of every form, covariance, round trips, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pofx
from pofx.data.hepdata import AxisValues, Quantity, Table, hepdata_release, matrix_table, read_hepdata, write_hepdata
from pofx.errors import CapabilityError, DataError, FormatError, ShapeError

TEXT = """\
dependent_variables:
- header: {name: D(SIG)/DPT, units: PB/GEV}
  qualifiers:
  - {name: SQRT(S), units: GEV, value: 13000}
  values:
  - value: 10.0
    errors:
    - {symerror: 1.0, label: stat}
    - {asymerror: {plus: 0.6, minus: -0.4}, label: sys}
  - value: '4.0'
    errors:
    - {symerror: 5%, label: stat}
    - {asymerror: {plus: 0.2, minus: -0.2}, label: sys}
independent_variables:
- header: {name: PT, units: GEV}
  values:
  - {low: 0, high: 20}
  - {low: 20, high: 50.5}
"""
PAIRS = """\
independent_variables:
- header: {name: i}
  values: [{value: 1}, {value: 1}, {value: 2}]
- header: {name: j}
  values: [{value: 1}, {value: 2}, {value: 2}]
dependent_variables:
- header: {name: cov}
  values: [{value: 1.5}, {value: -0.25}, {value: 0.5}]
"""


def file(tmp_path: Path, text: str = TEXT, name: str = "a.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_table_as_columns(tmp_path: Path) -> None:
    data = pofx.read(file(tmp_path))
    assert data.names == (
        "PT_low", "PT_high", "D(SIG)/DPT", "D(SIG)/DPT_stat", "D(SIG)/DPT_sys_minus", "D(SIG)/DPT_sys_plus",
    )  # fmt: skip
    wanted = [[0.0, 20.0, 10.0, 1.0, 0.4, 0.6], [20.0, 50.5, 4.0, 0.2, 0.2, 0.2]]
    np.testing.assert_allclose(data.arrays().x, wanted)
    assert data.spec["x"].columns[2].unit == "PB/GEV"
    assert "PT_low" in str(pofx.data.describe(tmp_path / "a.yaml"))
    with pytest.raises(FormatError, match="has no keys"):
        pofx.read(tmp_path / "a.yaml", key="PT")


def test_structure(tmp_path: Path) -> None:
    table = read_hepdata(file(tmp_path))
    assert len(table) == 2
    assert table.axes[0].binned
    quantity = table.quantity()
    assert (quantity.unit, quantity.qualifiers) == ("PB/GEV", {"SQRT(S)": "13000"})
    np.testing.assert_allclose(quantity.errors["sys"], [[0.4, 0.2], [0.6, 0.2]])
    with pytest.raises(FormatError, match="no measured quantity is called 'sigma'"):
        table.quantity("sigma")


def test_covariance_of_errors(tmp_path: Path) -> None:
    table = read_hepdata(file(tmp_path))
    release = hepdata_release(table, correlated=["sys"])
    np.testing.assert_allclose(release.mean, [10.0, 4.0])
    np.testing.assert_allclose(release.covariance, [[1.25, 0.1], [0.1, 0.08]])
    np.testing.assert_allclose(hepdata_release(table).covariance, np.diag([1.25, 0.08]))
    with pytest.raises(FormatError, match="no error is labelled 'lumi'"):
        hepdata_release(table, correlated=["lumi"])


def test_covariance_tables(tmp_path: Path) -> None:
    table, pairs = read_hepdata(file(tmp_path)), read_hepdata(file(tmp_path, PAIRS, "b.yaml"))
    np.testing.assert_allclose(hepdata_release(table, pairs).covariance, [[1.5, -0.25], [-0.25, 0.5]])
    full = np.array([[2.0, 0.3], [0.3, 1.0]])
    path = write_hepdata(tmp_path / "c.yaml", matrix_table(full))
    np.testing.assert_array_equal(hepdata_release(table, read_hepdata(path)).covariance, full)
    correlation = hepdata_release(table, matrix_table([[1.0, 0.5], [0.5, 1.0]]), is_correlation=True)
    np.testing.assert_allclose(correlation.correlation, [[1.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(np.diag(correlation.covariance), [1.25, 0.08])
    with pytest.raises(ShapeError, match="a matrix of 2 x 2 bins"):
        hepdata_release(table, matrix_table(np.eye(3)))
    with pytest.raises(ShapeError, match="expected a square matrix"):
        matrix_table(np.ones((2, 3)))
    wrong = PAIRS.replace(
        "values: [{value: 1}, {value: 2}, {value: 2}]", "values: [{value: 1}, {value: 2}, {value: 1}]"
    )
    with pytest.raises(ShapeError, match="some are missing"):
        hepdata_release(table, read_hepdata(file(tmp_path, wrong, "d.yaml")))


def test_round_trips(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 2)) * 1e-38
    data = pofx.Dataset.from_arrays(x, columns=[pofx.data.Column("sigma", "cm^2"), "b"])
    back = pofx.read(pofx.write(tmp_path / "t.yml", data))
    np.testing.assert_array_equal(back.arrays().x, x)
    assert back.spec["x"].columns[0] == pofx.data.Column("sigma", "cm^2")
    with pytest.raises(CapabilityError, match="plain columns"):
        pofx.write(tmp_path / "u.yaml", x, weight=np.ones(40))
    edges = np.sort(rng.normal(size=41))
    bins = AxisValues("p", "GeV", np.stack([edges[:-1], edges[1:]], 1))
    errors = {"stat": (x[:, 1] ** 2, x[:, 1] ** 2), "sys": (x[:, 0] ** 2, x[:, 1] ** 2)}
    table = Table((bins,), (Quantity("s", "", x[:, 0], errors, {"RE": "P P"}),))
    after = read_hepdata(write_hepdata(tmp_path / "v.yaml", table))
    np.testing.assert_array_equal(after.axes[0].bins, bins.bins)
    for label, both in errors.items():
        np.testing.assert_array_equal(after.quantity().errors[label], both)
    assert after.quantity().qualifiers == {"RE": "P P"}


def test_submission(tmp_path: Path) -> None:
    file(tmp_path)
    listing = "comment: all\n---\nname: Table 1\ndata_file: a.yaml\n---\nname: Table 2\ndata_file: ../../b.yaml\n"
    submission = file(tmp_path, listing, "submission.yaml")
    assert len(read_hepdata(submission, "Table 1")) == 2
    with pytest.raises(FormatError, match=r"no table is called 'Table 3'; .*Table"):
        read_hepdata(submission, "Table 3")
    with pytest.raises(FormatError, match=r"b.yaml: no such file"):
        read_hepdata(submission, "Table 2")
    with pytest.raises(FormatError, match="expected one table"):
        pofx.read(submission)


def test_names_and_missing_values(tmp_path: Path) -> None:
    text = TEXT.replace("{low: 0, high: 20}", "{value: first}").replace("{low: 20, high: 50.5}", "{value: second}")
    table = read_hepdata(file(tmp_path, text.replace("value: 10.0", "value: '-'")))
    assert np.isnan(table.axes[0].bins).all()
    assert not table.axes[0].binned
    assert np.isnan(table.quantity().values[0])
    with pytest.raises(pofx.errors.NonFiniteError):
        pofx.read(tmp_path / "a.yaml")


def test_cut_anywhere(tmp_path: Path) -> None:
    """A truncated table is refused, or has lost whole rows of its last variable, which is refused too."""
    for end in range(1, len(TEXT) - 8, 7):
        with pytest.raises(DataError):
            pofx.read(file(tmp_path, TEXT[:end]))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("value: 10.0", "number: 10.0", "'D\\(SIG\\)/DPT', row 0: expected a value"),
        ("value: 10.0", "value: ten", "expected a number; got 'ten'"),
        ("symerror: 1.0", "error: 1.0", "expected a symerror or an asymerror"),
        ("plus: 0.6", "up: 0.6", "an asymerror with plus and minus"),
        ("low: 0, high: 20", "low: 0", "expected a value, or low and high"),
        ("independent_variables:\n", "others:\n", "expected one table with independent_variables"),
        ("header: {name: PT", "header: {title: PT", "expected a variable with a header"),
        ("  - {low: 20, high: 50.5}\n", "", "expected columns of one length"),
        ("label: sys", "label: !!python/object:os.system", "no YAML|could not determine"),
        ("dependent_variables:\n", "- 1\n", "no YAML|expected keys and values"),
    ],
)
def test_damage(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(FormatError, match=words):
        pofx.read(file(tmp_path, TEXT.replace(old, new, 1)))


def test_foreign(tmp_path: Path) -> None:
    for text, words in (
        ("just text", "expected keys and values"),
        ("a: 1", "got 'a'"),
        ("- 1", "expected keys and values"),
    ):
        with pytest.raises(FormatError, match=words):
            pofx.read(file(tmp_path, text))
    (tmp_path / "b.yaml").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(FormatError, match="looks like hdf5"):
        pofx.read(tmp_path / "b.yaml")
