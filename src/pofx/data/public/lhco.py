r"""LHC Olympics 2020 (doi:10.5281/zenodo.4536377, 5759087): jets of dijet events, particles, and the five features of CATHODE.

Features: a table of pandas' fixed layout in HDF5, ``df/block0_values (n, k)`` whose columns ``df/block0_items`` names: momenta and
masses of two jets [GeV], their N-subjettiness, and ``label`` (1 = signal). Raw: the same layout with 2100 columns, 700 x (pT [GeV],
eta, phi), and the label. :func:`dijets` derives from features what anomaly searches use (arXiv:2109.00546), in TeV.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.options import Request
from pofx.data.patterns import listing
from pofx.data.public.base import Extras, Made, Piece, PublicFormat, Reader, context_of, not_negative
from pofx.data.public.clouds import packed
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.errors import ColumnError, FormatError

__all__ = ["LHCODijets", "LHCOFeatures", "LHCORaw", "Regions", "dijets", "regions"]

MOMENTA = ("px", "py", "pz", "m")
NEEDED = tuple(f"{name}j{jet}" for jet in (1, 2) for name in (*MOMENTA, "tau1", "tau2"))
PARTICLES = 700
DIJETS = (
    Column("mjj", "TeV"),
    Column("mj1", "TeV"),
    Column("dmj", "TeV"),
    Column("tau21_j1"),
    Column("tau21_j2"),
)
LABEL = vector_spec([Column("label", "", "discrete", 0.0, 1.0)], "label")["label"]
_ROWS = 1 << 17


class _PandasTable(PublicFormat):
    """One table in pandas' fixed layout, in a group of any name (``df`` when written)."""

    reference = "doi:10.5281/zenodo.4536377"

    def table(self, stored: Mapping[str, Stored]) -> Stored | None:
        """The values of the table that fits."""
        return next((a for name, a in stored.items() if name.endswith("block0_values") and self.fits(a)), None)

    @abstractmethod
    def fits(self, array: Stored) -> bool:
        """Whether these are values of this format."""

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        return [] if self.table(stored) is not None else [f"{name} is missing" for name in self.keys]

    def bound(self, stored: Mapping[str, Stored]) -> tuple[str, ...]:
        found = self.table(stored)
        return () if found is None else (found.name,)

    def extras(self, rows: int, spec: EventSpec, context_spec: EventSpec | None) -> Extras:
        return pandas_extras("df", self.items(spec, context_spec), rows)

    @abstractmethod
    def items(self, spec: EventSpec, context_spec: EventSpec | None) -> Array:
        """Names of the table's columns."""


class LHCOFeatures(_PandasTable):
    """A vector of jet features; the label, where there is one, is the context."""

    name, title = "lhco-features", "jet features of the LHC Olympics"
    becomes, units = "vector `features`; context `label`", "GeV"
    keys: ClassVar = {"df/block0_values with columns pxj1, pyj1, pzj1, mj1, tau1j1, tau2j1, ..., label": (None,)}

    def fits(self, array: Stored) -> bool:
        return set(NEEDED) <= set(array.columns)

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        table = self.table(stored)
        names = () if table is None else table.columns
        source = self.bound(stored)
        columns = [i for i, name in enumerate(names) if name != "label"]
        form = vector_spec([_feature(names[i]) for i in columns], "features")["features"]
        found = Piece("features", form, source, lambda raw: Made(raw[source[0]][:, columns]))
        if "label" not in names:
            return (found,)
        last = names.index("label")
        return (found, Piece("label", LABEL, source, lambda raw: Made(raw[source[0]][:, [last]]), "context"))

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        label = context_of(events).get("label")
        parts = [events.fields["features"], *([] if label is None else [label.reshape(-1, 1)])]
        return {"df/block0_values": np.concatenate(parts, 1)}

    def items(self, spec: EventSpec, context_spec: EventSpec | None) -> Array:
        return np.array([*spec["features"].names, *(["label"] if "label" in (context_spec or {}) else [])], "S")


