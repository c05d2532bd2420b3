"""`auto` against the Gaussian: with few universes it must not overfit, with a clear shape it must gain.

20 repetitions of 500 universes in 50 bins for a Gaussian, a mixture and a lognormal truth, and 5 of 5000 universes for the Gaussian one
(half a minute each); each density is judged on 5000 fresh toys, by its mean log-density minus that of the Gaussian with the sample
covariance, and minus that of the best-practice Gaussian (Ledoit-Wolf shrinkage). Every repetition has to stay above -0.05 nats per event.
Universes of repetition k have seed 3200 + k (plus 1000 per truth), fresh toys 4200 + k.

    python benchmarks/acceptance/03_auto.py [--truths gaussian mixture lognormal]
"""

import functools
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from common import Row
from measuring import Sheet, mean, parser

import pofx
from pofx.errors import RangeWarning
from pofx.models.selection import select
from pofx.simulators.densities import CorrelatedGaussian, Lognormal, MixtureBenchmark, Truth, correlation_matrix

NAME = "03_auto"
BINS = 50
BAR = -0.05


class Size(NamedTuple):
    """Universes, repetitions, fresh toys."""

    universes: int = 500
    repetitions: int = 20
    fresh: int = 5000


def gaussian() -> Truth:
    """Ten percent errors with the built-in correlation."""
    return CorrelatedGaussian(np.ones(BINS), 0.01 * correlation_matrix(BINS))


def lognormal() -> Truth:
    """Relative errors of 10 to 90 %, as in t2k_like."""
    i = np.arange(BINS)
    average = 5 * np.exp(-i / 14)
    error = 0.1 * 9.0 ** (i / (BINS - 1)) * average
    return Lognormal.from_moments(average, correlation_matrix(BINS) * error[:, None] * error)


TRUTHS: dict[str, Callable[[], Truth]] = {"gaussian": gaussian, "mixture": MixtureBenchmark, "lognormal": lognormal}
REFERENCES = {"sample covariance": pofx.Gaussian(), "Ledoit-Wolf": pofx.Gaussian(shrinkage="ledoit-wolf")}


class Outcome(NamedTuple):
    """One repetition: what was chosen, and its mean log-density above that of each reference."""

    chosen: str
    above: dict[str, float]


def repetition(name: str, k: int, size: Size) -> Outcome:
    """Choose, and judge on fresh toys."""
    warnings.simplefilter("ignore", RangeWarning)  # toys from far tails
    truth, shift = TRUTHS[name](), 1000 * list(TRUTHS).index(name)
    x, fresh = truth.sample(size.universes, 3200 + shift + k), truth.sample(size.fresh, 4200 + shift + k)
    data = pofx.Dataset.from_arrays(x).with_split((1.0, 0.0, 0.0))
    found = select(data, seed=k, minutes=None if size.universes < 5000 else 0.5)
    logp = found.model.log_prob(fresh).mean()
    above = {label: float(logp - family.fit(data).log_prob(fresh).mean()) for label, family in REFERENCES.items()}
    return Outcome(found.chosen, above)


@functools.cache
def outcomes(name: str, size: Size) -> list[Outcome]:
    """All repetitions."""
    return [repetition(name, k, size) for k in range(size.repetitions)]


def compared(name: str, size: Size, reference: str) -> Row:
    """The smallest difference; the mean beside it."""
    found = outcomes(name, size)
    values = np.array([outcome.above[reference] for outcome in found])
    average = mean(values)
    return {
        "value": float(values.min()),
        "error": None,
        "passed": bool(values.min() >= BAR),
        "mean": list(average),
        "chosen": dict(Counter(outcome.chosen for outcome in found)),
    }


def main() -> None:
    """Two rows per truth and size."""
    made = parser(__doc__)
    made.add_argument("--truths", nargs="+", choices=list(TRUTHS), default=list(TRUTHS))
    options = made.parse_args()
    small = Size(120, 2, 500) if options.quick else Size()
    wanted: list[tuple[str, Size]] = [(name, small) for name in TRUTHS]
    if not options.quick:
        wanted.append(("gaussian", Size(5000, 5)))
    sheet, expected = Sheet(NAME, quick=options.quick), []
    for name, size in wanted:
        for reference in REFERENCES:
            measure = f"{name}, {size.universes} universes: smallest gain over the Gaussian ({reference}), nats"
            expected.append(measure)
            if name in options.truths:
                make: Any = functools.partial(compared, name, size, reference)
                sheet.measure(measure, make, seeds=[3200], bar=BAR)
    sheet.finish(expected)


if __name__ == "__main__":
    main()
