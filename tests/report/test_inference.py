"""Figures of an inference show the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest

from pofx.errors import DataError, ShapeError
from pofx.report.inference import Significance, calibration, profiles, significances


def test_significances_show_values_and_limits() -> None:
    rows = {
        "first": {"chi2": Significance(1.0, 0.9, 1.2), "density": Significance(3.0, 3.0, np.inf, limit=True)},
        "second": {"chi2": Significance(2.0, 2.0, 2.0), "density": Significance(0.5, 0.4, 0.6)},
    }
    axes = significances(rows).axes[0]
    drawn = [container.lines[0].get_xdata().tolist() for container in axes.containers]
    assert drawn == [[1.0, 2.0], [3.0, 0.5]]
    arrows = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == ">"]
    assert arrows == [[], [3.25]]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["first", "second"]


def test_significances_need_a_prediction() -> None:
    with pytest.raises(DataError, match="at least one prediction"):
        significances({})


def test_calibration_shows_the_excess_and_flat_p_values() -> None:
    level = np.array([0.5, 0.9])
    figure = calibration(level, {"model": (level + 0.02, [0.01, 0.02])}, {"model": (np.arange(1000) + 0.5) / 1000})
    left, right = figure.axes
    np.testing.assert_allclose(left.containers[0].lines[0].get_ydata(), [0.02, 0.02])
    np.testing.assert_allclose(right.patches[0].get_data().values, 1.0)


def test_calibration_refuses_other_shapes() -> None:
    with pytest.raises(ShapeError, match="model: expected shares"):
        calibration([0.5, 0.9], {"model": ([0.5], [0.1])}, {})


def test_profiles_show_curves_and_truth() -> None:
    x = np.linspace(0, 2, 5)
    axes = profiles("m [GeV]", {"chi2": (x, x**2), "density": (x, 2 * x**2)}, truth=1.0).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 2 * x**2)
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"chi2", "density", "truth"}
