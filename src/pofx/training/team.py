r"""Several processes that train one model together: data-parallel training by torch.distributed.

``torchrun --nproc-per-node 2 script.py`` starts the same script twice; every process makes the same data set and the same model, and
calls ``fit`` or ``train``. Each works through its share :math:`B_r` of every batch B, and the gradients are added,

.. math:: g = \sum_r \frac{|B_r|}{|B|} \, g_r, \qquad g_r = \text{gradient of the mean over } B_r

so that a step is that of one process up to the order of summation. Process 0 alone decides (plan, clock), and alone writes files.
Sources are asked for whole batches by every process: what is shared is the work of loss and gradient, and of validation.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.errors import ConfigError

__all__ = ["Processes", "Team", "find_team", "local_device"]

T = TypeVar("T")


class Team:
    """The processes that train together, of which this is number ``rank``; a team of one, as here, has nothing to agree on."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes files."""
        return self.rank == 0

    def share(self, events: Events) -> Events:
        """This process's part of a batch."""
        return events

    def total(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Add up the gradients, in place, and the losses of all processes."""
        return loss

    def agree(self, value: T) -> T:
        """What process 0 has."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether it is true anywhere."""
        return flag

    def gather(self, parts: list[T]) -> list[T]:
        """All parts, in order, of which process r made numbers r, r + size, r + 2 size, ..."""
        return parts

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Means over the processes."""
        return values

    def copy(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of process 0."""

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Add up the tensors of all processes, in place."""


class Processes(Team):
    """Those of torch's default process group; ``device`` is where tensors travel from."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, events: Events) -> Events:
        first, last = (len(events) * r // self.size for r in (self.rank, self.rank + 1))
        return events[first:last]

    def total(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([loss.detach().reshape(1), *(g.flatten() for g in gradients)])
        dist.all_reduce(flat)
        pieces = flat[1:].split([g.numel() for g in gradients])
        if gradients:
            torch._foreach_copy_(gradients, [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)])
        return flat[0]

    def agree(self, value: T) -> T:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool) -> bool:
        tensor = torch.tensor(float(flag), device=self._device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor)

    def gather(self, parts: list[T]) -> list[T]:
        boxes: list[Any] = [None] * self.size
        dist.all_gather_object(boxes, parts)
        return [boxes[k % self.size][k // self.size] for k in range(sum(map(len, boxes)))]

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        if not values:
            return values
        tensor = torch.tensor(list(values.values()), device=self._device)
        dist.all_reduce(tensor)
        return dict(zip(values, (tensor / self.size).tolist(), strict=True))

    def add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            total = tensor.detach().to(self._device)
            dist.all_reduce(total)
            tensor.copy_(total)

    def copy(self, tensors: Iterable[Tensor]) -> None:
        tensors = list(tensors)
        if not tensors:
            return
        raw = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in tensors]
        flat = torch.cat(raw).to(self._device)
        dist.broadcast(flat, src=0)
        with torch.no_grad():
            for tensor, piece in zip(tensors, flat.split([len(r) for r in raw]), strict=True):
                tensor.copy_(piece.clone().view(tensor.dtype).view_as(tensor))


def find_team(device: torch.device) -> Team:
    """All processes that torchrun started (or of a process group that was made before); otherwise a team of one.

    A process group that is made here lasts until the process ends.
    """
    if not _launched():
        return Team()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return Processes(device) if dist.get_world_size() > 1 else Team()


def _launched() -> bool:
    """Whether there is a process group, or torchrun waits for one."""
    return dist.is_available() and (dist.is_initialized() or dist.is_torchelastic_launched())


def local_device(device: torch.device) -> torch.device:
    """``cuda`` without a number is, under torchrun, the GPU of this process's number on its machine."""
    if str(device) != "cuda" or "LOCAL_RANK" not in os.environ or not _launched():
        return device
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        raise ConfigError(
            f"torchrun: expected at most one process per GPU; got process {number} where there are {there}"
        )
    return torch.device("cuda", number)
