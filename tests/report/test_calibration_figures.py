"""Figures of calibration and amplification show the numbers they are given."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from pofx.errors import DataError
from pofx.metrics.amplification import Amplification, AmplificationCurve
from pofx.metrics.calibration import pit
from pofx.report.calibration import amplification_curves, calibration_curves

Draw = Callable[[Figure], None]


def test_curves_are_differences_inside_their_band(draw: Draw):
    found = [pit(np.linspace(0.01, 0.99, 80) ** power, name=f"power {power}") for power in (1.0, 2.0)]
    figure = calibration_curves(found)
    panels = figure.axes[:2]
    for axes, curve in zip(panels, found, strict=True):
        assert axes.lines[0].get_ydata()[1:-1] == pytest.approx(curve.band.ecdf - curve.band.z)
        assert curve.name in axes.get_title(loc="left")
    assert "no deviation" in panels[0].get_title(loc="left")
    draw(figure)


def test_factors_against_quantiles(draw: Draw):
    points = (Amplification(10, 10, 0.001, 0.0002, 0.9, 100, 1e4), Amplification(20, 20, 0.0, 0.0002, 0.95, 100, 1e4))
    figure = amplification_curves({"fit": AmplificationCurve(points)})
    shown = figure.axes[0].containers[0].lines[0].get_ydata()
    assert shown.tolist() == [pytest.approx(9.0)]
    assert math.isinf(points[1].value)
    draw(figure)


def test_nothing_to_show_is_an_error():
    with pytest.raises(DataError, match="at least one"):
        calibration_curves([])
    with pytest.raises(DataError, match="at least one"):
        amplification_curves({})
