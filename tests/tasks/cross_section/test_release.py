"""Release folders: what is written comes back, damage is found, somebody else can use it with five lines."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import stats

import pofx
from pofx.data.spec import Column
from pofx.errors import (
    ArtefactError,
    CapabilityError,
    ColumnError,
    ConfigError,
    DataError,
    FormatError,
    NoDensityError,
    NonFiniteError,
    ShapeError,
)
from pofx.simulators.densities import Lognormal, correlation_matrix
from pofx.tasks.cross_section.covariance import UNTESTABLE, Measured, bracket
from pofx.tasks.cross_section.release import open_release, publish
from pofx.tasks.cross_section.release_files import write_card
from pofx.tasks.cross_section.universes import Universes

MEAN = np.array([1.0, 2.0, 0.5, 3.0])
COVARIANCE = correlation_matrix(4) * np.outer(0.3 * MEAN, 0.3 * MEAN)
COLUMNS = tuple(Column(name, "1e-38 cm2") for name in ("p_0_1", "p_1_2", 'odd, "name"', "p_3_4"))
EXAMPLES = {"nominal": MEAN, "low": 0.6 * MEAN, "tilted, up": MEAN * [0.8, 0.9, 1.1, 1.2]}
ABOUT = {
    "title": "Toy",
    "authors": ["A. Author", "B. Author"],
    "licence": "CC-BY-4.0",
    "citation": "arXiv:0000.00000",
    "notes": ["made up"],
}


@pytest.fixture(scope="module")
def universes() -> Universes:
    x = Lognormal.from_moments(MEAN, COVARIANCE).sample(3000, seed=1)
    return Universes(x, MEAN, columns=COLUMNS)


@pytest.fixture(scope="module")
def model(universes: Universes) -> pofx.Model:
    return pofx.GaussianMixture(components=2, restarts=1).fit(universes.dataset(), training=pofx.Training(seed=1))


@pytest.fixture(scope="module")
def with_model(tmp_path_factory, universes, model) -> Path:
    folder = tmp_path_factory.mktemp("releases") / "toy-release"
    return publish(
        folder, model=model, universes_or_measured=universes, predictions=EXAMPLES, toys=3000, seed=7, **ABOUT
    )


@pytest.fixture(scope="module")
def measured() -> Measured:
    edges = {"p": np.stack([np.arange(4.0), np.arange(1.0, 5.0)], axis=1)}
    return Measured(MEAN, COVARIANCE, COLUMNS, np.eye(4) * 0.9 + 0.025, "Published", "1e-38 cm2", ("a note",), edges)


@pytest.fixture(scope="module")
def without(tmp_path_factory, measured) -> Path:
    folder = tmp_path_factory.mktemp("releases") / "mean-only"
    return publish(folder, universes_or_measured=measured, predictions=EXAMPLES, toys=3000)


@pytest.fixture
def copied(with_model, tmp_path) -> Path:
    return Path(shutil.copytree(with_model, tmp_path / "copy"))


# ---------------------------------------------------------------------- what is written


def test_everything_is_there_and_nothing_else(with_model, without):
    common = {
        "README.md",
        "measurement.csv",
        "measurement.h5",
        "covariance.csv",
        "predictions.csv",
        "validation.csv",
        "release.json",
    }
    assert {path.name for path in with_model.iterdir()} == common | {"model.pofx"}
    assert {path.name for path in without.iterdir()} == common | {"smearing.csv"}
    assert [path.name for path in with_model.parent.iterdir()] == [with_model.name]


def test_round_trip(with_model, universes, model):
    release = open_release(with_model)
    assert release.title == "Toy"
    assert release.columns == COLUMNS
    np.testing.assert_array_equal(release.central, universes.central)
    np.testing.assert_array_equal(release.covariance, universes.covariance)
    x = universes.total[:50]
    np.testing.assert_array_equal(release.log_prob(x), model.log_prob(x))
    np.testing.assert_array_equal(release.toys(20, seed=3), model.sample(20, seed=3))
    card = release.model.card
    assert (card["licence"], card["citation"], card["authors"]) == (
        "CC-BY-4.0",
        "arXiv:0000.00000",
        ["A. Author", "B. Author"],
    )
    assert card["coordinates"]["bins"][0] == ["p_0_1", "1e-38 cm2"]
    assert "made up" in release.card["notes"]
    assert "covariance of 3000 universes about their mean" in release.card["notes"]
    np.testing.assert_array_equal(list(release.predictions().values()), list(EXAMPLES.values()))
    assert list(release.predictions()) == list(EXAMPLES)


def test_tables_can_be_read_without_pofx(without, measured):
    with (without / "measurement.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["bin"] for row in rows] == list(measured.names)
    assert [float(row["central"]) for row in rows] == MEAN.tolist()
    assert [float(row["error"]) for row in rows] == measured.errors.tolist()
    assert [(row["p_low"], row["p_high"]) for row in rows][:2] == [("0.0", "1.0"), ("1.0", "2.0")]
    np.testing.assert_array_equal(np.loadtxt(without / "covariance.csv", delimiter=",", skiprows=1), COVARIANCE)
    with h5py.File(without / "measurement.h5") as file:
        np.testing.assert_array_equal(file["smearing"], measured.smearing)
    again = Measured.read(without / "measurement.csv")
    np.testing.assert_array_equal(again.covariance, COVARIANCE)
    assert again.columns == COLUMNS


def test_validation_vectors_say_what_the_density_says(with_model, without, model, measured):
    with (with_model / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    logp = model.log_prob(np.stack(list(EXAMPLES.values())))
    assert [float(row["log_density"]) for row in rows] == logp.tolist()
    toys = model.log_prob(model.sample(3000, seed=7))
    assert [int(row["below"]) for row in rows] == [(toys <= value).sum() for value in logp]
    assert all(float(row["p_low"]) <= float(row["p_value"]) <= float(row["p_high"]) for row in rows)
    with (without / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    x = np.stack([measured.smearing @ row for row in EXAMPLES.values()])
    exact = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(x)
    np.testing.assert_allclose([float(row["log_density"]) for row in rows], exact)
    chi2 = [(row - MEAN) @ np.linalg.solve(COVARIANCE, row - MEAN) for row in x]
    np.testing.assert_allclose([float(row["p_chi2"]) for row in rows], stats.chi2.sf(chi2, 4))
    for row in rows:
        low, high = stats.binom.interval(0.9999, 3000, float(row["p_chi2"]))
        assert low <= int(row["below"]) <= high


def test_the_five_lines_of_the_readme_work(with_model, without, monkeypatch):
    for folder in (with_model, without):
        monkeypatch.chdir(folder.parent)
        text = (folder / "README.md").read_text()
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert len(code.strip().splitlines()) == 5
        out, names = io.StringIO(), {}
        with contextlib.redirect_stdout(out):
            exec(code, names)  # noqa: S102 - what a reader of the page would run
        assert names["toys"].shape == (1000, 4)
        assert "nominal" in out.getvalue()
        assert "p_0_1 1.0 (4, 4)" in out.getvalue()
        for file in folder.iterdir():
            assert file.name == "README.md" or f"`{file.name}`" in text
        assert f"pofx run cross-section --release {folder.name} --predict" in text
    assert "CC-BY-4.0" in (with_model / "README.md").read_text()
    assert UNTESTABLE in (without / "README.md").read_text()
    assert "Licence: not stated" in (without / "README.md").read_text()


# ---------------------------------------------------------------------- predictions


def test_predictions_from_files_arrays_and_names_agree(with_model, tmp_path):
    release = open_release(with_model)
    expected = [verdict.density.count for verdict in release.p_values(EXAMPLES, toys=500, seed=1)]
    rows = np.stack(list(EXAMPLES.values()))
    pofx.write(tmp_path / "p.h5", rows[:, ::-1], columns=[c.name for c in COLUMNS][::-1])  # other order, found by name
    np.savetxt(tmp_path / "plain.csv", rows, delimiter=",")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["predictions"] = rows
    for given in (
        with_model / "predictions.csv",
        tmp_path / "p.h5",
        str(tmp_path / "plain.csv"),
        tmp_path / "a.h5",
        rows,
    ):
        found = release.p_values(given, toys=500, seed=1)
        assert [verdict.density.count for verdict in found] == expected
    chi2 = [float((row - MEAN) @ np.linalg.solve(release.covariance, row - MEAN)) for row in rows]
    np.testing.assert_allclose([verdict.chi2 for verdict in found], chi2, atol=1e-12)


def test_without_a_model_the_p_values_are_bracketed(without, measured):
    found = open_release(without).p_values(without / "predictions.csv", toys=1000, seed=2)
    expected = bracket(measured, EXAMPLES, toys=1000, seed=2)
    assert [row.p_lognormal.count for row in found] == [row.p_lognormal.count for row in expected]
    assert found.notes == expected.notes
    smeared = {name: measured.smearing @ row for name, row in EXAMPLES.items()}
    again = open_release(without).p_values(smeared, toys=1000, seed=2, smeared=True)
    assert [row.chi2 for row in again] == [row.chi2 for row in expected]


def test_a_singular_measurement_can_be_released(tmp_path):
    relation = np.array([[1, 0], [0, 1], [1, 1.0]])
    singular = Measured(relation @ [1.0, 2.0], relation @ np.diag([0.04, 0.09]) @ relation.T)
    release = open_release(
        publish(tmp_path / "r", universes_or_measured=singular, predictions=[relation @ [1.1, 1.9]], toys=500)
    )
    row = release.p_values([relation @ [1.1, 1.9]], toys=500)[0]
    assert (row.ndf, row.empty) == (2, 1)
    assert row.chi2 == pytest.approx(0.01 / 0.04 + 0.01 / 0.09)
    toys = release.toys(100, seed=1)
    np.testing.assert_allclose(toys[:, 0] + toys[:, 1], toys[:, 2])


@pytest.mark.parametrize("kind", ["array", "name", "csv"])
def test_another_number_of_bins(with_model, tmp_path, kind):
    release, rows = open_release(with_model), np.ones((2, 3))
    np.savetxt(tmp_path / "p.csv", rows, delimiter=",")
    given = {"array": rows, "name": {"mine": rows[0]}, "csv": tmp_path / "p.csv"}[kind]
    with pytest.raises(ShapeError, match=r"expected 4 bins.*got 3"):
        release.p_values(given, toys=200)
    with pytest.raises(ShapeError, match=r"expected x of shape \(n, 4\)"):
        release.log_prob(rows)


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("prediction,p_0_1,p_1_2,other,p_3_4\na,1,2,3,4\n", ColumnError, "1 are missing, first 'odd, \"name\"'"),
        ("a,1,2,3,4\na,1,2,3,4\n", FormatError, "same name"),
        ("prediction,a,b,c,d\n", FormatError, "only a header"),
        ("a,1,2,3,x\n", FormatError, "could not convert"),
        ("a,1,2,3,nan\n", NonFiniteError, "prediction 'a'"),
        ("a,1,2,3,4\nb,1,2\n", FormatError, "row 1: expected 5 cells; got 3"),
    ],
)
def test_unusable_tables_of_predictions(with_model, tmp_path, text, error, match):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(error, match=match):
        open_release(with_model).p_values(tmp_path / "p.csv", toys=200)


def test_marginals(with_model, without, measured):
    with pytest.raises(CapabilityError, match=r"a marginal is an integral.*release\.toys"):
        open_release(with_model).marginal([0, 1])
    np.testing.assert_array_equal(open_release(without).marginal([2, 0]).central, MEAN[[2, 0]])


# ---------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "measurement.csv",
        "measurement.h5",
        "covariance.csv",
        "model.pofx",
        "predictions.csv",
        "validation.csv",
    ],
)
def test_one_changed_byte_is_found(copied, name):
    path = copied / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtefactError, match=rf"{name}: damaged or edited"):
        open_release(copied)
    path.unlink()
    with pytest.raises(ArtefactError, match=f"{name}.*is missing"):
        open_release(copied)


def test_an_edited_card_is_found(copied):
    path = copied / "release.json"
    path.write_text(path.read_text().replace("CC-BY-4.0", "CC0-1.0"))
    with pytest.raises(ArtefactError, match="not have the sha256 that it was sealed with"):
        open_release(copied)


def resealed(folder: Path, **changes) -> None:
    """As a forger would: the card says the new sums."""
    card = json.loads((folder / "release.json").read_text())
    for key in ("kind", "format", "files", "sha256"):
        card.pop(key)
    (folder / "release.json").unlink()
    write_card(folder, {**card, **changes})


def test_a_density_that_gives_other_numbers_is_refused(copied):
    path = copied / "validation.csv"
    rows = path.read_text().splitlines()
    cells = rows[2].split(",")
    cells[1] = repr(float(cells[1]) + 1e-3)
    path.write_text("\n".join([*rows[:2], ",".join(cells), *rows[3:]]) + "\n")
    resealed(copied)
    with pytest.raises(ArtefactError, match=r"prediction 'low' has the log-density .* validation\.csv says"):
        open_release(copied)


def test_another_model_in_place_of_the_published_one_is_refused(copied, universes):
    other = pofx.Gaussian().fit(universes.total + 0.1)
    other.save(copied / "model.pofx")
    resealed(copied)
    with pytest.raises(ArtefactError, match="bin 0 is 'x0' in the model"):
        open_release(copied)


def test_a_release_of_other_bins_is_refused(copied):
    resealed(copied, bins=["a", "b", "c", "d"])
    with pytest.raises(ArtefactError, match="has other bins"):
        open_release(copied)


def test_foreign_and_newer_folders(tmp_path, copied):
    with pytest.raises(ArtefactError, match="not a release folder"):
        open_release(tmp_path / "absent")
    (tmp_path / "foreign").mkdir()
    for text in ("{}", "[1]", "not json", '{"kind": "pofx cross-section release"}'):
        (tmp_path / "foreign" / "release.json").write_text(text)
        with pytest.raises(ArtefactError):
            open_release(tmp_path / "foreign")
    resealed(copied, format=2)
    with pytest.raises(ArtefactError, match="upgrade pofx"):
        open_release(copied)


# ---------------------------------------------------------------------- publishing


def test_folders_are_replaced_only_when_asked(with_model, measured, tmp_path):
    target = tmp_path / "deep" / "release"
    options = {"universes_or_measured": measured, "predictions": EXAMPLES, "toys": 100}
    publish(target, **options)
    with pytest.raises(ConfigError, match="has files already"):
        publish(target, **options)
    publish(target, **options, force=True, title="New")
    assert open_release(target).title == "New"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="no release"):
        publish(tmp_path / "mine", **options, force=True)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"
    with pytest.raises(ConfigError, match="is a file"):
        publish(tmp_path / "mine" / "thesis.tex", **options)
    assert {path.name for path in target.parent.iterdir()} == {"release"}
    with pytest.raises(ConfigError, match="name of a folder"):
        publish(".", **options)


def test_a_failed_publication_leaves_nothing(measured, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    publish(tmp_path / "r", universes_or_measured=measured, predictions=EXAMPLES, toys=100)
    before = (tmp_path / "r" / "release.json").read_bytes()
    monkeypatch.setattr("pofx.tasks.cross_section.release.write_card", broken)
    for name in ("r", "new"):
        with pytest.raises(OSError, match="disk full"):
            publish(tmp_path / name, universes_or_measured=measured, predictions=EXAMPLES, toys=100, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert (tmp_path / "r" / "release.json").read_bytes() == before


def test_models_that_cannot_be_released(universes, model, measured, tmp_path):
    options = {"predictions": EXAMPLES, "toys": 100}
    with pytest.raises(ColumnError, match="bin 0 is 'x0' in the model and 'p_0_1'"):
        publish(tmp_path / "r", model=pofx.Gaussian().fit(universes.total), universes_or_measured=universes, **options)
    with pytest.raises(ShapeError, match="the model has 2 bins; the measurement has 4"):
        publish(
            tmp_path / "r",
            model=pofx.Gaussian().fit(universes.total[:, :2]),
            universes_or_measured=universes,
            **options,
        )
    conditional = pofx.Gaussian().fit(universes.total, context=np.random.default_rng(1).normal(size=(3000, 1)))
    with pytest.raises(CapabilityError, match="without a context"):
        publish(tmp_path / "r", model=conditional, universes_or_measured=universes, **options)
    blind = pofx.Model(model.family, model.fitted, model.layout, model.card)
    blind.__class__ = type("Blind", (pofx.Model,), {"density": "none"})
    with pytest.raises(NoDensityError, match="no density"):
        publish(tmp_path / "r", model=blind, universes_or_measured=universes, **options)
    with pytest.raises(DataError, match="at least one"):
        publish(tmp_path / "r", universes_or_measured=universes, predictions={})
    with pytest.raises(ShapeError, match=r"expected 4 bins.*got 2"):
        publish(tmp_path / "r", universes_or_measured=universes, predictions={"a": [1.0, 2.0]})
    assert list(tmp_path.iterdir()) == []
