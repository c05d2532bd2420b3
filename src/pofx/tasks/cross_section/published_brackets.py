r"""p-values of predictions between the two laws that a mean and a covariance allow: the Gaussian, and the moment-matched lognormal.

chi2 leaves empty directions out (:mod:`~pofx.tasks.cross_section.published_measured`) and says what it left out. Its p-value is that of
the Gaussian; throws of the Gaussian must agree with it. The lognormal's is the share of its throws that are at most as probable as the
prediction. Where no lognormal of all bins exists, both are compared on the bins for which it does
(:mod:`~pofx.tasks.cross_section.published_lognormal`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pofx.errors import ConfigError, DataError
from pofx.metrics.pvalues import PValue, tail_probability
from pofx.tasks.cross_section.published_lognormal import Matched, matched_lognormal
from pofx.tasks.cross_section.published_measured import UNTESTABLE, Floats, Measured, Spectrum
from pofx.training.noise import derive_seed

__all__ = ["Bracket", "Brackets", "Singular", "as_text", "blocks", "bracket", "scan", "throws_count"]

BLOCK = 10_000
"""Throws at once. Gaussian results do not depend on it; lognormal throws are numbered by it."""
WEAK = 1e-6
"""Directions with less than this of the largest variance are told apart in chi2: the last digits of the covariance decide there."""

Singular = Literal["pseudo-inverse", "drop", "refuse"]


@dataclass(frozen=True)
class Bracket:
    """One prediction, judged by all that mean and covariance allow.

    Attributes
    ----------
    name : of the prediction.
    chi2, ndf, p_chi2 : with the pseudo-inverse of the covariance; ndf is its rank.
    p_gaussian : share of Gaussian throws that are at most as probable; agrees with ``p_chi2`` within its error.
    p_lognormal : the same for the moment-matched lognormal, on ``bins`` bins; None where there is none.
    bins, chi2_there, p_there : what chi2 says on those same bins.
    empty : directions that chi2 leaves out.
    outside : length of the deviation along them, in units of the errors of the bins.
    at_least : what chi2 would gain at least if the variance along them is at most the tolerance; it is infinite if it is zero.
    weak : the part of chi2 from directions with less than 1e-6 of the largest variance.
    """

    name: str
    chi2: float
    ndf: int
    p_chi2: float
    p_gaussian: PValue
    p_lognormal: PValue | None
    bins: int
    chi2_there: float
    p_there: float
    empty: int
    outside: float
    at_least: float
    weak: float

    @property
    def low(self) -> float:
        """The smaller one of the Gaussian and the lognormal p-value, on the same bins."""
        return self.p_there if self.p_lognormal is None else min(self.p_there, self.p_lognormal.value)

    @property
    def high(self) -> float:
        """The larger one."""
        return self.p_there if self.p_lognormal is None else max(self.p_there, self.p_lognormal.value)


@dataclass(frozen=True)
class Brackets:
    """Predictions in a table, and what has to be said about all of them."""

    rows: tuple[Bracket, ...]
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, index: int) -> Bracket:
        return self.rows[index]

    def __iter__(self) -> Iterator[Bracket]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and cells as text."""
        head = ["prediction", "chi2 / ndf", "p chi2", "p Gaussian", "p lognormal", "on bins", "bracket"]
        return head, [_cells(row) for row in self.rows]

    def __str__(self) -> str:
        return as_text(*self.table(), self.notes)


