"""The whole analysis, from the command line and from files, on little data; the numbers have tests of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pofx.cli import main
from pofx.errors import ConfigError, DataError
from pofx.tasks.classifier_surrogate.run import SCALES, Scale, Settings, run
from pofx.tasks.classifier_surrogate.surrogate import Surrogate

from .jets import toy_jets

TINY = Scale(jets=1500, steps=40, draws=4, quick=True)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCALES, "smoke", TINY)


@pytest.fixture
def table_of_jets(tmp_path: Path) -> Path:
    """A user's file, with names of their own."""
    jets = toy_jets(1500, 31)
    path = tmp_path / "my-jets.csv"
    rows = np.c_[jets.features[:, :3], jets.scores, jets.label]
    np.savetxt(path, rows, "%.10g", ",", header="ptJ,etaJ,mSD,DNN,isTop", comments="")
    return path


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["run", "classifier-surrogate", *map(str, words)])
    return int(stop.value.code or 0)


def test_file_of_a_user(table_of_jets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    chosen = ["--data", table_of_jets, "--features", "ptJ,etaJ,mSD,isTop", "--score", "DNN", "--label", "isTop"]
    asked = ["--context-range", "ptJ:200:450", "--out", out, "--scale", "smoke", "--seed", 3]
    assert command(*chosen, *asked) == 0
    shown = capsys.readouterr().out
    assert "DNN given ptJ, etaJ, mSD, isTop" in shown
    assert "jets outside the range" in shown
    table = json.loads((out / "table.json").read_text())
    assert table["jets"]["train"] + table["jets"]["test"] + table["jets"]["beyond"] == 1500
    assert set(table["judged"]) == {"surrogate", "Gaussian logit", "bins"}
    assert set(table["efficiencies"]) == {"all jets", "signal", "background"}
    assert abs(table["efficiencies"]["signal"]["surrogate"][0] - table["efficiencies"]["signal"]["counted"][0]) < 0.2
    page = (out / "report.html").read_text()
    assert "How sure is it?" in page
    assert "ptJ" in page
    made = {p.name for p in (out / "report-figures").iterdir()}
    assert {"scores.png", "calibration.png", "efficiency.pdf"} <= made
    found = Surrogate.load(out / "surrogate.pofx")
    assert found.trained_range["ptJ"][1] <= 450
    assert command(*chosen, *asked) == 2
    assert "has files already" in capsys.readouterr().err


@pytest.mark.slow
def test_toy(tmp_path: Path) -> None:
    table = run(tmp_path / "out", scale="smoke", seed=2)
    assert set(table["judged"]) == {"surrogate", "Gaussian logit", "bins", "truth"}
    truth, own = (table["judged"][name]["nll"] for name in ("truth", "surrogate"))
    assert own[0] > truth[0] - 3 * truth[1]
    assert "pt outside the range" in table["growth"]
    assert "pofx run classifier-surrogate --scale smoke --seed 2" in (tmp_path / "out" / "report.html").read_text()


def test_one_line_errors(table_of_jets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, data = ["--out", tmp_path / "out"], ["--data", table_of_jets]
    wrong = {
        "expected --out FOLDER": [*data],
        "say which columns": [*data, *out],
        "DNM": [*data, *out, "--features", "ptJ", "--score", "DNM"],
        "expected NAME:LOW:HIGH": [*data, *out, "--context-range", "ptJ:low"],
        "two rising numbers": [*data, *out, "--context-range", "ptJ:5:1"],
        "is for your own jets": [*out, "--context-range", "pt:200:300"],
        "no feature is called 'pt'": [*data, *out, "--features", "ptJ", "--score", "DNN", "--context-range", "pt:1:2"],
        "expected at least 200 jets inside": [
            *[*data, *out, "--features", "ptJ", "--score", "DNN"],
            *["--context-range", "ptJ:1:2"],
        ],
        "cut: expected a score between": [*data, *out, "--features", "ptJ", "--score", "DNN", "--cut", "1.5"],
        "no such file": ["--data", tmp_path / "none.csv", *out, "--features", "ptJ", "--score", "DNN"],
    }
    for told, words in wrong.items():
        assert command(*words, "--scale", "smoke") == 2
        error = capsys.readouterr().err
        assert told.lower() in error.lower(), (told, error)
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_settings() -> None:
    with pytest.raises(ConfigError, match="family must be one of"):
        Settings(family="gan")
    with pytest.raises(ConfigError, match="expected a scale out of"):
        run("nowhere", scale="huge")
    with pytest.raises(DataError, match="at least 200 jets"):
        run("nowhere", toy_jets(100, 1), scale="smoke")
