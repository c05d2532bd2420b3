"""What the verbs of the command line share: groups of options, settings as ``key=value``, and errors as one line and an exit code.

============  =====================================================================
exit code     meaning
============  =====================================================================
0             done
2             the user's input, files or machine (disk full) are at fault; one line says how
70            a fault of pofx itself; one line asks for a report
130           interrupted (Ctrl-C)
============  =====================================================================
"""

from __future__ import annotations

import ast
import inspect
import logging
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import typer

from pofx.errors import ConfigError, PofxError, PofxWarning

__all__ = [
    "EXIT_INTERNAL",
    "EXIT_INTERRUPT",
    "EXIT_USER",
    "check_folder",
    "check_new",
    "command_line",
    "console",
    "grouped",
    "guarded",
    "settings",
    "splitted",
]

EXIT_USER, EXIT_INTERNAL, EXIT_INTERRUPT = 2, 70, 130

USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
"""click's ClickException, of whichever click (its own, or the package) this version of typer is built on."""

logger = logging.getLogger("pofx")


def guarded(run: Callable[[], Any], *, debug: bool) -> int:
    """Call ``run``; every exception becomes one line on stderr and an exit code, unless ``debug`` asks for the traceback."""
    try:
        code = int(run() or 0)
        return _fail("interrupted", code, False) if code == EXIT_INTERRUPT else code
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", EXIT_INTERRUPT, debug)
    except USAGE_ERROR as error:
        return _fail(f"{error.format_message()} (see: pofx --help)", EXIT_USER, debug)
    except PofxError as error:
        return _fail(str(error), EXIT_USER, debug)
    except OSError as error:
        return _fail(
            f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error), EXIT_USER, debug
        )
    except MemoryError:
        return _fail("out of memory", EXIT_USER, debug)
    except Exception as error:  # noqa: BLE001 (the one place where everything ends)
        return _fail(
            f"internal error, please report it ({type(error).__name__}: {error}); rerun with --debug for details",
            EXIT_INTERNAL,
            debug,
        )


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.echo(f"pofx: error: {_line(message)}", err=True)
    return code


def _line(message: str) -> str:
    return " ".join(part.strip() for part in message.splitlines() if part.strip())


@contextmanager
def console(verbose: bool) -> Iterator[None]:
    """Warnings and pofx's log messages as single lines on stderr, while entered."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("pofx: %(message)s"))
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", PofxWarning)
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])


def _show_warning(message: Warning | str, *_: Any) -> None:
    typer.echo(f"pofx: warning: {_line(str(message))}", err=True)


# ---------------------------------------------------------------------- options


def grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take dataclasses whose fields are annotated options: typer sees the fields, the command gets the objects."""
    signature = inspect.signature(function, eval_str=True)
    plain: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            plain += _options(parameter.annotation)
        else:
            plain.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def command(**values: Any) -> Any:
        made = {name: kind(**{f.name: values.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        return function(**values, **made)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in plain}
    return command


def _options(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for item in fields(kind):
        default = inspect.Parameter.empty if item.default is MISSING else item.default
        yield inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[item.name])


def splitted(values: Iterable[str] | None) -> list[str] | None:
    """Options that may be repeated and may hold commas, as one list; None stays None.

    >>> splitted(["pt,eta", "phi"])
    ['pt', 'eta', 'phi']
    """
    return (
        None
        if values is None
        else [part.strip() for value in values for part in value.split(",") if part.strip()] or None
    )


def check_new(path: Path, force: bool) -> None:
    """Refuse, before any work is done, a file that exists (unless ``force``) or whose folder does not."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected the name of a file to write")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already; choose another name, or overwrite it with --force")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")


def check_folder(out: Path, force: bool) -> None:
    """Refuse, before any work is done, a folder that has files already (unless ``force``), or a file."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; expected the name of a folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConfigError(f"{out} has files already; choose another folder, or write into it with --force")


def command_line() -> str:
    """The command as it was given, to be quoted in a report."""
    return " ".join(["pofx", *map(shlex.quote, sys.argv[1:])])


# ---------------------------------------------------------------------- key=value


def settings(config: Any, pairs: Iterable[str], option: str) -> Any:
    """A copy of a frozen dataclass with ``key=value`` applied; dots reach into nested ones.

    Raises ConfigError for unknown keys (naming the valid ones), for values of another type, and for what the class itself refuses.
    """
    tree: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"{option}: expected key=value; got {pair!r}")
        *outer, last = key.strip().replace("-", "_").split(".")
        branch = tree
        for name in outer:
            branch = branch.setdefault(name, {}) if isinstance(branch.get(name, {}), dict) else {}
        branch[last] = text.strip()
    return _changed(config, tree, option) if tree else config


def _changed(config: Any, tree: Mapping[str, Any], option: str) -> Any:
    """All changes at once, because settings may only make sense together."""
    known = {item.name: item for item in fields(config) if item.init}
    changes = {}
    for name, wanted in tree.items():
        if name not in known:
            listing = ", ".join(f"{key}={getattr(config, key)!r}" for key in known)
            raise ConfigError(
                f"{option}: {type(config).__name__} has no setting {name!r}; valid, with the values in use: {listing}"
            )
        now = getattr(config, name)
        if isinstance(wanted, dict) and not is_dataclass(now):
            raise ConfigError(f"{option}: {name} of {type(config).__name__} is {now!r} and has no settings of its own")
        declared = str(known[name].type)
        nested = isinstance(wanted, dict)
        changes[name] = _changed(now, wanted, option) if nested else _value(now, wanted, declared, f"{option} {name}")
    try:
        return replace(config, **changes)
    except TypeError as error:
        raise ConfigError(f"{option}: {tree} does not suit {type(config).__name__}: {error}") from error


def _value(now: Any, text: str, declared: str, where: str) -> Any:
    """What ``text`` means for a setting that is ``now``: numbers, true and false, none, tuples; text where text is declared."""
    words: Mapping[str, Any] = {"true": True, "false": False, "none": None}
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text if isinstance(now, str) else words.get(text.lower(), text)
    if isinstance(now, str) and not isinstance(value, str):
        value = text if declared == "str" else value
    textual = isinstance(now, str) or any(word in declared for word in ("str", "Literal", "Path"))
    if isinstance(value, str) and not textual:
        raise ConfigError(f"{where}: expected a value like {now!r}; got {text!r}")
    return tuple(value) if isinstance(value, list) else value
