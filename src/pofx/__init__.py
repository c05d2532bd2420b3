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
    from pofx.metrics.amplification import amplification
    from pofx.metrics.c2st import c2st
    from pofx.metrics.calibration import check_calibration
    from pofx.metrics.compare import compare
    from pofx.models.autoregressive_transformer import AutoregressiveTransformer
    from pofx.models.bib_ae import BIBAE
    from pofx.models.chain import Chain
    from pofx.models.consistency import Consistency, ConsistencyTraining
    from pofx.models.continuous_flow import ContinuousFlow
    from pofx.models.copula import GaussianCopula
    from pofx.models.ddpm import DDPM
    from pofx.models.edm import EDM
    from pofx.models.energy_based import EnergyBasedModel
    from pofx.models.flow_matching import FlowMatching
    from pofx.models.flows import AutoregressiveFlow, CouplingFlow, SplineFlow
    from pofx.models.gan import GAN
    from pofx.models.gaussian import Gaussian
    from pofx.models.hierarchical_vae import HierarchicalVAE
    from pofx.models.hybrid import HybridFlow
    from pofx.models.inpainting import inpaint
    from pofx.models.inverse_autoregressive import InverseAutoregressiveFlow
    from pofx.models.mean_flow import MeanFlow
    from pofx.models.mixture import GaussianMixture
    from pofx.models.mixture_density import MixtureDensityNetwork
    from pofx.models.model import Model
    from pofx.models.probabilistic_autoencoder import ProbabilisticAutoencoder
    from pofx.models.progressive_distillation import ProgressiveDistillation
    from pofx.models.rbm import RBM
    from pofx.models.score_sde import ScoreSDE
    from pofx.models.selection import select
    from pofx.models.shortcut import Shortcut
    from pofx.models.vae import VAE
    from pofx.models.vq_vae import VQVAE
    from pofx.refine.laser import Laser
    from pofx.refine.reweighting import Reweighting, reweight
    from pofx.training.settings import Training
    from pofx.uncertainty.chains import SGHMC, AdamMCMC
    from pofx.uncertainty.ensemble import Ensemble
    from pofx.uncertainty.laplace import Laplace
    from pofx.uncertainty.swag import SWAG
    from pofx.uncertainty.variational import Variational

__version__ = "0.1.0"

_LAZY = {
    "AdamMCMC": "pofx.uncertainty.chains",
    "AutoregressiveFlow": "pofx.models.flows",
    "AutoregressiveTransformer": "pofx.models.autoregressive_transformer",
    "BIBAE": "pofx.models.bib_ae",
    "Chain": "pofx.models.chain",
    "Consistency": "pofx.models.consistency",
    "ConsistencyTraining": "pofx.models.consistency",
    "ContinuousFlow": "pofx.models.continuous_flow",
    "CouplingFlow": "pofx.models.flows",
    "DDPM": "pofx.models.ddpm",
    "Dataset": "pofx.data",
    "EDM": "pofx.models.edm",
    "EnergyBasedModel": "pofx.models.energy_based",
    "Ensemble": "pofx.uncertainty.ensemble",
    "FlowMatching": "pofx.models.flow_matching",
    "GAN": "pofx.models.gan",
    "Gaussian": "pofx.models.gaussian",
    "GaussianCopula": "pofx.models.copula",
    "GaussianMixture": "pofx.models.mixture",
    "HierarchicalVAE": "pofx.models.hierarchical_vae",
    "HybridFlow": "pofx.models.hybrid",
    "InverseAutoregressiveFlow": "pofx.models.inverse_autoregressive",
    "Laplace": "pofx.uncertainty.laplace",
    "Laser": "pofx.refine.laser",
    "MeanFlow": "pofx.models.mean_flow",
    "MixtureDensityNetwork": "pofx.models.mixture_density",
    "Model": "pofx.models.model",
    "ProbabilisticAutoencoder": "pofx.models.probabilistic_autoencoder",
    "ProgressiveDistillation": "pofx.models.progressive_distillation",
    "RBM": "pofx.models.rbm",
    "Reweighting": "pofx.refine.reweighting",
    "SGHMC": "pofx.uncertainty.chains",
    "SWAG": "pofx.uncertainty.swag",
    "ScoreSDE": "pofx.models.score_sde",
    "Shortcut": "pofx.models.shortcut",
    "SplineFlow": "pofx.models.flows",
    "Training": "pofx.training.settings",
    "VAE": "pofx.models.vae",
    "VQVAE": "pofx.models.vq_vae",
    "Variational": "pofx.uncertainty.variational",
    "amplification": "pofx.metrics.amplification",
    "c2st": "pofx.metrics.c2st",
    "check_calibration": "pofx.metrics.calibration",
    "compare": "pofx.metrics.compare",
    "inpaint": "pofx.models.inpainting",
    "load": "pofx.artefact",
    "read": "pofx.data",
    "reweight": "pofx.refine.reweighting",
    "select": "pofx.models.selection",
    "write": "pofx.data",
}

__all__ = [
    "BIBAE",
    "DDPM",
    "EDM",
    "GAN",
    "RBM",
    "SGHMC",
    "SWAG",
    "VAE",
    "VQVAE",
    "AdamMCMC",
    "AutoregressiveFlow",
    "AutoregressiveTransformer",
    "Chain",
    "Column",
    "Consistency",
    "ConsistencyTraining",
    "ContinuousFlow",
    "CouplingFlow",
    "Dataset",
    "EnergyBasedModel",
    "Ensemble",
    "Field",
    "FlowMatching",
    "Gaussian",
    "GaussianCopula",
    "GaussianMixture",
    "HierarchicalVAE",
    "HybridFlow",
    "InverseAutoregressiveFlow",
    "Laplace",
    "Laser",
    "MeanFlow",
    "MixtureDensityNetwork",
    "Model",
    "PofxError",
    "ProbabilisticAutoencoder",
    "ProgressiveDistillation",
    "Reweighting",
    "ScoreSDE",
    "Shortcut",
    "SplineFlow",
    "Training",
    "Variational",
    "__version__",
    "amplification",
    "c2st",
    "check_calibration",
    "compare",
    "inpaint",
    "load",
    "read",
    "reweight",
    "select",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pofx' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