def bracket(
    measured: Measured,
    predictions: Mapping[str, ArrayLike] | ArrayLike,
    *,
    toys: int = 100_000,
    seed: int = 0,
    singular: Singular = "pseudo-inverse",
    smeared: bool = False,
    tolerance: float | None = None,
) -> Brackets:
    """Judge predictions by a published mean and covariance: chi2, and p-values between the Gaussian and the lognormal of these moments.

    Parameters
    ----------
    predictions : by name ``{name: (bins,)}``, or rows ``(n, bins)``. With a smearing matrix, bins are its columns, and the predictions are
        multiplied by it, unless ``smeared`` says that they have been already.
    toys : throws of each density behind the p-values.
    seed : of the throws.
    singular : what to do with a singular covariance: leave out its empty directions (``"pseudo-inverse"``, the chi2 of the others), leave
        out bins that follow from the others (``"drop"``), or raise (``"refuse"``). All say so in the notes.
    tolerance : see :meth:`Spectrum.of`.

    Raises
    ------
    ShapeError naming the bins of both sides; DataError if the covariance is singular and ``singular="refuse"``; ConfigError.

    >>> measured = Measured([1.0, 2.0], [[0.01, 0.0], [0.0, 0.04]])
    >>> row = bracket(measured, {"nominal": [1.1, 2.0]}, toys=1000)[0]
    >>> round(row.chi2, 6), row.ndf, round(row.p_chi2, 4)
    (1.0, 2, 0.6065)
    """
    names, x = measured.compared(predictions, smeared)
    spectrum = measured.spectrum(tolerance)
    notes = [UNTESTABLE, *_smearing_note(measured, smeared), *_singular_note(spectrum, singular)]
    judge = _Judge(measured, spectrum, singular == "drop", throws_count(toys), seed)
    rows = tuple(judge(name, row) for name, row in zip(names, x, strict=True))
    return Brackets(rows, (*notes, *_row_notes(rows)))


def scan(
    measured: Measured,
    predictions: Mapping[str, ArrayLike] | ArrayLike,
    tolerances: Sequence[float] = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2),
    *,
    smeared: bool = False,
) -> list[dict[str, float | str | int]]:
    """How chi2 depends on which directions are left out: prediction, tolerance, rank, chi2 and p for each tolerance.

    >>> rows = scan(Measured([1.0, 2.0], [[0.01, 0.0], [0.0, 0.04]]), [1.1, 2.0], [1e-3])
    >>> rows[0]["rank"], round(rows[0]["p"], 4)
    (2, 0.6065)
    """
    names, x = measured.compared(predictions, smeared)
    found: list[dict[str, float | str | int]] = []
    for tolerance in tolerances:
        spectrum = measured.spectrum(tolerance)
        for name, chi2 in zip(names, spectrum.chi2(x), strict=True):
            p = float(stats.chi2.sf(chi2, spectrum.rank))
            found.append(
                {"prediction": name, "tolerance": tolerance, "rank": spectrum.rank, "chi2": float(chi2), "p": p}
            )
    return found


# ---------------------------------------------------------------------- throws


class _Judge:
    """Spectra and throws for one prediction after the other, so that none depends on its company."""

    def __init__(self, measured: Measured, spectrum: Spectrum, drop: bool, toys: int, seed: int) -> None:
        self.whole = spectrum
        self.kept = spectrum.independent() if drop and spectrum.empty() else list(range(len(measured)))
        part = measured.marginal(self.kept)
        self.spectrum = spectrum.of_bins(measured, self.kept) if len(self.kept) < len(measured) else spectrum
        self.gaussian = _gaussian_toys(self.spectrum.rank, toys, seed)
        self.matched = matched_lognormal(part, self.spectrum)
        complete = self.matched is None or self.matched.complete
        self.there = list(range(len(part))) if self.matched is None else list(self.matched.bins)
        self.inner = self.spectrum if complete else self.spectrum.of_bins(part, self.there)
        self.lognormal = None if self.matched is None else _lognormal_toys(self.matched, toys, seed)

    def __call__(self, name: str, prediction: Floats) -> Bracket:
        x = prediction[None, self.kept]
        chi2, there = float(self.spectrum.chi2(x)[0]), float(self.inner.chi2(x[:, self.there])[0])
        outside = float(self.whole.outside(prediction[None])[0])
        return Bracket(
            name=name,
            chi2=chi2,
            ndf=self.spectrum.rank,
            p_chi2=float(stats.chi2.sf(chi2, self.spectrum.rank)),
            p_gaussian=tail_probability(-0.5 * chi2, self.gaussian),
            p_lognormal=self._lognormal(x[:, self.there]),
            bins=len(self.there),
            chi2_there=there,
            p_there=float(stats.chi2.sf(there, self.inner.rank)),
            empty=len(self.whole.values) - self.whole.rank,
            outside=outside,
            at_least=_least(outside, self.whole.tolerance),
            weak=self._weak(x),
        )

    def _lognormal(self, x: Floats) -> PValue | None:
        if self.matched is None or self.lognormal is None:
            return None
        return tail_probability(float(self.matched.density.log_prob(x)[0]), self.lognormal)

    def _weak(self, x: Floats) -> float:
        """The part of chi2 from nearly empty directions."""
        s = self.spectrum
        weak = s.full & (s.values < WEAK * s.values[-1])
        return float((s.components(x)[0, weak] ** 2 / s.values[weak]).sum())


