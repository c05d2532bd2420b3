"""Small samples, and a figure's drawing as the check that it can be drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from pofx.report import Figures


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def draw() -> Callable[[Figure], None]:
    """Draw a figure as PNG and PDF and close it; every warning is an error in these tests."""

    def _draw(figure: Figure) -> None:
        picture = Figures().add("figure", figure)
        assert picture.png.startswith(b"\x89PNG")
        assert picture.pdf.startswith(b"%PDF")
        assert not figure.axes

    return _draw
