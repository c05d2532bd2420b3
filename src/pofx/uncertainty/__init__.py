"""How sure a fitted model is: wrappers that turn any family into one with K draws of its weights.

>>> import numpy as np, pofx
>>> x = np.random.default_rng(1).normal(size=(400, 1))
>>> model = Ensemble(pofx.Gaussian(), members=10).fit(x)
>>> band = model.density(np.array([[0.0], [2.0]]))
>>> bool((band.relative < 0.5).all())
True
"""

from pofx.uncertainty.band import Band
from pofx.uncertainty.base import Posterior
from pofx.uncertainty.ensemble import Ensemble
from pofx.uncertainty.model import BayesianModel

__all__ = ["Band", "BayesianModel", "Ensemble", "Posterior"]
