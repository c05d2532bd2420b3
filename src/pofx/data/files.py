"""Paths and formats: which format a file has by its name and by its first bytes, and errors that every reader shares."""

from __future__ import annotations

import gzip
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pofx.data.patterns import close
from pofx.errors import FormatError, PofxError

__all__ = ["FORMATS", "Spool", "atomic", "existing", "format_by_name", "guard", "sniff"]

FORMATS = {
    ".npz": "npz", ".npy": "npy", ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".dat": "csv",
    ".parquet": "parquet", ".pq": "parquet", ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".root": "root",
    ".lhe": "lhe", ".lhe.gz": "lhe", ".hepmc": "hepmc", ".hepmc3": "hepmc", ".hepmc.gz": "hepmc", ".hepmc3.gz": "hepmc",
    ".yaml": "hepdata", ".yml": "hepdata",
}  # fmt: skip
"""Format by extension."""

_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "hdf5", b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"PAR1": "parquet", b"root": "root",
    b"\xff\xd8\xff": "JPEG image", b"\x89PNG": "PNG image", b"GIF8": "GIF image", b"%PDF": "PDF document", b"\x1f\x8b": "gzip",
    b"\x80\x04": "pickle", b"\x80\x05": "pickle", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x7fELF": "program", b"\x28\xb5\x2f\xfd": "zstd",
}  # fmt: skip


def format_by_name(path: Path) -> str:
    """The format that the extension stands for, or an error that lists the known ones."""
    ending = _ending(path)
    if ending not in FORMATS:
        known = ", ".join(sorted(FORMATS))
        raise FormatError(f"{path}: unknown extension {ending!r}; expected one of {known}")
    return FORMATS[ending]


def _ending(path: Path) -> str:
    """The extension, with the one before it where that is of a compressed file."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last == ".gz" else last


def existing(path: str | os.PathLike[str]) -> Path:
    """The path of a file that is there; close names are suggested where it is not."""
    try:
        full = Path(path).expanduser()
        if full.is_dir():
            raise FormatError(f"{path}: is a directory; expected a file")
        if not full.exists():
            folder = full.parent
            if not folder.is_dir():
                raise FormatError(f"{path}: no such file; the folder {str(folder)!r} does not exist")
            names = [entry.name for entry in folder.iterdir() if _ending(entry) in FORMATS]
            raise FormatError(f"{path}: no such file; {close(full.name, names[:1000])}")
    except (OSError, ValueError) as error:
        if isinstance(error, PofxError):
            raise
        raise FormatError(f"{path!r}: cannot be looked at: {error}") from None
    return full


def sniff(path: Path) -> str:
    """The format of an existing file: its extension, which the first bytes must not contradict."""
    named = format_by_name(path)
    with guard(path, named):
        head = _unpacked(path) if path.suffix.lower() == ".gz" else _bytes_at(path, 0, 64)
    if not head:
        raise FormatError(f"{path}: the file is empty")
    found = next((what for magic, what in _MAGIC.items() if head.startswith(magic)), "")
    user_block = named == "hdf5" and b"\x89HDF\r\n\x1a\n" in [_bytes_at(path, k, 8) for k in (512, 1024, 2048)]
    if (
        found == named
        or user_block
        or (named in ("csv", "hepdata") and not found)
        or (named == "lhe" and head.lstrip().startswith(b"<"))
        or (named == "hepmc" and head.lstrip().startswith(b"HepMC"))
    ):
        return named
    looks = f"looks like {found}" if found else f"does not begin as {named} does"
    hint = f"; if it is {found}, rename it" if found in FORMATS.values() else "; is it damaged, or something else?"
    raise FormatError(f"{path}: the name says {named}, but the content {looks}{hint}")


def _unpacked(path: Path) -> bytes:
    with gzip.open(path) as file:
        return file.read(64)


def _bytes_at(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)


@contextmanager
def guard(path: Path, what: str) -> Iterator[None]:
    """Every error names the file, and whatever a library makes of a damaged or foreign file comes out as a ``FormatError``."""
    try:
        yield
    except PofxError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except PermissionError:
        raise FormatError(f"{path}: no permission to read or write this file") from None
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0][:300]
        raise FormatError(
            f"{path}: cannot be used as {what} (damaged or truncated?): {type(error).__name__}: {line}"
        ) from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside the target; on success it replaces the target, otherwise it goes."""
    if path.is_dir():
        raise FormatError(f"{path}: is a directory; expected the name of a file to write")
    if not path.parent.is_dir():
        raise FormatError(f"{path}: cannot be written; the folder {str(path.parent)!r} does not exist")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with guard(path, "a file to write"):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Spool:
    """Blocks of rows written once to a temporary file, which goes with this object; ``array`` maps it, shape ``(n, width)``."""

    def __init__(self, blocks: Iterable[Any], width: int) -> None:
        handle, name = tempfile.mkstemp(suffix=".pofx")
        self._finalizer = weakref.finalize(self, _remove, name)
        with os.fdopen(handle, "wb") as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block, np.float64).tobytes())
        empty = Path(name).stat().st_size == 0
        self.array = np.empty((0, width)) if empty else np.memmap(name, np.float64, "r").reshape(-1, width)


def _remove(name: str) -> None:
    Path(name).unlink(missing_ok=True)
