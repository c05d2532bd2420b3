"""Where and in which precision training computes: the device, the number type, mixed precision, and everything random outside of pofx.

This is the one place that knows of several devices: :class:`Placement` puts the module and the events where they belong, runs the
backward pass, and has the :class:`~pofx.training.team.Team` of processes that share the work, each with a device of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pofx.data.events import Events
from pofx.errors import ConfigError
from pofx.training.contract import Source
from pofx.training.settings import Training
from pofx.training.team import find_team, local_device

__all__ = ["Placed", "Placement", "isolated_randomness", "mixed_precision", "seed_torch"]

_HEAVY = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Bilinear,
)


class Placement:
    """One device and one number type; ``team``: the processes that do the same beside this one."""

    def __init__(self, training: Training) -> None:
        self.device = _device(training.device)
        self.dtype = torch.float64 if training.precision == "float64" else torch.float32
        self.mixed = training.precision == "bf16"
        if self.device.type == "mps" and self.dtype == torch.float64:
            raise ConfigError("Training.precision: 'float64' does not exist on the device 'mps'; use the device 'cpu'")
        self.team = find_team(self.device)

    @property
    def asynchronous(self) -> bool:
        """Whether asking the device for a number makes the host wait."""
        return self.device.type != "cpu"

    def module(self, module: nn.Module) -> nn.Module:
        """The module, moved in place, with the weights that process 0 of the team has."""
        module.to(device=self.device, dtype=self.dtype)
        self.team.copy([*module.parameters(), *module.buffers()])
        return module

    def tensor(self, tensor: Tensor) -> Tensor:
        """One tensor: floating-point numbers change type, integers and masks do not."""
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None, non_blocking=True)

    def events(self, events: Events) -> Events:
        """A batch, with event numbers if it came without."""
        placed = events.map(self.tensor)
        return (
            placed if placed.index is not None else placed.replace(index=torch.arange(len(placed), device=self.device))
        )

    def backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradient of ``loss`` to the given parameters, and to no others."""
        loss.backward(inputs=list(parameters))

    def synchronise(self) -> None:
        """Wait for the device (before looking at the clock)."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Placed:
    """A source whose events are where the module is; everything else is the source's own."""

    def __init__(self, source: Source, placement: Placement) -> None:
        self.inner, self._placement = source, placement
        place: Any = getattr(source, "place", None)
        if place is not None:
            place(placement.events)

    @property
    def size(self) -> int | None:
        """See :class:`~pofx.training.contract.Source`, here and below."""
        return self.inner.size

    @property
    def steps_per_epoch(self) -> int:
        return self.inner.steps_per_epoch

    def next(self, module: nn.Module, step: int) -> Events:
        return self._placement.events(self.inner.next(module, step))

    def sweep(self) -> Iterator[Events]:
        return map(self._placement.events, self.inner.sweep())

    def validation(self) -> Iterator[Events]:
        return map(self._placement.events, self.inner.validation())

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _device(name: str) -> torch.device:
    if name == "auto":
        return local_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    device = torch.device(name)
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "xpu": torch.xpu.is_available,
    }
    if device.type in there and not there[device.type]():
        raise ConfigError(
            f"Training.device: expected a device of this machine; got {name!r}, which torch does not find here"
        )
    return local_device(device)


@contextmanager
def mixed_precision(module: nn.Module, placement: Placement) -> Iterator[None]:
    """Matrix products of networks in bfloat16, everything between them in float32.

    Modules with a true attribute ``mixed_precision`` run under autocast as a whole, other linear and convolutional layers each on its
    own; their outputs are float32 again, so that splines, log-densities and losses never see bfloat16.
    """
    if not placement.mixed:
        yield
        return
    running: list[torch.autocast] = []

    def enter(_layer: nn.Module, _args: Any) -> None:
        running.append(torch.autocast(placement.device.type, torch.bfloat16))
        running[-1].__enter__()

    def leave(_layer: nn.Module, _args: Any, output: Any) -> Any:
        running.pop().__exit__(None, None, None)
        return _float32(output)

    with ExitStack() as stack:
        for layer in _autocast_layers(module):
            stack.callback(layer.register_forward_pre_hook(enter, prepend=True).remove)
            stack.callback(layer.register_forward_hook(leave, always_call=True).remove)
        yield


def _autocast_layers(module: nn.Module) -> Iterator[nn.Module]:
    if getattr(module, "mixed_precision", False) or isinstance(module, _HEAVY):
        yield module
        return
    for child in module.children():
        yield from _autocast_layers(child)


def _float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    return type(output)(map(_float32, output)) if isinstance(output, tuple | list) else output


@contextmanager
def isolated_randomness(placement: Placement, deterministic: bool) -> Iterator[None]:
    """Leave torch's own generators and its choice of kernels as they were found."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    devices = [placement.device] if placement.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.use_deterministic_algorithms(deterministic or before, warn_only=warn)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the generators that layers such as dropout draw from."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
