"""pofx ("p of x") learns p(x), or p(x | c), from particle-physics data, and then uses it: to sample, to score, to compare, to infer.

Importing pofx is cheap: what needs torch is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pofx.data.spec import Column, Field
from pofx.errors import PofxError

if TYPE_CHECKING:
    from pofx.artefact import load
    from pofx.data import Dataset, read, write
    from pofx.metrics.c2st import c2st
    from pofx.models.chain import Chain
    from pofx.models.continuous_flow import ContinuousFlow
    from pofx.models.copula import GaussianCopula
    from pofx.models.flow_matching import FlowMatching
    from pofx.models.flows import AutoregressiveFlow, CouplingFlow, SplineFlow
    from pofx.models.gaussian import Gaussian
    from pofx.models.hybrid import HybridFlow
    from pofx.models.inverse_autoregressive import InverseAutoregressiveFlow
    from pofx.models.mixture import GaussianMixture
    from pofx.models.model import Model
    from pofx.models.selection import select
    from pofx.training.settings import Training

__version__ = "0.1.0"

_LAZY = {
    "AutoregressiveFlow": "pofx.models.flows",
    "Chain": "pofx.models.chain",
    "ContinuousFlow": "pofx.models.continuous_flow",
    "CouplingFlow": "pofx.models.flows",
    "Dataset": "pofx.data",
    "FlowMatching": "pofx.models.flow_matching",
    "Gaussian": "pofx.models.gaussian",
    "GaussianCopula": "pofx.models.copula",
    "GaussianMixture": "pofx.models.mixture",
    "HybridFlow": "pofx.models.hybrid",
    "InverseAutoregressiveFlow": "pofx.models.inverse_autoregressive",
    "Model": "pofx.models.model",
    "SplineFlow": "pofx.models.flows",
    "Training": "pofx.training.settings",
    "c2st": "pofx.metrics.c2st",
    "load": "pofx.artefact",
    "read": "pofx.data",
    "select": "pofx.models.selection",
    "write": "pofx.data",
}

__all__ = [
    "AutoregressiveFlow",
    "Chain",
    "Column",
    "ContinuousFlow",
    "CouplingFlow",
    "Dataset",
    "Field",
    "FlowMatching",
    "Gaussian",
    "GaussianCopula",
    "GaussianMixture",
    "HybridFlow",
    "InverseAutoregressiveFlow",
    "Model",
    "PofxError",
    "SplineFlow",
    "Training",
    "__version__",
    "c2st",
    "load",
    "read",
    "select",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pofx' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
