"""The report of a fitted density, and the statistics it quotes."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

import pofx
from pofx.report import density_report
from pofx.report.findings import findings
from pofx.report.statistics import clopper_pearson, column_differences, expected_largest, global_p_value, mean_error
from pofx.report.study import Study
from pofx.report.tables import as_table
from pofx.simulators.densities import CorrelatedGaussian

TRUTH = CorrelatedGaussian([1.0, 2.0, 3.0], [[1.0, 0.5, 0.0], [0.5, 2.0, 0.3], [0.0, 0.3, 1.0]], unit="GeV")


@pytest.fixture(scope="module")
def data() -> pofx.Dataset:
    return pofx.Dataset.from_arrays(TRUTH.sample(5000, 1), columns=["<a>", "b_{", "c"])


@pytest.fixture(scope="module")
def flow(data):
    return pofx.CouplingFlow(layers=2, hidden=(16,)).fit(data, training=pofx.Training(max_epochs=2, seed=1))


def test_report_of_a_flow(data, flow, tmp_path):
    path = density_report(
        flow, data, tmp_path / "r.html", exact=TRUTH, extra_sections=(lambda r: r.section("Mine").text("hello"),)
    )
    root = ElementTree.fromstring(path.read_text().replace("<!DOCTYPE html>", ""))
    titles = [h.text for h in root.iter("h2")]
    assert [t.split(". ")[1] for t in titles] == [
        "Summary", "Data", "Training", "Spectra", "Columns", "Dependence", "Log-density", "Mine", "Card", "Reproduction",
    ]  # fmt: skip
    text = "".join(root.itertext())
    assert "gain over the Gaussian" in text
    assert "gap to the exact density" in text
    assert len(list((tmp_path / "r-figures").glob("*.pdf"))) == 5


def test_a_right_model_gives_no_warning(data):
    found = findings(Study(pofx.Gaussian().fit(data), data))
    assert {level for level, _ in found} <= {"good", "note"}
    assert sum("agree" in text for level, text in found if level == "good") >= 2


def test_a_wrong_model_is_found(data, tmp_path):
    wrong = TRUTH.sample(4000, 2) * [1.0, 1.0, 1.4]
    study = Study(pofx.Gaussian().fit(data), data, given=wrong)
    assert any(level == "warning" and "c, " in text for level, text in findings(study))


def test_single_column_weights_and_few_events(tmp_path):
    rng = np.random.default_rng(1)
    data = pofx.Dataset.from_arrays(rng.normal(size=(60, 1)), weight=rng.uniform(0.5, 1.5, 60))
    path = density_report(pofx.Gaussian().fit(data), data, tmp_path / "one.html")
    assert "single column" in path.read_text()


def test_context(tmp_path):
    rng = np.random.default_rng(1)
    c = rng.normal(size=(400, 1))
    data = pofx.Dataset.from_arrays(c + rng.normal(size=(400, 2)), context=c)
    model = pofx.Gaussian().fit(data)
    study = Study(model, data)
    assert len(study.samples) == len(study.truth) == len(study.sample_logp)
    density_report(model, data, tmp_path / "c.html")


def test_without_test_events_it_says_so(tmp_path):
    data = pofx.Dataset.from_arrays(TRUTH.sample(300, 1)).with_split((1.0, 0.0, 0.0))
    study = Study(pofx.Gaussian().fit(data), data)
    assert study.part == "all"
    assert any("no test events" in text for _, text in findings(study))


def test_other_data_are_noted(data):
    other = pofx.Dataset.from_arrays(TRUTH.sample(1000, 7), columns=["<a>", "b_{", "c"])
    assert any("fingerprints differ" in text for _, text in findings(Study(pofx.Gaussian().fit(data), other)))


def test_column_differences_are_calibrated():
    rng = np.random.default_rng(1)
    found = column_differences(as_table(rng.normal(size=(800, 60))), as_table(rng.normal(size=(1600, 60))))
    assert 0.85 < np.sqrt((found.pulls**2).mean()) < 1.15
    assert found.floor.mean() == pytest.approx(np.abs(found.value).mean(), rel=0.2)


def test_weighted_differences_are_those_of_repeated_events():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(200, 2)), rng.integers(1, 4, 200)
    model = as_table(rng.normal(size=(300, 2)))
    weighted = column_differences(as_table(x, weight=w), model).value
    np.testing.assert_allclose(weighted, column_differences(as_table(np.repeat(x, w, axis=0)), model).value, atol=1e-10)


def test_extremes_and_intervals():
    largest = np.abs(np.random.default_rng(1).normal(size=(4000, 100))).max(1)
    middle, spread = expected_largest(100)
    assert np.median(largest) == pytest.approx(middle, abs=0.03)
    assert spread == pytest.approx(0.5 * np.subtract(*np.quantile(largest, [0.84, 0.16])), abs=0.03)
    assert np.mean(largest > 3.0) == pytest.approx(global_p_value(3.0, 100), abs=0.02)
    assert clopper_pearson(10, 10) == (pytest.approx(0.8325, abs=1e-3), 1.0)
    assert mean_error(np.array([1.0, np.inf, 3.0])).lost == 1
