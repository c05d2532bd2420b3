"""How sure a fitted model is: wrappers that turn any family into one with K draws of its weights.

>>> import numpy as np, pofx
>>> x = np.random.default_rng(1).normal(size=(400, 1))
>>> model = Ensemble(pofx.Gaussian(), members=10).fit(x)
>>> band = model.density_band(np.array([[0.0], [2.0]]))
>>> bool((band.relative < 0.5).all())
True
"""

from pofx.uncertainty.band import Band
from pofx.uncertainty.base import Posterior
from pofx.uncertainty.chains import SGHMC, AdamMCMC
from pofx.uncertainty.ensemble import Ensemble
from pofx.uncertainty.kernels import AdamKernel, Chain, HamiltonianKernel, run_chain
from pofx.uncertainty.laplace import Laplace
from pofx.uncertainty.model import BayesianModel
from pofx.uncertainty.swag import SWAG
from pofx.uncertainty.variational import Variational

__all__ = [
    "SGHMC",
    "SWAG",
    "AdamKernel",
    "AdamMCMC",
    "Band",
    "BayesianModel",
    "Chain",
    "Ensemble",
    "HamiltonianKernel",
    "Laplace",
    "Posterior",
    "Variational",
    "run_chain",
]
