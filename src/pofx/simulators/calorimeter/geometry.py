"""What a calorimeter is made of and how it is read out; published ones.

A stack of flat layers lies along z, its front face at z = 0, centred on the z axis. Readouts cut a part of its depth into layers and each
layer into cells, rectangles or rings; what is deposited outside is not seen. Lengths are in mm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from pofx.config import check_at_least, check_choice
from pofx.data.numbers import Array
from pofx.data.patterns import close
from pofx.data.spec import Axis
from pofx.errors import ConfigError
from pofx.simulators.calorimeter.materials import material

__all__ = ["CALORIMETERS", "Calorimeter", "Module", "Readout", "Slab", "calorimeter"]

System = Literal["cartesian", "cylindrical"]


@dataclass(frozen=True)
class Module:
    """Layers that repeat: ``absorber`` first, then ``active``; without absorber the calorimeter is homogeneous there.

    Parameters
    ----------
    repeat : how often.
    active, active_mm : name (``pofx.simulators.calorimeter.MATERIALS``) and thickness [mm] of the active layer.
    absorber, absorber_mm : of the absorber.
    """

    repeat: int
    active: str
    active_mm: float
    absorber: str = ""
    absorber_mm: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "repeat")
        check_at_least(self, 1e-6, "active_mm")
        material(self.active)
        if bool(self.absorber) != (self.absorber_mm > 0):
            raise ConfigError(
                f"Module: an absorber has a name and a thickness; got {self.absorber!r} of {self.absorber_mm} mm"
            )
        if self.absorber:
            material(self.absorber)

    @property
    def depth(self) -> float:
        """Of one absorber and its active layer."""
        return self.absorber_mm + self.active_mm


@dataclass(frozen=True)
class Readout:
    """One grid of cells.

    Parameters
    ----------
    name : of the field of an event.
    edges : in depth [mm], one more than there are layers.
    cells : per layer: (x, y), or (angle, radius).
    size : full widths (x, y) that the cells cover [mm]; (diameter, diameter) of a cylinder.
    system : rectangles, or sectors of rings. Angles run from -pi to pi.

    >>> CALORIMETERS["ild"].readouts[0].shape
    (30, 30, 30)
    """

    name: str
    edges: tuple[float, ...]
    cells: tuple[int, int]
    size: tuple[float, float]
    system: System = "cartesian"

    def __post_init__(self) -> None:
        check_choice(self, "system", ("cartesian", "cylindrical"))
        rising = len(self.edges) > 1 and all(a < b for a, b in pairwise(self.edges))
        if not rising or self.edges[0] < 0:
            raise ConfigError(f"Readout {self.name!r}: expected rising edges in depth, from 0 on; got {self.edges}")
        if min(self.cells) < 1 or min(self.size) <= 0:
            raise ConfigError(
                f"Readout {self.name!r}: expected at least one cell and a size above 0; got {self.cells}, {self.size}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers and cells."""
        return len(self.edges) - 1, *self.cells

    @property
    def volume(self) -> int:
        """Cells in all layers."""
        return math.prod(self.shape)

    @cached_property
    def across(self) -> tuple[Array, Array]:
        """Edges of cells: x and y [mm], or the angle [rad] and the radius [mm]."""
        low, high = (-0.5, 0.5) if self.system == "cartesian" else (0.0, 0.5)
        second = np.linspace(low * self.size[1], high * self.size[1], self.cells[1] + 1).round(9)
        if self.system == "cylindrical":
            return np.linspace(-math.pi, math.pi, self.cells[0] + 1), second
        return np.linspace(-0.5 * self.size[0], 0.5 * self.size[0], self.cells[0] + 1).round(9), second

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of an event's grid: a single layer has no axis of its own."""
        return self.shape if self.shape[0] > 1 else self.cells

    @property
    def grid_axes(self) -> tuple[Axis, ...]:
        """Layer (if there is more than one), then x and y, or alpha and r."""
        first, second = (tuple(edges.tolist()) for edges in self.across)
        layer = (Axis("layer", self.shape[0]),) if self.shape[0] > 1 else ()
        if self.system == "cylindrical":
            turns = Axis("alpha", self.cells[0], first, "rad", periodic=True)
            return *layer, turns, Axis("r", self.cells[1], second, "mm")
        return *layer, Axis("x", self.cells[0], first, "mm"), Axis("y", self.cells[1], second, "mm")

    def locate(self, x: Array, y: Array) -> tuple[Array, Array]:
        """The cell of a layer that holds (x, y), flattened, and whether one does."""
        u, v = (np.arctan2(y, x), np.hypot(x, y)) if self.system == "cylindrical" else (x, y)
        inside, index = np.ones(np.shape(x), bool), np.zeros(np.shape(x), np.int64)
        for value, edges, count in zip((u, v), self.across, self.cells, strict=True):
            place = np.floor((value - edges[0]) / (edges[-1] - edges[0]) * count).astype(np.int64)
            if edges[-1] == math.pi:  # an angle: the last edge is the first
                place %= count
            inside &= (place >= 0) & (place < count)
            index = index * count + place.clip(0, count - 1)
        return index, inside

    def centres(self) -> Array:
        """(x, y) [mm] of the cells of a layer, flattened, ``(cells, 2)``."""
        u, v = np.meshgrid(*(0.5 * (edges[1:] + edges[:-1]) for edges in self.across), indexing="ij")
        x, y = (v * np.cos(u), v * np.sin(u)) if self.system == "cylindrical" else (u, v)
        return np.stack([x.ravel(), y.ravel()], 1)


