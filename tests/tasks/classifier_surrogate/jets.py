"""Jets of the toy tagger."""

from __future__ import annotations

from pofx.simulators.task_toys.tagger import JET, Tagger
from pofx.tasks.classifier_surrogate.data import Tagged


def toy_jets(n: int, seed: int, toy: Tagger | None = None) -> Tagged:
    """n of them, labelled."""
    events = (toy or Tagger()).sample(n, seed)
    jets = events.context.x
    return Tagged.of(jets, events.x[:, 0], names=JET, label=jets[:, 3])


class Truth:
    """The toy itself in the place of a surrogate."""

    def __init__(self) -> None:
        self.toy = Tagger()

    def sample(self, features, *, seed):
        import numpy as np

        return self.toy.scores(features, np.random.default_rng(seed))

    def cdf(self, features, scores):
        return self.toy.cdf(scores, features)

    def log_prob(self, features, scores):
        return self.toy.log_prob(scores, features)
