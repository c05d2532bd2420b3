"""Jets of the toy tagger."""

from __future__ import annotations

from pofx.simulators.task_toys.tagger import JET, Tagger
from pofx.tasks.classifier_surrogate.data import Tagged


def toy_jets(n: int, seed: int, toy: Tagger | None = None) -> Tagged:
    """n of them, labelled."""
    events = (toy or Tagger()).sample(n, seed)
    jets = events.context.x
    return Tagged.of(jets, events.x[:, 0], names=JET, label=jets[:, 3])