class LHCORaw(_PandasTable):
    """A cloud of up to 700 particles; the label, where there is one, is the context. Particles of zero pT are padding."""

    name, title = "lhco-raw", "particles of the LHC Olympics"
    becomes, units = "cloud `particles` (pt, eta, phi); context `label`", "GeV, rad"
    keys: ClassVar = {"df/block0_values (n, 2100 or 2101)": (None,)}

    def fits(self, array: Stored) -> bool:
        return len(array.shape) == 2 and array.shape[1] in (3 * PARTICLES, 3 * PARTICLES + 1)

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        source, table = self.bound(stored), self.table(stored)
        columns = (Column("pt", "GeV"), Column("eta"), Column("phi", "rad", "periodic", -math.pi, math.pi))
        found = Piece(
            "particles", Field("cloud", (PARTICLES, 3), columns), source, lambda raw: _particles(raw[source[0]])
        )
        if table is None or table.shape[1] == 3 * PARTICLES:
            return (found,)
        return (found, Piece("label", LABEL, source, lambda raw: Made(raw[source[0]][:, -1:]), "context"))

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        mask = events.masks.get("particles", np.ones(events.fields["particles"].shape[:2], bool))
        flat = np.where(mask[..., None], events.fields["particles"], 0).reshape(len(events), -1)
        label = context_of(events).get("label")
        return {"df/block0_values": flat if label is None else np.concatenate([flat, label.reshape(-1, 1)], 1)}

    def items(self, spec: EventSpec, context_spec: EventSpec | None) -> Array:
        return np.arange(3 * PARTICLES + ("label" in (context_spec or {})))


class LHCODijets(PublicFormat):
    """A vector of (mjj, mj1, dmj, tau21 of both) in TeV; the label is the context.

    npz arrays ``train``, ``val``, ``extrasig_train``, each ``(n, 6)``: ``key=`` says which is read. Written is ``train``.
    """

    name, title, reference = (
        "lhco-dijets",
        "dijet features of the LHC Olympics as CATHODE prepares them",
        "arXiv:2109.00546",
    )
    becomes, units, container = "vector `dijet` (mjj, mj1, dmj, tau21 of both); context `label`", "TeV", "npz"
    keys: ClassVar = {"train": (6,)}
    known: ClassVar = ("train", "val", "extrasig_train")
    chosen: str | None = None

    def recognises(self, stored: Mapping[str, Stored]) -> bool:
        return {"train", "val"} <= set(self._there(stored))

    def misfits(self, stored: Mapping[str, Stored]) -> list[str]:
        return [] if self._there(stored) else [f"one of {', '.join(self.known)} (n, 6) is missing"]

    def settled(self, stored: Mapping[str, Stored], request: Request, read: Reader) -> Self:
        there = self._there(stored)
        wanted = request.key or tuple(there)
        if len(wanted) != 1 or wanted[0] not in there:
            raise FormatError(
                f"recognised as {self.title}, format={self.name!r}: say which with key=: {listing(map(str, there.values()))}"
            )
        found = type(self)()
        found.chosen = wanted[0]
        return found

    def bound(self, stored: Mapping[str, Stored]) -> tuple[str, ...]:
        return tuple(self._there(stored)) if self.chosen is None else (self.chosen,)

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        source = self.bound(stored)[:1]
        return (
            Piece("dijet", vector_spec(DIJETS, "dijet")["dijet"], source, lambda raw: Made(raw[source[0]][:, :5])),
            Piece("label", LABEL, source, lambda raw: Made(raw[source[0]][:, 5:]), "context"),
        )

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        return {"train": np.concatenate([events.fields["dijet"], context_of(events)["label"].reshape(-1, 1)], 1)}

    def _there(self, stored: Mapping[str, Stored]) -> dict[str, Stored]:
        return {name: stored[name] for name in self.known if name in stored and stored[name].shape[1:] == (6,)}


class Regions(NamedTuple):
    """Events inside a window of mjj and those outside."""

    signal: Dataset
    sideband: Dataset


def dijets(data: Dataset) -> Dataset:
    r"""The features of anomaly searches out of jet features (``lhco-features``): one vector field ``dijet``; the label stays the context.

    :math:`m_{jj}`, the mass of the lighter jet, how much heavier the other is [TeV], and
    :math:`\tau_{21} = \tau_2 / (10^{-5} + \tau_1)` of the lighter and of the heavier jet (arXiv:2109.00546). The result is in memory: 48
    bytes an event. ColumnError where columns are missing.
    """
    if "features" not in data.spec or not set(NEEDED) <= set(data.spec["features"].names):
        raise ColumnError(f"{data.origin}: expected columns {listing(NEEDED)}; there are {listing(data.names)}")
    made = list(_derived(data))
    label = [found.context.fields["label"] for found in made if found.context is not None]
    return Dataset.from_arrays(
        np.concatenate([found.fields["dijet"] for found in made]),
        np.concatenate(label) if label else None,
        columns=vector_spec(DIJETS, "dijet"),
        context_columns={"label": LABEL} if label else None,
    )


