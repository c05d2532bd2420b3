"""What ``select`` chooses among when nothing else is said: families with their training, the simplest first.

The order is that of the rule: a candidate has to be better than a simpler one by more than its error. Few events get small, heavily
regularised flows; many get those that learn most from a hundred thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

from pofx.models.base import Family
from pofx.models.copula import GaussianCopula
from pofx.models.flow_matching import FlowMatching
from pofx.models.flows import AutoregressiveFlow, SplineFlow
from pofx.models.gaussian import Gaussian
from pofx.models.hybrid import HybridFlow
from pofx.models.mixture import GaussianMixture
from pofx.training.settings import Training

__all__ = ["FEW", "Candidate", "automatic", "is_plain_gaussian", "only_shrinkage_differs"]

FEW = 5000
"""Below so many events, candidates are those for few."""

QUIET = Training(progress=False)
SHORT = Training(max_epochs=60, patience=15, weight_decay=0.5, ema=0.99, progress=False)
LONG = Training(max_epochs=50, patience=20, learning_rate=2e-3, weight_decay=0.5, progress=False)


@dataclass(frozen=True)
class Candidate:
    """A family and how to train it."""

    family: Family
    training: Training = QUIET


def automatic(events: int) -> dict[str, Candidate]:
    """The candidates for so many training events, simplest first.

    >>> list(automatic(500))[:4]
    ['gaussian', 'gaussian-ledoit-wolf', 'gaussian-oas', 'gaussian-log']
    """
    few = events < FEW
    families: dict[str, Family] = {
        "gaussian": Gaussian(),
        "gaussian-ledoit-wolf": Gaussian(shrinkage="ledoit-wolf"),
        "gaussian-oas": Gaussian(shrinkage="oas"),
        "gaussian-log": Gaussian(preprocess="log"),
        "gaussian-log-oas": Gaussian(preprocess="log", shrinkage="oas"),
        "gaussian-copula": _copula(few),
        **{f"gaussian-mixture-{k}": _mixture(k, few) for k in range(2, 7)},
        "hybrid-flow": HybridFlow(hidden=(32, 32), dropout=0.2) if few else HybridFlow(hidden=(128, 128), dropout=0.1),
        "autoregressive-flow": AutoregressiveFlow(layers=2, hidden=(64, 64), dropout=0.2)
        if few
        else AutoregressiveFlow(layers=5, hidden=(256, 256), dropout=0.1),
        "spline-flow": SplineFlow(hidden=(64, 64), dropout=0.2) if few else SplineFlow(hidden=(256,) * 3, dropout=0.12),
        "flow-matching": FlowMatching(),
    }
    return {name: Candidate(family, SHORT if few else LONG) for name, family in families.items()}


def is_plain_gaussian(family: Family) -> bool:
    """A Gaussian in the user's own coordinates, with or without shrinkage: what others have to beat."""
    return isinstance(family, Gaussian) and family.preprocess == "affine"


def _copula(few: bool) -> GaussianCopula:
    """In logarithms, where they suit: the tails, which have no events, are then those of a log-normal."""
    if few:
        return GaussianCopula(shrinkage="oas", knots=6, preprocess="log")
    return GaussianCopula(preprocess="log")


def only_shrinkage_differs(first: Family, second: Family) -> bool:
    """Whether both are Gaussians in the same coordinates: neither is simpler."""
    gaussians = isinstance(first, Gaussian) and isinstance(second, Gaussian)
    return gaussians and first.preprocess == second.preprocess


def _mixture(components: int, few: bool) -> GaussianMixture:
    """With few events, components are kept away from collapsing, and more starting points cost little."""
    if few:
        return GaussianMixture(components=components, regularise=1e-3, restarts=8)
    return GaussianMixture(components=components)
