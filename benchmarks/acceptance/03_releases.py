"""Published mean + covariance releases from end to end: T2K joint, T2K oxygen/carbon, MicroBooNE 3-D (singular), CC1muNp.

Each is read from the public files, analysed, judged (two predictions, multiplied by the release's smearing matrix where there is one),
published as a release folder, opened again and used by the five lines of its README in a fresh process. No file has a prediction of
its own: 0.9 times the central values, and these tilted by -20 % .. +20 % over the bins, stand in. The value of a row is the share of
Gaussian throws with a bin below zero, its error half the Clopper-Pearson interval. Seed 1 of all throws.

Passed: everything ran; chi2 is that of numpy's solve (regular covariances) or pinv (singular ones); throws of the Gaussian give the p-value
of chi2 within five standard errors; empty directions are reported exactly where the covariance is singular; the opened release gives the
same p-values. More rows: an unsmeared prediction of MicroBooNE 3-D is found out; a release with a density; the command line.

    POFX_DATA=... python benchmarks/acceptance/03_releases.py
"""

import math
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import Row
from measuring import Sheet, environment, parser, public_data

import pofx
from pofx.errors import RangeWarning
from pofx.metrics.pvalues import PValue
from pofx.simulators.densities import Lognormal
from pofx.tasks.cross_section.covariance import Measured, analyse, bracket, scan
from pofx.tasks.cross_section.published import (
    OBSERVABLES,
    microboone_cc1munp,
    microboone_cc3d,
    t2k_joint,
    t2k_oxygen_carbon,
)
from pofx.tasks.cross_section.release import Release, open_release, publish
from pofx.tasks.cross_section.universes import Universes

NAME = "03_releases"
SEED = 1
TOYS, QUICK_TOYS = 100_000, 2000
READERS: dict[str, Callable[[Path], Measured]] = {
    "T2K joint": lambda data: t2k_joint(data / "t2k"),
    "T2K oxygen/carbon, regularised": lambda data: t2k_oxygen_carbon(data / "t2k/oxygen_carbon_2004.05434", True),
    "T2K oxygen/carbon, not regularised": lambda data: t2k_oxygen_carbon(data / "t2k/oxygen_carbon_2004.05434", False),
    "MicroBooNE 3-D": lambda data: microboone_cc3d(data / "microboone"),
    **{
        f"CC1muNp {name}": partial(lambda name, data: microboone_cc1munp(data / "microboone", name), name)
        for name in OBSERVABLES
    },
}
SINGULAR = {"MicroBooNE 3-D": 1}
"""Empty directions of the releases that have any."""
ABOUT = {"licence": "as the experiment's release", "notes": ["written by an acceptance measurement"]}


def predictions(measured: Measured) -> dict[str, Any]:
    """Two stand-ins for models, in true bins where the release smears."""
    tilt = np.linspace(0.8, 1.2, len(measured))
    return {"0.9 x central": 0.9 * measured.central, "tilted": tilt * measured.central}


