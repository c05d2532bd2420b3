"""Published measurements as they are distributed: T2K's joint CC0pi, T2K on oxygen and carbon, MicroBooNE CC inclusive 3-D and CC1muNp.

Each reader takes the folder of the files (by default below the folder that the environment variable ``POFX_DATA`` names), knows the
conventions of that release, names every bin by its edges, and returns a :class:`~pofx.tasks.cross_section.covariance.Measured`. Nothing is
rounded or regularised on the way. For any other release: ``Measured.read``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pofx.data.release import read_histogram, read_matrix, read_release, read_text_matrix
from pofx.data.spec import Column
from pofx.errors import ConfigError, FormatError, ShapeError
from pofx.tasks.cross_section.published_measured import Floats, Measured

__all__ = ["OBSERVABLES", "microboone_cc1munp", "microboone_cc3d", "t2k_joint", "t2k_oxygen_carbon"]

Folder = str | os.PathLike[str] | None

T2K_FILE = "JointNuMuAntiNuMuCC0piXsecDataRelease.root"
T2K_COSINES = (-1.0, 0.2, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.98, 1.0)
CC3D_FILE, CC3D_BINS = "MicroBooNE_CCInc3D_data_release.root", "real_bins.txt"
CC1MUNP_FILE = "CCNp_data_MC_cov_dataRelease.root"

OBSERVABLES: Mapping[str, tuple[str, str]] = {
    "mumom": ("p_mu", "1e-38 cm2/GeV/nucleon"),
    "muangle": ("cos_mu", "1e-38 cm2/nucleon"),
    "pmom": ("p_p", "1e-38 cm2/GeV/nucleon"),
    "pangle": ("cos_p", "1e-38 cm2/nucleon"),
    "thetamup": ("theta_mup", "1e-38 cm2/rad/nucleon"),
}
"""Of :func:`microboone_cc1munp`: its name in the file, what it is (GeV, radians), and the unit of the cross section."""


def t2k_joint(folder: Folder = None) -> Measured:
    """T2K CC0pi on CH, neutrinos and antineutrinos: 58 + 58 bins of muon momentum and angle; statistical and systematic covariance added.

    Raises
    ------
    FormatError, ShapeError for files that are not this release; ConfigError if ``POFX_DATA`` is not set and no folder is given.

    >>> t2k_joint().names[1]  # doctest: +SKIP
    'numu_cos_0.2_0.6_p_0_0.3'
    """
    path = _folder(folder, "t2k") / T2K_FILE
    flavours = {"numu": "NuMu", "numubar": "AntiNuMu"}
    matrices = [f"JointNuMuAntiNuMuCC0piXsecCovMatrix{part}" for part in ("Stat", "Syst")]
    found = read_release(path, [f"h{key}CC0piXsecLinearResult" for key in flavours.values()], matrices, scale=1e39)
    parts = [_slices(path, f"hXsec{key}CC0piDataSlice_", T2K_COSINES) for key in flavours.values()]
    _same(np.concatenate([values for _, values in parts]) * 1e39, found.mean, path)
    cosine, momentum = (np.concatenate([edges[i] for edges, _ in parts]) for i in range(2))
    names = [flavour for flavour, (_, values) in zip(flavours, parts, strict=True) for _ in values]
    return _measured(
        found.mean,
        found.covariance,
        {"cos": cosine, "p": momentum},
        prefixes=names,
        title="T2K CC0pi numu and numubar on CH",
        unit="1e-39 cm2/GeV/nucleon",
        notes=("arXiv:2002.09323", "statistical and systematic covariance, added", "muon momentum in GeV"),
    )


def t2k_oxygen_carbon(folder: Folder = None, regularised: bool = True) -> Measured:
    """T2K numu CC0pi on oxygen and on carbon: 29 + 29 bins of muon momentum and angle, from a fit with or without regularisation.

    >>> t2k_oxygen_carbon(regularised=False).names[29]  # doctest: +SKIP
    'carbon_cos_-1_0_p_0_30'
    """
    where = _folder(folder, "t2k/oxygen_carbon_2004.05434")
    fit, matrix = ("reg", "reg") if regularised else ("unreg", "noreg")
    paths = {target: where / f"linear_{fit}_results_{letter}_nuisance.root" for target, letter in _TARGETS.items()}
    central = np.concatenate([read_histogram(path, "LinResult").values for path in paths.values()])
    bins = read_text_matrix(where / "Binning.txt")
    covariance = read_matrix(where / f"covmatrix_{matrix}.root", "covmatrixOeCbin")
    _expect(where, bins.shape == (len(central) // 2, 4), "four edges of 29 bins in Binning.txt")
    edges = np.concatenate([bins, bins])
    return _measured(
        central,
        covariance,
        {"cos": edges[:, :2], "p": edges[:, 2:]},
        prefixes=[target for target in paths for _ in bins],
        title=f"T2K CC0pi numu on oxygen and carbon, {'' if regularised else 'not '}regularised",
        unit="1e-39 cm2/GeV/nucleon",
        notes=("arXiv:2004.05434", "muon momentum in GeV"),
    )


def microboone_cc3d(folder: Folder = None) -> Measured:
    """MicroBooNE numu CC inclusive on argon: 138 bins of neutrino energy, muon angle and muon momentum, unfolded with regularisation.

    Predictions are multiplied by the additional smearing matrix A_c before they are compared; the covariance is singular, because the
    regularisation leaves nothing in some directions: the null space of the covariance is that of A_c from the left.
    """
    where = _folder(folder, "microboone")
    path = where / CC3D_FILE
    bins = read_text_matrix(where / CC3D_BINS)
    central = read_histogram(path, "MicroBooNE_CCInc3D_data").values
    _expect(where, bins.shape == (len(central), 8), f"{len(central)} bins with three pairs of edges in {CC3D_BINS}")
    return _measured(
        central,
        read_matrix(path, "MicroBooNE_CCInc3D_unfcov"),
        {"E": bins[:, 6:8], "cos": bins[:, 4:6], "p": bins[:, 2:4]},
        smearing=read_matrix(path, "MicroBooNE_CCInc3D_Ac"),
        title="MicroBooNE numu CC inclusive on argon, 3-D",
        unit="1e-36 cm2/GeV/Ar",
        notes=(
            "arXiv:2307.06413",
            "double-differential in muon momentum and angle, for each range of neutrino energy; energies and momenta in GeV",
            "predictions are multiplied by the additional smearing matrix",
        ),
    )


def microboone_cc1munp(folder: Folder = None, observable: str = "mumom") -> Measured:
    r"""MicroBooNE numu CC with one muon and protons on argon, in one of five observables (:data:`OBSERVABLES`), not unfolded.

    The file has the numbers of simulated events by true (first axis) and reconstructed bin. Predictions are differential cross sections in
    the true quantity; with the migration probability :math:`M_{ij} = N_{ij} / \sum_j N_{ij}` and the bin widths w, what compares with the
    measurement is :math:`\sum_i x_i w_i M_{ij} / w_j`: that is the smearing matrix here.

    Raises
    ------
    ConfigError for an unknown observable; FormatError, ShapeError for another file.
    """
    if observable not in OBSERVABLES:
        raise ConfigError(f"observable: expected one of {', '.join(OBSERVABLES)}; got {observable!r}")
    path = _folder(folder, "microboone") / CC1MUNP_FILE
    data = read_histogram(path, f"DataXsec_{observable}")
    events = read_matrix(path, f"SmearingMatrix_{observable}")
    name, unit = OBSERVABLES[observable]
    edges = np.stack([data.edges[0][:-1], data.edges[0][1:]], axis=1)
    width = edges[:, 1] - edges[:, 0]
    _expect(path, events.shape == (len(width), len(width)), f"a square smearing matrix of {len(width)} bins")
    return _measured(
        data.values,
        read_matrix(path, f"CovarianceMatrix_{observable}"),
        {name: edges},
        smearing=(events / events.sum(1, keepdims=True) * width[:, None] / width).T,
        title=f"MicroBooNE CC1muNp on argon, {name}",
        unit=unit,
        notes=(
            "arXiv:2010.02390",
            "per nucleon, in the reconstructed quantity (GeV, radians); the paper quotes argon nuclei, 40 times as much",
            "predictions in the true quantity are folded with the migration matrix of the release",
        ),
    )


_TARGETS = {"oxygen": "O", "carbon": "C"}


def _folder(folder: Folder, default: str) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    named = os.environ.get("POFX_DATA", "")
    if not named:
        raise ConfigError(
            f"expected a folder, or the environment variable POFX_DATA to name the one that has {default}/"
        )
    return Path(named).expanduser() / default


def _slices(path: Path, key: str, cosines: tuple[float, ...]) -> tuple[tuple[Floats, Floats], Floats]:
    """Edges of cosine and momentum, ``(bins, 2)`` each, and values, of histograms of one range of the cosine each."""
    cosine, momentum, values = [], [], []
    for k, (low, high) in enumerate(pairwise(cosines)):
        part = read_histogram(path, f"{key}{k}")
        values.append(part.values)
        momentum.append(np.stack([part.edges[0][:-1], part.edges[0][1:]], axis=1))
        cosine.append(np.tile([low, high], (len(part.values), 1)))
    return (np.concatenate(cosine), np.concatenate(momentum)), np.concatenate(values)


def _measured(
    central: Floats, covariance: Floats, edges: Mapping[str, Floats], *, prefixes: Iterable[str] = (), **rest: Any
) -> Measured:
    """With columns named by their edges."""
    first = list(prefixes) or [""] * len(central)
    rows = zip(first, *edges.values(), strict=True)
    names = [
        "_".join([*filter(None, [prefix]), *(_range(*pair) for pair in zip(edges, row, strict=True))])
        for prefix, *row in rows
    ]
    columns = tuple(Column(name, rest.get("unit", "")) for name in names)
    return Measured(central, covariance, columns, edges=edges, **rest)


def _range(name: str, pair: Floats) -> str:
    return f"{name}_{pair[0]:g}_{pair[1]:g}"


def _same(slices: Floats, linear: Floats, path: Path) -> None:
    """The slices, which have the edges, list the same bins in the same order as the linear result, which the covariance belongs to."""
    if slices.shape != linear.shape:
        raise ShapeError(f"{path}: the slices have {len(slices)} bins; the linear result has {len(linear)}")
    if not np.allclose(slices, linear, rtol=1e-6):
        worst = int(np.abs(slices / linear - 1).argmax())
        raise FormatError(
            f"{path}: bin {worst} is {slices[worst]:.6g} in its slice and {linear[worst]:.6g} in the linear result"
        )


def _expect(path: Path, good: bool, what: str) -> None:
    if not good:
        raise FormatError(f"{path}: expected {what}")
