"""Families by name: a saved model and the command line find a family here, without this module importing any of them.

>>> "spline-flow" in family_names()
True
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from pofx.errors import ConfigError

__all__ = ["family_class", "family_names", "family_path", "register", "registered_modules"]

_FAMILIES: dict[str, str] = {
    "gaussian": "pofx.models.gaussian:Gaussian",
    "gaussian-mixture": "pofx.models.mixture:GaussianMixture",
    "gaussian-copula": "pofx.models.copula:GaussianCopula",
    "coupling-flow": "pofx.models.flows:CouplingFlow",
    "autoregressive-flow": "pofx.models.flows:AutoregressiveFlow",
    "spline-flow": "pofx.models.flows:SplineFlow",
    "chain": "pofx.models.chain:Chain",
    "continuous-flow": "pofx.models.continuous_flow:ContinuousFlow",
    "flow-matching": "pofx.models.flow_matching:FlowMatching",
    "inverse-autoregressive-flow": "pofx.models.inverse_autoregressive:InverseAutoregressiveFlow",
    "hybrid-flow": "pofx.models.hybrid:HybridFlow",
    "mixture-density-network": "pofx.models.mixture_density:MixtureDensityNetwork",
    "gan": "pofx.models.gan:GAN",
    "vae": "pofx.models.vae:VAE",
    "hierarchical-vae": "pofx.models.hierarchical_vae:HierarchicalVAE",
    "bib-ae": "pofx.models.bib_ae:BIBAE",
    "vq-vae": "pofx.models.vq_vae:VQVAE",
    "probabilistic-autoencoder": "pofx.models.probabilistic_autoencoder:ProbabilisticAutoencoder",
    "ddpm": "pofx.models.ddpm:DDPM",
    "score-sde": "pofx.models.score_sde:ScoreSDE",
    "edm": "pofx.models.edm:EDM",
    "consistency": "pofx.models.consistency:Consistency",
    "consistency-training": "pofx.models.consistency:ConsistencyTraining",
    "progressive-distillation": "pofx.models.progressive_distillation:ProgressiveDistillation",
    "mean-flow": "pofx.models.mean_flow:MeanFlow",
    "shortcut": "pofx.models.shortcut:Shortcut",
    "autoregressive-transformer": "pofx.models.autoregressive_transformer:AutoregressiveTransformer",
    "energy-based-model": "pofx.models.energy_based:EnergyBasedModel",
    "rbm": "pofx.models.rbm:RBM",
}

_WRAPPERS: dict[str, str] = {
    "ensemble": "pofx.uncertainty.ensemble:Ensemble",
    "variational": "pofx.uncertainty.variational:Variational",
    "adam-mcmc": "pofx.uncertainty.chains:AdamMCMC",
    "sghmc": "pofx.uncertainty.chains:SGHMC",
    "swag": "pofx.uncertainty.swag:SWAG",
    "laplace": "pofx.uncertainty.laplace:Laplace",
    "laser": "pofx.refine.laser:Laser",
}
"""Families around another family: found by name like all others, but none that could be used by its name alone."""


def register(name: str, path: str) -> None:
    """Add a family of your own: ``register("my-flow", "mypackage.flows:MyFlow")``; names are lower case with hyphens."""
    known = {**_FAMILIES, **_WRAPPERS}
    if name in known and known[name] != path:
        raise ConfigError(f"a family named {name!r} exists already: {known[name]}")
    if ":" not in path or name != name.lower():
        raise ConfigError(f"expected a lower-case name and 'module:Class'; got {name!r}, {path!r}")
    _FAMILIES[name] = path


def family_names() -> tuple[str, ...]:
    """All registered names of families that stand alone."""
    return tuple(_FAMILIES)


def family_path(name: str) -> str:
    """``module:Class`` of a registered name; ConfigError with the nearest names otherwise."""
    known = {**_FAMILIES, **_WRAPPERS}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"no family is called {name!r}{hint} (known: {', '.join(known)})")


def family_class(name: str) -> Any:
    """The family's class, imported now."""
    module, _, attribute = family_path(name).partition(":")
    return getattr(importlib.import_module(module), attribute)


def registered_modules() -> frozenset[str]:
    """Modules that registered families live in: the only ones outside pofx that a saved model may name."""
    return frozenset(path.partition(":")[0] for path in _FAMILIES.values())
