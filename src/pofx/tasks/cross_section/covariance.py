r"""What a mean and a covariance allow to say, and what they do not.

Today's measurements are published as central values and a covariance matrix. Whether the Gaussian that is then assumed is right cannot
be tested from these: any shape has a mean and a covariance. What can be said: in which directions nothing is measured (the covariance is
singular), how often the assumed Gaussian gives cross sections below zero, and how far p-values would move if the law were the lognormal
of the same moments instead (:mod:`~pofx.tasks.cross_section.published_lognormal`). A Gaussian p-value and a lognormal one far from each
other mean that the release does not decide on the prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pofx.metrics.pvalues import PValue, clopper_pearson
from pofx.tasks.cross_section.published_brackets import WEAK, Bracket, Brackets, blocks, bracket, scan, throws_count
from pofx.tasks.cross_section.published_lognormal import SMALL, Matched, matched_lognormal
from pofx.tasks.cross_section.published_measured import UNTESTABLE, Direction, Floats, Measured, Spectrum
from pofx.training.noise import derive_seed

__all__ = [
    "UNTESTABLE",
    "Bracket",
    "Brackets",
    "Direction",
    "Findings",
    "Measured",
    "Spectrum",
    "analyse",
    "bracket",
    "scan",
]


@dataclass(frozen=True, eq=False)
class Findings:
    """What :func:`analyse` found.

    Attributes
    ----------
    measured, spectrum, toys, seed : what was analysed, and how.
    empty : directions in which the covariance is singular.
    relative_errors : ``(bins,)``.
    below_zero : share of Gaussian throws with at least one bin below zero, with its Clopper-Pearson interval.
    below_zero_by_bin : the same, bin by bin.
    exact_by_bin : ``(bins,)``, Phi(-central/error).
    lognormal : the lognormal of the same moments, or None if no bin can be logarithmic.
    """

    measured: Measured
    spectrum: Spectrum
    toys: int
    seed: int
    empty: tuple[Direction, ...]
    relative_errors: Floats
    below_zero: PValue
    below_zero_by_bin: tuple[PValue, ...]
    exact_by_bin: Floats
    lognormal: Matched | None

    @property
    def statements(self) -> tuple[str, ...]:
        """What there is to say, one sentence or two each."""
        return (UNTESTABLE, *self._about_rank(), *self._about_errors(), self._about_lognormal())

    def __str__(self) -> str:
        head = f"{self.measured.title or 'measurement'}: {len(self.measured)} bins"
        return "\n".join([head, *(f"- {line}" for line in self.statements)])

    def _about_rank(self) -> Iterator[str]:
        s = self.spectrum
        yield (
            f"The correlation has rank {s.rank} of {len(self.measured)} and the condition number {s.condition:.2g} "
            f"(eigenvalues from {s.values[0]:.2g} to {s.values[-1]:.3g}; up to {s.tolerance:.2g} counts as zero)."
        )
        weak = int((s.full & (s.values < WEAK * s.values[-1])).sum())
        if weak:
            yield f"{weak} more directions have less than {WEAK:g} of the largest variance: there the last digits decide chi2."
        for direction in self.empty:
            yield f"Empty direction: {direction}."

    def _about_errors(self) -> Iterator[str]:
        r = self.relative_errors
        yield f"Relative errors are {r.min():.1%} to {r.max():.1%}, {np.median(r):.1%} in the median."
        if (negative := int((self.measured.central <= 0).sum())) > 0:
            yield f"{negative} central values are not positive."
        worst = int(self.exact_by_bin.argmax())
        mixed = self.measured.smearing is not None and bool((self.measured.smearing < 0).any())
        allowed = " The smearing matrix has negative elements, so that smeared predictions may be below zero too."
        yield (
            f"Of {self.toys} Gaussian throws {_share(self.below_zero)} have a bin below zero, most often "
            f"{self.measured.names[worst]} ({self.exact_by_bin[worst]:.2%}).{allowed if mixed else ''}"
        )

    def _about_lognormal(self) -> str:
        found = self.lognormal
        if found is None and not ((self.measured.central > 0) & (self.relative_errors >= SMALL)).any():
            return f"No bin has a relative error above {SMALL:.0%}: lognormal and Gaussian agree, there is no bracket."
        if found is None:
            return f"No lognormal has this mean and covariance with any bin above {SMALL:.0%} relative error logarithmic: no bracket."
        if not found.reason:
            return (
                f"The moment-matched lognormal exists: {len(found.logarithmic)} of {len(self.measured)} bins are logarithmic. "
                f"{_weakest(found)}"
            )
        parts = [f"{len(found.logarithmic)} of {len(self.measured)} bins are logarithmic"]
        for what, bins in (("are Gaussian instead", found.gaussian), ("are left out", found.left_out)):
            if bins:
                parts.append(f"{len(bins)} {what} ({_listed(self.measured, bins)})")
        return f"No lognormal of all bins exists ({found.reason}). In its place, {', '.join(parts)}. {_weakest(found)}"


def analyse(measured: Measured, *, toys: int = 100_000, seed: int = 0, tolerance: float | None = None) -> Findings:
    """Say what a published mean and covariance determine.

    Parameters
    ----------
    toys : Gaussian throws behind the shares below zero.
    seed : of the throws.
    tolerance : eigenvalues of the correlation up to it, relative to the largest, count as zero; see :meth:`Spectrum.of`.

    Raises
    ------
    ConfigError, DataError : see :meth:`Spectrum.of`.

    >>> found = analyse(Measured([1.0, 1.0, 2.0], [[0.04, 0, 0.04], [0, 0.04, 0.04], [0.04, 0.04, 0.08]]), toys=1000)
    >>> found.spectrum.rank, str(found.empty[0])
    (2, '+0.71 bin2 -0.50 bin0 -0.50 bin1 (eigenvalue ...)')
    """
    spectrum = measured.spectrum(tolerance)
    any_bin, by_bin = _below_zero(spectrum, throws_count(toys), seed)
    error = measured.errors
    pull = np.divide(measured.central, error, out=np.where(measured.central < 0, -np.inf, np.inf), where=error > 0)
    return Findings(
        measured,
        spectrum,
        toys,
        seed,
        spectrum.empty(),
        measured.relative_errors(),
        _interval(any_bin, toys),
        tuple(_interval(int(count), toys) for count in by_bin),
        special.ndtr(-pull),
        matched_lognormal(measured, spectrum),
    )


def _below_zero(spectrum: Spectrum, toys: int, seed: int) -> tuple[int, Floats]:
    """How many Gaussian throws have any bin below zero, and each bin, ``(bins,)``."""
    rng = np.random.default_rng(derive_seed(seed, "below zero"))
    any_bin, by_bin = 0, np.zeros(len(spectrum.scale))
    for size in blocks(toys):
        below = spectrum.throws(size, rng) < 0
        any_bin += int(below.any(1).sum())
        by_bin += below.sum(0)
    return any_bin, by_bin


def _weakest(found: Matched) -> str:
    return f"No direction has less than {found.weakest:.2g} of its published (relative) variance in the logarithms."


def _share(found: PValue) -> str:
    return f"{found.value:.2%} (+{found.high - found.value:.2%} -{found.value - found.low:.2%})"


def _listed(measured: Measured, bins: Sequence[int], most: int = 6) -> str:
    names = [measured.names[i] for i in bins]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _interval(count: int, trials: int) -> PValue:
    return PValue(count / trials, *clopper_pearson(count, trials), trials, count)
