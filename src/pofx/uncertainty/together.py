"""The training of several bodies in one loop: one evaluation of the loss for all of them, by ``vmap`` over their stacked weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from pofx.data.events import Events
from pofx.plain import plain_operations
from pofx.training.contract import Loss, LossFunction, Phase, Update
from pofx.training.noise import Noise, derive_seed, uniforms
from pofx.uncertainty.inside import multiplicities
from pofx.uncertainty.weights import swapped

__all__ = ["MemberNoise", "resampled", "separable", "together"]

Weighting = Callable[[Any, Tensor], Tensor]
"""From the whole body and event numbers to the weights ``(K, n)`` of the members' losses."""

REFUSALS = (RuntimeError, ValueError, TypeError)
"""What torch raises where an operation has no rule for a batch of weights; a fault of the loss itself comes again without ``vmap``."""

SLOW = "There is a performance drop"
"""How torch's warning begins where ``vmap`` would loop over an operation by itself: no gain, so that members are looped over as a whole."""


def separable(phase: Phase) -> bool:
    """Whether the phase is nothing but steps on losses of given events, so that several bodies can take them at the same time."""
    plain_updates = all(update.after is None and update.optimiser is None for update in phase.updates)
    return bool(phase.updates) and plain_updates and phase.estimate is None and phase.source is None


def together(phase: Phase, weighting: Weighting | None) -> Phase:
    """A phase of every body in ``whole.members``, as one of the whole: losses are means over the members.

    Parameters
    ----------
    phase : for which :func:`separable` holds.
    weighting : of the training losses; the validation loss has none.
    """
    monitor = phase.monitor or phase.updates[0].loss
    return replace(
        phase,
        name=f"members/{phase.name}",
        updates=tuple(_update(update, weighting) for update in phase.updates),
        monitor=_Together(monitor, None),
    )


def resampled(body: Any, index: Tensor) -> Tensor:
    """A bootstrap for every member: how often each event is in its data, ``(K, n)``."""
    keys = [derive_seed(int(body.seed), "bootstrap", f"members.{k}") for k in range(len(body.members))]
    return multiplicities(keys, index)


def _update(update: Update, weighting: Weighting | None) -> Update:
    return replace(
        update,
        loss=_Together(update.loss, weighting),
        parameters=tuple(f"members.*.{pattern}" for pattern in update.parameters),
    )


@dataclass(frozen=True)
class MemberNoise(Noise):
    """Noise of one of several members; inside ``vmap`` the member is a batched number, and the noise of all is made in one go."""

    member: int | Tensor = 0
    members: int = 1

    def _uniform(self, name: str, size: int) -> Tensor:
        if isinstance(self.member, int):
            return uniforms(self._key(name, self.member), self.index, size)
        keys = torch.tensor([self._key(name, k) for k in range(self.members)])
        return uniforms(keys, self.index, size).index_select(0, self.member[None]).squeeze(0)

    def _key(self, name: str, member: int) -> int:
        return derive_seed(self.seed, self.scope, name, self.step, member)


class _Together:
    """The mean of the members' losses; vmapped where the loss allows it, which the first evaluation finds out, and a loop elsewhere.

    ``vmapped``: what was found, in training and in evaluation mode.
    """

    def __init__(self, loss: LossFunction, weighting: Weighting | None) -> None:
        self.loss, self.weighting = loss, weighting
        self.vmapped: dict[bool, bool] = {}

    def __call__(self, body: Any, events: Events, noise: Noise) -> Loss:
        found = self.members(body, events, noise)
        terms = found.pop("")
        if self.weighting is not None:
            assert events.index is not None
            terms = terms * self.weighting(body, events.index).to(terms.dtype)
        extra = found.pop("+", None)
        return Loss(terms.mean(0), None if extra is None else extra.mean(0), {k: v.mean(0) for k, v in found.items()})

    def members(self, body: Any, events: Events, noise: Noise) -> dict[str, Tensor]:
        """What every member's loss gives, stacked: per event under "", the extra under "+", and logs."""
        if body.training not in self.vmapped:
            self.vmapped[body.training] = self._probe(body, events, noise)
        every = self._all_at_once if self.vmapped[body.training] else self._loop
        return every(body, events, noise)

    def _probe(self, body: Any, events: Events, noise: Noise) -> bool:
        """Whether ``vmap`` is possible: every operation has a rule, and no buffer is changed, which would be lost."""
        first = body.members[0]
        before = {name: (buffer, buffer.clone()) for name, buffer in first.named_buffers()}
        with torch.no_grad():
            self._one(first, events, noise, 0, 1)
        now = dict(first.named_buffers())
        moved = [name for name, (same, value) in before.items() if now[name] is not same or not _equal(same, value)]
        for name in moved:
            owner, _, last = name.rpartition(".")
            before[name][0].copy_(before[name][1])
            first.get_submodule(owner)._buffers[last] = before[name][0]
        if moved:
            return False
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", SLOW, UserWarning)
                self._all_at_once(body, events, noise)
        except (*REFUSALS, UserWarning):
            return False
        return True

    def _all_at_once(self, body: Any, events: Events, noise: Noise) -> dict[str, Tensor]:
        count, first = len(body.members), body.members[0]
        stacked = _stacked(body.members)

        def one(tensors: Mapping[str, Tensor], member: Tensor) -> dict[str, Tensor]:
            with swapped(first, tensors):
                return self._one(first, events, noise, member, count)

        numbers = torch.arange(count, device=next(iter(stacked.values())).device)
        with plain_operations():
            found: dict[str, Tensor] = vmap(one, randomness="different")(stacked, numbers)
        return found

    def _loop(self, body: Any, events: Events, noise: Noise) -> dict[str, Tensor]:
        count = len(body.members)
        parts = [self._one(member, events, noise, k, count) for k, member in enumerate(body.members)]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def _one(self, member: nn.Module, events: Events, noise: Noise, k: int | Tensor, count: int) -> dict[str, Tensor]:
        own = MemberNoise(noise.seed, noise.index, noise.step, noise.dtype, noise.scope, k, count)
        found = self.loss(member, events, own)
        extra = {} if found.extra is None else {"+": found.extra}
        return {"": found.per_event, **extra, **found.logs}


def _stacked(members: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers of all members, each with a leading axis."""
    parts = [{**dict(member.named_parameters()), **dict(member.named_buffers())} for member in members]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or (a.is_floating_point() and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
