"""Small samples, and a figure's drawing as the check that it can be drawn."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pytest
from matplotlib.figure import Figure

from pofx.report import Figures
from pofx.report.figures import _close, _drawn


class Draw(Protocol):
    """What the fixture gives."""

    def __call__(self, figure: Figure, *, pdf: bool = True) -> None: ...


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def draw() -> Draw:
    """Draw a figure as PNG and PDF and close it; every warning is an error in these tests.

    ``pdf=False`` is for further figures of a kind that is drawn as PDF elsewhere: fonts of a PDF take longer than all the rest.
    """

    def _draw(figure: Figure, *, pdf: bool = True) -> None:
        if pdf:
            picture = Figures().add("figure", figure)
            assert picture.png.startswith(b"\x89PNG")
            assert picture.pdf.startswith(b"%PDF")
        else:
            assert _drawn(figure, "png").startswith(b"\x89PNG")
            _close(figure)
        assert not figure.axes

    return _draw
