"""The files of a release folder: tables of a measurement and of predictions, checksums, a folder that appears whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pofx.data.files import existing, guard, sniff
from pofx.errors import ArtefactError, ColumnError, ConfigError, FormatError, ShapeError
from pofx.tasks.cross_section.published_measured import Floats, Measured
from pofx.tasks.cross_section.published_reading import array_in, arrays_in, is_number, read_table

__all__ = [
    "CARD",
    "MEASUREMENT",
    "new_folder",
    "read_card",
    "read_predictions",
    "read_rows",
    "write_card",
    "write_measurement",
    "write_rows",
]

CARD, MEASUREMENT = "release.json", "measurement.h5"
KIND, FORMAT = "pofx cross-section release", 1
"""What the card says it is, and the format that this pofx writes, the newest one that it reads."""


@contextmanager
def new_folder(folder: Path, force: bool) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of ``folder`` when the block ends well.

    Raises
    ------
    ConfigError if ``folder`` has files already and ``force`` is not given, or has files that are no release.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; expected the name of a folder")
    there = folder.is_dir() and any(folder.iterdir())
    if there and not force:
        raise ConfigError(
            f"{folder} has files already; choose another folder, or give force=True to replace that release"
        )
    if there and not (folder / CARD).is_file():
        raise ConfigError(f"{folder} has files that are no release ({CARD} is missing); they are not replaced")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _exchange(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(new: Path, folder: Path) -> None:
    """Put the new folder where the old one was; the old one stays if that fails."""
    if not folder.is_dir():
        new.replace(folder)
        return
    old = new.with_suffix(".old")
    folder.replace(old)
    try:
        new.replace(folder)
    except OSError:
        old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``release.json``: the card, the sha256 of every other file there, and that of the card itself."""
    files = {path.name: _sha256(path.read_bytes()) for path in sorted(folder.iterdir()) if path.name != CARD}
    full = {"kind": KIND, "format": FORMAT, **card, "files": files}
    sealed = {**full, "sha256": _seal(full)}
    (folder / CARD).write_text(json.dumps(sealed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a release folder, after all files were found to be those that it names; ArtefactError otherwise."""
    path = folder / CARD
    if not path.is_file():
        raise ArtefactError(f"{folder}: not a release folder: there is no {CARD} in it")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path}: damaged: {error}") from error
    if not isinstance(card, dict) or card.get("kind") != KIND:
        raise ArtefactError(f"{path}: not the card of a cross-section release")
    version = card.get("format")
    if not isinstance(version, int) or version < 1:
        raise ArtefactError(f"{path}: there is no format version; got {version!r}")
    if version > FORMAT:
        raise ArtefactError(f"{path}: format {version}; this pofx reads formats up to {FORMAT}: upgrade pofx")
    if card.pop("sha256", None) != _seal(card):
        raise ArtefactError(f"{path}: damaged or edited: it does not have the sha256 that it was sealed with")
    for name, expected in card["files"].items():
        _check_file(folder, name, expected)
    return card


def _check_file(folder: Path, name: str, expected: str) -> None:
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise ArtefactError(f"{folder}: the file {name!r}, which {CARD} names, is missing")
    if (found := _sha256(path.read_bytes())) != expected:
        raise ArtefactError(f"{path}: damaged or edited: its sha256 is {found}; {CARD} says {expected}")


def write_measurement(folder: Path, measured: Measured) -> None:
    """``measurement.csv``, ``covariance.csv``, ``measurement.h5``, and ``smearing.csv`` if there is a smearing matrix."""
    import h5py

    head = [
        "bin",
        "unit",
        *(f"{name}{end}" for name in measured.edges for end in ("_low", "_high")),
        "central",
        "error",
    ]
    edges = np.concatenate([*measured.edges.values(), np.zeros((len(measured), 0))], axis=1)
    numbers = np.column_stack([edges, measured.central, measured.errors])
    rows = ([c.name, c.unit, *row] for c, row in zip(measured.columns, numbers.tolist(), strict=True))
    write_rows(folder / "measurement.csv", head, rows)
    write_rows(folder / "covariance.csv", measured.names, measured.covariance.tolist())
    if measured.smearing is not None:
        write_rows(
            folder / "smearing.csv", [f"true{i}" for i in range(measured.smearing.shape[1])], measured.smearing.tolist()
        )
    with h5py.File(folder / MEASUREMENT, "w") as file:
        file.attrs.update(title=measured.title, unit=measured.unit)
        file["central"], file["covariance"] = measured.central, measured.covariance
        file["bins"] = np.array(measured.names, dtype=h5py.string_dtype())
        file["units"] = np.array([column.unit for column in measured.columns], dtype=h5py.string_dtype())
        for name, pairs in measured.edges.items():
            file[f"edges/{name}"] = pairs
        if measured.smearing is not None:
            file["smearing"] = measured.smearing


def write_rows(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV; numbers with all their digits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([[repr(cell) if isinstance(cell, float) else cell for cell in row] for row in rows])


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV by column name."""
    head, rows = read_table(path)
    return [dict(zip(head, row, strict=True)) for row in rows]


def read_predictions(path: str | os.PathLike[str], names: Sequence[str] | None, bins: int) -> dict[str, Floats]:
    """Predictions by name ``{name: (bins,)}``, of a table with one row per prediction and one column per bin.

    A CSV may have a first column of names. If it has a header (and in HDF5, npz, Parquet and ROOT tables), columns are found by the names
    of the bins, in any order; without one, or with ``names=None``, they are taken in their order. HDF5 and npz may hold an array
    ``predictions`` ``(n, bins)`` instead.

    Raises
    ------
    ShapeError naming both numbers of bins; ColumnError naming the missing bins; FormatError.
    """
    full = existing(path)
    if sniff(full) == "csv":
        head, rows, labels = _text_predictions(full)
    else:
        head, rows, labels = _binary_predictions(full, sniff(full))
    if rows.shape[1] != bins:
        raise ShapeError(f"{path}: expected {bins} bins per prediction, as the measurement has; got {rows.shape[1]}")
    if head and names is not None:
        missing = [name for name in names if name not in head]
        if missing:
            raise ColumnError(
                f"{path}: expected one column per bin; {len(missing)} are missing, first {missing[0]!r} (the file has {head[0]!r}, ...)"
            )
        rows = rows[:, [head.index(name) for name in names]]
    return dict(zip(labels, rows, strict=True))


def _text_predictions(path: Path) -> tuple[list[str], Floats, list[str]]:
    head, cells = read_table(path)
    if not cells:
        raise FormatError(f"{path}: expected at least one prediction; there is only a header")
    named = head[0] == "prediction" or not is_number(cells[0][0])
    labels = [row[0] for row in cells] if named else [f"prediction {i}" for i in range(len(cells))]
    if len(set(labels)) < len(labels):
        raise FormatError(f"{path}: two predictions have the same name")
    with guard(path, "a table of predictions"):
        rows = np.array([[float(cell) for cell in row[named:]] for row in cells])
    return ([] if head == [str(i) for i in range(len(head))] else head[named:]), rows, labels


def _binary_predictions(path: Path, kind: str) -> tuple[list[str], Floats, list[str]]:
    if kind in ("hdf5", "npz") and "predictions" in arrays_in(path, kind):
        rows, head = array_in(path, kind, "predictions", 2), []
    else:
        from pofx.data.reading import read

        data = read(path)
        rows, head = np.asarray(data.arrays().x, np.float64), list(data.names)
    return head, rows, [f"prediction {i}" for i in range(len(rows))]


def _seal(card: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(card, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
