"""Tests of calibration on a conjugate normal model: uniform p-values of the right posterior, the right sign for wrong ones.

theta ~ N(0, 1) in two dimensions, x ~ N(theta, 1): the posterior is N(x/2, 1/2). Every repetition has new truths, data and draws.

- null: value is the p-value of Kolmogorov and Smirnov's test of the tests' p-values; bar 0.01 over the number of these rows. Events
  with weights too.
- band: the share of repetitions that stay inside the 95 % band everywhere; bar: within three binomial errors.
- over-confident (widths times 0.7), under-confident (times 1.4), shifted up or down (by half a width): value is the share of
  repetitions that are found (p < 0.01) *and* called by their name; bar 0.95. References of TARP follow the context there, three widths from
  the posterior on either side of it: those that lie anywhere see a shift in second order only (0.69 of the repetitions).
"""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from common import Row
from measuring import Sheet, parser
from scipy import stats

from pofx.metrics.calibration import PosteriorDraws, check_calibration, pit, quantile_calibration, tarp
from pofx.metrics.calibration_curves import CalibrationCurve

NAME = "05_calibration"
SIGMA = math.sqrt(0.5)
LEVELS = np.arange(1, 50) / 50
TOOLS = ("ranks", "PIT", "quantiles", "TARP", "HPD")
CASES: dict[str, tuple[float, float, dict[str, tuple[str, ...]]]] = {
    "over-confident": (0.7, 0.0, dict.fromkeys(TOOLS, ("over-confident",))),
    "under-confident": (1.4, 0.0, dict.fromkeys(TOOLS, ("under-confident",))),
    "shifted up": (1.0, 0.5, dict.fromkeys(TOOLS[:3], ("biased high",)) | dict.fromkeys(TOOLS[3:], ("biased",))),
    "shifted down": (1.0, -0.5, dict.fromkeys(TOOLS[:3], ("biased low",)) | dict.fromkeys(TOOLS[3:], ("biased",))),
}
NULL_REPETITIONS, REPETITIONS = 400, 100
NULL_EVENTS, EVENTS, DRAWS = 200, 1000, 99


def every(
    seed: int, events: int, *, width: float = 1.0, shift: float = 0.0, weighted: bool = False
) -> dict[str, CalibrationCurve]:
    """All tools on one experiment."""
    rng = np.random.default_rng((seed, events, round(100 * width), round(100 * shift) + 1000, int(weighted)))
    theta = rng.normal(size=(events, 2))
    centre = 0.5 * (theta + rng.normal(size=(events, 2))) + shift * SIGMA
    draws = centre[:, None] + width * SIGMA * rng.normal(size=(events, DRAWS, 2))
    logs = [-0.5 * (((v - c) / (width * SIGMA)) ** 2).sum(-1) for v, c in ((theta, centre), (draws, centre[:, None]))]
    weight = rng.exponential(size=events) if weighted else None
    posterior = PosteriorDraws(theta, draws, *logs, weight)
    found = {c.name: c for c in check_calibration(posterior, seed=seed)}
    if shift:
        sides = 3.0 * SIGMA * rng.choice([-1.0, 1.0], (events, 1))
        found["TARP"] = tarp(posterior, centre - shift * SIGMA + sides, seed=seed)
    pits = stats.norm.cdf(theta[:, 0], centre[:, 0], width * SIGMA)
    predicted = centre[:, :1] + width * SIGMA * stats.norm.ppf(LEVELS)
    return {
        "ranks": found["x1"],
        "PIT": pit(pits, weight=weight, seed=seed),
        "quantiles": quantile_calibration(theta[:, 0], predicted, LEVELS, weight=weight, seed=seed),
        "TARP": found["TARP"],
        "HPD": found["HPD"],
    }


@functools.cache
def experiments(case: str, repetitions: int, events: int) -> list[dict[str, CalibrationCurve]]:
    """All repetitions of a case, for the rows of all tools."""
    width, shift = CASES[case][:2] if case in CASES else (1.0, 0.0)
    return [every(s, events, width=width, shift=shift, weighted=case == "weighted") for s in range(repetitions)]


def null_row(case: str, tool: str, repetitions: int, bar: float) -> Row:
    """Uniformity of the p-values."""
    p = [each[tool].p_value for each in experiments(case, repetitions, NULL_EVENTS)]
    value = float(stats.kstest(p, "uniform").pvalue)
    return {"value": value, "error": None, "passed": value > bar, "below 0.05": float(np.mean(np.less(p, 0.05)))}


def band_row(tool: str, repetitions: int) -> Row:
    """Probability of the band."""
    bands = [each[tool].band for each in experiments("null", repetitions, NULL_EVENTS)]
    inside = float(np.mean([((b.low <= b.ecdf) & (b.ecdf <= b.high)).all() for b in bands]))
    error = math.sqrt(0.95 * 0.05 / repetitions)
    return {"value": inside, "error": error, "passed": abs(inside - 0.95) < 3 * error}


def sign_row(case: str, tool: str, repetitions: int) -> Row:
    """Found, and called by its name."""
    found = [each[tool] for each in experiments(case, repetitions, EVENTS)]
    words = CASES[case][2][tool]
    named = float(np.mean([all(word in each.diagnosis() for word in words) for each in found]))
    error = math.sqrt(max(named * (1 - named), 1 / repetitions) / repetitions)
    scores = {
        "mean score": float(np.mean([c.bias.value for c in found])),
        "width of scores": float(np.mean([c.width.value for c in found])),
    }
    return {"value": named, "error": error, "passed": named >= 0.95, **scores}


def rows(quick: bool) -> Iterator[tuple[str, Callable[[], Row], float, int]]:
    """Measure, how, bar, repetitions."""
    null, many = (20, 5) if quick else (NULL_REPETITIONS, REPETITIONS)
    bar = 0.01 / (2 * len(TOOLS))
    for case, repetitions in (("null", null), ("weighted", null // 4)):
        for tool in TOOLS:
            make = functools.partial(null_row, case, tool, repetitions, bar)
            yield f"{tool}, {case}: p-values uniform", make, bar, repetitions
    for tool in TOOLS:
        yield f"{tool}: inside the 95 % band", functools.partial(band_row, tool, null), 0.95, null
    for case in CASES:
        for tool in TOOLS:
            yield f"{tool}, {case}: found and named", functools.partial(sign_row, case, tool, many), 0.95, many


def main() -> None:
    """All rows; some minutes on one core."""
    options = parser(__doc__).parse_args()
    sheet = Sheet(NAME, quick=options.quick, any_source=True)
    plan = list(rows(options.quick))
    for measure, make, bar, repetitions in plan:
        sheet.measure(measure, make, seeds=range(repetitions), bar=bar)
    sheet.finish(measure for measure, *_ in plan)


if __name__ == "__main__":
    main()
