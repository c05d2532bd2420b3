r"""A fully connected network that tells two samples apart, trained by cross-entropy in the one training loop.

.. math:: L = E\left[ w \log\left(1 + e^{-y f(x)}\right) \right], \qquad y = \pm 1 \text{ for label 1 and 0},

whose minimum is the logit f = log p(1|x) - log p(0|x). Inputs are shifted and scaled by mean and standard deviation of the training
events; the weights with the best loss on a share of the events are kept. Training is in single precision, scores are in double, so that
events of nearly equal scores stay in order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.functional import softplus

from pofx.classifiers.base import Floats, Labelled, as_rows, centre_scale, labelled
from pofx.classifiers.signed import held_out, labelled_source, positive_weights
from pofx.config import check_at_least, check_between, check_choice, check_widths
from pofx.data.events import Events
from pofx.networks.layers import Waves
from pofx.networks.masked import ACTIVATIONS
from pofx.training.contract import Loss, Phase, Update
from pofx.training.loop import train
from pofx.training.noise import Noise, derive_seed
from pofx.training.settings import Training

__all__ = ["FittedNetwork", "NetworkClassifier", "TrainedClassifier"]

CHUNK = 1024
"""Events that the network scores at once, the last chunk padded: a score does not depend on what is scored beside it."""


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier(ABC):
    """What classifiers in the one training loop share; subclasses give the network and the scale of its inputs.

    Parameters
    ----------
    epochs : largest number of passes over the training events.
    learning_rate : its peak.
    weight_decay : of the weight matrices.
    batch_size : events per step, or ``"auto"`` by their number.
    patience : epochs without a better validation loss before training ends; None never ends early.
    validation : share of the events, by label, whose loss decides which weights are kept.
    device : see :class:`pofx.Training`.
    """

    epochs: int = 30
    learning_rate: float = 5e-3
    weight_decay: float = 1.0
    batch_size: int | Literal["auto"] = "auto"
    patience: int | None = None
    validation: float = 0.1
    device: str = "auto"
    name: ClassVar[str] = "network"

    def __post_init__(self) -> None:
        check_between(self, 0.01, 0.9, "validation")
        self._training(0)  # which checks the other settings

    def fit(self, x: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, seed: int) -> FittedNetwork:
        """See :class:`~pofx.classifiers.base.Classifier`. Negative weights are replaced by their conditional mean first."""
        events = positive_weights(labelled(x, label, weight), seed)
        centre, scale = self.centre_scale(events)
        events = events._replace(x=(events.x - centre) / scale)
        hold = held_out(events, self.validation, derive_seed(seed, "validation"))
        source = labelled_source(events, hold, batch_size=self.batch_size, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "classifier"))
            body = self.body(events.x.shape[1])
        train(body, [Phase("classifier", (Update("cross-entropy", _loss),))], source, self._training(seed))
        return FittedNetwork(body.double().eval(), centre, scale)

    @abstractmethod
    def body(self, inputs: int) -> nn.Module:
        """The network, from scaled rows ``(n, inputs)`` to ``(n,)``."""

    def centre_scale(self, events: Labelled) -> tuple[Floats, Floats]:
        """What rows are shifted and scaled by."""
        return centre_scale(events.x, events.weight)

    def _training(self, seed: int) -> Training:
        return Training(
            max_epochs=self.epochs, learning_rate=self.learning_rate, weight_decay=self.weight_decay, seed=seed,
            batch_size=self.batch_size, patience=self.patience, device=self.device, progress=False,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NetworkClassifier(TrainedClassifier):
    r"""A multilayer perceptron.

    The defaults are chosen such that training leaves the plateau where it begins if the samples have equal mean and covariance: a high
    learning rate, rectifiers that start small, strong weight decay against the noise of many columns, and no early end. Lower
    ``weight_decay`` to 0.1 for fine structure in a few columns, and many events. Sharp edges and fine ridges in a few columns take
    ``frequencies``: without them, rectifiers are blind to a chessboard whose squares are blurred by an eighth of their size. Other
    settings than those below are those of :class:`TrainedClassifier`.

    Parameters
    ----------
    hidden : widths.
    frequencies : how many waves of random directions, :math:`\cos(k z)` and :math:`\sin(k z)`, are inputs beside the standardised
        columns z, with k normal of width :math:`3 \sqrt{2 / d}` (arXiv:2006.10739); for a few columns.
    dropout : share of hidden units that are left out at a step.
    activation : a name out of :data:`pofx.networks.masked.ACTIVATIONS`.

    >>> x = np.random.default_rng(1).normal(size=(400, 2)) + np.repeat([[0.0], [3.0]], 200, axis=0)
    >>> fitted = NetworkClassifier(hidden=(16,), epochs=10).fit(x, np.repeat([0, 1], 200), seed=1)
    >>> bool(fitted.logit([[0.0, 0.0]]) < 0 < fitted.logit([[3.0, 3.0]]))
    True
    """

    hidden: tuple[int, ...] = (128, 128)
    frequencies: int = 0
    dropout: float = 0.1
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_widths(self, "hidden")
        check_at_least(self, 0, "frequencies")
        check_between(self, 0, 0.99, "dropout")
        check_choice(self, "activation", tuple(ACTIVATIONS))
        super().__post_init__()

    def body(self, inputs: int) -> nn.Module:
        waves = self.frequencies
        perceptron = Perceptron(inputs + 2 * waves, self.hidden, self.activation, self.dropout)
        if not waves:
            return perceptron
        return nn.Sequential(Waves(inputs, waves, scale=3.0 * math.sqrt(2.0 / inputs)), perceptron)


class Perceptron(nn.Module):
    """One number per event, ``(n,)``, of standardised columns ``(n, inputs)``; hidden units drop out in training."""

    def __init__(self, inputs: int, hidden: Sequence[int], activation: str, dropout: float) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(widths, hidden, strict=False)])
        self.last = nn.Linear(widths[-1], 1)
        self.activation, self.dropout = ACTIVATIONS[activation], nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.dropout(self.activation(layer(x)))
        return self.last(x).squeeze(1)


def _loss(body: Any, events: Events, _noise: Noise) -> Loss:
    logit, label = body(events.fields["x"]), events.fields["label"].squeeze(1)
    return Loss(softplus(torch.where(label > 0.5, -logit, logit)))


@dataclass(frozen=True)
class FittedNetwork:
    """A trained network with the centre and the scale, ``(d,)`` each, of its inputs."""

    body: nn.Module
    centre: Floats
    scale: Floats

    @torch.no_grad()
    def logit(self, x: ArrayLike) -> Floats:
        """log p(1|x) - log p(0|x), ``(n,)``."""
        rows = (as_rows(x, "x", len(self.centre)) - self.centre) / self.scale
        padded = torch.zeros(-(-len(rows) // CHUNK) * CHUNK, rows.shape[1], dtype=torch.float64)
        padded[: len(rows)] = torch.from_numpy(rows)
        found = [self.body(piece) for piece in padded.split(CHUNK) if len(piece)]
        return torch.cat(found).numpy()[: len(rows)] if found else np.zeros(0)
