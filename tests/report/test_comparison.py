"""The report of a comparison shows the numbers it is given, and where the samples differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from pofx.data import Column, Dataset
from pofx.data.events import Events
from pofx.metrics.compare import Comparison, compare
from pofx.metrics.samples import side
from pofx.metrics.weights import Where, where
from pofx.report.comparison import comparison_report
from pofx.report.html import Report
from pofx.report.where import add_where, tail_columns, weight_distributions

Draw = Callable[..., None]


@pytest.fixture(scope="module")
def samples() -> tuple[Dataset, Dataset]:
    """A uniform square in GeV and an angle; the generated events miss a corner."""
    rng = np.random.default_rng(1)
    truth, made = rng.uniform(size=(2, 2000, 2))
    made = made[~((made[:, 0] > 0.75) & (made[:, 1] < 0.4))]
    columns = [Column("E", "GeV"), Column("angle", "rad")]
    return Dataset.from_arrays(truth, columns=columns), Dataset.from_arrays(made, columns=columns)


@pytest.fixture(scope="module")
def found(samples: tuple[Dataset, Dataset]) -> Comparison:
    return compare(*samples, statistics=["ks", "energy"], replicas=99)


@pytest.fixture(scope="module")
def place(found: Comparison) -> Where:
    return where(*found.sides, seed=1)


def text_of(html: str) -> str:
    return "".join(ElementTree.fromstring(html.replace("<!DOCTYPE html>", "")).itertext())


def test_shares_of_weights(place: Where, draw: Draw) -> None:
    figure = weight_distributions(place)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    shown = axes.patches[0].get_data()
    shares = [
        np.histogram(np.exp(w), shown.edges)[0] / len(w) for w in (place.log_weight_truth, place.log_weight_generated)
    ]
    assert shown.values == pytest.approx(shares[1])
    points = axes.containers[0].lines[0].get_ydata()  # empty bins have none
    assert points == pytest.approx(shares[0][shares[0] > 0])
    assert [text.get_text() for text in axes.texts] == ["too many", "missing"]
    draw(figure, pdf=False)


def test_reweighted_events(place: Where) -> None:
    """The dashed line: the generated events times their weights."""
    shown = weight_distributions(place).axes[0].patches[2].get_data()
    w = np.exp(place.log_weight_generated)
    assert shown.values == pytest.approx(np.histogram(w, shown.edges, weights=w)[0] / w.sum())


def test_the_tail_lies_where_it_does(place: Where, draw: Draw) -> None:
    figure = tail_columns(place, "missing")
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert sorted(labels) == ["E [GeV]", "angle [rad]"]
    axes = figure.axes[labels.index("E [GeV]")]
    x, share = axes.containers[0].lines[0].get_data()
    assert share[x > 0.75].sum() > 0.8
    assert share.sum() == pytest.approx(1.0)
    limits = next(region for region in place.regions if region.tail == "missing").limits["E"]
    assert axes.lines[-1].get_xdata()[0] in limits
    draw(figure, pdf=False)


def test_the_page_says_where(found: Comparison, place: Where) -> None:
    report = comparison_report(found, ("truth.h5", "made.h5"), place)
    text = text_of(report.html())
    region = place.regions[0]
    for words in (
        "truth.h5 (2000 events)", "Most wrong where", "Where is it wrong?", "Tail of the weights: missing",
        "Tail of the weights: too many", region.box, f"{region.pull:+.1f}", "E [GeV]", "KS distance",
    ):  # fmt: skip
        assert words in text
    assert {picture.name for picture in report.figures} == {
        "pulls",
        "weights",
        "tail-missing",
        "tail-too-many",
        "spectra",
    }


def test_noise_is_called_noise(place: Where) -> None:
    quiet = replace(place, p_value=0.4, regions=())
    text = text_of(add_where(Report("noise"), quiet).html())
    assert "the tails are those of noise" in text
    assert "Most wrong where" not in text
    assert text.count("In no box is this tail twice as frequent") == 2


def test_weighted_samples_are_drawn_with_their_weights() -> None:
    x = np.random.default_rng(3).normal(size=(400, 1))
    w = np.exp(-x[:, 0])
    found = compare(x, x, weight_b=w, statistics=["ks"], replicas=19)
    assert found.sides[1].weight == pytest.approx(w)
    place = where(*found.sides)
    shown = weight_distributions(place).axes[0].patches[0].get_data()
    shares = np.histogram(np.exp(place.log_weight_generated), shown.edges, weights=w)[0] / w.sum()
    assert shown.values == pytest.approx(shares)


def test_grids_and_clouds_have_a_page_too() -> None:
    rng = np.random.default_rng(4)
    grids = compare(*rng.normal(size=(2, 40, 1, 2)), statistics=["ks"], replicas=19)
    assert "Spectra" in text_of(comparison_report(grids).html())
    mask = rng.random((60, 4)) < 0.7
    clouds = replace(grids, sides=(side(Events({"x": rng.normal(size=(60, 4, 2))}, {"x": mask}), None, "a"),) * 2)
    assert "Spectra" not in text_of(comparison_report(clouds).html())
