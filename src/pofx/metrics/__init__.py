"""Are two samples, or a density and a sample, the same? Every value comes with its error and, where it can be had, its floor.

- :mod:`~pofx.metrics.c2st`: the classifier two-sample test; - :mod:`~pofx.metrics.scores`: what it makes of a judge's scores;
- :mod:`~pofx.metrics.modes`: parts of the truth that a sample lacks;
- :mod:`~pofx.metrics.pvalues`: p-values from a density, their agreement with the truth, coverage;
- :mod:`~pofx.metrics.calibration`: ranks, regions and quantiles of conditional densities;
- :mod:`~pofx.metrics.amplification`: how many true events a generated sample is worth.
"""

from __future__ import annotations

from pofx.metrics.amplification import amplification, average_amplification
from pofx.metrics.bayesian_amplification import bayesian_amplification
from pofx.metrics.c2st import C2ST, Split, c2st
from pofx.metrics.calibration import (
    check_calibration,
    expected_coverage,
    pit,
    posterior_draws,
    quantile_calibration,
    sbc_ranks,
    tarp,
)
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
    "amplification",
    "average_amplification",
    "bayesian_amplification",
    "c2st",
    "check_calibration",
    "clopper_pearson",
    "coverage",
    "expected_coverage",
    "modes",
    "permutation_p_value",
    "pit",
    "posterior_draws",
    "quantile_calibration",
    "sbc_ranks",
    "tail_probabilities",
    "tail_probability",
    "tarp",
]
