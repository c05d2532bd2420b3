"""Are two samples, or a density and a sample, the same? Every value comes with its error and, where it can be had, its floor.

- :mod:`~pofx.metrics.c2st`: the classifier two-sample test; - :mod:`~pofx.metrics.scores`: what it makes of a judge's scores;
- :mod:`~pofx.metrics.modes`: parts of the truth that a sample lacks;
- :mod:`~pofx.metrics.pvalues`: p-values from a density, their agreement with the truth, coverage.
"""

from __future__ import annotations

from pofx.metrics.c2st import C2ST, Split, c2st
from pofx.metrics.modes import Modes, modes
from pofx.metrics.pvalues import (
    Agreement,
    Coverage,
    Estimate,
    PValue,
    agreement,
    clopper_pearson,
    coverage,
    tail_probabilities,
    tail_probability,
)
from pofx.metrics.scores import permutation_p_value

__all__ = [
    "C2ST",
    "Agreement",
    "Coverage",
    "Estimate",
    "Modes",
    "PValue",
    "Split",
    "agreement",
    "c2st",
    "clopper_pearson",
    "coverage",
    "modes",
    "permutation_p_value",
    "tail_probabilities",
    "tail_probability",
]
