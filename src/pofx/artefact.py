"""The file of a saved model: an uncompressed zip of a card and two sets of tensors, without pickle.

==========================  =================================================================================================
``card.json``               what the model is: format version, config, columns, preprocessing, training record, checksums
``weights.safetensors``     every number that preprocessing and training set, each in its own precision
``validation.safetensors``  noise, the events that it decodes to, their contexts and their log_prob, which :func:`load` recomputes
==========================  =================================================================================================

The comment of the zip holds the sha256 of all bytes before it, so that one flipped bit anywhere is noticed. The same model always
gives the same bytes. Families are found through :mod:`pofx.registry`: nothing here imports one.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pofx.errors import ArtefactError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMAT",
    "Artefact",
    "atomic",
    "is_artefact",
    "load",
    "read_artefact",
    "read_card",
    "weights_hash",
    "write_artefact",
]

FORMAT = 1
"""Version of the file format that this pofx writes, and the newest one that it reads."""

CARD, WEIGHTS, VALIDATION = "card.json", "weights.safetensors", "validation.safetensors"
SEAL = b"pofx sha256 "
DIGITS = 64


@dataclass(frozen=True)
class Artefact:
    """What a file holds, checked against its checksums and not yet a model."""

    card: dict[str, Any]
    weights: dict[str, Tensor]
    validation: dict[str, Tensor]


def load(path: str | Path, device: str = "cpu") -> Any:
    """Read a saved model and check that it still gives the numbers that it gave when it was saved.

    Parameters
    ----------
    path : a file that :meth:`pofx.Model.save` wrote.
    device : where the model is put; the check runs on the CPU.

    Returns
    -------
    :class:`pofx.Model`

    Raises
    ------
    ArtefactError : the file is absent, foreign, truncated, damaged, of a newer format, of an unknown family, or does not reproduce its
        own validation vectors; the message says which, and by how much.

    >>> model = load("toys.pofx")  # doctest: +SKIP
    """
    return importlib.import_module("pofx.models.saving").restore(read_artefact(path), path, device)


def read_card(path: str | Path) -> dict[str, Any]:
    """The card alone, without torch; ArtefactError as :func:`load` for what is no intact file of a model."""
    return _open(path, _sealed_card)


def read_artefact(path: str | Path) -> Artefact:
    """Card and tensors, all checksums verified; see :func:`load` for the errors."""
    return _open(path, _whole)


def write_artefact(
    path: str | Path, card: Mapping[str, Any], weights: Mapping[str, Tensor], validation: Mapping[str, Tensor]
) -> None:
    """Write a file atomically; the same arguments give the same bytes.

    ``card`` gets the format version and the sha256 of the weights and of the validation vectors, whatever it said about them before.
    """
    members = {WEIGHTS: _pack(weights), VALIDATION: _pack(validation)}
    own = {key: value for key, value in card.items() if key not in ("format", "sha256", "validation")}
    check = {**card.get("validation", {}), "sha256": hashlib.sha256(members[VALIDATION]).hexdigest()}
    full = {"format": FORMAT, "sha256": hashlib.sha256(members[WEIGHTS]).hexdigest(), **own, "validation": check}
    data = _sealed({CARD: _to_json(full), **members})
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """The sha256 that the card of a model with these weights carries: the identity of a model."""
    return hashlib.sha256(_pack(weights)).hexdigest()


def is_artefact(path: str | Path) -> bool:
    """Whether a file looks like a saved model (an intact one or not), rather than like data."""
    if Path(path).suffix == ".pofx":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return CARD in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it takes its place when the block ends well, and vanishes when it does not.

    The file is synchronised to disk before it is renamed, so that a power cut leaves either the old file or the new one.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        _synchronise(temporary)
        temporary.replace(path)
        _synchronise(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    """fsync of a file or, where the system can, of a folder."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------------- reading


