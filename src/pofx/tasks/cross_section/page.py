"""The report and the table of an analysis: what one would show in a collaboration meeting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pofx.metrics.pvalues import PValue
from pofx.report.bins import bin_spectrum
from pofx.report.correlation import correlation
from pofx.report.gaussianity import culprit_bars, mahalanobis_qq, p_values_by_source
from pofx.report.html import Level, Report
from pofx.report.inference import Significance, calibration, profiles, significances
from pofx.report.logdensity import log_density
from pofx.report.numbers import Merit, Value
from pofx.report.training import training_curves
from pofx.tasks.cross_section.check import TOTAL, SourceCheck
from pofx.tasks.cross_section.predict import Verdict
from pofx.tasks.cross_section.theory import compare_fits

if TYPE_CHECKING:
    from pofx.tasks.cross_section.run import Analysis, Validation

__all__ = ["findings", "table", "write_report"]

LEVEL = 0.01
"""Global p-value below which the universes are called not Gaussian."""
FLOOR = -2.0
"""Significances below are drawn here."""
REACH = 2.5
"""Errors to both sides of a profile."""


def write_report(found: Analysis, path: Path) -> Path:
    """The page, and its figures as PDF and PNG beside it."""
    title = found.universes.title or "Cross-section measurement"
    report = Report(title, f"pofx run cross-section: {len(found.universes)} universes of {found.universes.bins} bins")
    for level, sentence in findings(found):
        report.finding(level, sentence)
    for section in (_summary, _measurement, _gaussianity, _density, _predictions, _theory, _release):
        section(report, found)
    report.section("Card").details("Everything that is saved with the density", _card(found))
    seeds = {"analysis": found.seed}
    facts = {f"seconds, {step}": seconds for step, seconds in found.seconds.items()}
    report.reproduce(found.command, seeds, data=found.universes.fingerprint, **facts)
    return report.write(path)


def table(found: Analysis) -> dict[str, Any]:
    """The numbers, JSON-able."""
    checked = _validation(found)
    return {
        "title": found.universes.title,
        "bins": found.universes.bins,
        "universes": len(found.universes),
        "seed": found.seed,
        "check": {name: _plain_check(one) for name, one in found.checks.items()},
        "density": {
            "chosen": _chosen(found),
            "gain_over_gaussian": list(checked.gain),
            "nll": {name: list(pair) for name, pair in checked.nll.items()},
            "c2st": {
                name: {
                    "accuracy": c.accuracy,
                    "error": c.error,
                    "floor": c.floor,
                    "floor_error": c.floor_error,
                    "p": c.p_value,
                }
                for name, c in checked.c2st.items()
            },
            "scores": [] if found.selection is None else found.selection.table(),
        },
        "predictions": None if found.verdicts is None else found.verdicts.to_dict(),
        "fits": {name: fit.to_dict() for name, fit in found.fits.items()},
        "truth": found.truth,
        "seconds": found.seconds,
    }


def findings(found: Analysis) -> Iterator[tuple[Level, str]]:
    """Level and sentence of what matters most."""
    yield from _about_shape(found)
    checked = _validation(found)
    gain, error = checked.gain
    if _chosen(found).startswith("gaussian") and abs(gain) < 2 * error + 0.02:
        yield (
            "good",
            f"No density that was tried describes held-out universes better than the Gaussian (gain {gain:.2f} ± {error:.2f} nats).",
        )
    else:
        level: Level = "good" if gain > 2 * error else "note"
        yield (
            level,
            f"The density ({_chosen(found)}) describes held-out universes by {gain:.2f} ± {error:.2f} nats each better than the Gaussian.",
        )
    first, second = checked.c2st["density"], checked.c2st["Gaussian"]
    told = (
        f"{first.accuracy:.3f} ± {first.error:.3f} of the density's universes from held-out ones "
        f"({second.accuracy:.3f} ± {second.error:.3f} for the Gaussian; 0.5 is perfect)"
    )
    yield ("good" if first.p_value > LEVEL else "warning"), f"A classifier tells {told}."
    if found.verdicts is not None:
        changed = [v.name for v in found.verdicts if v.changes]
        if changed:
            yield (
                "warning",
                (
                    f"The verdict changes between chi2 and the density for {len(changed)} of {len(found.verdicts)} predictions: "
                    f"{', '.join(changed)}."
                ),
            )
        else:
            yield (
                "note",
                "chi2 and the density agree on which predictions are disfavoured at p = 0.05, 0.01 and 0.0027.",
            )


def _about_shape(found: Analysis) -> Iterator[tuple[Level, str]]:
    total = found.checks[TOTAL].found
    sign = "≤" if total.global_p <= total.smallest * 1.001 else "="
    if total.is_gaussian(LEVEL):
        yield (
            "good",
            f"The universes are compatible with a Gaussian (global p {sign} {total.global_p:.2g}, {total.events} universes).",
        )
    else:
        worst = ", ".join(c.names[0] for c in total.bins[:3])
        yield (
            "warning",
            f"The universes are not Gaussian (global p {sign} {total.global_p:.2g}, {total.events} universes); most in {worst}.",
        )
    guilty = [n for n, one in found.checks.items() if n != TOTAL and not one.found.is_gaussian(LEVEL)]
    if guilty:
        yield "note", f"Sources that are not Gaussian by themselves: {', '.join(guilty)}."


# ---------------------------------------------------------------------------------------------- sections


def _summary(report: Report, found: Analysis) -> None:
    checked = _validation(found)
    merits = [
        Merit(
            "gain over the Gaussian", Value(*checked.gain, "nats"), Value(0.0), note="held-out universes, paired error"
        )
    ]
    for name, test in checked.c2st.items():
        floor = Value(test.floor, test.floor_error)
        merits.append(
            Merit(f"C2ST accuracy, {name}", Value(test.accuracy, test.error), floor, note=f"p = {test.p_value:.3g}")
        )
    for name, covered in checked.covered.items():
        at = int(np.argmin(np.abs(covered.level - 0.9)))
        merits.append(
            Merit(
                f"coverage of the 90 % region, {name}",
                Value(float(covered.covered[at]), float(covered.error[at])),
                Value(float(covered.level[at])),
            )
        )
    report.section("Summary").merits(merits)
    report.facts(
        {
            "measurement": found.universes.title,
            "bins": found.universes.bins,
            "universes": len(found.universes),
            "universes by source": ", ".join(f"{n} {len(rows)}" for n, rows in found.universes.sources.items())
            or "none",
            "unit": found.universes.unit or "–",
            "density": _chosen(found),
            "densities rank in": "–" if found.verdicts is None else found.verdicts.coordinates,
        }
    )
    for note in found.universes.notes:
        report.text(note)


def _measurement(report: Report, found: Analysis) -> None:
    universes = found.universes
    errors = np.sqrt(np.diag(universes.covariance))
    figure = bin_spectrum(
        universes.central,
        errors,
        found.samples,
        universes.total,
        unit=universes.unit,
        labels=("measured", "universes", "density"),
    )
    report.section("Measurement").figure(
        "bins",
        figure,
        "Measured values, universes, and the density bin by bin; below, relative to the measured values.",
    )
    if universes.bins > 1 and found.samples is not None:
        figure = correlation(
            _named(found, universes.total[:20_000]),
            _named(found, found.samples[:20_000]),
            labels=("universes", "density"),
        )
        report.figure("correlation", figure, "Correlations of the universes and of the density.")
    if universes.sources:
        head = ["source", "universes", "relative error, median", "smallest", "largest"]
        rows = [
            [name, len(rows), *_relative(rows.std(0), universes.central)]
            for name, rows in {**universes.sources, TOTAL: universes.total}.items()
        ]
        report.table(head, rows, "Errors by source, relative to the measured values.")


def _gaussianity(report: Report, found: Analysis) -> None:
    checks = {name: one.found for name, one in found.checks.items()}
    report.section("Is it Gaussian?").text(
        "Each statistic is compared with what it gives on Gaussian universes of the same number, fitted and whitened in the same way: a "
        "Gaussian fitted to few universes never looks exact, and the comparison knows by how much. The global p-value is that of the "
        "smallest one. Statistics act on the directions in which the universes of a source vary."
    )
    report.figure(
        "p-values by source",
        p_values_by_source(checks),
        f"p-values; {checks[TOTAL].replicas} replicas of Gaussian universes.",
    )
    head = ["source", "universes", "directions", *(s.name for s in checks[TOTAL].statistics), "global p"]
    rows = [
        [
            n,
            one.found.events,
            f"{one.directions} of {one.bins} ({one.variance:.2%})",
            *(_statistic(s) for s in one.found.statistics),
            _at_most(one),
        ]
        for n, one in found.checks.items()
    ]
    report.table(head, rows, "value (mean ± standard deviation on Gaussian universes)")
    report.figure(
        "mahalanobis distances",
        mahalanobis_qq({n: c.qq for n, c in checks.items()}),
        "Quantiles of the squared Mahalanobis distance, relative to Gaussian universes.",
    )
    report.figure(
        "bins",
        culprit_bars(checks[TOTAL].bins),
        "Bins of the total that deviate most; filled: p < 0.05 for the largest of all bins.",
    )
    if checks[TOTAL].pairs:
        report.figure(
            "pairs",
            culprit_bars(checks[TOTAL].pairs),
            "Pairs of bins whose dependence is more than a correlation (marginals taken out).",
        )


def _density(report: Report, found: Analysis) -> None:
    checked, model = _validation(found), found.density
    report.section("Density").text(
        f"{_chosen(found)}: {model.family!r}. It was compared with held-out universes, "
        "which took part neither in the choice nor in the training."
    )
    if found.selection is not None:
        head = ["candidate", "−log p per universe", "gain over the Gaussian", "universes", "folds", "seconds", "remark"]
        report.table(head, [_score(score) for score in found.selection.scores], found.selection.rule)
    record = model.card.get("training") or {}
    if record.get("history"):
        report.figure(
            "training",
            training_curves(record),
            "Loss in latent coordinates (a constant away from −log p in the units of the bins).",
        )
    level = checked.covered["density"].level
    figure = calibration(level, {n: (c.covered, c.error) for n, c in checked.covered.items()}, checked.p_values)
    report.figure(
        "calibration",
        figure,
        "Coverage of highest-density regions, and p-values of held-out universes: flat if the density is right.",
    )
    if found.data is not None and found.samples is not None:
        test = np.asarray(found.data.test.arrays().x, np.float64)
        figure = log_density(model.log_prob(test), model.log_prob(found.samples[:20_000]))
        report.figure("log density", figure, "log p of held-out universes and of universes that the density makes.")


def _predictions(report: Report, found: Analysis) -> None:
    if found.verdicts is None:
        return
    head, rows = found.verdicts.rows()
    report.section("Predictions").text(
        "chi2 is taken about the measured values with the covariance of the universes; p-values of densities are shares of "
        f"{found.verdicts.toys} of their own universes that are at most as probable ({found.verdicts.coordinates}). "
        "An asterisk marks importance sampling, where fewer than ten were; Z is one-sided."
    )
    report.table(head, rows, "Clopper-Pearson errors of 68 %.")
    shown = {
        v.name: {"chi2": _by_chi2(v), "Gaussian density": _by_toys(v.gaussian), "density": _by_density(v)}
        for v in found.verdicts
    }
    report.figure(
        "significances",
        significances(shown),
        "How strongly each prediction is disfavoured; an arrow: at least so much. What is below −2 is drawn there.",
    )
    for note in found.verdicts.notes:
        report.text(note)


def _theory(report: Report, found: Analysis) -> None:
    if not found.fits:
        return
    head, rows = compare_fits(found.fits, None if found.truth is None else {"axial_mass": found.truth})
    report.section("Fit of the axial mass").table(
        head,
        rows,
        "One standard deviation: the cost rises by 1. The universes vary the axial mass too, as those of an experiment do, "
        "so the errors are larger than those of the data alone.",
    )
    if "density, log" in found.fits:
        report.text(
            "Universes about measured values spread in proportion to them: bins that fluctuated down have small errors, and chi2 and "
            "the density per unit of the cross section pull the fit to where they are low (Peelle's puzzle). The density per unit "
            "of the logarithm does not."
        )
    curves = {name: fit.profile("axial_mass", reach=REACH) for name, fit in found.fits.items()}
    report.figure("profile", profiles("axial mass [GeV]", curves, found.truth), "Cost above its minimum.")


def _release(report: Report, found: Analysis) -> None:
    if found.release is None:
        return
    lines = [
        "from pofx.tasks.cross_section.release import open_release",
        f'release = open_release("{found.release.name}")',
        'print(release.p_values("predictions.csv"))',
    ]
    report.section("Release").text(
        f"The folder {found.release.name} holds the density, its card, central values and covariance, example predictions and the "
        "numbers that they must give. "
        f"pofx run cross-section --release {found.release.name} --predict FILE judges predictions with it; in Python:"
    ).details("Three lines", "\n".join(lines))


# ---------------------------------------------------------------------------------------------- cells


def _validation(found: Analysis) -> Validation:
    if found.validation is None:
        raise RuntimeError("the density was not validated")
    return found.validation


def _chosen(found: Analysis) -> str:
    return found.density.family.name if found.selection is None else found.selection.chosen


def _named(found: Analysis, rows: Any) -> Any:
    from pofx.data import Dataset

    return Dataset.from_arrays(rows, columns=found.universes.columns)


def _relative(spread: Any, central: Any) -> list[str]:
    size = np.abs(central)
    found = np.divide(spread, size, out=np.full(len(size), np.nan), where=size > 0)
    return [f"{value:.1%}" for value in (np.nanmedian(found), np.nanmin(found), np.nanmax(found))]


def _statistic(one: Any) -> str:
    return f"{one.value:.5g} ({one.null_mean:.5g} ± {one.null_std:.2g})"


def _at_most(one: SourceCheck) -> str:
    sign = "≤ " if one.found.global_p <= one.found.smallest * 1.001 else ""
    return f"{sign}{one.found.global_p:.2g}"


def _score(score: Any) -> list[Any]:
    nll = None if score.nll is None else str(Value(score.nll, score.error))
    gain = None if score.gain is None else str(Value(score.gain, score.gain_error))
    return [score.name, nll, gain, score.events, score.folds, f"{score.seconds:.1f}", score.refused or score.note or ""]


def _by_chi2(v: Verdict) -> Significance:
    return _drawn(v.z_chi2, v.z_chi2, v.z_chi2)


def _by_toys(p: PValue) -> Significance:
    return _drawn(p.z, p.z_low, p.z_high) if p.count else Significance(p.z_low, p.z_low, p.z_low, limit=True)


def _by_density(v: Verdict) -> Significance:
    return _by_toys(v.density) if v.far is None else _drawn(v.far.z, v.far.z, v.far.z)


def _drawn(*values: float) -> Significance:
    """As a figure shows it: a p-value near one has no significance worth the room."""
    middle, low, high = (max(value, FLOOR) for value in values)
    return Significance(middle, low, high)


def _plain_check(one: SourceCheck) -> dict[str, Any]:
    found = one.found
    return {
        "events": found.events,
        "directions": one.directions,
        "global_p": found.global_p,
        "global_p_interval": [found.global_low, found.global_high],
        "replicas": found.replicas,
        "statistics": {
            s.name: {"value": s.value, "p": s.p_value, "null_mean": s.null_mean, "null_std": s.null_std}
            for s in found.statistics
        },
        "bins": [str(c) for c in found.bins[:10]],
        "pairs": [str(c) for c in found.pairs[:10]],
    }


def _card(found: Analysis) -> dict[str, Any]:
    card = found.density.card
    training = {name: value for name, value in (card.get("training") or {}).items() if name != "history"}
    return {**card, "training": training}
