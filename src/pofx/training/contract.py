"""What a family tells the one training loop: phases of updates, a source of events, and losses with one term per event.

A GAN is one phase with two updates; a VQ-VAE with its prior is two phases; MadNIS is a source that samples the current model; a
student's loss closes over its teacher; variational weights add ``extra`` to the loss; MCMC over weights is an update whose
optimiser is a sampler. The loop itself (:mod:`pofx.training.loop`) knows none of these words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from pofx.data.events import Events
from pofx.training.noise import Noise

__all__ = ["Loss", "LossFunction", "Phase", "Source", "Update"]


@dataclass(frozen=True)
class Loss:
    """A loss: ``per_event`` of shape ``(n,)``, which event weights multiply before the weighted mean, plus ``extra``, which they do not.

    ``extra`` is a scalar that is added as it is (a gradient penalty, a KL divergence of weights divided by the number of events).
    ``logs`` are scalars or ``(n,)`` tensors to be recorded under their names.
    """

    per_event: Tensor
    extra: Tensor | None = None
    logs: Mapping[str, Tensor] = field(default_factory=dict)


LossFunction = Callable[[nn.Module, Events, Noise], Loss]
"""``loss(body, events, noise)``: the family's network, a batch in latent coordinates, and the keyed noise of this step."""


@dataclass(frozen=True)
class Update:
    """One kind of parameter step within a phase.

    Attributes
    ----------
    name : unique within the phase; keys noise, logs and optimiser state.
    loss : see :data:`LossFunction`.
    parameters : glob patterns over ``body.named_parameters()`` ("*" is all); parameters that match nothing else stay untouched.
    every : act only on steps divisible by this number.
    repeat : this many times per step, each with a fresh batch (five critic steps per generator step); the first batch of a step is
        common to its updates. An epoch counts batches, so it has fewer steps then.
    optimiser : builds any ``torch.optim.Optimizer`` from the parameters, which are given as ``(name, parameter)`` pairs; it may be a
        sampler over weights whose ``step`` takes a closure. None means the optimiser and schedule of :class:`pofx.Training`. Clipping
        and averaging hold in any case: a sampler's phase has ``training={"clip": None, "ema": None}``.
    rate : learning rate as a multiple of that of :class:`pofx.Training`, where the optimiser is that of the settings.
    betas : decays of its two moments, where it is Adam or AdamW; None is torch's (0.9, 0.999).
    after : called with the body after each step (clipping of weights, moving codebooks, persistent chains).
    advice : what to change if this update diverges; the error says it.
    """

    name: str
    loss: LossFunction
    parameters: tuple[str, ...] = ("*",)
    every: int = 1
    repeat: int = 1
    optimiser: Callable[[list[tuple[str, nn.Parameter]]], Optimizer] | None = None
    rate: float = 1.0
    betas: tuple[float, float] | None = None
    after: Callable[[nn.Module], None] | None = None
    advice: str = ""


@dataclass(frozen=True)
class Phase:
    """A stretch of training; phases run one after the other on the same body.

    Attributes
    ----------
    name : unique within the family.
    updates : run in this order at every step; may be empty when ``estimate`` does all the work.
    estimate : closed forms and EM: called once with ``(body, source, training)`` before the updates; must be deterministic.
    planned : called with the body and the number of steps that its schedule is counted against, before the first step (and again with the
        same number where a run is resumed).
    monitor : validation loss for early stopping and best weights; None means the first update's loss.
        Without validation events (or with ``keep="last"``) the last weights (their EMA) are kept.
    keep : ``"best"`` (by the monitor) or ``"last"`` (adversarial losses are no measure of quality).
    source : replaces the source for this phase, given ``(body, source)`` (an integrand, latents of the phase before).
    training : changes to :class:`pofx.Training` for this phase, e.g. ``{"learning_rate": 1e-4}``.
    """

    name: str
    updates: tuple[Update, ...] = ()
    estimate: Callable[[nn.Module, Source, Any], None] | None = None
    planned: Callable[[nn.Module, int], None] | None = None
    monitor: LossFunction | None = None
    keep: str = "best"
    source: Callable[[nn.Module, Source], Source] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Where training events come from: arrays, a file in shuffled chunks, a teacher, or an integrand sampled from the current model.

    Every batch is a function of ``(seed, step)`` and of the state, so that a resumed run sees the same events. Weights of a finite set of
    events have mean one over the training events: the loop takes the mean of weight times loss over a batch, as it stands.

    A source may also have ``fingerprint()`` (JSON-able; a checkpoint of other data is refused), ``rebatched(batch_size)`` (another source
    over the same events, for phases with their own batch size), ``signed`` (whether weights may be negative) and ``place(function)``
    (send what is kept in memory to the device).
    """

    @property
    def size(self) -> int | None:
        """Number of distinct training events; None where events are made on the fly."""

    @property
    def steps_per_epoch(self) -> int:
        """How many batches the loop calls an epoch (validation happens between epochs)."""

    def next(self, module: nn.Module, step: int) -> Events:
        """The batch of global step ``step``: tensors in latent coordinates, with ``index`` and (where there is one) ``weight``."""

    def sweep(self) -> Iterator[Events]:
        """One pass over all training events in order (for estimators); raises CapabilityError where there is no such thing."""

    def validation(self) -> Iterator[Events]:
        """One pass over the validation events; empty where there are none."""

    def state_dict(self) -> dict[str, Any]:
        """Whatever ``next`` needs beyond ``(seed, step)``: tensors and JSON-able values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