def _derived(data: Dataset) -> Iterator[Events]:
    place = {name: i for i, name in enumerate(data.spec["features"].names)}
    for events in data.chunks(_ROWS):
        x = events.fields["features"]
        yield events.replace(fields={"dijet": _dijet({name: x[:, place[name]].astype(np.float64) for name in NEEDED})})


def _dijet(jets: Mapping[str, Array]) -> Array:
    """The five columns."""
    momenta = [np.stack([jets[f"{name}j{jet}"] for name in ("px", "py", "pz")]) for jet in (1, 2)]
    masses = np.stack([jets["mj1"], jets["mj2"]])
    energy = sum(np.sqrt((p**2).sum(0) + m**2) for p, m in zip(momenta, masses, strict=True))
    mjj = np.sqrt(np.maximum(energy**2 - ((momenta[0] + momenta[1]) ** 2).sum(0), 0.0))
    tau21 = np.stack([jets[f"tau2j{jet}"] / (1e-5 + jets[f"tau1j{jet}"]) for jet in (1, 2)])
    swap = masses[1] < masses[0]
    light, heavy = np.where(swap, tau21[1], tau21[0]), np.where(swap, tau21[0], tau21[1])
    return np.stack([mjj / 1e3, masses.min(0) / 1e3, np.ptp(masses, 0) / 1e3, light, heavy], 1)


def regions(data: Dataset, low: float = 3.3, high: float = 3.7) -> Regions:
    """Events with ``low < mjj < high`` [TeV] (the signal region of the R&D data set) and the others (the sideband).

    >>> x = np.array([[3.0, 0.1, 0.1, 0.5, 0.5], [3.5, 0.1, 0.2, 0.4, 0.5]])
    >>> found = regions(Dataset.from_arrays(x, columns=vector_spec(DIJETS, "dijet")))
    >>> len(found.signal), len(found.sideband)
    (1, 1)
    """
    names = data.spec["dijet"].names if "dijet" in data.spec else ()
    if "mjj" not in names:
        raise ColumnError(f"{data.origin}: expected a field 'dijet' with a column 'mjj', as dijets() makes it")
    place = names.index("mjj")
    mjj = np.concatenate([events.fields["dijet"][:, place] for events in data.chunks(_ROWS)])
    inside = (mjj > low) & (mjj < high)
    return Regions(data.take(inside), data.take(~inside))


def pandas_extras(group: str, items: Array, rows: int) -> Extras:
    """What pandas' fixed layout holds beside the values of a table with these column names."""
    kind: dict[str, Any] = {
        "transposed": 1,
        "kind": "string" if items.dtype.kind == "S" else "integer",
        "name": "N.",
    }
    arrays = {f"{group}/axis0": items, f"{group}/axis1": np.arange(rows), f"{group}/block0_items": items}
    frame = {"pandas_type": "frame", "pandas_version": "0.15.2", "encoding": "UTF-8", "errors": "strict", "ndim": 2}
    frame |= {"nblocks": 1, "axis0_variety": "regular", "axis1_variety": "regular", "block0_items_variety": "regular"}
    attributes = {f"{group}/{name}": kind for name in ("axis0", "block0_items")}
    attributes |= {f"{group}/axis1": {**kind, "kind": "integer"}, f"{group}/block0_values": {"transposed": 1}}
    return Extras(arrays, {group: frame, **attributes})


def _feature(name: str) -> Column:
    return Column(name, "GeV" if name[:-2] in MOMENTA and name[-2:] in ("j1", "j2") else "")


def _particles(rows: Array) -> Made:
    points = rows[:, : 3 * PARTICLES].reshape(len(rows), PARTICLES, 3)
    pt = not_negative(points[..., 0], "transverse momenta")
    return Made(*packed(points, (pt > 0) | np.isnan(pt)))
