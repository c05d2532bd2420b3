r"""The lognormal that has the mean and the covariance of a published measurement, as far as there is one.

Logarithmic bins have :math:`S_{ij} = \log(1 + C_{ij} / (m_i m_j))` (:meth:`pofx.simulators.densities.Lognormal.from_moments`). Such a law
need not exist: :math:`1 + C_{ij} / (m_i m_j)` may be negative, or S have negative eigenvalues, because linear relations between bins (and
strong correlations come near to them) do not hold for logarithms. Which bins are logarithmic is therefore found out, the best measured
bins first:

1. a bin is logarithmic if its central value is positive and its relative error at least :data:`SMALL` (below that the two laws agree);
2. if with it no lognormal exists, it is Gaussian instead;
3. if that does not exist either, or the bin is redundant (it follows from the others), it is left out. What remains is the exact marginal
   of the published mean and covariance.

"Exists" means: all :math:`1 + C_{ij} / (m_i m_j) > 0`, and in no direction the variance under the correlation of S is below a tenth
(:data:`FLOOR`) of that under the published correlation. The second excludes laws that exist on paper and have almost empty directions of
their own making.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pofx.errors import DataError
from pofx.simulators.densities import Lognormal
from pofx.tasks.cross_section.published_measured import Floats, Measured, Spectrum

__all__ = ["FLOOR", "SMALL", "Matched", "matched_lognormal"]

SMALL = 0.05
FLOOR = 0.1


@dataclass(frozen=True, eq=False)
class Matched:
    """A lognormal with the moments of (some bins of) a measurement.

    Attributes
    ----------
    density : of the bins below, in that order.
    bins : that it describes.
    logarithmic : of those, the ones that are logarithmic.
    gaussian : of those, the ones that were meant to be logarithmic, or have no positive central value, and are Gaussian.
    left_out : the other bins of the measurement.
    weakest : the least ratio, over all directions, of the variance under the correlation of S to that under the published correlation.
    reason : why not all of the bins are as they were meant to be; empty if they are.
    """

    density: Lognormal
    bins: tuple[int, ...]
    logarithmic: tuple[int, ...]
    gaussian: tuple[int, ...]
    left_out: tuple[int, ...]
    weakest: float
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether no bin is left out."""
        return not self.left_out


def matched_lognormal(measured: Measured, spectrum: Spectrum | None = None) -> Matched | None:
    """The lognormal of a measurement, or None if not a single bin can be logarithmic.

    >>> matched = matched_lognormal(Measured([1.0, 2.0], [[0.1, 0.05], [0.05, 0.4]]))
    >>> matched.logarithmic, matched.complete
    ((0, 1), True)
    """
    spectrum = spectrum or measured.spectrum()
    wanted = (measured.central > 0) & (measured.relative_errors() >= SMALL)
    everything = list(range(len(measured)))
    weakest, reason = _existence(measured, spectrum, everything, wanted)
    chosen, logarithmic = _grow(measured, spectrum, wanted) if reason else (everything, wanted)
    if not logarithmic[chosen].any():
        return None
    part = measured.marginal(chosen)
    try:
        density = Lognormal.from_moments(part.central, part.covariance, logarithmic[chosen], measured.unit)
    except DataError:  # a correlation that Cholesky cannot decompose for lack of digits
        return None
    instead = (wanted | (measured.central <= 0)) & ~logarithmic
    return Matched(
        density,
        tuple(chosen),
        tuple(i for i in chosen if logarithmic[i]),
        tuple(i for i in chosen if instead[i]),
        tuple(sorted(set(everything) - set(chosen))),
        _existence(measured, spectrum, chosen, logarithmic)[0] if reason else weakest,
        reason,
    )


def _grow(measured: Measured, spectrum: Spectrum, wanted: NDArray[np.bool_]) -> tuple[list[int], NDArray[np.bool_]]:
    """The bins for which the law exists, in ascending order, and which bins are logarithmic ``(all bins,)``."""
    chosen: list[int] = []
    logarithmic = np.zeros(len(measured), bool)
    order = np.where(measured.central > 0, measured.relative_errors(), np.inf)
    for i in np.argsort(order, kind="stable"):
        for try_log in (True, False) if wanted[i] else (False,):
            logarithmic[i] = try_log
            if not _existence(measured, spectrum, [*chosen, int(i)], logarithmic)[1]:
                chosen.append(int(i))
                break
        else:
            logarithmic[i] = False
    return sorted(chosen), logarithmic


def _existence(
    measured: Measured, spectrum: Spectrum, bins: list[int], logarithmic: NDArray[np.bool_]
) -> tuple[float, str]:
    """The least ratio of variances over all directions, and why there is no such law of these bins; an empty reason if there is one."""
    log = logarithmic[bins]
    unit = np.where(log, measured.central[bins], spectrum.scale[bins])
    ratio = measured.covariance[np.ix_(bins, bins)] / unit[:, None] / unit
    both = log[:, None] & log
    if (ratio[both] <= -1).any():
        i, j = np.argwhere(both & (ratio <= -1))[0]
        names = f"{measured.names[bins[i]]} and {measured.names[bins[j]]}"
        return 0.0, f"1 + cov/(mean mean) is {1 + ratio[i, j]:.3g} for {names}"
    logs = np.where(both, np.log1p(np.where(both, ratio, 0.0)), ratio)
    values, vectors = np.linalg.eigh(_correlation(ratio))
    if values[0] <= spectrum.tolerance or values[0] <= 0:
        return 0.0, "the covariance is singular"
    white = vectors / np.sqrt(values)
    weakest = float(np.linalg.eigvalsh(white.T @ _correlation(logs) @ white)[0])
    short = f"in one direction the logarithms have {weakest:.2g} of the variance that the covariance says"
    return weakest, "" if weakest >= FLOOR else short


def _correlation(covariance: Floats) -> Floats:
    """Zero variances only occur in singular covariances, and there the bin is redundant."""
    scale = np.sqrt(np.diag(covariance))
    scale = np.where(scale > 0, scale, 1.0)
    return covariance / scale[:, None] / scale
