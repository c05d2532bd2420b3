"""Flows side by side in one run: training step and sampling, pofx against zuko, nflows and normflows.

The same conditioner shapes, bins, batch and columns for all; eager mode; warm-up excluded; rounds of the libraries are interleaved, so
that a disturbance of the machine hits all alike. Prints a table and writes JSON with the median, its quartiles and the ratios.

    python benchmarks/flows.py [--rounds 15] [--out benchmarks/results/flows.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

DIMENSIONS, BATCH, SAMPLES, BINS, WIDTHS = 50, 512, 2000, 8, (256, 256)
CASES = {"coupling-spline": 8, "autoregressive-spline": 3, "autoregressive-affine": 5}
"""Case to number of layers."""


class Rival:
    """One library's flow: its modules, its negative log-likelihood, and its sampler."""

    def __init__(
        self, module: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], sample: Callable[[], Any]
    ) -> None:
        self.module, self.loss, self.draw = module, loss, sample
        self.optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def step(self, x: torch.Tensor) -> None:
        """One training step: forward, backward, AdamW."""
        self.optimiser.zero_grad()
        self.loss(x).backward()
        self.optimiser.step()

    def sample(self) -> None:
        """SAMPLES events, no gradients."""
        with torch.no_grad():
            self.draw()


def pofx_rival(case: str, layers: int) -> Rival:
    """Our own flow of the same shape."""
    from pofx.data.events import Events
    from pofx.data.spec import vector_spec
    from pofx.models.base import Layout
    from pofx.models.flows import AutoregressiveFlow, CouplingFlow

    kind = CouplingFlow if case.startswith("coupling") else AutoregressiveFlow
    element = "spline" if case.endswith("spline") else "affine"
    family = kind(layers=layers, hidden=WIDTHS, element=element, bins=BINS, activation="relu")
    body = family.build(Layout(vector_spec(DIMENSIONS)))
    z = torch.randn(SAMPLES, DIMENSIONS)
    return Rival(
        body, lambda x: -family.log_density(body, Events({"x": x})).mean(), lambda: family.decode(body, {"z": z}, None)
    )


def zuko_rival(case: str, layers: int) -> Rival:
    """zuko's NSF or MAF (coupling: ``passes=2``)."""
    import zuko

    passes = 2 if case.startswith("coupling") else None
    if case.endswith("spline"):
        flow: Any = zuko.flows.NSF(DIMENSIONS, bins=BINS, transforms=layers, hidden_features=WIDTHS, passes=passes)
    else:
        flow = zuko.flows.MAF(DIMENSIONS, transforms=layers, hidden_features=WIDTHS, passes=passes)
    return Rival(flow, lambda x: -flow().log_prob(x).mean(), lambda: flow().sample((SAMPLES,)))


def nflows_rival(case: str, layers: int) -> Rival:
    """nflows with its masked transforms, or its spline coupling with a plain network of the same widths."""
    from nflows import distributions, flows, transforms
    from torch.nn import functional as F

    class Plain(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            a, b = WIDTHS
            self.net = nn.Sequential(nn.Linear(inputs, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, outputs))
            self.hidden_features = a

        def forward(self, x: torch.Tensor, context: Any = None) -> torch.Tensor:
            return self.net(x)

    masked: dict[str, Any] = {
        "features": DIMENSIONS,
        "hidden_features": WIDTHS[0],
        "num_blocks": len(WIDTHS) - 1,
        "use_residual_blocks": False,
        "activation": F.relu,
    }
    spline: dict[str, Any] = {"num_bins": BINS, "tails": "linear", "tail_bound": 5.0}
    chain: list[Any] = []
    for k in range(layers):
        chain.append(transforms.ReversePermutation(DIMENSIONS))
        if case == "autoregressive-affine":
            chain.append(transforms.MaskedAffineAutoregressiveTransform(**masked))
        elif case == "autoregressive-spline":
            chain.append(transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**masked, **spline))
        else:
            mask = torch.arange(DIMENSIONS) % 2 if k % 2 else 1 - torch.arange(DIMENSIONS) % 2
            chain.append(transforms.PiecewiseRationalQuadraticCouplingTransform(mask, Plain, **spline))
    flow = flows.Flow(transforms.CompositeTransform(chain), distributions.StandardNormal([DIMENSIONS]))
    return Rival(flow, lambda x: -flow.log_prob(x).mean(), lambda: flow.sample(SAMPLES))


def normflows_rival(case: str, layers: int) -> Rival | None:
    """normflows' spline coupling and spline autoregressive layers (with its own residual blocks); it has no affine case of this shape."""
    import normflows as nf

    if case == "autoregressive-affine":
        return None
    kind = (
        nf.flows.CoupledRationalQuadraticSpline
        if case.startswith("coupling")
        else nf.flows.AutoregressiveRationalQuadraticSpline
    )
    parts = [kind(DIMENSIONS, 1, WIDTHS[0], num_bins=BINS, tail_bound=5.0) for _ in range(layers)]
    flow = nf.NormalizingFlow(nf.distributions.base.DiagGaussian(DIMENSIONS, trainable=False), parts)
    return Rival(flow, lambda x: -flow.log_prob(x).mean(), lambda: flow.sample(SAMPLES))


BUILDERS: dict[str, Callable[[str, int], Rival | None]] = {
    "pofx": pofx_rival,
    "zuko": zuko_rival,
    "nflows": nflows_rival,
    "normflows": normflows_rival,
}


def measure(case: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds per training step and per SAMPLES events, for every library."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, DIMENSIONS)
    built = {name: builder(case, CASES[case]) for name, builder in BUILDERS.items()}
    rivals = {name: rival for name, rival in built.items() if rival is not None}
    for rival in rivals.values():
        for _ in range(3):
            rival.step(x)
        rival.sample()
    times: dict[str, dict[str, list[float]]] = {name: {"step": [], "sample": []} for name in rivals}
    for round_number in range(rounds):
        for name, rival in rivals.items():
            times[name]["step"] += [_timed(lambda rival=rival: rival.step(x)) for _ in range(3)]
            if round_number < max(3, rounds // 3):
                times[name]["sample"].append(_timed(rival.sample))
    return {
        name: {
            "parameters": sum(p.numel() for p in rivals[name].module.parameters()),
            **{k: _quartiles(v) for k, v in both.items()},
        }
        for name, both in times.items()
    }


def _timed(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times faster pofx is than the fastest rival (training) and than each rival (sampling)."""
    rivals = {name: row for name, row in found.items() if name != "pofx"}
    out = {
        "training_vs_fastest": min(row["step"]["median"] for row in rivals.values()) / found["pofx"]["step"]["median"]
    }
    out |= {
        f"sampling_vs_{name}": row["sample"]["median"] / found["pofx"]["sample"]["median"]
        for name, row in rivals.items()
    }
    return out


def main() -> dict[str, Any]:
    """Run all cases, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/flows.json"))
    parser.add_argument("--case", choices=list(CASES), action="append")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "cases": {}}
    print(f"{'case':24}{'library':11}{'parameters':>11}{'step ms':>10}{'sample ms':>11}")
    for case in options.case or CASES:
        found = measure(case, options.rounds)
        result["cases"][case] = {"libraries": found, "ratios": ratios(found)}
        for name, row in found.items():
            print(
                f"{case:24}{name:11}{row['parameters']:11d}{row['step']['median']:10.1f}{row['sample']['median']:11.1f}"
            )
        print("  " + ", ".join(f"{k} {v:.2f}" for k, v in result["cases"][case]["ratios"].items()), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
