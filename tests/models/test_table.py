"""The table of families, against the declarations that it is read from and against what fit does."""

from __future__ import annotations

import numpy as np
import pytest

import pofx
from pofx import registry
from pofx.data.spec import Axis, Column, Field
from pofx.errors import CapabilityError
from pofx.models.table import COLUMNS, KINDS, capability_row, capability_table

NAMES = registry.family_names()
UNDECLARED = [(name, kind) for name in NAMES for kind in KINDS if not capability_row(name)[kind]]
FIELDS = {
    "grid": Field("grid", (1, 2, 2), (Column("energy"),), (Axis("phi", 2, periodic=True), Axis("z", 2))),
    "cloud": Field("cloud", (3, 1), (Column("pt"),)),
}


def test_row() -> None:
    row = capability_row("flow-matching")
    assert tuple(row) == COLUMNS
    assert [row[kind] for kind in KINDS] == ["yes", "yes", "yes"]
    assert (row["density"], row["context"], row["teacher"]) == ("exact", "vector, cloud", "")


def test_every_family_is_in_both_styles() -> None:
    text, markdown = capability_table(), capability_table("markdown")
    names = registry.family_names()  # other tests register families of their own
    assert [line.split()[0] for line in text.splitlines()[1:]] == list(names)
    assert len(markdown.splitlines()) == 2 + len(names)
    assert all(f"[`{name}`]({name}.md)" in markdown for name in NAMES)


def test_a_family_that_cannot_be_imported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._FAMILIES, "elsewhere", "no_such_module:Family")
    line = capability_table(names=["elsewhere"]).splitlines()[1]
    assert "not available: No module named 'no_such_module'" in line


@pytest.mark.parametrize(("name", "kind"), UNDECLARED)
def test_an_undeclared_kind_is_refused(name: str, kind: str) -> None:
    """What the table leaves empty raises the typed error, before any training."""
    family = registry.family_class(name)
    config = {"stages": (pofx.Gaussian(),)} if name == "chain" else {}
    data = pofx.Dataset.from_arrays(
        {"x": np.random.default_rng(1).normal(size=(50, *FIELDS[kind].shape))}, columns={"x": FIELDS[kind]}
    )
    teacher = pofx.Gaussian().fit(np.eye(5)[:, :2] + np.arange(5)[:, None]) if family.capabilities.teacher else None
    with pytest.raises(CapabilityError, match=f"is a {kind}"):
        family(**config).fit(data, teacher=teacher)
