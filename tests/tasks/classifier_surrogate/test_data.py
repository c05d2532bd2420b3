"""Jets from arrays and files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pofx.data.spec import Column
from pofx.errors import ColumnError, ConfigError, DataError, NonFiniteError, PofxWarning, ShapeError
from pofx.tasks.classifier_surrogate.data import Tagged, feature_rows

RNG = np.random.default_rng(1)
PT, ETA, TOP, IS_TOP = RNG.uniform(200, 800, 300), RNG.normal(size=300), RNG.random(300), RNG.integers(0, 2, 300)


def write(path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez(path, pt=PT, eta=ETA, top=TOP, is_top=IS_TOP, w=1 + PT / 800)
    else:
        rows = np.c_[PT, ETA, TOP, IS_TOP, 1 + PT / 800]
        np.savetxt(path, rows, "%.17g", ",", header="pt,eta,top,is_top,w", comments="")
    return path


@pytest.mark.parametrize("name", ["jets.csv", "jets.npz"])
@pytest.mark.parametrize("features", [["eta", "pt"], ["pt", "eta", "is_top"]])
def test_files_with_their_own_names(tmp_path: Path, name: str, features: list[str]) -> None:
    jets = Tagged.read(write(tmp_path / name), features=features, score="top", label="is_top", weight="w")
    assert jets.names == tuple(features)
    known = {"pt": PT, "eta": ETA, "is_top": IS_TOP}
    np.testing.assert_allclose(jets.features, np.stack([known[f] for f in features], 1))
    np.testing.assert_allclose(jets.scores, TOP)
    np.testing.assert_array_equal(jets.label, IS_TOP == 1)
    np.testing.assert_allclose(jets.weight, 1 + PT / 800)


def test_wrong_files(tmp_path: Path) -> None:
    path = write(tmp_path / "jets.csv")
    with pytest.raises(ColumnError, match=r"'pT'|pT"):
        Tagged.read(path, features=["pT", "eta"], score="top")
    with pytest.raises(DataError, match="expected scores in"):
        Tagged.read(path, features=["eta"], score="pt")
    with pytest.raises(DataError, match="label: expected 300 numbers 0 or 1"):
        Tagged.read(path, features=["eta"], score="top", label="pt")
    with pytest.raises(ConfigError, match="features: expected at least one column"):
        Tagged.read(path, features=[], score="top")


def test_saturated_scores_are_refused_or_repaired() -> None:
    scores = np.r_[0.0, 1.0, 1.0, np.linspace(0.01, 0.99, 197)]
    c = np.arange(200.0)[:, None]
    with pytest.raises(DataError, match=r"3 of 200 scores are exactly 0 or 1, which have no logit; .*saturated='clip'"):
        Tagged.of(c, scores)
    with pytest.warns(PofxWarning, match="3 of 200 scores"):
        jets = Tagged.of(c, scores, saturated="clip")
    assert jets.scores[:3].tolist() == [0.01, 0.99, 0.99]
    assert "moved to the outermost other scores" in jets.note
    with pytest.raises(DataError, match="more than 5%: a lump"):
        Tagged.of(c[:20], scores[:20], saturated="clip")
    with pytest.raises(ConfigError, match="saturated: expected one of"):
        Tagged.of(c, scores, saturated="drop")


def test_refusals() -> None:
    with pytest.raises(ShapeError, match=r"expected shape \(2,\), one score per jet"):
        Tagged.of([[1.0], [2.0]], [0.5])
    with pytest.raises(NonFiniteError, match="row 1 has nan"):
        Tagged.of([[1.0], [np.nan]], [0.5, 0.5])
    with pytest.raises(ShapeError, match="weight: expected shape"):
        Tagged.of([[1.0], [2.0]], [0.5, 0.5], weight=[1.0])
    with pytest.raises(ColumnError, match="there is no eta"):
        feature_rows({"pt": [1.0]}, ("pt", "eta"))
    with pytest.raises(ColumnError, match="no feature is called 'm'"):
        Tagged.of({"pt": [1.0, 2.0]}, [0.1, 0.2]).within({"m": (0, 1)})


def test_parts() -> None:
    jets = Tagged.of(np.c_[PT, ETA], TOP, names=[Column("pt", "GeV", "bounded", 0.0), "eta"], label=IS_TOP)
    inside = jets.within({"pt": (300, 500), "eta": (-1, 1)})
    np.testing.assert_array_equal(inside, (PT >= 300) & (PT <= 500) & (abs(ETA) <= 1))
    first, rest = jets.split(0.3, seed=2)
    assert (len(first), len(rest)) == (90, 210)
    np.testing.assert_allclose(np.sort(np.r_[first.scores, rest.scores]), np.sort(TOP))
    assert feature_rows([300.0, 0.1], jets.names).shape == (1, 2)
