"""T2K's joint release in 116 bins: lognormal toys of exactly its mean and covariance, learnt through the command line.

Seeds 1, 2, 3: of the training; the 1e5 toys have seed 1000 + s, the 2e4 fresh ones 2000 + s. The file holds plain columns: that they are
positive, and that their logarithms are normal, is for pofx to find out. The value is the negative log-likelihood on fresh toys minus
that of the exact lognormal, its error that of the paired differences. The report of seed 1 stays as results/t2k_report.html.

    POFX_DATA=... python benchmarks/acceptance/02_t2k.py [--seeds 1]
"""

import shlex
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from common import RESULTS, ROOT, Row
from learning import gap, t2k_release, trained
from measuring import Sheet, environment, parser

import pofx
from pofx.data import Release
from pofx.simulators.densities import Lognormal

NAME = "02_t2k"
SEEDS = (1, 2, 3)
TOYS, FRESH = 100_000, 20_000
BAR = 0.3
REPORT = RESULTS / "t2k_report.html"
FLOW = shlex.split(
    "--model spline-flow --set layers=2 --set hidden=(128,128) --split 0.9,0.05,0.05 --epochs 12 --learning-rate 5e-4 "
    "--training ema=0.999 --training clip=5.0 --training weight_decay=0.1 --training warmup=0.1"
)
GAUSSIAN = ["--model", "gaussian"]
MODELS = {"spline-flow": (FLOW, SEEDS, BAR), "gaussian": (GAUSSIAN, (1,), None)}
"""What `pofx fit` is told, seeds, bar. The Gaussian is what mean and covariance alone amount to."""
QUICK = ["--steps", "3"]


def measured(release: Release, name: str, seed: int, quick: bool) -> Row:
    """Toys to a file, `pofx fit` with a report, and the comparison with the truth."""
    truth = Lognormal.from_moments(release.mean, release.covariance)
    report = REPORT if (name, seed, quick) == ("spline-flow", SEEDS[0], False) else None
    with tempfile.TemporaryDirectory() as folder:
        toys, model = Path(folder) / "toys.h5", Path(folder) / "toys.pofx"
        pofx.write(toys, truth.sample(2000 if quick else TOYS, 1000 + seed), columns=bins(release))
        html = report or Path(folder) / "report.html"
        words = [*MODELS[name][0], "--seed", str(seed), *(QUICK if quick and name == "spline-flow" else [])]
        row = command(["fit", str(toys), *words, "-o", str(model), "--report", str(html), "--force"])
        x = truth.sample(500 if quick else FRESH, 2000 + seed)
        fitted = pofx.load(model)
        found = {**gap(truth.log_prob(x), fitted, x), **row, **trained(fitted), "options": " ".join(words)}
        found["report_bytes"] = html.stat().st_size
    kept = {} if report is None else {"report": str(report.relative_to(ROOT))}
    bar = MODELS[name][2]
    return {**found, **kept, "passed": bar is None or found["value"] <= bar}


def bins(release: Release) -> list[str]:
    """numu_0 ... numu_57, numubar_0 ... numubar_57."""
    half = len(release.mean) // 2
    return [f"{flavour}_{i}" for flavour in ("numu", "numubar") for i in range(half)]


def command(words: list[str]) -> Row:
    """`pofx ...` in a process of its own; its time."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "pofx.cli", *words], check=True, env=environment())
    return {"minutes": round((time.monotonic() - begun) / 60, 3)}


def main() -> None:
    """One row per model and seed."""
    made = parser(__doc__)
    made.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS))
    options = made.parse_args()
    sheet, release, expected = Sheet(NAME, quick=options.quick), t2k_release(), []
    for name, (_, seeds, bar) in MODELS.items():
        for seed in seeds:
            expected.append(f"{name}, seed {seed}: gap to the exact lognormal, nats")
            if seed in options.seeds:
                sheet.measure(
                    expected[-1], partial(measured, release, name, seed, options.quick), seeds=[seed], bar=bar
                )
    sheet.finish(expected)


if __name__ == "__main__":
    main()