def end_to_end(name: str, toys: int) -> Row:
    """Read, analyse, judge, publish, open, use."""
    measured = READERS[name](public_data())
    found = analyse(measured, toys=toys, seed=SEED)
    judged = bracket(measured, predictions(measured), toys=toys, seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        where = publish(
            Path(folder) / "release",
            universes_or_measured=measured,
            predictions=predictions(measured),
            toys=toys,
            seed=SEED,
            citation=measured.notes[0],
            **ABOUT,
        )
        size = sum(path.stat().st_size for path in where.iterdir())
        again = open_release(where).p_values(where / "predictions.csv", toys=toys, seed=SEED)
        five = five_lines(where)
    checks = {
        "chi2": all(math.isclose(row.chi2, reference(measured, row.name), rel_tol=1e-3) for row in judged),
        "gaussian": all(close(row.p_gaussian, row.p_chi2) for row in judged),
        "singular": len(found.empty) == SINGULAR.get(name, 0)
        and len(found.empty) == sum("Empty direction" in line for line in found.statements),
        "reopened": all(same(a, b) for a, b in zip(again, judged, strict=True)),
        "five lines": five == "",
    }
    return {
        "value": found.below_zero.value,
        "error": (found.below_zero.high - found.below_zero.low) / 2,
        "passed": all(checks.values()),
        "checks": checks,
        **({} if five == "" else {"five_lines": five[-500:]}),
        "bins": len(measured),
        "rank": found.spectrum.rank,
        "condition": found.spectrum.condition,
        "empty": [str(direction) for direction in found.empty],
        "relative_errors": [float(np.quantile(found.relative_errors, q)) for q in (0, 0.5, 1)],
        "lognormal": lognormal(found.lognormal),
        "predictions": [verdict(row) for row in judged],
        "notes": list(judged.notes),
        "release_bytes": size,
    }


def lognormal(found: Any) -> Row | None:
    """How many bins the moment-matched lognormal has."""
    if found is None:
        return None
    counts = {key: len(getattr(found, key)) for key in ("bins", "logarithmic", "gaussian", "left_out")}
    return {**counts, "weakest": found.weakest, "reason": found.reason}


def verdict(row: Any) -> Row:
    """The bracket of one prediction."""
    plain = ("name", "chi2", "ndf", "p_chi2", "bins", "chi2_there", "p_there", "empty", "outside", "at_least", "weak")
    values = {key: getattr(row, key) for key in (*plain, "low", "high")}
    return {**values, "p_gaussian": interval(row.p_gaussian), "p_lognormal": interval(row.p_lognormal)}


def interval(p: PValue | None) -> list[float] | None:
    """Value, lower and upper end."""
    return None if p is None else [p.value, p.low, p.high]


def close(p: PValue, exact: float) -> bool:
    """Whether a share of throws is within five standard errors, or two throws, of its probability."""
    return abs(p.value - exact) * p.trials <= max(5 * math.sqrt(p.trials * exact * (1 - exact)), 2)


def same(a: Any, b: Any) -> bool:
    """Two brackets, up to what rounding does to a chi2 with nearly empty directions."""
    near = all(abs(p.count - q.count) <= 2 for p, q in ((a.p_gaussian, b.p_gaussian), (a.p_lognormal, b.p_lognormal)))
    return near and math.isclose(a.chi2, b.chi2, rel_tol=1e-3) and (a.ndf, a.bins, a.empty) == (b.ndf, b.bins, b.empty)


def reference(measured: Measured, name: str) -> float:
    """chi2 by numpy alone, on correlations; with pinv at the same tolerance where the covariance is singular."""
    x = np.asarray(predictions(measured)[name])
    x = x if measured.smearing is None else measured.smearing @ x
    sigma = np.sqrt(np.diag(measured.covariance))
    u, correlation = (x - measured.central) / sigma, measured.covariance / np.outer(sigma, sigma)
    if np.linalg.matrix_rank(correlation, hermitian=True) == len(u):
        return float(u @ np.linalg.solve(correlation, u))
    return float(u @ np.linalg.pinv(correlation, rcond=len(u) * 2.2e-16, hermitian=True) @ u)


def five_lines(folder: Path) -> str:
    """Run the code of the README in a process of its own, from the parent folder: what went wrong, or nothing."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return run([sys.executable, "-c", code], folder.parent)


def run(words: list[str], folder: Path) -> str:
    """The errors of a command, or nothing."""
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 and done.stdout.strip() else done.stderr or "no output"


def unsmeared(toys: int) -> Row:
    """A prediction that was not smeared, passed off as if it were: what chi2 leaves out, at least, must exclude it and be said."""
    measured = READERS["MicroBooNE 3-D"](public_data())
    given = predictions(measured)["tilted"]
    found = bracket(measured, {"tilted": given}, toys=toys, seed=SEED, smeared=True)
    said = [note for note in found.notes if "in which the measurement does not vary" in note]
    return {
        "value": found[0].at_least,
        "error": None,
        "passed": found[0].at_least > 1e3 and len(said) == 1,
        "outside": found[0].outside,
        "chi2_by_tolerance": scan(measured, {"tilted": given}, smeared=True),
        "notes": said,
    }


def with_density(events: int, toys: int) -> Row:
    """T2K's lognormal toys as universes, a copula density of them, published and opened: largest difference of p to the exact one."""
    measured = READERS["T2K joint"](public_data())
    exact = Lognormal.from_moments(measured.central, measured.covariance)
    universes = Universes(exact.sample(events, SEED), measured.central, columns=measured.columns, title=measured.title)
    begun = time.monotonic()
    model = pofx.GaussianCopula().fit(universes.dataset())
    minutes = (time.monotonic() - begun) / 60
    with tempfile.TemporaryDirectory() as folder:
        where = publish(
            Path(folder) / "release",
            model=model,
            universes_or_measured=universes,
            predictions=predictions(measured),
            toys=toys,
            seed=SEED,
            **ABOUT,
        )
        release = open_release(where)
        table = release.p_values(where / "predictions.csv", toys=toys, seed=SEED)
        five, pairs = five_lines(where), compared(release, exact, toys)
    return {
        "value": max(abs(learnt - true) for learnt, true in pairs),
        "error": math.sqrt(0.5 / toys),
        "passed": five == "" and len(table) == 2,
        "pairs": pairs,
        "table": str(table),
        "minutes": round(minutes, 3),
        **({} if five == "" else {"five_lines": five[-500:]}),
    }


def compared(release: Release, exact: Lognormal, toys: int) -> list[tuple[float, float]]:
    """p-values of the published density and of the exact one."""
    x = np.stack(list(release.predictions().values()))
    own, true = release.log_prob(release.toys(toys, seed=SEED)), exact.log_prob(exact.sample(toys, SEED + 1))
    return [
        (float((own <= a).mean()), float((true <= b).mean()))
        for a, b in zip(release.log_prob(x), exact.log_prob(x), strict=True)
    ]


def command_line(toys: int) -> Row:
    """`pofx run cross-section --release FOLDER --predict FILE`."""
    measured = READERS["CC1muNp mumom"](public_data())
    with tempfile.TemporaryDirectory() as folder:
        where = publish(
            Path(folder) / "release", universes_or_measured=measured, predictions=predictions(measured), toys=toys
        )
        words = ["run", "cross-section", "--release", str(where), "--predict", str(where / "predictions.csv")]
        wrong = run([sys.executable, "-m", "pofx.cli", *words], Path(folder))
    return {"value": float(wrong == ""), "error": None, "passed": wrong == "", "errors": wrong[-500:]}


def main() -> None:
    """One row per release, then the others."""
    options = parser(__doc__).parse_args()
    warnings.simplefilter("ignore", RangeWarning)  # throws in the far tails
    sheet, toys = Sheet(NAME, quick=options.quick), QUICK_TOYS if options.quick else TOYS
    events = 2000 if options.quick else 20_000
    rows: dict[str, Callable[[], Row]] = {
        f"{name}: share of throws below zero": partial(end_to_end, name, toys) for name in READERS
    }
    rows["MicroBooNE 3-D, not smeared: chi2 left out at least"] = partial(unsmeared, toys)
    rows["T2K joint with a density: largest difference of p to the exact lognormal"] = partial(
        with_density, events, toys
    )
    rows["the command line on a release"] = partial(command_line, toys)
    for measure, make in rows.items():
        sheet.measure(measure, make, seeds=[SEED])
    sheet.finish(rows)


if __name__ == "__main__":
    main()
