"""HepMC3 in ASCII: what the reference library writes, round trips, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pofx
from pofx.data import ReadOptions
from pofx.errors import CapabilityError, FormatError

# by the Python bindings of the reference library (pyhepmc 2.16), zeros at the ends of numbers left out
TEXT = """\
HepMC::Version 3.02.05
HepMC::Asciiv3-START_EVENT_LISTING
W nominal\\|up
E 0 2 5
U GEV MM
W 5.0e-01 2.0
P 1 0 2212 0.0 0.0 7.0e+03 7.0e+03 0.0 4
P 2 0 2212 0.0 0.0 -7.0e+03 7.0e+03 0.0 4
V -1 0 [1,2]
P 3 -1 23 1.5 2.25 -3.0 5.0 2.9474565306378988e+00 2
V -2 0 [3] @ 1.0 2.0 3.0 4.0
P 4 -2 11 1.0 5.0e-01 -1.0 2.0 1.3228756555322954e+00 1
P 5 -2 -11 5.0e-01 1.75 -2.0 3.0 1.2990381056766580e+00 1
E 1 2 5
U MEV MM
W 1.5 2.0
P 1 0 2212 0.0 0.0 7.0e+06 7.0e+06 0.0 4
P 2 0 2212 0.0 0.0 -7.0e+06 7.0e+06 0.0 4
V -1 0 [1,2]
P 3 -1 23 1.5e+03 2.25e+03 -3.0e+03 5.0e+03 2.9474565306378990e+03 2
V -2 0 [3] @ 1.0 2.0 3.0 4.0
P 4 -2 11 1.0e+03 5.0e+02 -1.0e+03 2.0e+03 1.3228756555322952e+03 1
P 5 -2 -11 5.0e+02 1.75e+03 -2.0e+03 3.0e+03 1.2990381056766580e+03 1
HepMC::Asciiv3-END_EVENT_LISTING
"""


def file(tmp_path: Path, text: str = TEXT, name: str = "a.hepmc") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_read(tmp_path: Path) -> None:
    data = pofx.read(file(tmp_path))
    events = data.arrays()
    np.testing.assert_array_equal(events.weight, [0.5, 1.5])
    assert events.mask.all()
    np.testing.assert_array_equal(events.x[0, 2], [1.5, 2.25, -3.0, 5.0, 23.0, 2.0])
    np.testing.assert_allclose(events.x[1], events.x[0], rtol=1e-12)  # MeV
    assert data.spec["particles"].columns[3].unit == "GeV"
    assert pofx.read(tmp_path / "a.hepmc", options=ReadOptions(points=2)).spec["particles"].shape == (2, 6)


def test_final_state(tmp_path: Path) -> None:
    events = pofx.read(file(tmp_path), key="final").arrays()
    np.testing.assert_array_equal(events.x[..., 4], [[11.0, -11.0]] * 2)
    text = str(pofx.data.describe(tmp_path / "a.hepmc"))
    assert "final" in text
    assert "2 x 5 x 6" in text
    with pytest.raises(FormatError, match="expected key 'particles' or 'final'"):
        pofx.read(tmp_path / "a.hepmc", key="jets")


@pytest.mark.parametrize("name", ["b.hepmc", "b.hepmc3", "b.hepmc.gz"])
@pytest.mark.parametrize("key", ["particles", "final"])
def test_round_trip(tmp_path: Path, name: str, key: str) -> None:
    data = pofx.read(file(tmp_path), key=key, options=ReadOptions(stream=True))
    after, before = pofx.read(pofx.write(tmp_path / name, data)).arrays(), data.arrays()
    np.testing.assert_array_equal(after.x, before.x)
    np.testing.assert_array_equal(after.mask, before.mask)
    np.testing.assert_array_equal(after.weight, before.weight)
    with pytest.raises(CapabilityError, match="px, py, pz, e, pid, status"):
        pofx.write(tmp_path / "c.hepmc", np.eye(3))


def test_without_weights_and_particles(tmp_path: Path) -> None:
    lines = [line for line in TEXT.splitlines() if not line.startswith("W ")]
    np.testing.assert_array_equal(pofx.read(file(tmp_path, "\n".join(lines))).arrays().weight, [1.0, 1.0])
    empty = (
        "HepMC::Version 3.2\nHepMC::Asciiv3-START_EVENT_LISTING\nE 7 0 0\nU GEV MM\nHepMC::Asciiv3-END_EVENT_LISTING\n"
    )
    assert not pofx.read(file(tmp_path, empty)).arrays().mask.any()


def test_cut_anywhere(tmp_path: Path) -> None:
    """Every truncation is refused in words."""
    for end in range(1, TEXT.rindex("HepMC::Asciiv3-END") + 30, 29):
        with pytest.raises(FormatError):
            pofx.read(file(tmp_path, TEXT[:end]))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("E 0 2 5", "E 0 2 6", "expected 6 particles and at most 2 vertices; got 5 and 2"),
        ("E 0 2 5", "E 0 1 5", "at most 1 vertices"),
        ("E 0 2 5", "E 0 x 5", "line 4: expected 3 numbers"),
        ("U GEV MM", "U TEV MM", "line 5: expected units GEV or MEV"),
        ("P 4 -2 11 1.0", "P 4 -2 11 one", "line 12: expected 9 numbers"),
        ("V -1 0 [1,2]", "Q -1 0 [1,2]", "line 9: expected a line of an event"),
        ("HepMC::Asciiv3-START", "HepMC::IO_GenEvent-START", "expected HepMC3 events"),
        ("HepMC::Asciiv3-START_EVENT_LISTING\n", "", "this is no HepMC3 file"),
    ],
)
def test_damage(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(FormatError, match=words):
        pofx.read(file(tmp_path, TEXT.replace(old, new, 1)))


def test_foreign(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="the name says hepmc"):
        pofx.read(file(tmp_path, "<LesHouchesEvents>"))
    with pytest.raises(FormatError, match="the file is empty"):
        pofx.read(file(tmp_path, ""))
    with pytest.raises(pofx.errors.NonFiniteError, match="row 0"):
        pofx.read(file(tmp_path, TEXT.replace("P 4 -2 11 1.0", "P 4 -2 11 nan", 1)))
