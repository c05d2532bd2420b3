"""Figures of the check of normality show the numbers they are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from pofx.errors import DataError
from pofx.metrics.gaussianity import Culprit, GaussianCheck, Quantiles, Statistic
from pofx.report.gaussianity import culprit_bars, mahalanobis_qq, p_values_by_source

Draw = Callable[[Figure], None]


def quantiles(shift: float = 0.0) -> Quantiles:
    median = np.linspace(1.0, 9.0, 5)
    return Quantiles(
        np.linspace(0, 1, 5), median * (1 + shift), median, *(median * f for f in (0.98, 1.02, 0.96, 1.04))
    )


def check(p: float) -> GaussianCheck:
    rows = tuple(Statistic(n, 1.0, q, q, q, 0.0, 1.0) for n, q in (("c2st", p), ("qq", 0.5), ("c2st-accuracy", 0.7)))
    return GaussianCheck(100, 2, rows, p, p, p, quantiles(), (), (), 99)


def test_qq_is_relative_to_normal_data(draw: Draw) -> None:
    figure = mahalanobis_qq({"flux": quantiles(), "total_50%": quantiles(0.2)})
    left, right = figure.axes
    assert left.get_title(loc="left") == "flux"
    x, y = right.lines[0].get_data()
    np.testing.assert_allclose(x, np.linspace(1.0, 9.0, 5))
    np.testing.assert_allclose(y, 1.2)
    ends = [
        [band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()]
        for band in left.collections
    ]
    np.testing.assert_allclose(ends, [[0.96, 1.04], [0.98, 1.02]])
    low, high = right.get_ylim()
    assert low < 0.96
    assert high > 1.2
    draw(figure)


def test_qq_hides_empty_panels(draw: Draw) -> None:
    figure = mahalanobis_qq({str(k): quantiles() for k in range(4)})
    assert [axes.get_visible() for axes in figure.axes] == [True] * 4 + [False] * 2
    draw(figure)


def test_p_values_by_source(draw: Draw) -> None:
    figure = p_values_by_source({"flux": check(0.01), "total": check(0.3)})
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["≤ 0.01", "≤ 0.01", "0.5", "0.3", "0.3", "0.5"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["global", "c2st", "qq"]
    np.testing.assert_allclose(axes.images[0].get_array(), np.log10([[0.01, 0.01, 0.5], [0.3, 0.3, 0.5]]))
    draw(figure)


def test_bars_show_pulls_and_fill_the_significant(draw: Draw) -> None:
    found = [Culprit(("a",), "skewness", 0.4, 6.0, 0.005), Culprit(("b", "c_2"), "bent", -0.1, -2.0, 0.6)]
    figure = culprit_bars([*found, *found], most=3)
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [6.0, -2.0, 6.0]
    assert [bar.get_facecolor() == to_rgba("white") for bar in axes.patches] == [False, True, False]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[0] == "a (skewness)"
    assert "b × c" in labels[1]
    draw(figure)


def test_nothing_to_show_is_an_error() -> None:
    for show in (mahalanobis_qq, p_values_by_source):
        with pytest.raises(DataError, match="at least one"):
            show({})
    with pytest.raises(DataError, match="at least one bin or pair"):
        culprit_bars([])
