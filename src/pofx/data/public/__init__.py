"""Public formats of the field: data sets that others have published are read, and written, with their names, shapes and units.

``pofx.read`` and ``pofx info`` recognise them by the arrays that a file holds; ``ReadOptions(format=name)`` insists on one, and says what
does not fit. ``pofx.write(path, data, format=name)`` writes one.

>>> "calogan" in format_names()
True
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

from pofx.data.layout import Stored
from pofx.data.options import Request
from pofx.data.patterns import close
from pofx.data.public.base import PublicFormat
from pofx.errors import ConfigError

__all__ = ["format_named", "format_names", "format_table", "public_format", "public_tree", "recognised"]

_HOMES: dict[str, str] = {
    "calogan": "pofx.data.public.calogan:CaloGAN",
    "calochallenge-1-photons": "pofx.data.public.calochallenge:CaloChallengePhotons",
    "calochallenge-1-pions": "pofx.data.public.calochallenge:CaloChallengePions",
    "calochallenge-2": "pofx.data.public.calochallenge:CaloChallenge2",
    "calochallenge-3": "pofx.data.public.calochallenge:CaloChallenge3",
    "getting-high": "pofx.data.public.ild:GettingHigh",
    "convl2lflow": "pofx.data.public.ild:ConvL2LFlow",
    "caloclouds": "pofx.data.public.clouds:CaloClouds",
    "jetnet": "pofx.data.public.clouds:JetNet",
    "lhco-features": "pofx.data.public.lhco:LHCOFeatures",
    "lhco-raw": "pofx.data.public.lhco:LHCORaw",
    "lhco-dijets": "pofx.data.public.lhco:LHCODijets",
    "lagan": "pofx.data.public.lagan:LAGAN",
    "omnifold": "pofx.data.public.omnifold:OmniFold",
    "omnifold-table": "pofx.data.public.omnifold:OmniFoldTable",
    "nu-flows": "pofx.data.public.neutrinos:NuFlows",
    "nu2-flows": "pofx.data.public.neutrinos:NuTwoFlows",
    "pilarnet-m": "pofx.data.public.pilarnet:PILArNet",
    "jetclass": "pofx.data.public.trees:JetClass",
    "nanoaod": "pofx.data.public.trees:NanoAOD",
    "edm4hep": "pofx.data.public.trees:EDM4hep",
}


def format_names() -> tuple[str, ...]:
    """All names."""
    return tuple(_HOMES)


def format_named(name: str) -> PublicFormat:
    """The format of a name; ConfigError with the nearest names otherwise."""
    if name not in _HOMES:
        raise ConfigError(f"no public format is called {name!r}; {close(name, _HOMES)}")
    module, _, attribute = _HOMES[name].partition(":")
    found: PublicFormat = getattr(importlib.import_module(module), attribute)()
    return found


def public_tree(trees: Sequence[str]) -> str | None:
    """The tree to read of a file that holds several, if they are those of a public format."""
    known = (format_named(name).trees for name in _HOMES)
    return next((names[0] for names in known if len(names) > 1 and set(names) <= set(trees)), None)


def recognised(container: str, stored: Mapping[str, Stored]) -> PublicFormat | None:
    """The format of a file that holds these arrays; None for a file of no public format."""
    known = (format_named(name) for name in _HOMES)
    return next((form for form in known if form.container == container and form.recognises(stored)), None)


def public_format(container: str, stored: Sequence[Stored], request: Request) -> PublicFormat | None:
    """What a file is read as: the format that was asked for, else the one that is recognised, unless a key was given."""
    wanted = request.options.format
    if wanted not in (None, "none"):
        return format_named(str(wanted))
    return None if request.key or wanted else recognised(container, {array.name: array for array in stored})


def format_table() -> str:
    """All formats as a Markdown table: name, container, what an event becomes, units, reference.

    >>> print(format_table().splitlines()[0])
    | format | what | container | becomes | units | reference |
    """
    head = ("format", "what", "container", "becomes", "units", "reference")
    known = [format_named(name) for name in _HOMES]
    rows = [(f"`{f.name}`", f.title, f.container, f.becomes, f.units, f.reference) for f in known]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
