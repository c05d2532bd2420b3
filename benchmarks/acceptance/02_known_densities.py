"""Known densities, each also conditional, in 2, 8 and 32 dimensions: KL(truth || learnt) per dimension after 1e5 events.

One family learns them all, with one setting of the training but for the angles; where there is a closed
form, the classical family that matches is measured beside it. KL
is the mean of log p - log q over 5e4 fresh events, its error that of the paired differences. Seed 1 of the training, 11 of the events,
12 of the fresh ones. Columns are declared as the truth declares them (bounded, periodic).

    python benchmarks/acceptance/02_known_densities.py [--only 'beta*' '*, 2-D*']
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from functools import partial
from typing import NamedTuple

from common import Row
from knowns import FRESH_SEED, TRUTHS, Make, data_set, drawn
from learning import gap, timed_fit
from measuring import Sheet, parser

import pofx
from pofx.models.base import Family

NAME = "02_known_densities"
SEED = 1
EVENTS, FRESH = 100_000, 50_000
DIMENSIONS = (2, 8, 32)
BAR = 0.01
"""Nats per dimension."""
FAMILY = pofx.SplineFlow(layers=2, hidden=(128, 128))
TRAINING = pofx.Training(
    max_epochs=16,
    max_minutes=3.0,
    learning_rate=2e-3,
    warmup=0.1,
    weight_decay=0.1,
    ema=0.999,
    clip=5.0,
    seed=SEED,
    progress=False,
)
PERIODIC = TRAINING.replace(max_epochs=32, max_minutes=8.0)
"""Of the von Mises chains, which are learnt more slowly: 16 epochs leave 0.014 nats per dimension in 32-D with a context."""


class Known(NamedTuple):
    """A density of any dimension, and the classical family that it belongs to."""

    truth: Make
    classical: Family | None
    training: pofx.Training = TRAINING


KNOWN = {
    "gaussian": Known(TRUTHS["gaussian"], pofx.Gaussian()),
    "mixture": Known(TRUTHS["mixture"], pofx.GaussianMixture(components=3)),
    "lognormal": Known(TRUTHS["lognormal"], pofx.Gaussian(preprocess="standardise")),
    "beta": Known(TRUTHS["beta"], pofx.GaussianCopula()),
    "von-mises": Known(TRUTHS["von-mises"], None, PERIODIC),
}


def measured(known: Known, d: int, conditional: bool, family: Family, quick: bool) -> Row:
    """Train, and compare with the truth."""
    training = known.training.replace(max_steps=3) if quick else known.training
    data = data_set(known.truth, d, conditional, 2000 if quick else EVENTS)
    model, row = timed_fit(family, data, training)
    fresh = drawn(known.truth, d, conditional, 500 if quick else FRESH, FRESH_SEED)
    found = gap(fresh.log_prob, model, fresh.x, fresh.context)
    value, error = found["value"] / d, found["error"] / d
    return {**found, **row, "value": value, "error": error, "passed": value <= BAR, "family": repr(family)}


def planned() -> Iterator[tuple[str, Known, int, bool, Family]]:
    """Measure, density, dimension, conditional, family: the one family first, then the classical ones."""
    for classical in (False, True):
        for name, known in KNOWN.items():
            for conditional in (False, True):
                for d in DIMENSIONS:
                    family = known.classical if classical else FAMILY
                    word = ", conditional" if conditional else ""
                    if family is not None:
                        yield f"{name}, {d}-D{word}, {family.name}: KL per dimension", known, d, conditional, family


def main() -> None:
    """One row per density, dimension and family."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", default=["*"], help="patterns of rows, e.g. 'beta*' '*, 2-D*'")
    options = made.parse_args()
    sheet = Sheet(NAME, quick=options.quick)
    for measure, *what in planned():
        if any(fnmatch(measure, pattern) for pattern in options.only):
            sheet.measure(measure, partial(measured, *what, options.quick), seeds=[SEED], bar=BAR)
    sheet.finish(measure for measure, *_ in planned())


if __name__ == "__main__":
    main()
