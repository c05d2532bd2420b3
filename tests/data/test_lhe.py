"""Les Houches event files: what a generator writes, round trips, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pofx
from pofx.data import ReadOptions
from pofx.errors import CapabilityError, FormatError

TEXT = """<LesHouchesEvents version="3.0">
<!-- a comment -->
<header>
anything
</header>
<init>
2212 2212 6.5D+03 6.5E+03 0 0 247000 247000 -4 1
5.0E+02 1.0E+00 5.0E+02 1
</init>
<event>
4 1 -2.5E+00 9.1E+01 7.5E-03 1.2E-01
 2 -1 0 0 501 0 0.0 0.0 50.0 50.0 0.0 0. 9.
 -2 -1 0 0 0 501 0.0 0.0 -40.0 40.0 0.0 0. 9.
 11 1 1 2 0 0 3.0E+01 0.0 5.0 46.0 0.000511 0. 9.
 -11 1 1 2 0 0 -30.0 0.0 5.0 44.0 0.000511 0. 9.
#aMCatNLO 1 2 3
<rwgt><wgt id='1'> 1.0 </wgt></rwgt>
</event>
<event>
1 1 3.5 0 0 0
 22 1 0 0 0 0 0.0 1.0 0.0 1.0 0.0 0. 9.
</event>
</LesHouchesEvents>
"""


def file(tmp_path: Path, text: str = TEXT) -> Path:
    path = tmp_path / "a.lhe"
    path.write_text(text)
    return path


def test_read(tmp_path: Path) -> None:
    data = pofx.read(file(tmp_path))
    events = data.arrays()
    np.testing.assert_array_equal(events.weight, [-2.5, 3.5])
    np.testing.assert_array_equal(events.mask, [[True] * 4, [True, False, False, False]])
    np.testing.assert_array_equal(events.x[0, 2], [30.0, 0.0, 5.0, 46.0, 11.0, 1.0])
    np.testing.assert_array_equal(events.x[1, 0], [0.0, 1.0, 0.0, 1.0, 22.0, 1.0])
    assert data.spec["particles"].columns[3].unit == "GeV"
    assert pofx.read(tmp_path / "a.lhe", options=ReadOptions(points=2)).spec["particles"].shape == (2, 6)
    assert "particles" in str(pofx.data.describe(tmp_path / "a.lhe"))


@pytest.mark.parametrize("stream", [False, True])
def test_round_trip(tmp_path: Path, stream: bool) -> None:
    data = pofx.read(file(tmp_path), options=ReadOptions(stream=stream))
    after = pofx.read(pofx.write(tmp_path / "b.lhe", data)).arrays()
    before = data.arrays()
    np.testing.assert_array_equal(after.x, before.x)
    np.testing.assert_array_equal(after.mask, before.mask)
    np.testing.assert_array_equal(after.weight, before.weight)
    with pytest.raises(CapabilityError, match="px, py, pz, e, pid, status"):
        pofx.write(tmp_path / "c.lhe", np.eye(3))


def test_compressed(tmp_path: Path) -> None:
    data = pofx.read(file(tmp_path))
    packed = pofx.write(tmp_path / "b.lhe.gz", data)
    assert packed.read_bytes()[:2] == b"\x1f\x8b"
    np.testing.assert_array_equal(pofx.read(packed).arrays().x, data.arrays().x)
    assert "particles" in str(pofx.data.describe(packed))
    whole = packed.read_bytes()
    for end in range(1, len(whole) - 1, 37):
        packed.write_bytes(whole[:end])
        with pytest.raises(FormatError):
            pofx.read(packed)
    packed.write_text(TEXT)
    with pytest.raises(FormatError, match=r"b.lhe.gz: .*gzip"):
        pofx.read(packed)
    packed.rename(tmp_path / "b.csv.gz")
    with pytest.raises(FormatError, match=r"unknown extension '.csv.gz'"):
        pofx.read(tmp_path / "b.csv.gz")
    with pytest.raises(CapabilityError, match=r"write \.lhe\.gz"):
        pofx.write(tmp_path / "c.lhe", data, compress=True)


def test_cut_anywhere(tmp_path: Path) -> None:
    """Every truncation is refused in words."""
    for end in range(1, TEXT.rindex("</LesHouches"), 23):
        with pytest.raises(FormatError):
            pofx.read(file(tmp_path, TEXT[:end]))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("4 1 -2.5E+00", "9 1 -2.5E+00", "expected 13 numbers"),
        ("4 1 -2.5E+00", "x 1 -2.5E+00", "line 11: expected 6 numbers"),
        (" 50.0 50.0", " 50.0 fifty", "line 12: expected 13 numbers"),
        ("</event>\n<event>", "<event>", "does not end"),
        ("4 1 -2.5E+00", "-4 1 -2.5E+00", "expected 6 numbers"),
    ],
)
def test_damage(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        pofx.read(file(tmp_path, TEXT.replace(old, new)))


def test_not_finite(tmp_path: Path) -> None:
    with pytest.raises(pofx.errors.NonFiniteError, match="row 0"):
        pofx.read(file(tmp_path, TEXT.replace(" 50.0 50.0", " nan 50.0")))
