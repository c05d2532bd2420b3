"""`pofx compare A B` on the user's own files: what it prints, its exit status, and what is in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import pofx
from pofx.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``pofx compare`` with these words: exit code, stdout, stderr."""

    def call(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leave:
            main(["compare", *map(str, words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(leave.value.code or 0), out, err

    return call


def table(seed: int, n: int = 400, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"E": rng.exponential(1.0 + shift, n), "cos": rng.uniform(-1, 1, n), "w": rng.uniform(0.5, 1.5, n)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same kinds of events in files of several formats, written by others' tools as well."""
    folder = tmp_path_factory.mktemp("compare")
    truth, made = table(1), table(2, shift=1.0)
    head = ",".join(made)
    np.savetxt(
        folder / "truth.csv", np.stack(list(truth.values()), 1), delimiter=",", header="E [GeV],cos,w", comments=""
    )
    np.savetxt(
        folder / "turned.csv",
        np.stack(list(made.values()), 1)[:, [1, 0, 2]],
        delimiter=",",
        header="cos,E [GeV],w",
        comments="",
    )
    np.savetxt(folder / "mev.csv", np.stack(list(made.values()), 1), delimiter=",", header="E [MeV],cos,w", comments="")
    np.savez(folder / "made.npz", **made)
    np.savez(folder / "matrix.npz", generated=np.stack(list(made.values()), 1))
    pofx.write(folder / "made.h5", made)
    pofx.write(folder / "other.h5", {"E": made["E"], "theta": made["cos"], "w": made["w"]})
    pofx.write(folder / "same.h5", table(3))
    broken = np.stack(list(made.values()), 1)
    broken[5, 1] = np.nan
    np.savetxt(folder / "nan.csv", broken, delimiter=",", header=head, comments="")
    np.savetxt(folder / "empty.csv", broken[:0], delimiter=",", header=head, comments="")
    return folder


QUICK = ("-s", "ks,energy", "--replicas", "99")


@pytest.mark.parametrize("name", ["turned.csv", "made.npz", "made.h5", "matrix.npz"])
def test_formats_meet_and_columns_find_each_other(run: Any, folder: Path, name: str) -> None:
    code, out, _ = run(folder / "truth.csv", folder / name, *QUICK, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["columns"] == ["E", "cos", "w"]
    assert found["p_value"] == pytest.approx(0.02)
    parts = {part["name"]: part["global_p_value"] for part in found["results"][0]["parts"]}
    assert min(parts, key=parts.__getitem__) == "E"
    assert max(parts.values()) > 0.05


def test_a_report_of_the_users_files(run: Any, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    code, out, err = run(folder / "truth.csv", folder / "made.h5", *QUICK, "--weight", "w", "--html", page, "--seed", 3)
    assert code == 0
    assert "KS distance" in out
    assert f"report: {page}" in err
    text = "".join(ElementTree.fromstring(page.read_text().replace("<!DOCTYPE html>", "")).itertext())
    for words in (
        "Are they the same?", "truth.csv (400 events)", "KS distance", "The samples differ", "Where is it wrong?",
        "Tail of the weights: missing", "Tail of the weights: too many", "E [GeV]", "Spectra", "--statistics ks,energy --weight w --seed 3",
    ):  # fmt: skip
        assert words in text
    shown = sorted(path.name for path in (tmp_path / "report-figures").glob("*.png"))
    assert shown == ["pulls.png", "spectra.png", "tail-missing.png", "tail-too-many.png", "weights.png"]
    assert run(folder / "truth.csv", folder / "made.h5", *QUICK, "--html", page)[0] == 2  # the page is there already


def test_samples_of_one_law_are_not_told_apart(run: Any, folder: Path) -> None:
    code, out, _ = run(folder / "truth.csv", folder / "same.h5", *QUICK, "--columns", "E,cos")
    assert code == 0
    assert float(out.rsplit("p <= ", 1)[1]) > 0.05


def test_events_with_negative_weights_and_clouds_have_a_report(run: Any, folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    data = table(4, 200)
    pofx.write(tmp_path / "signed.h5", {**data, "w": np.where(rng.random(200) < 0.1, -1.0, 1.0)})
    page = tmp_path / "signed.html"
    assert run(folder / "truth.csv", tmp_path / "signed.h5", *QUICK, "--weight", "w", "--html", page)[0] == 0
    assert "expected weights of at least 0" in page.read_text()
    spec = {"points": pofx.data.Field("cloud", (4, 2), (pofx.data.Column("a"), pofx.data.Column("b")))}
    for name in "ab":
        masks = {"points": rng.random((60, 4)) < 0.7}
        data_set = pofx.Dataset.from_arrays({"points": rng.normal(size=(60, 4, 2))}, columns=spec, masks=masks)
        pofx.write(tmp_path / f"{name}.h5", data_set)
    code, out, _ = run(tmp_path / "a.h5", tmp_path / "b.h5", "--html", tmp_path / "clouds.html")
    assert (code, out.count("C2ST")) == (0, 1)
    assert "clouds of points need features=" in (tmp_path / "clouds.html").read_text()


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("truth.csv", "other.h5", "only a has cos and only b has theta"),
        ("truth.csv", "mev.csv", "column 'E' is in GeV in a and in MeV in b"),
        ("truth.csv", "nan.csv", "nan.csv"),
        ("empty.csv", "truth.csv", "empty.csv"),
        ("truth.csv", "missing.csv", "missing.csv"),
    ],
)
def test_wrong_files_are_one_line_and_code_2(run: Any, folder: Path, a: str, b: str, words: str) -> None:
    code, out, err = run(folder / a, folder / b, *QUICK)
    assert (code, out) == (2, "")
    assert err.startswith("pofx: error: ")
    assert err.count("\n") == 1
    assert words in err


def test_wrong_settings(run: Any, folder: Path) -> None:
    code, _, err = run(folder / "truth.csv", folder / "same.h5", "-s", "chi")
    assert code == 2
    assert "c2st, classifier" in err
    assert run(folder / "truth.csv", folder / "same.h5", "--replicas", "5")[0] == 2
    assert run(folder / "truth.csv", folder / "same.h5", "--null", "guess")[0] == 2
