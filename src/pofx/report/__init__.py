"""Figures and self-contained HTML reports; the figures take arrays, data sets or tables, and models where samples are wanted.

>>> import numpy as np
>>> rng = np.random.default_rng(1)
>>> figure = spectra(rng.normal(size=(500, 2)), rng.normal(size=(500, 2)))
"""

from __future__ import annotations

from pofx.report.bins import bin_spectrum
from pofx.report.corner import corner
from pofx.report.correlation import correlation
from pofx.report.density import density_report
from pofx.report.figures import Figures
from pofx.report.html import Report
from pofx.report.logdensity import log_density
from pofx.report.numbers import Merit, Value
from pofx.report.spectra import spectra, spectra_pages
from pofx.report.style import style
from pofx.report.training import training_curves

__all__ = [
    "Figures",
    "Merit",
    "Report",
    "Value",
    "bin_spectrum",
    "corner",
    "correlation",
    "density_report",
    "log_density",
    "spectra",
    "spectra_pages",
    "style",
    "training_curves",
]
