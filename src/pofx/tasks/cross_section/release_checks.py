"""What the examples of a release must give: log-densities, chi2, p-values, and how exactly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

from pofx.errors import RangeWarning
from pofx.metrics.pvalues import PValue, tail_probability
from pofx.tasks.cross_section.published_brackets import blocks
from pofx.tasks.cross_section.published_measured import Floats, Measured, Spectrum

if TYPE_CHECKING:
    from pofx.models.model import Model

__all__ = ["HEAD", "Check", "checks", "log_density", "throws"]

HEAD = (
    "prediction",
    "log_density",
    "tolerance",
    "chi2",
    "ndf",
    "p_chi2",
    "p_value",
    "p_low",
    "p_high",
    "toys",
    "below",
)
"""Columns of ``validation.csv``."""


class Check(NamedTuple):
    """What one prediction gives.

    Attributes
    ----------
    name, log_density, tolerance : of the prediction; nats.
    chi2, ndf : with the pseudo-inverse of the covariance.
    p_value : share of throws of the density that are at most as probable.
    """

    name: str
    log_density: float
    tolerance: float
    chi2: float
    ndf: int
    p_value: PValue

    def row(self) -> list[Any]:
        """Cells under :data:`HEAD`."""
        p, p_chi2 = self.p_value, float(stats.chi2.sf(self.chi2, self.ndf))
        return [*self[:5], p_chi2, p.value, p.low, p.high, p.trials, p.count]


def checks(
    measured: Measured, model: Model | None, names: Sequence[str], x: Floats, *, toys: int, seed: int
) -> list[Check]:
    """Judge predictions ``(n, bins)``, smeared where the measurement smears."""
    spectrum = measured.spectrum()
    found, chi2 = log_density(model, spectrum, x), spectrum.chi2(x)
    thrown = _log_density_of_toys(model, spectrum, toys, seed)
    columns = zip(names, found.tolist(), _allowed(model, spectrum, found).tolist(), chi2.tolist(), strict=True)
    return [
        Check(name, logp, allowed, c, spectrum.rank, tail_probability(logp, thrown))
        for name, logp, allowed, c in columns
    ]


def log_density(model: Model | None, spectrum: Spectrum, x: Floats) -> Floats:
    """log p(x) ``(n,)``; of the Gaussian if there is no model: where some directions are empty, of the others, in units of the errors."""
    if model is not None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RangeWarning
            )  # predictions, and throws in the tails, may be outside the trained range
            return np.asarray(model.log_prob(x), np.float64)
    used = spectrum.values[spectrum.full]
    volume = np.log(spectrum.scale).sum() if spectrum.rank == len(spectrum.scale) else 0.0
    return -0.5 * spectrum.chi2(x) - 0.5 * np.log(math.tau * used).sum() - volume


def throws(model: Model | None, spectrum: Spectrum, n: int, seed: int) -> Floats:
    """Throws of the density, or of the Gaussian, ``(n, bins)``."""
    if model is None:
        return spectrum.throws(n, np.random.default_rng(seed))
    return np.asarray(model.sample(n, seed=seed), np.float64)


def _log_density_of_toys(model: Model | None, spectrum: Spectrum, toys: int, seed: int) -> Floats:
    """Of the throws that :func:`throws` gives, block by block, ``(toys,)``."""
    rng, parts, start = np.random.default_rng(seed), [], 0
    for size in blocks(toys):
        x = spectrum.throws(size, rng) if model is None else model.sample_range(start, start + size, seed=seed, n=toys)
        parts.append(log_density(model, spectrum, x))
        start += size
    return np.concatenate(parts)


def _allowed(model: Model | None, spectrum: Spectrum, found: Floats) -> Floats:
    """How far log-densities may differ when they are computed elsewhere: the rounding of the model, or of the eigenvalues."""
    size = np.where(np.isfinite(found), np.abs(found), 0.0)
    if model is None:
        return 1e-9 + 100 * np.finfo(np.float64).eps * spectrum.condition * (1 + size)
    import torch

    tolerance = float(model.card["validation"]["tolerance"]["log_prob"])
    return tolerance + 64 * torch.finfo(model.fitted.dtype).eps * size
