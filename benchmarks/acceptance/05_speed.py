"""Every two-sample statistic on 10^5 events per side in 50 columns: under two minutes. The events that entered are in the row."""

import time
from functools import partial

import numpy as np
from common import Row
from measuring import Sheet, parser

from pofx.metrics.compare import STATISTICS
from pofx.metrics.samples import Side
from pofx.metrics.two_sample import Plan, Statistic

NAME = "05_speed"
BAR = 120.0


def measured(statistic: Statistic, events: int) -> Row:
    """Seconds of one comparison."""
    rng = np.random.default_rng(1)
    a, b = (Side(rng.normal(size=(events, 50)), np.ones(events)) for _ in range(2))
    begun = time.monotonic()
    found = statistic.measure(a, b, Plan())[0]
    seconds = time.monotonic() - begun
    return {"value": seconds, "error": None, "passed": seconds < BAR, "events": list(found.events)}


def main() -> None:
    """One row per statistic."""
    options = parser(__doc__).parse_args()
    sheet, expected = Sheet(NAME, quick=options.quick), []
    for name, kind in STATISTICS.items():
        expected.append(f"{name}: seconds")
        make = partial(measured, kind(), 500 if options.quick else 100_000)
        sheet.measure(expected[-1], make, seeds=[1], bar=BAR)
    sheet.finish(expected)


if __name__ == "__main__":
    main()
