r"""Classifiers for weights: K of them, each trained without one fold of the events and calibrated on that fold.

Of member k the probability is :math:`D_k = C_k(\mathrm{logit}_k)`, with C an isotonic regression, or :math:`\sigma(\mathrm{logit} / T)`
with one temperature T (arXiv:1706.04599) that minimises the cross-entropy of the fold. The ensemble's ratio is

.. math:: w(x) = \frac{\sum_k D_k(x)}{\sum_k (1 - D_k(x))} ;

an event that took part in training has the ratio of the one member that has not seen it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_expit, logsumexp

from pofx.classifiers import Classifier, FittedClassifier
from pofx.classifiers.base import Floats, Labelled
from pofx.errors import DataError
from pofx.metrics.calibrated import Calibration, temperature
from pofx.training.noise import derive_seed

__all__ = ["CALIBRATIONS", "CrossFit", "Member", "cross_fit"]

CALIBRATIONS = ("isotonic", "temperature", "none")

Calibrated = Callable[[Floats], Floats]
"""Logits ``(n,)`` to calibrated logits ``(n,)``."""


@dataclass(frozen=True)
class Member:
    """One fitted classifier, and what makes calibrated logits of its own."""

    fitted: FittedClassifier
    calibrated: Calibrated
    temperature: float = 1.0

    def logit(self, x: Floats) -> Floats:
        """Calibrated log p(1|x) - log p(0|x), ``(n,)``."""
        return self.calibrated(self.fitted.logit(x))


@dataclass(frozen=True)
class CrossFit:
    """All members, and the calibrated logits ``(n,)`` of the events that they were trained on, each by who has not seen it."""

    members: tuple[Member, ...]
    unseen: Floats

    def logit(self, x: Floats) -> Floats:
        """Of the ensemble, ``(n,)``."""
        each = np.stack([member.logit(x) for member in self.members])
        return np.asarray(logsumexp(log_expit(each), axis=0) - logsumexp(log_expit(-each), axis=0))


def cross_fit(events: Labelled, classifier: Classifier, folds: int, calibration: str, seed: int) -> CrossFit:
    """Train ``folds`` classifiers; DataError if there are fewer than ten events of a label per fold."""
    fewest = min(int(events.label.sum()), int((~events.label).sum()))
    if fewest < 10 * folds:
        raise DataError(f"expected at least {10 * folds} events of each sample for {folds} folds; got {fewest}")
    fold = _fold_numbers(events.label, folds, seed)
    members, unseen = [], np.zeros(len(fold))
    for k in range(folds):
        member, held = _member(events, fold == k, classifier, calibration, derive_seed(seed, "member", k))
        members.append(member)
        unseen[fold == k] = held
    return CrossFit(tuple(members), unseen)


def _fold_numbers(label: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for every event, equal numbers of each label in each."""
    rng, found = np.random.default_rng(derive_seed(seed, "folds")), np.zeros(len(label), dtype=np.int64)
    for rows in (np.flatnonzero(label), np.flatnonzero(~label)):
        found[rng.permutation(rows)] = np.arange(len(rows)) % folds
    return found


def _member(
    events: Labelled, held: np.ndarray, classifier: Classifier, calibration: str, seed: int
) -> tuple[Member, Floats]:
    """One classifier, and the calibrated logits of the events held out."""
    train, rest = (Labelled(*(part[rows] for part in events)) for rows in (~held, held))
    fitted = classifier.fit(train.x, train.label, train.weight, seed=seed)
    scores = fitted.logit(rest.x)
    if calibration == "isotonic":
        chance = Calibration(scores, rest, seed)
        member = Member(fitted, lambda logit: _log_odds(chance(logit)))
    else:
        t = temperature(scores, rest) if calibration == "temperature" else 1.0
        member = Member(fitted, lambda logit: logit / t, t)
    return member, member.calibrated(scores)


def _log_odds(chance: Floats) -> Floats:
    return np.log(chance) - np.log1p(-chance)
