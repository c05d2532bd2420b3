"""A release folder: a measurement with its density, for somebody else to use with five lines.

==================  ==================================================================================================
``README.md``       what it is and the five lines, with the names of this release
``measurement.*``   bins, edges, central values, covariance, as CSV and HDF5 (``covariance.csv``, ``smearing.csv`` besides)
``model.pofx``      the density p(x), with licence, citation and coordinates in its card; absent if there is only a covariance
``predictions.csv`` example predictions
``validation.csv``  the log-densities and p-values that they must give
``release.json``    what it is, and the sha256 of every file
==================  ==================================================================================================

The folder appears whole or not at all. :func:`open_release` verifies every file, loads the model (which verifies itself), recomputes the
log-densities of the examples, and refuses to disagree.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from pofx.data.spec import Column
from pofx.errors import ArtefactError, CapabilityError, ColumnError, ConfigError, NoDensityError, PofxError, ShapeError
from pofx.tasks.cross_section.published_brackets import Brackets, bracket, throws_count
from pofx.tasks.cross_section.published_measured import Floats, Measured
from pofx.tasks.cross_section.release_checks import HEAD, checks, log_density, throws
from pofx.tasks.cross_section.release_files import (
    CARD,
    MEASUREMENT,
    new_folder,
    read_card,
    read_predictions,
    read_rows,
    write_card,
    write_measurement,
    write_rows,
)
from pofx.tasks.cross_section.release_page import readme

if TYPE_CHECKING:
    from pofx.models.model import Model
    from pofx.tasks.cross_section.predict import Verdicts
    from pofx.tasks.cross_section.universes import Universes

__all__ = ["About", "Release", "open_release", "publish"]

MODEL = "model.pofx"


class About(TypedDict, total=False):
    """What people have to know about a release: title, authors (names), licence, citation, notes (sentences)."""

    title: str
    authors: Sequence[str]
    licence: str
    citation: str
    notes: Sequence[str]


@dataclass(frozen=True, eq=False)
class Release:
    """An opened release.

    Attributes
    ----------
    folder : where it is.
    card : what ``release.json`` says.
    measured : bins, central values, covariance, smearing.
    model : the density, or None where mean and covariance are all there is; then the Gaussian stands in for it.
    """

    folder: Path
    card: Mapping[str, Any]
    measured: Measured
    model: Model | None

    @property
    def title(self) -> str:
        """Of the measurement."""
        return self.measured.title

    @property
    def columns(self) -> tuple[Column, ...]:
        """Names and units of the bins."""
        return self.measured.columns

    @property
    def central(self) -> Floats:
        """Central values ``(bins,)``."""
        return self.measured.central

    @property
    def covariance(self) -> Floats:
        """``(bins, bins)``."""
        return self.measured.covariance

    def log_prob(self, x: ArrayLike) -> Floats:
        """log p(x) of the density in nats, ``(n,)`` for ``x`` of shape ``(n, bins)``, smeared where the release smears.

        Without a model: of the Gaussian; if its covariance is singular, as a density in the directions that are not empty, in units of
        the bins' errors.
        """
        rows = np.atleast_2d(np.asarray(x, np.float64))
        if rows.shape[-1] != len(self.measured):
            raise ShapeError(f"expected x of shape (n, {len(self.measured)}); got {rows.shape}")
        if self.model is not None:
            return np.asarray(self.model.log_prob(rows), np.float64)
        return log_density(None, self.measured.spectrum(), rows)

    def toys(self, n: int, *, seed: int) -> Floats:
        """Throws of the density, ``(n, bins)``; of the Gaussian where there is no model. Some columns of them are throws of a marginal."""
        return throws(self.model, self.measured.spectrum(), n, seed)

    def predictions(self) -> dict[str, Floats]:
        """The examples of the release, by name."""
        return self._read(self.folder / "predictions.csv", smeared=False)

    def p_values(
        self,
        predictions: Mapping[str, ArrayLike] | ArrayLike | str | os.PathLike[str],
        *,
        toys: int = 100_000,
        seed: int = 0,
        smeared: bool = False,
        coordinates: str = "linear",
    ) -> Verdicts | Brackets:
        """chi2, Gaussian and density side by side; without a model, the bracket between Gaussian and lognormal.

        Parameters
        ----------
        predictions : by name, as an array ``(n, bins)``, or a table in a file (CSV, HDF5, ...) with one row per prediction.
        toys : throws behind each p-value.
        seed : of the throws.
        smeared : the predictions have been multiplied by the smearing matrix already.
        coordinates : in which a density ranks, see :func:`pofx.tasks.cross_section.predict.predict`; without a model, linear ones.

        Raises
        ------
        ShapeError naming the bins of both sides; ColumnError for a table with other bins.
        """
        given = self._read(predictions, smeared) if isinstance(predictions, (str, os.PathLike)) else predictions
        if self.model is None:
            return bracket(self.measured, given, toys=toys, seed=seed, smeared=smeared)
        from pofx.tasks.cross_section.predict import predict

        names, rows = self.measured.compared(given, smeared)
        named, universes = dict(zip(names, rows, strict=True)), (self.central, self.covariance)
        return predict(named, density=self.model, universes=universes, toys=toys, seed=seed, coordinates=coordinates)

    def marginal(self, bins: Sequence[int]) -> Measured:
        """Mean and covariance of some of the bins; CapabilityError if the release has a density, whose marginals have no closed form."""
        if self.model is not None:
            _no_marginal(bins)
        return self.measured.marginal(bins)

    def _read(self, path: str | os.PathLike[str], smeared: bool) -> dict[str, Floats]:
        matrix = None if smeared else self.measured.smearing
        bins = len(self.measured) if matrix is None else matrix.shape[1]
        return read_predictions(path, self.measured.names if bins == len(self.measured) else None, bins)


def publish(
    folder: str | os.PathLike[str],
    *,
    model: Model | None = None,
    universes_or_measured: Universes | Measured,
    predictions: Mapping[str, ArrayLike] | ArrayLike,
    toys: int = 100_000,
    seed: int = 0,
    force: bool = False,
    **about: Unpack[About],
) -> Path:
    """Write a release folder.

    Parameters
    ----------
    folder : to be made; with ``force`` an older release there is replaced. Never anything else.
    model : the density of the bins; None publishes mean and covariance alone.
    universes_or_measured : central values and covariance (of universes: about their mean), and the names of the bins.
    predictions : examples, at least one, by name or as rows; before any smearing.
    toys, seed : behind their p-values.
    **about : title, authors, licence, citation, notes.

    Raises
    ------
    ConfigError if the folder has files; ColumnError, ShapeError if model, measurement and predictions have different bins; CapabilityError
    and NoDensityError for a model of something else than a table of bins, or without a density.

    >>> publish("release", model=model, universes_or_measured=universes, predictions={"mine": x}, licence="CC-BY-4.0")  # doctest: +SKIP
    PosixPath('release')
    """
    target = Path(folder).expanduser()
    if not target.name:
        raise ConfigError(f"expected the name of a folder to make; got {str(folder)!r}")
    measured = _measured(universes_or_measured, about.get("title", ""))
    true_bins = len(measured) if measured.smearing is None else measured.smearing.shape[1]
    names, x = measured.compared(predictions)
    if model is not None:
        _check_model(model, measured)
    card = _card(measured, model, about, throws_count(toys), seed)
    with new_folder(target, force) as where:
        write_measurement(where, measured)
        kept = None if model is None else _save_model(model, measured, card, where / MODEL)
        head = measured.names if true_bins == len(measured) else [f"true{i}" for i in range(true_bins)]
        rows = _given(predictions, names)
        write_rows(
            where / "predictions.csv",
            ["prediction", *head],
            ([n, *r.tolist()] for n, r in zip(names, rows, strict=True)),
        )
        judged = checks(measured, kept, names, x, toys=toys, seed=seed)
        write_rows(where / "validation.csv", HEAD, (check.row() for check in judged))
        text = readme(target.name, measured, card, [path.name for path in where.iterdir()])
        (where / "README.md").write_text(text, encoding="utf-8")
        write_card(where, card)
    return target


def open_release(folder: str | os.PathLike[str]) -> Release:
    """Open a release folder, after everything in it was verified.

    Raises
    ------
    ArtefactError : not a release, of a newer format, a file is missing, damaged or edited, or the density does not give the log-densities
        of ``validation.csv``; the message says which.

    >>> open_release("release").p_values("mine.csv")  # doctest: +SKIP
    """
    where = Path(folder).expanduser()
    card = read_card(where)
    try:
        release = _assembled(where, card)
        _verify(release)
    except ArtefactError:
        raise
    except (PofxError, KeyError, TypeError, ValueError) as error:  # sealed, and still not what a release must be
        raise ArtefactError(
            f"{where}: not a release that this pofx can open: {type(error).__name__}: {error}"
        ) from error
    return release


# ---------------------------------------------------------------------- what is published


def _measured(given: Universes | Measured, title: str) -> Measured:
    if isinstance(given, Measured):
        return replace(given, title=title or given.title)
    notes = (*given.notes, f"covariance of {len(given.total)} universes about their mean")
    return Measured(
        given.central, given.covariance, given.columns, title=title or given.title, unit=given.unit, notes=notes
    )


def _check_model(model: Model, measured: Measured) -> None:
    """A density of exactly these bins."""
    if model.layout.context or [f.kind for f in model.layout.spec.values()] != ["vector"]:
        raise CapabilityError("a release needs a model of one vector field, the bins, without a context")
    if model.density == "none":
        raise NoDensityError(f"{type(model.family).__name__} has no density: publish one that has, or model=None")
    names = next(iter(model.layout.spec.values())).names
    if len(names) != len(measured):
        raise ShapeError(f"the model has {len(names)} bins; the measurement has {len(measured)}")
    if names != measured.names:
        k = next(i for i, pair in enumerate(zip(names, measured.names, strict=True)) if pair[0] != pair[1])
        raise ColumnError(f"bin {k} is {names[k]!r} in the model and {measured.names[k]!r} in the measurement")


def _card(measured: Measured, model: Model | None, about: About, toys: int, seed: int) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("pofx", "numpy", "torch")}
    return {
        "title": measured.title,
        "authors": _texts(about.get("authors", ())),
        "licence": about.get("licence", ""),
        "citation": about.get("citation", ""),
        "notes": [*measured.notes, *_texts(about.get("notes", ()))],
        "unit": measured.unit,
        "bins": list(measured.names),
        "model": None if model is None else {"file": MODEL, "family": model.family.name, "density": model.density},
        "toys": toys,
        "seed": seed,
        "versions": {**versions, "python": platform.python_version()},
    }


def _texts(given: Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else [str(text) for text in given]


def _save_model(model: Model, measured: Measured, card: Mapping[str, Any], path: Path) -> Model:
    """Saved with the card of the release in its own, and read back: what is validated is what others load."""
    from pofx.artefact import load

    edges = {name: pairs.tolist() for name, pairs in measured.edges.items()}
    coordinates = {
        "bins": [[c.name, c.unit] for c in measured.columns],
        "edges": edges,
        "smeared": measured.smearing is not None,
    }
    published = {key: card[key] for key in ("title", "authors", "licence", "citation", "notes")}
    replace(model, card={**model.card, **published, "coordinates": coordinates}).save(path)
    loaded: Model = load(path)
    return loaded


def _given(predictions: Mapping[str, ArrayLike] | ArrayLike, names: Sequence[str]) -> list[Floats]:
    rows = predictions.values() if isinstance(predictions, Mapping) else np.atleast_2d(np.asarray(predictions))
    return [np.asarray(row, np.float64) for row, _ in zip(rows, names, strict=True)]


# ---------------------------------------------------------------------- opening


def _assembled(where: Path, card: Mapping[str, Any]) -> Release:
    from pofx.artefact import load

    for name in (MEASUREMENT, "predictions.csv", "validation.csv"):
        if name not in card["files"]:
            raise ArtefactError(f"{where}: {CARD} names no {name}")
    measured = replace(Measured.read(where / MEASUREMENT), notes=tuple(card["notes"]))
    if list(measured.names) != card["bins"]:
        raise ArtefactError(f"{where}: {MEASUREMENT} has other bins than {CARD}")
    model = None if card["model"] is None else load(where / card["model"]["file"])
    if model is not None:
        _check_model(model, measured)
    return Release(where, card, measured, model)


def _verify(release: Release) -> None:
    """The log-densities of the examples, against those of ``validation.csv``."""
    names, x = release.measured.compared(release.predictions())
    stored = read_rows(release.folder / "validation.csv")
    if [row["prediction"] for row in stored] != names:
        raise ArtefactError(f"{release.folder}: validation.csv has other predictions than predictions.csv")
    for row, found in zip(stored, log_density(release.model, release.measured.spectrum(), x), strict=True):
        expected, allowed = float(row["log_density"]), float(row["tolerance"])
        if found != expected and not abs(found - expected) <= allowed:
            raise ArtefactError(
                f"{release.folder}: prediction {row['prediction']!r} has the log-density {found:.6g}; validation.csv says {expected:.6g}, "
                f"to within {allowed:.2g}: the density does not give here what it gave when it was published"
            )


def _no_marginal(bins: Sequence[int]) -> NoReturn:
    raise CapabilityError(
        f"the density of all bins does not give that of {len(bins)} of them: a marginal is an integral over the others. "
        "Take those columns of release.toys(n, seed=...), or fit a density to them"
    )