@dataclass(frozen=True)
class Slab:
    """A layer of one material.

    Attributes
    ----------
    material, start, thickness : name, depth of its front and thickness in mm.
    active : whether it is an active layer.
    readout, layer : which readout sees it, and as which layer; -1 for none.
    """

    material: str
    start: float
    thickness: float
    active: bool
    readout: int = -1
    layer: int = -1


@dataclass(frozen=True)
class Calorimeter:
    """A stack of modules and its readouts.

    Parameters
    ----------
    name : for people.
    modules, readouts : see :class:`Module`, :class:`Readout`; readouts are in the order of depth and do not overlap.
    width : across, of the square (of the cylinder) in mm.
    whole : energy in absorbers is counted too.
    factor : by which deposited energies are multiplied: one over the sampling fraction, where a publication does so.
    unit : of energies in cells: MeV or GeV.
    threshold : cells below it are empty, in that unit.
    context, context_unit : name and unit of the particle's energy.

    Raises
    ------
    ConfigError : unknown materials; readouts that overlap, or leave the stack.

    >>> CALORIMETERS["calogan"].depth
    480.0
    """

    name: str
    modules: tuple[Module, ...]
    readouts: tuple[Readout, ...]
    width: float
    whole: bool = False
    factor: float = 1.0
    unit: str = "MeV"
    threshold: float = 0.0
    context: str = "energy"
    context_unit: str = "GeV"

    def __post_init__(self) -> None:
        check_at_least(self, 1e-6, "width", "factor")
        check_at_least(self, 0, "threshold")
        check_choice(self, "unit", ("MeV", "GeV"))
        check_choice(self, "context_unit", ("MeV", "GeV"))
        if not self.modules or not self.readouts:
            raise ConfigError(f"Calorimeter {self.name!r}: expected at least one module and one readout")
        depths = [edge for readout in self.readouts for edge in (readout.edges[0], readout.edges[-1])]
        if depths != sorted(depths) or depths[-1] > self.depth + 1e-6:
            raise ConfigError(
                f"Calorimeter {self.name!r}: readouts must follow one another within {self.depth} mm; they lie at {depths}"
            )
        if max(max(readout.size) for readout in self.readouts) > self.width + 1e-6:
            raise ConfigError(f"Calorimeter {self.name!r}: a readout is wider than the calorimeter, {self.width} mm")
        if len({readout.system for readout in self.readouts}) > 1:
            raise ConfigError(f"Calorimeter {self.name!r}: readouts must all be cartesian, or all cylindrical")

    @property
    def depth(self) -> float:
        """In mm."""
        return round(sum(module.repeat * module.depth for module in self.modules), 6)

    @property
    def round(self) -> bool:
        """Whether it is a cylinder."""
        return self.readouts[0].system == "cylindrical"

    @property
    def per_gev(self) -> float:
        """What a cell shows for one GeV in it."""
        return self.factor * (1000.0 if self.unit == "MeV" else 1.0)

    @cached_property
    def slabs(self) -> tuple[Slab, ...]:
        """From the front to the back; a layer that belongs to two layers of readout is two slabs."""
        edges = sorted({round(edge, 6) for readout in self.readouts for edge in readout.edges})
        return tuple(part for slab in self._layers() for part in self._parts(slab, edges))

    def _layers(self) -> Iterator[Slab]:
        start = 0.0
        for module in self.modules:
            for _ in range(module.repeat):
                if module.absorber:
                    yield Slab(module.absorber, round(start, 6), module.absorber_mm, False)
                yield Slab(module.active, round(start + module.absorber_mm, 6), module.active_mm, True)
                start += module.depth

    def _parts(self, slab: Slab, edges: list[float]) -> Iterator[Slab]:
        stop = slab.start + slab.thickness
        cuts = [slab.start, *(edge for edge in edges if slab.start + 1e-6 < edge < stop - 1e-6), stop]
        for low, high in pairwise(cuts):
            readout, layer = self.seen(0.5 * (low + high)) if slab.active or self.whole else (-1, -1)
            yield replace(slab, start=low, thickness=round(high - low, 6), readout=readout, layer=layer)

    def seen(self, depth: float) -> tuple[int, int]:
        """The readout and its layer at a depth; (-1, -1) for none."""
        for number, readout in enumerate(self.readouts):
            if readout.edges[0] <= depth < readout.edges[-1]:
                return number, int(np.searchsorted(readout.edges, depth, side="right")) - 1
        return -1, -1


