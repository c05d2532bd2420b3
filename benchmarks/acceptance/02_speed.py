"""Flows against zuko, nflows and normflows: training step and sampling of `benchmarks/flows.py`, and log-densities equal to zuko's.

Seed 0 of torch for weights and data. A ratio is theirs over ours, of medians over interleaved rounds; its error is half the distance
between (their lower quartile over our upper one) and the opposite. Measure on a machine that does nothing else.
"""

import importlib
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from common import Row
from measuring import Sheet, parser

from pofx.bijections.splines import Bin, rational_quadratic

flows: Any = importlib.import_module("flows")  # measuring says where

NAME = "02_speed"
SEED = 0
ROUNDS, QUICK_ROUNDS = 15, 2
TRAINING = {"coupling-spline": 1.5, "autoregressive-affine": 1.0, "autoregressive-spline": 1.0}
"""How many times faster than the fastest rival a training step must be (coupling: the aim is 2)."""
SAMPLING = {"autoregressive-affine": 20.0, "autoregressive-spline": 10.0}
"""How many times faster than each of zuko and nflows sampling must be."""
POINTS, EQUAL = 1_000_000, 1e-8
Times = dict[str, dict[str, Any]]


def ratio(found: Times, what: str, rival: str, bar: float) -> Row:
    """How many times faster than the rival pofx is."""
    theirs, ours = found[rival][what], found["pofx"][what]
    low, high = theirs["low"] / ours["high"], theirs["high"] / ours["low"]
    value = theirs["median"] / ours["median"]
    row = {"value": value, "error": (high - low) / 2, "low": low, "high": high, "passed": value >= bar, "rival": rival}
    return {**row, "milliseconds": {"pofx": ours, rival: theirs}, "threads": torch.get_num_threads()}


def fastest(found: Times) -> str:
    """The rival with the shortest training step."""
    return min((name for name in found if name != "pofx"), key=lambda name: found[name]["step"]["median"])


def planned() -> Iterator[tuple[str, str, str, str | None, float]]:
    """Measure, case, what is timed, rival (None: the fastest), bar."""
    for case, bar in TRAINING.items():
        yield f"{case}: training step, times faster than the fastest", case, "step", None, bar
        for rival in ("zuko", "nflows") if case in SAMPLING else ():
            yield f"{case}: sampling, times faster than {rival}", case, "sample", rival, SAMPLING[case]


def equality(points: int) -> Row:
    """Largest difference from zuko's of what a log-density sums up: log-derivatives in float64, at equal knots and slopes."""
    torch.manual_seed(SEED)
    worst = {"log_density": 0.0, "value": 0.0}
    for scale in (1.0, 3.0):
        for n in (points // 20,) * 10:
            values, logs = _differences(n, scale)
            worst = {"log_density": max(worst["log_density"], logs), "value": max(worst["value"], values)}
    found = worst["log_density"]
    return {"value": found, "error": None, "passed": found <= EQUAL, "points": points, "worst_value": worst["value"]}


def _differences(n: int, scale: float, bins: int = 8, bound: float = 5.0) -> tuple[float, float]:
    import zuko

    raw = [scale * torch.randn(n, size, dtype=torch.float64) for size in (bins, bins, bins - 1)]
    other = zuko.transforms.MonotonicRQSTransform(*raw, bound=bound)
    x = bound * (1.0 - 1e-9) * (2.0 * torch.rand(n, dtype=torch.float64) - 1.0)
    index = (other.horizontal[:, 1:-1] <= x[:, None]).sum(1, keepdim=True)
    knots = (other.horizontal, other.vertical, other.derivatives)
    (h0, h1), (v0, v1), (d0, d1) = (tuple(part.gather(1, index + k).squeeze(1) for k in (0, 1)) for part in knots)
    y, log_slope = rational_quadratic(x, Bin(h0, h1 - h0, v0, v1 - v0, d0, d1))
    y_other, log_other = other.call_and_ladj(x)
    return float((y - y_other).abs().max()), float((log_slope - log_other).abs().max())


def main() -> None:
    """One timing per case, then the rows that are made of it."""
    options = parser(__doc__).parse_args()
    warnings.simplefilter("ignore")
    if options.quick:
        flows.DIMENSIONS, flows.BATCH, flows.SAMPLES, flows.WIDTHS = 4, 16, 10, (8, 8)
    sheet = Sheet(NAME, quick=options.quick)
    times: dict[str, Times] = {}

    def timed(case: str) -> Times:
        if case not in times:
            times[case] = flows.measure(case, QUICK_ROUNDS if options.quick else ROUNDS)
        return times[case]

    def compared(case: str, what: str, rival: str | None, bar: float) -> Row:
        return ratio(timed(case), what, rival or fastest(timed(case)), bar)

    for measure, case, what, rival, bar in planned():
        sheet.measure(measure, partial(compared, case, what, rival, bar), seeds=[SEED], bar=bar)
    last = "log-density of a spline: largest difference from zuko's"
    sheet.measure(last, lambda: equality(2000 if options.quick else POINTS), seeds=[SEED], bar=EQUAL)
    sheet.finish([*(plan[0] for plan in planned()), last])


if __name__ == "__main__":
    main()
