r"""Z+jets of OmniFold (doi:10.5281/zenodo.3548091, arXiv:1911.09107): observables of the leading jet, generated and simulated.

npz: ``gen_*`` and ``sim_*``, each ``jets (n, 4)`` of pT [GeV], y, phi, m [GeV], and ``mults lhas widths ang2s tau2s sdms zgs``, ``(n,)``;
particles are not read. :func:`observables` makes the six that unfolding compares. A later sample in HDF5 (arXiv:2212.08674 and others)
holds six columns each as ``hard`` and ``reco``; which is which its files do not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from pofx.data.dataset import Dataset
from pofx.data.events import Events
from pofx.data.layout import Stored
from pofx.data.numbers import Array
from pofx.data.patterns import listing
from pofx.data.public.base import Made, Piece, PublicFormat, context_of
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.errors import ColumnError

__all__ = ["OmniFold", "OmniFoldTable", "observables"]

JET = (Column("pt", "GeV"), Column("y"), Column("phi", "rad"), Column("m", "GeV"))
NEEDED = {"mults": "", "widths": "", "tau2s": "", "sdms": "GeV", "zgs": ""}
EXTRA = {"lhas": "", "ang2s": ""}
SIX = (Column("m", "GeV"), Column("M"), Column("w"), Column("ln_rho"), Column("zg"), Column("tau21"))
_ROWS = 1 << 17


class OmniFold(PublicFormat):
    """A vector ``gen`` of what was generated; ``sim``, what a detector saw of it, is the context."""

    name, title, container = "omnifold", "Z+jets of OmniFold", "npz"
    reference = "arXiv:1911.09107, doi:10.5281/zenodo.3548091"
    becomes, units = "vector `gen`; context `sim`", "GeV, rad"
    keys: ClassVar = {
        **{f"{side}_jets": (4,) for side in ("gen", "sim")},
        **{f"{side}_{name}": () for side in ("gen", "sim") for name in NEEDED},
    }

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        return (_side("gen", stored), _side("sim", stored))

    def bound(self, stored: Mapping[str, Stored]) -> tuple[str, ...]:
        return tuple(name for side in ("gen", "sim") for name in _sources(side, stored))

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        names = [column.name for column in spec["gen"].columns[4:]]
        found: dict[str, Array] = {}
        for side, values in (("gen", events.fields["gen"]), ("sim", context_of(events)["sim"])):
            found[f"{side}_jets"] = values[:, :4]
            found |= {f"{side}_{name}": values[:, 4 + i] for i, name in enumerate(names)}
        return found


class OmniFoldTable(PublicFormat):
    """A vector ``hard`` of six columns; ``reco``, of six, is the context."""

    name, title, reference = "omnifold-table", "Z+jets of OmniFold, large sample", "github.com/heidelberg-hepml/Bridges"
    becomes, units = "vector `hard`; context `reco`", "as stored"
    keys: ClassVar = {"hard": (6,), "reco": (6,)}

    def pieces(self, stored: Mapping[str, Stored]) -> tuple[Piece, ...]:
        hard, reco = (vector_spec([f"{name}_{i}" for i in range(6)], name)[name] for name in self.keys)
        return (
            Piece("hard", hard, ("hard",), lambda raw: Made(raw["hard"])),
            Piece("reco", reco, ("reco",), lambda raw: Made(raw["reco"]), "context"),
        )

    def arrays(self, events: Events, spec: EventSpec) -> dict[str, Array]:
        return {"hard": events.fields["hard"], "reco": context_of(events)["reco"]}


def _sources(side: str, stored: Mapping[str, Stored]) -> tuple[str, ...]:
    there = [f"{side}_{name}" for name in EXTRA if all(f"{s}_{name}" in stored for s in ("gen", "sim"))]
    return (f"{side}_jets", *(f"{side}_{name}" for name in NEEDED), *there)


def _side(side: str, stored: Mapping[str, Stored]) -> Piece:
    sources = _sources(side, stored)
    names = [source.partition("_")[2] for source in sources[1:]]
    form = vector_spec([*JET, *(Column(name, (NEEDED | EXTRA)[name]) for name in names)], side)[side]

    def make(raw: Mapping[str, Array]) -> Made:
        return Made(np.concatenate([raw[sources[0]], *(raw[source][:, None] for source in sources[1:])], 1))

    return Piece(side, form, sources, make, "x" if side == "gen" else "context")


def observables(data: Dataset, nan: Literal["error", "drop"] = "error") -> Dataset:
    r"""The six observables of the leading jet, ``gen`` as x and ``sim`` as context (arXiv:1911.09107).

    Mass m [GeV], multiplicity M, width w, :math:`\ln\rho = 2 \ln(m_{SD} / p_T)`, :math:`z_g`, :math:`\tau_{21} = \tau_2 / w`. Where a
    groomed mass or a width is zero, the logarithm or the ratio does not exist: a NonFiniteError names the first such event, and
    ``nan="drop"`` leaves them out, on both sides, and counts them in ``dropped``. The result is in memory: 96 bytes an event.
    """
    there = data.spec["gen"].names if "gen" in data.spec else ()
    if not {"pt", *NEEDED} <= set(there) or data.context_spec is None or "sim" not in data.context_spec:
        raise ColumnError(
            f"{data.origin}: expected fields 'gen' and 'sim' of OmniFold files; there are {listing(data.spec)}"
        )
    both: tuple[list[Array], list[Array]] = ([], [])
    for events in data.chunks(_ROWS):
        for made, values in zip(both, (events.fields["gen"], context_of(events)["sim"]), strict=True):
            made.append(_six({name: values[:, i].astype(np.float64) for i, name in enumerate(there)}))
    gen, sim = (np.concatenate(made) for made in both)
    return Dataset.from_arrays(
        gen, sim, columns=vector_spec(SIX, "gen"), context_columns=vector_spec(SIX, "sim"), nan=nan
    )


def _six(jet: Mapping[str, Array]) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        rho, ratio = 2 * np.log(jet["sdms"] / jet["pt"]), jet["tau2s"] / jet["widths"]
    return np.stack([jet["m"], jet["mults"], jet["widths"], rho, jet["zgs"], ratio], 1)
