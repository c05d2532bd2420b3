r"""Quantities of an event that a loss may look at, in the user's units: sums of columns, invariant masses.

A feature is a frozen config that names columns of the user. It is given their values, ``(n,)`` for a vector, ``(n, L)`` for the points of a
cloud (zero where there is none) or ``(n, *cells)`` for a grid, and returns ``(n,)``.

>>> mass = InvariantMass(particles=(("e1", "px1", "py1", "pz1"), ("e2", "px2", "py2", "pz2")))
>>> values = {"e1": 5.0, "px1": 0.0, "py1": 0.0, "pz1": 5.0, "e2": 5.0, "px2": 0.0, "py2": 0.0, "pz2": -5.0}
>>> round(mass({name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()}).item(), 9)
10.0
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pofx.config import check_choice
from pofx.data.spec import Field
from pofx.errors import ConfigError
from pofx.models.discrepancy import breit_wigner_kernel, discrepancy, gaussian_kernel

__all__ = ["ColumnSum", "Feature", "InvariantMass", "column_values", "feature_terms", "spread"]

SCALES = (0.1, 0.3, 1.0)
"""Widths of the kernels of a feature without a width of its own, in units of its spread."""


@dataclass(frozen=True)
class Feature(ABC):
    """A number per event, with the kernel by which two samples of it are compared (arXiv:1907.03764).

    Parameters
    ----------
    width : of the kernel, in the feature's unit: that of the peak that has to be right. None: three widths, from the spread of the data.
    kernel : ``"breit-wigner"`` or ``"gaussian"``.
    """

    width: float | None = field(default=None, kw_only=True)
    kernel: str = field(default="breit-wigner", kw_only=True)

    def __post_init__(self) -> None:
        check_choice(self, "kernel", ("breit-wigner", "gaussian"))
        if self.width is not None and not self.width > 0:
            raise ConfigError(f"{type(self).__name__}: width must be a number above 0, or None; got {self.width!r}")

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of the user's columns that it needs."""

    @abstractmethod
    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        """The feature ``(n,)`` from the values of its columns."""

    def widths(self, found: Tensor, weight: Tensor | None = None) -> list[float]:
        """Widths of the kernel for data with the feature ``found`` ``(n,)``; ConfigError where the data give none."""
        if self.width is not None:
            return [self.width]
        own = spread(found, weight)
        if not own > 1e-6 * float(found.abs().max()):
            raise ConfigError(
                f"{type(self).__name__} of {', '.join(self.columns)}: the central 68 % of the data lie within {own:.3g}, "
                "which gives the kernel no width; set width="
            )
        return [scale * own for scale in SCALES]


@dataclass(frozen=True)
class ColumnSum(Feature):
    """A column of a vector as it is; of a cloud or a grid, its sum over points or cells (the energy of a shower).

    >>> ColumnSum("energy")({"energy": torch.tensor([[1.0, 2.0], [3.0, 0.0]])})
    tensor([3., 3.])
    """

    column: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        return _total(values[self.column])


@dataclass(frozen=True)
class InvariantMass(Feature):
    r"""The mass of a sum of four-momenta, of :math:`m^2 = E^2 - \vec{p}^2`, with the sign of :math:`m^2`.

    Parameters
    ----------
    particles : columns (E, px, py, pz) of each; of a cloud, all points are summed as well, so that one quadruple is the mass of a jet.
    """

    particles: tuple[tuple[str, str, str, str], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.particles or any(len(names) != 4 for names in self.particles):
            raise ConfigError(
                f"InvariantMass: expected particles=((energy, px, py, pz), ...), names of columns; got {self.particles!r}"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for names in self.particles for name in names))

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        energy, *momentum = [
            torch.stack([_total(values[names[i]]) for names in self.particles]).sum(0) for i in range(4)
        ]
        square = energy * energy - torch.stack(momentum).square().sum(0)
        rounding = 1e-12 * energy * energy + torch.finfo(torch.float64).tiny  # so that the slope at zero is finite
        return square / (square.abs() + rounding).sqrt()


def _total(values: Tensor) -> Tensor:
    return values if values.ndim == 1 else values.flatten(1).sum(1)


def column_values(form: Field, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """The columns of a field in the user's units, by name; zero where the mask says padding."""
    names = [column.name for column in form.columns]
    if mask is not None:
        x = torch.where(mask[..., None], x, 0.0)
    return dict(zip(names, x.unbind(1 if form.kind == "grid" else -1), strict=True))


def spread(values: Tensor, weight: Tensor | None = None) -> float:
    """Half of the range that holds the central 68 % of the values ``(n,)``, with weights (none below zero).

    >>> spread(torch.arange(101.0)), spread(torch.tensor([0.0, 1.0, 50.0]), torch.tensor([1.0, 1.0, 0.0]))
    (34.0, 0.5)
    """
    order = values.argsort()
    w = torch.ones_like(values, dtype=torch.float64) if weight is None else weight.double().clamp(min=0.0)
    below = w[order].cumsum(0)
    ends = torch.searchsorted(below, below.new_tensor([0.16, 0.84]) * below[-1]).clamp(max=len(values) - 1)
    low, high = values[order][ends].double()
    return float(0.5 * (high - low))


def feature_terms(
    feature: Feature, widths: Sequence[float], real: Tensor, fake: Tensor, weight: Tensor | None = None
) -> Tensor:
    """The squared MMD of one feature, ``(n,)`` terms of ``(n,)`` values each (see :func:`pofx.models.discrepancy.discrepancy`)."""
    kernel = breit_wigner_kernel if feature.kernel == "breit-wigner" else gaussian_kernel
    return discrepancy(real[:, None], fake[:, None], kernel(widths), weight)
