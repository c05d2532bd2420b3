"""One small surrogate that several tests look at."""

from __future__ import annotations

import pytest

from pofx.models.flows import SplineFlow
from pofx.tasks.classifier_surrogate.surrogate import Surrogate, fit_tagged
from pofx.training.settings import Training
from pofx.uncertainty.variational import Variational

from .jets import toy_jets


@pytest.fixture(scope="session")
def small() -> Surrogate:
    """Trained for a moment: what it says is roughly right."""
    flow = SplineFlow(layers=1, hidden=(16,), bins=4, residual=False, gated=False, experts=0)
    family = Variational(flow, draws=6)
    training = Training(max_epochs=None, max_steps=250, learning_rate=2e-2, batch_size=256, seed=1, progress=False)
    return fit_tagged(toy_jets(3000, 1), family=family, training=training)