def _gaussian_toys(rank: int, toys: int, seed: int) -> Floats:
    """log-densities of Gaussian throws up to a constant, ``(toys,)``: -chi2/2 of ``rank`` independent standard normal numbers."""
    rng = np.random.default_rng(derive_seed(seed, "gaussian"))
    return np.concatenate([-0.5 * (rng.standard_normal((size, rank)) ** 2).sum(1) for size in blocks(toys)])


def _lognormal_toys(found: Matched, toys: int, seed: int) -> Floats:
    parts = [
        found.density.log_prob(found.density.sample(size, derive_seed(seed, "lognormal", k)))
        for k, size in enumerate(blocks(toys))
    ]
    return np.concatenate(parts)


def blocks(toys: int) -> Iterator[int]:
    """Sizes of blocks of throws."""
    return (min(BLOCK, toys - start) for start in range(0, toys, BLOCK))


def throws_count(toys: int) -> int:
    """A number of throws, or ConfigError."""
    if toys < 1 or toys != int(toys):
        raise ConfigError(f"toys: expected a number of throws, at least 1; got {toys!r}")
    return int(toys)


# ---------------------------------------------------------------------- words


def _smearing_note(measured: Measured, smeared: bool) -> list[str]:
    if measured.smearing is None:
        return []
    return [
        "The predictions are taken as smeared already."
        if smeared
        else "The predictions were multiplied by the release's smearing matrix."
    ]


def _singular_note(spectrum: Spectrum, singular: Singular) -> list[str]:
    """What is done about empty directions; raises where that is what was asked for."""
    if singular not in ("pseudo-inverse", "drop", "refuse"):
        raise ConfigError(f"singular: expected pseudo-inverse, drop or refuse; got {singular!r}")
    empty = spectrum.empty()
    if not empty:
        return []
    what = f"The covariance is singular: rank {spectrum.rank} of {len(spectrum.names)}; empty: {'; '.join(map(str, empty[:5]))}"
    if singular == "refuse":
        raise DataError(what)
    if singular == "pseudo-inverse":
        return [f"{what}. chi2 leaves {len(empty)} direction(s) out."]
    kept = set(spectrum.independent())
    redundant = ", ".join(name for i, name in enumerate(spectrum.names) if i not in kept)
    return [f"{what}. Left out, because they follow from the others: {redundant}."]


def _least(outside: float, tolerance: float) -> float:
    return float(outside) ** 2 / tolerance if tolerance > 0 else (math.inf if outside > 0 else 0.0)


def _row_notes(rows: Sequence[Bracket]) -> Iterator[str]:
    for row in rows:
        if row.at_least > 1:
            yield (
                f"{row.name}: deviates by {row.outside:.2g} errors along directions in which the measurement does not vary; "
                f"chi2 leaves out at least {row.at_least:.3g}. Excluded, unless it was not smeared as it must be."
            )
        if row.weak > 0.5 * row.chi2 and row.weak > 1:
            yield f"{row.name}: {row.weak:.3g} of chi2 {row.chi2:.4g} come from nearly empty directions; see scan()."
        if row.p_lognormal is not None and not math.isclose(row.chi2_there, row.chi2, rel_tol=1e-6, abs_tol=1e-6):
            yield f"{row.name}: p lognormal is on {row.bins} bins, where chi2 is {row.chi2_there:.4g} and its p-value {row.p_there:.3g}."


def as_text(head: list[str], cells: list[list[str]], notes: Sequence[str]) -> str:
    """A table in aligned columns, the notes below it."""
    widths = [max(len(row[k]) for row in [head, *cells]) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *cells]]
    return "\n".join([*(line.rstrip() for line in lines), *(f"- {note}" for note in notes)])


def _cells(row: Bracket) -> list[str]:
    lognormal = "none" if row.p_lognormal is None else str(row.p_lognormal)
    span = f"{row.low:.3g} .. {row.high:.3g}"
    return [
        row.name,
        f"{row.chi2:.2f} / {row.ndf}",
        f"{row.p_chi2:.3g}",
        str(row.p_gaussian),
        lognormal,
        str(row.bins),
        span,
    ]
