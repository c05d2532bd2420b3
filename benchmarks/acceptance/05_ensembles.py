"""Ensembles whose members train in one loop, beside one after the other: the ratio of CPU times, with one thread.

5000 events in four columns, all of which train, batches of 256, 100 steps; three repetitions of both in turn, with the error of the mean
ratio. There is no bar: small networks, whose time is that of calls, gain most, and losses that cannot be vmapped nothing.
"""

import time
from functools import partial

import numpy as np
import torch
from common import Row
from measuring import Sheet, mean, parser

import pofx
from pofx.models.base import Family
from pofx.networks import ResidualMLP

NAME = "05_ensembles"
FAMILIES: dict[str, Family] = {
    "spline flow, 1 layer of 16": pofx.SplineFlow(layers=1, hidden=(16,), bins=5),
    "spline flow, 3 layers of 64": pofx.SplineFlow(layers=3, hidden=(64, 64), bins=8),
    "mixture density network": pofx.MixtureDensityNetwork(components=8),
    "GAN": pofx.GAN(),
    "flow matching, width 64": pofx.FlowMatching(network=ResidualMLP(width=64, layers=2)),
}
MEMBERS = (5, 20)
REPETITIONS = 3


def seconds(family: Family, members: int, together: bool, steps: int, seed: int) -> float:
    """CPU time of a training."""
    rng = np.random.default_rng(1)
    c = rng.normal(size=(5000, 1))
    x = c + rng.normal(size=(5000, 4))
    data = pofx.Dataset.from_arrays(x, c).with_split((1.0, 0.0, 0.0))
    training = pofx.Training(max_epochs=None, max_steps=steps, batch_size=256, seed=seed, device="cpu", progress=False)
    ensemble = pofx.Ensemble(family, members=members, together=together)
    begun = time.process_time()
    ensemble.fit(data, training=training)
    return time.process_time() - begun


def measured(name: str, members: int, quick: bool) -> Row:
    """One after the other over together."""
    steps, ratios = 5 if quick else 100, []
    for seed in range(1, (1 if quick else REPETITIONS) + 1):
        apart, at_once = (seconds(FAMILIES[name], members, together, steps, seed) for together in (False, True))
        ratios.append(apart / at_once)
    found = mean(np.array(ratios))
    return {"value": found.value, "error": found.error, "passed": None, "seconds together": round(at_once, 2)}


def main() -> None:
    """One row per family and number of members."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    sheet, expected = Sheet(NAME, quick=options.quick, any_source=True), []
    seconds(FAMILIES["spline flow, 1 layer of 16"], 2, True, 1, 1)  # what comes with the first call of all
    for name in FAMILIES:
        for members in MEMBERS:
            expected.append(f"{name}, {members} members: one after the other / together")
            sheet.measure(expected[-1], partial(measured, name, members, options.quick), seeds=[1, 2, 3], bar=None)
    sheet.finish(expected)


if __name__ == "__main__":
    main()
