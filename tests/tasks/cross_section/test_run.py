"""The whole analysis, from the command line and from files, on little data; the numbers have tests of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pofx.cli import main
from pofx.errors import ConfigError
from pofx.simulators.densities import Lognormal, correlation_matrix
from pofx.tasks.cross_section.check import check, directions
from pofx.tasks.cross_section.release import open_release
from pofx.tasks.cross_section.run import SCALES, Scale, Settings, run
from pofx.tasks.cross_section.universes import Universes

TRUTH = Lognormal.from_moments(np.linspace(1.0, 2.0, 4), 0.2 * correlation_matrix(4))
TINY = Scale(universes=0, by_source=0, checked=300, replicas=120, minutes=0.02, toys=1500)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setitem(SCALES, "smoke", TINY)
    monkeypatch.setenv("POFX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Universes with a source, and a table of predictions."""
    total = TRUTH.sample(900, 1)
    universes = Universes(total, TRUTH.moments()[0], TRUTH.columns(), {"flux": TRUTH.sample(150, 2)}, "toy")
    models = tmp_path / "models.csv"
    mean = TRUTH.moments()[0]
    rows = {"nominal": mean, "low": 0.1 * mean, "high": 2.5 * mean}
    lines = [",".join(["prediction", *universes.names])] + [
        ",".join([n, *map(repr, map(float, r))]) for n, r in rows.items()
    ]
    models.write_text("\n".join(lines) + "\n")
    return universes.write(tmp_path / "universes.h5"), models


def p_density(row: dict[str, Any]) -> float:
    """From toys, or from importance sampling where few are as improbable."""
    far = row["p_density_far_tail"]
    return far["value"] if far else row["p_density"]["value"]


def test_analysis_of_files(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "run",
                "cross-section",
                "--data",
                str(files[0]),
                "--predict",
                str(files[1]),
                "-o",
                str(out),
                "--scale",
                "smoke",
                "-m",
                "gaussian-copula",
            ]
        )
    assert stop.value.code == 0
    assert "global p" in capsys.readouterr().out
    table = json.loads((out / "table.json").read_text())
    assert table["check"].keys() == {"flux", "total"}
    assert table["check"]["total"]["global_p"] < 0.01
    assert table["density"]["gain_over_gaussian"][0] > 0.2
    low, high = (next(r for r in table["predictions"]["predictions"] if r["prediction"] == n) for n in ("low", "high"))
    assert low["chi2"] < high["chi2"]
    assert p_density(low) < p_density(high)
    page = (out / "report.html").read_text()
    assert "Is it Gaussian?" in page
    assert "not Gaussian" in page
    assert {"significances.png", "mahalanobis-distances.png", "calibration.pdf"} <= {
        p.name for p in (out / "report-figures").iterdir()
    }
    with pytest.raises(SystemExit) as stop:
        main(["run", "cross-section", "--release", str(out / "release"), "--predict", str(files[1])])
    assert stop.value.code == 0
    assert "low" in capsys.readouterr().out
    assert [column.name for column in open_release(out / "release").columns] == [
        column.name for column in TRUTH.columns()
    ]


@pytest.mark.slow
def test_subset_and_shape(files: tuple[Path, Path], tmp_path: Path) -> None:
    settings = Settings(model="gaussian", bins=[0, 2, 3], shape_only=True)
    table = run(tmp_path / "out", files[0], files[1], scale="smoke", settings=settings)
    assert table["bins"] == 2
    nominal, low = table["predictions"]["predictions"][:2]
    assert nominal["chi2"] == pytest.approx(low["chi2"], abs=1e-6)  # the same shape


def test_mean_and_covariance_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean, covariance = TRUTH.moments()
    np.savez(tmp_path / "measured.npz", data=mean, cov=covariance)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "run",
                "cross-section",
                "--measured",
                str(tmp_path / "measured.npz"),
                "--mean",
                "data",
                "--covariance",
                "cov",
                "-o",
                str(out),
                "--scale",
                "smoke",
            ]
        )
    assert stop.value.code == 0
    assert "cannot be tested" in capsys.readouterr().out
    table = json.loads((out / "table.json").read_text())
    assert table["rank"] == 4
    assert (out / "report.html").exists()
    assert open_release(out / "release").model is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --out FOLDER"),
        (["-o", "out", "--data", "nowhere.h5"], "nowhere.h5"),
        (["-o", "out", "--data", "universes.h5", "--bins", "a-b"], "--bins: expected numbers"),
        (["-o", "out", "--data", "universes.h5", "-m", "spline"], "must be one of"),
        (["-o", "out", "--data", "universes.h5", "--source", "flux"], "expected NAME=ARRAY"),
        (["--release", "."], "--predict FILE"),
    ],
)
def test_errors_are_one_line(
    files: tuple[Path, Path],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files[0].parent)
    with pytest.raises(SystemExit) as stop:
        main(["run", "cross-section", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_sources_are_projected_on_what_varies() -> None:
    rng = np.random.default_rng(3)
    rows = 1 + rng.normal(size=(400, 2)) @ rng.normal(size=(2, 9))
    found, share = directions(rows)
    assert found.shape == (400, 2)
    assert share == pytest.approx(1.0)
    one = check(Universes(rows), replicas=30, cache=False)["total"]
    assert (one.directions, one.bins) == (2, 9)
    assert one.found.is_gaussian(0.01)


def test_unknown_scale_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a scale"):
        run(tmp_path, scale="huge")