def _open(path: str | Path, read: Any) -> Any:
    """``read(archive, path)``, where every surprise inside the file is an ArtefactError."""
    try:
        with Path(path).open("rb") as file:
            return _parse(file, Path(path), read)
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read as a saved model: {error.strerror or error}") from error


def _parse(file: Any, path: Path, read: Any) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            return read(archive, path)
    except ArtefactError:
        raise
    except Exception as error:  # a damaged zip raises a dozen kinds of errors
        raise ArtefactError(f"{path}: not a saved model of pofx, or a damaged or truncated one ({error})") from error


def _card_of(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    card = _from_json(_member(archive, CARD, path), path)
    version = card.get("format")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ArtefactError(f"{path}: {CARD} has no format version; got {version!r}")
    if version > FORMAT:
        raise ArtefactError(
            f"{path}: saved in format {version} by pofx {card.get('pofx')}; "
            f"this is {_version()}, which reads formats up to {FORMAT}: upgrade pofx"
        )
    return card


def _sealed_card(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    card = _card_of(archive, path)
    _check_seal(path)
    return card


def _whole(archive: zipfile.ZipFile, path: Path) -> Artefact:
    card = _sealed_card(archive, path)
    packed = {name: _member(archive, name, path) for name in (WEIGHTS, VALIDATION)}
    check = card.get("validation")
    expected = {WEIGHTS: card.get("sha256"), VALIDATION: check.get("sha256") if isinstance(check, dict) else None}
    for name, data in packed.items():
        found = hashlib.sha256(data).hexdigest()
        if found != expected[name]:
            raise ArtefactError(
                f"{path}: {name} has the sha256 {found}; the card says {expected[name]}: one of the two was changed"
            )
    return Artefact(card, _unpack(packed[WEIGHTS]), _unpack(packed[VALIDATION]))


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    if name not in archive.namelist():
        raise ArtefactError(
            f"{path}: not a saved model of pofx: the file has no {name} (it has {', '.join(archive.namelist()[:5]) or 'nothing'})"
        )
    return archive.read(name)


def _check_seal(path: Path) -> None:
    data = path.read_bytes()
    body, seal = data[:-DIGITS], data[-DIGITS:]
    if not body.endswith(SEAL):
        raise ArtefactError(f"{path}: damaged, truncated, or packed again by another program: its seal is missing")
    if hashlib.sha256(body).hexdigest().encode() != seal:
        raise ArtefactError(f"{path}: damaged or edited: its bytes do not have the sha256 that it was sealed with")


def _unpack(data: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load as parse

    return parse(data)


# ---------------------------------------------------------------------- writing


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    """safetensors; clones, because tied weights share memory, which safetensors refuses."""
    from safetensors.torch import save as dump

    return dump({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})


def _sealed(members: Mapping[str, bytes]) -> bytes:
    """A zip with fixed dates, whose comment ends in the sha256 of everything before it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, data)
        archive.comment = SEAL + b"0" * DIGITS
    body = buffer.getvalue()[:-DIGITS]
    return body + hashlib.sha256(body).hexdigest().encode()


def _to_json(card: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(_strict(card), indent=2, ensure_ascii=False, allow_nan=False).encode()
    except TypeError as error:
        raise ArtefactError(f"the card of a model holds what JSON cannot say: {error}") from error


def _strict(value: Any) -> Any:
    """JSON has neither infinities nor NaN nor numpy's numbers: the former become ``{"float": "inf"}``."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):  # numpy, torch
        return _strict(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        card = json.loads(data.decode(), object_hook=_float)
    except ValueError as error:
        raise ArtefactError(f"{path}: {CARD} is not JSON: {error}") from error
    if not isinstance(card, dict):
        raise ArtefactError(f"{path}: expected an object in {CARD}; got a {type(card).__name__}")
    return card


def _float(plain: dict[str, Any]) -> Any:
    return float(plain["float"]) if set(plain) == {"float"} and isinstance(plain["float"], str) else plain


def _version() -> str:
    return f"pofx {importlib.import_module('pofx').__version__}"