def _layered(count: int, depth: float) -> tuple[float, ...]:
    return tuple(round(depth * k, 6) for k in range(count + 1))


_ILD = (Module(20, "Si", 0.5, "W", 2.1), Module(10, "Si", 0.5, "W", 4.2))
_ILD_EDGES = (*_layered(20, 2.6), *(round(52.0 + 4.7 * k, 6) for k in range(1, 11)))

_CHALLENGE = Calorimeter(
    "calochallenge-2",
    (Module(90, "Si", 0.3, "W", 1.4),),
    (Readout("showers", _layered(45, 3.4), (16, 9), (83.7, 83.7), "cylindrical"),),
    width=400.0,
    factor=1 / 0.033,
    threshold=0.01515,
    context="incident_energies",
    context_unit="MeV",
)

CALORIMETERS = {
    "calogan": Calorimeter(
        "calogan",
        (Module(80, "LAr", 4.0, "Pb", 2.0),),
        (
            Readout("layer_0", (0.0, 90.0), (3, 96), (480.0, 480.0)),
            Readout("layer_1", (90.0, 437.0), (12, 12), (480.0, 480.0)),
            Readout("layer_2", (437.0, 480.0), (12, 6), (480.0, 480.0)),
        ),
        width=480.0,
        whole=True,
    ),
    "calochallenge-2": _CHALLENGE,
    "calochallenge-3": replace(
        _CHALLENGE, name="calochallenge-3", readouts=(replace(_CHALLENGE.readouts[0], cells=(50, 18)),)
    ),
    "ild": Calorimeter(
        "ild", _ILD, (Readout("layers", _ILD_EDGES, (30, 30), (30 * 5.088333, 30 * 5.088333)),), width=400.0
    ),
    "pbwo4": Calorimeter(
        "pbwo4",
        (Module(24, "PbWO4", 10.0),),
        (Readout("showers", _layered(24, 10.0), (16, 16), (160.0, 160.0)),),
        width=160.0,
        unit="GeV",
    ),
}
"""Published calorimeters: CaloGAN (arXiv:1705.02355), data sets 2 and 3 of the CaloChallenge (arXiv:2410.21611), the silicon-tungsten
calorimeter of ILD as in "Getting High" (arXiv:2005.05334; silicon and tungsten alone), and a block of lead tungstate."""


def calorimeter(wanted: Calorimeter | str) -> Calorimeter:
    """A calorimeter itself, or the published one of that name; ConfigError with the nearest names otherwise."""
    if isinstance(wanted, Calorimeter):
        return wanted
    if wanted not in CALORIMETERS:
        raise ConfigError(f"no calorimeter is called {wanted!r}; {close(wanted, CALORIMETERS)}")
    return CALORIMETERS[wanted]
